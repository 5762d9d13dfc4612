"""``memoize``: pages that are made from memoized values."""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import Enum
from typing import Any

import pytest
import time_machine
from flask import Flask

from flask_stalecache import (
    StaleCache,
)
from support.memoize import Fetch, MakeApp, rates_of
from support.threads import go


def page_of(app: Flask, cache: StaleCache, rates: Callable[..., Any], **rules: Any) -> Callable[[], tuple[str, str]]:
    @app.get("/")
    @cache.cached(**{"max_age": 1000, "stale_while_revalidate": 5000, "jitter": 0, **rules})
    def page() -> str:
        return f"<{rates('EUR')}>"

    client = app.test_client()

    def visit() -> tuple[str, str]:
        with client.get("/") as response:
            return response.headers["X-Cache-Status"], response.text

    return visit


def test_a_page_is_no_fresher_than_what_it_is_made_of(make_app: MakeApp, fetch: Fetch, clock: time_machine.Traveller) -> None:
    app, cache = make_app()
    visit = page_of(app, cache, rates_of(cache, fetch))
    assert [visit(), visit()] == [("MISS", "<EUR-1 1>"), ("HIT", "<EUR-1 1>")]
    clock.shift(61)
    assert visit() == ("STALE", "<EUR-1 1>")
    assert cache.drain(30)
    assert visit() == ("HIT", "<EUR-1 2>"), "one refresh, and all of it is fresh"
    assert len(fetch.calls) == 2


@pytest.mark.parametrize("wait", [None, 20])
def test_a_pages_stale_values_are_renewed_at_the_same_time(
    make_app: MakeApp, clock: time_machine.Traveller, wait: float | None
) -> None:
    app, cache = make_app()
    together = threading.Barrier(5)
    calls: list[int] = []

    @cache.memoize(max_age=60, stale_while_revalidate=600, jitter=0, wait=wait)
    def part(number: int) -> str:
        calls.append(number)
        if len(calls) > 5:
            together.wait(30)
        return f"{number}.{(len(calls) - 1) // 5}"

    @app.get("/")
    @cache.cached(max_age=1000, jitter=0)
    def page() -> str:
        return " ".join(part(number) for number in range(5))

    client = app.test_client()
    assert client.get("/").text == "0.0 1.0 2.0 3.0 4.0"
    clock.shift(61)
    client.get("/").close()
    assert cache.drain(60)
    assert sorted(calls) == sorted([*range(5)] * 2)
    answer = client.get("/")
    assert (answer.headers["X-Cache-Status"], answer.text) == ("HIT", "0.1 1.1 2.1 3.1 4.1")


@pytest.mark.parametrize("wait", [None, 20])
def test_the_stale_parts_of_a_value_are_renewed_at_the_same_time(
    make_app: MakeApp, clock: time_machine.Traveller, wait: float | None
) -> None:
    app, cache = make_app()
    together = threading.Barrier(5)
    calls: list[int] = []

    @cache.memoize(max_age=60, stale_while_revalidate=600, jitter=0, wait=wait)
    def part(number: int) -> str:
        calls.append(number)
        if len(calls) > 5:
            together.wait(30)
        return f"{number}.{(len(calls) - 1) // 5}"

    @cache.memoize(max_age=1000, stale_while_revalidate=600, jitter=0, wait=wait)
    def whole() -> str:
        return " ".join(part(number) for number in range(5))

    @app.get("/")
    @cache.cached(max_age=1000, jitter=0)
    def page() -> str:
        return whole()

    client = app.test_client()
    assert client.get("/").text == "0.0 1.0 2.0 3.0 4.0"
    clock.shift(61)
    client.get("/").close()
    assert cache.drain(60)
    assert sorted(calls) == sorted([*range(5)] * 2)
    answer = client.get("/")
    assert (answer.headers["X-Cache-Status"], answer.text) == ("HIT", "0.1 1.1 2.1 3.1 4.1")


class Title(Enum):
    DAILY = "daily"


def test_a_stale_part_met_on_the_way_is_renewed_in_line(make_app: MakeApp, fetch: Fetch, clock: time_machine.Traveller) -> None:
    app, cache = make_app()
    rates = rates_of(cache, fetch)

    @cache.memoize(max_age=60, stale_while_revalidate=600, jitter=0)
    def sheet(title) -> str:  # type: ignore[no-untyped-def]
        # The argument can't be rebuilt from data, so the value is not refreshed before the page, but while the page is made.
        return f"sheet of {rates('EUR')}"

    @app.get("/")
    @cache.cached(max_age=1000, jitter=0)
    def page() -> str:
        return sheet(Title.DAILY)

    client = app.test_client()
    assert client.get("/").text == "sheet of EUR-1 1"
    clock.shift(61)
    client.get("/").close()
    assert cache.drain(60)
    answer = client.get("/")
    assert (answer.headers["X-Cache-Status"], answer.text) == ("HIT", "sheet of EUR-1 2")


