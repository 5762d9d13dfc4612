"""The contract of a store: reading, writing, stamps, marks of use and broken data.

Covers ``stores.base`` and ``stores.formats.entry_format``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flask_stalecache.core.model.note import NOTHING
from flask_stalecache.stats.counters import Counters
from flask_stalecache.stores.base import Copy, Store
from flask_stalecache.stores.copies import Copies
from flask_stalecache.stores.formats.entry_format import encode
from support.engine import make_entry
from support.processes import Worker
from support.store_contract import (
    MEMORY,
    NOTE,
    Kind,
    file_of,
    in_all_ways,
    of_files,
)
from support.threads import go

# -- reading and writing ---------------------------------------------------------------------------------------------


def test_nothing_is_stored_at_first(store: Store) -> None:
    assert store.lookup("page") is None
    copy = store.load("page")
    assert (copy.key, copy.entry, copy.note) == ("page", None, NOTHING)
    assert store.lookup("page") is None


def test_everybody_loads_what_was_written(store: Store, other: Store) -> None:
    entry = replace(make_entry(never_stale=True, absent=("session",)), shared=True, varied=("Cookie", "Accept-Language"))
    store.write(entry)
    assert store.load("page").entry == entry
    assert other.load("page").entry == entry


def test_a_write_replaces_only_its_own_key(store: Store, other: Store) -> None:
    first, second, news = make_entry(body=b"1"), make_entry(body=b"2"), make_entry("news")
    store.write(news)
    store.write(first)
    store.write(second)
    assert other.load("page").entry == second
    assert other.load("news").entry == news


@pytest.mark.parametrize("size", [0, 1, 65_537, 20 * MEMORY])
def test_a_body_of_any_size_comes_back(kind: Kind, place: Path, size: int) -> None:
    store = kind.open(place, memory_size=400 * MEMORY)
    entry = make_entry(body=os.urandom(min(size, MEMORY)) * max(1, size // MEMORY))
    assert len(entry.body) == size
    store.write(entry)
    loaded = store.load("page")
    assert loaded.entry == entry
    assert store.lookup("page") is loaded


@of_files
def test_a_read_that_comes_in_pieces_is_put_together(kind: Kind, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = make_entry(body=os.urandom(10_000))
    store.write(entry)
    read = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, size: read(descriptor, min(size, 999)))
    assert store.load("page").entry == entry


@of_files
def test_a_write_that_goes_in_pieces_is_whole(kind: Kind, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data[:999])))
    entry = make_entry(body=os.urandom(10_000))
    store.write(entry)
    assert store.load("page").entry == entry


def test_remove_drops_the_entry_and_leaves_the_note(store: Store, other: Store) -> None:
    store.write(make_entry())
    store.write_note("page", NOTE)
    store.remove("page")
    copy = other.load("page")
    assert (copy.entry, copy.note) == (None, NOTE)


def test_a_note_stands_beside_the_entry_or_alone(store: Store, other: Store) -> None:
    store.write_note("page", NOTE)
    copy = other.load("page")
    assert (copy.entry, copy.note) == (None, NOTE)
    entry = make_entry()
    store.write(entry)
    copy = other.load("page")
    assert (copy.entry, copy.note) == (entry, NOTE)


def test_an_empty_note_removes_the_note(store: Store, other: Store) -> None:
    store.write_note("page", NOTE)
    store.write_note("page", NOTHING)
    assert other.load("page").note == NOTHING


@pytest.mark.parametrize("fresh", [True, False])
def test_what_is_not_there_can_be_removed(store: Store, fresh: bool) -> None:
    if not fresh:
        store.load("page")
    store.remove("page")
    store.write_note("page", NOTHING)
    assert store.load("page").entry is None


def test_the_purge_number_is_the_same_for_all(store: Store, other: Store) -> None:
    store.load("page")
    other.load("page")
    assert isinstance(store.seq(), int)
    assert store.seq() == other.seq()


def test_check_and_tick_make_nothing_before_first_use(kind: Kind, store: Store, place: Path) -> None:
    store.check()
    store.tick()
    assert not place.exists()


# -- copies and stamps -----------------------------------------------------------------------------------------------


def test_a_loaded_copy_is_found_again_without_loading(store: Store) -> None:
    store.write(make_entry())
    copy = store.load("page")
    assert store.lookup("page") is copy
    assert not store.moved(copy)


def test_a_note_alone_is_a_copy_too(store: Store) -> None:
    store.write_note("page", NOTE)
    copy = store.load("page")
    assert store.lookup("page") is copy


def write(store: Store) -> None:
    store.write(replace(make_entry(body=b"changed"), seq=store.seq()))


def remove(store: Store) -> None:
    store.remove("page")


def write_note(store: Store) -> None:
    store.write_note("page", replace(NOTE, failures=4))


def remove_note(store: Store) -> None:
    store.write_note("page", NOTHING)


CHANGES = [write, remove, write_note, remove_note]


@pytest.mark.parametrize("change", CHANGES)
@in_all_ways
def test_a_change_ends_every_copy(
    kind: Kind,
    place: Path,
    store: Store,
    worker: Worker,
    how: Callable[..., None],
    change: Callable[[Store], None],
) -> None:
    store.write(make_entry())
    store.write_note("page", NOTE)
    copy = store.load("page")
    assert store.lookup("page") is copy
    how(kind, place, store, worker, change)
    assert store.moved(copy)
    assert store.lookup("page") is None
    again, truth = store.load("page"), kind.open(place).load("page")
    assert (again.entry, again.note) == (truth.entry, truth.note)
    assert (again.entry, again.note) != (copy.entry, copy.note)


def test_a_change_of_one_key_leaves_the_copies_of_others(store: Store, other: Store) -> None:
    store.write(make_entry())
    store.write(make_entry("news"))
    page, news = store.load("page"), store.load("news")
    other.write(make_entry("news", b"changed"))
    assert store.lookup("page") is page
    assert not store.moved(page)
    assert store.lookup("news") is None
    assert store.moved(news)


@of_files
def test_a_write_between_stamp_and_read_is_not_missed(store: Store, other: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is written while a copy is loaded, the copy is either new or does not stand."""
    store.write(make_entry(body=b"old"))
    store.load("news")
    opened, written = os.open, []

    def open_after_a_write(path: Any, *args: Any, **kwargs: Any) -> int:
        if not written:
            written.append(True)
            other.write(make_entry(body=b"new"))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", open_after_a_write)
    loaded = store.load("page")
    assert written
    found = store.lookup("page")
    assert found is None or (loaded.entry is not None and loaded.entry.body == b"new")


