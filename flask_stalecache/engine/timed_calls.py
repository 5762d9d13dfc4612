"""Calls origins in worker threads with a time limit, and waits for background refreshes."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Protocol

from ..core.exhaustive import assert_never
from ..core.model.note import NOTHING
from ..core.rules.storability import Verdict
from ..errors import OriginBusy, OriginTimeout
from ..stores.base import Copy, Store
from .background import ProcessState
from .fetch_state import POLL, FetchState
from .flights.singleflight import Flights
from .origin import Answer, Origin, RefreshResult, Served
from .runtime import Runtime


class Driver(Protocol):
    """The part of the engine that timed calls need."""

    store: Store
    runtime: Runtime

    def look_again(self, visit: FetchState) -> Served | None:
        """Look the key up again, and serve the copy. Return ``None`` if the request still has to fetch."""

    def bypass(self, origin: Origin) -> Answer:
        """Call the origin for one request alone."""

    def serve_answer(self, visit: FetchState, answer: Answer, stored: bool) -> Served:
        """Serve the origin's answer. If the origin failed, serve the copy instead where that is allowed."""


class WaitEnd(Enum):
    """How a wait for a refresh has ended without anything to serve."""

    #: The queue of the thread pool is full.
    DROPPED = "dropped"
    #: The wait timed out. The refresh goes on.
    LATE = "late"


def wait_for_refresh(
    process: ProcessState, visit: FetchState, wait: float, look: Callable[[RefreshResult | None, bool], Served | None]
) -> Served | WaitEnd:
    """Wait for the refresh of a key. Submit one if no refresh is pending.

    The wait counts from when the refresh was submitted, so that later requests wait less.

    ========================================== ========================
    condition                                  result
    ========================================== ========================
    ``look`` finds something to serve          ``Served``
    a refresh is due, but the queue is full    ``DROPPED``
    ``wait`` seconds have passed               ``LATE``
    ========================================== ========================

    :param look: called with the result of the pending refresh, and whether this request submitted it.
    """
    refreshes, key = process.refreshes, visit.origin.key
    ours: RefreshResult | None = None
    result, until = refreshes.result_of(key), refreshes.since(key) + wait
    while True:
        if (served := look(result, result is ours)) is not None:
            return served
        if visit.origin.key != key:
            # The request belongs to another variant now, which has a refresh of its own.
            key = visit.origin.key
            result = refreshes.result_of(key)
        # No refresh is pending, or one has ended without a result for this request: another process had the lock, or the result
        # was only for the request that submitted it.
        if result is None or result.done.is_set():
            is_claimed = refreshes.claim(visit.copy)
            result = refreshes.result_of(key)
            if result is not None:
                result.waiting = True
            if is_claimed:
                until = until if ours is not None else refreshes.since(key) + wait
                ours = result
            if is_claimed and not refreshes.submit(visit.origin.refresh()):
                return WaitEnd.DROPPED
            # Without threads, the refresh is done by now.
            if (served := look(result, result is ours)) is not None:
                return served
        left = until - time.monotonic()
        if left <= 0:
            if result is not None:
                result.waiting = False
            return WaitEnd.LATE
        if result is not None:
            result.waiting = True
        visit.waited = visit.waited or result is not ours
        wait_a_moment(process.flights, key, result, min(POLL, left))


def wait_a_moment(flights: Flights, key: str, result: RefreshResult | None, seconds: float) -> None:
    """Wait until the pending refresh or the key's flight ends, but no longer than ``seconds``."""
    if result is not None and not result.done.is_set():
        result.done.wait(seconds)
    else:
        flights.wait(key, seconds)


class TimedCalls:
    """Calls origins in worker threads.

    :param engine: the driver.
    """

    def __init__(self, engine: Driver) -> None:
        self._engine = engine

    def call(self, visit: FetchState, wait: float) -> Served:
        """Call the origin in a thread of its own, and wait for it. The wait counts from when the call was submitted."""
        process, origin = self._engine.runtime.process, visit.origin
        if process.flights.is_led_here(origin.key):
            return Served(visit.fetch.status, None, self._engine.bypass(origin))
        ended = wait_for_refresh(process, visit, wait, partial(self._outcome, visit))
        match ended:
            case WaitEnd.DROPPED:
                return self._engine.serve_answer(visit, _busy(origin), stored=False)
            case WaitEnd.LATE:
                return self._engine.serve_answer(visit, _too_late(origin, wait), stored=False)
            case Served():
                return ended
            case _:
                return assert_never(ended)

    def call_unlocked(self, visit: FetchState) -> Served:
        """Call an origin for a single caller: the answer can't be stored and must not be shared."""
        origin, wait = visit.origin, visit.origin.wait or 0.0
        result = self._engine.runtime.process.refreshes.call_apart(origin.refresh(), visit.copy)
        if result is None:
            return self._engine.serve_answer(visit, _busy(origin), stored=False)
        result.done.wait(wait)
        return self._engine.serve_answer(visit, result.answer or _too_late(origin, wait), stored=False)

    def _outcome(self, visit: FetchState, result: RefreshResult | None, is_ours: bool) -> Served | None:
        """Serve the answer of a call, or an entry stored since. Return ``None`` if there is nothing for this request yet."""
        if is_ours and result is not None and not result.done.is_set():
            # Our own call writes its note before it sets its result. A lookup between the two would find the back-off, and the
            # caller would be refused instead of getting the failure.
            return None
        answer = result.answer if result is not None and result.done.is_set() else None
        is_storable = answer is not None and answer.verdict is Verdict.STORABLE
        if answer is not None and (answer.verdict.is_failure or (is_ours and not is_storable)):
            return self._engine.serve_answer(visit, answer, stored=False)
        # The key may have been purged since the call began.
        if self._engine.store.moved(visit.copy) and (served := self._engine.look_again(visit)) is not None:
            return served
        if answer is None or not is_storable:
            return None
        if answer.entry is not None and not is_ours:
            if answer.entry.key != visit.origin.key:
                # The answer has turned out to depend on the request.
                return None
            # Never share a value object: each request gets its own from the entry, even if the entry was not stored.
            return Served(visit.fetch.status, Copy(visit.origin.key, answer.entry, NOTHING, 0, 0), collapsed=True)
        return self._engine.serve_answer(visit, answer, stored=False)


def _busy(origin: Origin) -> Answer:
    return Answer(Verdict.REFUSED, error=OriginBusy(f"{origin.label}: as many calls run as max_concurrency allows"))


def _too_late(origin: Origin, wait: float) -> Answer:
    return Answer(Verdict.REFUSED, error=OriginTimeout(f"{origin.label}: no answer within {wait:g} s"))
