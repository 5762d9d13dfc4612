"""Purging: a table that was lost, and files that were damaged or copied."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import time_machine

from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.filesystem.sealed import seal, seal_json
from flask_stalecache.stores import cache_directory as directory_module
from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.table.stamps import FILE_NAME
from support.engine import FakeOrigin, make_entry, storable
from support.processes import Worker
from support.purging import (
    DAY,
    HOUR,
    NAMES,
    NEW,
    NEWS,
    OLD,
    OVER,
    SPORT,
    VERSION,
    Numbers,
    at,
    begun,
    body_in,
    fresh_body_in,
    seen_by,
)

# -- a lost table ----------------------------------------------------------------------------------------------------


def delete_table(directory: Path) -> None:
    (directory / FILE_NAME).unlink()


def replace_table(directory: Path) -> None:
    path = directory / FILE_NAME
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(bytes(len(data)))


def truncate_elsewhere(directory: Path) -> None:
    """Somebody put a cut copy in its place."""
    beside = directory / "beside"
    beside.write_bytes((directory / FILE_NAME).read_bytes()[:1000])
    beside.rename(directory / FILE_NAME)


LOSSES = [delete_table, replace_table, truncate_elsewhere]


@pytest.mark.grid
@pytest.mark.parametrize("lose", LOSSES)
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("seen_by", ["tick", "purge", "a new process"])
def test_purges_outlive_the_table(
    directory: Path, clock: time_machine.Traveller, lose: Callable[[Path], None], soft: bool, seen_by: str
) -> None:
    """What was purged stays purged, what was stored stays stored, and the next purges work, whoever makes the new table."""
    stores = [FileStore(directory), FileStore(directory)]
    before = begun(stores[0], OLD)
    for key in ("page", "kept"):
        stores[0].write(make_entry(key, OLD, names=("all", NEWS if key == "page" else SPORT), seq=stores[0].seq()))
        stores[1].load(key)
    stores[1].purge(NEWS, soft=soft)
    numbers = [stores[1].seq()]
    lose(directory)
    clock.shift(-HOUR)
    if seen_by == "tick":
        for store in stores:
            store.tick()
    elif seen_by == "purge":
        stores[0].purge("tag:another", soft=False)
        stores[1].tick()
    else:
        stores = [FileStore(directory), FileStore(directory)]
    for store in stores:
        assert fresh_body_in(store) is None
        assert soft or body_in(store) is None
        assert body_in(store, "kept") == OLD
        assert store.lookup("kept") is store.lookup("kept") is not None
    assert stores[0].write(before) is soft
    after = begun(stores[1], NEW)
    assert after.seq >= numbers[0]
    assert stores[1].write(after)
    assert [fresh_body_in(store) for store in stores] == [NEW] * 2
    stores[0].purge(SPORT, soft=False)
    assert stores[0].seq() > after.seq
    assert [body_in(store, "kept") for store in stores] == [None] * 2
    assert [fresh_body_in(store) for store in stores] == [NEW] * 2
    stores[1].purge(NEWS, soft=False)
    assert [body_in(store) for store in stores] == [None] * 2


@pytest.mark.parametrize("lose", LOSSES)
def test_a_purge_by_a_process_that_has_not_seen_the_loss_is_done_on_the_new_table(
    directory: Path, lose: Callable[[Path], None]
) -> None:
    """One process has mapped the new table already, and holds copies by it."""
    stores = [FileStore(directory), FileStore(directory)]
    stores[0].purge("tag:another", soft=False)
    stores[0].write(begun(stores[0], OLD))
    stores[1].load("page")
    lose(directory)
    stores[0].tick()
    copy = stores[0].load("page")
    assert stores[0].lookup("page") is copy
    stores[1].purge(NEWS, soft=False)
    assert [body_in(store) for store in stores] == [None] * 2


def test_a_directory_deleted_while_a_purge_runs_is_purged_anew(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has made the directory anew by then, and holds copies of it."""
    mine, other = FileStore(directory), FileStore(directory)
    mine.write(begun(mine, OLD))
    write, done = mine._records.write, []

    def replace_the_directory(*args: Any) -> None:
        if not done:
            done.append(True)
            directory.rename(directory.with_name("away"))
            other.tick()
            other.write(begun(other, OLD))
            assert body_in(other) == OLD
            assert other.lookup("page") is not None
        write(*args)

    monkeypatch.setattr(mine._records, "write", replace_the_directory)
    mine.purge(NEWS, soft=False)
    assert done
    assert [body_in(store) for store in (mine, other, FileStore(directory))] == [None] * 3


