"""Many processes on one directory: real processes, real locks, real kills."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from flask_stalecache import CacheStatus, FileStore
from flask_stalecache.engine import housekeeper as housekeeping_module
from flask_stalecache.engine.engine import Engine
from flask_stalecache.engine.origin import Answer, Start
from flask_stalecache.stats.counters import Counters
from support.engine import FakeOrigin, FakeRefresh, body_of, failed, make_engine, make_entry, storable, unstorable
from support.processes import Worker, forked, workers
from support.threads import PATIENCE, all_taken, crowd, go, locks_in, results, wait_until

PROCESSES, THREADS = 3, 6
EVERYBODY = PROCESSES * THREADS

#: What a worker has of each directory, as a server's worker does: one engine for all requests.
ENGINES: dict[Path, Engine] = {}


@dataclass(frozen=True)
class Board:
    """Where processes tell each other how far they are: one file for each thing said."""

    place: Path

    @property
    def cache(self) -> Path:
        return self.place / "cache"

    def say(self, word: str) -> None:
        (self.place / f"{word}-{os.getpid()}-{os.urandom(8).hex()}").touch()

    def heard(self, word: str) -> int:
        return len(self.speakers(word))

    def speakers(self, word: str) -> list[int]:
        return [int(name.split("-")[1]) for name in os.listdir(self.place) if name.startswith(f"{word}-")]

    def await_(self, word: str, count: int) -> None:
        wait_until(lambda: self.heard(word) >= count, f"{count} times {word}")


@dataclass
class PublicOrigin(FakeOrigin):
    """An origin that tells other processes who is about to queue, and who calls it."""

    board: Board = Board(Path())

    @property
    def lock_timeout(self) -> float:
        if threading.get_ident() not in self.asked:
            self.asked.add(threading.get_ident())
            self.board.say("asked")
        return self.patience

    def call(self, start: Start) -> Answer:
        self.board.say("called")
        return super().call(start)


def engine_of(board: Board, **settings: Any) -> Engine:
    if board.cache not in ENGINES:
        ENGINES[board.cache] = make_engine(board.cache, **settings)
    return ENGINES[board.cache]


def is_free(board: Board, key: str = "page") -> bool:
    lock = FileStore(board.cache).lock(key)
    free = lock.acquire()
    lock.release()
    return free


@pytest.fixture(scope="module")
def team() -> Iterator[list[Worker]]:
    with workers(PROCESSES) as made:
        yield made


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


def together(team: list[Worker], function: Callable[..., Any], *args: Any) -> list[Any]:
    """Run a function in all processes at once, and return what came of it."""
    for worker in team:
        worker.start(function, *args)
    return [worker.result() for worker in team]


def store_long_ago(board: Board) -> None:
    FileStore(board.cache).write(make_entry(body=b"old", windows=(60, 600, 3600), started=time.time() - 10**6))


# -- collapsing ------------------------------------------------------------------------------------------------------


def visit_at_once(board: Board, windows: tuple[float, float, float]) -> list[tuple[str, bytes, bool, bool]]:
    """Let some visitors come to this process; whoever calls waits until those of all processes are there."""

    def script(start: Start) -> Answer:
        board.await_("asked", EVERYBODY)
        return storable(start, f"made by {os.getpid()}".encode(), windows=windows)

    origin = PublicOrigin(script, board=board)
    answers = results(crowd(THREADS, lambda: engine_of(board).serve(origin)))
    return [(str(answer.status), bytes(body_of(answer)), answer.stored, answer.collapsed) for answer in answers]


@pytest.mark.parametrize("stored", [False, True], ids=["cold", "expired"])
@pytest.mark.parametrize("windows", [(60, 0, 0), (0, 0, 0)], ids=["fresh", "stale at once"])
def test_all_visitors_of_all_processes_cost_one_call(
    team: list[Worker], board: Board, stored: bool, windows: tuple[float, float, float]
) -> None:
    """Whoever waited is served what was stored, in other processes too, and even if it is no longer fresh."""
    if stored:
        store_long_ago(board)
    seen = [visitor for answers in together(team, visit_at_once, board, windows) for visitor in answers]
    assert len(seen) == EVERYBODY
    (caller,) = board.speakers("called")
    assert {(status, body) for status, body, _, _ in seen} == {("EXPIRED" if stored else "MISS", f"made by {caller}".encode())}
    assert [was_stored for _, _, was_stored, _ in seen].count(True) == 1
    assert [collapsed for _, _, _, collapsed in seen].count(True) == EVERYBODY - 1
    assert is_free(board)


def visit_what_cannot_be_stored(board: Board) -> list[object]:
    """Let some visitors come: the first call goes on once all are there, all others only if they run at the same time."""

    def script(_: Start) -> Answer:
        if board.heard("called") == 1:
            board.await_("asked", EVERYBODY)
            return unstorable()
        board.await_("called", EVERYBODY)
        return unstorable()

    origin = PublicOrigin(script, board=board)
    return [body_of(answer) for answer in results(crowd(THREADS, lambda: engine_of(board).serve(origin)))]


def visit_after_the_mark(board: Board) -> list[object]:
    def script(_: Start) -> Answer:
        board.say("late")
        board.await_("late", EVERYBODY)
        return unstorable()

    return [body_of(answer) for answer in results(crowd(THREADS, lambda: engine_of(board).serve(FakeOrigin(script))))]


def test_nobody_in_any_process_queues_for_what_cannot_be_stored(team: list[Worker], board: Board) -> None:
    seen = [body for answers in together(team, visit_what_cannot_be_stored, board) for body in answers]
    assert seen == ["for nobody else"] * EVERYBODY
    assert board.heard("called") == EVERYBODY
    seen = [body for answers in together(team, visit_after_the_mark, board) for body in answers]
    assert seen == ["for nobody else"] * EVERYBODY
    assert is_free(board)


def visit_and_fail(board: Board) -> list[str]:
    def script(start: Start) -> Answer:
        board.say("in")
        # One process at a time: nobody comes in while another is there.
        assert board.heard("in") == board.heard("out") + 1
        if board.heard("in") == 1:
            board.await_("asked", EVERYBODY)
        board.say("out")
        return failed()

    origin = PublicOrigin(script, board=board)
    answers = results(crowd(THREADS, lambda: engine_of(board).serve(origin)))
    return [type(answer.answer.error).__name__ for answer in answers if answer.answer is not None]


def test_a_failure_is_shared_in_a_process_and_others_try_one_at_a_time(team: list[Worker], board: Board) -> None:
    seen = [name for names in together(team, visit_and_fail, board) for name in names]
    assert seen == ["ConnectionError"] * EVERYBODY
    callers = board.speakers("called")
    assert PROCESSES <= len(callers) < EVERYBODY
    assert set(callers) == {worker.process.pid for worker in team}
    assert is_free(board)


# -- refreshes -------------------------------------------------------------------------------------------------------


def store_stale(board: Board) -> None:
    FileStore(board.cache).write(make_entry(body=b"old", windows=(60, 10**6, 10**6), started=time.time() - 1000))


def hit_stale(board: Board, answer: Callable[[Start], Answer]) -> list[tuple[str, bool]]:
    """Visit a stale page and hand over its refresh; the first one waits until those of the other processes gave up."""
    engine = engine_of(board, REFRESH_BACKOFF=(300, 300))

    def script(start: Start) -> Answer:
        board.say("refreshed")
        board.await_("done", PROCESSES - 1)
        return answer(start)

    answers = results(crowd(THREADS, lambda: engine.serve(FakeOrigin())))
    assert {body_of(answered) for answered in answers} == {b"old"}
    board.say("seen")
    board.await_("seen", PROCESSES)
    for answered in answers:
        if answered.refresh:
            engine.submit(FakeRefresh(script))
    assert engine.drain(PATIENCE)
    board.say("done")
    return [(str(answered.status), answered.refresh) for answered in answers]


def look(board: Board) -> tuple[str, object]:
    answered = engine_of(board).serve(FakeOrigin())
    return str(answered.status), body_of(answered)


def fail_to_refresh(_: Start) -> Answer:
    return failed()


@pytest.mark.parametrize(
    ("answer", "after"), [(storable, ("HIT", b"new")), (fail_to_refresh, ("UPDATING", b"old"))], ids=["good", "failed"]
)
def test_one_refresh_runs_over_all_processes(
    team: list[Worker], board: Board, answer: Callable[[Start], Answer], after: tuple[str, bytes]
) -> None:
    """One visitor a process hands one over, one of these runs, and what came of it holds for all."""
    store_stale(board)
    seen = together(team, hit_stale, board, answer)
    assert [sorted(answers) for answers in seen] == [[("STALE", True)] + [("UPDATING", False)] * (THREADS - 1)] * PROCESSES
    assert board.heard("refreshed") == 1
    assert together(team, look, board) == [after] * PROCESSES
    assert is_free(board)


# -- copies ----------------------------------------------------------------------------------------------------------


def write_numbers(board: Board, count: int) -> None:
    """Write ever larger numbers, and publish each once it is written."""
    store = FileStore(board.cache)
    with (board.place / "published").open("r+b", buffering=0) as published:
        for number in range(1, count + 1):
            store.write(make_entry(body=b"%d" % number))
            os.pwrite(published.fileno(), b"%12d" % number, 0)


def read_numbers(board: Board, count: int) -> int:
    """Read as visitors do; fail if what is read is older than what was published before. Return how often memory was enough."""
    store, hits = FileStore(board.cache), 0
    with (board.place / "published").open("rb", buffering=0) as published:
        known = 0
        while known < count:
            known = int(os.pread(published.fileno(), 12, 0))
            copy = store.lookup("page")
            hits += copy is not None
            copy = copy or store.load("page")
            assert copy.entry is not None or known == 0
            assert copy.entry is None or int(copy.entry.body) >= known
    return hits


@pytest.mark.soak
def test_nobody_reads_what_another_process_has_replaced(team: list[Worker], board: Board, soak: Callable[[int, int], int]) -> None:
    (board.place / "published").write_bytes(b"%12d" % 0)
    count = soak(10_000, 1000)
    team[0].start(write_numbers, board, count)
    for worker in team[1:]:
        worker.start(read_numbers, board, count)
    team[0].result()
    assert all(worker.result() > 0 for worker in team[1:])


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
    engine.submit(FakeRefresh(script))


def test_a_killed_refresh_is_done_by_the_next(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    store_stale(board)
    engine, job, real, shift = make_engine(board.cache), FakeRefresh(), time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: real() + shift[0])
    with workers(1) as made:
        made[0].run(refresh_for_ever, board)
        board.await_("refreshing", 1)
        assert engine.serve(FakeOrigin()).refresh
        engine.submit(job)
        assert engine.drain(PATIENCE)
        assert job.calls == 0
        made[0].kill()
    shift[0] += 1
    answered = engine.serve(FakeOrigin())
    assert (answered.status, body_of(answered), answered.refresh) == (CacheStatus.STALE, b"old", True)
    engine.submit(job)
    assert engine.drain(PATIENCE)
    assert body_of(engine.serve(FakeOrigin())) == b"new"


def pattern(serial: str, size: int) -> bytes:
    """Return a body in which every part shows the fill it is of."""
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
    # What a killed writer leaves beside is never taken for an entry.
    assert {path.suffix for path in board.cache.glob("??/*")} <= {"", ".note", ".lock", ".tmp"}
    assert len([path for path in board.cache.glob("??/*") if path.suffix == ""]) == 1


# -- forks -----------------------------------------------------------------------------------------------------------


def use_all(engine: Engine) -> dict[str, Any]:
    """Use everything an engine has, with many threads at once; return what came of it, and where."""
    outcome: dict[str, Any] = {"hit": (str(engine.serve(FakeOrigin(key="warm")).status))}
    key = f"cold-{os.urandom(8).hex()}"
    cold = FakeOrigin(lambda start: storable(start, key=key), key=key)
    cold.script = waiting_for_all(cold, 8, key)
    outcome["cold"] = {body_of(answer) for answer in results(crowd(8, lambda: engine.serve(cold)))}
    outcome["calls"] = cold.calls
    job = FakeRefresh(lambda start: storable(start, f"by {os.getpid()}".encode(), key="stale"), key="stale")
    answers = results(crowd(8, lambda: engine.serve(FakeOrigin(key="stale"))))
    outcome["stale"] = sorted(str(answer.status) for answer in answers)
    engine.submit(job)
    outcome["drained"] = engine.drain(PATIENCE)
    outcome["refreshed"] = body_of(engine.serve(FakeOrigin(key="stale"))) == f"by {os.getpid()}".encode()
    engine.tick()
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
    """Copies, flights, refreshes, pool: whatever a thread of the parent held at the fork does not hold up the child."""
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
    engine.submit(job)
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
            "drained": engine.drain(PATIENCE),
        }

    outcome = forked(child)
    outcome["lock free after child"] = is_free(board) or is_free(board, "stale")
    go_on.set()
    outcome["parent"] = body_of(leading.result(PATIENCE))
    outcome["parent drained"] = engine.drain(PATIENCE)
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
    """Fork while a lock is held, let it go in the parent, and see whether the child, which lives on, keeps it taken."""
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
