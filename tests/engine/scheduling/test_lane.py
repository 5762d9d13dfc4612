"""The lane: refreshes that compute run one at a time in a process, apart from those that wait."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import time_machine

from flask_stalecache.core.model.work import Work
from flask_stalecache.engine.engine import Engine
from flask_stalecache.engine.origin import Answer, Start
from flask_stalecache.engine.scheduling import lane
from flask_stalecache.engine.scheduling.lane import Turn
from flask_stalecache.stats.tally import Tally
from support.engine import FakeOrigin, FakeRefresh, make_engine, make_entry, storable
from support.engine_calls import IN_SWR, STALE, UPDATING, WINDOWS, hand_over
from support.threads import PATIENCE, go, wait_until

LONG = Work(2.0, 1.0)


def stale(directory: Path, clock: time_machine.Traveller, *keys: str, work: Work = LONG, **settings: object) -> Engine:
    """Return an engine with stale entries whose fills took so much work: by default enough for the lane."""
    engine = make_engine(directory, **settings)
    for key in keys:
        engine.store.write(replace(make_entry(key, b"old", windows=WINDOWS), work=work))
    clock.shift(IN_SWR)
    return engine


class Watched:
    """A script that tells how many of its calls run at the same time, and in which threads."""

    def __init__(self, release: threading.Event) -> None:
        self.release = release
        self.running = self.most = 0
        self.intervals: list[float] = []
        self.threads: list[str] = []
        self.keys: list[str] = []

    def __call__(self, start: Start) -> Answer:
        self.running += 1
        self.most = max(self.most, self.running)
        self.intervals.append(round(sys.getswitchinterval(), 7))
        self.threads.append(threading.current_thread().name)
        self.release.wait(PATIENCE)
        self.running -= 1
        return storable(start)


def submit(engine: Engine, key: str, script: Callable[[Start], Answer], **options: object) -> FakeRefresh:
    job = FakeRefresh(script, key=key, **options)
    answered = engine.serve(FakeOrigin(key=key))
    assert (answered.status, answered.refresh) == (STALE, True)
    engine.runtime.submit(job)
    return job


def test_refreshes_that_compute_run_one_at_a_time(directory: Path, clock: time_machine.Traveller, held: threading.Event) -> None:
    keys, before = [f"page{number}" for number in range(5)], sys.getswitchinterval()
    engine, script = stale(directory, clock, *keys), Watched(held)
    for key in keys:
        submit(engine, key, script)
    wait_until(lambda: script.running)
    assert engine.runtime.lane_pool.open_jobs == 5
    held.set()
    assert engine.runtime.drain(PATIENCE)
    assert (script.most, len(script.threads)) == (1, 5)
    assert script.intervals == [0.0002] * 5
    assert sys.getswitchinterval() == before


def test_those_that_wait_do_not_wait_for_them(directory: Path, clock: time_machine.Traveller, held: threading.Event) -> None:
    engine = stale(directory, clock, "report")
    engine.store.write(replace(make_entry("news", b"old", windows=WINDOWS), work=Work(0.06, 0.1)))
    clock.shift(IN_SWR)
    script = Watched(held)
    submit(engine, "report", script)
    wait_until(lambda: script.running)
    news = submit(engine, "news", storable)
    wait_until(lambda: news.calls)
    assert engine.runtime.refresher.drain(PATIENCE)
    held.set()
    assert engine.runtime.drain(PATIENCE)


def test_two_caches_of_a_process_share_the_turn(directory: Path, clock: time_machine.Traveller, held: threading.Event) -> None:
    one, other = stale(directory / "a", clock, "page"), stale(directory / "b", clock, "page")
    script = Watched(held)
    submit(one, "page", script)
    wait_until(lambda: script.running)
    submit(other, "page", script)
    wait_until(lambda: other.runtime.lane_pool.open_jobs)
    held.set()
    assert one.runtime.drain(PATIENCE)
    assert other.runtime.drain(PATIENCE)
    assert (script.most, len(script.threads)) == (1, 2)


def test_the_switch_interval_may_be_left_alone(directory: Path, clock: time_machine.Traveller, held: threading.Event) -> None:
    engine, script, own = stale(directory, clock, "page", SWITCH_INTERVAL=None), Watched(held), sys.getswitchinterval()
    held.set()
    submit(engine, "page", script)
    assert engine.runtime.drain(PATIENCE)
    assert script.intervals == [pytest.approx(own)]


def test_a_process_without_visitors_leaves_it_alone(directory: Path, clock: time_machine.Traveller, held: threading.Event) -> None:
    engine, script, own = stale(directory, clock, "page"), Watched(held), sys.getswitchinterval()
    engine.runtime.lane.has_visitors = False
    held.set()
    submit(engine, "page", script)
    assert engine.runtime.drain(PATIENCE)
    assert script.intervals == [pytest.approx(own)]


@pytest.mark.parametrize("where", ["gevent", "free-threaded"])
def test_where_threads_take_no_turns_there_is_no_lane(
    directory: Path, clock: time_machine.Traveller, held: threading.Event, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    if where == "gevent":
        monkeypatch.setitem(sys.modules, "gevent.monkey", SimpleNamespace(is_module_patched=lambda name: True))
    else:
        monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    engine, script, own = stale(directory, clock, "a", "b"), Watched(held), sys.getswitchinterval()
    for key in ("a", "b"):
        submit(engine, key, script)
    wait_until(lambda: script.running == 2)
    assert engine.runtime.lane_pool.open_jobs == 0
    held.set()
    assert engine.runtime.drain(PATIENCE)
    assert script.intervals == [pytest.approx(own)] * 2


def test_a_deadline_counts_from_where_a_job_begins(
    directory: Path, clock: time_machine.Traveller, monotonic: Callable[[float], None]
) -> None:
    """Six pages that take almost as long as the deadline: none is given up, and none is queued twice."""
    keys, begun, go_on = [f"page{number}" for number in range(6)], [], threading.Semaphore(0)

    def script(key: str, start: Start) -> Answer:
        begun.append(start)
        assert go_on.acquire(timeout=PATIENCE)
        answer = storable(start)
        assert answer.entry is not None
        return replace(answer, entry=replace(answer.entry, key=key))

    engine = stale(directory, clock, *keys)
    jobs = [submit(engine, key, partial(script, key)) for key in keys]
    for number in range(len(keys)):
        wait_until(lambda: len(begun) > number)  # noqa: B023  # Waited for at once.
        monotonic(90)
        engine.runtime.tick()
        assert not any(engine.serve(FakeOrigin(key=key)).refresh for key in keys)
        go_on.release()
    assert engine.runtime.drain(PATIENCE)
    assert [job.calls for job in jobs] == [1] * 6
    assert engine.counters["refreshes_overdue"] == 0
    assert engine.counters["refreshes_dropped"] == 0


def test_a_refresh_that_hangs_gives_up_its_turn(
    directory: Path, clock: time_machine.Traveller, held: threading.Event, monotonic: Callable[[float], None]
) -> None:
    engine, script = stale(directory, clock, "hangs", "works"), Watched(held)
    submit(engine, "hangs", script)
    wait_until(lambda: script.running)
    works = submit(engine, "works", storable)
    monotonic(121)
    engine.runtime.tick()
    wait_until(lambda: works.calls)
    held.set()
    assert engine.runtime.drain(PATIENCE)


def test_what_is_known_of_an_entry_is_known_in_every_process(
    directory: Path, clock: time_machine.Traveller, held: threading.Event
) -> None:
    stale(directory, clock, "page")
    other, script = make_engine(directory), Watched(held)
    origin = FakeOrigin(key="page")
    origin.tally = Tally("endpoint", "report")
    assert other.serve(origin).refresh
    assert origin.tally.computes
    other.runtime.submit(FakeRefresh(script, key="page"))
    wait_until(lambda: script.running)
    assert other.runtime.lane_pool.open_jobs == 1
    held.set()
    assert other.runtime.drain(PATIENCE)


def compute(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(500))


def computing(start: Start) -> Answer:
    compute(0.06)
    answer = storable(start)
    assert answer.entry is not None
    # As Start.build_entry does.
    return replace(answer, entry=replace(answer.entry, work=start.meter.work()))


def test_a_fill_tells_how_much_it_has_computed(directory: Path) -> None:
    engine, origin = make_engine(directory), FakeOrigin(computing)
    origin.tally = Tally("endpoint", "report")
    engine.serve(origin)
    again = make_engine(directory).store.load("page").entry
    assert again is not None
    assert again.work.computes
    assert origin.tally.computes
    seen: list[float] = []

    def look(start: Start) -> Answer:
        seen.append(round(sys.getswitchinterval(), 7))
        return storable(start)

    other = FakeOrigin(look, key="another")
    other.tally = origin.tally
    engine.serve(other)
    # The other page began as one of an endpoint that computes. Its call did not compute, so the next page begins as usual.
    assert seen == [0.0002]
    assert not origin.tally.computes


def test_a_refresh_with_a_time_limit_stays_in_its_own_threads(
    directory: Path, clock: time_machine.Traveller, held: threading.Event
) -> None:
    """A caller may wait for it, and in the lane that caller would wait for all other refreshes too."""
    engine, script = stale(directory, clock, "a", "b"), Watched(held)
    for key in ("a", "b"):
        submit(engine, key, script, max_wait=5.0)
    wait_until(lambda: script.running)
    assert engine.runtime.lane_pool.open_jobs == 0
    held.set()
    assert engine.runtime.drain(PATIENCE)


def test_parts_of_what_computes_are_made_in_its_thread(
    directory: Path, clock: time_machine.Traveller, held: threading.Event
) -> None:
    engine, script = stale(directory, clock, "part"), Watched(held)
    engine.store.write(replace(make_entry("page", b"old", windows=WINDOWS), work=LONG, calls=("part",)))
    clock.shift(IN_SWR)
    held.set()
    part = FakeRefresh(script, key="part")

    class Page(FakeRefresh):
        def refresh_dependencies(self, keys: tuple[str, ...]) -> None:
            engine.runtime.refresh_all([part])

    assert engine.serve(FakeOrigin()).refresh
    engine.runtime.submit(Page(script))
    assert engine.runtime.drain(PATIENCE)
    assert part.calls == 1
    assert len(set(script.threads)) == 1


def test_a_turn_is_had_by_one_at_a_time(held: threading.Event) -> None:
    turn = Turn()
    lock = turn.take(0.0)
    assert lock is not None
    assert turn.is_mine()
    assert go(turn.is_mine).result() is False
    assert go(turn.take, 0.0).result() is None
    waiting = go(turn.take, PATIENCE)
    turn.leave(lock, 0.0)
    assert waiting.result(PATIENCE) is not None


def test_a_turn_is_taken_from_one_that_hangs() -> None:
    turn = Turn()
    lock = turn.take(0.0)
    assert lock is not None
    turn.give_up(-1)
    assert turn.is_mine()
    turn.give_up(threading.get_ident())
    other = go(turn.take, PATIENCE).result(PATIENCE)
    assert other is not None
    # The job that hung ends after all. This must not end the other thread's turn.
    turn.leave(lock, PATIENCE)
    assert go(turn.take, 0.0).result() is None


def test_nobody_has_the_turn_during_a_rest() -> None:
    turn = Turn()
    lock = turn.take(0.0)
    assert lock is not None
    waiting, begun = go(turn.take, PATIENCE), time.perf_counter()
    turn.leave(lock, 0.2)
    assert go(turn.take, 0.0).result(PATIENCE) is None
    assert waiting.result(PATIENCE) is not None
    assert time.perf_counter() - begun >= 0.2


def test_who_waits_for_less_than_a_rest_goes_without() -> None:
    turn = Turn()
    lock = turn.take(0.0)
    assert lock is not None
    turn.leave(lock, 1000.0)
    assert go(turn.take, 0.01).result(PATIENCE) is None


class Rests(Turn):
    """A turn that records the rests it is told to take, and takes none."""

    def __init__(self) -> None:
        super().__init__()
        self.rests: list[float] = []

    def leave(self, lock: threading.Lock, rest: float) -> None:
        self.rests.append(rest)
        super().leave(lock, 0.0)


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The rests of the lane."""
    turn = Rests()
    monkeypatch.setattr(lane, "_turns", SimpleNamespace(get=lambda: turn))
    return turn.rests


