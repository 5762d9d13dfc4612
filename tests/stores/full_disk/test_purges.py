"""Purges on a full disk: what they name is gone at once, for all processes, and stays gone when there is room again.

Covers ``stores.purger``.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import pytest
from flask import Flask

from flask_stalecache import FileStore, StaleCache
from flask_stalecache.stores.purges.purge_records import RESERVE
from support.engine import make_entry

NEWS, SPORT = "tag:news", "tag:sport"


class Disk(Protocol):
    """A disk that gets full, and well again.

    :ivar place: a directory on it.
    """

    place: Path

    def fill(self) -> None:
        """Let there be no room."""

    def well(self) -> None:
        """Let there be room."""


class MountedDisk:
    def __init__(self, place: Path) -> None:
        self.place = place

    def fill(self) -> None:
        for size in (4096, 1):
            with suppress(OSError), (self.place / f"ballast-{size}").open("ab", buffering=0) as file:
                while True:
                    file.write(bytes(size))

    def well(self) -> None:
        for path in self.place.glob("ballast-*"):
            path.unlink()


class PatchedDisk:
    """A disk whose writes are patched to fail. Removing the reserve does not make enough room on it."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place, self.is_full, real = place, False, os.write

        def write(descriptor: int, data: bytes) -> int:
            if self.is_full and str(place) in os.readlink(f"/proc/self/fd/{descriptor}"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(descriptor, data)

        monkeypatch.setattr(os, "write", write)

    def fill(self) -> None:
        self.is_full = True

    def well(self) -> None:
        self.is_full = False


@pytest.fixture(params=["mounted", "patched"])
def disk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    place = tmp_path / "disk"
    place.mkdir()
    if request.param == "patched":
        yield PatchedDisk(place, monkeypatch)
        return
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    yield MountedDisk(place)
    subprocess.run(["umount", "-l", place], check=True)


def keep(store: FileStore, key: str, tag: str, seq: int | None = None) -> bool:
    return store.write(make_entry(key, key.encode(), names=("all", tag), seq=store.seq() if seq is None else seq))


def kept(store: FileStore, *keys: str) -> list[str]:
    """Return the keys whose entries are served."""
    return [key for key in keys if (store.lookup(key) or store.load(key)).entry is not None]


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("is_reserved", [True, False])
def test_a_purge_on_a_full_disk_removes_what_it_names(disk: Disk, soft: bool, is_reserved: bool) -> None:
    directory = disk.place / "cache"
    one, other = FileStore(directory), FileStore(directory)
    one.purge("tag:another", soft=False)
    for key, tag in (("a", NEWS), ("b", NEWS), ("c", SPORT)):
        assert keep(one, key, tag)
    assert kept(other, "a", "b", "c") == ["a", "b", "c"]
    begun = other.seq()
    if not is_reserved:
        (directory / "names" / RESERVE).unlink()
    disk.fill()
    one.purge(NEWS, soft=soft)
    fresh = [store.load(key).entry for store in (one, other) for key in ("a", "b")]
    assert all(entry is None or (soft and entry.ended) for entry in fresh)
    assert [kept(store, "c") for store in (one, other)] == [["c"], ["c"]]
    disk.well()
    assert kept(FileStore(directory), "c") == ["c"]
    if not soft:
        assert [kept(store, "a", "b") for store in (one, other, FileStore(directory))] == [[], [], []]
        # An origin that was called before the purge ends after it.
        assert not keep(other, "a", NEWS, begun)
        assert kept(one, "a") == []
    assert keep(other, "a", NEWS)
    assert kept(one, "a") == ["a"]
    one.purge(NEWS, soft=False)
    assert kept(other, "a") == []


def test_a_lock_that_is_held_does_not_keep_what_is_purged(disk: Disk) -> None:
    store = FileStore(disk.place / "cache")
    keep(store, "a", NEWS)
    lock = store.lock("a")
    assert lock.acquire()
    disk.fill()
    store.purge(NEWS, soft=False)
    assert kept(store, "a") == []
    lock.release()


def test_a_post_through_the_gateway_invalidates_though_the_disk_is_full(disk: Disk) -> None:
    app = Flask("shop")
    app.config.update(STALECACHE_DIR=disk.place / "cache", STALECACHE_GATEWAY=True)
    StaleCache(app)
    text = ["old"]

    @app.route("/page", methods=["GET", "POST"])
    def page() -> tuple[str, dict[str, str]]:
        return text[0], {"Cache-Control": "max-age=3600"}

    def seen() -> tuple[str, str]:
        response = app.test_client().get("/page")
        return response.headers["X-Cache-Status"], response.text

    assert [seen(), seen()] == [("MISS", "old"), ("HIT", "old")]
    disk.fill()
    text[0] = "new"
    assert app.test_client().post("/page").status_code == 200
    assert seen()[1] == "new"
    disk.well()
    assert [seen()[1] for _ in range(3)] == ["new"] * 3
    assert seen() == ("HIT", "new")
