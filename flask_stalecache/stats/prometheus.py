"""The numbers as the metrics of Prometheus: what they are called there, and their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric

from .schema import Histogram, Series, Stats

#: What is counted apart, and what of it there is in the numbers.
_KINDS = ("endpoint", "function", "host")
_OF_ONE = ("kind", "name")


def families(stats: Stats) -> Iterator[Metric]:
    """Yield the metrics of the numbers, all of them whatever has been counted."""
    yield _by_status("requests", "Requests for cached views and at the gateway, by how they were answered.", "endpoint", stats)
    yield _by_status("calls", "Calls of fetch functions, by how they were answered.", "function", stats)
    yield _by_status("host_requests", "Requests of sessions to third parties, by how they were answered.", "host", stats)
    yield _of_each("origin_calls", "Calls of origins, refreshes included.", stats, lambda series: series["origin_calls"])
    yield _of_each("origin_failures", "Calls of origins that failed.", stats, lambda series: series["origin_failures"])
    yield _of_each("waits", "Requests that waited for another's call of the origin.", stats, lambda series: series["waits"])
    yield _histogram("served", "Seconds until there was something to serve.", stats, lambda series: series["served"])
    yield _histogram("origin", "Seconds that calls of origins took.", stats, lambda series: series["origin"])
    yield from _refreshes(stats)
    yield from _scans(stats)
    yield from _store(stats)
    yield _counter("lock_timeouts", "Waits for another's call of the origin that took too long.", stats["lock_timeouts"])
    yield _counter("purges", "Purges.", stats["purges"])
    yield _gauge("workers", "Processes that count just now.", stats["workers"])


def _refreshes(stats: Stats) -> Iterator[Metric]:
    refreshes = stats["refreshes"]
    ends = {"done": refreshes["done"], "failed": refreshes["failed"], "dropped": refreshes["dropped"]}
    yield _labelled("refreshes", "Refreshes, by what became of them.", "outcome", ends)
    # No end: it may still be done, or fail.
    yield _counter("refreshes_overdue", "Refreshes that took longer than STALECACHE_REFRESH_DEADLINE.", refreshes["overdue"])
    yield _counter("refreshes_queued", "Refreshes that were handed over.", refreshes["queued"])
    yield _gauge("refreshes_pending", "Refreshes that wait or run just now.", refreshes["pending"])
    took = SummaryMetricFamily("stalecache_refresh_duration_seconds", "Seconds that refreshes took.", labels=_OF_ONE)
    for labels, series in _each(stats):
        ran = series["refreshes"]
        took.add_metric(labels, ran["done"] + ran["failed"], ran["seconds"])
    yield took


def _scans(stats: Stats) -> Iterator[Metric]:
    scans = stats["scans"]
    ends = {"done": scans["done"], "failed": scans["failed"], "skipped": scans["skipped"]}
    yield _gauge("scans_running", "Walks of refresh(), publish(), warm() and purge(prefix=) under way just now.", scans["running"])
    yield _counter("scan_found", "What these walks came upon.", scans["found"])
    yield _labelled("scan_results", "What these walks were done with, by what became of it.", "outcome", ends)


def _store(stats: Stats) -> Iterator[Metric]:
    yield _labelled("evictions", "Entries and notes that the sweep removed, by reason.", "reason", stats["evictions"])
    yield _counter("store_failures", "Times that the store could not be read or written.", stats["store_failures"])
    yield _counter("broken_entries", "Entries that were damaged, and removed.", stats["broken_entries"])
    yield _gauge("entries", "Entries in the store.", stats["entries"])
    yield _gauge("size_bytes", "Bytes that entries take in the store.", stats["bytes"])
    # Without a limit there is no number; a dashboard that divides by it shows nothing then.
    limit = GaugeMetricFamily("stalecache_max_size_bytes", "Bytes that entries may take: STALECACHE_MAX_SIZE.")
    if stats["max_size"] is not None:
        limit.add_metric((), stats["max_size"])
    yield limit


def _counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(f"stalecache_{name}", about, value)


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(f"stalecache_{name}", about, value)


def _labelled(name: str, about: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"stalecache_{name}", about, labels=(label,))
    for value, count in values.items():
        family.add_metric((value,), count)
    return family


def _each(stats: Stats) -> Iterator[tuple[tuple[str, str], Series]]:
    """Yield what is counted apart, each with its labels."""
    for kind in _KINDS:
        yield from (((kind, name), series) for name, series in _of_kind(stats, kind).items())


def _of_kind(stats: Stats, kind: str) -> Mapping[str, Series]:
    return {"endpoint": stats["endpoints"], "function": stats["functions"], "host": stats["hosts"]}[kind]


def _by_status(name: str, about: str, kind: str, stats: Stats) -> Metric:
    family = CounterMetricFamily(f"stalecache_{name}", about, labels=(kind, "status"))
    for label, series in _of_kind(stats, kind).items():
        for status, count in series["requests"].items():
            family.add_metric((label, status), count)
    return family


def _of_each(name: str, about: str, stats: Stats, count: Callable[[Series], int]) -> Metric:
    family = CounterMetricFamily(f"stalecache_{name}", about, labels=_OF_ONE)
    for labels, series in _each(stats):
        family.add_metric(labels, count(series))
    return family


def _histogram(name: str, about: str, stats: Stats, measured: Callable[[Series], Histogram]) -> Metric:
    family = HistogramMetricFamily(f"stalecache_{name}_duration_seconds", about, labels=_OF_ONE)
    for labels, series in _each(stats):
        histogram = measured(series)
        family.add_metric(labels, _sorted(histogram["buckets"]), histogram["sum"])
    return family


def _sorted(buckets: Mapping[str, int]) -> list[tuple[str, float]]:
    """Return buckets in the order of their bounds, which JSON or a hand may have changed."""
    return sorted(buckets.items(), key=lambda item: float(item[0]))
