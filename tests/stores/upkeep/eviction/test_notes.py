"""Eviction: notes without an entry have a limit of their own, and pages whose origin fails are evicted last."""

from __future__ import annotations

from pathlib import Path

import pytest
import time_machine
from flask import request

from flask_stalecache import FileStore, Policy
from flask_stalecache.core.model.note import NOTHING, Note
from flask_stalecache.stores.base import NOTES_SHARE
from flask_stalecache.stores.in_memory.memory_store import MemoryStore
from flask_stalecache.stores.table.stamps import FILE_NAME, Stamps
from flask_stalecache.stores.upkeep import eviction
from support.client import MakeApp, visit
from support.engine import make_entry
from support.eviction import BLOCK, PAUSE, file_of, kept, keys_kept, sweep, used, write

#: Under this limit, there is room for four notes without an entry.
LIMIT, NOTES = 4 * NOTES_SHARE * BLOCK, 4
PAGES, VISITS = 40, 40


def lone_notes(directory: Path) -> int:
    return sum(not path.with_suffix("").exists() for path in directory.glob("??/*.note"))


def counted_notes(directory: Path) -> int:
    return sum(Stamps(directory / FILE_NAME).folder_notes)


def unstorable() -> Note:
    return Note().marked_unstorable(0)


# -- a flood of answers that can't be stored -------------------------------------------------------------------------


@pytest.mark.grid
@pytest.mark.parametrize("kind", ["no-store", "error", "cookie"])
@pytest.mark.parametrize("is_gateway", [False, True], ids=["view", "gateway"])
def test_answers_that_may_not_be_stored_evict_no_page(
    make_app: MakeApp, directory: Path, clock: time_machine.Traveller, kind: str, is_gateway: bool
) -> None:
    rules = {"GATEWAY": {"/*": Policy(max_age=10**6, stale_if_error=10**6)}} if is_gateway else {}
    app, cache = make_app(MAX_SIZE=LIMIT, **rules)

    def show(kind: str, name: str) -> tuple[str, int, dict[str, str]]:
        text = request.cookies["visitor"] if kind == "cookie" else name
        return text, 500 if kind == "error" else 200, {"Cache-Control": "no-store"} if kind == "no-store" else {}

    app.get("/<kind>/<name>")(show if is_gateway else cache.cached(10**6, 0, 10**6)(show))
    for number in range(PAGES):
        assert visit(app, f"/page/{number}").word == "MISS"
    stored = kept(directory)
    assert len(stored) >= PAGES
    clock.shift(1)
    for number in range(VISITS):
        visit(app, f"/{kind}/{number}", headers={"Cookie": f"visitor={number}"})
    assert kept(directory) >= stored
    assert [visit(app, f"/page/{number}").word for number in range(PAGES)] == ["HIT"] * PAGES
    assert lone_notes(directory) <= NOTES


def test_the_oldest_notes_make_room_for_new_ones(directory: Path, clock: time_machine.Traveller) -> None:
    store = FileStore(directory, max_size=LIMIT)
    write(store, "page")
    for number in range(2 * NOTES):
        clock.shift(1)
        store.write_note(str(number), unstorable())
        assert lone_notes(directory) * BLOCK == counted_notes(directory) <= NOTES * BLOCK
    keys = list(map(str, range(2 * NOTES)))
    left = [key for key in keys if file_of(directory, key, ".note").exists()]
    # Some are evicted at a time, so that not every note evicts another.
    assert left == keys[-len(left) :]
    assert len(left) > NOTES // 2
    assert keys_kept(directory, "page") == ["page"]
    assert store.counters["evicted_for_size"] == 0
    assert store.counters["removed_notes"] == 2 * NOTES - len(left)


def test_without_a_limit_of_the_size_notes_have_one(
    directory: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eviction, "NOTES_WITHOUT_LIMIT", NOTES * BLOCK)
    store = FileStore(directory, max_size=None)
    for number in range(10):
        write(store, f"page {number}", blocks=4)
    for number in range(5 * NOTES):
        clock.shift(1)
        store.write_note(str(number), unstorable())
        assert lone_notes(directory) <= NOTES
    assert len(kept(directory)) == 10


