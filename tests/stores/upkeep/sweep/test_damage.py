"""The sweep: broken files, and clocks that step."""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import time_machine

from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.core.model.note import Note
from flask_stalecache.stores.folders import Folders
from flask_stalecache.stores.formats.entry_format import MAGIC
from support.clock import NOON
from support.sweep import (
    HOUR,
    INACTIVE,
    PAUSE,
    YEAR,
    abandoned,
    aged,
    file_of,
    keep,
    kept,
    leftover,
    open_store,
    struggle,
    sweep,
    use,
)

# -- what is broken --------------------------------------------------------------------------------------------------


def cut(data: bytes) -> bytes:
    return data[:100]


def with_head(head: object) -> Callable[[bytes], bytes]:
    """Return a damage that puts another head in place of an entry: its lengths are right, its checksum is not."""
    packed = json.dumps(head).encode()
    return lambda _: struct.pack(">4sIQ", MAGIC, len(packed), 0) + bytes(16) + packed


def with_field(name: str, value: object) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        head = json.loads(data[32 : 32 + struct.unpack_from(">I", data, 4)[0]])
        return with_head({**head, name: value})(data)

    return change


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "a few bytes": lambda data: data[:10],
    "cut in the head": cut,
    "zeros": lambda data: bytes(len(data)),
    "another format": lambda data: b"FSC1" + data[4:],
    "a head without end": lambda data: data[:4] + b"\xff\xff\xff\xff" + data[8:],
    "a head that is no JSON": lambda data: data[:32] + b"x" * (len(data) - 32),
    "a head that is a list": with_head([1, 2]),
    "a head that says nothing": with_head({}),
    "windows that are none": with_field("windows", [1]),
    "windows of text": with_field("windows", ["a", "b", "c"]),
    "a time of text": with_field("answered", "yesterday"),
    "a number of text": with_field("seq", "many"),
    "names that are none": with_field("names", 5),
    "a name that is a number": with_field("names", ["all", 5]),
    "a head deeper than any": lambda _: struct.pack(">4sIQ", MAGIC, 200_000, 0) + bytes(16) + b"[" * 200_000,
}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN)
def test_a_broken_entry_is_removed_and_counted_and_stops_nobody(
    directory: Path, clock: time_machine.Traveller, damage: Callable[[bytes], bytes]
) -> None:
    store, keys = open_store(directory), [str(number) for number in range(8)]
    keep(store, *keys)
    store.purge("tag:elsewhere", soft=False)
    broken = sorted(keys, key=digest)[:2]
    for key in broken:
        path = file_of(directory, key)
        path.write_bytes(damage(path.read_bytes()))
    clock.shift(INACTIVE + 1)
    for key in broken:
        aged(file_of(directory, key), INACTIVE + 1)
    struggle(store)
    assert kept(store, *keys) == []
    assert store.counters["broken_entries"] == 2
    assert store.counters["evicted_inactive"] == 6


def test_a_broken_entry_that_is_being_replaced_is_left_to_who_does(directory: Path, clock: time_machine.Traveller) -> None:
    store = open_store(directory)
    keep(store, "page")
    file_of(directory, "page").write_bytes(b"broken")
    aged(file_of(directory, "page"), INACTIVE + 1)
    lock = store.lock("page")
    assert lock.acquire()
    sweep(store)
    assert kept(store, "page") == ["page"]
    assert store.counters["broken_entries"] == 0
    keep(store, "page")
    lock.release()
    clock.shift(PAUSE)
    sweep(store)
    assert store.load("page").entry is not None


def a_lock_that_is_a_folder(path: Path) -> None:
    path.with_name(f"{path.name}.lock").mkdir()


def a_lock_that_is_a_link(path: Path) -> None:
    path.with_name(f"{path.name}.lock").symlink_to("nowhere")


def a_folder_beside(path: Path) -> None:
    path.with_name(f"{path.name}.note").mkdir()


@pytest.mark.parametrize("hinder", [a_lock_that_is_a_folder, a_lock_that_is_a_link, a_folder_beside])
def test_one_key_that_cannot_be_swept_keeps_no_other(
    directory: Path, clock: time_machine.Traveller, hinder: Callable[[Path], None]
) -> None:
    store, keys = open_store(directory), [str(number) for number in range(20)]
    keep(store, *keys)
    first = min(keys, key=digest)
    hinder(file_of(directory, first))
    clock.shift(INACTIVE + 1)
    struggle(store)
    assert kept(store, *keys) in ([], [first])


