"""The index of the variants of a URL: which variants exist, and what distinguishes them. Pure.

It is an entry under the key of the URL. Its lines are the sets of selectors, the newest first, the known variants, and the fields
whose lists were given up. An index is bounded: if an app keeps using new lists, the field itself takes their place; if visitors
keep sending new values, answers to further values are not stored.
"""

from __future__ import annotations

import json
from ast import literal_eval
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from ..addressing.keys import NAMED, Shown, digest, shown
from ..http.accept import (
    ACCEPT_FIELDS,
    ENCODING,
    Chosen,
    Named,
    Selector,
    field_of_selector,
    from_json,
    name_in_key,
    to_json,
    value_of,
    variable_of_selector,
    without_lists,
)
from ..model.entry import Entry
from ..model.inputs import NO_NAMES
from ..model.policy import Windows

#: The status of an index. No response has it.
INDEX = 0
#: The greatest number of sets in an index. Nearly all URLs have one. If an app keeps making new sets, the oldest is dropped.
MOST = 4
#: The greatest number of variants of a URL, those that differ in Accept-Encoding alone counted as one.
MOST_VARIANTS = 16
#: The greatest number of variants that differ in Accept-Encoding alone.
MOST_ENCODINGS = 8
#: The names of the lines of an index.
SET, VARIANT, WHOLE = "Vary", "Variant", "Whole"

Fields: TypeAlias = "tuple[Selector, ...]"


class Variant(NamedTuple):
    """One variant of a URL.

    :ivar fields: its selectors, in order.
    :ivar values: the values that the selectors take from a request, as keys have them.
    """

    fields: Fields
    values: tuple[Shown, ...]

    @classmethod
    def of(cls, fields: Fields, get: Callable[[str], Any]) -> Variant:
        """Return the variant for a request.

        :param get: returns a value of the WSGI environ, or a named value; ``None`` for an absent one.
        """
        return cls(fields, tuple([_shown_of(selector, get(variable_of_selector(selector))) for selector in fields]))

    def key(self, url_key: str) -> str:
        """Return its key."""
        return ascii(("variant", url_key, *self.values, tuple(map(name_in_key, self.fields))))

    @property
    def apart_from_encoding(self) -> tuple[object, ...]:
        """The part of it that does not come from Accept-Encoding."""
        pairs = zip(self.fields, self.values, strict=True)
        return self.fields, tuple(value for selector, value in pairs if field_of_selector(selector) != ENCODING)


def variant_key(url_key: str, fields: Fields, get: Callable[[str], Any]) -> str:
    """Return the key of the variant for a request.

    :param url_key: the key of the URL.
    :param fields: selectors, in order.
    :param get: returns a value of the WSGI environ, or ``None``.
    """
    return Variant.of(fields, get).key(url_key)


def is_variant_of(url_key: str, key: str) -> bool:
    """Whether a key belongs to a variant of a URL."""
    return key.startswith(f"('variant', {url_key!a}, ")


def is_told_by(key: str, fields: Fields) -> bool:
    """Whether the key of a variant has the values of some selectors, so that all requests with that key agree in them."""
    try:
        known = {*literal_eval(key)[-1]} if key.startswith("('variant', ") else set()
    except (ValueError, SyntaxError, TypeError):
        return False
    return all(not known.isdisjoint({name_in_key(each), (name := field_of_selector(each)), (name, "raw")}) for each in fields)


def named_in_key(key: str) -> dict[Named, str | None]:
    """Return the cookies and values of the session that a key of a variant has, with the digests of their values."""
    try:
        parts = literal_eval(key) if key.startswith("('variant', ") else ((),)
        return {
            Named(*name[1:]): value and value[0] for name, value in zip(parts[-1], parts[2:-1], strict=True) if name[0] == NAMED
        }
    except (ValueError, SyntaxError, LookupError, TypeError, RecursionError, MemoryError):
        # It comes from a file.
        return {}


def _shown_of(selector: Selector, value: str | None) -> Shown:
    """Return the value that a selector takes from a request, as keys have it. Named values are always digests."""
    if isinstance(selector, Named):
        return None if value is None else (digest(value),)
    return shown(field_of_selector(selector), normal_form(selector, value))


def normal_form(selector: Selector, value: str | None) -> str | None:
    """Return the value that a selector takes from a request field. Results for short values are cached."""
    return value_of(selector, value) if value is not None and len(value) > _LONG else _remembered(selector, value)


#: Clients choose the values: a flood of long ones must not fill the cache.
_LONG = 200
_remembered = lru_cache(maxsize=1024)(value_of)


# -- the index ---------------------------------------------------------------------------------------------------------


