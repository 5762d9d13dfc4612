"""How long a response may be used, and by whose word. Test ids name the rules of docs/rules.rst."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.http import http_date

from flask_stalecache.core.http.cache_control import response_directives
from flask_stalecache.core.http.freshness import HEURISTIC_LIMIT, forbids_stale, initial_age, lifetime, stale_windows, switches_off
from flask_stalecache.core.model.policy import Windows

NOON = 1_800_000_000.0
CONFIGURED = 77.0
DEFAULTS = Windows(CONFIGURED, 600.0, 86400.0)

CC, OURS, CDN = "Cache-Control", "Stalecache-Cache-Control", "CDN-Cache-Control"


def date(offset: float) -> str:
    return http_date(NOON + offset)


def lifetime_of(coded: float | None, headers: list[tuple[str, str]]) -> float:
    return lifetime(coded, response_directives(headers), headers, NOON, CONFIGURED)


# -- freshness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("coded", "headers", "expected"),
    [
        pytest.param(None, [], CONFIGURED, id="rule11-nothing-said-is-configured"),
        pytest.param(5.0, [(CC, "s-maxage=1, max-age=2"), ("Expires", date(3))], 5.0, id="rule11-code-wins"),
        pytest.param(0.0, [(CC, "max-age=2")], 0.0, id="rule11-code-wins-with-0"),
        pytest.param(5.0, [(OURS, "max-age=2")], 5.0, id="rule11-code-wins-over-targeted"),
        pytest.param(None, [(OURS, "max-age=4"), (CC, "s-maxage=1, max-age=2")], 4.0, id="rule11-targeted-over-s-maxage"),
        pytest.param(None, [(OURS, "s-maxage=3, max-age=4")], 3.0, id="rule11-s-maxage-in-targeted"),
        pytest.param(None, [(CC, "max-age=2, s-maxage=1")], 1.0, id="rule11-s-maxage-over-max-age"),
        pytest.param(None, [(CC, "max-age=2, s-maxage=0")], 0.0, id="rule11-s-maxage-0-over-max-age"),
        pytest.param(None, [(CC, "max-age=2"), ("Expires", date(30))], 2.0, id="rule11-max-age-over-expires"),
        pytest.param(None, [(CC, "max-age=0"), ("Expires", date(30))], 0.0, id="rule11-max-age-0-over-expires"),
        pytest.param(None, [(CC, "max-age=x"), ("Expires", date(30))], 0.0, id="rule12-bad-max-age-is-stale-whatever-expires-says"),
        pytest.param(None, [("Expires", date(30)), ("Date", date(10))], 20.0, id="rule11-expires-minus-date"),
        pytest.param(None, [("Expires", date(30)), ("Date", date(-3600))], 3630.0, id="rule11-expires-minus-date-of-another-clock"),
        pytest.param(None, [("Expires", date(30))], 30.0, id="rule11-expires-without-date"),
        pytest.param(None, [("Expires", date(30)), ("Date", "yesterday")], 30.0, id="rule11-expires-with-invalid-date"),
        pytest.param(None, [("EXPIRES", date(30)), ("date", date(10))], 20.0, id="rule11-field-names-in-any-case"),
        pytest.param(None, [("Expires", date(0)), ("Date", date(0))], 0.0, id="rule11-expires-now"),
        pytest.param(None, [("Expires", date(-30))], 0.0, id="rule11-expires-in-the-past-is-never-negative"),
        pytest.param(None, [("Expires", "0")], 0.0, id="rule12-expires-0"),
        pytest.param(None, [("Expires", "-1")], 0.0, id="rule12-expires-minus-1"),
        pytest.param(None, [("Expires", "")], 0.0, id="rule12-expires-empty"),
        pytest.param(None, [("Expires", "soon")], 0.0, id="rule12-expires-invalid"),
        pytest.param(None, [("Expires", "Fri, 31 Feb 2027 00:00:00 GMT")], 0.0, id="rule12-expires-on-no-day"),
        pytest.param(None, [("Expires", date(30).replace("GMT", "EST"))], 0.0, id="rule12-expires-in-another-zone"),
        pytest.param(None, [("Expires", date(30).replace("GMT", "UTC"))], 0.0, id="rule12-expires-in-utc-by-another-name"),
        pytest.param(None, [("Expires", date(30).lower())], 30.0, id="rule12-expires-in-lower-case"),
        pytest.param(None, [("Expires", date(30)), ("Expires", date(30))], 0.0, id="rule12-expires-twice"),
        pytest.param(
            None, [("Expires", date(30)), ("Date", date(10)), ("Date", date(20))], 20.0, id="rule12-the-first-of-two-dates"
        ),
        pytest.param(None, [(CC, "no-cache, max-age=5")], 0.0, id="rule16-no-cache-over-max-age"),
        pytest.param(5.0, [(CC, 'no-cache="x"')], 0.0, id="rule16-no-cache-over-code"),
        pytest.param(None, [(CC, "no-cache"), (OURS, "max-age=5")], 5.0, id="rule28-targeted-lifts-no-cache"),
        pytest.param(
            None, [(CC, "public"), ("Expires", date(30))], 30.0, id="rule11-a-cache-control-without-number-leaves-expires"
        ),
        pytest.param(None, [(OURS, "public"), ("Expires", date(30))], CONFIGURED, id="rule28-targeted-replaces-expires-too"),
        pytest.param(None, [(CDN, "must-revalidate"), ("Expires", "0")], CONFIGURED, id="rule28-cdn-replaces-expires-too"),
        pytest.param(None, [(OURS, ""), ("Expires", date(30))], 30.0, id="rule28-an-empty-targeted-field-leaves-expires"),
        pytest.param(None, [(OURS, "%"), (CC, "max-age=2")], 2.0, id="rule28-an-invalid-targeted-field-leaves-cache-control"),
        pytest.param(None, [("Last-Modified", date(-1000))], CONFIGURED, id="rule11-configured-before-heuristic"),
    ],
)
def test_a_lifetime_is_the_first_that_is_said(coded: float | None, headers: list[tuple[str, str]], expected: float) -> None:
    assert lifetime_of(coded, headers) == expected


LM = "Last-Modified"


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        pytest.param(200, [(LM, date(-1000))], 100.0, id="rule11-a-tenth-of-its-age"),
        pytest.param(200, [(LM, date(-1000)), ("Date", date(-500))], 50.0, id="rule11-its-age-at-its-date"),
        pytest.param(200, [(LM, date(-1000)), ("Date", "0")], 100.0, id="rule11-an-invalid-date-is-now"),
        pytest.param(200, [(LM, date(-400 * 86400))], HEURISTIC_LIMIT, id="rule11-a-day-at-most"),
        pytest.param(200, [(LM, date(0))], 0.0, id="rule11-modified-now"),
        pytest.param(200, [(LM, date(1000))], 0.0, id="rule11-modified-in-the-future"),
        pytest.param(200, [(LM, "yesterday")], 0.0, id="rule11-modified-on-no-day"),
        pytest.param(200, [], 0.0, id="rule11-nothing-to-guess-from"),
        pytest.param(404, [(LM, date(-1000))], 100.0, id="rule11-another-status-that-allows-it"),
        pytest.param(403, [(LM, date(-1000))], 0.0, id="rule11-a-status-that-does-not"),
        pytest.param(302, [(LM, date(-1000))], 0.0, id="rule11-a-redirect"),
        pytest.param(599, [(LM, date(-1000))], 0.0, id="rule11-an-unknown-status"),
        pytest.param(599, [(LM, date(-1000)), (CC, "public")], 100.0, id="rule11-unless-public"),
        pytest.param(None, [(LM, date(-1000))], 0.0, id="rule11-no-status"),
        pytest.param(200, [(LM, date(-1000)), (CC, "no-cache")], 0.0, id="rule16-never-with-no-cache"),
        pytest.param(200, [(LM, date(-1000)), (CC, "max-age=5")], 5.0, id="rule11-max-age-before-a-guess"),
        pytest.param(200, [(LM, date(-1000)), (CC, "max-age=x")], 0.0, id="rule12-a-bad-max-age-before-a-guess"),
        pytest.param(200, [(LM, date(-1000)), ("Expires", "0")], 0.0, id="rule12-a-bad-expires-before-a-guess"),
        pytest.param(200, [(LM, date(-1000)), (OURS, "foo"), ("Expires", date(5))], 100.0, id="rule28-targeted-leaves-a-guess"),
    ],
)
def test_where_nothing_is_said_a_lifetime_may_be_guessed(status: int, headers: list[tuple[str, str]], expected: float) -> None:
    assert lifetime(None, response_directives(headers), iter(headers), NOON, None, status=status) == expected


def test_rule11_what_is_configured_goes_before_a_guess() -> None:
    assert lifetime(None, response_directives([]), [(LM, date(-1000))], NOON, CONFIGURED, status=200) == CONFIGURED


@given(st.text(max_size=30), st.text(max_size=30))
def test_rule12_no_date_is_too_odd_to_be_read(expires: str, date: str) -> None:
    assert lifetime_of(None, [("Expires", expires), ("Date", date)]) >= 0


# -- age on arrival --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "took", "expected"),
    [
        pytest.param([], 0, 0, id="rule13-nothing-told"),
        pytest.param([("Date", date(0))], 0, 0, id="rule13-made-now"),
        pytest.param([("Date", date(-7200))], 0, 7200, id="rule13-apparent-age"),
        pytest.param([("Date", date(7200))], 0, 0, id="rule13-from-the-future-is-never-negative"),
        pytest.param([("Date", "0")], 0, 0, id="rule13-made-on-no-day"),
        pytest.param([("Age", "30")], 0, 30, id="rule13-age"),
        pytest.param([("Age", "30")], 2, 32, id="rule13-age-corrected-by-the-exchange"),
        pytest.param([], 2, 2, id="rule13-the-exchange-alone"),
        pytest.param([("Age", "30")], -2, 30, id="rule13-a-clock-that-stepped-back"),
        pytest.param([("Age", "30"), ("Date", date(-20))], 0, 30, id="rule13-the-greater-is-age"),
        pytest.param([("Age", "30"), ("Date", date(-40))], 5, 40, id="rule13-the-greater-is-apparent"),
        pytest.param([("age", "0")], 0, 0, id="rule13-zero"),
        pytest.param([("Age", "0, 7200")], 0, 0, id="rule13-the-first-of-several"),
        pytest.param([("Age", "7200, 0")], 0, 7200, id="rule13-the-first-of-several-is-old"),
        pytest.param([("Age", "0"), ("Age", "7200")], 0, 0, id="rule13-several-lines"),
        pytest.param([("Age", "7200"), ("Age", "0")], 0, 7200, id="rule13-several-lines-the-first-is-old"),
        pytest.param([("Age", "foo, 7200")], 0, 0, id="rule13-the-first-is-invalid"),
        pytest.param([("Age", ""), ("Age", "7200")], 0, 7200, id="rule13-an-empty-line-is-none"),
        pytest.param([("Age", "foo")], 3, 3, id="rule13-no-number-is-ignored"),
        pytest.param([("Age", "-7200")], 0, 0, id="rule13-negative-is-ignored"),
        pytest.param([("Age", "7200.0")], 0, 0, id="rule13-fraction-is-ignored"),
        pytest.param([("Age", "7200;foo=bar")], 0, 0, id="rule13-with-a-parameter-is-ignored"),
        pytest.param([("Age", '"7200"')], 0, 0, id="rule13-quoted-is-ignored"),
        pytest.param([("Age", "2147483648")], 0, 2**31, id="rule13-overflow"),
        pytest.param([("Age", "9" * 5000)], 0, 2**31, id="rule13-more-digits-than-python-reads"),
    ],
)
def test_the_age_on_arrival(headers: list[tuple[str, str]], took: float, expected: float) -> None:
    assert initial_age(iter(headers), NOON - took, NOON) == expected


@given(st.text(max_size=12), st.text(max_size=30), st.floats(-10, 10))
def test_rule13_no_age_is_negative(age: str, made: str, took: float) -> None:
    assert initial_age([("Age", age), ("Date", made)], NOON - took, NOON) >= 0


# -- stale windows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "forbidden"),
    [
        pytest.param("", False, id="rule16-nothing-said"),
        pytest.param("max-age=5", False, id="rule16-max-age"),
        pytest.param("must-revalidate", True, id="rule16-must-revalidate"),
        pytest.param("proxy-revalidate", True, id="rule16-proxy-revalidate"),
        pytest.param("no-cache", True, id="rule16-no-cache"),
        pytest.param("no-cache, stale-while-revalidate=5", True, id="rule16-no-cache-over-explicit"),
        pytest.param("Must-Revalidate", True, id="rule16-in-any-case"),
        pytest.param(
            "must-revalidate, stale-while-revalidate=5, stale-if-error=5", True, id="rule16-must-revalidate-over-explicit"
        ),
        pytest.param("proxy-revalidate, stale-while-revalidate=5", True, id="rule16-proxy-revalidate-over-explicit"),
        pytest.param("s-maxage=5", True, id="rule16-bare-s-maxage"),
        pytest.param("s-maxage=5, max-age=9, public", True, id="rule16-bare-s-maxage-among-others"),
        pytest.param("s-maxage=5, stale-while-revalidate=5", False, id="rule16-explicit-swr-over-bare-s-maxage"),
        pytest.param("s-maxage=5, stale-if-error=5", False, id="rule16-explicit-sie-over-bare-s-maxage"),
        pytest.param("s-maxage=5, stale-if-error=5, must-revalidate", True, id="rule16-must-revalidate-over-all"),
        pytest.param("must-revalidatex", False, id="rule12-never-match-substrings"),
    ],
)
def test_a_response_forbids_to_serve_it_stale(line: str, forbidden: bool) -> None:
    assert forbids_stale(response_directives([(CC, line)])) is forbidden


UNSAID = (None, None)


@pytest.mark.parametrize(
    ("coded", "line", "windows"),
    [
        pytest.param(UNSAID, "", (600, 86400), id="nothing-said-is-configured"),
        pytest.param(UNSAID, "max-age=5", (600, 86400), id="max-age-says-nothing-of-them"),
        pytest.param((7.0, None), "", (7, 86400), id="code-for-one"),
        pytest.param((None, 8.0), "", (600, 8), id="code-for-the-other"),
        pytest.param((0.0, 0.0), "", (0, 0), id="code-says-none"),
        pytest.param(UNSAID, "stale-while-revalidate=9", (9, 86400), id="rule17-response"),
        pytest.param(UNSAID, "stale-if-error=9", (600, 9), id="rule18-response"),
        pytest.param(UNSAID, "stale-while-revalidate=0, stale-if-error=0", (0, 0), id="response-says-none"),
        pytest.param((7.0, 8.0), "stale-while-revalidate=9, stale-if-error=10", (7, 8), id="code-over-response"),
        pytest.param((0.0, 0.0), "stale-while-revalidate=9, stale-if-error=10", (0, 0), id="code-says-none-over-response"),
        pytest.param((7.0, None), "stale-while-revalidate=9, stale-if-error=10", (7, 10), id="code-for-one-response-for-the-other"),
        pytest.param((7.0, 8.0), "must-revalidate", (0, 0), id="rule16-must-revalidate-over-code"),
        pytest.param((7.0, 8.0), "proxy-revalidate, stale-if-error=9", (0, 0), id="rule16-proxy-revalidate-over-all"),
        pytest.param(UNSAID, "s-maxage=5", (0, 0), id="rule16-bare-s-maxage-over-configured"),
        pytest.param((None, 8.0), "s-maxage=5", (0, 8), id="code-over-what-s-maxage-implies"),
        pytest.param((7.0, 8.0), "s-maxage=5, stale-if-error=9", (7, 8), id="code-over-both"),
        pytest.param((7.0, 8.0), "s-maxage=5, must-revalidate", (0, 0), id="rule16-must-revalidate-beside-s-maxage"),
        pytest.param(UNSAID, "s-maxage=5, stale-while-revalidate=9", (9, 0), id="rule16-explicit-swr-beside-s-maxage"),
        pytest.param(UNSAID, "s-maxage=5, stale-if-error=9", (0, 9), id="rule16-explicit-sie-beside-s-maxage"),
        pytest.param(UNSAID, "s-maxage=5, stale-while-revalidate=9, stale-if-error=10", (9, 10), id="rule16-both-beside-s-maxage"),
        pytest.param(UNSAID, "stale-while-revalidate=x", (0, 86400), id="rule12-a-bad-window-is-none"),
    ],
)
def test_stale_windows_are_the_first_that_are_said_unless_forbidden(
    coded: tuple[float | None, float | None], line: str, windows: tuple[float, float]
) -> None:
    assert stale_windows(coded, response_directives([(CC, line)]), DEFAULTS) == windows


SAID = ("must-revalidate", "proxy-revalidate", "s-maxage=5", "stale-while-revalidate=9", "stale-if-error=9", "max-age=1")


@pytest.mark.parametrize("members", [c for count in range(4) for c in itertools.combinations(SAID, count)], ids=",".join)
def test_rule16_what_forbids_stale_leaves_no_window(members: tuple[str, ...]) -> None:
    directives = response_directives([(CC, ", ".join(members))])
    for coded in (UNSAID, (7.0, 8.0)):
        windows = Windows(0.0, *stale_windows(coded, directives, DEFAULTS))
        assert not forbids_stale(directives, windows) or windows == Windows(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("ruled", "line", "windows"),
    [
        ((7.0, 8.0), "", (7, 8)),
        ((7.0, None), "max-age=5", (7, 86400)),
        ((7.0, 8.0), "stale-while-revalidate=9", (9, 8)),
        ((7.0, 8.0), "s-maxage=5", (7, 8)),
        ((7.0, None), "s-maxage=5", (7, 0)),
        ((0.0, 0.0), "s-maxage=5", (0, 0)),
        ((7.0, 8.0), "s-maxage=5, stale-if-error=9", (7, 9)),
        ((7.0, 8.0), "s-maxage=5, proxy-revalidate", (0, 0)),
        ((7.0, 8.0), "no-cache", (0, 0)),
    ],
)
def test_a_rule_wins_over_what_is_only_implied(
    ruled: tuple[float | None, float | None], line: str, windows: tuple[float, float]
) -> None:
    assert stale_windows(UNSAID, response_directives([(CC, line)]), DEFAULTS, ruled) == windows


@pytest.mark.parametrize(
    ("line", "stale", "is_off"),
    [
        ("s-maxage=5", (0, 0), True),
        ("s-maxage=5", (0, 8), False),
        ("s-maxage=5, stale-if-error=0", (0, 0), False),
        ("s-maxage=5, must-revalidate", (0, 0), False),
        ("s-maxage=5, no-cache", (0, 0), False),
        ("max-age=5", (0, 0), False),
    ],
)
def test_s_maxage_switches_configured_windows_off(line: str, stale: tuple[float, float], is_off: bool) -> None:
    directives, windows = response_directives([(CC, line)]), Windows(5.0, *stale)
    assert switches_off(directives, windows, DEFAULTS) is is_off
    assert not switches_off(directives, windows, Windows(60.0, 0.0, 0.0))
    if line == "s-maxage=5":
        assert forbids_stale(directives, windows) is is_off
