"""Named counts of this process."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Protocol

from ..core.guarded import guarded


class Sink(Protocol):
    """Receives named counts, to add them up over processes."""

    def count(self, name: str, by: int) -> None:
        """Add to a named count."""


class Counters:
    """Named counts of this process. Only for slow paths, since counting takes a lock.

    :ivar sink: also receives each count; ``None``: there is no sink.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._counts: Counter[str] = Counter()
        self.sink: Sink | None = None

    def count(self, name: str, by: int = 1) -> None:
        """Add to a named count."""
        self._add(name, by)
        if self.sink is not None:
            self.sink.count(name, by)

    @guarded
    def _add(self, name: str, by: int) -> None:
        self._counts[name] += by

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    @guarded
    def as_dict(self) -> dict[str, int]:
        """Return all counts by name."""
        return dict(self._counts)

    def after_fork(self) -> None:
        """Make a new lock: another thread may have held it at the fork."""
        self._mutex = threading.Lock()
