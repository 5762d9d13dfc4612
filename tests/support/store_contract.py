"""The contract of a store: the kinds of stores that must keep it. A new store is a new row of ``KINDS``."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.core.model.entry import Entry
from flask_stalecache.core.model.inputs import RequestInputs
from flask_stalecache.core.model.note import Note
from flask_stalecache.stats.counters import Counters
from flask_stalecache.stores.base import Copy, Store
from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.formats.entry_format import encode
from flask_stalecache.stores.in_memory.memory_store import MemoryStore
from flask_stalecache.stores.shared.store import RedisStore
from support.engine import make_entry
from support.processes import Worker
from support.shared_hosts import Server
from support.systems import become_macos
from support.threads import PATIENCE

NOTE = Note(
    written=5.5,
    failures=3,
    retry_at=1e9,
    unstorable_until=7.25,
    kept_out=RequestInputs(cookies=("member", "session"), headers=("x-user",), session=("_user_id",)),
)

#: The kinds that need a server: each operation takes a round trip, so tests play fewer rounds.
SERVED = {"shared", "hosts"}
MEMORY = 1024 * 1024


@dataclass(frozen=True)
class Kind:
    """One store under the contract.

    :ivar open: makes a store on a place that is shared, as another process would.
    :ivar read: returns what is kept for a key, without the store; ``None``: nothing.
    :ivar plant: puts bytes there in place of a key's entry or, with a suffix, its note.
    :ivar on: makes this process look like one on the system that the store is for.
    :ivar is_shared: whether other processes have the same entries. If not, there are no files either.
    """

    name: str
    open: Callable[..., Store]
    read: Callable[[Path, str], bytes | None]
    plant: Callable[..., None]
    on: Callable[..., None] = lambda **_: None
    is_shared: bool = True


def open_files(place: Path, memory_size: int = MEMORY, counters: Counters | None = None) -> Store:
    return FileStore(place, memory_size=memory_size, counters=counters)


def open_files_on_macos(place: Path, memory_size: int = MEMORY, counters: Counters | None = None) -> Store:
    # In a worker this is for good, and harmless. In the process of the tests, :attr:`Kind.on` has done it already.
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


#: The store of each place. Its other users stand for other processes.
MEMORIES: dict[Path, MemoryStore] = {}


def open_memory(place: Path, memory_size: int | None = None, counters: Counters | None = None) -> Store:
    """Return the store of a place. All who open it get the same one.

    :param memory_size: limit of the whole store.
    """
    store = MEMORIES.get(place)
    if store is None:
        store = MEMORIES[place] = MemoryStore(max_size=100 * MEMORY if memory_size is None else memory_size)
    if counters is not None:
        store.counters = counters
    return store


def read_memory(place: Path, key: str) -> bytes | None:
    entry = MEMORIES[place].load(key).entry
    return None if entry is None else encode(entry)


def plant_nothing(place: Path, key: str, data: bytes, suffix: str = "") -> None:
    raise AssertionError("nobody can damage what is in memory")


def server_of(place: Path) -> str:
    """Return the URL of the server for all tests of a process. A worker uses that of the process that has started it."""
    folder = place.parents[1] / "contract"
    if not (folder / "socket").exists():
        folder.mkdir(exist_ok=True)
        atexit.register(Server(folder).kill)
    return f"unix://{folder / 'socket'}"


def open_shared(place: Path, memory_size: int = MEMORY, counters: Counters | None = None) -> Store:
    """Return the store of one host with a server: all who open it have the same directory."""
    return RedisStore(
        server_of(place), place, name=digest(str(place)), memory_size=memory_size, counters=counters, timeout=PATIENCE, purge_wait=0
    )


class HearingStore(RedisStore):
    """A store that reads the logs of the server before each look."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        lookup, moved, seq = self.lookup, self.moved, self.seq
        self.seq = lambda: seq() if self.hears() else 0
        self.lookup = lambda key: lookup(key) if self.hears() else None
        self.moved = lambda copy: moved(copy) if self.hears() else True

    def hears(self) -> bool:
        self._files.load("")
        self.follower.read_once()
        return True

    def load(self, key: str) -> Copy:
        self.hears()
        return super().load(key)


def open_hosts(place: Path, memory_size: int = MEMORY, counters: Counters | None = None) -> Store:
    """Return the store of one more host: each has a directory of its own."""
    return HearingStore(
        server_of(place),
        place / os.urandom(8).hex(),
        name=digest(str(place)),
        memory_size=memory_size,
        counters=counters,
        timeout=PATIENCE,
        purge_wait=0,
    )


def read_files(place: Path, key: str) -> bytes | None:
    return next((data for host in sorted(place.iterdir()) if (data := read_file(host, key)) is not None), None)


def plant_files(place: Path, key: str, data: bytes, suffix: str = "") -> None:
    for host in place.iterdir():
        plant_file(host, key, data, suffix)


KINDS = {
    "file": Kind("file", open_files, read_file, plant_file),
    "macos": Kind("macos", open_files_on_macos, read_file, plant_file, become_macos),
    "shared": Kind("shared", open_shared, read_file, plant_file),
    "hosts": Kind("hosts", open_hosts, read_files, plant_files),
    "memory": Kind("memory", open_memory, read_memory, plant_nothing, is_shared=False),
}


#: For a test of what only files have: other processes, damage, and copies beside them.
of_files = pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.is_shared], indirect=True)


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


WAYS = (by_itself, by_another_that_is_open, by_another_at_its_first_use, by_another_process)
#: For a test of something that is done by this process, or another one that has the same entries.
in_all_ways = pytest.mark.parametrize(
    ("kind", "how"),
    [(name, how) for name, kind in KINDS.items() for how in WAYS if kind.is_shared or how is not by_another_process],
    indirect=["kind"],
)

NEWS, SPORT = "tag:news", "tag:sport"


def begun(store: Store, key: str = "page", body: bytes = b"old", names: tuple[str, ...] = ("all", NEWS)) -> Entry:
    """Return an entry whose origin is called now."""
    return make_entry(key, body, names=names, seq=store.seq())
