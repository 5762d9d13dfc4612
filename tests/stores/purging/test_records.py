"""Purging: how long the records of purges are kept. Covers ``stores.purges.purge_records``."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import time_machine

from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.purges.purge_records import CachedPurgeRecords
from flask_stalecache.stores.upkeep.sweep_progress import decode
from support.engine import make_entry
from support.memory import at_most
from support.purging import DAY, HOUR, NAMES, NEW, NEWS, OLD, SPORT, begun, body_in, fresh_body_in, sweep


def records_in(directory: Path) -> int:
    return sum(len(path.name) == 40 for path in (directory / "names").iterdir())


@pytest.mark.parametrize("soft", [False, True])
def test_a_record_is_kept_for_a_day_and_no_longer(
    store: FileStore, directory: Path, clock: time_machine.Traveller, soft: bool
) -> None:
    store.purge(NEWS, soft=soft)
    clock.shift(DAY - 200)
    for _ in range(2):
        sweep(store, clock)
        assert records_in(directory) == 1
    clock.shift(200)
    for _ in range(2):
        sweep(store, clock)
    assert records_in(directory) == 0


def test_a_record_is_kept_while_an_entry_needs_it(store: FileStore, directory: Path, clock: time_machine.Traveller) -> None:
    """A soft purge is known beside the entry, for as long as that is there."""
    store.write(make_entry(body=OLD, windows=(30 * DAY, 30 * DAY, 0), names=NAMES))
    store.purge(NEWS, soft=True)
    store.purge(SPORT, soft=False)
    clock.shift(2 * DAY)
    for _ in range(3):
        sweep(store, clock)
    assert records_in(directory) == 1
    for each in (store, FileStore(directory)):
        assert (body_in(each), fresh_body_in(each)) == (OLD, None)
    store.write(make_entry(body=NEW, windows=(30 * DAY, 30 * DAY, 0), names=NAMES, seq=store.seq()))
    for _ in range(2):
        sweep(store, clock)
    assert records_in(directory) == 0
    for each in (store, FileStore(directory)):
        assert fresh_body_in(each) == NEW


def test_a_record_is_kept_until_what_it_drops_is_gone(store: FileStore, directory: Path, clock: time_machine.Traveller) -> None:
    """The sweep can't remove an entry that somebody works at."""
    store.write(make_entry(body=OLD, windows=(30 * DAY, 0, 0), names=NAMES))
    store.purge(NEWS, soft=False)
    lock = store.lock("page")
    assert lock.acquire()
    clock.shift(2 * DAY)
    for _ in range(3):
        sweep(store, clock)
        assert records_in(directory) == 1
        assert [body_in(each) for each in (store, FileStore(directory))] == [None] * 2
    lock.release()
    for _ in range(3):
        sweep(store, clock)
        assert [body_in(each) for each in (store, FileStore(directory))] == [None] * 2
    assert records_in(directory) == 0
    assert not list(directory.glob("*/" + digest("page")))


