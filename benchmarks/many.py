"""Cost of many entries: ``python benchmarks/many.py [--entries 50000] [--rounds 20]`` prints tables as Markdown.

One cache directory holds 10 entries, one 50,000, and one 1,000, which fill its ``STALECACHE_MAX_SIZE``. The 50,000 are used twice:
without a ``MAX_SIZE``, and with one that they fill. The directories are purged, hit and written in turn, so that a machine that
becomes slower affects all of them. A ratio is taken within a round; what is printed is the median of the rounds. The sweep, a new
worker's first hit and the memory of a worker are measured separately. A million entries (``--entries 1000000``) take 4 GB of disk
and two million files.
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
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any, NamedTuple

from flask import Flask
from hit import call
from werkzeug.test import create_environ

from flask_stalecache import FileStore, StaleCache
from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.core.model.entry import Entry
from flask_stalecache.engine.scheduling import housekeeper
from flask_stalecache.stores.formats.entry_format import decode, encode
from flask_stalecache.stores.upkeep import sweep_progress

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

FEW, MANY, FULL, MANY_FULL = "few entries", "many entries", "at MAX_SIZE", "many, at MAX_SIZE"
FEW_ENTRIES, FULL_ENTRIES = 10, 1000
#: Bytes of a page, and its size on the disk with its head.
PAGE_SIZE, ON_DISK = 2000, 4096
WRITERS = 2
#: Number of hits and stores per directory and round, and number of visited pages.
HITS, STORES, PAGES = 400, 20, 10
#: Pages that a worker serves, once from a file and once from memory, while its memory is measured.
VISITED = 50_000
#: Number of workers that are started to measure their first hit.
STARTS = 5
DAY, MIB = 86_400.0, 1024 * 1024

SELECTORS: dict[str, dict[str, Any]] = {"tag": {"tag": "news"}, "endpoint": {"endpoint": "page"}, "all": {"all": True}}


class Target(NamedTuple):
    """The highest acceptable value of a figure."""

    name: str
    limit: float


PURGES = {what: Target(f"a purge by {what} of many, in ms", 5.0) for what in SELECTORS}
HIT = Target(f"a hit, of many ÷ of {FEW_ENTRIES}", 1.2)
STORE = Target(f"a store, of many ÷ of {FEW_ENTRIES}", 1.3)
MEMORY = Target("memory of a worker over MEMORY_SIZE, in MiB", 64.0)
SWEEP = Target("a whole sweep of many, in s of one core", 60.0)
STRETCH = Target("its longest stretch, in ms", 50.0)


# -- directories -----------------------------------------------------------------------------------------------------


def shop(directory: Path, **settings: object) -> tuple[Flask, StaleCache]:
    """Return an app that shows articles, and its cache."""
    app = Flask("shop")
    app.config.update(STALECACHE_DIR=directory, **{f"STALECACHE_{name}": value for name, value in settings.items()})
    cache = StaleCache(app)

    def page(number: str) -> str:
        return "x" * PAGE_SIZE

    # The key holds the name of the module, and the main module has a different name in each process.
    page.__module__ = app.name
    app.add_url_rule("/page/<number>", view_func=cache.cached(DAY, DAY, DAY, tags=["news"], jitter=0)(page))
    return app, cache


def store_of(app: Flask) -> FileStore:
    found = app.extensions["stalecache"].engine.store
    assert isinstance(found, FileStore)
    return found


def environ_of(number: int) -> dict[str, Any]:
    return create_environ(f"/page/{number:08}", "http://shop.example")


def sample(folder: Path) -> bytes:
    """Return the page of article 0 as the cache stores it."""
    app, _ = shop(folder / "sample")
    call(app, environ_of(0))
    (path,) = (path for path in folder.glob("sample/??/*") if not path.suffix)
    return path.read_bytes()


class Template:
    """A template for stored pages.

    :param data: the stored page of article 0.
    """

    def __init__(self, data: bytes) -> None:
        head = json.loads(data[32 : 32 + int.from_bytes(data[4:8], "big")])
        self._entry = decode(data, head["key"])
        self._recipe = json.dumps(dict(self._entry.recipe))

    def entry(self, number: int, seq: int) -> Entry:
        """Return the page of another article, stored after a purge."""

        def renamed(text: str) -> str:
            return text.replace(f"{0:08}", f"{number:08}")

        return replace(
            self._entry,
            key=renamed(self._entry.key),
            names=tuple(map(renamed, self._entry.names)),
            recipe=json.loads(renamed(self._recipe)),
            seq=seq,
        )


def fill(directory: Path, numbers: range, data: bytes) -> None:
    """Write pages in the layout of the store, and the lock files that storing them would leave behind."""
    template, now = Template(data), time.time_ns()
    for number in numbers:
        entry = template.entry(number, now)
        name = digest(entry.key)
        path = f"{directory}/{name[:2]}/{name}"
        # Written directly, because storing a million pages would take twenty minutes.
        for each, content in ((path, encode(entry)), (f"{path}.lock", b"")):
            descriptor = os.open(each, os.O_WRONLY | os.O_CREAT, 0o600)
            os.write(descriptor, content)
            os.close(descriptor)


def filled(directory: Path, entries: int, data: bytes) -> Path:
    """Fill a directory from several processes, and return it."""
    for number in range(256):
        # The folders exist, as in a directory that has been in use; creating them is not part of storing.
        (directory / f"{number:02x}").mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    start = multiprocessing.get_context("spawn").Process
    processes = [start(target=fill, args=(directory, range(first, entries, WRITERS), data)) for first in range(WRITERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise SystemExit(f"{directory} could not be filled")
    return directory


class Stretch(NamedTuple):
    """One tick of housekeeping.

    :ivar wall: its duration in milliseconds.
    :ivar cpu: its processor time in milliseconds.
    """

    wall: float
    cpu: float


@dataclass
class Place:
    """An app on a directory, with its measurements.

    :ivar hits: microseconds of a hit, the median of each round.
    :ivar stores: microseconds of each store, by round.
    :ivar purges: milliseconds of each purge, by selector.
    :ivar ticks: the ticks of a sweep, by kind of work.
    """

    app: Flask
    cache: StaleCache
    entries: int
    template: Template
    hits: list[float] = field(default_factory=list)
    stores: list[list[float]] = field(default_factory=list)
    purges: dict[str, list[float]] = field(default_factory=dict)
    ticks: dict[str, list[Stretch]] = field(default_factory=dict)
    _next: int = 10_000_000

    @property
    def store(self) -> FileStore:
        return store_of(self.app)

    def new_entry(self) -> Entry:
        """Return a page that was never stored."""
        self._next += 1
        return self.template.entry(self._next, self.store.seq())


def place(directory: Path, entries: int, data: bytes, max_size: int | None = None) -> Place:
    """Return an app on a filled directory, with its memory as full as after serving for a while."""
    app, cache = shop(directory, MAX_SIZE=max_size)
    made = Place(app, cache, entries, Template(data))
    # The processes that filled it did not count entries.
    made.store.sweep()
    for number in range(min(entries, VISITED // 5)):
        made.store.load(made.template.entry(number, 0).key)
    return made


# -- separate workers ------------------------------------------------------------------------------------------------


def first_hit(directory: Path, number: int) -> float:
    """Return the milliseconds from creating the app to the end of its first hit."""
    start = time.perf_counter_ns()
    visit(shop(directory, MAX_SIZE=None)[0], environ_of(number), "HIT")
    return (time.perf_counter_ns() - start) / 1e6


def resident() -> int:
    """Return the memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def memory(directory: Path, entries: int) -> tuple[int, int]:
    """Visit all pages, then walk through the store. Return the additional memory in bytes, and the limit for copies."""
    app, _ = shop(directory, MAX_SIZE=None)
    visit(app, environ_of(0), "HIT")
    gc.collect()
    before = most = resident()
    for number in range(min(entries, VISITED)):
        for _ in range(2):
            visit(app, environ_of(number), "HIT")
        most = max(most, resident()) if number % 1000 == 0 else most
    for found, _ in enumerate(store_of(app).walk()):
        most = max(most, resident()) if found % 1000 == 0 else most
    return max(most, resident()) - before, app.extensions["stalecache"].settings.memory_size


