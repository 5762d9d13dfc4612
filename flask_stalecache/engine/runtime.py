"""What one app has in this process beside what answers: its threads and its numbers, and what is done behind and now and then."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial

from ..config import Settings
from ..core.model.entry import Entry
from ..errors import StoreError
from ..stats.counters import Counters
from ..stats.registry import Registry
from ..stats.schema import Stats
from ..stores.base import Copy, Store, Usage
from .answer_writer import AnswerWriter
from .background import ProcessState
from .housekeeper import Housekeeper
from .log import RateLimitedLog
from .origin import RefreshJob, RefreshResult
from .per_process import PerProcess
from .thread_pool import ThreadPool, drain_each

#: Of the server there is one for all apps of a process.
_server_complaints = RateLimitedLog()


class Runtime:
    """The part of the engine that no visitor waits for: refreshes, housekeeping and numbers.

    :param store: where entries live.
    :param settings: the app's configuration.
    :param counters: where things are counted by name.
    :param registry: where what is asked and served is counted. Default: in memory, for this process alone.
    """

    def __init__(self, store: Store, settings: Settings, counters: Counters, registry: Registry | None = None) -> None:
        self.registry = Registry(counters) if registry is None else registry
        self.store = store
        self.settings = settings
        self.counters = counters
        self.complaints = RateLimitedLog()
        self.answer_writer = AnswerWriter(store, settings.refresh_backoff, counters, self.complaints)
        self.instrumentation = self.answer_writer.instrumentation
        self.registry.listener = self.instrumentation.counted
        self.refresher = ThreadPool(settings.refresh_workers, settings.refresh_queue, settings.shutdown_wait)
        #: All threads that refresh: those for pages first.
        self.pools = [self.refresher]
        #: What else is looked after by housekeeping.
        self.watched: list[Callable[[], object]] = []
        self._housekeeper = Housekeeper(self)
        #: No thread runs between requests here: what threads would do is done when a response is closed.
        self.in_line = False
        self._processes = PerProcess(partial(ProcessState, self.answer_writer, self.pools, settings.refresh_deadline))
        self.process = self._processes.get()

    def send_as(self, sender: object) -> None:
        """Say who sends the signals: the Flask app, or the gateway."""
        self.instrumentation.sender = sender

    # -- refreshing ----------------------------------------------------------------------------------------------

    def claim(self, copy: Copy) -> bool:
        self.prepare_process()
        return self.process.refreshes.claim(copy)

    def is_pending(self, key: str) -> bool:
        """Whether a key's refresh was handed over in this process and is not done."""
        self.prepare_process()
        return self.process.refreshes.is_pending(self.answer_writer.load(key))

    def refresh_all(self, jobs: Sequence[RefreshJob]) -> None:
        """Run refreshes at the same time, and wait until they are done."""
        self.process.refreshes.refresh_all(jobs)

    def refresh_now(self, job: RefreshJob, met: Entry) -> RefreshResult | None:
        """Renew an entry in the caller's thread, and return where that landed; ``None``: it was handed over already.

        :param met: the entry; if it is another one by now, nothing happens.
        """
        self.prepare_process()
        return self.process.refreshes.run_now(job, met)

    def submit(self, job: RefreshJob) -> None:
        """Hand over a refresh that :meth:`.Engine.serve` asked for, or one that runs whatever is stored. It never waits."""
        self.prepare_process()
        # Only now: until the response is closed somebody may need the value, and would wait for what has not begun.
        if not job.forced or self.process.refreshes.claim(self.answer_writer.load(job.key)):
            self.process.refreshes.submit(job)

    def new_pool(self, workers: int, queue_size: int, *, replaces_lost: bool = True) -> ThreadPool:
        """Return new threads for refreshes of one kind; none, where pages have none either."""
        workers = workers if self.refresher.workers else 0
        pool = ThreadPool(workers, queue_size, self.settings.shutdown_wait, replaces_lost=replaces_lost)
        self.pools.append(pool)
        return pool

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until the refreshes handed over in this process are done, and return whether they are."""
        return drain_each(self.pools, timeout)

    def go_in_line(self, reason: str) -> None:
        """Do without threads from now on, and say so once.

        :param reason: why, and the way out.
        """
        self.in_line = True
        if self.refresher.workers > 0:
            for pool in self.pools:
                pool.go_in_line()
            about = "threads", os.getpid()
            _server_complaints.warn_once(about, "refreshes run in line, when the response is closed, since %s", reason)

    def look_after_itself(self) -> None:
        """Do what the housekeeping thread would do, if it is time."""
        self._housekeeper.tick_if_due()

    def tick(self) -> None:
        """Give up refreshes that take too long, and let the store look after itself."""
        self.process.refreshes.tick()
        self._note_pending()
        self.registry.tick()
        for look_after in self.watched:
            look_after()
        try:
            self.store.tick()
        except StoreError as error:
            self.answer_writer.store_failed(error)

    def stats(self) -> Stats:
        """Return the numbers of all processes that share the store."""
        self._note_pending()
        try:
            usage = self.store.usage()
        except StoreError as error:
            self.answer_writer.store_failed(error)
            usage = Usage(0, 0)
        return self.registry.read(usage.entries, usage.bytes, getattr(self.store, "max_size", None))

    def _note_pending(self) -> None:
        self.registry.gauge("refreshes_pending", sum(pool.open_jobs for pool in self.pools))

    def prepare_process(self) -> None:
        """See a fork, and make anew what belongs to one process. Hits don't ask: getpid is a system call."""
        if self._processes.peek() is not self.process:
            self.registry.see_fork()
            self.counters.after_fork()
            self.store.forget()
            self.process = self._processes.get()
        if not self.in_line:
            self._housekeeper.ensure_running()
