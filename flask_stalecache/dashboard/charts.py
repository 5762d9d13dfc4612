"""The last hour as lines and rows: what the charts draw, and the table that says the same. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..core.formatting import clock, latency, number
from ..core.rules.status import CacheStatus
from ..stats.quantiles import quantile

#: From what costs nothing to what costs most: the order in which they are stacked.
STATUSES = tuple(status.value for status in reversed(CacheStatus))
#: What is served without asking the origin.
FROM_STORE = ("HIT", "UPDATING", "STALE")
#: Kinds of what is counted apart, and what a group of them is called.
KINDS = {"endpoints": "Endpoints", "functions": "Fetch functions", "hosts": "Third parties"}
#: And what one of them is called.
ONE_OF = {"endpoints": "endpoint", "functions": "fetch function", "hosts": "third party"}
#: Seconds of a row of the table.
ROW = 300

Buckets = Mapping[float, int]


class Line(NamedTuple):
    """What happened to an endpoint, a fetch function or a third party in some seconds.

    :ivar calls: of the origin.
    :ivar failures: of these.
    :ivar served: how many took so many seconds at most until there was something to serve, beyond the bound before.
    :ivar origin: the same of the origin's calls.
    """

    calls: int
    failures: int
    served: Buckets
    origin: Buckets


NOTHING = Line(0, 0, {}, {})


class Moment(NamedTuple):
    """What happened in some seconds.

    :ivar at: when they ended, in seconds since the epoch.
    :ivar seconds: how long they were.
    :ivar requests: visits by status.
    :ivar failures: of all origins.
    :ivar lines: by kind and name.
    :ivar endpoints: all endpoints together.
    """

    at: float
    seconds: float
    requests: Mapping[str, int]
    failures: int
    lines: Mapping[tuple[str, str], Line]
    endpoints: Line


def moment_of(sample: Mapping[str, Any]) -> Moment:
    """Return a sample of the history as it is drawn."""
    lines = {(kind, name): _line_of(each) for kind in KINDS for name, each in sample[kind].items()}
    return Moment(
        at=sample["at"],
        seconds=sample["seconds"],
        requests=sample["requests"],
        failures=sample["origin_failures"],
        lines=lines,
        endpoints=together(line for (kind, _), line in lines.items() if kind == "endpoints"),
    )


def _line_of(series: Mapping[str, Any]) -> Line:
    served, origin = (
        {float(bound): count for bound, count in series[name]["buckets"].items() if count} for name in ("served", "origin")
    )
    return Line(series["origin_calls"], series["origin_failures"], served, origin)


def together(lines: Iterable[Line]) -> Line:
    """Return the sum of lines."""
    calls, failures = 0, 0
    served: dict[float, int] = {}
    origin: dict[float, int] = {}
    for line in lines:
        calls, failures = calls + line.calls, failures + line.failures
        for summed, buckets in ((served, line.served), (origin, line.origin)):
            for bound, count in buckets.items():
                summed[bound] = summed.get(bound, 0) + count
    return Line(calls, failures, served, origin)


def chosen(moment: Moment, series: str) -> Line:
    """Return what happened to what is chosen: ``kind/name``, or "" for all endpoints."""
    kind, _, name = series.partition("/")
    return moment.lines.get((kind, name), NOTHING) if kind else moment.endpoints


def charts(moments: Sequence[Moment], series: str, after: float) -> dict[str, Any]:
    """Return what the charts draw.

    :param series: whose latency.
    :param after: only what happened after this time, in seconds since the epoch.
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
    """Some minutes in numbers, as the table shows them."""

    clock: str
    counts: list[str]
    failures: str
    latencies: list[str]


def rows(moments: Sequence[Moment], series: str) -> list[Row]:
    """Return the table of the last hour, the last minutes first.

    :param series: whose latency.
    """
    grouped: dict[int, list[Moment]] = {}
    for moment in moments:
        grouped.setdefault(int(moment.at // ROW), []).append(moment)
    return [_row(number * ROW, part, series) for number, part in sorted(grouped.items(), reverse=True)]


def _row(begins: int, moments: Sequence[Moment], series: str) -> Row:
    line = together(chosen(moment, series) for moment in moments)
    quantiles = [quantile(buckets, share) for buckets in (line.served, line.origin) for share in (0.5, 0.95)]
    return Row(
        clock=clock(begins, "%H:%M"),
        counts=[number(sum(moment.requests.get(name, 0) for moment in moments)) for name in STATUSES],
        failures=number(sum(moment.failures for moment in moments)),
        latencies=[latency(each) for each in quantiles],
    )
