"""What is said of an entry's state, and why it would be served as it would."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flask_stalecache import CacheStatus
from flask_stalecache.core.formatting import spell
from flask_stalecache.core.model.entry import Entry
from flask_stalecache.core.model.inputs import RequestInputs
from flask_stalecache.core.model.note import NOTHING, Note
from flask_stalecache.core.rules.explain import EntryState, explain, state_of_entry
from flask_stalecache.core.rules.prefer_stale import PreferStale
from flask_stalecache.core.rules.serving import PLAIN, ServeOptions
from support.engine import make_entry

NOON = 1_800_000_000.0


def made(max_age: float = 60, swr: float = 600, sie: float = 86400, **others: Any) -> Entry:
    """An entry whose origin answered at noon."""
    return replace(make_entry(started=NOON, windows=(max_age, swr, sie)), **others)


@pytest.mark.parametrize(
    ("entry", "age", "terms", "state"),
    [
        (made(), 0, PLAIN, EntryState.FRESH),
        (made(), 59.9, PLAIN, EntryState.FRESH),
        (made(), 60, PLAIN, EntryState.STALE),
        (made(), 659.9, PLAIN, EntryState.STALE),
        (made(), 660, PLAIN, EntryState.IF_ERROR),
        (made(), 86459.9, PLAIN, EntryState.IF_ERROR),
        (made(), 86460, PLAIN, EntryState.EXPIRED),
        (made(), 0, ServeOptions("2", NOON), EntryState.STALE),
        (made(ended=True), 0, PLAIN, EntryState.STALE),
        (made(swr=0), 60, PLAIN, EntryState.IF_ERROR),
        (made(never_stale=True), 60, PLAIN, EntryState.EXPIRED),
    ],
)
def test_the_state_is_the_window_that_it_is_in(entry: Entry, age: float, terms: ServeOptions, state: EntryState) -> None:
    assert state_of_entry(entry, NOON + age, terms) is state


@pytest.mark.parametrize(
    ("entry", "age", "options", "status", "why"),
    [
        (None, 0, {}, CacheStatus.MISS, "nothing is stored"),
        (made(), 19, {}, CacheStatus.HIT, "fresh for another 41 s"),
        (
            made(), 55, {"terms": ServeOptions(refresh_ahead=10)}, CacheStatus.HIT,
            "fresh for another 5 s, and renewed ahead of time (refresh_ahead)",
        ),
        (
            made(), 70, {}, CacheStatus.STALE,
            "stale for 10 s, since it was fresh for 60 s; served at once for another 9.83 min (stale-while-revalidate)",
        ),
        (
            made(), 70, {"pending": True}, CacheStatus.UPDATING,
            "stale for 10 s, since it was fresh for 60 s; served at once for another 9.83 min (stale-while-revalidate); "
            "its refresh is under way",
        ),
        (
            made(), 70, {"note": Note(written=NOON, failures=3, retry_at=NOON + 90)}, CacheStatus.UPDATING,
            "stale for 10 s, since it was fresh for 60 s; served at once for another 9.83 min (stale-while-revalidate); "
            "the origin failed 3 times in a row; no retry for another 20 s",
        ),
        (
            made(ended=True), 10, {}, CacheStatus.STALE,
            "stale, since a soft purge ended its freshness; served at once for another 10.8 min (stale-while-revalidate)",
        ),
        (
            made(version="1"), 10, {"terms": ServeOptions("2", NOON)}, CacheStatus.STALE,
            "stale, since another version of the app made it ('1', now '2'); "
            "served at once for another 10.8 min (stale-while-revalidate)",
        ),
        (
            made(), 3660, {}, CacheStatus.EXPIRED,
            "stale for 60 min, since it was fresh for 60 s; "
            "the origin is called, and if that fails this is served, for another 23 h (stale-if-error)",
        ),
        (
            made(), 3660, {"note": Note(written=NOON, failures=1, retry_at=NOON + 3670)}, CacheStatus.STALE,
            "stale for 60 min, since it was fresh for 60 s; "
            "the origin is called, and if that fails this is served, for another 23 h (stale-if-error); "
            "the origin failed once; no retry for another 10 s",
        ),
        (
            made(), 3660, {"terms": ServeOptions(prefer_stale=PreferStale.AND_REFRESH)}, CacheStatus.STALE,
            "stale for 60 min, since it was fresh for 60 s; served at once however old, since stale is preferred",
        ),
        (
            made(), 90060, {}, CacheStatus.EXPIRED,
            "stale for 25 h, since it was fresh for 60 s; past its windows: the origin is called",
        ),
        (
            made(never_stale=True), 70, {}, CacheStatus.EXPIRED,
            "stale for 10 s, since it was fresh for 60 s; never served stale: its Cache-Control forbids that",
        ),
        (
            None, 0, {"note": Note(written=NOON, unstorable_until=NOON + 10)}, CacheStatus.MISS,
            "nothing is stored; its last answer could not be stored, and requests do not queue for another 10 s",
        ),
        (
            None, 0, {"note": Note(written=NOON, kept_out=RequestInputs(("session",), ("accept-language",)))}, CacheStatus.MISS,
            "nothing is stored; requests with accept-language, cookie session bypass the cache",
        ),
    ],
)  # fmt: skip
def test_it_is_said_how_the_next_visitor_is_served_and_why(
    entry: Entry | None, age: float, options: dict[str, Any], status: CacheStatus, why: str
) -> None:
    said = explain(entry, options.pop("note", NOTHING), NOON + age, **options)
    assert (said.status, "; ".join(said.why)) == (status, why)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (0.25, "0.2 s"), (9.96, "10.0 s"), (41, "41 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2 h"),
     (86400 * 2, "2 d"), (86400 * 30.25, "30.2 d")],
)  # fmt: skip
def test_durations_are_said_as_people_read_them(seconds: float, said: str) -> None:
    assert spell(seconds) == said
