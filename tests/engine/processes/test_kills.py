"""The engine in many processes on one directory: killed processes, and forks."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from flask_stalecache import CacheStatus, FileStore
from flask_stalecache.engine.engine import Engine
from flask_stalecache.engine.origin import Answer, Start
from flask_stalecache.engine.scheduling import housekeeper as housekeeping_module
from flask_stalecache.stats.counters import Counters
from support.engine import FakeOrigin, FakeRefresh, body_of, make_engine, make_entry, storable
from support.engine_processes import THREADS, Board, PublicOrigin, engine_of, is_free, store_long_ago, store_stale
from support.processes import Worker, forked, workers
from support.threads import PATIENCE, all_taken, crowd, go, locks_in, results, wait_until

# -- kills -----------------------------------------------------------------------------------------------------------


def call_for_ever(board: Board) -> None:
    def script(start: Start) -> Answer:
        board.say("calling")
        threading.Event().wait()
        return storable(start)

    engine_of(board).serve(FakeOrigin(script))


@pytest.mark.parametrize("stored", [False, True], ids=["cold", "expired"])
def test_who_waits_for_a_killed_process_gets_on(board: Board, stored: bool) -> None:
    if stored:
        store_long_ago(board)
    engine, origin = make_engine(board.cache), FakeOrigin()
    with workers(1) as made:
        made[0].start(call_for_ever, board)
        board.await_("calling", 1)
        waiting = crowd(THREADS, lambda: engine.serve(origin))
        wait_until(lambda: len(origin.asked) == THREADS)
        assert not is_free(board)
        assert origin.calls == 0
        made[0].kill()
        answers = results(waiting)
    assert {body_of(answer) for answer in answers} == {b"new"}
    assert origin.calls == 1
    assert engine.serve(origin).status is CacheStatus.HIT


def refresh_for_ever(board: Board) -> None:
    engine = engine_of(board)

    def script(start: Start) -> Answer:
        board.say("refreshing")
        threading.Event().wait()
        return storable(start)

    assert engine.serve(FakeOrigin()).refresh
    engine.runtime.submit(FakeRefresh(script))


def test_a_killed_refresh_is_done_by_the_next(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    store_stale(board)
    engine, job, real, shift = make_engine(board.cache), FakeRefresh(), time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: real() + shift[0])
    with workers(1) as made:
        made[0].run(refresh_for_ever, board)
        board.await_("refreshing", 1)
        assert engine.serve(FakeOrigin()).refresh
        engine.runtime.submit(job)
        assert engine.runtime.drain(PATIENCE)
        assert job.calls == 0
        made[0].kill()
    shift[0] += 1
    answered = engine.serve(FakeOrigin())
    assert (answered.status, body_of(answered), answered.refresh) == (CacheStatus.STALE, b"old", True)
    engine.runtime.submit(job)
    assert engine.runtime.drain(PATIENCE)
    assert body_of(engine.serve(FakeOrigin())) == b"new"


def pattern(serial: str, size: int) -> bytes:
    """Return a body that repeats a serial, so that every part of it shows which write it is from."""
    return (serial.encode() * (size // len(serial) + 1))[:size]


def write_for_ever(board: Board) -> None:
    store, chance = FileStore(board.cache), random.Random()
    while True:
        lock = store.lock("page")
        if not lock.acquire():
            continue
        serial = os.urandom(8).hex()
        store.write(make_entry(body=pattern(serial, chance.randrange(2_000_000)), serial=serial))
        note = store.load("page").note
        store.write_note("page", replace(note, failures=note.failures + 1))
        lock.release()


def kill_writers(board: Board, rounds: int, seed: int) -> dict[str, int]:
    """Kill a writer at a random moment, again and again, and read all the while."""
    chance, counters, reads = random.Random(seed), Counters(), 0
    store = FileStore(board.cache, counters=counters)
    for _ in range(rounds):
        before = store.load("page").entry
        pid = os.fork()
        if pid == 0:
            try:
                write_for_ever(board)
            finally:
                os._exit(1)
        try:
            wait_until(lambda before=before: store.load("page").entry != before, "a write")
            until = time.perf_counter() + chance.random() / 20
            while time.perf_counter() < until:
                reads += read_whole(store)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        reads += read_whole(store)
        lock = store.lock("page")
        assert lock.acquire(), "a killed writer's lock is held"
        entry = make_entry(body=b"the next writer's")
        store.write(entry)
        lock.release()
        assert FileStore(board.cache).load("page").entry == entry
        assert store.load("page").entry == entry
    return {"broken": counters["broken_entries"], "rounds": rounds, "reads": min(reads, rounds)}


def read_whole(store: FileStore) -> int:
    copy = store.lookup("page") or store.load("page")
    assert copy.entry is not None
    body = copy.entry.body
    assert body in (b"the next writer's", pattern(copy.entry.serial, len(body)))
    return 1


@pytest.mark.soak
def test_a_kill_at_any_moment_of_a_write_leaves_nothing_torn(
    team: list[Worker], board: Board, soak: Callable[[int, int], int]
) -> None:
    rounds = soak(50, 8)
    outcome = team[0].run(kill_writers, board, rounds, 20261121)
    assert outcome == {"broken": 0, "rounds": rounds, "reads": rounds}
    assert is_free(board)
    # Files that a killed writer has left are never taken for entries.
    assert {path.suffix for path in board.cache.glob("??/*")} <= {"", ".note", ".lock", ".tmp"}
    assert len([path for path in board.cache.glob("??/*") if path.suffix == ""]) == 1


# -- forks -----------------------------------------------------------------------------------------------------------


def use_all(engine: Engine) -> dict[str, Any]:
    """Use every part of an engine, from many threads at once. Return the outcomes, such as whether this process has refreshed."""
    outcome: dict[str, Any] = {"hit": (str(engine.serve(FakeOrigin(key="warm")).status))}
    key = f"cold-{os.urandom(8).hex()}"
    cold = FakeOrigin(lambda start: storable(start, key=key), key=key)
    cold.script = waiting_for_all(cold, 8, key)
    outcome["cold"] = {body_of(answer) for answer in results(crowd(8, lambda: engine.serve(cold)))}
    outcome["calls"] = cold.calls
    job = FakeRefresh(lambda start: storable(start, f"by {os.getpid()}".encode(), key="stale"), key="stale")
    answers = results(crowd(8, lambda: engine.serve(FakeOrigin(key="stale"))))
    outcome["stale"] = sorted(str(answer.status) for answer in answers)
    engine.runtime.submit(job)
    outcome["drained"] = engine.runtime.drain(PATIENCE)
    outcome["refreshed"] = body_of(engine.serve(FakeOrigin(key="stale"))) == f"by {os.getpid()}".encode()
    engine.runtime.tick()
    return outcome


def waiting_for_all(origin: FakeOrigin, count: int, key: str) -> Callable[[Start], Answer]:
    def script(start: Start) -> Answer:
        wait_until(lambda: len(origin.asked) == count)
        return storable(start, key=key)

    return script


def make_stale(engine: Engine) -> None:
    engine.store.write(make_entry("stale", b"old", windows=(60, 10**6, 10**6), started=time.time() - 1000))


GOOD = {
    "hit": "HIT",
    "cold": {b"new"},
    "calls": 1,
    "stale": ["STALE"] + ["UPDATING"] * 7,
    "drained": True,
    "refreshed": True,
}


def fork_after_use(board: Board, state: str) -> list[dict[str, Any]]:
    """Use an engine, fork it, and use it in the child and then in the parent again."""
    engine = make_engine(board.cache)
    engine.store.write(make_entry("warm", windows=(10**6, 0, 0)))
    make_stale(engine)
    outcomes = [use_all(engine)]
    make_stale(engine)
    engine.store.load("stale")
    locks = locks_in(engine) if state == "locks taken" else []
    assert state != "locks taken" or len(locks) >= 4
    with all_taken(locks):
        outcomes.append(forked(lambda: use_all(engine)))
    make_stale(engine)
    outcomes.append(use_all(engine))
    return outcomes


@pytest.mark.parametrize("state", ["at rest", "locks taken"])
def test_an_engine_works_in_a_forked_process_and_in_its_parent(team: list[Worker], board: Board, state: str) -> None:
    """Locks of copies, flights, refreshes and the pool that a thread of the parent held at the fork do not block the child."""
    assert team[0].run(fork_after_use, board, state) == [GOOD] * 3


def fork_in_a_flight(board: Board) -> dict[str, Any]:
    """Fork while another thread leads a flight, holds the key's lock, and a refresh runs."""
    engine, go_on = make_engine(board.cache), threading.Event()
    engine.store.write(make_entry("stale", b"old", windows=(60, 10**6, 10**6), started=time.time() - 1000))

    def script(key: str) -> Callable[[Start], Answer]:
        def answer(start: Start) -> Answer:
            assert go_on.wait(PATIENCE)
            return storable(start, b"the parent's", key=key)

        return answer

    slow = FakeOrigin(script("page"))
    leading = go(engine.serve, slow)
    wait_until(lambda: slow.calls)
    job = FakeRefresh(script("stale"), key="stale")
    assert engine.serve(FakeOrigin(key="stale")).refresh
    engine.runtime.submit(job)
    wait_until(lambda: job.calls)

    def child() -> dict[str, Any]:
        impatient = FakeOrigin(lambda start: storable(start, b"the child's", key="page"), patience=0.2)
        free_before = is_free(board)
        answered = go(engine.serve, impatient).result(PATIENCE)
        stale = engine.serve(FakeOrigin(key="stale"))
        return {
            "lock free in child": free_before or is_free(board) or is_free(board, "stale"),
            "child": (body_of(answered), impatient.calls),
            "child stale": body_of(stale),
            "drained": engine.runtime.drain(PATIENCE),
        }

    outcome = forked(child)
    outcome["lock free after child"] = is_free(board) or is_free(board, "stale")
    go_on.set()
    outcome["parent"] = body_of(leading.result(PATIENCE))
    outcome["parent drained"] = engine.runtime.drain(PATIENCE)
    outcome["parent stale"] = body_of(engine.serve(FakeOrigin(key="stale")))
    outcome["lock free at last"] = is_free(board) and is_free(board, "stale")
    return outcome


