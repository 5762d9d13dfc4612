"""Schedules the batches of one engine: finds the entries to purge or refresh, and limits how many batches run at once.

| batch | purges | then refreshes |
|---|---|---|
| purge of one name | now, without a batch | nothing |
| purge by prefix | each URL that a walk finds, :data:`CHUNK` at a time | nothing |
| refresh | nothing | each matching entry |
| publish of one name | softly, now | each matching entry whose freshness the purge ended |
| publish by prefix | softly, :data:`CHUNK` entries at a time | those entries |
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TypeVar

from ..core.addressing.keys import digest
from ..core.addressing.purge_names import url_below
from ..core.model.entry import Entry
from ..core.model.titles import title_of
from ..core.rules.serving import ServeOptions
from ..core.wsgi import close_iterable
from ..engine.engine import Engine
from ..errors import BatchQueueFull, PurgedHereOnly, StoreError
from ..filesystem.per_process import PerProcess
from .batch import Batch, Outcome
from .batch_queue import BatchQueue, PlannedBatch
from .purged import Purged
from .renewal import TOO_LONG, Renewal, Renewer, RenewTask
from .selector import Selector
from .workers import Task, Workers, is_in_batch

logger = logging.getLogger("flask_stalecache")

_T = TypeVar("_T")
#: Batches that run at the same time in a process. More wait for their turn.
AT_ONCE = 4
#: The same, including batches that are started within a batch. Those never wait: more of them run in the thread that starts them.
AT_ONCE_WITHIN = 32
#: URLs that are purged at a time.
CHUNK = 50
#: URLs that a purge remembers, to purge each once. Beyond that, some are purged twice, which is harmless.
REMEMBERED = 100_000


class _ProcessBatches:
    """The batches of one process.

    :ivar mutex: guards ``running`` and ``waiting``.
    :ivar changed: is notified when a batch has ended.
    """

    def __init__(self) -> None:
        # The lock is taken directly: a condition takes it in Python code, where an exception of a signal handler leaves it locked.
        self.mutex = threading.RLock()
        self.changed = threading.Condition(self.mutex)
        self.running = 0
        self.workers: set[Workers] = set()
        self.waiting = BatchQueue()


class BatchScheduler:
    """Schedules the batches of one engine.

    :param engine: refreshes entries.
    :param renewers: the front ends that store entries in the engine's store.
    """

    def __init__(self, engine: Engine, renewers: Sequence[Renewer]) -> None:
        self.engine = engine
        self.renewers = renewers
        self._processes = PerProcess(_ProcessBatches)
        engine.runtime.watched.append(self.tick)
        _schedulers.add(self)

    # -- what a batch does ---------------------------------------------------------------------------------------

    def purge(self, selector: Selector, *, soft: bool) -> Batch | Purged:
        """Purge the selected entries: at once if one name selects them, otherwise in a batch.

        :raises StoreError: if the store can't be written.
        :raises BatchQueueFull: if too many batches wait.
        """
        self.engine.runtime.prepare_process()
        if selector.name is None:
            batch = self._new_batch("purge", (selector, soft))
            self.engine.counters.count("purges")
            return self._start_or_wait(PlannedBatch((selector, soft), batch, self._purge_tasks(batch, selector, soft), 1))
        self.engine.counters.count("purges")
        purged = Purged.about_to(self.engine.store, selector.names)
        purged.acknowledged = self.engine.purge(*selector.names, soft=soft)
        if logger.isEnabledFor(logging.DEBUG):
            with suppress(StoreError):
                self._tell(selector, is_nothing=not purged)
        return purged

    def refresh(self, selector: Selector, concurrency: int, *, publish: bool = False) -> Batch:
        """Refresh the selected entries in a batch.

        :param publish: purge them softly first.
        :raises StoreError: if they are purged now, and the store can't be written.
        :raises BatchQueueFull: if too many batches wait. Then nothing is purged.
        """
        self.engine.runtime.prepare_process()
        batch = self._new_batch("publish" if publish else "refresh", (selector, concurrency))
        if publish and selector.name is not None:
            self.engine.counters.count("purges")
            batch.add_purge(self.engine.purge(*selector.names, soft=True))
        found, purges = self._matching(batch, selector), _Purges(self.engine, batch)
        if publish and selector.name is None:
            self.engine.counters.count("purges")
            found = self._purged_softly(purges, found, selector.prefix)
        elif publish:
            # Calls that began after the purge already used the published content, so their entries need no refresh.
            found = (entry for entry in found if entry.ended)
        tasks = self._renew_tasks(batch, found, purges)
        return self._start_or_wait(PlannedBatch((selector, concurrency), batch, tasks, concurrency))

    def refresh_entry(self, entry: Entry) -> Batch:
        """Refresh one entry in a batch."""
        return self.run("refresh", [RenewTask(self.engine, entry, self.renewal_of(entry))], 1)

    def run(self, kind: str, tasks: Sequence[Task], concurrency: int) -> Batch:
        """Run a list of tasks in a batch.

        :raises BatchQueueFull: if too many batches wait.
        """
        self.engine.runtime.prepare_process()
        planned = PlannedBatch(object(), self._new_batch(kind, None, len(tasks)), iter(tasks), concurrency, len(tasks))
        self._add_found(planned.batch, len(tasks))
        return self._start_or_wait(planned)

    def serve_options_of(self, entry: Entry) -> ServeOptions | None:
        """Return the options of an entry's view, function or rule; ``None`` if no front end knows the entry."""
        renewal = self.renewal_of(entry)
        return renewal.job.terms if isinstance(renewal, Renewal) else None

    def _matching(self, batch: Batch, selector: Selector) -> Iterator[Entry]:
        for stored in self.engine.store.walk():
            if batch.cancelled:
                return
            if selector.matches(stored.entry):
                yield stored.entry

    def _renew_tasks(self, batch: Batch, found: Iterator[Entry], purges: _Purges) -> Iterator[Task]:
        for entry in found:
            self._add_found(batch)
            yield RenewTask(self.engine, entry, self.renewal_of(entry))
        yield from purges.failures()

    def renewal_of(self, entry: Entry) -> Renewal | str:
        """Return how to refresh an entry, or the reason why it can't be refreshed."""
        if entry.needs_confirming:
            return "each use of it is confirmed by the app"
        if "url" in entry.recipe:
            return "only the caller of the session has the request"
        for renewer in self.renewers:
            renewal = renewer.renewal_of(entry)
            if renewal is not None:
                return renewal
        return "nothing in this app makes it: it may be another app's"

    def _purged_softly(self, purges: _Purges, found: Iterator[Entry], prefix: str) -> Iterator[Entry]:
        """Purge the found entries softly, in chunks, and yield them."""
        for chunk in _chunks(found):
            purges.purge(dict.fromkeys(name for _, name in _with_url(chunk, prefix)), soft=True)
            yield from chunk

    def _purge_tasks(self, batch: Batch, selector: Selector, soft: bool) -> Iterator[Task]:
        """Purge the matching URLs in chunks, and yield a finished task for each.

        A purge by the URL's name also reaches the variants of a page, and discards responses that are being made.
        """
        purges = _Purges(self.engine, batch)
        for chunk in _chunks(_new_urls(self._matching(batch, selector), selector.prefix)):
            self._add_found(batch, len(chunk))
            began = time.monotonic()
            purges.purge([name for name, _ in chunk], soft=soft)
            seconds = (time.monotonic() - began) / len(chunk)
            yield from (FinishedTask(Outcome(title, None, seconds, stored=soft)) for _, title in chunk)
        self._tell(selector, is_nothing=batch.found == 0)
        yield from purges.failures()

    def _tell(self, selector: Selector, *, is_nothing: bool) -> None:
        if is_nothing:
            logger.debug("a purge of %s has matched nothing that is stored", selector.what)

    # -- when it runs --------------------------------------------------------------------------------------------

    def _new_batch(self, kind: str, about: object, listed: int = 0) -> Batch:
        """Return a new batch, before anything is purged for it.

        :raises BatchQueueFull: if it would have to wait, and too many others wait.
        """
        process = self._processes.get()
        with process.mutex, self._telling():
            if self._must_wait(process) and process.waiting.same(about, kind) is None:
                process.waiting.check_room(kind, listed)
        return Batch(kind, self.engine.instrumentation.batch_progress)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Count and log a batch that is refused: its caller may be a hook that hides errors."""
        try:
            yield
        except BatchQueueFull as error:
            self.engine.counters.count("scans_refused")
            self.engine.runtime.complaints.error_every_minute("batches", "%s", error)
            raise

    def _must_wait(self, process: _ProcessBatches) -> bool:
        # A batch that is started within a batch never waits for its turn: the outer batch keeps its turn, and may wait for it.
        return not self._is_in_line() and process.running >= AT_ONCE and not is_in_batch()

    def _is_in_line(self) -> bool:
        return self.engine.runtime.in_line or self.engine.runtime.refresher.workers == 0

    def _add_found(self, batch: Batch, count: int = 1) -> None:
        self.engine.counters.count("scans_found", count)
        batch.add_found(count)

    def _start_or_wait(self, planned: PlannedBatch) -> Batch:
        """Start a batch, or queue it. If a waiting batch does the same, return that one instead.

        :raises BatchQueueFull: if it has to wait, and too many others wait.
        """
        process = self._processes.get()
        if self._is_in_line() or (process.running >= AT_ONCE_WITHIN and is_in_batch()):
            self._make_workers(planned, lambda: None).run_in_line()
            return planned.batch
        with process.mutex:
            must_wait = self._must_wait(process)
            if must_wait:
                same = process.waiting.same(planned.about, planned.batch.kind)
                if same is not None:
                    return same.batch
                with self._telling():
                    cancelled = process.waiting.push(planned)
            else:
                process.running += 1
            self._report(process)
        if not must_wait:
            self._start(planned, process)
            return planned.batch
        for each in cancelled:
            close_iterable(each.tasks)
            each.batch.finish()
        return planned.batch

    def _start(self, planned: PlannedBatch, process: _ProcessBatches) -> None:
        workers = self._make_workers(planned, lambda: self._end(process, workers))
        process.workers.add(workers)
        workers.start(planned.concurrency)

    def _make_workers(self, planned: PlannedBatch, on_end: Callable[[], object]) -> Workers:
        return Workers(planned.batch, planned.tasks, self.engine.counters.count, on_end)

    def _end(self, process: _ProcessBatches, workers: Workers) -> None:
        """Start the next batch in the place of one that has ended."""
        process.workers.discard(workers)
        with process.mutex:
            following = process.waiting.pop()
            if following is None:
                process.running -= 1
                process.changed.notify_all()
            self._report(process)
        if following is not None:
            self._start(following, process)

    def _report(self, process: _ProcessBatches) -> None:
        self.engine.registry.gauge("scans_running", process.running)
        self.engine.registry.gauge("scans_waiting", len(process.waiting))

    def tick(self) -> None:
        """Give up on tasks that exceed the refresh deadline. Called about once a second."""
        process = self._processes.peek()
        if process is not None:
            for workers in list(process.workers):
                workers.give_up(self.engine.settings.refresh_deadline, TOO_LONG)

    def drain(self, timeout: float | None = None) -> bool:
        """Wait for the batches of this process. Return whether all have ended.

        :param timeout: seconds to wait at most. Default: no limit.
        """
        process = self._processes.get()
        with process.mutex:
            return process.changed.wait_for(lambda: process.running == 0, timeout)


class _Purges:
    """The purges of one batch. If other hosts can't be reached, all purges are still made on this host."""

    def __init__(self, engine: Engine, batch: Batch) -> None:
        self._engine = engine
        self._batch = batch
        self._problem: PurgedHereOnly | None = None

    def purge(self, names: Iterable[str], *, soft: bool) -> None:
        """Purge by name."""
        try:
            self._batch.add_purge(self._engine.purge(*names, soft=soft))
        except PurgedHereOnly as error:
            self._problem = error

    def failures(self) -> Iterator[Task]:
        """Yield a failed task if one of the purges has not reached the other hosts."""
        if self._problem is not None:
            yield FinishedTask(Outcome("", reason=str(self._problem), failed=True))


