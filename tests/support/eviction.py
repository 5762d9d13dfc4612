"""Helpers of the tests of eviction."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from flask import Flask

from flask_stalecache import FileStore, StaleCache
from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.stores.file_numbers import Numbers
from flask_stalecache.stores.table.stamps import FILE_NAME, Stamps
from flask_stalecache.stores.upkeep.sweep_progress import decode
from support.engine import make_entry

BLOCK = 4096

#: Longer than the pause between two sweeps.
PAUSE = 61

#: Ticks in which any sweep of a few files ends, however slow the machine.
TICKS = 2000


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
    """Return the bytes that entries and notes take, each rounded up to whole blocks."""
    files = [path for path in directory.glob("??/*") if path.suffix in ("", ".note")]
    return sum(-(-path.stat().st_size // BLOCK) * BLOCK for path in files)


def counters_of(directory: Path) -> Numbers:
    """Return the bytes that the table has for each folder, as any process sees them."""
    return Stamps(directory / FILE_NAME).folder_sizes


def sweep(store: FileStore) -> None:
    """Let a store tick until the sweep that is due is over."""
    for _ in range(TICKS):
        store.tick()
        if decode((store.directory / "sweep").read_bytes()).next_at > time.time():
            return
    raise AssertionError("the sweep does not come to its end")


def shop(make: Callable[..., tuple[Flask, StaleCache]], **settings: Any) -> tuple[Flask, Counter[str]]:
    """Return an app with a page of ``size`` bytes for each name, size and query, and the number of its view's runs by name."""
    app, cache = make(**settings)
    runs = Counter[str]()

    @app.get("/<page>", defaults={"size": 100})
    @app.get("/<page>/<int:size>")
    @cache.cached(10**6, 0, 0, jitter=0)
    def show(page: str, size: int) -> str:
        runs[page] += 1
        return f"{page} {runs[page]} ".ljust(size, ".")

    return app, runs


class Taken(NamedTuple):
    """The bytes that a directory takes.

    :ivar files: the sizes of all files but the table and the statistics.
    :ivar blocks: what the disk has allocated for these files.
    :ivar whole: what the disk has allocated for everything, folders and table too.
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
                # The table and the statistics take the same space however much is stored.
                if not name.startswith(FILE_NAME) and not folder.endswith("/stats"):
                    files += status.st_size
                    blocks += status.st_blocks * 512
    return Taken(files, blocks, whole)
