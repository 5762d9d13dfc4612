"""Hits of a stale copy whose refresh is pending, or backs off: one in a second decides, and the others repeat it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import time_machine

from flask_stalecache import stale_served
from flask_stalecache.core.rules.prefer_stale import PreferStale
from flask_stalecache.engine.engine import Engine
from flask_stalecache.engine.origin import Served
from flask_stalecache.engine.scheduling.fair_queue import Demand
from flask_stalecache.engine.standing import LONGEST, Standing
from support.engine import FakeOrigin, FakeRefresh, body_of, failed, make_engine, storable
from support.engine_calls import HIT, IN_SIE, IN_SWR, STALE, UPDATING, hand_over, hold_refresh, stale_engine, store_old
from support.threads import PATIENCE


def visit(engine: Engine, origin: FakeOrigin | None = None) -> Served:
    return engine.serve(origin or FakeOrigin())


def repeated(served: Served) -> bool:
    """Whether a hit was answered as the one before, without another decision."""
    return served.took is None


def test_of_stale_hits_one_in_a_second_decides(directory: Path, clock: time_machine.Traveller, held: threading.Event) -> None:
    engine = stale_engine(directory, clock)
    hold_refresh(engine, held)
    for _ in range(3):
        answered = [visit(engine) for _ in range(5)]
        assert [(served.status, body_of(served), served.refresh) for served in answered] == [(UPDATING, b"old", False)] * 5
        assert list(map(repeated, answered)) == [False, *[True] * 4]
        clock.shift(LONGEST)
    held.set()
    assert engine.runtime.drain(PATIENCE)
    assert (visit(engine).status, body_of(visit(engine))) == (HIT, b"new")


def test_hits_of_what_backs_off_do_too(directory: Path, clock: time_machine.Traveller) -> None:
    engine = stale_engine(directory, clock, REFRESH_BACKOFF=(100, 300))
    hand_over(engine, FakeRefresh(failed))
    assert engine.runtime.drain(PATIENCE)
    answered = [visit(engine) for _ in range(3)]
    assert [served.status for served in answered] == [UPDATING] * 3
    assert list(map(repeated, answered)) == [False, True, True]


def test_hits_past_the_window_of_what_backs_off_do_too(directory: Path, clock: time_machine.Traveller) -> None:
    engine = make_engine(directory)
    store_old(engine)
    clock.shift(IN_SIE)
    note = engine.store.load("page").note.failed(time.time(), (100, 300), 0.0)
    engine.store.write_note("page", note)
    answered = [visit(engine) for _ in range(3)]
    assert [(served.status, repeated(served)) for served in answered] == [(STALE, False), (STALE, True), (STALE, True)]
    clock.shift(101)
    assert visit(engine).status is not STALE


def test_a_fresh_hit_before_its_refresh_ahead_does(directory: Path, clock: time_machine.Traveller) -> None:
    engine = make_engine(directory)
    store_old(engine)
    origin = FakeOrigin()
    origin.terms = origin.terms._replace(refresh_ahead=20.0)
    assert [repeated(visit(engine, origin)) for _ in range(2)] == [False, True]
    clock.shift(39.5)
    assert [repeated(visit(engine, origin)) for _ in range(2)] == [False, True]
    clock.shift(0.6)
    assert (visit(engine, origin).refresh, visit(engine, origin).status) == (True, HIT)
    assert repeated(visit(engine, origin))


def ends_by_drop(engine: Engine, held: threading.Event, monotonic: Callable[[float], None]) -> None:
    """The refresh is dropped from a full queue."""
    refreshes = engine.runtime.process.refreshes
    result = refreshes.result_of("page")
    assert result is not None
    refreshes._drop("page", result)


def ends_by_time(engine: Engine, held: threading.Event, monotonic: Callable[[float], None]) -> None:
    """The deadline has passed, and no round of housekeeping has given the refresh up."""
    monotonic(1e4)


@pytest.mark.parametrize("ends", [ends_by_drop, ends_by_time])
def test_a_refresh_that_is_no_longer_pending_is_asked_for_again(
    directory: Path,
    clock: time_machine.Traveller,
    held: threading.Event,
    monotonic: Callable[[float], None],
    ends: Callable[[Engine, threading.Event, Callable[[float], None]], None],
) -> None:
    engine = stale_engine(directory, clock)
    hold_refresh(engine, held)
    assert [repeated(visit(engine)) for _ in range(2)] == [False, True]
    ends(engine, held, monotonic)
    assert [(served.status, served.refresh) for served in [visit(engine)]] == [(STALE, True)]
    held.set()


def test_a_clock_that_steps_back_ends_it(directory: Path, clock: time_machine.Traveller, held: threading.Event) -> None:
    engine = stale_engine(directory, clock)
    hold_refresh(engine, held)
    assert [repeated(visit(engine)) for _ in range(2)] == [False, True]
    clock.shift(-IN_SWR)
    assert visit(engine).status is HIT
    held.set()


def test_another_client_decides_for_itself(directory: Path, clock: time_machine.Traveller, held: threading.Event) -> None:
    engine = stale_engine(directory, clock)
    hold_refresh(engine, held)
    assert [repeated(visit(engine)) for _ in range(2)] == [False, True]
    origin = FakeOrigin()
    origin.terms = origin.terms._replace(prefer_stale=PreferStale.AND_REFRESH)
    assert not repeated(visit(engine, origin))
    held.set()


def test_receivers_of_the_signal_hear_of_each(directory: Path, clock: time_machine.Traveller, held: threading.Event) -> None:
    engine, heard = stale_engine(directory, clock), []

    def hear(sender: object, **said: object) -> None:
        heard.append(said["status"])

    with stale_served.connected_to(hear):
        hold_refresh(engine, held)
        for _ in range(5):
            visit(engine)
    held.set()
    assert heard == [STALE, *[UPDATING] * 5]


def test_the_debug_log_tells_of_each(
    directory: Path, clock: time_machine.Traveller, held: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    engine = stale_engine(directory, clock)
    hold_refresh(engine, held)
    with caplog.at_level(logging.DEBUG, "flask_stalecache"):
        for _ in range(5):
            visit(engine)
    held.set()
    assert caplog.text.count("the stored copy is served") == 5


def test_each_counts_for_the_place_in_the_queue() -> None:
    demand, other = Demand(), Demand()
    standing = Standing(UPDATING, FakeOrigin().terms, 0.0, 1.0, demand=demand)
    demand.ask(1000.0)
    for _ in range(7):
        standing.count()
        other.ask(1000.0)
    other.ask(1000.0)
    assert demand.rank == pytest.approx(other.rank)
    demand.ask(1005.0)
    other.ask(1005.0)
    assert (demand.rank, demand.more) == (pytest.approx(other.rank), 0)


def test_what_is_served_so_while_another_process_refreshes(
    directory: Path, clock: time_machine.Traveller, held: threading.Event, monotonic: Callable[[float], None]
) -> None:
    engine, other = stale_engine(directory, clock), make_engine(directory)
    hold_refresh(engine, held)
    hand_over(other, FakeRefresh(storable))
    assert other.runtime.drain(PATIENCE)
    assert [(served.status, repeated(served)) for served in [visit(other), visit(other)]] == [(UPDATING, False), (UPDATING, True)]
    monotonic(0.3)
    hand_over(other, FakeRefresh(storable))
    held.set()
    assert engine.runtime.drain(PATIENCE)
    assert other.runtime.drain(PATIENCE)
    assert body_of(visit(other)) == b"new"
