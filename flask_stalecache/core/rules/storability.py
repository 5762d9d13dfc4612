"""Decides whether an answer of the origin is stored, and what happens to the stored entry. Pure.

:func:`judge` returns the first verdict that applies:

========================================================== =============
answer                                                     verdict
========================================================== =============
status 429, 500, 502, 503 or 504, or a configured one      FAILED
empty, although the stored entry has a body                FAILED
made with a fallback, although the entry was not           WORSE
read a name that this request carries                      PERSONAL
refused by the view, its headers, its status or its size   UNSTORABLE
anything else                                              STORABLE
========================================================== =============

:func:`after` returns what happens to the stored entry:

============= ====================================================
verdict       stored entry
============= ====================================================
STORABLE      replaced
UNSTORABLE    dropped; kept if the answer was one visitor's own
              (:func:`is_about_page` is false, for instance)
other         kept
============= ====================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from ..exhaustive import assert_never
from ..http.cache_control import Directives, response_directives
from ..http.fields import Headers, first_of, unsendable, vary_names
from ..http.freshness import is_explicit, lifetime, stale_windows
from ..http.storing import is_for_everybody
from ..model.inputs import NO_NAMES, RequestInputs
from ..model.policy import FAILURE_STATUSES, NEVER_VARIED, Policy, Windows
from ..model.reasons import Refusal, StoreRefusal


class Verdict(Enum):
    """How the store treats an answer of the origin."""

    #: It may be stored.
    STORABLE = "storable"
    #: It can't be stored, for any visitor.
    UNSTORABLE = "unstorable"
    #: It can't be stored because of what this request carried. Without that, it may be.
    PERSONAL = "personal"
    #: The origin failed.
    FAILED = "failed"
    #: It was made with a fallback, and the stored entry was not. The entry is kept, and refreshed when a retry is allowed.
    WORSE = "worse"
    #: The origin was not called: too many calls are running, the origin is suspended, or the caller has stopped waiting.
    REFUSED = "refused"

    @property
    def keeps_copy(self) -> bool:
        """Whether a stored copy is better than the answer: the origin failed, or a fallback replaced a part of it."""
        match self:
            case Verdict.FAILED | Verdict.WORSE:
                return True
            case Verdict.STORABLE | Verdict.UNSTORABLE | Verdict.PERSONAL | Verdict.REFUSED:
                return False
            case _:
                return assert_never(self)

    @property
    def is_failure(self) -> bool:
        """Whether there is no answer of the origin: its call failed, or it was not called."""
        match self:
            case Verdict.FAILED | Verdict.REFUSED:
                return True
            case Verdict.STORABLE | Verdict.UNSTORABLE | Verdict.PERSONAL | Verdict.WORSE:
                return False
            case _:
                return assert_never(self)


class Judgement(NamedTuple):
    """A verdict, its reason, and the windows of a storable answer."""

    verdict: Verdict
    reason: Refusal | None = None
    windows: Windows = Windows(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that :func:`judge` needs to know about an answer.

    :param status: the HTTP status.
    :param headers: its fields.
    :param size: bytes of the body; ``None`` for a stream that can't be stored.
    :param directives: the directives in its fields.
    :param in_key: request fields in the key, in lower case.
    :param refusal: a reason not to store it that was observed during the call (session modified, headers iterated, …), if any.
    :param carried: names that were read, are not in the key, and are in this request.
    :param had_content: the stored entry has a body.
    :param stood_in: it was made with the fallback of a failed call.
    :param has_better: the stored entry may be served instead, and was not made with a fallback.
    :param failures: the statuses that mean that the origin failed.
    :param said_max_age: the longest freshness in seconds that the origin allowed; ``None`` if it set no limit.
    """

    status: int
    headers: Sequence[tuple[str, str]]
    size: int | None
    directives: Directives
    in_key: frozenset[str]
    refusal: Refusal | None = None
    carried: RequestInputs = NO_NAMES
    had_content: bool = False
    said_max_age: float | None = None
    stood_in: bool = False
    has_better: bool = False
    failures: frozenset[int] = FAILURE_STATUSES


def judge(facts: Facts, policy: Policy, defaults: Windows, max_size: int, now: float) -> Judgement:
    """Return whether an answer may be stored, and its windows if so (RFC 9111 section 3)."""
    if facts.status in facts.failures and facts.status not in policy.listed_statuses:
        return Judgement(Verdict.FAILED, Refusal(StoreRefusal.FAILED_STATUS, str(facts.status)))
    if facts.had_content and _is_empty(facts) and facts.status not in policy.listed_statuses:
        return Judgement(Verdict.FAILED, Refusal(StoreRefusal.EMPTY_OVER_CONTENT))
    if facts.stood_in and facts.has_better:
        return Judgement(Verdict.WORSE, Refusal(StoreRefusal.FALLBACK_OVER_BETTER))
    if facts.carried:
        # Before all other reasons: private or Set-Cookie may also be there only because of this visitor.
        return Judgement(Verdict.PERSONAL, Refusal(StoreRefusal.MADE_FOR_VISITOR))
    refusal = facts.refusal or _refusal(facts, policy, max_size)
    if refusal is not None:
        return Judgement(Verdict.UNSTORABLE, refusal)
    return Judgement(Verdict.STORABLE, None, _windows(facts, policy, defaults, now))


