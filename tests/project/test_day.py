"""A day of a site in fast motion: each answer and each run of a view against an exact model, and nothing that grows.

Two workers share a directory, and the clock moves only between two visits. The model knows what section 4 of the design says, and
nothing of how it is done: for each visit it says the word, the status and the run of the view that is shown, and how often each
view has run after that. What it needs for being exact: whole seconds, random numbers that are all the same, refreshes that are done
before the clock moves on, a sweep a minute that does all folders at once, and no two keys that share a slot.
"""

from __future__ import annotations

import gc
import heapq
import itertools
import logging
import os
import random
import re
import sys
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pytest
import time_machine
from flask import Flask, Response, request

from flask_stalecache import StaleCache
from flask_stalecache.engine import engine, thread_pool
from flask_stalecache.engine.engine import Engine
from flask_stalecache.stores import sweep
from flask_stalecache.stores.entry_format import decode_head
from flask_stalecache.stores.file_store import FileStore
from support.client import MakeApp, Seen, settle, visit
from support.threads import PATIENCE, wait_until

MINUTE, HOUR, DAY = 60, 3600, 86400
KIB, MIB = 1024, 1024 * 1024
#: What ``random.random()`` answers; so that freshness is shortened and pauses are stretched by exact fractions.
HALF = 0.5
FIRST_PAUSE, LONGEST_PAUSE = 8, 300
#: Seconds for which a page that can't be stored is not queued for.
UNSTORABLE_FOR = 10
INACTIVE = 10 * MINUTE
REFRESH_WORKERS = 2
#: Bytes for copies in a process, and how many that are at most.
MEMORY_SIZE, COPIES = 128 * KIB, 128
HOST = "http://localhost"
PREFERS = {"X-Prefer-Stale": "1"}


# -- the site --------------------------------------------------------------------------------------------------------


class Outcome(Enum):
    """What a view makes of a page at a moment."""

    GOOD = "good"
    DOWN = "the third party is down"
    GONE = "404"
    PRIVATE = "Cache-Control: private"


@dataclass(frozen=True)
class Kind:
    """The pages of one view.

    :ivar windows: seconds of freshness, stale-while-revalidate and stale-if-error.
    :ivar options: what else ``cached`` is told.
    :ivar said: the freshness that the view itself allows, if it says so.
    :ivar never_stale: the view answers with ``must-revalidate``.
    :ivar needs: it asks the third party; "503": and answers that if it is down; "raises": and raises.
    """

    name: str
    windows: tuple[int, int, int]
    options: Mapping[str, Any] = field(default_factory=dict)
    said: int | None = None
    never_stale: bool = False
    needs: str = ""
    path: str = "/{kind}/{number}"
    tags: tuple[str, ...] = ()

    @property
    def wait(self) -> int | None:
        return self.options.get("wait")

    def fresh_for(self, status: int) -> float:
        """How long an answer is fresh, jitter included."""
        statuses = self.options.get("statuses", {})
        coded = statuses.get(status, self.windows[0])
        allowed = coded if self.said is None else min(coded, self.said)
        return allowed * (1 - self.options.get("jitter", 0.1) * HALF)


def _article_tags(number: int) -> list[str]:
    return ["articles", f"article:{number}"]


_EXACT: dict[str, Any] = {"jitter": 0}
ARTICLE = Kind("article", (240, 600, 2 * HOUR), {"jitter": 0.25, "tags": _article_tags, "statuses": {404: 64}})
PRICES = Kind("prices", (60, HOUR, 2 * HOUR), {**_EXACT, "tags": ["prices"]}, needs="503", tags=("prices",))
QUOTES = Kind("quotes", (60, 0, HOUR), {**_EXACT, "wait": 0}, needs="raises")
WEATHER = Kind("weather", (90, 30, HOUR), {**_EXACT, "wait": 2 * PATIENCE}, needs="raises")
RATES = Kind("rates", (120, 0, 0), _EXACT, needs="raises")
BOARD = Kind("board", (60, 600, 600), _EXACT, never_stale=True, needs="503")
ARCHIVE = Kind("archive", (15 * MINUTE, 0, 0), {**_EXACT, "prefer_stale": True}, needs="503")
TOP = Kind("top", (120, 60, HOUR), {**_EXACT, "refresh_ahead": 30}, needs="503")
DIARY = Kind("diary", (300, 60, HOUR), _EXACT, said=20, tags=("diary",))
KINDS = (ARTICLE, RATES, ARCHIVE, PRICES, QUOTES, WEATHER, BOARD, TOP, DIARY)
SEARCH = Kind("search", (60, 60, 120), _EXACT, path="/{kind}?x={number}")


