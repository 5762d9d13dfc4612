"""Collects the page's statistics and entries."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Flask

from ..app_state import AppState, state_of
from ..core.addressing.keys import page_key
from ..core.formatting import number, spell
from ..core.model.entry import Entry
from ..core.model.note import Note
from ..core.rules.serving import ServeOptions
from ..core.rules.variant_index import INDEX, keys_in
from ..frontends.memoize.bound_function import FetchFunction
from ..frontends.memoize.handler import Suspended
from ..stats.many_hosts import shared_numbers
from ..stores.base import Stored, find_key
from .charts import Moment, charts, moment_of
from .entry_view import Card, EntryLine, card_of, line_of
from .health import OFF, health
from .overview import Overview, overview
from .store_scan import StoreScanner, search

#: The longest time of a search, in seconds; of one that only completes known results; and of one that the visitor extends.
SEARCH, SHORT_SEARCH, LONG_SEARCH = 1.0, 0.2, 10.0
#: Entries that are shown as cards.
CARDS = 20
#: Seconds of history that are shown, and seconds by which clocks may differ.
HOUR, AHEAD = 3600.0, 60.0
#: The shortest interval for a rate, in seconds: over less time the rate would jump.
ENOUGH = 2.0


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The result of a search.

    :ivar says: the number of entries, in words.
    :ivar cut: why there may be more; "" if there are no more.
    :ivar may_go_on: a longer search may find more.
    :ivar cards: the first entries.
    """

    says: str
    cut: str
    may_go_on: bool
    cards: list[Card]


@dataclass(frozen=True, slots=True)
class Lists:
    """Lists of entries, and how much of the store they cover."""

    says: str
    left_alone: list[EntryLine]
    biggest: list[EntryLine]
    latest: list[EntryLine]


