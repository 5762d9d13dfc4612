"""Explains in words which state an entry is in, and how it would be served. Pure.

It calls :func:`~.serving.decide`, so that the explanation always agrees with what is served.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from ..formatting import spell
from ..model.entry import Entry
from ..model.note import NOTHING, Note
from .prefer_stale import PreferStale
from .serving import PLAIN, Fetch, ServeOptions, decide, is_due, is_fresh
from .status import CacheStatus


class EntryState(str, Enum):
    """The window that an entry is in."""

    #: Served without a refresh.
    FRESH = "fresh"
    #: Served immediately and refreshed in the background (stale-while-revalidate).
    STALE = "stale"
    #: Served if the origin fails (stale-if-error).
    IF_ERROR = "if-error"
    #: Past its windows: kept until the sweep removes it, and served to requests that prefer stale.
    EXPIRED = "expired"

    def __str__(self) -> str:
        return self.value


class Explanation(NamedTuple):
    """How an entry would be served, and why.

    :ivar state: its window; ``None``: nothing is stored.
    :ivar status: the status of the next request.
    :ivar why: the reasons, as sentences.
    """

    state: EntryState | None
    status: CacheStatus
    why: tuple[str, ...]


def state_of_entry(entry: Entry, now: float, terms: ServeOptions = PLAIN) -> EntryState:
    """Return the window that an entry is in.

    :param now: seconds since the epoch.
    :param terms: the serving options of the app; the version matters.
    """
    if is_fresh(entry, now, terms):
        return EntryState.FRESH
    if entry.in_swr(now):
        return EntryState.STALE
    return EntryState.IF_ERROR if entry.in_sie(now) else EntryState.EXPIRED


def explain(
    entry: Entry | None, note: Note = NOTHING, now: float = 0.0, terms: ServeOptions = PLAIN, *, pending: bool = False
) -> Explanation:
    """Return how the next request would be served, and why.

    :param entry: the stored entry, if any.
    :param note: its note.
    :param now: seconds since the epoch.
    :param terms: the serving options.
    :param pending: its refresh is queued or running.
    """
    decision = decide(entry, note, now, terms, pending=pending)
    if entry is None:
        return Explanation(None, decision.status, ("nothing is stored", *_of_note(note, now)))
    state = state_of_entry(entry, now, terms)
    reasons = [_why_fresh(entry, now, terms) if state is EntryState.FRESH else why_stale(entry, now, terms)]
    if state is not EntryState.FRESH:
        reasons.append(_what_stale_means(entry, state, now, terms, asks=isinstance(decision, Fetch)))
    if pending:
        reasons.append("its refresh is under way")
    return Explanation(state, decision.status, (*reasons, *_of_note(note, now)))


def _why_fresh(entry: Entry, now: float, terms: ServeOptions) -> str:
    left = entry.windows.max_age - entry.age(now)
    due = ", and renewed ahead of time (refresh_ahead)" if is_due(entry, now, terms) else ""
    return f"fresh for another {spell(left)}{due}"


def why_stale(entry: Entry, now: float, terms: ServeOptions = PLAIN) -> str:
    """Return why an entry is not fresh: a soft purge, another version of the app, or its age."""
    if entry.ended:
        return "stale, since a soft purge ended its freshness"
    if entry.is_from_future(now):
        return "stale, since it was stored while the clock was ahead of the present time"
    if entry.is_fresh(now):
        return f"stale, since another version of the app made it ({entry.version!r}, now {terms.version!r})"
    over = entry.age(now) - entry.windows.max_age
    return f"stale for {spell(over)}, since it was fresh for {spell(entry.windows.max_age)}"


def _what_stale_means(entry: Entry, state: EntryState, now: float, terms: ServeOptions, *, asks: bool) -> str:
    windows, age = entry.windows, entry.age(now)
    if entry.never_stale:
        return "never served stale: its Cache-Control forbids that"
    if terms.prefer_stale is not PreferStale.NO and state is not EntryState.STALE and not asks:
        return "served at once however old, since stale is preferred"
    if state is EntryState.STALE:
        return (
            f"served at once for another {spell(windows.max_age + windows.stale_while_revalidate - age)} (stale-while-revalidate)"
        )
    if state is EntryState.IF_ERROR:
        left = spell(windows.max_age + windows.stale_if_error - age)
        return f"the origin is called, and if that fails this is served, for another {left} (stale-if-error)"
    return "past its windows: the origin is called"


def _of_note(note: Note, now: float) -> list[str]:
    """Return the sentences about a note."""
    reasons = []
    if note.failures and note.written <= now:
        times = "once" if note.failures == 1 else f"{note.failures} times in a row"
        reasons.append(f"the origin failed {times}")
    if note.backing_off(now):
        reasons.append(f"no retry for another {spell(note.retry_at - now)}")
    if note.unstorable(now):
        reasons.append(
            f"its last answer could not be stored, and requests do not queue for another {spell(note.unstorable_until - now)}"
        )
    if note.kept_out:
        reasons.append(f"requests with {', '.join(note.kept_out.labels)} bypass the cache")
    return reasons
