"""What every store must do. A new store is a new row of ``KINDS``."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import time_machine

from flask_stalecache.core.model.entry import Entry
from flask_stalecache.core.model.inputs import RequestInputs
from flask_stalecache.core.model.keys import digest
from flask_stalecache.core.model.note import NOTHING, Note
from flask_stalecache.core.rules.variants import INDEX
from flask_stalecache.stats.counters import Counters
from flask_stalecache.stores.base import Copy, Store, Stored, Usage
from flask_stalecache.stores.entry_format import encode
from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.memory import Copies
from support.engine import make_entry
from support.processes import Worker, workers
from support.threads import crowd, go, results, wait_until

NOTE = Note(
    written=5.5,
    failures=3,
    retry_at=1e9,
    unstorable_until=7.25,
    kept_out=RequestInputs(cookies=("member", "session"), headers=("x-user",)),
)
MEMORY = 1024 * 1024


@dataclass(frozen=True)
class Kind:
    """One store under the contract.

    :ivar open: makes a store on a place that is shared, as another process would.
    :ivar read: what is kept for a key, past the store; ``None``: nothing.
    :ivar plant: puts bytes there in place of a key's entry or, with a suffix, its note.
    """

    name: str
    open: Callable[..., Store]
    read: Callable[[Path, str], bytes | None]
    plant: Callable[..., None]


def open_files(place: Path, memory_size: int = MEMORY, counters: Counters | None = None) -> Store:
    return FileStore(place, memory_size=memory_size, counters=counters)


def file_of(place: Path, key: str, suffix: str = "") -> Path:
    return place / digest(key)[:2] / (digest(key) + suffix)


def read_file(place: Path, key: str) -> bytes | None:
    path = file_of(place, key)
    return path.read_bytes() if path.exists() else None


def plant_file(place: Path, key: str, data: bytes, suffix: str = "") -> None:
    path = file_of(place, key, suffix)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_bytes(data)


KINDS = {"file": Kind("file", open_files, read_file, plant_file)}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "shared"


@pytest.fixture
def store(kind: Kind, place: Path) -> Store:
    return kind.open(place)


@pytest.fixture
def other(kind: Kind, place: Path) -> Store:
    return kind.open(place)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with workers(1) as made:
        yield made[0]


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


def test_a_read_that_comes_in_pieces_is_put_together(kind: Kind, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = make_entry(body=os.urandom(10_000))
    store.write(entry)
    read = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, size: read(descriptor, min(size, 999)))
    assert store.load("page").entry == entry


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
    store.write(make_entry(body=b"changed"))


def remove(store: Store) -> None:
    store.remove("page")


def write_note(store: Store) -> None:
    store.write_note("page", replace(NOTE, failures=4))


def remove_note(store: Store) -> None:
    store.write_note("page", NOTHING)


CHANGES = [write, remove, write_note, remove_note]


def change_elsewhere(kind_name: str, place: Path, change: Callable[[Store], None]) -> int:
    change(KINDS[kind_name].open(place))
    return os.getpid()


def by_itself(kind: Kind, place: Path, store: Store, worker: Worker, change: Callable[[Store], None]) -> None:
    change(store)


def by_another_that_is_open(kind: Kind, place: Path, store: Store, worker: Worker, change: Callable[[Store], None]) -> None:
    other = kind.open(place)
    other.load("news")
    change(other)


def by_another_at_its_first_use(kind: Kind, place: Path, store: Store, worker: Worker, change: Callable[[Store], None]) -> None:
    change(kind.open(place))


def by_another_process(kind: Kind, place: Path, store: Store, worker: Worker, change: Callable[[Store], None]) -> None:
    assert worker.run(change_elsewhere, kind.name, place, change) != os.getpid()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("how", [by_itself, by_another_that_is_open, by_another_at_its_first_use, by_another_process])
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
    # What is around a body takes more than one of this size.
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


def test_a_copy_too_big_for_the_memory_is_not_kept(kind: Kind, place: Path) -> None:
    store = kind.open(place, memory_size=100_000)
    small, big = make_entry("small"), make_entry("big", bytes(90_000))
    for entry in (small, big):
        store.write(entry)
        store.load(entry.key)
    assert store.lookup("big") is None
    assert store.load("big").entry == big
    assert store.lookup("small") is not None


def test_a_copy_that_grew_too_big_does_not_leave_the_old_one(kind: Kind, place: Path) -> None:
    store = kind.open(place, memory_size=100_000)
    store.write(make_entry(body=b"small"))
    store.load("page")
    big = make_entry(body=bytes(90_000))
    store.write(big)
    assert store.load("page").entry == big
    assert store.lookup("page") is None


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
            # If dropping has to wait for us, it comes after us.
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
    """As a tick does that finds another table, and as the first visitors do after a fork."""
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


# -- purging ---------------------------------------------------------------------------------------------------------

NEWS, SPORT = "tag:news", "tag:sport"


def begun(store: Store, key: str = "page", body: bytes = b"old", names: tuple[str, ...] = ("all", NEWS)) -> Entry:
    """Return an entry whose origin is called now."""
    return make_entry(key, body, names=names, seq=store.seq())


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
@pytest.mark.parametrize("how", [by_itself, by_another_that_is_open, by_another_at_its_first_use, by_another_process])
def test_a_purge_is_seen_by_everybody_at_once(
    kind: Kind, place: Path, store: Store, other: Store, worker: Worker, how: Callable[..., None], purge: Callable[[Store], None]
) -> None:
    soft = purge is purge_softly
    store.write(begun(store))
    for each in (store, other):
        copy = each.load("page")
        assert each.lookup("page") is copy
    how(kind, place, store, worker, purge)
    for each in (store, other, kind.open(place)):
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
    """Whoever looks after each, or only at the end, or is new, finds the same."""
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


def test_a_purge_before_anything_is_stored_is_no_error_and_hides_nothing_later(kind: Kind, store: Store, other: Store) -> None:
    assert not store.seq()
    store.purge(NEWS, soft=False)
    store.purge(NEWS, soft=True)
    entry = begun(other)
    other.write(entry)
    assert store.load("page").entry == entry


def test_a_purge_leaves_the_note(store: Store, other: Store) -> None:
    store.write(begun(store))
    store.write_note("page", NOTE)
    other.load("page")
    store.purge(NEWS, soft=False)
    copy = other.load("page")
    assert (copy.entry, copy.note) == (None, NOTE)


def opened_between(monkeypatch: pytest.MonkeyPatch, number: int, deed: Callable[[], object]) -> list[bool]:
    """Do something before a file is opened for the ``number``-th time; return a list that says whether it was done."""
    opened, calls, done = os.open, [0], []

    def open_after(path: Any, *args: Any, **kwargs: Any) -> int:
        calls[0] += 1
        if calls[0] == number:
            done.append(True)
            deed()
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", open_after)
    return done


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
        purged = opened_between(monkeypatch, number, lambda other=other: other.purge(NEWS, soft=soft))  # type: ignore[misc]
        if deed == "load":
            store.load("page")
        else:
            store.write(old)
        monkeypatch.undo()
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
    rounds = soak(300, 15)
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
    for each in (store, other):
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
    """What began before it is before all of it: were there two numbers, it could be between them."""
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
    assert walked(store)["page"].used == pytest.approx(written + (1000 if how == "touched" else 0), abs=1)


def test_a_walk_passes_notes_and_indexes_over(store: Store) -> None:
    store.write_note("alone", NOTE)
    store.write(replace(make_entry("index", b""), status=INDEX))
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


def test_what_is_not_sound_is_left_to_who_works_at_it(kind: Kind, place: Path, store: Store, other: Store) -> None:
    store.write(make_entry("page"))
    kind.plant(place, "page", b"broken")
    lock = other.lock("page")
    assert lock.acquire()
    assert [checked.removed for checked in store.verify(fix=True)] == [False]
    lock.release()
    assert kind.read(place, "page") == b"broken"


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
    store.write(replace(make_entry("index", b""), status=INDEX))
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
    assert store.sweep() == {"bytes": 0}
    store.purge(NEWS, soft=False)
    removed = store.sweep()
    assert removed == {"removed_purged": 10, "bytes": before.bytes // 2}
    assert counters["removed_purged"] == 10
    assert store.usage() == other.usage() == Usage(10, before.bytes // 2)
    assert other.lookup("page-0") is copy
    assert [kind.read(place, f"page-{number}") is None for number in range(20)] == [number % 2 == 1 for number in range(20)]
    assert store.sweep() == {"bytes": 0}


def test_a_sweep_of_nothing_makes_nothing(store: Store, place: Path) -> None:
    assert store.sweep() == {"bytes": 0}
    assert list(store.verify(fix=True)) == []
    assert not place.exists()


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
    """``position``: 0 the first byte, 1 the last."""

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


def test_no_flipped_bit_of_a_note_is_an_error(kind: Kind, place: Path, store: Store) -> None:
    store.write_note("page", NOTE)
    path = file_of(place, "page", ".note")
    whole = path.read_bytes()
    for position in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[position] ^= 1 << bit
            path.write_bytes(changed)
            note = store.load("page").note
            # Whatever was understood can be used.
            note.failed(5.0, (2, 300), 0.5)
            note.backing_off(5.0)
            note.unstorable(5.0)
            note.kept_out.present_in({"HTTP_COOKIE": "member=1", "QUERY_STRING": "utm_x=1"})


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


def test_a_lock_excludes_processes(kind: Kind, place: Path, store: Store, worker: Worker) -> None:
    assert worker.run(hold_lock, kind.name, place)
    lock = store.lock("page")
    assert not lock.acquire()
    worker.run(let_go)
    assert lock.acquire()
    lock.release()


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
        store.write(make_entry(body=str(number + 1).encode()))
        lock.release()


@pytest.mark.soak
def test_no_step_under_the_lock_is_lost(kind: Kind, place: Path, store: Store, soak: Callable[[int, int], int]) -> None:
    times = soak(400, 40)
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
    """Readers, writers, removers and a forgetter on a small memory: each copy is its own key's, and whole."""
    store, rounds = kind.open(place, memory_size=60_000), soak(3000, 150)
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
