"""The contract of a store: the kinds of stores that must keep it. A new store is a new row of ``KINDS``."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flask_stalecache.core.model.entry import Entry
from flask_stalecache.core.model.inputs import RequestInputs
from flask_stalecache.core.model.keys import digest
from flask_stalecache.core.model.note import Note
from flask_stalecache.stats.counters import Counters
from flask_stalecache.stores.base import Store
from flask_stalecache.stores.file_store import FileStore
from support.engine import make_entry
from support.processes import Worker
from support.systems import become_macos

NOTE = Note(
    written=5.5,
    failures=3,
    retry_at=1e9,
    unstorable_until=7.25,
    kept_out=RequestInputs(cookies=("member", "session"), headers=("x-user",)),
)

MEMORY = 1024 * 1024


@dataclass(frozen=True)
class Kind:
    """One store under the contract.

    :ivar open: makes a store on a place that is shared, as another process would.
    :ivar read: what is kept for a key, past the store; ``None``: nothing.
    :ivar plant: puts bytes there in place of a key's entry or, with a suffix, its note.
    :ivar on: makes this process look like one on the system that the store is for.
    """

    name: str
    open: Callable[..., Store]
    read: Callable[[Path, str], bytes | None]
    plant: Callable[..., None]
    on: Callable[..., None] = lambda **_: None


def open_files(place: Path, memory_size: int = MEMORY, counters: Counters | None = None) -> Store:
    return FileStore(place, memory_size=memory_size, counters=counters)


def open_files_on_macos(place: Path, memory_size: int = MEMORY, counters: Counters | None = None) -> Store:
    # For good in a worker, which runs nothing else; in the process of the tests it is so already.
    become_macos()
    return open_files(place, memory_size, counters)


def file_of(place: Path, key: str, suffix: str = "") -> Path:
    return place / digest(key)[:2] / (digest(key) + suffix)


def read_file(place: Path, key: str) -> bytes | None:
    path = file_of(place, key)
    return path.read_bytes() if path.exists() else None


def plant_file(place: Path, key: str, data: bytes, suffix: str = "") -> None:
    path = file_of(place, key, suffix)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_bytes(data)


KINDS = {
    "file": Kind("file", open_files, read_file, plant_file),
    "macos": Kind("macos", open_files_on_macos, read_file, plant_file, become_macos),
}


def change_elsewhere(kind_name: str, place: Path, change: Callable[[Store], None]) -> int:
    change(KINDS[kind_name].open(place))
    return os.getpid()


def by_itself(kind: Kind, place: Path, store: Store, worker: Worker, change: Callable[[Store], None]) -> None:
    change(store)


def by_another_that_is_open(kind: Kind, place: Path, store: Store, worker: Worker, change: Callable[[Store], None]) -> None:
    other = kind.open(place)
    other.load("news")
    change(other)


def by_another_at_its_first_use(kind: Kind, place: Path, store: Store, worker: Worker, change: Callable[[Store], None]) -> None:
    change(kind.open(place))


def by_another_process(kind: Kind, place: Path, store: Store, worker: Worker, change: Callable[[Store], None]) -> None:
    assert worker.run(change_elsewhere, kind.name, place, change) != os.getpid()


NEWS, SPORT = "tag:news", "tag:sport"


def begun(store: Store, key: str = "page", body: bytes = b"old", names: tuple[str, ...] = ("all", NEWS)) -> Entry:
    """Return an entry whose origin is called now."""
    return make_entry(key, body, names=names, seq=store.seq())
