"""Eviction where there is no table of stamps: neither shared memory nor room for it in the directory."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import time_machine

from flask_stalecache import FileStore
from flask_stalecache.core.model.note import Note
from flask_stalecache.stores import cache_directory
from support.eviction import BLOCK, file_of, kept, used, write

LIMIT = 64


@pytest.fixture(autouse=True)
def _no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(place: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache_directory, "Stamps", refuse)


def test_the_limit_holds(directory: Path, clock: time_machine.Traveller) -> None:
    store = FileStore(directory, max_size=LIMIT * BLOCK)
    for number in range(3 * LIMIT):
        clock.shift(1)
        write(store, str(number))
        assert used(directory) <= LIMIT * BLOCK
    # The oldest were evicted, some at a time.
    left = [number for number in range(3 * LIMIT) if file_of(directory, str(number)).exists()]
    assert left[-1] == 3 * LIMIT - 1
    assert LIMIT // 2 < len(left) <= LIMIT
    assert sum(left) / len(left) > 1.5 * LIMIT


def test_pages_that_are_replaced_evict_no_others_for_long(directory: Path, clock: time_machine.Traveller) -> None:
    store = FileStore(directory, max_size=LIMIT * BLOCK)
    for number in range(10):
        write(store, str(number))
    for _ in range(3 * LIMIT):
        clock.shift(1)
        write(store, "0")
    assert len(kept(directory)) == 10


def test_several_processes_keep_the_limit_together(directory: Path, clock: time_machine.Traveller, monotonic: object) -> None:
    stores = [FileStore(directory, max_size=LIMIT * BLOCK) for _ in range(3)]
    for number in range(3 * LIMIT):
        clock.shift(1)
        monotonic(1)  # type: ignore[operator]
        write(stores[number % 3], str(number))
        # Once a minute, each process counts what the others have written.
        assert used(directory) <= 2 * LIMIT * BLOCK


def test_notes_keep_their_part(directory: Path, clock: time_machine.Traveller) -> None:
    store = FileStore(directory, max_size=LIMIT * BLOCK)
    for number in range(20):
        write(store, f"page {number}")
    for number in range(50):
        clock.shift(1)
        store.write_note(str(number), Note().marked_unstorable(0))
    assert len(kept(directory)) == 20
    assert len(list(directory.glob("??/*.note"))) <= LIMIT // 16


def test_without_a_limit_nothing_is_counted(directory: Path) -> None:
    store = FileStore(directory, max_size=None)
    for number in range(10):
        write(store, str(number))
    assert (len(kept(directory)), store._evictor._own_counts) == (10, None)
