"""The limits: what is stored stays within them after every write, and what was used least goes first."""

from __future__ import annotations

import errno
import gc
import json
import mmap
import os
import random
import struct
import tempfile
import threading
import time
import tracemalloc
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import accumulate, count, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import time_machine
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.test import create_environ

from flask_stalecache import FileStore, StaleCache, StoreError
from flask_stalecache.core.model.keys import digest
from flask_stalecache.core.model.note import NOTHING, Note
from flask_stalecache.filesystem.locks import FileKeyLock
from flask_stalecache.stats.counter_file import SIZE as ROW_SIZE
from flask_stalecache.stores import eviction as room_module
from flask_stalecache.stores.base import Copy
from flask_stalecache.stores.entry_format import encode
from flask_stalecache.stores.folders import Folder, Folders
from flask_stalecache.stores.stamps import FILE_NAME, SIZE, Stamps
from support.client import MakeApp, visit
from support.engine import make_entry
from support.processes import Worker, workers

BLOCK = 4096
#: Longer than the pause between two sweeps.
PAUSE = 61
#: Ticks in which any sweep of a few files ends, however slow the machine.
TICKS = 2000
#: More than all of a small cache.
MANY = 60


def file_of(directory: Path, key: str, suffix: str = "") -> Path:
    return directory / digest(key)[:2] / (digest(key) + suffix)


def write(store: FileStore, key: str, blocks: int = 1) -> None:
    """Store an entry whose file takes so many blocks, under its lock, as the engine does."""
    body = bytes((blocks - 1) * BLOCK)
    lock = store.lock(key)
    assert lock.acquire()
    try:
        assert store.write(make_entry(key, body, windows=(10**6, 0, 0)))
    finally:
        lock.release()


def kept(directory: Path) -> set[Path]:
    """Return the files of entries."""
    return {path for path in directory.glob("??/*") if not path.suffix}


def keys_kept(directory: Path, *keys: str) -> list[str]:
    return [key for key in keys if file_of(directory, key).exists()]


