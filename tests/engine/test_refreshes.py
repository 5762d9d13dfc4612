"""The engine: refreshes after the response, and their deadline. Covers ``engine.background`` and ``engine.runtime``."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import time_machine

from flask_stalecache import FileStore
from flask_stalecache.core.model.note import NOTHING
from flask_stalecache.engine.origin import Answer, Start
from flask_stalecache.stats.tally import Tally
from support.clock import NOON
from support.engine import FakeOrigin, FakeRefresh, body_of, failed, make_engine, make_entry, personal, storable, unstorable
from support.engine_calls import (
    EXPIRED,
    HIT,
    IN_SWR,
    MISS,
    PAST_ALL,
    STALE,
    UPDATING,
    WINDOWS,
    asking,
    give_up,
    hand_over,
    hang,
    hold_refresh,
    is_free,
    stale_engine,
)
from support.threads import PATIENCE, crowd, results, wait_until


@pytest.fixture
def eager() -> Iterator[None]:
    """Let threads take turns at each step, so that they meet where they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


# -- refreshes -------------------------------------------------------------------------------------------------------


def test_a_stale_hit_hands_over_one_refresh(directory: Path, clock: time_machine.Traveller, held: threading.Event) -> None:
    engine, origin = stale_engine(directory, clock), FakeOrigin()
    job = hold_refresh(engine, held)
    for _ in range(5):
        answered = engine.serve(origin)
        assert (answered.status, body_of(answered), answered.refresh) == (UPDATING, b"old", False)
    held.set()
    assert engine.runtime.drain(PATIENCE)
    answered = engine.serve(origin)
    assert (answered.status, body_of(answered)) == (HIT, b"new")
    assert (job.calls, origin.calls) == (1, 0)
    assert engine.counters["refreshes"] == 1


@pytest.mark.soak
def test_of_many_stale_hits_at_once_one_hands_over(
    directory: Path, clock: time_machine.Traveller, eager: None, soak: Callable[[int, int], int]
) -> None:
    engine, keys = make_engine(directory), [f"page-{number}" for number in range(soak(200, 20))]
    for key in keys:
        engine.store.write(make_entry(key, b"old", windows=WINDOWS))
        engine.store.load(key)
    clock.shift(IN_SWR)
    for key in keys:
        answers = results(crowd(10, asking(engine, FakeOrigin(key=key))))
        assert sorted(answer.status for answer in answers) == [STALE] + [UPDATING] * 9
        assert [answer.refresh for answer in answers].count(True) == 1


def test_a_refresh_is_told_what_is_stored(directory: Path, clock: time_machine.Traveller) -> None:
    engine, job = stale_engine(directory, clock), FakeRefresh()
    hand_over(engine, job)
    assert engine.runtime.drain(PATIENCE)
    assert job.starts[0].previous is not None
    assert job.starts[0].previous.body == b"old"


def test_without_workers_a_refresh_is_done_when_it_is_handed_over(directory: Path, clock: time_machine.Traveller) -> None:
    engine = stale_engine(directory, clock, REFRESH_WORKERS=0)
    hand_over(engine, FakeRefresh())
    assert engine.serve(FakeOrigin()).status is HIT


def test_one_refresh_at_a_time_over_all_processes(
    directory: Path, clock: time_machine.Traveller, monotonic: Callable[[float], None], held: threading.Event
) -> None:
    """Another process that finds the lock taken looks again after a quarter of a second, or when something was written."""
    engine, other = stale_engine(directory, clock), make_engine(directory)
    hold_refresh(engine, held)
    late = FakeRefresh()
    hand_over(other, late)
    assert other.runtime.drain(PATIENCE)
    assert late.calls == 0
    assert other.serve(FakeOrigin()).status is UPDATING
    monotonic(0.2)
    assert other.serve(FakeOrigin()).status is UPDATING
    monotonic(0.1)
    hand_over(other, late)
    assert other.runtime.drain(PATIENCE)
    assert late.calls == 0
    assert other.serve(FakeOrigin()).status is UPDATING
    held.set()
    assert engine.runtime.drain(PATIENCE)
    assert other.serve(FakeOrigin()).status is HIT


