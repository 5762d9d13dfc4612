"""Selectors: what an answer depends on in the Accept fields."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import Accept, LanguageAccept, MIMEAccept
from werkzeug.http import parse_accept_header

from flask_stalecache.core.http.accept import (
    ACCEPT_FIELDS,
    CODINGS,
    AcceptReads,
    Chosen,
    Codings,
    Parsed,
    Raw,
    Selector,
    codings_named,
    field_of_selector,
    from_json,
    in_order,
    name_in_key,
    to_json,
    value_of,
    without_lists,
)

LANGUAGE = "accept-language"
OFFERS = ("de", "en", "fr", "it")
BY_LANGUAGE = Chosen(LANGUAGE, OFFERS, "en")
SELECTORS: list[Selector] = [
    "accept-language", BY_LANGUAGE, Chosen("accept", ("text/html", "application/json"), None),
    Parsed("accept"), Raw("accept-charset"), Codings(CODINGS), Codings(()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("selector", "value", "expected"),
    [
        (BY_LANGUAGE, "de-AT, de;q=0.9", "de"),
        (BY_LANGUAGE, "pl", "en"),
        (BY_LANGUAGE, "", "en"),
        (BY_LANGUAGE, None, "en"),
        (BY_LANGUAGE, "*", "de"),
        (Chosen(LANGUAGE, ("de",), None), "pl", None),
        (Chosen("accept", ("application/json", "text/html"), None), "text/*, application/json;q=0.5", "text/html"),
        (Chosen("accept-encoding", ("br", "gzip"), None), "gzip;q=0.5, br;q=0.1", "gzip"),
        (Chosen("accept-charset", ("utf-8",), None), "UTF8", "utf-8"),
        (Parsed(LANGUAGE), "en;q=0.50 ,  de-DE", "de-DE,en;q=0.5"),
        (Parsed(LANGUAGE), None, ""),
        (Raw(LANGUAGE), "en;q=0.50 ,  de-DE", "de-de, en;q=0.5"),
        (Raw(LANGUAGE), None, None),
        (Raw("accept-encoding"), "gzip;q=0.5,br", "br, gzip;q=0.5"),
        (Raw("accept-encoding"), "br;q=0, gzip", "gzip, br;q=0"),
        (Raw("accept-encoding"), "gzip;level=1,br", "gzip;level=1, br"),
        (Codings(CODINGS), "gzip, deflate, br, zstd", "br, deflate, gzip, zstd"),
        (Codings(CODINGS), "gzip;q=0.1, br, snappy, x-exi", "br, gzip"),
        (Codings(CODINGS), "snappy", "identity"),
        (Codings(CODINGS), "", "identity"),
        (Codings(CODINGS), None, None),
        (Codings(CODINGS), "*", "br, deflate, gzip, zstd"),
        (Codings(CODINGS), "*, br;q=0", "deflate, gzip, zstd"),
        (Codings(CODINGS), "*;q=0, gzip", "gzip, identity;q=0"),
        (Codings(CODINGS), "gzip, identity;q=0", "gzip, identity;q=0"),
        (Codings(("gzip",)), "br, gzip, deflate", "gzip"),
        (Codings(("gzip",)), "br, deflate", "identity"),
        ("accept-language", "EN;q=0.50,de", "de, en;q=0.5"),
    ],
)  # fmt: skip
def test_value(selector: Selector, value: str | None, expected: str | None) -> None:
    assert value_of(selector, value) == expected


LANGUAGES = st.lists(
    st.tuples(
        st.sampled_from(["de", "de-AT", "DE-de", "en", "en_US", "fr-CA", "pl", "*", "zh-Hans", "it"]),
        st.sampled_from(["", ";q=0", ";q=0.5", ";q=1", "; q=0.8", ";q=0.333"]),
    ),
    max_size=5,
).map(lambda members: ",".join(f"{name}{weight}" for name, weight in members))


@given(one=LANGUAGES, other=LANGUAGES)
def test_requests_with_one_value_get_one_answer(one: str, other: str) -> None:
    """If a selector has the same value for two requests, the page reads the same from the field of both."""
    first, second = (parse_accept_header(value, LanguageAccept) for value in (one, other))
    if value_of(BY_LANGUAGE, one) == value_of(BY_LANGUAGE, other):
        assert first.best_match(OFFERS, "en") == second.best_match(OFFERS, "en")
    for selector in (Parsed(LANGUAGE), Raw(LANGUAGE)):
        if value_of(selector, one) == value_of(selector, other):
            assert first.best_match(OFFERS) == second.best_match(OFFERS)
    if value_of(Parsed(LANGUAGE), one) == value_of(Parsed(LANGUAGE), other):
        assert list(first) == list(second)


@pytest.mark.parametrize("selector", SELECTORS, ids=ascii)
def test_data_and_back(selector: Selector) -> None:
    assert from_json(json.loads(json.dumps(to_json(selector)))) == selector


@pytest.mark.parametrize(
    "data",
    [
        None, 1, [], [[]], ["chosen"], ["chosen", "accept", "de", None], ["chosen", "accept", ["de", 1], None],
        ["chosen", "accept", ["de"], 1], ["chosen", "cookie", ["de"], None], ["parsed", "user-agent"], ["raw"], ["raw", 1],
        ["codings", "gzip"], ["codings", [None]], ["other", "accept"], {"raw": "accept"},
    ],
    ids=ascii,
)  # fmt: skip
def test_data_of_another_form(data: Any) -> None:
    with pytest.raises((ValueError, TypeError, LookupError)):
        from_json(data)


def test_names_in_keys_differ() -> None:
    others = [Chosen(LANGUAGE, OFFERS, None), Chosen(LANGUAGE, OFFERS[::-1], "en"), Parsed("accept-language"), Raw("accept")]
    names = [name_in_key(selector) for selector in (*SELECTORS, *others)]
    assert len(set(names)) == len(names)
    assert in_order((*SELECTORS, *SELECTORS)) == in_order(reversed(SELECTORS))
    assert len(in_order((*SELECTORS, *SELECTORS))) == len(SELECTORS)


# -- what was read -------------------------------------------------------------------------------------------------------


def reads(
    *, raw: tuple[str, ...] = (), parsed: tuple[str, ...] = (), chosen: tuple[tuple[str, Any, Any, Any], ...] = ()
) -> AcceptReads:
    found = AcceptReads()
    found.raw.update(raw)
    found.parsed.update(parsed)
    for field, offers, default, match in chosen:
        if not found.choose(field, offers, default, match):
            found.raw.add(field)
    return found


GERMAN = {"HTTP_ACCEPT_LANGUAGE": "de", "HTTP_ACCEPT_ENCODING": "gzip"}
ASKED = (LANGUAGE, OFFERS, "en", "de")


@pytest.mark.parametrize(
    ("accept", "announced", "changed", "expected"),
    [
        (reads(chosen=(ASKED,)), set(), set(), (BY_LANGUAGE,)),
        # Vary names only the field. The observed choice from a list says more.
        (reads(chosen=(ASKED,)), {LANGUAGE}, set(), (BY_LANGUAGE,)),
        (reads(chosen=(ASKED, (LANGUAGE, ("pl", "de"), None, "de"))), set(), set(), (BY_LANGUAGE, Chosen(LANGUAGE, ("pl", "de")))),
        (reads(parsed=(LANGUAGE,)), set(), set(), (Parsed(LANGUAGE),)),
        (reads(parsed=(LANGUAGE,), chosen=(ASKED,)), set(), set(), (Parsed(LANGUAGE),)),
        (reads(raw=(LANGUAGE,), chosen=(ASKED,)), set(), set(), (Raw(LANGUAGE),)),
        (reads(raw=(LANGUAGE,), parsed=(LANGUAGE,)), set(), set(), (Parsed(LANGUAGE), Raw(LANGUAGE))),
        (reads(raw=(LANGUAGE,)), {LANGUAGE}, set(), (LANGUAGE,)),
        (reads(), {LANGUAGE, "accept-encoding"}, set(), (LANGUAGE, Codings(CODINGS))),
        # A page of another cache within this one: all that is known is that it depends on the field.
        (reads(), set(), set(), (Raw(LANGUAGE),)),
        # The app has chosen from another value than the request had.
        (reads(chosen=((LANGUAGE, OFFERS, "en", "fr"),)), set(), set(), (Raw(LANGUAGE),)),
        (reads(chosen=(ASKED,)), set(), {"HTTP_ACCEPT_LANGUAGE"}, (Raw(LANGUAGE),)),
        (reads(chosen=(ASKED,)), {LANGUAGE}, {"HTTP_ACCEPT_LANGUAGE"}, (Raw(LANGUAGE),)),
        # Lists that are not made of strings, or are too long.
        (reads(chosen=((LANGUAGE, [1, 2], None, None),)), set(), set(), (Raw(LANGUAGE),)),
        (reads(chosen=((LANGUAGE, OFFERS, 7, 7),)), set(), set(), (Raw(LANGUAGE),)),
        (reads(chosen=((LANGUAGE, ("x" * 5000,), None, None),)), set(), set(), (Raw(LANGUAGE),)),
        (reads(chosen=tuple((LANGUAGE, ("de", str(n)), None, "de") for n in range(9))), set(), set(), (Raw(LANGUAGE),)),
    ],
)  # fmt: skip
def test_selectors(accept: AcceptReads, announced: set[str], changed: set[str], expected: tuple[Selector, ...]) -> None:
    read = set() if announced and not (accept.raw or accept.parsed or accept.chosen) else {LANGUAGE}
    assert set(accept.selectors(read, announced, GERMAN.get, changed)) == set(expected)


def test_fields_that_were_not_read_are_no_selectors() -> None:
    assert reads().selectors({"user-agent", "cookie"}, {"cookie"}, GERMAN.get) == ()


@pytest.mark.parametrize("selector", SELECTORS, ids=ascii)
def test_inherited(selector: Selector) -> None:
    field = field_of_selector(selector)
    outer = AcceptReads()
    outer.inherit(selector, GERMAN.get)
    (found,) = outer.selectors({field}, (), GERMAN.get)
    assert found == (Raw(field) if isinstance(selector, (str, Codings)) else selector)


def test_without_lists() -> None:
    assert without_lists([BY_LANGUAGE, Parsed("accept")], {LANGUAGE}) == in_order([Raw(LANGUAGE), Parsed("accept")])
    assert without_lists([BY_LANGUAGE], {"accept"}) == (BY_LANGUAGE,)


def test_codings_of_a_setting() -> None:
    assert codings_named(("gzip", " BR", "identity", "gzip")) == ("br", "gzip")


@pytest.mark.parametrize(("field", "kind"), [("accept", MIMEAccept), ("accept-encoding", Accept)])
def test_any_field_is_parsed_as_the_request_does(field: str, kind: type[Accept]) -> None:
    assert field in ACCEPT_FIELDS
    assert value_of(Parsed(field), "*/*;q=0.1, text/html") == parse_accept_header("*/*;q=0.1, text/html", kind).to_header()
