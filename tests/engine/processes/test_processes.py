"""The engine in many processes on one directory: collapsing, refreshes and copies."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from flask_stalecache import FileStore
from flask_stalecache.engine.origin import Answer, Start
from support.engine import FakeOrigin, FakeRefresh, body_of, failed, make_entry, storable, unstorable
from support.engine_processes import PROCESSES, THREADS, Board, PublicOrigin, engine_of, is_free, store_long_ago, store_stale
from support.processes import Worker
from support.threads import PATIENCE, crowd, results

EVERYBODY = PROCESSES * THREADS


def together(team: list[Worker], function: Callable[..., Any], *args: Any) -> list[Any]:
    """Run a function in all processes at once, and return what came of it."""
    for worker in team:
        worker.start(function, *args)
    return [worker.result() for worker in team]


# -- collapsing ------------------------------------------------------------------------------------------------------


def visit_at_once(board: Board, windows: tuple[float, float, float]) -> list[tuple[str, bytes, bool, bool]]:
    """Let some visitors come to this process. The origin call waits until the visitors of all processes have asked."""

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
    """Waiters are served the stored entry, in other processes too, and even if it is no longer fresh."""
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
    """Let some visitors come. The first call ends once all of them have asked, the others only if they all run at the same time."""

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
        # One call at a time over all processes: each has ended before the next one begins.
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


def hit_stale(board: Board, answer: Callable[[Start], Answer]) -> list[tuple[str, bool]]:
    """Visit a stale page and hand over its refresh. The one that runs waits until the refreshes of the other processes gave up."""
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
            engine.runtime.submit(FakeRefresh(script))
    assert engine.runtime.drain(PATIENCE)
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
    """In each process one visitor hands over a refresh. One of these refreshes runs, and its outcome holds for all processes."""
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
    """Read as visitors do, and fail if an entry is older than the number published before. Return the number of hits in memory."""
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
