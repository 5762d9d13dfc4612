"""A day of a site on several hosts: the model of what each of them has, and playing the day on apps with stores of their own."""

from __future__ import annotations

import heapq
import itertools
import random
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from flask import Flask

from flask_stalecache import StaleCache
from support.client import settle, visit
from support.day.model import Expected, Failures, Model, Release, Stored
from support.day.play import Event, Purge, is_gone, summary
from support.day.site import KINDS, Page, Script, Site, show
from support.day.terms import HOST, HOUR, MINUTE
from support.threads import PATIENCE, wait_until

#: Done in turn, one each 48th of a day.
PURGES = (
    Purge("tag:article:0", soft=False),
    Purge("tag:articles", soft=True),
    Purge("path:/prices/0", soft=False),
    Purge(f"url:{HOST}/quotes/0", soft=True),
    Purge("endpoint:archive", soft=True),
    Purge("tag:prices", soft=False),
    Purge("path:/board/0", soft=True),
    Purge("endpoint:top", soft=True),
    Purge("endpoint:rates", soft=True),
    Purge("all", soft=True),
    Purge("tag:articles", soft=False),
    Purge("tag:diary", soft=True),
    Purge("all", soft=False),
)


class Kept(NamedTuple):
    """An entry on one host or on the server.

    :ivar seq: the last purge that the host had applied when it made the entry.
    :ivar started: when the origin was called for it.
    """

    stored: Stored
    seq: int
    started: float

    def copy(self) -> Kept:
        return self._replace(stored=replace(self.stored))

    def outdates(self, other: Kept | None) -> bool:
        return other is None or other.seq < self.seq or other.started <= self.started


class Said(NamedTuple):
    """A purge, with its number."""

    number: int
    name: str
    soft: bool
    at: float


@dataclass
class View:
    """What one host, or the server, has.

    :ivar applied: the last purge that it has applied.
    :ivar unknown: paths of pages of which the server may have another copy.
    :ivar is_connected: whether the host can reach the server.
    """

    entries: dict[str, Kept] = field(default_factory=dict)
    notes: dict[str, Failures] = field(default_factory=dict)
    applied: int = 0
    unknown: set[str] = field(default_factory=set)
    is_connected: bool = True


