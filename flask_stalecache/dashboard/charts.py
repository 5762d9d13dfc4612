"""The last hour: the points of the charts, and the rows of the table with the same data. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..core.formatting import clock, latency, number
from ..core.rules.status import CacheStatus
from ..stats.quantiles import quantile

#: In the order in which the chart stacks them: from the cheapest to the most expensive.
STATUSES = tuple(status.value for status in reversed(CacheStatus))
#: Statuses that are served without waiting for the origin.
FROM_STORE = ("HIT", "UPDATING", "STALE")
#: Kinds of labels that are counted separately, with the title of each group.
KINDS = {"endpoints": "Endpoints", "functions": "Fetch functions", "hosts": "Third parties"}
#: The same kinds, with the word for one label.
ONE_OF = {"endpoints": "endpoint", "functions": "fetch function", "hosts": "third party"}
#: Seconds in one row of the table.
ROW = 300

Buckets = Mapping[float, int]


class IntervalCounts(NamedTuple):
    """The counts of an endpoint, a fetch function or a third party in one interval.

    :ivar calls: calls of the origin.
    :ivar failures: failed calls.
    :ivar served: histogram of the seconds until there was something to serve: count by upper bound, not cumulative.
    :ivar origin: likewise for the seconds that calls of the origin took.
    """

    calls: int
    failures: int
    served: Buckets
    origin: Buckets


NOTHING = IntervalCounts(0, 0, {}, {})


class Moment(NamedTuple):
    """All counts of one interval.

    :ivar at: its end, in seconds since the epoch.
    :ivar seconds: its length.
    :ivar requests: requests by status.
    :ivar failures: failed calls of all origins.
    :ivar lines: counts by kind and name.
    :ivar endpoints: the sum of all endpoints.
    """

    at: float
    seconds: float
    requests: Mapping[str, int]
    failures: int
    lines: Mapping[tuple[str, str], IntervalCounts]
    endpoints: IntervalCounts


def moment_of(sample: Mapping[str, Any]) -> Moment:
    """Return a sample of the history as an interval."""
    lines = {(kind, name): _line_of(each) for kind in KINDS for name, each in sample[kind].items()}
    return Moment(
        at=sample["at"],
        seconds=sample["seconds"],
        requests=sample["requests"],
        failures=sample["origin_failures"],
        lines=lines,
        endpoints=sum_counts(line for (kind, _), line in lines.items() if kind == "endpoints"),
    )


def _line_of(series: Mapping[str, Any]) -> IntervalCounts:
    served, origin = (
        {float(bound): count for bound, count in series[name]["buckets"].items() if count} for name in ("served", "origin")
    )
    return IntervalCounts(series["origin_calls"], series["origin_failures"], served, origin)


def sum_counts(lines: Iterable[IntervalCounts]) -> IntervalCounts:
    """Return the sum of counts."""
    calls, failures = 0, 0
    served: dict[float, int] = {}
    origin: dict[float, int] = {}
    for line in lines:
        calls, failures = calls + line.calls, failures + line.failures
        for summed, buckets in ((served, line.served), (origin, line.origin)):
            for bound, count in buckets.items():
                summed[bound] = summed.get(bound, 0) + count
    return IntervalCounts(calls, failures, served, origin)


def chosen(moment: Moment, series: str) -> IntervalCounts:
    """Return the counts of a series: ``kind/name``, or "" for all endpoints."""
    kind, _, name = series.partition("/")
    return moment.lines.get((kind, name), NOTHING) if kind else moment.endpoints


def charts(moments: Sequence[Moment], series: str, after: float) -> dict[str, Any]:
    """Return the points of the charts.

    :param series: the series whose latency is drawn.
    :param after: only points after this time, in seconds since the epoch.
    """
    new = [moment for moment in moments if moment.at > after]
    lines = [chosen(moment, series) for moment in new]
    return {
        "at": [round(moment.at, 3) for moment in new],
        "rates": {name: [_rate(moment.requests.get(name, 0), moment.seconds) for moment in new] for name in STATUSES},
        "latency": {
            "served50": [quantile(line.served, 0.5) for line in lines],
            "served95": [quantile(line.served, 0.95) for line in lines],
            "origin50": [quantile(line.origin, 0.5) for line in lines],
            "origin95": [quantile(line.origin, 0.95) for line in lines],
        },
    }


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 3) if seconds > 0 else 0.0


class Row(NamedTuple):
    """One row of the table, formatted."""

    clock: str
    counts: list[str]
    failures: str
    latencies: list[str]


def rows(moments: Sequence[Moment], series: str) -> list[Row]:
    """Return the table of the last hour, the latest row first.

    :param series: the series whose latency is shown.
    """
    grouped: dict[int, list[Moment]] = {}
    for moment in moments:
        grouped.setdefault(int(moment.at // ROW), []).append(moment)
    return [_row(number * ROW, part, series) for number, part in sorted(grouped.items(), reverse=True)]


def _row(begins: int, moments: Sequence[Moment], series: str) -> Row:
    line = sum_counts(chosen(moment, series) for moment in moments)
    quantiles = [quantile(buckets, share) for buckets in (line.served, line.origin) for share in (0.5, 0.95)]
    return Row(
        clock=clock(begins, "%H:%M"),
        counts=[number(sum(moment.requests.get(name, 0) for moment in moments)) for name in STATUSES],
        failures=number(sum(moment.failures for moment in moments)),
        latencies=[latency(each) for each in quantiles],
    )
