"""How long a response may be used: code first, then its own fields, then the configuration; prohibitions always bind."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from werkzeug.http import parse_date

from ..policy import Windows
from .cache_control import Directives

#: With one of these, an entry is never served stale, whatever is configured (RFC 9111 section 5.2.2).
_NEVER_STALE = ("must-revalidate", "proxy-revalidate")


def lifetime(coded: float | None, directives: Directives, headers: Iterable[tuple[str, str]], now: float, default: float) -> float:
    """Return seconds of freshness: code, ``s-maxage``, ``max-age``, ``Expires`` minus ``Date``, the default (RFC 9111 4.2.1).

    :param coded: what the developer wrote in code, or ``None``.
    :param directives: what the response says.
    :param headers: the response's fields, for ``Expires`` and ``Date``.
    :param now: stands for a missing ``Date``; seconds since the epoch.
    :param default: the configured lifetime.
    """
    for said in (coded, directives.s_maxage, directives.max_age):
        if said is not None:
            return said
    expires = None if directives.targeted else _expires(headers, now)
    return default if expires is None else expires


def _expires(headers: Iterable[tuple[str, str]], now: float) -> float | None:
    fields = {name.lower(): value for name, value in headers}
    if "expires" not in fields:
        return None
    end = parse_date(fields["expires"])
    if end is None:
        return 0.0  # RFC 9111 section 5.3: an invalid date, such as "0", is in the past
    date: datetime | None = parse_date(fields.get("date"))
    return max(0.0, end.timestamp() - (now if date is None else date.timestamp()))


def forbids_stale(directives: Directives) -> bool:
    """Whether the response forbids to serve it stale.

    Bare ``s-maxage`` implies proxy-revalidate (RFC 9111 section 5.2.2.10); a stale window in the same response wins over that only.
    """
    if any(name in directives for name in _NEVER_STALE):
        return True
    explicit = directives.stale_while_revalidate is not None or directives.stale_if_error is not None
    return directives.s_maxage is not None and not explicit


def stale_windows(coded: tuple[float | None, float | None], directives: Directives, defaults: Windows) -> tuple[float, float]:
    """Return the seconds of stale-while-revalidate and of stale-if-error: code, then the response, then the configuration.

    Beside ``s-maxage`` only what the response itself says counts.
    """
    if forbids_stale(directives):
        return 0.0, 0.0
    said = (directives.stale_while_revalidate, directives.stale_if_error)
    if directives.s_maxage is not None:
        return said[0] or 0.0, said[1] or 0.0
    configured = (defaults.stale_while_revalidate, defaults.stale_if_error)
    first, second = (_first(*options) for options in zip(coded, said, configured, strict=True))
    return first, second


def _first(coded: float | None, said: float | None, configured: float) -> float:
    if coded is not None:
        return coded
    return configured if said is None else said
