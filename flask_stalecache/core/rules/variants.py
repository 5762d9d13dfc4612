"""The variants of one URL: which request fields tell them apart, and where each is stored (RFC 9111 section 4.1). Pure.

A response without ``Vary`` is stored under the key of its URL. Once one has ``Vary``, an index takes that place: it lists the sets
of fields that responses named, the newest first, and each variant is stored under a key made of the URL's and of these fields'
values.
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
from ..model.policy import Windows

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


def is_variant_of(url_key: str, key: str) -> bool:
    """Whether a key is that of a variant of a URL."""
    return key.startswith(f"('variant', {url_key!a}, ")


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


class Found(Protocol):
    """What is stored under a key, as far as variants go."""

    @property
    def entry(self) -> Entry | None: ...

    prepared: Any


def locate(url_key: str, environ: Mapping[str, Any], look_up: Callable[[str], Found], now: float) -> tuple[str, Fields]:
    """Return the key of what a request asks for, and the fields that are in it: the URL's own key, or that of a variant.

    :param url_key: the key of the URL.
    :param environ: the request.
    :param look_up: returns what is stored under a key.
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
    index.note(tuple(map(get, index.names)), found[0][0])
    return found[0]


def _newest(
    found: list[tuple[str, Fields]], environ: Mapping[str, Any], look_up: Callable[[str], Found], now: float
) -> tuple[str, Fields]:
    """Return the variant of the latest Date that is for this request (RFC 9111 section 4.1), else the first that is missing.

    One with absent names is sent with them in its Vary: it does not match who carries one. And one from the future, of before the
    clock stepped back, must not win for as long as it takes the clock to get there.
    """
    entries = [(each, look_up(each[0]).entry) for each in found]
    matching = [entry for _, entry in entries if entry is not None and not entry.absent.present_in(environ)]
    chosen = newest(entry for entry in matching if entry.answered <= now) or newest(matching)
    if chosen is not None:
        return next(each for each in found if each[0] == chosen.key)
    return next((each for each, entry in entries if entry is None), found[0])


class Place(NamedTuple):
    """Where an answer is stored.

    :ivar key: its key.
    :ivar is_known: it is found there without a new index.
    """

    key: str
    is_known: bool


def place_of(url_key: str, fields: Fields, get: Callable[[str], Any], known: Entry | None) -> Place:
    """Return where an answer is stored.

    :param url_key: the key of the URL.
    :param fields: the request fields that tell the answer from others of the URL, in lower case and sorted.
    :param get: returns what the WSGI environ of its request has under a name, or ``None``.
    :param known: what is stored under the key of the URL.
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
        by_file=False,
    )
