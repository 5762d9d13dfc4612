"""Fixtures of the tests of the contract of a store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from flask_stalecache.stores.base import Store
from support.processes import Worker, workers
from support.store_contract import KINDS, SERVED, Kind

#: ``make soak`` plays the tests of all kinds of stores that need a server. ``make test`` plays only these of them, with the kind
#: ``hosts``.
ALWAYS = {"test_what_is_begun_after_a_purge_stands", "test_purges_at_once_are_all_effective", "test_a_lock_excludes_threads"}
#: Not played with a server: a damaged file is loaded again from the server, so it is no miss.
MENDED = {
    "test_a_broken_entry_is_a_miss_counted_and_removed", "test_an_entry_mended_before_it_could_be_removed_stays",
    "test_what_became_sound_in_the_meantime_stays", "test_a_broken_entry_that_is_being_replaced_is_left_to_its_writer",
    "test_no_flipped_bit_of_a_note_is_an_error",
}  # fmt: skip
#: Not played with the kind ``hosts``: each host has its own files and looks only through these. Joining takes ``purge.lock`` and a
#: purge number. To another host, a lock that was released may seem held for a while.
OF_ONE_HOST = {
    "test_one_lock_a_key_at_a_time", "test_a_lock_excludes_processes",
    "test_a_purge_before_anything_is_stored_is_no_error_and_hides_nothing_later", "test_a_touch_changes_nothing_that_is_stored",
}  # fmt: skip
#: They look at a directory that nobody has used.
BEFORE_FIRST_USE = {
    "test_check_and_tick_make_nothing_before_first_use", "test_there_is_nothing_to_walk_through_at_first",
    "test_a_sweep_of_nothing_makes_nothing",
}  # fmt: skip


def is_played(item: pytest.Item) -> bool:
    """Whether a test is played with its kind of store."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    name, kind = getattr(item, "originalname", item.name), parameters.get("kind")
    if kind not in SERVED:
        return True
    if name in MENDED or (os.environ.get("STALECACHE_SOAK") != "1" and (kind == "shared" or name not in ALWAYS)):
        return False
    if name not in ALWAYS:
        item.add_marker(pytest.mark.soak)
    if kind == "shared":
        return True
    return name not in OF_ONE_HOST and item.path.name != "test_walk.py"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    left_out = {item: None for item in items if item.path.parent == here and not is_played(item)}
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=list(left_out))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    kind = KINDS[request.param]
    kind.on(put=monkeypatch.setattr, take=monkeypatch.delattr)
    return kind


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


@pytest.fixture(autouse=True)
def entries_are_begun_now(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the entries of a test the purge number of its store: hosts don't share entries that were begun before they joined."""
    is_about_nothing = request.node.originalname in BEFORE_FIRST_USE
    if "kind" not in request.fixturenames or not hasattr(request.module, "make_entry") or is_about_nothing:
        return
    kind: Kind = request.getfixturevalue("kind")
    if kind.name in SERVED:
        store: Store = request.getfixturevalue("store")
        store.load("first use")
        monkeypatch.setattr(request.module, "make_entry", partial(request.module.make_entry, seq=store.seq()))
