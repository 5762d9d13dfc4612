"""What many entries cost: ``python benchmarks/many.py [--entries 50000] [--rounds 20]`` prints tables as Markdown.

One cache directory holds 100 entries, one 50,000, and one as many as its ``STALECACHE_MAX_SIZE`` lets it. They are purged, hit and
written in turn, so that a machine that gets slower meanwhile gets slower for all. A ratio is taken within a round; what is printed
is the median of the rounds.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any, NamedTuple

from flask import Flask
from hit import call
from werkzeug.test import create_environ

from flask_stalecache import FileStore, StaleCache, housekeeping
from flask_stalecache.entry import Entry, encode
from flask_stalecache.keys import digest
from flask_stalecache.policy import Windows
from flask_stalecache.reads import NO_NAMES

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

FEW, MANY, FULL = "100 entries", "many entries", "at MAX_SIZE"
FEW_ENTRIES, FULL_ENTRIES = 100, 1000
#: Bytes of a page, of one of those that only fill a directory, and what a page takes on the disk, with its head.
PAGE_SIZE, FILLER_SIZE, ON_DISK = 10_000, 1000, 12_288
WRITERS = 2
#: Hits and stores of each directory in one round.
HITS, STORES = 400, 20
#: Pages that are visited.
PAGES = 20
DAY = 86_400.0

SELECTORS: dict[str, dict[str, Any]] = {"tag": {"tag": "news"}, "endpoint": {"endpoint": "page"}, "all": {"all": True}}


class Target(NamedTuple):
    """What a figure may be at most."""

    name: str
    limit: float


PURGES = {what: Target(f"a purge by {what} of many, in ms", 5.0) for what in SELECTORS}
HIT = Target("a hit, of many ÷ of 100", 1.2)
STORE = Target("a store, of many ÷ of 100", 1.3)


# -- directories -----------------------------------------------------------------------------------------------------


def entry(key: str, size: int, seq: int) -> Entry:
    """Return a page as the extension stores it."""
    now = time.time()
    return Entry(
        key=key,
        serial=os.urandom(8).hex(),
        names=("all", "endpoint:page", f"path:/{key}", f"url:http://shop.example/{key}", "tag:news"),
        seq=seq,
        version="",
        started=now,
        answered=now,
        windows=Windows(DAY, DAY, DAY),
        never_stale=False,
        shared=False,
        absent=NO_NAMES,
        varied=(),
        status=200,
        headers=(("Content-Type", "text/html; charset=utf-8"), ("ETag", '"0123456789abcdef"')),
        body=b"x" * size,
        recipe={"scheme": "http", "path": f"/{key}", "fields": {"Host": "shop.example"}},
    )


def fill(directory: Path, numbers: range, size: int) -> None:
    """Write pages as the store lays them out, and the lock files that those leave behind who store one after the other."""
    now = int(time.time() * 1e9)
    for number in numbers:
        key = f"filler-{number}"
        name = digest(key)
        path = f"{directory}/{name[:2]}/{name}"
        # Straight, since a million by way of the store would take ten minutes.
        for each, data in ((path, encode(entry(key, size, now))), (f"{path}.lock", b"")):
            descriptor = os.open(each, os.O_WRONLY | os.O_CREAT, 0o600)
            os.write(descriptor, data)
            os.close(descriptor)


def filled(directory: Path, entries: int, size: int) -> Path:
    """Fill a directory from some processes, and return it."""
    for number in range(256):
        # As in one that is in use for a while; making them is no part of a store.
        (directory / f"{number:02x}").mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    start = multiprocessing.get_context("spawn").Process
    processes = [start(target=fill, args=(directory, range(first, entries, WRITERS), size)) for first in range(WRITERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise SystemExit(f"{directory} could not be filled")
    return directory


@dataclass
class Place:
    """An app on a directory, and what was measured there.

    :ivar hits: microseconds of a hit, the median of each round.
    :ivar stores: microseconds of each store, by round.
    :ivar purges: milliseconds of each purge, by selector.
    :ivar ticks: milliseconds of each tick of a sweep, by what there was to do.
    """

    app: Flask
    cache: StaleCache
    entries: int
    hits: list[float] = field(default_factory=list)
    stores: list[list[float]] = field(default_factory=list)
    purges: dict[str, list[float]] = field(default_factory=dict)
    ticks: dict[str, list[float]] = field(default_factory=dict)
    _stored: int = 0

    @property
    def store(self) -> FileStore:
        found = self.app.extensions["stalecache"].engine.store
        assert isinstance(found, FileStore)
        return found

    def new_entry(self) -> Entry:
        """Return a page that was never stored."""
        self._stored += 1
        return entry(f"new-{self._stored}", PAGE_SIZE, self.store.seq())


def place(directory: Path, entries: int, size: int = FILLER_SIZE, max_size: int | None = None) -> Place:
    """Return an app on a filled directory."""
    app = Flask("shop")
    app.config.update(STALECACHE_DIR=filled(directory, entries, size), STALECACHE_MAX_SIZE=max_size)
    cache = StaleCache(app)

    @app.get("/page/<number>")
    @cache.cached(DAY, DAY, DAY, tags=["news"])
    def page(number: str) -> str:
        return "x" * PAGE_SIZE

    made = Place(app, cache, entries)
    # As a process that has served for a while: its memory is as full as it gets.
    for number in range(entries):
        made.store.load(f"filler-{number}")
    return made


def places(folder: Path, entries: int) -> dict[str, Place]:
    """Return all directories by name."""
    return {
        FEW: place(folder / "few", FEW_ENTRIES),
        MANY: place(folder / "many", entries),
        FULL: place(folder / "full", FULL_ENTRIES, PAGE_SIZE, FULL_ENTRIES * ON_DISK),
    }


# -- measuring -------------------------------------------------------------------------------------------------------


def nanoseconds(action: Callable[[], object]) -> int:
    start = time.perf_counter_ns()
    action()
    return time.perf_counter_ns() - start


def requests() -> list[dict[str, Any]]:
    """Return the environs of visits."""
    return [create_environ(f"/page/{number}", "http://shop.example") for number in range(PAGES)]


def visit(app: WSGIApplication, environ: dict[str, Any], word: str) -> None:
    headers, _ = call(app, environ.copy())
    if headers["X-Cache-Status"] != word:
        raise SystemExit(f"{environ['PATH_INFO']} is no {word} but a {headers['X-Cache-Status']}")


def take_hits(measured: Place, visits: list[dict[str, Any]]) -> None:
    """Visit pages that are stored."""
    for environ in visits:
        call(measured.app, environ.copy())
        visit(measured.app, environ, "HIT")
    times = []
    for number in range(HITS):
        environ = visits[number % len(visits)].copy()
        times.append(nanoseconds(partial(call, measured.app, environ)))
    measured.hits.append(median(times) / 1000)


def store_one(store: FileStore, new: Entry) -> None:
    """Store a page as the engine does: look once more under the lock, and write."""
    lock = store.lock(new.key)
    if not lock.acquire():
        raise SystemExit("somebody has the lock of a new page")
    try:
        store.load(new.key)
        store.write(new)
    finally:
        lock.release()


def take_stores(found: list[Place], full: Place) -> None:
    """Store pages that are new, in one directory after the other; those that are not full are made as full as they were."""
    for measured in found:
        measured.stores.append([])
    for _ in range(STORES):
        for measured in found:
            store, new = measured.store, measured.new_entry()
            measured.stores[-1].append(nanoseconds(partial(store_one, store, new)) / 1000)
            if measured is not full:
                store.remove(new.key)
                store.lock(new.key).path.unlink()


def take_purges(measured: Place) -> None:
    """Purge by each selector; what was stored before is purged then, and stays where it is."""
    with measured.app.app_context():
        for what, selector in SELECTORS.items():
            measured.purges.setdefault(what, []).append(nanoseconds(partial(measured.cache.purge, **selector)) / 1e6)


def take_ticks(measured: Place) -> None:
    """Let two sweeps run, the first of which looks for what was purged, and then a tick at which none is due."""
    state = measured.store.directory / "sweep"
    for what in ("a sweep after a purge", "a sweep"):
        if state.exists():
            state.write_text(json.dumps({**json.loads(state.read_text()), "next_at": 0}))
        times = measured.ticks[what] = []
        while not state.exists() or json.loads(state.read_text())["next_at"] < time.time():
            times.append(nanoseconds(measured.store.tick) / 1e6)
    measured.ticks["none due"] = [nanoseconds(measured.store.tick) / 1e6 for _ in range(100)]


def measure(found: dict[str, Place], rounds: int) -> None:
    """Play the rounds, each in another order."""
    visits, order, shuffled = requests(), list(found), random.Random(1)
    for name in (FEW, MANY):
        take_ticks(found[name])
    gc.collect()
    for _ in range(rounds):
        shuffled.shuffle(order)
        for name in order:
            take_purges(found[name])
            take_hits(found[name], visits)
        take_stores([found[name] for name in order], found[FULL])


# -- the report ------------------------------------------------------------------------------------------------------


def ratio(one: list[float], other: list[float]) -> float:
    return median(a / b for a, b in zip(one, other, strict=True))


def medians(rounds: list[list[float]]) -> list[float]:
    return [median(times) for times in rounds]


def table(found: dict[str, Place], rounds: int) -> Iterator[str]:
    """Yield the lines of the tables, and what became of the targets."""
    few, many, full = found[FEW], found[MANY], found[FULL]
    yield f"| 10 kB, {rounds} rounds | entries | hit, µs | store, µs | ÷ 100 entries | mean | longest |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for name, measured in found.items():
        stores = [time for times in measured.stores for time in times]
        ratio_of_stores = ratio(medians(measured.stores), medians(few.stores))
        figures = f"{median(stores):.0f} | {ratio_of_stores:.2f} | {mean(stores):.0f} | {max(stores):.0f}"
        yield f"| {name} | {measured.entries:,} | {median(measured.hits):.1f} | {figures} |"
    evicted = full.app.extensions["stalecache"].counters["evicted_for_size"]
    yield ""
    yield f"At MAX_SIZE {evicted:,} entries went for {sum(map(len, full.stores)):,} new ones, and as many pages as were visited."
    yield ""
    yield "| purge by | entries | median, ms | longest, ms |"
    yield "|---|---:|---:|---:|"
    for measured in (few, many):
        for what, times in measured.purges.items():
            yield f"| {what} | {measured.entries:,} | {median(times):.2f} | {max(times):.2f} |"
    yield ""
    yield "| ticks of housekeeping | entries | ticks | median, ms | longest, ms | all, ms |"
    yield "|---|---:|---:|---:|---:|---:|"
    for measured in (few, many):
        for what, times in measured.ticks.items():
            yield f"| {what} | {measured.entries:,} | {len(times)} | {median(times):.2f} | {max(times):.2f} | {sum(times):.0f} |"
    yield ""
    yield "| target | at most | measured | |"
    yield "|---|---:|---:|---|"
    measured_targets = {
        **{target: median(many.purges[what]) for what, target in PURGES.items()},
        HIT: ratio(many.hits, few.hits),
        STORE: ratio(medians(many.stores), medians(few.stores)),
    }
    for target, value in measured_targets.items():
        yield f"| {target.name} | {target.limit} | {value:.2f} | {'reached' if value <= target.limit else 'NOT REACHED'} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measures what many entries cost and prints tables as Markdown.")
    parser.add_argument("--entries", type=int, default=50_000, help="how many are many (default 50000)")
    parser.add_argument("--rounds", type=int, default=20, help="how often everything is done in turn (default 20, about 10 s)")
    chosen = parser.parse_args()
    if chosen.rounds < 1 or chosen.entries < 1:
        parser.error("--rounds and --entries: give 1 or more")
    # No sweep while something is timed; it is timed itself.
    housekeeping.INTERVAL = DAY
    with tempfile.TemporaryDirectory() as folder:
        found = places(Path(folder), chosen.entries)
        measure(found, chosen.rounds)
        print("\n".join(table(found, chosen.rounds)))


if __name__ == "__main__":
    main()
