"""The command ``list``: one line for each entry."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import click
from flask.cli import with_appcontext

from ..core.formatting import size, spell
from ..core.rules.explain import EntryState
from ..stores.formats.summary import Summary, summary_of
from . import output
from .context import app_terms, filled, this_state
from .selectors import filtering, filters_of

FAILING = "failing"
_SORTS: dict[str, Callable[[Summary], Any]] = {
    "title": lambda summary: summary.title,
    "age": lambda summary: summary.age,
    "size": lambda summary: summary.size,
    "used": lambda summary: summary.used,
    "state": lambda summary: list(EntryState).index(summary.state),
}
_HEAD = ("STATE", "AGE", "LEFT", "USED", "SIZE", "STATUS", "WHAT")
#: The columns of numbers.
_RIGHT = frozenset({1, 2, 3, 4, 5})


@click.command("list")
@filtering
@click.option(
    "--state", type=click.Choice([*map(str, EntryState), FAILING]), help="Only entries in this window, or with a failing origin."
)
@click.option("--sort", type=click.Choice(list(_SORTS)), help="Order. Default: none.")
@click.option("--reverse", is_flag=True, help="The largest first.")
@click.option("--limit", type=click.IntRange(min=1), help="Print this many at most.")
@click.option("--json", "as_json", is_flag=True, help="As a JSON array.")
@with_appcontext
def list_entries(state: str | None, sort: str | None, reverse: bool, limit: int | None, as_json: bool, **selection: Any) -> None:
    """List entries, one line each."""
    here = this_state()
    filters = filters_of(here, selection)
    filled(here)
    now, terms = time.time(), app_terms(here)

    def found() -> Iterator[Summary]:
        for stored in here.engine.store.walk():
            if all(selector.matches(stored.entry) for selector in filters):
                summary = summary_of(stored, now, terms)
                if _is_in(state, summary):
                    yield summary

    chosen = _ordered(found(), sort, reverse, limit)
    count = output.echo_json_array(summary.to_json() for summary in chosen) if as_json else _echo_lines(chosen)
    if not count:
        output.echo("nothing stored matches", err=True)
        raise SystemExit(1)


def _is_in(state: str | None, summary: Summary) -> bool:
    return state is None or (summary.failing if state == FAILING else summary.state.value == state)


def _ordered(found: Iterator[Summary], sort: str | None, reverse: bool, limit: int | None) -> Iterable[Summary]:
    if sort is None:
        return islice(found, limit)
    if limit is None:
        return sorted(found, key=_SORTS[sort], reverse=reverse)
    # Keeps only `limit` entries in memory, even if a million match.
    return heapq.nlargest(limit, found, _SORTS[sort]) if reverse else heapq.nsmallest(limit, found, _SORTS[sort])


def _echo_lines(summaries: Iterable[Summary]) -> int:
    """Print a table page by page, so that a long one begins at once, and return its number of entries."""
    rest, count = iter(summaries), 0
    while page := list(islice(rest, _PAGE)):
        rows = [*([] if count else [_HEAD]), *map(_row, page)]
        for line in output.columns(rows, right=_RIGHT):
            output.echo(line)
        count += len(page)
    return count


_PAGE = 1000


def _row(summary: Summary) -> tuple[str, ...]:
    state = f"{summary.state}, {FAILING}" if summary.failing else str(summary.state)
    return (
        state,
        spell(summary.age),
        spell(summary.fresh_for),
        spell(summary.used),
        size(summary.size),
        str(summary.status),
        summary.title,
    )
