"""A day of a site: its events, and playing them on the workers and the model."""

from __future__ import annotations

import gc
import heapq
import itertools
import random
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from flask import Flask

from flask_stalecache import StaleCache
from flask_stalecache.engine.engine import Engine
from support.client import Seen, settle, visit
from support.day.census import _FIXED
from support.day.model import Expected, Model, Release
from support.day.site import KINDS, SEARCH, Page, Site, show
from support.day.terms import HOST, HOUR, MINUTE, PREFERS
from support.threads import PATIENCE, wait_until


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
    """A purge of the day.

    :ivar name: the name of the purged pages.
    :ivar during: whether the purge waits until the view of the page with this path runs the next time.
    """

    name: str
    soft: bool
    during: bool = False

    def selector(self) -> dict[str, Any]:
        """Return the arguments of ``purge``."""
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

        :param found: the counts that were found, used where the model can't know better: the first lock files stay for an hour, and
            the directory's own files come one by one.
        """
        model, is_early = self.model, self.site.now < self.script.start + 1.5 * HOUR
        return +Counter(
            entry=len(model.stored),
            note=len(model.failures),
            name=len(model.purged),
            lock=found["lock"] if is_early else 0,
            fixed=min(found["fixed"], len(_FIXED)),
            # At most one for each of the apps that lived at the same time.
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
        """Yield two floods of the same queries, a few minutes each. A flood has each query once."""
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
            worker.engine.runtime.tick()
        self.model.sweep(self.site.now)

    def _deploy(self, number: int) -> None:
        old = weakref.ref(self._workers[number].app)
        self._workers[number] = self._deployed()
        wait_until(lambda: is_gone(old), "the end of an app that was dropped")

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
        knew = copied(self.model.stored.get(path)), copied(self.model.failures.get(path))
        expected = self.model.visit(page, worker.release, site.now, prefers=prefers)
        if page.kind.wait == 0:
            site.answered.clear()
        try:
            seen = visit(worker.app, path + query, PREFERS if prefers else None)
        finally:
            site.answered.set()
        settle(worker.app, worker.cache, PATIENCE)
        self.visits += 1
        said = f"{worker.release.version}{', prefers stale' if prefers else ''}: {summary(seen)}, {site.runs[path]} runs"
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


def is_gone(thing: weakref.ref[Any]) -> bool:
    gc.collect()
    return thing() is None


def copied(thing: Any) -> Any:
    return None if thing is None else replace(thing)


def summary(seen: Seen) -> str:
    return f"{seen.word or '(no word)'} {seen.status} {seen.text.partition(' ')[2].rstrip('. ')}"