def in_a_worker(work: Callable[..., Any], *arguments: object) -> Any:
    """Run a function in a new process, and return its result."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


# -- measuring -------------------------------------------------------------------------------------------------------


def nanoseconds(action: Callable[[], object]) -> int:
    start = time.perf_counter_ns()
    action()
    return time.perf_counter_ns() - start


def visit(app: WSGIApplication, environ: dict[str, Any], word: str) -> None:
    headers, _ = call(app, environ.copy())
    if headers["X-Cache-Status"] != word:
        raise SystemExit(f"{environ['PATH_INFO']} is no {word} but a {headers['X-Cache-Status']}")


def take_hits(measured: Place) -> None:
    """Visit pages that are stored."""
    # Pages beyond the filled ones: they are built again, whether purged or not.
    visits = [environ_of(20_000_000 + number) for number in range(PAGES)]
    for environ in visits:
        call(measured.app, environ.copy())
        visit(measured.app, environ, "HIT")
    times = []
    for number in range(HITS):
        environ = visits[number % len(visits)].copy()
        times.append(nanoseconds(partial(call, measured.app, environ)))
    measured.hits.append(median(times) / 1000)


def store_one(store: FileStore, new: Entry) -> None:
    """Store a page like the engine: look up again under the lock, and write."""
    lock = store.lock(new.key)
    if not lock.acquire():
        raise SystemExit("somebody has the lock of a new page")
    try:
        store.load(new.key)
        store.write(new)
    finally:
        lock.release()


def take_stores(found: list[Place], full: tuple[Place, ...]) -> None:
    """Store new pages in each directory in turn; small directories are reduced to their previous size."""
    for measured in found:
        measured.stores.append([])
    for _ in range(STORES):
        for measured in found:
            store, new = measured.store, measured.new_entry()
            measured.stores[-1].append(nanoseconds(partial(store_one, store, new)) / 1000)
            if measured not in full:
                store.remove(new.key)
                store.lock(new.key).path.unlink()


def take_purges(measured: Place) -> None:
    """Purge by each selector; the files of purged pages are kept."""
    with measured.app.app_context():
        for what, selector in SELECTORS.items():
            measured.purges.setdefault(what, []).append(nanoseconds(partial(measured.cache.purge, **selector)) / 1e6)


def one_tick(store: FileStore) -> Stretch:
    cpu = time.thread_time_ns()
    wall = nanoseconds(store.tick)
    return Stretch(wall / 1e6, (time.thread_time_ns() - cpu) / 1e6)


def take_ticks(measured: Place) -> None:
    """Run two sweeps, the first of which looks for purged pages, and then a tick without a due sweep."""
    state = measured.store.directory / "sweep"
    measured.store.purge("tag:elsewhere", soft=False)
    for what in ("a sweep after a purge", "a sweep"):
        if state.exists():
            state.write_bytes(sweep_progress.encode(replace(sweep_progress.decode(state.read_bytes()), next_at=0.0)))
        ticks = measured.ticks[what] = []
        while not state.exists() or sweep_progress.decode(state.read_bytes()).next_at < time.time():
            ticks.append(one_tick(measured.store))
    measured.ticks["none due"] = [one_tick(measured.store) for _ in range(100)]


def measure(found: dict[str, Place], rounds: int) -> None:
    """Run the rounds, each in another order."""
    order, shuffled = list(found), random.Random(1)
    gc.collect()
    for _ in range(rounds):
        shuffled.shuffle(order)
        for name in order:
            take_purges(found[name])
            take_hits(found[name])
        take_stores([found[name] for name in order], (found[FULL], found[MANY_FULL]))


class Figures(NamedTuple):
    """All measurements.

    :ivar found: the directories by name.
    :ivar first_hits: milliseconds of a new worker's first hit, by directory.
    :ivar memory: additional memory of a worker in bytes, and the limit for copies.
    """

    found: dict[str, Place]
    first_hits: dict[str, list[float]]
    memory: tuple[int, int]


def figures(folder: Path, entries: int, rounds: int) -> Figures:
    """Create the directories, and measure."""
    data = sample(folder)
    sizes = {FEW: FEW_ENTRIES, MANY: entries, FULL: FULL_ENTRIES}
    paths = {name: filled(folder / str(size), size, data) for name, size in sizes.items()}
    first_hits: dict[str, list[float]] = {FEW: [], MANY: []}
    for number in range(STARTS):
        for name, times in first_hits.items():
            times.append(in_a_worker(first_hit, paths[name], number))
    grown = in_a_worker(memory, paths[MANY], entries)
    found = {name: place(paths[name], sizes[name], data) for name in (FEW, MANY)}
    for measured in found.values():
        take_ticks(measured)
    found[FULL] = place(paths[FULL], FULL_ENTRIES, data, FULL_ENTRIES * ON_DISK)
    found[MANY_FULL] = place(paths[MANY], entries, data, found[MANY].store.usage().bytes)
    measure(found, rounds)
    return Figures(found, first_hits, grown)


# -- the report ------------------------------------------------------------------------------------------------------


def ratio(one: list[float], other: list[float]) -> float:
    return median(a / b for a, b in zip(one, other, strict=True))


def medians(rounds: list[list[float]]) -> list[float]:
    return [median(times) for times in rounds]


def table_of_requests(found: dict[str, Place], rounds: int) -> Iterator[str]:
    yield f"| {PAGE_SIZE // 1000} kB, {rounds} rounds | entries | hit, µs | store, µs | ÷ {FEW_ENTRIES} entries | mean | longest |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for name, measured in found.items():
        stores = [time for times in measured.stores for time in times]
        of_stores = ratio(medians(measured.stores), medians(found[FEW].stores))
        stored = f"{median(stores):.0f} | {of_stores:.2f} | {mean(stores):.0f} | {max(stores):.0f}"
        yield f"| {name} | {measured.entries:,} | {median(measured.hits):.1f} | {stored} |"
    for name in (FULL, MANY_FULL):
        evicted = found[name].app.extensions["stalecache"].counters["evicted_for_size"]
        yield f"\n{name}: {evicted:,} entries went for {sum(map(len, found[name].stores)):,} new ones and the pages visited."


def table_of_purges(found: dict[str, Place]) -> Iterator[str]:
    yield "| purge by | entries | median, ms | longest, ms |"
    yield "|---|---:|---:|---:|"
    for name in (FEW, MANY):
        for what, times in found[name].purges.items():
            yield f"| {what} | {found[name].entries:,} | {median(times):.2f} | {max(times):.2f} |"


def table_of_ticks(found: dict[str, Place]) -> Iterator[str]:
    yield "| ticks of housekeeping | entries | ticks | median, ms | longest, ms | of a core, ms | all, s | of a core, s |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for name in (FEW, MANY):
        for what, ticks in found[name].ticks.items():
            walls, cores = [tick.wall for tick in ticks], [tick.cpu for tick in ticks]
            longest = f"{median(walls):.2f} | {max(walls):.1f} | {max(cores):.1f}"
            all_of_it = f"{sum(walls) / 1e3:.2f} | {sum(cores) / 1e3:.2f}"
            yield f"| {what} | {found[name].entries:,} | {len(ticks)} | {longest} | {all_of_it} |"


def table_of_workers(measured: Figures) -> Iterator[str]:
    yield "| a new worker | entries | first hit, ms | shortest, ms | memory for copies, MiB | memory taken, MiB |"
    yield "|---|---:|---:|---:|---:|---:|"
    for name, times in measured.first_hits.items():
        taken, room = (f"{size / MIB:.0f}" if name == MANY else "" for size in measured.memory)
        yield f"| {name} | {measured.found[name].entries:,} | {median(times):.2f} | {min(times):.2f} | {room} | {taken} |"


def table_of_targets(measured: Figures) -> Iterator[str]:
    few, many = measured.found[FEW], measured.found[MANY]
    sweeps = [ticks for what, ticks in many.ticks.items() if what != "none due"]
    reached = {
        **{target: median(many.purges[what]) for what, target in PURGES.items()},
        HIT: ratio(many.hits, few.hits),
        STORE: ratio(medians(many.stores), medians(few.stores)),
        MEMORY: (measured.memory[0] - measured.memory[1]) / MIB,
        SWEEP: max(sum(tick.cpu for tick in ticks) for ticks in sweeps) / 1e3,
        STRETCH: max(tick.cpu for ticks in sweeps for tick in ticks),
    }
    yield "| target | at most | measured | |"
    yield "|---|---:|---:|---|"
    for target, value in reached.items():
        yield f"| {target.name} | {target.limit:g} | {value:.2f} | {'reached' if value <= target.limit else 'NOT REACHED'} |"


def tables(measured: Figures, rounds: int) -> Iterator[str]:
    """Yield the lines of the tables, and the results for the targets."""
    for table in (
        table_of_requests(measured.found, rounds),
        table_of_purges(measured.found),
        table_of_ticks(measured.found),
        table_of_workers(measured),
        table_of_targets(measured),
    ):
        yield from table
        yield ""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measures what many entries cost and prints tables as Markdown.")
    parser.add_argument("--entries", type=int, default=50_000, help="number of entries (default 50000)")
    parser.add_argument("--rounds", type=int, default=20, help="number of rounds (default 20, about 15 s)")
    chosen = parser.parse_args()
    if chosen.rounds < 1 or chosen.entries < FEW_ENTRIES:
        parser.error(f"give 1 or more for --rounds, and {FEW_ENTRIES} or more for --entries")
    # No sweeps during other measurements; they are measured separately.
    housekeeper.INTERVAL = DAY
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        print("\n".join(tables(figures(Path(folder), chosen.entries, chosen.rounds), chosen.rounds)))


if __name__ == "__main__":
    main()