def test_the_lane_rests_as_long_as_other_threads_were_busy(rests: list[float]) -> None:
    with lane.Lane(None).turn(PATIENCE, rests=True):
        go(compute, 0.1).result(PATIENCE)
    assert rests[0] >= 0.09


def test_alone_it_does_not_rest(rests: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    # Count this thread alone, since threads of other tests may be busy.
    monkeypatch.setattr(time, "process_time", time.thread_time)
    with lane.Lane(None).turn(PATIENCE, rests=True):
        compute(0.05)
    # The clocks are read one after the other.
    assert rests == [pytest.approx(0.0, abs=0.01)]


def test_nor_in_a_process_without_visitors(rests: list[float]) -> None:
    worker = lane.Lane(None)
    worker.has_visitors = False
    with worker.turn(PATIENCE, rests=True):
        go(compute, 0.05).result(PATIENCE)
    assert rests == [0.0]


@pytest.mark.parametrize(("workers", "rest"), [(1, True), (0, False)])
def test_without_refresh_threads_it_does_not_rest_in_those_of_the_server(
    directory: Path, clock: time_machine.Traveller, rests: list[float], workers: int, rest: bool
) -> None:
    engine = stale(directory, clock, "page", REFRESH_WORKERS=workers)

    def script(start: Start) -> Answer:
        go(compute, 0.05).result(PATIENCE)
        return storable(start)

    submit(engine, "page", script)
    assert engine.runtime.drain(PATIENCE)
    assert [seconds > 0.01 for seconds in rests] == [rest]


def test_a_turn_that_fails_is_followed_by_a_rest_too(rests: list[float]) -> None:
    with suppress(ZeroDivisionError), lane.Lane(None).turn(PATIENCE, rests=True):
        go(compute, 0.05).result(PATIENCE)
        raise ZeroDivisionError
    assert rests[0] > 0.0


def test_hits_meanwhile_are_served(directory: Path, clock: time_machine.Traveller, held: threading.Event) -> None:
    engine, script = stale(directory, clock, "page"), Watched(held)
    submit(engine, "page", script)
    wait_until(lambda: script.running)
    assert engine.serve(FakeOrigin(key="page")).status is UPDATING
    held.set()
    assert engine.runtime.drain(PATIENCE)


def test_an_unknown_entry_is_refreshed_as_before(directory: Path, clock: time_machine.Traveller, held: threading.Event) -> None:
    engine = stale(directory, clock, "page", work=Work())
    hand_over(engine, FakeRefresh(storable))
    assert engine.runtime.drain(PATIENCE)
