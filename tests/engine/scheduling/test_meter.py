"""What a call computes, measured in its own thread."""

from __future__ import annotations

import sys
import threading
import time
from types import SimpleNamespace

import pytest

from flask_stalecache.core.model.work import NO_WORK
from flask_stalecache.engine.scheduling import meter
from flask_stalecache.engine.scheduling.meter import Meter, is_measurable
from support.threads import crowd, go, results, wait_until


def compute(seconds: float) -> None:
    """Compute until this thread has used so many seconds of processor time."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(500))


def test_a_call_that_computes() -> None:
    with Meter() as measured:
        compute(0.08)
    assert measured.work().computes
    assert measured.work().seconds >= 0.08


def test_each_of_four_that_compute() -> None:
    def run() -> bool:
        with Meter() as measured:
            compute(0.08)
        return measured.work().computes

    # On a starved machine, one of them may be measured wrongly.
    wait_until(lambda: results(crowd(4, run)) == [True] * 4, "all are said to compute")


def test_a_call_that_waits() -> None:
    with Meter() as measured:
        threading.Event().wait(0.02)
    assert not measured.work().computes


def test_the_work_so_far_and_that_of_the_whole() -> None:
    with Meter() as measured:
        compute(0.06)
        first = measured.work()
        compute(0.06)
    assert first.computes
    assert measured.work().seconds > first.seconds
    assert measured.work() == measured.work()


def test_another_thread_is_told_nothing_before_the_end() -> None:
    with Meter() as measured:
        compute(0.06)
        assert go(measured.work).result() == NO_WORK
    assert go(measured.work).result().computes


def test_what_was_not_begun_has_no_work() -> None:
    assert Meter().work() == NO_WORK


@pytest.mark.parametrize("where", ["gevent", "free-threaded"])
def test_nothing_is_measured_where_threads_take_no_turns(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    if where == "gevent":
        monkeypatch.setitem(sys.modules, "gevent.monkey", SimpleNamespace(is_module_patched=lambda name: name == "threading"))
    else:
        monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    assert not is_measurable()
    with Meter() as measured:
        compute(0.06)
    assert measured.work() == NO_WORK


def test_no_call_is_left_behind() -> None:
    before = len(meter._running.get())
    with pytest.raises(ZeroDivisionError), Meter():
        raise ZeroDivisionError
    assert len(meter._running.get()) == before
