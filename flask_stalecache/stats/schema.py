"""The shape of the statistics."""

from __future__ import annotations

from typing import TypedDict


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