def test_forget_drops_all_copies(store: Store) -> None:
    for key in ("page", "news"):
        store.write(make_entry(key))
        store.load(key)
    store.forget()
    assert store.lookup("page") is None
    assert store.lookup("news") is None
    assert store.load("page").entry is not None


def test_copies_stay_within_their_size(kind: Kind, place: Path) -> None:
    limit = 100_000
    store = kind.open(place, memory_size=limit)
    for number in range(200):
        store.write(make_entry(str(number), os.urandom(2000)))
        store.load(str(number))
    kept = [copy for number in range(200) if (copy := store.lookup(str(number))) is not None]
    assert sum(len(copy.entry.body) for copy in kept if copy.entry is not None) <= limit
    # The rest of an entry takes more memory than a body of this size.
    assert len(kept) > limit // 2000 // 6


def test_copies_that_are_used_outlive_the_others(kind: Kind, place: Path) -> None:
    store = kind.open(place, memory_size=100_000)

    def visit(number: int) -> bool:
        """Say whether it was in memory."""
        copy = store.lookup(str(number))
        if copy is not None:
            store.touch(copy)
            return True
        store.write(make_entry(str(number), bytes(2000)))
        store.load(str(number))
        return False

    favourites = range(5)
    for number in favourites:
        visit(number)
    for flood in range(1000, 1400):
        visit(flood)
        assert all(visit(number) for number in favourites), flood


@of_files
def test_a_copy_too_big_for_the_memory_is_not_kept(kind: Kind, place: Path) -> None:
    store = kind.open(place, memory_size=100_000)
    small, big = make_entry("small"), make_entry("big", bytes(90_000))
    for entry in (small, big):
        store.write(entry)
        store.load(entry.key)
    assert store.lookup("big") is None
    assert store.load("big").entry == big
    assert store.lookup("small") is not None


