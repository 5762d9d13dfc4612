"""What a request allows to be served from the store. Test ids name the rules of docs/rules.rst."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_stalecache.core.http.cache_control import RequestDirectives, request_directives
from flask_stalecache.core.http.request import accepts, may_use

# -- what it says ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cache_control", "pragma", "expected"),
    [
        pytest.param(None, None, {}, id="rule15-nothing"),
        pytest.param("", None, {}, id="rule15-empty"),
        pytest.param("no-cache", None, {"no_cache": True}, id="rule15-no-cache"),
        pytest.param("no-store", None, {"no_store": True}, id="rule1-no-store"),
        pytest.param("only-if-cached", None, {"only_if_cached": True}, id="rule15-only-if-cached"),
        pytest.param("NO-CACHE, Max-Age=5", None, {"no_cache": True, "max_age": 5}, id="rule12-any-case"),
        pytest.param(None, "no-cache", {"no_cache": True}, id="rule15-pragma"),
        pytest.param(None, "foo, No-Cache", {"no_cache": True}, id="rule15-pragma-in-a-list"),
        pytest.param(None, "no-cachex", {}, id="rule12-pragma-never-matches-substrings"),
        pytest.param(None, "no-store, max-age=5", {}, id="rule15-nothing-else-in-pragma"),
        pytest.param("max-age=5", "no-cache", {"max_age": 5}, id="rule15-pragma-beside-cache-control-means-nothing"),
        pytest.param("", "no-cache", {}, id="rule15-nor-beside-an-empty-one"),
        pytest.param("max-age=5", None, {"max_age": 5}, id="rule15-max-age"),
        pytest.param('max-age="5"', None, {"max_age": 5}, id="rule12-quoted"),
        pytest.param("max-age=x", None, {"max_age": 0}, id="rule12-a-bad-max-age-wants-a-new-answer"),
        pytest.param("max-age", None, {"max_age": 0}, id="rule12-a-max-age-without-number-too"),
        pytest.param("max-age=5, max-age=9", None, {"max_age": 0}, id="rule12-and-one-that-is-said-twice"),
        pytest.param("max-age=99999999999", None, {"max_age": 2**31}, id="rule12-overflow"),
        pytest.param("min-fresh=5", None, {"min_fresh": 5}, id="rule15-min-fresh"),
        pytest.param("min-fresh=-5", None, {"min_fresh": math.inf}, id="rule12-no-freshness-is-enough-for-a-bad-min-fresh"),
        pytest.param("max-stale=5", None, {"max_stale": 5}, id="rule15-max-stale"),
        pytest.param("max-stale", None, {"max_stale": math.inf}, id="rule15-bare-max-stale-has-no-end"),
        pytest.param("max-stale=", None, {"max_stale": 0}, id="rule12-an-empty-max-stale-is-not-bare"),
        pytest.param("max-stale=x", None, {"max_stale": 0}, id="rule12-a-bad-max-stale-allows-nothing"),
        pytest.param("max-stale, max-stale", None, {"max_stale": 0}, id="rule12-nor-does-one-that-is-said-twice"),
        pytest.param("stale-if-error=5", None, {"stale_if_error": 5}, id="rule18-stale-if-error"),
        pytest.param("stale-if-error=x", None, {"stale_if_error": 0}, id="rule12-a-bad-stale-if-error-allows-nothing"),
        pytest.param('foo="no-store, max-age=5"', None, {}, id="rule12-never-match-in-quotes"),
        pytest.param('foo="bar, no-cache, max-stale', None, {"no_cache": True, "max_stale": 0}, id="rule12-a-broken-quote"),
    ],
)
def test_what_a_request_says(cache_control: str | None, pragma: str | None, expected: dict[str, float]) -> None:
    assert request_directives(cache_control, pragma) == RequestDirectives(**expected)  # type: ignore[arg-type]


@given(st.none() | st.text('maxge-stlno=",\\ 019', max_size=20), st.none() | st.text(max_size=20))
def test_rule12_no_request_is_too_odd_to_be_read(cache_control: str | None, pragma: str | None) -> None:
    said = request_directives(cache_control, pragma)
    assert all(number is None or number >= 0 for number in (said.max_age, said.min_fresh, said.max_stale, said.stale_if_error))


# -- what it allows ----------------------------------------------------------------------------------------------------

#: Seconds of freshness that an entry of age 10 has left.
FRESH, STALE = 30.0, -30.0


@pytest.mark.parametrize(
    ("line", "fresh_for", "accepted", "usable"),
    [
        pytest.param("", FRESH, True, True, id="rule15-nothing-said-fresh"),
        pytest.param("", STALE, True, False, id="rule15-nothing-said-stale-is-not-its-own-word"),
        pytest.param("no-cache", FRESH, False, False, id="rule15-no-cache"),
        pytest.param("no-cache, max-stale", FRESH, False, False, id="rule15-no-cache-over-max-stale"),
        pytest.param("max-age=10", FRESH, True, True, id="rule15-max-age-as-old"),
        pytest.param("max-age=9", FRESH, False, False, id="rule15-max-age-too-old"),
        pytest.param("max-age=0", FRESH, False, False, id="rule15-max-age-0"),
        pytest.param("max-age=99", STALE, False, False, id="rule15-max-age-wants-nothing-stale"),
        pytest.param("max-age=99, max-stale", STALE, True, True, id="rule15-max-age-with-max-stale"),
        pytest.param("max-age=9, max-stale", STALE, False, False, id="rule15-max-stale-makes-nothing-younger"),
        pytest.param("min-fresh=30", FRESH, True, True, id="rule15-min-fresh-just-enough"),
        pytest.param("min-fresh=31", FRESH, False, False, id="rule15-min-fresh-too-little"),
        pytest.param("min-fresh=0", STALE, False, False, id="rule15-min-fresh-of-what-is-stale"),
        pytest.param("min-fresh=x", FRESH, False, False, id="rule12-bad-min-fresh"),
        pytest.param("max-stale", STALE, True, True, id="rule15-max-stale-bare"),
        pytest.param("max-stale=30", STALE, True, True, id="rule15-max-stale-just-enough"),
        pytest.param("max-stale=29", STALE, False, False, id="rule15-max-stale-too-little"),
        pytest.param("max-stale=x", STALE, False, False, id="rule12-bad-max-stale"),
        pytest.param("max-stale=0", FRESH, True, True, id="rule15-max-stale-of-what-is-fresh"),
        pytest.param("max-stale=5", 0.0, True, True, id="rule15-freshness-just-over"),
        pytest.param("only-if-cached, no-store", FRESH, True, True, id="rule15-of-no-matter-here"),
    ],
)
def test_what_a_request_allows(line: str, fresh_for: float, accepted: bool, usable: bool) -> None:
    said = request_directives(line, None)
    assert accepts(said, age=10.0, fresh_for=fresh_for) is accepted
    assert may_use(said, age=10.0, fresh_for=fresh_for, may_be_stale=True) is usable
    # Rule 16: what the response forbids binds, whatever the request says.
    assert may_use(said, age=10.0, fresh_for=fresh_for, may_be_stale=False) is (usable and fresh_for > 0)


@given(st.text('maxge-stlno=", 019', max_size=20), st.floats(0, 100), st.floats(-100, 100))
def test_rule15_what_may_be_used_is_accepted(line: str, age: float, fresh_for: float) -> None:
    said = request_directives(line, None)
    assert accepts(said, age=age, fresh_for=fresh_for) or not may_use(said, age=age, fresh_for=fresh_for, may_be_stale=True)
