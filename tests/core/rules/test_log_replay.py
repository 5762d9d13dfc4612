"""What a cache would have done with the requests of a log."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from flask_stalecache.core.model.policy import Windows
from flask_stalecache.core.rules.log_replay import LogReplay, ReplayOutcome, RequestKind, Visits

WINDOWS = Windows(60, 600, 3600)
PAGE, HEAD, FAILURE, OTHER, LIVE = RequestKind


def replay(*requests: tuple[float, RequestKind], windows: Windows = WINDOWS, size: int = 100) -> ReplayOutcome:
    """Replay requests for one page, given as times and kinds."""
    visits = Visits()
    for at, kind in requests:
        visits.add(0, 0, at, kind, size)
    return played(visits, windows)[0]


def played(visits: Visits, windows: Windows = WINDOWS, groups: int = 1) -> Sequence[ReplayOutcome]:
    return LogReplay(windows, jitter=0, backoff=(10, 300), inactive=1000, groups=groups, chance=lambda: 0.0).play(visits)


def counts(outcome: ReplayOutcome) -> dict[str, int]:
    return {status.value: count for status, count in outcome.statuses.items() if count}


@pytest.mark.parametrize(
    ("requests", "expected", "calls"),
    [
        ([(0, PAGE)], {"MISS": 1}, 1),
        ([(0, PAGE), (59, PAGE)], {"MISS": 1, "HIT": 1}, 1),
        ([(0, PAGE), (60, PAGE)], {"MISS": 1, "STALE": 1}, 2),
        ([(0, PAGE), (60, PAGE), (61, PAGE)], {"MISS": 1, "STALE": 1, "HIT": 1}, 2),
        ([(0, PAGE), (660, PAGE)], {"MISS": 1, "EXPIRED": 1}, 2),
        ([(0, PAGE), (660, PAGE), (661, PAGE)], {"MISS": 1, "EXPIRED": 1, "HIT": 1}, 2),
        ([(0, HEAD), (1, PAGE)], {"MISS": 2}, 2),
        ([(0, PAGE), (660, HEAD), (661, PAGE)], {"MISS": 1, "EXPIRED": 2}, 3),
        ([(0, PAGE), (1, HEAD)], {"MISS": 1, "HIT": 1}, 1),
        ([(0, PAGE), (60, HEAD), (61, PAGE)], {"MISS": 1, "STALE": 1, "HIT": 1}, 2),
        ([(0, OTHER), (1, OTHER)], {"MISS": 2}, 2),
        ([(0, PAGE), (60, OTHER), (61, OTHER)], {"MISS": 2, "STALE": 1}, 3),
        ([(0, FAILURE), (1, FAILURE)], {"MISS": 2}, 2),
        # The pause after the first failure is ten seconds, after the second twenty.
        ([(0, PAGE), (60, FAILURE), (65, PAGE), (70, FAILURE), (80, PAGE), (90, PAGE)], {"MISS": 1, "STALE": 5}, 4),
        ([(0, PAGE), (700, FAILURE), (705, PAGE)], {"MISS": 1, "STALE": 2}, 2),
        ([(0, PAGE), (3660, FAILURE)], {"MISS": 1, "EXPIRED": 1}, 2),
        ([(0, PAGE), (1, LIVE), (2, PAGE)], {"MISS": 1, "BYPASS": 1, "HIT": 1}, 2),
        # 60 + 3600 + 1000 seconds after it was stored, a copy is removed.
        ([(0, PAGE), (4660, PAGE)], {"MISS": 2}, 2),
        ([(0, PAGE), (4659, PAGE)], {"MISS": 1, "EXPIRED": 1}, 2),
    ],
)
def test_each_request_is_answered_as_the_cache_would(
    requests: list[tuple[float, RequestKind]], expected: dict[str, int], calls: int
) -> None:
    outcome = replay(*requests)
    assert counts(outcome) == expected
    assert outcome.calls == calls
    assert outcome.saved == len(requests) - calls


def test_a_log_that_is_not_in_order_is_sorted() -> None:
    assert counts(replay((59, PAGE), (0, PAGE), (58, PAGE))) == {"MISS": 1, "HIT": 2}


def test_the_ages_are_those_of_the_copies_that_are_served() -> None:
    outcome = replay(*((at, PAGE) for at in (0, 10, 20, 30, 40, 50)))
    assert (outcome.age(0.5), outcome.age(0.95), outcome.age(1.0)) == (30, 50, 50)
    assert replay((0, PAGE)).age(0.5) is None


def test_entries_and_bytes_are_the_most_at_one_time() -> None:
    visits = Visits()
    for key, at in enumerate((0, 1, 2, 5000, 5001)):
        visits.add(key, key % 2, at, PAGE, 100 + key)
    even, odd = played(visits, groups=2)
    assert (even.entries, even.size, odd.entries, odd.size) == (2, 202, 1, 103)


def test_a_page_that_grows_counts_once() -> None:
    visits = Visits()
    for at, size in ((0, 100), (60, 300), (120, 0), (180, 50)):
        visits.add(0, 0, at, PAGE, size)
    outcome = played(visits)[0]
    assert (outcome.entries, outcome.size) == (1, 300)


def test_freshness_is_shortened_at_random() -> None:
    visits = Visits()
    visits.add(0, 0, 0, PAGE, 1)
    visits.add(0, 0, 57, PAGE, 1)
    outcome = LogReplay(WINDOWS, jitter=0.1, backoff=(1, 1), inactive=0, groups=1, chance=lambda: 1.0).play(visits)[0]
    assert counts(outcome) == {"MISS": 1, "STALE": 1}
