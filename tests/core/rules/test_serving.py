"""The decision what to serve: every row of its table, with every boundary. Covers ``core.rules.prefer_stale``."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_stalecache import CacheStatus
from flask_stalecache.core.model.entry import Entry
from flask_stalecache.core.model.inputs import RequestInputs
from flask_stalecache.core.model.moments import AHEAD
from flask_stalecache.core.model.note import NOTHING, Note
from flask_stalecache.core.rules.serving import (
    Fetch,
    Serve,
    decide,
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
    SIE_END,
    SWR,
    SWR_END,
    expired,
    moments,
    pause,
    spans,
    stored,
)

NO_SIE = stored(sie=0.0)

SHORT_SIE = stored(swr=600.0, sie=100.0)

HIT = (CacheStatus.HIT, False)

STALE_AND_REFRESH = (CacheStatus.STALE, True)

STALE = (CacheStatus.STALE, False)

UPDATING = (CacheStatus.UPDATING, False)

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
    pytest.param(ENTRY, NOTHING, -1e6, False, STALE_AND_REFRESH, id="from the future"),
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
    assert hit is (age >= -AHEAD and max(age, 0.0) < entry.windows.max_age)


@given(cases, st.floats(0, 1e6))
def test_a_clock_that_steps_back_never_makes_a_copy_younger_than_new(case: tuple[Entry, Note, float, bool], back: float) -> None:
    entry, _, _, pending = case
    # If the clock stepped back far, the copy is from the future, and counts as just stale.
    age = 0.0 if back <= AHEAD else entry.windows.max_age
    assert decide(entry, NOTHING, NOON - back, pending=pending) == decide(entry, NOTHING, NOON + age, pending=pending)


@given(cases, st.floats(0, 1e4))
def test_an_older_copy_is_never_served_where_a_younger_one_is_not(case: tuple[Entry, Note, float, bool], older: float) -> None:
    entry, note, age, pending = case
    if isinstance(decide(entry, note, NOON + age, pending=pending), Fetch):
        # A pause may begin or end between the two ages, so the later decision is made with the same pause.
        same = PAUSE if note.backing_off(NOON + age) else NOTHING
        assert isinstance(decide(entry, same, NOON + age + older, pending=pending), Fetch)
