"""Computes freshness and stale windows (RFC 9111 section 4.2, RFC 5861).

Values in code come first, then those of the response, then the configuration. Prohibitions in the response always apply.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..model.policy import Windows
from .cache_control import Directives, delta_seconds
from .dates import timestamp
from .fields import Headers, first_of, lines_of, listed

#: With one of these, the origin must confirm a stale response, whatever is configured (RFC 9111 section 5.2.2).
_NEVER_UNCONFIRMED = ("must-revalidate", "proxy-revalidate")
#: Statuses with heuristic freshness (RFC 9110 section 15.1). 206 is left out, since it is never stored.
HEURISTIC_STATUSES = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
_HEURISTIC_SHARE = 0.1
#: The longest heuristic freshness, in seconds: one day. Even a page that is years old may change today.
HEURISTIC_LIMIT = 86400.0


def lifetime(
    coded: float | None, directives: Directives, headers: Headers, now: float, default: float | None, *, status: int | None = None
) -> float:
    """Return the seconds of freshness, from the first source that sets them (RFC 9111 section 4.2.1).

    The sources are code, ``s-maxage``, ``max-age``, ``Expires`` minus ``Date``, the default, and the heuristic. With ``no-cache``
    the lifetime is always 0: the origin must confirm each use.

    :param coded: the lifetime in code, or ``None``.
    :param directives: those of the response.
    :param headers: the response's fields, for ``Expires``, ``Date`` and ``Last-Modified``.
    :param now: replaces a missing ``Date``; seconds since the epoch.
    :param default: the configured lifetime; ``None``: use the heuristic.
    :param status: the response's status; ``None``: it allows no heuristic.
    """
    if "no-cache" in directives:
        return 0.0
    for said in (coded, directives.s_maxage, directives.max_age):
        if said is not None:
            return said
    fields = tuple(headers)
    expires = None if directives.targeted else _expires(fields, now)
    if expires is not None:
        return expires
    return heuristic(status, directives, fields, now) if default is None else default


def is_explicit(directives: Directives, headers: Headers) -> bool:
    """Whether a response sets its own freshness (RFC 9111 section 3)."""
    if directives.max_age is not None or directives.s_maxage is not None:
        return True
    # A targeted field replaces Expires too (RFC 9213 section 2.2).
    return not directives.targeted and first_of(headers, "expires") is not None


def _expires(headers: Sequence[tuple[str, str]], now: float) -> float | None:
    lines = lines_of(headers, "expires")
    if not lines:
        return None
    end = timestamp(lines[0])
    if end is None or len(lines) > 1:
        # RFC 9111 sections 5.3 and 4.2.1: an invalid date such as "0" is in the past, and two dates make the response stale.
        return 0.0
    return max(0.0, end - _date(headers, now))


def _date(headers: Headers, now: float) -> float:
    date = timestamp(first_of(headers, "date"))
    return now if date is None else date


def heuristic(status: int | None, directives: Directives, headers: Headers, now: float) -> float:
    """Return the heuristic freshness in seconds: 10 % of ``Date`` minus ``Last-Modified``, up to a day (RFC 9111 section 4.2.2).

    It is 0 without Last-Modified, and for a status that allows no heuristic, unless the response is ``public``.
    """
    fields = tuple(headers)
    modified = timestamp(first_of(fields, "last-modified"))
    if modified is None or (status not in HEURISTIC_STATUSES and "public" not in directives):
        return 0.0
    return min(max(0.0, _date(fields, now) - modified) * _HEURISTIC_SHARE, HEURISTIC_LIMIT)


def initial_age(headers: Headers, requested_at: float, answered_at: float) -> float:
    """Return the age in seconds that a response has on arrival (RFC 9111 section 4.2.3).

    It is computed twice, from ``Date``, and from ``Age`` plus the time of the exchange; the greater result counts. Of several Age
    values the first counts, and an invalid one is ignored (section 5.1).

    :param headers: the response's fields; for a 304 its own, not the updated ones of the stored response.
    :param requested_at: when the request was sent, in seconds since the epoch. If the origin itself answers, its response
        time is no age: pass ``answered_at``.
    :param answered_at: when the response was received.
    """
    fields = tuple(headers)
    members = [member for line in lines_of(fields, "age") for member in listed(line)]
    said = delta_seconds(members[0]) if members else None
    # If the clock stepped back in between, the age must not become negative.
    corrected = (said or 0.0) + max(0.0, answered_at - requested_at)
    return max(answered_at - _date(fields, answered_at), corrected)


def forbids_stale(directives: Directives) -> bool:
    """Whether the response forbids serving it stale."""
    return "no-cache" in directives or must_be_confirmed(directives)


def must_be_confirmed(directives: Directives) -> bool:
    """Whether an error must be sent instead of a stale response that can't be confirmed (RFC 9111 section 5.2.2.2).

    Bare ``s-maxage`` implies proxy-revalidate (section 5.2.2.10); a stale window in the same response overrides only that.
    """
    if any(name in directives for name in _NEVER_UNCONFIRMED):
        return True
    explicit = directives.stale_while_revalidate is not None or directives.stale_if_error is not None
    return directives.s_maxage is not None and not explicit


def stale_windows(coded: tuple[float | None, float | None], directives: Directives, defaults: Windows) -> tuple[float, float]:
    """Return the seconds of stale-while-revalidate and stale-if-error, from code, the response or the configuration, in this order.

    With ``s-maxage``, only the windows in the response itself count.
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
