"""Counts of requests for pages that are not stored: exact while there are few keys, forgotten after a while, of fixed size."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flask_stalecache import CacheStatus
from flask_stalecache.core.model.reasons import StoreRefusal
from flask_stalecache.engine import use_counts
from flask_stalecache.engine.engine import Engine
from flask_stalecache.engine.use_counts import CELLS, HIGHEST, MAX_KEYS, ROWS, UseCounts
from support.engine import FakeOrigin, body_of, storable
from support.engine_calls import asking, store_old
from support.threads import PATIENCE, crowd, go, results, wait_until


def test_each_key_has_its_own_count() -> None:
    counts = UseCounts(600)
    assert [counts.count("a") for _ in range(3)] == [1, 2, 3]
    assert [counts.count(f"other {number}") for number in range(1000)] == [1] * 1000
    assert counts.count("a") == 4
    # Keys hold the bytes of a path as latin-1, and may hold lone surrogates.
    assert [counts.count("\xff\udcff") for _ in range(2)] == [1, 2]


@pytest.mark.parametrize(
    ("later", "uses"), [([599], [2]), ([601], [2]), ([599, 599], [2, 3]), ([601, 601], [2, 2]), ([1201], [1]), ([5000], [1])]
)
def test_a_use_counts_so_long_and_at_most_twice_as_long(
    monotonic: Callable[[float], None], later: list[float], uses: list[int]
) -> None:
    counts, seen = UseCounts(600), []
    counts.count("a")
    for seconds in later:
        monotonic(seconds)
        seen.append(counts.count("a"))
    assert seen == uses


def test_a_flood_of_keys_takes_no_more_room_and_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (ROWS * CELLS, CELLS // MAX_KEYS) == (1024 * 1024, 4)
    # Smaller tables with the same ratio of cells to keys.
    monkeypatch.setattr(use_counts, "CELLS", 1 << 13)
    monkeypatch.setattr(use_counts, "MAX_KEYS", 1 << 11)
    counts = UseCounts(600)
    first = [counts.count(f"/?{number}") for number in range(5000)]
    assert sum(count > 1 for count in first) < len(first) / 50
    again = [counts.count(f"/?{number}") for number in range(4500, 5000)]
    assert min(again) == 2
    tables = counts._now, counts._before
    assert [len(table.cells) for table in tables] == [ROWS << 13] * 2
    assert max(table.keys for table in tables) <= 1 << 11, "a table with enough keys is followed by another one"


def test_a_count_ends_at_its_highest() -> None:
    counts = UseCounts(600)
    assert [counts.count("a") for _ in range(300)][-1] == HIGHEST


def test_threads_lose_no_count() -> None:
    counts = UseCounts(600)
    results(crowd(8, lambda: [counts.count("a") for _ in range(20)]))
    assert counts.count("a") == 161


# -- in the engine -----------------------------------------------------------------------------------------------------


def test_below_the_threshold_nobody_waits_and_at_it_one_calls_for_all(engine: Engine) -> None:
    seldom = FakeOrigin(min_uses=3)
    uncached = seldom.call_uncached
    both: list[int] = []

    def meeting() -> object:
        both.append(1)
        wait_until(lambda: len(both) == 2)
        return uncached()

    seldom.call_uncached = meeting  # type: ignore[assignment,method-assign]
    first = results([go(asking(engine, seldom)) for _ in range(2)])
    assert [(each.status, body_of(each), each.stored) for each in first] == [(CacheStatus.MISS, "live", False)] * 2
    reasons = [each.answer.why_not_stored for each in first if each.answer is not None]
    assert {reason.reason for reason in reasons} == {StoreRefusal.TOO_FEW_USES}
    assert sorted(reason.text for reason in reasons) == [f"it was asked for {n} of 3 times that min_uses wants" for n in (1, 2)]
    often = FakeOrigin(min_uses=3, patience=PATIENCE)

    def answer(start: object) -> object:
        wait_until(lambda: len(often.asked) == 20)
        return storable(start)  # type: ignore[arg-type]

    often.script = answer  # type: ignore[assignment]
    answers = results(crowd(20, asking(engine, often)))
    assert (often.calls, often.lives, len(seldom.lives)) == (1, [], 2)
    assert {body_of(each) for each in answers} == {b"new"}
    assert engine.serve(often).status is CacheStatus.HIT


def test_what_is_stored_is_renewed_and_not_counted(engine: Engine) -> None:
    store_old(engine, windows=(0, 0, 0))
    origin = FakeOrigin(min_uses=200)
    assert engine.serve(origin).status is CacheStatus.EXPIRED
    assert (origin.calls, origin.lives) == (1, [])
