"""Collapsing in one process: one flight per key.

The life of a flight: the first request of a key joins and leads it. It takes the lock of the key, which other processes see,
calls the origin, sets ``result``, and ends the flight. Later requests of the key wait for ``done``. If they wait too long, one
of them takes the flight over and calls without waiting for the lock. A background refresh leads a flight with a deadline, after
which housekeeping ends it. If the body of an answer is still to come, the flight ends with the body; but if the client that reads
it is slow, a waiter or housekeeping ends the flight earlier, so that one client can't make all others wait.

The mutex of :class:`Flights` guards the dict of flights, and the transfer of a key's lock from one flight to another. It is never
held during I/O, and hits never take it.

A signal's handler may raise anywhere: also after a request has become the leader, and before the ``try`` that ends the flight. So
each leader has a :class:`Lead`, and when nothing refers to it any more, its flight ends. If a debugger keeps the frames of the
request, housekeeping ends the flight once ``expires`` has passed.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from ...core.guarded import guarded
from ...stores.base import Copy, KeyLock
from .latch import Latch
from .stream_pace import READER_PATIENCE, StreamPace

#: Seconds between two looks at a client that may turn out to be slow at any moment.
SHORTEST_WAIT = 0.05


class FlightOutcome(Enum):
    """The outcome of a flight, for the requests that waited."""

    #: The answer was stored: ``result.copy``.
    STORED = "stored"
    #: The answer is too old to be stored: its call began after a purge, but in a context from before it. Requests that are as old
    #: are served ``result.copy``; all others look again.
    DATED = "dated"
    #: The answer can't be stored for anyone: all waiters call the origin at once, without a queue.
    UNSTORABLE = "unstorable"
    #: The origin failed: ``result.failure``. Each waiter gets as much of it as it may share.
    FAILED = "failed"
    #: There is no result to share: look again, and elect a new leader.
    OVER = "over"


class FlightResult(NamedTuple):
    """The outcome of a flight, with the entry or failure to serve to the waiters.

    :ivar copy: the entry that was stored, or is too old to be stored.
    :ivar failure: the answer of the failed origin.
    """

    outcome: FlightOutcome
    copy: Copy | None = None
    failure: Any = None


LOOK_AGAIN = FlightResult(FlightOutcome.OVER)


class Lead:
    """The right to lead flights, one after the other. The request that makes the call keeps it, and its flight ends with it."""

    __slots__ = ("__weakref__",)


@dataclass(eq=False, slots=True)
class Flight:
    """One running call of an origin.

    :ivar leader: the ident of the thread that makes the call.
    :ivar unlocked: when it went on without the lock, on the monotonic clock.
    :ivar deadline: when housekeeping gives up on it, on the monotonic clock; ``None`` for a visitor's own call.
    :ivar expires: when housekeeping ends a visitor's own call that no request waits for any more, on the monotonic clock.
    :ivar given_up: called when that deadline has passed.
    :ivar names: returns the names by which the memory of that failure is purged.
    :ivar seq: the last purge number when a refresh called the origin; ``None``: it has not done so yet.
    :ivar lock: the lock of ``lock_key``, if the leader holds it.
    :ivar lock_key: the key that the flight began with, or that the flight which it has taken over began with.
    :ivar pace: how fast the client reads the body, if it is still to come.
    :ivar is_slow: it was ended because that client is slow.
    :ivar result: its outcome, for the waiters. It is set before ``done``.
    :ivar owner: a weak reference to the lead; ends the flight if the lead is gone before the flight has ended.
    """

    key: str
    leader: int
    unlocked: float | None = None
    deadline: float | None = None
    expires: float | None = None
    given_up: Callable[[], object] | None = None
    names: Callable[[], tuple[str, ...]] | None = None
    seq: int | None = None
    lock: KeyLock | None = None
    pace: StreamPace | None = None
    is_slow: bool = False
    result: FlightResult = LOOK_AGAIN
    done: Latch = field(default_factory=Latch)
    owner: weakref.ref[Lead] | None = None
    lock_key: str = field(init=False)

    def __post_init__(self) -> None:
        self.lock_key = self.key


class Flights:
    """The flights of one process, guarded by one mutex that hits never take.

    :param count_slow: counts a flight that was ended because its client is slow.
    """

    def __init__(self, count_slow: Callable[[], object] = lambda: None) -> None:
        self._count_slow = count_slow
        # Reentrant: a flight also ends when its lead is garbage, which may be collected at any moment.
        self._mutex = threading.RLock()
        self._flights: dict[str, Flight] = {}

    def join(self, key: str, lead: Lead | None = None, expires: float | None = None) -> tuple[Flight, bool]:
        """Return the key's flight, and whether the caller leads it. If so, the flight is new and the caller must end it.

        :param lead: the flight ends with it, if not before. Default: only the caller ends it.
        :param expires: when housekeeping ends it, on the monotonic clock. Default: never.
        """
        flight = self._flights.get(key)
        if flight is not None:
            return flight, False
        new = self._new_flight(key, lead, expires)
        flight = self._flights.setdefault(key, new)
        if flight is not new:
            new.owner = None
        return flight, flight is new

    def _new_flight(self, key: str, lead: Lead | None, expires: float | None) -> Flight:
        flight = Flight(key, threading.get_ident(), expires=expires)
        if lead is not None:
            flight.owner = weakref.ref(lead, lambda _: self.end(flight))
        return flight

    def lead(self, key: str, deadline: float, lead: Lead | None = None) -> Flight | None:
        """Return a new flight for a refresh, or ``None`` if the key has one already.

        :param deadline: when to give up on it, on the monotonic clock.
        :param lead: the flight ends with it, if not before. Default: only the caller ends it.
        """
        flight, leads = self.join(key, lead)
        if not leads:
            return None
        flight.deadline = deadline
        return flight

    @guarded
    def go_without_lock(self, flight: Flight) -> bool:
        """Note that a leader calls the origin without the lock. Return false if a waiter has taken the flight over."""
        if self._flights.get(flight.key) is not flight:
            return False
        flight.unlocked = time.monotonic()
        return True

    def take_over(self, flight: Flight, patience: float, lead: Lead | None = None, expires: float | None = None) -> Flight | None:
        """Replace a flight that takes too long, and return the new one, which does not wait for the lock.

        Return ``None`` if another waiter was quicker, the flight has ended, or it has just gone on without the lock.

        :param patience: seconds that a flight without the lock is given.
        :param lead: as for :meth:`join`.
        :param expires: as for :meth:`join`.
        """
        new = self._new_flight(flight.key, lead, expires)
        if not self._replace(flight, new, patience):
            new.owner = None
            return None
        # The waiters of the old flight look again and find the new one.
        flight.done.set()
        return new

    @guarded
    def _replace(self, flight: Flight, new: Flight, patience: float) -> bool:
        now = time.monotonic()
        just_begun = flight.unlocked is not None and now < flight.unlocked + patience
        if just_begun or self._flights.get(flight.key) is not flight:
            return False
        new.unlocked = now
        # Move the key's lock to the new flight: otherwise all other processes would wait for a call that may never end.
        new.lock, flight.lock, new.lock_key = flight.lock, None, flight.lock_key
        self._flights[flight.key] = new
        return True

    def move(self, flight: Flight, key: str) -> None:
        """Give a flight another key, since its call has shown what the answer depends on. Its waiters look again.

        Waiters whose requests have the new key find the flight there, and the others need not wait for it.
        """
        before = self._rename(flight, key)
        if before is not None:
            before.set()

    @guarded
    def _rename(self, flight: Flight, key: str) -> Latch | None:
        if self._flights.get(flight.key) is not flight or key == flight.key:
            return None
        # In one step of the interpreter, since join() takes no lock.
        if self._flights.setdefault(key, flight) is not flight:
            return None
        old, flight.key = flight.key, key
        del self._flights[old]
        before, flight.done = flight.done, Latch()
        return before

    def end(self, flight: Flight) -> bool:
        """End a flight: release its lock and wake its waiters. Return whether it was still the key's flight."""
        lock, is_current = self._take_off(flight)
        if lock is not None:
            lock.release()
        flight.done.set()
        # Last: if an exception comes before, the end of the lead does the rest.
        flight.owner = None
        return is_current

    @guarded
    def _take_off(self, flight: Flight) -> tuple[KeyLock | None, bool]:
        lock = self._lock_of(flight)
        is_current = self._flights.get(flight.key) is flight
        if is_current:
            del self._flights[flight.key]
        if flight.key != flight.lock_key:
            # Its move may have been interrupted while the flight was under both keys.
            for key in [key for key, other in self._flights.items() if other is flight]:
                del self._flights[key]
        return lock, is_current

    def wait_for(self, flight: Flight, until: float) -> bool:
        """Wait until a flight ends, or its client turns out to be slow, which ends it. Return false if it takes too long.

        :param until: when to stop, on the monotonic clock.
        """
        while (left := until - time.monotonic()) > 0:
            pace = flight.pace
            if pace is not None and not pace.left and self.end_slow(flight):
                return True
            if not self.is_current(flight):
                # The thread that ended it was interrupted before waking the waiters.
                return True
            # Without a pace, the body may still turn out to be a stream, but not to be slow before READER_PATIENCE has passed.
            if flight.done.wait(min(left, READER_PATIENCE if pace is None else max(pace.left, SHORTEST_WAIT))):
                return True
        return flight.done.is_set()

    def end_slow(self, flight: Flight) -> bool:
        """End a flight whose client is slow. Return false if it is not the key's flight any more."""
        if not self._mark_slow(flight):
            return False
        self._count_slow()
        return self.end(flight)

    @guarded
    def _mark_slow(self, flight: Flight) -> bool:
        if flight.is_slow or self._flights.get(flight.key) is not flight:
            return False
        flight.is_slow = True
        return True

    def release_lock(self, flight: Flight) -> None:
        """Release the lock of a running flight: the requests of other processes need not wait for it."""
        lock = self._lock_of(flight)
        if lock is not None:
            lock.release()

    @guarded
    def _lock_of(self, flight: Flight) -> KeyLock | None:
        """Take the lock from a flight."""
        lock, flight.lock = flight.lock, None
        return lock

    def slow(self) -> list[Flight]:
        """Return the flights whose clients are slow."""
        return [flight for flight in self._all() if flight.pace is not None and not flight.pace.left]

    def wait(self, key: str, seconds: float) -> None:
        """Wait until the key's flight ends, but no longer than ``seconds``. Without a flight, sleep for ``seconds``."""
        flight = self._flights.get(key)
        if flight is None:
            time.sleep(seconds)
        else:
            flight.done.wait(seconds)

    def is_running(self, key: str) -> bool:
        """Whether the key has a flight in this process, with or without the lock."""
        return key in self._flights

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
        return [flight for flight in self._all() if flight.deadline is not None and flight.deadline < now]

    def end_expired(self) -> None:
        """End visitors' own calls that no request waits for any more: an exception may have ended them silently."""
        now = time.monotonic()
        for flight in self._all():
            if flight.expires is not None and flight.expires < now:
                self.end(flight)

    def _all(self) -> list[Flight]:
        # In one step of the interpreter, so that it needs no lock.
        return list(self._flights.values())
