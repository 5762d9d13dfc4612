"""The command ``stats``: the statistics of all workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import click
from flask.cli import with_appcontext

from ..core.formatting import NONE, clock, latency, number, percent, size
from ..core.model.reasons import BY_CODE
from ..stats import schema
from ..stats.quantiles import buckets_of, quantile
from ..stats.schema import Histogram, Series, Stats
from ..stats.worker_rows import running_rows, worker_sentence
from . import output
from .context import filled_state
from .hosts import host_lines

_KINDS = {"ENDPOINT": "endpoints", "FUNCTION": "functions", "HOST": "hosts"}
_HEAD = ("VISITS", "FROM STORE", "SERVED P50", "P95", "ORIGIN CALLS", "FAILED", "ORIGIN P50", "P95")
_WHY_HEAD = ("COUNT", "NOT FROM THE STORE, SINCE", "OF")
#: The largest number of lines about reasons.
_WHY_LINES = 20
#: The statuses of requests that did not wait for a call of the origin.
_FROM_STORE = ("HIT", "STALE", "UPDATING")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON: what cache.stats() returns.")
@with_appcontext
def stats(as_json: bool) -> None:
    """Show the statistics of all workers that share the store, living and dead; and of the hosts that share a server."""
    numbers = filled_state().engine.runtime.stats()
    if as_json:
        output.echo_json(numbers)
        return
    for line in _lines(numbers):
        output.echo(line)


def _lines(numbers: Stats) -> Iterator[str]:
    for name, value in _totals(numbers):
        yield f"{name:<11} {value}"
    if "worker" in numbers:
        yield f"{'worker':<11} {worker_sentence(numbers['worker'])}"
        if running := running_rows(numbers["worker"]):
            yield ""
            yield from output.columns([("RUNNING", "FOR", "PROCESS"), *running])
    if "shared" in numbers:
        yield ""
        yield from host_lines(numbers["shared"])
    for title, kind in _KINDS.items():
        series: Mapping[str, Series] = numbers[kind]  # type: ignore[literal-required]
        if series:
            yield ""
            rows = [(title, *_HEAD), *(_row(name, each) for name, each in series.items())]
            yield from output.columns(rows, right=frozenset(range(1, len(_HEAD) + 1)))
    yield from _why(numbers)


def _why(numbers: Stats) -> Iterator[str]:
    """Yield a table of the most frequent reasons why requests and calls were not answered from the store."""
    found = [
        (count, BY_CODE[code].general, name or NONE)
        for kind in _KINDS.values()
        for name, series in numbers[kind].items()  # type: ignore[literal-required]
        for code, count in series["reasons"].items()
    ]
    if not found:
        return
    found.sort(key=lambda item: (-item[0], *item[1:]))
    yield ""
    rows = [_WHY_HEAD, *((number(count), reason, name) for count, reason, name in found[:_WHY_LINES])]
    yield from output.columns(rows, right=frozenset({0}))
    if len(found) > _WHY_LINES:
        yield f"and {number(len(found) - _WHY_LINES)} more, which --json has"


def _totals(numbers: Stats) -> Iterator[tuple[str, str]]:
    limit = "no limit" if numbers["max_size"] is None else f"{size(numbers['max_size'])} at most"
    yield "since", f"{clock(numbers['since'], '%Y-%m-%d %H:%M')} UTC; {number(numbers['workers'])} workers now"
    yield "stored", f"{number(numbers['entries'])} entries, {size(numbers['bytes'])}, {limit}"
    yield "requests", _by_status(numbers["requests"])
    yield "calls", _by_status(numbers["calls"])
    for line, counts in schema.lines(numbers):
        yield line, ", ".join(f"{number(count)} {words}".rstrip() for count, words in counts)


def _by_status(requests: Mapping[str, int]) -> str:
    total = sum(requests.values())
    told = [f"{status} {number(count)} ({percent(count, total)})" for status, count in requests.items() if count]
    return f"{number(total)}" + (f": {', '.join(told)}" if told else "")


def _row(name: str, series: Series) -> tuple[str, ...]:
    visits = sum(series["requests"].values())
    return (
        name or NONE,
        number(visits),
        percent(sum(series["requests"][status] for status in _FROM_STORE), visits),
        *_quantiles(series["served"]),
        number(series["origin_calls"]),
        number(series["origin_failures"]),
        *_quantiles(series["origin"]),
    )


def _quantiles(histogram: Histogram) -> tuple[str, str]:
    buckets = buckets_of(histogram["buckets"])
    return latency(quantile(buckets, 0.5)), latency(quantile(buckets, 0.95))
