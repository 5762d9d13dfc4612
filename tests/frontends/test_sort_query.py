"""A key without the order of the query: at a view, in a rule of a Flask app, and in front of any app."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import time_machine
from flask import Flask, request

from flask_stalecache import ConfigError, GatewayCache, Policy, StaleCache
from support.client import MakeApp, settle, unrecorded_environ, visit
from support.wsgi_apps import App, ask

WINDOWS = {"max_age": 10, "stale_while_revalidate": 100, "stale_if_error": 1000}

Install: TypeAlias = "Callable[..., tuple[Flask, StaleCache]]"


def at_view(make_app: MakeApp, show: Callable[[], Any], **more: Any) -> tuple[Flask, StaleCache]:
    app, cache = make_app()
    app.add_url_rule("/list/", "page", cache.cached(**WINDOWS, jitter=0, sort_query=True, **more)(show))
    return app, cache


def in_a_rule(make_app: MakeApp, show: Callable[[], Any], **more: Any) -> tuple[Flask, StaleCache]:
    app, cache = make_app(GATEWAY=[("/list*", Policy(**WINDOWS, jitter=0, sort_query=True, **more))])
    app.add_url_rule("/list/", "page", show)
    return app, cache


EVERYWHERE = pytest.mark.parametrize("install", [at_view, in_a_rule])


class Shop:
    """A view that reads its parameters by name. It knows the queries that it was asked with."""

    def __init__(self) -> None:
        self.queries: list[str] = []

    def __call__(self) -> str:
        self.queries.append(unrecorded_environ()["QUERY_STRING"])
        return f"{request.args.getlist('a')} {request.args.get('b')}"


@EVERYWHERE
def test_a_page_is_found_in_any_order_of_its_query(make_app: MakeApp, install: Install) -> None:
    shop = Shop()
    app, _ = install(make_app, shop, ignored_parameters=["utm_*"])
    pages = [visit(app, f"/list/?{query}").page for query in ("b=1&a=2&a=3", "a=2&b=1&a=3", "a=2&a=3&utm_x=1&b=1")]
    assert pages == [("MISS", "['2', '3'] 1"), ("HIT", "['2', '3'] 1"), ("HIT", "['2', '3'] 1")]
    # The app is asked as the request arrived.
    assert shop.queries == ["b=1&a=2&a=3"]


@EVERYWHERE
@pytest.mark.parametrize("other", ["a=3&a=2&b=1", "a=2&a=3", "a=2&a=3&b=1&c", "a=2&a=3&b=", "a=2&&a=3&b=1", "a=2&a=3&b=%31"])
def test_another_query_is_another_page(make_app: MakeApp, install: Install, other: str) -> None:
    app, _ = install(make_app, Shop())
    visit(app, "/list/?b=1&a=2&a=3")
    assert visit(app, f"/list/?{other}").word == "MISS"


def test_without_it_each_order_is_a_page(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.add_url_rule("/list/", "page", cache.cached(60)(Shop()))
    assert [visit(app, f"/list/?{query}").word for query in ("b=1&a=2", "a=2&b=1", "b=1&a=2")] == ["MISS", "MISS", "HIT"]


@pytest.mark.grid
@EVERYWHERE
@pytest.mark.parametrize(
    "asked", ["/list/?b=1&a=2", "/list/?a=2&b=1", "http://localhost/list/?b=1&a=2", "http://localhost/list/?a=2&b=1"]
)
def test_a_url_selects_its_page_in_any_order(make_app: MakeApp, install: Install, asked: str) -> None:
    app, cache = install(make_app, Shop())
    visit(app, "/list/?b=1&a=2")
    shown = app.test_cli_runner().invoke(args=["stalecache", "show", asked])
    assert shown.exit_code == 0, shown.output
    with app.app_context():
        renewed = cache.refresh(asked)
        assert renewed.wait(10)
        assert [outcome.stored for outcome in renewed.outcomes] == [True]
        cache.purge(asked, soft=True)
        assert visit(app, "/list/?a=2&b=1").word == "STALE"
        settle(app, cache)
        cache.purge(asked)
    assert [visit(app, f"/list/?{query}").word for query in ("b=1&a=2", "a=2&b=1")] == ["MISS", "HIT"]


@EVERYWHERE
def test_warming_finds_what_is_stored_and_fills_for_all(make_app: MakeApp, install: Install) -> None:
    shop = Shop()
    app, cache = install(make_app, shop)
    with app.app_context():
        for query in ("b=1&a=2", "a=2&b=1"):
            batch = cache.warm([f"http://localhost/list/?{query}"])
            assert batch.wait(10)
    assert shop.queries == ["b=1&a=2"]
    assert visit(app, "/list/?a=2&b=1").word == "HIT"


@EVERYWHERE
def test_a_refresh_asks_with_the_query_of_the_key(make_app: MakeApp, install: Install, clock: time_machine.Traveller) -> None:
    shop = Shop()
    app, cache = install(make_app, shop)
    visit(app, "/list/?b=1&a=2")
    clock.shift(11)
    assert visit(app, "/list/?b=1&a=2").word == "STALE"
    settle(app, cache)
    assert shop.queries == ["b=1&a=2", "a=2&b=1"]
    assert [visit(app, f"/list/?{query}").word for query in ("b=1&a=2", "a=2&b=1")] == ["HIT", "HIT"]


# -- what shows the order --------------------------------------------------------------------------------------------

READS: dict[str, Callable[[], object]] = {
    "query_string": lambda: request.query_string.decode(),
    "full_path": lambda: request.full_path,
    "url": lambda: request.url,
    "args as a whole": lambda: dict(request.args),
    "names": lambda: list(request.args),
    "environ": lambda: request.environ["QUERY_STRING"],
}


@pytest.mark.grid
@EVERYWHERE
@pytest.mark.parametrize("read", READS)
def test_a_page_that_shows_the_order_is_stored_in_the_order_of_the_key_alone(
    make_app: MakeApp, install: Install, read: str, caplog: pytest.LogCaptureFixture
) -> None:
    app, _ = install(make_app, lambda: str(READS[read]()))
    with caplog.at_level(logging.WARNING, "flask_stalecache"):
        first = [visit(app, "/list/?b=1&a=2") for _ in range(2)]
    assert [each.word for each in first] == ["MISS", "MISS"]
    assert len({each.text for each in first}) == 1
    assert any("whose order sort_query leaves out of the key" in each.getMessage() for each in caplog.records)
    ordered = [visit(app, "/list/?a=2&b=1") for _ in range(2)]
    assert [each.word for each in ordered] == ["MISS", "HIT"]
    assert ordered[0].text != first[0].text
    # The stored page is the one in the order of the key, just as it is the one without the ignored parameters.
    assert visit(app, "/list/?b=1&a=2").page == ("HIT", ordered[0].text)


def test_a_redirect_of_the_routing_repeats_nobody_elses_order(make_app: MakeApp) -> None:
    app, _ = in_a_rule(make_app, Shop())
    asked = [visit(app, f"/list?{query}") for query in ("b=1&a=2", "a=2&b=1", "a=2&b=1", "b=1&a=2")]
    assert [each.word for each in asked] == ["MISS", "MISS", "HIT", "HIT"]
    targets = [each.headers["Location"].partition("?")[2] for each in asked]
    assert targets == ["b=1&a=2", "a=2&b=1", "a=2&b=1", "a=2&b=1"]


# -- in front of any app ---------------------------------------------------------------------------------------------


def test_in_front_of_any_app_a_rule_decides(tmp_path: Path) -> None:
    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["QUERY_STRING"].encode()]

    app = App(answer)
    rules = [("/sorted", Policy(max_age=60, sort_query=True)), ("/*", Policy(max_age=60))]
    gateway = GatewayCache(app, dir=tmp_path, rules=rules)

    def word(path: str, query: str) -> str:
        return ask(gateway, path, QUERY_STRING=query, RAW_URI=f"{path}?{query}").word

    orders = ("b=1&a=2", "a=2&b=1", "b=1&a=2")
    assert [word("/sorted", query) for query in orders] == ["MISS", "HIT", "HIT"]
    assert [word("/plain", query) for query in orders] == ["MISS", "MISS", "HIT"]
    ask(gateway, "/sorted", "POST", QUERY_STRING="a=2&b=1")
    assert word("/sorted", "b=1&a=2") == "MISS"
    gateway.purge("/sorted?a=2&b=1")
    assert word("/sorted", "b=1&a=2") == "MISS"
    gateway.purge("/plain?b=1&a=2")
    assert [word("/plain", query) for query in orders] == ["MISS", "MISS", "HIT"]


def test_a_view_of_the_gateway_says_to_write_a_rule() -> None:
    with pytest.raises(ConfigError, match=r"sort_query has no effect beside gateway=True.*STALECACHE_GATEWAY"):
        StaleCache().cached(60, sort_query=True, gateway=True)
