"""Variants: which request fields choose one, and when they are the same. Test ids name the rules of docs/rules.rst."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.http import http_date

from flask_stalecache.core.http.vary import matches, newest, normalised, selecting_fields, selection


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        pytest.param([], (), id="rule9-no-vary"),
        pytest.param([""], (), id="rule9-empty"),
        pytest.param([" , "], (), id="rule9-empty-members"),
        pytest.param(["Foo"], ("foo",), id="rule9-one"),
        pytest.param(["Foo, Bar, foo"], ("bar", "foo"), id="rule9-sorted-and-once"),
        pytest.param(["Foo", "Bar"], ("bar", "foo"), id="rule9-several-lines"),
        pytest.param(["*"], None, id="rule9-star"),
        pytest.param(["*, *"], None, id="rule9-two-stars"),
        pytest.param(["*", "*"], None, id="rule9-two-stars-on-two-lines"),
        pytest.param([", *"], None, id="rule9-star-behind-nothing"),
        pytest.param(["", "*"], None, id="rule9-star-behind-an-empty-line"),
        pytest.param(["*, Foo"], None, id="rule9-star-before-a-name"),
        pytest.param(["Foo, *"], None, id="rule9-star-behind-a-name"),
        pytest.param(["Foo", "*"], None, id="rule9-star-on-another-line"),
        pytest.param(["Foo Bar"], None, id="rule9-what-is-no-name-never-matches"),
        pytest.param(['"Foo"'], None, id="rule9-quotes-are-no-name"),
    ],
)
def test_vary_names_the_fields_that_choose(lines: list[str], names: tuple[str, ...] | None) -> None:
    assert selecting_fields(iter([("X", "Y"), *(("Vary", line) for line in lines)])) == names


SAME = [
    pytest.param("foo", "1,2", "1, 2", id="rule9-space-around-commas"),
    pytest.param("foo", " 1 ,\t2 ", "1,2", id="rule9-space-in-any-place"),
    pytest.param("accept-language", "en;q=0.5, de", "de, en;q=0.5", id="rule9-languages-in-another-order"),
    pytest.param("accept-language", "en,DE", "en, de", id="rule9-languages-in-another-case"),
    pytest.param("accept-language", "en;q=0.50, de;q=1", "de, en ; q=0.5", id="rule9-weights-in-another-spelling"),
    pytest.param("accept-language", "en,,de", "en, de,", id="rule9-empty-members"),
    pytest.param("accept-language", "en, en", "en", id="rule9-twice"),
    pytest.param("accept", "text/html, */*;q=0.8", "*/*;Q=0.800,TEXT/HTML", id="rule9-media-types"),
    pytest.param("accept", "text/html;level=1;q=0.5", "text/html; LEVEL=1; q=.5".replace(".5", "0.5"), id="rule9-media-parameters"),
    pytest.param("accept-charset", "utf-8, iso-8859-5;q=0.8", "ISO-8859-5;q=0.8, UTF-8", id="rule9-charsets"),
    pytest.param("accept-encoding", "gzip, br", "br;q=1.0, gzip;q=0.1", id="rule9-codings-whatever-is-preferred"),
    pytest.param("accept-encoding", "gzip", "GZIP, identity;q=0.5", id="rule9-identity-is-always-acceptable"),
    pytest.param("accept-encoding", "", "identity", id="rule9-no-coding"),
    pytest.param("accept-encoding", "gzip;q=0", "identity, *;q=0", id="rule9-refused-codings"),
    pytest.param("accept-encoding", "gzip, *;q=0", "gzip, identity;q=0", id="rule9-identity-refused-with-all-others"),
    pytest.param("accept-encoding", "*", "gzip;q=0.3, *;q=0.1", id="rule9-any-coding"),
    pytest.param("accept-encoding", "*;q=0", "identity;q=0", id="rule9-nothing-at-all"),
]
OTHER = [
    pytest.param("foo", "1, 2", "2, 1", id="rule9-order-may-count"),
    pytest.param("accept-language", "en, de", "de, en", id="rule9-of-equal-weights-the-first-may-count"),
    pytest.param("foo", "a", "A", id="rule9-case-may-count"),
    pytest.param("foo", "1,2", "1,,2", id="rule9-empty-members-may-count"),
    pytest.param("foo", "a b", "a  b", id="rule9-space-within-may-count"),
    pytest.param("foo", '"a,b"', '"a, b"', id="rule9-space-within-quotes"),
    pytest.param("foo", "", None, id="rule9-empty-is-not-absent"),
    pytest.param("accept-encoding", "", None, id="rule9-no-coding-is-not-absent"),
    pytest.param("accept", "", None, id="rule9-no-type-is-not-absent"),
    pytest.param("cookie", "a=1,2", "a=1, 2", id="rule9-cookies-are-no-list"),
    pytest.param("user-agent", "X (a,b)", "X (a, b)", id="rule9-agents-are-no-list"),
    pytest.param("accept-language", "en, de;q=0.5", "en;q=0.5, de", id="rule9-weights-count"),
    pytest.param("accept-language", "en, de;q=0", "en", id="rule9-what-is-refused-counts"),
    pytest.param("accept-language", "en;q=2, de", "de, en;q=2", id="rule9-a-bad-weight-is-left-as-it-is"),
    pytest.param("accept-language", "en;q=0.5, en", "en, en;q=0.5", id="rule9-two-weights-are-left-as-they-are"),
    pytest.param("accept", "text/html;a=b", "text/html;a=B", id="rule9-values-of-parameters-have-a-case"),
    pytest.param("accept", 'text/html;a="x, y"', 'text/html;a="x,y"', id="rule9-quoted-parameters"),
    pytest.param("accept-language", "en;q=0.5, en", "en;q=0.5", id="rule9-of-two-weights-neither-is-left-out"),
    pytest.param("accept", "a/b;q=0.5;x=y, c/d", "c/d, a/b;q=0.5;x=y", id="rule9-what-stands-behind-a-weight-is-left-as-it-is"),
    pytest.param("accept-encoding", "gzip", "gzip, br", id="rule9-more-codings"),
    pytest.param("accept-encoding", "gzip", "gzip, unknown", id="rule9-the-app-may-know-an-unknown-coding"),
    pytest.param("accept-encoding", "gzip", "gzip;q=0", id="rule9-a-coding-refused"),
    pytest.param("accept-encoding", "gzip", "gzip, identity;q=0", id="rule9-identity-refused"),
    pytest.param("accept-encoding", "*", "*, gzip;q=0", id="rule9-any-but-one"),
    pytest.param("accept-encoding", "*", "*, identity;q=0", id="rule9-any-but-identity"),
    pytest.param("accept-encoding", "gzip", "gzip;q=x", id="rule9-a-bad-weight-of-a-coding"),
    pytest.param("accept-encoding", "gzip", "x-gzip", id="rule9-an-old-client-may-know-no-other-word"),
]


@pytest.mark.parametrize(("name", "one", "other"), SAME)
def test_these_are_the_same(name: str, one: str, other: str) -> None:
    assert normalised(name, one) == normalised(name, other)


@pytest.mark.parametrize(("name", "one", "other"), OTHER)
def test_these_are_not_the_same(name: str, one: str, other: str | None) -> None:
    assert normalised(name, one) != normalised(name, other)


NAMES = st.sampled_from(["accept", "accept-charset", "accept-encoding", "accept-language", "cookie", "foo"])
LISTS = st.lists(st.sampled_from(["gzip", "br", "identity", "*", "GZIP", "a/b", "a/b;c=d", "", "é"]), max_size=4)
WEIGHTS = st.sampled_from(["", ";q=0", ";q=1.000", "; q=0.50", ";Q=0.001", ";q=7", ";q", ";q=0.5;x=y"])
FIELDS = st.lists(st.tuples(LISTS.map(lambda names: (names or [""])[0]), WEIGHTS).map("".join), max_size=5).map(",".join)


@given(NAMES, FIELDS | st.text(max_size=20))
def test_rule9_a_normal_form_is_its_own(name: str, value: str) -> None:
    form = normalised(name, value)
    assert form is not None
    assert normalised(name, form) == form


CODINGS = ["gzip", "br", "identity", "unknown"]


def acceptable(field: str) -> set[str]:
    """Return the codings that a field accepts according to RFC 9110 section 12.5.3."""
    weights = {part.partition(";")[0].strip(): not part.strip().endswith("q=0") for part in field.split(",") if part.strip()}
    others = weights.get("*")
    return {coding for coding in [*CODINGS, "other"] if weights.get(coding, others if others is not None else coding == "identity")}


@pytest.mark.parametrize("count", range(4))
def test_rule9_equal_forms_accept_the_same_codings(count: int) -> None:
    members = [f"{name}{weight}" for name in (*CODINGS, "*") for weight in ("", ";q=0")]
    for fields in itertools.permutations(members, count):
        if len({field.partition(";")[0] for field in fields}) == count:
            form = normalised("accept-encoding", ", ".join(fields))
            assert form is not None
            assert acceptable(form) == acceptable(", ".join(fields))


@pytest.mark.parametrize(
    ("request_fields", "other", "same"),
    [
        pytest.param({"foo": "1"}, {"foo": "1"}, True, id="rule9-the-same"),
        pytest.param({"foo": "1"}, {"foo": "1", "baz": "2"}, True, id="rule9-another-field"),
        pytest.param({}, {}, True, id="rule9-absent-matches-absent"),
        pytest.param({"foo": "1"}, {}, False, id="rule9-absent-now"),
        pytest.param({}, {"foo": "1"}, False, id="rule9-absent-then"),
        pytest.param({}, {"foo": ""}, False, id="rule9-empty-is-not-absent"),
        pytest.param({"foo": "1", "bar": "2"}, {"foo": "1", "bar": "2"}, True, id="rule9-both"),
        pytest.param({"foo": "1", "bar": "2"}, {"foo": "1", "bar": "3"}, False, id="rule9-one-of-two"),
        pytest.param({"foo": "1", "bar": "2"}, {"foo": "2", "bar": "1"}, False, id="rule9-exchanged"),
    ],
)
def test_a_variant_is_for_requests_like_its_own(request_fields: dict[str, str], other: dict[str, str], same: bool) -> None:
    chosen = selection(("bar", "foo"), request_fields.get)
    assert matches(chosen, request_fields.get)
    assert matches(chosen, other.get) is same


def test_rule9_a_response_without_vary_is_for_all() -> None:
    assert matches(selection((), {"foo": "1"}.get), {}.get)


class Stored(NamedTuple):
    name: str
    date: float | None
    answered: float

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        return (("X", self.name), *(() if self.date is None else (("date", http_date(self.date)),)))


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        pytest.param([Stored("a", 20, 1), Stored("b", 10, 2)], "a", id="rule10-the-latest-date"),
        pytest.param([Stored("a", 10, 9), Stored("b", 20, 1)], "b", id="rule10-whatever-came-first"),
        pytest.param([Stored("a", 10, 11), Stored("b", 10, 12)], "b", id="rule10-in-one-second-the-last-that-came"),
        pytest.param([Stored("a", None, 30), Stored("b", 20, 40)], "a", id="rule10-without-date-when-it-came"),
        pytest.param([Stored("a", 10, 10)], "a", id="rule10-one"),
    ],
)
def test_the_newest_of_several_is_used(stored: list[Stored], name: str) -> None:
    for order in (stored, stored[::-1]):
        found = newest(order)
        assert found is not None
        assert found.name == name


def test_rule10_none_of_none() -> None:
    assert newest(list[Stored]()) is None
