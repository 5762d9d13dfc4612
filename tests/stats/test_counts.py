"""What is counted as what: pages, calls, sessions and the gateway, whoever answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask, abort, request
from werkzeug.test import Client

from flask_stalecache import FileStore, GatewayCache, OriginBusy, StaleCache
from flask_stalecache.core.model.environ import REFRESHING
from flask_stalecache.core.model.query import NamePatterns
from flask_stalecache.frontends.requests_adapter.url_key import host_of_url, key_url
from flask_stalecache.stats.schema import Series, Stats
from flask_stalecache.stats.tally import STATUSES
from support.engine import FakeOrigin, make_engine, storable
from support.third_party import Site, ThirdParty, status
from support.threads import PATIENCE, crowd, results, wait_until

MakeApp = Callable[..., tuple[Flask, StaleCache]]


class Shop:
    """An app with a page and a fetch function, both of which answer with :attr:`word`."""

    def __init__(self, make_app: MakeApp, **settings: Any) -> None:
        self.app, self.cache = make_app(**settings)
        self.word: Any = "good"
        self.client = self.app.test_client()

        @self.cache.memoize(60, 600, 86400, jitter=0)
        def rates(base: str) -> str:
            return str(self.say())

        @self.app.route("/<name>", methods=["GET", "POST"], endpoint="news")
        @self.cache.cached(60, 600, 86400, jitter=0, unless=lambda: self.word == "live")
        def news(name: str) -> Any:
            return self.say()

        self.rates = rates

    def say(self) -> Any:
        """Return the word, raise it if it is an exception, or abort with it if it is a status."""
        if isinstance(self.word, BaseException):
            raise self.word
        if isinstance(self.word, int) and self.word < 600:
            abort(self.word)
        return self.word

    def get(self, path: str = "/a", **options: Any) -> str | None:
        """Visit a page, wait for its refresh, and return ``X-Cache-Status``."""
        with self.client.open(path, **{"method": "GET", **options}) as response:
            word = response.headers.get("X-Cache-Status")
        assert self.cache is not None
        with self.app.app_context():
            assert self.cache.drain(PATIENCE)
        return word

    @property
    def stats(self) -> Stats:
        """The statistics of the app."""
        with self.app.app_context():
            return self.cache.stats()


@pytest.fixture
def shop(make_app: MakeApp, clock: time_machine.Traveller) -> Shop:
    return Shop(make_app)


def counted(numbers: dict[str, int]) -> dict[str, int]:
    """Return the counts that are not 0."""
    return {name: count for name, count in numbers.items() if count}


def told(series: Series) -> tuple[dict[str, int], int, int, int, int]:
    refreshes = series["refreshes"]
    return (
        counted(series["requests"]), series["origin_calls"], series["origin_failures"], refreshes["done"], refreshes["failed"],
    )  # fmt: skip


# -- the whole -------------------------------------------------------------------------------------------------------


def test_nothing_is_made_where_nothing_was_asked(make_app: MakeApp, directory: Path) -> None:
    app, cache = make_app()
    with app.app_context():
        stats = cache.stats()
    assert not directory.exists()
    assert (stats["workers"], stats["entries"], stats["max_size"]) == (0, 0, 100 * 1024 * 1024)
    assert counted(stats["requests"]) == counted(stats["calls"]) == {}


def test_the_numbers_are_plain_data(shop: Shop) -> None:
    shop.get()
    stats = shop.stats
    assert json.loads(json.dumps(stats)) == stats
    assert [*stats["requests"]] == [*stats["calls"]] == [*STATUSES]
    assert (stats["entries"], stats["workers"], stats["max_size"]) == (1, 1, 100 * 1024 * 1024)
    assert stats["bytes"] > 0


def test_state_has_the_history(shop: Shop) -> None:
    assert shop.app.extensions["stalecache"].stats.history() == []


# -- pages -----------------------------------------------------------------------------------------------------------


def test_a_page_through_its_life(shop: Shop, clock: time_machine.Traveller) -> None:
    assert [shop.get(), shop.get(), shop.get()] == ["MISS", "HIT", "HIT"]
    assert told(shop.stats["endpoints"]["news"]) == ({"MISS": 1, "HIT": 2}, 1, 0, 0, 0)
    clock.shift(61)
    assert [shop.get(), shop.get()] == ["STALE", "HIT"]
    assert told(shop.stats["endpoints"]["news"]) == ({"MISS": 1, "HIT": 3, "STALE": 1}, 2, 0, 1, 0)
    clock.shift(700)
    assert shop.get() == "EXPIRED"
    assert told(shop.stats["endpoints"]["news"]) == ({"MISS": 1, "HIT": 3, "STALE": 1, "EXPIRED": 1}, 3, 0, 1, 0)
    shop.word = ValueError("no")
    clock.shift(61)
    assert [shop.get(), shop.get()] == ["STALE", "UPDATING"]
    series = shop.stats["endpoints"]["news"]
    assert told(series)[1:] == (4, 1, 1, 1)
    assert counted(series["requests"]) == {"MISS": 1, "HIT": 3, "STALE": 2, "EXPIRED": 1, "UPDATING": 1}
    assert series["served"]["count"] == 8
    assert series["origin"]["count"] == 4


def test_totals_are_the_sum_of_their_parts(shop: Shop, clock: time_machine.Traveller) -> None:
    with shop.app.app_context():
        shop.rates("EUR")
    shop.get()
    clock.shift(61)
    shop.get()
    with shop.app.app_context():
        shop.rates("EUR")
        assert shop.cache.drain(PATIENCE)
    stats = shop.stats
    assert (counted(stats["requests"]), counted(stats["calls"])) == ({"MISS": 1, "STALE": 1}, {"MISS": 1, "STALE": 1})
    assert (stats["origin_calls"], stats["origin_failures"]) == (4, 0)
    refreshes = stats["refreshes"]
    assert (refreshes["queued"], refreshes["done"], refreshes["failed"], refreshes["pending"]) == (2, 2, 0, 0)
    assert refreshes["seconds"] > 0


@pytest.mark.parametrize(
    ("word", "failures"),
    [(ValueError("no"), 1), (500, 1), (503, 1), (404, 0), (403, 0)],
    ids=["raises", "500", "503", "404", "403"],
)
@pytest.mark.parametrize(("method", "status"), [("GET", "MISS"), ("POST", "BYPASS")])
def test_a_view_that_fails_counts(shop: Shop, word: object, failures: int, method: str, status: str) -> None:
    shop.word = word
    shop.get(method=method)
    assert told(shop.stats["endpoints"]["news"])[:3] == ({status: 1}, 1, failures)


@pytest.mark.parametrize("options", [{"method": "POST"}, {"data": "a body"}, {"environ_overrides": {"REMOTE_USER": "ann"}}])
def test_what_is_not_for_the_cache_counts(shop: Shop, options: dict[str, Any]) -> None:
    assert shop.get(**options) == "BYPASS"
    assert told(shop.stats["endpoints"]["news"]) == ({"BYPASS": 1}, 1, 0, 0, 0)


def test_unless_counts_as_bypass(shop: Shop) -> None:
    shop.word = "live"
    assert shop.get() == "BYPASS"
    assert told(shop.stats["endpoints"]["news"])[:3] == ({"BYPASS": 1}, 1, 0)


@pytest.mark.parametrize(("word", "failures"), [("member", 0), (ValueError("no"), 1), (404, 0), (503, 1)])
def test_a_visitor_with_an_absent_name_counts(make_app: MakeApp, word: Any, failures: int) -> None:
    shop = Shop(make_app)

    @shop.app.get("/members/")
    @shop.cache.cached(60)
    def members() -> Any:

        return f"{request.cookies.get('member')} {shop.say()}"

    shop.get("/members/")
    shop.word = word
    shop.client.set_cookie("member", "ann")
    shop.get("/members/")
    assert told(shop.stats["endpoints"]["members"])[:3] == ({"MISS": 1, "BYPASS": 1}, 2, failures)


def test_head_and_a_condition_count_as_hits(shop: Shop) -> None:
    shop.get()
    assert [shop.get(method="HEAD"), shop.get(headers={"If-None-Match": "*"})] == ["HIT", "HIT"]
    assert counted(shop.stats["requests"]) == {"MISS": 1, "HIT": 2}


def test_a_view_that_asks_another_one_is_one_visit(shop: Shop) -> None:
    @shop.app.get("/outer/")
    @shop.cache.cached(60)
    def outer() -> str:
        return f"<{inner()}>"

    @shop.cache.cached(60)
    def inner() -> str:
        return "inner"

    assert [shop.get("/outer/"), shop.get("/outer/")] == ["MISS", "HIT"]
    assert counted(shop.stats["requests"]) == {"MISS": 1, "HIT": 1}


def test_who_waits_is_counted(directory: Path) -> None:
    engine = make_engine(directory)
    gate = threading.Event()

    def script(start: Any) -> Any:
        assert gate.wait(PATIENCE)
        return storable(start)

    origins = [FakeOrigin(script) for _ in range(4)]
    todo = iter(origins)
    waiting = crowd(4, lambda: engine.serve(next(todo)))
    wait_until(lambda: sum(origin.calls for origin in origins) == 1 and all(origin.asked for origin in origins))
    gate.set()
    served = results(waiting)
    assert sorted(one.waited for one in served) == [False, True, True, True]
    assert all(one.took is not None for one in served)
    assert engine.serve(FakeOrigin()).took is None


# -- calls -----------------------------------------------------------------------------------------------------------


def test_calls_are_counted_by_function(shop: Shop, clock: time_machine.Traveller) -> None:
    with shop.app.app_context():
        shop.rates("EUR"), shop.rates("EUR")
        clock.shift(61)
        shop.rates("EUR")
        assert shop.cache.drain(PATIENCE)
    [(name, series)] = shop.stats["functions"].items()
    assert name.endswith("rates")
    assert told(series) == ({"MISS": 1, "HIT": 1, "STALE": 1}, 2, 0, 1, 0)


def test_a_fetch_function_that_fails_counts(shop: Shop) -> None:
    shop.word = ValueError("no")
    with shop.app.app_context(), pytest.raises(ValueError, match="no"):
        shop.rates("EUR")
    assert told(next(iter(shop.stats["functions"].values()))) == ({"MISS": 1}, 1, 1, 0, 0)


def test_a_call_that_is_not_made_is_none(make_app: MakeApp) -> None:
    app, cache = make_app()

    @cache.memoize(60, max_concurrency=1)
    def rates(depth: int) -> int:
        with pytest.raises(OriginBusy):
            rates(depth - 1)
        return depth

    with app.app_context():
        rates(3)
        stats = cache.stats()
    assert (counted(stats["calls"]), stats["origin_calls"], stats["origin_failures"]) == ({"MISS": 2}, 1, 0)


def test_what_is_live_by_the_developers_wish_counts(make_app: MakeApp) -> None:
    app, cache = make_app()

    @cache.memoize(60, unless=lambda base: True)
    def rates(base: str) -> str:
        if base == "XXX":
            raise ValueError("no")
        return base

    with app.app_context():
        rates("EUR")
        with pytest.raises(ValueError, match="no"):
            rates("XXX")
        stats = cache.stats()
    assert (counted(stats["calls"]), stats["origin_calls"], stats["origin_failures"]) == ({"BYPASS": 2}, 2, 1)


# -- sessions --------------------------------------------------------------------------------------------------------


def test_requests_of_sessions_are_counted_by_host(party: ThirdParty, site: Site, clock: time_machine.Traveller) -> None:
    party.says("Cache-Control: max-age=60, stale-if-error=600", 'ETag: "one"', confirms=True)
    session, words = site.session(), []
    for step in (0, 1, 60, 1):
        clock.shift(step)
        words.append(session.get(party.url()))
    words.append(session.post(party.url("/order")))
    party.says(status=503)
    clock.shift(61)
    words.append(session.get(party.url()))
    words.append(session.get(party.url("/missing"), headers={"Cache-Control": "only-if-cached"}))
    seen = [status(response) for response in words]
    assert seen == ["MISS", "HIT", "REVALIDATED", "HIT", "BYPASS", "STALE", "MISS"]
    [(host, series)] = site.cache.stats()["hosts"].items()
    assert host == party.url().split("/")[2]
    assert told(series) == ({word: seen.count(word) for word in seen}, 4, 1, 0, 0)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://api.example/", "api.example"),
        ("https://API.example:443/a?b=c", "api.example"),
        ("http://api.example:8080/", "api.example:8080"),
        ("https://ann:secret@api.example/", "api.example"),
        ("http://[::1]:80/", "[::1]"),
    ],
)
def test_a_host_is_named_without_what_is_nobodys_business(url: str, host: str) -> None:
    normal = key_url(url, NamePatterns(()))
    assert normal is not None
    assert host_of_url(normal) == host


def test_a_caller_who_takes_a_stale_answer_is_counted_so(party: ThirdParty, site: Site, clock: time_machine.Traveller) -> None:
    party.says("Cache-Control: max-age=60")
    session = site.session()
    session.get(party.url())
    clock.shift(61)
    party.says(status=503)
    answer = session.get(party.url(), headers={"Cache-Control": "stale-if-error=600"})
    assert status(answer) == "STALE"
    assert counted(site.cache.stats()["calls"]) == {"MISS": 1, "STALE": 1}


# -- the gateway -----------------------------------------------------------------------------------------------------


def visit(app: Any, path: str = "/", method: str = "GET", **options: Any) -> str | None:
    response = Client(app).open(path, method=method, **options)
    word = response.headers.get("X-Cache-Status")
    response.get_data()
    response.close()
    return word


class Bare:
    """A bare WSGI app that answers with a status and fields, or raises an error, as set by the test."""

    def __init__(self) -> None:
        self.status, self.fields = "200 OK", [("Cache-Control", "max-age=60, stale-while-revalidate=60")]
        self.error: Exception | None = None

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if self.error is not None:
            raise self.error
        start_response(self.status, [*self.fields, ("Content-Type", "text/plain")])
        return [b"page"]


def test_a_bare_app_is_counted_as_one(directory: Path, clock: time_machine.Traveller) -> None:
    site = Bare()
    gateway = GatewayCache(site, dir=directory)
    words = [*(visit(gateway) for _ in range(4)), visit(gateway, method="HEAD")]
    clock.shift(61)
    words.append(visit(gateway))
    # Otherwise the refresh may begin only after the POST has purged the page.
    assert gateway.drain(PATIENCE)
    words += [visit(gateway, method="POST"), visit(gateway)]
    assert words == ["MISS", "HIT", "HIT", "HIT", "HIT", "STALE", "BYPASS", "MISS"]
    assert gateway.drain(PATIENCE)
    [(endpoint, series)] = gateway.stats()["endpoints"].items()
    assert endpoint == ""
    assert counted(series["requests"]) == {word: words.count(word) for word in words}
    assert series["served"]["count"] == len(words)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_app_that_fails_behind_the_gateway_counts(directory: Path, method: str) -> None:
    site = Bare()
    gateway = GatewayCache(site, dir=directory)
    site.status, site.fields = "503 Service Unavailable", []
    word = visit(gateway, method=method)
    site.error = ValueError("no")
    with pytest.raises(ValueError, match="no"):
        visit(gateway, method=method)
    stats = gateway.stats()
    assert counted(stats["requests"]) == {word: 2}
    assert (stats["origin_calls"], stats["origin_failures"]) == (2, 2)


def behind_gateway(make_app: MakeApp, **settings: Any) -> tuple[Flask, StaleCache]:
    app, cache = make_app(GATEWAY=True, **settings)

    @app.get("/free/")
    def free() -> tuple[str, dict[str, str]]:
        return "free", {"Cache-Control": "max-age=60, stale-while-revalidate=600"}

    @app.route("/decorated/", methods=["GET", "POST"])
    @cache.cached(60, 600, jitter=0)
    def decorated() -> str:
        return "decorated"

    return app, cache


def test_behind_the_gateway_each_visit_counts_once(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache = behind_gateway(make_app)
    words: dict[str, list[str | None]] = {"free": [], "decorated": []}
    for step in (0, 1, 1, 60, 1):
        clock.shift(step)
        for endpoint, seen in words.items():
            seen.append(visit(app, f"/{endpoint}/"))
        with app.app_context():
            assert cache.drain(PATIENCE)
    words["decorated"].append(visit(app, "/decorated/", method="POST"))
    with app.app_context():
        stats = cache.stats()
    assert "STALE" in words["free"]
    assert "STALE" in words["decorated"]
    for endpoint, seen in words.items():
        series = stats["endpoints"][endpoint]
        assert counted(series["requests"]) == {word: seen.count(word) for word in seen}
        assert series["refreshes"]["done"] == 1
        assert series["origin_calls"] == 2 + (endpoint == "decorated")
    assert sum(stats["requests"].values()) == 11


@pytest.mark.parametrize("fields", [["X-Cache-Status"], []])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_visit_counts_once_also_where_no_field_says_how_it_was_answered(
    make_app: MakeApp, fields: list[str], method: str
) -> None:
    app, cache = behind_gateway(make_app, STATUS_HEADERS=fields)
    for _ in range(5):
        visit(app, "/decorated/", method=method)
    with app.app_context():
        stats = cache.stats()
    assert counted(stats["requests"]) == ({"BYPASS": 5} if method == "POST" else {"MISS": 1, "HIT": 4})
    assert stats["origin_calls"] == (5 if method == "POST" else 1)


@pytest.mark.parametrize("path", ["/free/", "/decorated/"])
def test_what_only_warms_is_no_visit(make_app: MakeApp, path: str) -> None:
    app, cache = behind_gateway(make_app)
    visit(app, path, environ_overrides={REFRESHING: True})
    with app.app_context():
        stats = cache.stats()
    assert (counted(stats["requests"]), stats["origin_calls"]) == ({}, 1)
    assert visit(app, path) == "HIT"


def test_hits_on_the_short_way_count(directory: Path) -> None:
    # Without a fake clock, since the short way compares the time at each hit.
    gateway = GatewayCache(Bare(), dir=directory)
    assert [visit(gateway) for _ in range(6)] == ["MISS", *["HIT"] * 5]
    assert visit(gateway, headers={"If-None-Match": '"none"'}) == "HIT"
    stats = gateway.stats()
    assert (counted(stats["requests"]), stats["endpoints"][""]["served"]["count"]) == ({"MISS": 1, "HIT": 6}, 7)


def test_what_the_app_has_no_endpoint_for_counts(make_app: MakeApp) -> None:
    app, cache = behind_gateway(make_app)
    word = visit(app, "/missing/")
    with app.app_context():
        assert counted(cache.stats()["endpoints"][""]["requests"]) == {word: 1}


# -- stores ----------------------------------------------------------------------------------------------------------


def test_a_store_of_ones_own_in_a_directory_is_added_up_over_apps(directory: Path) -> None:
    store, apps = FileStore(directory), []
    for _ in range(2):
        app = Flask("shop")
        cache = StaleCache(app, store=store)

        @app.get("/")
        @cache.cached(60)
        def news() -> str:
            return "news"

        apps.append((app, cache))
        for _ in range(3):
            app.test_client().get("/").close()
    for app, cache in apps:
        with app.app_context():
            stats = cache.stats()
            assert (sum(stats["requests"].values()), stats["workers"], stats["entries"]) == (6, 2, 1)


def test_what_such_a_store_removes_is_counted(directory: Path) -> None:
    store, app = FileStore(directory, max_size=40_000), Flask("shop")
    cache = StaleCache(app, store=store)

    @app.get("/<name>")
    @cache.cached(60)
    def news(name: str) -> str:
        return name * 4000

    for number in range(12):
        app.test_client().get(f"/{number}").close()
    with app.app_context():
        stats = cache.stats()
    assert stats["evictions"]["size"] == store.counters["evicted_for_size"] > 0
    assert stats["max_size"] == 40_000
