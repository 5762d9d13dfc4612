"""The command ``why``: why a page is cached or not."""

from __future__ import annotations

import time
from collections.abc import Iterator

import click
from flask.cli import with_appcontext

from ..app_state import AppState
from ..core.formatting import shortened
from ..core.rules.explain import explain
from ..core.rules.why import Account, tell_visitors
from ..inquiry.inquiry import Inquiry, Visit, inquire
from ..stores.base import DirectoryStore, ManyHostsStore, PrivateStore
from . import output
from .bulk import parse_fields
from .context import terms_of, this_app, this_state
from .selectors import of_url

#: The largest number of entries of the live store that are shown.
_MOST = 5


@click.command()
@click.argument("url")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A request field to send; may be repeated.")
@click.option("--cookie", "cookies", multiple=True, metavar="NAME=VALUE", help="A cookie to send; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_appcontext
def why(url: str, headers: tuple[str, ...], cookies: tuple[str, ...], as_json: bool) -> None:
    """Say why the page at URL is cached, or why not, and what to write.

    URL is a path with its query, or a full URL. The page is requested twice from the app in this process, as a visitor would, with
    the fields and cookies that are given. Its view and hooks run; nothing of it gets into the live store or the statistics.
    """
    here = this_state()
    told = inquire(this_app(), url, parse_fields(headers), cookies)
    rows = dict(_rows(here, url, told))
    if as_json:
        output.echo_json({"first": told.found.first, **rows})
        return
    output.echo(f"{told.found.first}.")
    for name, lines in rows.items():
        for number, line in enumerate(lines):
            output.echo(f"  {'' if number else name:<10} {line}".rstrip())


def _rows(here: AppState, url: str, told: Inquiry) -> Iterator[tuple[str, list[str]]]:
    if told.found.write:
        yield "fix", [told.found.write]
    yield "asked", [f"GET {told.url}, twice"]
    yield "answered", [_answered(visit) for visit in told.visits]
    account = told.account
    if account is not None:
        yield "by", [_by(account)]
        yield "key", [account.key or "none: the request bypasses the cache"]
        yield "read", [read.text for read in account.reads] or ["nothing beyond the key"]
        yield "visitors", list(_visitors(account, told.others))
    yield "live", list(_live(here, url))


def _answered(visit: Visit) -> str:
    account = visit.account
    if account is None:
        return f"{visit.answer}, past the cache"
    refusal = account.refusal
    why = "" if account.why is None else f": {account.why.general if refusal is None else refusal.text}"
    return f"{visit.answer}, {account.status}{why}"


def _by(account: Account) -> str:
    rule = f", by the rule for {account.pattern!r}" if account.pattern else ""
    return f"{account.who}, at {account.front.place.rpartition(' in ')[2]}{rule}"


def _visitors(account: Account, others: Account | None) -> Iterator[str]:
    if others is None:
        yield from tell_visitors(account)
        return
    status = "is served the stored page" if others.is_from_store else f"goes to the app ({others.status})"
    yield f"visitors without cookies and Authorization are served the stored page; this one then {status}"


def _live(here: AppState, url: str) -> Iterator[str]:
    """Yield how the entries of the live store for the URL are served."""
    store = here.engine.store
    if isinstance(store, PrivateStore):
        yield "each process of the server has entries of its own, which this command does not see"
        return
    if isinstance(store, DirectoryStore) and not isinstance(store, ManyHostsStore) and not store.directory.is_dir():
        yield f"nothing is stored: there is no directory {store.directory}"
        return
    selector, now, count = of_url(here, url), time.time(), 0
    for stored in store.walk():
        if selector.matches(stored.entry):
            count += 1
            said = explain(stored.entry, stored.note, now, terms_of(here, stored.entry))
            if count <= _MOST:
                yield shortened(f"{said.status}: {said.why[0]}", 200)
    if count > _MOST:
        yield f"and {count - _MOST} more, which flask stalecache show lists"
    if not count:
        yield "nothing is stored for it"
