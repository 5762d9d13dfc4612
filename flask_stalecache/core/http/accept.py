"""Determines which part of an Accept field an answer depends on (RFC 9110 section 12.5). Pure.

If an app picks a language from a list, its answer depends on that choice alone: a hundred spellings of the field lead to as many
answers as there are languages. If the app reads the field in another way, its answer depends on more of the field.

=================== ============================================== =====================================================
selector            the app has                                    requests are alike if they agree in
=================== ============================================== =====================================================
the name of a field named it in ``Vary``                           the normal form of the field
:class:`Codings`    named ``Accept-Encoding`` in ``Vary``          the codings that the app may answer with
:class:`Chosen`     asked for the best match in a list             the match
:class:`Parsed`     read the parsed field in another way           the members and their weights
:class:`Raw`        read the field itself                          its normal form, weights included
:class:`Named`      a rule or decorator that names a cookie or a   its value, or what a normaliser makes of it
                    value of the session
=================== ============================================== =====================================================
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, cast

from werkzeug.datastructures import Accept, CharsetAccept, LanguageAccept, MIMEAccept
from werkzeug.http import parse_accept_header

from ..addressing.keys import NAMED, digest
from ..model.environ import environ_name
from .vary import acceptable_of, normalised, weighed

ENCODING = "accept-encoding"
#: The Accept fields, in lower case, and the classes that Werkzeug parses them into.
PARSED_AS: Mapping[str, type[Accept]] = {
    "accept": MIMEAccept,
    "accept-charset": CharsetAccept,
    ENCODING: Accept,
    "accept-language": LanguageAccept,
}
ACCEPT_FIELDS = frozenset(PARSED_AS)
#: The codings that apps and middleware answer with.
CODINGS = ("br", "deflate", "gzip", "zstd")
#: Limits of characters in a list, and of lists for one field. Beyond them, the field itself is compared instead of the matches.
_LONGEST, _MOST_LISTS = 4000, 8


class Chosen(NamedTuple):
    """The best match of an Accept field in a list.

    :ivar field: the field, in lower case.
    :ivar offers: the list, in its order.
    :ivar default: the result if nothing matches.
    """

    field: str
    offers: tuple[str, ...]
    default: str | None = None


class Parsed(NamedTuple):
    """The members of an Accept field and their weights.

    :ivar field: the field, in lower case.
    """

    field: str


class Raw(NamedTuple):
    """The normal form of an Accept field, weights included.

    :ivar field: the field, in lower case.
    """

    field: str


class Codings(NamedTuple):
    """The codings that Accept-Encoding accepts, of those that the app may answer with.

    This selector must not select an answer with another coding: its client may be the only one that can decode that coding.

    :ivar known: the codings that the app may answer with, sorted.
    """

    known: tuple[str, ...]

    @property
    def field(self) -> str:
        """The field, in lower case."""
        return ENCODING


class Named(NamedTuple):
    """A cookie, or a value of the session, that a developer has named.

    Only the front end can look it up: :mod:`~flask_stalecache.core.rules.named` returns its value under :attr:`variable`.

    :ivar kind: ``cookie`` or ``session``.
    :ivar name: the name of the cookie, or the key of the value.
    """

    kind: str
    name: str

    @property
    def field(self) -> str:
        """The request field that determines it, in lower case: sessions are distinguished by their cookies."""
        return COOKIE

    @property
    def variable(self) -> str:
        """The name under which its value is looked up. No variable of an environ has a space in its name."""
        return f"{self.kind} {self.name}"


COOKIE = "cookie"
NAMED_KINDS = ("cookie", "session")
#: A request field, or a part of one, that distinguishes the variants of a URL.
Selector: TypeAlias = "str | Chosen | Parsed | Raw | Codings | Named"


def field_of_selector(selector: Selector) -> str:
    """Return the request field that a selector reads, in lower case."""
    return selector if isinstance(selector, str) else selector.field


def variable_of_selector(selector: Selector) -> str:
    """Return the variable of the environ that a selector reads."""
    return selector.variable if isinstance(selector, Named) else environ_name(field_of_selector(selector))


def value_of(selector: Selector, value: str | None) -> str | None:
    """Return what a selector takes from a request field. Requests with equal values may get the same answer.

    :param value: all lines of the field, joined by commas; ``None`` without the field.
    """
    match selector:
        case Chosen(field, offers, default):
            # Its annotations leave out that ``None`` is a default too.
            return parsed(field, value).best_match(offers, cast(str, default))
        case Parsed(field):
            return parsed(field, value).to_header()
        case Raw(field):
            return _raw(field, value)
        case Codings(known):
            return None if value is None else acceptable_of(value, known)
        case Named():
            return value
        case _:
            return normalised(selector, value)


def parsed(field: str, value: str | None) -> Accept:
    """Return an Accept field as Werkzeug parses it."""
    return parse_accept_header(value, PARSED_AS[field])


def _raw(field: str, value: str | None) -> str | None:
    if field != ENCODING or value is None:
        return normalised(field, value)
    # The normal form for Vary leaves out weights: they don't change what can be decoded. An app that reads the field sees them.
    return weighed(value) or ", ".join(part.strip() for part in value.split(","))


def name_in_key(selector: Selector) -> object:
    """Return the form of a selector in keys: a string, or a tuple of strings."""
    match selector:
        case Chosen(field, offers, default):
            return (field, digest(ascii((offers, default)))[:16])
        case Parsed(field):
            return (field, "parsed")
        case Raw(field):
            return (field, "raw")
        case Codings(known):
            return (ENCODING, ",".join(known))
        case Named(kind, name):
            return (NAMED, kind, name)
        case _:
            return selector


def in_order(selectors: Iterable[Selector]) -> tuple[Selector, ...]:
    """Return selectors without duplicates, in the order in which they are in keys."""
    return tuple(sorted(set(selectors), key=lambda selector: (field_of_selector(selector), ascii(name_in_key(selector)))))


def to_json(selector: Selector) -> Any:
    """Return a selector as data."""
    if isinstance(selector, str):
        return selector
    return [type(selector).__name__.lower(), *(list(value) if isinstance(value, tuple) else value for value in selector)]


def from_json(data: Any) -> Selector:
    """Return the selector from the data of :func:`to_json`.

    :raises TypeError: for data of another form; likewise :class:`ValueError` and :class:`LookupError`.
    """
    if isinstance(data, str):
        return data
    name, *values = data
    match name, values:
        case "chosen", [field, [*offers], default]:
            selector: Any = Chosen(_accept_field(field), tuple(map(_text, offers)), None if default is None else _text(default))
        case "parsed", [field]:
            selector = Parsed(_accept_field(field))
        case "raw", [field]:
            selector = Raw(_accept_field(field))
        case "codings", [[*known]]:
            selector = Codings(tuple(map(_text, known)))
        case "named", [kind, name] if kind in NAMED_KINDS:
            selector = Named(_text(kind), _text(name))
        case _:
            raise ValueError("no selector has this form")
    return selector  # type: ignore[no-any-return]


def _accept_field(value: object) -> str:
    if value not in ACCEPT_FIELDS:
        raise ValueError("a selector of another field")
    return _text(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a selector is made of strings")
    return value


# -- what was read -----------------------------------------------------------------------------------------------------


class AcceptReads:
    """The way in which an app has read the Accept fields of one request.

    :ivar raw: fields whose unparsed value was read, in lower case.
    :ivar parsed: fields whose parsed form was read in another way than by a best match.
    :ivar chosen: the lists for which the app requested a best match, and the matches.
    """

    __slots__ = ("chosen", "parsed", "raw")

    def __init__(self) -> None:
        self.raw: set[str] = set()
        self.parsed: set[str] = set()
        self.chosen: dict[Chosen, str | None] = {}

    def add(self, other: AcceptReads) -> None:
        """Add other reads of the same request."""
        self.raw |= other.raw
        self.parsed |= other.parsed
        self.chosen.update(other.chosen)

    def inherit(self, selector: Selector, get: Callable[[str], Any]) -> None:
        """Add a selector that a page within this one depends on.

        :param get: returns a value of the WSGI environ, or ``None``.
        """
        match selector:
            case Chosen(field):
                self.chosen[selector] = value_of(selector, get(environ_name(field)))
            case Parsed(field):
                self.parsed.add(field)
            case Raw(field):
                self.raw.add(field)
            case Codings():
                self.raw.add(ENCODING)
            case Named():
                raise AssertionError("what a page has named is told by the names that it depends on")
            case _:
                self.raw.add(selector)

    def choose(self, field: str, offers: Iterable[object], default: object, match: object) -> bool:
        """Record a best match. Return false if its list can't be a selector, so that the field itself counts as read."""
        given = tuple(offers)
        texts = [offer for offer in (*given, default, match) if offer is not None]
        if not all(type(text) is str for text in texts) or sum(map(len, texts)) > _LONGEST:  # type: ignore[arg-type]
            return False
        self.chosen[Chosen(field, given, default)] = match  # type: ignore[assignment,arg-type]
        return True

    def selectors(
        self,
        read: Collection[str],
        announced: Collection[str],
        get: Callable[[str], Any],
        changed: Collection[str] = (),
        codings: tuple[str, ...] | None = CODINGS,
    ) -> tuple[Selector, ...]:
        """Return the selectors of the Accept fields that an answer depends on.

        :param read: the request fields that were read, in lower case.
        :param announced: the request fields that the answer names in ``Vary``.
        :param get: returns a value of the WSGI environ as the request arrived, or ``None``.
        :param changed: variables of the environ that the app has changed.
        :param codings: the codings that the app may answer with; ``None`` if any coding is possible.
        """
        found: list[Selector] = []
        for field in ACCEPT_FIELDS.intersection(read) | ACCEPT_FIELDS.intersection(announced):
            name = environ_name(field)
            found += self._of_field(field, get(name), field in announced, name in changed, codings)
        return in_order(found)

    def _of_field(
        self, field: str, value: str | None, is_announced: bool, is_changed: bool, codings: tuple[str, ...] | None
    ) -> list[Selector]:
        lists = [chosen for chosen in self.chosen if chosen.field == field]
        is_told = all(value_of(chosen, value) == self.chosen[chosen] for chosen in lists)
        is_otherwise = field in self.raw or field in self.parsed
        if 0 < len(lists) <= _MOST_LISTS and is_told and not is_otherwise and not is_changed:
            return list(lists)
        if is_announced and not is_changed:
            return [Codings(codings) if field == ENCODING and codings is not None else field]
        if field in self.parsed and field not in self.raw and is_told and not is_changed:
            return [Parsed(field)]
        return [Raw(field), *([Parsed(field)] if field in self.parsed else [])]


def names_of(selectors: Iterable[Selector]) -> tuple[str, ...]:
    """Return the request fields that selectors read, in lower case, without duplicates."""
    return tuple(dict.fromkeys(map(field_of_selector, selectors)))


def without_lists(selectors: Iterable[Selector], fields: Collection[str]) -> tuple[Selector, ...]:
    """Return selectors in which some fields themselves take the place of their lists.

    :param fields: these fields, in lower case.
    """
    return in_order(
        Raw(selector.field) if isinstance(selector, Chosen) and selector.field in fields else selector for selector in selectors
    )


@lru_cache(maxsize=256)
def codings_named(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return codings in the form of :attr:`Codings.known`."""
    return tuple(sorted({name.strip().lower() for name in names} - {"", "identity", "*"}))
