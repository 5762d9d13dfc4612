"""Background refreshes: submitted when a response is closed, and run one at a time for each key across all processes.

The life of a refresh: *claimed* by one request of this process (in ``_pending``, under the mutex), *queued* in a thread pool,
*running* once it has the lock of the key and leads its flight, *done*. These end it early:

============================================ ====================================================================
another process may run it                   handed over (:mod:`.delegation`): it is pending until the entry is replaced
the queue is full                            one with little demand is dropped (:mod:`.fair_queue`); a stale hit submits it again
another process has the lock                 paused for a quarter of a second, unless the key is written before
the store fails                              paused for the first back-off
the entry is fresh or backing off by now     skipped
the deadline passes                          counted as failed; lock and thread are replaced
============================================ ====================================================================
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from ..core.guarded import guarded
from ..core.model.entry import Entry
from ..core.model.work import NO_WORK
from ..core.rules.serving import ServeOptions, is_due, is_fresh, stands_until
from ..core.rules.status import CacheStatus
from ..core.rules.storability import Verdict
from ..errors import StoreError
from ..stores.base import Copy
from .answer_writer import AnswerWriter
from .flights.singleflight import Flight, Flights, Lead
from .handover.delegation import Delegation
from .origin import Answer, RefreshJob, RefreshResult
from .scheduling.fair_queue import Demand, Waiting
from .scheduling.thread_pool import ThreadPool
from .standing import LONGEST, Standing

logger = logging.getLogger("flask_stalecache")

#: Seconds before this process retries a refresh whose lock was taken, unless the key is written before.
BUSY_PAUSE = 0.25
#: Seconds after which a refresh that waits for a thread counts as lost.
LONGEST_WAIT = 3600.0


class PendingRefresh(NamedTuple):
    """A refresh that is claimed and not done yet, or that must not be retried yet.

    :ivar since: when the first try was submitted, on the monotonic clock.
    :ivar until: when it stops counting as pending, on the monotonic clock.
    :ivar stamp: the key's stamp; a change of the stamp ends it early. ``None``: writes to the key do not end it.
    :ivar result: its result, for waiting requests.
    :ivar demand: the requests that asked for it since it was claimed.
    """

    since: float
    until: float
    stamp: int | None
    result: RefreshResult
    demand: Demand

    def holds(self, copy: Copy, now: float) -> bool:
        """Whether it is still pending.

        :param copy: the copy of the key.
        :param now: seconds on the monotonic clock.
        """
        return now < self.until and (self.stamp is None or self.stamp == copy.stamp)

    def is_over(self) -> bool:
        """Whether the refresh is no longer pending. The caller has checked that the copy's stamp has not changed."""
        # During a pause the result is that of the try before.
        return time.monotonic() >= self.until or (self.stamp is None and self.result.done.is_set())


