"""Per-process runtime of an engine: thread pools, housekeeping and counters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from ..config.settings import Settings
from ..core.model.entry import Entry
from ..core.model.titles import title_of
from ..core.packets.packets import socket_name
from ..errors import StoreError
from ..filesystem.per_process import PerProcess
from ..filesystem.process import this_process
from ..stats.counters import Counters
from ..stats.many_hosts import Hosts, over_hosts
from ..stats.registry import Registry
from ..stats.schema import Stats, WorkerState
from ..stats.worker_state import read_state
from ..stores.base import Copy, DirectoryStore, ManyHostsStore, PrivateStore, Store, Usage, find_key
from .answer_writer import AnswerWriter
from .background import ProcessState
from .flights.stream_copies import StreamCopies, StreamCopy
from .flights.stream_pace import StreamPace
from .handover.delegation import Delegation
from .handover.refresher_queue import Refresher, RefresherQueue
from .handover.warm_files import WarmFiles
from .handover.worker_link import WorkerLink
from .log import RateLimitedLog
from .origin import RefreshJob, RefreshResult
from .scheduling import switch_interval
from .scheduling.housekeeper import Housekeeper
from .scheduling.lane import Lane
from .scheduling.thread_pool import ThreadPool, drain_each

#: The size limit for all copies of streamed bodies in one process together, as a multiple of ``max_entry_size``.
COPIES = 4
#: Warnings about the server, shared by all apps: a process has one server.
_server_complaints = RateLimitedLog()


class Runtime:
    """The part of the engine that no request waits for: background refreshes, housekeeping and counters.

    :param store: where entries live.
    :param settings: the app's configuration.
    :param counters: the named counters.
    :param registry: the counters of requests and calls. Default: in memory, for this process alone.
    """

    def __init__(self, store: Store, settings: Settings, counters: Counters, registry: Registry | None = None) -> None:
        self.registry = Registry(counters) if registry is None else registry
        self.store = store
        self.settings = settings
        self.counters = counters
        self.complaints = RateLimitedLog()
        #: Runs the refreshes that compute, one at a time.
        self.lane = Lane(settings.switch_interval)
        self.answer_writer = AnswerWriter(store, settings.refresh_backoff, counters, self.complaints, self.lane)
        self.instrumentation = self.answer_writer.instrumentation
        self.registry.listener = self.instrumentation.counted
        self.refresher = ThreadPool(settings.refresh_workers, settings.refresh_queue, settings.shutdown_wait)
        given_up = partial(counters.count, "copies_given_up")
        self._copies = PerProcess(partial(StreamCopies, COPIES * settings.max_entry_size, given_up))
        #: All pools that run refreshes. The first one is for pages.
        self.pools = [self.refresher]
        #: The thread of the lane, for refreshes of all kinds.
        self.lane_pool = self.new_pool(1, settings.refresh_queue)
        #: Called once a second by housekeeping.
        self.watched: list[Callable[[], object]] = []
        self._housekeeper = Housekeeper(self)
        #: This server runs no threads between requests: refreshes and housekeeping run when a response is closed.
        self.in_line = False
        self.delegation = Delegation(settings.refresh_deadline, counters, self.complaints)
        self._processes = PerProcess(
            partial(ProcessState, self.answer_writer, self.pools, self.lane_pool, settings.refresh_deadline, self.delegation)
        )
        self.process = self._processes.get()
        if settings.refresher is not None:
            self.delegation.takers.append(self._queue_of(settings.refresher))
        if isinstance(store, DirectoryStore):
            link = self.delegation.runner = WorkerLink(store.directory, settings.version or "")
            self.delegation.takers.append(link)

    def _queue_of(self, refresher: Refresher) -> RefresherQueue:
        pool = self.new_pool(1, self.settings.refresh_queue)
        return RefresherQueue(refresher, self.store, pool, self.settings.refresh_deadline, self.counters, self.complaints)

    def send_as(self, sender: object) -> None:
        """Set the sender of the signals: the Flask app, or the gateway."""
        self.instrumentation.sender = sender

    # -- refreshing ----------------------------------------------------------------------------------------------

    def claim(self, copy: Copy) -> bool:
        """Claim the refresh of a key for the caller. Return false if one is already pending."""
        self.prepare_process()
        return self.process.refreshes.claim(copy)

    def is_pending(self, key: str) -> bool:
        """Whether a refresh of the key is pending in this process."""
        self.prepare_process()
        return self.process.refreshes.is_pending(self.answer_writer.load(key))

    def refresh_all(self, jobs: Sequence[RefreshJob]) -> None:
        """Run refreshes concurrently, and wait until they are done."""
        self.process.refreshes.refresh_all(jobs)

    def refresh_now(self, job: RefreshJob, met: Entry) -> RefreshResult | None:
        """Refresh an entry in the caller's thread, and return the result. Return ``None`` if a refresh is already pending.

        :param met: the entry. If another entry has replaced it, nothing happens.
        """
        self.prepare_process()
        return self.process.refreshes.run_now(job, met)

    def submit(self, job: RefreshJob) -> None:
        """Queue a refresh that :meth:`.Engine.serve` asked for, or a forced one. It never waits."""
        self.prepare_process()
        # Claim a forced refresh only now. If claimed earlier, other requests would wait for a refresh that has not begun.
        if not job.forced or self.process.refreshes.claim(self.answer_writer.load(job.key)):
            self.process.refreshes.submit(job)

    def new_pool(self, workers: int, queue_size: int, *, replaces_lost: bool = True) -> ThreadPool:
        """Return a thread pool for refreshes of one kind. It has no threads if the pool for pages has no threads."""
        workers = workers if self.refresher.workers else 0
        pool = ThreadPool(workers, queue_size, self.settings.shutdown_wait, replaces_lost=replaces_lost)
        self.pools.append(pool)
        return pool

    def begin_copy(self, pace: StreamPace) -> StreamCopy:
        """Return an empty copy for a body that is stored once its reader has taken all of it.

        :param pace: how fast its reader is.
        """
        return self._copies.get().begin(pace)

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until the refreshes of this process are done. Return whether they are."""
        return drain_each(self.pools, timeout)

    def go_in_line(self, reason: str) -> None:
        """Run refreshes without threads from now on, and log that once.

        :param reason: the cause and the remedy, for the log.
        """
        self.in_line = True
        if self.refresher.workers > 0:
            for pool in self.pools:
                pool.go_in_line()
            about = "threads", this_process()
            _server_complaints.warn_once(about, "refreshes run in line, when the response is closed, since %s", reason)

    def note_other_processes(self) -> None:
        """Log once that the server has several processes, if each of them has entries of its own."""
        if isinstance(self.store, PrivateStore):
            _server_complaints.warn_once(
                ("processes", this_process()),
                "the server has several processes, and each has entries of its own, so that a purge in one of them does not reach "
                "the others: start one process with threads, or leave STALECACHE_STORE='memory' out",
            )

    def look_after_itself(self) -> None:
        """Do a round of housekeeping in the caller's thread, if one is due."""
        self._housekeeper.tick_if_due()

    def tick(self) -> None:
        """Do one round of housekeeping: give up on refreshes and calls that take too long, take a sample, let the store evict."""
        self._look_after("refreshes that take too long", self.process.refreshes.tick)
        self._look_after("calls that take too long", self._end_slow_flights)
        self._look_after("statistics", self._look_after_statistics)
        for number, look_after in enumerate(self.watched):
            self._look_after(f"batches {number}", look_after)
        self._look_after("the store", self._look_after_store)

    def _look_after(self, what: str, do: Callable[[], object]) -> None:
        """Do one part of the housekeeping. A failure is logged, and does not stop the other parts."""
        try:
            do()
        except Exception as error:
            self.answer_writer.complaints.error_every_minute(
                ("housekeeping", what), "housekeeping failed, it is tried again: %s", what, exc_info=error
            )

    def _end_slow_flights(self) -> None:
        for flight in self.process.flights.slow():
            # Requests in other processes wait for its lock.
            self.process.flights.end_slow(flight)
        self.process.flights.end_expired()

    def _look_after_statistics(self) -> None:
        self._note_pending()
        self.registry.tick()
        if isinstance(self.store, ManyHostsStore):
            self.store.numbers.tell_if_due(self.stats_here)

    def _look_after_store(self) -> None:
        try:
            self.store.tick()
        except StoreError as error:
            self.answer_writer.store_failed(error)

    def stats(self) -> Stats:
        """Return the numbers of all processes that share the store: current ones of this host, the last reported ones of others."""
        mine = self.stats_here()
        hosts = self.hosts(mine)
        stats = mine if hosts is None else over_hosts(mine, hosts)
        if (worker := self.worker_state()) is not None:
            stats["worker"] = worker
        return stats

    def worker_state(self) -> WorkerState | None:
        """Return the activity of this host's worker; ``None`` without a worker."""
        place = self._worker_place()
        state = None if place is None else read_state(place)
        for each in () if state is None else state["running"]:
            with suppress(StoreError):
                key = find_key(self.store, each["key"])
                entry = None if key is None else self.store.load(key).entry
                each["title"] = self._warmed(each["key"]) if entry is None else title_of(entry)
        return state

    def _warmed(self, address: str) -> str:
        """Return the URL of a warming request that the worker runs; "" if the address is not that of a warming request."""
        with suppress(ValueError):
            if isinstance(self.store, DirectoryStore) and (data := WarmFiles(self.store.directory).asked(address)) is not None:
                return data.url
        return ""

    def _worker_place(self) -> Path | None:
        """Return the state file of the worker of this app and version; ``None`` if the store has no directory."""
        if not isinstance(self.store, DirectoryStore):
            return None
        return self.store.directory / f"{socket_name(self.delegation.app, self.settings.version or '')}.state"

    def hosts(self, mine: Stats) -> Hosts | None:
        """Return the hosts that share the store; ``None`` if the store belongs to one host.

        :param mine: the numbers of this host.
        """
        return self.store.numbers.look(mine) if isinstance(self.store, ManyHostsStore) else None

    def stats_here(self) -> Stats:
        """Return the numbers of all processes of this host that share the store."""
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
        """Replace the parent's state after a fork, and start housekeeping. Not for hits: getpid is a system call."""
        if self._processes.peek() is not self.process:
            self.registry.see_fork()
            switch_interval.see_fork()
            self.counters.after_fork()
            self.store.forget()
            self.process = self._processes.get()
        if not self.in_line:
            self._housekeeper.ensure_running()
