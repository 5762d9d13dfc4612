"""Cookies and query parameters that record which of them are read.

C code reads the items of a dict without calling its methods. Its lookups by name are recorded all the same, since the names record
when they are compared; and values that were handed out without a recorded read count as read as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...core.kept_by_class import kept_by_class
from .read_log import Uses


class NotedName(str):
    """A name in a dict, which records when it is found: a lookup compares it with the requested name."""

    __slots__ = ("_note",)

    _note: Callable[[str], None]

    def __new__(cls, name: str, note: Callable[[str], None]) -> NotedName:
        noted = super().__new__(cls, name)
        noted._note = note
        return noted

    def __eq__(self, other: object) -> bool:
        self._note(str(self))
        return str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


def observed_values(values: Any, note: Callable[[str], None], note_all: Callable[[], None], uses: Uses) -> Any:
    """Return a proxy for cookies or parameters: an instance of a subclass of their class, whose methods record each read.

    :param values: the cookies or parameters.
    :param note: records the read of one.
    :param note_all: records that all were read.
    :param uses: counts the uses of the proxy.
    """
    observed: Any = kept_by_class(type(values), "_stalecache_observed", _observed_class)
    proxy = observed.__new__(observed)
    for name, value in zip(_SLOTS, (values, note, note_all, uses), strict=True):
        setattr(proxy, name, value)
    return proxy


def hand_out(proxy: Any, receiver: str) -> None:
    """Give a proxy to a module outside the framework, which is expected to read it."""
    if not dict.__len__(proxy):
        values, note = proxy.stalecache_values, proxy.stalecache_note
        dict.update(proxy, {NotedName(name, note): value for name, value in dict.items(values)})
    proxy.stalecache_uses.taken(receiver)


#: The attributes of a proxy. An instance without them was made from the class by other code, and is no proxy.
_SLOTS = ("stalecache_values", "stalecache_note", "stalecache_note_all", "stalecache_uses")
_NAMED = frozenset(
    {
        "__getitem__", "__contains__", "__setitem__", "__delitem__", "get", "getlist", "add", "pop", "poplist", "setdefault",
        "setlist", "setlistdefault",
    }
)  # fmt: skip
_WHOLE = frozenset(
    {
        "__iter__", "__len__", "__eq__", "__ne__", "__hash__", "__reversed__", "__repr__", "__or__", "__ror__", "__ior__",
        "__copy__", "__deepcopy__", "__reduce_ex__",
    }
)  # fmt: skip


def _observed_class(base: type) -> type:
    methods = {name: _by_name(base, name) for name in dir(base) if name in _NAMED}
    public = {name for name in dir(base) if not name.startswith("_") and callable(getattr(base, name))}
    methods.update({name: _as_a_whole(base, name) for name in (public | _WHOLE) - _NAMED if hasattr(base, name)})
    return type(f"Observed{base.__name__}", (base,), {"__slots__": _SLOTS, **methods})


def _by_name(base: type, method: str) -> Callable[..., Any]:
    original = getattr(base, method)

    def read(self: Any, key: Any, *args: Any, **kwargs: Any) -> Any:
        values = getattr(self, "stalecache_values", None)
        if values is None:
            return original(self, key, *args, **kwargs)
        self.stalecache_uses.used()
        self.stalecache_note(key)
        return getattr(values, method)(key, *args, **kwargs)

    return read


def _as_a_whole(base: type, method: str) -> Callable[..., Any]:
    original = getattr(base, method)

    def read(self: Any, *args: Any, **kwargs: Any) -> Any:
        values = getattr(self, "stalecache_values", None)
        if values is None:
            return original(self, *args, **kwargs)
        self.stalecache_uses.used()
        self.stalecache_note_all()
        plain = [getattr(other, "stalecache_values", other) for other in args]
        return getattr(values, method)(*plain, **kwargs)

    return read
