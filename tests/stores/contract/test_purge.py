"""The contract of a store: purging by name."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from flask_stalecache.core.model.note import NOTHING
from flask_stalecache.stores.base import Copy, Store, seq_of_request
from support.processes import Worker
from support.store_contract import (
    NEWS,
    NOTE,
    SERVED,
    SPORT,
    Kind,
    begun,
    in_all_ways,
    of_files,
)
from support.threads import crowd, results

# -- purging ---------------------------------------------------------------------------------------------------------


def is_as_purged(copy: Copy | None, *, soft: bool) -> bool:
    """Whether a copy is gone or, after a soft purge, no longer fresh."""
    if copy is None or copy.entry is None:
        return not soft
    return soft and copy.entry.ended and not copy.entry.is_fresh(copy.entry.answered) and copy.entry.body == b"old"


def purge_hard(store: Store) -> None:
    store.purge(NEWS, soft=False)


def purge_softly(store: Store) -> None:
    store.purge(NEWS, soft=True)


@pytest.mark.parametrize("purge", [purge_hard, purge_softly])
@in_all_ways
def test_a_purge_is_seen_by_everybody_at_once(
    kind: Kind, place: Path, store: Store, other: Store, worker: Worker, how: Callable[..., None], purge: Callable[[Store], None]
) -> None:
    soft = purge is purge_softly
    store.write(begun(store))
    for each in (store, other):
        copy = each.load("page")
        assert each.lookup("page") is copy
    how(kind, place, store, worker, purge)
    for each in dict.fromkeys((store, other, kind.open(place))):
        assert each.lookup("page") is None
        assert is_as_purged(each.load("page"), soft=soft)
        found = each.lookup("page")
        assert found is None or is_as_purged(found, soft=soft)


@pytest.mark.parametrize("soft", [False, True])
def test_a_purge_leaves_the_copies_of_all_others(store: Store, other: Store, soft: bool) -> None:
    for key, names in (("page", ("all", NEWS)), ("sport", ("all", SPORT)), ("newsletter", ("all", "tag:newsletter", "tag:new"))):
        store.write(begun(store, key, names=names))
    copies = {each: [each.load("sport"), each.load("newsletter")] for each in (store, other)}
    for _ in range(3):
        other.purge(NEWS, soft=soft)
        for each, kept in copies.items():
            assert [each.lookup("sport"), each.lookup("newsletter")] == kept
            assert not any(map(each.moved, kept))
    assert is_as_purged(other.load("page"), soft=soft)


@pytest.mark.parametrize("soft", [False, True])
def test_a_purge_is_of_each_name_of_an_entry(store: Store, soft: bool) -> None:
    names = ("all", "endpoint:news", "path:/news?page=2", "url:http://shop.example/news?page=2", NEWS, "tag:" + "ü" * 5000)
    for name in names:
        store.write(begun(store, names=names))
        store.load("page")
        store.purge(name, soft=soft)
        assert store.lookup("page") is None
        assert is_as_purged(store.load("page"), soft=soft)


@pytest.mark.parametrize("name", ["tag:new", "tag:newsx", "tag:news/", "tag:NEWS", "news", "tag:", "", "tag:news\0", "all:"])
def test_a_name_is_purged_as_a_whole(store: Store, name: str) -> None:
    store.write(begun(store))
    copy = store.load("page")
    store.purge(name, soft=False)
    assert store.lookup("page") is copy


@pytest.mark.parametrize("soft", [False, True])
def test_what_is_begun_after_a_purge_stands(store: Store, other: Store, soft: bool) -> None:
    store.write(begun(store))
    other.load("page")
    other.purge(NEWS, soft=soft)
    entry = begun(store, body=b"new")
    assert store.write(entry)
    for each in (store, other):
        copy = each.load("page")
        assert copy.entry == entry
        assert each.lookup("page") is copy


@pytest.mark.parametrize("stored", [False, True])
def test_what_was_begun_before_a_hard_purge_is_not_stored(store: Store, other: Store, stored: bool) -> None:
    store.load("page")
    entry = begun(store)
    if stored:
        store.write(begun(store, body=b"older"))
    other.purge(NEWS, soft=False)
    assert store.write(entry) is False
    assert store.load("page").entry is None
    assert other.load("page").entry is None
    later = begun(store, body=b"new")
    other.purge(SPORT, soft=False)
    assert store.write(later) is True
    assert other.load("page").entry == later


def test_what_was_begun_before_a_soft_purge_is_stored_without_freshness(store: Store, other: Store) -> None:
    store.load("page")
    entry = begun(store)
    other.purge(NEWS, soft=True)
    assert store.write(entry) is True
    assert is_as_purged(store.load("page"), soft=True)
    assert is_as_purged(other.load("page"), soft=True)


def test_a_write_says_that_it_was_stored(store: Store) -> None:
    assert store.write(begun(store)) is True
    assert store.write(begun(store)) is True


HISTORIES: list[tuple[str, str]] = [
    ("fill", "fresh"),
    ("fill hard", "none"),
    ("fill soft", "ended"),
    ("fill soft soft", "ended"),
    ("fill soft hard", "none"),
    ("fill hard soft", "none"),
    ("fill hard hard", "none"),
    ("fill soft hard soft", "none"),
    ("hard fill", "fresh"),
    ("soft fill", "fresh"),
    ("hard fill soft", "ended"),
    ("soft fill hard", "none"),
    ("hard soft fill", "fresh"),
    ("fill hard fill", "fresh"),
    ("fill hard fill soft", "ended"),
    ("fill soft fill", "fresh"),
    ("fill soft fill hard", "none"),
    ("fill elsewhere", "fresh"),
    ("fill soft elsewhere", "ended"),
    ("fill hard elsewhere", "none"),
    ("fill all", "none"),
    ("fill soft all", "none"),
    ("fill all-softly", "ended"),
    ("fill hard all-softly", "none"),
    ("all fill soft", "ended"),
]


@pytest.mark.parametrize(("history", "state"), HISTORIES)
@pytest.mark.parametrize("looking", [False, True])
def test_purges_one_after_the_other(kind: Kind, place: Path, history: str, state: str, looking: bool) -> None:
    """Stores that look after each step, stores that look only at the end, and a new store find the same."""
    stores = [kind.open(place), kind.open(place)]
    for step in history.split():
        if step == "fill":
            stores[0].write(begun(stores[0]))
        else:
            name = {"elsewhere": SPORT, "all": "all", "all-softly": "all"}.get(step, NEWS)
            stores[1].purge(name, soft=step in ("soft", "all-softly"))
        for each in stores if looking else ():
            _ = each.lookup("page") or each.load("page")
    for each in (*stores, kind.open(place)):
        entry = (each.lookup("page") or each.load("page")).entry
        assert ("none" if entry is None else "ended" if entry.ended else "fresh") == state


def test_the_purge_number_grows_with_every_purge_and_with_nothing_else(store: Store, other: Store) -> None:
    store.load("page")
    other.load("page")
    numbers = [store.seq()]
    for name, soft in ((NEWS, False), (NEWS, False), (SPORT, True), ("all", False)):
        store.purge(name, soft=soft)
        numbers.append(other.seq())
        store.write(begun(store))
        store.write_note("page", NOTE)
        store.remove("page")
        store.tick()
        assert other.seq() == store.seq() == numbers[-1]
    assert sorted(set(numbers)) == numbers


def test_a_request_notes_a_number_without_io_that_every_later_purge_exceeds(store: Store, other: Store) -> None:
    note = seq_of_request(store)
    noted = [note()]
    for _ in range(2):
        store.purge(NEWS, soft=False)
        assert max(noted) < store.seq()
        noted.append(note())
    assert seq_of_request(cast("Store", NotQuick()))() == 7


class NotQuick:
    """A store without a bound of its purge numbers."""

    def seq(self) -> int:
        return 7


def test_a_purge_before_anything_is_stored_is_no_error_and_hides_nothing_later(kind: Kind, store: Store, other: Store) -> None:
    assert not store.seq()
    store.purge(NEWS, soft=False)
    store.purge(NEWS, soft=True)
    entry = begun(other)
    other.write(entry)
    assert store.load("page").entry == entry


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(
    ("purged", "soft", "remains"),
    [(NEWS, False, False), ("all", False, False), (NEWS, True, True), (SPORT, False, True)],
)
def test_a_hard_purge_of_one_of_its_names_ends_a_note(
    store: Store, other: Store, stored: bool, purged: str, soft: bool, remains: bool
) -> None:
    if stored:
        store.write(begun(store))
    note = replace(NOTE, names=("all", NEWS), seq=store.seq())
    store.write_note("page", note)
    other.load("page")
    store.purge(purged, soft=soft)
    for each in (store, other):
        copy = each.lookup("page") or each.load("page")
        assert copy.note == (NOTE if remains else NOTHING)
    store.write_note("page", replace(note, seq=store.seq()))
    assert other.load("page").note == NOTE, "a failure after the purge counts"


def test_a_purge_leaves_a_note_without_names(store: Store, other: Store) -> None:
    store.write(begun(store))
    store.write_note("page", NOTE)
    other.load("page")
    store.purge(NEWS, soft=False)
    copy = other.load("page")
    assert (copy.entry, copy.note) == (None, NOTE)


def opened_between(monkeypatch: pytest.MonkeyPatch, number: int, deed: Callable[[], object]) -> list[bool]:
    """Do something before a file is opened for the ``number``-th time; return a list that says whether it was done."""
    opened, calls, done, me = os.open, [0], [], threading.get_ident()

    def open_after(path: Any, *args: Any, **kwargs: Any) -> int:
        # Threads that other tests have left open files too.
        calls[0] += threading.get_ident() == me
        if calls[0] == number and not done:
            done.append(True)
            deed()
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", open_after)
    return done


@of_files
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("deed", ["load", "write"])
def test_a_purge_in_the_middle_of_anything_is_not_missed(
    kind: Kind, place: Path, monkeypatch: pytest.MonkeyPatch, deed: str, soft: bool
) -> None:
    number = 0
    while True:
        number += 1
        store, other = kind.open(place / str(number)), kind.open(place / str(number))
        store.purge(SPORT, soft=False)
        old = begun(store)
        store.write(old)
        store.purge(SPORT, soft=False)
        other.load("page")
        with monkeypatch.context() as patch:
            purged = opened_between(patch, number, lambda other=other: other.purge(NEWS, soft=soft))  # type: ignore[misc]
            if deed == "load":
                store.load("page")
            else:
                store.write(old)
        if not purged:
            assert number > 2
            return
        for each in (store, other):
            found = each.lookup("page")
            assert found is None or is_as_purged(found, soft=soft)
            assert is_as_purged(each.load("page"), soft=soft)


@pytest.mark.soak
def test_purges_at_once_are_all_effective(kind: Kind, place: Path, soak: Callable[[int, int], int]) -> None:
    """Each thread with a store of its own: what it purged itself is gone, whatever the others do."""
    rounds = soak(30 if kind.name in SERVED else 300, 15)
    numbers: list[int] = []

    def play() -> None:
        store, me = kind.open(place), f"tag:{threading.get_ident()}"
        for _ in range(rounds):
            before = begun(store, me, names=("all", me, NEWS))
            store.write(before)
            store.load(me)
            store.purge(me, soft=False)
            numbers.append(store.seq())
            assert store.lookup(me) is None
            assert store.load(me).entry is None
            assert not store.write(before)
            store.purge(NEWS, soft=True)

    results(crowd(4, play))
    assert len(numbers) == 4 * rounds
    last = begun(kind.open(place))
    kind.open(place).write(last)
    assert last.seq >= max(numbers)
    assert kind.open(place).load("page").entry == last


# -- purging several names at once -----------------------------------------------------------------------------------


@pytest.mark.parametrize("soft", [False, True])
def test_several_names_are_purged_at_once(store: Store, other: Store, soft: bool) -> None:
    named = {"news": ("all", NEWS), "sport": ("all", SPORT), "both": ("all", NEWS, SPORT), "neither": ("all",)}
    for key, names in named.items():
        store.write(begun(store, key, names=names))
    kept = {key: (store.load(key), other.load(key)) for key in named}
    before = store.seq()
    other.purge(NEWS, SPORT, "tag:nothing has it", soft=soft)
    for each in dict.fromkeys((store, other)):
        for key in ("news", "sport", "both"):
            assert each.lookup(key) is None
            assert is_as_purged(each.load(key), soft=soft)
    assert (store.lookup("neither"), other.lookup("neither")) == kept["neither"]
    assert before < store.seq()
    # What is begun now is begun after all of them.
    for key, names in named.items():
        entry = begun(store, key, body=b"new", names=names)
        assert store.write(entry)
        assert other.load(key).entry == entry


def test_a_purge_of_several_names_has_one_number(store: Store) -> None:
    """An entry is begun before or after the whole purge. With two numbers, it could be begun between them."""
    numbers = [store.seq()]
    for names in ((NEWS,), (NEWS, SPORT), (NEWS, SPORT, "all")):
        store.purge(*names, soft=False)
        numbers.append(store.seq())
    entry = replace(begun(store, names=("all", NEWS, SPORT)), seq=numbers[-1])
    assert store.write(entry)
    assert numbers == sorted(set(numbers))


def test_a_purge_of_no_name_is_of_nothing(kind: Kind, store: Store) -> None:
    store.write(begun(store))
    copy, before = store.load("page"), store.seq()
    store.purge(soft=False)
    assert store.seq() == before
    assert store.lookup("page") is copy
