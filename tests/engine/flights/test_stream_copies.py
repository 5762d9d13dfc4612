"""Copies of bodies under way, and their common limit."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from flask_stalecache.engine.flights.stream_copies import StreamCopies, StreamCopy
from flask_stalecache.engine.flights.stream_pace import StreamPace
from support.threads import crowd, results


@pytest.fixture
def given_up() -> list[int]:
    """One item for each copy that was given up."""
    return []


@pytest.fixture
def copies(given_up: list[int]) -> StreamCopies:
    """Copies that may be 100 bytes large together."""
    return StreamCopies(100, lambda: given_up.append(1))


def size_of(copies: StreamCopies) -> int:
    return sum(len(copy.kept or b"") for copy in copies._copies)


def begun(copies: StreamCopies, size: int = 0) -> StreamCopy:
    copy = copies.begin(StreamPace())
    assert copy.add(b"x" * size)
    return copy


def test_a_copy_is_what_was_added(copies: StreamCopies, given_up: list[int]) -> None:
    copy = begun(copies)
    assert copy.add(b"one")
    assert copy.add(b"two")
    assert copy.end() == b"onetwo"
    assert (copy.end(), given_up, size_of(copies)) == (None, [], 0)
    assert begun(copies, 100).end() == b"x" * 100


def test_the_copy_with_the_slowest_reader_gives_way(
    copies: StreamCopies, given_up: list[int], monotonic: Callable[[float], None]
) -> None:
    slow = begun(copies, 40)
    monotonic(2)
    fast, new = begun(copies, 40), begun(copies)
    assert new.add(b"y" * 40)
    assert not slow.add(b"x")
    assert (slow.end(), fast.end(), new.end()) == (None, b"x" * 40, b"y" * 40)
    assert given_up == [1]


def test_one_that_grows_too_large_beside_faster_ones_gives_way_itself(
    copies: StreamCopies, monotonic: Callable[[float], None]
) -> None:
    slow = begun(copies, 10)
    monotonic(2)
    fast = begun(copies, 80)
    assert not slow.add(b"x" * 20)
    assert fast.add(b"x" * 20)
    assert len(fast.end() or b"") == 100


def test_a_copy_that_was_dropped_without_a_word_does_not_count(copies: StreamCopies, given_up: list[int]) -> None:
    for _ in range(50):
        begun(copies, 90)
    gc.collect()
    assert begun(copies, 100).end() is not None
    assert given_up == []


def test_a_thousand_slow_readers_keep_no_more_than_the_limit(given_up: list[int], monotonic: Callable[[float], None]) -> None:
    """Each reads a chunk, and waits."""
    copies, slow = StreamCopies(8_000, lambda: given_up.append(1)), list[StreamCopy]()
    for _ in range(1000):
        slow.append(copies.begin(StreamPace()))
        slow[-1].add(b"x" * 1000)
        monotonic(1)
        assert size_of(copies) <= 8_000
    assert len(given_up) == 992
    fast = begun(copies)
    assert all(fast.add(b"x" * 1000) for _ in range(8))
    assert len(fast.end() or b"") == 8_000


def test_threads_that_copy_at_once_stay_within_the_limit(given_up: list[int]) -> None:
    copies = StreamCopies(10_000, lambda: given_up.append(1))

    def copy_one() -> int:
        copy = copies.begin(StreamPace())
        is_whole = all(copy.add(b"x" * 10) for _ in range(200))
        return len(copy.end() or b"") if is_whole else 0

    sizes = results(crowd(16, copy_one))
    assert set(sizes) <= {0, 2000}
    assert sizes.count(0) == len(given_up)
    assert (size_of(copies), copies._size) == (0, 0)