def test_one_entry_that_cannot_be_read_keeps_no_other(
    directory: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad block, or a file of another user."""
    store, keys = open_store(directory), [str(number) for number in range(20)]
    keep(store, *keys)
    first, real = min(keys, key=digest), os.open

    def failing(path: str | Path, *args: int, **options: int) -> int:
        if Path(path).name == digest(first):
            raise OSError(5, "Input/output error")
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", failing)
    clock.shift(INACTIVE + 1)
    struggle(store)
    assert kept(store, *keys) in ([], [first])


def test_what_is_replaced_while_it_is_looked_at_stays(
    directory: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at again under its lock: what is there by then is another fill."""
    store, other = open_store(directory), open_store(directory)
    keep(store, "page")
    clock.shift(INACTIVE + 1)
    remove, met = Folders.remove, list[object]()

    def replaced_meanwhile(folders: Folders, found: object, *options: object) -> bool:
        if folders.directory.path == directory and not met:
            met.append(found)
            keep(other, "page", windows=(60, 0, 0))
        return remove(folders, found, *options)  # type: ignore[arg-type]

    monkeypatch.setattr(Folders, "remove", replaced_meanwhile)
    sweep(store)
    assert met
    assert store.load("page").entry is not None
    assert store.counters["evicted_inactive"] == 0


# -- the clock -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [-HOUR, HOUR, -60, 60])
def test_a_step_of_the_clock_takes_nothing_that_is_in_its_windows(
    directory: Path, clock: time_machine.Traveller, step: float
) -> None:
    store = open_store(directory)
    keep(store, "fresh", windows=(2 * HOUR, 0, 0))
    keep(store, "stale", windows=(1, 2 * HOUR, 0))
    keep(store, "dead upstream", windows=(1, 0, 2 * HOUR))
    sweep(store)
    for _ in range(3):
        clock.shift(step)
        sweep(store)
        clock.shift(-step)
        sweep(store)
    assert len(kept(store, "fresh", "stale", "dead upstream")) == 3


@pytest.mark.parametrize("step", [-HOUR, HOUR])
@pytest.mark.parametrize("used", [True, False])
def test_after_a_step_of_the_clock_nothing_is_eternal(
    directory: Path, clock: time_machine.Traveller, step: float, used: bool
) -> None:
    store, keys = open_store(directory), [str(number) for number in range(8)]
    keep(store, *keys, "noted")
    for key in ("noted", "alone"):
        store.write_note(key, Note(written=time.time(), failures=1))
    abandoned(file_of(directory, "locked", ".lock"))
    left = leftover(file_of(directory, "page"))
    left.parent.mkdir(mode=0o700, exist_ok=True)
    left.touch()
    for path in (left, file_of(directory, "locked", ".lock")):
        aged(path, 0)
    sweep(store)
    clock.shift(step)
    if used:
        use(store, "0")
    sweep(store)
    # What is from the future is as good as new, and then as old as anything else.
    clock.shift(HOUR + 2)
    sweep(store)
    clock.shift(max(INACTIVE, HOUR) + PAUSE)
    sweep(store)
    clock.shift(PAUSE)
    sweep(store)
    assert list(directory.glob("??/*")) == []


def test_a_clock_that_was_years_ahead_leaves_no_eternal_notes_locks_and_leftovers(
    directory: Path, clock: time_machine.Traveller
) -> None:
    """A machine that starts with a wrong clock, until it has asked for the time."""
    store = open_store(directory)
    clock.shift(YEAR)
    store.write_note("noted", Note(written=time.time(), failures=1))
    store.write_note("alone", Note(written=time.time(), failures=1))
    assert store.lock("locked").acquire()
    left = leftover(file_of(directory, "page"))
    left.parent.mkdir(mode=0o700, exist_ok=True)
    left.touch()
    for path in (left, file_of(directory, "locked", ".lock")):
        aged(path, 0)
    sweep(store)
    clock.move_to(NOON)
    keep(store, "noted")
    for _ in range(4):
        clock.shift(HOUR + INACTIVE + PAUSE)
        sweep(store)
    assert list(directory.glob("??/*")) == []


def test_a_sweep_is_not_put_off_by_a_clock_that_steps_back(directory: Path, clock: time_machine.Traveller) -> None:
    store = open_store(directory)
    clock.shift(YEAR)
    keep(store, "other")
    sweep(store)
    clock.move_to(NOON)
    keep(store, "page")
    clock.shift(INACTIVE + 1)
    sweep(store)
    assert kept(store, "page") == []


def test_last_use_from_the_future_counts_from_now(directory: Path, clock: time_machine.Traveller) -> None:
    store = open_store(directory)
    keep(store, "page", "used")
    clock.shift(YEAR)
    use(store, "used")
    sweep(store)
    assert kept(store, "page", "used") == ["used"]
    clock.move_to(NOON + PAUSE)
    sweep(store)
    assert kept(store, "used") == ["used"]
    clock.shift(INACTIVE + 1)
    sweep(store)
    assert kept(store, "used") == []
