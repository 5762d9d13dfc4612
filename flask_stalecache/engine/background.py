"""Refreshes: handed over when a response is closed, run one at a time a key over all processes, given up after a deadline."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from ..core.model.entry import Entry
from ..core.rules.serving import is_due
from ..core.rules.storability import Verdict
from ..errors import StoreError
from ..stores.base import Copy
from .answer_writer import AnswerWriter
from .origin import Answer, RefreshJob, RefreshResult
from .singleflight import Flight, Flights
from .thread_pool import ThreadPool

logger = logging.getLogger("flask_stalecache")

#: Seconds for which a refresh that found its lock taken is not tried again in this process, unless something is written.
BUSY_PAUSE = 0.25


class PendingRefresh(NamedTuple):
    """A refresh that was handed over.

    :ivar since: when the first try was handed over, on the monotonic clock.
    :ivar until: until when it counts.
    :ivar stamp: the key's stamp; once that has moved, it does not count any more. ``None``: it counts whatever is written.
    :ivar landing: where its outcome is told.
    """

    since: float
    until: float
    stamp: int | None
    landing: RefreshResult


class BackgroundRefreshes:
    """The refreshes of one process; made anew after a fork.

    :param answer_writer: stores what they bring.
    :param refresher: runs them, unless they have threads of their own.
    :param pools: all threads that run any.
    :param flights: where a visitor who has to wait finds them.
    :param deadline: seconds after which one counts as failed.
    """

    def __init__(
        self, answer_writer: AnswerWriter, refresher: ThreadPool, pools: list[ThreadPool], flights: Flights, deadline: float
    ) -> None:
        self.answer_writer = answer_writer
        self.store = answer_writer.store
        self.refresher = refresher
        self.pools = pools
        self.flights = flights
        self.deadline = deadline
        self._pending: dict[str, PendingRefresh] = {}
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
            self._pending[copy.key] = PendingRefresh(since, now + self.deadline, None, RefreshResult())
            return True

    def since(self, key: str) -> float:
        """Return when the key's pending refresh was handed over, on the monotonic clock; now, if there is none."""
        pending = self._pending.get(key)
        return time.monotonic() if pending is None else pending.since

    def landing(self, key: str) -> RefreshResult | None:
        """Return where the outcome of the key's pending refresh is told; ``None``, if there is none."""
        pending = self._pending.get(key)
        return None if pending is None else pending.landing

    def submit(self, job: RefreshJob) -> bool:
        """Hand over a claimed refresh, and return whether it was taken.

        It never waits; a full queue drops it, and the copy is still there.
        """
        landing = self.landing(job.key) or RefreshResult()
        self.answer_writer.counters.count("refreshes_queued")
        if (job.pool or self.refresher).submit(partial(self._run, job, landing)):
            logger.debug("%s: a refresh was submitted", job.label)
            return True
        self.answer_writer.counters.count("refreshes_dropped")
        self._pending.pop(job.key, None)
        landing.done.set()
        return False

    def run_now(self, job: RefreshJob, met: Entry) -> RefreshResult | None:
        """Run a refresh in the caller's thread, and return where it landed; ``None``: it was handed over already.

        :param met: what was stored when it was asked for; if something else is, it is not run.
        """
        if not self.claim(self.answer_writer.load(job.key)):
            return None
        landing = self.landing(job.key) or RefreshResult()
        self._run(job, landing, met)
        return landing

    def call_apart(self, job: RefreshJob, copy: Copy) -> RefreshResult | None:
        """Call an origin in a thread of its own for one caller alone, and return where that lands; ``None``: no thread is free."""
        landing = RefreshResult()
        is_taken = (job.pool or self.refresher).submit(partial(self._call, job, copy, landing))
        return landing if is_taken else None

    def _call(self, job: RefreshJob, copy: Copy, landing: RefreshResult) -> None:
        try:
            start = self.answer_writer.start(copy)
            answer = landing.answer = self.answer_writer.instrumentation.call_origin(job, lambda: job.run(start))
            self.answer_writer.write_if_unlocked(job.key, answer)
        except BaseException as error:
            landing.answer = Answer(Verdict.FAILED, error=error)
            raise
        finally:
            landing.done.set()

    def refresh_all(self, jobs: Sequence[RefreshJob]) -> None:
        """Run refreshes at the same time, and wait until they are done: for who is in the background anyway.

        What finds no free thread runs here, so that threads that wait for each other never stand still; but not what only runs in
        threads of its own.
        """
        landings, here = [], []
        for job in jobs:
            is_ours = self.claim(self.answer_writer.load(job.key))
            landing = self.landing(job.key)
            if landing is None:
                continue
            landings.append((job, landing))
            if is_ours:
                self.answer_writer.counters.count("refreshes_queued")
                if not (job.pool or self.refresher).submit(partial(self._run, job, landing), at_once=True):
                    here.append((job, landing))
        for job, landing in here:
            if job.max_wait is None:
                self._run(job, landing)
            else:
                self.answer_writer.counters.count("refreshes_dropped")
                self._pending.pop(job.key, None)
                landing.done.set()
        for job, landing in landings:
            # All from when they began: of several that hang, no one is waited for after the other.
            max_wait = self.deadline if job.max_wait is None else job.max_wait
            landing.done.wait(max(0.0, self.since(job.key) + max_wait - time.monotonic()))

    def _run(self, job: RefreshJob, landing: RefreshResult, met: Entry | None = None) -> None:
        pause = None
        try:
            pause = self._run_if_free(job, landing, met)
        except StoreError as error:
            landing.error = error
            self.answer_writer.store_failed(error)
            pause = PendingRefresh(self.since(job.key), time.monotonic() + self.answer_writer.backoff[0], None, landing)
        finally:
            if pause is not None:
                self._pending[job.key] = pause
            elif (pending := self._pending.get(job.key)) is not None and pending.landing is landing:
                del self._pending[job.key]
            landing.done.set()

    def _run_if_free(self, job: RefreshJob, landing: RefreshResult, met: Entry | None) -> PendingRefresh | None:
        """Renew an entry, unless that is done elsewhere; return how long not to try again here, if that is to be said."""
        lock = self.store.lock(job.key)
        copy = self.store.load(job.key)
        if not lock.acquire():
            landing.is_busy = True
            return PendingRefresh(self.since(job.key), time.monotonic() + BUSY_PAUSE, copy.stamp, landing)
        flight = self.flights.lead(job.key, time.monotonic() + self.deadline)
        if flight is None:
            lock.release()
            landing.is_busy = True
            return None
        flight.lock, flight.given_up = lock, job.given_up
        try:
            self._renew(flight, job, landing, met)
        except BaseException as error:
            # Who waits is told, and does not try again.
            landing.answer = Answer(Verdict.FAILED, error=error)
            raise
        finally:
            self.flights.end(flight)
        return None

    def _renew(self, flight: Flight, job: RefreshJob, landing: RefreshResult, met: Entry | None) -> None:
        copy = self.store.load(job.key)
        if not _is_wanted(copy, job) if met is None else not _is_still(copy, met):
            return
        self.answer_writer.counters.count("refreshes")
        start, begun = self.answer_writer.start(copy), time.perf_counter()
        try:
            if copy.entry is not None and copy.entry.calls:
                # Together, since one after the other they would take as long as all of them.
                job.refresh_dependencies(copy.entry.calls)
            answer = self.answer_writer.instrumentation.call_origin(job, lambda: job.run(start))
        except BaseException as error:
            # A job tells failures in its answer; whatever else stops it must not be tried again at once.
            self.answer_writer.note_failure(copy)
            self._has_ended(job, begun, Answer(Verdict.FAILED, error=error))
            raise
        if answer.verdict is Verdict.PERSONAL:
            # A refresh stands for everybody; if it can't, trying again at once would not help.
            answer = replace(answer, verdict=Verdict.FAILED)
        if answer.verdict is Verdict.FAILED:
            stays = "" if copy.entry is None else "; its copy stays"
            self.answer_writer.complaints.error_every_minute(
                ("refresh", job.label), "the refresh of %s failed%s", job.label, stays, exc_info=answer.error
            )
        try:
            landing.stored = self.answer_writer.write_flight(self.flights, flight, start, answer)
        finally:
            self._has_ended(job, begun, answer)
        if logger.isEnabledFor(logging.DEBUG):
            why = "stored" if landing.stored else answer.why_unstored
            logger.debug("%s: the refresh took %.3f s: %s", job.label, time.perf_counter() - begun, why)
        landing.answer = answer

    def _has_ended(self, job: RefreshJob, begun: float, answer: Answer) -> None:
        self.answer_writer.instrumentation.refreshed(
            job, time.perf_counter() - begun, answer, lambda: self.answer_writer.load(job.key).note.retry_at
        )

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
        self.answer_writer.counters.count("refreshes_overdue")
        self.answer_writer.complaints.error_every_minute(
            ("overdue", flight.key), "a refresh took longer than STALECACHE_REFRESH_DEADLINE, its copy stays: %s", flight.key
        )
        try:
            self.answer_writer.note_failure(self.store.load(flight.key))
        except StoreError as error:
            self.answer_writer.store_failed(error)
        if self.flights.end(flight):
            if flight.given_up is not None:
                flight.given_up()
            pending = self._pending.pop(flight.key, None)
            if pending is not None:
                pending.landing.done.set()
            for pool in self.pools:
                pool.give_up(flight.leader)


class ProcessState:
    """What belongs to one process, and is made anew after a fork."""

    def __init__(self, answer_writer: AnswerWriter, pools: list[ThreadPool], deadline: float) -> None:
        self.flights = Flights()
        self.refreshes = BackgroundRefreshes(answer_writer, pools[0], pools, self.flights, deadline)


def _is_still(copy: Copy, met: Entry) -> bool:
    """Whether what was met is what is stored: neither purged nor renewed meanwhile."""
    return copy.entry is not None and copy.entry.serial == met.serial


def _is_wanted(copy: Copy, job: RefreshJob) -> bool:
    """Whether a refresh is still to be run, now that the key's lock is held."""
    now, entry = time.time(), copy.entry
    if job.forced:
        return job.fills_missing
    if entry is None:
        return job.fills_missing and not job.is_backing_off(copy)
    # Past its windows nothing stands in for it, so that who waits is not put off just because it failed before.
    nothing_stands_in = job.fills_missing and not entry.in_swr(now) and not entry.in_sie(now)
    backs_off = job.is_backing_off(copy) if nothing_stands_in else copy.note.backing_off(now)
    return is_due(entry, now, job.terms) and not backs_off
