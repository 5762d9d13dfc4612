"""The sweep: what nobody uses, what was purged and what was left behind goes; nothing else, and never under somebody's hands."""

from __future__ import annotations

import errno
import gc
import json
import os
import random
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count, islice, pairwise
from pathlib import Path
from typing import Any

import pytest
import time_machine

from flask_stalecache import FileStore, StoreError
from flask_stalecache.core.model.keys import digest
from flask_stalecache.core.model.note import NOTHING, Note
from flask_stalecache.filesystem import locks
from flask_stalecache.filesystem.locks import FileKeyLock
from flask_stalecache.stores import purge_records as names_module
from flask_stalecache.stores import sweep as sweep_module
from flask_stalecache.stores.entry_format import MAGIC, encode
from flask_stalecache.stores.folders import Folders, Found, Listed
from flask_stalecache.stores.stamps import FILE_NAME, Stamps, mark_of
from support.client import MakeApp, visit
from support.clock import NOON
from support.engine import make_entry
from support.processes import Worker, workers
from support.threads import wait_until

HOUR, DAY, YEAR = 3600, 86_400, 365 * 86_400
#: Seconds without use after which the stores of these tests let go, and longer than a pause between two sweeps.
INACTIVE = 1000
PAUSE = 61
#: Ticks in which any sweep of a few files ends, however slow the machine.
TICKS = 2000
#: Windows that are over at once.
BRIEF = (1, 0, 0)
FOLDERS = range(256)


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
    return float(json.loads((directory / "sweep").read_bytes())["next_at"]) > time.time()


def sweep(store: FileStore) -> None:
    """Let a store tick until the sweep that is due is over."""
    for _ in range(TICKS):
        store.tick()
        if is_over(store.directory):
            return
    raise AssertionError("the sweep does not come to its end")


def struggle(store: FileStore) -> None:
    """Let a store tick as often as any sweep takes, whatever troubles it tells of."""
    for _ in range(60):
        with suppress(StoreError):
            store.tick()


def aged(path: Path, age: float) -> Path:
    """Give a file an age by the clock of the test."""
    os.utime(path, (time.time() - age,) * 2, follow_symlinks=False)
    return path


# -- what nobody uses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("windows", "never_stale", "idle", "stays"),
    [
        ((60, 0, 0), False, INACTIVE - 1, True),
        ((60, 0, 0), False, INACTIVE, True),
        ((60, 0, 0), False, INACTIVE + 1, False),
        ((0, 0, 0), False, INACTIVE + 1, False),
        # Fresh, and nobody reads it.
        ((5000, 0, 0), False, INACTIVE + 1, True),
        ((5000, 0, 0), False, 4999, True),
        ((5000, 0, 0), False, 5001, False),
        # In stale-while-revalidate.
        ((60, 5000, 0), False, INACTIVE + 1, True),
        ((60, 5000, 0), False, 5059, True),
        ((60, 5000, 0), False, 5061, False),
        # In stale-if-error.
        ((60, 0, 5000), False, 5059, True),
        ((60, 0, 5000), False, 5061, False),
        ((60, 5000, 100), False, 5059, True),
        ((60, 100, 5000), False, 5059, True),
        # It may not be stale, so it has no stale windows.
        ((60, 5000, 5000), True, INACTIVE - 1, True),
        ((60, 5000, 5000), True, INACTIVE + 1, False),
        ((60, 10 * YEAR, 0), False, YEAR, True),
    ],
)
def test_an_entry_goes_once_it_is_unused_and_past_its_windows(
    directory: Path,
    clock: time_machine.Traveller,
    windows: tuple[float, float, float],
    never_stale: bool,
    idle: float,
    stays: bool,
) -> None:
    store = open_store(directory)
    keep(store, "page", windows=windows, never_stale=never_stale)
    clock.shift(idle)
    sweep(store)
    assert kept(store, "page") == (["page"] if stays else [])
    assert store.counters["evicted_inactive"] == (0 if stays else 1)
    assert (store.load("page").entry is not None) == stays


def test_what_was_removed_is_gone_for_other_stores_too(directory: Path, clock: time_machine.Traveller) -> None:
    store, other = open_store(directory), open_store(directory)
    keep(store, "page")
    copy = other.load("page")
    clock.shift(INACTIVE + 1)
    sweep(store)
    assert other.lookup("page") is None
    assert other.moved(copy)
    assert list(directory.glob("??/*")) == []


def test_the_note_beside_an_entry_goes_with_it(directory: Path, clock: time_machine.Traveller) -> None:
    store = open_store(directory)
    keep(store, "page")
    store.write_note("page", Note(failures=1))
    clock.shift(INACTIVE + 1)
    sweep(store)
    assert list(directory.glob("??/*")) == []


def test_an_entry_that_fails_again_and_again_is_in_use(directory: Path, clock: time_machine.Traveller) -> None:
    """A dead third party's page: what is served after a failure is noted beside it."""
    store = open_store(directory)
    keep(store, "page")
    clock.shift(INACTIVE - 1)
    store.write_note("page", Note(failures=1))
    clock.shift(INACTIVE - 1)
    sweep(store)
    assert kept(store, "page") == ["page"]
    clock.shift(PAUSE)
    sweep(store)
    assert kept(store, "page") == []


def test_what_is_hit_stays_and_what_is_not_goes(directory: Path, clock: time_machine.Traveller) -> None:
    store = open_store(directory)
    keep(store, "hot", "cold")
    for _ in range(5):
        clock.shift(INACTIVE - PAUSE)
        use(store, "hot")
        clock.shift(PAUSE)
        sweep(store)
        assert kept(store, "hot") == ["hot"]
    assert kept(store, "cold") == []
    clock.shift(INACTIVE + 1)
    sweep(store)
    assert kept(store, "hot") == []


def test_reading_without_serving_is_no_use(directory: Path, clock: time_machine.Traveller) -> None:
    store = open_store(directory)
    keep(store, "page")
    for _ in range(3):
        clock.shift(INACTIVE / 2)
        open_store(directory).load("page")
        sweep(store)
    assert kept(store, "page") == []