class HostsModel:
    """What visitors of each host should see, one visitor at a time. Each host has its copies, and all share those of the server."""

    def __init__(self, script: Script, count: int) -> None:
        self.base = Model(script)
        self.hosts = [View() for _ in range(count)]
        self.server = View()
        #: When pages were removed from the server, by path.
        self.gone: dict[str, float] = {}
        self.said: list[Said] = []
        self._names: dict[str, frozenset[str]] = {}

    # -- a visit -------------------------------------------------------------------------------------------------

    def visit(self, number: int, page: Page, release: Release, now: float) -> Expected:
        """Return how a visitor of a host must be answered, and change the model as the visit does."""
        host, path, base = self.hosts[number], page.path, self.base
        self._names[path] = page.names
        if host.is_connected:
            self._hear(host)
            self._fetch(host, path)
        kept, note = host.entries.get(path), host.notes.get(path)
        base.stored = {} if kept is None else {path: kept.stored}
        base.failures = {} if note is None else {path: note}
        expected = base.visit(page, release, now, prefers=False)
        self._settle(host, path, now, kept, note)
        return expected

    def _settle(self, host: View, path: str, now: float, kept: Kept | None, note: Failures | None) -> None:
        stored, failures = self.base.stored.get(path), self.base.failures.get(path)
        if failures is not note:
            self._put_note(host, path, failures)
        if stored is None and kept is not None:
            del host.entries[path]
            self._change(host, path)
            if host.is_connected:
                self.server.entries.pop(path, None)
                self.gone[path] = now
        elif stored is not None and (kept is None or stored is not kept.stored):
            host.entries[path] = Kept(stored, host.applied, now)
            self._change(host, path)
            if host.is_connected:
                self.server.entries[path] = host.entries[path].copy()
                self.gone.pop(path, None)

    def _put_note(self, host: View, path: str, failures: Failures | None) -> None:
        for place in (host, self.server) if host.is_connected else (host,):
            if failures is None:
                place.notes.pop(path, None)
            else:
                place.notes[path] = replace(failures)
        if host.is_connected and (failures is None or failures.retry_at > 0):
            self._tell(host, path)

    def _change(self, host: View, path: str) -> None:
        if host.is_connected:
            host.unknown.discard(path)
            self._tell(host, path)
        else:
            host.unknown.add(path)

    def _tell(self, host: View, path: str) -> None:
        for other in self.hosts:
            if other is not host:
                other.unknown.add(path)

    def _fetch(self, host: View, path: str) -> None:
        if path not in host.unknown:
            return
        host.unknown.discard(path)
        mine, theirs = host.entries.get(path), self.server.entries.get(path)
        if theirs is not None and theirs.outdates(mine):
            host.entries[path] = theirs.copy()
        elif theirs is None and mine is not None and mine.started <= self.gone.get(path, 0.0):
            del host.entries[path]
        note = self.server.notes.get(path)
        if theirs is not None or path in self.gone or note is not None:
            host.notes.pop(path, None)
            if note is not None:
                host.notes[path] = replace(note)

    # -- purges --------------------------------------------------------------------------------------------------

    def purge(self, number: int, name: str, now: float, *, soft: bool) -> None:
        """Purge on a connected host. The other hosts apply the purge at their next visit while connected."""
        self.said.append(Said(len(self.said) + 1, name, soft, now))
        self._hear(self.server)
        self._hear(self.hosts[number])

    def _hear(self, place: View) -> None:
        for purge in self.said[place.applied :]:
            for path in [path for path in place.entries if purge.name in self._names[path]]:
                self._apply(place, path, purge)
        place.applied = len(self.said)

    def _apply(self, place: View, path: str, purge: Said) -> None:
        kept = place.entries[path]
        if kept.seq >= purge.number:
            return
        if purge.soft:
            stored = kept.stored
            stored.ended, stored.fresh_for = True, min(stored.fresh_for, max(0.0, purge.at - stored.answered))
        else:
            del place.entries[path]


# -- the real thing --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Host:
    """The app on one host. It reads the server's log only when :meth:`hear` is called.

    :ivar cut: called with whether the host can't reach the server from now on.
    """

    app: Flask
    cache: StaleCache
    release: Release
    cut: Callable[[bool], None]

    def hear(self) -> None:
        """Read what the others have done."""
        self.app.extensions["stalecache"].engine.store.follower.read_once()


MakeHost = Callable[[Site, int, str], Host]