def test_a_fork_in_the_middle_of_calls_leaves_both_processes_their_own(team: list[Worker], board: Board) -> None:
    assert team[0].run(fork_in_a_flight, board) == {
        "lock free in child": False,
        "child": (b"the child's", 1),
        "child stale": b"old",
        "drained": True,
        "lock free after child": False,
        "parent": b"the parent's",
        "parent drained": True,
        "parent stale": b"the parent's",
        "lock free at last": True,
    }


def fork_and_outlive(board: Board) -> bool:
    """Fork while a lock is held. Return whether it is free once the parent has released it, although the child lives on."""
    engine, go_on = make_engine(board.cache), threading.Event()

    def script(start: Start) -> Answer:
        assert go_on.wait(PATIENCE)
        return storable(start)

    slow = FakeOrigin(script)
    leading = go(engine.serve, slow)
    wait_until(lambda: slow.calls)

    def child() -> bool:
        board.say("child")
        board.await_("released", 1)
        return is_free(board)

    living = go(forked, child)
    board.await_("child", 1)
    go_on.set()
    leading.result(PATIENCE)
    free_for_parent = is_free(board)
    board.say("released")
    return free_for_parent and bool(living.result(PATIENCE))


def test_a_child_does_not_keep_its_parents_locks(team: list[Worker], board: Board) -> None:
    assert team[0].run(fork_and_outlive, board)


