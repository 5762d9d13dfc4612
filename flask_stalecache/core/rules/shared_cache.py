"""The decisions of a shared HTTP cache that follows the headers of responses and requests. Pure.

The gateway and the sessions of ``requests`` use it. :func:`judge_exchange` returns the first verdict that applies:

================================================================== ============
response                                                           verdict
================================================================== ============
status 429, 500, 502, 503 or 504, or a configured one, without     FAILED
freshness or with a stored copy that may be served
forbidden by :func:`~..http.storing.refusal`                       UNSTORABLE
never fresh, never stale, and without a validator                  UNSTORABLE
anything else                                                      STORABLE
================================================================== ============
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..http.cache_control import Directives, RequestDirectives, request_directives
from ..http.fields import stored_fields
from ..http.freshness import StaleWindows, forbids_stale, initial_age, is_explicit, lifetime, stale_windows
from ..http.request import accepts, may_use
from ..http.storing import may_be_shared, refusal
from ..model.entry import Entry
from ..model.policy import FAILURE_STATUSES, Policy, Windows
from ..model.reasons import Refusal, StoreRefusal
from ..responses.validators import conditional_fields
from .prefer_stale import PreferStale
from .serving import ServeOptions
from .storability import Judgement, Verdict, failures_now

NO_WINDOWS = Windows(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A request and its response, reduced to what matters for storing.

    :param method: the method of the request.
    :param authorized: the request has Authorization.
    :param request: the directives of the request, if they are honoured.
    :param status: the status of the response.
    :param headers: the fields of the response.
    :param directives: the directives in these fields.
    :param requested: when the request was sent to the origin, in seconds since the epoch.
    :param answered: when the head of the response was received.
    """

    method: str
    authorized: bool
    request: RequestDirectives
    status: int
    headers: Sequence[tuple[str, str]]
    directives: Directives
    requested: float
    answered: float

    @property
    def age(self) -> float:
        """The age of the response when it was received, in seconds (RFC 9111 section 4.2.3)."""
        return initial_age(self.headers, self.requested, self.answered)


def entry_fields(exchange: Exchange, windows: Windows) -> dict[str, Any]:
    """Return the fields of an entry that each response sets, even a 304 that confirms the entry (RFC 9111 section 4.3.4)."""
    return {
        "answered": exchange.answered - exchange.age,
        "received": exchange.answered,
        "windows": windows,
        "never_stale": forbids_stale(exchange.directives, windows),
        "shared": may_be_shared(exchange.directives),
        "headers": stored_fields(exchange.headers),
    }


def judge_exchange(
    exchange: Exchange,
    coded: Policy,
    configured: Policy,
    *,
    has_copy: bool,
    ruled: StaleWindows = (None, None),
    failures: frozenset[int] = FAILURE_STATUSES,
) -> Judgement:
    """Return whether a response may be stored, and its windows if so (RFC 9111 section 3).

    :param coded: the policy in code for this origin. It takes precedence over the response.
    :param configured: the policy for responses without freshness of their own. Without one, HTTP's heuristics decide, and the
        response is never served stale.
    :param has_copy: a stored copy may be served instead.
    :param failures: the statuses that mean that the origin failed.
    :param ruled: the stale windows that are set in the rule for the path.
    """
    windows = _windows(exchange, coded, configured, ruled)
    is_said = is_explicit(exchange.directives, exchange.headers)
    is_listed = any(exchange.status in policy.listed_statuses for policy in (coded, configured))
    is_failure = exchange.status in failures_now(failures, has_copy=has_copy) and not is_listed
    if is_failure and (has_copy or not is_said):
        return Judgement(Verdict.FAILED, Refusal(StoreRefusal.FAILED_STATUS, str(exchange.status)))
    given = any(_lifetime_given(exchange.status, policy) is not None for policy in (coded, configured))
    reason = refusal(
        method=exchange.method,
        status=exchange.status,
        headers=exchange.headers,
        directives=exchange.directives,
        authorized=exchange.authorized,
        request=exchange.request,
        configured=given,
    )
    if reason is None and windows == NO_WINDOWS and not conditional_fields(exchange.headers):
        reason = Refusal(StoreRefusal.NO_VALIDATOR) if is_said or given else Refusal(StoreRefusal.NOTHING_SAID, "it")
    return Judgement(Verdict.STORABLE, None, windows) if reason is None else Judgement(Verdict.UNSTORABLE, reason)


def _windows(exchange: Exchange, coded: Policy, configured: Policy, ruled: StaleWindows) -> Windows:
    """Return the windows: from code, else the response, else the rule, else the configuration."""
    status, directives = exchange.status, exchange.directives
    ages = _lifetime_given(status, coded), _lifetime_given(status, configured)
    max_age = lifetime(ages[0], directives, exchange.headers, exchange.answered, ages[1], status=status)
    default = Windows(0.0, configured.stale_while_revalidate or 0.0, configured.stale_if_error or 0.0)
    return Windows(max_age, *stale_windows((coded.stale_while_revalidate, coded.stale_if_error), directives, default, ruled))


def _lifetime_given(status: int, policy: Policy) -> float | None:
    """Return the lifetime that a policy sets for a status; ``None`` if it sets none."""
    if status not in policy.statuses:
        return None
    listed: float | None = policy.statuses[status]
    return policy.max_age if listed is None else listed


def directives_of(environ: Mapping[str, str]) -> RequestDirectives | None:
    """Return the directives in a request's Cache-Control and Pragma; ``None`` if it has neither field."""
    if "HTTP_CACHE_CONTROL" not in environ and "HTTP_PRAGMA" not in environ:
        return None
    return request_directives(environ.get("HTTP_CACHE_CONTROL"), environ.get("HTTP_PRAGMA"))


def honored(terms: ServeOptions, said: RequestDirectives | None, entry: Entry | None, now: float) -> ServeOptions:
    """Return the options of a request, changed as its own directives demand (RFC 9111 section 5.2.1).

    :param terms: the options without its directives.
    :param said: the directives; ``None`` if it has none.
    :param entry: the stored response, if any.
    :param now: seconds since the epoch.
    """
    if said is None or entry is None:
        return terms
    age = entry.age(now)
    fresh_for = 0.0 if entry.ended else entry.windows.max_age - age
    if not accepts(said, age=age, fresh_for=fresh_for):
        return terms.reloading()
    if fresh_for <= 0 and may_use(said, age=age, fresh_for=fresh_for, may_be_stale=not entry.never_stale):
        return terms._replace(prefer_stale=PreferStale.AND_REFRESH)
    return terms
