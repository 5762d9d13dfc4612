"""Counting: no count is lost between threads, and what was counted is found again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_stalecache.core.model.reasons import BY_CODE, REASONS
from flask_stalecache.core.rules.status import CacheStatus
from flask_stalecache.stats.tally import (
    ALL_CELLS,
    BOUNDS,
    BUCKET_NAMES,
    CELLS,
    PLAIN,
    PLAIN_CELLS,
    STATUSES,
    Tally,
    added,
    private_cells,
    series_of,
)
from support.threads import crowd, results

THREADS = 8


@pytest.fixture
def hasty() -> Iterator[None]:
    """Let threads switch as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_every_status_has_a_cell() -> None:
    assert sorted(STATUSES) == sorted(status.value for status in CacheStatus)


def test_every_reason_has_a_cell_and_a_name_of_its_own() -> None:
    assert len(BY_CODE) == len(REASONS) <= ALL_CELLS - CELLS
    tally = Tally("endpoint", "news")
    for reason in REASONS:
        tally.because(reason)
    assert series_of(tally.cells)["reasons"] == dict.fromkeys(BY_CODE, 1)


@pytest.mark.usefixtures("hasty")
def test_threads_lose_no_count(soak: Callable[[int, int], int]) -> None:
    tally, times = Tally("endpoint", "news"), soak(500_000, 20_000)

    def count() -> None:
        for _ in range(times):
            tally.cells[PLAIN] += 1
            tally.served(CacheStatus.STALE, 0.002)
            tally.asked(0.3, failed=True)

    results(crowd(THREADS, count))
    series = series_of(tally.cells)
    assert series["requests"]["HIT"] == series["requests"]["STALE"] == THREADS * times
    assert series["origin_calls"] == series["origin_failures"] == THREADS * times
    assert series["served"]["count"] == 2 * THREADS * times
    assert series["served"]["sum"] == pytest.approx(0.002 * THREADS * times)
    assert series["origin"]["sum"] == pytest.approx(0.3 * THREADS * times)


@pytest.mark.usefixtures("hasty")
def test_threads_lose_no_count_while_the_cells_change() -> None:
    tally, times = Tally("endpoint", "news"), 20_000

    def count() -> None:
        for _ in range(times):
            tally.cells[PLAIN] += 1

    counting = crowd(THREADS, count)
    while not all(future.done() for future in counting):
        tally.move_to(private_cells(CELLS))
    results(counting)
    assert tally.cells[PLAIN] == THREADS * times


@pytest.mark.parametrize(
    ("took", "bucket"),
    [
        (0.0, "0.001"), (0.001, "0.001"), (0.0011, "0.0025"), (0.0025, "0.0025"), (0.05, "0.05"), (0.06, "0.1"), (1.0, "1.0"),
        (29.9, "30.0"), (30.0, "30.0"), (30.1, "+Inf"), (4000.0, "+Inf"),
    ],
)  # fmt: skip
def test_a_time_is_in_the_first_bucket_that_is_not_below_it(took: float, bucket: str) -> None:
    tally = Tally("endpoint", "news")
    tally.served(CacheStatus.MISS, took)
    tally.asked(took, failed=False)
    for histogram in (series_of(tally.cells)["served"], series_of(tally.cells)["origin"]):
        first = next(name for name, count in histogram["buckets"].items() if count)
        assert (first, histogram["buckets"]["+Inf"], histogram["count"]) == (bucket, 1, 1)
        assert histogram["sum"] == pytest.approx(took)


def test_buckets_are_cumulative_or_not() -> None:
    tally = Tally("endpoint", "news")
    for took in (0.0001, 0.004, 0.004, 60.0):
        tally.served(CacheStatus.MISS, took)
    cumulative, single = series_of(tally.cells)["served"], series_of(tally.cells, cumulative=False)["served"]
    assert list(cumulative["buckets"]) == list(BUCKET_NAMES)
    assert list(cumulative["buckets"].values()) == [1, 1, 3, *[3] * (len(BOUNDS) - 3), 4]
    assert list(single["buckets"].values()) == [1, 0, 2, *[0] * (len(BOUNDS) - 3), 1]
    assert (cumulative["count"], cumulative["sum"]) == (single["count"], single["sum"])


@pytest.mark.parametrize("status", [CacheStatus.HIT, CacheStatus.UPDATING, CacheStatus.STALE])
def test_an_answer_that_needed_no_decision_took_no_time(status: CacheStatus) -> None:
    tally = Tally("endpoint", "news")
    tally.live = 1000
    assert tally.is_never_hit
    tally.served(status, None)
    tally.cells[PLAIN_CELLS[status]] += 1
    series = series_of(tally.cells)
    assert series["requests"] == {**dict.fromkeys(STATUSES, 0), status.value: 2}
    assert series["served"]["buckets"]["0.001"] == series["served"]["count"] == 2
    assert not tally.is_never_hit


def test_a_plain_hit_is_a_hit_that_took_no_time() -> None:
    tally = Tally("endpoint", "news")
    tally.cells[PLAIN] += 1
    tally.served(CacheStatus.HIT, None)
    tally.served(CacheStatus.HIT, 0.02)
    series = series_of(tally.cells)
    assert series["requests"] == {**dict.fromkeys(STATUSES, 0), "HIT": 3}
    assert series["served"]["count"] == 3
    assert series["served"]["buckets"]["0.001"] == 2


@pytest.mark.parametrize("status", list(CacheStatus))
def test_each_status_is_counted_as_itself(status: CacheStatus) -> None:
    tally = Tally("endpoint", "news")
    tally.served(status, 0.0, waited=True)
    series = series_of(tally.cells)
    assert {name: count for name, count in series["requests"].items() if count} == {status.value: 1}
    assert series["waits"] == 1


@pytest.mark.parametrize(("failed", "name"), [(False, "done"), (True, "failed")])
def test_a_refresh_is_counted_with_its_seconds(failed: bool, name: str) -> None:
    tally = Tally("endpoint", "news")
    tally.refreshed(2.5, failed=failed)
    refreshes: Any = series_of(tally.cells)["refreshes"]
    assert refreshes == {"done": 0, "failed": 0, "seconds": 2.5, name: 1}


def test_cells_add_up() -> None:
    assert added([[1, 2, 3], [10, 20, 30]]) == [11, 22, 33]
