"""Finds the stored variant of a URL that matches a request (RFC 9111 section 4.1). Pure.

A response with ``Vary`` is stored under a key of its own, made from the key of the URL and the values of the named request fields.
Under the key of the URL there is an index then: the sets of fields that responses named in ``Vary``, the newest first.

===================================== ==============================================================
stored under the key of the URL       a request is answered from
===================================== ==============================================================
nothing, or a response without Vary   that key
an index with one set                 the variant of that set
an index with several sets            the matching variant with the latest Date; if none matches,
                                      the key of the first missing one
===================================== ==============================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from ..http.vary import newest, normalised
from ..model.entry import Entry
from ..model.environ import environ_name
from ..model.inputs import NO_NAMES
from ..model.keys import shown
from ..model.policy import Windows
from ..remembered import MIB, Remembered

#: The status of an index. No response has it.
INDEX = 0
#: The greatest number of sets in an index. Nearly all URLs have one. An app that keeps inventing new ones is not followed.
MOST = 4

Fields = tuple[str, ...]


def variant_key(url_key: str, fields: Fields, get: Callable[[str], Any]) -> str:
    """Return the key of the variant for a request.

    :param url_key: the key of the URL.
    :param fields: request fields in lower case, sorted.
    :param get: returns a value of the WSGI environ, or ``None``.
    """
    return ascii(("variant", url_key, *[shown(name, normal_form(name, get(environ_name(name)))) for name in fields], fields))


def is_variant_of(url_key: str, key: str) -> bool:
    """Whether a key belongs to a variant of a URL."""
    return key.startswith(f"('variant', {url_key!a}, ")


def normal_form(name: str, value: str | None) -> str | None:
    """Return the normal form of a request field. Those of short values are cached."""
    return normalised(name, value) if value is not None and len(value) > _LONG else _remembered(name, value)


#: Clients choose the values: a flood of long ones must not fill the cache.
_LONG = 200
_remembered = lru_cache(maxsize=1024)(normalised)


def sets_in(entry: Entry) -> Iterator[Fields]:
    """Return the sets of fields in an index, the newest first."""
    for _, value in entry.headers:
        yield tuple(filter(None, value.split(",")))


class Index:
    """An index in the memory of a process.

    :ivar sets: the sets of fields, the newest first.
    :ivar names: the names of the fields in the environ; ``None`` if there are several sets, so that each request compares them.
    :ivar keys: the keys of requested variants of all URLs, by the index of the URL and the values of the fields as received.
    """

    __slots__ = ("keys", "names", "sets")

    def __init__(self, entry: Entry) -> None:
        self.sets = tuple(sets_in(entry))
        self.names = [environ_name(name) for name in self.sets[0]] if len(self.sets) == 1 else None
        self.keys = VARIANTS


#: Clients choose both the URLs and the values, so that one limit holds for all indexes.
VARIANTS: Remembered[tuple[Any, ...], str] = Remembered(most=16384, limit=8 * MIB, longest=4096)
#: Bytes of an index that is remembered, perhaps after its copy has gone.
_INDEX = 1000


class Found(Protocol):
    """The copy under a key. (:class:`~...stores.base.Copy` is one; core imports no store.)"""

    @property
    def entry(self) -> Entry | None: ...

    prepared: Any


def locate(url_key: str, environ: Mapping[str, Any], look_up: Callable[[str], Found], now: float) -> tuple[str, Fields]:
    """Return the key for a request, and the request fields in it: the key of the URL, or that of a variant.

    :param url_key: the key of the URL.
    :param environ: the request.
    :param look_up: returns the copy under a key.
    :param now: seconds since the epoch.
    """
    copy = look_up(url_key)
    entry = copy.entry
    if entry is None or entry.status != INDEX:
        return url_key, ()
    index: Index | None = copy.prepared
    if index is None:
        index = copy.prepared = Index(entry)
    get = environ.get
    found = [(variant_key(url_key, fields, get), fields) for fields in index.sets]
    if index.names is None:
        return _newest(found, environ, look_up, now)
    index.keys.note((index, *map(get, index.names)), found[0][0], _INDEX)
    return found[0]


def _newest(
    found: list[tuple[str, Fields]], environ: Mapping[str, Any], look_up: Callable[[str], Found], now: float
) -> tuple[str, Fields]:
    """Return the matching variant with the latest Date (RFC 9111 section 4.1), else the first missing one.

    A variant with absent names does not match a request that carries one of them. A variant from the future, stored before the
    clock stepped back, is chosen only if there is no other. It would win until the clock gets there.
    """
    entries = [(each, look_up(each[0]).entry) for each in found]
    matching = [entry for _, entry in entries if entry is not None and not entry.absent.present_in(environ)]
    chosen = newest(entry for entry in matching if not entry.is_from_future(now)) or newest(matching)
    if chosen is not None:
        return next(each for each in found if each[0] == chosen.key)
    return next((each for each, entry in entries if entry is None), found[0])


class Place(NamedTuple):
    """The place where a response is stored.

    :ivar key: its key.
    :ivar is_known: requests find it there without a new index.
    """

    key: str
    is_known: bool


def place_of(url_key: str, fields: Fields, get: Callable[[str], Any], known: Entry | None) -> Place:
    """Return the place where a response is stored.

    :param url_key: the key of the URL.
    :param fields: the request fields in its Vary, in lower case and sorted.
    :param get: returns a value of the WSGI environ of its request, or ``None``.
    :param known: the entry under the key of the URL, if any.
    """
    has_index = known is not None and known.status == INDEX
    if not fields and not has_index:
        return Place(url_key, True)
    is_first = known is not None and has_index and next(sets_in(known), None) == fields
    return Place(variant_key(url_key, fields, get), is_first)


def index_with(fields: Fields, known: Entry | None, variant: Entry, url_key: str) -> Entry:
    """Return an index in which a set of fields comes first.

    :param fields: request fields in lower case, sorted.
    :param known: the index so far.
    :param variant: the entry for these fields. The index gets its times and its names, except for tags.
    :param url_key: the key of the URL and of the index.
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
        by_file=False,
    )
