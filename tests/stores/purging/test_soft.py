"""Several soft purges: the first one after an entry was begun ends its freshness, and the later ones change nothing.

Covers ``stores.purges.purge_record``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import time_machine
from flask import Flask

from flask_stalecache import StaleCache
from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.filesystem.directory import Directory
from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.purges.purge_record import PurgeRecord
from flask_stalecache.stores.purges.purge_records import PurgeRecords
from support.client import visit
from support.engine import make_entry
from support.purging import NAMES, NEWS

MakeApp = Callable[..., tuple[Flask, StaleCache]]
MAX_AGE, SWR, SIE = 3600, 600, 6000


def record_of(*purges: tuple[int, float]) -> PurgeRecord:
    record = PurgeRecord(NEWS)
    for number, at in purges:
        record = record.purged(number, at, soft=True)
    return record


def records_of(path: Path) -> PurgeRecords:
    directory = Directory(path)
    directory.hold()
    return PurgeRecords(directory)


@pytest.mark.parametrize(
    ("seq", "ended"),
    [(0, 10.0), (4, 10.0), (5, 20.0), (6, 20.0), (7, 30.0), (8, 30.0), (9, None), (10, None)],
)
def test_the_first_one_after_its_number_ends_the_freshness_of_an_entry(seq: int, ended: float | None) -> None:
    record = record_of((5, 10.0), (7, 20.0), (9, 30.0))
    assert record.ended_at(seq) == ended
    assert record.last == record.soft == 9


def test_a_record_that_was_written_is_read_as_it_was(tmp_path: Path) -> None:
    record = record_of((5, 10.0), (7, 20.5)).purged(8, 30.0, soft=False)
    records_of(tmp_path).write(record)
    assert records_of(tmp_path).read(NEWS) == record


@pytest.mark.parametrize("pause", [0.0, 0.001, 1.0, 30.0])
def test_a_record_stays_small_and_knows_the_time_of_each_purge_roughly(pause: float, tmp_path: Path) -> None:
    count, record, now = 3000, PurgeRecord(NEWS), 1e9
    for number in range(1, count + 1):
        now += pause
        record = record.purged(number, now, soft=True)
    records = records_of(tmp_path)
    records.write(record)
    assert (tmp_path / "names" / digest(NEWS)).stat().st_size < 4096
    assert record.ended_at(0) == 1e9 + pause, "the first one is known for ever"
    for seq in range(count):
        ended, right = record.ended_at(seq), 1e9 + (seq + 1) * pause
        assert ended is not None
        assert right <= ended
        assert now - ended >= (now - right) / 2 - 1
    assert record.ended_at(count) is None


@pytest.mark.parametrize("other", [False, True], ids=["one process", "another process"])
def test_an_entry_that_is_purged_over_and_over_ends_at_the_first_time(
    store: FileStore, directory: Path, clock: time_machine.Traveller, other: bool
) -> None:
    reader = FileStore(directory) if other else store
    store.write(make_entry(names=NAMES, windows=(MAX_AGE, SWR, SIE)))
    clock.shift(10)
    for number in range(100):
        store.purge(NEWS if number % 2 else "all", soft=True)
        entry = (reader.lookup("page") or reader.load("page")).entry
        assert entry is not None
        assert entry.windows.max_age == 10.0
        assert entry.in_swr(time.time()) is (30 * number < SWR)
        assert entry.in_sie(time.time()) is (30 * number < SIE)
        clock.shift(30)
    store.write(make_entry(names=NAMES, windows=(MAX_AGE, SWR, SIE), seq=store.seq()))
    entry = reader.load("page").entry
    assert entry is not None
    assert entry.is_fresh(time.time())


@pytest.mark.parametrize("gateway", [False, True])
@pytest.mark.usefixtures("no_housekeeping")
def test_a_page_that_is_purged_every_half_minute_is_not_stale_for_ever(
    make_app: MakeApp, clock: time_machine.Traveller, gateway: bool
) -> None:
    app, cache = make_app()
    calls: list[int] = []
    limit, visits = 900, 45

    @app.get("/")
    @cache.cached(MAX_AGE, SWR, limit, jitter=0, gateway=gateway)
    def page() -> str:
        calls.append(1)
        if len(calls) > 1:
            raise ConnectionError("down")
        return "page"

    words = []
    for _ in range(visits):
        words.append(visit(app).status)
        assert cache.drain(30)
        with app.app_context():
            cache.purge("/", soft=True)
        clock.shift(30)
    assert words[: limit // 30] == [200] * (limit // 30)
    assert words[limit // 30 + 2 :] == [500] * (visits - limit // 30 - 2)