def play_loss_under_way(place: Path, rounds: int) -> None:
    """Publish and visit while somebody deletes the table again and again; each purge is seen at once by who did it."""
    engine, numbers = at(place)
    origin = FakeOrigin(lambda start: storable(start, b"%d" % numbers[VERSION], names=NAMES))
    for _ in range(rounds):
        numbers[VERSION] += 1
        engine.store.purge(NEWS, soft=False)
        assert seen_by(engine, origin)[1] == numbers[VERSION]
        engine.store.tick()
    numbers[OVER] = 1


@pytest.mark.soak
def test_the_table_may_be_lost_while_a_process_purges(worker: Worker, tmp_path: Path, soak: Callable[[int, int], int]) -> None:
    numbers = Numbers(tmp_path)
    worker.start(play_loss_under_way, tmp_path, soak(2000, 25))
    pause, other = threading.Event(), FileStore(tmp_path / "cache")
    while not numbers[OVER] and worker.process.poll() is None:
        (tmp_path / "cache" / FILE_NAME).unlink(missing_ok=True)
        other.tick()
        pause.wait(0.01)
    worker.result()
    other.purge(NEWS, soft=False)
    assert body_in(other) is None


def test_without_a_table_purges_work_from_files(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(path: Path) -> Any:
        raise OSError("no room for the table")

    monkeypatch.setattr(directory_module, "Stamps", no_room)
    stores = [FileStore(directory), FileStore(directory)]
    for soft in (False, True, False):
        before = begun(stores[0], OLD)
        assert stores[0].write(before)
        assert [fresh_body_in(store) for store in stores] == [OLD] * 2
        stores[1].purge(SPORT, soft=soft)
        assert [fresh_body_in(store) for store in stores] == [OLD] * 2
        stores[1].purge(NEWS, soft=soft)
        for store in stores:
            assert fresh_body_in(store) is None
            assert soft or body_in(store) is None
        assert stores[0].write(before) is soft


# -- damaged and copied files ----------------------------------------------------------------------------------------


def damaged(path: Path, data: bytes, time_ns: int | None = None) -> None:
    """Replace what a file holds, and leave its time as it was unless one is given."""
    status = path.stat()
    path.write_bytes(data)
    time_ns = status.st_mtime_ns if time_ns is None else time_ns
    os.utime(path, ns=(time_ns, time_ns))


def record_of(directory: Path, name: str) -> Path:
    return directory / "names" / digest(name)


GARBAGE: list[bytes] = [
    b"",
    b"{",
    b"\0" * 70,
    b"null",
    b"{}",
    b'{"name": "tag:news", "hard": null, "softs": []}',
    b'{"name": "tag:news", "hard": "many", "softs": []}',
    b'{"name": "tag:news", "hard": 1, "softs": [[1]]}',
    b'{"name": "tag:news", "hard": 1, "softs": [[1, "noon"]]}',
    b'{"name": "tag:news", "hard": 1, "softs": 7}',
    b'{"name": "tag:news", "hard": 1e999, "softs": []}',
    b'{"name": "tag:news", "hard": 1' + b"0" * 5000 + b', "softs": []}',
]


GARBAGE += [seal(b"NAME", data.replace(b"]}", b'], "up": ["x", 1]}')) for data in GARBAGE]
GARBAGE += [seal(b"NAME", b"[" * 100_000), seal_json(b"NAME", {"name": "tag:sport", "hard": 1, "softs": [], "up": ["x", 1]})]


@pytest.mark.grid
@pytest.mark.parametrize("data", GARBAGE, ids=range(len(GARBAGE)))
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("opened", [False, True], ids=["found by a new process", "found by a running one"])
def test_who_has_a_damaged_record_is_dropped_and_can_be_purged_again(
    directory: Path, clock: time_machine.Traveller, data: bytes, soft: bool, opened: bool
) -> None:
    """Nobody can tell any more what was purged: what was begun before is dropped, what comes later is kept."""
    store = FileStore(directory)
    store.write(begun(store, OLD))
    store.purge(NEWS, soft=soft)
    damaged(record_of(directory, NEWS), data)
    clock.shift(HOUR)
    if not opened:
        store = FileStore(directory)
    store.load("page")
    assert fresh_body_in(store) is None
    store.purge(SPORT, soft=False)
    assert store.write(begun(store, NEW))
    assert fresh_body_in(store) == NEW
    # An hour later, so that it is not by the damaged record's time that this purge is effective.
    store.purge(NEWS, soft=soft)
    assert fresh_body_in(store) is None
    assert soft or body_in(store) is None
    for each in (store, FileStore(directory)):
        assert each.write(begun(each, NEW))
        assert fresh_body_in(each) == NEW
        assert each.lookup("page") is not None


def test_no_flipped_bit_of_a_record_is_an_error(directory: Path) -> None:
    store = FileStore(directory, memory_size=0)
    store.write(begun(store, OLD))
    store.purge(NEWS, soft=True)
    path = record_of(directory, NEWS)
    whole = path.read_bytes()
    for position in range(len(whole)):
        for bit in (0, 4, 6):
            changed = bytearray(whole)
            changed[position] ^= 1 << bit
            damaged(path, bytes(changed))
            assert fresh_body_in(store) is None
            assert body_in(store) in (OLD, None)


LAST_DAMAGES: dict[str, Callable[[Path], object]] = {
    "deleted": lambda path: path.unlink(),
    "emptied": lambda path: damaged(path, b""),
    "cut": lambda path: damaged(path, path.read_bytes()[:5]),
    "zeros": lambda path: damaged(path, bytes(19)),
    "garbage": lambda path: damaged(path, b"<!doctype html>"),
    "a number that no slot holds": lambda path: damaged(path, b"9" * 40),
    "a negative number": lambda path: damaged(path, b"-1800000000000000000"),
}


@pytest.mark.parametrize("damage", LAST_DAMAGES.values(), ids=LAST_DAMAGES)
def test_without_the_last_number_the_records_tell_it(
    directory: Path, clock: time_machine.Traveller, damage: Callable[[Path], object]
) -> None:
    """The table is lost, too, and the clock has stepped back: still no number is given twice, and nothing old comes back."""
    store = FileStore(directory)
    store.write(begun(store, OLD))
    store.purge(NEWS, soft=False)
    store.purge(SPORT, soft=False)
    after = make_entry("after", NEW, names=NAMES, seq=store.seq())
    assert store.write(after)
    damage(directory / "names" / "last")
    delete_table(directory)
    clock.shift(-HOUR)
    store = FileStore(directory)
    assert body_in(store) is None
    assert body_in(store, "after") == NEW
    assert store.seq() >= after.seq
    assert store.write(begun(store, NEW))
    store.purge(NEWS, soft=False)
    for each in (store, FileStore(directory)):
        assert (body_in(each), body_in(each, "after")) == (None, None)


@pytest.mark.grid
@pytest.mark.parametrize("preserve", [True, False], ids=["with its times", "with new times"])
@pytest.mark.parametrize("soft", [False, True])
def test_a_copied_directory_has_the_same_purged(
    directory: Path, tmp_path: Path, clock: time_machine.Traveller, soft: bool, preserve: bool
) -> None:
    """A copy takes a while, and takes the files in any order; the table comes along or not."""
    store, names = FileStore(directory), [f"tag:{number}" for number in range(6)]
    for name in names:
        store.write(make_entry(name, OLD, names=("all", name), seq=store.seq()))
        clock.shift(10)
        store.purge(name, soft=soft)
    kept = make_entry("kept", OLD, windows=(DAY, 0, 0), names=("all", SPORT), seq=store.seq())
    store.write(kept)
    for number, order in enumerate((names, names[::-1])):
        copied = shutil.copytree(directory, tmp_path / f"copy-{number}", copy_function=shutil.copy2)
        if not preserve:
            for minutes, name in enumerate(order):
                later = int((time.time() + 60 * minutes) * 1e9)
                os.utime(record_of(copied, name), ns=(later, later))
        if number:
            delete_table(copied)
        clock.shift(HOUR)
        stores = [FileStore(copied), FileStore(copied)]
        for name in names:
            assert [fresh_body_in(store, name) for store in stores] == [None] * 2
            assert soft or [body_in(store, name) for store in stores] == [None] * 2
        assert [body_in(store, "kept") for store in stores] == [OLD] * 2
        for name in names:
            assert stores[0].write(make_entry(name, NEW, names=("all", name), seq=stores[0].seq()))
        assert [fresh_body_in(store, name) for store in stores for name in names] == [NEW] * 12
        stores[1].purge("all", soft=soft)
        assert [fresh_body_in(store, name) for store in stores for name in names] == [None] * 12
