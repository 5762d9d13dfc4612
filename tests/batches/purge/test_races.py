"""Purging in an app: a purge wins over calls that are under way, and clocks that step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import time_machine

from flask_stalecache import CacheStatus, StoreError
from flask_stalecache.core.model.entry import Entry
from flask_stalecache.engine.engine import Engine
from flask_stalecache.engine.origin import Answer, Start
from flask_stalecache.stores.file_store import FileStore
from support.client import MakeApp, Seen
from support.engine import FakeOrigin, body_of, failed, make_engine, make_entry, storable
from support.purge_site import Site, windowed
from support.threads import PATIENCE, crowd, go, results, wait_until

HOUR = 3600


# -- a purge wins over what is under way -----------------------------------------------------------------------------


NAMES = ("all", "tag:news")


@dataclass
class Race:
    """An origin of a content that changes, held in its call until a test lets it go.

    :ivar version: the content's version now.
    """

    engine: Engine
    version: int = 1
    go_on: threading.Event = field(default_factory=threading.Event)
    hold: bool = True
    runs: int = 0
    windows: tuple[float, float, float] = (60, 600, 86400)
    origin: FakeOrigin = field(init=False)

    def __post_init__(self) -> None:
        self.origin = FakeOrigin(self.make, renewal=self.make)

    def make(self, start: Start) -> Answer:
        # The content is read first, so a purge while the call is held makes it old.
        version, self.runs = self.version, self.runs + 1
        if self.hold:
            assert self.go_on.wait(PATIENCE)
        return storable(start, f"version {version}".encode(), names=NAMES, windows=self.windows)

    def visit(self) -> tuple[CacheStatus, bytes]:
        served = self.engine.serve(self.origin)
        if served.refresh:
            self.engine.runtime.submit(self.origin.refresh())
        return served.status, bytes(body_of(served))  # type: ignore[arg-type]

    def publish(self, soft: bool) -> None:
        self.version += 1
        self.engine.store.purge("tag:news", soft=soft)

    def queue(self, count: int) -> list[Any]:
        """Let some visitors come, and wait until they have looked at what is stored and have to wait."""
        before = len(self.origin.asked)
        waiting = crowd(count, self.visit)
        wait_until(lambda: len(self.origin.asked) == before + count, "that all wait")
        return waiting


@pytest.fixture
def race(directory: Path) -> Iterator[Race]:
    race = Race(make_engine(directory))
    yield race
    race.go_on.set()
    assert race.engine.runtime.drain(PATIENCE)


OLD, NEW = b"version 1", b"version 2"


@pytest.mark.parametrize("soft", [False, True])
def test_a_purge_wins_over_a_first_fill_that_began_before_it(race: Race, soft: bool) -> None:
    """Waiters get the content of one new run, or after a soft purge the old content as stale, never as fresh."""
    leader = go(race.visit)
    wait_until(lambda: race.runs == 1, "the first call")
    waiters = race.queue(3)
    race.publish(soft)
    late = race.queue(3)
    race.hold = False
    race.go_on.set()
    assert leader.result(PATIENCE) == (CacheStatus.MISS, OLD)
    answers = results(waiters) + results(late)
    if soft:
        assert {answer for answer in answers if answer[1] == OLD} <= {(CacheStatus.STALE, OLD), (CacheStatus.UPDATING, OLD)}
    else:
        assert {body for _, body in answers} == {NEW}
    assert race.engine.runtime.drain(PATIENCE)
    assert race.visit() == (CacheStatus.HIT, NEW)
    assert race.runs == 2


@pytest.mark.parametrize("soft", [False, True])
def test_a_purge_wins_over_a_refresh_that_began_before_it(race: Race, soft: bool) -> None:
    race.engine.store.write(make_entry(body=OLD, windows=(0, 600, 600), names=NAMES))
    assert race.visit() == (CacheStatus.STALE, OLD)
    wait_until(lambda: race.runs == 1, "the refresh")
    race.publish(soft)
    if soft:
        assert race.visit() == (CacheStatus.UPDATING, OLD)
        late: list[Any] = []
    else:
        late = race.queue(3)
    race.hold = False
    race.go_on.set()
    assert {body for _, body in results(late)} <= {NEW}
    assert race.engine.runtime.drain(PATIENCE)
    if soft:
        # The refresh brought content from before the purge: it is kept as stale, and renewed once more.
        assert race.visit() == (CacheStatus.STALE, OLD)
        assert race.engine.runtime.drain(PATIENCE)
    assert race.visit() == (CacheStatus.HIT, NEW)
    assert race.runs == 2


@pytest.mark.parametrize("soft", [False, True])
def test_a_purge_wins_over_the_renewal_of_an_expired_page(race: Race, soft: bool) -> None:
    race.engine.store.write(make_entry(body=b"version 0", windows=(0, 0, 600), names=NAMES))
    leader = go(race.visit)
    wait_until(lambda: race.runs == 1, "the call")
    waiters = race.queue(3)
    race.publish(soft)
    race.hold = False
    race.go_on.set()
    assert leader.result(PATIENCE) == (CacheStatus.EXPIRED, OLD)
    for status, body in results(waiters):
        assert body == NEW or (soft and status in (CacheStatus.STALE, CacheStatus.UPDATING))
    assert race.engine.runtime.drain(PATIENCE)
    assert race.visit() == (CacheStatus.HIT, NEW)
    assert race.runs == 2


@pytest.mark.parametrize("soft", [False, True])
def test_a_purge_of_others_does_not_disturb_a_fill(race: Race, soft: bool) -> None:
    leader = go(race.visit)
    wait_until(lambda: race.runs == 1, "the call")
    waiters = race.queue(3)
    race.engine.store.purge("tag:sport", soft=soft)
    race.go_on.set()
    assert leader.result(PATIENCE) == (CacheStatus.MISS, OLD)
    assert results(waiters) == [(CacheStatus.MISS, OLD)] * 3
    assert race.visit() == (CacheStatus.HIT, OLD)
    assert race.runs == 1


def test_a_failed_renewal_serves_nothing_that_was_purged_meanwhile(race: Race) -> None:
    """Neither the caller nor the waiters get the copy that they have found: it may not stand in any more."""
    race.engine.store.write(make_entry(body=OLD, windows=(0, 0, 600), names=NAMES))

    def fail(start: Start) -> Answer:
        race.runs += 1
        assert race.go_on.wait(PATIENCE)
        return failed()

    race.origin.script = fail
    visitors = [go(lambda: race.engine.serve(race.origin))]
    wait_until(lambda: race.runs == 1, "the call")
    visitors += crowd(2, lambda: race.engine.serve(race.origin))
    wait_until(lambda: len(race.origin.asked) == 3, "that all wait")
    race.publish(soft=False)
    race.go_on.set()
    for served in results(visitors):
        assert served.copy is None
        assert served.answer is not None
        assert served.answer.error is not None


def test_a_wait_that_is_over_serves_nothing_that_was_purged_meanwhile(race: Race) -> None:
    race.engine.store.write(make_entry(body=OLD, windows=(0, 0, 600), names=NAMES))
    race.origin.patience = 0.05
    leader = go(race.visit)
    wait_until(lambda: race.runs == 1, "the call")
    race.publish(soft=False)
    race.hold = False
    assert race.visit() == (CacheStatus.MISS, NEW)
    race.go_on.set()
    leader.result(PATIENCE)
    assert race.visit() == (CacheStatus.HIT, NEW)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("written", [True, False])
def test_who_comes_after_a_purge_is_not_given_what_a_flight_brought_before_it(
    race: Race, monkeypatch: pytest.MonkeyPatch, written: bool, soft: bool
) -> None:
    """The flight's answer was written, or could not be. Before the flight ends, the purge comes, and then visitors who find it."""
    race.hold, race.windows = False, (60, 0, 0)
    land, write, late = race.engine.answer_writer.write_flight, race.engine.store.write, []

    def come() -> None:
        if not late:
            race.publish(soft)
            late.extend(race.queue(3))

    def land_and_wait(*args: Any) -> bool:
        stored = land(*args)
        come()
        return stored

    def fail_to_write(entry: Entry) -> bool:
        if late:
            return write(entry)
        come()
        raise StoreError("no room")

    if written:
        monkeypatch.setattr(race.engine.answer_writer, "write_flight", land_and_wait)
    else:
        monkeypatch.setattr(race.engine.store, "write", fail_to_write)
    assert race.visit() == (CacheStatus.MISS, OLD)
    assert {body for _, body in results(late)} == {NEW}
    assert race.visit() == (CacheStatus.HIT, NEW)
    assert race.runs == 2


