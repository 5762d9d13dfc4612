"""The decision: every row of its table in the design, with every boundary; what an answer is to the store; what it does to it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.http import http_date

from flask_stalecache import CacheStatus, Policy
from flask_stalecache.core.http.cache_control import response_directives
from flask_stalecache.core.model.entry import Entry
from flask_stalecache.core.model.inputs import RequestInputs
from flask_stalecache.core.model.note import NOTHING, Note
from flask_stalecache.core.model.policy import FAILURE_STATUSES, Windows
from flask_stalecache.core.model.reasons import Refusal, StoreRefusal
from flask_stalecache.core.rules.prefer_stale import PreferStale
from flask_stalecache.core.rules.serving import (
    PLAIN,
    Action,
    Facts,
    Fetch,
    Judgement,
    Serve,
    ServeOptions,
    Verdict,
    after,
    decide,
    is_due,
    is_fresh,
    judge,
)

NOON = 1_800_000_000.0
MODIFIED = Refusal(StoreRefusal.MODIFIED_SESSION)
MAX_AGE, SWR, SIE = 60.0, 600.0, 86400.0
JUST = 0.001


def stored(
    max_age: float = MAX_AGE,
    swr: float = SWR,
    sie: float = SIE,
    never_stale: bool = False,
    version: str = "",
    deployed: float = 0.0,
) -> Entry:
    """An entry whose origin answered at noon."""
    return Entry(
        key="k",
        serial="s",
        names=(),
        seq=0,
        version=version,
        deployed=deployed,
        started=NOON - 1,
        answered=NOON,
        windows=Windows(max_age, swr, sie),
        never_stale=never_stale,
        shared=False,
        absent=RequestInputs(),
        varied=(),
        status=200,
        headers=(),
        body=b"page",
        recipe={},
    )


# -- the decision ----------------------------------------------------------------------------------------------------

ENTRY = stored()
NEVER_STALE = stored(never_stale=True)
NO_SWR = stored(swr=0.0)
NO_SIE = stored(sie=0.0)
NO_STALE = stored(swr=0.0, sie=0.0)
SHORT_SIE = stored(swr=600.0, sie=100.0)
NEVER_FRESH = stored(max_age=0.0)
NOTHING_AT_ALL = stored(max_age=0.0, swr=0.0, sie=0.0)

#: Written long before, and until long after, every moment of the table.
PAUSE = Note(written=NOON - 1e9, failures=1, retry_at=NOON + 1e9)


def pause(written: float, retry_at: float) -> Note:
    return Note(written=NOON + written, failures=1, retry_at=NOON + retry_at)


HIT = (CacheStatus.HIT, False)
STALE_AND_REFRESH = (CacheStatus.STALE, True)
STALE = (CacheStatus.STALE, False)
UPDATING = (CacheStatus.UPDATING, False)
MISS = Fetch(CacheStatus.MISS, None, None)


def expired(entry: Entry, *, if_error: bool, if_locked: bool = True) -> Fetch:
    return Fetch(CacheStatus.EXPIRED, entry if if_error else None, entry if if_locked else None)


SWR_END, SIE_END = MAX_AGE + SWR, MAX_AGE + SIE
GOOD_OR_FAILED_IN_SIE = expired(ENTRY, if_error=True)
PAST_ALL = expired(ENTRY, if_error=False)

DECISIONS: list[Any] = [
    # none, or hard-purged: the origin's answer, stored: MISS
    pytest.param(None, NOTHING, 0.0, False, MISS, id="none"),
    pytest.param(None, PAUSE, 0.0, False, MISS, id="none, backing off: nothing to serve, so it is asked"),
    pytest.param(None, NOTHING, 0.0, True, MISS, id="none, a refresh pending"),
    # fresh: the entry: HIT
    pytest.param(ENTRY, NOTHING, 0.0, False, HIT, id="fresh, just answered"),
    pytest.param(ENTRY, NOTHING, MAX_AGE - JUST, False, HIT, id="fresh, just before its end"),
    pytest.param(ENTRY, PAUSE, MAX_AGE - JUST, False, HIT, id="fresh, backing off"),
    pytest.param(ENTRY, NOTHING, MAX_AGE - JUST, True, HIT, id="fresh, a refresh pending"),
    pytest.param(NEVER_STALE, NOTHING, MAX_AGE - JUST, False, HIT, id="fresh, never stale"),
    pytest.param(NO_STALE, NOTHING, MAX_AGE - JUST, False, HIT, id="fresh, no stale windows"),
    pytest.param(ENTRY, NOTHING, -JUST, False, HIT, id="fresh, clock stepped back a little"),
    pytest.param(ENTRY, NOTHING, -1e6, False, HIT, id="fresh, clock stepped back far"),
    # stale, in SWR, this request hands over the refresh: the entry, at once: STALE
    pytest.param(ENTRY, NOTHING, MAX_AGE, False, STALE_AND_REFRESH, id="in SWR, where freshness ends"),
    pytest.param(ENTRY, NOTHING, MAX_AGE + JUST, False, STALE_AND_REFRESH, id="in SWR, just after freshness"),
    pytest.param(ENTRY, NOTHING, SWR_END - JUST, False, STALE_AND_REFRESH, id="in SWR, just before its end"),
    pytest.param(NO_SIE, NOTHING, SWR_END - JUST, False, STALE_AND_REFRESH, id="in SWR, without SIE"),
    pytest.param(SHORT_SIE, NOTHING, MAX_AGE + 100, False, STALE_AND_REFRESH, id="in SWR, past a shorter SIE"),
    pytest.param(SHORT_SIE, NOTHING, SWR_END - JUST, False, STALE_AND_REFRESH, id="in SWR, long past a shorter SIE"),
    pytest.param(NEVER_FRESH, NOTHING, 0.0, False, STALE_AND_REFRESH, id="in SWR, max_age 0, just answered"),
    pytest.param(NEVER_FRESH, NOTHING, SWR - JUST, False, STALE_AND_REFRESH, id="in SWR, max_age 0, just before its end"),
    pytest.param(NEVER_FRESH, NOTHING, -1e6, False, STALE_AND_REFRESH, id="in SWR, max_age 0, clock stepped back: never fresh"),
    pytest.param(ENTRY, pause(-9, MAX_AGE), MAX_AGE, False, STALE_AND_REFRESH, id="in SWR, back-off ends now"),
    pytest.param(ENTRY, pause(-9, MAX_AGE - JUST), MAX_AGE, False, STALE_AND_REFRESH, id="in SWR, back-off just over"),
    pytest.param(ENTRY, pause(MAX_AGE + JUST, 1e9), MAX_AGE, False, STALE_AND_REFRESH, id="in SWR, a note from the future"),
    # stale, in SWR, a refresh is pending or backing off: the entry, at once: UPDATING
    pytest.param(ENTRY, NOTHING, MAX_AGE, True, UPDATING, id="in SWR, pending, where freshness ends"),
    pytest.param(ENTRY, NOTHING, SWR_END - JUST, True, UPDATING, id="in SWR, pending, just before its end"),
    pytest.param(ENTRY, PAUSE, MAX_AGE, False, UPDATING, id="in SWR, backing off, where freshness ends"),
    pytest.param(ENTRY, PAUSE, SWR_END - JUST, False, UPDATING, id="in SWR, backing off, just before its end"),
    pytest.param(ENTRY, PAUSE, MAX_AGE, True, UPDATING, id="in SWR, pending and backing off"),
    pytest.param(ENTRY, pause(MAX_AGE, 1e9), MAX_AGE, False, UPDATING, id="in SWR, failed just now"),
    pytest.param(ENTRY, pause(-9, MAX_AGE + JUST), MAX_AGE, False, UPDATING, id="in SWR, back-off about to end"),
    pytest.param(NEVER_FRESH, PAUSE, 0.0, False, UPDATING, id="in SWR, backing off, max_age 0"),
    pytest.param(SHORT_SIE, PAUSE, MAX_AGE + 100, False, UPDATING, id="in SWR, backing off, past a shorter SIE"),
    # stale, past SWR, in SIE, backing off: the entry, at once: STALE
    pytest.param(ENTRY, PAUSE, SWR_END, False, STALE, id="in SIE, backing off, where SWR ends"),
    pytest.param(ENTRY, PAUSE, SWR_END + JUST, False, STALE, id="in SIE, backing off, just after SWR"),
    pytest.param(ENTRY, PAUSE, SIE_END - JUST, False, STALE, id="in SIE, backing off, just before its end"),
    pytest.param(ENTRY, PAUSE, SWR_END, True, STALE, id="in SIE, backing off, a refresh pending"),
    pytest.param(NO_SWR, PAUSE, MAX_AGE, False, STALE, id="in SIE, backing off, SWR 0"),
    pytest.param(ENTRY, pause(SWR_END, 1e9), SWR_END, False, STALE, id="in SIE, failed just now"),
    # stale, past SWR: the origin's answer: EXPIRED; in SIE, and it fails: the entry
    pytest.param(ENTRY, NOTHING, SWR_END, False, GOOD_OR_FAILED_IN_SIE, id="past SWR, where it ends"),
    pytest.param(ENTRY, NOTHING, SWR_END + JUST, False, GOOD_OR_FAILED_IN_SIE, id="past SWR, just after its end"),
    pytest.param(ENTRY, NOTHING, SWR_END, True, GOOD_OR_FAILED_IN_SIE, id="past SWR, a refresh pending"),
    pytest.param(ENTRY, NOTHING, SIE_END - JUST, False, GOOD_OR_FAILED_IN_SIE, id="past SWR, just before the end of SIE"),
    pytest.param(ENTRY, pause(-9, SWR_END), SWR_END, False, GOOD_OR_FAILED_IN_SIE, id="past SWR, back-off ends now"),
    pytest.param(ENTRY, pause(SWR_END + JUST, 1e9), SWR_END, False, GOOD_OR_FAILED_IN_SIE, id="past SWR, a note from the future"),
    pytest.param(NO_SWR, NOTHING, MAX_AGE, False, expired(NO_SWR, if_error=True), id="SWR 0, where freshness ends"),
    pytest.param(NO_SWR, NOTHING, MAX_AGE, True, expired(NO_SWR, if_error=True), id="SWR 0, a refresh pending"),
    pytest.param(NEVER_FRESH, NOTHING, SWR, False, expired(NEVER_FRESH, if_error=True), id="max_age 0, where SWR ends"),
    # stale past all: the origin's answer, or its failure; the entry only if the wait for the lock is over
    pytest.param(ENTRY, NOTHING, SIE_END, False, PAST_ALL, id="past all, where SIE ends"),
    pytest.param(ENTRY, NOTHING, SIE_END + JUST, False, PAST_ALL, id="past all, just after SIE"),
    pytest.param(ENTRY, NOTHING, 1e9, False, PAST_ALL, id="past all, however old"),
    pytest.param(ENTRY, PAUSE, SIE_END, False, PAST_ALL, id="past all, backing off: nothing to serve, so it is asked"),
    pytest.param(ENTRY, PAUSE, SIE_END, True, PAST_ALL, id="past all, a refresh pending"),
    pytest.param(NO_SIE, NOTHING, SWR_END, False, expired(NO_SIE, if_error=False), id="SIE 0, where SWR ends"),
    pytest.param(NO_SIE, PAUSE, SWR_END, False, expired(NO_SIE, if_error=False), id="SIE 0, backing off"),
    pytest.param(SHORT_SIE, NOTHING, SWR_END, False, expired(SHORT_SIE, if_error=False), id="a shorter SIE, where SWR ends"),
    pytest.param(SHORT_SIE, PAUSE, SWR_END, False, expired(SHORT_SIE, if_error=False), id="a shorter SIE, backing off"),
    pytest.param(
        NOTHING_AT_ALL,
        NOTHING,
        0.0,
        False,
        expired(NOTHING_AT_ALL, if_error=False, if_locked=False),
        id="no windows, just answered",
    ),
    pytest.param(
        NOTHING_AT_ALL,
        PAUSE,
        -1e6,
        False,
        expired(NOTHING_AT_ALL, if_error=False, if_locked=False),
        id="no windows, clock stepped back",
    ),
    # must-revalidate, proxy-revalidate, bare s-maxage: never stale, whatever else
    *[
        pytest.param(
            NEVER_STALE, note, age, pending, expired(NEVER_STALE, if_error=False, if_locked=False), id=f"never stale, {name}"
        )
        for name, note, age, pending in [
            ("where freshness ends", NOTHING, MAX_AGE, False),
            ("in SWR", NOTHING, MAX_AGE + JUST, False),
            ("in SWR, pending", NOTHING, MAX_AGE, True),
            ("in SWR, backing off", PAUSE, MAX_AGE, False),
            ("in SIE", NOTHING, SWR_END, False),
            ("in SIE, backing off", PAUSE, SWR_END, False),
            ("past all", NOTHING, SIE_END, False),
        ]
    ],
]


@pytest.mark.parametrize(("entry", "note", "age", "pending", "expected"), DECISIONS)
def test_the_table_of_the_design(
    entry: Entry | None, note: Note, age: float, pending: bool, expected: Fetch | tuple[CacheStatus, bool]
) -> None:
    decision = decide(entry, note, NOON + age, pending=pending)
    if isinstance(expected, Fetch):
        assert decision == expected
    else:
        assert entry is not None
        assert decision == Serve(entry, *expected)


@pytest.mark.parametrize("note", [NOTHING.marked_unstorable(NOON), NOTHING.marked_personal(NOON, RequestInputs(cookies=("a",)))])
@pytest.mark.parametrize("age", [0.0, MAX_AGE, SWR_END, SIE_END])
def test_marks_in_a_note_do_not_change_what_is_served(note: Note, age: float) -> None:
    assert decide(ENTRY, note, NOON + age, pending=False) == decide(ENTRY, NOTHING, NOON + age, pending=False)


spans = st.sampled_from([0.0, 1.0, 60.0, 600.0])
moments = st.sampled_from([-1e6, -1.0, 0.0, 1.0, 59.0, 60.0, 61.0, 120.0, 600.0, 660.0, 661.0, 1200.0, 1e6])
cases = st.tuples(st.builds(stored, spans, spans, spans, st.booleans()), st.builds(pause, moments, moments), moments, st.booleans())


@given(cases)
def test_a_refresh_is_handed_over_only_with_a_stale_copy_and_never_twice_or_into_a_pause(
    case: tuple[Entry, Note, float, bool],
) -> None:
    entry, note, age, pending = case
    decision = decide(entry, note, NOON + age, pending=pending)
    if isinstance(decision, Serve) and decision.refresh:
        assert decision.status is CacheStatus.STALE
        assert not pending
        assert not note.backing_off(NOON + age)


@given(cases)
def test_what_forbids_stale_is_never_served_stale(case: tuple[Entry, Note, float, bool]) -> None:
    entry, note, age, pending = case
    decision = decide(entry, note, NOON + age, pending=pending)
    if entry.never_stale:
        assert decision in (Serve(entry, CacheStatus.HIT, False), Fetch(CacheStatus.EXPIRED, None, None))


@given(cases)
def test_a_hit_is_fresh_and_what_is_fresh_is_a_hit(case: tuple[Entry, Note, float, bool]) -> None:
    entry, note, age, pending = case
    hit = decide(entry, note, NOON + age, pending=pending) == Serve(entry, CacheStatus.HIT, False)
    assert hit is (max(age, 0.0) < entry.windows.max_age)


@given(cases, st.floats(0, 1e6))
def test_a_clock_that_steps_back_never_makes_a_copy_younger_than_new(case: tuple[Entry, Note, float, bool], back: float) -> None:
    entry, _, _, pending = case
    assert decide(entry, NOTHING, NOON - back, pending=pending) == decide(entry, NOTHING, NOON, pending=pending)


@given(cases, st.floats(0, 1e4))
def test_an_older_copy_is_never_served_where_a_younger_one_is_not(case: tuple[Entry, Note, float, bool], older: float) -> None:
    entry, note, age, pending = case
    if isinstance(decide(entry, note, NOON + age, pending=pending), Fetch):
        # A pause may begin or end with time: it is asked about the same pause.
        same = PAUSE if note.backing_off(NOON + age) else NOTHING
        assert isinstance(decide(entry, same, NOON + age + older, pending=pending), Fetch)


# -- what app, view and visitor say of it ----------------------------------------------------------------------------

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
    """An entry that was softly purged so many seconds after noon."""
    return stored(*(windows or (MAX_AGE, SWR, SIE)), never_stale=never_stale).softly_purged(NOON + at)


#: What is called what if somebody else has handed the refresh over.
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
#: Such an entry is not servable stale at all.
NEVER = {"if_error": False, "if_locked": False}

TERMS: list[Any] = [
    # prefer stale: the entry, however old, and a refresh
    pytest.param(None, NOTHING, 0.0, False, PREFER, MISS, id="prefer stale, none"),
    pytest.param(None, PAUSE, 0.0, True, PREFER, MISS, id="prefer stale, none, pending and backing off"),
    pytest.param(ENTRY, NOTHING, 0.0, False, PREFER, HIT_ONLY, id="prefer stale, fresh"),
    pytest.param(ENTRY, NOTHING, MAX_AGE - JUST, False, PREFER, HIT_ONLY, id="prefer stale, fresh, just before its end"),
    pytest.param(ENTRY, NOTHING, -1e6, False, PREFER, HIT_ONLY, id="prefer stale, clock stepped back"),
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
    pytest.param(ENTRY, NOTHING, -1e6, False, AHEAD, HIT_ONLY, id="refresh ahead, clock stepped back"),
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
    # Its stale windows are what the developer allows, and they begin where freshness ends: now.
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
        # What to call it if somebody else has handed over the refresh is asked only if this request would.
        assert tuple(decision[1 : 4 if decision.refresh else 3]) == expected


@pytest.mark.parametrize(
    ("entry", "age", "terms", "due"),
    [
        pytest.param(ENTRY, 0.0, PLAIN, False, id="fresh"),
        pytest.param(ENTRY, MAX_AGE - JUST, PLAIN, False, id="just before freshness ends"),
        pytest.param(ENTRY, MAX_AGE, PLAIN, True, id="where freshness ends"),
        pytest.param(ENTRY, 1e9, PLAIN, True, id="long ago"),
        pytest.param(ENTRY, -1e6, PLAIN, False, id="clock stepped back"),
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
        pytest.param(old(deployed=DEPLOYED + JUST), 0.0, SECOND, False, id="of a newer version"),
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
    in_line=st.booleans(),
    # Whoever reloads, and what only a visitor takes, is in the table.
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
    if terms.prefer_stale is not PreferStale.NO and not terms.in_line and not entry.never_stale:
        assert isinstance(decision, Serve)


@given(any_case)
def test_where_nobody_waits_what_is_stale_is_renewed_unless_it_backs_off(case: Case) -> None:
    entry, note, now, pending, terms = case
    decision = decide(entry, note, now, terms._replace(in_line=True), pending=pending)
    if not is_fresh(entry, now, terms) and not note.backing_off(now):
        may_stand_in = entry.in_swr(now) or entry.in_sie(now)
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
        # It is run on the terms that count whoever asks.
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
    if one.deployed != other.deployed:
        assert is_fresh(of_one, NOON, other) or is_fresh(of_other, NOON, one)


@given(any_case)
def test_what_has_no_stale_windows_is_not_served_stale_unless_preferred(case: Case) -> None:
    entry, note, now, pending, terms = case
    windows = replace(entry.windows, stale_while_revalidate=0.0, stale_if_error=0.0)
    entry, terms = replace(entry, windows=windows), terms._replace(prefer_stale=PreferStale.NO)
    decision = decide(entry, note, now, terms, pending=pending)
    assert is_fresh(entry, now, terms) or decision == Fetch(CacheStatus.EXPIRED, None, None)


# -- what an answer is to the store ----------------------------------------------------------------------------------

DEFAULTS = Windows(77.0, 600.0, 86400.0)
MAX_SIZE = 1000
IN_KEY = frozenset({"host", "accept-language"})
SESSION = RequestInputs(cookies=("session",))


def judged(
    *headers: tuple[str, str], policy: Policy | None = None, status: int = 200, size: int | None = 10, **facts: Any
) -> Judgement:
    about = Facts(status=status, headers=headers, size=size, directives=response_directives(headers), in_key=IN_KEY, **facts)
    return judge(about, Policy() if policy is None else policy, DEFAULTS, MAX_SIZE, NOON)


def cc(line: str) -> tuple[str, str]:
    return "Cache-Control", line


STORABLE: list[Any] = [
    pytest.param([], {}, id="a page that says nothing"),
    pytest.param([], {"status": 301}, id="301"),
    pytest.param([], {"status": 308}, id="308"),
    pytest.param([], {"status": 404, "policy": Policy(statuses={404: 60})}, id="a listed status"),
    pytest.param([], {"status": 404, "policy": Policy(statuses={404: None})}, id="a status listed without lifetime"),
    pytest.param([], {"size": 0}, id="empty over nothing"),
    pytest.param([], {"had_content": True}, id="content over content"),
    pytest.param([], {"size": 1, "had_content": True}, id="little content over content"),
    pytest.param([], {"size": 0, "had_content": True, "policy": Policy(statuses={200: None})}, id="empty over content, 200 listed"),
    pytest.param([], {"size": 0, "had_content": True, "status": 204, "policy": Policy(statuses={204: 5})}, id="204 listed"),
    pytest.param([], {"size": MAX_SIZE}, id="as large as allowed"),
    pytest.param([cc("public, max-age=5")], {}, id="public"),
    pytest.param([cc("must-revalidate")], {}, id="must-revalidate is stored, and never stale"),
    pytest.param([cc("max-age=0")], {}, id="max-age 0 is stored, and stale at once"),
    pytest.param([cc("no-storey, xprivate")], {}, id="words that begin or end like prohibitions"),
    pytest.param([cc('foo="private, no-store"')], {}, id="prohibitions in quotes"),
    pytest.param([cc("private"), ("Stalecache-Cache-Control", "max-age=5")], {}, id="a targeted field replaces private"),
    pytest.param([("Vary", "Accept-Language")], {}, id="Vary in the key"),
    pytest.param([("Vary", "host"), ("vary", "ACCEPT-LANGUAGE")], {}, id="several Vary in the key, in any case"),
    pytest.param([("Vary", "")], {}, id="an empty Vary"),
    pytest.param([("X-Set-Cookie", "a=1")], {}, id="a field that is not Set-Cookie"),
]


@pytest.mark.parametrize(("headers", "facts"), STORABLE)
def test_an_answer_that_may_be_stored(headers: Iterable[tuple[str, str]], facts: dict[str, Any]) -> None:
    judgement = judged(*headers, **facts)
    assert (judgement.verdict, judgement.reason) == (Verdict.STORABLE, None)


UNSTORABLE: list[Any] = [
    pytest.param([cc("no-store")], {}, "no-store", id="no-store"),
    pytest.param([cc("private")], {}, "private", id="private"),
    pytest.param([cc("no-cache")], {}, "no-cache", id="no-cache"),
    pytest.param([cc("max-age=60"), cc("PRIVATE")], {}, "private", id="private on a second line"),
    pytest.param([cc('private="a, b"')], {}, "private", id="rule2 qualified private"),
    pytest.param([cc('no-cache="a"')], {}, "no-cache", id="rule2 qualified no-cache"),
    pytest.param([cc("max-age=60"), ("Stalecache-Cache-Control", "private")], {}, "private", id="a targeted field says private"),
    pytest.param([("CDN-Cache-Control", "no-store")], {}, "no-store", id="CDN-Cache-Control says no-store"),
    pytest.param([cc("no-store")], {"policy": Policy(max_age=60)}, "no-store", id="no-store against code"),
    pytest.param([cc("private")], {"policy": Policy(statuses={200: 60})}, "private", id="private against listed status"),
    pytest.param([("Set-Cookie", "a=1")], {}, "sets a cookie", id="Set-Cookie"),
    pytest.param([("set-cookie", "a=1")], {}, "sets a cookie", id="set-cookie in lower case"),
    pytest.param([cc("public"), ("Set-Cookie", "a=1")], {}, "sets a cookie", id="Set-Cookie beside public"),
    pytest.param([("Vary", "*")], {}, "*", id="Vary: *"),
    pytest.param([("Vary", "Accept-Language, *")], {}, "*", id="Vary: * among others"),
    pytest.param([("Vary", "Cookie")], {}, "Vary names cookie", id="Vary outside the key"),
    pytest.param([("Vary", "Accept-Language, X-B, X-A")], {}, "vary=['x-a', 'x-b']", id="Vary partly outside the key"),
    pytest.param([], {"size": None}, "stream", id="a stream"),
    pytest.param([], {"size": MAX_SIZE + 1}, "STALECACHE_MAX_ENTRY_SIZE", id="a byte too large"),
    pytest.param([], {"refusal": MODIFIED}, "modified the session", id="a refusal seen while it was made"),
    pytest.param([], {"status": 404, "policy": Policy(statuses={410: 60})}, "404", id="a status not listed"),
    *[
        pytest.param([], {"status": status}, str(status), id=f"status {status}")
        for status in (201, 202, 203, 204, 205, 206, 300, 302, 303, 304, 307, 400, 401, 403, 404, 410, 429, 451, 501, 505)
    ],
]


@pytest.mark.parametrize(("headers", "facts", "reason"), UNSTORABLE)
def test_an_answer_that_can_not_be_stored_says_why(headers: Iterable[tuple[str, str]], facts: dict[str, Any], reason: str) -> None:
    judgement = judged(*headers, **facts)
    assert judgement.verdict is Verdict.UNSTORABLE
    assert judgement.reason is not None
    assert reason in judgement.reason.text


@pytest.mark.parametrize("status", sorted(FAILURE_STATUSES))
@pytest.mark.parametrize(
    ("headers", "facts"),
    [
        ([], {}),
        ([cc("public, max-age=60")], {}),
        ([cc("no-store")], {}),
        ([], {"size": None}),
        ([], {"carried": SESSION}),
        ([], {"refusal": MODIFIED}),
    ],
    ids=["plain", "public", "no-store", "stream", "carried", "refused"],
)
def test_rule18_a_failure_is_a_failure_whatever_else_it_says(
    status: int, headers: Iterable[tuple[str, str]], facts: dict[str, Any]
) -> None:
    assert judged(*headers, status=status, **facts).verdict is Verdict.FAILED


def test_failures_are_those_of_rfc_5861() -> None:
    assert {500, 502, 503, 504} == FAILURE_STATUSES


@pytest.mark.parametrize("carried", [SESSION, RequestInputs(headers=("x-user",))])
def test_an_answer_made_for_who_carries_a_name_is_personal(carried: RequestInputs) -> None:
    assert judged(carried=carried).verdict is Verdict.PERSONAL


@pytest.mark.parametrize(
    ("headers", "facts"),
    [
        ([cc("private")], {}),
        ([cc("no-store")], {}),
        ([("Set-Cookie", "a=1")], {}),
        ([], {"refusal": MODIFIED}),
    ],
    ids=["private", "no-store", "Set-Cookie", "session modified"],
)
def test_what_is_refused_for_who_carries_a_name_says_nothing_of_the_others(
    headers: Iterable[tuple[str, str]], facts: dict[str, Any]
) -> None:
    # A view that says "private" to members: the anonymous visitors behind one must not all run it.
    assert judged(*headers, carried=SESSION, **facts).verdict is Verdict.PERSONAL


def test_an_empty_page_does_not_replace_one_with_content() -> None:
    judgement = judged(size=0, had_content=True)
    assert judgement.verdict is Verdict.FAILED
    assert after(judgement.verdict, stored=True) is Action.KEEP


@pytest.mark.parametrize("status", [204, 205])
def test_a_status_without_content_does_not_take_away_a_page_that_had_some(status: int) -> None:
    judgement = judged(status=status, size=0, had_content=True)
    assert judgement.verdict is not Verdict.STORABLE
    assert after(judgement.verdict, stored=True) is Action.KEEP


def test_a_redirect_without_content_replaces_a_page_that_had_some() -> None:
    assert judged(status=301, size=0, had_content=True).verdict is Verdict.STORABLE


@pytest.mark.parametrize("vary", ["*", "Cookie", "X-A, Cookie", "Authorization"])
def test_what_vary_would_refuse_is_not_advised(vary: str) -> None:
    judgement = judged(("Vary", vary))
    assert judgement.reason is not None
    assert "vary=" not in judgement.reason.text


# -- its windows -----------------------------------------------------------------------------------------------------

CODED = Policy(max_age=5, stale_while_revalidate=6, stale_if_error=7)


@pytest.mark.parametrize(
    ("headers", "policy", "status", "windows"),
    [
        pytest.param([], Policy(), 200, (77, 600, 86400), id="nothing said: configured"),
        pytest.param([], Policy(max_age=5), 200, (5, 600, 86400), id="code says max_age"),
        pytest.param([], Policy(max_age=0), 200, (0, 600, 86400), id="code says max_age 0"),
        pytest.param([], CODED, 200, (5, 6, 7), id="code says all"),
        pytest.param([cc("max-age=8")], Policy(), 200, (8, 600, 86400), id="response says max-age"),
        pytest.param([cc("max-age=8")], Policy(max_age=5), 200, (5, 600, 86400), id="code over response"),
        pytest.param([cc("max-age=8, s-maxage=9")], Policy(), 200, (9, 0, 0), id="rule11 s-maxage, bare: no stale windows"),
        pytest.param([("Expires", http_date(NOON + 8))], Policy(), 200, (8, 600, 86400), id="rule11 Expires"),
        pytest.param([cc("max-age=8"), ("CDN-Cache-Control", "max-age=4")], Policy(), 200, (4, 600, 86400), id="rule28 targeted"),
        pytest.param(
            [cc("stale-while-revalidate=8, stale-if-error=9")], Policy(), 200, (77, 8, 9), id="response says stale windows"
        ),
        pytest.param(
            [cc("must-revalidate")], Policy(max_age=5, stale_while_revalidate=6), 200, (5, 0, 0), id="rule16 must-revalidate"
        ),
        pytest.param([], Policy(statuses={404: 3}), 404, (3, 600, 86400), id="a lifetime of a status"),
        pytest.param([cc("max-age=8")], Policy(max_age=5, statuses={404: 3}), 404, (3, 600, 86400), id="a status over all"),
        pytest.param([], Policy(max_age=5, statuses={404: 3}), 200, (5, 600, 86400), id="a status, but another"),
        pytest.param([], Policy(max_age=5, statuses={404: None}), 404, (5, 600, 86400), id="a status without lifetime: max_age"),
        pytest.param(
            [cc("max-age=8")], Policy(statuses={404: None}), 404, (8, 600, 86400), id="a status without lifetime: response"
        ),
        pytest.param([], Policy(max_age=5, statuses={404: 0}), 404, (0, 600, 86400), id="a status with lifetime 0"),
        pytest.param([], Policy(max_age=5, statuses={200: 3}), 200, (3, 600, 86400), id="a lifetime for 200"),
    ],
)
def test_windows_of_what_is_stored(
    headers: Iterable[tuple[str, str]], policy: Policy, status: int, windows: tuple[float, float, float]
) -> None:
    judgement = judged(*headers, policy=policy, status=status)
    assert (judgement.verdict, judgement.windows) == (Verdict.STORABLE, Windows(*windows))


@pytest.mark.parametrize(
    ("said", "headers", "policy", "status", "max_age"),
    [
        pytest.param(None, [], Policy(max_age=5), 200, 5, id="nothing said"),
        pytest.param(3.0, [], Policy(max_age=5), 200, 3, id="shorter than code"),
        pytest.param(5.0, [], Policy(max_age=5), 200, 5, id="as long as code"),
        pytest.param(9.0, [], Policy(max_age=5), 200, 5, id="longer than code: never lengthened"),
        pytest.param(3.0, [cc("max-age=8")], Policy(), 200, 3, id="shorter than the response"),
        pytest.param(9.0, [cc("max-age=8")], Policy(), 200, 8, id="longer than the response"),
        pytest.param(3.0, [cc("max-age=1")], Policy(max_age=5), 200, 3, id="shorter than code, longer than the response"),
        pytest.param(3.0, [cc("s-maxage=8")], Policy(), 200, 3, id="shorter than s-maxage"),
        pytest.param(3.0, [("Expires", http_date(NOON + 8))], Policy(), 200, 3, id="shorter than Expires"),
        pytest.param(3.0, [], Policy(), 200, 3, id="shorter than configured"),
        pytest.param(99.0, [], Policy(), 200, 77, id="longer than configured"),
        pytest.param(3.0, [], Policy(statuses={404: 4}), 404, 3, id="shorter than its status"),
        pytest.param(9.0, [], Policy(max_age=20, statuses={404: 4}), 404, 4, id="longer than its status"),
        pytest.param(0.0, [], Policy(max_age=5), 200, 0, id="nothing at all"),
        pytest.param(0.0, [], Policy(max_age=0), 200, 0, id="nothing of nothing"),
    ],
)
def test_the_origin_shortens_freshness_and_never_lengthens_it(
    said: float | None, headers: Iterable[tuple[str, str]], policy: Policy, status: int, max_age: float
) -> None:
    judgement = judged(*headers, policy=policy, status=status, said_max_age=said)
    assert judgement.verdict is Verdict.STORABLE
    assert judgement.windows == replace(judged(*headers, policy=policy, status=status).windows, max_age=max_age)


LINES = ("private", "no-store", "no-cache", "public", "max-age=5", "s-maxage=5", "must-revalidate", "stale-if-error=9")


@given(
    st.sets(st.sampled_from(LINES)),
    st.sampled_from([200, 204, 206, 301, 302, 404, 500, 503]),
    st.sampled_from([None, 0, 10, MAX_SIZE + 1]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_what_is_storable_breaks_no_prohibition(
    lines: set[str], status: int, size: int | None, sets_cookie: bool, carried: bool, had_content: bool
) -> None:
    headers = [cc(", ".join(sorted(lines))), *([("Set-Cookie", "a=1")] if sets_cookie else [])]
    names = SESSION if carried else RequestInputs()
    judgement = judged(*headers, status=status, size=size, carried=names, had_content=had_content)
    allowed = (
        not lines & {"private", "no-store", "no-cache"}
        and status in (200, 301)
        and size is not None
        and size <= MAX_SIZE
        and not sets_cookie
        and not carried
        and (size > 0 or not had_content or status == 301)
    )
    assert (judgement.verdict is Verdict.STORABLE) is allowed
    assert bool(judgement.reason) is not allowed


# -- what it does to what is stored ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "is_stored", "anybodys", "action"),
    [
        (Verdict.STORABLE, True, True, Action.REPLACE),
        (Verdict.STORABLE, False, True, Action.REPLACE),
        (Verdict.UNSTORABLE, True, True, Action.DROP),
        (Verdict.UNSTORABLE, True, False, Action.KEEP),
        (Verdict.UNSTORABLE, False, True, Action.KEEP),
        (Verdict.PERSONAL, True, False, Action.KEEP),
        (Verdict.PERSONAL, True, True, Action.KEEP),
        (Verdict.PERSONAL, False, False, Action.KEEP),
        (Verdict.FAILED, True, True, Action.KEEP),
        (Verdict.FAILED, True, False, Action.KEEP),
        (Verdict.FAILED, False, True, Action.KEEP),
    ],
)
def test_an_answer_replaces_keeps_or_drops_what_is_stored(
    verdict: Verdict, is_stored: bool, anybodys: bool, action: Action
) -> None:
    assert after(verdict, stored=is_stored, anybodys=anybodys) is action


@pytest.mark.parametrize(
    ("headers", "status", "action"),
    [
        pytest.param([], 200, Action.REPLACE, id="2xx replaces"),
        pytest.param([], 404, Action.DROP, id="404 takes the page away"),
        pytest.param([], 410, Action.DROP, id="410 takes the page away"),
        pytest.param([cc("private")], 200, Action.DROP, id="now private drops"),
        pytest.param([cc("no-store")], 200, Action.DROP, id="now no-store drops"),
        *[pytest.param([], status, Action.KEEP, id=f"{status} keeps") for status in sorted(FAILURE_STATUSES)],
    ],
)
def test_after_a_refresh(headers: Iterable[tuple[str, str]], status: int, action: Action) -> None:
    assert after(judged(*headers, status=status).verdict, stored=True) is action


def test_a_listed_404_replaces_the_page() -> None:
    verdict = judged(status=404, policy=Policy(statuses={404: 60}), had_content=True).verdict
    assert after(verdict, stored=True) is Action.REPLACE


def test_every_verdict_has_its_action() -> None:
    assert all(isinstance(after(verdict, stored=s), Action) for verdict, s in itertools.product(Verdict, (True, False)))
