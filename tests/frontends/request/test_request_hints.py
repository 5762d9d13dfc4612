"""Hints given before a view runs, by hooks and the like, hold for its page (frontends/request_hints)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import time_machine
from flask import Flask
from werkzeug.routing import BaseConverter

from flask_stalecache import StaleCache
from flask_stalecache.core.rules.cacheability import Cacheability
from support.cacheability import WINDOWS
from support.client import visit
from support.third_party import Site, ThirdParty

MakeApp = Callable[..., tuple[Flask, StaleCache]]
Hint = Callable[[StaleCache], Any]


def before_request(app: Flask, hint: Callable[[], Any]) -> None:
    @app.before_request
    def hook() -> None:
        hint()


def url_value_preprocessor(app: Flask, hint: Callable[[], Any]) -> None:
    @app.url_value_preprocessor
    def hook(endpoint: str | None, values: dict[str, Any] | None) -> None:
        hint()


def url_converter(app: Flask, hint: Callable[[], Any]) -> None:
    class Hinting(BaseConverter):
        def to_python(self, value: str) -> str:
            hint()
            return value

    app.url_map.converters["default"] = Hinting


hooks = pytest.mark.parametrize("hook", [before_request, url_value_preprocessor, url_converter])


@pytest.fixture(params=["view", "view in a gateway", "gateway", "rule"])
def add(request: pytest.FixtureRequest) -> Callable[..., Callable[[], Any]]:
    """``add(app, cache, hook, hint)`` adds a page and a hook that gives the hint, and returns a function that visits the page."""
    kind = request.param

    def add(app: Flask, cache: StaleCache, hook: Any, hint: Callable[[], Any]) -> Callable[[], Any]:
        runs: list[int] = []

        def view(name: str) -> str:
            runs.append(1)
            return f"page {len(runs)}"

        hook(app, hint)
        app.add_url_rule("/<name>", "page", view if kind == "rule" else cache.cached(gateway=kind == "gateway", **WINDOWS)(view))
        if kind == "rule":

            @app.after_request
            def cacheable(response: Any) -> Any:
                response.headers["Cache-Control"] = "max-age=60, stale-while-revalidate=600, stale-if-error=6000"
                return response

        def visited() -> Any:
            answer = visit(app, "/tea")
            assert cache.drain(30)
            return answer

        return visited

    add.config = {"GATEWAY": True} if kind in ("rule", "view in a gateway") else {}  # type: ignore[attr-defined]
    return add


@pytest.mark.grid
@hooks
def test_a_tag_of_a_hook_is_one_of_the_page(make_app: MakeApp, add: Any, hook: Any) -> None:
    app, cache = make_app(**add.config)
    visited = add(app, cache, hook, lambda: cache.tag("settings"))
    assert [visited().word, visited().word] == ["MISS", "HIT"]
    with app.app_context():
        cache.purge(tag="settings")
    assert [visited().word, visited().word] == ["MISS", "HIT"]


@pytest.mark.grid
@hooks
def test_a_value_that_a_hook_has_read_is_purged_with_the_page(make_app: MakeApp, add: Any, hook: Any) -> None:
    app, cache = make_app(**add.config)

    @cache.memoize(3600, tags=["settings"])
    def settings() -> str:
        return "settings"

    visited = add(app, cache, hook, settings)
    assert [visited().word, visited().word] == ["MISS", "HIT"]
    with app.app_context():
        cache.purge(tag="settings")
    assert [visited().word, visited().word] == ["MISS", "HIT"]


@pytest.mark.grid
@hooks
def test_a_page_is_no_fresher_than_a_value_that_a_hook_has_read(
    make_app: MakeApp, add: Any, hook: Any, clock: time_machine.Traveller
) -> None:
    app, cache = make_app(**add.config)

    @cache.memoize(60, 600, 6000, jitter=0)
    def settings() -> str:
        return "settings"

    with app.app_context():
        settings()
    clock.shift(50)
    visited = add(app, cache, hook, settings)
    assert [visited().word, visited().word] == ["MISS", "HIT"]
    clock.shift(11)
    assert visited().word == "STALE"
    assert visited().word == "HIT", "its refresh has refreshed the value first"


@pytest.mark.grid
@hooks
def test_a_page_with_the_fallback_of_a_hook_is_stale_at_once(
    make_app: MakeApp, add: Any, hook: Any, clock: time_machine.Traveller
) -> None:
    app, cache = make_app(**add.config)
    is_down = [True]

    @cache.memoize(60, 600, 6000, fallback="fallback")
    def settings() -> str:
        if is_down[0]:
            raise ConnectionError("down")
        return "settings"

    visited = add(app, cache, hook, settings)
    assert visited().word == "MISS"
    is_down[0] = False
    clock.shift(4)
    assert visited().word == "STALE"
    assert visited().word == "HIT"


@pytest.mark.grid
@hooks
@pytest.mark.parametrize("hint", [lambda cache: cache.no_store(), lambda cache: cache.max_age(5)])
def test_a_hook_may_forbid_storing_and_shorten_freshness(
    make_app: MakeApp, add: Any, hook: Any, hint: Hint, clock: time_machine.Traveller
) -> None:
    app, cache = make_app(**add.config)
    visited = add(app, cache, hook, lambda: hint(cache))
    assert visited().word == "MISS"
    clock.shift(6)
    assert visited().word in ("MISS", "STALE")


def test_a_third_party_that_a_hook_has_asked_by_a_session_counts_too(
    make_site: Callable[..., Site], party: ThirdParty, clock: time_machine.Traveller
) -> None:
    party.says("Cache-Control: max-age=60")
    site = make_site()
    session = site.session()
    before_request(site.app, lambda: session.get(party.url()).close())
    site.app.add_url_rule("/", view_func=site.cache.cached(3600, 600)(lambda: "page"))
    assert [visit(site.app).word, visit(site.app).word] == ["MISS", "HIT"]
    clock.shift(61)
    assert visit(site.app).word == "STALE"


def test_hints_are_of_one_request(make_app: MakeApp) -> None:
    app, cache = make_app()
    names = iter(["first", "second"])
    before_request(app, lambda: cache.tag(next(names)) if app.extensions.get("hinting") else None)

    @app.get("/<name>")
    @cache.cached(60)
    def page(name: str) -> str:
        return name

    app.extensions["hinting"] = True
    assert [visit(app, f"/{name}").word for name in ("first", "second")] == ["MISS", "MISS"]
    app.extensions["hinting"] = False
    with app.app_context():
        cache.purge(tag="first")
    assert [visit(app, f"/{name}").word for name in ("first", "second")] == ["MISS", "HIT"]


def test_outside_of_a_request_a_hint_has_no_effect(make_app: MakeApp) -> None:
    app, cache = make_app()
    cache.tag("news")
    with app.app_context():
        cache.no_store()
        cache.max_age(5)


def test_all_hints_are_absorbed() -> None:
    given, word = Cacheability(None), Cacheability(None)
    word.absorb(given)
    assert (word.limit(0.0), word.forbidden, list(word.tags), list(word.calls)) == (None, False, [], [])
    given.tag(["news"])
    given.made_from("rates")
    given.expire(50.0)
    given.shorten(40.0)
    word.absorb(given)
    assert (word.limit(20.0), list(word.tags), list(word.calls), word.stood_in) == (30.0, ["news"], ["rates"], False)
    given.stand_in(70.0)
    given.forbid()
    word.absorb(given)
    assert (word.limit(20.0), word.retry_at, word.forbidden) == (0.0, 70.0, True)
