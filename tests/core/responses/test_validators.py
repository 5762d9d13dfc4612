"""Conditional requests, and what confirms a stored response. Test ids name the rules of docs/rules.rst."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.http import http_date

from flask_stalecache.core.http.fields import request_fields
from flask_stalecache.core.responses.validators import Validators, conditional_fields, confirmed_by_head, fields_of_304, renewed

NOON = 1_800_000_000.0
TAG = '"a"'


def date(offset: float) -> str:
    return http_date(NOON + offset)


MODIFIED = date(-100)
INM, IMS, IF_RANGE = "if-none-match", "if-modified-since", "if-range"


# -- what the stored response answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "tag", "same"),
    [
        pytest.param(TAG, TAG, True, id="rule19-the-same"),
        pytest.param('"b"', TAG, False, id="rule19-another"),
        pytest.param('W/"a"', TAG, True, id="rule19-weak-comparison"),
        pytest.param(TAG, 'W/"a"', True, id="rule19-weak-comparison-the-other-way"),
        pytest.param('W/"a"', 'W/"a"', True, id="rule19-both-weak"),
        pytest.param('"b", "a"', TAG, True, id="rule19-the-last-of-several"),
        pytest.param('"a","b"', TAG, True, id="rule19-the-first-of-several"),
        pytest.param('"b", W/"a", "c"', TAG, True, id="rule19-one-in-the-middle"),
        pytest.param('"b", "c"', TAG, False, id="rule19-none-of-several"),
        pytest.param('"a,b"', '"a,b"', True, id="rule19-a-comma-within"),
        pytest.param('"a,b"', TAG, False, id="rule19-a-comma-within-separates-nothing"),
        pytest.param('"aa"', TAG, False, id="rule19-no-substrings"),
        pytest.param('"A"', TAG, False, id="rule19-tags-have-a-case"),
        pytest.param('"\xc3\xa9"', '"\xc3\xa9"', True, id="rule19-other-than-ascii"),
        pytest.param('"a\\"', '"a\\"', True, id="rule19-a-backslash-escapes-nothing"),
        pytest.param('""', '""', True, id="rule19-an-empty-tag"),
        pytest.param("*", TAG, True, id="rule19-star"),
        pytest.param(" * ", TAG, True, id="rule19-star-with-spaces"),
        pytest.param("*", None, True, id="rule19-star-without-etag"),
        pytest.param('"*"', TAG, False, id="rule19-a-star-in-quotes-is-a-tag"),
        pytest.param('"b", *', TAG, False, id="rule19-a-star-among-others-is-none"),
        pytest.param('*, "b"', TAG, False, id="rule19-a-star-before-others-is-none"),
        pytest.param('*, "a"', TAG, True, id="rule19-what-stands-beside-it-counts"),
        pytest.param("a", TAG, True, id="rule19-without-quotes-there"),
        pytest.param(TAG, "a", True, id="rule19-without-quotes-here"),
        pytest.param('"b" "a"', TAG, True, id="rule19-without-comma"),
        pytest.param("", TAG, False, id="rule19-empty"),
        pytest.param(TAG, None, False, id="rule19-no-etag"),
    ],
)
def test_if_none_match(known: str, tag: str | None, same: bool) -> None:
    stored = Validators(tag, MODIFIED, NOON)
    assert stored.not_modified({INM: known}.get) is same
    # RFC 9110 section 13.2.2: where it is there, If-Modified-Since is not looked at.
    for since in (MODIFIED, date(-200)):
        assert stored.not_modified({INM: known, IMS: since}.get) is same


@pytest.mark.parametrize(
    ("since", "modified", "same"),
    [
        pytest.param(MODIFIED, MODIFIED, True, id="rule19-the-same-date"),
        pytest.param(date(-99), MODIFIED, True, id="rule19-a-later-date"),
        pytest.param(date(-101), MODIFIED, False, id="rule19-an-earlier-date"),
        pytest.param(MODIFIED.lower(), MODIFIED, True, id="rule19-in-lower-case"),
        pytest.param(date(0), None, True, id="rule19-date-stands-for-last-modified"),
        pytest.param(date(-1), None, False, id="rule19-before-the-date"),
        pytest.param(date(0), "yesterday", True, id="rule19-date-stands-for-an-invalid-last-modified"),
        pytest.param("yesterday", MODIFIED, False, id="rule19-an-invalid-date-is-ignored"),
        pytest.param("", MODIFIED, False, id="rule19-an-empty-one-too"),
        pytest.param(f"{MODIFIED}; length=9", MODIFIED, False, id="rule19-with-a-length"),
        pytest.param(f"{MODIFIED}, {MODIFIED}", MODIFIED, False, id="rule19-two"),
        pytest.param(MODIFIED.replace("GMT", "EST"), MODIFIED, False, id="rule19-in-another-zone"),
    ],
)
def test_if_modified_since(since: str, modified: str | None, same: bool) -> None:
    assert Validators(TAG, modified, NOON + 0.9).not_modified({IMS: since}.get) is same


def test_rule19_no_condition_is_never_met() -> None:
    assert not Validators(TAG, MODIFIED, NOON).not_modified({}.get)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([("etag", TAG), ("last-modified", MODIFIED), ("date", date(-5))], (TAG, MODIFIED, NOON - 5), id="rule19-all"),
        pytest.param([("ETag", TAG)], (TAG, None, NOON), id="rule19-without-date-when-it-came"),
        pytest.param([("Date", "0")], (None, None, NOON), id="rule19-with-an-invalid-date-when-it-came"),
    ],
)
def test_validators_of_stored_fields(headers: list[tuple[str, str]], expected: tuple[str | None, str | None, float]) -> None:
    assert Validators.of(iter(headers), NOON) == Validators(*expected)


@pytest.mark.parametrize(
    ("condition", "tag", "modified", "fits"),
    [
        pytest.param(None, TAG, MODIFIED, True, id="rule25-no-condition"),
        pytest.param(TAG, TAG, None, True, id="rule25-the-same"),
        pytest.param(f" {TAG} ", TAG, None, True, id="rule25-spaces-around"),
        pytest.param('"b"', TAG, None, False, id="rule25-another"),
        pytest.param('W/"a"', 'W/"a"', None, False, id="rule25-weak-ones-never"),
        pytest.param(TAG, 'W/"a"', None, False, id="rule25-a-weak-one-here"),
        pytest.param('W/"a"', TAG, None, False, id="rule25-a-weak-one-there"),
        pytest.param('w/"a"', 'w/"a"', None, False, id="rule25-a-weak-one-in-lower-case"),
        pytest.param(f'{TAG}, "b"', TAG, None, False, id="rule25-no-lists"),
        pytest.param("*", TAG, MODIFIED, False, id="rule25-no-star"),
        pytest.param("a", "a", MODIFIED, False, id="rule25-no-quotes"),
        pytest.param(TAG, None, MODIFIED, False, id="rule25-no-etag"),
        pytest.param(MODIFIED, TAG, MODIFIED, True, id="rule25-the-exact-date"),
        pytest.param(date(-99), TAG, MODIFIED, False, id="rule25-a-later-date"),
        pytest.param(date(-101), TAG, MODIFIED, False, id="rule25-an-earlier-date"),
        pytest.param(MODIFIED, TAG, None, False, id="rule25-no-last-modified"),
        pytest.param("yesterday", TAG, "yesterday", False, id="rule25-no-date"),
        pytest.param(date(-1), TAG, date(-1), True, id="rule25-a-second-before-it-was-made"),
        pytest.param(date(0), TAG, date(0), False, id="rule25-in-the-second-in-which-it-was-made"),
    ],
)
def test_if_range(condition: str | None, tag: str | None, modified: str | None, fits: bool) -> None:
    asked = {} if condition is None else {IF_RANGE: condition}
    assert Validators(tag, modified, NOON).allow_range(asked.get) is fits


@given(st.text(max_size=20), st.text(max_size=10))
def test_rule19_no_condition_is_too_odd_to_be_read(condition: str, tag: str) -> None:
    stored = Validators(tag, condition, NOON)
    for name in (INM, IMS, IF_RANGE):
        assert stored.not_modified({name: condition}.get) in (True, False)
        assert stored.allow_range({name: condition}.get) in (True, False)


def test_the_fields_of_an_environ_are_looked_up_in_lower_case() -> None:
    get = request_fields({"HTTP_IF_NONE_MATCH": TAG, "CONTENT_TYPE": "text/plain", "HTTP_CONTENT_TYPE": "x", "CONTENT_LENGTH": ""})
    assert [get(name) for name in (INM, IMS, "content-type", "content-length")] == [TAG, None, "text/plain", ""]


@pytest.mark.parametrize("last", [("Last-Modified", MODIFIED), ("X", "y")])
def test_rule20_a_304_carries_these_fields_of_the_200(last: tuple[str, str]) -> None:
    wanted = [
        ("ETag", TAG), ("cache-control", "max-age=5"), ("Cache-Control", "public"), ("CDN-Cache-Control", "max-age=9"),
        ("Content-Location", "/x"), ("Date", date(0)), ("Expires", date(9)), ("Vary", "Foo"), ("Vary", "Bar"),
    ]  # fmt: skip
    others = [
        ("Content-Type", "text/html"),
        ("Content-Length", "5"),
        ("Content-Encoding", "br"),
        ("Age", "5"),
        ("X-Foo", "1"),
        last,
    ]
    assert fields_of_304(iter([*others, *wanted])) == wanted


def test_rule20_without_etag_a_304_carries_last_modified() -> None:
    assert fields_of_304([("Last-Modified", MODIFIED), ("X", "y")]) == [("Last-Modified", MODIFIED)]


# -- what confirms the stored response ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "sent"),
    [
        pytest.param([], [], id="rule22-nothing"),
        pytest.param([("etag", TAG)], [("If-None-Match", TAG)], id="rule22-etag"),
        pytest.param([("ETag", "a")], [("If-None-Match", "a")], id="rule22-an-etag-without-quotes-as-it-came"),
        pytest.param([("Last-Modified", MODIFIED)], [("If-Modified-Since", MODIFIED)], id="rule22-last-modified"),
        pytest.param(
            [("Last-Modified", MODIFIED), ("ETag", 'W/"a"')],
            [("If-None-Match", 'W/"a"'), ("If-Modified-Since", MODIFIED)],
            id="rule22-both",
        ),
        pytest.param([("Date", date(0))], [], id="rule22-a-date-is-no-validator"),
    ],
)
def test_a_revalidation_sends_what_is_stored(stored: list[tuple[str, str]], sent: list[tuple[str, str]]) -> None:
    assert conditional_fields(iter(stored)) == sent


STORED = [("Content-Type", "text/html"), ("X-Foo", "1"), ("x-foo", "2"), ("ETag", TAG), ("Cache-Control", "max-age=1"), ("X", "y")]


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        pytest.param([], STORED, id="rule22-nothing-came"),
        pytest.param([("X", "z")], [*STORED[:5], ("X", "z")], id="rule22-an-update"),
        pytest.param([("x", "z")], [*STORED[:5], ("x", "z")], id="rule22-an-update-in-any-case"),
        pytest.param([("X-Foo", "3")], [STORED[0], *STORED[3:], ("X-Foo", "3")], id="rule22-one-line-for-two"),
        pytest.param([("X", "z"), ("X", "w")], [*STORED[:5], ("X", "z"), ("X", "w")], id="rule22-two-lines-for-one"),
        pytest.param([("New", "1")], [*STORED, ("New", "1")], id="rule22-a-new-field"),
        pytest.param([("Content-Foo", "1")], [*STORED, ("Content-Foo", "1")], id="rule22-other-fields-of-content"),
        pytest.param([("Date", date(0)), ("Age", "5")], [*STORED, ("Date", date(0)), ("Age", "5")], id="rule22-date-and-age"),
        pytest.param([("Content-Length", "0")], STORED, id="rule22-not-content-length"),
        pytest.param([("content-encoding", "br")], STORED, id="rule22-not-content-encoding"),
        pytest.param([("Content-Type", "text/plain")], STORED, id="rule22-not-content-type"),
        pytest.param([("Content-Range", "bytes 0-1/2")], STORED, id="rule22-not-content-range"),
        pytest.param([("Connection", "close, Foo"), ("Foo", "1"), ("TE", "x")], STORED, id="rule22-not-hop-by-hop"),
        pytest.param([("Set-Cookie", "a=b")], STORED, id="rule6-not-a-cookie"),
    ],
)
def test_a_304_renews_the_stored_fields(new: list[tuple[str, str]], expected: list[tuple[str, str]]) -> None:
    assert renewed(iter(STORED), iter(new)) == tuple(expected)


def test_rule22_what_told_of_the_older_answer_goes() -> None:
    assert renewed([("Age", "9"), ("Date", date(-9)), ("X", "y")], []) == (("X", "y"),)


@pytest.mark.parametrize(
    ("stored", "new", "same"),
    [
        pytest.param(TAG, TAG, True, id="rule22-the-same"),
        pytest.param(TAG, '"b"', False, id="rule22-another"),
        pytest.param(None, TAG, False, id="rule22-a-strong-one-that-is-not-stored"),
        pytest.param('W/"a"', TAG, False, id="rule22-a-strong-one-for-a-weak-one"),
        pytest.param(TAG, 'W/"a"', True, id="rule22-a-weak-one-that-means-the-same"),
        pytest.param('W/"a"', 'W/"a"', True, id="rule22-both-weak"),
        pytest.param(TAG, 'W/"b"', False, id="rule22-a-weak-one-that-means-another"),
        pytest.param(None, 'W/"a"', True, id="rule22-a-weak-one-where-none-is-stored"),
        pytest.param(TAG, None, True, id="rule22-none-came"),
    ],
)
def test_a_304_must_be_about_the_stored_response(stored: str | None, new: str | None, same: bool) -> None:
    before, came = ([("ETag", tag)] if tag else [] for tag in (stored, new))
    # A 304 is applied even if its Last-Modified differs from the stored one.
    result = renewed([*before, ("Last-Modified", MODIFIED)], [*came, ("Last-Modified", date(-90))])
    assert (result is not None) is same
    assert result is None or ("Last-Modified", date(-90)) in result


@given(st.lists(st.tuples(st.sampled_from(["X", "Date", "Connection", "Content-Type", "Vary"]), st.text("aX,", max_size=3))))
def test_rule22_a_304_applied_twice_is_applied_once(new: list[tuple[str, str]]) -> None:
    once = renewed(STORED, new)
    assert once is not None
    assert renewed(once, new) == once


@pytest.mark.parametrize(
    ("head", "confirmed"),
    [
        pytest.param([], True, id="rule24-nothing-told"),
        pytest.param([("ETag", TAG), ("Last-Modified", MODIFIED), ("Content-Length", "5")], True, id="rule24-all-the-same"),
        pytest.param([("etag", '"b"')], False, id="rule24-another-etag"),
        pytest.param([("ETag", TAG), ("Last-Modified", date(0))], False, id="rule24-another-date"),
        pytest.param([("Content-Length", "6")], False, id="rule24-another-length"),
        pytest.param([("X", "other")], True, id="rule24-another-field"),
    ],
)
def test_a_head_tells_whether_the_stored_get_is_out_of_date(head: list[tuple[str, str]], confirmed: bool) -> None:
    assert confirmed_by_head(iter([("ETag", TAG), ("Last-Modified", MODIFIED)]), 5, iter(head)) is confirmed
