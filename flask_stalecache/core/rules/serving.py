"""Decides how a request is answered: from the stored entry, or by a call of the origin. Pure.

:func:`decide` takes an entry, its note and the time, and returns :class:`Serve` or :class:`Fetch`:

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
stale, wait_for_fresh                                the origin's answer            EXPIRED
any, the client reloads, or the request renews       the origin's answer            EXPIRED
stale, past SWR, in SIE, the origin fails            the entry                      STALE
stale, the wait for the lock times out               the entry, however old         STALE
must-revalidate, proxy-revalidate, bare s-maxage     never stale
==================================================== ============================== ===================

SWR is the window of stale-while-revalidate, SIE that of stale-if-error. A request that prefers stale without a refresh starts none
in SWR either. An entry stored by an older version of the app is stale, whatever its age. So is one from the future: it was stored
while the clock was ahead.

If errors are shown (``shows_errors``), no entry is served in place of a failure, neither of this request nor of the last refresh. A
request that prefers stale is still served the entry.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ..model.entry import Entry
from ..model.moments import AHEAD, is_future
from ..model.note import Note
from .prefer_stale import PreferStale
from .status import CacheStatus


class ServeOptions(NamedTuple):
    """Per-request options for serving stored entries, from app, view and client.

    :ivar version: the app's version.
    :ivar deployed: when the app was set up, in seconds since the epoch.
    :ivar refresh_ahead: the last seconds of freshness, in which a hit also queues a refresh.
    :ivar prefer_stale: whether a stale entry is served whatever its age.
    :ivar wait_for_fresh: a stale entry is refreshed before the answer, and served only if that fails: for jobs without a user.
    :ivar reload: the client accepts a stored entry only after the origin has confirmed it.
    :ivar renews: the request replaces the stored entry, by a call that began after the request arrived: for clients that may do so.
    :ivar if_error: seconds after freshness in which the client accepts the entry if the origin fails, besides the entry's window.
    :ivar shows_errors: failures are shown to the client, who is the developer.
    """

    version: str = ""
    deployed: float = 0.0
    refresh_ahead: float = 0.0
    prefer_stale: PreferStale = PreferStale.NO
    wait_for_fresh: bool = False
    reload: bool = False
    if_error: float = 0.0
    shows_errors: bool = False
    renews: bool = False

    def reloading(self) -> ServeOptions:
        """Return the options of a client that reloads."""
        # With refresh_ahead no hit is a plain one, so that the check of plain hits, on the hot path, need not read reload.
        return self._replace(refresh_ahead=math.inf, reload=True)

    def renewing(self) -> ServeOptions:
        """Return the options of a request that replaces the stored entry."""
        return self.reloading()._replace(renews=True)


PLAIN = ServeOptions()


class Serve(NamedTuple):
    """Serve the entry immediately.

    :ivar refresh: queue a refresh, unless another request has queued one.
    :ivar meanwhile: the status if another request has queued a refresh.
    """

    entry: Entry
    status: CacheStatus
    refresh: bool
    meanwhile: CacheStatus = CacheStatus.UPDATING


class Fetch(NamedTuple):
    """Call the origin.

    :param status: the status of the answer.
    :param if_error: the entry to serve if the origin fails.
    :param if_locked: the entry to serve if the wait for another request's call times out.
    """

    status: CacheStatus
    if_error: Entry | None
    if_locked: Entry | None


_MISS = Fetch(CacheStatus.MISS, None, None)


def is_fresh(entry: Entry, now: float, terms: ServeOptions) -> bool:
    """Whether an entry is fresh, and was not stored by an older version of the app.

    Versions have no order: an older version is a different one that was set up earlier. If any different version counted as stale,
    the old and the new workers of a rolling deploy would refresh each other's pages in turn.
    """
    return entry.is_fresh(now) and (entry.version == terms.version or _is_of_newer(entry, now, terms))


def _is_of_newer(entry: Entry, now: float, terms: ServeOptions) -> bool:
    """Whether the app that stored an entry was set up later than ours, and not while the clock was ahead."""
    return entry.deployed > terms.deployed and not is_future(entry.deployed, now)


def was_ended(entry: Entry, now: float, terms: ServeOptions) -> bool:
    """Whether a soft purge, a deploy or a wrong clock ended the freshness of an entry before the end that its fields state."""
    is_older = entry.version != terms.version and not _is_of_newer(entry, now, terms)
    return entry.ended or entry.is_from_future(now) or is_older


def is_plain_hit(entry: Entry, now: float, terms: ServeOptions) -> bool:
    """Whether an entry is served without looking at its note: it is fresh, and no refresh ahead of time was requested."""
    # is_fresh() written out, since every hit gets here.
    is_current = entry.version == terms.version or _is_of_newer(entry, now, terms)
    return is_current and not terms.refresh_ahead and entry.is_fresh(now)


def is_due(entry: Entry, now: float, terms: ServeOptions) -> bool:
    """Whether an entry needs a refresh: it is stale, or in its last seconds of freshness.

    These seconds are at most half of the freshness. If a response set a much shorter freshness than the code, its entry would
    otherwise always be due.
    """
    if not is_fresh(entry, now, terms):
        return True
    ahead = min(terms.refresh_ahead, entry.windows.max_age / 2)
    return entry.age(now) >= entry.windows.max_age - ahead


def decide(entry: Entry | None, note: Note, now: float, terms: ServeOptions = PLAIN, *, pending: bool) -> Serve | Fetch:
    """Decide how a request is answered.

    :param entry: the stored entry, if any.
    :param note: its note.
    :param now: seconds since the epoch.
    :param terms: the options of the request.
    :param pending: a refresh is queued or running in this process.
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
    is_error_shown = terms.shows_errors and note.failures > 0 and not pending
    in_swr = entry.in_swr(now) and not is_error_shown
    if in_swr and (not terms.wait_for_fresh or note.backing_off(now)):
        return Serve(entry, CacheStatus.UPDATING if waits else CacheStatus.STALE, refresh)
    if terms.prefer_stale is not PreferStale.NO and not terms.wait_for_fresh and not entry.never_stale:
        return Serve(entry, CacheStatus.STALE, refresh, CacheStatus.STALE)
    if entry.in_sie(now) and note.backing_off(now) and not is_error_shown:
        return Serve(entry, CacheStatus.STALE, False)
    return _fetch(entry, now, terms)


