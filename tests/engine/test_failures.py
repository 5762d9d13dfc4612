"""The engine: an origin that fails, and a store that fails. Covers ``engine.answer_writer`` and ``engine.log``."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import time_machine

from flask_stalecache import FileStore
from flask_stalecache.core.model.note import NOTHING
from flask_stalecache.engine.engine import Engine
from flask_stalecache.engine.origin import Answer, Start
from support.engine import FakeOrigin, FakeRefresh, body_of, failed, make_engine, personal, storable, unstorable
from support.engine_calls import (
    EXPIRED,
    HIT,
    IN_SIE,
    MISS,
    PAST_ALL,
    STALE,
    UPDATING,
    asking,
    fail,
    give_up,
    hold_refresh,
    is_free,
    nothing_is_left,
    once,
    stale_engine,
    store_old,
    waiting_for,
)
from support.threads import PATIENCE, crowd, go, results, wait_until

# -- failures --------------------------------------------------------------------------------------------------------


def test_a_failure_that_could_be_anybodys_is_shared(engine: Engine, joined: list[str]) -> None:
    origin = FakeOrigin(waiting_for(lambda: len(joined) == 50, lambda _: failed()))
    answers = results(crowd(50, asking(engine, origin)))
    assert origin.calls == 1
    errors = [answer.answer.error for answer in answers if answer.answer is not None]
    assert len(errors) == 50
    assert {type(error) for error in errors} == {ConnectionError}
    assert sorted(answer.collapsed for answer in answers) == [False] + [True] * 49
    assert {answer.status for answer in answers} == {MISS}


def test_a_failure_that_was_one_visitors_own_is_not_shared(engine: Engine, joined: list[str]) -> None:
    """The others try one at a time, and the first that succeeds ends it."""
    running: list[int] = []

    def call(start: Start) -> Answer:
        running.append(1)
        assert len(running) == 1
        running.pop()
        return failed(anybodys=False) if origin.calls < 4 else storable(start)

    origin = FakeOrigin()
    origin.script = once(waiting_for(lambda: len(joined) == 10, lambda _: failed(anybodys=False)), call)
    answers = results(crowd(10, asking(engine, origin)))
    assert origin.calls == 4
    bad = [answer for answer in answers if answer.answer is not None and answer.answer.error is not None]
    assert len(bad) == 3
    assert not any(answer.collapsed for answer in bad)
    assert len([answer for answer in answers if body_of(answer) == b"new"]) == 7


def test_a_failure_is_not_shared_with_who_carries_what_it_lacked(engine: Engine, joined: list[str]) -> None:
    guest = FakeOrigin()
    without_member = replace(failed(), absent=personal("member").carried)
    guest.script = waiting_for(lambda: len(joined) == 2, lambda _: without_member)
    member = FakeOrigin(lambda _: personal("member"), cookies=frozenset({"member"}))
    first = go(engine.serve, guest)
    wait_until(lambda: guest.calls)
    second = go(engine.serve, member)
    assert isinstance(first.result(PATIENCE).answer, Answer)
    assert body_of(second.result(PATIENCE)) == "one member's"
    assert member.calls == 1


def test_a_failure_within_sie_serves_all_what_is_stored(
    engine: Engine, clock: time_machine.Traveller, joined: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    store_old(engine)
    clock.shift(IN_SIE)
    origin = FakeOrigin(waiting_for(lambda: len(joined) == 50, lambda _: failed()))
    with caplog.at_level(logging.WARNING, "flask_stalecache"):
        answers = results(crowd(50, asking(engine, origin)))
    assert origin.calls == 1
    assert [(answer.status, body_of(answer)) for answer in answers] == [(STALE, b"old")] * 50
    assert len(caplog.records) == 1
    assert "the third party is down" in caplog.text


def test_a_failure_past_all_windows_is_the_visitors(engine: Engine, clock: time_machine.Traveller) -> None:
    store_old(engine)
    clock.shift(PAST_ALL)
    answered = engine.serve(FakeOrigin(lambda _: failed()))
    assert answered.status is EXPIRED
    assert answered.answer is not None
    assert isinstance(answered.answer.error, ConnectionError)


def test_failures_back_off_for_all_and_a_success_ends_it(directory: Path, clock: time_machine.Traveller) -> None:
    """Doubling from the first pause to the longest, lengthened by a quarter at most."""
    engines = [make_engine(directory, REFRESH_BACKOFF=(2, 10)) for _ in range(2)]
    store_old(engines[0], windows=(60, 0, 10**6))
    clock.shift(61)
    down = FakeOrigin(lambda _: failed())
    for turn, pause in enumerate((2, 4, 8, 10, 10), 1):
        assert engines[turn % 2].serve(down).status is STALE
        assert down.calls == turn
        for engine in engines:
            assert engine.serve(down).status is STALE
        clock.shift(pause - 0.01)
        for engine in engines:
            assert engine.serve(down).status is STALE
        assert down.calls == turn
        clock.shift(pause / 4 + 0.02)
    up = FakeOrigin()
    assert engines[0].serve(up).status is EXPIRED
    assert engines[1].store.load("page").note == NOTHING


def test_a_clock_that_steps_back_ends_a_pause(engine: Engine, clock: time_machine.Traveller) -> None:
    store_old(engine, windows=(60, 0, 10**9), started=time.time() - 10**6)
    engine.serve(FakeOrigin(lambda _: failed()))
    clock.shift(-3600)
    up = FakeOrigin()
    assert engine.serve(up).status is EXPIRED
    assert up.calls == 1


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit(), MemoryError()], ids=repr)
def test_what_is_no_answer_passes_and_frees_flight_and_lock(
    engine: Engine, elsewhere: FileStore, joined: list[str], error: BaseException
) -> None:
    """The leader's visitor alone sees it; the next in the queue calls for the others."""

    def die(_: Start) -> Answer:
        wait_until(lambda: len(joined) == 5)
        raise error

    origin = FakeOrigin(once(die))
    futures = crowd(5, asking(engine, origin))
    outcomes = [future.exception(PATIENCE) for future in futures]
    assert [outcome for outcome in outcomes if outcome is not None] == [error]
    assert {body_of(future.result()) for future in futures if future.exception() is None} == {b"new"}
    assert origin.calls == 2
    nothing_is_left(engine, elsewhere)


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()], ids=repr)
def test_a_visitor_who_dies_waiting_for_the_lock_frees_the_flight(
    engine: Engine, elsewhere: FileStore, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    lock = elsewhere.lock("page")
    assert lock.acquire()

    def die(_: float) -> None:
        raise error

    with monkeypatch.context() as dying:
        dying.setattr(time, "sleep", die)
        assert go(engine.serve, FakeOrigin()).exception(PATIENCE) is error
    lock.release()
    nothing_is_left(engine, elsewhere)


# -- a store that fails ----------------------------------------------------------------------------------------------


VERDICTS: dict[str, Callable[[Start], Answer]] = {
    "storable": storable,
    "unstorable": lambda _: unstorable(),
    "personal": lambda _: personal("member"),
    "failed": lambda _: failed(),
}


def break_store(engine: Engine, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one step of the store fail, or ``every`` one."""
    steps = ["load", "write", "remove", "write_note", "lock"] if step == "every" else [step]
    for name in steps:
        if name != "lock":
            monkeypatch.setattr(engine.store, name, fail)
            continue
        make = engine.store.lock

        def broken_lock(key: str, make: Callable[[str], Any] = make) -> Any:
            lock = make(key)
            lock.acquire = fail
            return lock

        monkeypatch.setattr(engine.store, "lock", broken_lock)


@pytest.mark.grid
@pytest.mark.parametrize("step", ["load", "lock", "write", "write_note", "remove", "every"])
@pytest.mark.parametrize("answer", VERDICTS.values(), ids=VERDICTS)
@pytest.mark.parametrize("may_collapse", [True, False])
@pytest.mark.parametrize("age", [None, PAST_ALL], ids=["absent", "expired"])
def test_a_store_that_fails_costs_no_visitor_the_page(
    engine: Engine,
    clock: time_machine.Traveller,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    answer: Callable[[Start], Answer],
    may_collapse: bool,
    age: float | None,
) -> None:
    if age is not None:
        store_old(engine)
        clock.shift(age)
    with monkeypatch.context() as broken:
        break_store(engine, step, broken)
        origin = FakeOrigin(answer, may_collapse=may_collapse)
        answered = go(engine.serve, origin).result(PATIENCE)
        assert origin.calls == 1
        assert answered.answer is not None
        assert (answered.answer.value, type(answered.answer.error)) in [
            (b"new", type(None)),
            ("for nobody else", type(None)),
            ("one member's", type(None)),
            (None, ConnectionError),
        ]
        if step in ("load", "every") or (step == "lock" and may_collapse):
            assert engine.counters["store_failures"] >= 1
    again = FakeOrigin()
    clock.shift(11)
    assert body_of(go(engine.serve, again).result(PATIENCE)) == b"new"
    assert engine.serve(again).status is HIT


@pytest.mark.parametrize("step", ["load", "lock", "write", "every"])
def test_a_store_that_fails_still_costs_one_call_for_all_who_wait(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, joined: list[str], step: str
) -> None:
    break_store(engine, step, monkeypatch)
    origin = FakeOrigin(waiting_for(lambda: len(joined) == 20, storable))
    answers = results(crowd(20, asking(engine, origin)))
    assert [body_of(answer) for answer in answers] == [b"new"] * 20
    assert origin.calls == 1


@pytest.mark.grid
@pytest.mark.parametrize("step", ["load", "lock", "write", "write_note", "remove", "every"])
@pytest.mark.parametrize("answer", VERDICTS.values(), ids=VERDICTS)
def test_a_store_that_fails_in_a_refresh_keeps_the_copy(
    directory: Path,
    clock: time_machine.Traveller,
    elsewhere: FileStore,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    answer: Callable[[Start], Answer],
) -> None:
    engine = stale_engine(directory, clock)
    assert engine.serve(FakeOrigin()).refresh
    with monkeypatch.context() as broken:
        break_store(engine, step, broken)
        engine.runtime.submit(FakeRefresh(answer))
        assert engine.runtime.drain(PATIENCE)
        if step in ("load", "lock", "every"):
            assert engine.counters["store_failures"] == 1
    assert is_free(elsewhere)
    nothing_is_left(engine, elsewhere)


def test_a_store_that_fails_is_told_once_a_minute(
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    monotonic: Callable[[float], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    break_store(engine, "write", monkeypatch)
    with caplog.at_level(logging.WARNING, "flask_stalecache"):
        for _ in range(5):
            engine.serve(FakeOrigin())
        assert len(caplog.records) == 1
        monotonic(59)
        engine.serve(FakeOrigin())
        assert len(caplog.records) == 1
        monotonic(2)
        engine.serve(FakeOrigin())
    assert len(caplog.records) == 2
    assert "the disk is gone" in caplog.records[1].getMessage()
    assert engine.counters["store_failures"] == 7


@pytest.mark.parametrize("step", ["load", "write_note", "every"])
def test_a_deadline_passes_although_the_store_fails(
    directory: Path,
    clock: time_machine.Traveller,
    monotonic: Callable[[float], None],
    held: threading.Event,
    elsewhere: FileStore,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    engine = stale_engine(directory, clock, REFRESH_DEADLINE=100)
    hold_refresh(engine, held)
    break_store(engine, step, monkeypatch)
    give_up(engine, monotonic)
    assert is_free(elsewhere)
    assert engine.counters["store_failures"] >= 1


def test_copies_may_be_lost_at_any_moment(directory: Path, clock: time_machine.Traveller) -> None:
    """Without copies in memory all is as before, only slower."""
    engine, origin = make_engine(directory, MEMORY_SIZE=0), FakeOrigin()
    assert [engine.serve(origin).status for _ in range(2)] == [MISS, HIT]
    clock.shift(61)
    hand_over_new = engine.serve(origin)
    assert (hand_over_new.status, hand_over_new.refresh) == (STALE, True)
    assert engine.serve(origin).status is UPDATING
    engine.runtime.submit(FakeRefresh(lambda start: storable(start, b"newer")))
    assert engine.runtime.drain(PATIENCE)
    assert body_of(engine.serve(origin)) == b"newer"
    assert origin.calls == 1