def test_a_record_outlives_a_sweep_that_began_before_it(
    store: FileStore, directory: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The purge comes when the sweep has been at its entry, and the sweep goes on a day later."""
    store.write(make_entry(body=OLD, windows=(30 * DAY, 0, 0), names=NAMES))
    number = int(digest("page")[:2], 16)
    assert number < 255
    with monkeypatch.context() as patch:
        # As a process does that is stopped in the middle, or by a folder that is slow.
        ticks, me = iter([0.0] * (number + 2)), threading.get_ident()
        # The app of another test may still be looked after, in another thread.
        monotonic = time.monotonic
        own = SimpleNamespace(time=time.time, monotonic=lambda: next(ticks, 1e9) if threading.get_ident() == me else monotonic())
        patch.setattr("flask_stalecache.stores.upkeep.sweep.time", own)
        clock.shift(61)
        store.tick()
    assert 0 < decode((directory / "sweep").read_bytes()).folder < 255
    store.purge(NEWS, soft=False)
    clock.shift(2 * DAY)
    while decode((directory / "sweep").read_bytes()).folder:
        store.tick()
    assert records_in(directory) == 1
    assert [body_in(each) for each in (store, FileStore(directory))] == [None] * 2
    for _ in range(3):
        sweep(store, clock)
    assert records_in(directory) == 0
    assert [body_in(each) for each in (store, FileStore(directory))] == [None] * 2


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("hours", [1, 23, 24.5, 25, 100])
def test_what_an_origin_took_a_day_for_is_not_taken_for_new(
    store: FileStore, directory: Path, clock: time_machine.Traveller, hours: float, soft: bool
) -> None:
    """By then the record of the purge that came meanwhile may be gone."""
    started = time.time()
    before = make_entry(body=OLD, windows=(30 * DAY, 30 * DAY, 0), names=NAMES, seq=store.seq(), started=started)
    clock.shift(1)
    store.purge(NEWS, soft=soft)
    clock.shift(hours * HOUR - 500)
    for _ in range(3):
        sweep(store, clock)
    clock.move_to(started + hours * HOUR)
    if hours >= 25:
        assert records_in(directory) == 0
    store.write(replace(before, answered=time.time()))
    assert [fresh_body_in(each) for each in (store, FileStore(directory))] == [None] * 2


def test_what_an_origin_took_a_day_for_is_not_taken_for_new_by_a_clock_that_stepped_back(
    store: FileStore, directory: Path, clock: time_machine.Traveller
) -> None:
    """By the clock it took less."""
    before = begun(store, OLD)
    store.purge(NEWS, soft=False)
    clock.shift(24.5 * HOUR)
    for _ in range(3):
        sweep(store, clock)
    assert records_in(directory) == 0
    clock.shift(-HOUR)
    store.write(replace(before, answered=time.time()))
    assert [body_in(each) for each in (store, FileStore(directory))] == [None] * 2


def test_the_clock_may_step_while_records_are_kept(store: FileStore, directory: Path, clock: time_machine.Traveller) -> None:
    store.write(make_entry(body=OLD, windows=(30 * DAY, 30 * DAY, 0), names=NAMES))
    clock.shift(HOUR)
    store.purge(NEWS, soft=True)
    clock.shift(-2 * HOUR)
    store.purge(SPORT, soft=True)
    for shift in (DAY, -HOUR, DAY, HOUR):
        clock.shift(shift)
        sweep(store, clock)
        for each in (store, FileStore(directory)):
            assert (body_in(each), fresh_body_in(each)) == (OLD, None)
    store.purge(NEWS, soft=False)
    for shift in (DAY, -HOUR, DAY, HOUR, DAY):
        clock.shift(shift)
        sweep(store, clock)
        assert [body_in(each) for each in (store, FileStore(directory))] == [None] * 2
    assert records_in(directory) == 0


def test_a_sweep_that_removes_records_leaves_copies_alone(store: FileStore, clock: time_machine.Traveller) -> None:
    """Nobody reads a file because of it."""
    store.purge(SPORT, soft=False)
    store.write(make_entry(body=NEW, windows=(30 * DAY, 0, 0), names=NAMES, seq=store.seq()))
    copy = store.load("page")
    clock.shift(2 * DAY)
    for _ in range(2):
        sweep(store, clock)
    assert records_in(store.directory) == 0
    assert store.lookup("page") is copy


@pytest.mark.parametrize("with_table", [True, False])
def test_long_names_are_not_kept_in_memory_and_their_records_are_found(store: FileStore, with_table: bool) -> None:
    """Visitors choose the URLs, and a sweep meets the names of all of them."""
    long = "x" * 8000
    store.purge(f"url:http://shop.example/7{long}", soft=False)
    stamps = store._cache_directory.stamps if with_table else None
    records = CachedPurgeRecords(store._records, stamps)
    # The names have 5 MB.
    with at_most(3_000_000):
        found = [len(records.since(0, [f"url:http://shop.example/{number}{long}"])) for number in range(600)]
    assert found == [*[0] * 7, 1, *[0] * 592]
