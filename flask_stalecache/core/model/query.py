"""The names of query parameters as the app sees them, and the part of a query that is in a key. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from urllib.parse import parse_qsl

import werkzeug.urls  # noqa: F401  It registers the error handler that Werkzeug's request uses.


def parameter_name(part: str) -> str:
    """Return the name of one ``name=value`` part of a query.

    :param part: as in the WSGI environ: bytes as latin-1.
    """
    return _parameter(part)[0]


def _parameter(part: str) -> tuple[str, str]:
    decoded = part.encode("latin-1", "replace").decode("utf-8", "replace")
    pairs = parse_qsl(decoded, keep_blank_values=True, errors="werkzeug.url_quote")
    return pairs[0] if pairs else ("", "")


class NamePatterns:
    """Parameter names to ignore: exact ones, or patterns with ``*``, ``?`` and ``[…]`` such as ``utm_*``."""

    __slots__ = ("_exact", "_pattern", "items")

    def __init__(self, items: Iterable[str]) -> None:
        self.items = tuple(dict.fromkeys(items))
        patterns = [translate(item) for item in self.items if any(sign in item for sign in "*?[")]
        self._exact = frozenset(self.items)
        self._pattern = re.compile("|".join(patterns)) if patterns else None

    def __bool__(self) -> bool:
        return bool(self.items)

    def match(self, name: str) -> bool:
        """Whether the parameter of this (decoded) name is ignored."""
        return name in self._exact or (self._pattern is not None and self._pattern.match(name) is not None)

    def split(self, query: str) -> tuple[str, frozenset[str]]:
        """Return the query without the ignored parameters, the others as sent and in order; and the names of those ignored."""
        if not query or not self.items:
            return query, frozenset()
        kept, ignored = [], set()
        for part in query.split("&"):
            name = parameter_name(part)
            if self.match(name):
                ignored.add(name)
            else:
                kept.append(part)
        return "&".join(kept), frozenset(ignored)

    def is_in_order(self, query: str) -> bool:
        """Whether the key has the parameters of a query in the order in which they were sent."""
        return True

    def pairs(self, query: str) -> frozenset[tuple[str, str]]:
        """Return the ignored parameters of a query, with their values."""
        if not query or not self.items:
            return frozenset()
        return frozenset(pair for pair in map(_parameter, query.split("&")) if self.match(pair[0]))


class SortedQuery(NamePatterns):
    """Parameter names to ignore, where the order of the others is not in the key either: they are sorted by name.

    The values of one name keep their order, since an app gets them as a list. Nothing else is changed: empty parts, empty values
    and percent-encodings stay as they were sent.
    """

    __slots__ = ()

    def __bool__(self) -> bool:
        return True

    def split(self, query: str) -> tuple[str, frozenset[str]]:
        """Return the query without the ignored parameters, the others sorted by name; and the names of those ignored."""
        kept, ignored = super().split(query)
        return ("&".join(sorted(kept.split("&"), key=parameter_name)) if "&" in kept else kept), ignored

    def is_in_order(self, query: str) -> bool:
        """Whether the key has the parameters of a query in the order in which they were sent."""
        return super().split(query)[0] == self.split(query)[0]


def query_in_key(ignored: Iterable[str], *, is_sorted: bool) -> NamePatterns:
    """Return which part of a query is in the keys of a view or rule.

    :param ignored: names and patterns of parameters to ignore.
    :param is_sorted: the order of the parameters is not in the key.
    """
    return SortedQuery(ignored) if is_sorted else NamePatterns(ignored)