def test_notes_in_use_stay(directory: Path, clock: time_machine.Traveller) -> None:
    """As that of a fetch function that is suspended, which is asked for at each call."""
    store = FileStore(directory, max_size=LIMIT)
    store.write_note("function", Note(failures=5))
    for number in range(5 * NOTES):
        clock.shift(1)
        store.touch(store.load("function"))
        store.write_note(str(number), unstorable())
    assert store.load("function").note.failures == 5


def test_notes_without_an_entry_go_before_entries(directory: Path, clock: time_machine.Traveller) -> None:
    store = FileStore(directory, max_size=30 * BLOCK)
    for number in range(29):
        write(store, str(number))
        clock.shift(1)
    store.write_note("note", unstorable())
    clock.shift(1)
    write(store, "new")
    assert not file_of(directory, "note", ".note").exists()
    assert keys_kept(directory, "new") == ["new"]
    # It has evicted some more, so that the next writes don't have to.
    assert len(kept(directory)) >= 26


def test_the_notes_without_an_entry_are_counted(directory: Path, clock: time_machine.Traveller) -> None:
    store = FileStore(directory, max_size=LIMIT)
    store.write_note("page", unstorable())
    assert counted_notes(directory) == BLOCK
    store.write_note("page", unstorable())
    assert counted_notes(directory) == BLOCK
    write(store, "page")
    assert counted_notes(directory) == 0
    write(store, "page")
    store.write_note("page", Note(failures=1))
    assert counted_notes(directory) == 0
    store.remove("page")
    assert counted_notes(directory) == BLOCK
    store.write_note("page", NOTHING)
    assert counted_notes(directory) == 0
    assert used(directory) == 0


def test_the_sweep_corrects_their_count(directory: Path, clock: time_machine.Traveller) -> None:
    store = FileStore(directory, max_size=LIMIT)
    store.write_note("lone", unstorable())
    store.write_note("gone", unstorable())
    file_of(directory, "gone", ".note").unlink()
    clock.shift(PAUSE)
    sweep(store)
    assert counted_notes(directory) == BLOCK


# -- pages whose origin fails ----------------------------------------------------------------------------------------


def test_pages_whose_origin_fails_are_kept_longest(directory: Path, clock: time_machine.Traveller) -> None:
    store, failing = FileStore(directory, max_size=60 * BLOCK), [f"failing-{number}" for number in range(10)]
    for key in failing:
        write(store, key)
        store.write_note(key, Note(written=0, failures=1))
    for number in range(200):
        clock.shift(1)
        write(store, str(number))
    assert keys_kept(directory, *failing) == failing
    assert used(directory) <= 60 * BLOCK


def test_where_all_pages_fail_the_least_used_goes(directory: Path, clock: time_machine.Traveller) -> None:
    store, keys = FileStore(directory, max_size=16 * BLOCK), list(map(str, range(20)))
    for key in keys:
        clock.shift(1)
        write(store, key)
        store.write_note(key, Note(written=0, failures=1))
        assert used(directory) <= 16 * BLOCK
    left = keys_kept(directory, *keys)
    assert left == keys[-len(left) :]
    assert left


def test_a_page_past_its_windows_is_not_kept_for_its_failures(directory: Path, clock: time_machine.Traveller) -> None:
    store = FileStore(directory, max_size=16 * BLOCK)
    store.write(make_entry("old", windows=(10, 0, 0)))
    store.write_note("old", Note(written=0, failures=1))
    for number in range(20):
        clock.shift(10)
        write(store, str(number))
    assert keys_kept(directory, "old") == []


def test_the_store_in_memory_keeps_them_longest_too(clock: time_machine.Traveller) -> None:
    store = MemoryStore(max_size=40 * 6000)
    failing = [f"failing-{number}" for number in range(10)]
    for key in failing:
        store.write(make_entry(key))
        store.write_note(key, Note(written=0, failures=1))
    for number in range(200):
        clock.shift(0.1)
        store.write(make_entry(str(number)))
    assert store.counters["evicted_for_size"] > 100
    assert all(store.load(key).entry is not None for key in failing)
    for number in range(200):
        store.write(make_entry(f"more-{number}"))
        store.write_note(f"more-{number}", Note(written=0, failures=1))
    assert store.usage().bytes <= store.max_size
