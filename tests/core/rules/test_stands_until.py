"""Until when a decision stands: at no time before that :func:`decide` comes to another one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_stalecache.core.model.entry import Entry
from flask_stalecache.core.model.moments import AHEAD
from flask_stalecache.core.model.note import NOTHING, Note
from flask_stalecache.core.rules.prefer_stale import PreferStale
from flask_stalecache.core.rules.serving import PLAIN, ServeOptions, decide, stands_until
from support.serving import ENTRY, MAX_AGE, NEVER_FRESH, NOON, SIE_END, SWR_END, moments, pause, spans, stored


@pytest.mark.parametrize(
    ("entry", "note", "after", "terms", "until"),
    [
        pytest.param(ENTRY, NOTHING, 0.0, PLAIN, MAX_AGE, id="fresh: until it is stale"),
        pytest.param(ENTRY, NOTHING, 0.0, ServeOptions(refresh_ahead=10.0), MAX_AGE - 10, id="fresh: until a refresh ahead is due"),
        pytest.param(ENTRY, NOTHING, 0.0, ServeOptions(refresh_ahead=600.0), MAX_AGE / 2, id="ahead by half at most"),
        pytest.param(ENTRY, NOTHING, 55.0, ServeOptions(refresh_ahead=10.0), MAX_AGE, id="due ahead: until it is stale"),
        pytest.param(ENTRY, NOTHING, MAX_AGE, PLAIN, SWR_END, id="in SWR: until its end"),
        pytest.param(ENTRY, NOTHING, SWR_END, PLAIN, SIE_END, id="in SIE: until its end"),
        pytest.param(ENTRY, NOTHING, SIE_END, PLAIN, math.inf, id="past all"),
        pytest.param(ENTRY, pause(0.0, 90.0), 70.0, PLAIN, 90.0, id="backing off: until the next try"),
        pytest.param(ENTRY, pause(80.0, 90.0), 70.0, PLAIN, 80.0, id="a pause that begins: the clock stepped back"),
        pytest.param(NEVER_FRESH, NOTHING, 0.0, PLAIN, 600.0, id="never fresh"),
        pytest.param(ENTRY, NOTHING, -1000.0, PLAIN, -AHEAD, id="from the future: until it is not"),
    ],
)
def test_a_decision_stands_until(entry: Entry, note: Note, after: float, terms: ServeOptions, until: float) -> None:
    assert stands_until(entry, note, NOON + after, terms) == pytest.approx(NOON + until)


@given(
    windows=st.tuples(spans, spans, spans),
    never_stale=st.booleans(),
    deployed=st.sampled_from([0.0, NOON + 100, NOON + 1000]),
    version=st.sampled_from(["", "2"]),
    written=moments,
    lasts=spans,
    after=moments,
    share=st.floats(0.0, 1.0),
    pending=st.booleans(),
    ahead=st.sampled_from([0.0, 10.0, math.inf]),
    prefers=st.sampled_from(PreferStale),
    others=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_time_alone_changes_no_decision_before(
    windows: tuple[float, float, float],
    never_stale: bool,
    deployed: float,
    version: str,
    written: float,
    lasts: float,
    after: float,
    share: float,
    pending: bool,
    ahead: float,
    prefers: PreferStale,
    others: tuple[bool, bool, bool],
) -> None:
    entry = stored(*windows, never_stale, version, deployed)
    note, now = pause(written, written + lasts), NOON + after
    terms = ServeOptions("", NOON, ahead, prefers, others[0], others[1], shows_errors=others[2])
    until = min(stands_until(entry, note, now, terms), now + 1e7)
    assert until > now
    # Not the very end: sums of floats are a little off.
    later = now + share * (until - now - 1e-5) if until - now > 1e-5 else now
    before, then = decide(entry, note, now, terms, pending=pending), decide(entry, note, later, terms, pending=pending)
    assert then == before
