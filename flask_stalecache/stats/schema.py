"""The numbers: what they are called, and named counts of what happened in this process."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Protocol, TypedDict


class Histogram(TypedDict):
    """How long something took, in seconds.

    ``buckets`` says how often it took so long at most, by the bound as a string, as Prometheus has them.
    """

    count: int
    sum: float
    buckets: dict[str, int]


class Refreshed(TypedDict):
    """Refreshes that ran to their end, and the seconds that they took together."""

    done: int
    failed: int
    seconds: float


class Series(TypedDict):
    """What is counted of one endpoint, fetch function or host."""

    requests: dict[str, int]
    origin_calls: int
    origin_failures: int
    waits: int
    refreshes: Refreshed
    served: Histogram
    origin: Histogram


class AllRefreshes(Refreshed):
    """Refreshes of everything, also those that did not run to their end; ``pending`` is how many wait or run just now."""

    queued: int
    pending: int
    dropped: int
    overdue: int


class Scans(TypedDict):
    """What walks through the store came upon; ``running`` is how many are under way just now."""

    running: int
    found: int
    done: int
    failed: int
    skipped: int


class Stats(TypedDict):
    """The numbers of all processes that share a cache directory, as :meth:`.StaleCache.stats` returns them."""

    requests: dict[str, int]
    calls: dict[str, int]
    origin_calls: int
    origin_failures: int
    waits: int
    lock_timeouts: int
    refreshes: AllRefreshes
    scans: Scans
    purges: int
    store_failures: int
    broken_entries: int
    evictions: dict[str, int]
    entries: int
    bytes: int
    max_size: int | None
    workers: int
    since: float
    endpoints: dict[str, Series]
    functions: dict[str, Series]
    hosts: dict[str, Series]


class Sample(TypedDict):
    """What was counted from one moment to the next, by all processes; in the histograms each bucket is for itself.

    ``at``: when that was over, in seconds since the epoch; ``seconds``: how long it was. What nothing happened to is left out.
    """

    at: float
    seconds: float
    requests: dict[str, int]
    calls: dict[str, int]
    origin_calls: int
    origin_failures: int
    waits: int
    refreshes: Refreshed
    endpoints: dict[str, Series]
    functions: dict[str, Series]
    hosts: dict[str, Series]


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