@of_files
def test_a_copy_that_grew_too_big_does_not_leave_the_old_one(kind: Kind, place: Path) -> None:
    store = kind.open(place, memory_size=100_000)
    store.write(make_entry(body=b"small"))
    store.load("page")
    big = make_entry(body=bytes(90_000))
    store.write(big)
    assert store.load("page").entry == big
    assert store.lookup("page") is None


@of_files
def test_without_memory_there_are_no_copies(kind: Kind, place: Path) -> None:
    store = kind.open(place, memory_size=0)
    entry = make_entry()
    store.write(entry)
    assert store.load("page").entry == entry
    assert store.lookup("page") is None


class Meddling(Copy):
    """A copy that lets another thread drop all copies at one of the moments at which its size is looked at."""

    __slots__ = ("copies", "looks", "moment")
    copies: Copies
    looks: int
    moment: int

    @property
    def size(self) -> int:
        self.looks += 1
        if self.looks == self.moment:
            # If the other thread waits for a lock that this thread holds, it drops the copies afterwards.
            wait([go(self.copies.clear)], timeout=0.05)
        return 700

    @size.setter
    def size(self, _: int) -> None:
        self.looks = self.moment = 0


def test_the_size_of_copies_is_that_of_what_is_kept() -> None:
    copies, small, big = Copies(10_000), Copy("page", None, NOTE, 1, 1), Copy("page", make_entry(body=bytes(5000)), NOTE, 1, 1)
    for _ in range(30):
        copies.put(small)
        assert (copies.get("page"), copies.size, len(copies)) == (small, small.size, 1)
    copies.put(big)
    assert (copies.get("page"), copies.size, len(copies)) == (None, 0, 0)
    copies.put(small)
    copies.discard("page")
    copies.discard("page")
    assert (copies.get("page"), copies.size, len(copies)) == (None, 0, 0)


@pytest.mark.parametrize("moment", [1, 2, 3, 4])
@pytest.mark.parametrize("held", [0, 1, 14])
def test_copies_may_be_dropped_while_one_is_taken_in(moment: int, held: int) -> None:
    """A tick that finds another table drops all copies, and so do the first visitors after a fork."""
    copies = Copies(10_000)
    keys = [str(number) for number in range(40)]
    for key in keys[:held]:
        copies.put(Copy(key, None, NOTE, 1, 1))
    meddling = Meddling("meddling", None, NOTE, 1, 1)
    meddling.copies, meddling.moment = copies, moment
    copies.put(meddling)
    meddling.moment = 0
    for key in keys:
        copies.put(Copy(key, None, NOTE, 1, 1))
        kept = [copy for key in [*keys, "meddling"] if (copy := copies.get(key)) is not None]
        assert copies.size == sum(copy.size for copy in kept) <= copies.limit
    assert copies.size >= 9000


# -- marking as used -------------------------------------------------------------------------------------------------


def test_a_touch_changes_nothing_that_is_stored(kind: Kind, place: Path, store: Store, other: Store) -> None:
    store.write(make_entry())
    copy, before = store.load("page"), kind.read(place, "page")
    other_copy = other.load("page")
    store.touch(copy)
    assert store.lookup("page") is copy
    assert other.lookup("page") is other_copy
    assert kind.read(place, "page") == before


@pytest.mark.parametrize("how", ["removed", "forgotten", "never stored", "of a store that was never used"])
def test_what_is_gone_may_be_touched(kind: Kind, place: Path, store: Store, how: str) -> None:
    if how != "never stored":
        store.write(make_entry())
    copy = store.load("page")
    if how == "removed":
        store.remove("page")
    elif how == "forgotten":
        store.forget()
    toucher = kind.open(place) if how == "of a store that was never used" else store
    toucher.touch(copy)
    entry = make_entry(body=b"new")
    store.write(entry)
    assert store.load("page").entry == entry


# -- broken data -----------------------------------------------------------------------------------------------------


def cut_to(size: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:size]


def cut_by(size: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:-size]