@pytest.mark.parametrize("path", ["/hit", "/stale"])
def test_visits_keep_a_page(make_app: MakeApp, clock: time_machine.Traveller, path: str) -> None:
    """A hit, and a page that is preferred stale long after its windows."""
    app, cache = make_app(INACTIVE=INACTIVE, PREFER_STALE=True, PREFER_STALE_REFRESH=False)
    store, runs = app.extensions["stalecache"].engine.store, Counter[str]()

    @app.get("/stale")
    @cache.cached(1, 0, 0)
    def stale() -> str:
        runs["/stale"] += 1
        return "stale"

    @app.get("/hit")
    @cache.cached(10 * DAY, 0, 0)
    def hit() -> str:
        runs["/hit"] += 1
        return "hit"

    @app.get("/left-alone")
    @cache.cached(1, 0, 0)
    def left_alone() -> str:
        return "left alone"

    def files() -> int:
        return len([name for name in store.directory.glob("??/*") if not name.suffix])

    visit(app, path)
    visit(app, "/left-alone")
    assert files() == 2
    for _ in range(10):
        clock.shift(INACTIVE - PAUSE)
        assert visit(app, path).word == path[1:].upper()
        clock.shift(PAUSE)
        sweep(store)
    assert runs[path] == 1
    assert files() == 1


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with workers(1) as made:
        yield made[0]


def use_elsewhere(directory: Path, key: str, moment: float) -> bool:
    with time_machine.travel(moment, tick=False):
        store = open_store(directory)
        use(store, key)
        return store.load(key).entry is not None


def test_use_in_another_process_counts(worker: Worker, directory: Path, clock: time_machine.Traveller) -> None:
    store = open_store(directory)
    keep(store, "theirs", "nobodys")
    for _ in range(3):
        clock.shift(INACTIVE - PAUSE)
        assert worker.run(use_elsewhere, directory, "theirs", time.time())
        clock.shift(PAUSE)
        sweep(store)
    assert kept(store, "theirs", "nobodys") == ["theirs"]


@pytest.mark.parametrize("swept", [True, False], ids=["noted in its file", "only marked"])
def test_the_time_of_the_last_use_survives_a_restart(directory: Path, clock: time_machine.Traveller, swept: bool) -> None:
    store = open_store(directory)
    keep(store, "used", "unused")
    clock.shift(INACTIVE - PAUSE)
    use(store, "used")
    if swept:
        sweep(store)
        # The table may go with the machine; what is in the files stays.
        (directory / FILE_NAME).unlink()
    del store
    restarted = open_store(directory)
    restarted.load("other")
    clock.shift(2 * PAUSE)
    sweep(restarted)
    assert kept(restarted, "used", "unused") == ["used"]
    clock.shift(INACTIVE + 1)
    sweep(restarted)
    assert kept(restarted, "used") == []


def test_a_short_inactive_is_kept_to(directory: Path, clock: time_machine.Traveller) -> None:
    """Sweeps come as often as it takes: what goes after a minute does not stay for two."""
    store = open_store(directory, inactive=20)
    keep(store, "page")
    sweep(store)
    clock.shift(21)
    keep(store, "news")
    sweep(store)
    assert kept(store, "page", "news") == ["news"]


# -- what was purged -------------------------------------------------------------------------------------------------


def test_what_was_purged_is_removed_and_counted(directory: Path, clock: time_machine.Traveller) -> None:
    store = open_store(directory, inactive=DAY)
    keep(store, "old", "older", windows=(DAY, DAY, DAY))
    store.purge("endpoint:prices", soft=False)
    keep(store, "new", windows=(DAY, DAY, DAY))
    clock.shift(PAUSE)
    sweep(store)
    assert kept(store, "old", "older", "new") == ["new"]
    assert store.counters["removed_purged"] == 2
    assert store.counters["evicted_inactive"] == 0


def test_what_was_purged_softly_stays(directory: Path, clock: time_machine.Traveller) -> None:
    store = open_store(directory, inactive=DAY)
    keep(store, "page", windows=(DAY, DAY, DAY))
    store.purge("endpoint:prices", soft=True)
    clock.shift(PAUSE)
    sweep(store)
    assert kept(store, "page") == ["page"]
    entry = store.load("page").entry
    assert entry is not None
    assert entry.ended


def test_other_names_purges_remove_nothing(directory: Path, clock: time_machine.Traveller) -> None:
    store = open_store(directory, inactive=DAY)
    keep(store, "page", windows=(DAY, DAY, DAY))
    store.purge("tag:elsewhere", soft=False)
    clock.shift(PAUSE)
    sweep(store)
    assert kept(store, "page") == ["page"]


