"""Collapsing in one process: one flight per key.

The life of a flight: the first request of a key joins and leads it. It takes the lock of the key, which other processes see,
calls the origin, sets ``result``, and ends the flight. Later requests of the key wait for ``done``. If they wait too long, one
of them takes the flight over and calls without waiting for the lock. A background refresh leads a flight with a deadline, after
which housekeeping ends it. If the body of an answer is still to come, the flight ends with the body; but if the client that reads
it is slow, a waiter or housekeeping ends the flight earlier, so that one client can't make all others wait.

The mutex of :class:`Flights` guards the dict of flights, and the transfer of a key's lock from one flight to another. It is never
held during I/O, and hits never take it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from ..stores.base import Copy, KeyLock
from .stream_pace import READER_PATIENCE, StreamPace

#: Seconds between two looks at a client that may turn out to be slow at any moment.
SHORTEST_WAIT = 0.05


class Outcome(Enum):
    """The outcome of a flight, for the requests that waited."""

    #: The answer was stored: ``result.copy``.
    STORED = "stored"
    #: The answer can't be stored for anyone: all waiters call the origin at once, without a queue.
    UNSTORABLE = "unstorable"
    #: The origin failed: ``result.failure``, of which each waiter may be given more or less.
    FAILED = "failed"
    #: There is no result to share: look again, and elect a new leader.
    OVER = "over"


class FlightResult(NamedTuple):
    """The outcome of a flight, with the entry or failure to serve to the waiters.

    :ivar copy: the entry that was stored.
    :ivar failure: the answer of the failed origin.
    """

    outcome: Outcome
    copy: Copy | None = None
    failure: Any = None


LOOK_AGAIN = FlightResult(Outcome.OVER)


@dataclass(eq=False, slots=True)
class Flight:
    """One running call of an origin.

    :ivar leader: the ident of the thread that makes the call.
    :ivar unlocked: when it went on without the lock, on the monotonic clock.
    :ivar deadline: when housekeeping gives up on it, on the monotonic clock; ``None`` for a visitor's own call.
    :ivar given_up: called when that deadline has passed.
    :ivar names: returns the names by which the memory of that failure is purged.
    :ivar lock: the key's lock, if the leader holds it.
    :ivar pace: how fast the client reads the body, if it is still to come.
    :ivar is_slow: it was ended since that client is slow.
    :ivar result: its outcome, for the waiters. It is set before ``done``.
    """

    key: str
    leader: int
    unlocked: float | None = None
    deadline: float | None = None
    given_up: Callable[[], object] | None = None
    names: Callable[[], tuple[str, ...]] | None = None
    lock: KeyLock | None = None
    pace: StreamPace | None = None
    is_slow: bool = False
    result: FlightResult = LOOK_AGAIN
    done: threading.Event = field(default_factory=threading.Event)


class Flights:
    """The flights of one process, guarded by one mutex that hits never take.

    :param count_slow: counts a flight that was ended since its client is slow.
    """

    def __init__(self, count_slow: Callable[[], object] = lambda: None) -> None:
        self._count_slow = count_slow
        self._mutex = threading.Lock()
        self._flights: dict[str, Flight] = {}

    def join(self, key: str) -> tuple[Flight, bool]:
        """Return the key's flight, and whether the caller leads it. If so, the flight is new and the caller must end it."""
        with self._mutex:
            flight = self._flights.get(key)
            if flight is not None:
                return flight, False
            flight = self._flights[key] = Flight(key, threading.get_ident())
            return flight, True

    def lead(self, key: str, deadline: float) -> Flight | None:
        """Return a new flight for a refresh, or ``None`` if the key has one already.

        :param deadline: when to give up on it, on the monotonic clock.
        """
        flight, leads = self.join(key)
        if not leads:
            return None
        flight.deadline = deadline
        return flight

    def go_without_lock(self, flight: Flight) -> bool:
        """Note that a leader calls the origin without the lock. Return false if a waiter has taken the flight over."""
        with self._mutex:
            if self._flights.get(flight.key) is not flight:
                return False
            flight.unlocked = time.monotonic()
            return True

    def take_over(self, flight: Flight, patience: float) -> Flight | None:
        """Replace a flight that takes too long, and return the new one, which does not wait for the lock.

        Return ``None`` if another waiter was quicker, the flight has ended, or it has just gone on without the lock.

        :param patience: seconds that a flight without the lock is given.
        """
        with self._mutex:
            now = time.monotonic()
            just_begun = flight.unlocked is not None and now < flight.unlocked + patience
            if just_begun or self._flights.get(flight.key) is not flight:
                return None
            new = self._flights[flight.key] = Flight(flight.key, threading.get_ident(), unlocked=now)
            # Move the key's lock to the new flight: otherwise all other processes would wait for a call that may never end.
            new.lock, flight.lock = flight.lock, None
        # The waiters of the old flight look again and find the new one.
        flight.done.set()
        return new

    def end(self, flight: Flight) -> bool:
        """End a flight: release its lock and wake its waiters. Return whether it was still the key's flight."""
        with self._mutex:
            lock, flight.lock = flight.lock, None
            current = self._flights.get(flight.key) is flight
            if current:
                del self._flights[flight.key]
        if lock is not None:
            lock.release()
        flight.done.set()
        return current

    def wait_for(self, flight: Flight, until: float) -> bool:
        """Wait until a flight ends, or its client turns out to be slow, which ends it. Return false if it takes too long.

        :param until: when to stop, on the monotonic clock.
        """
        while (left := until - time.monotonic()) > 0:
            pace = flight.pace
            if pace is not None and not pace.left and self.end_slow(flight):
                return True
            # A body that is not known yet to be still to come can't be slow before that time has passed.
            if flight.done.wait(min(left, READER_PATIENCE if pace is None else max(pace.left, SHORTEST_WAIT))):
                return True
        return flight.done.is_set()

    def end_slow(self, flight: Flight) -> bool:
        """End a flight whose client is slow. Return false if it is not the key's flight any more."""
        with self._mutex:
            if flight.is_slow or self._flights.get(flight.key) is not flight:
                return False
            flight.is_slow = True
        self._count_slow()
        return self.end(flight)

    def slow(self) -> list[Flight]:
        """Return the flights whose clients are slow."""
        with self._mutex:
            return [flight for flight in self._flights.values() if flight.pace is not None and not flight.pace.left]

    def wait(self, key: str, seconds: float) -> None:
        """Wait until the key's flight ends, but no longer than ``seconds``. Without a flight, sleep for ``seconds``."""
        flight = self._flights.get(key)
        if flight is None:
            time.sleep(seconds)
        else:
            flight.done.wait(seconds)

    def is_led_here(self, key: str) -> bool:
        """Whether the caller's own thread leads the key's flight."""
        flight = self._flights.get(key)
        return flight is not None and flight.leader == threading.get_ident()

    def is_current(self, flight: Flight) -> bool:
        """Whether the flight is still the key's: no waiter took it over, and no deadline ended it."""
        return self._flights.get(flight.key) is flight

    def overdue(self) -> list[Flight]:
        """Return the flights whose deadline has passed."""
        now = time.monotonic()
        with self._mutex:
            return [flight for flight in self._flights.values() if flight.deadline is not None and flight.deadline < now]
