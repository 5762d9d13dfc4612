"""The variants of a URL (``core.rules.variants``): found, bounded, and listed in its index (``core.rules.variant_index``)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_stalecache.core.addressing.keys import is_key_of_page, url_key_of
from flask_stalecache.core.http.accept import CODINGS, Chosen, Codings, Parsed, Raw, in_order
from flask_stalecache.core.model.entry import Entry
from flask_stalecache.core.rules.variant_index import (
    INDEX,
    MOST,
    MOST_ENCODINGS,
    MOST_VARIANTS,
    Fields,
    Listing,
    Variant,
    check_lines,
    index_with,
    is_variant_of,
    keys_in,
    merged_index,
)
from flask_stalecache.core.rules.variants import StoragePlace, locate, place_of
from support.engine import make_entry

URL = "('page', 'shop.home', ('http', 'localhost'), ())"
LANGUAGE = "accept-language"
BY_LANGUAGE = (Chosen(LANGUAGE, ("de", "en", "fr", "it"), "en"),)


class Copy:
    def __init__(self, entry: Entry | None) -> None:
        self.entry = entry
        self.prepared: Any = None


class Shelf:
    """A store of variants, as the front ends use it."""

    def __init__(self) -> None:
        self.copies: dict[str, Copy] = {}
        self.calls = 0

    def look_up(self, key: str) -> Copy:
        return self.copies.setdefault(key, Copy(None))

    def ask(self, environ: dict[str, str], fields: Fields) -> str:
        """Answer a request from the store, or else by a page that depends on some fields.

        :returns: the serial of the entry; ``live``: the answer was not stored.
        """
        located = locate(URL, environ, self.look_up, 0.0)
        if (entry := self.look_up(located.key).entry) is not None:
            return entry.serial
        self.calls += 1
        known = self.look_up(URL).entry
        place = place_of(URL, fields, environ.get, known, lambda key: self.look_up(key).entry is not None)
        if place is None:
            return "live"
        entry = make_entry(place.key, serial=str(self.calls))
        self.copies[place.key] = Copy(entry)
        if place.listing is not None:
            self.copies[URL] = Copy(index_with(place.listing, entry, URL))
            check_lines(self.copies[URL].entry)  # type: ignore[arg-type]
        return entry.serial

    @property
    def listing(self) -> Listing:
        return Listing.of(self.look_up(URL).entry)


def speaking(language: str, **more: str) -> dict[str, str]:
    return {"HTTP_ACCEPT_LANGUAGE": language, **more}


def test_a_hundred_spellings_of_four_languages_make_four_variants() -> None:
    shelf = Shelf()
    spellings = [f"{name}{end},{other};q=0.{n}" for n in range(1, 6) for other in ("pl", "ru", "zh", "ja", "tr")
                 for name, end in (("de", "-AT"), ("en", "-GB"), ("fr", ""), ("it", "-it"))]  # fmt: skip
    assert len(set(spellings)) == 100
    served = {(shelf.ask(speaking(value), BY_LANGUAGE), value[:2]) for value in spellings}
    assert shelf.calls == len(served) == len(shelf.listing.variants) == 4


def test_two_lists_of_one_page_make_a_set() -> None:
    shelf, fields = Shelf(), (*BY_LANGUAGE, Chosen(LANGUAGE, ("pl", "de"), None))
    served = [shelf.ask(speaking(value), fields) for value in ("de", "de-AT", "pl", "pl, de;q=0.5", "fr")]
    assert served == ["1", "1", "2", "3", "4"]


def test_a_page_that_reads_by_paths_has_a_set_for_each() -> None:
    """It asks for JSON or HTML first, and for a language only of HTML."""
    shelf, by_type = Shelf(), Chosen("accept", ("text/html", "application/json"), "text/html")
    html, json = (by_type, *BY_LANGUAGE), (by_type,)

    def ask(accept: str, language: str) -> str:
        return shelf.ask(speaking(language, HTTP_ACCEPT=accept), json if "json" in accept else html)

    served = [ask(*each) for each in 2 * [("application/json", "de"), ("text/html", "de"), ("text/html", "fr")]]
    assert served == ["1", "2", "3", "1", "2", "3"]
    assert ask("application/json", "fr") == "1"
    assert len(shelf.listing.sets) == 2


def test_the_field_takes_the_place_of_too_many_lists() -> None:
    """The page tries six lists in turn, until one has a match."""
    shelf, lists = Shelf(), [Chosen(LANGUAGE, (f"x{n}",), None) for n in range(6)]
    served = [shelf.ask(speaking(f"x{number}"), in_order(lists[: number + 1])) for _ in range(6) for number in range(6)]
    assert shelf.listing.sets == ((Raw(LANGUAGE),),)
    assert shelf.listing.whole == (LANGUAGE,)
    assert served[12:] == served[6:12] * 4
    assert len({*served[12:]}) == 6


def test_values_beyond_the_bound_are_live() -> None:
    shelf, fields = Shelf(), (Raw(LANGUAGE),)
    served = [shelf.ask(speaking(f"x{n}"), fields) for n in range(300)]
    assert served.count("live") == 300 - MOST_VARIANTS
    assert [shelf.ask(speaking(f"x{n}"), fields) for n in range(MOST_VARIANTS)] == served[:MOST_VARIANTS]
    assert len(shelf.copies[URL].entry.headers) == MOST_VARIANTS + 1  # type: ignore[union-attr]


def test_a_variant_that_is_gone_makes_room() -> None:
    shelf, fields = Shelf(), (Raw(LANGUAGE),)
    for number in range(MOST_VARIANTS):
        shelf.ask(speaking(f"x{number}"), fields)
    assert shelf.ask(speaking("new"), fields) == "live"
    located = locate(URL, speaking("new"), shelf.look_up, 0.0)
    assert not located.has_room
    del shelf.copies[locate(URL, speaking("x3"), shelf.look_up, 0.0).key]
    assert shelf.ask(speaking("new"), fields) != "live"
    assert len(shelf.listing.variants) == MOST_VARIANTS


def test_encodings_have_a_bound_of_their_own() -> None:
    shelf, fields = Shelf(), (Codings(CODINGS), *BY_LANGUAGE)
    encodings = [
        "gzip",
        "gzip, deflate",
        "gzip, deflate, br",
        "gzip, deflate, br, zstd",
        "br",
        "identity",
        "",
        "br;q=1.0, gzip;q=0.8",
    ]
    for _ in range(2):
        for encoding in encodings:
            for language in ("de-AT", "en", "fr", "it"):
                shelf.ask(speaking(language, HTTP_ACCEPT_ENCODING=encoding), fields)
    assert shelf.calls == len(shelf.listing.variants) <= 28
    assert all(shelf.listing.has_room(variant) for variant in shelf.listing.variants)
    for number in range(50):
        shelf.ask(speaking("de", HTTP_ACCEPT_ENCODING=f"gzip;level={number}"), fields)
    assert len(shelf.listing.variants) <= 28 + MOST_ENCODINGS


def test_a_page_without_selectors_keeps_the_key_of_its_url() -> None:
    assert place_of(URL, (), {}.get, None) == StoragePlace(URL, (), None)
    assert place_of(URL, (), {}.get, make_entry(URL)) == StoragePlace(URL, (), None)


def test_the_index_tells_the_keys_of_the_variants() -> None:
    shelf = Shelf()
    for language in ("de", "en", "fr"):
        shelf.ask(speaking(language), BY_LANGUAGE)
    index = shelf.look_up(URL).entry
    assert index is not None
    keys = keys_in(index)
    assert sorted(keys) == sorted(key for key, copy in shelf.copies.items() if key != URL and copy.entry is not None)
    assert all(is_variant_of(URL, key) and url_key_of(key) == URL and is_key_of_page(key) for key in keys)
    assert keys_in(make_entry("other")) == ["other"]


@pytest.mark.parametrize("key", ["('variant', ", "('variant', 1)", "('variant',)", "other", "('variant', " + "(" * 5000])
def test_a_key_from_a_broken_file_has_no_url(key: str) -> None:
    assert not is_key_of_page(key)


def test_lines_of_plain_fields_are_those_of_vary() -> None:
    listing = Listing().including(Variant.of(("accept-language", "x-theme"), {}.get))
    assert listing.lines[0] == ("Vary", "accept-language,x-theme")


FIELDS: list[Fields] = [
    ("x-theme",), BY_LANGUAGE, (Parsed(LANGUAGE),), (Codings(CODINGS), *BY_LANGUAGE), (), ("cookie",),
    *[(Chosen("accept", (f"text/{n}",), None),) for n in range(4)],
]  # fmt: skip
ADDED = st.lists(st.tuples(st.sampled_from(FIELDS), st.sampled_from(["a", "b", "x" * 600, None])), min_size=1, max_size=12)


def listing_with(added: list[tuple[Fields, str | None]]) -> Listing:
    listing = Listing()
    for fields, value in added:
        environ = {} if value is None else dict.fromkeys(("HTTP_X_THEME", "HTTP_ACCEPT_LANGUAGE", "HTTP_COOKIE"), value)
        listing, fields = listing.for_set(fields)
        listing = listing.including(Variant.of(fields, environ.get))
    return listing


@given(one=ADDED, other=ADDED)
def test_any_index_is_read_as_it_was_written(one: list[Any], other: list[Any]) -> None:
    first, second = listing_with(one), listing_with(other)
    entries = [index_with(listing, make_entry("variant", names=("all", "tag:a")), URL) for listing in (first, second)]
    for listing, entry in zip((first, second), entries, strict=True):
        check_lines(entry)
        assert Listing.of(entry) == listing
        assert 1 <= len(listing.sets) <= MOST
        assert entry.status == INDEX
        assert entry.names == ("all",)
    both = merged_index(entries[0], replace(entries[1], started=5e9))
    check_lines(both)
    assert both.started == 5e9
    found = Listing.of(both)
    assert len(found.sets) <= MOST
    assert all(variant.fields in found.sets for variant in found.variants)
    if first.sets == second.sets and not (first.whole or second.whole):
        assert {*first.variants, *second.variants} == {*found.variants}
    assert merged_index(entries[0], None) == entries[0] == merged_index(entries[0], make_entry(URL))


@pytest.mark.parametrize(
    "lines",
    [
        (), (("Variant", "[0]"),), (("Vary", "a"), ("Variant", "[1]")), (("Vary", "a"), ("Variant", "[0]")),
        (("Vary", "a"), ("Variant", '[0, "b", "c"]')), (("Vary", "a"), ("Variant", "[0, 1]")), (("Vary", "a"), ("Variant", "{}")),
        (("Vary", "a"), ("Other", "b")), (("Vary", '["a"'),), (("Vary", '[["raw", "cookie"]]'),),
        (("Vary", "a"), ("Whole", "cookie")),
        tuple(("Vary", name) for name in "abcde"),
    ],
    ids=ascii,
)  # fmt: skip
def test_lines_of_another_form(lines: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises((ValueError, TypeError, LookupError)):
        check_lines(replace(make_entry(URL), status=INDEX, headers=lines))
