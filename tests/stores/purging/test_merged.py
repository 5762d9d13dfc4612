"""Records of purges that are merged, since visitors choose the names: the limit, and what a merged purge does.

A page that was purged is never served again, whatever was merged; and the fewest others are purged along with it. Covers
``stores.purges.purge_records`` and ``stores.purges.purge_floors``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import time_machine

from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.purges.purge_floors import Floors
from flask_stalecache.stores.purges.purge_record import PurgeRecord
from flask_stalecache.stores.purges.purge_records import MOST_KEPT, records_within
from support.engine import make_entry
from support.processes import workers
from support.purging import DAY, body_in, fresh_body_in, sweep

MIB = 1024 * 1024
#: Names of a flood in one purge.
AT_ONCE = 10


def flood(directory: Path, first: int, count: int, max_size: int) -> None:
    store = FileStore(directory, max_size=max_size)
    for start in range(first, first + count, AT_ONCE):
        store.purge(*(f"url:http://shop.example/{number}" for number in range(start, start + AT_ONCE)), soft=False)


def records_in(directory: Path) -> int:
    return sum(len(path.name) == 40 for path in (directory / "names").iterdir())


def bytes_in(directory: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


def url(number: int) -> str:
    return f"url:http://shop.example/page/{number}"


def names_of(number: int) -> tuple[str, ...]:
    return "all", "endpoint:page", f"path:/page/{number}", url(number)


def fill(store: FileStore, count: int) -> None:
    for number in range(count):
        store.write(make_entry(f"page/{number}", b"old", names=names_of(number), seq=store.seq()))


def merge_all(store: FileStore) -> None:
    """Have all records merged, as more purges than are kept would."""
    store._records.most = 0
    store._records._writes_left = 0
    store._records.merge_oldest()
    assert records_in(store.directory) == 0


# -- the limit -------------------------------------------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.parametrize("max_size", [MIB, 100 * MIB])
def test_a_flood_of_made_up_names_leaves_a_limited_number_of_records(
    directory: Path, max_size: int, soak: Callable[[int, int], int]
) -> None:
    """By two processes, each of which counts what it writes."""
    count, most = soak(100_000, 2_000) // 2, records_within(max_size)
    with workers(2) as made:
        for worker, first in zip(made, (0, count), strict=True):
            worker.start(flood, directory, first, count, max_size)
        for worker in made:
            worker.result(soak(600, 90))
    assert records_in(directory) <= most + 2 * (AT_ONCE + 32)
    assert bytes_in(directory / "names") <= 4096 * (most + 2 * (AT_ONCE + 32) + 1) + Floors.SIZE


def test_records_take_their_part_of_the_size_that_entries_may_have(directory: Path) -> None:
    store = FileStore(directory, max_size=MIB)
    flood(directory, 0, 200, MIB)
    for number in range(600):
        store.write(make_entry(f"page/{number}", b"x" * 3000, seq=store.seq()))
    taken = sum(path.stat().st_blocks * 512 for path in directory.glob("[0-9a-fn]*/*") if path.is_file())
    assert 0.6 * MIB < taken <= MIB


@pytest.mark.parametrize(
    ("max_size", "most"), [(None, MOST_KEPT), (100 * MIB, MOST_KEPT), (10 * MIB, 160), (MIB, 16), (1000, 16)], ids=str
)
def test_how_many_records_are_kept(max_size: int | None, most: int) -> None:
    assert records_within(max_size) == most


def test_what_is_left_of_merging_stays_when_a_day_is_over(store: FileStore, directory: Path, clock: time_machine.Traveller) -> None:
    fill(store, 1)
    store.purge(url(0), soft=False)
    merge_all(store)
    clock.shift(2 * DAY)
    for _ in range(2):
        sweep(store, clock)
    assert {path.name for path in (directory / "names").iterdir()} == {"last", "floors", "reserve"}
    assert not list(directory.glob("*/" + digest("page/0")))


# -- what a merged purge does ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("soft", [False, True])
def test_a_merged_purge_is_as_good_as_before(store: FileStore, directory: Path, soft: bool) -> None:
    fill(store, 2)
    store.load("page/1")
    store.purge(url(0), soft=soft)
    merge_all(store)
    for each in (store, FileStore(directory)):
        assert body_in(each, "page/0") == (b"old" if soft else None)
        assert fresh_body_in(each, "page/0") is None
        assert fresh_body_in(each, "page/1") == b"old"
    assert sorted(stored.entry.key for stored in store.walk()) == (["page/0", "page/1"] if soft else ["page/1"])


@pytest.mark.parametrize("soft", [False, True])
def test_an_answer_that_was_begun_before_a_merged_purge_is_not_stored_fresh(store: FileStore, directory: Path, soft: bool) -> None:
    begun = make_entry("page/0", b"old", names=names_of(0), seq=store.seq())
    store.purge(url(0), soft=soft)
    merge_all(store)
    store.write(begun)
    for each in (store, FileStore(directory)):
        assert fresh_body_in(each, "page/0") is None


def test_what_is_made_after_a_merged_purge_is_served(store: FileStore, directory: Path) -> None:
    store.purge(url(0), soft=False)
    merge_all(store)
    fill(store, 1)
    for each in (store, FileStore(directory)):
        assert fresh_body_in(each, "page/0") == b"old"


def test_a_flood_of_urls_purges_few_others_and_nothing_by_endpoint(directory: Path) -> None:
    """1,000 merged names purge about two in five of 150 pages: visitors choose two names of each page, its URL and its path."""
    store = FileStore(directory, max_size=MIB)
    fill(store, 150)
    flood(directory, 0, 1000, MIB)
    left = sum(body_in(FileStore(directory), f"page/{number}") == b"old" for number in range(150))
    # The names and their floors are the same each time. One page more or less, since the last few records are not merged.
    assert 90 <= left <= 91
    store.purge("endpoint:page", soft=False)
    merge_all(store)
    assert all(body_in(store, f"page/{number}") is None for number in range(150))


def test_names_in_code_share_no_floor_with_those_that_visitors_choose() -> None:
    floors = Floors(None)
    for number in range(20_000):
        floors.raise_to(PurgeRecord(url(number), hard=7), digest(url(number)))
    floors = Floors(floors.data)
    assert all(floors.of(url(number)).hard == 7 for number in range(20_000))
    assert all(floors.of(name).last == 0 for name in ("all", "endpoint:page", "tag:news", "function:shop.rates"))


@pytest.mark.parametrize("name", ["all", "tag:news", url(0)])
def test_a_record_whose_name_is_lost_counts_for_all_that_it_may_have_had(name: str) -> None:
    floors = Floors(None)
    floors.raise_to(PurgeRecord("", hard=7), digest(name))
    assert Floors(floors.data).of(name).hard == 7


# -- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\0" * (Floors.SIZE + 16)], ids=["empty", "cut", "longer"])
def test_a_damaged_file_counts_as_a_purge_of_everything(store: FileStore, directory: Path, content: bytes) -> None:
    fill(store, 2)
    store.purge(url(0), soft=False)
    merge_all(store)
    (directory / "names" / "floors").write_bytes(content)
    for each in (store, FileStore(directory)):
        each.purge("tag:other", soft=False)
        assert [body_in(each, f"page/{number}") for number in range(2)] == [None, None]


def test_the_last_number_is_known_from_the_merged_records(store: FileStore, directory: Path) -> None:
    store.purge(url(0), soft=False)
    last = store.seq()
    merge_all(store)
    (directory / "names" / "last").unlink()
    assert store._records.last_number() == last


def test_a_disk_without_room_for_merging_purges_all_the_same(
    store: FileStore, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, 1)
    store._records.most = 0

    def fail(records: object, oldest: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(store._records), "_merge", fail)
    store.purge(url(0), soft=False)
    assert body_in(FileStore(directory), "page/0") is None