def test_a_pause_for_a_taken_lock_ends_when_something_is_written(
    directory: Path, clock: time_machine.Traveller, elsewhere: FileStore
) -> None:
    engine, job = stale_engine(directory, clock), FakeRefresh()
    lock = elsewhere.lock("page")
    assert lock.acquire()
    hand_over(engine, job)
    assert engine.runtime.drain(PATIENCE)
    assert engine.serve(FakeOrigin()).status is UPDATING
    elsewhere.write(make_entry(body=b"old", windows=(0, 600, 0)))
    lock.release()
    hand_over(engine, job)
    assert engine.runtime.drain(PATIENCE)
    assert job.calls == 1


def test_a_refresh_of_what_is_fresh_by_now_is_not_run(directory: Path, clock: time_machine.Traveller, elsewhere: FileStore) -> None:
    engine, job = stale_engine(directory, clock), FakeRefresh()
    assert engine.serve(FakeOrigin()).refresh
    elsewhere.write(make_entry(body=b"renewed elsewhere"))
    engine.runtime.submit(job)
    assert engine.runtime.drain(PATIENCE)
    assert job.calls == 0
    assert body_of(engine.serve(FakeOrigin())) == b"renewed elsewhere"


@pytest.mark.parametrize("gone", ["removed", "backing off"])
def test_a_refresh_of_what_is_not_to_be_renewed_is_not_run(
    directory: Path, clock: time_machine.Traveller, elsewhere: FileStore, gone: str
) -> None:
    engine, job = stale_engine(directory, clock), FakeRefresh()
    assert engine.serve(FakeOrigin()).refresh
    if gone == "removed":
        elsewhere.remove("page")
    else:
        elsewhere.write_note("page", NOTHING.failed(time.time(), (2, 300), 0))
    engine.runtime.submit(job)
    assert engine.runtime.drain(PATIENCE)
    assert job.calls == 0
    assert is_free(elsewhere)


@pytest.mark.parametrize("bad", [lambda _: failed(), lambda _: failed(anybodys=False), lambda _: personal("member")])
def test_a_refresh_that_fails_keeps_the_entry_and_backs_off_for_all(
    directory: Path,
    clock: time_machine.Traveller,
    caplog: pytest.LogCaptureFixture,
    bad: Callable[[Start], Answer],
) -> None:
    engine = stale_engine(directory, clock, REFRESH_BACKOFF=(2, 300))
    other, job = make_engine(directory, REFRESH_BACKOFF=(2, 300)), FakeRefresh(bad)
    turn, origin = 0, FakeOrigin()
    with caplog.at_level(logging.WARNING, "flask_stalecache"):
        for pause in (2, 4, 8):
            hand_over((engine, other)[turn % 2], job)
            turn += 1
            assert engine.runtime.drain(PATIENCE)
            assert other.runtime.drain(PATIENCE)
            assert job.calls == turn
            for seconds in (0, pause - 0.01):
                clock.shift(seconds)
                for each in (engine, other):
                    answered = each.serve(origin)
                    assert (answered.status, body_of(answered), answered.refresh) == (UPDATING, b"old", False)
            clock.shift(pause / 4 + 0.02)
    assert len([record for record in caplog.records if "the refresh of the page failed" in record.getMessage()]) == 2
    hand_over(other, FakeRefresh())
    assert other.runtime.drain(PATIENCE)
    assert engine.serve(origin).status is HIT
    assert engine.store.load("page").note == NOTHING
    assert origin.calls == 0


def test_a_refresh_that_finds_the_page_private_now_drops_it(
    directory: Path, clock: time_machine.Traveller, elsewhere: FileStore
) -> None:
    engine = stale_engine(directory, clock)
    hand_over(engine, FakeRefresh(lambda _: unstorable()))
    assert engine.runtime.drain(PATIENCE)
    assert elsewhere.load("page").entry is None
    assert elsewhere.load("page").note.unstorable(time.time())
    assert engine.serve(FakeOrigin(lambda _: unstorable())).status is MISS


