"""Collapses requests: one request for a key calls the origin, and the others wait for its call.

The first request that has to fetch leads the flight of its key (see ``flights.singleflight``). It takes the lock of the key, which
all processes share, and looks again before it calls. What the other requests do:

==================== =============================================== ===========================================================
outcome              when                                            what a request that waits does
==================== =============================================== ===========================================================
STORED               the leader's answer was stored                  it serves the entry, if that is for this request
DATED                the call began after a purge, in an older       it serves the entry, if this request is as old
                     context
UNSTORABLE           the answer can't be stored for anyone           it calls at once, without a queue
FAILED               the origin failed                               it serves the stale copy or its share of the failure, or
                                                                     queues again
OVER                 there is no result to share                     it looks again, and may lead the next flight
none                 ``lock_timeout`` has passed                     it serves the stale copy, whatever its age; one of those
                                                                     who have none takes over the flight, and calls
==================== =============================================== ===========================================================
"""

from __future__ import annotations

import logging
import threading
import time
from functools import partial
from typing import Protocol

from ..core.exhaustive import assert_never
from ..core.rules.variant_index import Fields
from ..errors import StoreError
from ..stores.base import Copy
from .fetch_state import (
    MAX_FAILURES,
    MAX_SLOW_STREAMS,
    POLL,
    Bypass,
    CallUnlocked,
    FetchState,
    LeaderAction,
    Queue,
    Route,
    ServeCopy,
)
from .flights.singleflight import Flight, FlightOutcome, FlightResult, Flights, Lead
from .origin import Answer, Origin, Served, Start
from .runtime import Runtime
from .timed_calls import Driver

logger = logging.getLogger("flask_stalecache")


class CollapsingDriver(Driver, Protocol):
    """The part of the engine that collapsing needs."""

    def choose_route(self, origin: Origin, copy: Copy) -> Route:
        """Choose the route of a request by its stored copy."""

    def call_unlocked(self, visit: FetchState) -> Served:
        """Call the origin without the lock."""

    def serve_stale(self, visit: FetchState) -> Served | None:
        """Serve the copy after a wait. Return ``None`` if it was purged or dropped meanwhile."""


