"""What is served, and what becomes of an answer. Pure: no clock, no I/O, no Flask.

:func:`decide` has an entry, its note and one clock reading, and answers :class:`Serve` or :class:`Fetch`:

==================================================== ============================== ===================
entry                                                served                         status
==================================================== ============================== ===================
none                                                 the origin's answer            MISS
fresh                                                the entry                      HIT
fresh, in refresh_ahead                              the entry, and a refresh       HIT
stale, in SWR                                        the entry, and a refresh       STALE
stale, in SWR, a refresh is pending or backing off   the entry                      UPDATING
stale, past SWR, prefer stale                        the entry, and a refresh       STALE
stale, past SWR, in SIE, backing off                 the entry                      STALE
stale, past SWR                                      the origin's answer            EXPIRED
stale, and nobody waits                              the origin's answer            EXPIRED
any, and the visitor reloads                         the origin's answer            EXPIRED
stale, past SWR, in SIE, and the origin fails        the entry                      STALE
stale, and the wait for the lock is over             the entry, however old         STALE
must-revalidate, proxy-revalidate, bare s-maxage     never stale
==================================================== ============================== ===================

Prefer stale without a refresh hands over none in SWR either. An entry of an older version of the app is stale, whatever its age.

:func:`judge` has an answer and says whether it may be stored; :func:`after` says what becomes of what was stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from ..http.cache_control import Directives
from ..http.fields import vary_names
from ..http.freshness import lifetime, stale_windows
from ..model.entry import Entry
from ..model.inputs import NO_NAMES, RequestInputs
from ..model.note import Note
from ..model.policy import FAILURE_STATUSES, NEVER_VARIED, Policy, Windows
from ..model.reasons import Refusal, StoreRefusal
from .prefer_stale import PreferStale
from .status import CacheStatus


class ServeOptions(NamedTuple):
    """What a request's app, view and visitor say of serving what is stored.

    :ivar version: the app's version.
    :ivar deployed: when the app was set up, in seconds since the epoch.
    :ivar refresh_ahead: the last seconds of freshness, in which a hit hands over a refresh.
    :ivar prefer_stale: whether it is served however old.
    :ivar in_line: nobody waits, so what is stale is renewed at once, and only served if that fails.
    :ivar reload: the visitor wants nothing that is stored, unless the origin confirms it.
    :ivar if_error: seconds after freshness in which the visitor takes it if the origin fails, beside what the entry allows.
    """

    version: str = ""
    deployed: float = 0.0
    refresh_ahead: float = 0.0
    prefer_stale: PreferStale = PreferStale.NO
    in_line: bool = False
    reload: bool = False
    if_error: float = 0.0

    def reloading(self) -> ServeOptions:
        """Return the terms of a visitor who wants nothing that the origin does not confirm."""
        # No hit is a plain one then, and plain ones need not be asked for more.
        return self._replace(refresh_ahead=math.inf, reload=True)


PLAIN = ServeOptions()


class Serve(NamedTuple):
    """Serve the entry, at once.

    :ivar refresh: hand over a refresh, if nobody else has.
    :ivar meanwhile: what to call it if somebody else has.
    """

    entry: Entry
    status: CacheStatus
    refresh: bool
    meanwhile: CacheStatus = CacheStatus.UPDATING


class Fetch(NamedTuple):
    """Call the origin.

    :param status: what to call the answer.
    :param if_error: the entry to serve if the origin fails.
    :param if_locked: the entry to serve if the wait for another's call takes too long.
    """

    status: CacheStatus
    if_error: Entry | None
    if_locked: Entry | None


_MISS = Fetch(CacheStatus.MISS, None, None)


def is_fresh(entry: Entry, now: float, terms: ServeOptions) -> bool:
    """Whether an entry is fresh, and not of an older version of the app.

    Versions have no order, so an older one is another one whose app was set up earlier. Were it just another one, the old and the
    new workers of a deploy would renew each other's pages in turn.
    """
    return entry.is_fresh(now) and (entry.version == terms.version or entry.deployed > terms.deployed)


def is_plain_hit(entry: Entry, now: float, terms: ServeOptions) -> bool:
    """Whether the entry is served whatever else is known: it is fresh, and nobody asked to have it renewed ahead of time."""
    return not terms.refresh_ahead and is_fresh(entry, now, terms)


def is_due(entry: Entry, now: float, terms: ServeOptions) -> bool:
    """Whether an entry is to be renewed: it is stale, or in the last seconds of freshness.

    Those are half of its freshness at most, since the response may have said less than the code: it would always be due.
    """
    if not is_fresh(entry, now, terms):
        return True
    ahead = min(terms.refresh_ahead, entry.windows.max_age / 2)
    return entry.age(now) >= entry.windows.max_age - ahead


def decide(entry: Entry | None, note: Note, now: float, terms: ServeOptions = PLAIN, *, pending: bool) -> Serve | Fetch:
    """Decide how a request is answered.

    :param entry: what is stored, if anything.
    :param note: what is known beside it.
    :param now: seconds since the epoch.
    :param terms: what app, view and visitor say of it.
    :param pending: a refresh was handed over in this process and is not done.
    """
    if entry is None:
        return _MISS
    if is_plain_hit(entry, now, terms):
        return Serve(entry, CacheStatus.HIT, False)
    if terms.reload:
        return _fetch(entry, now, terms)
    if is_fresh(entry, now, terms):
        is_wanted = is_due(entry, now, terms) and _may_refresh(note, now, terms, pending)
        return Serve(entry, CacheStatus.HIT, is_wanted, CacheStatus.HIT)
    waits = pending or note.backing_off(now)
    refresh = _may_refresh(note, now, terms, pending)
    in_swr = entry.in_swr(now)
    if in_swr and (not terms.in_line or note.backing_off(now)):
        return Serve(entry, CacheStatus.UPDATING if waits else CacheStatus.STALE, refresh)
    if terms.prefer_stale is not PreferStale.NO and not terms.in_line and not entry.never_stale:
        return Serve(entry, CacheStatus.STALE, refresh, CacheStatus.STALE)
    if entry.in_sie(now) and note.backing_off(now):
        return Serve(entry, CacheStatus.STALE, False)
    return _fetch(entry, now, terms)


def _fetch(entry: Entry, now: float, terms: ServeOptions) -> Fetch:
    may = may_stand_in(entry, now, terms)
    return Fetch(CacheStatus.EXPIRED, entry if may else None, entry if entry.may_be_stale else None)


def may_stand_in(entry: Entry, now: float, terms: ServeOptions) -> bool:
    """Whether the entry may be served if the origin fails, by its own windows or by what the visitor takes (RFC 5861 section 4)."""
    return entry.in_sie(now) or entry.in_swr(now) or entry.within(terms.if_error, now)


def _may_refresh(note: Note, now: float, terms: ServeOptions, pending: bool) -> bool:
    return not pending and not note.backing_off(now) and terms.prefer_stale is not PreferStale.ALONE


class Verdict(Enum):
    """What an answer of the origin is to the store."""

    #: It may be stored.
    STORABLE = "storable"
    #: It can't be stored, whoever asks.
    UNSTORABLE = "unstorable"
    #: It can't be stored only because of what this request carried.
    PERSONAL = "personal"
    #: The origin failed.
    FAILED = "failed"
    #: It was made with a fallback, while what is stored was not: that is kept, and it is made again when the fallback's call is.
    WORSE = "worse"
    #: The origin was not called: too many calls run, or it is left alone, or its caller waits no longer.
    REFUSED = "refused"


class Judgement(NamedTuple):
    """A verdict, why, and the windows of what may be stored."""

    verdict: Verdict
    reason: Refusal | None = None
    windows: Windows = Windows(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of an answer when it is judged.

    :param status: the HTTP status.
    :param headers: its fields.
    :param size: bytes of the body; ``None`` for a stream that can't be stored.
    :param directives: what its fields say of storing.
    :param in_key: request fields in the key, in lower case.
    :param refusal: a reason not to store it that was seen while it was made (session modified, headers iterated …), if any.
    :param carried: names that were read, are not in the key, and that this request carried.
    :param had_content: what is stored has a body.
    :param stood_in: it was made with the fallback of a call that failed.
    :param has_better: what is stored may be served in its place, and was not made with a fallback itself.
    :param said_max_age: the longest freshness in seconds that the origin itself allowed; ``None``: it said nothing.
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


def judge(facts: Facts, policy: Policy, defaults: Windows, max_size: int, now: float) -> Judgement:
    """Say whether an answer may be stored, and its windows if so (RFC 9111 section 3, design rules 3 and 4)."""
    if facts.status in FAILURE_STATUSES:
        return Judgement(Verdict.FAILED, Refusal(StoreRefusal.FAILED_STATUS, str(facts.status)))
    if facts.had_content and _is_empty(facts) and facts.status not in policy.listed_statuses:
        return Judgement(Verdict.FAILED, Refusal(StoreRefusal.EMPTY_OVER_CONTENT))
    if facts.stood_in and facts.has_better:
        return Judgement(Verdict.WORSE, Refusal(StoreRefusal.FALLBACK_OVER_BETTER))
    if facts.carried:
        # First, since whatever else is said of it (private, a cookie set) may be because of this visitor too.
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
    if facts.size is None:
        return Refusal(StoreRefusal.STREAM)
    return Refusal(StoreRefusal.TOO_LARGE) if facts.size > max_size else None


def _fix_of(unknown: frozenset[str]) -> str:
    # What vary= would refuse is not advised.
    return "" if unknown & {"*", *NEVER_VARIED} else f"write vary={sorted(unknown)!r}"


def _windows(facts: Facts, policy: Policy, defaults: Windows, now: float) -> Windows:
    coded = policy.statuses.get(facts.status)
    if coded is None:
        coded = policy.max_age
    max_age = lifetime(coded, facts.directives, facts.headers, now, defaults.max_age)
    if facts.said_max_age is not None:
        max_age = min(max_age, facts.said_max_age)
    return Windows(max_age, *stale_windows((policy.stale_while_revalidate, policy.stale_if_error), facts.directives, defaults))


class Action(Enum):
    """What becomes of what was stored once the origin has answered."""

    REPLACE = "replace"
    KEEP = "keep"
    DROP = "drop"


def after(verdict: Verdict, *, stored: bool, anybodys: bool = True) -> Action:
    """Return what becomes of the stored entry.

    A storable answer replaces it. A failure keeps it. Any other full answer (404, private now, …) drops it, since it must not
    outlive what the origin says today; but not one that was one visitor's own, which says nothing of the page of others.

    :param verdict: what the answer is to the store.
    :param stored: whether there is an entry.
    :param anybodys: whether the answer could have been anybody's.
    """
    if verdict is Verdict.STORABLE:
        return Action.REPLACE
    return Action.DROP if verdict is Verdict.UNSTORABLE and stored and anybodys else Action.KEEP
