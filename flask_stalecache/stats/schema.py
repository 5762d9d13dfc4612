"""The statistics: the table of all counters, and the shape in which they are returned.

:data:`COUNTERS` is the one list of counters. Everything else is made from it: where a counter is kept (``registry``), its place in
``stats()``, its Prometheus family (``prometheus``), its line in ``flask stalecache stats`` (``cli/stats``) and its part of a tile
on the dashboard (``dashboard/overview``). To add one, add a row, and its key to the :class:`Stats` below for type checkers;
``tests/stats/test_schema.py`` checks that both agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypedDict


class Kept(str, Enum):
    """Where a counter is kept.

    ========= ================================================================================================
    `NAMED`   in a cell at the head of each counter file; ``Counters.count(name)`` adds to it
    `GAUGE`   likewise, but a current value: it counts only while the process lives (``Registry.gauge``)
    `SERIES`  in the cells of each endpoint, fetch function and host; the total is their sum (``Tally``)
    ========= ================================================================================================
    """

    NAMED = "named"
    GAUGE = "gauge"
    SERIES = "series"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """One row of the table.

    :param name: the name that it is counted by.
    :param kept: where it is kept.
    :param cell: number of its cell. Files of other versions use the same cell, so it is never changed or given to another name.
    :param key: its place in ``stats()``, such as ``refreshes.done``; rows of the same key are added up. "" for none.
    :param metric: its Prometheus metric, without ``stalecache_``; "" for none.
    :param label: the label that distinguishes the rows of one metric.
    :param value: the value of that label.
    :param by_series: the metric has one sample for each endpoint, function and host.
    :param help: help text of the metric, given by its first row.
    :param line: its line in ``flask stalecache stats``; "" for none.
    :param words: the words after the number in that line.
    :param tile: its tile on the dashboard; "" for none.
    :param note: its part of the note on that tile; ``{}`` is the number.
    :param always: show it on the tile even if it is 0.
    """

    name: str
    kept: Kept
    cell: int = 0
    key: str = ""
    metric: str = ""
    label: str = ""
    value: str = ""
    by_series: bool = False
    help: str = ""
    line: str = ""
    words: str = ""
    tile: str = ""
    note: str = ""
    always: bool = False


def _named(name: str, cell: int, key: str = "", **shown: Any) -> Counter:
    return Counter(name=name, kept=Kept.NAMED, cell=cell, key=key, **shown)


def _gauge(name: str, cell: int, key: str, **shown: Any) -> Counter:
    return Counter(name=name, kept=Kept.GAUGE, cell=cell, key=key, **shown)


def _series(name: str, key: str, **shown: Any) -> Counter:
    return Counter(name=name, kept=Kept.SERIES, key=key, **shown)


def _refresh(value: str, help: str = "") -> dict[str, Any]:
    shown = {"line": "refreshes", "words": value, "tile": "Refreshes", "note": f"{{}} {value}", "always": True}
    return {"metric": "refreshes", "label": "outcome", "value": value, "help": help, **shown}


def _batch(value: str, help: str = "") -> dict[str, Any]:
    return {"metric": "scan_results", "label": "outcome", "value": value, "help": help, "line": "scans", "words": value}


def _eviction(value: str, help: str = "") -> dict[str, Any]:
    shown = {"line": "evictions", "words": value, "tile": "Evictions", "note": f"{value} {{}}"}
    return {"metric": "evictions", "label": "reason", "value": value, "help": help, **shown}


#: All counters, in the order of ``stats()``.
COUNTERS: tuple[Counter, ...] = (
    _series(
        "origin_calls", "origin_calls", metric="origin_calls", by_series=True, help="Calls of origins, refreshes included.",
        line="origins", words="calls",
    ),
    _series(
        "origin_failures", "origin_failures", metric="origin_failures", by_series=True, help="Calls of origins that failed.",
        line="origins", words="failed",
    ),
    _series(
        "computed.calls", "computed.calls", metric="origin_computed", by_series=True,
        help="Calls of origins that have computed, rather than waited.", line="computing", words="calls",
    ),
    _series(
        "computed.seconds", "computed.seconds", metric="origin_computed_seconds", by_series=True,
        help="Seconds of processors that they took.", line="computing", words="s of processors",
    ),
    _series(
        "waits", "waits", metric="waits", by_series=True, help="Requests that waited for another's call of the origin.",
        line="waits", words="waited for another's call",
    ),
    _named(
        "lock_timeouts", 4, "lock_timeouts",
        metric="lock_timeouts", help="Waits for another's call of the origin that took too long.", line="waits", words="in vain",
    ),
    _named(
        "slow_readers", 22, "slow_readers",
        metric="slow_readers", help="Streams that requests no longer wait for, since their clients read slowly.",
        line="waits", words="for streams of slow readers ended",
    ),
    _named(
        "copies_given_up", 23, "copies_given_up",
        metric="copies_given_up", help="Copies of streams that were given up, since all copies together were too large.",
        line="waits", words="copies of streams given up",
    ),
    _named(
        "refreshes_handed_over", 30, "refreshes.handed_over",
        metric="refreshes_handed_over", help="Refreshes that were handed over to another process.",
        line="refreshes", words="handed over", tile="Refreshes", note="{} handed over",
    ),
    _named(
        "refreshes_returned", 31, "refreshes.returned",
        metric="refreshes_returned", help="Refreshes that no other process took, or did in time; they ran in their own process.",
        line="refreshes", words="returned", tile="Refreshes", note="{} returned",
    ),
    _named(
        "refreshes_queued", 10, "refreshes.queued",
        metric="refreshes_queued", help="Refreshes that were handed over.", line="refreshes", words="queued",
    ),
    _gauge(
        "refreshes_pending", 8, "refreshes.pending",
        metric="refreshes_pending", help="Refreshes that wait or run just now.", line="refreshes", words="pending",
    ),
    _series("refreshes.done", "refreshes.done", **_refresh("done", "Refreshes, by what became of them.")),
    _series("refreshes.failed", "refreshes.failed", **_refresh("failed")),
    _named("refreshes_dropped", 11, "refreshes.dropped", **_refresh("dropped")),
    # Not an outcome: an overdue refresh may still be done, or fail.
    _named(
        "refreshes_overdue", 12, "refreshes.overdue",
        metric="refreshes_overdue", help="Refreshes that took longer than STALECACHE_REFRESH_DEADLINE.",
        line="refreshes", words="overdue", tile="Refreshes", note="{} given up",
    ),
    _series("refreshes.seconds", "refreshes.seconds"),
    _gauge(
        "scans_running", 9, "scans.running",
        metric="scans_running", help="Walks of refresh(), publish(), warm() and purge(prefix=) under way just now.",
        line="scans", words="running",
    ),
    _gauge(
        "scans_waiting", 10, "scans.waiting",
        metric="scans_waiting", help="Such walks that wait for their turn.", line="scans", words="waiting",
    ),
    _named("scans_found", 18, "scans.found", metric="scan_found", help="What these walks came upon.", line="scans", words="found"),
    _named("scans_done", 19, "scans.done", **_batch("done", "What these walks were done with, by what became of it.")),
    _named("scans_failed", 20, "scans.failed", **_batch("failed")),
    _named("scans_skipped", 21, "scans.skipped", **_batch("skipped")),
    _named(
        "scans_refused", 24, "scans.refused",
        metric="scans_refused", help="Such walks that were not begun, since too many others waited.", line="scans", words="refused",
    ),
    _named("purges", 0, "purges", metric="purges", help="Purges.", line="purges"),
    _named(
        "store_failures", 1, "store_failures",
        metric="store_failures", help="Times that the store could not be read or written.", line="store", words="failures",
        tile="Size", note="{} failures of the store",
    ),
    _named("uncounted", 2, "store_failures"),
    _named(
        "broken_entries", 3, "broken_entries",
        metric="broken_entries", help="Entries that were damaged, and removed.", line="store", words="broken entries",
        tile="Size", note="{} broken",
    ),
    _named("evicted_for_size", 5, "evictions.size", **_eviction("size", "Entries and notes that the sweep removed, by reason.")),
    _named("evicted_inactive", 6, "evictions.inactive", **_eviction("inactive")),
    _named("removed_purged", 7, "evictions.purged", **_eviction("purged")),
    _named("broken_entries", 3, "evictions.broken", **_eviction("broken")),
    _named("removed_notes", 8, "evictions.notes", **_eviction("notes")),
    # Counted, and not shown.
    _named("refreshes", 9),
    _named("origin_failures", 13),
    _named("invalidations", 14),
    _named("broken_values", 15),
    _named("sweep_failures", 16),
    _named("no_stamps", 17),
)  # fmt: skip


def named_cells() -> dict[str, int]:
    """Return the cell of each named count, relative to the first one."""
    return {counter.name: counter.cell for counter in COUNTERS if counter.kept is Kept.NAMED}


def gauge_cells() -> dict[str, int]:
    """Return the cell of each gauge."""
    return {counter.name: counter.cell for counter in COUNTERS if counter.kept is Kept.GAUGE}


def eviction_reasons() -> dict[str, str]:
    """Return the reason for the removal of entries, by the name of its counter."""
    return {counter.name: counter.value for counter in COUNTERS if counter.metric == "evictions"}


def value_at(stats: Mapping[str, Any], key: str) -> float:
    """Return the value at a key such as ``refreshes.done``."""
    value: Any = stats
    for part in key.split("."):
        value = value[part]
    number: float = value
    return number


def lines(stats: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[float, str]]]]:
    """Yield the lines that the shell prints: the name of each, and its numbers with the words that follow them.

    In each line the gauges come last.
    """
    shown: dict[str, list[Counter]] = {name: [] for name in _LINES}
    for counter in sorted(COUNTERS, key=lambda counter: counter.kept is Kept.GAUGE):
        if counter.line:
            shown.setdefault(counter.line, []).append(counter)
    for line, counters in shown.items():
        yield line, [(value_at(stats, counter.key), counter.words) for counter in counters]


#: The order of the lines; a line that is not named here comes last.
_LINES = ("origins", "computing", "waits", "refreshes", "scans", "evictions", "purges", "store")


class Histogram(TypedDict):
    """Durations, in seconds.

    ``buckets`` has the number of durations up to each bound, by the bound as a string, as in Prometheus.
    """

    count: int
    sum: float
    buckets: dict[str, int]


class Refreshed(TypedDict):
    """Refreshes that have ended, and the seconds that they took in total."""

    done: int
    failed: int
    seconds: float


class Computed(TypedDict):
    """Calls of origins that have computed, rather than waited, and the seconds of processors that they took."""

    calls: int
    seconds: float


class Series(TypedDict):
    """The counts of one endpoint, fetch function or host.

    ``reasons`` has the number of requests that were not answered from the store, by the reason; samples of the history have none.
    """

    requests: dict[str, int]
    origin_calls: int
    origin_failures: int
    waits: int
    refreshes: Refreshed
    computed: Computed
    served: Histogram
    origin: Histogram
    reasons: dict[str, int]


class AllRefreshes(Refreshed):
    """All refreshes, including dropped and overdue ones; ``pending`` is the number that wait or run now."""

    handed_over: int
    returned: int
    queued: int
    pending: int
    dropped: int
    overdue: int


class Scans(TypedDict):
    """Entries found by batches; and the number of batches that are under way now, that wait now, and that were refused."""

    running: int
    waiting: int
    found: int
    done: int
    failed: int
    skipped: int
    refused: int


class HostNumbers(TypedDict):
    """One of the hosts that share a server.

    ``state``: ``"connected"``, ``"deaf"`` or ``"unknown"``. ``silence``: seconds since it was heard. ``behind``: the purges that it
    has not applied yet, and ``late`` the seconds since the first of them. The numbers that follow are ``None`` if they are unknown.
    """

    name: str
    here: bool
    state: str
    silence: float | None
    behind: int
    late: float
    entries: int | None
    bytes: int | None
    workers: int | None
    requests: dict[str, int] | None
    origin_calls: int | None


class SharedNumbers(TypedDict):
    """The hosts that share a server.

    ``problem``: why only this host is known; "" if the server has answered. ``last_purge``: seconds since the last purge.
    ``gone``: the number of hosts that were not heard for a day. They are counted, and not listed.
    """

    problem: str
    last_purge: float | None
    gone: int
    hosts: list[HostNumbers]


class RunningRefresh(TypedDict):
    """A refresh that the worker runs. ``key``: the digest of the key; ``title``: its URL or call, if it is stored or warmed."""

    key: str
    title: str
    seconds: float
    pid: int


class WorkerState(TypedDict):
    """The activity of ``flask stalecache worker``.

    ``processes``: its child processes; ``running``: the refreshes that run now; ``waiting``: the number of refreshes that wait;
    ``longest_wait``: the seconds that the oldest of them has waited; ``taken``: refreshes that were run; ``refused``: refreshes
    that could not be run; ``dropped``: refreshes for which there was no room; ``bad``: invalid packets; ``restarts``: child
    processes that were replaced.
    """

    pid: int
    since: float
    processes: int
    running: list[RunningRefresh]
    waiting: int
    longest_wait: float
    taken: int
    refused: int
    dropped: int
    bad: int
    restarts: int


class _Sometimes(TypedDict, total=False):
    """Statistics that exist only with a shared server, or while a worker takes refreshes on this host."""

    shared: SharedNumbers
    worker: WorkerState


class Stats(_Sometimes):
    """The numbers of all processes that share a cache directory or a server, as :meth:`.StaleCache.stats` returns them."""

    requests: dict[str, int]
    calls: dict[str, int]
    reasons: dict[str, int]
    origin_calls: int
    origin_failures: int
    computed: Computed
    waits: int
    lock_timeouts: int
    slow_readers: int
    copies_given_up: int
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
    """The counts of all processes in one interval. A histogram bucket does not include the buckets below it.

    ``at``: the end of the interval, in seconds since the epoch; ``seconds``: its length. Labels without counts are left out.
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
