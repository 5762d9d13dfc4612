"""Helpers of the tests of the sweep."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from flask_stalecache import FileStore, StoreError
from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.stores.upkeep.sweep_progress import decode
from support.engine import make_entry

HOUR, DAY, YEAR = 3600, 86_400, 365 * 86_400

#: Seconds without use after which the stores of these tests drop an entry.
INACTIVE = 1000

#: Seconds that are longer than the pause between two sweeps.
PAUSE = 61

#: Ticks in which any sweep of a few files ends, however slow the machine.
TICKS = 2000

#: Windows that are over at once.
BRIEF = (1, 0, 0)


def file_of(directory: Path, key: str, suffix: str = "") -> Path:
    return directory / digest(key)[:2] / (digest(key) + suffix)


def open_store(directory: Path, inactive: float = INACTIVE) -> FileStore:
    return FileStore(directory, inactive=inactive)


def keep(store: FileStore, *keys: str, windows: tuple[float, float, float] = BRIEF, never_stale: bool = False) -> None:
    """Store entries that were made just now."""
    for key in keys:
        assert store.write(make_entry(key, windows=windows, never_stale=never_stale, seq=store.seq()))


def use(store: FileStore, key: str) -> None:
    """Use an entry as the engine does on a hit."""
    store.touch(store.lookup(key) or store.load(key))


def kept(store: FileStore, *keys: str) -> list[str]:
    """Return the keys that have an entry's file."""
    return [key for key in keys if file_of(store.directory, key).exists()]


def is_over(directory: Path) -> bool:
    """Tell whether no sweep is due."""
    state = directory / "sweep"
    return state.exists() and decode(state.read_bytes()).next_at > time.time()


def sweep(store: FileStore, *ignored: type[Exception]) -> None:
    """Let a store tick until the sweep that is due is over.

    :param ignored: errors of a tick after which the next one goes on.
    """
    for _ in range(TICKS):
        with suppress(*ignored):
            store.tick()
        if is_over(store.directory):
            return
    raise AssertionError("the sweep does not come to its end")


def struggle(store: FileStore) -> None:
    """Let a store tick until the sweep that is due is over, whatever fails meanwhile."""
    sweep(store, StoreError)


def aged(path: Path, age: float) -> Path:
    """Give a file an age by the clock of the test."""
    os.utime(path, (time.time() - age,) * 2, follow_symlinks=False)
    return path


def leftover(path: Path) -> Path:
    return path.with_name(f"{path.name}.0123456789abcdef.tmp")


def abandoned(path: Path) -> Path:
    """Leave a lock file as a killed worker does: it would have removed the file when it released the lock."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.touch(mode=0o600)
    return path


def seen(path: Path) -> object:
    """Return what can be seen of a file, a link, or a folder with one file in it."""
    if not os.path.lexists(path):
        return None
    status = path.lstat()
    inside = [(file.read_bytes(), file.stat().st_mtime) for file in (path / "inside", path) if file.is_file()]
    return status.st_ino, status.st_mode, status.st_mtime, inside