@pytest.mark.soak
@pytest.mark.parametrize("soft", [False, True])
def test_threads_never_see_what_was_purged_before_they_came(directory: Path, soft: bool, soak: Callable[[int, int], int]) -> None:
    """Visitors and a publisher at full speed on one page; every answer is at least as new as the last purge that was done."""
    race, rounds, over = Race(make_engine(directory), hold=False), soak(500, 3), threading.Event()
    done, started = [0], threading.Barrier(3)

    def publish() -> None:
        try:
            started.wait(PATIENCE)
            for _ in range(rounds):
                race.version += 1
                version = race.version
                race.engine.store.purge("tag:news", soft=soft)
                done[0] = version
        finally:
            over.set()

    def look() -> int:
        visits = 0
        started.wait(PATIENCE)
        while True:
            least = done[0]
            status, body = race.visit()
            visits += 1
            assert int(body.split()[1]) >= least or (soft and status in (CacheStatus.STALE, CacheStatus.UPDATING))
            # Checked after a visit: all purges may be over before this thread gets the interpreter.
            if over.is_set():
                return visits

    visitors = crowd(2, look)
    go(publish).result(10 * PATIENCE)
    assert all(visits > 0 for visits in results(visitors))
    assert race.engine.runtime.drain(PATIENCE)
    for _ in range(2):
        race.visit()
        assert race.engine.runtime.drain(PATIENCE)
    assert race.visit() == (CacheStatus.HIT, f"version {race.version}".encode())


