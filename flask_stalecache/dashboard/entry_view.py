"""Entries as the page shows them: as a line of a list, or as a card with all details. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.addressing.keys import digest
from ..core.addressing.purge_names import tags_in
from ..core.formatting import size, spell
from ..core.model.holes import labels_of
from ..core.model.titles import title_of
from ..core.rules.explain import EntryState, explain, state_of_entry
from ..core.rules.serving import ServeOptions
from ..stores.base import Stored
from ..stores.formats.summary import summary_of
from .windows_bar import Bar, bar_of


@dataclass(frozen=True, slots=True)
class Card:
    """An entry with all details.

    :ivar address: the digest of its key.
    :ivar key: its key.
    :ivar title: its URL, or the call that returned it.
    :ivar state: the window that it is in.
    :ivar status: the cache status of the next request.
    :ivar why: the reasons for that status.
    :ivar bar: its windows as a bar.
    :ivar facts: other details: term and text.
    :ivar head: the response's header fields.
    """

    address: str
    key: str
    title: str
    state: EntryState
    status: str
    why: list[str]
    bar: Bar
    facts: list[tuple[str, str]]
    head: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class EntryLine:
    """The summary of an entry, formatted for a list."""

    address: str
    title: str
    state: EntryState
    size: str
    used: str
    failures: int
    next_try: str


def line_of(stored: Stored, now: float, terms: ServeOptions, here: str) -> EntryLine:
    """Return the line of an entry.

    :param now: seconds since the epoch.
    :param terms: the serving options of the app.
    :param here: scheme and host of the page; they are left out of URLs that begin with them.
    """
    summary = summary_of(stored, now, terms)
    return EntryLine(
        address=summary.address,
        title=summary.title.removeprefix(here),
        state=summary.state,
        size=size(summary.size),
        used=f"{spell(summary.used)} ago",
        failures=summary.failures,
        next_try=f"in {spell(summary.retry_in)}" if summary.retry_in else "at the next visit",
    )


def card_of(stored: Stored, now: float, terms: ServeOptions, *, pending: bool) -> Card:
    """Return the card of an entry.

    :param pending: a refresh of it is queued or running in this process.
    """
    entry = stored.entry
    explained = explain(entry, stored.note, now, terms, pending=pending)
    return Card(
        address=digest(entry.key),
        key=entry.key,
        title=title_of(entry),
        state=state_of_entry(entry, now, terms),
        status=explained.status.value,
        why=list(explained.why),
        bar=bar_of(entry, now),
        facts=[(term, said) for term, said in _facts(stored, now) if said],
        head=list(entry.headers),
    )


def _facts(stored: Stored, now: float) -> list[tuple[str, str]]:
    entry, note, kinds = stored.entry, stored.note, {}
    for name in entry.names:
        kind, _, value = name.partition(":")
        kinds[kind] = value
    failed = f"{note.failures} in a row" if note.failures else ""
    return [
        ("Endpoint", kinds.get("endpoint", "")),
        ("Function", kinds.get("function", "")),
        ("Tags", ", ".join(tags_in(entry.names))),
        ("Age", spell(entry.age(now))),
        ("Last used", f"{spell(max(0.0, now - stored.used))} ago" if stored.used else ""),
        ("Body", size(stored.length)),
        ("On the disk", size(stored.size) if stored.size else ""),
        ("Status", str(entry.status)),
        ("Made in", spell(entry.answered - entry.started) if entry.answered > entry.started else ""),
        ("Failures", failed),
        ("Next try", f"in {spell(note.retry_at - now)}" if note.backing_off(now) else ""),
        ("Bypassed by requests with", ", ".join(entry.absent.labels)),
        ("Holes", ", ".join(labels_of(entry.holes))),
        ("Varies by", ", ".join(entry.varied)),
        ("Made from", f"{len(entry.calls)} fetched values" if entry.calls else ""),
        ("Version", entry.version),
    ]
