"""Every file of a cache directory is damaged in every way: no wrong answer, no exception to a visitor.

``make soak`` plays 12,000 damages, ``make test`` 300. Each has a number, from which it can be repeated.
"""

from __future__ import annotations

import gc
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import time_machine

from flask_stalecache import FileStore
from flask_stalecache.core.model.entry import Entry
from flask_stalecache.core.model.note import NOTHING, Note
from flask_stalecache.core.rules.status import CacheStatus
from flask_stalecache.filesystem import shared_memory
from flask_stalecache.filesystem.sealed import unseal_line
from flask_stalecache.stats.counter_file import BORN_CELL, HEAD, NAMED, SIZE
from flask_stalecache.stats.counters import Counters
from flask_stalecache.stats.history import INTERVAL
from flask_stalecache.stats.prometheus import families
from flask_stalecache.stats.registry import Registry
from flask_stalecache.stats.tally import PLAIN
from flask_stalecache.stores.purges.purge_record import Purge
from flask_stalecache.stores.purges.purge_records import PurgeRecords
from flask_stalecache.stores.table.stamps import FILE_NAME
from flask_stalecache.stores.upkeep import sweep
from support.engine import make_entry
from support.sweep import file_of

Files = dict[str, bytes]
Move = Callable[[float], None]
#: Keys of pages, by how these were purged.
HARD, SOFT, KEPT = ["hard 1", "hard 2", "merged"], ["soft 1", "soft 2"], ["kept 1", "kept 2"]
#: Keys whose purges could not wait for the lock, by the files that note these purges.
WAITING = {"names/waiting": "waiting", "names/adopted": "adopted"}
NOTE = Note(written=1, failures=3, retry_at=2_000_000_000.25, silent_until=17, unstorable_until=18, names=("all",))


def flip_a_bit(data: bytearray, random: Random, files: Files) -> None:
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def change_a_digit(data: bytearray, random: Random, files: Files) -> None:
    digits = [match.start() for match in re.finditer(rb"\d", data)]
    if digits:
        data[random.choice(digits)] = random.choice(b"0123456789")


def put_bytes(data: bytearray, random: Random, files: Files) -> None:
    at = random.randrange(len(data))
    data[at : at + random.randrange(1, 9)] = random.choice([b"\0", b"\xff", b"9", b"[", b"-", random.randbytes(1)]) * 8


def fill_to_the_end(data: bytearray, random: Random, files: Files) -> None:
    at = random.choice([0, random.randrange(len(data))])
    data[at:] = random.choice([b"\0", b"\xff"]) * (len(data) - at)


def cut(data: bytearray, random: Random, files: Files) -> None:
    del data[random.choice([0, random.randrange(len(data))]) :]


def go_on(data: bytearray, random: Random, files: Files) -> None:
    data += random.randbytes(random.randrange(1, 20))


def nest(data: bytearray, random: Random, files: Files) -> None:
    data[:] = data[: random.choice([0, 16, len(data)])] + b"[" * 100_000


def be_another(data: bytearray, random: Random, files: Files) -> None:
    data[:] = files[random.choice(sorted(files))]


DAMAGES: list[Callable[[bytearray, Random, Files], None]] = [
    flip_a_bit, flip_a_bit, change_a_digit, put_bytes, put_bytes, fill_to_the_end, cut, go_on, nest, be_another,
]  # fmt: skip


