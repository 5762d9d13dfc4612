"""Helpers of the tests of purging by many processes."""

from __future__ import annotations

import mmap
import time
from pathlib import Path

import time_machine

from flask_stalecache.core.model.entry import Entry
from flask_stalecache.engine.engine import Engine
from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.upkeep.sweep_progress import Progress, decode
from support.engine import FakeOrigin, body_of, make_engine, make_entry

NEWS, SPORT = "tag:news", "tag:sport"

NAMES = ("all", NEWS)

DAY = 86400

HOUR = 3600

#: Which of the :class:`Numbers` is what: the version of the content, the last round whose call has begun, the last round whose call
#: may go on, and whether the test is over. Tests use the others for themselves.
VERSION, CALLED, GO, OVER = range(4)


class Numbers:
    """A few numbers that processes share."""

    def __init__(self, place: Path) -> None:
        path = place / "numbers"
        if not path.exists():
            path.write_bytes(bytes(64))
        with path.open("r+b") as file:
            self.all = memoryview(mmap.mmap(file.fileno(), 64)).cast("Q")

    def __getitem__(self, number: int) -> int:
        return self.all[number]

    def __setitem__(self, number: int, value: int) -> None:
        self.all[number] = value


#: The engine and the numbers of this process for each place, as in a server's worker.
ENGINES: dict[Path, tuple[Engine, Numbers]] = {}


def at(place: Path) -> tuple[Engine, Numbers]:
    if place not in ENGINES:
        ENGINES[place] = make_engine(place / "cache"), Numbers(place)
    return ENGINES[place]


def purge(place: Path, name: str, soft: bool) -> None:
    at(place)[0].store.purge(name, soft=soft)


def seen_by(engine: Engine, origin: FakeOrigin) -> tuple[str, int]:
    served = engine.serve(origin)
    if served.refresh:
        engine.runtime.submit(origin.refresh())
    return served.status.value, int(body_of(served))  # type: ignore[call-overload]


OLD, BETWEEN, NEW = b"old", b"between", b"new"


def begun(store: FileStore, body: bytes, key: str = "page") -> Entry:
    return make_entry(key, body, names=NAMES, seq=store.seq())


def body_in(store: FileStore, key: str = "page") -> bytes | None:
    """Return what is served of a key: from memory if that stands, as on a hit."""
    entry = (store.lookup(key) or store.load(key)).entry
    return None if entry is None else entry.body


def fresh_body_in(store: FileStore, key: str = "page") -> bytes | None:
    entry = (store.lookup(key) or store.load(key)).entry
    return entry.body if entry is not None and entry.is_fresh(time.time()) else None


def sweep(store: FileStore, clock: time_machine.Traveller) -> None:
    """Let a whole sweep go by, from its beginning to its end."""
    path = store.directory / "sweep"

    def progress() -> Progress:
        return decode(path.read_bytes() if path.exists() else None)

    store.load("anything")
    assert progress().folder == 0
    clock.shift(61)
    while not (progress().folder == 0 and progress().next_at > time.time()):
        store.tick()
