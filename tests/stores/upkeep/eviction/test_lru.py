"""Eviction: the hits are nearly those of an exact LRU of the same size, and the size passes the limit by 5 % at most."""

from __future__ import annotations

import os
import random
import threading
import time
from bisect import bisect
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from heapq import merge
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import pytest

from flask_stalecache import FileStore
from flask_stalecache.stores.folders import on_disk
from support.engine import make_entry
from support.processes import workers
from support.threads import wait_until

MIB = 1024 * 1024
WRITERS = 3
#: What the files may take at most, as a share of the limit; and how far the reader may be behind an exact LRU.
SLACK, BEHIND = 1.05, 0.05
#: The reads of a round. A writer is ahead of the reader by that many pages at most, however busy the machine is.
ROUND = 20
#: Bytes that the head of these entries has at most.
HEAD = 800


class Step(NamedTuple):
    """What a process did.

    :ivar at: when, by the clock that all processes share.
    :ivar page: with which page.
    :ivar hit: whether it was found; ``None`` if it was not asked for, but written.
    """

    at: int
    page: int
    hit: bool | None


def body_of(page: int) -> int:
    """Return the bytes of a page: it has always the same."""
    return random.Random(page).choice([500, 500, 2000, 5000, 9000, 20_000])


def pages_of(limit: int) -> list[int]:
    """Return so many pages that they take twice the limit, in random order."""
    sizes = accumulate(on_disk(body_of(page) + HEAD) for page in range(limit))
    pages = list(range(next(number for number, size in enumerate(sizes) if size >= 2 * limit)))
    random.Random(1).shuffle(pages)
    return pages


def put(store: FileStore, page: int) -> None:
    """Store a page under its lock, as the engine does."""
    lock, pause = store.lock(str(page)), threading.Event()
    while not lock.acquire():
        pause.wait(0.0005)
    try:
        assert store.write(make_entry(str(page), bytes(body_of(page)), seq=store.seq()))
    finally:
        lock.release()


def ready(place: Path) -> None:
    """Wait until all processes are ready."""
    (place / f"ready-{os.getpid()}").touch()
    wait_until((place / "go").exists)


def write_pages(place: Path, limit: int, part: int) -> list[Step]:
    """Write a part of all pages, one after the other, as fast as the reader reads a round for each ``ROUND`` pages."""
    store, steps, rounds = FileStore(place / "cache", max_size=limit), [], place / "rounds"
    ready(place)
    try:
        for number, page in enumerate(pages_of(limit)[part::WRITERS], 1):
            put(store, page)
            steps.append(Step(time.monotonic_ns(), page, None))
            if number % ROUND == 0:
                wait_until(lambda needed=number // ROUND: rounds.exists() and rounds.stat().st_size >= needed)  # type: ignore[misc]
    finally:
        (place / f"done-{part}").touch()
    return steps


def read_pages(place: Path, limit: int) -> list[Step]:
    """Read the same pages, the n-th most wanted 1/n times as often as the first; store what is not there."""
    store, steps, chance = FileStore(place / "cache", max_size=limit), [], random.Random(2)
    pages = range(len(pages_of(limit)))
    weights = list(accumulate(1 / (rank + 1) for rank in pages))
    ready(place)
    while len(list(place.glob("done-*"))) < WRITERS:
        for _ in range(ROUND):
            page = min(bisect(weights, chance.random() * weights[-1]), len(pages) - 1)
            copy = store.lookup(str(page)) or store.load(str(page))
            store.touch(copy)
            if copy.entry is None:
                put(store, page)
            steps.append(Step(time.monotonic_ns(), page, copy.entry is not None))
        store.tick()
        with open(place / "rounds", "ab") as rounds:
            rounds.write(b".")
    return steps


def hits_of_an_exact_lru(steps: list[Step], limit: int) -> int:
    """Return how often the reader would have found what it asked for, had the least used always gone first."""
    kept, size, hits = OrderedDict[int, int](), 0, 0
    for step in steps:
        if step.page in kept:
            kept.move_to_end(step.page)
            hits += step.hit is not None
            continue
        kept[step.page] = on_disk(body_of(step.page) + HEAD)
        size += kept[step.page]
        while size > limit:
            size -= kept.popitem(last=False)[1]
    return hits


def taken(directory: Path) -> int:
    """Return the bytes of the disk that the files in the folders take, unfinished ones and locks too."""
    blocks = 0
    for folder in directory.glob("??"):
        for file in os.scandir(folder):
            with suppress(FileNotFoundError):
                blocks += file.stat(follow_symlinks=False).st_blocks
    return blocks * 512


@pytest.mark.soak
def test_twice_the_limit_is_written_and_the_size_and_the_hits_are_those_of_an_exact_lru(
    tmp_path: Path, soak: Callable[[int, int], int], record_property: Callable[[str, object], None]
) -> None:
    limit, most, pause = soak(100, 2) * MIB, 0, threading.Event()
    FileStore(tmp_path / "cache").load("anything")
    with workers(WRITERS + 1) as (reader, *writers):
        reader.start(read_pages, tmp_path, limit)
        for part, worker in enumerate(writers):
            worker.start(write_pages, tmp_path, limit, part)
        wait_until(lambda: len(list(tmp_path.glob("ready-*"))) == WRITERS + 1)
        (tmp_path / "go").touch()
        while len(list(tmp_path.glob("done-*"))) < WRITERS:
            most = max(most, taken(tmp_path / "cache"))
            pause.wait(0.02)
            assert all(worker.process.poll() is None for worker in (reader, *writers))
        steps = list(merge(reader.result(), *(worker.result() for worker in writers)))
    reads = [step for step in steps if step.hit is not None]
    ratio, exact = sum(step.hit is True for step in reads) / len(reads), hits_of_an_exact_lru(steps, limit) / len(reads)
    report = {
        "limit": limit,
        "most": most / limit,
        "pages": len(steps) - len(reads),
        "reads": len(reads),
        "hits": ratio,
        "exact": exact,
    }
    for name, value in report.items():
        record_property(name, value)
    print(report)
    assert 0.8 * limit < most < SLACK * limit
    assert len(reads) > 100
    assert ratio > exact - BEHIND
