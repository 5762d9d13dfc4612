"""Dates, as a cache must read them. Test ids name the rules of docs/rules.rst."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.http import http_date

from flask_stalecache.core.http.dates import retry_after, timestamp

#: Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110 section 5.6.7.
EXAMPLE = 784111777.0


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("Sun, 06 Nov 1994 08:49:37 GMT", id="rule12-imf-fixdate"),
        pytest.param("Sunday, 06-Nov-94 08:49:37 GMT", id="rule12-rfc850"),
        pytest.param("Sun Nov  6 08:49:37 1994", id="rule12-asctime"),
        pytest.param("sun, 06 nov 1994 08:49:37 gmt", id="rule12-lower-case"),
        pytest.param("SUN, 06 NOV 1994 08:49:37 GMT", id="rule12-upper-case"),
        pytest.param(" Sun, 06 Nov 1994 08:49:37 GMT ", id="rule12-spaces-around"),
    ],
)
def test_the_three_forms_are_read_in_any_case(value: str) -> None:
    assert timestamp(value) == EXAMPLE


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(None, id="rule12-none"),
        pytest.param("", id="rule12-empty"),
        pytest.param("0", id="rule12-zero"),
        pytest.param("-1", id="rule12-minus-one"),
        pytest.param("784111777", id="rule12-seconds"),
        pytest.param("Sun, 06 Nov 1994 08:49:37", id="rule12-no-zone"),
        pytest.param("Sun, 06 Nov 1994 08:49:37 UTC", id="rule12-utc"),
        pytest.param("Sun, 06 Nov 1994 08:49:37 AEST", id="rule12-another-zone"),
        pytest.param("Sun, 06 Nov 1994 08:49:37 +0000", id="rule12-zone-in-numbers"),
        pytest.param("Sun, 06 Nov 1994 08:49:37 GMT+1", id="rule12-more-than-gmt"),
        pytest.param("Sun, 06 Nov 1994 08.49.37 GMT", id="rule12-periods-in-time"),
        pytest.param("Sun, 06 Nov 1994 8:49:37 GMT", id="rule12-hour-of-one-digit"),
        pytest.param("Sun, 6 Nov 1994 08:49:37 GMT", id="rule12-day-of-one-digit"),
        pytest.param("Sun 06 Nov 1994 08:49:37 GMT", id="rule12-no-comma"),
        pytest.param("Sun, 06-Nov-1994 08:49:37 GMT", id="rule12-dashes"),
        pytest.param("Sun,06 Nov 1994 08:49:37 GMT", id="rule12-no-space"),
        pytest.param("Sun, 06  Nov 1994 08:49:37 GMT", id="rule12-two-spaces"),
        pytest.param("Sun, 06 Nov 94 08:49:37 GMT", id="rule12-year-of-two-digits"),
        pytest.param("06 Nov 1994 08:49:37 GMT", id="rule12-no-weekday"),
        pytest.param("Sun, 31 Feb 2027 08:49:37 GMT", id="rule12-on-no-day"),
        pytest.param("Sun, 06 Nov 1994 24:49:37 GMT", id="rule12-in-no-hour"),
        pytest.param("Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT", id="rule12-two"),
        pytest.param("Sun, ٠٦ Nov 1994 08:49:37 GMT", id="rule12-other-digits"),
        pytest.param("1994-11-06T08:49:37Z", id="rule12-iso"),
    ],
)
def test_anything_else_is_no_date(value: str | None) -> None:
    assert timestamp(value) is None


@given(st.integers(0, 4_000_000_000))
def test_rule12_what_werkzeug_writes_is_read(seconds: int) -> None:
    assert timestamp(http_date(seconds)) == seconds


@given(st.text("SunGMT, 0123456789:-Nov\x00é", max_size=32))
def test_rule12_no_date_is_too_odd_to_be_read(value: str) -> None:
    assert timestamp(value) is None or timestamp(value) == timestamp(value.strip())


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("\u0663", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("999999999999", 86400.0),
        ("Sun, 06 Nov 1994 08:49:47 GMT", 10.0),
        ("Sun, 06 Nov 1994 08:49:27 GMT", 0.0),
        ("Mon, 06 Nov 1995 08:49:37 GMT", 86400.0),
    ],
)
def test_a_retry_after_field_is_seconds_or_a_date_and_a_day_at_most(value: str, seconds: float | None) -> None:
    assert retry_after(value, EXAMPLE) == seconds