class HostsDay:
    """Plays a day on some hosts, and compares each answer, and each call of an origin, with the model.

    :param stop: ends the server.
    :param start: starts it again, with all that it had.
    """

    def __init__(
        self, make_host: MakeHost, site: Site, stop: Callable[[], None], start: Callable[[], None], *, pages: int, gap: float
    ) -> None:
        self.site, self.script = site, site.script
        self._make_host, self._stop, self._start = make_host, stop, start
        self._random, self._gap = random.Random(18), gap
        self._pages = [Page(KINDS[number % len(KINDS)], number // len(KINDS)) for number in range(pages)]
        self._zipf = list(itertools.accumulate(1 / rank for rank in range(1, pages + 1)))
        self.hosts = [make_host(site, number, "release 1") for number in range(3)]
        self.model = HostsModel(self.script, len(self.hosts))
        self.visits = 0
        self.alone = 0
        self._told: dict[str, list[str]] = {}

    def play(self, looks: list[Event]) -> None:
        """Play all of it."""
        streams = looks, self._deploys(), self._absences(), self._purges(), self._visits()
        for event in heapq.merge(*streams, key=lambda event: event.at):
            if event.at >= self.script.at(1):
                return
            self.site.move_to(event.at)
            event.what()

    def _deploys(self) -> Iterator[Event]:
        for number, share in enumerate((0.15, 0.45, 0.9), 2):
            # One host after the other.
            for host in range(len(self.hosts)):
                yield Event(self.script.at(share) + 2 * MINUTE * host, partial(self._deploy, host, f"release {number}"))

    def _absences(self) -> Iterator[Event]:
        """Yield the hour in which one host is away, and the ten minutes in which the server is gone."""
        away, gone = self.script.at(0.34), self.script.at(0.55)
        yield Event(away, partial(self._cut, 2, True))
        yield Event(away + min(HOUR, self.script.length // 8), partial(self._cut, 2, False))
        yield Event(gone, partial(self._lose, True))
        yield Event(gone + min(10 * MINUTE, self.script.length // 8), partial(self._lose, False))

    def _purges(self) -> Iterator[Event]:
        for number, purge in enumerate(itertools.cycle(PURGES), 1):
            yield Event(self.script.at(number / 48), partial(self._purge, purge))

    def _visits(self) -> Iterator[Event]:
        at = float(self.script.start)
        while True:
            at += self._random.expovariate(1 / self._gap)
            yield Event(int(at), self._visit)

    # -- what happens --------------------------------------------------------------------------------------------

    def _deploy(self, number: int, version: str) -> None:
        old, is_connected = weakref.ref(self.hosts[number].app), self.model.hosts[number].is_connected
        self.hosts[number] = self._make_host(self.site, number, version)
        self.hosts[number].cut(not is_connected)
        wait_until(lambda: is_gone(old), "the end of an app that was dropped")

    def _cut(self, number: int, is_cut: bool) -> None:
        self.hosts[number].cut(is_cut)
        self.model.hosts[number].is_connected = not is_cut

    def _lose(self, is_lost: bool) -> None:
        if is_lost:
            self._stop()
        else:
            self._start()
        for view in self.model.hosts:
            view.is_connected = not is_lost

    def _purge(self, purge: Purge) -> None:
        able = [number for number, view in enumerate(self.model.hosts) if view.is_connected]
        if not able:
            return
        number = self._random.choice(able)
        host = self.hosts[number]
        with host.app.app_context():
            host.cache.purge(**purge.selector(), soft=purge.soft)
        self.model.purge(number, purge.name, self.site.now, soft=purge.soft)
        for path in self._told:
            self._tell(path, f"purged {'softly ' if purge.soft else ''}by {purge.name}")

    def _visit(self) -> None:
        [page] = self._random.choices(self._pages, cum_weights=self._zipf)
        number = self._random.randrange(len(self.hosts))
        host, path, site = self.hosts[number], page.path, self.site
        view = self.model.hosts[number]
        if view.is_connected:
            host.hear()
        else:
            self.alone += 1
        knew = view.entries.get(path), view.notes.get(path), path in view.unknown, self.model.server.entries.get(path)
        knew_text = str(knew)
        expected = self.model.visit(number, page, host.release, site.now)
        if page.kind.wait == 0:
            site.answered.clear()
        try:
            seen = visit(host.app, path)
        finally:
            site.answered.set()
        settle(host.app, host.cache, PATIENCE)
        self.visits += 1
        said = f"on host {number} of {host.release.version}, {'connected' if view.is_connected else 'alone'}: {summary(seen)}"
        wanted = expected.word, expected.status, show(path, expected.run), self.model.base.runs[path]
        if (seen.word, seen.status, seen.text, site.runs[path]) != wanted:
            before = "\n  ".join(self._told.get(path, ["nothing"])[-12:])
            raise AssertionError(
                f"{path}, visit {self.visits}, at {self.seconds} {said}, {site.runs[path]} runs\n"
                f"the model says: {expected}, {self.model.base.runs[path]} runs\nit had: {knew_text}\nbefore that:\n  {before}"
            )
        self._tell(path, f"{said}, {site.runs[path]} runs")

    def _tell(self, path: str, what: str) -> None:
        told = self._told.setdefault(path, [])
        told.append(f"{self.seconds} {what}")
        del told[:-12]

    @property
    def seconds(self) -> str:
        """The time of the day."""
        seconds = int(self.site.now) - self.script.start
        return f"{seconds // HOUR:02}:{seconds // MINUTE % MINUTE:02}:{seconds % MINUTE:02}"

    @property
    def words(self) -> Counter[str]:
        """How many visitors were answered with which ``X-Cache-Status``."""
        return self.model.base.words
