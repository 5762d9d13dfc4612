"""Accept fields as Werkzeug parses them, which record how they are read.

A best match is recorded with the list that it was chosen from, since a page that reads nothing else depends on the match alone. Any
other read counts as one of the whole field. C code reads the items of a list without calling its methods: a value that was handed
out without a recorded read counts as read as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from werkzeug.datastructures import Accept

from ...core.http.accept import PARSED_AS, parsed
from .read_log import ReadLog


class _Noted:
    """The methods and attributes of a parsed field that differ from those of its class."""

    __slots__ = ()

    stalecache_field: str
    stalecache_log: ReadLog
    stalecache_plain: Accept

    def best_match(self, matches: Any, default: Any = None) -> Any:
        log, field = self.stalecache_log, self.stalecache_field
        log.uses(field).used()
        if isinstance(matches, Iterator):
            # It can be read only once, so that its list can't be recorded.
            log.accept(field)
            return self.stalecache_plain.best_match(matches, default)
        offers = None
        try:
            offers = tuple(matches)
            match = self.stalecache_plain.best_match(matches, default)
        except Exception:
            log.accept(field)
            raise
        log.choice(field, offers, default, match)
        return match

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _whole(self).__reduce_ex__(protocol)

    def __radd__(self, other: Any) -> Any:
        return other + list(_whole(self))

    @property
    def provided(self) -> bool:
        return _whole(self).provided


def _whole(noted: Any) -> Accept:
    """Record a read of more than a best match, and return the plain parsed field for it."""
    log: ReadLog = noted.stalecache_log
    log.uses(noted.stalecache_field).used()
    log.accept(noted.stalecache_field)
    return noted.stalecache_plain  # type: ignore[no-any-return]


def observed_accept(field: str, value: str | None, log: ReadLog) -> Any:
    """Return an Accept field as Werkzeug parses it: an instance of a subclass of its class, which records each read.

    :param field: the field, in lower case.
    :param value: all lines of the field, joined by commas; ``None`` without the field.
    :param log: records the reads.
    """
    plain = parsed(field, value)
    kind: Any = _OBSERVED[field]
    observed = kind.__new__(kind)
    # For C code.
    list.extend(observed, plain)
    observed.stalecache_field, observed.stalecache_log, observed.stalecache_plain = field, log, plain
    return observed


def _reading(name: str) -> Callable[..., Any]:
    def read(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = getattr(_whole(self), name)
        if not callable(found):
            # A property, which is read without arguments.
            return found
        return found(*(getattr(other, "stalecache_plain", other) for other in args), **kwargs)

    return read


def _observed_class(base: type[Accept]) -> type[Accept]:
    own = vars(_Noted).keys()
    special = {
        "__iter__", "__len__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__", "__reversed__", "__repr__",
        "__str__", "__add__", "__mul__", "__rmul__", "__contains__", "__getitem__", "__copy__", "__deepcopy__", "__format__",
        "__sizeof__",
    }  # fmt: skip
    public = {name for name in dir(base) if not name.startswith("_")}
    names = {name for name in (special | public) - own if hasattr(base, name)}
    members: dict[str, Any] = {}
    for name in names:
        read = _reading(name)
        members[name] = property(read) if isinstance(getattr(base, name), property) else read
    return type(f"Observed{base.__name__}", (_Noted, base), members)


_OBSERVED = {field: _observed_class(base) for field, base in PARSED_AS.items()}
