"""The page's statistics, formatted. Pure.

The notes on the tiles are made from the table of counters (``stats/schema``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..core.formatting import clock, latency, number, percent, rate, size
from ..core.model.reasons import BY_CODE, Reason
from ..core.rules.advice import FrontEnd, fix_of_reason
from ..stats import schema
from ..stats.host_rows import HostRow, host_rows, host_sentences
from ..stats.quantiles import buckets_of, quantile
from ..stats.schema import value_at
from ..stats.worker_rows import RunningRow, running_rows, worker_sentence
from .charts import FROM_STORE, KINDS, ONE_OF, STATUSES, Moment, Row, chosen, rows, sum_counts
from .health import FULL, Health, Level

#: Rows in the table of the busiest labels.
BUSIEST = 12
#: Seconds over which the current rate is taken.
NOW = 60.0


class Share(NamedTuple):
    """A part of the bar of statuses: position and width in percent, and the number of requests."""

    status: str
    left: float
    width: float
    visits: str


class Tile(NamedTuple):
    """One number.

    :ivar unit: the unit next to the number.
    :ivar note: the text below it.
    :ivar part: percentage of its limit; ``None`` without a limit.
    :ivar level: ``notice`` or ``bad``; "" for neither.
    """

    title: str
    figure: str
    unit: str = ""
    note: str = ""
    part: float | None = None
    level: str = ""


class Busy(NamedTuple):
    """The counts of an endpoint, a fetch function or a third party, formatted."""

    kind: str
    name: str
    requests: str
    from_store: str
    calls: str
    failures: str
    computed: str
    served95: str
    origin50: str
    origin95: str


class Uncached(NamedTuple):
    """A reason why requests for one name were not answered from the store.

    :ivar share: its percentage of all requests and calls that were not answered from the store.
    :ivar advice: what to do about it; "" if there is nothing to do.
    """

    kind: str
    name: str
    requests: str
    share: str
    reason: str
    advice: str


class Choice(NamedTuple):
    """A series whose latency can be shown."""

    value: str
    name: str


class Group(NamedTuple):
    """Choices of one kind."""

    label: str
    choices: list[Choice]


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything on the page except entries."""

    clock: str
    since: str
    health: Health
    from_store: str
    shares: list[Share]
    tiles: list[Tile]
    origins: list[Busy]
    hosts: list[HostRow]
    about_hosts: str
    worker: str
    running: list[RunningRow]
    uncached: list[Uncached]
    choices: list[Group]
    series: str
    series_label: str
    rows: list[Row]


def overview(stats: Mapping[str, Any], moments: Sequence[Moment], how: Health, now: float, series: str) -> Overview:
    """Return the page's statistics, formatted.

    :param stats: the statistics of all workers of this host, and what is known of other hosts.
    :param moments: the last hour.
    :param how: the health of the cache.
    :param now: seconds since the epoch.
    :param series: the series whose latency is shown: ``kind/name``, or "" for all endpoints.
    """
    requests = {name: sum(moment.requests.get(name, 0) for moment in moments) for name in STATUSES}
    if not any(requests.values()):
        requests = dict(stats["requests"])
    choices = [Group(KINDS[kind], [Choice(f"{kind}/{name}", name or "The app") for name in sorted(stats[kind])]) for kind in KINDS]
    known = {choice.value: choice.name for group in choices for choice in group.choices}
    series = series if series in known else ""
    return Overview(
        clock=clock(now),
        since=_since(stats),
        health=how,
        from_store=percent(sum(requests[name] for name in FROM_STORE), sum(requests.values())),
        shares=_shares(requests),
        tiles=_tiles(stats, moments, how, now),
        origins=_busiest(stats),
        hosts=host_rows(stats["shared"], now) if "shared" in stats else [],
        about_hosts=_sentence(host_sentences(stats["shared"])) if "shared" in stats else "",
        worker=worker_sentence(stats["worker"]) if "worker" in stats else "",
        running=running_rows(stats["worker"]) if "worker" in stats else [],
        uncached=_uncached(stats),
        choices=[group for group in choices if group.choices],
        series=series,
        series_label=known.get(series, "all endpoints"),
        rows=rows(moments, series),
    )


def _sentence(parts: Iterable[str]) -> str:
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}"


def _shares(requests: Mapping[str, int]) -> list[Share]:
    total, left, shares = sum(requests.values()), 0.0, []
    for name in STATUSES:
        width = 100 * requests[name] / total if total else 0.0
        shares.append(Share(name, round(left, 2), round(width, 2), number(requests[name])))
        left += width
    return shares


