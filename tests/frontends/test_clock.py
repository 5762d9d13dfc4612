"""A clock that was wrong and is put right: what was stored meanwhile is stale, however it was stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import time_machine
from flask import Flask

from flask_stalecache import GatewayCache, Policy, StaleCache
from support.client import MakeApp, settle, visit
from support.third_party import Site, ThirdParty, status
from support.wsgi_apps import ask

YEAR = 365 * 86400
WINDOWS: dict[str, Any] = {"max_age": 3600, "stale_while_revalidate": 86400, "stale_if_error": 86400, "jitter": 0}


@dataclass(eq=False)
class Counter:
    """A view whose page says how often it ran."""

    calls: int = 0

    def __call__(self) -> str:
        self.calls += 1
        return f"{self.calls}"


Install: TypeAlias = "Callable[..., tuple[Flask, StaleCache]]"


def at_view(make_app: MakeApp, view: Counter, **windows: Any) -> tuple[Flask, StaleCache]:
    app, cache = make_app()
    app.add_url_rule("/", "page", cache.cached(**windows)(view))
    return app, cache


def at_gateway_of_view(make_app: MakeApp, view: Counter, **windows: Any) -> tuple[Flask, StaleCache]:
    app, cache = make_app()
    app.add_url_rule("/", "page", cache.cached(**windows, gateway=True)(view))
    return app, cache


def in_a_rule(make_app: MakeApp, view: Counter, **windows: Any) -> tuple[Flask, StaleCache]:
    app, cache = make_app(GATEWAY=[("/*", Policy(**windows))])
    app.add_url_rule("/", "page", view)
    return app, cache


EVERYWHERE = pytest.mark.parametrize("install", [at_view, at_gateway_of_view, in_a_rule])


@pytest.mark.grid
@EVERYWHERE
@pytest.mark.parametrize("ahead", [11, 3000, 2 * 86400, YEAR])
def test_a_page_from_the_future_is_stale_and_is_renewed(
    make_app: MakeApp, clock: time_machine.Traveller, install: Install, ahead: float
) -> None:
    app, cache = install(make_app, Counter(), **WINDOWS)
    clock.shift(ahead)
    assert [visit(app, "/").page for _ in range(2)] == [("MISS", "1"), ("HIT", "1")]
    clock.shift(-ahead)
    assert visit(app, "/").page == ("STALE", "1")
    settle(app, cache)
    assert [visit(app, "/").page for _ in range(2)] == [("HIT", "2"), ("HIT", "2")]
    clock.shift(3601)
    assert visit(app, "/").page == ("STALE", "2")


@EVERYWHERE
def test_what_caches_in_front_are_told_of_a_page_from_the_future(
    make_app: MakeApp, clock: time_machine.Traveller, install: Install
) -> None:
    """They would keep it for an hour: its own fields say that, and nginx reads no Age."""
    app, _ = install(make_app, Counter(), **WINDOWS)
    app.after_request(lambda response: response.headers.__setitem__("Cache-Control", "max-age=3600") or response)
    clock.shift(YEAR)
    visit(app, "/")
    clock.shift(-YEAR)
    sent = visit(app, "/")
    assert (sent.word, sent.headers["Age"]) == ("STALE", "3600")
    if install is not at_view:
        assert sent.headers["Cache-Control"] == "max-age=0"


@EVERYWHERE
def test_without_stale_windows_a_page_from_the_future_is_built_again(
    make_app: MakeApp, clock: time_machine.Traveller, install: Install
) -> None:
    app, _ = install(make_app, Counter(), max_age=3600, stale_while_revalidate=0, stale_if_error=0, jitter=0)
    clock.shift(YEAR)
    visit(app, "/")
    clock.shift(-YEAR)
    assert [visit(app, "/").page for _ in range(2)] == [("EXPIRED", "2"), ("HIT", "2")]


@pytest.mark.grid
@EVERYWHERE
@pytest.mark.parametrize("ahead", [1, 5, 10])
def test_some_seconds_are_no_future(make_app: MakeApp, clock: time_machine.Traveller, install: Install, ahead: float) -> None:
    app, _ = install(make_app, Counter(), **WINDOWS)
    clock.shift(ahead)
    visit(app, "/")
    clock.shift(-ahead)
    sent = visit(app, "/")
    assert (sent.page, sent.headers["Age"]) == (("HIT", "1"), "0")


def test_a_failure_from_the_future_stops_no_renewal(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache = make_app()
    fails = [False]

    @app.get("/")
    @cache.cached(**{**WINDOWS, "max_age": 1})
    def page() -> str:
        if fails[0]:
            raise ConnectionError("down")
        return "up"

    visit(app, "/")
    clock.shift(YEAR)
    fails[0] = True
    assert visit(app, "/").status == 500
    clock.shift(-YEAR + 2)
    fails[0] = False
    assert visit(app, "/").word == "STALE"
    settle(app, cache)
    assert visit(app, "/").word == "HIT"


def test_a_soft_purge_from_the_future_ends_freshness(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache = at_view(make_app, Counter(), **WINDOWS)
    visit(app, "/")
    clock.shift(YEAR)
    with app.app_context():
        cache.purge("/", soft=True)
    clock.shift(-YEAR)
    assert visit(app, "/").page == ("STALE", "1")
    settle(app, cache)
    assert visit(app, "/").page == ("HIT", "2")


def test_in_front_of_any_app(directory: Path, clock: time_machine.Traveller) -> None:
    calls: list[str] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        calls.append(environ["PATH_INFO"])
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "1")])
        return [b"%d" % len(calls)]

    cache = GatewayCache(app, dir=directory, rules=[("/*", Policy(**{**WINDOWS, "stale_while_revalidate": 0}))])
    clock.shift(YEAR)
    assert [ask(cache, "/").body for _ in range(2)] == [b"1", b"1"]
    clock.shift(-YEAR)
    assert [ask(cache, "/").body for _ in range(2)] == [b"2", b"2"]


def test_the_value_of_a_fetch_function_and_the_page_made_of_it(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache = make_app()
    calls: list[int] = []

    @cache.memoize(max_age=3600, stale_while_revalidate=86400, jitter=0)
    def price() -> int:
        calls.append(1)
        return len(calls)

    @app.get("/")
    @cache.cached(**WINDOWS)
    def page() -> str:
        return f"{price()}"

    with app.app_context():
        clock.shift(YEAR)
        assert [price(), price()] == [1, 1]
        clock.shift(-YEAR)
        # Made of a stale value, so the page is as good as stale, and not fresh for an hour.
        assert visit(app, "/").page == ("MISS", "1")
        settle(app, cache)
        assert price() == 2
        assert visit(app, "/").text == "1"
        settle(app, cache)
        assert [visit(app, "/").page for _ in range(2)] == [("HIT", "2"), ("HIT", "2")]


def test_a_suspension_from_the_future_is_over(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache = make_app()
    fails = [True]

    @cache.memoize(max_age=60, suspend_after=1, suspend_for=60, fallback="none")
    def price() -> str:
        if fails[0]:
            raise ConnectionError("down")
        return "up"

    @app.get("/")
    @cache.cached(**WINDOWS)
    def page() -> str:
        return price()

    with app.app_context():
        clock.shift(YEAR)
        assert price() == "none"
        clock.shift(-YEAR)
        fails[0] = False
        assert price() == "up"


def test_what_a_session_has_stored(site: Site, party: ThirdParty, clock: time_machine.Traveller) -> None:
    """Also if the answer came with an Age of two days, so that it was made at a time that has passed."""
    session = site.cache.session(max_age=7 * 86400, stale_while_revalidate=0, stale_if_error=0)
    party.says(f"Age: {2 * 86400}")
    clock.shift(86400)
    first = [status(session.get(party.url())) for _ in range(2)]
    clock.shift(-86400)
    later = [status(session.get(party.url())) for _ in range(2)]
    assert (first, later) == (["MISS", "HIT"], ["EXPIRED", "HIT"])