class Collapser:
    """Calls origins once for all requests that come meanwhile, in this process and in others.

    :param engine: the driver.
    """

    def __init__(self, engine: CollapsingDriver) -> None:
        self._engine = engine
        self._runtime = engine.runtime
        self._store = engine.store

    def call(self, visit: FetchState) -> Served:
        """Join or lead the key's flight until there is something to serve."""
        while True:
            flight, leads = self._runtime.process.flights.join(visit.origin.key, visit.lead, self._expires(visit))
            served = self._lead(flight, visit) if leads else self._wait(flight, visit)
            if served is None:
                served = self._engine.look_again(visit)
            if served is not None:
                return served

    def _expires(self, visit: FetchState) -> float:
        """Return when housekeeping ends a visitor's flight: no request waits for it any more, and a refresh would be given up."""
        return max(visit.until, time.monotonic() + visit.origin.lock_timeout) + self._runtime.settings.refresh_deadline

    # -- waiting -------------------------------------------------------------------------------------------------

    def _wait(self, flight: Flight, visit: FetchState) -> Served | None:
        """Wait for another request's flight. Return ``None`` if the caller has to look again."""
        if flight.leader == threading.get_ident():
            # The view requests its own page: waiting would be a deadlock.
            return Served(visit.fetch.status, None, self._engine.bypass(visit.origin))
        visit.waited, until = True, visit.until
        if flight.unlocked is not None:
            # A waiter timed out and called without the lock: all others wait for that call.
            until = max(until, flight.unlocked + visit.origin.lock_timeout)
        if not self._runtime.process.flights.wait_for(flight, until):
            return self._lose_patience(flight, visit)
        outcome, copy, _ = flight.result
        if flight.is_slow and outcome is FlightOutcome.OVER:
            return self._leave_slow(visit)
        match outcome:
            case FlightOutcome.STORED:
                return None if copy is None else self._share_copy(copy, visit)
            case FlightOutcome.DATED:
                return None if copy is None else self._share_dated(copy, visit)
            case FlightOutcome.UNSTORABLE:
                return self._engine.call_unlocked(visit)
            case FlightOutcome.FAILED:
                return self._share_failure(flight, visit)
            case FlightOutcome.OVER:
                return None
            case _:
                return assert_never(outcome)

    def _share_copy(self, copy: Copy, visit: FetchState) -> Served | None:
        """Serve the entry that the leader stored. Return ``None`` if it is not for this request, or was purged since."""
        entry = copy.entry
        is_sound = entry is not None and not entry.ended and self._store.seq() == copy.seq
        if entry is None or not is_sound or visit.origin.is_barred_from(entry) or not visit.may_share(entry):
            return None
        return Served(visit.fetch.status, copy, collapsed=True)

    def _share_dated(self, copy: Copy, visit: FetchState) -> Served | None:
        """Serve an entry that is too old to be stored, unless there was a purge between its beginning and this request.

        An own call of this request would count as begun before the purge as well: all requests that wait at a purge would call one
        after the other, and store nothing. A page that shows the entry is not stored: its view was called before this request came.
        """
        return self._share_copy(copy, visit) if copy.entry is not None and visit.seq <= copy.entry.seq else None

    def _share_failure(self, flight: Flight, visit: FetchState) -> Served | None:
        if visit.fetch.if_error is not None and (stale := self._engine.serve_stale(visit)):
            return stale
        failure = flight.result.failure
        if failure is None:
            return None
        shared = visit.origin.share_of(failure, again=visit.met_failures > 0)
        visit.met_failures += 1
        if shared is not None:
            return Served(visit.fetch.status, None, shared, collapsed=True)
        # A request with the same names as the failed one would fail too; if such requests queued, they would fail one by one.
        is_alone = visit.origin.carries(failure.carried) or visit.met_failures > MAX_FAILURES
        return self._engine.call_unlocked(visit) if is_alone else None

    def _lose_patience(self, flight: Flight, visit: FetchState) -> Served | None:
        """End a wait that timed out: serve the stale entry, whatever its age. Without one, a single waiter calls."""
        self._runtime.counters.count("lock_timeouts")
        if visit.fetch.if_locked is not None and (stale := self._engine.serve_stale(visit)):
            return stale
        if flight.pace is not None:
            # The stream may be endless: no request waits for its end any more.
            self._runtime.answer_writer.mark_endless(flight.key)
            self._runtime.process.flights.end(flight)
            return self._engine.call_unlocked(visit)
        flights = self._runtime.process.flights
        taken_over = flights.take_over(flight, visit.origin.lock_timeout, visit.lead, self._expires(visit))
        return None if taken_over is None else self._call_in(taken_over, visit)

    def _leave_slow(self, visit: FetchState) -> Served | None:
        """End the wait for a stream whose client is slow. Return ``None`` if the caller may join or lead another flight."""
        visit.slow_streams += 1
        # Otherwise a request could wait for one slow client after another.
        return None if visit.slow_streams < MAX_SLOW_STREAMS else self._engine.call_unlocked(visit)

    # -- leading -------------------------------------------------------------------------------------------------

    def _lead(self, flight: Flight, visit: FetchState) -> Served | None:
        """Take the key's lock, look again, and call the origin. Return ``None`` if the caller has to look again."""
        try:
            turn = self._take_lock(flight, visit)
        except StoreError as error:
            # The store can't lock: call without the lock, but still once for all waiting requests of this process.
            self._runtime.answer_writer.store_failed(error)
            turn = LeaderAction.CALL
        except BaseException:
            self._runtime.process.flights.end(flight)
            raise
        if turn is LeaderAction.CALL:
            if visit.waited and self._is_too_old(visit.origin):
                # Likewise the leaders of other processes: with the lock, they would call one after the other, and store nothing.
                self._runtime.process.flights.release_lock(flight)
            return self._call_in(flight, visit)
        self._runtime.process.flights.end(flight)
        return self._engine.serve_stale(visit) if turn is LeaderAction.STALE else None

    def _is_too_old(self, origin: Origin) -> bool:
        """Whether the answer to a call of this request counts as begun before the last purge, so that it may not be stored."""
        return (begun := origin.begun) is not None and begun < self._store.seq()

    def _take_lock(self, flight: Flight, visit: FetchState) -> LeaderAction:
        """Wait for the lock of the key, and return the next step."""
        lock = self._store.lock(visit.origin.key)
        while not lock.acquire():
            if self._store.moved(visit.copy) and not self._still_to_fetch(flight, visit):
                return LeaderAction.AGAIN
            visit.waited = True
            if time.monotonic() >= visit.until:
                self._runtime.counters.count("lock_timeouts")
                if visit.fetch.if_locked is not None:
                    return LeaderAction.STALE
                return LeaderAction.CALL if self._runtime.process.flights.go_without_lock(flight) else LeaderAction.AGAIN
            time.sleep(POLL)
        flight.lock = lock
        return LeaderAction.CALL if self._still_to_fetch(flight, visit) else LeaderAction.AGAIN

    def _still_to_fetch(self, flight: Flight, visit: FetchState) -> bool:
        """Look again, once the leader has the lock or the key has changed. Return whether a call is needed.

        If not, set the result for the waiters, as far as there is one to share.
        """
        if visit.origin.relocate():
            return False
        visit.copy = self._store.load(visit.origin.key)
        entry = visit.copy.entry
        if entry is not None and visit.is_new(entry):
            # Another process has stored the entry. This leader may be barred from it while its waiters are not.
            flight.result = FlightResult(FlightOutcome.STORED, visit.copy)
            return False
        route = self._engine.choose_route(visit.origin, visit.copy)
        match route:
            case Queue(fetch):
                if visit.origin.refused(visit.copy) is None:
                    visit.fetch = fetch
                    return True
            case CallUnlocked():
                if self._runtime.answer_writer.is_marked(visit.copy, time.time()):
                    flight.result = FlightResult(FlightOutcome.UNSTORABLE)
            case ServeCopy() | Bypass():
                pass
            case _:
                assert_never(route)
        return False

    def _call_in(self, flight: Flight, visit: FetchState) -> Served:
        """Call the origin as the leader, and end the flight. If the body is still to come, the flight ends with the body."""
        is_over, stored, parting = True, False, _Parting(self._runtime, flight, visit)
        logger.debug("%s: the origin is called", visit.origin.label)
        try:
            start = self._runtime.answer_writer.start(visit.copy)._replace(depends_on=parting)
            answer = self._runtime.instrumentation.call_origin(visit.origin, partial(visit.origin.call, start), start.meter)
            if answer.later is None:
                stored = self._write(flight, start, answer)
            elif self._runtime.in_line:
                # Without threads, no housekeeping would end the flight, and other processes would wait, if the client is slow.
                answer.later(partial(self._runtime.answer_writer.write_if_unlocked, flight.key))
            else:
                answer.later(partial(self._write_whole, self._runtime.process.flights, flight, visit.lead, start))
                flight.pace = answer.pace
                is_over = False
        finally:
            parting.end()
            if is_over:
                self._runtime.process.flights.end(flight)
        return self._engine.serve_answer(visit, answer, stored)

    def _write_whole(self, flights: Flights, flight: Flight, lead: Lead, start: Start, answer: Answer | None) -> None:
        """End the flight of an answer whose body is complete or was cut short.

        :param lead: kept alive by the callback of the body until then, since the flight ends with it.
        """
        try:
            if answer is not None:
                self._write(flight, start, answer)
        finally:
            flights.end(flight)

    def _write(self, flight: Flight, start: Start, answer: Answer) -> bool:
        try:
            return self._runtime.answer_writer.write_flight(self._runtime.process.flights, flight, start, answer)
        except StoreError as error:
            self._runtime.answer_writer.store_failed(error)
            return False


class _Parting:
    """Moves a flight to the key of a variant while its call runs, so that requests for other variants need not wait for it.

    :param runtime: the runtime of the engine.
    :param flight: the flight.
    :param visit: the request that leads it.
    """

    __slots__ = ("_flight", "_runtime", "_visit")

    def __init__(self, runtime: Runtime, flight: Flight, visit: FetchState) -> None:
        self._runtime, self._flight = runtime, flight
        self._visit: FetchState | None = visit

    def __call__(self, fields: Fields) -> None:
        """Move the flight, now that the call has shown what the answer depends on."""
        key = None if self._visit is None else self._visit.origin.key_by(fields)
        if key is not None:
            self._runtime.process.flights.move(self._flight, key)

    def end(self) -> None:
        """Forget the request, which refers to this object: a cycle would keep both until the garbage collector runs."""
        self._visit = None
