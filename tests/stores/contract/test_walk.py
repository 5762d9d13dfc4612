"""The contract of a store: walking over all entries, and removing some. Covers ``stores.upkeep.walk``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import time_machine

from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.core.model.note import NOTHING
from flask_stalecache.stats.counters import Counters
from flask_stalecache.stores.base import Store, Stored, Usage, find_key
from flask_stalecache.stores.formats.entry_format import encode
from support.engine import make_entry, make_index
from support.store_contract import NEWS, NOTE, SPORT, Kind, begun, of_files

# -- looking through it ----------------------------------------------------------------------------------------------


def walked(store: Store) -> dict[str, Stored]:
    found = list(store.walk())
    by_key = {stored.entry.key: stored for stored in found}
    assert len(by_key) == len(found)
    return by_key


def test_there_is_nothing_to_walk_through_at_first(store: Store, place: Path) -> None:
    assert list(store.walk()) == []
    assert store.usage() == Usage(0, 0)
    assert not place.exists()


def test_a_walk_comes_upon_every_entry_once(store: Store, other: Store) -> None:
    entries = {f"page-{number}": make_entry(f"page-{number}", b"x" * number) for number in range(300)}
    for entry in entries.values():
        store.write(entry)
    found = walked(other)
    assert {key: stored.entry for key, stored in found.items()} == {key: replace(entry, body=b"") for key, entry in entries.items()}
    assert {key: stored.length for key, stored in found.items()} == {key: len(entry.body) for key, entry in entries.items()}
    assert {stored.note for stored in found.values()} == {NOTHING}


def test_a_walk_tells_size_and_note(store: Store, other: Store) -> None:
    store.write(make_entry("page", b"x" * 10_000))
    store.write(make_entry("failing"))
    store.write_note("failing", NOTE)
    found = walked(other)
    assert found["failing"].note == NOTE
    assert found["page"].size >= 10_000
    assert sum(stored.size for stored in found.values()) == other.usage().bytes


@pytest.mark.parametrize("how", ["written", "touched"])
def test_a_walk_tells_the_last_use(store: Store, other: Store, clock: time_machine.Traveller, how: str) -> None:
    store.write(make_entry("page"))
    written = time.time()
    clock.shift(1000)
    if how == "touched":
        other.touch(other.load("page"))
        # Where processes share no memory, uses show after a round of housekeeping.
        other.tick()
    assert walked(store)["page"].used == pytest.approx(written + (1000 if how == "touched" else 0), abs=1)


def test_a_walk_passes_notes_and_indexes_over(store: Store) -> None:
    store.write_note("alone", NOTE)
    store.write(make_index())
    store.write(make_entry("page"))
    assert list(walked(store)) == ["page"]


@pytest.mark.parametrize("soft", [False, True])
def test_a_walk_shows_entries_as_purges_leave_them(store: Store, other: Store, soft: bool) -> None:
    for key, names in (("page", ("all", NEWS)), ("sport", ("all", SPORT))):
        store.write(begun(store, key, names=names))
    assert sorted(walked(other)) == ["page", "sport"]
    store.purge(NEWS, soft=soft)
    found = walked(other)
    assert sorted(found) == (["page", "sport"] if soft else ["sport"])
    assert {key: stored.entry.ended for key, stored in found.items()} == {key: key == "page" for key in found}
    store.write(begun(store, "page", names=("all", NEWS)))
    assert walked(other)["page"].entry.ended is False


def test_a_purge_in_the_middle_of_a_walk_holds_for_the_rest(store: Store, other: Store) -> None:
    for number in range(20):
        store.write(begun(store, f"page-{number}"))
    walk = store.walk()
    next(walk)
    other.purge(NEWS, soft=False)
    assert list(walk) == []


def test_things_may_change_in_the_middle_of_a_walk(store: Store, other: Store) -> None:
    for number in range(200):
        store.write(make_entry(f"page-{number}"))
    found = set[str]()
    for stored in store.walk():
        found.add(stored.entry.key)
        if len(found) == 1:
            for number in range(100):
                other.remove(f"page-{number}")
                other.write(make_entry(f"new-{number}"))
    assert {f"page-{number}" for number in range(100, 200)} <= found


def test_a_walk_may_be_left(store: Store) -> None:
    for number in range(20):
        store.write(make_entry(f"page-{number}"))
    for _ in range(3):
        walk = store.walk()
        next(walk)
        del walk
    assert len(walked(store)) == 20


@of_files
@pytest.mark.parametrize("data", [b"", b"FSC4", b"x" * 5000, b"FSC0" + encode(make_entry("broken"))[4:]])
def test_a_walk_passes_over_what_is_broken_and_does_not_count_it_each_time(kind: Kind, place: Path, data: bytes) -> None:
    counters = Counters()
    store = kind.open(place, counters=counters)
    store.write(make_entry("page"))
    kind.plant(place, "broken", data)
    kind.plant(place, "cut", encode(make_entry("cut"))[:-1])
    kind.plant(place, "of another key", encode(make_entry("other")))
    assert list(walked(store)) == ["page"]
    assert counters["broken_entries"] == 0


def test_usage_counts_entries_and_bytes_for_all(store: Store, other: Store) -> None:
    for number in range(20):
        store.write(make_entry(f"page-{number}"))
        other.write(make_entry(f"page-{number}", b"x" * 5000))
    large = store.usage()
    assert large.entries == 20
    assert large.bytes >= 20 * 5000
    for number in range(20):
        store.write(make_entry(f"page-{number}"))
    assert store.usage() == other.usage()
    assert store.usage().entries == 20
    assert store.usage().bytes < large.bytes
    store.write_note("alone", NOTE)
    assert store.usage().entries == 20
    for number in range(15):
        other.remove(f"page-{number}")
        other.remove(f"page-{number}")
    store.write_note("alone", NOTHING)
    assert store.usage().entries == 5
    for number in range(15, 20):
        other.remove(f"page-{number}")
    assert store.usage() == other.usage() == Usage(0, 0)


# -- reading all of it -----------------------------------------------------------------------------------------------


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], bool]] = {
    "nothing left": (lambda _: b"", False),
    "cut": (lambda data: data[:-1], False),
    "a bit of the body": (lambda data: data[:-1] + bytes([data[-1] ^ 1]), True),
    "more than was written": (lambda data: data + b"x", False),
    "another format": (lambda data: b"FSC0" + data[4:], False),
    "another key": (lambda _: encode(make_entry("another")), True),
}


@of_files
@pytest.mark.parametrize("size", [10, 2_000_000])
@pytest.mark.parametrize(("damage", "has_key"), DAMAGES.values(), ids=DAMAGES)
def test_verify_tells_what_is_not_sound(
    kind: Kind, place: Path, damage: Callable[[bytes], bytes], has_key: bool, size: int
) -> None:
    counters = Counters()
    store, other = kind.open(place, counters=counters), kind.open(place)
    for key in ("page", "broken"):
        store.write(replace(make_entry(key, b"x" * size), by_file=True))
    kind.plant(place, "broken", damage(kind.read(place, "broken") or b""))
    sound, broken = sorted(store.verify(fix=False), key=lambda checked: checked.problem)
    assert (sound.key, sound.problem, sound.removed) == ("page", "", False)
    assert (broken.key is not None) == has_key
    assert broken.problem
    assert not broken.removed
    assert counters["broken_entries"] == 1
    assert kind.read(place, "broken") is not None
    copy = other.load("page")
    assert [checked.removed for checked in sorted(store.verify(fix=True), key=lambda checked: checked.problem)] == [False, True]
    assert kind.read(place, "broken") is None
    assert [checked.problem for checked in other.verify(fix=True)] == [""]
    assert other.usage().entries == 1
    assert other.lookup("page") is copy


@of_files
def test_what_is_not_sound_is_left_to_who_works_at_it(kind: Kind, place: Path, store: Store, other: Store) -> None:
    store.write(make_entry("page"))
    kind.plant(place, "page", b"broken")
    lock = other.lock("page")
    assert lock.acquire()
    assert [checked.removed for checked in store.verify(fix=True)] == [False]
    lock.release()
    assert kind.read(place, "page") == b"broken"


@of_files
def test_what_became_sound_in_the_meantime_stays(
    kind: Kind, place: Path, store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(make_entry("page"))
    kind.plant(place, "page", b"broken")
    lock, met = type(store).lock, list[str]()
    acquire = type(lock(store, "page")).acquire

    def mended(self: object) -> bool:
        if not met:
            met.append("page")
            other.write(make_entry("page"))
        return acquire(self)  # type: ignore[arg-type]

    monkeypatch.setattr(type(lock(store, "page")), "acquire", mended)
    assert [checked.removed for checked in store.verify(fix=True)] == [False]
    assert met
    assert other.load("page").entry is not None


def test_indexes_and_what_was_purged_are_verified_too(store: Store) -> None:
    store.write(make_index())
    store.write(begun(store, "purged"))
    store.purge(NEWS, soft=False)
    assert sorted((checked.key, checked.problem) for checked in store.verify(fix=True)) == [("index", ""), ("purged", "")]


# -- removing now what is to go --------------------------------------------------------------------------------------


def test_a_sweep_removes_what_was_purged_and_says_so(kind: Kind, place: Path) -> None:
    counters = Counters()
    store, other = kind.open(place, counters=counters), kind.open(place)
    for number in range(20):
        store.write(begun(store, f"page-{number}", names=("all", NEWS if number % 2 else SPORT)))
    copy, before = other.load("page-0"), store.usage()
    purged = sum(stored.size for stored in store.walk() if NEWS in stored.entry.names)
    assert store.sweep() == {"bytes": 0}
    store.purge(NEWS, soft=False)
    removed = store.sweep()
    assert removed == {"removed_purged": 10, "bytes": purged}
    assert counters["removed_purged"] == 10
    assert store.usage() == other.usage() == Usage(10, before.bytes - purged)
    assert other.lookup("page-0") is copy
    assert [kind.read(place, f"page-{number}") is None for number in range(20)] == [number % 2 == 1 for number in range(20)]
    assert store.sweep() == {"bytes": 0}


def test_a_sweep_of_nothing_makes_nothing(store: Store, place: Path) -> None:
    assert store.sweep() == {"bytes": 0}
    assert list(store.verify(fix=True)) == []
    assert not place.exists()


def test_an_entry_is_found_by_the_digest_of_its_key(store: Store, other: Store) -> None:
    entry = make_entry()
    assert find_key(store, digest(entry.key)) is None
    store.write(entry)
    unaddressed: Any = SimpleNamespace(walk=store.walk)
    for each in (store, other, unaddressed):
        assert find_key(each, digest(entry.key)) == entry.key
        for text in (
            entry.key,
            "",
            digest("another"),
            digest(entry.key).upper(),
            f"../{digest(entry.key)}",
            f"{digest(entry.key)}.note",
        ):
            assert find_key(each, text) is None
