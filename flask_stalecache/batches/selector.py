"""Selects the entries for a purge, refresh or publish. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NamedTuple

from ..core.addressing.purge_names import EVERYTHING, endpoint_name, function_name, prefix_name, tag_name, url_name
from ..core.formatting import printable
from ..core.model.entry import Entry
from ..core.model.query import NamePatterns, SortedQuery
from ..errors import ConfigError


class Scope(NamedTuple):
    """The names that selectors of one app refer to.

    :ivar ignored: query parameters that are left out of the names of pages.
    :ivar endpoints: the app's endpoints; ``None``: it has none to select by.
    """

    ignored: NamePatterns
    endpoints: Collection[str] | None


@dataclass(frozen=True, slots=True)
class Selector:
    """A checked selection, which matches entries by their names.

    :param name: the name that all selected entries share, and by which they are purged at once; ``None``: only a walk finds them.
    :param prefix: the prefix of one of their names if there is no ``name``; otherwise "".
    :param sorted_name: the name that they have instead if their key does not have the order of the query (``sort_query``).
    """

    name: str | None
    prefix: str = ""
    sorted_name: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names by which entries are purged at once."""
        return tuple(dict.fromkeys(name for name in (self.name, self.sorted_name) if name is not None))

    @property
    def what(self) -> str:
        """The selection for the log, without control characters, since a purge may be by a value that a visitor has sent."""
        return printable(self.name or f"all that begins with {self.prefix}")

    def matches(self, entry: Entry) -> bool:
        """Whether an entry is selected."""
        if self.name is not None:
            return self.name in entry.names or self.sorted_name in entry.names
        return any(name.startswith(self.prefix) for name in entry.names)


class SelectorKind(NamedTuple):
    """One way to select entries by a value.

    :ivar resolve: checks the value and returns the selector, or raises :class:`ConfigError`.
    :ivar label: its name on the dashboard.
    :ivar help: the help text of its shell option; a URL is an argument there.
    """

    resolve: Callable[[object, Scope], Selector]
    label: str
    help: str = ""


def _by_url(value: object, scope: Scope) -> Selector:
    return Selector(url_name(value, scope.ignored), sorted_name=url_name(value, SortedQuery(scope.ignored.items)))


def _by_tag(value: object, scope: Scope) -> Selector:
    return Selector(tag_name(_text("tag", value)))


def _by_endpoint(value: object, scope: Scope) -> Selector:
    endpoint, known = _text("endpoint", value), scope.endpoints or ()
    if endpoint not in known:
        nearest = get_close_matches(endpoint, list(known), n=1)
        hint = f"; the nearest is {nearest[0]!r}" if nearest else ""
        raise ConfigError(f"endpoint={endpoint!r} is not an endpoint of the app{hint}")
    return Selector(endpoint_name(endpoint))


def _by_function(value: object, scope: Scope) -> Selector:
    return Selector(function_name(_text("function", value)))


def _by_prefix(value: object, scope: Scope) -> Selector:
    return Selector(None, prefix_name(value))


def _text(kind: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{kind}={value!r}: give one non-empty string")
    return value


#: All ways to select by a value. This table generates the shell options and the dashboard's form; a new row needs a field of
#: :class:`Selection` and a parameter of the public methods.
KINDS: Mapping[str, SelectorKind] = {
    "url": SelectorKind(_by_url, "URL or path"),
    "tag": SelectorKind(_by_tag, "Tag", "Entries with this tag."),
    "endpoint": SelectorKind(_by_endpoint, "Endpoint", "Pages of an endpoint, such as news.article."),
    "function": SelectorKind(_by_function, "Function", "Values of a fetch function, such as shop.rates."),
    "prefix": SelectorKind(_by_prefix, "Prefix", "Entries whose path, or full URL, starts with this."),
}


#: The selectors that a cache in front of another WSGI app does not have.
_OF_FLASK = ("endpoint", "function")


@dataclass(frozen=True, slots=True)
class Selection:
    """The selectors of a purge, refresh or publish, as they were given. Exactly one must be set.

    Each field except ``all`` is a row of :data:`KINDS`; :meth:`resolve` checks the values.
    """

    url: object = None
    tag: object = None
    endpoint: object = None
    function: object = None
    prefix: object = None
    all: object = False

    def resolve(self, what: str, scope: Scope) -> Selector:
        """Check the selection and return its selector.

        :param what: the operation, for the error.
        :raises ConfigError: unless there is exactly one selector, with a value of the right kind.
        """
        chosen = [kind for kind in KINDS if getattr(self, kind) is not None]
        if self.all is not False:
            chosen.append("all")
        if len(chosen) != 1:
            kinds = [kind for kind in KINDS if kind not in _OF_FLASK or scope.endpoints is not None]
            ways = ", ".join(kind if kind == "url" else f"{kind}=" for kind in kinds)
            raise ConfigError(f"{what} is by one of {ways} and all=True, and {' and '.join(chosen) or 'nothing'} was given")
        if chosen != ["all"]:
            return KINDS[chosen[0]].resolve(getattr(self, chosen[0]), scope)
        if self.all is not True:
            raise ConfigError(f"all={self.all!r}: give True to select everything")
        return Selector(EVERYTHING)