def flip(position: float) -> Callable[[bytes], bytes]:
    """Return a damage that flips a bit of the byte at ``position``: 0 is the first byte, 1 the last."""

    def damage(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[round(position * (len(data) - 1))] ^= 0x10
        return bytes(changed)

    return damage


LASTING_DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": cut_to(0),
    "cut in its first field": cut_to(3),
    "cut in its head": cut_to(60),
    "cut by its last byte": cut_by(1),
    "flipped at the start": flip(0),
    "flipped in the lengths": flip(0.012),
    "flipped in the head": flip(0.3),
    "flipped in the body": flip(1),
    "with a byte more": lambda data: data + b"\0",
    "of another version": lambda data: b"FSC0" + data[4:],
    "of another kind": lambda data: b"<!doctype html><title>not an entry</title>" * 20,
    "zeros, as after a crash of the machine": lambda data: bytes(len(data)),
    "another key's": lambda data: encode(make_entry("news")),
}


@of_files
@pytest.mark.parametrize("damage", LASTING_DAMAGES.values(), ids=LASTING_DAMAGES)
def test_a_broken_entry_is_a_miss_counted_and_removed(
    kind: Kind, place: Path, store: Store, damage: Callable[[bytes], bytes]
) -> None:
    store.write(make_entry())
    store.write_note("page", NOTE)
    whole = kind.read(place, "page")
    assert whole is not None
    kind.plant(place, "page", damage(whole))

    counters = Counters()
    reader = kind.open(place, counters=counters)
    copy = reader.load("page")
    assert (copy.entry, copy.note) == (None, NOTE)
    assert counters["broken_entries"] == 1
    assert kind.read(place, "page") is None

    assert reader.load("page").entry is None
    assert counters["broken_entries"] == 1
    entry = make_entry()
    reader.write(entry)
    assert store.load("page").entry == entry


@of_files
def test_a_broken_entry_that_is_being_replaced_is_left_to_its_writer(kind: Kind, place: Path, store: Store) -> None:
    store.load("page")
    kind.plant(place, "page", b"broken")
    lock = kind.open(place).lock("page")
    assert lock.acquire()
    assert store.load("page").entry is None
    assert kind.read(place, "page") == b"broken"
    lock.release()
    assert store.load("page").entry is None
    assert kind.read(place, "page") is None


@of_files
def test_an_entry_mended_before_it_could_be_removed_stays(
    kind: Kind, place: Path, store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.load("page")
    other.load("page")
    kind.plant(place, "page", b"broken")
    entry, make_lock = make_entry(), store.lock

    def lock_after_a_write(key: str) -> Any:
        other.write(entry)
        return make_lock(key)

    monkeypatch.setattr(store, "lock", lock_after_a_write)
    store.load("page")
    assert other.load("page").entry == entry
    assert store.load("page").entry == entry


@of_files
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"{}",
        b'{"written": 1, "failures": 1, "retry_at": 1, "unstorable_until": 1, "kept_out": 5}',
        b'{"written": 1, "failures": "many", "retry_at": 1, "unstorable_until": 1, "kept_out": {}}',
        b'{"written": 1, "failures": 1e999, "retry_at": 1, "unstorable_until": 1, "kept_out": {"cookies": [], "headers": []}}',
        b'{"written": 1, "failures": 1, "retry_at": null, "unstorable_until": 1, "kept_out": {"cookies": [], "headers": []}}',
    ],
)
def test_a_broken_note_says_nothing_and_hides_no_entry(kind: Kind, place: Path, store: Store, data: bytes) -> None:
    entry = make_entry()
    store.write(entry)
    kind.plant(place, "page", data, ".note")
    copy = store.load("page")
    assert copy.entry == entry
    assert copy.note == NOTHING


@of_files
@pytest.mark.soak
def test_no_flipped_bit_of_a_note_is_an_error(kind: Kind, place: Path, store: Store, soak: Callable[[int, int], int]) -> None:
    store.write_note("page", NOTE)
    path = file_of(place, "page", ".note")
    whole = path.read_bytes()
    for position in range(len(whole)):
        # Under make test two bits of each byte.
        for bit in range(position % soak(1, 4), 8, soak(1, 4)):
            changed = bytearray(whole)
            changed[position] ^= 1 << bit
            path.write_bytes(changed)
            note = store.load("page").note
            # Whatever was understood can be used.
            note.failed(5.0, (2, 300), 0.5)
            note.backing_off(5.0)
            note.unstorable(5.0)
            note.kept_out.present_in({"HTTP_COOKIE": "member=1", "QUERY_STRING": "utm_x=1"})