def stands_until(entry: Entry, note: Note, now: float, terms: ServeOptions) -> float:
    """Return until when time alone does not change what :func:`decide` returns; in seconds since the epoch.

    :param now: the time of the decision.
    """
    ends, windows = entry.answered + entry.windows.max_age, entry.windows
    moments = (
        # Freshness, its last seconds, and the windows after it.
        ends, ends - min(terms.refresh_ahead, windows.max_age / 2),
        ends + windows.stale_while_revalidate, ends + windows.stale_if_error,
        # A pause begins and ends.
        note.written, note.retry_at,
        # A time from the future counts as such only until then.
        entry.answered - AHEAD, entry.received - AHEAD, entry.deployed - AHEAD,
    )  # fmt: skip
    return min((moment for moment in moments if moment > now), default=math.inf)


def _fetch(entry: Entry, now: float, terms: ServeOptions) -> Fetch:
    may = not terms.shows_errors and may_stand_in(entry, now, terms)
    return Fetch(CacheStatus.EXPIRED, entry if may else None, entry if entry.may_be_stale else None)


def may_stand_in(entry: Entry, now: float, terms: ServeOptions) -> bool:
    """Whether the entry may be served if the origin fails, by its own windows or by that of the client (RFC 5861 section 4)."""
    return entry.in_sie(now) or entry.in_swr(now) or entry.within(terms.if_error, now)


def _may_refresh(note: Note, now: float, terms: ServeOptions, pending: bool) -> bool:
    return not pending and not note.backing_off(now) and terms.prefer_stale is not PreferStale.ALONE
