"""What a response says of its storing. Test ids name the rules of docs/rules.rst."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_stalecache.core.http.cache_control import DELTA_OVERFLOW, Directives, response_directives


def said(*lines: str, field: str = "Cache-Control") -> Directives:
    return response_directives([(field, line) for line in lines])


# -- Cache-Control ---------------------------------------------------------------------------------------------------

NUMBERS: list[Any] = [
    pytest.param("max-age=60", {"max_age": 60}, id="rule12-token"),
    pytest.param('max-age="60"', {"max_age": 60}, id="rule12-quoted-is-equal-to-token"),
    pytest.param("MAX-AGE=60", {"max_age": 60}, id="rule12-upper-case"),
    pytest.param("Max-Age=60,S-MaxAge=5", {"max_age": 60, "s_maxage": 5}, id="rule12-mixed-case-without-space"),
    pytest.param("max-age=0", {"max_age": 0}, id="rule12-zero"),
    pytest.param("max-age=007", {"max_age": 7}, id="rule12-leading-zeros"),
    pytest.param("max-age=000000000000000060", {"max_age": 60}, id="rule12-many-leading-zeros"),
    pytest.param("  max-age = 60  ", {"max_age": 60}, id="rule12-spaces-around-are-no-bad-value"),
    pytest.param("max-age=2147483647", {"max_age": 2**31 - 1}, id="rule12-below-overflow"),
    pytest.param("max-age=2147483648", {"max_age": 2**31}, id="rule12-at-overflow"),
    pytest.param("max-age=2147483649", {"max_age": 2**31}, id="rule12-above-overflow"),
    pytest.param("max-age=99999999999999999999999999", {"max_age": 2**31}, id="rule12-far-above-overflow"),
    pytest.param("max-age=" + "9" * 5000, {"max_age": 2**31}, id="rule12-more-digits-than-python-reads"),
    pytest.param("max-age=60.5", {"max_age": 0}, id="rule12-fraction-is-stale"),
    pytest.param("max-age=-1", {"max_age": 0}, id="rule12-negative-is-stale"),
    pytest.param("max-age=+60", {"max_age": 0}, id="rule12-sign-is-stale"),
    pytest.param("max-age=6_0", {"max_age": 0}, id="rule12-underscore-is-stale"),
    pytest.param("max-age=60s", {"max_age": 0}, id="rule12-unit-is-stale"),
    pytest.param("max-age=0x60", {"max_age": 0}, id="rule12-hexadecimal-is-stale"),
    pytest.param("max-age=²", {"max_age": 0}, id="rule12-superscript-is-stale"),
    pytest.param("max-age=٣", {"max_age": 0}, id="rule12-other-digits-are-stale"),
    pytest.param("max-age", {"max_age": 0}, id="rule12-no-value-is-stale"),
    pytest.param("max-age=", {"max_age": 0}, id="rule12-empty-value-is-stale"),
    pytest.param('max-age=""', {"max_age": 0}, id="rule12-empty-quotes-are-stale"),
    pytest.param("max-age=60, max-age=60", {"max_age": 0}, id="rule12-twice-is-stale"),
    pytest.param("max-age=60, Max-Age=30", {"max_age": 0}, id="rule12-twice-in-other-case-is-stale"),
    pytest.param("s-maxage=5, s-maxage=6", {"s_maxage": 0}, id="rule12-s-maxage-twice-is-stale"),
    pytest.param("s-maxage=x, max-age=60", {"s_maxage": 0, "max_age": 60}, id="rule12-bad-s-maxage-hides-max-age"),
    pytest.param("stale-while-revalidate=7", {"stale_while_revalidate": 7}, id="rule17-window"),
    pytest.param("stale-if-error=8", {"stale_if_error": 8}, id="rule18-window"),
    pytest.param("stale-while-revalidate=x", {"stale_while_revalidate": 0}, id="rule12-bad-window-is-none"),
    pytest.param("stale-if-error=1, stale-if-error=2", {"stale_if_error": 0}, id="rule12-window-twice-is-none"),
    pytest.param("xmax-age=60", {}, id="rule12-never-match-substrings-before"),
    pytest.param("max-agex=60", {}, id="rule12-never-match-substrings-after"),
    pytest.param('foo="max-age=60"', {}, id="rule12-never-match-in-quotes"),
    pytest.param('foo="a, max-age=60", s-maxage=5', {"s_maxage": 5}, id="rule12-commas-in-quotes-separate-nothing"),
    pytest.param('foo="a\\", max-age=60", s-maxage=5', {"s_maxage": 5}, id="rule12-escaped-quotes-end-nothing"),
    pytest.param("foo=60, bar", {}, id="rule12-unknown-directives-are-ignored"),
    pytest.param("", {}, id="rule12-empty"),
    pytest.param(" , ,,", {}, id="rule12-empty-members"),
    pytest.param("=60, max-age=60", {"max_age": 60}, id="rule12-no-name"),
    pytest.param("max-age=1, max-age=3600", {"max_age": 0}, id="rule12-stale-then-fresh-is-stale"),
    pytest.param("max-age=3600, max-age=1", {"max_age": 0}, id="rule12-fresh-then-stale-is-stale"),
    pytest.param("max-age='3600'", {"max_age": 0}, id="rule12-single-quotes-are-no-quotes"),
    pytest.param("max-age =3600", {"max_age": 3600}, id="rule12-space-before-the-equals-sign"),
    pytest.param("max-age= 3600", {"max_age": 3600}, id="rule12-space-behind-the-equals-sign"),
    pytest.param("max-age=3600.0", {"max_age": 0}, id="rule12-whole-fraction-is-stale"),
    pytest.param("max-age=-3600", {"max_age": 0}, id="rule12-large-negative-is-stale"),
    pytest.param("max-age=3600a", {"max_age": 0}, id="rule12-letter-behind-is-stale"),
    pytest.param("max-age=a3600", {"max_age": 0}, id="rule12-letter-before-is-stale"),
    pytest.param("max-age=36 00", {"max_age": 0}, id="rule12-space-within-is-stale"),
    pytest.param('max-age=""60""', {"max_age": 0}, id="rule12-quotes-twice-are-stale"),
    pytest.param('max-age=6"0"', {"max_age": 0}, id="rule12-quotes-within-are-stale"),
    pytest.param('max-age="60', {"max_age": 0}, id="rule12-a-quote-that-is-not-closed-makes-stale"),
    pytest.param('max-age=60, foo="', {"max_age": 0}, id="rule12-also-elsewhere-in-the-line"),
    pytest.param('a="max-age=3600"', {}, id="rule12-quoted-whole"),
    pytest.param('max-age=1, a="max-age=3600"', {"max_age": 1}, id="rule12-quoted-whole-behind"),
    pytest.param('"max-age=3600"', {}, id="rule12-quotes-are-no-part-of-a-name"),
    pytest.param('max-age=3600, foo="bar, no-store"', {"max_age": 3600}, id="rule12-quoted-prohibition"),
    pytest.param("max-age:60", {}, id="rule12-colon-for-equals-sign"),
    pytest.param("max-age=60;foo", {"max_age": 0}, id="rule12-semicolon-for-comma-is-stale"),
    pytest.param("max_age=60, maxage=60", {}, id="rule12-other-spellings-are-other-names"),
]


@pytest.mark.parametrize(("line", "numbers"), NUMBERS)
def test_numbers_are_read_or_make_stale(line: str, numbers: Mapping[str, float]) -> None:
    directives = said(line)
    names = ("max_age", "s_maxage", "stale_while_revalidate", "stale_if_error")
    assert {name: value for name in names if (value := getattr(directives, name)) is not None} == numbers
    assert not directives.targeted


@pytest.mark.parametrize(
    ("line", "names"),
    [
        pytest.param("private", {"private"}, id="rule1-private"),
        pytest.param("No-Store, NO-CACHE", {"no-store", "no-cache"}, id="rule12-any-case"),
        pytest.param('private="a, b"', {"private"}, id="rule2-qualified-private-is-private"),
        pytest.param('private="no-store"', {"private"}, id="rule2-the-fields-of-private-are-no-directives"),
        pytest.param('no-cache="a"', {"no-cache"}, id="rule2-qualified-no-cache-is-no-cache"),
        pytest.param("no-cache=a", {"no-cache"}, id="rule2-qualified-without-quotes"),
        pytest.param('private="a, b", no-cache="c"', {"private", "no-cache"}, id="rule2-both"),
        pytest.param("no-store=1", {"no-store"}, id="rule12-a-value-that-is-none-of-its-business"),
        pytest.param("no-storey, xprivate, no_cache", {"no-storey", "xprivate", "no_cache"}, id="rule12-never-match-substrings"),
        pytest.param('foo="private"', {"foo"}, id="rule12-never-match-in-values"),
        pytest.param("private, private", {"private"}, id="rule12-a-prohibition-twice-still-binds"),
        pytest.param("\tpublic\t,\tmust-revalidate ", {"public", "must-revalidate"}, id="rule12-tabs"),
        pytest.param('max-age=5, foo="bar, no-store"', {"max-age", "foo"}, id="rule12-a-quoted-prohibition-is-none"),
        pytest.param('foo="bar, no-store', {"foo", "no-store"}, id="rule12-nothing-hides-behind-an-open-quote"),
        pytest.param('foo=\\"bar, no-store', {"foo", "no-store"}, id="rule12-nor-behind-one-with-a-backslash"),
        pytest.param('foo="bar\\", no-store', {"foo", "no-store"}, id="rule12-nor-behind-an-escaped-end"),
        pytest.param("must-understand, no-store", {"must-understand", "no-store"}, id="rule3-must-understand"),
    ],
)
def test_names_are_read_whole_and_in_any_case(line: str, names: set[str]) -> None:
    assert said(line).names == names
    assert all(name in said(line) for name in names)


def test_rule12_several_lines_are_one_list() -> None:
    directives = response_directives([("Cache-Control", "max-age=60"), ("X", "no-store"), ("cache-control", "private")])
    assert directives.names == {"max-age", "private"}
    assert directives.max_age == 60


def test_rule12_a_directive_on_two_lines_is_there_twice() -> None:
    assert said("max-age=60", "max-age=60").max_age == 0


def test_rule12_a_quote_that_is_not_closed_ends_with_its_line() -> None:
    directives = said('foo="', 'max-age=60, bar="no-store"', "private")
    assert directives.names == {"foo", "max-age", "bar", "private"}
    assert directives.max_age == 60


def test_no_field_says_nothing() -> None:
    assert response_directives([]) == Directives()
    assert response_directives([("Expires", "0"), ("X-Cache-Control", "private"), ("Pragma", "no-cache")]) == Directives()


@given(st.integers(0, 40), st.integers(0, 2**40))
def test_rule12_a_number_is_its_digits_up_to_the_overflow(zeros: int, number: int) -> None:
    assert said(f"max-age={'0' * zeros}{number}").max_age == min(number, DELTA_OVERFLOW)


@given(st.text('ab-=",;\\ 019\x00é', max_size=20) | st.text(max_size=20))
def test_rule12_no_line_is_too_odd_to_be_read(line: str) -> None:
    directives = said(line)
    assert all(name == name.strip().lower() and name for name in directives.names)


@given(st.text("ab-= 019", max_size=8), st.sampled_from(["private", "no-store", "no-cache", "NO-STORE", 'private="a,b"']))
def test_a_prohibition_binds_whatever_stands_beside_it(other: str, prohibition: str) -> None:
    name = prohibition.split("=")[0].lower()
    assert name in said(f"{other},{prohibition}")
    assert name in said(f"{prohibition},{other}")


# -- targeted fields -------------------------------------------------------------------------------------------------

OURS, CDN, PLAIN = "Stalecache-Cache-Control", "CDN-Cache-Control", "Cache-Control"


@pytest.mark.parametrize(
    ("fields", "max_age", "targeted"),
    [
        pytest.param([(OURS, "max-age=1"), (CDN, "max-age=2"), (PLAIN, "max-age=3")], 1, True, id="rule28-ours-first"),
        pytest.param(
            [(PLAIN, "max-age=3"), (CDN, "max-age=2"), (OURS, "max-age=1")], 1, True, id="rule28-whatever-the-order-of-lines"
        ),
        pytest.param([(CDN, "max-age=2"), (PLAIN, "max-age=3")], 2, True, id="rule28-then-cdn"),
        pytest.param([(OURS.upper(), "max-age=1")], 1, True, id="rule28-field-names-in-any-case"),
        pytest.param([(OURS, ""), (CDN, "max-age=2")], 2, True, id="rule28-empty-is-ignored"),
        pytest.param([(OURS, "   "), (PLAIN, "max-age=3")], 3, False, id="rule28-blank-is-ignored"),
        pytest.param([(OURS, "max-age=1,"), (PLAIN, "max-age=3")], 3, False, id="rule28-trailing-comma-is-invalid"),
        pytest.param([(OURS, "Max-Age=1"), (PLAIN, "max-age=3")], 3, False, id="rule28-upper-case-is-invalid"),
        pytest.param([(OURS, "max-age=1 2"), (PLAIN, "max-age=3")], 3, False, id="rule28-invalid-is-ignored-as-a-whole"),
        pytest.param([(OURS, "max-age=1, x=é"), (CDN, "max-age=2")], 2, True, id="rule28-not-ascii-is-invalid"),
        pytest.param([(OURS, "max-age=1, foo"), (PLAIN, "max-age=3")], 1, True, id="rule28-unknown-directives-are-ignored"),
        pytest.param([(OURS, "max-age=1;a=2;b")], 1, True, id="rule28-parameters-are-ignored"),
        pytest.param([(OURS, "max-age=1, max-age=2")], 2, True, id="rule28-the-last-of-a-dictionary-counts"),
        pytest.param([(OURS, "private"), (OURS, "max-age=2")], 2, True, id="rule28-several-lines-are-one-dictionary"),
        pytest.param([(OURS, "public"), (PLAIN, "max-age=3")], None, True, id="rule28-replaces-also-what-it-does-not-say"),
        pytest.param([(OURS, "max-age=1.5")], 0, True, id="rule12-fraction-is-stale"),
        pytest.param([(OURS, "max-age=-5")], 0, True, id="rule12-negative-is-stale"),
        pytest.param([(OURS, "max-age")], 0, True, id="rule12-no-value-is-stale"),
        pytest.param([(OURS, "max-age=(1 2)")], 0, True, id="rule12-a-list-is-stale"),
        pytest.param([(OURS, 'max-age="60"')], 0, True, id="rule28-a-string-is-no-integer"),
        pytest.param([(OURS, "max-age=a60")], 0, True, id="rule28-a-token-is-no-integer"),
        pytest.param([(OURS, "max-age=60, !foo"), (PLAIN, "max-age=3")], 3, False, id="rule28-an-invalid-name-spoils-all"),
        pytest.param([(OURS, "max-age =60"), (PLAIN, "max-age=3")], 3, False, id="rule28-a-space-before-the-equals-sign-too"),
        pytest.param([(OURS, "max-age=999999999999999")], 2**31, True, id="rule12-overflow"),
        pytest.param([("Other-Cache-Control", "max-age=1"), (PLAIN, "max-age=3")], 3, False, id="rule28-for-another-cache"),
    ],
)
def test_a_targeted_field_replaces_cache_control_if_it_is_valid(
    fields: list[tuple[str, str]], max_age: float | None, targeted: bool
) -> None:
    directives = response_directives(fields)
    assert (directives.max_age, directives.targeted) == (max_age, targeted)


@pytest.mark.parametrize(
    ("targeted", "names"),
    [
        pytest.param("max-age=5", {"max-age"}, id="rule28-lifts-a-prohibition"),
        pytest.param("private", {"private"}, id="rule28-prohibits"),
        pytest.param("private=?1", {"private"}, id="rule28-true-in-words"),
        pytest.param("max-age=5, private=?0", {"max-age"}, id="rule28-false-is-not-said"),
        pytest.param('private="a, b"', {"private"}, id="rule2-qualified-private"),
        pytest.param('no-cache=("a" "b")', {"no-cache"}, id="rule2-qualified-no-cache-as-list"),
        pytest.param("no-store;x=1", {"no-store"}, id="rule28-parameters-do-not-hide-it"),
    ],
)
def test_what_a_targeted_field_says_counts_in_place_of_cache_control(targeted: str, names: set[str]) -> None:
    assert response_directives([(PLAIN, "no-cache, no-store"), (OURS, targeted)]).names == names


@given(st.text(max_size=12), st.text(max_size=12))
def test_rule28_no_targeted_field_is_too_odd_to_be_read(ours: str, cdn: str) -> None:
    directives = response_directives([(OURS, ours), (CDN, cdn), (PLAIN, "no-store")])
    assert directives.targeted or directives.names == {"no-store"}
