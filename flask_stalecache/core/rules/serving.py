"""What is served. Pure: no clock, no I/O, no Flask.

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
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ..model.entry import Entry
from ..model.note import Note
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
