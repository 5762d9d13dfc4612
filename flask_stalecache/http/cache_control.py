"""``Cache-Control`` and the targeted fields, read as a shared cache must (RFC 9111 section 5.2, RFC 9213)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.request import parse_http_list

import http_sf

#: In the order in which they are asked; the first one that is present, valid and not empty replaces Cache-Control and Expires.
TARGETED_FIELDS = ("stalecache-cache-control", "cdn-cache-control")
#: RFC 9111 section 1.2.2: what to take for a number that is too large.
DELTA_OVERFLOW = 2**31
_ESCAPED = re.compile(r"\\.")
_NUMBERS = ("max-age", "s-maxage", "stale-while-revalidate", "stale-if-error")


@dataclass(frozen=True, slots=True)
class Directives:
    """What a response says of its storing. A number is ``None`` where it is not said.

    :param names: all directive names, in lower case.
    :param targeted: a targeted field said it, so ``Expires`` does not count.
    """

    names: frozenset[str] = frozenset()
    max_age: float | None = None
    s_maxage: float | None = None
    stale_while_revalidate: float | None = None
    stale_if_error: float | None = None
    targeted: bool = False

    def __contains__(self, name: str) -> bool:
        return name in self.names


def response_directives(headers: Iterable[tuple[str, str]]) -> Directives:
    """Return the directives that count for us in a response's fields."""
    lines: dict[str, list[str]] = {}
    for name, value in headers:
        lines.setdefault(name.lower(), []).append(value)
    for name in TARGETED_FIELDS:
        if name in lines and (said := _targeted(", ".join(lines[name]))):
            return _directives(said, targeted=True)
    return _directives(_tokens(", ".join(lines.get("cache-control", []))))


def _targeted(field: str) -> Mapping[str, list[str]] | None:
    # RFC 9213 section 2.1: a structured dictionary; one that can't be parsed is ignored as a whole.
    try:
        parsed: Any = http_sf.parse(field.encode("ascii"), tltype="dictionary")
    except ValueError:
        return None
    # Each member is a value and its parameters; ?0 is a directive that is not there.
    values = {name: member[0] for name, member in parsed.items()}
    return {name: ["" if value is True else str(value)] for name, value in values.items() if value is not False}


def _tokens(field: str) -> Mapping[str, list[str]]:
    said: dict[str, list[str]] = {}
    # A quote that is never closed would hide what follows it.
    parts = parse_http_list(field) if _ESCAPED.sub("", field).count('"') % 2 == 0 else field.replace('"', "").split(",")
    for part in parts:
        name, _, value = part.partition("=")
        said.setdefault(name.strip().lower(), []).append(value.strip().strip('"'))
    said.pop("", None)
    return said


def _directives(said: Mapping[str, list[str]], targeted: bool = False) -> Directives:
    numbers = {name.replace("-", "_"): _delta(said[name]) for name in _NUMBERS if name in said}
    return Directives(frozenset(said), **numbers, targeted=targeted)


def _delta(values: list[str]) -> float:
    """Return delta-seconds; a directive given twice or with a bad value makes the response stale (RFC 9111 section 4.2.1)."""
    if len(values) != 1 or not (values[0].isascii() and values[0].isdigit()):
        return 0.0
    # Cut, since int() refuses thousands of digits.
    return float(min(int(values[0].lstrip("0")[:11] or "0"), DELTA_OVERFLOW))
