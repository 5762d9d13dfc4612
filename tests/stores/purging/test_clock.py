"""Purging while the clock steps: records are kept by the clock of the machine too. Covers ``filesystem.uptime``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import time_machine

from flask_stalecache.core.model.entry import Entry
from flask_stalecache.filesystem import uptime
from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.upkeep.sweep_progress import decode
from support.engine import make_engine, make_entry
from support.purging import DAY, HOUR, NAMES, NEWS, OLD, body_in, sweep

Step = Callable[[float], None]


def records_in(directory: Path) -> int:
    return sum(len(path.name) == 40 for path in (directory / "names").iterdir())


def called(store: FileStore) -> Entry:
    """Return the entry of a call that begins now, with the purge number and the times that the engine notes at its beginning."""
    entry = make_entry(body=OLD, windows=(30 * DAY, 30 * DAY, 0), names=NAMES, seq=store.seq())
    return replace(entry, called=uptime.seconds_up())


def seen(store: FileStore, directory: Path) -> list[bytes | None]:
    return [body_in(each) for each in (store, FileStore(directory))]


@pytest.mark.grid
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("ahead", [2 * DAY, 365 * DAY])
def test_a_sweep_by_a_wrong_clock_drops_no_record_that_a_running_call_needs(
    store: FileStore, directory: Path, clock: time_machine.Traveller, steps: Step, ahead: float, soft: bool
) -> None:
    before = called(store)
    store.purge(NEWS, soft=soft)
    steps(ahead)
    for _ in range(3):
        sweep(store, clock)
    assert records_in(directory) == 1
    steps(-ahead)
    store.write(replace(before, answered=time.time()))
    entries = [each.load("page").entry for each in (store, FileStore(directory))]
    assert all(entry is None or entry.ended for entry in entries)


def test_a_sweep_that_began_by_a_wrong_clock_drops_none_either(
    store: FileStore, directory: Path, clock: time_machine.Traveller, steps: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends when the clock was put right."""
    before = called(store)
    store.purge(NEWS, soft=False)
    steps(2 * DAY)
    with monkeypatch.context() as patch:
        patch.setattr("flask_stalecache.stores.upkeep.sweep.BUDGET", -1.0)
        clock.shift(61)
        store.tick()
    assert decode((directory / "sweep").read_bytes()).is_begun
    steps(-2 * DAY)
    while decode((directory / "sweep").read_bytes()).is_begun:
        store.tick()
    assert records_in(directory) == 1
    store.write(replace(before, answered=time.time()))
    assert seen(store, directory) == [None] * 2


@pytest.mark.parametrize("ahead", [-2 * DAY, 2 * DAY, 365 * DAY])
def test_a_record_of_a_wrong_clock_goes_after_a_day(
    store: FileStore, directory: Path, clock: time_machine.Traveller, steps: Step, ahead: float
) -> None:
    """If the clock was behind, the record is old by the clock on the wall, but stays until it is by that of the machine."""
    steps(ahead)
    store.purge(NEWS, soft=False)
    steps(-ahead)
    clock.shift(DAY - HOUR)
    for _ in range(2):
        sweep(store, clock)
    assert records_in(directory) == 1
    clock.shift(HOUR)
    for _ in range(2):
        sweep(store, clock)
    assert records_in(directory) == 0


def test_later_purges_are_numbered_by_a_clock_that_was_ahead_and_go_after_a_day_too(
    store: FileStore, directory: Path, clock: time_machine.Traveller, steps: Step
) -> None:
    steps(365 * DAY)
    store.purge(NEWS, soft=False)
    steps(-365 * DAY)
    clock.shift(DAY / 2)
    store.purge("tag:other", soft=False)
    clock.shift(DAY / 2)
    for _ in range(2):
        sweep(store, clock)
    assert records_in(directory) == 1
    clock.shift(DAY / 2)
    for _ in range(2):
        sweep(store, clock)
    assert records_in(directory) == 0


@pytest.mark.parametrize("back", [HOUR, 2 * DAY])
def test_a_call_that_ran_for_a_day_while_the_clock_stepped_back_is_not_stored(
    store: FileStore, directory: Path, clock: time_machine.Traveller, steps: Step, back: float
) -> None:
    """By the clock on the wall it took no time. The record of the purge after its beginning is gone."""
    before = called(store)
    store.purge(NEWS, soft=False)
    clock.shift(2 * DAY)
    for _ in range(2):
        sweep(store, clock)
    assert records_in(directory) == 0
    steps(-back)
    clock.shift(back - 2 * DAY if back > DAY else 0)
    store.write(replace(before, answered=before.started + 1))
    assert seen(store, directory) == [None] * 2


def test_after_a_restart_of_the_machine_no_call_from_before_is_running(
    store: FileStore, directory: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of the machine begins anew: by that alone, the record would stay until the clock is where it was."""
    store.purge(NEWS, soft=False)
    monkeypatch.setattr(uptime, "read_clock", lambda: time.time() - 1_700_000_000)
    monkeypatch.setattr(uptime, "boot_id", lambda: "another start")
    clock.shift(DAY + 1)
    for _ in range(2):
        sweep(store, clock)
    assert records_in(directory) == 0


def test_a_record_without_a_time_of_the_machine_is_judged_by_the_clock_on_the_wall(
    store: FileStore, directory: Path, clock: time_machine.Traveller
) -> None:
    """One that is damaged, say."""
    store.purge(NEWS, soft=False)
    (record,) = (path for path in (directory / "names").iterdir() if len(path.name) == 40)
    status = record.stat()
    record.write_bytes(b"[")
    os.utime(record, ns=(status.st_atime_ns, status.st_mtime_ns))
    clock.shift(DAY / 2)
    store.purge("tag:other", soft=False)
    sweep(store, clock)
    assert records_in(directory) == 2
    clock.shift(DAY / 2)
    for _ in range(2):
        sweep(store, clock)
    assert records_in(directory) == 1


def test_the_engine_notes_when_a_call_began(directory: Path, steps: Step) -> None:
    engine = make_engine(directory)
    before = uptime.seconds_up()
    steps(-2 * DAY)
    start = engine.answer_writer.start(engine.store.load("page"))
    assert start.called == before


def test_the_clock_of_the_machine_is_not_set(monkeypatch: pytest.MonkeyPatch, clock: time_machine.Traveller) -> None:
    """The real one: the fake clock does not move it, and it is the same for all processes."""
    monkeypatch.undo()
    real = uptime._real_clock()
    clock.shift(365 * DAY)
    assert 0 <= uptime._real_clock() - real < HOUR


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_a_system_without_an_identifier_of_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    place = tmp_path / "boot_id"
    if content is not None:
        place.write_bytes(content)
    monkeypatch.setattr(uptime, "_BOOT", place)
    assert uptime.boot_id.__wrapped__() == ""