def used(directory: Path) -> int:
    """Return what entries and notes take, in whole blocks."""
    files = [path for path in directory.glob("??/*") if path.suffix in ("", ".note")]
    return sum(-(-path.stat().st_size // BLOCK) * BLOCK for path in files)


def counters_of(directory: Path) -> memoryview:
    """Return the bytes that the table has for each folder, as any process sees them."""
    return Stamps(directory / FILE_NAME).folder_sizes


def sweep(store: FileStore) -> None:
    """Let a store tick until the sweep that is due is over."""
    for _ in range(TICKS):
        store.tick()
        if json.loads((store.directory / "sweep").read_bytes())["next_at"] > time.time():
            return
    raise AssertionError("the sweep does not come to its end")


# -- STALECACHE_MAX_SIZE ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_no_write_passes_the_limit(directory: Path, clock: time_machine.Traveller, seed: int) -> None:
    store, chance, limit = FileStore(directory, max_size=40 * BLOCK), random.Random(seed), 40 * BLOCK
    for number in range(100):
        clock.shift(1)
        if chance.random() < 0.2:
            store.write_note(f"page-{number}", Note(failures=1))
        else:
            write(store, f"page-{chance.randrange(number + 1)}", chance.choice([1, 1, 1, 2, 5, 10]))
        assert used(directory) <= limit
        assert sum(counters_of(directory)) == used(directory)
    # It is not kept small by keeping little.
    assert used(directory) > limit * 0.6
    assert store.counters["evicted_for_size"] > 0


def test_without_a_limit_nothing_goes(directory: Path, clock: time_machine.Traveller) -> None:
    store = FileStore(directory, max_size=None)
    for number in range(MANY):
        write(store, str(number), 2)
    assert len(kept(directory)) == MANY
    assert sum(counters_of(directory)) == used(directory)


@pytest.mark.parametrize("seed", range(2))
def test_of_a_few_entries_the_least_used_goes(directory: Path, clock: time_machine.Traveller, seed: int) -> None:
    """Where all of them are looked at, and each use is dated, what stays is what was used last."""
    store, chance, room = FileStore(directory, max_size=8 * BLOCK), random.Random(seed), 8
    by_use: list[str] = []
    for step in range(40):
        clock.shift(PAUSE)
        if step < room or chance.random() < 0.4:
            key = f"new-{step}"
            write(store, key)
        else:
            key = chance.choice(by_use)
            by_use.remove(key)
            store.touch(store.load(key))
        by_use = [*by_use, key][-room:]
        sweep(store)
        assert kept(directory) == {file_of(directory, key) for key in by_use}


def test_what_is_larger_than_the_oldest_takes_the_next_ones_too(directory: Path, clock: time_machine.Traveller) -> None:
    store = FileStore(directory, max_size=8 * BLOCK)
    for number in range(8):
        clock.shift(1)
        write(store, str(number))
    write(store, "large", 3)
    assert keys_kept(directory, *map(str, range(8)), "large") == ["3", "4", "5", "6", "7", "large"]
    assert store.counters["evicted_for_size"] == 3


def test_room_is_made_for_some_writes_at_once(directory: Path, clock: time_machine.Traveller) -> None:
    store = FileStore(directory, max_size=40 * BLOCK)
    for number in range(40):
        clock.shift(1)
        write(store, str(number))
    for number in range(40, 44):
        write(store, str(number))
        assert store.counters["evicted_for_size"] == 4
    assert len(kept(directory)) == 40


def test_what_was_hit_outlives_what_was_not(directory: Path, clock: time_machine.Traveller) -> None:
    """A use counts at once, not only once a sweep has dated it."""
    store = FileStore(directory, max_size=20 * BLOCK)
    for number in range(20):
        clock.shift(1)
        write(store, str(number))
    hot = [str(number) for number in range(3)]
    for key in hot:
        store.touch(store.load(key))
    for number in range(100, 112):
        clock.shift(1)
        write(store, str(number))
        assert keys_kept(directory, *hot) == hot
    assert keys_kept(directory, *map(str, range(3, 15))) == []


def test_what_was_hit_survives_two_that_make_room_at_once(
    directory: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has seen that it was hit, and is about to date that; the other must not take it for unused."""
    store, other = (FileStore(directory, max_size=8 * BLOCK) for _ in range(2))
    for number in range(8):
        clock.shift(1)
        write(store, str(number))
    store.touch(store.load("0"))
    note_use, met = Folders.note_use, list[str]()

    def overtaken(folders: Folders, name: str, time_ns: int) -> None:
        if folders.directory == directory and not met:
            met.append(name)
            write(other, "9")
        note_use(folders, name, time_ns)

    monkeypatch.setattr(Folders, "note_use", overtaken)
    clock.shift(1)
    write(store, "8")
    assert met == [digest("0")]
    assert keys_kept(directory, "0", "8", "9") == ["0", "8", "9"]


def test_an_entry_that_went_is_gone_for_all(directory: Path, clock: time_machine.Traveller) -> None:
    store, other = FileStore(directory, max_size=2 * BLOCK), FileStore(directory, max_size=2 * BLOCK)
    write(store, "old")
    store.write_note("old", Note(failures=1))
    copy = other.load("old")
    clock.shift(1)
    write(store, "new", 2)
    assert other.moved(copy)
    assert other.lookup("old") is None
    assert not file_of(directory, "old", ".note").exists()
    assert not file_of(directory, "old", ".lock").exists()


def test_a_page_renewed_at_the_limit_is_not_its_own_victim(directory: Path, clock: time_machine.Traveller) -> None:
    store = FileStore(directory, max_size=8 * BLOCK)
    for number in range(8):
        clock.shift(1)
        write(store, str(number))
    for _ in range(5):
        clock.shift(1)
        write(store, "0")
        assert used(directory) <= 8 * BLOCK
        # While it is written there are two of it, so one other may have gone.
        assert len(kept(directory)) >= 7
    assert store.load("0").entry is not None


def shop(make: Callable[..., tuple[Flask, StaleCache]], **settings: Any) -> tuple[Flask, Counter[str]]:
    """Return an app with a page for each path and query, of ``size`` bytes, and a count of its view's runs by URL."""
    app, cache = make(**settings)
    runs = Counter[str]()

    @app.get("/<page>", defaults={"size": 100})
    @app.get("/<page>/<int:size>")
    @cache.cached(10**6, 0, 0, jitter=0)
    def show(page: str, size: int) -> str:
        runs[page] += 1
        return f"{page} {runs[page]} ".ljust(size, ".")

    return app, runs


@pytest.mark.parametrize("room", [10, 30])
def test_hot_pages_survive_a_flood(make_app: MakeApp, clock: time_machine.Traveller, room: int) -> None:
    """``?x=random``: a limit keeps the disk, and what visitors come for stays stored."""
    app, runs = shop(make_app, MAX_SIZE=room * BLOCK)
    hot = ["news", "prices", "weather"]
    for number in range(3 * room):
        clock.shift(1)
        assert visit(app, f"/flood?x={number}").word == "MISS"
        if number % 4 == 0:
            for page in hot:
                visit(app, f"/{page}")
    assert runs["flood"] == 3 * room
    assert [runs[page] for page in hot] == [1, 1, 1]
    assert app.extensions["stalecache"].counters["store_failures"] == 0
    assert used(app.config["STALECACHE_DIR"]) <= room * BLOCK


# -- what is too large -----------------------------------------------------------------------------------------------


def test_what_is_larger_than_all_room_is_refused_and_takes_nothing_with_it(directory: Path, clock: time_machine.Traveller) -> None:
    store = FileStore(directory, max_size=20 * BLOCK)
    for number in range(10):
        write(store, str(number))
    with pytest.raises(StoreError, match="no room"):
        write(store, "large", 21)
    assert len(kept(directory)) == 10
    assert store.counters["evicted_for_size"] == 0
    write(store, "all of it", 20)
    assert kept(directory) == {file_of(directory, "all of it")}


def test_a_page_larger_than_all_room_is_live_and_counted(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    """The body fits, and with its head it does not."""
    app, _ = shop(make_app, MAX_SIZE=10 * BLOCK)
    small = [visit(app, f"/small-{number}").page for number in range(3)]
    pages = [visit(app, f"/large/{10 * BLOCK}") for _ in range(2)]
    assert [(page.status, page.word, page.text[:7]) for page in pages] == [(200, "MISS", "large 1"), (200, "MISS", "large 2")]
    assert app.extensions["stalecache"].counters["store_failures"] == 2
    assert [visit(app, f"/small-{number}").page for number in range(3)] == [("HIT", text) for _, text in small]


@pytest.mark.parametrize(("size", "word"), [(5000, "HIT"), (5001, "MISS")])
def test_a_page_of_max_entry_size_is_stored_and_a_larger_one_is_not(
    make_app: MakeApp, clock: time_machine.Traveller, size: int, word: str
) -> None:
    app, runs = shop(make_app, MAX_ENTRY_SIZE=5000)
    assert [visit(app, f"/page/{size}").word for _ in range(2)] == ["MISS", word]
    assert runs["page"] == (1 if word == "HIT" else 2)
    assert app.extensions["stalecache"].counters["store_failures"] == 0


# -- a limit that was lowered ----------------------------------------------------------------------------------------


def test_the_sweep_brings_the_cache_under_a_lower_limit(directory: Path, clock: time_machine.Traveller) -> None:
    store = FileStore(directory)
    for number in range(100):
        clock.shift(1)
        write(store, str(number))
    lower = FileStore(directory, max_size=25 * BLOCK)
    lower.load("anything")
    clock.shift(PAUSE)
    sweep(lower)
    assert used(directory) <= 25 * BLOCK
    # The older ones go, if not exactly: were it any of them, the number of those that stay would be 50 on average.
    assert sum(int(number) for number in keys_kept(directory, *map(str, range(100)))) / len(kept(directory)) > 70


def test_a_much_lower_limit_is_reached_at_last(
    directory: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much there is, sweep after sweep."""
    monkeypatch.setattr(room_module, "ROUNDS", 4)
    store, count = FileStore(directory), 400
    data = encode(make_entry())
    for number in range(count):
        # Not written by the store, since that takes its time.
        path = file_of(directory, str(number))
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_bytes(data)
    store.load("anything")
    sweep(store)
    assert sum(counters_of(directory)) == count * BLOCK
    lower = FileStore(directory, max_size=2 * BLOCK)
    lower.load("anything")
    for _ in range(10):
        clock.shift(PAUSE)
        sweep(lower)
    assert used(directory) <= 2 * BLOCK
    write(lower, "new")
    assert lower.load("new").entry is not None


# -- STALECACHE_MIN_FREE ---------------------------------------------------------------------------------------------


class Disk:
    """What ``statvfs`` says of a disk that the cache shares with others.

    :ivar others: blocks that belong to others.
    """

    def __init__(self, directory: Path, total: int) -> None:
        self.directory = directory
        self.total = total
        self.others = 0

    @property
    def free(self) -> int:
        """Blocks that are free."""
        return max(0, self.total - self.others - used(self.directory) // BLOCK)

    def statvfs(self, _: object) -> SimpleNamespace:
        return SimpleNamespace(f_bavail=self.free * 4, f_frsize=BLOCK // 4, f_bfree=self.total * 4, f_bsize=10 * BLOCK)


@pytest.fixture
def disk(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A disk of 40 blocks."""
    made = Disk(directory, 40)
    monkeypatch.setattr(os, "statvfs", made.statvfs)
    return made


@pytest.mark.parametrize("max_size", [None, 35 * BLOCK])
def test_so_much_stays_free(directory: Path, clock: time_machine.Traveller, disk: Disk, max_size: int | None) -> None:
    store = FileStore(directory, max_size=max_size, min_free=10 * BLOCK)
    for number in range(MANY):
        clock.shift(1)
        write(store, str(number), 1 + number % 3)
        assert disk.free >= 10
    assert disk.free < 20


def test_what_others_need_is_given_back(directory: Path, clock: time_machine.Traveller, disk: Disk) -> None:
    store = FileStore(directory, min_free=10 * BLOCK)
    for number in range(30):
        clock.shift(1)
        write(store, str(number))
    disk.others = 20
    assert disk.free == 0
    clock.shift(PAUSE)
    sweep(store)
    assert disk.free >= 10
    assert keys_kept(directory, "29") == ["29"]


@pytest.mark.parametrize("tabled", [True, False])
def test_where_others_have_taken_everything_pages_are_live(
    make_app: MakeApp, clock: time_machine.Traveller, disk: Disk, monkeypatch: pytest.MonkeyPatch, tabled: bool
) -> None:
    if not tabled:
        monkeypatch.setattr(os, "posix_fallocate", lambda *_: os.truncate("", errno.ENOSPC))
    app, runs = shop(make_app, MIN_FREE=10 * BLOCK)
    disk.others = 35
    assert [visit(app, "/page").page for _ in range(2)] == [("MISS", f"page {n} ".ljust(100, ".")) for n in (1, 2)]
    assert app.extensions["stalecache"].counters["store_failures"] >= 2
    disk.others = 0
    assert [visit(app, "/page").word for _ in range(2)] == ["MISS", "HIT"]
    assert runs["page"] == 3


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


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with workers(1) as made:
        yield made[0]


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
    file_of(directory, "0", ".lock").unlink()
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
            if Path(name).parent != directory and Path(name).suffix == ".lock":
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
        file_of(directory, str(index), ".lock").unlink()
    real = os.open

    def failing(name: Any, flags: int, *args: Any, **options: Any) -> int:
        if str(name).endswith(".lock") and flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(name, flags, *args, **options)

    monkeypatch.setattr(os, "open", failing)
    store.write(make_entry("8"))
    assert keys_kept(directory, "0", "1", "8") == ["1", "8"]


# -- the counters ----------------------------------------------------------------------------------------------------


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


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> int:
    """So few keys make a folder one of which only a part is looked at."""
    monkeypatch.setattr(room_module, "MOST", 32)
    return 32


def test_of_a_large_folder_a_part_is_looked_at_and_the_older_ones_go(
    directory: Path, clock: time_machine.Traveller, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, looks, look = of_one_folder(5 * large), list[int](), Folders.look

    def counting(folders: Folders, number: int, most: int | None = None) -> Folder:
        folder = look(folders, number, most)
        if folders.directory == directory:
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
    # Were it any of them, it would be those in the middle on average.
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
    """A writer is not to look at all of a cache, because somebody has deleted some of it."""
    store, look, looks = FileStore(directory, max_size=200 * BLOCK), Folders.look, list[int]()
    for number in range(200):
        write(store, str(number))
    for path in kept(directory):
        path.unlink()

    def slow(folders: Folders, number: int, most: int | None = None) -> Folder:
        if folders.directory == directory:
            looks.append(number)
            monotonic(0.001)
        return look(folders, number, most)

    monkeypatch.setattr(Folders, "look", slow)
    write(store, "new")
    # A sample of 32 folders at most, and then for 20 ms.
    assert len(looks) <= 256
    assert keys_kept(directory, "new") == ["new"]
    assert store.counters["evicted_for_size"] == 0


# -- several that write at once --------------------------------------------------------------------------------------


def in_the_middle_of_a_write(monkeypatch: pytest.MonkeyPatch, deed: Callable[[], object]) -> None:
    """Do something once, when there is room for a file of some blocks and it is being written."""
    write, met = os.write, list[int]()

    def meddling(descriptor: int, data: bytes) -> int:
        if len(data) > BLOCK and not met:
            met.append(descriptor)
            deed()
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", meddling)


def test_two_that_write_at_once_do_not_take_the_same_room(
    directory: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = (FileStore(directory, max_size=40 * BLOCK) for _ in range(2))
    for number in range(40):
        clock.shift(1)
        write(store, str(number))
    in_the_middle_of_a_write(monkeypatch, lambda: write(other, "other", 15))
    write(store, "large", 15)
    assert keys_kept(directory, "large", "other") == ["large", "other"]
    assert used(directory) == sum(counters_of(directory)) <= 40 * BLOCK


def test_what_could_not_be_written_is_not_counted(
    directory: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(directory, max_size=40 * BLOCK)
    write(store, "page", 2)

    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    in_the_middle_of_a_write(monkeypatch, full)
    with pytest.raises(StoreError):
        store.write(make_entry("page", bytes(10 * BLOCK)))
    assert used(directory) == sum(counters_of(directory)) == 2 * BLOCK
    assert store.usage().entries == 1


def test_a_look_counts_what_is_being_written(directory: Path, clock: time_machine.Traveller) -> None:
    store = FileStore(directory, max_size=40 * BLOCK)
    write(store, "page", 2)
    unfinished = file_of(directory, "page").with_name(f"{digest('page')}.{'0' * 16}.tmp")
    unfinished.write_bytes(bytes(5 * BLOCK))
    clock.shift(PAUSE)
    sweep(store)
    assert sum(counters_of(directory)) == 7 * BLOCK
    assert store.usage().entries == 1


# -- STALECACHE_MEMORY_SIZE ------------------------------------------------------------------------------------------


def bytes_in_memory(marker: bytes) -> int:
    """Return the bytes of all bodies with a marker that copies hold."""
    gc.collect()
    bodies = {
        id(thing.entry.body): len(thing.entry.body)
        for thing in gc.get_objects()
        if type(thing) is Copy and thing.entry is not None and thing.entry.body.startswith(marker)
    }
    return sum(bodies.values())


@pytest.mark.parametrize("memory_size", [0, 100_000, 200_000])
def test_copies_stay_within_their_size_in_a_flood(make_app: MakeApp, clock: time_machine.Traveller, memory_size: int) -> None:
    app, runs = shop(make_app, MEMORY_SIZE=memory_size, MAX_SIZE=60 * BLOCK)
    marker = f"m{memory_size}"
    for number in range(80):
        clock.shift(1)
        visit(app, f"/{marker}-flood-{number}/3000")
        visit(app, f"/{marker}-hot/3000")
        if number % 40 == 39:
            assert bytes_in_memory(marker.encode()) <= memory_size
    assert runs[f"{marker}-hot"] == 1
    if memory_size:
        # Not by keeping nothing: what is around a body takes about twice as much as one of this size.
        assert bytes_in_memory(marker.encode()) > memory_size / 6


@pytest.mark.parametrize("gateway", [False, True])
def test_copies_are_counted_with_all_that_they_take(make_app: MakeApp, gateway: bool) -> None:
    """The bodies of small pages are the least of it: heads, recipes, names, and what is prepared for the next hit."""
    app, cache = make_app(GATEWAY=gateway, MAX_SIZE=None)

    @app.get("/<int:page>")
    @cache.cached(10**6, 0, 0, tags=["news", "sport"], gateway=gateway)
    def show(page: int) -> str:
        return f"{page}".ljust(1000, ".")

    for number in range(20):
        visit(app, f"/{number}")
    copies = app.extensions["stalecache"].engine.store._copies
    # Python's own table of names of files grows by leaps.
    ours = tracemalloc.Filter(False, "*/pathlib*")
    tracemalloc.start()
    try:
        counted, before = -copies.size, tracemalloc.take_snapshot().filter_traces([ours])
        for number in range(100, 300):
            assert [visit(app, f"/{number}").word for _ in range(2)] == ["MISS", "HIT"]
        gc.collect()
        counted, after = counted + copies.size, tracemalloc.take_snapshot().filter_traces([ours])
    finally:
        tracemalloc.stop()
    taken = sum(line.size_diff for line in after.compare_to(before, "filename"))
    assert 0.6 * counted < taken < 1.1 * counted


# -- a soak ----------------------------------------------------------------------------------------------------------


class Volume(NamedTuple):
    """How much is written through how much room.

    :ivar limit: STALECACHE_MAX_SIZE.
    :ivar writes: pages that each of the two writers writes, of 10 kB on average.
    :ivar pages: how many pages there are that are read again.
    """

    limit: int
    writes: int
    pages: int


FULL, REDUCED = Volume(50_000_000, 15_000, 5000), Volume(2_000_000, 240, 200)
#: What the directory may take at most, as a share of the limit.
SLACK = 1.06
#: How many pages are read for each that one of the writers writes.
READS = 3
_NUMBER = struct.Struct("<Q")


class Board:
    """Where processes see how far the reader is, and who is done."""

    def __init__(self, place: Path) -> None:
        self.place = place
        with (place / "reads").open("a+b") as file:
            file.truncate(_NUMBER.size)
            self._map = mmap.mmap(file.fileno(), _NUMBER.size)

    @property
    def reads(self) -> int:
        return int(_NUMBER.unpack(self._map[:])[0])

    @reads.setter
    def reads(self, number: int) -> None:
        self._map[:] = _NUMBER.pack(number)

    @contextmanager
    def at_work(self, others: int) -> Iterator[Callable[[], bool]]:
        """Say that this process is done, whether it went well or not; yield whether so many others are, or one has failed."""
        try:
            yield lambda: len(list(self.place.glob("done-*"))) >= others or (self.place / "failed").exists()
        except BaseException:
            (self.place / "failed").touch()
            raise
        finally:
            (self.place / f"done-{os.getpid()}").touch()


def site(directory: Path, limit: int) -> Flask:
    """Return an app whose pages have 2 to 18 kB, each always the same."""

    def make(**settings: Any) -> tuple[Flask, StaleCache]:
        app = Flask("soak")
        app.config.update({f"STALECACHE_{name}": value for name, value in settings.items()})
        return app, StaleCache(app)

    return shop(make, DIR=directory, MAX_SIZE=limit)[0]


def ask(app: Flask, path: str) -> str:
    """Make a request without a client's own work, and return how it was answered."""
    fields: dict[str, str] = {}

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Callable[[bytes], object]:
        assert status == "200 OK"
        fields.update(headers)
        return lambda _: None

    answered = app(create_environ(path, "http://shop.example"), start_response)
    try:
        assert sum(map(len, answered)) == int(path.rpartition("/")[2])
    finally:
        getattr(answered, "close", lambda: None)()
    return fields["X-Cache-Status"]


def path_of(page: str) -> str:
    return f"/{page}/{random.Random(page).randrange(2000, 18_000)}"


def write_pages(place: Path, volume: Volume) -> int:
    """Write page after page that nobody reads again, as fast as the reader reads; return how many could not be stored."""
    board, app, pause = Board(place), site(place / "cache", volume.limit), threading.Event()
    with board.at_work(others=3) as is_over:
        for number in range(volume.writes):
            while board.reads < number * READS and not is_over():
                pause.wait(0.001)
            assert ask(app, path_of(f"flood-{os.getpid()}-{number}")) == "MISS"
    return int(app.extensions["stalecache"].counters["store_failures"])


def read_pages(place: Path, volume: Volume) -> tuple[int, int, int, int]:
    """Read pages, the n-th most wanted 1/n times as often as the first, until the writers are done.

    :return: reads and hits of the hottest 1 % in the second half, all reads, all hits.
    """
    board, app, chance = Board(place), site(place / "cache", volume.limit), random.Random(1)
    weights = list(accumulate(1 / (rank + 1) for rank in range(volume.pages)))
    seen: list[tuple[int, bool]] = []
    with board.at_work(others=2) as is_over:
        while len(seen) % 100 or not is_over():
            rank = min(bisect(weights, chance.random() * weights[-1]), volume.pages - 1)
            seen.append((rank, ask(app, path_of(f"page-{rank}")) == "HIT"))
            board.reads = len(seen)
    hot = [hit for rank, hit in seen[len(seen) // 2 :] if rank < max(1, volume.pages // 100)]
    return len(hot), sum(hot), len(seen), sum(hit for _, hit in seen)


class Taken(NamedTuple):
    """What a directory takes.

    :ivar files: the bytes of all files but the table.
    :ivar blocks: the same as the disk has it.
    :ivar whole: blocks of everything: files, folders and the table.
    """

    files: int
    blocks: int
    whole: int


def taken(directory: Path) -> Taken:
    files = blocks = whole = 0
    for folder, _, names in os.walk(directory):
        whole += os.lstat(folder).st_blocks * 512
        for name in names:
            with suppress(FileNotFoundError):
                status = os.lstat(os.path.join(folder, name))
                whole += status.st_blocks * 512
                # The table and the numbers are the same however much is stored.
                if not name.startswith(FILE_NAME) and not folder.endswith("/stats"):
                    files += status.st_size
                    blocks += status.st_blocks * 512
    return Taken(files, blocks, whole)


@pytest.mark.soak
def test_a_flood_of_writes_stays_within_the_limit_and_the_hot_pages_stay_hit(
    tmp_path: Path, soak: Callable[[int, int], int], record_property: Callable[[str, object], None]
) -> None:
    volume = FULL if soak(1, 0) else REDUCED
    Board(tmp_path)
    pause, most = threading.Event(), Taken(0, 0, 0)
    with workers(3) as (reader, *writers):
        reader.start(read_pages, tmp_path, volume)
        for worker in writers:
            worker.start(write_pages, tmp_path, volume)
        while len(list(tmp_path.glob("done-*"))) < 3:
            most = Taken(*map(max, most, taken(tmp_path / "cache")))
            pause.wait(0.1)
            assert all(worker.process.is_alive() for worker in (reader, *writers))
        hot, hot_hits, reads, hits = reader.result()
        failures = [worker.result() for worker in writers]
    report = {
        "limit": volume.limit,
        **{f"most {name}": size for name, size in most._asdict().items()},
        "reads": reads,
        "hit ratio": round(hits / reads, 3),
        "reads of the hottest 1 %": hot,
        "their hit ratio": round(hot_hits / hot, 4),
    }
    for name, value in report.items():
        record_property(name, value)
    print(report)
    assert failures == [0, 0]
    assert most.files < SLACK * volume.limit
    assert most.blocks < SLACK * volume.limit
    # The table, the folders and the numbers of three processes are the same however much is stored.
    fixed = 0 if volume is FULL else SIZE + 257 * BLOCK + 3 * (ROW_SIZE + BLOCK)
    assert most.whole < SLACK * volume.limit + fixed
    assert most.blocks > 0.8 * volume.limit
    assert hot >= 50
    # One of a hundred; or one of the fewer that the reduced count has.
    assert hot - hot_hits <= max(1, hot // 100)
