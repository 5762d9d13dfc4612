"""Refreshes that leave the process by ``STALECACHE_REFRESHER``. Covers ``engine.handover.refresher_queue``."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import time_machine

from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.core.model.note import NOTHING
from flask_stalecache.core.packets.refresh_data import OriginKind, RefreshData
from flask_stalecache.engine.engine import Engine
from support.engine import FakeOrigin, FakeRefresh, body_of, make_engine, make_entry, make_index, storable
from support.engine_calls import HIT, IN_SIE, IN_SWR, STALE, UPDATING, WINDOWS, hand_over, stale_engine
from support.threads import PATIENCE, crowd, results, wait_until


class Queue:
    """A task queue of another program.

    :ivar jobs: the jobs that it has accepted.
    :ivar says: what ``submit`` returns; an exception is raised instead.
    :ivar held: ``submit`` waits until this event is set.
    """

    def __init__(self, says: object = True) -> None:
        self.jobs: list[dict[str, Any]] = []
        self.says = says
        self.held = threading.Event()
        self.held.set()
        self.asked = 0

    def submit(self, job: dict[str, Any]) -> bool:
        self.asked += 1
        assert self.held.wait(PATIENCE)
        if isinstance(self.says, BaseException):
            raise self.says
        if self.says:
            self.jobs.append(json.loads(json.dumps(job)))
        return self.says  # type: ignore[return-value]


@pytest.fixture
def queue() -> Queue:
    return Queue()


def page(**options: Any) -> FakeRefresh:
    return FakeRefresh(kind=OriginKind.PAGE, **options)


def done(engine: Engine) -> None:
    assert engine.runtime.drain(PATIENCE)


def test_a_refresh_is_queued_and_not_run_here(directory: Path, clock: time_machine.Traveller, queue: Queue) -> None:
    engine, job = stale_engine(directory, clock, REFRESHER=queue, REFRESH_DEADLINE=100), page()
    engine.runtime.delegation.app = "shop"
    hand_over(engine, job)
    done(engine)
    entry = engine.store.load("page").entry
    assert entry is not None
    assert [RefreshData.from_json(job) for job in queue.jobs] == [
        RefreshData(
            app="shop", version="", kind=OriginKind.PAGE, address=digest("page"), serial=entry.serial, expires=time.time() + 200
        )
    ]
    assert job.calls == 0
    assert engine.serve(FakeOrigin()).status is UPDATING
    assert engine.counters["refreshes_handed_over"] == 1
    assert engine.counters["refreshes_queued"] == 0


def test_it_is_pending_until_it_is_done(
    directory: Path, clock: time_machine.Traveller, monotonic: Callable[[float], None], queue: Queue
) -> None:
    engine, other = stale_engine(directory, clock, REFRESHER=queue, REFRESH_DEADLINE=100), make_engine(directory)
    hand_over(engine, page())
    done(engine)
    monotonic(98)
    engine.runtime.tick()
    assert engine.serve(FakeOrigin()).status is UPDATING
    other.store.write(make_entry(body=b"new"))
    answered = engine.serve(FakeOrigin())
    assert (answered.status, body_of(answered)) == (HIT, b"new")


def test_what_is_stale_again_is_queued_again(directory: Path, clock: time_machine.Traveller, queue: Queue) -> None:
    engine = stale_engine(directory, clock, REFRESHER=queue, REFRESH_DEADLINE=100)
    hand_over(engine, page())
    done(engine)
    engine.store.write(make_entry(body=b"old", windows=WINDOWS))
    clock.shift(IN_SWR)
    hand_over(engine, page())
    done(engine)
    assert len(queue.jobs) == 2
    assert engine.counters["refreshes_returned"] == 0


def test_many_processes_queue_it_once(directory: Path, clock: time_machine.Traveller, queue: Queue) -> None:
    engines = [stale_engine(directory, clock, REFRESHER=queue)]
    engines += [make_engine(directory, REFRESHER=queue) for _ in range(7)]
    jobs = [page() for _ in engines]
    pairs = iter(zip(engines, jobs, strict=True))
    results(crowd(len(engines), lambda: hand_over(*next(pairs))))
    for engine in engines:
        done(engine)
        assert engine.serve(FakeOrigin()).status is UPDATING
    assert len(queue.jobs) == 1
    assert sum(job.calls for job in jobs) == 0


@pytest.mark.parametrize("says", [False, None, ConnectionError("no broker"), KeyError("a bug")], ids=ascii)
def test_what_is_not_queued_runs_here(
    directory: Path, clock: time_machine.Traveller, says: object, caplog: pytest.LogCaptureFixture
) -> None:
    engine = stale_engine(directory, clock, REFRESHER=Queue(says))
    for key in ("second", "third"):
        engine.store.write(make_entry(key, body=b"old", windows=(0, *WINDOWS[1:])))
    jobs = [page()]
    jobs += [page(script=lambda start, key=key: storable(start, key=key), key=key) for key in ("second", "third")]
    with caplog.at_level(logging.WARNING, "flask_stalecache"):
        hand_over(engine, jobs[0])
        done(engine)
        for job in jobs[1:]:
            assert engine.serve(FakeOrigin(key=job.key)).refresh
            engine.runtime.submit(job)
            done(engine)
    assert [job.calls for job in jobs] == [1, 1, 1]
    assert engine.serve(FakeOrigin()).status is HIT
    assert len([record for record in caplog.records if "efresher" in record.getMessage()]) == 1
    assert engine.counters["refreshes_returned"] >= 1
    # The mark is free, so another process may queue the next refresh.
    serial = "" if (entry := engine.store.load("page").entry) is None else entry.serial
    assert engine.store.queue_marks.mark(f"{digest('page')} {serial}", 1) == 0  # type: ignore[attr-defined]


def test_a_queue_that_has_failed_is_left_alone_for_a_while(
    directory: Path, clock: time_machine.Traveller, monotonic: Callable[[float], None]
) -> None:
    queue = Queue(ConnectionError("no broker"))
    engine = stale_engine(directory, clock, REFRESHER=queue)
    for turn, expected in ((0, 1), (1, 1), (6, 2)):
        monotonic(turn)
        engine.store.write(make_entry(body=b"old", windows=(0, *WINDOWS[1:])))
        hand_over(engine, page())
        done(engine)
        assert queue.asked == expected


def test_a_queue_that_hangs_delays_no_visitor_and_few_refreshes(
    directory: Path, clock: time_machine.Traveller, monotonic: Callable[[float], None], queue: Queue
) -> None:
    engine = stale_engine(directory, clock, REFRESHER=queue)
    engine.store.write(make_entry("second", body=b"old", windows=(0, *WINDOWS[1:])))
    queue.held.clear()
    hand_over(engine, page())
    wait_until(lambda: queue.asked == 1)
    monotonic(6)
    late, again = page(script=lambda start: storable(start, key="second"), key="second"), page()
    assert engine.serve(FakeOrigin(key="second")).refresh
    engine.runtime.submit(late)
    # The refresh that hangs in the queue stays pending for seconds only, so the same page may hand over another one.
    hand_over(engine, again)
    wait_until(lambda: late.calls and again.calls)
    queue.held.set()
    done(engine)


def test_what_nobody_does_within_twice_the_deadline_runs_here(
    directory: Path,
    clock: time_machine.Traveller,
    monotonic: Callable[[float], None],
    queue: Queue,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine, job = stale_engine(directory, clock, REFRESHER=queue, REFRESH_DEADLINE=100), page()
    for turn in range(2):
        hand_over(engine, job)
        done(engine)
        assert (len(queue.jobs), job.calls) == (turn + 1, 0)
        clock.shift(101)
        monotonic(101)
        engine.runtime.tick()
    hand_over(engine, job)
    done(engine)
    assert (len(queue.jobs), job.calls) == (2, 1)
    assert engine.counters["refreshes_returned"] == 1
    assert "a refresh was handed over and not done within 200 s" in caplog.text
    assert engine.serve(FakeOrigin()).status is HIT


def test_one_that_fails_elsewhere_again_and_again_stays_there(
    directory: Path, clock: time_machine.Traveller, monotonic: Callable[[float], None], queue: Queue
) -> None:
    """The failures in its note show that another process runs it."""
    engine, job = stale_engine(directory, clock, REFRESHER=queue, REFRESH_DEADLINE=100), page()
    for _ in range(4):
        hand_over(engine, job)
        done(engine)
        note = engine.store.load("page").note
        engine.store.write_note("page", note.failed(time.time(), (2, 2), 0))
        clock.shift(101)
        monotonic(101)
        engine.runtime.tick()
    assert (len(queue.jobs), job.calls) == (4, 0)


@pytest.mark.parametrize("what", ["not data", "forced", "secret", "session", "index", "nothing stored", "no arguments"])
def test_what_only_this_process_can_make_stays_here(
    directory: Path, clock: time_machine.Traveller, queue: Queue, what: str
) -> None:
    engine = make_engine(directory, REFRESHER=queue)
    entry = make_entry(windows=(0, *WINDOWS[1:]))
    recipes: dict[str, Any] = {
        "secret": {**entry.recipe, "digests": [["HTTP_X_API_KEY", "ab"]]},
        "session": {**entry.recipe, "session": [["group", "ab"]]},
        "no arguments": {"function": "shop.rates", "arguments": None},
    }
    if what == "index":
        engine.store.write(make_index("page"))
    elif what != "nothing stored":
        engine.store.write(replace(entry, recipe=recipes.get(what, entry.recipe)))
    job = replace(page(), kind=None if what == "not data" else OriginKind.PAGE, forced=what == "forced", fills_missing=True)
    if not job.forced:
        assert engine.runtime.claim(engine.store.load("page"))
    engine.runtime.submit(job)
    done(engine)
    assert (queue.jobs, job.calls) == ([], 1)


def test_a_request_that_waits_for_its_result_has_it_run_here(directory: Path, clock: time_machine.Traveller, queue: Queue) -> None:
    engine = stale_engine(directory, clock, REFRESHER=queue)
    clock.shift(IN_SIE - IN_SWR)
    answered = engine.serve(FakeOrigin(wait=PATIENCE))
    assert (body_of(answered), queue.jobs) == (b"new", [])


def test_a_request_that_waits_is_told_when_it_is_done_elsewhere(
    directory: Path, clock: time_machine.Traveller, queue: Queue
) -> None:
    engine, other = stale_engine(directory, clock, REFRESHER=queue), make_engine(directory)
    hand_over(engine, page())
    done(engine)
    clock.shift(IN_SIE - IN_SWR)
    futures = crowd(1, lambda: engine.serve(FakeOrigin(wait=PATIENCE)))
    other.store.write(make_entry(body=b"new"))
    assert {body_of(answer) for answer in results(futures)} == {b"new"}


def test_asks_are_not_forgotten_when_it_is_queued_again(
    directory: Path, clock: time_machine.Traveller, monotonic: Callable[[float], None], queue: Queue
) -> None:
    engine = stale_engine(directory, clock, REFRESHER=queue)
    hand_over(engine, page())
    done(engine)
    for _ in range(8):
        assert engine.serve(FakeOrigin()).status is UPDATING
    copy = engine.store.load("page")
    pending = engine.runtime.process.refreshes._pending["page"]
    monotonic(119)
    assert pending.holds(copy, time.monotonic())
    monotonic(2)
    assert engine.runtime.claim(copy)
    assert engine.runtime.process.refreshes._pending["page"].demand.rank > pending.demand.rank


def test_without_threads_it_is_queued_at_once(directory: Path, clock: time_machine.Traveller, queue: Queue) -> None:
    engine, job = stale_engine(directory, clock, REFRESHER=queue, REFRESH_WORKERS=0), page()
    hand_over(engine, job)
    assert (len(queue.jobs), job.calls) == (1, 0)
    assert engine.serve(FakeOrigin()).status is UPDATING


def test_without_threads_what_is_not_queued_runs_at_once(directory: Path, clock: time_machine.Traveller) -> None:
    engine, job = stale_engine(directory, clock, REFRESHER=Queue(False), REFRESH_WORKERS=0), page()
    hand_over(engine, job)
    assert job.calls == 1
    assert engine.serve(FakeOrigin()).status is HIT
    assert engine.store.load("page").note == NOTHING


def test_without_a_refresher_nothing_changes(directory: Path, clock: time_machine.Traveller) -> None:
    engine, job = stale_engine(directory, clock), page()
    hand_over(engine, job)
    done(engine)
    assert job.calls == 1
    assert engine.counters["refreshes_handed_over"] == 0
    assert engine.serve(FakeOrigin(key="page")).status is not STALE
