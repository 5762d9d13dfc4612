"""Eviction: several writers at once, and a flood of pages that are asked for once."""

from __future__ import annotations

import errno
import mmap
import os
import random
import threading
from bisect import bisect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import time_machine
from flask import Flask
from werkzeug.test import create_environ

from flask_stalecache import FileStore, StaleCache, StoreError
from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.stats.counter_file import SIZE as ROW_SIZE
from flask_stalecache.stores.table.stamps import SIZE
from support.engine import make_entry
from support.eviction import BLOCK, PAUSE, Taken, counters_of, file_of, keys_kept, shop, sweep, taken, used, write
from support.processes import workers

# -- several that write at once --------------------------------------------------------------------------------------


def in_the_middle_of_a_write(monkeypatch: pytest.MonkeyPatch, deed: Callable[[], object]) -> None:
    """Do something once, when there is room for a file of some blocks and it is being written."""
    write, met = os.write, list[int]()

    def meddling(descriptor: int, data: bytes) -> int:
        if len(data) > BLOCK and not met:
            met.append(descriptor)
            deed()
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", meddling)


def test_two_that_write_at_once_do_not_take_the_same_room(
    directory: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = (FileStore(directory, max_size=40 * BLOCK) for _ in range(2))
    for number in range(40):
        clock.shift(1)
        write(store, str(number))
    in_the_middle_of_a_write(monkeypatch, lambda: write(other, "other", 15))
    write(store, "large", 15)
    assert keys_kept(directory, "large", "other") == ["large", "other"]
    assert used(directory) == sum(counters_of(directory)) <= 40 * BLOCK


def test_what_could_not_be_written_is_not_counted(
    directory: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(directory, max_size=40 * BLOCK)
    write(store, "page", 2)

    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    in_the_middle_of_a_write(monkeypatch, full)
    with pytest.raises(StoreError):
        store.write(make_entry("page", bytes(10 * BLOCK)))
    assert used(directory) == sum(counters_of(directory)) == 2 * BLOCK
    assert store.usage().entries == 1


def test_a_look_counts_what_is_being_written(directory: Path, clock: time_machine.Traveller) -> None:
    store = FileStore(directory, max_size=40 * BLOCK)
    write(store, "page", 2)
    unfinished = file_of(directory, "page").with_name(f"{digest('page')}.{'0' * 16}.tmp")
    unfinished.write_bytes(bytes(5 * BLOCK))
    clock.shift(PAUSE)
    sweep(store)
    assert sum(counters_of(directory)) == 7 * BLOCK
    assert store.usage().entries == 1


# -- a soak ----------------------------------------------------------------------------------------------------------


class Volume(NamedTuple):
    """How much is written through how much room.

    :ivar limit: STALECACHE_MAX_SIZE.
    :ivar writes: pages that each of the two writers writes, of 10 kB on average.
    :ivar pages: how many pages there are that are read again.
    """

    limit: int
    writes: int
    pages: int


FULL, REDUCED = Volume(50_000_000, 15_000, 5000), Volume(2_000_000, 240, 200)

#: What the directory may take at most, as a share of the limit.
SLACK = 1.06

#: How many pages are read for each that one of the writers writes.
READS = 3

#: How many pages of a writer's the reader may be ahead. A writer that could catch up on more would write while the reader stands
#: still, and a page that is not read meanwhile is not hot.
LEAD = 4


class Board:
    """Where processes see how far the reader and the two writers are, and who is done.

    :ivar written: how many pages each of the writers has written.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        with (place / "board").open("a+b") as file:
            file.truncate(3 * 8)
            numbers = memoryview(mmap.mmap(file.fileno(), 3 * 8)).cast("Q")
        self._reads, self.written = numbers[:1], numbers[1:]

    @property
    def reads(self) -> int:
        return self._reads[0]

    @reads.setter
    def reads(self, number: int) -> None:
        self._reads[0] = number

    @contextmanager
    def at_work(self, others: int) -> Iterator[Callable[[], bool]]:
        """Note at the end that this process is done, or has failed; yield whether so many others are done, or one has failed."""
        try:
            yield lambda: len(list(self.place.glob("done-*"))) >= others or (self.place / "failed").exists()
        except BaseException:
            (self.place / "failed").touch()
            raise
        finally:
            (self.place / f"done-{os.getpid()}").touch()


def site(directory: Path, limit: int) -> Flask:
    """Return an app whose pages have 2 to 18 kB, each always the same."""

    def make(**settings: Any) -> tuple[Flask, StaleCache]:
        app = Flask("soak")
        app.config.update({f"STALECACHE_{name}": value for name, value in settings.items()})
        return app, StaleCache(app)

    return shop(make, DIR=directory, MAX_SIZE=limit)[0]


def ask(app: Flask, path: str) -> str:
    """Make a request without a client's own work, and return how it was answered."""
    fields: dict[str, str] = {}

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Callable[[bytes], object]:
        assert status == "200 OK"
        fields.update(headers)
        return lambda _: None

    answered = app(create_environ(path, "http://shop.example"), start_response)
    try:
        assert sum(map(len, answered)) == int(path.rpartition("/")[2])
    finally:
        getattr(answered, "close", lambda: None)()
    return fields["X-Cache-Status"]


def path_of(page: str) -> str:
    return f"/{page}/{random.Random(page).randrange(2000, 18_000)}"


def write_pages(place: Path, volume: Volume, writer: int) -> int:
    """Write page after page that nobody reads again, as fast as the reader reads; return how many could not be stored."""
    board, app, pause = Board(place), site(place / "cache", volume.limit), threading.Event()
    with board.at_work(others=3) as is_over:
        for number in range(volume.writes):
            while board.reads < number * READS and not is_over():
                pause.wait(0.001)
            assert ask(app, path_of(f"flood-{os.getpid()}-{number}")) == "MISS"
            board.written[writer] = number + 1
    return int(app.extensions["stalecache"].counters["store_failures"])


def read_pages(place: Path, volume: Volume) -> tuple[int, int, int, int]:
    """Read pages, the n-th most wanted 1/n times as often as the first, until the writers are done; as fast as they write.

    :return: reads and hits of the hottest 1 % in the second half, all reads, all hits.
    """
    board, app, chance = Board(place), site(place / "cache", volume.limit), random.Random(1)
    pause = threading.Event()
    weights = list(accumulate(1 / (rank + 1) for rank in range(volume.pages)))
    seen: list[tuple[int, bool]] = []
    with board.at_work(others=2) as is_over:
        while len(seen) % 100 or not is_over():
            while len(seen) >= (min(board.written) + LEAD) * READS and not is_over():
                pause.wait(0.001)
            rank = min(bisect(weights, chance.random() * weights[-1]), volume.pages - 1)
            seen.append((rank, ask(app, path_of(f"page-{rank}")) == "HIT"))
            board.reads = len(seen)
    hot = [hit for rank, hit in seen[len(seen) // 2 :] if rank < max(1, volume.pages // 100)]
    return len(hot), sum(hot), len(seen), sum(hit for _, hit in seen)


@pytest.mark.soak
def test_a_flood_of_writes_stays_within_the_limit_and_the_hot_pages_stay_hit(
    tmp_path: Path, soak: Callable[[int, int], int], record_property: Callable[[str, object], None]
) -> None:
    volume = FULL if soak(1, 0) else REDUCED
    Board(tmp_path)
    pause, most = threading.Event(), Taken(0, 0, 0)
    with workers(3) as (reader, *writers):
        reader.start(read_pages, tmp_path, volume)
        for number, worker in enumerate(writers):
            worker.start(write_pages, tmp_path, volume, number)
        while len(list(tmp_path.glob("done-*"))) < 3:
            most = Taken(*map(max, most, taken(tmp_path / "cache")))
            pause.wait(0.1)
            assert all(worker.process.poll() is None for worker in (reader, *writers))
        hot, hot_hits, reads, hits = reader.result()
        failures = [worker.result() for worker in writers]
    report = {
        "limit": volume.limit,
        **{f"most {name}": size for name, size in most._asdict().items()},
        "reads": reads,
        "hit ratio": round(hits / reads, 3),
        "reads of the hottest 1 %": hot,
        "their hit ratio": round(hot_hits / hot, 4),
    }
    for name, value in report.items():
        record_property(name, value)
    print(report)
    assert failures == [0, 0]
    assert most.files < SLACK * volume.limit
    assert most.blocks < SLACK * volume.limit
    # The table, the folders and the numbers of three processes are the same however much is stored.
    fixed = 0 if volume is FULL else SIZE + 257 * BLOCK + 3 * (ROW_SIZE + BLOCK)
    assert most.whole < SLACK * volume.limit + fixed
    assert most.blocks > 0.8 * volume.limit
    assert hot >= 50
    # One of a hundred; or one of the fewer that the reduced count has.
    assert hot - hot_hits <= max(1, hot // 100)
