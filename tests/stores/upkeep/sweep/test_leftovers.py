"""The sweep: files that killed processes left behind, and files of others."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import time_machine

from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.core.model.note import NOTHING, Note
from flask_stalecache.core.packets.warm_data import file_name
from flask_stalecache.filesystem.locks import FileKeyLock
from flask_stalecache.stores.formats.entry_format import encode
from flask_stalecache.stores.table.stamps import FILE_NAME
from flask_stalecache.stores.upkeep import sweep as sweep_module
from support.engine import make_entry
from support.processes import Worker, workers
from support.sweep import (
    BRIEF,
    DAY,
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
    seen,
    sweep,
    use,
)
from support.threads import wait_until

# -- what was left behind --------------------------------------------------------------------------------------------


LEFTOVERS: dict[str, Callable[[Path], Path]] = {
    "of an entry": lambda directory: leftover(file_of(directory, "page")),
    "of an entry that is not there": lambda directory: leftover(file_of(directory, "gone")),
    "of a note": lambda directory: leftover(file_of(directory, "page", ".note")),
    "of the record of a purge": lambda directory: leftover(directory / "names" / digest("all")),
    "of the last purge number": lambda directory: leftover(directory / "names" / "last"),
    "of the table": lambda directory: leftover(directory / FILE_NAME),
    "of the sweep's own state": lambda directory: leftover(directory / "sweep"),
    "of a request to the worker": lambda directory: directory / file_name(digest("request")),
    "of its outcome": lambda directory: directory / file_name(digest("request"), is_done=True),
    "of an outcome that is being written": lambda directory: leftover(directory / file_name(digest("request"), is_done=True)),
}


@pytest.mark.grid
@pytest.mark.parametrize("place", LEFTOVERS.values(), ids=LEFTOVERS)
@pytest.mark.parametrize(("age", "stays"), [(HOUR - PAUSE, True), (HOUR + 1, False)], ids=["young", "old"])
def test_the_leftover_of_a_killed_writer_goes_after_an_hour(
    directory: Path, clock: time_machine.Traveller, place: Callable[[Path], Path], age: float, stays: bool
) -> None:
    store = open_store(directory)
    keep(store, "page")
    store.purge("tag:news", soft=False)
    left = place(directory)
    left.parent.mkdir(mode=0o700, exist_ok=True)
    left.write_bytes(b"half a")
    aged(left, age)
    sweep(store)
    assert left.exists() == stays
    assert kept(store, "page") == ["page"]


def write_half(directory: Path, moment: float, told: Path) -> None:
    """Write an entry and a note, and never come to the rename of what is written next."""
    with time_machine.travel(moment, tick=False):
        store = open_store(directory)
        keep(store, "page")

        def stop(*_: object, **__: object) -> None:
            told.touch()
            threading.Event().wait()

        pytest.MonkeyPatch().setattr(os, "rename", stop)
        keep(store, "page")


def test_a_writer_that_is_killed_leaves_nothing_for_ever(tmp_path: Path, directory: Path, clock: time_machine.Traveller) -> None:
    with workers(1) as made:
        made[0].start(write_half, directory, time.time(), tmp_path / "told")
        wait_until((tmp_path / "told").exists)
        made[0].kill()
    (left,) = directory.glob("??/*.tmp")
    store = open_store(directory)
    assert store.load("page").entry is not None
    clock.shift(HOUR - 1)
    use(store, "page")
    sweep(store)
    assert left.exists()
    clock.shift(PAUSE)
    sweep(store)
    assert not left.exists()
    assert kept(store, "page") == ["page"]


@pytest.mark.parametrize(
    ("beside", "age", "stays"),
    [
        (False, 59, True),
        (False, 61, False),
        (True, HOUR - 1, True),
        (True, HOUR + 1, False),
    ],
    ids=["alone, young", "alone, idle", "beside an entry, young", "beside an entry, idle"],
)
def test_an_idle_lock_goes(directory: Path, clock: time_machine.Traveller, beside: bool, age: float, stays: bool) -> None:
    store = open_store(directory)
    if beside:
        keep(store, "page", windows=(DAY, 0, 0))
    store.load("page")
    aged(abandoned(file_of(directory, "page", ".lock")), age)
    sweep(store)
    assert file_of(directory, "page", ".lock").exists() == stays
    assert kept(store, "page") == (["page"] if beside else [])


def hold(directory: Path, key: str) -> bool:
    HELD.append(open_store(directory).lock(key))
    return HELD[-1].acquire()


def let_go() -> None:
    HELD.pop().release()


#: What a worker holds.
HELD: list[FileKeyLock] = []


@pytest.mark.parametrize("beside", [True, False])
def test_a_lock_that_is_held_stays_and_so_does_what_it_is_of(
    worker: Worker, directory: Path, clock: time_machine.Traveller, beside: bool
) -> None:
    store = open_store(directory)
    store.load("page")
    if beside:
        keep(store, "page")
    path = file_of(directory, "page", ".lock")
    assert worker.run(hold, directory, "page")
    inode = aged(path, 2 * DAY).stat().st_ino
    clock.shift(2 * DAY)
    for _ in range(2):
        sweep(store)
        assert path.stat().st_ino == inode
        assert kept(store, "page") == (["page"] if beside else [])
        assert not store.lock("page").acquire()
        clock.shift(PAUSE)
    worker.run(let_go)
    sweep(store)
    assert list(directory.glob("??/*")) == []


@pytest.mark.parametrize(
    ("inactive", "age", "stays"),
    [(INACTIVE, INACTIVE - 1, True), (INACTIVE, INACTIVE + 1, False), (DAY, HOUR - 1, True), (DAY, HOUR + 1, False)],
)
def test_a_note_without_an_entry_goes(
    directory: Path, clock: time_machine.Traveller, inactive: float, age: float, stays: bool
) -> None:
    store = open_store(directory, inactive)
    store.write_note("page", Note(failures=1))
    clock.shift(age)
    sweep(store)
    assert file_of(directory, "page", ".note").exists() == stays
    assert (open_store(directory).load("page").note != NOTHING) == stays


def count_up(directory: Path, number: Path, times: int, removed: Path) -> int:
    """Increment a number in a file under a key's lock, so many times at least, and until locks are removed; return how often."""
    store, pause = open_store(directory), threading.Event()
    for done in count():
        if done >= times and removed.exists():
            return done
        lock = store.lock("page")
        while not lock.acquire():
            pause.wait(0.0002)
        number.write_text(str(int(number.read_text()) + 1))
        lock.release()
        # Else the sweeper would hardly ever find it free.
        pause.wait(0.0005)
    raise AssertionError