@pytest.mark.parametrize("error", [RuntimeError("a bug"), SystemExit(1), KeyboardInterrupt()], ids=repr)
def test_a_refresh_that_dies_frees_all_and_backs_off(
    directory: Path, clock: time_machine.Traveller, elsewhere: FileStore, error: BaseException
) -> None:
    engine = stale_engine(directory, clock, REFRESH_WORKERS=1)

    def die(_: Start) -> Answer:
        raise error

    hand_over(engine, FakeRefresh(die))
    assert engine.runtime.drain(PATIENCE)
    assert is_free(elsewhere)
    assert engine.serve(FakeOrigin()).status is UPDATING
    assert elsewhere.load("page").note.failures == 1
    clock.shift(3)
    hand_over(engine, FakeRefresh())
    assert engine.runtime.drain(PATIENCE)
    assert engine.serve(FakeOrigin()).status is HIT


def test_who_must_wait_waits_for_a_refresh_that_runs(
    directory: Path, clock: time_machine.Traveller, held: threading.Event, joined: list[str]
) -> None:
    engine, origin = stale_engine(directory, clock), FakeOrigin()
    job = hold_refresh(engine, held)
    clock.shift(PAST_ALL)
    before = len(joined)
    futures = crowd(10, asking(engine, origin))
    wait_until(lambda: len(joined) == before + 10)
    held.set()
    answers = results(futures)
    assert {(answer.status, body_of(answer), answer.collapsed) for answer in answers} == {(EXPIRED, b"new", True)}
    assert (job.calls, origin.calls) == (1, 0)


@pytest.mark.parametrize(
    ("asks", "dropped"), [(0, "second"), (2, "third")], ids=["the one that was asked for first", "the one that is asked for less"]
)
def test_a_full_queue_drops_a_refresh_and_the_next_hit_tries_again(
    directory: Path, clock: time_machine.Traveller, held: threading.Event, asks: int, dropped: str
) -> None:
    engine = make_engine(directory, REFRESH_WORKERS=1, REFRESH_QUEUE=1)
    for key in ("page", "second", "third"):
        engine.store.write(make_entry(key, b"old", windows=WINDOWS))
    clock.shift(IN_SWR)
    hold_refresh(engine, held)
    jobs = {key: FakeRefresh(lambda start, key=key: storable(start, key=key), key=key) for key in ("second", "third")}
    for key, job in jobs.items():
        assert engine.serve(FakeOrigin(key=key)).refresh
        engine.runtime.submit(job)
        if key == "second":
            assert [engine.serve(FakeOrigin(key=key)).status for _ in range(asks)] == [UPDATING] * asks
    assert engine.counters["refreshes_dropped"] == 1
    kept = "second" if dropped == "third" else "third"
    assert engine.serve(FakeOrigin(key=kept)).status is UPDATING
    answered = engine.serve(FakeOrigin(key=dropped))
    assert (answered.status, answered.refresh, body_of(answered)) == (STALE, True, b"old")
    held.set()
    assert engine.runtime.drain(PATIENCE)
    engine.runtime.submit(jobs[dropped])
    assert engine.runtime.drain(PATIENCE)
    assert [engine.serve(FakeOrigin(key=key)).status for key in jobs] == [HIT, HIT]
    assert engine.counters["refreshes_dropped"] == 1


def test_a_visitor_who_waits_for_a_refresh_that_is_dropped_is_released(
    directory: Path, clock: time_machine.Traveller, held: threading.Event
) -> None:
    """Otherwise a caller with ``wait=30`` would wait the full 30 s. The refresh gives way to one that was asked for later."""
    engine = make_engine(directory, REFRESH_WORKERS=1, REFRESH_QUEUE=1)
    for key in ("page", "waited", "asked"):
        engine.store.write(make_entry(key, b"old", windows=(60, 600, 3600)))
    clock.shift(IN_SWR)
    hold_refresh(engine, held)
    assert engine.serve(FakeOrigin(key="waited")).refresh
    engine.runtime.submit(FakeRefresh(key="waited"))
    result = engine.runtime.process.refreshes.result_of("waited")
    assert result is not None
    assert engine.serve(FakeOrigin(key="asked")).refresh
    engine.runtime.submit(FakeRefresh(key="asked"))
    assert result.done.is_set()
    assert result.answer is None


