"""``memoize``: refreshing and purging by hand, and where it works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import time_machine
from flask import Response, g, has_request_context, request, session

from flask_stalecache.core.rules.cacheability import current
from support.memoize import Fetch, MakeApp, Shop, rates_of

# -- where it runs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [None, 20])
def test_it_knows_no_request_and_another_g(make_app: MakeApp, wait: float | None) -> None:
    app, cache = make_app()
    seen = []

    @cache.memoize(wait=wait)
    def look() -> int:
        seen.append((has_request_context(), "who" in g))
        return 1

    @app.get("/")
    def page() -> str:
        g.who = "ada"
        look()
        return g.who  # type: ignore[no-any-return]

    assert app.test_client().get("/").text == "ada"
    assert seen == [(False, False)]


@pytest.mark.parametrize("touch", [lambda: request.path, lambda: session.get("user")])
def test_who_touches_the_request_is_told_what_to_do(make_app: MakeApp, touch: Callable[[], Any]) -> None:
    app, cache = make_app()

    @cache.memoize()
    def nosy() -> Any:
        return touch()

    @app.get("/")
    def page() -> str:
        with pytest.raises(Exception, match=r"nosy\(\) uses the request.*argument"):
            nosy()
        return "told"

    assert app.test_client().get("/").text == "told"


def test_in_a_request_a_renewal_waits_until_the_response_is_closed(
    make_app: MakeApp, fetch: Fetch, clock: time_machine.Traveller
) -> None:
    app, cache = make_app()
    rates = rates_of(cache, fetch)

    @app.get("/")
    def page() -> Response:
        return Response(f"{rates('EUR')} {len(fetch.calls)} {part}" for part in "ab")

    @app.get("/fill")
    def fill() -> str:
        return str(rates("EUR"))

    client = app.test_client()
    client.get("/fill").close()
    clock.shift(61)
    with client.get("/fill", buffered=False) as response:
        assert len(fetch.calls) == 1
        assert response.text == "EUR-1 1"
    assert cache.drain(30)
    assert len(fetch.calls) == 2


# -- asked for by hand -----------------------------------------------------------------------------------------------


def test_refresh_purge_peek_uncached(shop: Shop, fetch: Fetch) -> None:
    cache = shop[1]
    rates = rates_of(cache, fetch)
    assert rates.peek("EUR") is None
    assert rates.refresh("EUR") is True
    assert cache.drain(30)
    assert rates.peek("EUR") == rates("EUR") == "EUR-1 1"
    rates.refresh(base="EUR", day=1)
    assert cache.drain(30)
    assert rates("EUR") == "EUR-1 2"
    assert rates.uncached("EUR") == "EUR-1 3"
    assert rates("EUR") == "EUR-1 2"
    rates.purge("EUR")
    assert rates.peek("EUR") is None
    assert rates("EUR") == "EUR-1 4"


def test_unless_is_asked_with_the_arguments(shop: Shop, fetch: Fetch) -> None:
    rates = rates_of(shop[1], fetch, unless=lambda base: base == "XXX")
    assert [rates("XXX"), rates("XXX"), rates("EUR"), rates("EUR")] == ["XXX-1 1", "XXX-1 2", "EUR-1 3", "EUR-1 3"]


def test_it_is_purged_by_tags_that_depend_on_the_arguments(shop: Shop, fetch: Fetch) -> None:
    cache = shop[1]
    rates = rates_of(cache, fetch, tags=lambda base: ["rates", f"rates-{base}"])
    rates("EUR"), rates("USD")
    cache.purge(tag="rates-EUR")
    assert [rates.peek("EUR"), rates.peek("USD")] == [None, "USD-1 2"]
    cache.purge(tag="rates")
    assert rates.peek("USD") is None


def test_the_function_has_the_last_word(shop: Shop, fetch: Fetch, clock: time_machine.Traveller) -> None:
    cache = shop[1]

    @cache.memoize(max_age=60, jitter=0)
    def short() -> str:
        cache.max_age(5)
        cache.tag("short")
        return fetch()

    @cache.memoize()
    def never() -> str:
        cache.no_store()
        return fetch()

    assert [short(), never(), never()] == [" 1", " 2", " 3"]
    assert current() is None
    cache.purge(tag="short")
    assert short() == " 4"


def test_a_value_that_does_not_come_back_is_returned_and_told_of(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    @shop[1].memoize()
    def made() -> Any:
        return {1: object}

    assert made() == made() == {1: object}
    assert len([record for record in caplog.records if "is not stored" in record.message]) == 1


def test_a_value_of_another_annotation_is_a_miss(make_app: MakeApp) -> None:
    app, cache = make_app()

    def number() -> int:
        return 1

    def text() -> str:
        return "one"

    for each in (number, text):
        each.__qualname__ = "told"
    app2, cache2 = make_app()
    with app.app_context():
        assert cache.memoize()(number)() == 1
    with app2.app_context():
        told = cache2.memoize()(text)
        assert [told(), told()] == ["one", "one"]
        assert told.peek() == "one"