def sweep_locks(directory: Path, stop: Path, removed: Path) -> None:
    """Sweep all locks that nobody holds, again and again."""
    pytest.MonkeyPatch().setattr(sweep_module, "PAUSE", 0)
    pytest.MonkeyPatch().setattr(sweep_module, "LEFTOVER_AGE", -1)
    unlink = os.unlink

    def telling(path: str | Path, **options: int) -> None:
        unlink(path, **options)
        if str(path).endswith(digest("page") + ".lock"):
            removed.touch()

    pytest.MonkeyPatch().setattr(os, "unlink", telling)
    store = open_store(directory)
    store.load("page")
    while not stop.exists():
        store.tick()


@pytest.mark.soak
def test_contenders_for_a_lock_that_is_swept_away_never_meet(
    tmp_path: Path, directory: Path, soak: Callable[[int, int], int]
) -> None:
    number, stop, removed, times = tmp_path / "number", tmp_path / "stop", tmp_path / "removed", soak(2000, 20)
    number.write_text("0")
    with workers(3) as (sweeper, *counting):
        sweeper.start(sweep_locks, directory, stop, removed)
        for worker in counting:
            worker.start(count_up, directory, number, times, removed)
        counted = [worker.result() for worker in counting]
        stop.touch()
        sweeper.result()
    assert int(number.read_text()) == sum(counted)