def _tiles(stats: Mapping[str, Any], moments: Sequence[Moment], how: Health, now: float) -> list[Tile]:
    last = [moment for moment in moments if moment.at > now - NOW]
    line = sum_counts(chosen(moment, "") for moment in moments)
    count = sum(sum(moment.requests.values()) for moment in last)
    of_hour = sum(sum(moment.requests.values()) for moment in moments)
    failures = sum(moment.failures for moment in moments)
    served, origin = quantile(line.served, 0.95), quantile(line.origin, 0.95)
    return [
        Tile("Requests", rate(count, sum(moment.seconds for moment in last)), "/s", f"{number(of_hour)} in the last hour"),
        Tile("Served p95", latency(served), "", f"origins: {latency(origin)}"),
        Tile(
            "Failures of origins",
            number(failures),
            "",
            "in the last hour",
            None,
            "bad" if how.level is Level.BAD and failures else "",
        ),
        _refreshes(stats),
        _size(stats),
        _evictions(stats),
        Tile("Workers", number(stats["workers"]), "", f"counting since {_since(stats)}"),
        _purges(stats),
    ]


def _since(stats: Mapping[str, Any]) -> str:
    return clock(stats["since"], "%-d %b %H:%M UTC")


def _purges(stats: Mapping[str, Any]) -> Tile:
    scans = stats["scans"]
    note = f"{number(scans['done'])} of {number(scans['found'])} found by scans are done"
    notes = [note] if scans["found"] else []
    notes += [
        f"{number(scans[end])} {words}" for end, words in (("waiting", "wait for their turn"), ("refused", "refused")) if scans[end]
    ]
    if scans["running"]:
        return Tile("Scans", number(scans["running"]), "running", ", ".join(notes) or note)
    return Tile("Purges", number(stats["purges"]), "", ", ".join(notes) or "no scan is running")


def _refreshes(stats: Mapping[str, Any]) -> Tile:
    refreshes = stats["refreshes"]
    mean = f", {latency(refreshes['seconds'] / refreshes['done'])} each" if refreshes["done"] else ""
    return Tile("Refreshes", number(refreshes["pending"]), "waiting", ", ".join(_notes(stats, "Refreshes")) + mean)


def _size(stats: Mapping[str, Any]) -> Tile:
    used, limit = stats["bytes"], stats["max_size"]
    note = ", ".join([f"{number(stats['entries'])} entries", *_notes(stats, "Size")])
    if limit is None:
        return Tile("Size", size(used), "no limit", note)
    level = "notice" if used > FULL * limit else ""
    return Tile("Size", size(used), f"of {size(limit)}", note, round(min(100.0, 100 * used / limit), 1), level)


def _evictions(stats: Mapping[str, Any]) -> Tile:
    note = ", ".join(_notes(stats, "Evictions")) or "none so far"
    return Tile("Evictions", number(sum(stats["evictions"].values())), "", note)


def _notes(stats: Mapping[str, Any], tile: str) -> Iterator[str]:
    """Yield the parts of a tile's note that the table of counters has."""
    for counter in schema.COUNTERS:
        if counter.tile == tile and ((count := value_at(stats, counter.key)) or counter.always):
            yield counter.note.format(number(count))


def _busiest(stats: Mapping[str, Any]) -> list[Busy]:
    found = [(sum(each["requests"].values()), kind, name, each) for kind in KINDS for name, each in stats[kind].items()]
    found.sort(key=lambda item: (-item[0], item[1], item[2]))
    return [_busy(count, kind, name, each) for count, kind, name, each in found[:BUSIEST]]


def _uncached(stats: Mapping[str, Any]) -> list[Uncached]:
    found = [
        (count, kind, name, code) for kind in KINDS for name, each in stats[kind].items() for code, count in each["reasons"].items()
    ]
    found.sort(key=lambda item: (-item[0], *item[1:]))
    total = sum(count for count, *_ in found)
    return [
        Uncached(
            ONE_OF[kind], name or "the app", number(count), percent(count, total), BY_CODE[code].general, _advice(BY_CODE[code])
        )
        for count, kind, name, code in found[:BUSIEST]
    ]


def _advice(reason: Reason) -> str:
    """Return what to do about a reason. An endpoint's requests may come by its view or by the gateway."""
    return fix_of_reason(reason, FrontEnd.VIEW) or fix_of_reason(reason, FrontEnd.RULES)


def computed_share(each: Mapping[str, Any]) -> str:
    """Return the mean processor time of the calls that computed, formatted; "" if none did."""
    calls, seconds = each["computed"]["calls"], each["computed"]["seconds"]
    return latency(seconds / calls) if calls else ""


def _busy(count: int, kind: str, name: str, each: Mapping[str, Any]) -> Busy:
    served, origin = (buckets_of(each[name]["buckets"]) for name in ("served", "origin"))
    return Busy(
        kind=ONE_OF[kind],
        name=name or "the app",
        requests=number(count),
        from_store=percent(sum(each["requests"][status] for status in FROM_STORE), count),
        calls=number(each["origin_calls"]),
        failures=number(each["origin_failures"]),
        computed=computed_share(each),
        served95=latency(quantile(served, 0.95)),
        origin50=latency(quantile(origin, 0.5)),
        origin95=latency(quantile(origin, 0.95)),
    )
