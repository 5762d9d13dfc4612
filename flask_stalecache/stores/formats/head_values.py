"""Checks each value of a decoded head or note before anything uses it. Pure.

A checksum shows that the bytes are those that were written, not that they make sense. Each function returns its value, or raises
:class:`TypeError` or :class:`ValueError`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ...core.addressing.recipe import PageRecipe
from ...core.http.fields import FIELD_VALUE
from ...core.http.storing import PARTS
from ...core.model.checks import FIELD_NAME
from ...core.model.entry import Entry
from ...core.model.inputs import RequestInputs
from ...core.model.policy import Windows
from ...core.model.work import NO_WORK, Work
from ...core.rules.variant_index import INDEX, check_lines

T = TypeVar("T")

#: The years 1 to 9999, in seconds since the epoch: the range of dates.
_FIRST, _LAST = -62_135_596_800, 253_402_300_799
_LARGEST = 2**64 - 1
#: Maximum levels of lists and dicts in a recipe, since recursive functions process them.
_DEEPEST = 200


def text(value: Any) -> str:
    """Return a string."""
    return _of(str, value)


def flag(value: Any) -> bool:
    """Return a boolean."""
    return _of(bool, value)


def count(value: Any) -> int:
    """Return an integer that fits 64 bits, 0 or more."""
    if type(value) is not int or not 0 <= value <= _LARGEST:
        raise ValueError(f"{_shown(value)} is not a number of 64 bits")
    return value


def moment(value: Any) -> float:
    """Return a time in seconds since the epoch."""
    return _between(_FIRST, value, _LAST)


def span(value: Any) -> float:
    """Return a duration in seconds, finite and not negative."""
    return _between(0, value, sys.float_info.max)


def work(value: Any) -> Work:
    """Return the work of an origin; ``NO_WORK`` if it was not measured."""
    if value is None:
        return NO_WORK
    seconds, share = _of(list, value)
    return Work(span(seconds), _between(0, share, 1))


def status(value: Any) -> int:
    """Return the status of a whole response, or that of an index."""
    if type(value) is not int or value in PARTS or not (value == INDEX or 200 <= value <= 599):
        raise ValueError(f"{_shown(value)} is not the status of a response that can be stored")
    return value


def texts(value: Any) -> tuple[str, ...]:
    """Return the strings in a list."""
    return tuple_of(text, value)


def field_value(value: Any) -> str:
    """Return the value of a field, which can be sent as it is."""
    if FIELD_VALUE.fullmatch(text(value)) is None:
        raise ValueError(f"{_shown(value)} that can't be sent in a field")
    return value  # type: ignore[no-any-return]


def field_values(value: Any) -> tuple[str, ...]:
    """Return the strings in a list, each of which can be sent in a field."""
    return tuple_of(field_value, value)


def fields(value: Any) -> tuple[tuple[str, str], ...]:
    """Return the fields of a response: names and values that can be sent."""
    return tuple_of(_field, value)


def windows(value: Any) -> Windows:
    """Return the three windows."""
    max_age, stale_while_revalidate, stale_if_error = tuple_of(span, value)
    return Windows(max_age, stale_while_revalidate, stale_if_error)


def inputs(value: Any) -> RequestInputs:
    """Return the names of cookies, request fields, variables of the environ and session keys."""
    return RequestInputs(texts(value["cookies"]), texts(value["headers"]), texts(value["variables"]), texts(value["session"]))


def inputs_sent(value: Any) -> RequestInputs:
    """Return the names as :func:`inputs` does, if those of the fields can be sent in ``Vary``."""
    names = inputs(value)
    field_values(value["headers"])
    return names


def recipe(value: Any) -> Mapping[str, Any]:
    """Return the data of a recipe: of a page, of a call, of a response of a third party, or of an entry that can't be refreshed."""
    data: Mapping[str, Any] = _of(dict, value)
    _check_depth(data, _DEEPEST)
    if "scheme" in data or "fields" in data:
        PageRecipe.from_json(data)
    for name in {"function", "url", "reason"} & data.keys():
        text(data[name])
    arguments = data.get("arguments")
    if arguments is not None:
        _of(list, _of(dict, arguments)["args"]), _of(dict, arguments["kwargs"])
    return data


def check_index(entry: Entry) -> None:
    """Check that an index of variants is valid: its lines lead to variants, and it has no windows and no recipe."""
    if entry.status != INDEX:
        return
    check_lines(entry)
    if entry.windows != Windows(0.0, 0.0, 0.0) or entry.recipe:
        raise ValueError("neither a response nor an index")


def tuple_of(check: Callable[[Any], T], value: Any) -> tuple[T, ...]:
    """Return the values in a list, each one checked."""
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{_shown(value)} is not a list")
    return tuple([check(item) for item in value])


def _field(value: Any) -> tuple[str, str]:
    name, content = tuple_of(field_value, value)
    if FIELD_NAME.fullmatch(name) is None:
        raise ValueError(f"{_shown(name)} that is not the name of a field")
    return name, content


def _between(least: int, value: Any, most: float) -> float:
    # Compared before the conversion to float, which fails for a number of hundreds of digits. No comparison with NaN is true.
    if type(value) not in (int, float) or not least <= value <= most:
        raise ValueError(f"{_shown(value)} is out of range")
    return float(value)


def _check_depth(value: Any, left: int) -> None:
    if not isinstance(value, (dict, list, tuple)):
        return
    if left == 0:
        raise ValueError("nested too deeply")
    for item in value.values() if isinstance(value, dict) else value:
        _check_depth(item, left - 1)


def _of(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{_shown(value)} is not a {kind.__name__}")
    return value


def _shown(value: Any) -> str:
    # The message gets into the log, and the value may be a secret of a visitor: only its type is shown.
    return f"a value of type {type(value).__name__}"