class BackgroundRefreshes:
    """The refreshes of one process. A forked child has its own.

    :param answer_writer: stores their answers.
    :param refresher: the pool for refreshes that name no pool.
    :param pools: all pools that run refreshes.
    :param lane_pool: the one for refreshes that compute.
    :param flights: the flights of the process. A running refresh leads one, so that requests can wait for it.
    :param deadline: seconds after which a refresh counts as failed.
    :param delegation: hands refreshes over to other processes.
    """

    def __init__(
        self,
        answer_writer: AnswerWriter,
        refresher: ThreadPool,
        pools: list[ThreadPool],
        lane_pool: ThreadPool,
        flights: Flights,
        deadline: float,
        delegation: Delegation,
    ) -> None:
        self.answer_writer = answer_writer
        self.store = answer_writer.store
        self.refresher = refresher
        self.pools = pools
        self.lane = answer_writer.instrumentation.lane
        self.lane_pool = lane_pool
        self.flights = flights
        self.deadline = deadline
        self.delegation = delegation
        self._pending: dict[str, PendingRefresh] = {}
        self._mutex = threading.Lock()

    def is_pending(self, copy: Copy) -> bool:
        """Whether a refresh of the key is pending."""
        pending = self._pending.get(copy.key)
        return pending is not None and pending.holds(copy, time.monotonic())

    def ask(self, copy: Copy) -> bool:
        """Whether a refresh of the key is pending. If so, add the caller's request to its demand."""
        pending, now = self._pending.get(copy.key), time.monotonic()
        if pending is None or not pending.holds(copy, now):
            return False
        pending.demand.ask(now)
        return True

    def standing(self, copy: Copy, status: CacheStatus, terms: ServeOptions) -> Standing | None:
        """Return the decision to serve a copy without another refresh, for later requests; ``None`` if each request has to decide.

        :param status: how the copy is served.
        :param terms: the serving options.
        """
        now, entry, pending = time.time(), copy.entry, self._pending.get(copy.key)
        if entry is None or terms.shows_errors:
            return None
        until = min(now + LONGEST, stands_until(entry, copy.note, now, terms))
        if pending is not None and pending.holds(copy, time.monotonic()):
            return Standing(status, terms, now, until, pending.is_over, pending.demand)
        stands = copy.note.backing_off(now) or is_fresh(entry, now, terms)
        return Standing(status, terms, now, until) if stands else None

    @guarded
    def claim(self, copy: Copy) -> bool:
        """Claim the refresh of a key for the caller. Return false if one is already pending."""
        if self.is_pending(copy):
            return False
        now, last = time.monotonic(), self._pending.get(copy.key)
        since = last.since if last is not None and last.stamp == copy.stamp else now
        demand = Demand()
        demand.ask(now)
        if last is not None and last.stamp == copy.stamp:
            # It was handed over, and is not done.
            demand.add(last.demand)
        self._pending[copy.key] = PendingRefresh(since, now + self.deadline, None, RefreshResult(), demand)
        return True

    def since(self, key: str) -> float:
        """Return when the pending refresh of the key was submitted, on the monotonic clock. Without one, return now."""
        pending = self._pending.get(key)
        return time.monotonic() if pending is None else pending.since

    def result_of(self, key: str) -> RefreshResult | None:
        """Return the result of the key's pending refresh; ``None`` if none is pending."""
        pending = self._pending.get(key)
        return None if pending is None else pending.result

    def submit(self, job: RefreshJob) -> bool:
        """Queue a claimed refresh. Return false if the queue is full of refreshes with more demand.

        This never waits. If the refresh is dropped, now or later, the copy is still served.
        """
        return (bool(self.delegation.takers) and self._hand_over(job)) or self._submit_here(job)

    def _hand_over(self, job: RefreshJob) -> bool:
        """Hand a claimed refresh over to another process. Return false if none takes it, or a request waits for its result."""
        pending = self._pending.get(job.key)
        if pending is None or pending.result.waiting:
            return False
        copy = self.store.lookup(job.key) or self.answer_writer.load(job.key)

        def wait(seconds: float) -> None:
            now, demand = time.monotonic(), Demand()
            demand.ask(now)
            self._pending[job.key] = PendingRefresh(pending.since, now + seconds, copy.stamp, pending.result, demand)

        return self.delegation.hand_over(job, copy, pending.demand, partial(self._submit_here, job), wait)

    def _submit_here(self, job: RefreshJob) -> bool:
        pending = self._pending.get(job.key)
        if pending is not None and pending.stamp is not None:
            # It was about to be handed over.
            self._pending[job.key] = pending._replace(until=time.monotonic() + self.deadline, stamp=None)
        result, demand = (RefreshResult(), Demand()) if pending is None else (pending.result, pending.demand)
        self.answer_writer.counters.count("refreshes_queued")
        group, drop = (job.tally.kind, job.tally.label), partial(self._drop, job.key, result)
        self._wait_in_queue(job.key, result)
        if self._pool_of(job).submit(Waiting(partial(self._run, job, result), group, job.key, demand, drop)):
            logger.debug("%s: a refresh was submitted", job.label)
            return True
        drop()
        return False

    def _pool_of(self, job: RefreshJob) -> ThreadPool:
        """Return the pool that runs a refresh: the lane, if it computes and has no time limit."""
        if job.max_wait is None and self._computes(job):
            return self.lane_pool
        return job.pool or self.refresher

    def _computes(self, job: RefreshJob) -> bool:
        """Whether a refresh computes, as far as is known: the last call of its origin did, in whatever process."""
        if not self.lane.is_open:
            return False
        copy = self.store.lookup(job.key)
        entry = None if copy is None else copy.entry
        return job.tally.computes if entry is None or entry.work == NO_WORK else entry.work.computes

    def _wait_in_queue(self, key: str, result: RefreshResult) -> None:
        """Let a refresh count as pending while it waits for a thread: its deadline counts from when it begins to run."""
        pending = self._pending.get(key)
        if pending is not None and pending.result is result:
            self._pending[key] = pending._replace(until=time.monotonic() + max(LONGEST_WAIT, self.deadline))

    def _begin(self, key: str, result: RefreshResult) -> None:
        """Let the deadline of a refresh count from now."""
        pending = self._pending.get(key)
        if pending is not None and pending.result is result:
            self._pending[key] = pending._replace(until=time.monotonic() + self.deadline)

    def _drop(self, key: str, result: RefreshResult) -> None:
        """Forget a refresh that will not run."""
        self.answer_writer.counters.count("refreshes_dropped")
        if self.result_of(key) is result:
            self._pending.pop(key, None)
        result.done.set()

    def run_now(self, job: RefreshJob, met: Entry) -> RefreshResult | None:
        """Run a refresh in the caller's thread, and return its result. Return ``None`` if one is already pending.

        :param met: the entry to refresh. Nothing runs if another entry has replaced it, or if it needs no refresh and the job is
            not forced.
        """
        if not self.claim(self.answer_writer.load(job.key)):
            return None
        result = self.result_of(job.key) or RefreshResult()
        self._run(job, result, met)
        return result

    def call_apart(self, job: RefreshJob, copy: Copy) -> RefreshResult | None:
        """Call an origin in a worker thread for a single caller. Return the pending result, or ``None`` if no thread is free."""
        result = RefreshResult()
        is_taken = (job.pool or self.refresher).submit(partial(self._call, job, copy, result))
        return result if is_taken else None

    def _call(self, job: RefreshJob, copy: Copy, result: RefreshResult) -> None:
        try:
            start = self.answer_writer.start(copy)
            answer = result.answer = self.answer_writer.instrumentation.call_origin(job, lambda: job.run(start), start.meter)
            self.answer_writer.write_if_unlocked(job.key, answer)
        except BaseException as error:
            result.answer = Answer(Verdict.FAILED, error=error)
            raise
        finally:
            result.done.set()

    def refresh_all(self, jobs: Sequence[RefreshJob]) -> None:
        """Run refreshes concurrently, and wait until they are done. Only for callers in the background.

        A refresh that finds no free thread runs in this thread, so that threads that wait for each other can't deadlock. A refresh
        with a time limit is dropped instead, since it must run in the threads of its own pool.
        """
        results, here = [], []
        for job in jobs:
            is_ours = self.claim(self.answer_writer.load(job.key))
            result = self.result_of(job.key)
            if result is None:
                continue
            results.append((job, result))
            if is_ours:
                self.answer_writer.counters.count("refreshes_queued")
                if self._is_for_this_thread(job) or not self._pool_of(job).submit(partial(self._run, job, result), at_once=True):
                    here.append((job, result))
        for job, result in here:
            if job.max_wait is None:
                self._run(job, result)
            else:
                self._drop(job.key, result)
        for job, result in results:
            # All waits count from when the refreshes were submitted: if several hang, their waits don't add up.
            max_wait = self.deadline if job.max_wait is None else job.max_wait
            result.done.wait(max(0.0, self.since(job.key) + max_wait - time.monotonic()))

    def _is_for_this_thread(self, job: RefreshJob) -> bool:
        """Whether this thread runs the lane and the job computes too: in the queue of the lane, it would wait for itself."""
        return job.max_wait is None and self.lane.is_mine() and self._computes(job)

    def _run(self, job: RefreshJob, result: RefreshResult, met: Entry | None = None) -> None:
        # Without threads of its own, the lane runs in threads of the server, which must not sleep until a rest is over.
        rests = self.lane_pool.workers > 0
        with self.lane.turn(self.deadline / 2, rests=rests) if self._computes(job) else nullcontext():
            self._begin(job.key, result)
            self._run_now(job, result, met)

    def _run_now(self, job: RefreshJob, result: RefreshResult, met: Entry | None) -> None:
        pause = None
        try:
            pause = self._run_if_free(job, result, met)
        except StoreError as error:
            result.error = error
            self.answer_writer.store_failed(error)
            pause = PendingRefresh(self.since(job.key), time.monotonic() + self.answer_writer.backoff[0], None, result, Demand())
        finally:
            if pause is not None:
                self._pending[job.key] = pause
            elif (pending := self._pending.get(job.key)) is not None and pending.result is result:
                del self._pending[job.key]
            result.done.set()

    def _run_if_free(self, job: RefreshJob, result: RefreshResult, met: Entry | None) -> PendingRefresh | None:
        """Refresh an entry unless another process is doing so. Return a pause if this process should not retry at once."""
        lock = self.store.lock(job.key)
        copy = self.store.load(job.key)
        if not lock.acquire():
            result.is_busy = True
            return PendingRefresh(self.since(job.key), time.monotonic() + BUSY_PAUSE, copy.stamp, result, Demand())
        lead = Lead()
        flight = self.flights.lead(job.key, time.monotonic() + self.deadline, lead)
        if flight is None:
            lock.release()
            result.is_busy = True
            return None
        flight.lock, flight.given_up, flight.names = lock, job.given_up, job.names
        try:
            self._renew(flight, job, result, met)
        except BaseException as error:
            # The waiters get this failure, and do not retry.
            result.answer = Answer(Verdict.FAILED, error=error)
            raise
        finally:
            self.flights.end(flight)
        return None

    def _renew(self, flight: Flight, job: RefreshJob, result: RefreshResult, met: Entry | None) -> None:
        copy = self.store.load(job.key)
        is_still_met = met is None or _is_still(copy, met)
        if not is_still_met or not ((met is not None and job.forced) or _is_wanted(copy, job)):
            return
        self.answer_writer.counters.count("refreshes")
        start, begun = self.answer_writer.start(copy), time.perf_counter()
        flight.seq = start.seq
        try:
            if copy.entry is not None and copy.entry.calls:
                # Concurrently: one after the other, their times would add up.
                job.refresh_dependencies(copy.entry.calls)
            answer = self.answer_writer.instrumentation.call_origin(job, lambda: job.run(start), start.meter)
        except BaseException as error:
            # A job reports failures in its answer. If anything else stops it, it must not be retried at once.
            self.answer_writer.note_failure(copy, names=job.names(), seq=start.seq)
            self._has_ended(job, begun, Answer(Verdict.FAILED, error=error))
            raise
        if answer.verdict is Verdict.PERSONAL:
            # A refresh is for all visitors. If the page is personal, retrying would not help: back off.
            answer = replace(answer, verdict=Verdict.FAILED)
        if answer.verdict is Verdict.FAILED and not (copy.entry is None and result.waiting):
            what = "%s failed" if copy.entry is None else "the refresh of %s failed; its copy stays"
            self.answer_writer.complaints.error_every_minute(("refresh", job.label), what, job.label, exc_info=answer.error)
        try:
            result.stored = self.answer_writer.write_flight(self.flights, flight, start, answer)
        finally:
            self._has_ended(job, begun, answer)
        if logger.isEnabledFor(logging.DEBUG):
            why = "stored" if result.stored else answer.log_text
            logger.debug("%s: the refresh took %.3f s: %s", job.label, time.perf_counter() - begun, why)
        result.answer = answer

    def _has_ended(self, job: RefreshJob, begun: float, answer: Answer) -> None:
        self.answer_writer.instrumentation.refreshed(
            job, time.perf_counter() - begun, answer, lambda: self.answer_writer.load(job.key).note.retry_at
        )

    def tick(self) -> None:
        """Give up on the refreshes whose deadline has passed."""
        for flight in self.flights.overdue():
            self._give_up(flight)
        now = time.monotonic()
        for key, pending in list(self._pending.items()):
            # A refresh that found the lock taken is kept until the deadline, since waits count from its first try.
            if (pending.until if pending.stamp is None else pending.since + self.deadline) <= now:
                self._pending.pop(key, None)

    def _give_up(self, flight: Flight) -> None:
        """Count a failure, release the lock, and replace the thread that hangs."""
        self.answer_writer.counters.count("refreshes_overdue")
        self.answer_writer.complaints.error_every_minute(
            ("overdue", flight.key), "a refresh took longer than STALECACHE_REFRESH_DEADLINE, its copy stays: %s", flight.key
        )
        try:
            names = () if flight.names is None else flight.names()
            self.answer_writer.note_failure(self.store.load(flight.key), names=names, seq=flight.seq)
        except StoreError as error:
            self.answer_writer.store_failed(error)
        if self.flights.end(flight):
            if flight.given_up is not None:
                flight.given_up()
            pending = self._pending.pop(flight.key, None)
            if pending is not None:
                pending.result.done.set()
            self.lane.give_up(flight.leader)
            for pool in self.pools:
                pool.give_up(flight.leader)