# -- clocks that step ------------------------------------------------------------------------------------------------


STEPS = [shifts for shifts in product((0, -HOUR, HOUR), repeat=3) if any(shifts)]

#: Seconds after which every entry has passed all its windows, at whichever of the clock's times it was stored.
ALL_OVER = 60 + 600 + 86400 + 6 * HOUR


def batch(site: Site, count: int = 6) -> tuple[list[Seen], int]:
    """Let visitors come one after the other; return what they saw, and how often the page was made for them."""
    before, seen = site.runs["/"], []
    for _ in range(count):
        seen.append(site.visit("/"))
        assert int(seen[-1].headers.get("Age", "0")) >= 0
        site.settle()
    return seen, site.runs["/"] - before


@pytest.mark.grid
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("first", "second", "third"), STEPS)
def test_a_purge_does_not_depend_on_the_clock(
    make_app: MakeApp, clock: time_machine.Traveller, first: float, second: float, third: float, soft: bool
) -> None:
    """The clock steps between fill, purge and visits: no old page is served as fresh, runs stay few, and every entry expires."""
    site, _ = windowed(make_app, "", 60, 600, 86400)
    site.visit("/")
    clock.shift(first)
    site.publish(tag="page", soft=soft)
    clock.shift(second)
    seen, runs = batch(site)
    old = [page.word for page in seen if page.text == "version 1"]
    assert set(old) <= ({"STALE", "UPDATING"} if soft else set())
    assert runs == 1
    assert seen[-1].page == ("HIT", "version 2")
    clock.shift(third)
    seen, runs = batch(site)
    assert {page.text for page in seen} == {"version 2"}
    assert runs <= 1
    clock.shift(ALL_OVER)
    site.version = 3
    seen, runs = batch(site)
    assert {page.text for page in seen} == {"version 3"}
    assert runs == 1


@pytest.mark.grid
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("before", [0, -HOUR, HOUR])
@pytest.mark.parametrize("within", [-HOUR, HOUR])
def test_a_purge_during_a_fill_does_not_depend_on_the_clock(
    make_app: MakeApp, clock: time_machine.Traveller, before: float, within: float, soft: bool
) -> None:
    """The clock steps while the page is made, with the purge before or after it."""
    app, cache = make_app()
    site, deeds = Site(app, cache), []

    @app.get("/")
    @cache.cached(60, 600, 86400, jitter=0)
    def show() -> str:
        text = site.page()
        for deed in deeds:
            deed()
        deeds.clear()
        return text

    site.visit("/")
    clock.shift(before)
    for order in (1, -1):
        site.publish("/")
        old = f"version {site.version}"
        deeds += [lambda: clock.shift(within), lambda: site.publish("/", soft=soft)][::order]
        assert site.visit("/").page == ("MISS", old)
        seen, runs = batch(site)
        assert {page.word for page in seen if page.text == old} <= ({"STALE", "UPDATING"} if soft else set())
        assert runs == 1
        assert seen[-1].page == ("HIT", f"version {site.version}")
        clock.shift(-within)


@pytest.mark.parametrize("windows", [(60, 600, 86400), (60, 0, 0)])
@pytest.mark.parametrize(("before", "within"), [(-HOUR, HOUR), (-HOUR, HOUR - 1), (-10, 20), (-10, 5), (HOUR, -2 * HOUR)])
def test_what_is_begun_after_a_soft_purge_replaces_what_is_from_before(
    make_app: MakeApp, clock: time_machine.Traveller, windows: tuple[float, ...], before: float, within: float
) -> None:
    """The numbers of calls and purges decide, whatever the clock says about which of the two began first."""
    app, cache = make_app()
    site, steps = Site(app, cache), []

    @app.get("/")
    @cache.cached(*windows, jitter=0)
    def show() -> str:
        while steps:
            clock.shift(steps.pop())
        return site.page()

    site.visit("/")
    clock.shift(before)
    site.publish("/", soft=True)
    steps.append(within)
    seen, runs = batch(site)
    assert runs == 1
    assert seen[-1].page == ("HIT", "version 2")


def test_numbers_grow_although_the_clock_steps_back(directory: Path, clock: time_machine.Traveller) -> None:
    store, numbers = FileStore(directory), [0]
    for shift in (0, -HOUR, 0, 3 * HOUR, -6 * HOUR, -86400 * 365, 1):
        clock.shift(shift)
        store.purge("tag:news", soft=False)
        numbers.append(store.seq())
        store = FileStore(directory)
        assert store.load("page").entry is None
        assert store.seq() == numbers[-1]
    assert sorted(set(numbers)) == numbers
