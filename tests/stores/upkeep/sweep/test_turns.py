"""The sweep: one process at a time, and in small steps within a folder. Covers ``stores.upkeep.sweep_progress``."""

from __future__ import annotations

import errno
import gc
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from types import SimpleNamespace

import pytest
import time_machine

from flask_stalecache import StoreError
from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.core.model.note import Note
from flask_stalecache.filesystem import locks
from flask_stalecache.filesystem.locks import FileKeyLock
from flask_stalecache.filesystem.sealed import seal
from flask_stalecache.stores.folders import Folders, Listed
from flask_stalecache.stores.purges import purge_records as names_module
from flask_stalecache.stores.table.stamps import FILE_NAME, Stamps
from flask_stalecache.stores.upkeep import sweep as sweep_module
from support.engine import make_entry
from support.processes import workers
from support.sweep import DAY, INACTIVE, PAUSE, TICKS, file_of, is_over, keep, kept, open_store, struggle, sweep
from support.threads import wait_until

FOLDERS = range(256)


# -- one at a time ---------------------------------------------------------------------------------------------------


def sweep_and_stop(directory: Path, moment: float, number: int, told: Path) -> None:
    """Sweep, and stand still before a folder for ever."""
    look = Folders.listed

    def stopping(folders: Folders, current: int) -> Listed:
        if current == number:
            told.touch()
            threading.Event().wait()
        return look(folders, current)

    pytest.MonkeyPatch().setattr(Folders, "listed", stopping)
    with time_machine.travel(moment, tick=False):
        store = open_store(directory)
        store.load("page")
        while True:
            store.tick()


def test_one_process_sweeps_at_a_time_and_another_takes_the_place_of_a_killed_one(
    tmp_path: Path, directory: Path, clock: time_machine.Traveller
) -> None:
    store = open_store(directory)
    keep(store, "page")
    clock.shift(INACTIVE + 1)
    with workers(1) as made:
        made[0].start(sweep_and_stop, directory, time.time(), int(digest("page")[:2], 16), tmp_path / "told")
        wait_until((tmp_path / "told").exists)
        for _ in range(300):
            store.tick()
        assert kept(store, "page") == ["page"]
        made[0].kill()
    sweep(store)
    assert kept(store, "page") == []
    assert store.counters["evicted_inactive"] == 1


@pytest.fixture
def looked(directory: Path, monkeypatch: pytest.MonkeyPatch, monotonic: Callable[[float], None]) -> list[int]:
    """The folders that were looked at; each look takes 10 ms."""
    numbers, look = list[int](), Folders.listed

    def slow(folders: Folders, number: int) -> Listed:
        # The app of another test may still be looked after.
        if folders.directory.path == directory:
            numbers.append(number)
            monotonic(0.01)
        return look(folders, number)

    monkeypatch.setattr(Folders, "listed", slow)
    return numbers


def test_a_tick_does_a_little(directory: Path, clock: time_machine.Traveller, looked: list[int]) -> None:
    store = open_store(directory)
    keep(store, "page")
    store.tick()
    assert 0 < len(looked) <= 6
    sweep(store)
    assert looked == list(FOLDERS)


def test_one_goes_on_where_the_other_stopped(directory: Path, clock: time_machine.Traveller, looked: list[int]) -> None:
    keep(open_store(directory), "page")
    for _ in range(TICKS):
        # A new one each time, as if the last one had been killed.
        store = open_store(directory)
        store.load("page")
        store.tick()
        if is_over(directory):
            break
    assert looked == list(FOLDERS)


