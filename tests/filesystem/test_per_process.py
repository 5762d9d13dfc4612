"""What each process makes for itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count

import pytest

from flask_stalecache.filesystem.per_process import PerProcess
from support.threads import crowd, results


@pytest.fixture
def fork(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let the process id change, as it does in the child of a fork."""
    pids = count(1_000_000)

    def fork() -> None:
        pid = next(pids)
        monkeypatch.setattr(os, "getpid", lambda: pid)

    return fork


def test_the_value_is_made_at_first_use_and_once() -> None:
    made: list[object] = []
    each = PerProcess(lambda: made.append(object()) or made[-1])
    assert (each.peek(), made) == (None, [])
    assert each.get() is each.get() is each.peek() is made[0]
    assert len(made) == 1


def test_a_forked_child_makes_its_own(fork: Callable[[], None]) -> None:
    each = PerProcess(object)
    before = each.get()
    fork()
    assert each.peek() is None
    assert each.get() is not before
    assert each.get() is each.peek()


def test_threads_that_are_first_at_the_same_time_get_the_same() -> None:
    each = PerProcess(object)
    assert len(set(results(crowd(20, each.get)))) == 1


def test_the_first_value_set_stays(fork: Callable[[], None]) -> None:
    each, mine = PerProcess(object), object()
    assert each.set_first(mine)
    assert not each.set_first(object())
    assert each.get() is mine
    fork()
    assert each.set_first(object())


def test_a_value_that_was_cleared_is_made_again() -> None:
    each = PerProcess(object)
    before = each.get()
    each.clear()
    assert each.get() is not before


def test_a_value_that_is_false_is_kept() -> None:
    each: PerProcess[list[int]] = PerProcess(list)
    assert each.get() is each.get()
