"""The table of stamps in shared memory, or else in a file that is read: containers, refused mappings, files that are rewritten.

Covers ``filesystem.held_file``, ``filesystem.shared_memory`` and ``stores.file_numbers``.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import logging
import mmap
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flask_stalecache.filesystem import shared_memory
from flask_stalecache.filesystem.descriptors import open_descriptor
from flask_stalecache.filesystem.held_file import HeldFile
from flask_stalecache.stats import counter_file
from flask_stalecache.stores.file_numbers import FileMarks, FileNumbers, encoded, unequal
from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.table import table_file
from flask_stalecache.stores.table.stamps import FILE_NAME, SIZE, Stamps
from support.engine import make_entry
from support.file_store import LOGGER
from support.processes import workers

NEWS = "tag:news"


def keep(store: FileStore, key: str = "page", body: bytes = b"old") -> None:
    store.write(make_entry(key, body, names=("all", NEWS), seq=store.seq()))
    store.load(key)


def is_in_memory(directory: Path) -> bool:
    return (directory / FILE_NAME).read_bytes().startswith(b"stalecache table\nshared ")


def memory_of(directory: Path) -> Path:
    return Path(shared_memory.FOLDER, (directory / FILE_NAME).read_bytes().split()[3].decode())


def mapped_below(directory: Path) -> list[str]:
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if str(directory) in line]


@contextmanager
def housekeeping(*stores: FileStore) -> Iterator[None]:
    over = threading.Event()

    def tick() -> None:
        while not over.wait(0.01):
            for store in stores:
                store.tick()

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def see_each_other(stores: list[FileStore]) -> None:
    """Writes and purges of each store reach all others at their next lookup."""
    for number, writer in enumerate(stores):
        for store in stores:
            store.load("page")
        keep(writer, body=b"%d" % number)
        assert [store.lookup("page") for store in stores if store is not writer] == [None] * (len(stores) - 1)
        copies = [store.load("page") for store in stores]
        assert [copy.entry and copy.entry.body for copy in copies] == [b"%d" % number] * len(stores)
        assert [store.lookup("page") for store in stores] == copies
        writer.purge(NEWS, soft=False)
        assert [store.lookup("page") for store in stores] == [None] * len(stores)
        assert [store.load("page").entry for store in stores] == [None] * len(stores)


def refuse_mappings(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(mmap, "mmap", refuse)


# -- in memory -------------------------------------------------------------------------------------------------------


def test_hits_look_into_shared_memory_and_nothing_of_the_directory_is_mapped(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, LOGGER):
        stores = [FileStore(directory), FileStore(directory)]
        see_each_other(stores)
    assert is_in_memory(directory)
    assert mapped_below(directory) == []
    assert memory_of(directory).stat().st_mode & 0o777 == 0o600
    assert {record.levelname for record in caplog.records} == {"DEBUG"}


def cut(path: Path) -> None:
    os.truncate(path, 0)


def rewrite(path: Path) -> None:
    """What ``cp -a backup/. live/`` does, halfway."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def hit_on(directory: Path, damage: Callable[[Path], None], *, refused: bool) -> int:
    """Damage the table between two hits, in a process that SIGBUS would end."""
    if refused:
        refuse_mappings(pytest.MonkeyPatch(), errno.EPERM)
    store = FileStore(directory)
    for number in range(20):
        keep(store, str(number))
    damage(directory / FILE_NAME)
    found = [store.lookup(str(number % 20)) for number in range(2000)]
    store.write(make_entry("20"))
    store.tick()
    keep(store)
    assert store.lookup("page") is not None
    return sum(copy is not None for copy in found)


@pytest.mark.parametrize("damage", [cut, rewrite])
def test_hits_survive_who_rewrites_the_table_in_place(directory: Path, damage: Callable[[Path], None]) -> None:
    with workers(2) as made:
        made[0].run(_hit_on_mapped, directory, damage)
        shutil.rmtree(directory)
        # Stamps that are lost can't be compared, so no copy that depends on them is valid.
        assert made[1].run(_hit_on_read, directory, damage) < (1 if damage is cut else 2000)


def _hit_on_mapped(directory: Path, damage: Callable[[Path], None]) -> int:
    return hit_on(directory, damage, refused=False)


