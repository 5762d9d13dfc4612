"""Directories that are restored to an older state: the purges that they lack end all freshness, softly and once.

Covers ``stores.purges.highest_number``.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import time_machine

from flask_stalecache.core.addressing.purge_names import EVERYTHING
from flask_stalecache.core.model.entry import Entry
from flask_stalecache.filesystem import shared_memory
from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.purges import highest_number
from flask_stalecache.stores.purges.highest_number import HighestNumber
from flask_stalecache.stores.purges.purge_records import PurgeRecords
from flask_stalecache.stores.table.stamps import SEQ_SLOT
from support.engine import make_entry
from support.purging import NAMES, NEWS
from support.systems import NOWHERE


def put(store: FileStore, key: str, body: bytes = b"old", names: tuple[str, ...] = NAMES) -> None:
    assert store.write(make_entry(key, body, names=names, seq=store.seq()))


def state_of(store: FileStore, key: str) -> str:
    entry: Entry | None = store.load(key).entry
    return "gone" if entry is None else "stale" if entry.ended else "fresh"


def backup_of(directory: Path) -> Path:
    backup = directory.with_name("backup")
    subprocess.run(["cp", "-a", str(directory), str(backup)], check=True)
    return backup


def in_its_place(directory: Path, backup: Path) -> None:
    shutil.rmtree(directory)
    subprocess.run(["cp", "-a", str(backup), str(directory)], check=True)


def over_it(directory: Path, backup: Path) -> None:
    subprocess.run(["cp", "-a", f"{backup}/.", str(directory)], check=True)


def with_new_files(directory: Path, backup: Path) -> None:
    """Restore as rsync does: each file is written under another name, and renamed."""
    for path in sorted(backup.rglob("*")):
        to = directory / path.relative_to(backup)
        if path.is_file():
            to.parent.mkdir(exist_ok=True)
            shutil.copy2(path, to.with_name(f".{to.name}"))
            to.with_name(f".{to.name}").rename(to)


RESTORES = [in_its_place, over_it, with_new_files]


def lived(directory: Path) -> tuple[FileStore, Path]:
    """Return a store with two pages, one of which was purged since the backup was made."""
    store = FileStore(directory)
    # So there is an older record of the name in the backup, too.
    store.purge(NEWS, soft=False)
    put(store, "page")
    put(store, "other", names=(EVERYTHING, "tag:other"))
    assert [state_of(store, key) for key in ("page", "other")] == ["fresh", "fresh"]
    backup = backup_of(directory)
    store.purge(NEWS, soft=False)
    put(store, "page", b"new")
    return store, backup


@pytest.mark.parametrize("restore", RESTORES)
def test_running_processes_notice(directory: Path, restore: Callable[[Path, Path], None], caplog: pytest.LogCaptureFixture) -> None:
    store, backup = lived(directory)
    others = [FileStore(directory) for _ in range(2)]
    for other in others:
        state_of(other, "page")
    restore(directory, backup)
    for each in (store, *others):
        each.tick()
        assert [state_of(each, key) for key in ("page", "other")] == ["stale", "stale"]
    assert [
        record.getMessage() for record in caplog.records if record.levelno == logging.WARNING and "older state" in record.msg
    ] == [
        f"{directory} was restored to an older state, and purges since then are missing: the freshness of all its entries ends now"
    ]


@pytest.mark.parametrize("restore", RESTORES)
def test_new_processes_notice(directory: Path, restore: Callable[[Path, Path], None]) -> None:
    store, backup = lived(directory)
    del store
    restore(directory, backup)
    later = FileStore(directory)
    assert [state_of(later, key) for key in ("page", "other")] == ["stale", "stale"]


def test_a_copied_table_tells_it_even_to_another_machine(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, backup = lived(directory)
    del store
    # As in a new container, or after a start of the machine.
    monkeypatch.setattr(highest_number.HighestNumber, "_path", lambda self: None)
    # A file in the place of a removed one may get its number, and then nothing tells the two apart.
    directory.rename(tmp_path / "aside")
    backup.rename(directory)
    subprocess.run(["cp", "-a", str(tmp_path / "aside" / "stamps-4"), str(directory / "stamps-4")], check=True)
    assert state_of(FileStore(directory), "page") == "stale"


def test_a_directory_that_was_moved_away_and_back(directory: Path) -> None:
    store = FileStore(directory)
    put(store, "page")
    directory.rename(directory.with_name("aside"))
    store.tick()
    assert state_of(store, "page") == "gone"
    put(store, "page", b"meanwhile")
    store.purge(NEWS, soft=False)
    shutil.rmtree(directory)
    directory.with_name("aside").rename(directory)
    for each in (store, FileStore(directory)):
        each.tick()
        assert state_of(each, "page") == "stale"


def test_it_is_noticed_once(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    store, backup = lived(directory)
    over_it(directory, backup)
    store.tick()
    put(store, "another")
    for each in (store, FileStore(directory), store, FileStore(directory)):
        each.tick()
        assert [state_of(each, key) for key in ("page", "another")] == ["stale", "fresh"]
    store.purge("tag:later", soft=False)
    assert state_of(FileStore(directory), "another") == "fresh"
    assert caplog.text.count("older state") == 1


@pytest.mark.parametrize("is_running", [True, False])
def test_a_purge_does_not_hide_it(directory: Path, is_running: bool) -> None:
    """It is given a number that is higher than those that were lost."""
    store, backup = lived(directory)
    over_it(directory, backup)
    purging = store if is_running else FileStore(directory)
    purging.purge("tag:unrelated", soft=False)
    assert [state_of(each, "other") for each in (purging, FileStore(directory))] == ["stale", "stale"]


def test_a_purge_that_is_not_lost_leaves_everything_fresh(directory: Path) -> None:
    store, _ = lived(directory)
    for each in (FileStore(directory), store):
        each.tick()
        each.sweep()
        assert [state_of(each, key) for key in ("page", "other")] == ["fresh", "fresh"]
    os.unlink(directory / "stamps-4")
    store.tick()
    assert [state_of(store, key) for key in ("page", "other")] == ["fresh", "fresh"]


def test_a_purge_while_another_thread_looks_is_not_lost(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is written before the number is remembered, and read after it."""
    store, read, looks = FileStore(directory), PurgeRecords._noted, list[PurgeRecords]()
    store.purge(NEWS, soft=False)

    def read_and_purge(records: PurgeRecords) -> int | None:
        looks.append(records)
        number = read(records)
        if len(looks) == 1:
            store.purge(NEWS, soft=False)
        return number

    with monkeypatch.context() as patch:
        patch.setattr(PurgeRecords, "_noted", read_and_purge)
        assert not store._records.has_gone_back()
    assert len(looks) > 1


