"""Two processes' views of one directory against a simple model: fills, purges, sweeps, clocks that step, and a table that is lost.

No answer is older than the last acknowledged purge of any of its names; nothing is lost without a reason.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import time_machine
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from flask_stalecache import StoreError
from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.engine.answer_writer import AnswerWriter
from flask_stalecache.engine.flights.singleflight import Flight, FlightOutcome, Flights
from flask_stalecache.engine.log import RateLimitedLog
from flask_stalecache.engine.origin import Start
from flask_stalecache.stats.counters import Counters
from flask_stalecache.stores import cache_directory
from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.purges.purge_records import LONGEST_RUN, PurgeRecords
from flask_stalecache.stores.purges.waiting_purges import WaitingPurges
from flask_stalecache.stores.table.stamps import FILE_NAME, Stamps
from support.engine import storable
from support.stopped_purge import STEPS, StoppedPurge

BASE = 1_800_000_000.0
HOUR, DAY = 3600.0, 86400.0
MAX_AGE, SWR, SIE = 600.0, 1200.0, 7200.0
ALL_WINDOWS = MAX_AGE + SIE
#: What each page can be purged by.
PAGES = {"a": ("all", "tag:x"), "b": ("all", "tag:x", "tag:y"), "c": ("all", "tag:y"), "d": ("all",)}
NAMES = ("all", "tag:x", "tag:y", "tag:z")


class View:
    """The view that one process has of the directory.

    :ivar behind: the table was lost, and it has not noticed.
    """

    def __init__(self, directory: Path) -> None:
        self.store = FileStore(directory)
        self.answer_writer = AnswerWriter(self.store, (2, 300), Counters(), RateLimitedLog())
        self.flights = Flights()
        self.behind = False


@dataclass
class Fill:
    """One call of an origin.

    :ivar begun: at which event it was called.
    :ivar doubtful: it may be missing: its process had not noticed that the table was lost, or has none, or a purge of it failed.
    :ivar answered_at: seconds of true time at which it had answered.
    """

    key: str
    begun: int
    view: View
    flight: Flight
    start: Start
    doubtful: bool = False
    answered_at: float = 0.0


@dataclass
class Model:
    """The expected state, derived from the rules that were played.

    :ivar hard: the event of the last hard purge of each name.
    :ivar soft: likewise of the last soft one.
    :ivar stored: the fill that was stored last for each key.
    :ivar loose: keys of which a view may hold an older copy, because a view was behind when the key was changed.
    """

    events: int = 0
    hard: dict[str, int] = field(default_factory=dict)
    soft: dict[str, int] = field(default_factory=dict)
    fills: dict[str, Fill] = field(default_factory=dict)
    stored: dict[str, Fill] = field(default_factory=dict)
    loose: set[str] = field(default_factory=set)
    #: Names whose last purge failed midway. What is begun before the next purge counts as older than the failed one.
    halfway: set[str] = field(default_factory=set)

    def event(self) -> int:
        self.events += 1
        return self.events

    def is_dropped(self, fill: Fill) -> bool:
        return any(self.hard.get(name, 0) > fill.begun for name in PAGES[fill.key])

    def is_ended(self, fill: Fill) -> bool:
        return any(self.soft.get(name, 0) > fill.begun for name in PAGES[fill.key])

    def expected(self, key: str) -> Fill | None:
        fill = self.stored.get(key)
        return None if fill is None or self.is_dropped(fill) else fill


#: How often each kind of event was played, over all examples: proves that the machine reaches them.
PLAYED: Counter[str] = Counter()

keys, views, numbers = st.sampled_from(sorted(PAGES)), st.integers(0, 1), st.integers(0, 9)
names, kinds = st.sampled_from(NAMES), st.booleans()
failures = st.sampled_from(["", "", "", "", "note_number", "write", "move"])


class Purging(RuleBasedStateMachine):
    """Each rule is what some process does; looking is a rule too, since it makes copies."""

    @initialize()
    def open(self) -> None:
        self.place = Path(tempfile.mkdtemp())
        self.directory = self.place / "cache"
        # True time goes on; the clock is off by an hour at most.
        self.elapsed, self.off = 0.0, 0.0
        self.travelling = time_machine.travel(BASE, tick=False)
        self.clock = self.travelling.start()
        self.views = [View(self.directory), View(self.directory)]
        self.model = Model()
        self.running: list[Fill] = []
        self.stopped: StoppedPurge | None = None
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(cache_directory, "_TRIES", 1)
        self.last_seq = 0

    def teardown(self) -> None:
        for fill in self.running:
            fill.view.flights.end(fill.flight)
        if self.stopped:
            self.stopped.end(is_killed=True)
        self.patch.undo()
        self.travelling.stop()
        shutil.rmtree(self.place)

    def _set_clock(self) -> None:
        self.clock.move_to(BASE + self.elapsed + self.off)

    # -- filling -------------------------------------------------------------------------------------------------

    @rule(view=views, key=keys)
    def begin(self, view: int, key: str) -> None:
        """An origin is called, if the key's lock is free."""
        mine = self.views[view]
        lock = mine.store.lock(key)
        if not lock.acquire():
            return
        flight, leads = mine.flights.join(key)
        assert leads
        flight.lock = lock
        start = mine.answer_writer.start(mine.answer_writer.load(key))
        # A new table can't get the last purge while a stopped process has the lock: what is begun then counts as older than all.
        is_older = mine.store._cache_directory.stamps is None
        doubtful = mine.behind or is_older or self._is_half_purged(key)
        fill = Fill(key, self.model.event(), mine, flight, start, doubtful=doubtful)
        self.model.fills[start.serial] = fill
        self.running.append(fill)

    @rule(view=views, some=st.sets(keys, min_size=1))
    def fill(self, view: int, some: set[str]) -> None:
        """Some pages are made and stored at once."""
        for key in sorted(some):
            before = len(self.running)
            self.begin(view, key)
            if len(self.running) > before:
                self.finish(-1)
        self.look(1 - view, False)

    @precondition(lambda self: self.running)
    @rule(number=numbers)
    def finish(self, number: int) -> None:
        """An origin answers, and its answer is stored unless it was purged meanwhile."""
        fill = self.running.pop(number % len(self.running))
        answer = storable(fill.start, fill.start.serial.encode(), key=fill.key, windows=(MAX_AGE, SWR, SIE), names=PAGES[fill.key])
        assert answer.entry is not None
        answer = replace(answer, entry=replace(answer.entry, answered=time.time()))
        fill.doubtful |= fill.view.behind
        fill.answered_at = self.elapsed
        before = self.model.expected(fill.key)
        stored = fill.view.answer_writer.write_flight(fill.view.flights, fill.flight, fill.start, answer)
        fill.view.flights.end(fill.flight)
        assert not (stored and self._must_not_stay(fill))
        if not stored:
            # No purge came between the two, so their times decide which was begun first.
            by_the_clock = before is not None and before.start.seq >= fill.start.seq and before.start.started > fill.start.started
            took_long = time.time() - fill.start.started > LONGEST_RUN
            assert self.model.is_dropped(fill) or fill.doubtful or by_the_clock or took_long
            PLAYED["refused"] += 1
        self._check_waiters(fill, stored)
        if stored:
            PLAYED["stored"] += 1
            self.model.stored[fill.key] = fill
            self._changed(fill.key, fill.view)

    def _must_not_stay(self, fill: Fill) -> bool:
        return self.model.is_dropped(fill) and not fill.view.behind

    def _check_waiters(self, fill: Fill, stored: bool) -> None:
        """Those who waited in this process are given nothing that was purged meanwhile."""
        if fill.flight.result.outcome is not FlightOutcome.STORED:
            assert not stored
            return
        assert fill.flight.result.copy is not None
        entry = fill.flight.result.copy.entry
        if entry is not None and not fill.view.behind:
            assert not self.model.is_dropped(self.model.fills[entry.serial])
            assert not (self.model.is_ended(self.model.fills[entry.serial]) and not entry.ended)

    @precondition(lambda self: self.running)
    @rule(number=numbers)
    def die(self, number: int) -> None:
        """An origin never answers."""
        fill = self.running.pop(number % len(self.running))
        fill.view.flights.end(fill.flight)

    @rule(view=views, key=keys)
    def remove(self, view: int, key: str) -> None:
        """An entry goes, as when there is no room."""
        lock = self.views[view].store.lock(key)
        if lock.acquire():
            is_there = self._file_of(key).exists()
            self.views[view].store.remove(key)
            lock.release()
            self.model.stored.pop(key, None)
            # Removing an entry that is gone already moves no stamp: copies stay, if a view with another table has removed it.
            if is_there:
                self._changed(key, self.views[view])

    def _file_of(self, key: str) -> Path:
        return self.directory / digest(key)[:2] / digest(key)

    def _changed(self, key: str, by: View) -> None:
        """Note a change of a key: only views with the same table see it."""
        if any(view.behind for view in self.views):
            self.model.loose.add(key)
        else:
            self.model.loose.discard(key)

    # -- purging -------------------------------------------------------------------------------------------------

    @rule(view=views, name=names, soft=kinds, fails=failures, looked=kinds)
    def purge(self, view: int, name: str, soft: bool, fails: str, looked: bool) -> None:
        """Somebody purges; the disk may fail at one of the steps, or the process that has the lock was stopped."""
        mine = self.views[view]
        if fails:
            self._fail_to_purge(mine, name, soft, fails)
        else:
            mine.store.purge(name, soft=soft)
            self._purged(name, soft)
            assert mine.store.seq() > self.last_seq
            self.last_seq = mine.store.seq()
            PLAYED["purged without the lock" if self.stopped else "purged"] += 1
        mine.behind = False
        if looked:
            for each in (0, 1):
                self.look(each, False)

    def _purged(self, name: str, soft: bool) -> None:
        self.model.halfway.clear()
        (self.model.soft if soft else self.model.hard)[name] = self.model.event()

    @precondition(lambda self: self.stopped is None)
    @rule(name=names, soft=kinds, step=st.sampled_from(list(STEPS)))
    def stop_in_a_purge(self, name: str, soft: bool, step: str) -> None:
        """A third process is stopped while it has the lock: until it goes on, the others purge without it."""
        self.stopped = StoppedPurge(self.directory, name, step, soft=soft)
        self._doubt(name)

    @precondition(lambda self: self.stopped is not None)
    @rule(is_killed=kinds)
    def go_on_or_be_killed(self, is_killed: bool) -> None:
        assert self.stopped is not None
        stopped, self.stopped = self.stopped, None
        self._doubt(stopped.name)
        if stopped.end(is_killed=is_killed):
            self._purged(stopped.name, stopped.soft)
        else:
            self.model.halfway.add(stopped.name)
        PLAYED["killed" if is_killed else "went on"] += 1

    def _doubt(self, name: str) -> None:
        """A purge of the name may have taken place."""
        for fill in self.model.fills.values():
            fill.doubtful |= name in PAGES[fill.key]

    def _is_half_purged(self, key: str) -> bool:
        stopped = () if self.stopped is None else (self.stopped.name,)
        return not self.model.halfway.isdisjoint(PAGES[key]) or any(name in PAGES[key] for name in stopped)

    def _fail_to_purge(self, mine: View, name: str, soft: bool, step: str) -> None:
        """It may have taken place, and is not acknowledged."""

        def fail(*args: Any) -> None:
            raise OSError(errno.EIO, "Input/output error")

        if self.stopped and step != "move":
            step = "append"
        owner: Any = {"move": Stamps, "append": WaitingPurges}.get(step, PurgeRecords)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, step, fail)
            with pytest.raises(StoreError):
                mine.store.purge(name, soft=soft)
        self._doubt(name)
        self.model.halfway.add(name)
        PLAYED["failed to purge"] += 1

    # -- looking -------------------------------------------------------------------------------------------------

    @rule(view=views, load=kinds)
    def look(self, view: int, load: bool) -> None:
        """Somebody visits all pages; or looks at the files, as before a call of the origin."""
        for key in PAGES:
            self._look(self.views[view], key, load)

    def _look(self, mine: View, key: str, load: bool) -> None:
        model, now = self.model, time.time()
        entry = ((None if load else mine.store.lookup(key)) or mine.store.load(key)).entry
        expected = model.expected(key)
        if entry is None:
            lost = expected is not None and not expected.doubtful and not mine.behind
            assert not lost or key in model.loose
            return
        fill = model.fills[entry.serial]
        assert (entry.key, entry.body) == (key, entry.serial.encode())
        assert entry.age(now) >= 0
        # The clock may have been an hour off when it was answered, and an hour off the other way now.
        if self.elapsed - fill.answered_at >= MAX_AGE + 2 * HOUR:
            assert not entry.is_fresh(now)
        if self.elapsed - fill.answered_at >= ALL_WINDOWS + 2 * HOUR:
            assert not entry.in_swr(now)
            assert not entry.in_sie(now)
        if mine.behind:
            return
        assert not model.is_dropped(fill)
        if model.is_ended(fill):
            assert entry.ended
            assert not entry.is_fresh(now)
            PLAYED["seen ended"] += 1
        else:
            assert not entry.ended or fill.doubtful
            PLAYED["seen"] += 1
        assert fill is expected or key in model.loose

    # -- what happens to a process and its machine ---------------------------------------------------------------

    @rule(view=views)
    def tick(self, view: int) -> None:
        mine = self.views[view]
        mine.store.tick()
        mine.behind = False
        for key, fill in list(self.model.stored.items()):
            if not self._file_of(key).exists():
                over = time.time() - fill.answered_at - BASE >= ALL_WINDOWS - 2 * HOUR
                assert self.model.is_dropped(fill) or fill.doubtful or over
                del self.model.stored[key]
                PLAYED["swept"] += 1

    @rule(view=views)
    def restart(self, view: int) -> None:
        old = self.views[view]
        for fill in [fill for fill in self.running if fill.view is old]:
            self.running.remove(fill)
            old.flights.end(fill.flight)
        self.views[view] = View(self.directory)

    @precondition(lambda self: (self.directory / FILE_NAME).exists())
    @rule(noticed=st.sampled_from([(0,), (1,), (0, 1), (1, 0), ()]))
    def lose_the_table(self, noticed: tuple[int, ...]) -> None:
        """A view that does not notice it goes on with a table that no other view has."""
        (self.directory / FILE_NAME).unlink()
        for view in self.views:
            view.behind = True
        for number in noticed:
            self.tick(number)
        PLAYED["lost the table"] += 1

    @rule(off=st.sampled_from([-HOUR, 0.0, HOUR]))
    def step_the_clock(self, off: float) -> None:
        self.off = off
        self._set_clock()

    @rule(seconds=st.sampled_from([1.0, 61.0, MAX_AGE, 2 * HOUR, 20 * HOUR, DAY + HOUR]))
    def go_on(self, seconds: float) -> None:
        self.elapsed += seconds
        self._set_clock()


@pytest.mark.soak
def test_two_processes_and_a_simple_model_agree(soak: Callable[[int, int], int]) -> None:
    PLAYED.clear()
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Purging, settings=settings(max_examples=soak(400, 12), stateful_step_count=50)
    )
    # What a few examples may not come to, many must.
    without_lock = "purged without the lock", "went on", "killed"
    wanted = ("stored", "purged", "seen", "refused", "failed to purge", "seen ended", "swept", "lost the table", *without_lock)
    wanted = wanted[: soak(11, 3)]
    assert all(PLAYED[what] for what in wanted), PLAYED
