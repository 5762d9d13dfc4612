"""The contract of a store: locks, and many threads. Covers ``filesystem.locks`` and ``stores.in_memory.memory_lock``."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_stalecache.stores.base import Store
from support.engine import make_entry
from support.processes import Worker, workers
from support.store_contract import KINDS, SERVED, Kind, begun, of_files
from support.threads import crowd, go, results, wait_until

# -- locks -----------------------------------------------------------------------------------------------------------


def test_one_lock_a_key_at_a_time(store: Store, other: Store) -> None:
    first, second, third, another_key = store.lock("page"), store.lock("page"), other.lock("page"), other.lock("news")
    assert first.acquire()
    assert not second.acquire()
    assert not third.acquire()
    assert another_key.acquire()
    first.release()
    assert third.acquire()
    assert not second.acquire()
    third.release()
    assert second.acquire()
    second.release()
    another_key.release()


def test_a_lock_excludes_threads(store: Store) -> None:
    lock = store.lock("page")
    assert lock.acquire()
    assert not go(lambda: store.lock("page").acquire()).result(30)
    lock.release()
    assert go(lambda: store.lock("page").acquire()).result(30)


def test_a_lock_is_released_from_any_thread(store: Store, other: Store) -> None:
    lock = store.lock("page")
    assert lock.acquire()
    go(lock.release).result(30)
    again = other.lock("page")
    assert again.acquire()
    again.release()


def test_a_release_without_the_lock_is_harmless(store: Store, other: Store) -> None:
    held = store.lock("page")
    assert held.acquire()
    other.lock("page").release()
    refused = other.lock("page")
    assert not refused.acquire()
    refused.release()
    assert not other.lock("page").acquire()
    held.release()
    held.release()
    last = other.lock("page")
    assert last.acquire()
    last.release()


def test_a_lock_neither_makes_nor_changes_an_entry(kind: Kind, place: Path, store: Store) -> None:
    entry = make_entry()
    store.write(entry)
    copy = store.load("page")
    lock = store.lock("page")
    assert lock.acquire()
    assert store.lookup("page") is copy
    lock.release()
    assert store.lookup("page") is copy
    assert store.lock("news").acquire()
    assert store.load("news").entry is None


HELD: list[Any] = []


def hold_lock(kind_name: str, place: Path) -> bool:
    HELD.append(KINDS[kind_name].open(place).lock("page"))
    return bool(HELD[0].acquire())


def let_go() -> None:
    HELD.pop().release()


@of_files
def test_a_lock_excludes_processes(kind: Kind, place: Path, store: Store, worker: Worker) -> None:
    assert worker.run(hold_lock, kind.name, place)
    lock = store.lock("page")
    assert not lock.acquire()
    worker.run(let_go)
    assert lock.acquire()
    lock.release()


@of_files
def test_the_lock_of_a_killed_process_is_free(kind: Kind, place: Path, store: Store) -> None:
    with workers(1) as made:
        assert made[0].run(hold_lock, kind.name, place)
        assert not store.lock("page").acquire()
        made[0].kill()
        lock = store.lock("page")
        wait_until(lock.acquire, "the release of a killed process's lock")
        lock.release()


def count_up(kind_name: str, place: Path, times: int) -> None:
    store = KINDS[kind_name].open(place)
    for _ in range(times):
        lock = store.lock("page")
        wait_until(lock.acquire, "the lock")
        entry = store.load("page").entry
        number = 0 if entry is None else int(entry.body)
        store.write(begun(store, body=str(number + 1).encode()))
        lock.release()


@of_files
@pytest.mark.soak
def test_no_step_under_the_lock_is_lost(kind: Kind, place: Path, store: Store, soak: Callable[[int, int], int]) -> None:
    times = soak(40 if kind.name in SERVED else 400, 40)
    with workers(2) as made:
        for worker in made:
            worker.start(count_up, kind.name, place, times)
        threads = crowd(2, lambda: count_up(kind.name, place, times))
        results(threads)
        for worker in made:
            worker.result()
    entry = store.load("page").entry
    assert entry is not None
    assert int(entry.body) == 4 * times


# -- many threads ----------------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_threads_never_see_a_mixture(kind: Kind, place: Path, soak: Callable[[int, int], int]) -> None:
    """Threads read, write, remove, and drop all copies, with a small memory: each copy found is whole and of the right key."""
    store, rounds = kind.open(place, memory_size=60_000), soak(150 if kind.name in SERVED else 3000, 150)
    keys, numbers = [f"page-{number}" for number in range(20)], threading.local()

    def body(key: str, number: int) -> bytes:
        return f"{key}/{number}/".encode() * 100

    def play() -> int:
        numbers.random = random.Random(threading.get_ident())
        for number in range(rounds):
            key = numbers.random.choice(keys)
            copy = store.lookup(key) or store.load(key)
            if copy.entry is not None:
                assert copy.entry.body == body(key, int(copy.entry.serial))
            deed = numbers.random.randrange(20)
            if deed < 6:
                store.write(make_entry(key, body(key, number), serial=str(number)))
            elif deed == 6:
                store.remove(key)
            elif deed == 7:
                store.forget()
        return rounds

    assert results(crowd(6, play)) == [rounds] * 6
    assert all(len(keys) >= 1 and store.load(key).key == key for key in keys)


def test_a_lock_leaves_nothing_behind(place: Path, store: Store, other: Store) -> None:
    """Visitors choose the keys, so there may be very many of them."""
    for number in range(50):
        lock, waiting = store.lock(f"page/{number}"), other.lock(f"page/{number}")
        assert lock.acquire()
        assert not waiting.acquire()
        lock.release()
        lock.release()
    # Only the locks of the directory itself leave their files.
    assert not [path for path in place.rglob("*.lock") if len(path.parent.name) == 2]


def test_a_second_release_takes_nothing_from_the_next_holder(store: Store, other: Store) -> None:
    mine, theirs = store.lock("page"), other.lock("page")
    assert mine.acquire()
    mine.release()
    assert theirs.acquire()
    mine.release()
    assert not store.lock("page").acquire()
    theirs.release()