class Site:
    """A directory with files of each kind, which are damaged one at a time and restored."""

    def __init__(self, directory: Path, move: Move) -> None:
        self.directory = directory
        store = self.store()
        self.originals: dict[str, Entry] = {}
        for key in (*HARD, *SOFT, *KEPT, *WAITING.values()):
            self.write(store, key, b"old")
        store.write_note("kept 1", NOTE)
        for number in range(50):
            store.purge("url:merged" if number == 2 else f"url:{number}", soft=bool(number % 2))
            move(1)
        for key in (*HARD[:2], *SOFT):
            store.purge(f"url:{key}", soft=key in SOFT)
        self.write(store, "hard 2", b"new")
        store.tick()
        registry = Registry(Counters(), directory)
        for _ in range(3):
            registry.tally("endpoint", "news").cells[PLAIN] += 3
            registry.counters.count("store_failures")
            registry.tick()
            move(INTERVAL + 1)
        registry.see_fork()
        # Left over by a killed worker.
        file_of(directory, "kept 2", ".lock").touch()
        for path, key in reversed(WAITING.items()):
            store._records.waiting.append(Purge((f"url:{key}",), store.seq() + 1, False, time.time()))
            if path.endswith("adopted"):
                store._records.waiting.adopt()
        self.running = store
        self.history = registry.history()
        assert len(self.history) == 2
        self.files = {path: self.read(path) for path in self.listed()}
        self.seen = {path: self.status(path) for path in self.files}

    def store(self) -> FileStore:
        return FileStore(self.directory, memory_size=0, max_size=2 * 1024 * 1024)

    def write(self, store: FileStore, key: str, body: bytes) -> None:
        entry = make_entry(key, body, names=("all", f"url:{key}"), seq=store.seq())
        if store.write(entry):
            self.originals[key] = entry

    def listed(self) -> list[str]:
        top = str(self.directory)
        return sorted(f"{folder}/{name}"[len(top) + 1 :] for folder, _, names in os.walk(top) for name in names)

    def read(self, path: str) -> bytes:
        return (self.directory / path).read_bytes()

    def status(self, path: str) -> tuple[int, int, int]:
        status = os.stat(self.directory / path)
        return status.st_ino, status.st_size, status.st_mtime_ns

    def restore(self, damaged: str) -> None:
        self.put(damaged, self.files[damaged])
        listed = self.listed()
        for path in listed:
            if path not in self.files:
                (self.directory / path).unlink()
        for path, data in self.files.items():
            if path not in listed or self.status(path) != self.seen[path]:
                self.put(path, data)
                self.seen[path] = self.status(path)

    def put(self, path: str, data: bytes) -> None:
        """Write a file in place, and leave its time as it was."""
        place = self.directory / path
        with open(place, "r+b" if place.exists() else "wb") as file:
            file.write(data)
            file.truncate()
        at = self.seen[path][2]
        os.utime(place, ns=(at, at))

    def damage(self, path: str, random: Random) -> str:
        """Damage a file, and return how."""
        data, how = bytearray(self.files[path]), random.choice(DAMAGES)
        # Locks are empty.
        if data or how in (go_on, nest, be_another):
            how(data, random, self.files)
        if path in WAITING and all(unseal_line(line) is not None for line in data.split(b"\n") if line):
            # Missing lines at the end, or whole lines of another file, can't be noticed.
            go_on(data, random, self.files)
        self.put(path, bytes(data))
        return how.__name__

    # -- what a process makes of it ------------------------------------------------------------------------------

    def visit(self, random: Random, *, is_new: bool) -> None:
        """Look at some pages, and now and then purge one.

        :param is_new: by a new process.
        """
        store = self.running = self.store() if is_new else self.running
        for key in random.sample(["hard 1", "merged", *WAITING.values()], 2):
            assert store.load(key).entry is None
        for key in random.sample(["hard 2", *KEPT], 1):
            copy = store.load(key)
            assert copy.entry is None or copy.entry == self.originals[key]
            assert copy.note in ((NOTE, NOTHING) if key == "kept 1" else (NOTHING,))
        if random.random() < 0.2:
            entry = store.load(random.choice(SOFT)).entry
            assert entry is None or (entry.body == b"old" and not entry.is_fresh(time.time()))
        chance = random.random()
        if chance < 0.1:
            self.change(store)
        elif chance < 0.12:
            list(store.walk()), list(store.verify(fix=False)), store.usage()
        elif chance < 0.15:
            store.tick()

    def change(self, store: FileStore) -> None:
        """Purge a page and store it again."""
        store.purge("url:kept 2", soft=False)
        assert store.load("kept 2").entry is None
        entry = make_entry("kept 2", b"new", names=("all", "url:kept 2"), seq=store.seq())
        assert store.write(entry)
        assert store.load("kept 2").entry == entry
        note = replace(NOTE, seq=store.seq())
        store.write_note("kept 2", note)
        assert store.load("kept 2").note == note

    def count(self) -> None:
        """Count a visit, take a sample, and show all numbers."""
        registry = Registry(Counters(), self.directory)
        tally = registry.tally("endpoint", "news")
        tally.cells[PLAIN] += 1
        tally.served(CacheStatus.MISS, 0.2, waited=True)
        tally.asked(0.2, failed=True)
        tally.refreshed(0.2, failed=False)
        registry.tally("function", "new").cells[PLAIN] += 1
        registry.counters.count("store_failures")
        registry.tick()
        list(families(registry.read(0, 0, None)))
        assert [sample for sample in registry.history() if sample["at"] < time.time() and sample not in self.history] == []
        registry.running()
        registry.see_fork()


