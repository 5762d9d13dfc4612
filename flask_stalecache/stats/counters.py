"""Named counts of what happened in this process."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Protocol


class Sink(Protocol):
    """Where named counts go beside, to be added up over processes."""

    def count(self, name: str, by: int) -> None:
        """Add to what is counted under a name."""


class Counters:
    """Named counts of this process. Only slow paths count here: a hit would pay for the lock.

    :ivar sink: where they go beside; ``None``: nowhere.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self.sink: Sink | None = None

    def count(self, name: str, by: int = 1) -> None:
        """Add one, or as many as are given."""
        with self._lock:
            self._counts[name] += by
        if self.sink is not None:
            self.sink.count(name, by)

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def as_dict(self) -> dict[str, int]:
        """Return all counts by name."""
        with self._lock:
            return dict(self._counts)

    def after_fork(self) -> None:
        """Make the lock anew: the fork may have found it taken."""
        self._lock = threading.Lock()