_schedulers: weakref.WeakSet[BatchScheduler] = weakref.WeakSet()


def drain_all_batches(timeout: float | None = None) -> bool:
    """Wait for all batches in this process. Return whether all have ended.

    :param timeout: seconds to wait at most, for all together. Default: no limit.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    return all(scheduler.drain(_seconds_until(deadline)) for scheduler in list(_schedulers))


def drain_with(batches: Callable[[float | None], bool], refreshes: Callable[[float | None], bool], timeout: float | None) -> bool:
    """Wait for batches, and then for refreshes, which batches may have queued. Return whether all have ended.

    :param timeout: seconds to wait at most, for all together; ``None``: no limit.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    return batches(_seconds_until(deadline)) and refreshes(_seconds_until(deadline))


def _seconds_until(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _chunks(items: Iterator[_T]) -> Iterator[list[_T]]:
    """Yield lists of :data:`CHUNK` items, the last of which may be shorter."""
    while chunk := list(islice(items, CHUNK)):
        yield chunk


def _new_urls(found: Iterator[Entry], prefix: str) -> Iterator[tuple[str, str]]:
    """Yield the name and title of each URL that a prefix selects, once for all of its variants."""
    known: set[str] = set()
    for entry, name in _with_url(found, prefix):
        mark = digest(name)
        if mark in known:
            continue
        if len(known) >= REMEMBERED:
            known.clear()
        known.add(mark)
        yield name, title_of(entry)


def _with_url(found: Iterable[Entry], prefix: str) -> Iterator[tuple[Entry, str]]:
    """Yield entries with the name for the URL that a prefix selects."""
    return ((entry, name) for entry in found if (name := url_below(entry.names, prefix)) is not None)


class FinishedTask:
    """A task whose work was done together with others, before a worker takes it."""

    def __init__(self, outcome: Outcome) -> None:
        self.url = outcome.url
        self._outcome = outcome

    def run(self, given_up: Callable[[str], None]) -> Outcome:
        """Return the outcome."""
        return self._outcome
