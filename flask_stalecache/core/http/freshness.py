"""Computes freshness and stale windows (RFC 9111 section 4.2, RFC 5861).

Values in code come first, then those of the response, of a rule and of the configuration. Prohibitions in the response always
apply, except the one that ``s-maxage`` only implies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from ..model.policy import Windows
from .cache_control import Directives, delta_seconds
from .dates import timestamp
from .fields import Headers, first_of, lines_of, listed

#: With one of these, the origin must confirm a stale response, whatever is configured (RFC 9111 section 5.2.2).
_NEVER_UNCONFIRMED = ("must-revalidate", "proxy-revalidate")
#: Seconds of stale-while-revalidate and stale-if-error; ``None`` for a window that is not set.
StaleWindows: TypeAlias = "tuple[float | None, float | None]"
NO_STALE = Windows(0.0, 0.0, 0.0)
#: The log line for :func:`switches_off`.
S_MAXAGE = (
    "the configured stale windows do not apply to %s, since its s-maxage implies that it must not be served stale; if it may be, "
    "write stale_while_revalidate= and stale_if_error= at the view or in a rule, or both directives next to s-maxage"
)
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
    # If the clock stepped back during the exchange, the age must not become negative.
    corrected = (said or 0.0) + max(0.0, answered_at - requested_at)
    return max(answered_at - _date(fields, answered_at), corrected)


def forbids_stale(directives: Directives, windows: Windows = NO_STALE) -> bool:
    """Whether the response forbids serving it stale.

    :param windows: the windows that :func:`stale_windows` returned.
    """
    # A bare s-maxage forbids it, except where the developer has written a stale window.
    return _is_forbidden(directives) or (_is_bare(directives) and not _has_stale_window(windows))


def must_be_confirmed(directives: Directives) -> bool:
    """Whether an error must be sent instead of a stale response that can't be confirmed (RFC 9111 section 5.2.2.2).

    A bare ``s-maxage`` counts too: this is called only for a response that must not be served stale.
    """
    return any(name in directives for name in _NEVER_UNCONFIRMED) or _is_bare(directives)


def _is_forbidden(directives: Directives) -> bool:
    """Whether the response explicitly forbids serving it stale."""
    return "no-cache" in directives or any(name in directives for name in _NEVER_UNCONFIRMED)


def _is_bare(directives: Directives) -> bool:
    """Whether ``s-maxage`` stands without stale windows, and so implies proxy-revalidate (RFC 9111 section 5.2.2.10)."""
    explicit = directives.stale_while_revalidate is not None or directives.stale_if_error is not None
    return directives.s_maxage is not None and not explicit


def _has_stale_window(windows: Windows) -> bool:
    return windows.stale_while_revalidate > 0 or windows.stale_if_error > 0


def stale_windows(
    coded: StaleWindows, directives: Directives, defaults: Windows, ruled: StaleWindows = (None, None)
) -> tuple[float, float]:
    """Return the seconds of stale-while-revalidate and stale-if-error, from code, the response, a rule or the configuration.

    The first of these that sets a number applies. ``s-maxage`` implies that the response must not be served stale: that rules out
    the configured windows, but not windows that are set for this response.

    :param coded: the windows that are set at the view.
    :param defaults: the windows of the configuration.
    :param ruled: the windows that are set in the rule for the path.
    """
    if _is_forbidden(directives):
        return 0.0, 0.0
    said = (directives.stale_while_revalidate, directives.stale_if_error)
    is_implied = directives.s_maxage is not None
    configured = (0.0, 0.0) if is_implied else (defaults.stale_while_revalidate, defaults.stale_if_error)
    first, second = (_first(*options) for options in zip(coded, said, ruled, configured, strict=True))
    return first, second


def switches_off(directives: Directives, windows: Windows, defaults: Windows) -> bool:
    """Whether only a bare ``s-maxage`` keeps a response from being served stale, although windows are configured.

    :param windows: the windows of the response.
    :param defaults: the windows of the configuration.
    """
    if _is_forbidden(directives):
        return False
    return _is_bare(directives) and not _has_stale_window(windows) and _has_stale_window(defaults)


def _first(coded: float | None, said: float | None, ruled: float | None, configured: float) -> float:
    return next((number for number in (coded, said, ruled) if number is not None), configured)
