"""``Cache-Control`` and the targeted fields, read as a shared cache must (RFC 9111 section 5.2, RFC 9213)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import http_sf

from .fields import Headers

#: The targeted fields, by precedence. The first one that is present, valid and not empty replaces Cache-Control and Expires.
TARGETED_FIELDS = ("stalecache-cache-control", "cdn-cache-control")
#: The value of a number that is too large (RFC 9111 section 1.2.2).
DELTA_OVERFLOW = 2**31
_NUMBERS = ("max-age", "s-maxage", "stale-while-revalidate", "stale-if-error")
_QUOTED = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_WELL_QUOTED = re.compile(rf'[^"]*(?:{_QUOTED}[^"]*)*', re.DOTALL)
_MEMBER = re.compile(rf'(?:[^",]|{_QUOTED})+', re.DOTALL)
#: The values of each directive, one for each occurrence: ``None`` without a value, "" for an unreadable one.
_Said: TypeAlias = "Mapping[str, Sequence[str | None]]"


@dataclass(frozen=True, slots=True)
class Directives:
    """The directives of a response. A number is ``None`` if it is missing.

    :param names: all directive names, in lower case.
    :param targeted: the directives are from a targeted field, so ``Expires`` does not count.
    """

    names: frozenset[str] = frozenset()
    max_age: float | None = None
    s_maxage: float | None = None
    stale_while_revalidate: float | None = None
    stale_if_error: float | None = None
    targeted: bool = False

    def __contains__(self, name: str) -> bool:
        return name in self.names


@dataclass(frozen=True, slots=True)
class RequestDirectives:
    """The directives of a request (RFC 9111 section 5.2.1). A number is ``None`` if it is missing.

    An invalid or repeated number is read in the strictest way, so that no client gets an unwanted response: ``max_age`` is 0,
    ``min_fresh`` is infinite, and stale responses are not accepted.

    :param no_cache: the origin must confirm a stored response.
    :param no_store: the response must not be stored.
    :param only_if_cached: only a stored response may answer.
    :param max_age: the greatest age, in seconds.
    :param min_fresh: the least freshness left, in seconds.
    :param max_stale: the longest time past freshness, in seconds; infinite without a number.
    :param stale_if_error: the longest time past freshness if the origin fails, in seconds (RFC 5861 section 4).
    """

    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age: float | None = None
    min_fresh: float | None = None
    max_stale: float | None = None
    stale_if_error: float | None = None


def response_directives(headers: Headers) -> Directives:
    """Return the directives in a response's fields that apply to this cache."""
    lines: dict[str, list[str]] = {}
    for name, value in headers:
        lines.setdefault(name.lower(), []).append(value)
    for name in TARGETED_FIELDS:
        if name in lines and (said := _targeted(", ".join(lines[name]))):
            return _directives(said, targeted=True)
    return _directives(_said(lines.get("cache-control", [])))


def request_directives(cache_control: str | None, pragma: str | None = None) -> RequestDirectives:
    """Return the directives of a request.

    :param cache_control: its Cache-Control field, if any.
    :param pragma: its Pragma field, if any: ``no-cache`` counts where there is no Cache-Control (RFC 9111 section 5.4).
    """
    if cache_control is None:
        return RequestDirectives(no_cache="no-cache" in _said([pragma or ""]))
    said = _said([cache_control])
    return RequestDirectives(
        no_cache="no-cache" in said,
        no_store="no-store" in said,
        only_if_cached="only-if-cached" in said,
        max_age=_asked(said, "max-age", 0.0),
        min_fresh=_asked(said, "min-fresh", math.inf),
        max_stale=math.inf if said.get("max-stale") == [None] else _asked(said, "max-stale", 0.0),
        stale_if_error=_asked(said, "stale-if-error", 0.0),
    )


def delta_seconds(value: str) -> float | None:
    """Parse a number of seconds: digits only, capped at the overflow value. ``None`` for anything else (RFC 9111 section 1.2.2)."""
    if not (value.isascii() and value.isdigit()):
        return None
    # Truncated first, since int() rejects thousands of digits.
    return float(min(int(value.lstrip("0")[:11] or "0"), DELTA_OVERFLOW))


def _targeted(field: str) -> _Said | None:
    # RFC 9213 section 2.1: a structured dictionary. If it can't be parsed, all of it is ignored.
    try:
        parsed: Any = http_sf.parse(field.encode("ascii"), tltype="dictionary")
    except ValueError:
        return None
    # Each member is a value with parameters. The value ?0 means that the directive is absent. Seconds must be an Integer.
    values = {name: member[0] for name, member in parsed.items()}
    return {name: [str(value) if type(value) is int else ""] for name, value in values.items() if value is not False}


def _said(lines: Sequence[str]) -> _Said:
    said: dict[str, list[str | None]] = {}
    # Each line is parsed on its own, so that an unclosed quote does not hide the next line.
    for line in lines:
        for name, value in _members(line):
            said.setdefault(name.lower(), []).append(value)
    return said


def _members(line: str) -> list[tuple[str, str | None]]:
    if not _WELL_QUOTED.fullmatch(line):
        # An unclosed quote could hide what follows. Prohibitions after it count, numbers do not.
        members = (part.partition("=") for part in line.replace('"', "").split(","))
        return [(name.strip(), "") for name, _, _ in members if name.strip()]
    parts = (part.partition("=") for part in _MEMBER.findall(line))
    return [(name.strip(), _unquoted(value.strip()) if equals else None) for name, equals, value in parts if name.strip()]


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


def _directives(said: _Said, targeted: bool = False) -> Directives:
    # A directive given twice or with a bad value makes the response stale (RFC 9111 section 4.2.1).
    numbers = {name.replace("-", "_"): _number(said[name], 0.0) for name in _NUMBERS if name in said}
    return Directives(frozenset(said), **numbers, targeted=targeted)


def _asked(said: _Said, name: str, bad: float) -> float | None:
    return _number(said[name], bad) if name in said else None


def _number(values: Sequence[str | None], bad: float) -> float:
    number = delta_seconds(values[0] or "") if len(values) == 1 else None
    return bad if number is None else number
