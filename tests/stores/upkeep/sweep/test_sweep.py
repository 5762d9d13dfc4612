"""The sweep: removes unused and purged entries, and nothing else."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
import time_machine

from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.core.model.moments import Uptime
from flask_stalecache.core.model.note import Note
from flask_stalecache.filesystem.directory import Inside
from flask_stalecache.stores.folders import Folders, Listed
from flask_stalecache.stores.purges import purge_records as names_module
from flask_stalecache.stores.table.stamps import FILE_NAME, digest_mark
from flask_stalecache.stores.upkeep import sweep as sweep_module
from support.client import MakeApp, visit
from support.processes import Worker
from support.sweep import DAY, HOUR, INACTIVE, PAUSE, TICKS, YEAR, file_of, keep, kept, open_store, sweep, use

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
        if folders.directory.path == directory and number == int(digest("page")[:2], 16) + 1 and not passed:
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

    def watching(path: str | Path, *args: int, **options: int) -> int:
        opened.append(Path(path).name)
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", watching)
    clock.shift(PAUSE)
    sweep(store)
    assert file_of(directory, "page").name[:2] in opened
    assert file_of(directory, "page").name not in opened


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
    store, remove, looks = open_store(directory), names_module.PurgeRecords.remove, list[int]()
    outdated, written = names_module.PurgeRecords.outdated, names_module._written_ns

    def counting(names: names_module.PurgeRecords, now: float, up: Uptime) -> list[Inside]:
        # The app of another test may still be looked after.
        if names.folder.held.path == directory:
            looks.append(0)
        return outdated(names, now, up)

    def counted(file: Inside) -> int | None:
        if file.held.path == directory:
            looks[-1] += 1
        return written(file)

    monkeypatch.setattr(names_module.PurgeRecords, "outdated", counting)
    monkeypatch.setattr(names_module, "_written_ns", counted)

    def slow(names: names_module.PurgeRecords, *arguments: Any) -> None:
        if names.folder.held.path == directory:
            monotonic(0.003)
        remove(names, *arguments)

    monkeypatch.setattr(names_module.PurgeRecords, "remove", slow)
    store.purge(*(f"tag:{number}" for number in range(60)), soft=False)
    left = [60]
    clock.shift(25 * HOUR)
    for _ in range(TICKS):
        sweep(store)
        left.append(sum(1 for path in (directory / "names").iterdir() if path.name not in ("last", "reserve")))
        clock.shift(PAUSE)
        if left[-1] == 0:
            break
    assert left[-1] == 0
    assert max(looks) == 20
    # A batch of 5 takes 15 ms. A tick has 10 ms, and stops after the batch in which they end: the first one.
    assert max(before - now for before, now in pairwise(left)) == 5


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
    mark = digest_mark(digest("page"))
    twin = next(key for number in count() if digest_mark(digest(key := f"twin-{number}")) == mark)
    keep(store, "page", twin)
    for _ in range(3):
        clock.shift(INACTIVE + 1)
        use(store, "page")
        sweep(store)
    clock.shift(INACTIVE + 1)
    sweep(store)
    assert kept(store, "page", twin) == []
