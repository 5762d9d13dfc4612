"""An entry as the page shows it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..batches.selector import title_of
from ..core.formatting import size
from ..core.model.purge_names import tags_in
from ..core.rules.explain import State, explain, spell, state_of
from ..core.rules.serving import ServeOptions
from ..stores.base import Stored
from .windows_bar import Bar, bar_of


@dataclass(frozen=True, slots=True)
class Card:
    """An entry, told at length.

    :ivar key: its key.
    :ivar title: its URL, or the call that it is the value of.
    :ivar state: which of its windows it is in.
    :ivar status: what the next visitor would be told.
    :ivar why: the reasons.
    :ivar bar: its windows.
    :ivar facts: what else is known of it: a term and what is to be said of it.
    :ivar head: the fields of the response.
    """

    key: str
    title: str
    state: State
    status: str
    why: list[str]
    bar: Bar
    facts: list[tuple[str, str]]
    head: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Line:
    """An entry in a list."""

    key: str
    title: str
    state: State
    size: str
    used: str
    failures: int
    next_try: str


def line_of(stored: Stored, now: float, terms: ServeOptions, here: str) -> Line:
    """Return an entry for a list.

    :param here: scheme and host of the page; what is of the same is called by its path.
    :param now: seconds since the epoch.
    :param terms: what the app says of what is stored.
    """
    entry, note = stored.entry, stored.note
    return Line(
        key=entry.key,
        title=title_of(entry).removeprefix(here),
        state=state_of(entry, now, terms),
        size=size(stored.size),
        used=f"{spell(max(0.0, now - stored.used))} ago",
        failures=note.failures,
        next_try=f"in {spell(note.retry_at - now)}" if note.backing_off(now) else "at the next visit",
    )


def card_of(stored: Stored, now: float, terms: ServeOptions, *, pending: bool) -> Card:
    """Return an entry with all that is known of it.

    :param pending: its refresh was handed over in this process and is not done.
    """
    entry = stored.entry
    explained = explain(entry, stored.note, now, terms, pending=pending)
    return Card(
        key=entry.key,
        title=title_of(entry),
        state=state_of(entry, now, terms),
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
        ("Not for who carries", ", ".join([*entry.absent.cookies, *entry.absent.headers])),
        ("Varies by", ", ".join(entry.varied)),
        ("Made from", f"{len(entry.calls)} fetched values" if entry.calls else ""),
        ("Version", entry.version),
    ]