@pytest.fixture
def move(clock: time_machine.Traveller, monotonic: Move, monkeypatch: pytest.MonkeyPatch) -> Move:
    """Move both clocks on."""
    # A tick of the sweep takes so long.
    monkeypatch.setattr(sweep, "BUDGET", 0.0005)

    def both(seconds: float) -> None:
        clock.shift(seconds)
        monotonic(seconds)

    return both


def test_there_is_a_file_of_each_kind(directory: Path, move: Move) -> None:
    site = Site(directory, move)
    names = {re.sub("[0-9a-f]{40}", "HASH", path.rpartition("/")[2]) for path in site.files}
    assert names >= {
        "HASH", "HASH.note", "HASH.lock", "floors", "last", "sweep", "sweep.lock", "purge.lock", "0", "totals", "history",
        "waiting", "adopted", FILE_NAME,
    }  # fmt: skip


@pytest.mark.soak
@pytest.mark.parametrize("is_shared", [True, False], ids=["shared memory", "none"])
def test_no_damage_of_any_file_is_a_wrong_answer_or_an_exception(
    directory: Path, move: Move, monkeypatch: pytest.MonkeyPatch, soak: Callable[[int, int], int], is_shared: bool
) -> None:
    if not is_shared:
        monkeypatch.setattr(shared_memory, "device", lambda: None)
    # Here the directory is put back again and again, whereupon everything would be stale: tests/stores/purging/test_restored.py.
    monkeypatch.setattr(PurgeRecords, "has_gone_back", lambda records: False)
    site = Site(directory, move)
    paths = sorted(site.files)
    for number in range(soak(6_000, 150)):
        random = Random(number)
        path = paths[number % len(paths)]
        how = site.damage(path, random)
        try:
            if path.startswith("stats/"):
                site.count()
            site.visit(random, is_new=path == FILE_NAME or random.random() < 0.1)
        except Exception as error:
            raise AssertionError(f"damage {number}: {how} in {path}") from error
        site.restore(path)


# -- what has no checksum: counters and the table ----------------------------------------------------------------------

END = SIZE // 8


@pytest.fixture(params=["shared memory", "none"])
def _memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "none":
        monkeypatch.setattr(shared_memory, "device", lambda: None)


def fill_with_ones(path: Path, start: int, end: int) -> None:
    """Write the file anew, as a restore does, with ones in a part of it."""
    data = path.read_bytes()
    assert len(data) >= end
    path.unlink()
    path.write_bytes(data[:start] + b"\xff" * (end - start) + data[end:])


@pytest.mark.usefixtures("_memory")
@pytest.mark.parametrize(("first", "last"), [(0, END), (BORN_CELL, HEAD), (NAMED, HEAD), (HEAD + 16, END), (HEAD + 17, HEAD + 18)])
def test_counters_that_are_too_large_are_not_adopted(directory: Path, first: int, last: int) -> None:
    before = Registry(Counters(), directory)
    before.tally("endpoint", "news").cells[PLAIN] += 3
    before.tally("endpoint", "sport").cells[PLAIN] += 4
    before.tick()
    before.see_fork()
    del before
    gc.collect()
    fill_with_ones(directory / "stats" / "0", 8 * first, 8 * last)
    registry = Registry(Counters(), directory)
    for label in ("sport", "news", "new"):
        tally = registry.tally("endpoint", label)
        tally.cells[PLAIN] += 1
        tally.asked(0.2, failed=True)
        tally.refreshed(0.2, failed=True)
    registry.counters.count("store_failures")
    registry.tick()
    stats = registry.read(0, 0, None)
    assert {label: series["origin_calls"] for label, series in stats["endpoints"].items()} == {"news": 1, "sport": 1, "new": 1}
    assert 3 <= stats["requests"]["HIT"] <= 10
    assert stats["since"] <= time.time()


@pytest.mark.usefixtures("_memory")
def test_a_table_of_all_ones_counts_anew(directory: Path) -> None:
    store = FileStore(directory)
    assert store.write(make_entry("old", seq=store.seq()))
    del store
    gc.collect()
    path = directory / FILE_NAME
    fill_with_ones(path, 128, path.stat().st_size)
    store = FileStore(directory)
    for key in ("old", "new", "newer"):
        assert store.write(make_entry(key, seq=store.seq()))
        assert store.load(key).entry is not None
    store.purge("all", soft=False)
    assert store.load("new").entry is None
    assert store.write(make_entry("new", seq=store.seq()))
    assert store.load("new").entry is not None
    store.sweep()
    assert store.usage().bytes < 100_000
