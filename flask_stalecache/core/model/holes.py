"""Holes: the parts of a stored page that are made for each visitor. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

#: Levels of lists and dicts in the arguments of a hole at most.
DEEPEST = 20
_PLAIN = (str, int, bool, type(None))


class HoleCall(NamedTuple):
    """A call that is made for each visitor.

    :ivar name: the name of the hole.
    :ivar args: its arguments: JSON values.
    :ivar kwargs: likewise.
    """

    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}

    @property
    def label(self) -> str:
        """The name for people: that of a template tag without the digest of its body."""
        return self.name.partition("#")[0]


class Hole(NamedTuple):
    """One place in a body.

    :ivar offset: its place in the body, in bytes.
    :ivar call: what fills it.
    :ivar encoding: how the result is encoded there.
    :ivar number: holes with the same number share the result of one call.
    """

    offset: int
    call: HoleCall
    encoding: str
    number: int

    def to_json(self) -> list[Any]:
        """Return the hole as the head of an entry contains it."""
        return [self.offset, self.call.name, list(self.call.args), dict(self.call.kwargs), self.encoding, self.number]

    @classmethod
    def from_json(cls, value: Any) -> Hole:
        """Return the hole in the head of an entry.

        :raises TypeError: if the value is not a call.
        :raises ValueError: likewise.
        """
        offset, name, args, kwargs, encoding, number = value
        kinds = (int, str, list, dict, str, int)
        if any(type(each) is not kind for each, kind in zip(value, kinds, strict=True)) or offset < 0 or number < 0:
            raise ValueError("not a hole")
        return cls(offset, HoleCall(name, tuple(args), kwargs), encoding, number)


def labels_of(holes: Iterable[Hole]) -> tuple[str, ...]:
    """Return the names of holes for people, each one once."""
    return tuple(dict.fromkeys(hole.call.label for hole in holes))


def why_not_json(value: object, left: int = DEEPEST) -> str:
    """Return why a value would not be the same after it is written and read as JSON; "" if it would be."""
    if type(value) in _PLAIN or (type(value) is float and math.isfinite(value)):
        return ""
    if left and type(value) is list:
        return next(filter(None, (why_not_json(each, left - 1) for each in value)), "")
    if left and type(value) is dict:
        if any(type(key) is not str for key in value):
            return "a dict with keys that are no texts"
        return next(filter(None, (why_not_json(each, left - 1) for each in value.values())), "")
    return f"a {type(value).__qualname__}" if type(value) not in (list, dict) else "nested too deeply"
