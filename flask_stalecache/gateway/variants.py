"""The variants of one URL: which request fields tell them apart, and where each is stored (RFC 9111 section 4.1). Pure.

A response without ``Vary`` is stored under the key of its URL. Once one has ``Vary``, an index takes that place: it lists the sets
of fields that responses named, the newest first, and each variant is stored under a key made of the URL's and of these fields'
values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

from ..entry import Entry
from ..http.vary import normalised
from ..policy import Windows
from ..reads import NO_NAMES, environ_name

#: The status of an index; no response has it.
INDEX = 0
#: Sets of fields that are looked for at most. Those of a URL are one nearly always; an app that makes up new ones is not followed.
MOST = 4

Fields = tuple[str, ...]


def variant_key(url_key: str, fields: Fields, get: Callable[[str], Any]) -> str:
    """Return the key of the variant that a request asks for.

    :param url_key: the key of the URL.
    :param fields: request fields in lower case, sorted.
    :param get: returns what the WSGI environ has under a name, or ``None``.
    """
    return ascii(("variant", url_key, *[normal_form(name, get(environ_name(name))) for name in fields], fields))


def normal_form(name: str, value: str | None) -> str | None:
    """Return the normal form of a request field; those of the usual ones are remembered."""
    return normalised(name, value) if value is not None and len(value) > _LONG else _remembered(name, value)


#: Visitors choose what they send: a flood of long fields is not kept.
_LONG = 200
_remembered = lru_cache(maxsize=1024)(normalised)


def sets_in(entry: Entry) -> Iterator[Fields]:
    """Return the sets of fields in an index, the newest first."""
    for _, value in entry.headers:
        yield tuple(filter(None, value.split(",")))


class Index:
    """An index, as a process keeps it: where to look for what is asked for.

    :ivar sets: the sets of fields, the newest first.
    :ivar names: what the environ calls the fields; ``None`` if there are several sets, of which the newest answer is chosen anew.
    :ivar keys: the keys of the variants that were asked for, by the fields' values as they came.
    """

    __slots__ = ("keys", "names", "sets")

    def __init__(self, entry: Entry) -> None:
        self.sets = tuple(sets_in(entry))
        self.names = [environ_name(name) for name in self.sets[0]] if len(self.sets) == 1 else None
        self.keys: dict[tuple[Any, ...], str] = {}

    def note(self, values: tuple[Any, ...], key: str) -> None:
        """Note where a variant is; visitors choose the values, so that only so many are kept."""
        if len(self.keys) >= REMEMBERED:
            self.keys.clear()
        self.keys[values] = key


#: Variants of one URL that are found again without comparing their fields.
REMEMBERED = 64


def index_with(fields: Fields, known: Entry | None, variant: Entry, url_key: str) -> Entry:
    """Return an index in which a set of fields comes first.

    :param fields: request fields in lower case, sorted.
    :param known: the index so far.
    :param variant: what is stored under these fields: the index is as new, and is purged by the same names but tags.
    :param url_key: the key of the URL, which is the index's own.
    """
    others: Iterable[Fields] = () if known is None or known.status != INDEX else sets_in(known)
    sets = [fields, *(each for each in others if each != fields)][:MOST]
    return replace(
        variant,
        key=url_key,
        names=tuple(name for name in variant.names if not name.startswith("tag:")),
        windows=Windows(0.0, 0.0, 0.0),
        never_stale=True,
        absent=NO_NAMES,
        varied=(),
        status=INDEX,
        headers=tuple(("Vary", ",".join(each)) for each in sets),
        body=b"",
        recipe={},
        calls=(),
    )
