"""How long a response may be used, and by whose word. Test ids name the rules of http.md."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.http import http_date

from flask_stalecache.http.cache_control import response_directives
from flask_stalecache.http.freshness import forbids_stale, lifetime, stale_windows
from flask_stalecache.policy import Windows

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


@given(st.text(max_size=30), st.text(max_size=30))
def test_rule12_no_date_is_too_odd_to_be_read(expires: str, date: str) -> None:
    assert lifetime_of(None, [("Expires", expires), ("Date", date)]) >= 0


# -- stale windows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "forbidden"),
    [
        pytest.param("", False, id="rule16-nothing-said"),
        pytest.param("max-age=5", False, id="rule16-max-age"),
        pytest.param("must-revalidate", True, id="rule16-must-revalidate"),
        pytest.param("proxy-revalidate", True, id="rule16-proxy-revalidate"),
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
        assert not forbids_stale(directives) or stale_windows(coded, directives, DEFAULTS) == (0, 0)
