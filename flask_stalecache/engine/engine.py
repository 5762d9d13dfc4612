"""The engine: serves requests from the store, and calls origins. It knows neither Flask nor HTTP (see ``engine.origin``).

A request that is not a plain hit takes one of these routes (``fetch_state``):

=============== ================================================ =====================================================
route           when                                             what happens
=============== ================================================ =====================================================
ServeCopy       the stored copy may be served                    the copy is served, and refreshed if it is due
Bypass          the request carries a name of ``absent``         the origin is called for this request alone
Seldom          the key had fewer than ``min_uses`` requests     likewise
CallUnlocked    its answer is unlikely to be stored              the origin is called at once, without a queue
Queue           otherwise                                        one request of the key calls, the others wait for its
                                                                 call (``engine.collapsing``)
Collapsed       an entry was stored while the request waited     the copy is served
=============== ================================================ =====================================================
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..config.settings import Settings
from ..core.exhaustive import assert_never
from ..core.model.inputs import NO_NAMES
from ..core.model.reasons import Refusal, StoreRefusal
from ..core.remembered import MIB, Remembered
from ..core.rules.serving import Serve, decide, is_plain_hit
from ..core.rules.status import CacheStatus
from ..core.rules.storability import Verdict
from ..core.rules.variant_index import INDEX, Fields, variant_key
from ..errors import PurgedHereOnly, StoreError
from ..filesystem.per_process import PerProcess
from ..stats.counters import Counters
from ..stats.registry import Registry
from ..stores.base import Acknowledged, Copy, Store, seq_of_request
from .collapsing import Collapser
from .fetch_state import Bypass, CallUnlocked, Collapsed, FetchState, Queue, Route, Seldom, ServeCopy
from .instrumentation import log_served
from .origin import Answer, Origin, RefreshResult, Served
from .runtime import Runtime
from .timed_calls import TimedCalls, wait_for_refresh
from .use_counts import UseCounts

logger = logging.getLogger("flask_stalecache")


class Engine:
    """Answers requests for one app from one store.

    :ivar runtime: its threads and housekeeping in this process.
    :param store: where entries live.
    :param settings: the app's configuration.
    :param counters: the named counters.
    :param registry: the counters of requests and calls. Default: in memory, for this process alone.
    """

    def __init__(self, store: Store, settings: Settings, counters: Counters, registry: Registry | None = None) -> None:
        self.store = store
        self.settings = settings
        self.counters = counters
        self.runtime = Runtime(store, settings, counters, registry)
        self.registry = self.runtime.registry
        self.complaints = self.runtime.complaints
        self.answer_writer = self.runtime.answer_writer
        self.instrumentation = self.runtime.instrumentation
        #: Called after each purge of this process, with the last purge number before it and the one after it.
        self.purged: Callable[[int, int], object] = lambda before, after: None
        #: The selectors that the first answer of a URL depends on, by the key of the URL. Read while the URL has no entry.
        self.hints: Remembered[str, Fields] = Remembered(most=4096, limit=4 * MIB, longest=8192)
        self._last_purge = seq_of_request(store)
        self._collapser = Collapser(self)
        self._timed_calls = TimedCalls(self)
        self._uses = PerProcess(partial(UseCounts, settings.min_uses_within))

    @property
    def name(self) -> str:
        """The name of the app, for refreshes that are handed over to other processes."""
        return self.runtime.delegation.app

    # -- answering -----------------------------------------------------------------------------------------------

    def serve(self, origin: Origin) -> Served:
        """Answer a request: from the store if possible, else by calling the origin, once for all requests that wait."""
        copy = self.store.lookup(origin.key)
        if copy is not None and (entry := copy.entry) is not None:
            # The hit path: the same decision as below, at a third of the cost.
            if is_plain_hit(entry, now := time.time(), terms := origin.terms):
                if not origin.is_barred_from(entry):
                    return Served(CacheStatus.HIT, copy)
            elif (standing := copy.standing) is not None and standing.holds(now, terms) and not origin.is_barred_from(entry):
                standing.demand.more += 1
                return Served(standing.status, copy)
        begun = time.perf_counter()
        copy = copy or self._load(origin.key)
        if (copy.entry is None or copy.entry.status == INDEX) and origin.relocate():
            copy = self.look_up(origin.key)
            entry = copy.entry
            if entry is not None and is_plain_hit(entry, time.time(), origin.terms) and not origin.is_barred_from(entry):
                return Served(CacheStatus.HIT, copy)
        served = self._serve_slowly(origin, copy)
        if served.answer is None and served.status in (CacheStatus.STALE, CacheStatus.UPDATING):
            self.instrumentation.stale_served(origin, served)
        if logger.isEnabledFor(logging.DEBUG):
            log_served(origin, served)
        return served._replace(took=time.perf_counter() - begun)

    def _serve_slowly(self, origin: Origin, copy: Copy) -> Served:
        """Serve a request that is not a plain hit."""
        if copy.entry is not None and copy.entry.work.computes:
            # Another process may have measured that this origin computes.
            origin.tally.computes = True
        route = self._count_use(origin, copy) or self.choose_route(origin, copy)
        match route:
            case ServeCopy():
                return self._serve_copy(route, origin)
            case Bypass():
                self.runtime.prepare_process()
                return self._barred(origin, copy)
            case Seldom(uses):
                reason = Refusal(StoreRefusal.TOO_FEW_USES, f"{uses} of {origin.min_uses}")
                return Served(CacheStatus.MISS, None, replace(self.bypass(origin), reason=reason))
            case CallUnlocked(fetch) | Queue(fetch):
                self.runtime.prepare_process()
                visit = FetchState(origin, copy, fetch, time.monotonic() + origin.lock_timeout, self._last_purge())
                served = self._follow(route, visit) or self._fetch(visit)
                return served._replace(waited=True) if visit.waited else served
            case _:
                return assert_never(route)

    def _fetch(self, visit: FetchState) -> Served:
        """Call the origin, or wait for another request's call or for a background refresh."""
        origin = visit.origin
        if origin.wait is not None and origin.runs_in_own_threads:
            return self._timed_calls.call(visit, origin.wait)
        if origin.wait is not None and visit.fetch.if_error is not None:
            return self._wait_for_refresh(visit, origin.wait)
        return self._collapser.call(visit)

    def bypass(self, origin: Origin) -> Answer:
        """Call the origin for one request alone. Nothing is stored."""
        logger.debug("%s: the request bypasses the cache", origin.label)
        return self.instrumentation.call_origin(origin, origin.call_uncached)

    def _barred(self, origin: Origin, copy: Copy) -> Served:
        """Call the origin for a request that the stored copy can't be served to."""
        answer = self.bypass(origin)
        carried = NO_NAMES if copy.entry is None else origin.barred_by(copy.entry)
        return Served(CacheStatus.BYPASS, None, replace(answer, carried=carried))

    def purge(self, *names: str, soft: bool) -> Acknowledged | None:
        """Purge all entries that have one of the names; return which hosts have acknowledged it, if the store has many.

        :param soft: only end their freshness.
        :raises StoreError: if the store can't be written.
        """
        before = self.store.seq()
        try:
            heard = self.store.purge(*names, soft=soft)
        except PurgedHereOnly:
            self._has_purged(before, names, soft)
            raise
        self._has_purged(before, names, soft)
        return heard

    def _has_purged(self, before: int, names: Sequence[str], soft: bool) -> None:
        self.purged(before, self.store.seq())
        self.instrumentation.purged(*names, soft=soft)

    def look_up(self, key: str) -> Copy:
        """Return the copy of a key. Use the copy in this process's memory while it is valid."""
        return self.store.lookup(key) or self._load(key)

    def hint(self, url_key: str, fields: Fields, get: Callable[[str], Any]) -> str | None:
        """Record the selectors that the first answer of a URL depends on, and return its key; ``None`` if the URL has an entry.

        :param url_key: the key of the URL.
        :param fields: the selectors.
        :param get: looks up variables of the request.
        """
        if self.look_up(url_key).entry is not None:
            return None
        self.hints.pop(url_key, None)
        self.hints.note(url_key, fields)
        return variant_key(url_key, fields, get)

    def is_in_use(self, key: str) -> bool:
        """Whether a key has an entry that may still be served."""
        entry = self.look_up(key).entry
        return entry is not None and entry.in_any_window(time.time())

    def is_stored_or_coming(self, key: str) -> bool:
        """Whether an entry is stored under a key, or a call is running that may store one."""
        if self.look_up(key).entry is not None or self.runtime.process.flights.is_running(key):
            return True
        lock = self.store.lock(key)
        try:
            # Look again with the lock: since the first look, a call may have stored its answer and released the lock.
            return not lock.acquire() or self.look_up(key).entry is not None
        except StoreError:
            # The store fails: a call may be running in another process.
            return True
        finally:
            lock.release()

    def _load(self, key: str) -> Copy:
        self.runtime.prepare_process()
        copy = self.answer_writer.load(key)
        if copy.entry is not None:
            self.store.touch(copy)
        return copy

    def _count_use(self, origin: Origin, copy: Copy) -> Seldom | None:
        """Count a request for a key with no entry, if its origin has ``min_uses``. Return ``None`` if the answer may be stored."""
        if copy.entry is not None or origin.min_uses <= 1:
            return None
        self.runtime.prepare_process()
        uses = self._uses.get().count(origin.key)
        return Seldom(uses) if uses < origin.min_uses else None

    def choose_route(self, origin: Origin, copy: Copy) -> Route:
        """Choose the route of a request by its stored copy. The hit path has a shorter way to the same decision."""
        entry, note = copy.entry, copy.note
        if entry is not None and origin.is_barred_from(entry):
            return Bypass()
        now = time.time()
        decision = decide(entry, note, now, origin.terms, pending=self.runtime.process.refreshes.ask(copy))
        if isinstance(decision, Serve):
            return ServeCopy(copy, decision)
        if self.answer_writer.is_marked(copy, now) or not origin.may_collapse or origin.carries(note.kept_out):
            return CallUnlocked(decision)
        return Queue(decision)

    def look_again(self, visit: FetchState) -> Served | None:
        """Look the key up again, and serve the copy. Return ``None`` if the request still has to fetch."""
        visit.origin.relocate()
        visit.copy = self.answer_writer.load(visit.origin.key)
        entry = visit.copy.entry
        if entry is not None and visit.is_new(entry) and not visit.origin.is_barred_from(entry):
            return self._follow(Collapsed(visit.copy), visit)
        return self._follow(self.choose_route(visit.origin, visit.copy), visit)

    def _follow(self, route: Route | Collapsed, visit: FetchState) -> Served | None:
        """Serve a request by its route. Return ``None`` if it has to queue."""
        match route:
            case ServeCopy():
                return self._serve_copy(route, visit.origin)
            case Collapsed(copy):
                return Served(visit.fetch.status, copy, collapsed=True)
            case Bypass():
                return self._barred(visit.origin, visit.copy)
            case CallUnlocked(fetch):
                visit.fetch = fetch
                return self.call_unlocked(visit)
            case Queue(fetch):
                visit.fetch = fetch
                # The origin may have failed recently, or while this request waited for another request's call.
                refused = visit.origin.refused(visit.copy)
                return None if refused is None else self.serve_answer(visit, refused, stored=False)
            case _:
                return assert_never(route)

    def _serve_copy(self, route: ServeCopy, origin: Origin) -> Served:
        copy, decision = route
        if decision.refresh and not self.runtime.claim(copy):
            return Served(decision.meanwhile, copy)
        if not decision.refresh and not self.instrumentation.notes_each_stale_hit():
            copy.standing = self.runtime.process.refreshes.standing(copy, decision.status, origin.terms)
        return Served(decision.status, copy, None, decision.refresh)

    def call_unlocked(self, visit: FetchState) -> Served:
        """Call the origin without the lock. If the answer is storable after all, store it, which removes the mark in the note."""
        if visit.origin.runs_in_own_threads:
            return self._timed_calls.call_unlocked(visit)
        start = self.answer_writer.start(visit.copy)
        if visit.origin.carries(visit.copy.note.kept_out):
            start = start._replace(is_marked=True)
        logger.debug("%s: the origin is called without the lock", visit.origin.label)
        answer = self.instrumentation.call_origin(visit.origin, partial(visit.origin.call, start), start.meter)
        if answer.later is not None:
            answer.later(partial(self.answer_writer.write_if_unlocked, visit.origin.key))
            return self.serve_answer(visit, answer, stored=False)
        return self.serve_answer(visit, answer, self.answer_writer.write_if_unlocked(visit.origin.key, answer))

    def serve_answer(self, visit: FetchState, answer: Answer, stored: bool) -> Served:
        """Serve the origin's answer. If the origin failed, serve the copy instead where that is allowed."""
        if answer.verdict.keeps_copy and visit.fetch.if_error is not None:
            self.complaints.error_every_minute(
                ("failed", visit.origin.label), "%s failed; its stored copy is served", visit.origin.label, exc_info=answer.error
            )
            return self.serve_stale(visit) or Served(visit.fetch.status, None, answer)
        if answer.verdict is Verdict.REFUSED and visit.fetch.if_locked is not None:
            return self.serve_stale(visit) or Served(visit.fetch.status, None, answer)
        return Served(CacheStatus.REVALIDATED if answer.renewed else visit.fetch.status, None, answer, stored=stored)

    def serve_stale(self, visit: FetchState) -> Served | None:
        """Serve the copy after a wait. Return ``None`` if it was purged or dropped meanwhile."""
        try:
            copy = self.store.lookup(visit.origin.key) or self.store.load(visit.origin.key)
        except StoreError as error:
            # The store fails: the copy that was loaded earlier is better than nothing.
            self.answer_writer.store_failed(error)
            copy = visit.copy
        entry = copy.entry
        if entry is None or visit.origin.is_barred_from(entry) or (entry.never_stale and not entry.is_fresh(time.time())):
            return None
        return Served(CacheStatus.STALE, copy)

    def _wait_for_refresh(self, visit: FetchState, wait: float) -> Served:
        """Wait a while for a background refresh, then serve the copy."""

        def look(result: RefreshResult | None, is_ours: bool) -> Served | None:
            if self.store.moved(visit.copy) and (served := self.look_again(visit)) is not None:
                return served
            # The copy was purged meanwhile, so there is nothing to serve when the wait ends.
            return self._collapser.call(visit) if visit.fetch.if_error is None else None

        if self.runtime.process.flights.is_led_here(visit.origin.key):
            return Served(visit.fetch.status, None, self.bypass(visit.origin))
        served = wait_for_refresh(self.runtime.process, visit, wait, look)
        return served if isinstance(served, Served) else self.serve_stale(visit) or self._collapser.call(visit)
