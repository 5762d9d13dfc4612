"""The commands that change many entries: ``purge``, ``refresh``, ``publish`` and ``warm``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from flask.cli import with_appcontext

from ..app_state import AppState
from ..batches.batch import Batch, Outcome
from ..batches.purged import Purged
from ..batches.selector import Selection
from ..batches.workers import CONCURRENCY, MAX_CONCURRENCY
from ..errors import ConfigError
from ..stores.base import Acknowledged, ManyHostsStore
from . import output
from .context import filled, shared, this_state
from .selectors import selecting

PURGE = "a purge"

concurrent = click.option(
    "--concurrency",
    type=click.IntRange(1, MAX_CONCURRENCY),
    default=CONCURRENCY,
    show_default=True,
    help="How many at the same time.",
)


@click.command()
@selecting
@click.option("--soft", is_flag=True, help="Only end the freshness: entries are served stale, and refreshed.")
@with_appcontext
def purge(soft: bool, **selection: Any) -> None:
    """Purge entries: every worker sees it at its next request.

    URL is a path with its query (on all hosts), or a full URL.
    """
    here = this_state()
    chosen = _matching(here, Selection(**selection), PURGE)
    batch = here.bulk.purge(chosen, soft=soft)
    if isinstance(batch, Purged):
        _echo_purged("softly purged" if soft else "purged", batch.acknowledged)
    else:
        _follow(batch)


@click.command()
@selecting
@concurrent
@with_appcontext
def refresh(concurrency: int, **selection: Any) -> None:
    """Refresh entries now, fresh or not, and print the result of each."""
    here = _in_this_process(this_state())
    _follow(here.bulk.refresh(_matching(here, Selection(**selection), "a refresh"), concurrency))


@click.command()
@selecting
@concurrent
@with_appcontext
def publish(concurrency: int, **selection: Any) -> None:
    """Purge softly and refresh: for a hook that runs when something was published."""
    here = _in_this_process(this_state())
    _follow(here.bulk.publish(_matching(here, Selection(**selection), "a publish"), concurrency))


def _in_this_process(state: AppState) -> AppState:
    """Let this process make pages itself, even if there is a worker: the user of the command sees the log of this process."""
    state.engine.runtime.delegation.runner = None
    return state


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@concurrent
@click.option("--force", is_flag=True, help="Refresh fresh entries too.")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A request field to send; may be repeated.")
@with_appcontext
def warm(sources: tuple[str, ...], concurrency: int, force: bool, headers: tuple[str, ...]) -> None:
    """Fill the cache before visitors come.

    SOURCE is a path or URL of the app; a file with one path or URL on each line; - for lines from standard input; or, alone, a
    sitemap: a file or a URL of the app that ends in .xml or .xml.gz. A SOURCE that exists as a file is read as one, even if it
    begins with a slash. Fresh pages are skipped, so an interrupted run continues where it stopped.
    """
    here = _in_this_process(shared(this_state()))
    urls = sources[0] if len(sources) == 1 and _is_sitemap(sources[0]) else [url for source in sources for url in _urls(source)]
    _follow(here.bulk.warm(urls, concurrency, force, parse_fields(headers)))


def _matching(here: AppState, selection: Selection, what: str) -> Selection:
    """Return the selection if an entry matches it; else end the command, before anything changes."""
    selector, store = here.bulk.selector(selection, what), filled(here).engine.store
    if any(selector.matches(stored.entry) for stored in store.walk()):
        return selection
    if what == PURGE and isinstance(store, ManyHostsStore) and store.is_alone:
        # Other hosts may have matching entries.
        return selection
    output.echo("nothing stored matches", err=True)
    raise SystemExit(output.NOTHING)


def _is_sitemap(source: str) -> bool:
    return source.endswith((".xml", ".xml.gz"))


def _urls(source: str) -> Iterable[str]:
    if source == "-":
        return _lines(sys.stdin)
    is_file = Path(source).is_file()
    if is_file and _is_sitemap(source):
        raise ConfigError(f"{source} is a sitemap: warm it alone")
    if not is_file and source.startswith(("/", "http://", "https://")):
        return [source]
    try:
        with open(source, encoding="utf-8") as file:
            return _lines(file)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source} can't be read: {error}; give a path that begins with '/', a URL, a file, or -") from error


def _lines(file: Iterable[str]) -> list[str]:
    return [line for line in map(str.strip, file) if line and not line.startswith("#")]


def parse_fields(given: Iterable[str]) -> dict[str, str]:
    """Return request fields that are given as ``NAME: VALUE``.

    :raises ConfigError: for one without a colon.
    """
    fields = {}
    for field in given:
        name, colon, value = field.partition(":")
        if not colon:
            raise ConfigError(f"--header {field!r}: give a name and a value, such as 'Accept-Language: de'")
        fields[name.strip()] = value.strip()
    return fields


# -- progress --------------------------------------------------------------------------------------------------------


def _follow(batch: Batch) -> None:
    """Print the outcome of each entry until the batch has ended, and exit with the code for all of them."""
    try:
        if sys.stdout.isatty():
            _with_bar(batch)
        else:
            for outcome in batch:
                output.echo(_line(outcome))
    except KeyboardInterrupt:
        batch.cancel()
        # Running jobs may finish, as when a worker stops.
        batch.wait(this_state().settings.shutdown_wait)
        output.echo(f"interrupted: {_summary(batch)}; what is done is not done again", err=True)
        raise SystemExit(output.NOTHING) from None
    output.echo(_summary(batch))
    if batch.acknowledged is not None and not batch.error and not batch.failed:
        _echo_purged("purged", batch.acknowledged)
    if batch.error:
        output.echo(f"it ended before its end: {batch.error}", err=True)
    if batch.error or batch.failed or not batch.found:
        raise SystemExit(output.NOTHING)
    if batch.not_stored:
        raise SystemExit(output.NOT_STORED)


def _echo_purged(what: str, heard: Acknowledged | None) -> None:
    """Print that something was purged, and on which hosts if there are many."""
    output.echo(what if heard is None else f"{what} {heard.where}")
    for sentence in () if heard is None else heard.missing:
        output.echo(sentence)


def _with_bar(batch: Batch) -> None:
    """Draw a progress bar, and list failures below it."""
    problems = []
    with click.progressbar(length=batch.found, label=batch.kind, show_pos=True) as bar:
        for outcome in batch:
            # The walk goes on meanwhile, and finds more entries.
            bar.length = max(batch.found, bar.pos + 1)
            bar.update(1)
            if outcome.failed or not (outcome.stored or outcome.skipped or batch.kind == "purge"):
                problems.append(outcome)
    for outcome in problems:
        output.echo(_line(outcome))


def _line(outcome: Outcome) -> str:
    if outcome.failed:
        what = "failed"
    elif outcome.skipped:
        what = "skipped"
    else:
        what = "stored" if outcome.stored else "done"
    status = "-" if outcome.status is None else str(outcome.status)
    reason = f"  ({outcome.reason})" if outcome.reason else ""
    return f"{what:<8} {status:>3} {outcome.seconds:8.3f} s  {outcome.url}{reason}"


def _summary(batch: Batch) -> str:
    parts = [f"{batch.done} done", f"{batch.failed} failed", f"{batch.skipped} skipped"]
    if batch.not_stored:
        parts.append(f"{batch.not_stored} not stored")
    return f"{batch.found} found: {', '.join(parts)}"