class Listing(NamedTuple):
    """The content of an index.

    :ivar sets: the sets of selectors, the newest first.
    :ivar variants: the known variants, the newest last.
    :ivar whole: the Accept fields that take the place of lists, since the app has used too many.
    """

    sets: tuple[Fields, ...] = ()
    variants: tuple[Variant, ...] = ()
    whole: tuple[str, ...] = ()

    @classmethod
    def of(cls, entry: Entry | None) -> Listing:
        """Return the content of an index; an empty one for any other entry.

        :raises ValueError: for lines of another form; likewise :class:`TypeError` and :class:`LookupError`.
        """
        if entry is None or entry.status != INDEX:
            return NOT_LISTED
        sets = tuple(sets_in(entry))
        found = (json.loads(value) for name, value in entry.headers if name == VARIANT)
        variants = tuple(Variant(sets[number], tuple(map(_shown_value, values))) for number, *values in found)
        return cls(sets, variants, tuple(value for name, value in entry.headers if name == WHOLE))

    @property
    def lines(self) -> tuple[tuple[str, str], ...]:
        """The lines of the index, as the fields of an entry."""
        numbers = {fields: number for number, fields in enumerate(self.sets)}
        variants = [[numbers[fields], *values] for fields, values in self.variants]
        return (
            *((SET, _set_line(each)) for each in self.sets),
            *((VARIANT, json.dumps(each)) for each in variants),
            *((WHOLE, field) for field in self.whole),
        )

    def has_room(self, variant: Variant) -> bool:
        """Whether a variant is in the index, or may be added."""
        if variant in self.variants:
            return True
        alike = [known for known in self.variants if known.apart_from_encoding == variant.apart_from_encoding]
        if alike:
            return len(alike) < MOST_ENCODINGS
        return len({known.apart_from_encoding for known in self.variants}) < MOST_VARIANTS

    def for_set(self, fields: Fields) -> tuple[Listing, Fields]:
        """Return the index to which an answer is added, and the selectors under which the answer is stored.

        If the app has used too many lists, the fields themselves take their place, and the variants by lists are given up.
        """
        fields = without_lists(fields, self.whole)
        if fields in self.sets or len(self.sets) < MOST:
            return self, fields
        lists = {each.field for known in (*self.sets, fields) for each in known if isinstance(each, Chosen)}
        whole = tuple(sorted({*self.whole, *lists}))
        return self.with_whole(whole), without_lists(fields, whole)

    def with_whole(self, whole: tuple[str, ...]) -> Listing:
        """Return the index without the sets that have lists of these fields, and without their variants."""
        sets = tuple(each for each in self.sets if without_lists(each, whole) == each)
        return Listing(sets, tuple(known for known in self.variants if known.fields in sets), whole)

    def including(self, variant: Variant) -> Listing:
        """Return the index with a variant added, whose set comes first."""
        sets = (variant.fields, *(each for each in self.sets if each != variant.fields))[:MOST]
        others = (known for known in self.variants if known != variant and known.fields in sets)
        return self._replace(sets=sets, variants=(*others, variant))

    def keeping(self, is_kept: Callable[[Variant], bool]) -> Listing:
        """Return the index without the variants that are not stored any more."""
        return self._replace(variants=tuple(filter(is_kept, self.variants)))

    def merged(self, other: Listing) -> Listing:
        """Return the index merged with another one, as far as there is room."""
        if not self.sets:
            return other
        whole = tuple(sorted({*self.whole, *other.whole}))
        found, further = other.with_whole(whole), self.with_whole(whole)
        sets = tuple(dict.fromkeys((*further.sets[:1], *found.sets, *further.sets[1:])))[:MOST]
        result = Listing(sets, (), whole)
        for variant in (*found.variants, *further.variants):
            if variant.fields in sets and variant not in result.variants and result.has_room(variant):
                result = result._replace(variants=(*result.variants, variant))
        return result


NOT_LISTED = Listing()


def _set_line(fields: Fields) -> str:
    if all(isinstance(selector, str) for selector in fields):
        return ",".join(map(str, fields))
    return json.dumps([to_json(selector) for selector in fields])


def sets_in(entry: Entry) -> Iterator[Fields]:
    """Yield the sets of selectors in an index, the newest first."""
    for name, value in entry.headers:
        if name == SET:
            # No field has a bracket in its name.
            yield tuple(map(from_json, json.loads(value) if value.startswith("[") else filter(None, value.split(","))))


def _shown_value(value: Any) -> Shown:
    match value:
        case None | str():
            return value
        case [str() as secret]:
            return (secret,)
        case _:
            raise TypeError("no value of a request field")


def check_lines(entry: Entry) -> None:
    """Check the lines of an index.

    :raises ValueError: for lines that lead nowhere, or have another form; likewise :class:`TypeError` and :class:`LookupError`.
    """
    listing = Listing.of(entry)
    is_known = all(name in (SET, VARIANT, WHOLE) for name, _ in entry.headers)
    is_matched = all(len(variant.fields) == len(variant.values) for variant in listing.variants)
    if not (is_known and is_matched and 1 <= len(listing.sets) <= MOST and ACCEPT_FIELDS.issuperset(listing.whole)):
        raise ValueError("no index of variants")


def keys_in(entry: Entry) -> list[str]:
    """Return the keys of the variants that an index lists; for any other entry, its own key."""
    if entry.status != INDEX:
        return [entry.key]
    return [variant.key(entry.key) for variant in Listing.of(entry).variants]


def index_with(listing: Listing, variant: Entry, url_key: str) -> Entry:
    """Return the entry of an index.

    :param listing: its content.
    :param variant: the entry that the index leads to. The index gets its times, and its names except for tags.
    :param url_key: the key of the URL and of the index.
    """
    return replace(
        variant,
        key=url_key,
        names=tuple(name for name in variant.names if not name.startswith("tag:")),
        windows=Windows(0.0, 0.0, 0.0),
        never_stale=True,
        absent=NO_NAMES,
        varied=(),
        status=INDEX,
        headers=listing.lines,
        body=b"",
        recipe={},
        calls=(),
        by_file=False,
    )


def merged_index(index: Entry, stored: Entry | None) -> Entry:
    """Return an index that also leads to the variants that were stored since it was made."""
    known = Listing.of(stored)
    if stored is None or not known.sets:
        return index
    times = {name: max(getattr(index, name), getattr(stored, name)) for name in ("seq", "started", "answered", "received")}
    return replace(index, headers=Listing.of(index).merged(known).lines, **times)