def _hit_on_read(directory: Path, damage: Callable[[Path], None]) -> int:
    return hit_on(directory, damage, refused=True)


def test_a_restore_over_a_live_directory_leaves_stores_that_see_each_other(directory: Path) -> None:
    stores = [FileStore(directory), FileStore(directory)]
    keep(stores[0])
    backup = directory.with_name("backup")
    shutil.copytree(directory, backup)
    del stores[:]
    gc.collect()
    shared_memory.make(4096).remove()
    stores = [FileStore(directory), FileStore(directory)]
    see_each_other(stores)
    for path in backup.rglob("*"):
        if path.is_file():
            (directory / path.relative_to(backup)).write_bytes(path.read_bytes())
    for store in stores:
        store.tick()
    see_each_other(stores)


def test_counts_outlive_the_table_in_memory(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a restart of the machine, or of a container."""
    monkeypatch.setattr(table_file, "_SAVED_EVERY", 0.0)
    store = FileStore(directory)
    keep(store)
    keep(store, "another")
    before = store.usage()
    store.tick()
    del store
    gc.collect()
    memory_of(directory).unlink()
    assert FileStore(directory).usage() == before
    assert before.entries == 2


def test_a_table_in_memory_that_was_deleted_is_made_anew(directory: Path) -> None:
    stores = [FileStore(directory), FileStore(directory)]
    see_each_other(stores)
    memory_of(directory).unlink()
    for store in stores:
        store.tick()
    see_each_other(stores)
    see_each_other([*stores, FileStore(directory)])
    assert is_in_memory(directory)


@pytest.fixture
def own_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Shared memory in which no other process makes files."""
    with tempfile.TemporaryDirectory(dir=shared_memory.FOLDER) as folder:
        monkeypatch.setattr(shared_memory, "FOLDER", folder)
        yield


@pytest.mark.usefixtures("own_memory")
def test_memory_that_nobody_uses_is_removed_when_another_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "IDLE", 0)
    monkeypatch.setattr(shared_memory, "LOOK_EVERY", 1)
    used, idle = Stamps(tmp_path / "used"), Stamps(tmp_path / "idle")
    places = [memory_of_file(tmp_path / name) for name in ("used", "idle")]
    del idle
    gc.collect()
    Stamps(tmp_path / "another")
    assert [place.exists() for place in places] == [True, False]
    assert used.is_current()


@pytest.mark.usefixtures("own_memory")
def test_the_table_that_was_used_last_is_removed_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "IDLE", SIZE)
    monkeypatch.setattr(shared_memory, "LOOK_EVERY", 1)
    monkeypatch.setattr(table_file, "_SAVED_EVERY", 0.0)
    tables = [Stamps(tmp_path / name) for name in ("used", "idle")]
    places = [memory_of_file(tmp_path / name) for name in ("used", "idle")]
    for age, place in enumerate(places):
        os.utime(place, (age, age))
    tables[0].tick()
    del tables
    gc.collect()
    Stamps(tmp_path / "another")
    assert [place.exists() for place in places] == [True, False]


