"""Purges that other hosts have numbered, in a directory that has purges of its own, and entries that others have replaced.

Covers ``stores.foreign_changes``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.core.addressing.purge_names import short_name
from flask_stalecache.stores import purger
from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.purges import purge_records
from flask_stalecache.stores.purges.purge_floors import Floors
from flask_stalecache.stores.purges.purge_record import Purge
from flask_stalecache.stores.purges.purge_records import PurgeRecords
from flask_stalecache.stores.purges.waiting_purges import SEQ_STEPS, WaitingPurges
from flask_stalecache.stores.table.stamps import is_settled, slot_of
from support.engine import make_entry
from support.purging import NAMES, NEW, NEWS, OLD, SPORT, begun, body_in, fresh_body_in
from support.threads import crowd, results


@pytest.fixture
def store(directory: Path) -> FileStore:
    return FileStore(directory)


def number() -> int:
    """Return a number as another host gets it now: from a clock in microseconds."""
    return time.time_ns() // 1000 * 1000


def foreign(*names: str, soft: bool = False, at: int | None = None) -> Purge:
    return Purge(names, number() if at is None else at, soft, time.time())


@pytest.mark.parametrize("name", [NEWS, short_name(NEWS), "all", short_name("all")])
@pytest.mark.parametrize("soft", [False, True])
def test_a_purge_of_another_host_ends_what_was_begun_before(store: FileStore, directory: Path, name: str, soft: bool) -> None:
    beside = FileStore(directory)
    store.write(begun(store, OLD))
    assert fresh_body_in(store) == fresh_body_in(beside) == OLD
    store.apply_purges([foreign(name, soft=soft)])
    assert is_settled(store.seq())
    for each in (store, beside, FileStore(directory)):
        assert fresh_body_in(each) is None
        assert body_in(each) == (OLD if soft else None)
    store.write(begun(store, NEW))
    assert fresh_body_in(store) == fresh_body_in(beside) == NEW


def test_what_it_does_not_name_stays(store: FileStore) -> None:
    store.write(begun(store, OLD))
    store.apply_purges([foreign(SPORT), foreign(short_name("tag:other"), soft=True)])
    assert fresh_body_in(store) == OLD


def test_what_another_host_began_after_a_purge_outlives_it_here(store: FileStore) -> None:
    store.load("page")
    first = number()
    purges = [foreign(NEWS, at=first), foreign(SPORT, at=first + 8_000_000)]
    store.apply_purges(purges)
    # Begun on the other host, between the two purges.
    store.write(make_entry("page", NEW, names=NAMES, seq=first + 2_000_001))
    store.write(make_entry("game", NEW, names=("all", SPORT), seq=first + 2_000_001))
    assert fresh_body_in(store) == NEW
    assert body_in(store, "game") is None


def test_a_purge_is_applied_once(store: FileStore) -> None:
    purges = [foreign(NEWS), foreign(SPORT, soft=True)]
    store.apply_purges(purges)
    assert store.applied() == purges[-1].number
    store.write(begun(store, NEW))
    seq = store.seq()
    store.apply_purges(purges)
    assert (store.seq(), fresh_body_in(store)) == (seq, NEW)


def test_another_process_knows_what_was_applied(store: FileStore, directory: Path) -> None:
    assert store.applied() == 0
    assert not directory.exists()
    purge = foreign(NEWS)
    store.apply_purges([purge])
    later = FileStore(directory)
    assert later.applied() == purge.number


def test_one_that_comes_late_ends_what_was_begun_meanwhile(store: FileStore) -> None:
    late = foreign(NEWS)
    store.purge(SPORT, soft=False)
    # It may have been made of a value that the late purge ends.
    store.write(begun(store, OLD))
    store.apply_purges([late])
    assert body_in(store) is None


def test_one_that_is_half_applied_is_applied_again(store: FileStore, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = FileStore(directory)
    store.write(begun(store, OLD))
    assert body_in(beside) == OLD
    purge = foreign(NEWS)
    with monkeypatch.context() as patch:
        patch.setattr(purger, "_is_over", _be_killed)
        with pytest.raises(KeyboardInterrupt):
            store.apply_purges([purge])
    assert not is_settled(store.seq())
    # What a tick does, without its sweep.
    beside._purger.settle()
    assert is_settled(beside.seq())
    # The old page is still served, so another page can be made of it.
    assert body_in(beside) == OLD
    beside.write(begun(beside, OLD, "made of it"))
    beside.apply_purges([purge])
    for each in (store, beside):
        assert body_in(each) is None
        assert body_in(each, "made of it") is None


def _be_killed(*_args: object, **_options: object) -> bool:
    raise KeyboardInterrupt


def test_what_is_begun_while_they_are_applied_goes_with_all_of_them(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.load("page")
    write = PurgeRecords.write

    def begin_meanwhile(self: PurgeRecords, record: purge_records.PurgeRecord) -> None:
        begun_then.append(begun(store, OLD))
        write(self, record)

    begun_then: list[purge_records.Entry] = []
    first = number()
    monkeypatch.setattr(PurgeRecords, "write", begin_meanwhile)
    store.apply_purges([foreign(NEWS, at=first), foreign(SPORT, at=first + 5000)])
    assert not any(map(store.write, begun_then))
    # Nor does a server take it that has both purges.
    assert all(entry.seq < first for entry in begun_then)
    assert body_in(store) is None


def test_they_are_applied_while_somebody_else_has_the_lock(store: FileStore, directory: Path) -> None:
    store.write(begun(store, OLD))
    lock = FileStore(directory)._cache_directory.lock("purge")
    assert lock.acquire()
    purges = [foreign(short_name(NEWS)), foreign(SPORT)]
    store.apply_purges(purges)
    assert body_in(store) is None
    assert store.applied() == purges[-1].number
    assert is_settled(store.seq())
    # What another host has begun since.
    assert store.write(make_entry("page", NEW, names=NAMES, seq=purges[-1].number + 1))
    lock.release()
    assert [purge.names for purge in store.purges_since(0)][:2] == [(short_name(NEWS),), (SPORT,)]
    store.apply_purges(purges)
    assert fresh_body_in(store) == NEW
    store.tick()
    assert fresh_body_in(store) == fresh_body_in(FileStore(directory)) == NEW


def test_a_name_that_is_known_stays_in_its_record(store: FileStore) -> None:
    store.purge(NEWS, soft=True)
    store.apply_purges([foreign(short_name(NEWS))])
    store.apply_purges([foreign(short_name(SPORT))])
    assert {purge.names[0] for purge in store.purges_since(0)} == {NEWS, short_name(SPORT)}
    store.purge(SPORT, soft=False)
    assert {purge.names[0] for purge in store.purges_since(0)} == {NEWS, SPORT}


def test_purges_are_told_in_their_order(store: FileStore) -> None:
    assert list(store.purges_since(0)) == []
    store.purge(NEWS, soft=True)
    seq = store.seq()
    store.purge(SPORT, soft=False)
    store.apply_purges([foreign("all", soft=True)])
    told = store.purges_since(seq)
    assert [(purge.names, purge.soft) for purge in told] == [((SPORT,), False), (("all",), True)]
    assert len(store.purges_since(0)) == 3
    assert list(store.purges_since(store.seq())) == []


def test_merged_purges_are_told_as_one_of_everything(directory: Path) -> None:
    store = FileStore(directory, max_size=1024 * 1024)
    before = store.seq()
    store.apply_purges([foreign(*(short_name(f"tag:{each}") for each in range(100)))])
    assert ("all",) in {purge.names for purge in store.purges_since(before)}


@pytest.mark.parametrize("ask", [lambda store: store.purges_since(0), lambda store: store._records._last_of_records()])
def test_a_purge_that_is_merged_while_the_records_are_read_is_found(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, ask: Callable[[FileStore], object]
) -> None:
    store.purge(NEWS, soft=False)
    floors = PurgeRecords.floors

    def merge_afterwards(records: PurgeRecords) -> Floors:
        found = floors(records)
        monkeypatch.undo()
        records.most, records._writes_left = 0, 0
        records.merge_oldest()
        return found

    monkeypatch.setattr(PurgeRecords, "floors", merge_afterwards)
    assert ask(store)


def test_one_record_is_written_for_many_purges_of_a_name(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[object] = []
    write = PurgeRecords.write
    monkeypatch.setattr(PurgeRecords, "write", lambda self, record: (written.append(record), write(self, record)))
    first = number()
    store.apply_purges([foreign(NEWS, soft=bool(each % 2), at=first + 1000 * each) for each in range(500)])
    assert len(written) == 1


def test_a_moved_key_is_loaded_again(store: FileStore) -> None:
    for key in ("page", "other"):
        store.write(begun(store, OLD, key))
        store.load(key)
    store.move([slot_of(digest("page"))])
    assert store.lookup("page") is None
    assert store.lookup("other") is not None
    store.load("page")
    seq = store.seq()
    store.move_all()
    assert store.lookup("page") is None
    assert store.lookup("other") is None
    assert store.seq() == seq
    assert body_in(store) == OLD


def test_nothing_is_moved_where_nothing_was_opened(store: FileStore, directory: Path) -> None:
    store.move([slot_of(digest("page"))])
    store.move_all()
    store.apply_purges([])
    assert not directory.exists()


def test_two_processes_that_apply_the_same_raise_the_number_once(
    store: FileStore, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = FileStore(directory)
    store.write(begun(store, OLD))
    holder.load("page")
    purges = [foreign(NEWS, soft=True), foreign(SPORT)]
    append, made = WaitingPurges.append, []

    def be_overtaken(self: WaitingPurges, purge: Purge) -> None:
        append(self, purge)
        if not made:
            lock.release()
            holder.apply_purges(purges)
            # A new page, made after the purge.
            assert holder.write(begun(holder, NEW))
            made.append(holder.seq())

    monkeypatch.setattr(WaitingPurges, "append", be_overtaken)
    lock = FileStore(directory)._cache_directory.lock("purge")
    assert lock.acquire()
    store.apply_purges(purges)
    assert made
    # Numbers are times in nanoseconds.
    assert made[0] <= store.seq() < time.time_ns() + 10 * SEQ_STEPS
    assert fresh_body_in(store) == fresh_body_in(holder) == NEW


def test_threads_that_apply_the_same_while_somebody_else_has_the_lock(store: FileStore, directory: Path) -> None:
    store.write(begun(store, OLD))
    lock = FileStore(directory)._cache_directory.lock("purge")
    assert lock.acquire()
    for _ in range(10):
        purges = [foreign(short_name(NEWS)), foreign(SPORT)]
        results(crowd(4, lambda purges=purges: store.apply_purges(purges)))  # type: ignore[misc]
        # What another host has begun after them.
        assert store.write(make_entry("page", NEW, names=NAMES, seq=purges[-1].number + 1))
        assert fresh_body_in(store) == NEW
    lock.release()
