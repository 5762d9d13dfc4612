"""Marks of refreshes that wait in a queue of another program."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import time_machine

from flask_stalecache import FileStore
from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.stores.base import QueueingStore
from flask_stalecache.stores.queue_marks import BUSY, FILE_NAME
from flask_stalecache.stores.table.stamps import slot_of
from support.processes import become_nobody, workers
from support.threads import crowd, results


@pytest.fixture
def store(directory: Path) -> FileStore:
    return FileStore(directory)


def test_one_process_marks_and_the_others_are_told_for_how_long(
    directory: Path, store: FileStore, clock: time_machine.Traveller
) -> None:
    assert isinstance(store, QueueingStore)
    other = FileStore(directory).queue_marks
    assert store.queue_marks.mark("page", 100) == 0
    assert other.mark("page", 100) == pytest.approx(100, abs=0.01)
    assert other.mark("another", 100) == 0
    clock.shift(60)
    assert other.mark("page", 100) == pytest.approx(40, abs=0.01)
    clock.shift(41)
    assert other.mark("page", 100) == 0
    assert store.queue_marks.mark("page", 100) == pytest.approx(100, abs=0.01)


def test_a_mark_is_taken_back(directory: Path, store: FileStore, clock: time_machine.Traveller) -> None:
    other = FileStore(directory).queue_marks
    store.queue_marks.mark("page", 100)
    other.unmark("page")
    assert store.queue_marks.mark("page", 100) == 0


def test_of_threads_one_marks(store: FileStore) -> None:
    said = results(crowd(16, lambda: store.queue_marks.mark("page", 100)))
    assert said.count(0.0) == 1


def mark_all(directory: Path) -> list[float]:
    marks = FileStore(directory).queue_marks
    said = []
    for number in range(20):
        while (left := marks.mark(f"page {number}", 100)) == BUSY:
            pass
        said.append(left)
    return said


def test_of_processes_one_marks(directory: Path) -> None:
    with workers(4) as team:
        for worker in team:
            worker.start(mark_all, directory)
        said: list[list[float]] = [worker.result() for worker in team]
    assert [column.count(0.0) for column in zip(*said, strict=True)] == [1] * 20


def test_keys_that_share_a_slot_displace_each_other(store: FileStore, clock: time_machine.Traveller) -> None:
    keys: dict[int, str] = {}
    number = 0
    while (slot := slot_of(digest(f"page {number}"))) not in keys:
        keys[slot] = f"page {number}"
        number += 1
    one, two = keys[slot], f"page {number}"
    assert [store.queue_marks.mark(key, 100) for key in (one, two, one)] == [0, 0, 0]


@pytest.mark.parametrize("how", ["the file", "its content", "the directory"])
def test_what_is_replaced_is_opened_again(directory: Path, store: FileStore, how: str, clock: time_machine.Traveller) -> None:
    store.load("page")
    store.queue_marks.mark("page", 100)
    if how == "the file":
        (directory / FILE_NAME).unlink()
    elif how == "its content":
        (directory / FILE_NAME).write_bytes(b"planted")
    else:
        directory.rename(directory.with_name("moved"))
        store.tick()
    assert store.queue_marks.mark("page", 100) == 0
    assert store.queue_marks.mark("page", 100) > 0


def test_a_mark_from_before_the_machine_was_started_is_none(store: FileStore, clock: time_machine.Traveller) -> None:
    clock.shift(10**6)
    store.queue_marks.mark("page", 100)
    clock.shift(-(10**6))
    assert store.queue_marks.mark("page", 100) == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become nobody")
def test_without_a_directory_nothing_is_marked_and_nothing_raised(tmp_path: Path) -> None:
    with workers(1) as (worker,):
        assert worker.run(marked_by_nobody, tmp_path) == [0.0, 0.0]


def marked_by_nobody(folder: Path) -> list[float]:
    folder.chmod(0o500)
    become_nobody()
    marks = FileStore(folder / "cache").queue_marks
    return [marks.mark("page", 100), marks.mark("page", 0.001)]
