"""Keeps values made from a class for as long as the class exists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
C = TypeVar("C", bound=type)

#: The values of classes that accept no attributes: those of Python itself, which exist as long as the process.
_of_builtins: dict[tuple[type, str], Any] = {}


def kept_by_class(kind: C, name: str, make: Callable[[C], T]) -> T:
    """Return the value made from a class for a purpose, and make it at the first call.

    The class itself keeps the value. A table with the class as its key would keep both forever: a class that is defined in the
    factory of an app refers to that app, and so to its store.

    :param kind: the class; values that its base classes keep are not used.
    :param name: the purpose, as an attribute of the class.
    """
    kept: Any = vars(kind).get(name)
    if kept is None:
        kept = _of_builtins.get((kind, name))
    if kept is None:
        # Two threads may make one each at the same time; either value is valid.
        kept = make(kind)
        try:
            setattr(kind, name, kept)
        except TypeError:
            _of_builtins[kind, name] = kept
    result: T = kept
    return result
