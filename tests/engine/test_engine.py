"""The engine over a real store: hits and misses, clocks that step, and all cases mixed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import time_machine

from flask_stalecache import CacheStatus, FileStore
from flask_stalecache.core.model.note import NOTHING, Note
from flask_stalecache.core.rules.storability import Verdict
from flask_stalecache.engine.engine import Engine
from flask_stalecache.engine.origin import Answer, Start
from support.engine import FakeOrigin, FakeRefresh, body_of, failed, make_engine, make_entry, personal, storable, unstorable
from support.engine_calls import EXPIRED, HIT, IN_SIE, IN_SWR, MISS, PAST_ALL, STALE, UPDATING, is_free, store_old
from support.threads import PATIENCE, go, results

# -- one visitor -----------------------------------------------------------------------------------------------------


def test_miss_hit_and_expired(engine: Engine, clock: time_machine.Traveller) -> None:
    origin = FakeOrigin(lambda start: storable(start, f"{origin.calls}".encode(), windows=(60, 0, 0)))
    miss, hit = engine.serve(origin), engine.serve(origin)
    assert (miss.status, body_of(miss), miss.stored, miss.collapsed) == (MISS, b"1", True, False)
    assert (hit.status, body_of(hit), hit.refresh) == (HIT, b"1", False)
    clock.shift(60)
    expired, hit = engine.serve(origin), engine.serve(origin)
    assert (expired.status, body_of(expired), expired.stored) == (EXPIRED, b"2", True)
    assert (hit.status, body_of(hit)) == (HIT, b"2")
    assert origin.calls == 2


def test_the_origin_is_told_what_is_stored_and_when_it_started(engine: Engine, clock: time_machine.Traveller) -> None:
    origin = FakeOrigin(lambda start: storable(start, windows=(60, 0, 0)))
    engine.serve(origin)
    clock.shift(100)
    engine.serve(origin)
    first, second = origin.starts
    assert first.previous is None
    assert second.previous is not None
    assert second.previous.serial == first.serial != second.serial
    assert second.started - first.started == 100
    assert first.seq == engine.store.seq()


@pytest.mark.parametrize(
    ("age", "note", "status", "calls"),
    [
        (0, NOTHING, HIT, 0),
        (59, NOTHING, HIT, 0),
        (IN_SWR, NOTHING, STALE, 0),
        (659, NOTHING, STALE, 0),
        (IN_SIE, NOTHING, EXPIRED, 1),
        (PAST_ALL, NOTHING, EXPIRED, 1),
        (IN_SWR, "backing off", UPDATING, 0),
        (IN_SIE, "backing off", STALE, 0),
        (PAST_ALL, "backing off", EXPIRED, 1),
    ],
)
def test_one_row_of_the_decision_each(
    engine: Engine, clock: time_machine.Traveller, age: float, note: Any, status: CacheStatus, calls: int
) -> None:
    store_old(engine)
    clock.shift(age)
    if note == "backing off":
        engine.store.write_note("page", NOTHING.failed(time.time(), (2, 300), 0))
    origin = FakeOrigin()
    answered = engine.serve(origin)
    assert answered.status is status
    assert origin.calls == calls
    assert body_of(answered) == (b"new" if calls else b"old")
    assert answered.refresh == (status is STALE and age < 660)


def test_keys_do_not_meet(engine: Engine) -> None:
    page, news = (
        FakeOrigin(lambda start: storable(start, b"page")),
        FakeOrigin(lambda start: storable(start, b"news", key="news"), key="news"),
    )
    for origin in (page, news, page, news):
        engine.serve(origin)
    assert [body_of(engine.serve(origin)) for origin in (page, news)] == [b"page", b"news"]
    assert (page.calls, news.calls) == (1, 1)


# -- clocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 3600, 10**8])
def test_a_clock_step_leaves_no_entry_that_cannot_be_replaced(engine: Engine, clock: time_machine.Traveller, step: float) -> None:
    store_old(engine, windows=(0, 0, 0), started=time.time() + step)
    answered = engine.serve(FakeOrigin(lambda start: storable(start, windows=(60, 0, 0))))
    assert (answered.status, answered.stored) == (EXPIRED, True)
    assert body_of(engine.serve(FakeOrigin())) == b"new"


def test_a_clock_that_steps_back_while_the_origin_runs_stores_all_the_same(engine: Engine, clock: time_machine.Traveller) -> None:
    store_old(engine, windows=(0, 0, 0))

    def script(start: Start) -> Answer:
        clock.shift(-3600)
        return storable(start)

    assert engine.serve(FakeOrigin(script)).stored
    assert body_of(engine.serve(FakeOrigin())) == b"new"


# -- everything at once ----------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_many_visitors_of_two_engines_and_every_kind_of_answer(directory: Path, soak: Callable[[int, int], int]) -> None:
    """Whatever comes, everybody is answered, no page is another key's, and nothing is left behind."""
    engines, rounds = [make_engine(directory, REFRESH_BACKOFF=(0.01, 0.05)) for _ in range(2)], soak(2000, 100)
    keys = ["a", "b", "c"]

    def script_for(key: str) -> Callable[[Start], Answer]:
        def script(start: Start) -> Answer:
            match start.serial[0]:
                case "0" | "1":
                    return failed(anybodys=start.serial[1] < "8")
                case "2":
                    return unstorable(key.encode())
                case "3":
                    return replace(personal("member"), value=key.encode())
                case _:
                    return storable(start, key.encode(), key=key, windows=(0.002, 0.01, 0.05))

        return script

    def play(number: int) -> int:
        answered = 0
        for turn in range(rounds):
            key, engine = keys[(turn + number) % 3], engines[(turn // 3 + number) % 2]
            member = frozenset({"member"}) if (turn + number) % 7 == 0 else frozenset[str]()
            served = engine.serve(FakeOrigin(script_for(key), key=key, cookies=member))
            if served.refresh:
                engine.runtime.submit(FakeRefresh(script_for(key), key=key))
            failure = served.answer is not None and served.answer.verdict is Verdict.FAILED
            assert failure or body_of(served) in (key.encode(), "live")
            answered += 1
        return answered

    assert results([go(play, number) for number in range(8)]) == [rounds] * 8
    for engine in engines:
        assert engine.runtime.drain(PATIENCE)
        assert engine.counters["store_failures"] == 0
        assert engine.counters["broken_entries"] == 0
        assert engine.counters["lock_timeouts"] == 0
    store = FileStore(directory)
    assert all(is_free(store, key) for key in keys)
    assert isinstance(store.load("a").note, Note)


# -- is something stored, or coming? -----------------------------------------------------------------------------------


def test_an_answer_that_is_stored_between_the_look_and_the_lock_is_seen(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A POST purges a page that is stored or being made. The call may store the page, and release the lock, in between."""
    real = engine.store.lock

    def lock_after_the_call(key: str) -> Any:
        monkeypatch.undo()
        assert engine.store.write(make_entry(key, seq=engine.store.seq()))
        return real(key)

    monkeypatch.setattr(engine.store, "lock", lock_after_the_call)
    assert engine.is_stored_or_coming("page")


@pytest.mark.parametrize("has_lock", [True, False])
def test_a_call_that_runs_is_coming(engine: Engine, has_lock: bool) -> None:
    gate, asked = threading.Event(), threading.Event()

    def wait(start: Start) -> Answer:
        asked.set()
        assert gate.wait(PATIENCE)
        return storable(start)

    assert not engine.is_stored_or_coming("page")
    running = go(engine.serve, FakeOrigin(wait))
    assert asked.wait(PATIENCE)
    flights = engine.runtime.process.flights
    if not has_lock:
        flights.release_lock(flights.join("page")[0])
    assert engine.is_stored_or_coming("page")
    gate.set()
    running.result(PATIENCE)
