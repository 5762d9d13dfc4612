"""A hard purge ends the memory of failures too: the third party is back, and callers get it at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import time_machine
from flask import Flask

from flask_stalecache import OriginSuspended, StaleCache
from support.memoize import Fetch, MakeApp
from support.threads import wait_until

Purge = Callable[[StaleCache, Any], object]

PURGES: dict[str, Purge] = {
    "f.purge": lambda cache, rates: rates.purge("EUR"),
    "tag": lambda cache, rates: cache.purge(tag="rates"),
    "tag of the arguments": lambda cache, rates: cache.purge(tag="rates-EUR"),
    "all": lambda cache, rates: cache.purge(all=True),
}
OTHERS: dict[str, Purge] = {
    "f.purge of other arguments": lambda cache, rates: rates.purge("USD"),
    "another tag": lambda cache, rates: cache.purge(tag="news"),
    "soft": lambda cache, rates: cache.purge(tag="rates", soft=True),
}


class Down:
    """A shop with a function that has just failed for ``EUR``, and the third party is back since."""

    def __init__(self, made: tuple[Flask, StaleCache], fetch: Fetch, *, times: int = 1, **rules: Any) -> None:
        self.app, self.cache = made
        self.fetch = fetch

        @self.cache.memoize(60, 600, 6000, jitter=0, tags=lambda base: ["rates", f"rates-{base}"], **rules)
        def rates(base: str) -> str:
            return fetch(base)

        self.rates = rates
        fetch.error = ConnectionError("down")
        for _ in range(times):
            self.asked()
        fetch.error = None

    def asked(self) -> str:
        with self.app.app_context():
            try:
                return str(self.rates("EUR"))
            except (ConnectionError, OriginSuspended) as error:
                return type(error).__name__

    def purge(self, how: Purge) -> None:
        with self.app.app_context():
            how(self.cache, self.rates)


@pytest.mark.parametrize("wait", [None, 20])
@pytest.mark.parametrize("how", PURGES)
def test_nothing_stands_in_any_longer(make_app: MakeApp, fetch: Fetch, clock: time_machine.Traveller, how: str, wait: Any) -> None:
    down = Down(make_app(), fetch, fallback="fallback", wait=wait)
    assert down.asked() == "fallback"
    down.purge(PURGES[how])
    assert down.asked() == "EUR 2"


@pytest.mark.parametrize("wait", [None, 20])
@pytest.mark.parametrize("how", PURGES)
def test_a_failure_that_is_remembered_is_forgotten(
    make_app: MakeApp, fetch: Fetch, clock: time_machine.Traveller, how: str, wait: Any
) -> None:
    down = Down(make_app(), fetch, cache_failures=300, wait=wait)
    assert down.asked() == "OriginSuspended"
    down.purge(PURGES[how])
    assert down.asked() == "EUR 2"


@pytest.mark.parametrize("how", OTHERS)
def test_another_purge_changes_nothing(make_app: MakeApp, fetch: Fetch, clock: time_machine.Traveller, how: str) -> None:
    down = Down(make_app(), fetch, cache_failures=300)
    down.purge(OTHERS[how])
    assert down.asked() == "OriginSuspended"


@pytest.mark.parametrize("how", PURGES)
def test_in_another_process_too(make_app: MakeApp, fetch: Fetch, clock: time_machine.Traveller, how: str) -> None:
    down = Down(make_app(), fetch, cache_failures=300)
    app, cache = make_app()
    with app.app_context():
        assert down.asked() == "OriginSuspended"
        PURGES[how](cache, down.rates)
    assert down.asked() == "EUR 2"


@pytest.mark.parametrize("how", PURGES)
def test_the_failures_of_refreshes_are_forgotten(make_app: MakeApp, fetch: Fetch, clock: time_machine.Traveller, how: str) -> None:
    down = Down(make_app(REFRESH_WORKERS=0), fetch, times=0, fallback="fallback")
    assert down.asked() == "EUR 1"
    clock.shift(61)
    fetch.error = ConnectionError("down")
    for _ in range(3):
        assert down.asked() == "EUR 1"
        clock.shift(100)
    fetch.error = None
    down.purge(PURGES[how])
    assert down.asked().startswith("EUR")
    assert down.asked() != "EUR 1"


@pytest.mark.parametrize("how", PURGES)
def test_a_call_that_hung_is_forgotten(make_app: MakeApp, fetch: Fetch, monotonic: Callable[[float], None], how: str) -> None:
    # A long back-off: on a slow machine, a short one would end by itself, and another call would begin.
    app, cache = make_app(REFRESH_DEADLINE=5, REFRESH_BACKOFF=(300, 300))
    down = Down((app, cache), fetch, times=0, wait=0, fallback="fallback")
    fetch.gate.clear()
    assert down.asked() == "fallback"
    monotonic(6)
    app.extensions["stalecache"].engine.runtime.tick()
    assert down.asked() == "fallback"
    fetch.error = ConnectionError("too late")
    fetch.gate.set()
    assert cache.drain(30)
    assert down.asked() == "fallback"
    fetch.error = None
    down.purge(PURGES[how])
    down.asked()
    assert cache.drain(30)
    assert down.asked() == "EUR 2"


@pytest.mark.parametrize("how", PURGES)
def test_a_call_that_fails_after_a_purge_was_begun_before_it(make_app: MakeApp, fetch: Fetch, how: str) -> None:
    app, cache = make_app()
    down = Down((app, cache), fetch, times=0, wait=0, fallback="fallback")
    fetch.gate.clear()
    assert down.asked() == "fallback"
    wait_until(lambda: len(fetch.calls) == 1)
    down.purge(PURGES[how])
    fetch.error = ConnectionError("too late")
    fetch.gate.set()
    assert cache.drain(30)
    fetch.error = None
    down.asked()
    assert cache.drain(30)
    assert down.asked() == "EUR 2"


def test_a_call_that_was_begun_before_a_purge_of_everything_suspends_nothing(make_app: MakeApp, fetch: Fetch) -> None:
    app, cache = make_app()
    down = Down((app, cache), fetch, times=0, wait=0, fallback="fallback", suspend_after=1, suspend_for=300)
    fetch.gate.clear()
    assert down.asked() == "fallback"
    wait_until(lambda: len(fetch.calls) == 1)
    down.purge(PURGES["all"])
    fetch.error = ConnectionError("too late")
    fetch.gate.set()
    assert cache.drain(30)
    fetch.error = None
    down.asked()
    assert cache.drain(30)
    assert down.asked() == "EUR 2"


@pytest.mark.parametrize(("how", "expected"), [("all", "EUR 3"), ("f.purge", "OriginSuspended")])
def test_a_suspended_function_is_tried_again_only_after_a_purge_of_everything(
    make_app: MakeApp, fetch: Fetch, clock: time_machine.Traveller, how: str, expected: str
) -> None:
    """The breaker is for all keys: a purge of one says nothing of the others."""
    down = Down(make_app(), fetch, times=2, suspend_after=2, suspend_for=300)
    assert down.asked() == "OriginSuspended"
    down.purge(PURGES[how])
    assert down.asked() == expected
