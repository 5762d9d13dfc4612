"""Eviction: ``STALECACHE_MAX_SIZE``, ``STALECACHE_MIN_FREE``, and entries that are too large."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import time_machine

from flask_stalecache import FileStore, StoreError
from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.core.model.note import Note
from flask_stalecache.filesystem.locks import FileKeyLock
from flask_stalecache.stores.folders import Folders
from flask_stalecache.stores.formats.entry_format import encode
from flask_stalecache.stores.table import table_file
from flask_stalecache.stores.upkeep import eviction as room_module
from support.client import MakeApp, visit
from support.engine import make_entry
from support.eviction import BLOCK, PAUSE, counters_of, file_of, kept, keys_kept, shop, sweep, used, write

#: More than all of a small cache.
MANY = 60


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
    """One evictor has seen the mark of the hit, and is about to date it; the other must not take the page for unused."""
    store, other = (FileStore(directory, max_size=8 * BLOCK) for _ in range(2))
    for number in range(8):
        clock.shift(1)
        write(store, str(number))
    store.touch(store.load("0"))
    note_use, met = Folders.note_use, list[str]()

    def overtaken(folders: Folders, name: str, time_ns: int) -> None:
        if folders.directory.path == directory and not met:
            met.append(name)
            write(other, "9")
        note_use(folders, name, time_ns)

    monkeypatch.setattr(Folders, "note_use", overtaken)
    clock.shift(1)
    write(store, "8")
    assert met == [digest("0")]
    assert keys_kept(directory, "0", "8", "9") == ["0", "8", "9"]


def test_what_is_hit_while_its_lock_is_taken_stays(
    directory: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was found unused, and is used before it is removed."""
    store, other = (FileStore(directory, max_size=8 * BLOCK) for _ in range(2))
    for number in range(8):
        clock.shift(1)
        write(store, str(number))
    copy, lock, met = other.load("0"), Folders.lock, list[str]()

    def hit_meanwhile(folders: Folders, name: str) -> FileKeyLock:
        if name == digest("0") and not met:
            met.append(name)
            other.touch(copy)
        return lock(folders, name)

    monkeypatch.setattr(Folders, "lock", hit_meanwhile)
    clock.shift(1)
    write(store, "8")
    assert met == [digest("0")]
    assert keys_kept(directory, "0", "1", "8") == ["0", "8"]
    assert store.counters["evicted_for_size"] == 1


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
    # The older ones go, roughly: if random ones went, the average of the numbers that stay would be 50.
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
        monkeypatch.setattr(table_file, "_written_beside", lambda *_: os.truncate("", errno.ENOSPC))
    app, runs = shop(make_app, MIN_FREE=10 * BLOCK)
    disk.others = 35
    assert [visit(app, "/page").page for _ in range(2)] == [("MISS", f"page {n} ".ljust(100, ".")) for n in (1, 2)]
    assert app.extensions["stalecache"].counters["store_failures"] >= 2
    disk.others = 0
    assert [visit(app, "/page").word for _ in range(2)] == ["MISS", "HIT"]
    assert runs["page"] == 3
