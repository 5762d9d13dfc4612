"""Eviction: which entries are protected, the counters of what is stored, and large folders. Covers ``stores.folders``."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
import time_machine
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_stalecache import FileStore, StoreError
from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.core.model.note import NOTHING, Note
from flask_stalecache.filesystem.locks import FileKeyLock
from flask_stalecache.stores.folders import Folder, Folders
from flask_stalecache.stores.table.stamps import FILE_NAME
from flask_stalecache.stores.upkeep import eviction as room_module
from support.engine import make_entry
from support.eviction import BLOCK, PAUSE, counters_of, file_of, kept, keys_kept, sweep, used, write
from support.processes import Worker

# -- what is held ----------------------------------------------------------------------------------------------------


def hold(directory: Path, keys: list[str]) -> bool:
    store = FileStore(directory)
    HELD.extend(store.lock(key) for key in keys)
    return all(lock.acquire() for lock in HELD)


def let_go() -> None:
    while HELD:
        HELD.pop().release()


#: What a worker holds.
HELD: list[FileKeyLock] = []


@contextmanager
def held_by(worker: Worker, directory: Path, *keys: str) -> Iterator[None]:
    """Hold locks of keys in another process."""
    assert worker.run(hold, directory, list(keys))
    try:
        yield
    finally:
        worker.run(let_go)


def test_what_somebody_works_at_stays(worker: Worker, directory: Path, clock: time_machine.Traveller) -> None:
    store = FileStore(directory, max_size=8 * BLOCK)
    for number in range(8):
        clock.shift(1)
        write(store, str(number))
    with held_by(worker, directory, "0", "2"):
        clock.shift(1)
        write(store, "8", 2)
        assert keys_kept(directory, *map(str, range(9))) == ["0", "2", "4", "5", "6", "7", "8"]
        assert file_of(directory, "0", ".lock").exists()
    assert store.counters["evicted_for_size"] == 2


def test_where_all_is_worked_at_there_is_no_room(worker: Worker, directory: Path, clock: time_machine.Traveller) -> None:
    store = FileStore(directory, max_size=8 * BLOCK)
    for number in range(8):
        write(store, str(number))
    with held_by(worker, directory, *map(str, range(8))):
        with pytest.raises(StoreError, match="no room"):
            write(store, "8")
        assert len(kept(directory)) == 8
        assert list(directory.rglob("*.tmp")) == []
    write(store, "8")
    assert keys_kept(directory, "8") == ["8"]


def test_one_key_that_cannot_be_removed_keeps_no_other(directory: Path, clock: time_machine.Traveller) -> None:
    """It would be the first to go, each time."""
    store = FileStore(directory, max_size=8 * BLOCK)
    for number in range(8):
        clock.shift(1)
        write(store, str(number))
    file_of(directory, "0", ".lock").mkdir()
    clock.shift(1)
    write(store, "8")
    assert keys_kept(directory, "8") == ["8"]
    assert used(directory) <= 8 * BLOCK


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EIO], ids=errno.errorcode.get)
def test_a_process_that_can_take_no_lock_breaks_nobodys(
    worker: Worker, directory: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A lock that can't even be opened is not known to be free: too many files are open here, and elsewhere it is held."""
    store = FileStore(directory, max_size=8 * BLOCK)
    for index in range(8):
        clock.shift(1)
        write(store, str(index))
    path, real = file_of(directory, "0", ".lock"), os.open
    with held_by(worker, directory, "0"):
        inode = path.stat().st_ino

        def failing(name: Any, *args: Any, **options: Any) -> int:
            if len(Path(name).stem) == 40 and Path(name).suffix == ".lock":
                raise OSError(number, os.strerror(number))
            return real(name, *args, **options)

        with pytest.MonkeyPatch.context() as short:
            short.setattr(os, "open", failing)
            with suppress(StoreError):
                store.write(make_entry("8"))
            clock.shift(10**6)
            sweep(store)
        assert path.exists()
        assert path.stat().st_ino == inode
        assert keys_kept(directory, "0") == ["0"]
        assert not store.lock("0").acquire()


