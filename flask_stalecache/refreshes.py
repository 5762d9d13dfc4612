"""Refreshes: handed over when a response is closed, run one at a time a key over all processes, given up after a deadline."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from .decide import Verdict, is_due
from .errors import StoreError
from .flight import Flight, Flights
from .origin import RefreshJob
from .refresher import Refresher
from .settle import Settler
from .stores.base import Copy

#: Seconds for which a refresh that found its lock taken is not tried again in this process, unless something is written.
BUSY_PAUSE = 0.25


class Pending(NamedTuple):
    """A refresh that was handed over.

    :ivar since: when the first try was handed over, on the monotonic clock.
    :ivar until: until when it counts.
    :ivar stamp: the key's stamp; once that has moved, it does not count any more. ``None``: it counts whatever is written.
    """

    since: float
    until: float
    stamp: int | None


class Refreshes:
    """The refreshes of one process; made anew after a fork.

    :param settler: stores what they bring.
    :param refresher: runs them.
    :param flights: where a visitor who has to wait finds them.
    :param deadline: seconds after which one counts as failed.
    """

    def __init__(self, settler: Settler, refresher: Refresher, flights: Flights, deadline: float) -> None:
        self.settler = settler
        self.store = settler.store
        self.refresher = refresher
        self.flights = flights
        self.deadline = deadline
        self._pending: dict[str, Pending] = {}
        self._mutex = threading.Lock()

    def is_pending(self, copy: Copy) -> bool:
        """Whether the key's refresh was handed over and is not done."""
        pending = self._pending.get(copy.key)
        if pending is None or pending.until <= time.monotonic():
            return False
        return pending.stamp is None or pending.stamp == copy.stamp

    def claim(self, copy: Copy) -> bool:
        """Mark the key's refresh as handed over, and return whether it was this caller who did."""
        with self._mutex:
            if self.is_pending(copy):
                return False
            now, last = time.monotonic(), self._pending.get(copy.key)
            since = last.since if last is not None and last.stamp == copy.stamp else now
            self._pending[copy.key] = Pending(since, now + self.deadline, None)
            return True

    def since(self, key: str) -> float:
        """Return when the key's pending refresh was handed over, on the monotonic clock; now, if there is none."""
        pending = self._pending.get(key)
        return time.monotonic() if pending is None else pending.since

    def hand_over(self, job: RefreshJob) -> None:
        """Hand over a claimed refresh. It never waits; a full queue drops it, and the copy is still there."""
        if not self.refresher.submit(partial(self._run, job)):
            self.settler.counters.count("refreshes_dropped")
            self._pending.pop(job.key, None)

    def _run(self, job: RefreshJob) -> None:
        pause = None
        try:
            pause = self._run_if_free(job)
        except StoreError as error:
            self.settler.store_failed(error)
            pause = Pending(self.since(job.key), time.monotonic() + self.settler.backoff[0], None)
        finally:
            if pause is None:
                self._pending.pop(job.key, None)
            else:
                self._pending[job.key] = pause

    def _run_if_free(self, job: RefreshJob) -> Pending | None:
        """Renew an entry, unless that is done elsewhere; return how long not to try again here, if that is to be said."""
        lock = self.store.lock(job.key)
        copy = self.store.load(job.key)
        if not lock.acquire():
            return Pending(self.since(job.key), time.monotonic() + BUSY_PAUSE, copy.stamp)
        flight = self.flights.lead(job.key, time.monotonic() + self.deadline)
        if flight is None:
            lock.release()
            return None
        flight.lock = lock
        try:
            self._renew(flight, job)
        finally:
            self.flights.end(flight)
        return None

    def _renew(self, flight: Flight, job: RefreshJob) -> None:
        copy = self.store.load(job.key)
        now = time.time()
        if copy.entry is None or not is_due(copy.entry, now, job.terms) or copy.note.backing_off(now):
            return
        self.settler.counters.count("refreshes")
        start = self.settler.start(copy)
        try:
            answer = job.run(start)
        except BaseException:
            # A job tells failures in its answer; whatever else stops it must not be tried again at once.
            self.settler.note_failure(copy)
            raise
        if answer.verdict is Verdict.PERSONAL:
            # A refresh stands for everybody; if it can't, trying again at once would not help.
            answer = replace(answer, verdict=Verdict.FAILED)
        if answer.verdict is Verdict.FAILED:
            self.settler.complaints.now_and_then(
                ("refresh", job.label), "the refresh of %s failed; its copy stays", job.label, exc_info=answer.error
            )
        self.settler.land(self.flights, flight, start, answer)

    def tick(self) -> None:
        """Give up the refreshes whose deadline has passed."""
        for flight in self.flights.overdue():
            self._give_up(flight)
        now = time.monotonic()
        for key, pending in list(self._pending.items()):
            # Of those that found the lock taken it is kept for a while since when they try.
            if (pending.until if pending.stamp is None else pending.since + self.deadline) <= now:
                self._pending.pop(key, None)

    def _give_up(self, flight: Flight) -> None:
        """Count a failure, free the lock, and let another thread take the place of the one that hangs."""
        self.settler.counters.count("refreshes_overdue")
        self.settler.complaints.now_and_then(
            ("overdue", flight.key), "a refresh took longer than STALECACHE_REFRESH_DEADLINE, its copy stays: %s", flight.key
        )
        try:
            self.settler.note_failure(self.store.load(flight.key))
        except StoreError as error:
            self.settler.store_failed(error)
        if self.flights.end(flight):
            self._pending.pop(flight.key, None)
            self.refresher.give_up(flight.leader)
