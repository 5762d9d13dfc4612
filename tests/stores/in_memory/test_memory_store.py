"""The store in memory, beyond the contract: its limits, purges, sweep and forks. Covers ``stores.in_memory.memory_purges``."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count

import pytest
import time_machine

from flask_stalecache.core.model.note import NOTHING
from flask_stalecache.errors import ConfigError, StoreError
from flask_stalecache.stats.counters import Counters
from flask_stalecache.stores.in_memory.memory_purges import MemoryPurges
from flask_stalecache.stores.in_memory.memory_store import MemoryStore
from support.engine import make_entry
from support.processes import forked, workers
from support.store_contract import NEWS, NOTE, SPORT, begun
from support.threads import crowd, go, results

LIMIT = 200_000


def keys(store: MemoryStore) -> set[str]:
    return {stored.entry.key for stored in store.walk()}


def is_in(store: MemoryStore, key: str) -> bool:
    return (store.lookup(key) or store.load(key)).entry is not None


# -- limits ----------------------------------------------------------------------------------------------------------


def test_a_flood_stays_within_the_size_and_evicts_what_is_least_used() -> None:
    store = MemoryStore(max_size=LIMIT)
    favourites = [f"favourite-{number}" for number in range(5)]
    for key in favourites:
        store.write(make_entry(key, bytes(2000)))
    for number in range(500):
        store.write(make_entry(f"flood-{number}", bytes(2000)))
        assert store.usage().bytes <= LIMIT
        assert all(is_in(store, key) for key in favourites), number
    assert store.usage().entries == len(keys(store)) > LIMIT // 10_000
    assert store.counters["evicted_for_size"] == 505 - store.usage().entries


def test_who_hears_of_an_eviction_may_call_the_store() -> None:
    counters, heard = Counters(), list[str]()

    class Listener:
        def count(self, name: str, by: int) -> None:
            heard.extend([name] * by)
            store.purge(SPORT, soft=False)

    store = MemoryStore(max_size=20_000, counters=counters)
    counters.sink = Listener()
    for number in range(10):
        store.write(begun(store, f"page-{number}", bytes(2000)))
    store.purge(NEWS, soft=False)
    removed = store.sweep()["removed_purged"]
    assert heard == ["evicted_for_size"] * (10 - removed) + ["removed_purged"] * removed
    assert removed > 0


def test_notes_of_made_up_urls_push_out_no_page_and_are_limited() -> None:
    store = MemoryStore(max_size=LIMIT)
    for number in range(10):
        store.write(make_entry(f"page-{number}", bytes(2000)))
        store.write_note(f"page-{number}", NOTE)
    before = store.usage()
    for number in range(3000):
        store.write_note(f"made-up-{number}", NOTE)
    assert store.usage().entries == 10
    assert store.usage().bytes - before.bytes <= LIMIT // 16
    assert all(store.load(f"page-{number}").note == NOTE for number in range(10))
    assert store.load("made-up-2999").note == NOTE
    assert store.load("made-up-0").note == NOTHING


def test_what_is_larger_than_the_store_is_refused_and_leaves_the_old_entry() -> None:
    store, entry = MemoryStore(max_size=LIMIT), make_entry()
    store.write(entry)
    with pytest.raises(StoreError, match="under STALECACHE_MAX_SIZE"):
        store.write(make_entry(body=bytes(LIMIT)))
    assert store.load("page").entry == entry


@pytest.mark.parametrize("size", [None, 0, -1, "1"])
def test_a_store_without_a_limit_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match="max_size"):
        MemoryStore(max_size=size)


def test_the_bytes_are_those_of_what_is_kept() -> None:
    store, chance = MemoryStore(max_size=LIMIT), random.Random(16)
    for _ in range(3000):
        key, deed = f"page-{chance.randrange(40)}", chance.randrange(8)
        if deed < 4:
            store.write(begun(store, key, bytes(chance.randrange(9000))))
        elif deed == 4:
            store.remove(key)
        elif deed == 5:
            store.write_note(key, chance.choice([NOTE, NOTHING]))
        elif deed == 6:
            store.purge(chance.choice([NEWS, SPORT]), soft=chance.random() < 0.8)
        else:
            store.load(key)
        kept = store._kept.values()
        assert store.usage() == (sum(each.entry is not None for each in kept), sum(each.size for each in kept))
    store.sweep()
    for number in range(40):
        store.remove(f"page-{number}")
        store.write_note(f"page-{number}", NOTHING)
    assert store.usage() == (0, 0)


# -- purges ----------------------------------------------------------------------------------------------------------


def test_purges_of_made_up_names_are_limited_and_all_stay_valid() -> None:
    purges, entry = MemoryPurges(most=32), make_entry(names=("all", "url:/0", NEWS))
    kept = make_entry("kept", names=("all", "tag:kept"))
    purges.add(["url:/0"], soft=False)
    for number in range(1, 2000):
        purges.add([f"url:/{number}"], soft=bool(number % 2))
    assert len(purges._records) <= 32
    assert purges.outlive(entry) is None
    assert purges.outlive(kept) is kept
    after = replace(entry, seq=purges.seq)
    assert purges.outlive(after) is after


def test_a_soft_purge_that_was_merged_ends_freshness() -> None:
    purges, entry = MemoryPurges(most=16), make_entry(names=(NEWS,))
    purges.add([NEWS], soft=True)
    for number in range(100):
        purges.add([f"url:/{number}"], soft=False)
    left = purges.outlive(entry)
    assert left is not None
    assert left.ended


def test_who_has_purged_can_ask_later_what_that_was() -> None:
    store = MemoryStore()
    for key, name in (("page", NEWS), ("sport", SPORT)):
        store.write(begun(store, key, names=("all", name)))
    met = store.recall(NEWS)
    store.purge(NEWS, soft=False)
    assert store.load("page").entry is None
    assert keys(store) == {"sport"}
    assert [stored.entry.key for stored in met()] == ["page"]


def test_a_purge_is_seen_by_all_threads_while_they_read() -> None:
    store, numbers = MemoryStore(), count(1)

    def play() -> bool:
        for _ in range(200):
            key = f"page-{next(numbers) % 7}"
            before = begun(store, key)
            store.write(before)
            store.purge(NEWS, soft=False)
            copy = store.lookup(key) or store.load(key)
            # Another thread may have stored one that was begun later.
            if copy.entry is not None and copy.entry.seq <= before.seq:
                return False
            if store.write(before):
                return False
        return True

    assert results(crowd(6, play)) == [True] * 6


# -- the sweep -------------------------------------------------------------------------------------------------------


def test_what_is_not_used_goes_after_its_windows(clock: time_machine.Traveller) -> None:
    counters = Counters()
    store = MemoryStore(inactive=100, counters=counters)
    for key in ("used", "unused"):
        store.write(make_entry(key, windows=(10, 20, 30)))
    store.write(make_entry("in its windows", windows=(10, 20, 10**6)))
    store.write_note("note", NOTE)
    clock.shift(90)
    store.touch(store.load("used"))
    store.sweep()
    assert keys(store) == {"used", "unused", "in its windows"}
    clock.shift(50)
    removed = store.sweep()
    assert keys(store) == {"used", "in its windows"}
    assert (removed["evicted_inactive"], removed["removed_notes"]) == (1, 1)
    assert (counters["evicted_inactive"], counters["removed_notes"]) == (1, 1)


def test_housekeeping_sweeps_now_and_then(clock: time_machine.Traveller, monotonic: Callable[[float], None]) -> None:
    store = MemoryStore(inactive=100)
    for number in range(2500):
        store.write(make_entry(str(number), windows=(10, 0, 0)))
    store.tick()
    clock.shift(1000)
    for _ in range(5):
        monotonic(61)
        store.tick()
    assert store.usage() == (0, 0)


def test_a_clock_that_was_ahead_keeps_nothing_for_ever(clock: time_machine.Traveller) -> None:
    store = MemoryStore(inactive=100)
    clock.shift(10**7)
    store.write(make_entry(windows=(1, 0, 0), started=time.time() - 2 * 10**7))
    clock.shift(-(10**7))
    store.sweep()
    clock.shift(101)
    assert store.sweep()["evicted_inactive"] == 1


# -- forks -----------------------------------------------------------------------------------------------------------


def in_a_child() -> tuple[bool, bool, bool, bool]:
    """Store, take locks, let a child change things, and say what both see."""
    store = MemoryStore()
    store.write(begun(store))
    copy = store.load("page")
    lock = store.lock("news")
    assert lock.acquire()
    with store._guard().lock:
        # As if another thread were in the middle of a write.
        seen = forked(lambda: in_the_child(store))
    return (*seen, store.lookup("page") is copy, not store.lock("news").acquire())


def in_the_child(store: MemoryStore) -> tuple[bool, bool]:
    inherited = go(is_in, store, "page").result(10)
    # Its holder is a thread of the parent.
    assert store.lock("news").acquire()
    store.purge(NEWS, soft=False)
    return inherited, not is_in(store, "page")


def test_the_child_of_a_fork_has_a_copy_of_its_own() -> None:
    with workers(1) as made:
        assert made[0].run(in_a_child) == (True, True, True, True)
