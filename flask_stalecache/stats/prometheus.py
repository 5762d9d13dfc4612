"""Converts the statistics to Prometheus metrics: those in the table of counters, and those with a form of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric

from . import schema
from .schema import Counter, Histogram, Kept, Series, Stats, value_at

#: Kinds of labels with counters of their own.
_KINDS = ("endpoint", "function", "host")
_OF_ONE = ("kind", "name")


def families(stats: Stats) -> Iterator[Metric]:
    """Yield the metrics of the statistics: always all of them, whatever was counted."""
    yield _by_status("requests", "Requests for cached views and at the gateway, by how they were answered.", "endpoint", stats)
    yield _by_status("calls", "Calls of fetch functions, by how they were answered.", "function", stats)
    yield _by_status("host_requests", "Requests of sessions to third parties, by how they were answered.", "host", stats)
    yield _histogram("served", "Seconds until there was something to serve.", stats, lambda series: series["served"])
    yield _histogram("origin", "Seconds that calls of origins took.", stats, lambda series: series["origin"])
    yield _refresh_duration(stats)
    yield _uncached(stats)
    yield from _counters(stats)
    yield _gauge("entries", "Entries in the store.", stats["entries"])
    yield _gauge("size_bytes", "Bytes that entries take in the store.", stats["bytes"])
    yield _max_size(stats)
    yield _gauge("workers", "Processes that count just now.", stats["workers"])


def _counters(stats: Stats) -> Iterator[Metric]:
    """Yield the metrics of the table of counters; rows of the same metric are its labels."""
    rows: dict[str, list[Counter]] = {}
    for counter in schema.COUNTERS:
        if counter.metric:
            rows.setdefault(counter.metric, []).append(counter)
    for name, counters in rows.items():
        first = counters[0]
        if first.by_series:
            yield _of_each(name, first, stats)
        elif first.label:
            yield _labelled(name, first, {counter.value: value_at(stats, counter.key) for counter in counters})
        else:
            make = _gauge if first.kept is Kept.GAUGE else _counter
            yield make(name, first.help, value_at(stats, first.key))


def _refresh_duration(stats: Stats) -> Metric:
    took = SummaryMetricFamily("stalecache_refresh_duration_seconds", "Seconds that refreshes took.", labels=_OF_ONE)
    for labels, series in _each(stats):
        ran = series["refreshes"]
        took.add_metric(labels, ran["done"] + ran["failed"], ran["seconds"])
    return took


def _uncached(stats: Stats) -> Metric:
    about = "Requests and calls that were not answered from the store, by reason."
    family = CounterMetricFamily("stalecache_uncached", about, labels=(*_OF_ONE, "reason"))
    for labels, series in _each(stats):
        for reason, count in series["reasons"].items():
            family.add_metric((*labels, reason), count)
    return family


def _max_size(stats: Stats) -> Metric:
    # Without a limit there is no sample; a panel that divides by it is empty then.
    limit = GaugeMetricFamily("stalecache_max_size_bytes", "Bytes that entries may take: STALECACHE_MAX_SIZE.")
    if stats["max_size"] is not None:
        limit.add_metric((), stats["max_size"])
    return limit


def _counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(f"stalecache_{name}", about, value)


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(f"stalecache_{name}", about, value)


def _labelled(name: str, first: Counter, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(f"stalecache_{name}", first.help, labels=(first.label,))
    for value, count in values.items():
        family.add_metric((value,), count)
    return family


def _each(stats: Stats) -> Iterator[tuple[tuple[str, str], Series]]:
    """Yield each endpoint, function and host, with its labels."""
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


def _of_each(name: str, counter: Counter, stats: Stats) -> Metric:
    family = CounterMetricFamily(f"stalecache_{name}", counter.help, labels=_OF_ONE)
    for labels, series in _each(stats):
        family.add_metric(labels, value_at(series, counter.name))
    return family


def _histogram(name: str, about: str, stats: Stats, measured: Callable[[Series], Histogram]) -> Metric:
    family = HistogramMetricFamily(f"stalecache_{name}_duration_seconds", about, labels=_OF_ONE)
    for labels, series in _each(stats):
        histogram = measured(series)
        family.add_metric(labels, _sorted(histogram["buckets"]), histogram["sum"])
    return family


def _sorted(buckets: Mapping[str, int]) -> list[tuple[str, float]]:
    """Sort buckets by their bounds: statistics that went through JSON may have them in another order."""
    return sorted(buckets.items(), key=lambda item: float(item[0]))
