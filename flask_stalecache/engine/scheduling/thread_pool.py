"""A bounded pool of daemon threads that runs callables. It knows neither engine nor entry, and ends with the process."""

from __future__ import annotations

import atexit
import logging
import queue
import threading
import time
import weakref
from collections.abc import Sequence
from functools import partial

from ...core.guarded import guarded
from ...filesystem.per_process import PerProcess
from ...filesystem.process import ProcessId, this_process
from .fair_queue import FairQueue, Job, Waiting
from .threads import start_thread

logger = logging.getLogger("flask_stalecache")

#: Seconds after which a thread without work ends. The next job starts another one.
IDLE = 10.0
#: Seconds that a job may wait while no thread is busy. After that, threads are assumed not to run on this server.
START_PATIENCE = 5.0
#: The number of stuck threads that are replaced. After that the pool goes on with the threads that are left.
MAX_LOST = 32


class ThreadPool:
    """Runs jobs in threads of its own.

    The threads are daemons: the threads of an executor are joined at exit, so that a slow third party could delay the exit of
    the process. They start with the first job, also after a fork.

    :param workers: the maximum number of threads; 0 runs each job at once in the caller's thread.
    :param queue_size: jobs that may wait. When one more comes, a job with little demand is dropped (:mod:`.fair_queue`).
    :param shutdown_wait: seconds for which an exiting process waits for its running jobs.
    :param replaces_lost: whether a thread that hangs is replaced. Default true; if not, no job waits for a thread.
    """

    def __init__(self, workers: int, queue_size: int, shutdown_wait: float, *, replaces_lost: bool = True) -> None:
        self.workers = workers
        self.replaces_lost = replaces_lost
        self.queue_size = queue_size
        self.shutdown_wait = shutdown_wait
        # Not a bound method: it would form a reference cycle, so that a dropped pool would wait for the garbage collector.
        self._pools = PerProcess(partial(_Pool, workers, queue_size, replaces_lost))
        _refreshers.add(self)

    def submit(self, job: Job | Waiting, *, at_once: bool = False) -> bool:
        """Queue a job. Return false if it is refused. This never waits, except without workers: then it runs the job.

        :param job: the job; with its group and its demand, if it has any.
        :param at_once: refuse the job unless a thread is free for it.
        """
        waiting = job if isinstance(job, Waiting) else Waiting(job)
        if self.workers == 0:
            _run_in_line(waiting.job)
            return True
        pool = self._pools.get()
        if pool.is_stuck() and not pool.revive():
            if not self.replaces_lost:
                # The caller must not wait for the job.
                return False
            _say_stuck()
            _run_in_line(waiting.job)
            return True
        return pool.submit(waiting, at_once or not self.replaces_lost)

    def go_in_line(self) -> None:
        """Run each job in the caller's thread from now on."""
        self.workers = 0

    def give_up(self, thread: int) -> None:
        """Count a thread as lost to a job that hangs, so that it is replaced.

        :param thread: the ident of the thread, which ends when its job ends.
        """
        pool = self._pools.peek()
        if pool is not None:
            pool.give_up(thread)

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until all jobs of this process are done. Return whether they are.

        :param timeout: seconds to wait at most. Default: no limit.
        """
        pool = self._pools.peek()
        return True if pool is None else pool.drain(timeout)

    @property
    def open_jobs(self) -> int:
        """The number of jobs that wait or run in this process."""
        pool = self._pools.peek()
        return 0 if pool is None else pool.open_jobs

    def close(self) -> None:
        """Refuse new jobs, drop the queued ones, and give the running ones ``shutdown_wait`` seconds."""
        self.refuse()
        self.drain(self.shutdown_wait)

    def refuse(self) -> None:
        """Refuse new jobs, and drop the queued ones."""
        pool = self._pools.peek()
        if pool is not None:
            pool.refuse()


class _Pool:
    """The threads and the queue of one process.

    It keeps no count that can be computed: an exception that comes between two steps would leave the count wrong forever.
    """

    def __init__(self, workers: int, queue_size: int, replaces_lost: bool) -> None:
        self.workers = workers
        self.queue_size = queue_size
        self.replaces_lost = replaces_lost
        #: The jobs that wait. Guarded by ``_mutex``.
        self._waiting = FairQueue(queue_size)
        #: One item for each job that waits, so that threads can wait for a job without a lock.
        # Looked up only now: gevent may have replaced the class since the import. The original would block all greenlets.
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._mutex = threading.RLock()
        self._changed = threading.Condition(self._mutex)
        self._threads: set[threading.Thread] = set()
        #: The threads that have a job, by their idents, and those that were given up. Guarded by ``_mutex``.
        self._running: dict[int, threading.Thread] = {}
        self._lost: set[threading.Thread] = set()
        self._closing = False
        self._untaken_since: float | None = None

    def is_stuck(self) -> bool:
        """Whether a job waits although no thread is busy: the server may run no threads, or no more can be started."""
        since = self._untaken_since
        return since is not None and not self._running and time.monotonic() - since > START_PATIENCE

    @property
    def open_jobs(self) -> int:
        """The number of jobs that wait or run."""
        return len(self._waiting) + sum(not _has_ended(thread) for thread in list(self._running.values()))

    @guarded
    def revive(self) -> bool:
        """Start a thread if one is missing, since an earlier start may have failed. Return whether one was started."""
        if not self._start_thread_if_short():
            return False
        self._untaken_since = time.monotonic()
        return True

    def submit(self, waiting: Waiting, at_once: bool) -> bool:
        is_open, dropped = self._push(waiting, at_once)
        if dropped is not None and dropped is not waiting:
            # Outside the lock: it is the caller's code.
            dropped.dropped()
        return is_open and dropped is not waiting

    @guarded
    def _push(self, waiting: Waiting, at_once: bool) -> tuple[bool, Waiting | None]:
        """Queue a job. Return whether the pool takes jobs, and the job that will not run because of that."""
        if self._closing or (at_once and self._all_busy()):
            return False, None
        # Before the job is queued: an item without a job does no harm, but if an exception came in between, a job without an item
        # would wait until the next job comes.
        while self._calls.qsize() <= len(self._waiting):
            self._calls.put(None)
        self._start_thread_if_short()
        # A thread is free for a job that must run at once, so the size of the queue does not limit it.
        dropped = self._waiting.push(waiting, is_bound=not at_once)
        if dropped is None and self._untaken_since is None:
            self._untaken_since = time.monotonic()
        return True, dropped

    def _all_busy(self) -> bool:
        # A thread that hangs and is not replaced still occupies its place.
        return self.open_jobs + (0 if self.replaces_lost else len(self._lost)) >= self.workers

    def _start_thread_if_short(self) -> bool:
        """Start a thread if one is missing. Return whether one was started."""
        # A thread that an exception has ended outside its jobs is replaced.
        self._threads, self._lost = _left_of(self._threads), _left_of(self._lost)
        self._running = {me: thread for me, thread in self._running.items() if not _has_ended(thread)}
        if len(self._threads) >= self.workers or not self._calls.qsize():
            return False
        # If that fails, a running thread will take the job, or the next job tries again.
        thread = start_thread("refresh", self._work, self._calls)
        if thread is None:
            return False
        self._threads.add(thread)
        return True

    def _work(self, calls: queue.SimpleQueue[None]) -> None:
        me, thread = threading.get_ident(), threading.current_thread()
        while True:
            try:
                calls.get(timeout=IDLE)
            except queue.Empty:
                if self._leave(thread):
                    return
                continue
            job = self._take(me, thread)
            if job is None:
                continue
            _run(job)
            # Don't keep the job while waiting: it refers to its app, which may be dropped.
            del job
            if not self._done(me, thread):
                return

    @guarded
    def _take(self, me: int, thread: threading.Thread) -> Job | None:
        """Take the job that is next; ``None`` if the pool has been closed meanwhile."""
        self._running[me] = thread
        waiting = self._waiting.pop()
        if waiting is None:
            del self._running[me]
            return None
        self._untaken_since = None
        return waiting.job

    @guarded
    def _leave(self, thread: threading.Thread) -> bool:
        if self._calls.qsize():
            return False
        self._threads.discard(thread)
        return True

    @guarded
    def _done(self, me: int, thread: threading.Thread) -> bool:
        """Count a job as done, and return whether the thread still belongs to the pool."""
        if self._running.pop(me, None) is None:
            self._lost.discard(thread)
            self._threads.discard(thread)
            return False
        self._changed.notify_all()
        return True

    @guarded
    def give_up(self, me: int) -> None:
        thread = self._running.get(me)
        if thread is None or (self.replaces_lost and len(self._lost) >= MAX_LOST):
            return
        self._lost.add(thread)
        del self._running[me]
        self._changed.notify_all()
        if self.replaces_lost:
            self._threads.discard(thread)
            self._start_thread_if_short()

    @guarded
    def drain(self, timeout: float | None) -> bool:
        return self._changed.wait_for(lambda: self.open_jobs == 0, timeout)

    @guarded
    def refuse(self) -> None:
        self._closing = True
        # The threads take the items that are left, and find no job for them.
        self._waiting.clear()
        self._changed.notify_all()


def _has_ended(thread: threading.Thread) -> bool:
    # A thread without an ident was started, but the server has not let it run yet.
    return thread.ident is not None and not thread.is_alive()


def _left_of(threads: set[threading.Thread]) -> set[threading.Thread]:
    return {thread for thread in threads if not _has_ended(thread)}


def _run(job: Job) -> None:
    try:
        job()
    except BaseException:
        # The top of a thread: any exception of a refresh ends here, or the pool would lose the thread.
        logger.exception("a refresh failed in a way that it should not")


def _run_in_line(job: Job) -> None:
    try:
        job()
    except Exception:
        logger.exception("a refresh failed in a way that it should not")


_stuck_processes: set[ProcessId] = set()


def _say_stuck() -> None:
    if this_process() not in _stuck_processes:
        _stuck_processes.add(this_process())
        logger.warning(
            "a refresh was not begun within %g s: the server seems to run no threads; until one runs, refreshes run in line, "
            "when the response is closed",
            START_PATIENCE,
        )


_refreshers: weakref.WeakSet[ThreadPool] = weakref.WeakSet()


def drain_all(timeout: float | None = None) -> bool:
    """Wait until the jobs of all pools in this process are done. Return whether they are.

    :param timeout: seconds to wait at most, for all together. Default: no limit.
    """
    start = time.monotonic()
    return all(refresher.drain(_left(start, timeout)) for refresher in list(_refreshers))


def drain_each(pools: Sequence[ThreadPool], timeout: float | None = None) -> bool:
    """Wait until all jobs of the given pools are done at the same time. Return whether they are.

    :param timeout: seconds to wait at most, for all together. Default: no limit.
    """
    start = time.monotonic()
    while True:
        if not all(pool.drain(_left(start, timeout)) for pool in pools):
            return False
        # A job of one pool may have submitted a job to another.
        if all(pool.drain(0) for pool in pools):
            return True


def _left(start: float, timeout: float | None) -> float | None:
    return None if timeout is None else max(0.0, start + timeout - time.monotonic())


@atexit.register
def _let_finish() -> None:
    """Wait a moment for running jobs. All pools share one wait, so that the waits of many apps don't add up."""
    refreshers = list(_refreshers)
    for refresher in refreshers:
        refresher.refuse()
    start = time.monotonic()
    for refresher in refreshers:
        refresher.drain(_left(start, refresher.shutdown_wait))
