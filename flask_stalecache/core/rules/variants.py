"""Finds the stored variant of a URL that matches a request (RFC 9111 section 4.1). Pure.

A response that depends on request fields is stored under a key of its own, made from the key of the URL and the values that its
selectors (:mod:`~flask_stalecache.core.http.accept`) take from those fields. The fields are those that the response names in
``Vary``, and the Accept fields that the app has read. Under the key of the URL there is then an index (:mod:`.variant_index`).

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

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from ..http.accept import Named, field_of_selector
from ..http.vary import newest
from ..model.entry import Entry
from ..model.environ import environ_name
from ..model.inputs import HoldsKeys
from ..remembered import MIB, Remembered
from .variant_index import INDEX, NOT_LISTED, Fields, Listing, Variant

NO_HINTS: Mapping[str, Fields] = MappingProxyType({})
NO_VALUES: Mapping[str, str | None] = MappingProxyType({})


def lookup(environ: Mapping[str, Any], values: Mapping[str, str | None] = NO_VALUES) -> Callable[[str], Any]:
    """Return a function that looks up variables of a request.

    :param environ: the WSGI environ.
    :param values: the values of the named cookies and of the named values of the session, by their variables.
    """
    if not values:
        return environ.get
    return lambda name: values[name] if name in values else environ.get(name)


class Index:
    """An index in the memory of a process.

    :ivar listing: its content.
    :ivar sets: the sets of selectors, the newest first.
    :ivar names: the names of the fields in the environ; ``None`` if there are several sets, so that each request compares them, or
        if values of the session are among the selectors.
    :ivar keys: the keys of requested variants of all URLs, by the index of the URL and the values of the fields as received.
    """

    __slots__ = ("keys", "listing", "names", "sets")

    def __init__(self, entry: Entry) -> None:
        self.listing = Listing.of(entry)
        self.sets = self.listing.sets
        selectors = self.sets[0]
        # No field shows the current values of a session.
        is_told = len(self.sets) == 1 and not any(isinstance(each, Named) and each.kind == "session" for each in selectors)
        self.names = [environ_name(name) for name in dict.fromkeys(map(field_of_selector, selectors))] if is_told else None
        self.keys = VARIANTS


#: Clients choose both the URLs and the values, so that one limit holds for all indexes.
VARIANTS: Remembered[tuple[Any, ...], str] = Remembered(most=16384, limit=8 * MIB, longest=4096)
#: Estimated bytes of an index that the table keeps in memory, perhaps longer than its copy exists.
_INDEX = 1000


# -- finding -----------------------------------------------------------------------------------------------------------


class FoundCopy(Protocol):
    """The copy under a key. (:class:`~...stores.base.Copy` is one; core imports no store.)"""

    @property
    def entry(self) -> Entry | None: ...

    prepared: Any


class Located(NamedTuple):
    """The place where the answer to a request is looked for.

    :ivar key: the key of the URL, or that of a variant.
    :ivar variant: the variant; ``None`` for the key of the URL.
    :ivar listing: the index.
    """

    key: str
    variant: Variant | None = None
    listing: Listing = NOT_LISTED

    @property
    def fields(self) -> Fields:
        """The selectors in the key."""
        return () if self.variant is None else self.variant.fields

    @property
    def has_room(self) -> bool:
        """Whether an answer may be stored there, as far as the index tells."""
        return self.variant is None or self.listing.has_room(self.variant)


def locate(
    url_key: str,
    environ: Mapping[str, Any],
    look_up: Callable[[str], FoundCopy],
    now: float,
    holds: HoldsKeys | None = None,
    hints: Mapping[str, Fields] = NO_HINTS,
    named: Fields = (),
    values: Mapping[str, str | None] = NO_VALUES,
) -> Located:
    """Return the place of the answer to a request: under the key of the URL, or under that of a variant.

    :param url_key: the key of the URL.
    :param environ: the request.
    :param look_up: returns the copy under a key.
    :param now: seconds since the epoch.
    :param holds: looks up keys of the request's session. Without it, a request with any cookie may have them all.
    :param hints: the selectors of first answers, as far as calls that still run have reported them, by the keys of the URLs.
    :param named: the cookies and values of the session that are always in the key.
    :param values: their values, by their variables.
    """
    copy = look_up(url_key)
    entry, get = copy.entry, lookup(environ, values)
    fields = hints.get(url_key, named) if entry is None else named
    if entry is None or entry.status != INDEX:
        if not fields:
            return Located(url_key)
        variant = Variant.of(fields, get)
        return Located(variant.key(url_key), variant)
    index: Index | None = copy.prepared
    if index is None:
        index = copy.prepared = Index(entry)
    if index.names is None:
        variants = [Variant.of(fields, get) for fields in index.sets]
        found = [Located(each.key(url_key), each, index.listing) for each in variants]
        return _newest(found, lambda entry: entry.absent.present_in(environ, holds), look_up, now)
    variant = Variant.of(index.sets[0], get)
    key = variant.key(url_key)
    index.keys.note((index, *map(environ.get, index.names)), key, _INDEX)
    return Located(key, variant, index.listing)


def _newest(found: list[Located], is_barred: Callable[[Entry], bool], look_up: Callable[[str], FoundCopy], now: float) -> Located:
    """Return the matching variant with the latest Date (RFC 9111 section 4.1), else the first missing one.

    A variant with absent names does not match a request that carries one of them. A variant from the future, stored before the
    clock stepped back, is chosen only if there is no other. Otherwise it would win until the clock reaches its time.
    """
    entries = [(each, look_up(each.key).entry) for each in found]
    matching = [entry for _, entry in entries if entry is not None and not is_barred(entry)]
    chosen = newest(entry for entry in matching if not entry.is_from_future(now)) or newest(matching)
    if chosen is not None:
        return next(each for each, _ in entries if each.key == chosen.key)
    return next((each for each, entry in entries if entry is None), entries[0][0])


# -- storing -----------------------------------------------------------------------------------------------------------


class StoragePlace(NamedTuple):
    """The place where a response is stored.

    :ivar key: its key.
    :ivar fields: the selectors in the key.
    :ivar listing: the index that leads there; ``None`` if requests find it without a new one.
    """

    key: str
    fields: Fields
    listing: Listing | None


def place_of(
    url_key: str,
    fields: Fields,
    get: Callable[[str], Any],
    known: Entry | None,
    is_kept: Callable[[str], bool] = lambda key: True,
) -> StoragePlace | None:
    """Return the place where a response is stored; ``None`` if its URL has too many variants.

    :param url_key: the key of the URL.
    :param fields: the selectors of the response, in order.
    :param get: returns a value of the WSGI environ of its request, or ``None``.
    :param known: the entry under the key of the URL, if any.
    :param is_kept: returns whether a variant is still stored, by its key. Called only if there is no room.
    """
    listing = Listing.of(known)
    if not fields and not listing.sets:
        return StoragePlace(url_key, (), None)
    wider, fields = listing.for_set(fields)
    variant = Variant.of(fields, get)
    key = variant.key(url_key)
    if wider is listing and variant in listing.variants:
        return StoragePlace(key, fields, None)
    if not wider.has_room(variant):
        wider = wider.keeping(lambda each: is_kept(each.key(url_key)))
    return StoragePlace(key, fields, wider.including(variant)) if wider.has_room(variant) else None
