"""A purge while callers wait for a call: their own calls count as begun before it, so none of their values may be stored.

Covers ``engine.engine`` and ``engine.answer_writer`` with callers that have an app context of their own.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from itertools import count

import pytest
from flask import Flask

from flask_stalecache import StaleCache
from support.client import Seen, visit
from support.threads import PATIENCE, go, results, wait_until

MakeApp = Callable[..., tuple[Flask, StaleCache]]
#: How many calls a test may hold.
HELD = 4


class Site:
    """Pages that show the number of the call of a fetch function. Each call waits until the test lets it go.

    :param other: a site whose calls are counted and held together with those of this one, as in another process.
    """

    def __init__(self, make_app: MakeApp, other: Site | None = None) -> None:
        self.app, self.cache = make_app()
        self.numbers = count(1) if other is None else other.numbers
        self.calls = 0
        self.gates = [threading.Event() for _ in range(HELD)] if other is None else other.gates
        self.engine = self.app.extensions["stalecache"].engine

        @self.cache.memoize(60, tags=["rates"])
        def rate() -> int:
            self.calls += 1
            number = next(self.numbers)
            assert self.gates[number - 1].wait(PATIENCE)
            return number

        @self.app.get("/live/<int:number>")
        def live(number: int) -> str:
            return str(rate())

        @self.app.get("/page/<int:number>")
        @self.cache.cached(60)
        def page(number: int) -> str:
            return str(rate())

        # Contexts note when they begin from the first use of a fetch function on.
        with self.app.app_context():
            rate.peek()

    def waiting(self) -> int:
        flights = list(self.engine.runtime.process.flights._flights.values())
        return sum(len(flight.done.waiters) for flight in flights)

    def come(self, kind: str, numbers: range) -> list[Future[Seen]]:
        """Let visitors come, the first of whom calls while the others wait."""
        first = [go(visit, self.app, f"/{kind}/{numbers[0]}")]
        wait_until(lambda: self.calls == 1, "the first call")
        others = [go(visit, self.app, f"/{kind}/{number}") for number in numbers[1:]]
        wait_until(lambda: self.waiting() == len(others), "the others wait")
        return first + others

    def purge(self) -> None:
        with self.app.app_context():
            self.cache.purge(tag="rates")

    def end_first_call(self, waiting: int) -> None:
        """End the first call, and wait until one of those that waited calls again, and so many wait for it."""
        self.gates[0].set()
        wait_until(lambda: self.calls == 2, "the second call")
        wait_until(lambda: self.waiting() == waiting, "the others wait again")

    def end_all_calls(self) -> None:
        for gate in self.gates:
            gate.set()


@pytest.fixture
def site(make_app: MakeApp) -> Iterator[Site]:
    made = Site(make_app)
    yield made
    made.end_all_calls()
    assert made.cache.drain(PATIENCE)


@pytest.mark.parametrize("kind", ["live", "page"])
def test_callers_that_wait_at_a_purge_share_one_more_call(site: Site, kind: str) -> None:
    """One after the other, they would wait for a slow third party until the lock timeout."""
    seen = site.come(kind, range(10))
    site.purge()
    site.end_first_call(waiting=8)
    site.end_all_calls()
    assert Counter(each.text for each in results(seen)) == {"1": 1, "2": 9}
    assert site.calls == 2


def test_a_caller_that_comes_after_the_purge_does_not_share_that_value(site: Site) -> None:
    seen = site.come("live", range(3))
    site.purge()
    site.end_first_call(waiting=1)
    late = go(visit, site.app, "/live/9")
    wait_until(lambda: site.waiting() == 2, "the late one waits")
    site.end_all_calls()
    assert Counter(each.text for each in results(seen)) == {"1": 1, "2": 2}
    assert late.result(PATIENCE).text == "3"
    assert visit(site.app, "/live/9").text == "3", "which is stored"


def test_a_value_that_another_purge_ends_is_not_shared(site: Site) -> None:
    seen = site.come("live", range(3))
    site.purge()
    site.end_first_call(waiting=1)
    site.purge()
    site.end_all_calls()
    assert sorted(each.text for each in results(seen)) == ["1", "2", "3"]


def test_a_page_that_shows_such_a_value_is_not_stored(site: Site) -> None:
    seen = site.come("page", range(3))
    site.purge()
    site.end_first_call(waiting=1)
    site.end_all_calls()
    results(seen)
    assert [visit(site.app, f"/page/{number}").text for number in range(3)] == ["3"] * 3
    assert site.calls == 3


def test_callers_of_other_processes_do_not_wait_for_calls_that_store_nothing(make_app: MakeApp, site: Site) -> None:
    others = [Site(make_app, site) for _ in range(2)]
    seen = site.come("live", range(2))
    for other in others:
        engine = other.app.extensions["stalecache"].engine
        seen.append(go(visit, other.app, "/live/1"))
        wait_until(lambda engine=engine: engine.runtime.process.flights._flights, "it waits for the lock")  # type: ignore[misc]
    site.purge()
    site.gates[0].set()
    wait_until(lambda: (site.calls, *(other.calls for other in others)) == (2, 1, 1), "one call in each process")
    site.end_all_calls()
    assert sorted(each.text for each in results(seen)) == ["1", "2", "3", "4"]