def test_a_disk_too_full_for_a_lock_file_can_be_cleared(
    directory: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody holds a lock whose file is not there."""
    store = FileStore(directory, max_size=8 * BLOCK)
    for index in range(8):
        clock.shift(1)
        write(store, str(index))
    real = os.open

    def failing(name: Any, flags: int, *args: Any, **options: Any) -> int:
        if str(name).endswith(".lock") and flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(name, flags, *args, **options)

    monkeypatch.setattr(os, "open", failing)
    store.write(make_entry("8"))
    assert keys_kept(directory, "0", "1", "8") == ["1", "8"]


# -- the counters ----------------------------------------------------------------------------------------------------


@pytest.mark.grid
@pytest.mark.parametrize("damage", [0, 7 * BLOCK, 2**63], ids=str)
@pytest.mark.parametrize("folders", [1, 256])
def test_a_damaged_counter_mends_itself(directory: Path, clock: time_machine.Traveller, damage: int, folders: int) -> None:
    store, limit = FileStore(directory, max_size=40 * BLOCK), 40 * BLOCK
    for number in range(30):
        write(store, str(number))
    counters = counters_of(directory)
    for folder in range(folders):
        counters[folder] = damage
    clock.shift(PAUSE)
    sweep(store)
    assert list(counters) == [
        sum(BLOCK for path in (directory / f"{folder:02x}").glob("*") if not path.suffix) for folder in range(256)
    ]
    for number in range(100, 130):
        write(store, str(number))
        assert used(directory) <= limit


def test_a_counter_that_is_too_large_costs_no_entries(directory: Path, clock: time_machine.Traveller) -> None:
    """The directory was emptied beside us, or a crash of the machine lost the files and not the table."""
    store = FileStore(directory, max_size=40 * BLOCK)
    for number in range(30):
        write(store, str(number))
    counters = counters_of(directory)
    for folder in range(256):
        counters[folder] += 10**6
    write(store, "new")
    assert len(kept(directory)) >= 31 - 4
    assert keys_kept(directory, "new") == ["new"]


def test_files_that_were_deleted_beside_us_make_room(directory: Path, clock: time_machine.Traveller) -> None:
    store = FileStore(directory, max_size=40 * BLOCK)
    for number in range(40):
        write(store, str(number))
    for path in kept(directory):
        path.unlink()
    for number in range(40):
        write(store, str(number))
    assert len(kept(directory)) == 40
    assert store.counters["evicted_for_size"] == 0


def test_a_new_table_learns_what_is_stored(directory: Path, clock: time_machine.Traveller) -> None:
    store = FileStore(directory, max_size=40 * BLOCK)
    for number in range(35):
        write(store, str(number))
    (directory / FILE_NAME).unlink()
    clock.shift(PAUSE)
    sweep(store)
    assert sum(counters_of(directory)) == 35 * BLOCK
    for number in range(100, 120):
        write(store, str(number))
        assert used(directory) <= 40 * BLOCK


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "write", "note", "no note", "remove", "hit", "sweep", "another"]),
        st.sampled_from([f"page-{number}" for number in range(8)]),
        st.integers(1, 6),
    ),
    min_size=5,
    max_size=40,
)


@settings(max_examples=25)
@given(OPERATIONS)
def test_the_counters_say_what_is_there_whatever_is_done(operations: list[tuple[str, str, int]]) -> None:
    limit = 16 * BLOCK
    with tempfile.TemporaryDirectory() as place, time_machine.travel(1_800_000_000, tick=False) as clock:
        directory = Path(place) / "cache"
        stores = [FileStore(directory, max_size=limit) for _ in range(2)]
        for operation, key, blocks in operations:
            clock.shift(1)
            store = stores[0]
            match operation:
                case "write":
                    write(store, key, blocks)
                case "note":
                    store.write_note(key, Note(failures=blocks))
                case "no note":
                    store.write_note(key, NOTHING)
                case "remove":
                    store.remove(key)
                case "hit":
                    store.touch(store.load(key))
                case "sweep":
                    clock.shift(PAUSE)
                    sweep_if_used(store)
                case "another":
                    stores.reverse()
            if directory.exists():
                assert sum(counters_of(directory)) == used(directory)
                assert used(directory) <= limit


def sweep_if_used(store: FileStore) -> None:
    store.load("anything")
    sweep(store)


# -- a large folder --------------------------------------------------------------------------------------------------


def of_one_folder(many: int) -> list[str]:
    """Return keys whose files are in the same folder."""
    return list(islice((key for number in count() if digest(key := str(number)).startswith("07")), many))


def test_of_a_large_folder_a_part_is_looked_at_and_the_older_ones_go(
    directory: Path, clock: time_machine.Traveller, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, looks, look = of_one_folder(5 * large), list[int](), Folders.look

    def counting(folders: Folders, number: int, most: int | None = None) -> Folder:
        folder = look(folders, number, most)
        if folders.directory.path == directory:
            looks.append(len(folder.keys))
        return folder

    store = FileStore(directory, max_size=4 * large * BLOCK)
    monkeypatch.setattr(Folders, "look", counting)
    for key in keys:
        clock.shift(1)
        write(store, key)
        assert used(directory) == sum(counters_of(directory)) <= 4 * large * BLOCK
        assert store.usage().entries == len(kept(directory))
    gone = [number for number, key in enumerate(keys) if not file_of(directory, key).exists()]
    assert len(gone) >= large
    # If random keys went, their average would be in the middle of all keys.
    assert sum(gone) / len(gone) < 2 * large
    # One look lasts for several that go.
    assert max(looks) == large
    assert len(looks) <= len(gone) / room_module.BATCH + 1


def test_a_large_folder_that_was_emptied_beside_us_costs_no_entries(
    directory: Path, clock: time_machine.Traveller, large: int
) -> None:
    keys = of_one_folder(4 * large + 1)
    store = FileStore(directory, max_size=4 * large * BLOCK)
    for key in keys[:-1]:
        write(store, key)
    for key in keys[: 2 * large]:
        file_of(directory, key).unlink()
    write(store, keys[-1])
    assert len(kept(directory)) == 2 * large + 1
    assert store.counters["evicted_for_size"] == 0
    assert sum(counters_of(directory)) == used(directory)


def test_who_counts_anew_what_is_there_goes_on_with_it_later(
    directory: Path, clock: time_machine.Traveller, monotonic: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write must not count the whole cache because files were deleted."""
    store, look, looks = FileStore(directory, max_size=200 * BLOCK), Folders.look, list[int]()
    for number in range(200):
        write(store, str(number))
    for path in kept(directory):
        path.unlink()

    def slow(folders: Folders, number: int, most: int | None = None) -> Folder:
        if folders.directory.path == directory:
            looks.append(number)
            monotonic(0.001)
        return look(folders, number, most)

    monkeypatch.setattr(Folders, "look", slow)
    write(store, "new")
    filled = {int(digest(str(number))[:2], 16) for number in range(200)}
    # The sample finds no key in the 140 folders that are counted as filled. Then folders are counted for 20 ms, each in 1 ms.
    assert set(looks[: len(filled)]) == filled
    assert len(filled) < len(looks) <= len(filled) + 20
    assert keys_kept(directory, "new") == ["new"]
    assert store.counters["evicted_for_size"] == 0
