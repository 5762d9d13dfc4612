"""The command ``show``: all details of the entries of one URL."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import click
from flask.cli import with_appcontext

from ..app_state import AppState
from ..core.addressing.keys import FORWARDED_FIELDS, digest, is_digest
from ..core.addressing.purge_names import tags_in
from ..core.addressing.recipe import PageRecipe
from ..core.formatting import clock, size, spell
from ..core.model.entry import Entry
from ..core.model.environ import environ_name, field_of
from ..core.model.holes import labels_of
from ..core.model.titles import endpoint_of, function_of, title_of
from ..core.rules.explain import Explanation, explain
from ..core.rules.serving import ServeOptions
from ..core.rules.variant_index import named_in_key
from ..stores.base import Stored
from . import output
from .context import filled_state, terms_of
from .selectors import of_url

NAMED_WORDS = {"cookie": "cookie", "session": "session key"}
#: Part of every key, so they do not distinguish variants.
_OF_ALL = frozenset({"HTTP_HOST", *map(environ_name, FORWARDED_FIELDS)})


@click.command()
@click.argument("url")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_appcontext
def show(url: str, as_json: bool) -> None:
    """Show the entries of URL in detail: each variant, its windows, and how the next request would be served, and why.

    URL is a path with its query (on all hosts), a full URL, a call as `list` writes it, or the digest of a key.
    """
    here = filled_state()
    found = list(_found(here, url))
    if not found:
        output.echo(f"nothing is stored for {url}", err=True)
        raise SystemExit(1)
    now = time.time()
    if as_json:
        output.echo_json([_data(stored, now, terms_of(here, stored.entry)) for stored in found])
        return
    for number, stored in enumerate(found):
        if number:
            click.echo()
        for line in _lines(stored, now, terms_of(here, stored.entry)):
            output.echo(line)


def _found(here: AppState, url: str) -> Iterator[Stored]:
    if is_digest(url):
        yield from (stored for stored in here.engine.store.walk() if digest(stored.entry.key) == url)
        return
    selector = of_url(here, url) if url.startswith(("/", "http://", "https://")) else None
    for stored in here.engine.store.walk():
        if title_of(stored.entry) == url if selector is None else selector.matches(stored.entry):
            yield stored


def _lines(stored: Stored, now: float, terms: ServeOptions) -> Iterator[str]:
    entry = stored.entry
    said = explain(entry, stored.note, now, terms)
    yield title_of(entry)
    rows = [
        ("served as", f"{said.status}: {said.why[0]}"),
        *(("", reason) for reason in said.why[1:]),
        ("windows", _windows(entry)),
        ("answered", f"{_moment(entry.answered)}, {spell(entry.age(now))} ago"),
        ("last use", f"{_moment(stored.used)}, {spell(max(0.0, now - stored.used))} ago"),
        ("size", f"{size(stored.length)} of body, {size(stored.size)} on the disk"),
        *_identity(entry),
        *_for_whom(entry),
        ("status", str(entry.status)),
        *(("", f"{name}: {value}") for name, value in entry.headers),
        ("key", entry.key),
        ("digest", digest(entry.key)),
    ]
    for name, value in rows:
        yield f"  {name:<10} {value}".rstrip()


def _windows(entry: Entry) -> str:
    windows = entry.windows
    return (
        f"max_age {spell(windows.max_age)}, stale_while_revalidate {spell(windows.stale_while_revalidate)}, "
        f"stale_if_error {spell(windows.stale_if_error)}" + (", never served stale" if entry.never_stale else "")
    )


def _identity(entry: Entry) -> Iterator[tuple[str, str]]:
    if endpoint := endpoint_of(entry):
        yield "endpoint", endpoint
    if function := function_of(entry):
        yield "function", function
    if tags := tags_in(entry.names):
        yield "tags", ", ".join(tags)
    if entry.version:
        yield "version", entry.version
    if entry.stood_in:
        yield "made with", "the fallback of a call that failed"
    if entry.work.computes:
        yield "computed", f"{entry.work.seconds:.2f} s when it was made"
    for call in entry.calls:
        yield "made of", call


def _for_whom(entry: Entry) -> Iterator[tuple[str, str]]:
    for name, value in _variant(entry).items():
        yield "variant", f"{name}: {'(absent)' if value is None else value}"
    if entry.holes:
        yield "holes", ", ".join(labels_of(entry.holes))
    if entry.absent:
        yield "not for", f"requests with {', '.join(entry.absent.labels)}"


def _variant(entry: Entry) -> dict[str, str | None]:
    """Return the request fields, cookies and session values that distinguish an entry from other variants of its URL.

    A secret is given as its digest.
    """
    try:
        recipe = PageRecipe.from_json(entry.recipe)
    except (LookupError, TypeError, ValueError):
        return {}
    named = named_in_key(entry.key)
    fields = [*recipe.fields, *((name, f"(digest {value[:8]})") for name, value in recipe.digests)]
    # The named cookies tell more than the field that contains them.
    left_out = {*_OF_ALL, *(["HTTP_COOKIE"] if named else [])}
    told = {(field_of(name) or name).title(): value for name, value in fields if name not in left_out}
    for each, value in named.items():
        told[f"{NAMED_WORDS[each.kind]} {each.name}"] = None if value is None else f"(digest {value[:8]})"
    return told


def _data(stored: Stored, now: float, terms: ServeOptions) -> dict[str, Any]:
    entry, note = stored.entry, stored.note
    said: Explanation = explain(entry, note, now, terms)
    return {
        "title": title_of(entry),
        "state": None if said.state is None else said.state.value,
        "served_as": said.status.value,
        "why": list(said.why),
        "endpoint": endpoint_of(entry),
        "function": function_of(entry),
        "tags": list(tags_in(entry.names)),
        "age": entry.age(now),
        "answered": entry.answered,
        "used": stored.used,
        "max_age": entry.windows.max_age,
        "stale_while_revalidate": entry.windows.stale_while_revalidate,
        "stale_if_error": entry.windows.stale_if_error,
        "never_stale": entry.never_stale,
        "variant": _variant(entry),
        "absent": entry.absent.to_json(),
        "holes": list(labels_of(entry.holes)),
        "version": entry.version,
        "made_of": list(entry.calls),
        "made_with_fallback": entry.stood_in,
        "computed": entry.work.seconds if entry.work.computes else 0.0,
        "failures": note.failures,
        "retry_at": note.retry_at or None,
        "status": entry.status,
        "headers": [list(field) for field in entry.headers],
        "length": stored.length,
        "size": stored.size,
        "key": entry.key,
        "address": digest(entry.key),
    }


def _moment(seconds: float) -> str:
    return f"{clock(seconds, '%Y-%m-%d %H:%M:%S')} UTC"
