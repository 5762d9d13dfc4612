r"""Decides whether HTTP allows storing a response (RFC 9111 section 3).

The first row that applies is the reason:

=============================================================== ====================
request and response                                            reason
=============================================================== ====================
method other than GET                                           NOT_GET
status 1xx, 206 or 304                                          INTERIM_STATUS, PARTIAL_STATUS
must-understand with an unknown status                          NOT_UNDERSTOOD
no-store in the request                                         REQUEST_NO_STORE
no-store (unless must-understand overrides it), or private      CACHE_CONTROL
Authorization, without public, s-maxage or must-revalidate      AUTHORIZATION
Set-Cookie                                                      SETS_COOKIE
``Vary: *``                                                     VARY_STAR
a field that can't be sent                                      UNSENDABLE_FIELD
neither freshness nor public, nor a heuristic for the status    NO_LIFETIME
=============================================================== ====================
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from ..model.reasons import Refusal, StoreRefusal
from .cache_control import Directives, RequestDirectives
from .fields import Headers, first_of, lines_of, unsendable
from .freshness import HEURISTIC_STATUSES, is_explicit
from .vary import selecting_fields

#: Statuses of partial responses, which are never stored (RFC 9111 sections 3.3 and 3.4).
PARTS = frozenset({206, 304})
#: The statuses that ``must-understand`` requires: the final ones of HTTP for whole responses.
UNDERSTOOD = frozenset(status.value for status in HTTPStatus if status >= 200) - PARTS
#: With one of these, a response to a request with Authorization may be stored for all clients (RFC 9111 section 3.5).
_SHARED = ("public", "s-maxage", "must-revalidate")


def refusal(
    *,
    method: str,
    status: int,
    request: RequestDirectives,
    authorized: bool,
    directives: Directives,
    headers: Headers,
    configured: bool,
) -> Refusal | None:
    """Return why a response must not be stored, or ``None`` if it may be. The caller checks that its body is complete.

    A response with ``no-cache`` may be stored: it has no freshness, but the origin can confirm it.

    :param method: the request's method.
    :param status: the response's status.
    :param request: the directives of the request.
    :param authorized: the request has an Authorization field.
    :param directives: the directives of the response.
    :param headers: the response's fields.
    :param configured: the policy sets a lifetime for this status.
    """
    fields = tuple(headers)
    return (
        _refused_status(method, status, directives)
        or _forbidden(status, request, authorized, directives)
        or _personal(fields)
        or _unsaid(status, directives, fields, configured)
    )


def may_be_shared(directives: Directives) -> bool:
    """Whether the response to a request with Authorization may be stored and reused (RFC 9111 section 3.5)."""
    return any(name in directives for name in _SHARED)


def is_for_everybody(directives: Directives) -> bool:
    """Whether a response says that it is for all clients, whichever client requested it."""
    return "public" in directives or "s-maxage" in directives


def _refused_status(method: str, status: int, directives: Directives) -> Refusal | None:
    if method != "GET":
        return Refusal(StoreRefusal.NOT_GET, method)
    if not 200 <= status <= 599:
        return Refusal(StoreRefusal.INTERIM_STATUS, str(status))
    if status in PARTS:
        return Refusal(StoreRefusal.PARTIAL_STATUS, str(status))
    if "must-understand" in directives and status not in UNDERSTOOD:
        return Refusal(StoreRefusal.NOT_UNDERSTOOD, str(status))
    return None


def _forbidden(status: int, request: RequestDirectives, authorized: bool, directives: Directives) -> Refusal | None:
    if request.no_store:
        return Refusal(StoreRefusal.REQUEST_NO_STORE)
    # RFC 9111 section 5.2.2.3: caches that know the status obey must-understand, all others the no-store next to it.
    if "no-store" in directives and not ("must-understand" in directives and status in UNDERSTOOD):
        return Refusal(StoreRefusal.CACHE_CONTROL, "no-store")
    if "private" in directives:
        return Refusal(StoreRefusal.CACHE_CONTROL, "private")
    return Refusal(StoreRefusal.AUTHORIZATION) if authorized and not may_be_shared(directives) else None


def _personal(headers: Sequence[tuple[str, str]]) -> Refusal | None:
    if first_of(headers, "set-cookie") is not None:
        return Refusal(StoreRefusal.SETS_COOKIE, "the response")
    if selecting_fields(headers) is None:
        return Refusal(StoreRefusal.VARY_STAR, ", ".join(lines_of(headers, "vary")))
    unsent = unsendable(headers)
    return None if unsent is None else Refusal(StoreRefusal.UNSENDABLE_FIELD, unsent)


def _unsaid(status: int, directives: Directives, headers: Sequence[tuple[str, str]], configured: bool) -> Refusal | None:
    if is_explicit(directives, headers) or configured or "public" in directives or status in HEURISTIC_STATUSES:
        return None
    return Refusal(StoreRefusal.NO_LIFETIME, str(status))