def test_240_stale_pages_of_one_endpoint_do_not_delay_the_hot_page_of_another(
    directory: Path, clock: time_machine.Traveller, held: threading.Event
) -> None:
    """There is one thread, and the hot page's refresh is queued last. Among the pages of its endpoint, it is asked for most."""
    engine, order = make_engine(directory, REFRESH_WORKERS=1), list[str]()
    slow, hot = Tally("endpoint", "slow"), Tally("endpoint", "hot")
    keys = {f"slow {number}": slow for number in range(240)} | {f"cold {number}": hot for number in range(5)} | {"hot": hot}
    for key in ("page", *keys):
        engine.store.write(make_entry(key, b"old", windows=WINDOWS))
    clock.shift(IN_SWR)
    hold_refresh(engine, held)

    def noting(key: str) -> Callable[[Start], Answer]:
        return lambda start: order.append(key) or storable(start, key=key)  # type: ignore[func-returns-value]

    for key, tally in keys.items():
        assert engine.serve(FakeOrigin(key=key)).refresh
        engine.runtime.submit(FakeRefresh(noting(key), key=key, tally=tally))
    assert {engine.serve(FakeOrigin(key="hot")).status for _ in range(10)} == {UPDATING}
    held.set()
    assert engine.runtime.drain(PATIENCE)
    assert order.index("hot") <= 1
    assert sorted(order) == sorted(keys)


def test_a_refresh_that_was_never_handed_over_is_asked_for_again(
    directory: Path, clock: time_machine.Traveller, monotonic: Callable[[float], None]
) -> None:
    """For instance, a thread of the server died between the answer and the close of the response."""
    engine = stale_engine(directory, clock, REFRESH_DEADLINE=100)
    assert engine.serve(FakeOrigin()).refresh
    monotonic(99)
    assert engine.serve(FakeOrigin()).status is UPDATING
    monotonic(2)
    hand_over(engine, FakeRefresh())
    assert engine.runtime.drain(PATIENCE)


# -- the deadline ----------------------------------------------------------------------------------------------------


