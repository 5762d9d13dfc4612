"""A batch: something that goes through many entries or URLs in the background. How far it is, and what came of each."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

#: Outcomes that are kept; who wants all of more has to take them as they come.
KEPT = 10_000


class Outcome(NamedTuple):
    """What came of one entry or URL.

    :ivar url: its URL; of the value of a fetch function the call, such as ``shop.rates('EUR')``; "" if it is the store that failed.
    :ivar status: the status that the app answered with; ``None``: it was not asked, or it is a call.
    :ivar seconds: what it took.
    :ivar stored: it is stored now, as it was just made; of a page that was fresh already, that it is stored.
    :ivar reason: why it was not stored, failed or was skipped; else "".
    :ivar skipped: it was left alone.
    :ivar failed: it could not be made, or not be purged; what was stored of it is kept.
    """

    url: str
    status: int | None = None
    seconds: float = 0.0
    stored: bool = False
    reason: str = ""
    skipped: bool = False
    failed: bool = False


class Batch:
    """Something that goes through many entries or URLs in the background; it has begun, or waits until others are over.

    Iterating over it yields each :class:`Outcome` as it comes, until it is finished.

    :ivar kind: ``"purge"``, ``"refresh"``, ``"publish"`` or ``"warm"``.
    :ivar found: how many there are, as far as is known by now.
    :ivar done: of how many the app has answered, or which were purged.
    :ivar failed: how many could not be made, or not be purged.
    :ivar skipped: how many were left alone.
    :ivar not_stored: of those that are done, how many were not stored.
    :ivar finished: whether it is over.
    :ivar cancelled: whether it was cancelled.
    :ivar error: why it ended before its end; "" if it did not.
    """

    def __init__(self, kind: str, moved: Callable[[Batch], object] = lambda batch: None) -> None:
        self.kind = kind
        self.found = 0
        self.done = 0
        self.failed = 0
        self.skipped = 0
        self.not_stored = 0
        self.finished = False
        self.cancelled = False
        self.error = ""
        self._moved = moved
        self._pid = os.getpid()
        self._outcomes: deque[Outcome] = deque(maxlen=KEPT)
        self._told = 0
        self._changed = threading.Condition()

    def __repr__(self) -> str:
        state = "finished" if self.finished else "running"
        return f"<Batch {self.kind}: {self.found} found, {self.done} done, {self.failed} failed, {self.skipped} skipped, {state}>"

    @property
    def outcomes(self) -> list[Outcome]:
        """The last 10,000 outcomes, in the order in which they came."""
        with self._changed:
            return list(self._outcomes)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is finished, and return whether it is.

        :param timeout: seconds to wait at most. Default: no limit.
        """
        if self._is_another_process():
            return self.finished
        with self._changed:
            return self._changed.wait_for(lambda: self.finished, timeout)

    def cancel(self) -> None:
        """Begin nothing more; what is under way comes to its end."""
        self.cancelled = True

    def __iter__(self) -> Iterator[Outcome]:
        """Yield the outcomes as they come; of more than 10,000 that nobody has taken, the last ones."""
        position = 0
        while not self._is_another_process():
            with self._changed:
                self._changed.wait_for(lambda at=position: self.finished or self._told > at)  # type: ignore[misc]
                position = max(position, self._told - len(self._outcomes))
                if position == self._told:
                    return
                outcome = self._outcomes[position - self._told]
                position += 1
            yield outcome

    def _is_another_process(self) -> bool:
        # After a fork its threads are the parent's, and its lock may have been taken.
        return self._pid != os.getpid()

    # -- for who does it -----------------------------------------------------------------------------------------

    def find(self, count: int = 1) -> None:
        """Count what there is to do."""
        with self._changed:
            self.found += count
        self._moved(self)

    def tell(self, outcome: Outcome) -> None:
        """Note what came of one."""
        with self._changed:
            if outcome.failed:
                self.failed += 1
            elif outcome.skipped:
                self.skipped += 1
            else:
                self.done += 1
                self.not_stored += not outcome.stored and self.kind != "purge"
            self._outcomes.append(outcome)
            self._told += 1
            self._changed.notify_all()
        self._moved(self)

    def finish(self, error: str = "") -> None:
        """Note that it is over.

        :param error: why it ended before its end.
        """
        with self._changed:
            self.error = self.error or error
            self.finished = True
            self._changed.notify_all()
        self._moved(self)
