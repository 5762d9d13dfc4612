"""The handle of a batch: its progress and outcomes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..filesystem.process import this_process
from ..stores.base import Acknowledged

#: The number of outcomes that a batch keeps. To see all outcomes of a larger batch, iterate over it while it runs.
KEPT = 10_000


class Outcome(NamedTuple):
    """The outcome of one entry or URL.

    :ivar url: its URL; for the value of a fetch function the call, such as ``shop.rates('EUR')``; "" if the store failed.
    :ivar status: the status of the response; ``None`` without a request, and for calls.
    :ivar seconds: how long it took.
    :ivar stored: the result was stored, or the page was already stored and fresh.
    :ivar reason: why it failed, was skipped or was not stored; otherwise "".
    :ivar skipped: nothing was done.
    :ivar failed: the refresh or purge failed. A stored entry is kept.
    """

    url: str
    status: int | None = None
    seconds: float = 0.0
    stored: bool = False
    reason: str = ""
    skipped: bool = False
    failed: bool = False


class Batch:
    """Work on many entries or URLs in the background. It runs, or waits for its turn.

    Iterate over it to get each :class:`Outcome` as soon as it is known, until the batch has finished.

    :ivar kind: ``"purge"``, ``"refresh"``, ``"publish"`` or ``"warm"``.
    :ivar found: the number of entries or URLs found so far.
    :ivar done: the number that the app answered, or that were purged.
    :ivar failed: the number that failed.
    :ivar skipped: the number that were skipped.
    :ivar not_stored: the number of those done that were not stored.
    :ivar finished: whether it has ended.
    :ivar cancelled: whether it was cancelled.
    :ivar error: why it ended early; "" if it did not.
    :ivar acknowledged: which hosts have acknowledged all of its purges so far, if they share a server; otherwise ``None``.
    """

    def __init__(self, kind: str, on_progress: Callable[[Batch], object] = lambda batch: None) -> None:
        self.kind = kind
        self.found = 0
        self.done = 0
        self.failed = 0
        self.skipped = 0
        self.not_stored = 0
        self.finished = False
        self.cancelled = False
        self.error = ""
        self.acknowledged: Acknowledged | None = None
        self._on_progress = on_progress
        self._process = this_process()
        self._outcomes: deque[Outcome] = deque(maxlen=KEPT)
        self._count = 0
        # The lock is taken directly: a condition takes it in Python code, where an exception of a signal handler leaves it locked.
        self._mutex = threading.RLock()
        self._changed = threading.Condition(self._mutex)

    def __repr__(self) -> str:
        state = "finished" if self.finished else "running"
        return f"<Batch {self.kind}: {self.found} found, {self.done} done, {self.failed} failed, {self.skipped} skipped, {state}>"

    @property
    def outcomes(self) -> list[Outcome]:
        """The last 10,000 outcomes, oldest first."""
        with self._mutex:
            return list(self._outcomes)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the batch has finished, and return whether it has.

        :param timeout: seconds to wait at most. Default: no limit.
        """
        if self._is_another_process():
            return self.finished
        with self._mutex:
            return self._changed.wait_for(lambda: self.finished, timeout)

    def cancel(self) -> None:
        """Start no further tasks. Running ones are completed."""
        self.cancelled = True

    def __iter__(self) -> Iterator[Outcome]:
        """Yield each outcome as soon as it is known. An iterator that falls more than 10,000 behind misses the oldest ones."""
        position = 0
        while not self._is_another_process():
            with self._mutex:
                self._changed.wait_for(lambda at=position: self.finished or self._count > at)  # type: ignore[misc]
                position = max(position, self._count - len(self._outcomes))
                if position == self._count:
                    return
                outcome = self._outcomes[position - self._count]
                position += 1
            yield outcome

    def _is_another_process(self) -> bool:
        # A forked child has none of the batch's threads, and its lock may be held forever: never wait for either.
        return self._process != this_process()

    # -- for the workers -----------------------------------------------------------------------------------------

    def add_purge(self, heard: Acknowledged | None) -> None:
        """Record which hosts have acknowledged a purge."""
        with self._mutex:
            self.acknowledged = heard if self.acknowledged is None else self.acknowledged.and_then(heard)

    def add_found(self, count: int = 1) -> None:
        """Count entries or URLs that were found."""
        with self._mutex:
            self.found += count
        self._on_progress(self)

    def add_outcome(self, outcome: Outcome) -> None:
        """Record the outcome of one entry or URL."""
        with self._mutex:
            if outcome.failed:
                self.failed += 1
            elif outcome.skipped:
                self.skipped += 1
            else:
                self.done += 1
                self.not_stored += not outcome.stored and self.kind != "purge"
            self._outcomes.append(outcome)
            self._count += 1
            self._changed.notify_all()
        self._on_progress(self)

    def finish(self, error: str = "") -> None:
        """Mark the batch as finished.

        :param error: why it ended early.
        """
        with self._mutex:
            self.error = self.error or error
            self.finished = True
            self._changed.notify_all()
        self._on_progress(self)