def test_where_the_disk_is_too_full_to_say_how_far_it_is_the_process_goes_on_by_itself(
    directory: Path, clock: time_machine.Traveller, looked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What makes room on a full disk must come to all folders, not to the first ones again and again."""
    store = open_store(directory)
    keep(store, "page")
    clock.shift(INACTIVE + 1)

    def full(path: Path, *_: object) -> None:
        assert str(path) == str(directory / "sweep")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sweep_module, "write_file", full)
    for _ in range(len(FOLDERS)):
        with suppress(StoreError):
            store.tick()
        if len(looked) >= len(FOLDERS):
            break
    assert looked == list(FOLDERS)
    assert kept(store, "page") == []


def test_between_two_sweeps_is_a_pause(directory: Path, clock: time_machine.Traveller, looked: list[int]) -> None:
    stores = [open_store(directory) for _ in range(2)]
    keep(stores[0], "page")
    stores[1].load("page")
    sweep(stores[0])
    for _ in range(5):
        clock.shift(10)
        for store in stores:
            store.tick()
    assert looked == list(FOLDERS)
    clock.shift(20)
    sweep(stores[1])
    assert looked == [*FOLDERS, *FOLDERS]


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"\0" * 100,
        b"null",
        b"[]",
        b"{}",
        b'{"folder": 3, "surprise": 1}',
        b'{"folder": 999}',
        b'{"folder": 256}',
        b'{"folder": -1}',
        b'{"folder": "x"}',
        b'{"folder": null}',
        b'{"folder": 1.5}',
        b'{"next_at": "x"}',
        b'{"next_at": Infinity}',
        b'{"next_at": NaN}',
        b'{"in_use": null}',
        b'{"folder": 3, "in_use": null}',
        b'{"next_at": 0, "folder": 3, "after": "zz", "size": 1, "entries": 1, "is_begun": true, "began": 0, "began_at": 0, '
        b'"checked": 0, "looks": true, "escaped": false, "in_use": []}',
        b'{"folder": 3, "began": null, "checked": null}',
        b'{"folder": 3, "began_at": "x"}',
        b"[" * 100_000,
    ],
    ids=lambda state: state[:30].decode(),
)
def test_a_damaged_state_does_not_stop_the_sweep(directory: Path, clock: time_machine.Traveller, state: bytes) -> None:
    """Files are not synced to the disk, so a crash of the machine may leave anything."""
    store, keys = open_store(directory), [str(number) for number in range(8)]
    keep(store, *keys)
    store.purge("tag:elsewhere", soft=False)
    clock.shift(INACTIVE + 1)
    (directory / "sweep").write_bytes(state if state == b"" else seal(b"SWEP", state))
    for _ in range(2):
        struggle(store)
        clock.shift(PAUSE)
    assert kept(store, *keys) == []


# -- within a folder -------------------------------------------------------------------------------------------------


def of_one_folder(many: int, prefix: str = "07") -> list[str]:
    """Return keys whose files are in the same folder, in the order in which they are looked at."""
    names = (str(number) for number in count())
    return sorted(islice((name for name in names if digest(name).startswith(prefix)), many), key=digest)


def test_a_tick_pauses_within_a_folder(directory: Path, clock: time_machine.Traveller, found: list[str]) -> None:
    store, keys = open_store(directory), of_one_folder(20)
    keep(store, *keys)
    before, listed, names = store.usage(), Folders.listed, list[int]()

    def counting(folders: Folders, number: int) -> Listed:
        if folders.directory.path == directory:
            names.append(number)
        return listed(folders, number)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Folders, "listed", counting)
        for _ in range(TICKS):
            done = len(found)
            store.tick()
            assert len(found) - done <= 5
            if is_over(directory):
                break
    assert found == list(map(digest, keys))
    assert store.usage() == before
    # Its names are read once.
    assert names.count(7) == 1


@pytest.mark.parametrize("is_on", [True, False])
def test_no_garbage_is_collected_within_a_stretch(
    directory: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch, is_on: bool
) -> None:
    """It is as the app wants it afterwards, also where the sweep fails."""
    store, find, seen = open_store(directory), Folders.listed, list[bool]()
    keep(store, "page")

    def watched(folders: Folders, number: int) -> Listed:
        if folders.directory.path == directory:
            seen.append(gc.isenabled())
            if len(seen) == 3:
                raise OSError("a bad block")
        return find(folders, number)

    monkeypatch.setattr(Folders, "listed", watched)
    # Stores of other tests may still be swept by threads of their own, which switch it off and on at any moment.
    here = threading.get_ident()
    only_here = SimpleNamespace(
        isenabled=gc.isenabled,
        disable=lambda: threading.get_ident() == here and gc.disable(),
        enable=lambda: threading.get_ident() == here and gc.enable(),
    )
    monkeypatch.setattr(sweep_module, "gc", only_here)
    gc.enable()
    if not is_on:
        gc.disable()
    try:
        with pytest.raises(StoreError):
            store.tick()
        assert (seen, gc.isenabled()) == ([False] * 3, is_on)
    finally:
        gc.enable()


def test_two_that_take_turns_within_a_folder_look_at_each_key_once(
    directory: Path, clock: time_machine.Traveller, found: list[str]
) -> None:
    stores, keys = [open_store(directory) for _ in range(2)], of_one_folder(20)
    for store in stores:
        store.load("anything")
    keep(stores[0], *keys)
    for step in range(TICKS):
        stores[step % 2].tick()
        if is_over(directory):
            break
    assert found == list(map(digest, keys))


@pytest.mark.parametrize("anew", [True, False])
def test_a_pause_within_a_folder_loses_nothing(
    directory: Path, clock: time_machine.Traveller, found: list[str], anew: bool
) -> None:
    """Whether the same process goes on, or another one, while things come and go."""
    store, keys = open_store(directory), of_one_folder(20)
    keep(store, *keys)
    clock.shift(INACTIVE + 1)
    for step in range(TICKS):
        worker = open_store(directory) if anew else store
        worker.load("anything")
        worker.tick()
        if is_over(directory):
            break
        for suffix in ("", ".lock"):
            file_of(directory, keys[-1 - step], suffix).unlink(missing_ok=True)
        keep(store, f"new-{step}")
    assert kept(store, *keys) == []
    assert len(found) <= len(keys) + step


@pytest.mark.parametrize("damage", [0, 10**9])
def test_a_pause_within_a_folder_mends_its_counters(
    directory: Path, clock: time_machine.Traveller, found: list[str], damage: int
) -> None:
    store, (alone, *keys) = open_store(directory), of_one_folder(20)
    keep(store, *keys)
    store.write_note(keys[3], Note(failures=1))
    store.write_note(alone, Note(failures=1))
    before, stamps = store.usage(), Stamps(directory / FILE_NAME)
    stamps.folder_sizes[7] = stamps.folder_entries[7] = damage
    for _ in range(TICKS):
        worker = open_store(directory)
        worker.load("anything")
        worker.tick()
        if is_over(directory):
            break
    assert store.usage() == before


def test_what_is_asked_for_now_does_not_go_on_where_another_sweep_is(
    directory: Path, clock: time_machine.Traveller, found: list[str]
) -> None:
    store, keys = open_store(directory), of_one_folder(20)
    keep(store, *keys, windows=(DAY, 0, 0))
    store.tick()
    while not found:
        store.tick()
    assert 0 < len(found) < 20
    store.purge("all", soft=False)
    assert open_store(directory).sweep()["removed_purged"] == 20
    assert kept(store, *keys) == []


def test_what_is_asked_for_now_waits_for_a_tick_and_not_for_a_sweep(
    directory: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.05)
    store, other = open_store(directory), open_store(directory)
    keep(store, "page")
    lock = FileKeyLock(directory / "sweep.lock", lambda folder: None)
    assert lock.acquire()
    with pytest.raises(StoreError, match=r"sweep\.lock is held"):
        other.sweep()
    lock.release()
    assert other.sweep() == {"bytes": 0}


@pytest.mark.parametrize("remembered", [100, 5])
def test_what_was_purged_goes_however_many_names_were(
    directory: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch, remembered: int
) -> None:
    """With very many, the names that were purged are not remembered."""
    monkeypatch.setattr(names_module, "_REMEMBERED", remembered)
    store = open_store(directory, inactive=DAY)
    for number in range(20):
        assert store.write(make_entry(str(number), names=("all", f"tag:{number}"), windows=(DAY, 0, 0), seq=store.seq()))
    store.purge(*(f"tag:{number}" for number in range(10, 30)), soft=False)
    assert store.sweep()["removed_purged"] == 10
    store.purge("all", soft=False)
    assert store.sweep()["removed_purged"] == 10
