"""The file store: purges and the table of stamps. Covers ``stores.table.stamps``."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import time_machine

from flask_stalecache import FileStore
from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.stores.purges.purge_records import PurgeRecords
from flask_stalecache.stores.table import table_file
from flask_stalecache.stores.table.stamps import FILE_NAME, SIZE, Stamps, slot_of
from support.engine import make_entry
from support.file_store import counted, make_site, temporary_files, visit
from support.processes import workers

# -- purging ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("all",), ("all", "tag:news", "tag:sport")], ids=len)
def test_a_purge_goes_through_its_steps_in_the_order_of_the_model(
    directory: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    """Each step for all names, before the next one (``tests/stores/purging/test_model.py``)."""
    store, steps = FileStore(directory), list[tuple[object, ...]]()
    store.load("anything")

    def noting(kind: type, method: str, told: Callable[..., object]) -> None:
        real = getattr(kind, method)

        def step(self: object, *arguments: Any) -> Any:
            steps.append((method, told(*arguments)))
            return real(self, *arguments)

        monkeypatch.setattr(kind, method, step)

    noting(PurgeRecords, "note_number", int)
    noting(PurgeRecords, "write", lambda record: (record.name, record.hard))
    noting(Stamps, "begin_purge", int)
    noting(Stamps, "raise_seq", int)
    noting(Stamps, "move", int)
    store.purge(*names, soft=False)
    after = store.seq()
    assert steps == [
        ("note_number", after),
        ("begin_purge", after - 1),
        *[("write", (name, after)) for name in names],
        *[("move", slot_of(digest(name))) for name in names],
        ("raise_seq", after),
        ("begin_purge", after),
    ]


# -- the table of stamps ---------------------------------------------------------------------------------------------


BLOCK = 4096


def table_of(directory: Path) -> Path:
    return directory / FILE_NAME


def is_whole(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISREG(status.st_mode) and status.st_size > BLOCK and path.read_bytes().startswith(b"stalecache table\n")


def deleted(path: Path) -> None:
    path.unlink()


def replaced_by_another(path: Path) -> None:
    shutil.copyfile(path, path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)


def replaced_by_a_sparse_one(path: Path) -> None:
    path.unlink()
    with path.open("wb") as file:
        file.truncate(SIZE)


def replaced_by_a_short_one(path: Path) -> None:
    path.unlink()
    path.write_bytes(bytes(4096))


def replaced_by_an_empty_one(path: Path) -> None:
    path.unlink()
    path.touch()


def replaced_by_a_link(path: Path) -> None:
    path.rename(path.with_suffix(".old"))
    path.symlink_to(path.with_suffix(".old"))


def cut_in_place(path: Path) -> None:
    os.truncate(path, 4096)


def emptied_in_place(path: Path) -> None:
    os.truncate(path, 0)


def cut_and_grown_in_place(path: Path) -> None:
    os.truncate(path, 0)
    os.truncate(path, SIZE)


DAMAGES = [
    deleted,
    replaced_by_another,
    replaced_by_a_sparse_one,
    replaced_by_a_short_one,
    replaced_by_an_empty_one,
    replaced_by_a_link,
    cut_in_place,
    emptied_in_place,
    cut_and_grown_in_place,
]


def live_through(directory: Path, damage: Callable[[Path], None]) -> list[object]:
    """Use a store whose table is damaged, in a process that SIGBUS would kill; return what is left to compare."""
    store = FileStore(directory)
    keys = [f"page-{number}" for number in range(50)]
    for key in keys:
        store.write(make_entry(key, b"old"))
        store.load(key)
    damage(table_of(directory))
    store.tick()
    for key in keys:
        store.lookup(key)
        store.load(key)
        store.write(make_entry(key, b"new"))
        copy = store.load(key)
        assert copy.entry is not None
        assert copy.entry.body == b"new"
        assert store.lookup(key) is copy
    other = FileStore(directory)
    for key in keys:
        other.write(make_entry(key, b"another process's"))
    assert [store.lookup(key) for key in keys] == [None] * len(keys)
    return [is_whole(directory / FILE_NAME), temporary_files(directory)]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_table_is_mapped_anew(directory: Path, damage: Callable[[Path], None]) -> None:
    with workers(1) as made:
        assert made[0].run(live_through, directory, damage) == [True, []]


@pytest.mark.parametrize("damage", [replaced_by_a_sparse_one, replaced_by_a_short_one, replaced_by_an_empty_one])
def test_a_table_that_is_not_whole_is_made_anew_at_first_use(directory: Path, damage: Callable[[Path], None]) -> None:
    FileStore(directory).load("page")
    damage(table_of(directory))
    store, other = FileStore(directory), FileStore(directory)
    store.write(make_entry())
    assert is_whole(table_of(directory))
    copy = store.load("page")
    assert store.lookup("page") is copy
    other.write(make_entry())
    assert store.lookup("page") is None


def test_a_new_table_ends_all_copies(directory: Path) -> None:
    """A stamp of the old table says nothing in the new one, where all are zero again."""
    FileStore(directory).write(make_entry(body=b"old"))
    table_of(directory).unlink()
    store, other = FileStore(directory), FileStore(directory)
    copy = store.load("page")
    assert store.lookup("page") is copy
    other.write(make_entry(body=b"new"))
    table_of(directory).unlink()
    store.tick()
    assert store.lookup("page") is None


def test_of_two_makers_of_a_table_the_first_wins(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = FileStore(directory), FileStore(directory)
    allocate, made = os.posix_fallocate, []

    def allocate_while_another_does(descriptor: int, offset: int, size: int) -> None:
        allocate(descriptor, offset, size)
        if not made:
            made.append(True)
            first.write(make_entry(body=b"old"))
            first.load("page")

    monkeypatch.setattr(os, "posix_fallocate", allocate_while_another_does)
    second.write(make_entry(body=b"new"))
    assert made
    assert first.lookup("page") is None
    copy = second.load("page")
    first.write(make_entry())
    assert second.moved(copy)
    assert temporary_files(directory) == []


def test_tick_leaves_a_good_table_and_its_copies_alone(directory: Path) -> None:
    store = FileStore(directory)
    store.write(make_entry())
    copy = store.load("page")
    inode = table_of(directory).stat().st_ino
    store.tick()
    assert store.lookup("page") is copy
    assert table_of(directory).stat().st_ino == inode


def open_and_write(directory: Path, name: str) -> None:
    store = FileStore(directory)
    store.write(make_entry(name))
    store.load(name)


def test_processes_that_open_at_once_share_one_table(directory: Path) -> None:
    with workers(3) as made:
        for number, worker in enumerate(made):
            worker.start(open_and_write, directory, str(number))
        for worker in made:
            worker.result()
    store, other = FileStore(directory), FileStore(directory)
    assert is_whole(table_of(directory))
    assert temporary_files(directory) == []
    store.load("0")
    other.write(make_entry("0"))
    assert store.lookup("0") is None


def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_without_room_for_the_table_everything_works_without_copies(
    directory: Path, monkeypatch: pytest.MonkeyPatch, clock: time_machine.Traveller
) -> None:
    monkeypatch.setattr(table_file, "_written_beside", no_room)
    app, runs = make_site(directory, REFRESH_WORKERS=0)
    engine = app.extensions["stalecache"].engine
    assert [visit(app) for _ in range(3)] == [("MISS", "run 1"), ("HIT", "run 1"), ("HIT", "run 1")]
    assert counted(app, "no_stamps") >= 1
    assert counted(app, "store_failures") == 0
    assert temporary_files(directory) == []

    store, other = FileStore(directory), FileStore(directory)
    entry = make_entry()
    store.write(entry)
    copy = store.load("page")
    assert copy.entry == entry
    assert store.lookup("page") is None
    assert store.moved(copy)
    other.remove("page")
    assert store.load("page").entry is None

    clock.shift(61)
    assert [visit(app) for _ in range(2)] == [("STALE", "run 1"), ("HIT", "run 2")]
    assert runs == [1, 2]

    monkeypatch.undo()
    store.write(entry)
    for each in (store, engine.store):
        each.tick()
    copy = store.load("page")
    assert store.lookup("page") is copy
    other.load("page")
    other.tick()
    other.write(make_entry())
    assert store.lookup("page") is None
    assert visit(app) == ("HIT", "run 2")
