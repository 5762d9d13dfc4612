"""The file store on systems that lack some calls of Linux. Covers ``filesystem.system``."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from flask_stalecache.filesystem import system
from flask_stalecache.stores.file_store import FileStore
from support.engine import make_entry
from support.file_store import make_site, visit
from support.store_contract import NOTE
from support.systems import become_macos

#: The value of ``fcntl.F_FULLFSYNC`` on macOS.
F_FULLFSYNC = 51


def body_of(store: FileStore, key: str = "page") -> bytes | None:
    entry = store.load(key).entry
    return None if entry is None else entry.body


@pytest.fixture
def macos(monkeypatch: pytest.MonkeyPatch) -> None:
    become_macos(monkeypatch.setattr, monkeypatch.delattr)
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", F_FULLFSYNC, raising=False)


def test_a_page_is_stored_and_served_on_macos(macos: None, directory: Path) -> None:
    app, _ = make_site(directory)
    assert [visit(app) for _ in range(3)] == [("MISS", "run 1"), ("HIT", "run 1"), ("HIT", "run 1")]
    assert sum(app.extensions["stalecache"].stats.read(0, 0, None)["requests"].values()) == 3
    assert list((directory / "stats").glob("[0-9]"))


@pytest.mark.parametrize("size", [1, 4096, 200_000])
def test_a_file_without_holes_is_made_where_the_system_has_no_call_for_it(macos: None, tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        system.allocate(file.fileno(), size)
    status = path.stat()
    assert status.st_size == size <= system.allocated(status)
    assert path.read_bytes() == bytes(size)


def test_a_file_for_which_there_is_no_room_is_an_error(macos: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", no_room)
    with (tmp_path / "file").open("wb") as file, pytest.raises(OSError, match="No space left"):
        system.allocate(file.fileno(), 10)


@pytest.mark.parametrize("is_known", [True, False])
def test_macos_waits_until_the_disk_itself_has_a_file(
    macos: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    calls: list[Any] = []

    def control(descriptor: int, command: int) -> int:
        calls.append(command)
        if not is_known:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        return 0

    monkeypatch.setattr(fcntl, "fcntl", control)
    monkeypatch.setattr(os, "fsync", lambda _: calls.append("fsync"))
    with (tmp_path / "file").open("wb") as file:
        system.sync(file.fileno())
    assert calls == ([F_FULLFSYNC] if is_known else [F_FULLFSYNC, "fsync"])


def test_no_two_files_differ_in_case_alone(directory: Path) -> None:
    """On most disks of macOS they would be one file."""
    store = FileStore(directory)
    for key in ("page", "PAGE", "Page"):
        store.write(make_entry(key, key.encode(), names=("all", f"tag:{key}")))
        store.write_note(key, NOTE)
        store.purge(f"tag:{key.swapcase()}X", soft=False)
    names = [str(path.relative_to(directory)) for path in directory.rglob("*")]
    assert sorted(names) == sorted({name.casefold() for name in names})
    assert {key: body_of(store, key) for key in ("page", "PAGE", "Page")} == {"page": b"page", "PAGE": b"PAGE", "Page": b"Page"}


def test_a_directory_by_two_of_its_paths_is_one(macos: None, tmp_path: Path) -> None:
    """``/var`` is a link to ``/private/var``."""
    (tmp_path / "private" / "var").mkdir(parents=True, mode=0o755)
    (tmp_path / "var").symlink_to("private/var")
    by_link, by_target = FileStore(tmp_path / "var/cache"), FileStore(tmp_path / "private/var/cache")
    by_link.write(make_entry(body=b"old"))
    assert body_of(by_target) == b"old"
    lock = by_link.lock("page")
    assert lock.acquire()
    assert not by_target.lock("page").acquire()
    lock.release()
    by_target.purge("all", soft=False)
    assert (by_link.lookup("page"), body_of(by_link)) == (None, None)
