"""Many connections at once: after forks, and more than the server takes. No answer goes astray, and nothing raises."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flask_stalecache.stores.shared.store import RedisStore
from support.processes import workers
from support.shared_hosts import Server
from support.store_contract import begun
from support.threads import PATIENCE, crowd, results, wait_until

THREADS, CHILDREN = 5, 4
#: Answers with the question, so that the answer to another thread's or process's question shows.
ECHO = "return ARGV[1]"


def make_store(url: str, place: Path) -> RedisStore:
    return RedisStore(url, place, name="test", timeout=PATIENCE, purge_wait=0)


def ask(store: RedisStore, turns: int) -> list[str]:
    """Ask in several threads at once, and return the answers that were somebody else's."""

    def ask_often() -> list[str]:
        wrong = []
        for _ in range(turns):
            question = os.urandom(16).hex()
            answer = store._client.run(ECHO, ("stalecache:{test}:m",), (question,)).decode()
            if answer != question:
                wrong.append(f"{question}: {answer}")
        return wrong

    return [one for wrong in results(crowd(THREADS, ask_often)) for one in wrong]


def storm(url: str, place: Path, turns: int) -> list[str]:
    """Fork with connections in use, and let all processes ask at once."""
    store = make_store(url, place)
    store.load("first use")
    wrong = ask(store, 2)
    children = []
    for _ in range(CHILDREN):
        child = os.fork()
        if child == 0:
            is_sound = False
            try:
                is_sound = not ask(store, turns) and store.write(begun(store, f"page {os.getpid()}"))
            finally:
                os._exit(0 if is_sound else 1)
        children.append(child)
    wrong += ask(store, turns)
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return [*wrong, *(f"a child ended with {end}" for end in ends if end)]


@pytest.mark.soak
def test_a_storm_of_connections_after_forks(server: Server, tmp_path: Path, soak: Callable[[int, int], int]) -> None:
    with workers(1) as (worker,):
        assert worker.run(storm, server.url, tmp_path / "host", soak(300, 10)) == []
        # Each process has at most one connection for each thread, and one for a command that waits at the server.
        info = server.client().info("clients")
        assert info["connected_clients"] <= (1 + CHILDREN) * (THREADS + 1) + 1
    wait_until(lambda: server.client().info("clients")["connected_clients"] <= 2, "the end of connections")
    another = make_store(server.url, tmp_path / "another")
    another.load("first use")
    assert len(list(another.walk())) == CHILDREN


def test_more_connections_than_the_server_takes(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(folder, options=["--maxclients", "4"])
    try:
        stores = [RedisStore(server.url, tmp_path / str(number), name="test", timeout=1, purge_wait=0) for number in range(2)]

        def use(store: RedisStore, key: str) -> None:
            lock = store.lock(key)
            if lock.acquire():
                assert store.load(key).entry is None
                assert store.write(begun(store, key))
                lock.release()
            copy = store.load(key)
            assert copy.entry is None or copy.entry.body == b"old"

        def use_all(turn: int = 0) -> None:
            for number in range(4):
                for store in stores:
                    use(store, f"{os.urandom(4).hex()} {number}")

        results(crowd(8, use_all))
        for store in stores:
            for client in store._client._clients.values():
                client.connection_pool.disconnect()
        for store in stores:
            store.follower.read_once()
            assert not store._known.is_down
        assert stores[0].write(begun(stores[0], "after"))
        stores[1].follower.read_once()
        assert stores[1].load("after").entry is not None
    finally:
        server.close()
