"""The engine's debug lines: one for each turn of a request that is no plain hit."""

from __future__ import annotations

import logging

import pytest
import time_machine

from flask_stalecache.engine.engine import Engine
from support.engine import FakeOrigin, FakeRefresh, failed, make_entry, storable, unstorable
from support.engine_calls import IN_SWR
from support.threads import PATIENCE


@pytest.fixture(autouse=True)
def _debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "flask_stalecache")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the engine's debug lines so far, and forget them. The line in which the store logs how it compares is left out."""
    found = [it.getMessage() for it in caplog.records if it.levelno == logging.DEBUG and it.module != "cache_directory"]
    caplog.clear()
    return found


def test_a_miss_is_called_and_stored_and_a_plain_hit_is_not_logged(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    engine.serve(FakeOrigin())
    assert lines(caplog) == ["the page: the origin is called", "the page: the answer is served and was stored (MISS)"]
    engine.serve(FakeOrigin())
    assert lines(caplog) == []


def test_what_is_not_stored_says_why(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    engine.serve(FakeOrigin(lambda _: unstorable()))
    assert lines(caplog)[1:] == ["the page: the answer is served and was not stored: unstorable (MISS)"]
    engine.serve(FakeOrigin(lambda _: unstorable()))
    assert lines(caplog)[0] == "the page: the origin is called without the lock"


def test_a_failure_says_its_error(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    engine.serve(FakeOrigin(lambda _: failed()))
    assert "not stored: ConnectionError('the third party is down') (MISS)" in lines(caplog)[-1]


def test_a_request_that_carries_an_absent_name_bypasses(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    engine.store.write(make_entry(absent=("member",)))
    engine.serve(FakeOrigin(cookies=frozenset({"member"})))
    assert lines(caplog)[0] == "the page: the request bypasses the cache"


def test_a_stale_copy_and_its_refresh(engine: Engine, clock: time_machine.Traveller, caplog: pytest.LogCaptureFixture) -> None:
    engine.serve(FakeOrigin())
    clock.shift(IN_SWR)
    lines(caplog)
    assert engine.serve(FakeOrigin()).refresh
    assert lines(caplog) == ["the page: the stored copy is served (STALE)"]
    engine.runtime.submit(FakeRefresh(storable))
    assert engine.runtime.drain(PATIENCE)
    ends = lines(caplog)
    assert "the page: a refresh was submitted" in ends
    assert any(line.startswith("the page: the refresh took 0.") and line.endswith(": stored") for line in ends)
