"""Counts of what happened in this process."""

from __future__ import annotations

import threading
from collections import Counter


class Counters:
    """Named counts. Only slow paths count here: a hit would pay for the lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def count(self, name: str) -> None:
        """Add one."""
        with self._lock:
            self._counts[name] += 1

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def as_dict(self) -> dict[str, int]:
        """Return all counts by name."""
        with self._lock:
            return dict(self._counts)

    def after_fork(self) -> None:
        """Make the lock anew: the fork may have found it taken."""
        self._lock = threading.Lock()