def test_a_number_that_was_lowered_in_the_table_is_no_purge_that_was_lost(directory: Path, clock: time_machine.Traveller) -> None:
    """Two purges without the lock that raise it at once may lower it. The clock was ahead, so a time is no higher number."""
    store, other = FileStore(directory), FileStore(directory)
    put(store, "page", names=("all",))
    other.purge(NEWS, soft=False)
    store.purge(NEWS, soft=False)
    stamps = store._cache_directory.stamps
    assert stamps is not None
    stamps.table[SEQ_SLOT] -= 1_000_000
    clock.shift(-3600)
    store.purge(NEWS, soft=False)
    for each in (store, other, FileStore(directory)):
        each.tick()
        assert state_of(each, "page") == "fresh"


def test_an_emptied_directory_lacks_nothing(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    store, _ = lived(directory)
    shutil.rmtree(directory)
    for each in (store, FileStore(directory), FileStore(directory)):
        each.tick()
        put(each, "page", b"newer")
        assert state_of(each, "page") == "fresh"
    assert "older state" not in caplog.text


def test_a_restore_over_an_emptied_directory(directory: Path) -> None:
    """The processes that have seen it empty end before it is restored."""
    store, backup = lived(directory)
    shutil.rmtree(directory)
    store.tick()
    put(store, "page", b"newer")
    del store
    over_it(directory, backup)
    assert state_of(FileStore(directory), "other") == "stale"


@pytest.mark.parametrize("data", [b"", b"LAST", b"\xff" * 40, b"9" * 40])
@pytest.mark.parametrize("is_running", [True, False])
def test_a_damaged_number_is_none_that_has_gone_back(directory: Path, data: bytes, is_running: bool) -> None:
    store, _ = lived(directory)
    (directory / "names" / "last").write_bytes(data)
    for each in (store if is_running else FileStore(directory), FileStore(directory)):
        each.tick()
        assert [state_of(each, key) for key in ("page", "other")] == ["fresh", "fresh"]


# -- what the machine remembers --------------------------------------------------------------------------------------


def test_it_is_one_small_file_for_each_directory(tmp_path: Path) -> None:
    first, second = HighestNumber(tmp_path / "a"), HighestNumber(tmp_path / "b")
    for number in (5, 7):
        first.note(number)
    assert (first.read(), HighestNumber(tmp_path / "a").read(), second.read()) == (7, 7, 0)
    second.see(3)
    assert (second.read(), HighestNumber(tmp_path / "b").read()) == (3, 0)


def test_their_number_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(shared_memory, "device", lambda: 1)
    monkeypatch.setattr(shared_memory, "FOLDER", str(folder))
    monkeypatch.setattr(highest_number, "MOST", 3)
    for number in range(1, 6):
        HighestNumber(tmp_path / f"{number}").note(number)
    assert [HighestNumber(tmp_path / f"{number}").read() for number in range(1, 6)] == [0, 0, 3, 4, 5]
    assert len(list(folder.iterdir())) == 3


def test_what_a_killed_process_was_writing_is_removed_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "device", lambda: 1)
    monkeypatch.setattr(shared_memory, "FOLDER", str(tmp_path))
    half = tmp_path / f"stalecache-last-{'0' * 40}.{'0' * 16}.tmp"
    half.write_bytes(b"HI")
    HighestNumber(tmp_path / "a").note(1)
    assert half.exists()
    monkeypatch.setattr(shared_memory, "UNFINISHED", -1)
    HighestNumber(tmp_path / "b").note(1)
    assert not half.exists()
    assert (HighestNumber(tmp_path / "a").read(), HighestNumber(tmp_path / "b").read()) == (1, 1)


def test_without_shared_memory_a_process_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "FOLDER", NOWHERE)
    highest = HighestNumber(tmp_path)
    highest.note(5)
    assert (highest.read(), HighestNumber(tmp_path).read()) == (5, 0)


@pytest.mark.parametrize("data", [b"", b"HIGH", b"\xff" * 40, b"9" * 40])
def test_a_damaged_file_says_nothing(tmp_path: Path, data: bytes) -> None:
    HighestNumber(tmp_path).note(5)
    path = HighestNumber(tmp_path)._path()
    assert path is not None
    path.write_bytes(data)
    assert HighestNumber(tmp_path).read() == 0
