"""The decision what to serve: the options of the app, the view and the visitor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_stalecache import CacheStatus
from flask_stalecache.core.model.entry import Entry
from flask_stalecache.core.model.moments import is_future
from flask_stalecache.core.model.note import NOTHING, Note
from flask_stalecache.core.rules.prefer_stale import PreferStale
from flask_stalecache.core.rules.serving import (
    PLAIN,
    Fetch,
    Serve,
    ServeOptions,
    decide,
    is_due,
    is_fresh,
)
from support.serving import (
    ENTRY,
    JUST,
    MAX_AGE,
    MISS,
    NEVER_FRESH,
    NEVER_STALE,
    NO_STALE,
    NO_SWR,
    NOON,
    NOTHING_AT_ALL,
    PAUSE,
    SIE,
    SIE_END,
    SWR,
    SWR_END,
    expired,
    moments,
    pause,
    spans,
    stored,
)

PREFER = ServeOptions(prefer_stale=PreferStale.AND_REFRESH)

ALONE = ServeOptions(prefer_stale=PreferStale.ALONE)

AHEAD = ServeOptions(refresh_ahead=10.0)

#: The second version of the app, set up ten seconds after noon.
DEPLOYED = NOON + 10

SECOND = ServeOptions(version="2", deployed=DEPLOYED)

PREFER_SECOND = SECOND._replace(prefer_stale=PreferStale.AND_REFRESH)

RELOAD = ServeOptions().reloading()

LENIENT = ServeOptions(if_error=30.0)


def lenient(entry: Entry, if_error: bool) -> Fetch:
    return expired(entry, if_error=if_error, if_locked=False)


def old(*windows: float, never_stale: bool = False, version: str = "1", deployed: float = NOON - 100) -> Entry:
    """An entry that the first version of the app stored."""
    return stored(*(windows or (MAX_AGE, SWR, SIE)), never_stale=never_stale, version=version, deployed=deployed)


def ended(*windows: float, at: float = 20.0, never_stale: bool = False) -> Entry:
    """Return an entry that was softly purged ``at`` seconds after noon."""
    return stored(*(windows or (MAX_AGE, SWR, SIE)), never_stale=never_stale).softly_purged(NOON + at)


#: Expected decisions: the status, whether a refresh is handed over, and the status if another request has done so meanwhile.
HIT_AHEAD = (CacheStatus.HIT, True, CacheStatus.HIT)

HIT_ONLY = (CacheStatus.HIT, False)

IN_SWR = (CacheStatus.STALE, True, CacheStatus.UPDATING)

PAST_SWR = (CacheStatus.STALE, True, CacheStatus.STALE)

STALE_ONLY = (CacheStatus.STALE, False)

UPDATING_ONLY = (CacheStatus.UPDATING, False)

OLD, OLD_NEVER_STALE = old(), old(never_stale=True)

OLD_NO_SWR, OLD_NO_SIE, OLD_NO_STALE = old(MAX_AGE, 0.0, SIE), old(MAX_AGE, SWR, 0.0), old(MAX_AGE, 0.0, 0.0)

ENDED, ENDED_NO_SWR, ENDED_NO_STALE = ended(), ended(MAX_AGE, 0.0, SIE), ended(MAX_AGE, 0.0, 0.0)

ENDED_NEVER_STALE = ended(never_stale=True)

#: Arguments of ``expired`` for an entry that may never be served stale.
NEVER = {"if_error": False, "if_locked": False}

TERMS: list[Any] = [
    # prefer stale: the entry, however old, and a refresh
    pytest.param(None, NOTHING, 0.0, False, PREFER, MISS, id="prefer stale, none"),
    pytest.param(None, PAUSE, 0.0, True, PREFER, MISS, id="prefer stale, none, pending and backing off"),
    pytest.param(ENTRY, NOTHING, 0.0, False, PREFER, HIT_ONLY, id="prefer stale, fresh"),
    pytest.param(ENTRY, NOTHING, MAX_AGE - JUST, False, PREFER, HIT_ONLY, id="prefer stale, fresh, just before its end"),
    pytest.param(ENTRY, NOTHING, -1e6, False, PREFER, IN_SWR, id="prefer stale, from the future"),
    pytest.param(NEVER_STALE, NOTHING, MAX_AGE - JUST, False, PREFER, HIT_ONLY, id="prefer stale, never stale, but fresh"),
    pytest.param(ENTRY, NOTHING, MAX_AGE, False, PREFER, IN_SWR, id="prefer stale, where freshness ends"),
    pytest.param(ENTRY, NOTHING, SWR_END - JUST, False, PREFER, IN_SWR, id="prefer stale, just before the end of SWR"),
    pytest.param(ENTRY, NOTHING, MAX_AGE, True, PREFER, UPDATING_ONLY, id="prefer stale, in SWR, pending"),
    pytest.param(ENTRY, PAUSE, MAX_AGE, False, PREFER, UPDATING_ONLY, id="prefer stale, in SWR, backing off"),
    pytest.param(ENTRY, NOTHING, SWR_END, False, PREFER, PAST_SWR, id="prefer stale, where SWR ends"),
    pytest.param(ENTRY, NOTHING, SIE_END - JUST, False, PREFER, PAST_SWR, id="prefer stale, just before the end of SIE"),
    pytest.param(ENTRY, NOTHING, SIE_END, False, PREFER, PAST_SWR, id="prefer stale, where SIE ends"),
    pytest.param(ENTRY, NOTHING, 1e9, False, PREFER, PAST_SWR, id="prefer stale, however old"),
    pytest.param(ENTRY, NOTHING, SWR_END, True, PREFER, STALE_ONLY, id="prefer stale, past SWR, pending"),
    pytest.param(ENTRY, PAUSE, SWR_END, False, PREFER, STALE_ONLY, id="prefer stale, past SWR, backing off"),
    pytest.param(ENTRY, PAUSE, SIE_END, False, PREFER, STALE_ONLY, id="prefer stale, past all, backing off"),
    pytest.param(ENTRY, NOTHING, SIE_END, True, PREFER, STALE_ONLY, id="prefer stale, past all, pending"),
    pytest.param(ENTRY, pause(-9, SIE_END), SIE_END, False, PREFER, PAST_SWR, id="prefer stale, past all, back-off ends now"),
    pytest.param(ENTRY, pause(SIE_END + JUST, 1e9), SIE_END, False, PREFER, PAST_SWR, id="prefer stale, a note from the future"),
    pytest.param(NO_SWR, NOTHING, MAX_AGE, False, PREFER, PAST_SWR, id="prefer stale, SWR 0"),
    pytest.param(NO_STALE, NOTHING, MAX_AGE, False, PREFER, PAST_SWR, id="prefer stale, no stale windows"),
    pytest.param(NOTHING_AT_ALL, NOTHING, 0.0, False, PREFER, PAST_SWR, id="prefer stale, no windows"),
    pytest.param(NOTHING_AT_ALL, NOTHING, -1e6, False, PREFER, PAST_SWR, id="prefer stale, no windows, clock stepped back"),
    pytest.param(ENDED, NOTHING, 20.0, False, PREFER, IN_SWR, id="prefer stale, softly purged"),
    pytest.param(ENDED, NOTHING, 1e9, False, PREFER, PAST_SWR, id="prefer stale, softly purged long ago"),
    pytest.param(OLD, NOTHING, 20.0, False, PREFER_SECOND, IN_SWR, id="prefer stale, of an older version"),
    pytest.param(OLD, NOTHING, 1e9, False, PREFER_SECOND, PAST_SWR, id="prefer stale, of an older version, however old"),
    *[
        pytest.param(entry, note, age, pending, terms, expired(entry, **NEVER), id=f"prefer stale, never stale, {name}")
        for name, entry, note, age, pending, terms in [
            ("where freshness ends", NEVER_STALE, NOTHING, MAX_AGE, False, PREFER),
            ("where freshness ends, alone", NEVER_STALE, NOTHING, MAX_AGE, False, ALONE),
            ("in SWR, pending", NEVER_STALE, NOTHING, MAX_AGE + JUST, True, PREFER),
            ("in SIE, backing off", NEVER_STALE, PAUSE, SWR_END, False, PREFER),
            ("past all", NEVER_STALE, NOTHING, 1e9, False, PREFER),
            ("softly purged", ENDED_NEVER_STALE, NOTHING, 20.0, False, PREFER),
            ("of an older version", OLD_NEVER_STALE, NOTHING, 20.0, False, PREFER_SECOND),
        ]
    ],
    # prefer stale without a refresh: the next visitor who does not prefer it hands one over
    pytest.param(None, NOTHING, 0.0, False, ALONE, MISS, id="alone, none"),
    pytest.param(ENTRY, NOTHING, MAX_AGE - JUST, False, ALONE, HIT_ONLY, id="alone, fresh"),
    pytest.param(ENTRY, NOTHING, MAX_AGE, False, ALONE, STALE_ONLY, id="alone, in SWR"),
    pytest.param(ENTRY, NOTHING, SWR_END - JUST, False, ALONE, STALE_ONLY, id="alone, just before the end of SWR"),
    pytest.param(ENTRY, NOTHING, MAX_AGE, True, ALONE, UPDATING_ONLY, id="alone, in SWR, pending"),
    pytest.param(ENTRY, PAUSE, MAX_AGE, False, ALONE, UPDATING_ONLY, id="alone, in SWR, backing off"),
    pytest.param(ENTRY, NOTHING, SWR_END, False, ALONE, STALE_ONLY, id="alone, where SWR ends"),
    pytest.param(ENTRY, NOTHING, SIE_END, False, ALONE, STALE_ONLY, id="alone, past all"),
    pytest.param(ENTRY, PAUSE, SIE_END, True, ALONE, STALE_ONLY, id="alone, past all, pending and backing off"),
    pytest.param(ENTRY, NOTHING, 55.0, False, ALONE._replace(refresh_ahead=10.0), HIT_ONLY, id="alone, in refresh ahead"),
    # fresh, in refresh_ahead: the entry, and a refresh
    pytest.param(ENTRY, NOTHING, 50 - JUST, False, AHEAD, HIT_ONLY, id="refresh ahead, just before its time"),
    pytest.param(ENTRY, NOTHING, 50.0, False, AHEAD, HIT_AHEAD, id="refresh ahead, where it begins"),
    pytest.param(ENTRY, NOTHING, MAX_AGE - JUST, False, AHEAD, HIT_AHEAD, id="refresh ahead, just before freshness ends"),
    pytest.param(ENTRY, NOTHING, MAX_AGE, False, AHEAD, IN_SWR, id="refresh ahead, where freshness ends"),
    pytest.param(ENTRY, NOTHING, 50.0, True, AHEAD, HIT_ONLY, id="refresh ahead, pending"),
    pytest.param(ENTRY, PAUSE, 50.0, False, AHEAD, HIT_ONLY, id="refresh ahead, backing off"),
    pytest.param(ENTRY, pause(-9, 50.0), 50.0, False, AHEAD, HIT_AHEAD, id="refresh ahead, back-off ends now"),
    pytest.param(NEVER_STALE, NOTHING, 50.0, False, AHEAD, HIT_AHEAD, id="refresh ahead, never stale"),
    pytest.param(NO_STALE, NOTHING, 50.0, False, AHEAD, HIT_AHEAD, id="refresh ahead, no stale windows"),
    pytest.param(ENTRY, NOTHING, -1e6, False, AHEAD, IN_SWR, id="refresh ahead, from the future"),
    pytest.param(NEVER_FRESH, NOTHING, 0.0, False, AHEAD, IN_SWR, id="refresh ahead, never fresh"),
    pytest.param(ENDED, NOTHING, 5.0, False, AHEAD, IN_SWR, id="refresh ahead, softly purged, clock stepped back"),
    pytest.param(ENTRY, NOTHING, MAX_AGE - JUST, False, PLAIN, HIT_ONLY, id="no refresh ahead"),
    *[
        pytest.param(ENTRY, NOTHING, age, False, ServeOptions(refresh_ahead=ahead), expected, id=f"refresh ahead {ahead:g}, {name}")
        for ahead in (30.0, 45.0, MAX_AGE, 1e9)
        for name, age, expected in [("just before half of freshness", 30 - JUST, HIT_ONLY), ("at half", 30.0, HIT_AHEAD)]
    ],
    # softly purged: stale from then on
    pytest.param(ENDED, NOTHING, 20.0, False, PLAIN, IN_SWR, id="softly purged just now"),
    pytest.param(ENDED, NOTHING, 0.0, False, PLAIN, IN_SWR, id="softly purged, clock stepped back: not fresh again"),
    pytest.param(ENDED, NOTHING, -1e6, False, PLAIN, IN_SWR, id="softly purged, clock stepped back far"),
    pytest.param(ENDED, NOTHING, 20.0, True, PLAIN, UPDATING_ONLY, id="softly purged, pending"),
    pytest.param(ENDED, NOTHING, 20 + SWR - JUST, False, PLAIN, IN_SWR, id="softly purged, just before the end of SWR"),
    pytest.param(ENDED, NOTHING, 20 + SWR, False, PLAIN, expired(ENDED, if_error=True), id="softly purged, where SWR ends"),
    pytest.param(ENDED, NOTHING, 20 + SIE, False, PLAIN, expired(ENDED, if_error=False), id="softly purged, where SIE ends"),
    pytest.param(ended(at=90), NOTHING, SWR_END - JUST, False, PLAIN, IN_SWR, id="softly purged when stale, in SWR"),
    pytest.param(ended(at=-5), NOTHING, SWR - JUST, False, PLAIN, IN_SWR, id="softly purged before it answered, in SWR"),
    pytest.param(ENDED_NO_SWR, NOTHING, 20.0, False, PLAIN, expired(ENDED_NO_SWR, if_error=True), id="softly purged, SWR 0"),
    pytest.param(ENDED_NO_STALE, NOTHING, 20.0, False, PLAIN, expired(ENDED_NO_STALE, **NEVER), id="softly purged, no windows"),
    pytest.param(
        ENDED_NEVER_STALE, NOTHING, 5.0, False, PLAIN, expired(ENDED_NEVER_STALE, **NEVER), id="softly purged, never stale"
    ),
    pytest.param(
        ENDED_NO_STALE, NOTHING, 5.0, False, PLAIN, expired(ENDED_NO_STALE, **NEVER), id="softly purged, no windows, clock back"
    ),
    # of an older version of the app: stale, whatever its age
    pytest.param(OLD, NOTHING, 20.0, False, SECOND, IN_SWR, id="an older version"),
    pytest.param(OLD, NOTHING, -1e6, False, SECOND, IN_SWR, id="an older version, clock stepped back"),
    pytest.param(OLD, NOTHING, 20.0, True, SECOND, UPDATING_ONLY, id="an older version, pending"),
    pytest.param(OLD, PAUSE, 20.0, False, SECOND, UPDATING_ONLY, id="an older version, backing off"),
    pytest.param(OLD, NOTHING, SWR_END - JUST, False, SECOND, IN_SWR, id="an older version, just before the end of SWR"),
    pytest.param(OLD, NOTHING, SWR_END, False, SECOND, expired(OLD, if_error=True), id="an older version, where SWR ends"),
    pytest.param(OLD, NOTHING, SIE_END, False, SECOND, expired(OLD, if_error=False), id="an older version, past all"),
    pytest.param(OLD, NOTHING, 55.0, False, SECOND._replace(refresh_ahead=10.0), IN_SWR, id="an older version, in refresh ahead"),
    pytest.param(old(deployed=DEPLOYED), NOTHING, 20.0, False, SECOND, IN_SWR, id="another version, set up at the same time"),
    pytest.param(old(deployed=DEPLOYED - JUST), NOTHING, 20.0, False, SECOND, IN_SWR, id="another version, set up just before"),
    pytest.param(old(deployed=DEPLOYED + JUST), NOTHING, 20.0, False, SECOND, HIT_ONLY, id="another version, set up just after"),
    pytest.param(old(version="2", deployed=0.0), NOTHING, 20.0, False, SECOND, HIT_ONLY, id="the same version, set up long before"),
    pytest.param(old(version="2", deployed=1e12), NOTHING, 20.0, False, SECOND, HIT_ONLY, id="the same version, set up later"),
    pytest.param(old(version=""), NOTHING, 20.0, False, SECOND, IN_SWR, id="from before there were versions"),
    pytest.param(
        old(version="2"), NOTHING, 20.0, False, ServeOptions(deployed=DEPLOYED), IN_SWR, id="from when there were versions"
    ),
    pytest.param(old(version="2.0"), NOTHING, 20.0, False, SECOND, IN_SWR, id="versions are compared as they are written"),
    pytest.param(OLD_NEVER_STALE, NOTHING, 20.0, False, SECOND, expired(OLD_NEVER_STALE, **NEVER), id="older, never stale"),
    # Its stale windows decide how it may be served. A window of 0 seconds allows nothing, even before max_age has passed.
    pytest.param(OLD_NO_SWR, NOTHING, 20.0, False, SECOND, expired(OLD_NO_SWR, if_error=True), id="an older version, SWR 0"),
    pytest.param(OLD_NO_SWR, PAUSE, 20.0, False, SECOND, STALE_ONLY, id="an older version, SWR 0, backing off"),
    pytest.param(OLD_NO_STALE, NOTHING, 20.0, False, SECOND, expired(OLD_NO_STALE, **NEVER), id="older, no stale windows"),
    pytest.param(OLD_NO_SIE, NOTHING, 20.0, False, SECOND, IN_SWR, id="an older version, SIE 0"),
    # who reloads: nothing that the origin does not confirm
    pytest.param(None, NOTHING, 0.0, False, RELOAD, MISS, id="reload, none"),
    pytest.param(ENTRY, NOTHING, 0.0, False, RELOAD, expired(ENTRY, if_error=True), id="reload, fresh"),
    pytest.param(ENTRY, PAUSE, MAX_AGE, True, RELOAD, expired(ENTRY, if_error=True), id="reload, in SWR, pending, backing off"),
    pytest.param(ENTRY, NOTHING, SIE_END, False, RELOAD, expired(ENTRY, if_error=False), id="reload, past all"),
    pytest.param(NO_STALE, NOTHING, 0.0, False, RELOAD, expired(NO_STALE, **NEVER), id="reload, fresh, no stale windows"),
    pytest.param(NEVER_STALE, NOTHING, 0.0, False, RELOAD, expired(NEVER_STALE, **NEVER), id="reload, fresh, never stale"),
    # what a visitor takes if the origin fails, beside what the entry allows
    pytest.param(NO_STALE, NOTHING, MAX_AGE, False, LENIENT, lenient(NO_STALE, True), id="lenient, where freshness ends"),
    pytest.param(
        NO_STALE, NOTHING, MAX_AGE + 30 - JUST, False, LENIENT, lenient(NO_STALE, True), id="lenient, just before its end"
    ),
    pytest.param(NO_STALE, NOTHING, MAX_AGE + 30, False, LENIENT, lenient(NO_STALE, False), id="lenient, where it ends"),
    pytest.param(NO_STALE, PAUSE, MAX_AGE, False, LENIENT, lenient(NO_STALE, True), id="lenient, backing off"),
    pytest.param(NEVER_STALE, NOTHING, MAX_AGE, False, LENIENT, expired(NEVER_STALE, **NEVER), id="lenient, never stale"),
    pytest.param(NO_STALE, NOTHING, 0.0, False, LENIENT, HIT_ONLY, id="lenient, fresh"),
    pytest.param(ENTRY, NOTHING, MAX_AGE, False, LENIENT, IN_SWR, id="lenient, in SWR"),
]


@pytest.mark.parametrize(("entry", "note", "age", "pending", "terms", "expected"), TERMS)
def test_the_table_of_the_terms(
    entry: Entry | None, note: Note, age: float, pending: bool, terms: ServeOptions, expected: Fetch | tuple[object, ...]
) -> None:
    decision = decide(entry, note, NOON + age, terms, pending=pending)
    if isinstance(expected, Fetch):
        assert decision == expected
    else:
        assert isinstance(decision, Serve)
        assert decision.entry is entry
        # The status for a refresh that another request has handed over matters only if this request would hand one over.
        assert tuple(decision[1 : 4 if decision.refresh else 3]) == expected


@pytest.mark.parametrize(
    ("entry", "age", "terms", "due"),
    [
        pytest.param(ENTRY, 0.0, PLAIN, False, id="fresh"),
        pytest.param(ENTRY, MAX_AGE - JUST, PLAIN, False, id="just before freshness ends"),
        pytest.param(ENTRY, MAX_AGE, PLAIN, True, id="where freshness ends"),
        pytest.param(ENTRY, 1e9, PLAIN, True, id="long ago"),
        pytest.param(ENTRY, -10.0, PLAIN, False, id="clock stepped back a little"),
        pytest.param(ENTRY, -1e6, PLAIN, True, id="from the future"),
        pytest.param(ENTRY, 0.0, PREFER, False, id="prefer stale, fresh"),
        pytest.param(ENTRY, 50 - JUST, AHEAD, False, id="just before refresh ahead"),
        pytest.param(ENTRY, 50.0, AHEAD, True, id="where refresh ahead begins"),
        pytest.param(ENTRY, 0.0, ServeOptions(refresh_ahead=1e9), False, id="just renewed is not due, whatever refresh ahead says"),
        pytest.param(ENTRY, 30 - JUST, ServeOptions(refresh_ahead=1e9), False, id="just before half of freshness"),
        pytest.param(ENTRY, 30.0, ServeOptions(refresh_ahead=1e9), True, id="half of freshness at most"),
        pytest.param(NEVER_FRESH, 0.0, PLAIN, True, id="never fresh"),
        pytest.param(ENDED, 0.0, PLAIN, True, id="softly purged"),
        pytest.param(OLD, 0.0, SECOND, True, id="of an older version"),
        pytest.param(old(version="2"), 0.0, SECOND, False, id="of this version"),
        pytest.param(old(deployed=DEPLOYED + JUST), JUST, SECOND, False, id="of a newer version"),
        pytest.param(old(deployed=DEPLOYED + 60), 0.0, SECOND, True, id="of a version that was deployed while the clock was ahead"),
        pytest.param(old(deployed=DEPLOYED + JUST), MAX_AGE, SECOND, True, id="of a newer version, and stale"),
    ],
)
def test_what_is_due(entry: Entry, age: float, terms: ServeOptions, due: bool) -> None:
    assert is_due(entry, NOON + age, terms) is due


def any_entry() -> st.SearchStrategy[Entry]:
    entry = st.builds(stored, spans, spans, spans, st.booleans(), st.sampled_from(["1", "2"]), moments.map(lambda age: NOON + age))
    return entry | st.builds(lambda it, at: it.softly_purged(NOON + at), entry, moments)


any_terms = st.builds(
    ServeOptions,
    st.sampled_from(["1", "2"]),
    moments.map(lambda age: NOON + age),
    spans | st.just(30.0),
    st.sampled_from(PreferStale),
    wait_for_fresh=st.booleans(),
    # Reloads, and the stale-if-error of a visitor, are in the table.
    reload=st.just(False),
    if_error=st.just(0.0),
)

#: An entry, a note, a moment, whether a refresh is pending, and the terms.
any_case = st.tuples(any_entry(), st.builds(pause, moments, moments), moments.map(lambda age: NOON + age), st.booleans(), any_terms)

Case = tuple[Entry, Note, float, bool, ServeOptions]


@given(any_case)
def test_whoever_prefers_what_is_never_served_stale_it_is_not(case: Case) -> None:
    entry, note, now, pending, terms = case
    decision = decide(entry, note, now, terms, pending=pending)
    if entry.never_stale and not is_fresh(entry, now, terms):
        assert decision == Fetch(CacheStatus.EXPIRED, None, None)


@given(any_case)
def test_who_reloads_is_served_what_the_origin_says(case: Case) -> None:
    entry, note, now, pending, terms = case
    decision = decide(entry, note, now, terms.reloading(), pending=pending)
    assert isinstance(decision, Fetch)
    assert decision.if_error in (None, entry)
    assert (decision.if_error is None) or entry.in_sie(now) or entry.in_swr(now)


@given(any_case)
def test_who_prefers_stale_waits_for_nothing_that_may_be_served_stale(case: Case) -> None:
    entry, note, now, pending, terms = case
    decision = decide(entry, note, now, terms, pending=pending)
    if terms.prefer_stale is not PreferStale.NO and not terms.wait_for_fresh and not entry.never_stale:
        assert isinstance(decision, Serve)


@given(any_case)
def test_where_nobody_waits_what_is_stale_is_renewed_unless_it_backs_off(case: Case) -> None:
    entry, note, now, pending, terms = case
    decision = decide(entry, note, now, terms._replace(wait_for_fresh=True), pending=pending)
    if not is_fresh(entry, now, terms) and not note.backing_off(now):
        may_stand_in = not terms.shows_errors and (entry.in_swr(now) or entry.in_sie(now))
        assert decision == Fetch(CacheStatus.EXPIRED, entry if may_stand_in else None, entry if entry.may_be_stale else None)


@given(any_case)
def test_a_hit_is_what_is_fresh_and_nothing_else(case: Case) -> None:
    entry, note, now, pending, terms = case
    decision = decide(entry, note, now, terms, pending=pending)
    assert (decision.status is CacheStatus.HIT) is is_fresh(entry, now, terms)
    assert isinstance(decision, Serve) or decision.status is CacheStatus.EXPIRED
    if isinstance(decision, Serve) and decision.refresh:
        assert (decision.meanwhile is CacheStatus.HIT) is (decision.status is CacheStatus.HIT)


@given(any_case)
def test_a_refresh_that_is_handed_over_is_due_to_who_runs_it_and_goes_into_no_pause(case: Case) -> None:
    entry, note, now, pending, terms = case
    decision = decide(entry, note, now, terms, pending=pending)
    if isinstance(decision, Serve) and decision.refresh:
        # The refresh itself is run on terms without the preference of a visitor.
        assert is_due(entry, now, terms._replace(prefer_stale=PreferStale.NO))
        assert not pending
        assert not note.backing_off(now)
        assert terms.prefer_stale is not PreferStale.ALONE


@given(any_case)
def test_preferring_stale_changes_nothing_of_what_is_fresh_forbidden_or_gone(case: Case) -> None:
    entry, note, now, pending, terms = case
    without = decide(entry, note, now, terms._replace(prefer_stale=PreferStale.NO), pending=pending)
    decision = decide(entry, note, now, terms, pending=pending)
    if isinstance(without, Serve) and isinstance(decision, Serve) and terms.prefer_stale is PreferStale.ALONE:
        without = without._replace(refresh=False)
    if is_fresh(entry, now, terms) or entry.never_stale:
        assert decision == without
    assert decide(None, note, now, terms, pending=pending) == MISS


@given(any_terms, any_terms)
def test_two_versions_of_an_app_never_take_each_others_pages_for_old(one: ServeOptions, other: ServeOptions) -> None:
    """Else the old and the new workers of a deploy would renew each other's pages in turn."""
    of_one = stored(version=one.version, deployed=one.deployed)
    of_other = stored(version=other.version, deployed=other.deployed)
    if one.deployed != other.deployed and not any(is_future(each.deployed, NOON) for each in (one, other)):
        assert is_fresh(of_one, NOON, other) or is_fresh(of_other, NOON, one)


@given(any_case)
def test_what_has_no_stale_windows_is_not_served_stale_unless_preferred(case: Case) -> None:
    entry, note, now, pending, terms = case
    windows = replace(entry.windows, stale_while_revalidate=0.0, stale_if_error=0.0)
    entry, terms = replace(entry, windows=windows), terms._replace(prefer_stale=PreferStale.NO)
    decision = decide(entry, note, now, terms, pending=pending)
    assert is_fresh(entry, now, terms) or decision == Fetch(CacheStatus.EXPIRED, None, None)