# -- what is not ours ------------------------------------------------------------------------------------------------


def a_file(path: Path, precious: Path) -> None:
    path.write_text("a stranger's")


def a_folder(path: Path, precious: Path) -> None:
    path.mkdir()
    (path / "inside").write_text("a stranger's")


def a_link(path: Path, precious: Path) -> None:
    path.symlink_to(precious)


def a_pipe(path: Path, precious: Path) -> None:
    os.mkfifo(path)


#: Where, with HASH for a key's hash of its own, AB for its folder and CD for another one; and what.
STRANGERS: list[tuple[str, Callable[[Path, Path], None]]] = [
    ("README", a_file),
    ("README.0123456789abcdef.tmp", a_file),
    ("purge", a_file),
    ("warm-HASH.bak", a_file),
    ("warm-HASH", a_folder),
    ("warm-notes", a_file),
    ("HASH", a_file),
    ("zz", a_folder),
    ("AB0", a_folder),
    ("AB/notes.txt", a_file),
    ("AB/x.tmp", a_file),
    ("AB/notes.txt.0123456789abcdef.tmp", a_file),
    ("AB/HASH0", a_file),
    ("AB/HASH.bak", a_file),
    ("AB/HASH.lock.bak", a_file),
    ("AB/HASH.tmp", a_file),
    ("AB/HASH.0123456789abcde.tmp", a_file),
    ("AB/HASH.0123456789abcdef.tmp.gz", a_file),
    ("AB/.HASH", a_file),
    ("AB/HASH", a_folder),
    ("AB/HASH", a_link),
    ("AB/HASH", a_pipe),
    ("AB/HASH.note", a_folder),
    ("AB/HASH.note", a_link),
    ("AB/HASH.lock", a_folder),
    ("AB/HASH.lock", a_link),
    ("AB/HASH.0123456789abcdef.tmp", a_folder),
    ("AB/HASH.0123456789abcdef.tmp", a_link),
    ("CD/HASH", a_file),
    ("CD/HASH.note", a_file),
    ("CD/HASH.lock", a_file),
    ("CD/HASH.0123456789abcdef.tmp", a_file),
    ("names/README", a_file),
    ("names/notes.0123456789abcdef.tmp", a_file),
    ("names/last.bak", a_file),
    ("names/HASH.bak", a_file),
    ("names/HASH", a_folder),
    ("names/HASH", a_link),
]


def stranger(directory: Path, number: int, name: str) -> Path:
    key = digest(f"stranger {number}")
    return directory / name.replace("HASH", key).replace("AB", key[:2]).replace("CD", f"{int(key[:2], 16) ^ 1:02x}")


def test_what_is_not_ours_is_never_touched(tmp_path: Path, directory: Path, clock: time_machine.Traveller) -> None:
    store, precious = open_store(directory), tmp_path / "precious"
    store.purge("tag:news", soft=False)
    precious.write_bytes(encode(make_entry(windows=BRIEF)))
    paths = [stranger(directory, number, name) for number, (name, _) in enumerate(STRANGERS)]
    for path, (_, make) in zip(paths, STRANGERS, strict=True):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        make(path, precious)
    for path in (*paths, precious):
        for old in (path, *path.glob("inside")):
            aged(old, YEAR)
    before = {path: seen(path) for path in (*paths, precious)}
    keep(store, "page")
    clock.shift(2 * DAY)
    sweep(store)
    store.purge("all", soft=False)
    clock.shift(PAUSE)
    sweep(store)
    assert {path: seen(path) for path in before} == before
    assert kept(store, "page") == []


def test_a_file_in_place_of_a_folder_is_left_alone(directory: Path, clock: time_machine.Traveller) -> None:
    store, place = open_store(directory), file_of(directory, "page").parent
    keep(store, "other")
    place.write_text("a stranger's")
    clock.shift(INACTIVE + 1)
    sweep(store)
    assert place.read_text() == "a stranger's"
    assert kept(store, "other") == []