def test_what_is_purged_behind_the_sweep_goes_in_the_next(
    directory: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(directory, inactive=DAY)
    keep(store, "page", windows=(DAY, DAY, DAY))
    look, passed = Folders.listed, list[int]()

    def purge_behind(folders: Folders, number: int) -> Listed:
        if folders.directory == directory and number == int(digest("page")[:2], 16) + 1 and not passed:
            passed.append(number)
            store.purge("all", soft=False)
        return look(folders, number)

    monkeypatch.setattr(Folders, "listed", purge_behind)
    clock.shift(PAUSE)
    sweep(store)
    assert passed
    assert kept(store, "page") == ["page"]
    clock.shift(PAUSE)
    sweep(store)
    assert kept(store, "page") == []


def test_what_was_purged_long_ago_is_not_looked_for_again(
    directory: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep in which nothing was purged and nothing is old opens no entry."""
    store = open_store(directory, inactive=DAY)
    keep(store, "page")
    store.purge("tag:elsewhere", soft=False)
    clock.shift(PAUSE)
    sweep(store)
    opened, real = list[str](), os.open

    def watching(path: str | Path, *args: int) -> int:
        opened.append(str(path))
        return real(path, *args)

    monkeypatch.setattr(os, "open", watching)
    clock.shift(PAUSE)
    sweep(store)
    assert str(file_of(directory, "page")) not in opened


@pytest.mark.parametrize(
    ("after", "soft", "with_entry", "stays"),
    [
        (23 * HOUR, False, False, True),
        (25 * HOUR, False, False, False),
        (25 * HOUR, True, False, False),
        (25 * HOUR, True, True, True),
        (25 * HOUR, False, True, False),
    ],
)
def test_the_record_of_a_purge_goes_once_nobody_needs_it(
    directory: Path, clock: time_machine.Traveller, after: float, soft: bool, with_entry: bool, stays: bool
) -> None:
    store, record = open_store(directory, inactive=10 * DAY), directory / "names" / digest("endpoint:prices")
    if with_entry:
        keep(store, "page", windows=(DAY, DAY, DAY))
    store.purge("endpoint:prices", soft=soft)
    clock.shift(PAUSE)
    sweep(store)
    assert record.exists()
    clock.shift(after - PAUSE)
    sweep(store)
    assert record.exists() == stays
    if stays and with_entry:
        loaded = open_store(directory).load("page").entry
        assert loaded is not None
        assert loaded.ended


def test_of_very_many_records_a_part_goes_at_a_time_and_all_in_the_end(
    directory: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch, monotonic: Callable[[float], None]
) -> None:
    monkeypatch.setattr(names_module, "MOST", 20)
    monkeypatch.setattr(sweep_module, "_BATCH", 5)
    store, remove, looks = open_store(directory), names_module.Names.remove, list[int]()
    older_than, written = names_module.Names.older_than, names_module._written

    def counting(names: names_module.Names, time_ns: int) -> list[Path]:
        # The app of another test may still be looked after.
        if names.folder.parent == directory:
            looks.append(0)
        return older_than(names, time_ns)

    def counted(path: Path) -> float:
        if directory in path.parents:
            looks[-1] += 1
        return written(path)

    monkeypatch.setattr(names_module.Names, "older_than", counting)
    monkeypatch.setattr(names_module, "_written", counted)

    def slow(names: names_module.Names, *arguments: Any) -> None:
        if names.folder.parent == directory:
            monotonic(0.003)
        remove(names, *arguments)

    monkeypatch.setattr(names_module.Names, "remove", slow)
    store.purge(*(f"tag:{number}" for number in range(60)), soft=False)
    left = [60]
    clock.shift(25 * HOUR)
    for _ in range(TICKS):
        sweep(store)
        left.append(sum(1 for path in (directory / "names").iterdir() if path.name != "last"))
        clock.shift(PAUSE)
        if left[-1] == 0:
            break
    assert left[-1] == 0
    assert max(looks) == 20
    # Until the time is over: 10 ms, or the 10 in which the others of the batch go, too.
    assert max(before - now for before, now in pairwise(left)) <= 10


# -- what was left behind --------------------------------------------------------------------------------------------


def leftover(path: Path) -> Path:
    return path.with_name(f"{path.name}.0123456789abcdef.tmp")


LEFTOVERS: dict[str, Callable[[Path], Path]] = {
    "of an entry": lambda directory: leftover(file_of(directory, "page")),
    "of an entry that is not there": lambda directory: leftover(file_of(directory, "gone")),
    "of a note": lambda directory: leftover(file_of(directory, "page", ".note")),
    "of the record of a purge": lambda directory: leftover(directory / "names" / digest("all")),
    "of the last purge number": lambda directory: leftover(directory / "names" / "last"),
    "of the table": lambda directory: leftover(directory / FILE_NAME),
    "of the sweep's own state": lambda directory: leftover(directory / "sweep"),
}


@pytest.mark.parametrize("place", LEFTOVERS.values(), ids=LEFTOVERS)
@pytest.mark.parametrize(("age", "stays"), [(HOUR - PAUSE, True), (HOUR + 1, False)], ids=["young", "old"])
def test_the_leftover_of_a_killed_writer_goes_after_an_hour(
    directory: Path, clock: time_machine.Traveller, place: Callable[[Path], Path], age: float, stays: bool
) -> None:
    store = open_store(directory)
    keep(store, "page")
    store.purge("tag:news", soft=False)
    left = place(directory)
    left.parent.mkdir(mode=0o700, exist_ok=True)
    left.write_bytes(b"half a")
    aged(left, age)
    sweep(store)
    assert left.exists() == stays
    assert kept(store, "page") == ["page"]


def write_half(directory: Path, moment: float, told: Path) -> None:
    """Write an entry and a note, and never come to the rename of what is written next."""
    with time_machine.travel(moment, tick=False):
        store = open_store(directory)
        keep(store, "page")

        def stop(*_: object) -> None:
            told.touch()
            threading.Event().wait()

        pytest.MonkeyPatch().setattr(os, "rename", stop)
        keep(store, "page")


def test_a_writer_that_is_killed_leaves_nothing_for_ever(tmp_path: Path, directory: Path, clock: time_machine.Traveller) -> None:
    with workers(1) as made:
        made[0].start(write_half, directory, time.time(), tmp_path / "told")
        wait_until((tmp_path / "told").exists)
        made[0].kill()
    (left,) = directory.glob("??/*.tmp")
    store = open_store(directory)
    assert store.load("page").entry is not None
    clock.shift(HOUR - 1)
    use(store, "page")
    sweep(store)
    assert left.exists()
    clock.shift(PAUSE)
    sweep(store)
    assert not left.exists()
    assert kept(store, "page") == ["page"]


@pytest.mark.parametrize(
    ("beside", "age", "stays"),
    [
        (False, 59, True),
        (False, 61, False),
        (True, HOUR - 1, True),
        (True, HOUR + 1, False),
    ],
    ids=["alone, young", "alone, idle", "beside an entry, young", "beside an entry, idle"],
)
def test_an_idle_lock_goes(directory: Path, clock: time_machine.Traveller, beside: bool, age: float, stays: bool) -> None:
    store = open_store(directory)
    if beside:
        keep(store, "page", windows=(DAY, 0, 0))
    lock = store.lock("page")
    assert lock.acquire()
    lock.release()
    aged(file_of(directory, "page", ".lock"), age)
    store.load("page")
    sweep(store)
    assert file_of(directory, "page", ".lock").exists() == stays
    assert kept(store, "page") == (["page"] if beside else [])


def hold(directory: Path, key: str) -> bool:
    HELD.append(open_store(directory).lock(key))
    return HELD[-1].acquire()


def let_go() -> None:
    HELD.pop().release()


#: What a worker holds.
HELD: list[FileKeyLock] = []


@pytest.mark.parametrize("beside", [True, False])
def test_a_lock_that_is_held_stays_and_so_does_what_it_is_of(
    worker: Worker, directory: Path, clock: time_machine.Traveller, beside: bool
) -> None:
    store = open_store(directory)
    store.load("page")
    if beside:
        keep(store, "page")
    path = file_of(directory, "page", ".lock")
    assert worker.run(hold, directory, "page")
    inode = aged(path, 2 * DAY).stat().st_ino
    clock.shift(2 * DAY)
    for _ in range(2):
        sweep(store)
        assert path.stat().st_ino == inode
        assert kept(store, "page") == (["page"] if beside else [])
        assert not store.lock("page").acquire()
        clock.shift(PAUSE)
    worker.run(let_go)
    sweep(store)
    assert list(directory.glob("??/*")) == []


@pytest.mark.parametrize(
    ("inactive", "age", "stays"),
    [(INACTIVE, INACTIVE - 1, True), (INACTIVE, INACTIVE + 1, False), (DAY, HOUR - 1, True), (DAY, HOUR + 1, False)],
)
def test_a_note_without_an_entry_goes(
    directory: Path, clock: time_machine.Traveller, inactive: float, age: float, stays: bool
) -> None:
    store = open_store(directory, inactive)
    store.write_note("page", Note(failures=1))
    clock.shift(age)
    sweep(store)
    assert file_of(directory, "page", ".note").exists() == stays
    assert (open_store(directory).load("page").note != NOTHING) == stays


def count_up(directory: Path, number: Path, times: int, removed: Path) -> int:
    """Increment a number in a file under a key's lock, so many times at least, and until locks are removed; return how often."""
    store, pause = open_store(directory), threading.Event()
    for done in count():
        if done >= times and removed.exists():
            return done
        lock = store.lock("page")
        while not lock.acquire():
            pause.wait(0.0002)
        number.write_text(str(int(number.read_text()) + 1))
        lock.release()
        # Else the sweeper would hardly ever find it free.
        pause.wait(0.0005)
    raise AssertionError


def sweep_locks(directory: Path, stop: Path, removed: Path) -> None:
    """Sweep all locks that nobody holds, again and again."""
    pytest.MonkeyPatch().setattr(sweep_module, "PAUSE", 0)
    pytest.MonkeyPatch().setattr(sweep_module, "LEFTOVER_AGE", -1)
    unlink = os.unlink

    def telling(path: str | Path, **options: int) -> None:
        unlink(path, **options)
        if str(path).endswith(digest("page") + ".lock"):
            removed.touch()

    pytest.MonkeyPatch().setattr(os, "unlink", telling)
    store = open_store(directory)
    store.load("page")
    while not stop.exists():
        store.tick()


@pytest.mark.soak
def test_contenders_for_a_lock_that_is_swept_away_never_meet(
    tmp_path: Path, directory: Path, soak: Callable[[int, int], int]
) -> None:
    number, stop, removed, times = tmp_path / "number", tmp_path / "stop", tmp_path / "removed", soak(2000, 100)
    number.write_text("0")
    with workers(3) as (sweeper, *counting):
        sweeper.start(sweep_locks, directory, stop, removed)
        for worker in counting:
            worker.start(count_up, directory, number, times, removed)
        counted = [worker.result() for worker in counting]
        stop.touch()
        sweeper.result()
    assert int(number.read_text()) == sum(counted)


# -- what is not ours ------------------------------------------------------------------------------------------------


def a_file(path: Path, precious: Path) -> None:
    path.write_text("a stranger's")


def a_folder(path: Path, precious: Path) -> None:
    path.mkdir()
    (path / "inside").write_text("a stranger's")


def a_link(path: Path, precious: Path) -> None:
    path.symlink_to(precious)


def a_pipe(path: Path, precious: Path) -> None:
    os.mkfifo(path)


#: Where, with HASH for a key's hash of its own, AB for its folder and CD for another one; and what.
STRANGERS: list[tuple[str, Callable[[Path, Path], None]]] = [
    ("README", a_file),
    ("README.0123456789abcdef.tmp", a_file),
    ("purge", a_file),
    ("HASH", a_file),
    ("zz", a_folder),
    ("AB0", a_folder),
    ("AB/notes.txt", a_file),
    ("AB/x.tmp", a_file),
    ("AB/notes.txt.0123456789abcdef.tmp", a_file),
    ("AB/HASH0", a_file),
    ("AB/HASH.bak", a_file),
    ("AB/HASH.lock.bak", a_file),
    ("AB/HASH.tmp", a_file),
    ("AB/HASH.0123456789abcde.tmp", a_file),
    ("AB/HASH.0123456789abcdef.tmp.gz", a_file),
    ("AB/.HASH", a_file),
    ("AB/HASH", a_folder),
    ("AB/HASH", a_link),
    ("AB/HASH", a_pipe),
    ("AB/HASH.note", a_folder),
    ("AB/HASH.note", a_link),
    ("AB/HASH.lock", a_folder),
    ("AB/HASH.lock", a_link),
    ("AB/HASH.0123456789abcdef.tmp", a_folder),
    ("AB/HASH.0123456789abcdef.tmp", a_link),
    ("CD/HASH", a_file),
    ("CD/HASH.note", a_file),
    ("CD/HASH.lock", a_file),
    ("CD/HASH.0123456789abcdef.tmp", a_file),
    ("names/README", a_file),
    ("names/notes.0123456789abcdef.tmp", a_file),
    ("names/last.bak", a_file),
    ("names/HASH.bak", a_file),
    ("names/HASH", a_folder),
    ("names/HASH", a_link),
]


def stranger(directory: Path, number: int, name: str) -> Path:
    key = digest(f"stranger {number}")
    return directory / name.replace("HASH", key).replace("AB", key[:2]).replace("CD", f"{int(key[:2], 16) ^ 1:02x}")


def seen(path: Path) -> object:
    """Return what can be seen of a file, a link, or a folder with one file in it."""
    if not os.path.lexists(path):
        return None
    status = path.lstat()
    inside = [(file.read_bytes(), file.stat().st_mtime) for file in (path / "inside", path) if file.is_file()]
    return status.st_ino, status.st_mode, status.st_mtime, inside


def test_what_is_not_ours_is_never_touched(tmp_path: Path, directory: Path, clock: time_machine.Traveller) -> None:
    store, precious = open_store(directory), tmp_path / "precious"
    store.purge("tag:news", soft=False)
    precious.write_bytes(encode(make_entry(windows=BRIEF)))
    paths = [stranger(directory, number, name) for number, (name, _) in enumerate(STRANGERS)]
    for path, (_, make) in zip(paths, STRANGERS, strict=True):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        make(path, precious)
    for path in (*paths, precious):
        for old in (path, *path.glob("inside")):
            aged(old, YEAR)
    before = {path: seen(path) for path in (*paths, precious)}
    keep(store, "page")
    clock.shift(2 * DAY)
    sweep(store)
    store.purge("all", soft=False)
    clock.shift(PAUSE)
    sweep(store)
    assert {path: seen(path) for path in before} == before
    assert kept(store, "page") == []


def test_a_file_in_place_of_a_folder_is_left_alone(directory: Path, clock: time_machine.Traveller) -> None:
    store, place = open_store(directory), file_of(directory, "page").parent
    keep(store, "other")
    place.write_text("a stranger's")
    clock.shift(INACTIVE + 1)
    sweep(store)
    assert place.read_text() == "a stranger's"
    assert kept(store, "other") == []


# -- one at a time ---------------------------------------------------------------------------------------------------


def sweep_and_stop(directory: Path, moment: float, number: int, told: Path) -> None:
    """Sweep, and stand still before a folder for ever."""
    look = Folders.listed

    def stopping(folders: Folders, current: int) -> Listed:
        if current == number:
            told.touch()
            threading.Event().wait()
        return look(folders, current)

    pytest.MonkeyPatch().setattr(Folders, "listed", stopping)
    with time_machine.travel(moment, tick=False):
        store = open_store(directory)
        store.load("page")
        while True:
            store.tick()


def test_one_process_sweeps_at_a_time_and_another_takes_the_place_of_a_killed_one(
    tmp_path: Path, directory: Path, clock: time_machine.Traveller
) -> None:
    store = open_store(directory)
    keep(store, "page")
    clock.shift(INACTIVE + 1)
    with workers(1) as made:
        made[0].start(sweep_and_stop, directory, time.time(), int(digest("page")[:2], 16), tmp_path / "told")
        wait_until((tmp_path / "told").exists)
        for _ in range(300):
            store.tick()
        assert kept(store, "page") == ["page"]
        made[0].kill()
    sweep(store)
    assert kept(store, "page") == []
    assert store.counters["evicted_inactive"] == 1


@pytest.fixture
def looked(directory: Path, monkeypatch: pytest.MonkeyPatch, monotonic: Callable[[float], None]) -> list[int]:
    """The folders that were looked at; each look takes 10 ms."""
    numbers, look = list[int](), Folders.listed

    def slow(folders: Folders, number: int) -> Listed:
        # The app of another test may still be looked after.
        if folders.directory == directory:
            numbers.append(number)
            monotonic(0.01)
        return look(folders, number)

    monkeypatch.setattr(Folders, "listed", slow)
    return numbers


def test_a_tick_does_a_little(directory: Path, clock: time_machine.Traveller, looked: list[int]) -> None:
    store = open_store(directory)
    keep(store, "page")
    store.tick()
    assert 0 < len(looked) <= 6
    sweep(store)
    assert looked == list(FOLDERS)


def test_one_goes_on_where_the_other_stopped(directory: Path, clock: time_machine.Traveller, looked: list[int]) -> None:
    keep(open_store(directory), "page")
    for _ in range(TICKS):
        # A new one each time, as if the last one had been killed.
        store = open_store(directory)
        store.load("page")
        store.tick()
        if is_over(directory):
            break
    assert looked == list(FOLDERS)


def test_where_the_disk_is_too_full_to_say_how_far_it_is_the_process_goes_on_by_itself(
    directory: Path, clock: time_machine.Traveller, looked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What makes room on a full disk must come to all folders, not to the first ones again and again."""
    store = open_store(directory)
    keep(store, "page")
    clock.shift(INACTIVE + 1)

    def full(path: Path, *_: object) -> None:
        assert path == directory / "sweep"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sweep_module, "write_file", full)
    for _ in range(len(FOLDERS)):
        with suppress(StoreError):
            store.tick()
        if len(looked) >= len(FOLDERS):
            break
    assert looked == list(FOLDERS)
    assert kept(store, "page") == []


def test_between_two_sweeps_is_a_pause(directory: Path, clock: time_machine.Traveller, looked: list[int]) -> None:
    stores = [open_store(directory) for _ in range(2)]
    keep(stores[0], "page")
    stores[1].load("page")
    sweep(stores[0])
    for _ in range(5):
        clock.shift(10)
        for store in stores:
            store.tick()
    assert looked == list(FOLDERS)
    clock.shift(20)
    sweep(stores[1])
    assert looked == [*FOLDERS, *FOLDERS]


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"\0" * 100,
        b"null",
        b"[]",
        b"{}",
        b'{"folder": 3, "surprise": 1}',
        b'{"folder": 999}',
        b'{"folder": 256}',
        b'{"folder": -1}',
        b'{"folder": "x"}',
        b'{"folder": null}',
        b'{"folder": 1.5}',
        b'{"next_at": "x"}',
        b'{"next_at": Infinity}',
        b'{"next_at": NaN}',
        b'{"in_use": null}',
        b'{"folder": 3, "in_use": null}',
        b'{"next_at": 0, "folder": 3, "after": "zz", "size": 1, "entries": 1, "is_begun": true, "began": 0, "began_at": 0, '
        b'"checked": 0, "looks": true, "escaped": false, "in_use": []}',
        b'{"folder": 3, "began": null, "checked": null}',
        b'{"folder": 3, "began_at": "x"}',
        b"[" * 100_000,
    ],
    ids=lambda state: state[:30].decode(),
)
def test_a_damaged_state_does_not_stop_the_sweep(directory: Path, clock: time_machine.Traveller, state: bytes) -> None:
    """Files are not synced to the disk, so a crash of the machine may leave anything."""
    store, keys = open_store(directory), [str(number) for number in range(8)]
    keep(store, *keys)
    store.purge("tag:elsewhere", soft=False)
    clock.shift(INACTIVE + 1)
    (directory / "sweep").write_bytes(state)
    for _ in range(2):
        struggle(store)
        clock.shift(PAUSE)
    assert kept(store, *keys) == []


# -- within a folder -------------------------------------------------------------------------------------------------


def of_one_folder(many: int, prefix: str = "07") -> list[str]:
    """Return keys whose files are in the same folder, in the order in which they are looked at."""
    names = (str(number) for number in count())
    return sorted(islice((name for name in names if digest(name).startswith(prefix)), many), key=digest)


@pytest.fixture
def found(directory: Path, monkeypatch: pytest.MonkeyPatch, monotonic: Callable[[float], None]) -> list[str]:
    """The names of the keys that were looked at; each look takes 4 ms."""
    names, find = list[str](), Folders.found

    def slow(folders: Folders, name: str, kinds: frozenset[str]) -> Found:
        if folders.directory == directory:
            names.append(name)
            monotonic(0.004)
        return find(folders, name, kinds)

    monkeypatch.setattr(Folders, "found", slow)
    return names


def test_a_tick_pauses_within_a_folder(directory: Path, clock: time_machine.Traveller, found: list[str]) -> None:
    store, keys = open_store(directory), of_one_folder(20)
    keep(store, *keys)
    before, listed, names = store.usage(), Folders.listed, list[int]()

    def counting(folders: Folders, number: int) -> Listed:
        if folders.directory == directory:
            names.append(number)
        return listed(folders, number)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Folders, "listed", counting)
        for _ in range(TICKS):
            done = len(found)
            store.tick()
            assert len(found) - done <= 5
            if is_over(directory):
                break
    assert found == list(map(digest, keys))
    assert store.usage() == before
    # Its names are read once.
    assert names.count(7) == 1


@pytest.mark.parametrize("is_on", [True, False])
def test_no_garbage_is_collected_within_a_stretch(
    directory: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch, is_on: bool
) -> None:
    """It is as the app wants it afterwards, also where the sweep fails."""
    store, find, seen = open_store(directory), Folders.listed, list[bool]()
    keep(store, "page")

    def watched(folders: Folders, number: int) -> Listed:
        if folders.directory == directory:
            seen.append(gc.isenabled())
            if len(seen) == 3:
                raise OSError("a bad block")
        return find(folders, number)

    monkeypatch.setattr(Folders, "listed", watched)
    if not is_on:
        gc.disable()
    try:
        with pytest.raises(StoreError):
            store.tick()
        assert (seen, gc.isenabled()) == ([False] * 3, is_on)
    finally:
        gc.enable()


def test_two_that_take_turns_within_a_folder_look_at_each_key_once(
    directory: Path, clock: time_machine.Traveller, found: list[str]
) -> None:
    stores, keys = [open_store(directory) for _ in range(2)], of_one_folder(20)
    for store in stores:
        store.load("anything")
    keep(stores[0], *keys)
    for step in range(TICKS):
        stores[step % 2].tick()
        if is_over(directory):
            break
    assert found == list(map(digest, keys))


@pytest.mark.parametrize("anew", [True, False])
def test_a_pause_within_a_folder_loses_nothing(
    directory: Path, clock: time_machine.Traveller, found: list[str], anew: bool
) -> None:
    """Whether the same process goes on, or another one, while things come and go."""
    store, keys = open_store(directory), of_one_folder(20)
    keep(store, *keys)
    clock.shift(INACTIVE + 1)
    for step in range(TICKS):
        worker = open_store(directory) if anew else store
        worker.load("anything")
        worker.tick()
        if is_over(directory):
            break
        for suffix in ("", ".lock"):
            file_of(directory, keys[-1 - step], suffix).unlink(missing_ok=True)
        keep(store, f"new-{step}")
    assert kept(store, *keys) == []
    assert len(found) <= len(keys) + step


@pytest.mark.parametrize("damage", [0, 10**9])
def test_a_pause_within_a_folder_mends_its_counters(
    directory: Path, clock: time_machine.Traveller, found: list[str], damage: int
) -> None:
    store, (alone, *keys) = open_store(directory), of_one_folder(20)
    keep(store, *keys)
    store.write_note(keys[3], Note(failures=1))
    store.write_note(alone, Note(failures=1))
    before, stamps = store.usage(), Stamps(directory / FILE_NAME)
    stamps.folder_sizes[7] = stamps.folder_entries[7] = damage
    for _ in range(TICKS):
        worker = open_store(directory)
        worker.load("anything")
        worker.tick()
        if is_over(directory):
            break
    assert store.usage() == before


def test_what_is_asked_for_now_does_not_go_on_where_another_sweep_is(
    directory: Path, clock: time_machine.Traveller, found: list[str]
) -> None:
    store, keys = open_store(directory), of_one_folder(20)
    keep(store, *keys, windows=(DAY, 0, 0))
    store.tick()
    while not found:
        store.tick()
    assert 0 < len(found) < 20
    store.purge("all", soft=False)
    assert open_store(directory).sweep()["removed_purged"] == 20
    assert kept(store, *keys) == []


def test_what_is_asked_for_now_waits_for_a_tick_and_not_for_a_sweep(
    directory: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.05)
    store, other = open_store(directory), open_store(directory)
    keep(store, "page")
    lock = FileKeyLock(directory / "sweep.lock", lambda folder: None)
    assert lock.acquire()
    with pytest.raises(StoreError, match=r"sweep\.lock is held"):
        other.sweep()
    lock.release()
    assert other.sweep() == {"bytes": 0}


@pytest.mark.parametrize("remembered", [100, 5])
def test_what_was_purged_goes_however_many_names_were(
    directory: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch, remembered: int
) -> None:
    """With very many, the names that were purged are not remembered."""
    monkeypatch.setattr(names_module, "_REMEMBERED", remembered)
    store = open_store(directory, inactive=DAY)
    for number in range(20):
        assert store.write(make_entry(str(number), names=("all", f"tag:{number}"), windows=(DAY, 0, 0), seq=store.seq()))
    store.purge(*(f"tag:{number}" for number in range(10, 30)), soft=False)
    assert store.sweep()["removed_purged"] == 10
    store.purge("all", soft=False)
    assert store.sweep()["removed_purged"] == 10


# -- what is broken --------------------------------------------------------------------------------------------------


def cut(data: bytes) -> bytes:
    return data[:100]


def with_head(head: object) -> Callable[[bytes], bytes]:
    """Return a change to a head that is longer or shorter: whole by its lengths, and wrong."""
    packed = json.dumps(head).encode()
    return lambda _: struct.pack(">4sIQ", MAGIC, len(packed), 0) + bytes(16) + packed


def with_field(name: str, value: object) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        head = json.loads(data[32 : 32 + struct.unpack_from(">I", data, 4)[0]])
        return with_head({**head, name: value})(data)

    return change


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "a few bytes": lambda data: data[:10],
    "cut in the head": cut,
    "zeros": lambda data: bytes(len(data)),
    "another format": lambda data: b"FSC1" + data[4:],
    "a head without end": lambda data: data[:4] + b"\xff\xff\xff\xff" + data[8:],
    "a head that is no JSON": lambda data: data[:32] + b"x" * (len(data) - 32),
    "a head that is a list": with_head([1, 2]),
    "a head that says nothing": with_head({}),
    "windows that are none": with_field("windows", [1]),
    "windows of text": with_field("windows", ["a", "b", "c"]),
    "a time of text": with_field("answered", "yesterday"),
    "a number of text": with_field("seq", "many"),
    "names that are none": with_field("names", 5),
    "a name that is a number": with_field("names", ["all", 5]),
    "a head deeper than any": lambda _: struct.pack(">4sIQ", MAGIC, 200_000, 0) + bytes(16) + b"[" * 200_000,
}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN)
def test_a_broken_entry_is_removed_and_counted_and_stops_nobody(
    directory: Path, clock: time_machine.Traveller, damage: Callable[[bytes], bytes]
) -> None:
    store, keys = open_store(directory), [str(number) for number in range(8)]
    keep(store, *keys)
    store.purge("tag:elsewhere", soft=False)
    broken = sorted(keys, key=digest)[:2]
    for key in broken:
        path = file_of(directory, key)
        path.write_bytes(damage(path.read_bytes()))
    clock.shift(INACTIVE + 1)
    for key in broken:
        aged(file_of(directory, key), INACTIVE + 1)
    struggle(store)
    assert kept(store, *keys) == []
    assert store.counters["broken_entries"] == 2
    assert store.counters["evicted_inactive"] == 6


def test_a_broken_entry_that_is_being_replaced_is_left_to_who_does(directory: Path, clock: time_machine.Traveller) -> None:
    store = open_store(directory)
    keep(store, "page")
    file_of(directory, "page").write_bytes(b"broken")
    aged(file_of(directory, "page"), INACTIVE + 1)
    lock = store.lock("page")
    assert lock.acquire()
    sweep(store)
    assert kept(store, "page") == ["page"]
    assert store.counters["broken_entries"] == 0
    keep(store, "page")
    lock.release()
    clock.shift(PAUSE)
    sweep(store)
    assert store.load("page").entry is not None


def a_lock_that_is_a_folder(path: Path) -> None:
    path.with_name(f"{path.name}.lock").mkdir()


def a_lock_that_is_a_link(path: Path) -> None:
    path.with_name(f"{path.name}.lock").symlink_to("nowhere")


def a_folder_beside(path: Path) -> None:
    path.with_name(f"{path.name}.note").mkdir()


@pytest.mark.parametrize("hinder", [a_lock_that_is_a_folder, a_lock_that_is_a_link, a_folder_beside])
def test_one_key_that_cannot_be_swept_keeps_no_other(
    directory: Path, clock: time_machine.Traveller, hinder: Callable[[Path], None]
) -> None:
    store, keys = open_store(directory), [str(number) for number in range(20)]
    keep(store, *keys)
    first = min(keys, key=digest)
    hinder(file_of(directory, first))
    clock.shift(INACTIVE + 1)
    struggle(store)
    assert kept(store, *keys) in ([], [first])


def test_one_entry_that_cannot_be_read_keeps_no_other(
    directory: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad block, or a file of another user."""
    store, keys = open_store(directory), [str(number) for number in range(20)]
    keep(store, *keys)
    first, real = min(keys, key=digest), os.open

    def failing(path: str | Path, *args: int, **options: int) -> int:
        if str(path) == str(file_of(directory, first)):
            raise OSError(5, "Input/output error")
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", failing)
    clock.shift(INACTIVE + 1)
    struggle(store)
    assert kept(store, *keys) in ([], [first])


def test_what_is_replaced_while_it_is_looked_at_stays(
    directory: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at again under its lock: what is there by then is another fill."""
    store, other = open_store(directory), open_store(directory)
    keep(store, "page")
    clock.shift(INACTIVE + 1)
    remove, met = Folders.remove, list[object]()

    def replaced_meanwhile(folders: Folders, found: object, *options: object) -> bool:
        if folders.directory == directory and not met:
            met.append(found)
            keep(other, "page", windows=(60, 0, 0))
        return remove(folders, found, *options)  # type: ignore[arg-type]

    monkeypatch.setattr(Folders, "remove", replaced_meanwhile)
    sweep(store)
    assert met
    assert store.load("page").entry is not None
    assert store.counters["evicted_inactive"] == 0


# -- the clock -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [-HOUR, HOUR, -60, 60])
def test_a_step_of_the_clock_takes_nothing_that_is_in_its_windows(
    directory: Path, clock: time_machine.Traveller, step: float
) -> None:
    store = open_store(directory)
    keep(store, "fresh", windows=(2 * HOUR, 0, 0))
    keep(store, "stale", windows=(1, 2 * HOUR, 0))
    keep(store, "dead upstream", windows=(1, 0, 2 * HOUR))
    sweep(store)
    for _ in range(3):
        clock.shift(step)
        sweep(store)
        clock.shift(-step)
        sweep(store)
    assert len(kept(store, "fresh", "stale", "dead upstream")) == 3


@pytest.mark.parametrize("step", [-HOUR, HOUR])
@pytest.mark.parametrize("used", [True, False])
def test_after_a_step_of_the_clock_nothing_is_eternal(
    directory: Path, clock: time_machine.Traveller, step: float, used: bool
) -> None:
    store, keys = open_store(directory), [str(number) for number in range(8)]
    keep(store, *keys, "noted")
    for key in ("noted", "alone"):
        store.write_note(key, Note(written=time.time(), failures=1))
    lock = store.lock("locked")
    assert lock.acquire()
    lock.release()
    left = leftover(file_of(directory, "page"))
    left.parent.mkdir(mode=0o700, exist_ok=True)
    left.touch()
    for path in (left, file_of(directory, "locked", ".lock")):
        aged(path, 0)
    sweep(store)
    clock.shift(step)
    if used:
        use(store, "0")
    sweep(store)
    # What is from the future is as good as new, and then as old as anything else.
    clock.shift(HOUR + 2)
    sweep(store)
    clock.shift(max(INACTIVE, HOUR) + PAUSE)
    sweep(store)
    clock.shift(PAUSE)
    sweep(store)
    assert list(directory.glob("??/*")) == []


def test_a_clock_that_was_years_ahead_leaves_no_eternal_notes_locks_and_leftovers(
    directory: Path, clock: time_machine.Traveller
) -> None:
    """A machine that starts with a wrong clock, until it has asked for the time."""
    store = open_store(directory)
    clock.shift(YEAR)
    store.write_note("noted", Note(written=time.time(), failures=1))
    store.write_note("alone", Note(written=time.time(), failures=1))
    assert store.lock("locked").acquire()
    left = leftover(file_of(directory, "page"))
    left.parent.mkdir(mode=0o700, exist_ok=True)
    left.touch()
    for path in (left, file_of(directory, "locked", ".lock")):
        aged(path, 0)
    sweep(store)
    clock.move_to(NOON)
    keep(store, "noted")
    for _ in range(4):
        clock.shift(HOUR + INACTIVE + PAUSE)
        sweep(store)
    assert list(directory.glob("??/*")) == []


def test_a_sweep_is_not_put_off_by_a_clock_that_steps_back(directory: Path, clock: time_machine.Traveller) -> None:
    store = open_store(directory)
    clock.shift(YEAR)
    keep(store, "other")
    sweep(store)
    clock.move_to(NOON)
    keep(store, "page")
    clock.shift(INACTIVE + 1)
    sweep(store)
    assert kept(store, "page") == []


def test_last_use_from_the_future_counts_from_now(directory: Path, clock: time_machine.Traveller) -> None:
    store = open_store(directory)
    keep(store, "page", "used")
    clock.shift(YEAR)
    use(store, "used")
    sweep(store)
    assert kept(store, "page", "used") == ["used"]
    clock.move_to(NOON + PAUSE)
    sweep(store)
    assert kept(store, "used") == ["used"]
    clock.shift(INACTIVE + 1)
    sweep(store)
    assert kept(store, "used") == []


# -- everything at once ----------------------------------------------------------------------------------------------


def test_a_random_life_leaves_what_a_model_says(directory: Path, clock: time_machine.Traveller) -> None:
    """Each key's last use is noted by the test too; nothing goes before its time, and nothing stays long after it."""
    store, chance = open_store(directory), random.Random(7)
    keys = [f"page-{number}" for number in range(30)]
    used, over = dict[str, float](), dict[str, float]()
    for _ in range(100):
        clock.shift(chance.choice([1, 10, PAUSE, INACTIVE / 3]))
        key, now = chance.choice(keys), time.time()
        if chance.random() < 0.4:
            windows = (chance.choice([1, 100, 3000]), chance.choice([0, 3000]), chance.choice([0, 2000]))
            keep(store, key, windows=windows)
            used[key], over[key] = now, now + windows[0] + max(windows[1:])
        elif key in used and kept(store, key):
            use(store, key)
            used[key] = now
        sweep(store)
        now = time.time()
        for name in list(used):
            due = max(used[name] + INACTIVE, over[name])
            if now <= due:
                assert kept(store, name) == [name], (name, now - due)
            # Marks are looked at once in a while, so that a use is dated up to a pause late.
            elif now > due + INACTIVE / 3 + PAUSE:
                assert kept(store, name) == [], (name, now - due)


def test_two_keys_that_share_a_mark_keep_each_other_for_a_while_and_not_for_ever(
    directory: Path, clock: time_machine.Traveller
) -> None:
    store = open_store(directory)
    mark = mark_of(digest("page"))
    twin = next(key for number in count() if mark_of(digest(key := f"twin-{number}")) == mark)
    keep(store, "page", twin)
    for _ in range(3):
        clock.shift(INACTIVE + 1)
        use(store, "page")
        sweep(store)
    clock.shift(INACTIVE + 1)
    sweep(store)
    assert kept(store, "page", twin) == []