def test_a_refresh_past_its_deadline_is_given_up(
    directory: Path,
    clock: time_machine.Traveller,
    monotonic: Callable[[float], None],
    held: threading.Event,
    elsewhere: FileStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its lock is free, it counts as a failure for all, and another thread takes the place of the one that hangs."""
    engine = stale_engine(directory, clock, REFRESH_WORKERS=1, REFRESH_DEADLINE=100)
    hold_refresh(engine, held)
    assert not is_free(elsewhere)
    with caplog.at_level(logging.WARNING, "flask_stalecache"):
        give_up(engine, monotonic)
        engine.runtime.tick()
    assert engine.counters["refreshes_overdue"] == 1
    assert "REFRESH_DEADLINE" in caplog.text
    assert is_free(elsewhere)
    assert elsewhere.load("page").note.failures == 1
    assert engine.serve(FakeOrigin()).status is UPDATING
    clock.shift(3)
    hand_over(engine, FakeRefresh(lambda start: storable(start, b"newer")))
    assert engine.runtime.drain(PATIENCE)
    assert body_of(engine.serve(FakeOrigin())) == b"newer"


@pytest.mark.parametrize("late", [storable, lambda _: unstorable(), lambda _: failed(), lambda _: personal("member")])
def test_a_late_refresh_does_not_undo_a_newer_one(
    directory: Path,
    clock: time_machine.Traveller,
    monotonic: Callable[[float], None],
    held: threading.Event,
    elsewhere: FileStore,
    late: Callable[[Start], Answer],
) -> None:
    engine, returned = stale_engine(directory, clock, REFRESH_DEADLINE=100), threading.Event()

    def script(start: Start) -> Answer:
        returned.set()
        return late(start)

    hung = hold_refresh(engine, held, script)
    give_up(engine, monotonic)
    clock.shift(3)
    hand_over(engine, FakeRefresh(lambda start: storable(start, b"newer")))
    assert engine.runtime.drain(PATIENCE)
    thread = thread_in(hung)
    held.set()
    assert returned.wait(PATIENCE)
    wait_until(lambda: not thread.is_alive(), "the end of the stuck thread")
    copy = elsewhere.load("page")
    assert copy.entry is not None
    assert copy.entry.body == b"newer"
    assert copy.note == NOTHING
    assert is_free(elsewhere)


def thread_in(job: FakeRefresh) -> threading.Thread:
    """Return the thread that runs a job, found by its frame."""
    for thread in threading.enumerate():
        frame = sys._current_frames().get(thread.ident or 0)
        while frame is not None:
            if frame.f_code is FakeRefresh.run.__code__ and frame.f_locals["self"] is job:
                return thread
            frame = frame.f_back
    raise AssertionError("nobody runs it")


@pytest.mark.parametrize(("taken", "stored"), [(False, True), (True, False)], ids=["lock free", "lock taken"])
def test_a_late_result_is_stored_only_if_nobody_is_at_it(
    directory: Path,
    clock: time_machine.Traveller,
    monotonic: Callable[[float], None],
    held: threading.Event,
    elsewhere: FileStore,
    taken: bool,
    stored: bool,
) -> None:
    engine = stale_engine(directory, clock, REFRESH_DEADLINE=100)
    hung = hold_refresh(engine, held, lambda start: storable(start, b"late"))
    give_up(engine, monotonic)
    lock = elsewhere.lock("page")
    if taken:
        assert lock.acquire()
    thread = thread_in(hung)
    held.set()
    wait_until(lambda: not thread.is_alive(), "the end of the stuck thread")
    lock.release()
    entry = elsewhere.load("page").entry
    assert entry is not None
    assert entry.body == (b"late" if stored else b"old")
    if stored:
        assert elsewhere.load("page").note == NOTHING


def test_visitors_who_wait_for_a_refresh_that_is_given_up_get_on(
    directory: Path,
    clock: time_machine.Traveller,
    monotonic: Callable[[float], None],
    held: threading.Event,
    joined: list[str],
) -> None:
    engine = stale_engine(directory, clock, REFRESH_DEADLINE=100)
    hold_refresh(engine, held)
    clock.shift(PAST_ALL)
    origin, before = FakeOrigin(patience=10**6), len(joined)
    futures = crowd(5, asking(engine, origin))
    wait_until(lambda: len(joined) == before + 5)
    give_up(engine, monotonic)
    assert {body_of(answer) for answer in results(futures)} == {b"new"}
    assert origin.calls == 1


def test_a_visitors_own_call_has_no_deadline(directory: Path, monotonic: Callable[[float], None], held: threading.Event) -> None:
    engine = make_engine(directory, REFRESH_DEADLINE=100)
    _, leader = hang(engine, held, storable)
    monotonic(10**6)
    engine.runtime.tick()
    held.set()
    assert leader.result(PATIENCE).stored
    assert engine.counters["refreshes_overdue"] == 0


def test_the_housekeeper_gives_up_by_itself(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    held: threading.Event,
    elsewhere: FileStore,
) -> None:
    monkeypatch.setattr("flask_stalecache.engine.scheduling.housekeeper.INTERVAL", 0.005)
    # Unlike the ``clock`` fixture, this one does not switch off the housekeeper's thread.
    with time_machine.travel(NOON, tick=False) as clock:
        engine = stale_engine(directory, clock, REFRESH_DEADLINE=0.01)
        hold_refresh(engine, held)
        wait_until(lambda: is_free(elsewhere), "the end of the refresh")
        wait_until(lambda: engine.counters["refreshes_overdue"] == 1)