class Page(NamedTuple):
    """One page of the site."""

    kind: Kind
    number: int

    @property
    def path(self) -> str:
        return self.kind.path.format(kind=self.kind.name, number=self.number)

    @property
    def names(self) -> frozenset[str]:
        """What it can be purged by."""
        own = _article_tags(self.number) if self.kind is ARTICLE else self.kind.tags
        where = f"path:{self.path}", f"url:{HOST}{self.path}"
        return frozenset(("all", f"endpoint:{self.kind.name}", *where, *(f"tag:{tag}" for tag in own)))


@dataclass(frozen=True)
class Script:
    """What happens to the site in a day, whoever visits it."""

    start: int
    length: int

    def at(self, share: float) -> int:
        """The moment at which this share of the day is over: a whole second."""
        return self.start + int(self.length * share)

    def outcome(self, page: Page, now: float) -> Outcome:
        """What the page's view makes of it."""
        if page.kind.needs and self.at(0.35) <= now < self.at(0.35) + min(HOUR, self.length // 6):
            return Outcome.DOWN
        if page.kind is ARTICLE and page.number % 5 == 1 and self.at(0.6) <= now < self.at(0.75):
            return Outcome.GONE
        if page.kind is DIARY and page.number % 2 == 1 and self.at(0.2) <= now < self.at(0.3):
            return Outcome.PRIVATE
        return Outcome.GOOD


class ThirdPartyDown(Exception):
    """What a client of the third party raises."""


class Site:
    """The views, whichever app they are in.

    :ivar runs: how often each page was made.
    :ivar purge_during: pages that are purged (``True``: softly) while they are made the next time.
    :ivar answered: set unless a visitor is on their way who must be answered before a refresh goes on.
    """

    def __init__(self, script: Script, clock: time_machine.Traveller) -> None:
        self.script = script
        self.now = float(script.start)
        self.runs: Counter[str] = Counter()
        self.purge_during: dict[str, bool] = {}
        self.answered = threading.Event()
        self.answered.set()
        self._clock = clock

    def move_to(self, now: float) -> None:
        """Move the clock."""
        self.now = now
        self._clock.move_to(now)

    def add_views(self, app: Flask, cache: StaleCache) -> None:
        """Give an app its views."""
        app.register_error_handler(ThirdPartyDown, lambda error: (str(error), 503))
        for kind in KINDS:
            self._add_view(app, cache, kind, f"/{kind.name}/<int:number>")
        self._add_view(app, cache, SEARCH, f"/{SEARCH.name}")

    def _add_view(self, app: Flask, cache: StaleCache, kind: Kind, rule: str) -> None:
        @app.get(rule, endpoint=kind.name)
        @cache.cached(*kind.windows, **kind.options)
        def page(number: int | None = None) -> Response:
            return self._make(cache, Page(kind, int(request.args["x"]) if number is None else number))

    def _make(self, cache: StaleCache, page: Page) -> Response:
        if cache.refreshing and page.kind.wait == 0:
            assert self.answered.wait(PATIENCE)
        self.runs[page.path] += 1
        text = show(page.path, self.runs[page.path])
        soft = self.purge_during.pop(page.path, None)
        if soft is not None:
            cache.purge(page.path, soft=soft)
        outcome = self.script.outcome(page, self.now)
        if outcome is Outcome.DOWN and page.kind.needs == "raises":
            raise ThirdPartyDown(text)
        response = Response(text, STATUSES[outcome])
        if outcome is Outcome.PRIVATE:
            response.cache_control.private = True
        if page.kind.never_stale:
            response.cache_control.must_revalidate = True
        if page.kind.said is not None:
            cache.max_age(page.kind.said)
            cache.tag(*page.kind.tags)
        return response


STATUSES = {Outcome.GOOD: 200, Outcome.DOWN: 503, Outcome.GONE: 404, Outcome.PRIVATE: 200}


def show(path: str, run: int) -> str:
    """What a run of a view shows."""
    return f"{path} run {run} {'.' * 700}"


# -- the model -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Stored:
    """What is stored of a page.

    :ivar run: the run of the view that made it.
    :ivar fresh_for: seconds of freshness left by jitter, the view's own word and soft purges.
    :ivar ended: a soft purge has ended it.
    :ivar deployed: when the app was deployed that stored it.
    :ivar wanted_until: until when it is in one of the windows that it was stored with.
    :ivar used_at: when it was used last, as far as the sweep knows.
    """

    run: int
    status: int
    answered: float
    fresh_for: float
    version: str
    deployed: float
    wanted_until: float
    used_at: float
    ended: bool = False


@dataclass(slots=True)
class Failures:
    """What is known beside the entry: failures in a row, and when to try again; or until when nobody queues."""

    used_at: float
    count: int = 0
    retry_at: float = 0.0
    unqueued_until: float = 0.0


class Expected(NamedTuple):
    """How a visitor is answered."""

    word: str
    status: int
    run: int


@dataclass(frozen=True)
class Release:
    """A deployed version of the app."""

    version: str
    deployed: float


class Model:
    """What visitors should see: the table in section 4 of the design, one line a row, for one visitor at a time.

    :ivar stored: what is stored, by path.
    :ivar failures: what is known beside that.
    :ivar runs: how often each page was made.
    :ivar purged: the names that were purged.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.stored: dict[str, Stored] = {}
        self.failures: dict[str, Failures] = {}
        self.runs: Counter[str] = Counter()
        self.purged: set[str] = set()
        self.purge_during: dict[str, bool] = {}
        self.words: Counter[str] = Counter()
        self._pages: dict[str, Page] = {}
        self._used: set[str] = set()
        self._dead: set[str] = set()

    # -- a visit -------------------------------------------------------------------------------------------------

    def visit(self, page: Page, release: Release, now: float, *, prefers: bool) -> Expected:
        """Say how a visitor is answered, and do what their visit does."""
        expected = self._answer(page, release, now, prefers or page.kind is ARCHIVE)
        self.words[expected.word] += 1
        return expected

    def _answer(self, page: Page, release: Release, now: float, prefers: bool) -> Expected:
        stored, kind = self.stored.get(page.path), page.kind
        if stored is None:
            return self._fetch("MISS", page, release, now, None)
        self._used.add(page.path)
        backing_off = self._backing_off(page, now)
        swr, sie = (0, 0) if kind.never_stale else kind.windows[1:]
        if self._is_fresh(stored, release, now):
            if now >= stored.answered + stored.fresh_for - kind.options.get("refresh_ahead", 0) and not backing_off:
                self._run(page, release, now)
            return self._show("HIT", stored)
        if _within(stored, swr, now):
            if not backing_off:
                self._run(page, release, now)
            return self._show("UPDATING" if backing_off else "STALE", stored)
        if prefers and not kind.never_stale:
            if not backing_off:
                self._run(page, release, now)
            return self._show("STALE", stored)
        if not _within(stored, sie, now):
            return self._fetch("EXPIRED", page, release, now, None)
        if backing_off:
            return self._show("STALE", stored)
        if kind.wait == 0:
            self._run(page, release, now)
            return self._show("STALE", stored)
        return self._fetch("EXPIRED", page, release, now, stored)

    def _is_fresh(self, stored: Stored, release: Release, now: float) -> bool:
        is_old = stored.version != release.version and stored.deployed <= release.deployed
        return not is_old and not stored.ended and now < stored.answered + stored.fresh_for

    def _backing_off(self, page: Page, now: float) -> bool:
        failures = self.failures.get(page.path)
        return failures is not None and now < failures.retry_at

    @staticmethod
    def _show(word: str, stored: Stored) -> Expected:
        return Expected(word, stored.status, stored.run)

    def _fetch(self, word: str, page: Page, release: Release, now: float, stand_in: Stored | None) -> Expected:
        failures = self.failures.get(page.path)
        if failures is not None and now >= failures.unqueued_until:
            # It is looked up before its call: that is a use.
            self._used.add(page.path)
        outcome = self._run(page, release, now)
        if outcome is not Outcome.DOWN:
            return Expected(word, STATUSES[outcome], self.runs[page.path])
        if stand_in is not None:
            return self._show("STALE", stand_in)
        # An exception leaves through the app's own handler.
        return Expected("" if page.kind.needs == "raises" else word, 503, self.runs[page.path])

    # -- a run of the view ---------------------------------------------------------------------------------------

    def _run(self, page: Page, release: Release, now: float) -> Outcome:
        """Run the view, and settle what comes out."""
        self.runs[page.path] += 1
        outcome = self.script.outcome(page, now)
        if outcome is Outcome.DOWN:
            failures = self.failures.get(page.path)
            count = 0 if failures is None else failures.count
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**count) * (1 + HALF / 4)
            self.failures[page.path] = Failures(now, count + 1, now + pause)
        elif outcome is Outcome.PRIVATE:
            self._refuse(page, now)
        else:
            self._store(page, release, now, STATUSES[outcome])
        return outcome

    def _refuse(self, page: Page, now: float) -> None:
        """The page can't be stored any more."""
        known = self.failures.get(page.path)
        if known is None or now >= known.unqueued_until:
            self.stored.pop(page.path, None)
            self.failures[page.path] = Failures(now, unqueued_until=now + UNSTORABLE_FOR)

    def _store(self, page: Page, release: Release, now: float, status: int) -> None:
        path, fresh_for = page.path, page.kind.fresh_for(status)
        soft = self.purge_during.pop(path, None)
        if soft is not None:
            self.purge(f"path:{path}", now, soft=soft)
        if soft is False:
            # It was begun before the purge.
            return
        stale_for = 0 if page.kind.never_stale else max(page.kind.windows[1:])
        self._pages[path] = page
        self.failures.pop(path, None)
        self.stored[path] = Stored(
            run=self.runs[path],
            status=status,
            answered=now,
            fresh_for=0 if soft else fresh_for,
            version=release.version,
            deployed=release.deployed,
            wanted_until=now + fresh_for + stale_for,
            used_at=now,
            ended=bool(soft),
        )

    # -- purges and the sweep ------------------------------------------------------------------------------------

    def purge(self, name: str, now: float, *, soft: bool) -> None:
        """Purge what has a name."""
        self.purged.add(name)
        for path in [path for path in self.stored if name in self._pages[path].names]:
            stored = self.stored[path]
            if soft:
                stored.ended, stored.fresh_for = True, min(stored.fresh_for, now - stored.answered)
            else:
                del self.stored[path]
                self._dead.add(path)

    def sweep(self, now: float) -> None:
        """Note what was used since the last one, and remove what nobody uses and what is purged."""
        for path in self._used:
            for known in filter(None, (self.stored.get(path), self.failures.get(path))):
                known.used_at = now
        for path in self.stored.keys() | self.failures.keys():
            stored, failures = self.stored.get(path), self.failures.get(path)
            used_at = max(known.used_at for known in (stored, failures) if known is not None)
            is_idle = now - used_at > INACTIVE and (stored is None or now >= stored.wanted_until)
            if is_idle or (stored is None and path in self._dead):
                self.stored.pop(path, None)
                self.failures.pop(path, None)
        self._used.clear()
        self._dead.clear()


def _within(stored: Stored, window: int, now: float) -> bool:
    """Whether a stale window is open; one of no seconds never is."""
    return window > 0 and now < stored.answered + stored.fresh_for + window


# -- the day ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Worker:
    """A process's app. Here both are in one process, and share nothing but the directory."""

    app: Flask
    cache: StaleCache
    release: Release

    @property
    def engine(self) -> Engine:
        return self.app.extensions["stalecache"].engine  # type: ignore[no-any-return]


MakeWorker: TypeAlias = "Callable[..., Worker]"


class Purge(NamedTuple):
    """A purge: by what, and whether softly; or while the page with the path is made the next time."""

    name: str
    soft: bool
    during: bool = False

    def selector(self) -> dict[str, Any]:
        """What ``purge`` is told."""
        kind, _, value = self.name.partition(":")
        return {"all": True} if kind == "all" else {"url" if kind == "path" else kind: value}


#: Done in turn, one each 48th of a day.
PURGES = (
    Purge("tag:article:0", soft=False),
    Purge("path:/article/1", soft=False, during=True),
    Purge("tag:articles", soft=True),
    Purge("path:/prices/0", soft=False),
    Purge(f"url:{HOST}/quotes/0", soft=True),
    Purge("path:/article/2", soft=True, during=True),
    Purge("endpoint:archive", soft=True),
    Purge("endpoint:weather", soft=True),
    Purge("tag:prices", soft=False),
    Purge("path:/board/0", soft=True),
    Purge("tag:diary", soft=False),
    Purge("endpoint:top", soft=True),
    Purge("endpoint:rates", soft=True),
    Purge("all", soft=True),
    Purge("path:/archive/1", soft=False),
    Purge(f"url:{HOST}/nowhere", soft=False),
    Purge("endpoint:quotes", soft=False),
    Purge("tag:articles", soft=False),
    Purge("path:/search?x=7", soft=False),
    Purge("all", soft=False),
)


class Event(NamedTuple):
    """Something that happens at a moment."""

    at: int
    what: Callable[[], None]


class Day:
    """Plays a day with two workers, and compares each answer with the model's.

    :param pages: how many pages there are.
    :param gap: the mean seconds between two visits.
    """

    def __init__(self, make_worker: MakeWorker, site: Site, pages: int, gap: int) -> None:
        self.script = site.script
        self.site = site
        self.model = Model(self.script)
        self.visits = 0
        self._make_worker = make_worker
        self._random = random.Random(20)
        self._gap = gap
        self._pages = [Page(KINDS[number % len(KINDS)], number // len(KINDS)) for number in range(pages)]
        self._zipf = list(itertools.accumulate(1 / rank for rank in range(1, pages + 1)))
        self._flood = [self._random.getrandbits(48) for _ in range(min(300, self.script.length // 100))]
        self._told: dict[str, deque[str]] = {}
        self._releases = 0
        self._workers = [self._deployed(), self._deployed()]

    def files_expected(self, found: Counter[str]) -> Counter[str]:
        """How many files of each kind there should be right after a sweep.

        :param found: what there is: the first lock files stay for an hour, and the directory's own files come one by one.
        """
        model, is_early = self.model, self.site.now < self.script.start + 1.5 * HOUR
        return +Counter(
            entry=len(model.stored),
            note=len(model.failures),
            name=len(model.purged),
            lock=found["lock"] if is_early else 0,
            fixed=min(found["fixed"], len(_FIXED)),
            # One for each app that lived at the same time as the others.
            row=min(found["row"], 3),
        )

    @property
    def seconds(self) -> str:
        """The time of the day."""
        seconds = int(self.site.now) - self.script.start
        return f"{seconds // HOUR:02}:{seconds // MINUTE % MINUTE:02}:{seconds % MINUTE:02}"

    def play(self, looks: Sequence[Event]) -> None:
        """Play all of it.

        :param looks: what is done besides, right after the sweep.
        """
        streams = self._sweeps(), looks, self._deploys(), self._purges(), self._floods(), self._visits()
        for event in heapq.merge(*streams, key=lambda event: event.at):
            if event.at >= self.script.at(1):
                return
            self.site.move_to(event.at)
            event.what()

    def rest(self, hours: int) -> None:
        """Let the time pass, three hours at a time, without visitors."""
        for _ in range(hours // 3):
            self.site.move_to(self.site.now + 3 * HOUR)
            self._sweep()

    def forget(self) -> None:
        """Let the workers forget their copies: how many there are depends on what was visited last."""
        for worker in self._workers:
            worker.engine.store.forget()

    def visit_each_kind(self) -> None:
        """Send a visitor to the first page of each kind."""
        for page in self._pages[: len(KINDS)]:
            self._visit(page)

    # -- what happens --------------------------------------------------------------------------------------------

    def _sweeps(self) -> Iterator[Event]:
        return (Event(at, self._sweep) for at in range(self.script.start, self.script.at(1), MINUTE))

    def _deploys(self) -> Iterator[Event]:
        # The second worker runs the old version a while longer.
        for share in (0.15, 0.4, 0.9):
            yield Event(self.script.at(share), partial(self._deploy, 0))
            yield Event(self.script.at(share + 0.02), partial(self._deploy, 1))

    def _purges(self) -> Iterator[Event]:
        for number, purge in enumerate(itertools.cycle(PURGES), 1):
            yield Event(self.script.at(number / 48), partial(self._purge, purge))

    def _floods(self) -> Iterator[Event]:
        """Yield floods of queries that nobody asks for twice: a few minutes each, the second like the first."""
        for share in (0.3, 0.7):
            for number, x in enumerate(self._flood):
                yield Event(self.script.at(share) + number, partial(self._visit, Page(SEARCH, x)))

    def _visits(self) -> Iterator[Event]:
        at = float(self.script.start)
        while True:
            at += self._random.expovariate(1 / self._gap)
            yield Event(int(at), self._visit_some_page)

    def _sweep(self) -> None:
        for worker in self._random.sample(self._workers, 2):
            worker.engine.tick()
        self.model.sweep(self.site.now)

    def _deploy(self, number: int) -> None:
        old = weakref.ref(self._workers[number].app)
        self._workers[number] = self._deployed()
        wait_until(lambda: _is_gone(old), "the end of an app that was dropped")

    def _deployed(self) -> Worker:
        self._releases += 1
        # Both workers of a release have its version.
        return self._make_worker(self.site, f"release {(self._releases + 1) // 2}")

    def _purge(self, purge: Purge) -> None:
        if purge.during:
            path = purge.name.removeprefix("path:")
            self.site.purge_during[path] = self.model.purge_during[path] = purge.soft
            return
        worker = self._random.choice(self._workers)
        with worker.app.app_context():
            worker.cache.purge(**purge.selector(), soft=purge.soft)
        self.model.purge(purge.name, self.site.now, soft=purge.soft)
        for path in self._told:
            self._tell(path, f"purged {'softly ' if purge.soft else ''}by {purge.name}")

    def _visit_some_page(self) -> None:
        [page] = self._random.choices(self._pages, cum_weights=self._zipf)
        self._visit(page, prefers=self._random.random() < 0.02, tagged=self._random.random() < 0.05)

    def _visit(self, page: Page, *, prefers: bool = False, tagged: bool = False) -> None:
        worker, path, site = self._random.choice(self._workers), page.path, self.site
        query = f"?utm_source={self._random.getrandbits(32)}" if tagged else ""
        knew = _copied(self.model.stored.get(path)), _copied(self.model.failures.get(path))
        expected = self.model.visit(page, worker.release, site.now, prefers=prefers)
        if page.kind.wait == 0:
            site.answered.clear()
        try:
            seen = visit(worker.app, path + query, PREFERS if prefers else None)
        finally:
            site.answered.set()
        settle(worker.app, worker.cache, PATIENCE)
        self.visits += 1
        said = f"{worker.release.version}{', prefers stale' if prefers else ''}: {_summary(seen)}, {site.runs[path]} runs"
        wanted = expected.word, expected.status, show(path, expected.run), self.model.runs[path]
        if (seen.word, seen.status, seen.text, site.runs[path]) != wanted:
            self._disagree(path, said, expected, knew)
        self._tell(path, said)

    def _tell(self, path: str, what: str) -> None:
        self._told.setdefault(path, deque(maxlen=8)).append(f"{self.seconds} {what}")

    def _disagree(self, path: str, said: str, expected: Expected, knew: object) -> None:
        before = "\n  ".join(self._told.get(path, ["nothing"]))
        word, status, run = expected
        raise AssertionError(
            f"{path}, visit {self.visits}, at {self.seconds} by {said}\n"
            f"the model says: {word or '(no word)'} {status} run {run}, {self.model.runs[path]} runs\n"
            f"it had: {knew}\nbefore that:\n  {before}"
        )


def _is_gone(thing: weakref.ref[Any]) -> bool:
    gc.collect()
    return thing() is None


def _copied(thing: Any) -> Any:
    return None if thing is None else replace(thing)


def _summary(seen: Seen) -> str:
    return f"{seen.word or '(no word)'} {seen.status} {seen.text.partition(' ')[2].rstrip('. ')}"


# -- what must not grow ----------------------------------------------------------------------------------------------

_OURS = re.compile(
    r"(?P<folder>[0-9a-f]{2})/(?P=folder)[0-9a-f]{38}(?P<kind>|\.note|\.lock)|names/(?P<name>[0-9a-f]{40})|stats/(?P<row>[0-9]+)"
)
_FIXED = {"stamps-3", "sweep", "sweep.lock", "purge.lock", "names/last", "stats/history", "stats/history.lock", "stats/totals"}


@dataclass(frozen=True)
class Census:
    """What there is of everything.

    :ivar files: how many files of each kind are in the directory.
    :ivar disk: bytes that the directory takes on the disk.
    :ivar objects: how many objects of each of the package's types there are.
    :ivar blocks: how many blocks of memory Python has.
    :ivar resident: bytes of memory that the process has.
    """

    visits: int
    threads: int
    open_files: int
    files: Counter[str]
    disk: int
    objects: Counter[str]
    blocks: int
    resident: int

    def assert_not_grown_since(self, before: Census) -> None:
        """Compare with what there was earlier. In memory there is always something that Python does."""
        assert self.open_files <= before.open_files
        assert self.disk - before.disk <= 4 * KIB * max(0, self.files.total() - before.files.total()) + 64 * KIB
        assert {kind: now for kind, now in self.objects.items() if now > before.objects[kind] + 8} == {}
        assert self.blocks - before.blocks < 1000 + (self.visits - before.visits) / 10
        assert self.resident - before.resident < 8 * MIB

    @classmethod
    def take(cls, directory: Path, visits: int) -> Census:
        objects = _objects()
        files, disk = _files_in(directory)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(
            visits=visits,
            threads=threading.active_count(),
            open_files=len(os.listdir("/proc/self/fd")),
            files=files,
            disk=disk,
            objects=objects,
            blocks=sys.getallocatedblocks(),
            resident=pages * os.sysconf("SC_PAGE_SIZE"),
        )


def _files_in(directory: Path) -> tuple[Counter[str], int]:
    """Return how many files of each kind there are, and what they take."""
    files: Counter[str] = Counter()
    disk = 0
    for folder, _, names in os.walk(directory):
        disk += os.lstat(folder).st_blocks * 512
        for name in names:
            path = Path(folder, name)
            disk += path.lstat().st_blocks * 512
            files[_kind_of(str(path.relative_to(directory)))] += 1
    return files, disk


def _paths_stored_in(directory: Path) -> set[str]:
    """Return the paths of the pages whose entries are in the directory, purged or not."""
    entries = [decode_head(path.read_bytes()) for path in directory.glob("[0-9a-f][0-9a-f]/*") if "." not in path.name]
    return {name.removeprefix("path:") for entry in entries for name in entry.names if name.startswith("path:")}


def _kind_of(path: str) -> str:
    match = _OURS.fullmatch(path)
    if match is None:
        return "fixed" if path in _FIXED else path
    if match["row"]:
        return "row"
    return "name" if match["name"] else match["kind"].removeprefix(".") or "entry"


def _objects() -> Counter[str]:
    gc.collect()
    types = Counter(type(thing) for thing in gc.get_objects())
    ours = {kind: count for kind, count in types.items() if str(kind.__module__).startswith("flask_stalecache")}
    return Counter({kind.__qualname__: count for kind, count in ours.items()})


# -- the tests -------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _exactly(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Take out what no model can know: random numbers, how much a sweep does at a time, when it does, and who shares a slot."""
    monkeypatch.setattr(random, "random", lambda: HALF)
    monkeypatch.setattr(sweep, "BUDGET", 1e9)
    # Shorter waits in real time.
    monkeypatch.setattr(engine, "POLL", 0.001)
    monkeypatch.setattr(thread_pool, "IDLE", 0.2)
    tick, this_thread = FileStore.tick, threading.get_ident()

    def tick_if_told(store: FileStore) -> None:
        # The housekeeping threads run on the real clock, and would sweep at any moment of the day.
        if threading.get_ident() == this_thread:
            tick(store)

    monkeypatch.setattr(FileStore, "tick", tick_if_told)
    slots: dict[str, int] = {}
    numbers = itertools.count(1)

    def own_slot(digest: str) -> int:
        return slots.get(digest) or slots.setdefault(digest, next(numbers))

    users = [module for name, module in sys.modules.items() if name.startswith("flask_stalecache.") and hasattr(module, "slot_of")]
    assert len(users) > 1
    for module in users:
        monkeypatch.setattr(module, "slot_of", own_slot)
    # Thousands of records would be kept, and grow.
    caplog.set_level(logging.CRITICAL, "flask_stalecache")


@pytest.fixture
def site(clock: time_machine.Traveller, soak: Callable[[int, int], int]) -> Site:
    """The site, at the beginning of its day: now, since the kernel gives lock files its own time."""
    now = int(time_machine.escape_hatch.time.time())
    clock.move_to(now)
    return Site(Script(now, soak(DAY, 2 * HOUR)), clock)


@pytest.fixture
def make_worker(make_app: MakeApp) -> MakeWorker:
    """``make_worker(site, version)``: an app with the site's views; more settings may be given."""

    def make(site: Site, version: str, **settings: Any) -> Worker:
        app, cache = make_app(
            VERSION=version,
            INACTIVE=INACTIVE,
            IGNORED_PARAMETERS=["utm_*"],
            PREFER_STALE_HEADER=next(iter(PREFERS)),
            REFRESH_BACKOFF=(FIRST_PAUSE, LONGEST_PAUSE),
            REFRESH_WORKERS=REFRESH_WORKERS,
            MEMORY_SIZE=MEMORY_SIZE,
            **settings,
        )
        site.add_views(app, cache)
        return Worker(app, cache, Release(version, site.now))

    return make


@pytest.mark.soak
def test_a_day_is_as_the_model_says_and_leaves_nothing_behind(
    make_worker: MakeWorker, site: Site, directory: Path, soak: Callable[[int, int], int]
) -> None:
    threads = threading.active_count()
    day, parts, taken = Day(make_worker, site, pages=soak(200, 54), gap=soak(4, 5)), soak(24, 4), []

    def look() -> None:
        wait_until(lambda: threading.active_count() <= threads + 2 + 2 * REFRESH_WORKERS, "the end of threads without work")
        assert _objects()["Copy"] <= 2 * COPIES
        day.forget()
        taken.append(Census.take(directory, day.visits))
        assert _paths_stored_in(directory) == day.model.stored.keys(), f"at {day.seconds}"
        assert taken[-1].files == day.files_expected(taken[-1].files), f"at {day.seconds}"

    # At the end of each part; the last one a minute before, which is still in the day.
    ends = (site.script.start + site.script.length * part // parts - MINUTE for part in range(1, parts + 1))
    day.play([Event(end, look) for end in ends])
    assert sum(site.runs.values()) == sum(day.model.runs.values())
    assert set(day.model.words) == {"HIT", "STALE", "UPDATING", "EXPIRED", "MISS", ""}
    taken[-1].assert_not_grown_since(taken[parts // 2 - 1])

    # Two days without visitors: nothing is left of that day.
    day.rest(hours=48)
    files, _ = _files_in(directory)
    assert set(files) == {"fixed", "row"}
    day.visit_each_kind()


@pytest.mark.soak
def test_a_flood_of_random_queries_takes_no_room_from_who_is_visited(
    make_worker: MakeWorker, site: Site, directory: Path, soak: Callable[[int, int], int]
) -> None:
    worker = make_worker(site, "1", MAX_SIZE=400 * KIB, MAX_ENTRY_SIZE=4 * KIB)
    dice = random.Random(3)
    popular = [Page(ARCHIVE, number).path for number in range(8)]
    first = {visit(worker.app, path).page for path in popular}
    assert {word for word, _ in first} == {"MISS"}
    for number in range(soak(2000, 200)):
        site.move_to(site.now + 1)
        assert visit(worker.app, Page(SEARCH, dice.getrandbits(48)).path).word == "MISS"
        assert visit(worker.app, popular[number % 8]).word in ("HIT", "STALE"), number
        settle(worker.app, worker.cache, PATIENCE)
        if number % 100 == 99:
            files, _ = _files_in(directory)
            assert 50 < files["entry"] <= 100
    assert _objects()["Copy"] <= COPIES


def test_an_app_that_is_dropped_is_gone_while_its_threads_wait_for_work(
    make_worker: MakeWorker, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread_pool, "IDLE", 10.0)
    others = set(threading.enumerate())
    worker, path = make_worker(site, "1"), Page(TOP, 0).path
    assert visit(worker.app, path).word == "MISS"
    site.move_to(site.now + 130)
    assert visit(worker.app, path).word == "STALE"
    settle(worker.app, worker.cache)
    app = weakref.ref(worker.app)
    del worker
    wait_until(lambda: _is_gone(app), "the end of an app that was dropped")
    assert "stalecache-refresh" in {thread.name for thread in set(threading.enumerate()) - others}
