"""Helpers of the tests of the engine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import time_machine

from flask_stalecache import CacheStatus, FileStore, StoreError
from flask_stalecache.core.model.note import NOTHING
from flask_stalecache.engine.engine import Engine
from flask_stalecache.engine.origin import Answer, Served, Start
from support.engine import FakeOrigin, FakeRefresh, body_of, make_engine, make_entry, storable
from support.threads import PATIENCE, go, wait_until

HIT, MISS, EXPIRED = CacheStatus.HIT, CacheStatus.MISS, CacheStatus.EXPIRED

STALE, UPDATING, BYPASS = CacheStatus.STALE, CacheStatus.UPDATING, CacheStatus.BYPASS

WINDOWS = (60, 600, 3600)

#: Seconds after which an entry with the windows above is in SWR, past it but in SIE, and past all.
IN_SWR, IN_SIE, PAST_ALL = 61, 700, 4000


def store_old(engine: Engine, **options: Any) -> None:
    """Store an entry with the body ``old`` that was made just now."""
    engine.store.write(make_entry(body=b"old", **{"windows": WINDOWS, **options}))


def asking(engine: Engine, origin: FakeOrigin) -> Callable[[], Served]:
    return lambda: engine.serve(origin)


def once(first: Callable[[Start], Answer], later: Callable[[Start], Answer] = storable) -> Callable[[Start], Answer]:
    """Return a script whose first call differs."""
    calls: list[Start] = []

    def script(start: Start) -> Answer:
        calls.append(start)
        return first(start) if len(calls) == 1 else later(start)

    return script


def waiting_for(condition: Callable[[], object], answer: Callable[[Start], Answer]) -> Callable[[Start], Answer]:
    """Return a script that waits for something before it answers."""

    def script(start: Start) -> Answer:
        wait_until(condition)
        return answer(start)

    return script


def is_free(store: FileStore, key: str = "page") -> bool:
    """Whether nobody holds the key's lock."""
    lock = store.lock(key)
    free = lock.acquire()
    lock.release()
    return free


def nothing_is_left(engine: Engine, store: FileStore) -> None:
    """Fail if a flight or a lock is left behind: the next visitor would wait for it."""
    assert is_free(store)
    late = FakeOrigin(key="page", patience=0.0)
    engine.store.remove("page")
    engine.store.write_note("page", NOTHING)
    assert go(engine.serve, late).result(PATIENCE).status is MISS
    assert late.calls == 1


def hang(engine: Engine, held: threading.Event, answer: Callable[[Start], Answer]) -> tuple[FakeOrigin, Future[Served]]:
    """Let a leader hang in its call until ``held`` is set."""
    hung = FakeOrigin(waiting_for(held.is_set, answer))
    future = go(engine.serve, hung)
    wait_until(lambda: hung.calls)
    return hung, future


def stale_engine(directory: Path, clock: time_machine.Traveller, **settings: Any) -> Engine:
    engine = make_engine(directory, **settings)
    store_old(engine)
    clock.shift(IN_SWR)
    return engine


def hand_over(engine: Engine, job: FakeRefresh) -> None:
    """Serve a stale page and submit its refresh, as a front end does. Fail if the engine asked for no refresh."""
    answered = engine.serve(FakeOrigin())
    assert (answered.status, body_of(answered), answered.refresh) == (STALE, b"old", True)
    engine.runtime.submit(job)


def hold_refresh(engine: Engine, held: threading.Event, answer: Callable[[Start], Answer] = storable) -> FakeRefresh:
    """Hand over a refresh that hangs until ``held`` is set, and wait until it runs."""
    job = FakeRefresh(waiting_for(held.is_set, answer))
    hand_over(engine, job)
    wait_until(lambda: job.calls)
    return job


def give_up(engine: Engine, monotonic: Callable[[float], None]) -> None:
    """Let the deadline of a refresh, 100 s, pass."""
    monotonic(99)
    engine.runtime.tick()
    assert engine.counters["refreshes_overdue"] == 0
    monotonic(2)
    engine.runtime.tick()
    assert engine.counters["refreshes_overdue"] == 1


def fail(*_: object) -> None:
    raise StoreError("the disk is gone")