def keep_house_in_both(board: Board) -> tuple[bool, bool]:
    housekeeping_module.INTERVAL = 0.005
    engine, pids = make_engine(board.cache), list[int]()
    tick = engine.store.tick
    engine.store.tick = lambda: (pids.append(os.getpid()), tick())  # type: ignore[method-assign]
    engine.serve(FakeOrigin())
    wait_until(lambda: pids)

    def child() -> bool:
        pids.clear()
        engine.serve(FakeOrigin(lambda start: storable(start, key="another"), key="another"))
        wait_until(lambda: pids)
        return set(pids) == {os.getpid()}

    return forked(child), set(pids) == {os.getpid()}


def test_a_forked_process_keeps_its_own_house(board: Board) -> None:
    with workers(1) as made:
        assert made[0].run(keep_house_in_both, board) == (True, True)


def fork_many(board: Board, forks: int) -> list[dict[str, Any]]:
    """Fork as a preloading server does: several children of one warm parent, all alive and busy at once."""
    engine = make_engine(board.cache)
    engine.store.write(make_entry("warm", windows=(10**6, 0, 0)))
    make_stale(engine)
    engine.serve(FakeOrigin(key="warm"))
    origin = PublicOrigin(key="shared", board=board)

    def script(start: Start) -> Answer:
        board.await_("asked", forks * THREADS)
        return storable(start, f"by {os.getpid()}".encode(), key="shared")

    origin.script = script

    def child() -> dict[str, Any]:
        answers = results(crowd(THREADS, lambda: engine.serve(origin)))
        return {"bodies": {body_of(answer) for answer in answers}, "hit": str(engine.serve(FakeOrigin(key="warm")).status)}

    return results([go(forked, child) for _ in range(forks)])


def test_children_of_one_parent_collapse_among_each_other(team: list[Worker], board: Board) -> None:
    outcomes = team[0].run(fork_many, board, 3)
    assert len(outcomes) == 3
    assert board.heard("called") == 1
    assert all(outcome == outcomes[0] for outcome in outcomes)
    assert outcomes[0]["hit"] == "HIT"
    assert len(outcomes[0]["bodies"]) == 1
