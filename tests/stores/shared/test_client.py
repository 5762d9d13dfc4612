"""A server that fails, really: nobody sees an error, and each host waits for an outage once. Covers ``stores.shared.errors_of``."""

from __future__ import annotations

import gc
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import valkey

from flask_stalecache import ConfigError, StoreError
from flask_stalecache.stats.counters import Counters
from flask_stalecache.stats.registry import Registry
from flask_stalecache.stores.shared.client import from_url, named
from flask_stalecache.stores.shared.store import RedisStore
from support.endurance import IS_SOAK
from support.shared_hosts import PROGRAMS, Server, documented_rights
from support.store_contract import NEWS, NOTE, begun
from support.threads import wait_until

MakeStore = Callable[..., RedisStore]


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    def make(source: Any, host: str = "one", **settings: Any) -> RedisStore:
        return RedisStore(source, tmp_path / host, name="test", **{"purge_wait": 0, "timeout": 0.3, **settings})

    return make


@pytest.fixture(params=PROGRAMS)
def mortal(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server of this test only."""
    server = Server(tmp_path_factory.mktemp("mortal"), kind=request.param)
    yield server
    server.close()


def live_through(store: RedisStore) -> None:
    """Do all that a visitor may cause, alone: nothing raises, and everything works as on one host."""
    assert store.load("alone").entry is None
    lock = store.lock("alone")
    assert lock.acquire()
    assert not store.lock("alone").acquire()
    assert store.write(begun(store, "alone"))
    lock.release()
    copy = store.load("alone")
    assert copy.entry is not None
    assert store.lookup("alone") is copy
    store.write_note("alone", NOTE)
    assert store.load("alone").note == NOTE
    store.remove("alone")
    assert store.load("alone").entry is None
    assert list(store.walk()) is not None
    store.tick()


def downs(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "can't be used" in record.getMessage()]


def test_a_killed_server(mortal: Server, make_store: MakeStore, caplog: pytest.LogCaptureFixture) -> None:
    store = make_store(mortal.url)
    assert store.write(begun(store))
    store.load("page")
    mortal.kill()
    assert store.lookup("page") is not None
    live_through(store)
    live_through(store)
    assert len(downs(caplog)) == 1
    with pytest.raises(StoreError, match="on this host only"):
        store.purge(NEWS, soft=False)
    assert store.load("page").entry is None
    store.follower.stop()


@pytest.mark.grid
@pytest.mark.parametrize("back", ["with its data", "empty"])
def test_a_server_that_comes_back(mortal: Server, make_store: MakeStore, back: str) -> None:
    one, two = make_store(mortal.url, "one"), make_store(mortal.url, "two")
    for store in (one, two):
        assert store.write(begun(store))
        assert store.write(begun(store, "sport", names=("all",)))
        store.load("page")
    mortal.save()
    mortal.kill()
    with pytest.raises(StoreError):
        one.purge(NEWS, soft=False)
    assert two.load("page").entry is not None
    if back == "empty":
        (mortal.folder / "dump.rdb").unlink()
    mortal.start()
    for store in (one, two, one, two):
        store.follower.read_once()
    # The purge that nobody could hear is made again.
    assert one.load("page").entry is None
    assert two.load("page").entry is None
    entry = two.load("sport").entry
    assert entry is not None
    assert entry.ended is (back == "empty")
    assert one.write(begun(one, body=b"new"))
    two.follower.read_once()
    copy = two.load("page")
    assert copy.entry is not None
    assert copy.entry.body == b"new"


def test_a_server_that_hangs_costs_a_host_one_patience(
    mortal: Server, make_store: MakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    store, other = make_store(mortal.url), make_store(mortal.url)
    assert store.write(begun(store))
    other.load("page")
    mortal.hang()
    live_through(store)
    # Another process of the same host asks no more.
    live_through(other)
    assert other.lookup("page") is not None
    assert len(downs(caplog)) == 1
    mortal.go_on()
    store.follower.read_once()
    assert store.load("news").entry is None
    store.follower.stop()
    other.follower.stop()


def test_a_server_that_is_slow_is_asked_again_while_the_host_hears_it(
    mortal: Server, make_store: MakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(mortal.url)
    store.load("page")
    # The follower has just heard it.
    store._known.has_heard()
    mortal.hang()
    threading.Timer(0.5, mortal.go_on).start()
    other = make_store(mortal.url, "two")
    assert store.load("page").entry is None
    assert not downs(caplog)
    assert other.load("page").entry is None


@pytest.mark.grid
@pytest.mark.parametrize("policy", ["noeviction", "allkeys-lru", "volatile-lru", "allkeys-random"])
def test_a_full_memory(mortal: Server, make_store: MakeStore, policy: str) -> None:
    client = mortal.client()
    one, two = make_store(mortal.url, "one"), make_store(mortal.url, "two")
    assert one.load("page").entry is None
    assert one.write(begun(one))
    assert two.load("page").entry is not None
    client.config_set("maxmemory-policy", policy)
    client.config_set("maxmemory", client.info("memory")["used_memory"] + 300_000)
    for number in range(40):
        entry = begun(one, f"page/{number}", os.urandom(30_000), names=("all",))
        assert one.write(entry)
        assert one.load(f"page/{number}").entry is not None
    live_through(one)
    # A purge needs no room, or makes some.
    one.purge(NEWS, soft=False)
    assert one.load("page").entry is None
    two.follower.read_once()
    copy = two.load("page")
    # With a policy that may evict the bookkeeping, a new generation begins: everything is stale.
    assert copy.entry is None or copy.entry.ended

    def is_purged_there() -> bool:
        # The follower of the first host says the purge again, if it was lost.
        two.follower.read_once()
        return two.load("page").entry is None

    wait_until(is_purged_there)
    one.follower.stop()


@pytest.mark.parametrize("after", range(4))
def test_bookkeeping_that_is_evicted_before_a_purge_and_during_it(
    server: Server, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    one, two = make_store(server.url, "one"), make_store(server.url, "two")
    for store in (one, two):
        assert store.load("page").entry is None
    assert one.write(begun(one))
    assert two.load("page").entry is not None
    run, commands = one._client.run, iter(range(10))
    server.client().delete("stalecache:{test}:m")

    def run_and_evict(*args: Any, **options: Any) -> Any:
        answer = run(*args, **options)
        if next(commands) < after:
            server.client().delete("stalecache:{test}:m")
        return answer

    monkeypatch.setattr(one._client, "run", run_and_evict)
    one.purge(NEWS, soft=False)
    assert one.load("page").entry is None
    monkeypatch.undo()
    one.follower.read_once()
    two.follower.read_once()
    assert two.load("page").entry is None
    # What is made after it stays.
    assert one.write(begun(one, body=b"new"))
    for store in (one, two, one, two):
        store.follower.read_once()
    assert [store.load("page").entry is not None for store in (one, two)] == [True, True]


def acl(server: Server, *rules: str) -> str:
    server.client().execute_command("ACL", "SETUSER", "web", "reset", "on", ">secret", "~stalecache:{test}:*", "-@all", *rules)
    return f"unix://web:secret@{server.socket}"


def test_the_least_rights_suffice(mortal: Server, make_store: MakeStore, caplog: pytest.LogCaptureFixture) -> None:
    url = acl(mortal, *documented_rights())
    one, two = make_store(url, "one"), make_store(url, "two", purge_wait=0.01)
    assert one.load("page").entry is None
    assert one.write(begun(one))
    assert two.load("page").entry is not None
    two.purge(NEWS, soft=False)
    one.follower.read_once()
    assert one.load("page").entry is None
    assert list(one.walk()) == []
    numbers = Registry(Counters()).read(0, 0, None)
    two.numbers.tell(numbers)
    assert one.numbers.look(numbers).problem == ""
    one.numbers.fold()
    live_through(one)
    one.follower.stop()
    assert not downs(caplog)


def refused(server: Server) -> tuple[str, str]:
    return f"unix://web:wrong@{server.socket}", "user or password"


def denied(server: Server) -> tuple[str, str]:
    return acl(server, "+hello", "+client|setinfo", "+evalsha", "+eval", "+select"), "rights"


def replica(server: Server) -> tuple[str, str]:
    server.client().replicaof("127.0.0.1", 1)
    server.client().config_set("replica-serve-stale-data", "yes")
    return server.url, "replica"


def nobody(server: Server) -> tuple[str, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"redis://127.0.0.1:{free.getsockname()[1]}/0", "connected"


@pytest.mark.grid
@pytest.mark.parametrize("case", [refused, denied, replica, nobody])
def test_a_server_that_refuses(
    mortal: Server, make_store: MakeStore, caplog: pytest.LogCaptureFixture, case: Callable[[Server], tuple[str, str]]
) -> None:
    url, said = case(mortal)
    store = make_store(url)
    live_through(store)
    store.follower.stop()
    (line,) = downs(caplog)
    assert said in line
    assert "secret" not in line
    assert "wrong" not in line.partition("(")[0]


@pytest.fixture
def web_server() -> Iterator[int]:
    """Return the port of a server that speaks HTTP."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                peer.recv(1000)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    threading.Thread(target=answer, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


def test_something_else_listens(web_server: int, make_store: MakeStore, caplog: pytest.LogCaptureFixture) -> None:
    store = make_store(f"redis://127.0.0.1:{web_server}/0")
    live_through(store)
    store.follower.stop()
    (line,) = downs(caplog)
    assert "no Redis or Valkey" in line or "connected" in line


class Proxy:
    """Passes bytes to a server, late, and cuts a connection after some of them."""

    def __init__(self, target: str, delay: float, cut_after: int) -> None:
        self.target, self.delay, self.cut_after = target, delay, cut_after
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(self.target)
            threading.Thread(target=self.pump, args=(near, far, 0.0, 1 << 40), daemon=True).start()
            threading.Thread(target=self.pump, args=(far, near, self.delay, self.cut_after), daemon=True).start()

    def pump(self, source: socket.socket, sink: socket.socket, delay: float, left: int) -> None:
        try:
            while left > 0 and (data := source.recv(4096)):
                time.sleep(delay)
                sink.sendall(data[:left])
                left -= len(data)
        except OSError:
            pass
        for each in (source, sink):
            each.close()


#: Seconds by which a proxy is late, bytes after which it cuts a connection, and whether the server can be used through it.
PROXIES = [(0.005, 3000, True)]
if IS_SOAK:
    PROXIES += [(0.0, 150, False), (0.0, 700, False), (0.0, 5000, True), (0.05, 5000, True), (0.5, 1 << 40, False)]


@pytest.mark.parametrize(("delay", "cut_after", "is_usable"), PROXIES)
def test_a_proxy_that_delays_and_cuts(server: Server, make_store: MakeStore, delay: float, cut_after: int, is_usable: bool) -> None:
    proxy = Proxy(str(server.socket), delay, cut_after)
    far = make_store(f"redis://127.0.0.1:{proxy.port}/0", "far")
    near = make_store(server.url, "near")
    for number in range(8):
        assert far.write(begun(far, f"page/{number}", os.urandom(2000)))
        live_through(far)
    near.purge(NEWS, soft=False)
    far._known.down_until = 0.0
    for _ in range(20 if is_usable else 2):
        try:
            far.follower.read_once()
            break
        except StoreError:
            far._known.down_until = 0.0
    else:
        assert not is_usable
    if is_usable:
        assert all(far.load(f"page/{number}").entry is None for number in range(8))
    live_through(far)
    far.follower.stop()
    proxy.listener.close()


def test_a_forked_child_has_connections_of_its_own(server: Server, make_store: MakeStore) -> None:
    store = make_store(server.url)
    assert store.write(begun(store))
    child = os.fork()
    if child == 0:
        try:
            is_sound = all(store.load(f"news/{number}").entry is None for number in range(50)) and store.write(
                begun(store, "child")
            )
            os._exit(0 if is_sound else 1)
        finally:
            os._exit(2)
    for number in range(50):
        assert store.load(f"news/{number}").entry is None
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.load("child").entry is not None


def test_a_store_that_is_dropped_closes_its_connections(server: Server, make_store: MakeStore) -> None:
    """At once: the socket may be collected before the client, whose own end would come too late."""
    store = make_store(server.url)
    assert store.write(begun(store))
    client = next(iter(store._client._clients.values()))
    (connection,) = client.connection_pool._available_connections
    assert connection._sock is not None
    del store
    gc.collect()
    assert connection._sock is None


@pytest.mark.parametrize("module", [redis.Redis, valkey.Valkey])
def test_a_callable_that_makes_a_client(server: Server, make_store: MakeStore, module: Any) -> None:
    store = make_store(lambda: module(unix_socket_path=str(server.socket)))
    assert store.write(begun(store))
    store.purge(NEWS, soft=False)
    assert store.load("page").entry is None


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "valkeys"])
def test_urls(scheme: str) -> None:
    client = from_url(f"{scheme}://user:secret@shop.example:7000/2", 1.5)
    known = client.connection_pool.connection_kwargs
    assert (known["host"], known["port"], known["db"], known["socket_timeout"]) == ("shop.example", 7000, 2, 1.5)
    assert named(f"{scheme}://user:secret@shop.example:7000/2") == f"{scheme}://shop.example:7000/2"


def test_without_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_stalecache.stores.shared.client.import_module", missing)
    with pytest.raises(ConfigError, match="redis"):
        from_url("redis://localhost", 1)


@pytest.mark.parametrize("url", ["http://localhost", "localhost:6379", "redis://localhost:port/0", "redis://localhost:99999999"])
def test_urls_that_are_none(make_store: MakeStore, url: str) -> None:
    with pytest.raises(ConfigError):
        make_store(url).check()


def test_a_callable_that_raises(make_store: MakeStore, caplog: pytest.LogCaptureFixture) -> None:
    def make() -> Any:
        raise ZeroDivisionError("no token")

    store = make_store(make)
    live_through(store)
    store.follower.stop()
    assert len([record for record in caplog.records if "could not be made: no token" in record.getMessage()]) == 1


def missing(name: str) -> None:
    raise ImportError(name)


@pytest.fixture(autouse=True)
def warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "flask_stalecache")
