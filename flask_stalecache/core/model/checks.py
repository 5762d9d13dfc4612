"""Checks values that a developer sets. Each function returns the value in one form, or raises ConfigError. Pure."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from datetime import timedelta
from difflib import get_close_matches
from typing import TypeAlias

from ...errors import ConfigError
from .flask_caching import PARAMETERS

Duration: TypeAlias = "int | float | timedelta"
FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def seconds(name: str, value: object) -> float:
    """Return a duration in seconds.

    :param name: the name of the setting, for the error text.
    :param value: seconds as ``int`` or ``float``, or a ``timedelta``; finite and not negative.
    :raises ConfigError: for anything else.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= sys.float_info.max:
        raise ConfigError(f"{name}={value!r} is not a duration: give seconds, 0 or more (int, float or timedelta)")
    return float(value)


#: Decorators and tags that run without a request, and what to write there for a cookie or a value of the session.
_OF_REQUESTS = {
    "memoize()": "a function is called without a request; give it the value as an argument, which is in the key",
    "{% cache %}": 'write the value after the name: {% cache 300, "name", session.lang %}',
    "adapter()": "a third party gets no cookies of visitors; write vary= for the request fields that it depends on",
    "session()": "a third party gets no cookies of visitors; write vary= for the request fields that it depends on",
}


def unknown_parameter(decorator: str, name: str, known: Iterable[str]) -> str:
    """Return the error text for an unknown parameter of a decorator, with a suggestion."""
    if name in ("cookies", "session") and decorator in _OF_REQUESTS:
        return f"{decorator} has no parameter {name!r}: {_OF_REQUESTS[decorator]}"
    nearest = get_close_matches(name, list(known), n=1, cutoff=0)[0]
    return f"{decorator} has no parameter {name!r}: {PARAMETERS.get(name, f'the nearest is {nearest}')}"


def share(name: str, value: object) -> float:
    """Return a number from 0 to 1, or raise :class:`ConfigError`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ConfigError(f"{name}={value!r} is not a share: give a number from 0 to 1")
    return float(value)


def names(name: str, value: object) -> tuple[str, ...]:
    """Return a tuple of non-empty strings, or raise :class:`ConfigError`.

    A bare string is rejected: each letter would be a name.
    """
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ConfigError(f"{name}={value!r} is not a sequence of names: write for instance ({value!r},)")
    items = tuple(value)
    for item in items:
        if not isinstance(item, str) or not item:
            raise ConfigError(f"{name} contains {item!r}: give names as non-empty strings")
    return items


def tags(name: str, value: object) -> tuple[str, ...]:
    """Return tags without duplicates, or raise :class:`ConfigError`."""
    if isinstance(value, str) and value:
        raise ConfigError(f"{name}={value!r} would be taken for one tag a letter: write ({value!r},)")
    return tuple(dict.fromkeys(names(name, value)))