def _is_empty(facts: Facts) -> bool:
    return facts.status in (204, 205) or (facts.status == 200 and facts.size == 0)


def _refusal(facts: Facts, policy: Policy, max_size: int) -> Refusal | None:
    for name in ("no-store", "private", "no-cache"):
        if name in facts.directives:
            return Refusal(StoreRefusal.CACHE_CONTROL, name)
    if facts.status not in policy.statuses:
        return Refusal(StoreRefusal.STATUS_NOT_LISTED, str(facts.status))
    if any(name.lower() == "set-cookie" for name, _ in facts.headers):
        return Refusal(StoreRefusal.SETS_COOKIE, "the view's response")
    unknown = vary_names(facts.headers) - facts.in_key
    if unknown:
        return Refusal(StoreRefusal.VARY_NOT_IN_KEY, ", ".join(sorted(unknown)), _fix_of(unknown))
    if unsent := unsendable(facts.headers):
        return Refusal(StoreRefusal.UNSENDABLE_FIELD, unsent)
    if facts.size is None:
        return Refusal(StoreRefusal.STREAM)
    return Refusal(StoreRefusal.TOO_LARGE) if facts.size > max_size else None


def _fix_of(unknown: frozenset[str]) -> str:
    # vary= does not accept these names.
    return "" if unknown & {"*", *NEVER_VARIED} else f"write vary={sorted(unknown)!r}"


def _windows(facts: Facts, policy: Policy, defaults: Windows, now: float) -> Windows:
    coded = policy.statuses.get(facts.status)
    if coded is None:
        coded = policy.max_age
    max_age = lifetime(coded, facts.directives, facts.headers, now, defaults.max_age)
    if facts.said_max_age is not None:
        max_age = min(max_age, facts.said_max_age)
    return Windows(max_age, *stale_windows((policy.stale_while_revalidate, policy.stale_if_error), facts.directives, defaults))


#: The client errors that are about the page, not about the request or who sent it.
_ABOUT_PAGE = frozenset({404, 405, 410, 414, 451})
_PARTS = frozenset({206, 304})


def is_about_page(status: int, headers: Headers) -> bool:
    """Whether an answer shows the page as it is for all visitors, not only for the request that led to the answer.

    A part of an answer, a client error such as 403 or 429, and an answer that sets a cookie do not: the stored entry is kept.

    :param headers: the fields of the answer.
    """
    if status in _PARTS or (400 <= status <= 499 and status not in _ABOUT_PAGE):
        return False
    return first_of(headers, "set-cookie") is None


def failures_now(chosen: frozenset[int], *, has_copy: bool) -> frozenset[int]:
    """Return the statuses that mean a failure. A status such as 404 does so only while there is a copy to serve instead.

    :param chosen: the configured statuses.
    """
    return chosen if has_copy else chosen & FAILURE_STATUSES


def refuses_who_asks(status: int) -> bool:
    """Whether an error that no view has made means that the client is refused, not that there is no such page."""
    return status not in _ABOUT_PAGE


def speaks_for_itself(status: int, headers: Headers) -> bool:
    """Whether the fields of an answer state that it is for everybody, and for how long.

    An answer that refuses the client does not count. One with Age does not count either, since another cache has stored it.
    """
    fields = tuple(headers)
    directives = response_directives(fields)
    if first_of(fields, "age") is not None or (400 <= status < 500 and refuses_who_asks(status)):
        return False
    return is_for_everybody(directives) and is_explicit(directives, fields)


class Action(Enum):
    """The fate of the stored entry after an answer of the origin."""

    REPLACE = "replace"
    KEEP = "keep"
    DROP = "drop"


def after(verdict: Verdict, *, stored: bool, anybodys: bool = True) -> Action:
    """Return what happens to the stored entry.

    A full answer that can't be stored (404, now private, …) drops it: an entry must not outlive what the origin says today. An
    answer for one visitor keeps it, since it says nothing about the page of the others.

    :param verdict: the verdict on the answer.
    :param stored: there is an entry.
    :param anybodys: the answer does not depend on the visitor.
    """
    match verdict:
        case Verdict.STORABLE:
            return Action.REPLACE
        case Verdict.UNSTORABLE:
            return Action.DROP if stored and anybodys else Action.KEEP
        case Verdict.PERSONAL | Verdict.FAILED | Verdict.WORSE | Verdict.REFUSED:
            return Action.KEEP
        case _:
            return assert_never(verdict)