def test_a_page_made_from_a_stale_value_is_stale_at_once(make_app: MakeApp, fetch: Fetch, clock: time_machine.Traveller) -> None:
    app, cache = make_app()
    rates = rates_of(cache, fetch)
    visit = page_of(app, cache, rates)
    with app.app_context():
        rates("EUR")
    clock.shift(61)
    fetch.error = OSError()
    assert visit() == ("MISS", "<EUR-1 1>")
    assert cache.drain(30)
    assert visit()[0] in ("STALE", "UPDATING")


def test_a_page_whose_values_can_not_be_renewed_is_not_made_over_and_over(
    make_app: MakeApp, fetch: Fetch, clock: time_machine.Traveller
) -> None:
    app, cache = make_app()
    rates = rates_of(cache, fetch)
    runs = []

    def counted(base: str) -> Any:
        runs.append(base)
        return rates(base)

    visit = page_of(app, cache, counted)
    visit()
    clock.shift(61)
    fetch.error = OSError("down")
    words = []
    for _ in range(10):
        words.append(visit()[0])
        assert cache.drain(30)
    assert (words, len(runs), len(fetch.calls)) == (["STALE"] + ["UPDATING"] * 9, 2, 2)
    fetch.error = None
    clock.shift(2.6)
    visit()
    assert cache.drain(30)
    assert visit() == ("HIT", "<EUR-1 3>")


def test_a_purge_of_its_tag_purges_the_pages(make_app: MakeApp, fetch: Fetch) -> None:
    app, cache = make_app()
    visit = page_of(app, cache, rates_of(cache, fetch, tags=["rates"]))
    visit()
    with app.app_context():
        cache.purge(tag="rates")
    assert visit() == ("MISS", "<EUR-1 2>")


def test_what_is_not_inherited_says_nothing_of_the_page(make_app: MakeApp, fetch: Fetch, clock: time_machine.Traveller) -> None:
    app, cache = make_app()
    visit = page_of(app, cache, rates_of(cache, fetch, tags=["rates"], inherit=False))
    visit()
    clock.shift(61)
    with app.app_context():
        cache.purge(tag="rates")
    assert visit() == ("HIT", "<EUR-1 1>")


def test_a_page_made_with_a_fallback_does_not_replace_a_better_one(
    make_app: MakeApp, fetch: Fetch, clock: time_machine.Traveller
) -> None:
    app, cache = make_app()
    rates = rates_of(cache, fetch, fallback="none")
    visit = page_of(app, cache, rates)
    visit()
    with app.app_context():
        rates.purge("EUR")
    fetch.error = OSError("down")
    clock.shift(61)
    assert visit() == ("STALE", "<EUR-1 1>")
    assert cache.drain(30)
    assert visit() == ("UPDATING", "<EUR-1 1>")


def test_a_page_made_with_a_fallback_is_stale_at_once(make_app: MakeApp, fetch: Fetch, clock: time_machine.Traveller) -> None:
    app, cache = make_app()
    visit = page_of(app, cache, rates_of(cache, fetch, fallback="none"))
    fetch.error = OSError("down")
    assert visit() == ("MISS", "<none>")
    clock.shift(3)
    fetch.error = None
    assert visit() == ("STALE", "<none>")
    assert cache.drain(30)
    assert visit() == ("HIT", "<EUR-1 2>")


@pytest.mark.parametrize("wait", [None, 5])
def test_what_else_is_on_a_page_made_with_a_fallback_is_renewed(
    make_app: MakeApp, fetch: Fetch, clock: time_machine.Traveller, wait: float | None
) -> None:
    app, cache = make_app()
    rates = rates_of(cache, fetch, fallback="none", wait=wait)
    fetch.error = OSError("down")
    made: list[int] = []

    @app.get("/")
    @cache.cached(60, 600, 6000, jitter=0)
    def page() -> str:
        made.append(1)
        return f"{rates('EUR')} {len(made)}"

    client = app.test_client()
    assert client.get("/").text == "none 1"
    for number in (2, 3):
        clock.shift(61)
        client.get("/").close()
        assert cache.drain(30)
        assert client.get("/").text == f"none {number}"
        assert len(made) == number, "it backs off, although it is stale at once"
    clock.shift(600)
    fetch.error = None
    client.get("/").close()
    assert cache.drain(30)
    answer = client.get("/")
    assert (answer.headers["X-Cache-Status"], answer.text[:3]) == ("HIT", "EUR")


def test_a_value_that_is_asked_for_after_its_renewal_was_is_there(make_app: MakeApp, fetch: Fetch) -> None:
    app, cache = make_app()
    rates = rates_of(cache, fetch, wait=20)
    asked: list[bool] = []

    @app.get("/")
    def page() -> str:
        asked.append(rates.refresh("EUR"))
        return rates("EUR")

    # With a time limit: the view would hang if it waited for the refresh, which only begins when the response is closed.
    assert go(lambda: app.test_client().get("/").text).result(10) == "EUR-1 1"
    assert cache.drain(30)
    assert asked == [True]