class ProcessState:
    """The flights and refreshes of one process. A forked child has its own."""

    def __init__(
        self, answer_writer: AnswerWriter, pools: list[ThreadPool], lane_pool: ThreadPool, deadline: float, delegation: Delegation
    ) -> None:
        self.flights = Flights(partial(answer_writer.counters.count, "slow_readers"))
        self.refreshes = BackgroundRefreshes(answer_writer, pools[0], pools, lane_pool, self.flights, deadline, delegation)


def _is_still(copy: Copy, met: Entry) -> bool:
    """Whether the entry is still stored: neither purged nor refreshed meanwhile."""
    return copy.entry is not None and copy.entry.serial == met.serial


def _is_wanted(copy: Copy, job: RefreshJob) -> bool:
    """Whether a refresh is still needed, now that the key's lock is held."""
    now, entry = time.time(), copy.entry
    if job.forced:
        return job.fills_missing
    if entry is None:
        return job.fills_missing and not job.is_backing_off(copy)
    # An entry past its stale windows can't be served, so a request is waiting. A failed refresh alone must not make it fail.
    nothing_stands_in = job.fills_missing and not entry.in_swr(now) and not entry.in_sie(now)
    backs_off = job.is_backing_off(copy) if nothing_stands_in else copy.note.backing_off(now)
    return is_due(entry, now, job.terms) and not backs_off