class DashboardData:
    """One app's numbers and entries.

    :param app: the app.
    :param memos: the fetch functions that are known.
    """

    def __init__(self, app: Flask, memos: Collection[FetchFunction]) -> None:
        self._app = app
        self._memos = memos
        self._surveyor = StoreScanner()
        self._known: list[Moment] = []
        self._mutex = threading.Lock()

    @property
    def state(self) -> AppState:
        """The state of the app."""
        return state_of(self._app)

    # -- numbers -------------------------------------------------------------------------------------------------

    def numbers(self, series: str) -> Overview:
        """Return the statistics of all workers of this host. Never walks through the store.

        :param series: the series whose latency is shown: ``kind/name``, or "" for all endpoints.
        """
        moments, running = self._hour()
        return self._overview([*moments, *running], series)

    def now(self, series: str, after: float) -> tuple[Overview, dict[str, Any]]:
        """Return the statistics, and the points of the charts.

        :param after: only points after this time, in seconds since the epoch.
        """
        moments, running = self._hour()
        shown = self._overview([*moments, *running], series)
        drawn = charts([*moments, *running], shown.series, after)
        # The last interval is not over: the page replaces its point at the next update.
        return shown, {**drawn, "whole": not after, "running": bool(running)}

    def _overview(self, moments: list[Moment], series: str) -> Overview:
        runtime, settings = self.state.engine.runtime, self.state.settings
        # The numbers of this host, like the charts; those of other hosts are in the table of hosts.
        stats = runtime.stats_here()
        hosts = runtime.hosts(stats)
        if hosts is not None:
            stats["shared"] = shared_numbers(stats, hosts)
        if (worker := runtime.worker_state()) is not None:
            stats["worker"] = worker
        longest, queue = settings.refresh_backoff[1], settings.refresh_queue
        how = health(stats, moments, self._suspended(), longest, queue) if settings.enabled else OFF
        return overview(stats, moments, how, time.time(), series)

    def _hour(self) -> tuple[list[Moment], list[Moment]]:
        """Return the last hour, and the interval since its last sample if that is long enough for a rate.

        Samples that were read once are kept, since they do not change.
        """
        with self._mutex:
            now, known = time.time(), self._known
            # A sample from the future was taken while the clock was wrong: new ones would be skipped because of it.
            known = [moment for moment in known if now - HOUR < moment.at <= now + AHEAD]
            new = self.state.stats.history(known[-1].at if known else 0.0)
            self._known = known = [*known, *map(moment_of, new)]
        running = self.state.stats.running()
        is_enough = running is not None and running["seconds"] >= ENOUGH
        return known, [moment_of(running)] if running is not None and is_enough else []

    def _suspended(self) -> list[Suspended]:
        calls = self.state.calls
        return [] if calls is None else calls.suspended(self._memos)

    # -- entries -------------------------------------------------------------------------------------------------

    def lists(self, here: str) -> Lists:
        """Return the lists of entries: of all entries, or of those that can be read in a moment.

        :param here: scheme and host of the page.
        :raises StoreError: if the store can't be read.
        """
        store, terms, now = self.state.engine.store, self._terms(), time.time()
        seen = self._surveyor.look(store, terms)
        states = ", ".join(f"{number(count)} {state.value}" for state, count in sorted(seen.states.items()))
        says = f"{number(seen.looked)} in all: {states}." if seen.looked else ""
        if seen.is_cut:
            of = number(store.usage().entries)
            says = f"Only {number(seen.looked)} of about {of} were looked at, so as not to hold you up: {states}."
        left_alone, biggest, latest = (
            [line_of(stored, now, terms, here) for stored in some] for some in (seen.left_alone, seen.biggest, seen.latest)
        )
        return Lists(says, left_alone, biggest, latest)

    def one(self, address: str) -> SearchResult:
        """Return the entry whose key has a given digest.

        :param address: the digest.
        :raises StoreError: if the store can't be read.
        """
        store = self.state.engine.store
        key = find_key(store, address)
        copy = None if key is None else store.load(key)
        if copy is None or copy.entry is None:
            return SearchResult("It is not stored any more.", "", False, [])
        return SearchResult("", "", False, [self._card(_stored(copy.entry, copy.note))])

    def of_url(
        self, environ: Mapping[str, Any], arriving: Mapping[str, Any], matches: Callable[[Entry], bool], *, takes_long: bool
    ) -> SearchResult:
        """Return the entries of a URL: those that a request for it finds by their keys, and others that a walk finds in time.

        :param environ: a request for it, as the app would see it.
        :param arriving: the same request as it would arrive in front of the app's middleware.
        :raises StoreError: if the store can't be read.
        """
        store, ignored = self.state.engine.store, self.state.settings.ignored_parameters
        keys = [*self.state.pages.keys_of(environ), page_key("gateway", arriving, {}, ignored)]
        copies = [store.load(key) for key in keys]
        indexes = [copy.entry for copy in copies if copy.entry is not None and copy.entry.status == INDEX]
        copies += [store.load(key) for index in indexes for key in keys_in(index)]
        straight = [_stored(copy.entry, copy.note) for copy in copies if copy.entry is not None and copy.entry.status != INDEX]
        return self._matching(matches, [stored for stored in straight if matches(stored.entry)], takes_long)

    def matching(self, matches: Callable[[Entry], bool], *, takes_long: bool) -> SearchResult:
        """Return the entries that match: the first ones that are found in time.

        :raises StoreError: if the store can't be read.
        """
        return self._matching(matches, [], takes_long)

    def _matching(self, matches: Callable[[Entry], bool], known: list[Stored], takes_long: bool) -> SearchResult:
        store = self.state.engine.store
        # If entries are known already, only other variants of them may be missing.
        longest = LONG_SEARCH if takes_long else SHORT_SEARCH if known else SEARCH
        found = search(store.walk(), matches, longest, CARDS)
        # Entries from the walk come last, so that they replace known ones: only a walk returns their size and last use.
        entries = {stored.entry.key: stored for stored in (*known, *found.entries)}
        count = len(entries)
        says = f"{number(count)} {'entry' if count == 1 else 'entries'} found." if count else "Nothing that is stored matches."
        cut = ""
        if found.is_cut and count >= CARDS:
            says, cut = f"The first {CARDS} that were found.", "There may be more."
        elif found.is_cut:
            of = number(store.usage().entries)
            cut = f"Only {number(found.looked)} of about {of} entries were looked at in {spell(longest)}."
        cards = [self._card(stored) for stored in entries.values()][:CARDS]
        return SearchResult(says, cut, bool(cut) and count < CARDS and not takes_long, cards)

    def _card(self, stored: Stored) -> Card:
        engine = self.state.engine
        # Loaded for its stamp: a refresh may be pending in this process even if it has no copy of the entry.
        pending = engine.runtime.process.refreshes.is_pending(engine.store.load(stored.entry.key))
        terms = self.state.scheduler.serve_options_of(stored.entry) or self._terms()
        return card_of(stored, time.time(), terms, pending=pending)

    def _terms(self) -> ServeOptions:
        """Return the serving options of the app, for entries that have none of their own."""
        calls = self.state.calls
        return ServeOptions() if calls is None else calls.terms()


def _stored(entry: Entry, note: Note) -> Stored:
    """Return a loaded entry as if a walk had found it. Size on disk and last use are unknown: 0."""
    return Stored(entry, entry.length, 0, 0.0, note)
