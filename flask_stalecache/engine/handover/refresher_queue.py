"""Hands refreshes over to a queue of another program: ``STALECACHE_REFRESHER``.

The queue may be slow or out of reach, so it is called in a thread of its own, for one refresh at a time. Each refresh is queued
once for all processes and hosts that share the store. Refreshes that the queue does not take run in this process.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Protocol

from ...stats.counters import Counters
from ...stores.base import QueueingStore, Store
from ..log import RateLimitedLog
from ..scheduling.fair_queue import Waiting
from ..scheduling.thread_pool import ThreadPool
from .delegation import Handed

#: Seconds for which a refresh counts as pending until the queue has taken it; then the queue counts as stuck.
PATIENCE = 5.0
#: Seconds for which the queue is not called after it has failed.
PAUSE = 5.0


class Refresher(Protocol):
    """The object that a developer gives as ``STALECACHE_REFRESHER``."""

    def submit(self, job: dict[str, Any]) -> bool:
        """Queue a refresh, which ``run_refresh`` runs in another process. Return false if it was not queued."""


class RefresherQueue:
    """Hands refreshes over to a queue.

    :param refresher: the queue.
    :param store: marks refreshes as queued, if it can.
    :param pool: its thread calls the queue.
    :param deadline: seconds for which a refresh is not queued again.
    :param counters: counts refreshes that could not be queued.
    :param complaints: logs failures of the queue.
    """

    def __init__(
        self,
        refresher: Refresher,
        store: Store,
        pool: ThreadPool,
        deadline: float,
        counters: Counters,
        complaints: RateLimitedLog,
    ) -> None:
        self._refresher = refresher
        self._marks = store.queue_marks if isinstance(store, QueueingStore) else None
        self._pool = pool
        self._deadline = deadline
        self._counters = counters
        self._complaints = complaints
        #: When the running call of the queue began, and until when the queue is not called, on the monotonic clock.
        self._asked_at: float | None = None
        self._failed_until = 0.0

    def is_open(self) -> bool:
        """Whether the queue has not failed a short while ago."""
        return time.monotonic() >= self._failed_until

    def take(self, handed: Handed) -> bool:
        """Let the thread queue a refresh. Return false if the queue is stuck."""
        now = time.monotonic()
        if self._asked_at is not None and now - self._asked_at > PATIENCE:
            self._complain("the refresher has not answered for %g s, and refreshes run in this process", PATIENCE)
            return False
        handed.wait(PATIENCE)
        waiting = Waiting(partial(self._queue, handed), handed.group, handed.key, handed.demand, handed.run_here)
        return self._pool.submit(waiting)

    def _queue(self, handed: Handed) -> None:
        if self._marks is not None and (left := self._marks.mark(handed.data.mark, self._deadline)) > 0:
            # Another process has queued it.
            handed.wait(left)
            return
        self._asked_at = time.monotonic()
        try:
            said: object = self._refresher.submit(handed.data.to_json())
        except Exception as error:
            said = False
            self._failed_until = time.monotonic() + PAUSE
            self._complain("the refresher failed, and refreshes run in this process: %r", error)
        finally:
            self._asked_at = None
        if said:
            handed.wait(self._deadline)
            return
        self._complain(
            "submit() of the refresher returned %r, so a refresh runs in this process: return True if it is queued", said
        )
        self._counters.count("refreshes_returned")
        if self._marks is not None:
            self._marks.unmark(handed.data.mark)
        handed.run_here()

    def _complain(self, message: str, *args: object) -> None:
        self._complaints.error_every_minute("refresher", message, *args)
