"""The switch interval is low while somebody computes, and the app's own again afterwards."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from flask_stalecache.engine.scheduling import switch_interval
from flask_stalecache.engine.scheduling.switch_interval import lowered, see_fork
from support.threads import crowd, results

OWN = 0.004


@pytest.fixture(autouse=True)
def own_interval() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(OWN)
    yield
    sys.setswitchinterval(before)


def now() -> float:
    return round(sys.getswitchinterval(), 7)


def test_it_is_low_meanwhile() -> None:
    with lowered(0.0002):
        assert now() == 0.0002
    assert now() == OWN


def test_the_lowest_of_several_applies_until_the_last_has_ended() -> None:
    with lowered(0.0002):
        with lowered(0.001):
            assert now() == 0.0002
            with lowered(0.0001):
                assert now() == 0.0001
            assert now() == 0.0002
        assert now() == 0.0002
    assert now() == OWN


def test_it_is_restored_in_whatever_order_they_end() -> None:
    first, second = lowered(0.0002), lowered(0.001)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert now() == 0.001
    second.__exit__(None, None, None)
    assert now() == OWN


def test_an_exception_restores_it() -> None:
    with pytest.raises(ZeroDivisionError), lowered(0.0002):
        raise ZeroDivisionError
    assert now() == OWN


def test_none_leaves_it_alone() -> None:
    with lowered(None):
        assert now() == OWN


def test_it_is_never_raised() -> None:
    sys.setswitchinterval(0.0001)
    with lowered(0.0002):
        assert now() == 0.0001
    assert now() == 0.0001


def test_what_the_app_sets_meanwhile_stays() -> None:
    with lowered(0.0002):
        sys.setswitchinterval(0.002)
    assert now() == 0.002
    with lowered(0.0002):
        assert now() == 0.0002
    assert now() == 0.002


def test_threads_leave_the_value_of_the_app() -> None:
    def compute() -> None:
        for _ in range(200):
            with lowered(0.0002):
                assert now() == 0.0002

    results(crowd(8, compute))
    assert now() == OWN


@pytest.mark.parametrize("then", ["looks", "computes", "waits"])
def test_a_child_that_is_forked_meanwhile_gets_the_value_of_the_app(then: str) -> None:
    with lowered(0.0002):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                if then == "looks":
                    see_fork()
                elif then == "computes":
                    with lowered(0.001):
                        assert now() == 0.001
                else:
                    # With the lock held by a thread of the parent.
                    switch_interval._owner.mutex.acquire()
                    see_fork()
                status = 0 if now() == OWN else 2
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert now() == 0.0002
    assert now() == OWN