@pytest.mark.usefixtures("own_memory")
def test_the_counts_of_a_killed_worker_outlive_those_of_processes_that_ended_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory that was used last is removed last, although its file is older."""
    monkeypatch.setattr(shared_memory, "IDLE", counter_file.SIZE)
    monkeypatch.setattr(shared_memory, "LOOK_EVERY", 1)
    killed, ended = (counter_file.acquire_file(tmp_path / name) for name in ("killed", "ended"))
    # Long ago, and in this order: the clock of files is coarse.
    for age, file in enumerate(sorted(Path(shared_memory.FOLDER).iterdir(), key=lambda file: file.stat().st_ino)):
        os.utime(file, (age, age))
    killed.head[counter_file.NAMED] = 1
    killed.save()
    killed.head[counter_file.NAMED] = 2
    del killed, ended
    gc.collect()
    counter_file.acquire_file(tmp_path / "another")
    (reading,) = counter_file.read_files(tmp_path / "killed")
    assert reading.head[counter_file.NAMED] == 2


@pytest.mark.parametrize(("age", "is_there"), [(-1, False), (3600, True)])
def test_memory_that_a_killed_process_has_not_finished_is_removed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: int, is_there: bool
) -> None:
    monkeypatch.setattr(shared_memory, "device", lambda: 1)
    monkeypatch.setattr(shared_memory, "FOLDER", str(tmp_path))
    monkeypatch.setattr(shared_memory, "LOOK_EVERY", 1)
    monkeypatch.setattr(shared_memory, "UNFINISHED", age)
    empty, in_use, other = (tmp_path / name for name in ("stalecache-" + "0" * 32, "stalecache-" + "1" * 32, "empty"))
    for path in (empty, in_use, other):
        path.touch()
    with in_use.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        made = shared_memory.make(4096)
    assert (empty.exists(), in_use.exists(), other.exists(), made.is_current()) == (is_there, True, True, True)


def memory_of_file(path: Path) -> Path:
    return Path(shared_memory.FOLDER, path.read_bytes().split()[3].decode())


def test_a_file_that_names_a_strange_place_is_replaced(directory: Path, tmp_path: Path) -> None:
    directory.mkdir(0o700)
    path = directory / FILE_NAME
    for name in ("../../etc/passwd", "stalecache-" + "0" * 32):
        path.touch()
        head = f"stalecache table\nshared {name} 7 {path.stat().st_ino}\n".encode()
        path.write_bytes(head.ljust(128, b"\n") + bytes(4096))
        see_each_other([FileStore(directory), FileStore(directory)])


def test_a_copy_of_a_directory_has_a_table_of_its_own(directory: Path) -> None:
    store = FileStore(directory)
    keep(store)
    copy = directory.with_name("copy")
    shutil.copytree(directory, copy)
    other = FileStore(copy)
    keep(other, "another")
    assert store.usage().entries == 1
    assert memory_of(directory) != memory_of(copy)


# -- where memory can't be shared ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENODEV, errno.ENOMEM])
def test_where_mappings_are_refused_everything_works_and_the_log_says_what_it_costs(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    refuse_mappings(monkeypatch, number)
    stores = [FileStore(directory), FileStore(directory)]
    with caplog.at_level(logging.INFO, LOGGER):
        see_each_other(stores)
        for store in stores * 3:
            store.tick()
    assert len(caplog.records) == len(stores)
    assert "two system calls" in caplog.text
    assert os.strerror(number) in caplog.text
    limited = FileStore(directory, max_size=40 * 4096)
    for page in range(60):
        limited.write(make_entry(f"page-{page}"))
    assert 10 < limited.usage().entries < 40
    assert limited.usage().bytes <= 40 * 4096
    del stores, store, limited
    gc.collect()
    monkeypatch.undo()
    monkeypatch.setattr(table_file, "SETTLING", 0.0)
    before = [FileStore(directory).usage(), is_in_memory(directory)]
    assert before[1]
    assert 10 < before[0].entries < 40


def test_one_process_that_may_not_map_makes_all_read(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_file, "PATIENCE", 60.0)
    mapping = FileStore(directory)
    keep(mapping)
    with monkeypatch.context() as patched:
        refuse_mappings(patched, errno.EPERM)
        refused = FileStore(directory)
        with housekeeping(mapping):
            refused.load("page")
        # Only now: while a thread opens the table again, copies are dropped.
        see_each_other([mapping, refused])
    assert not is_in_memory(directory)


_there: list[FileStore] = []


def enter_another_container(place: Path) -> None:
    """Have other shared memory from now on."""
    place.mkdir()
    shared_memory.FOLDER = str(place)
    shared_memory.device = lambda: 4711


def load_there(directory: Path) -> bytes | None:
    store = _there[0] if _there else FileStore(directory)
    _there[:] = [store]
    entry = (store.lookup("page") or store.load("page")).entry
    assert entry is None or store.lookup("page") is not None
    return None if entry is None else entry.body


def keep_there(body: bytes) -> None:
    keep(_there[0], body=body)


def purge_there() -> None:
    _there[0].purge(NEWS, soft=False)


def body_here(store: FileStore) -> bytes | None:
    entry = (store.lookup("page") or store.load("page")).entry
    return None if entry is None else entry.body


def test_containers_with_one_directory_and_memory_of_their_own_see_each_other(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = FileStore(directory)
    keep(here)
    with workers(1) as (there,), housekeeping(here):
        there.run(enter_another_container, tmp_path / "shm")
        assert there.run(load_there, directory) == b"old"
        assert not is_in_memory(directory)
        for number in (b"1", b"2"):
            keep(here, body=number)
            assert [there.run(load_there, directory), body_here(here)] == [number, number]
            there.run(keep_there, number * 2)
            assert [there.run(load_there, directory), body_here(here)] == [number * 2] * 2
            (here.purge(NEWS, soft=False) if number == b"1" else there.run(purge_there))
            assert [there.run(load_there, directory), body_here(here)] == [None, None]
    # Who comes next is alone.
    del here
    gc.collect()
    monkeypatch.setattr(table_file, "SETTLING", 0.0)
    see_each_other([FileStore(directory), FileStore(directory)])
    assert is_in_memory(directory)


def test_a_container_that_comes_after_another_makes_a_table_of_its_own(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is left who could see the other one's table, so nobody is waited for."""
    monkeypatch.setattr(shared_memory, "device", lambda: 4711)
    keep(FileStore(directory))
    gc.collect()
    memory_of(directory).unlink()
    monkeypatch.setattr(shared_memory, "device", lambda: 4712)
    see_each_other([FileStore(directory), FileStore(directory)])
    assert is_in_memory(directory)


def test_a_number_that_there_is_no_room_to_change_ends_all_copies(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full copy-on-write disk has no room for a page that it has already."""
    refuse_mappings(monkeypatch, errno.EPERM)
    writer, reader = FileStore(directory), FileStore(directory)
    keep(writer)
    keep(reader, "another")
    reader.load("page")
    real = os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if FILE_NAME in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data, offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        writer.write(make_entry("page", b"new"))
        assert reader.lookup("page") is None
        assert reader.lookup("another") is None
        copy = reader.load("page")
        assert copy.entry is not None
        assert copy.entry.body == b"new"
        writer.purge("all", soft=False)
        assert reader.load("page").entry is None
    for store in (writer, reader):
        store.tick()
    see_each_other([writer, reader])


# -- the parts -------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> HeldFile:
    return HeldFile(open_descriptor(tmp_path / "file", os.O_RDWR | os.O_CREAT))


def test_numbers_in_a_file_are_known_until_it_is_cut(file: HeldFile) -> None:
    file.write(encoded([5, 0, 2**63 - 1]), 8)
    numbers = FileNumbers(file, 8, 3, unequal)
    assert list(numbers) == [numbers[0], numbers[1], numbers[2]] == [5, 0, 2**63 - 1]
    file.cut()
    numbers[2] = 7
    # The hole before it is no number.
    assert numbers[2] == 7
    assert numbers[0] < 0
    assert numbers[0] != numbers[0]
    assert FileNumbers(file, 8, 3, int)[0] == 0


def test_marks_in_a_file_show_after_a_flush(file: HeldFile) -> None:
    file.write(bytes(20), 0)
    mine, theirs = FileMarks(file, 8, 10), FileMarks(file, 8, 10)
    mine[3] = mine[9] = 1
    assert [mine[3], mine[4], theirs[3]] == [1, 0, 0]
    mine.flush()
    assert [theirs[3], theirs[4], theirs[9]] == [1, 0, 1]
    theirs[3] = 0
    assert mine[3] == 0
    file.cut()
    mine[3] = 1
    mine.flush()
    assert file.size == 0


def test_a_held_file_is_never_mistaken_for_another(tmp_path: Path) -> None:
    """A daemon has closed all descriptors, and opened others."""
    file = HeldFile(open_descriptor(tmp_path / "ours", os.O_RDWR | os.O_CREAT))
    descriptor = int(file._descriptor)
    os.close(descriptor)
    (tmp_path / "theirs").write_bytes(b"precious")
    other = os.open(tmp_path / "theirs", os.O_RDWR)
    os.dup2(other, descriptor)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        file.write(b"x", 0)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        file.cut()
    del file
    assert os.pread(descriptor, 8, 0) == b"precious"
    os.close(descriptor)
    if other != descriptor:
        os.close(other)
