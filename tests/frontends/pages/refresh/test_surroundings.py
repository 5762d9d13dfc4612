"""The refresh of a page: behind proxies, dispatchers and other middleware, and of views of several kinds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import time_machine
from flask import (
    Flask,
    Response,
    make_response,
    url_for,
)
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_stalecache import StaleCache
from support.client import MakeApp, settle, visit

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
from support.page_refreshes import MINUTE, Origin, cached, stale


def outside(app: Flask) -> None:
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1, x_port=1, x_prefix=1)  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "fields",
    [
        {"X-Forwarded-For": "198.51.100.1", "X-Forwarded-Proto": "https"},
        {"X-Forwarded-Host": "shop.test", "X-Forwarded-Proto": "https"},
        {"X-Forwarded-Host": "shop.test", "X-Forwarded-Port": "8443", "X-Forwarded-Proto": "https"},
        {"X-Forwarded-Host": "shop.test", "X-Forwarded-Prefix": "/shop"},
        {"X-Forwarded-Host": "evil.test, shop.test", "X-Forwarded-Proto": "http, https"},
    ],
)
def test_behind_proxy_fix(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin, fields: dict[str, str]) -> None:
    app, cache = make_app()
    outside(app)
    origin.answer = lambda: f"run {origin.runs} {url_for('page', _external=True)}"
    cached(app, cache, origin.view)
    visit(app, "/", fields)
    link = visit(app, "/", fields).text.partition(" 1 ")[2]
    clock.shift(MINUTE)
    assert visit(app, "/", fields).word == "STALE"
    settle(app, cache)
    assert visit(app, "/", fields).page == ("HIT", f"run 2 {link}")


@pytest.mark.parametrize("root", ["/shop", "/a/b"])
def test_mounted_by_a_dispatcher_around_the_app(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin, root: str
) -> None:
    app, cache = make_app()
    origin.answer = lambda: f"run {origin.runs} {url_for('page', _external=True)}"
    cached(app, cache, origin.view, "/x")
    site = Flask("site")
    site.wsgi_app = DispatcherMiddleware(site.wsgi_app, {root: app})  # type: ignore[method-assign]
    path = f"{root}/x"
    assert visit(site, path).page == ("MISS", f"run 1 http://localhost{path}")
    clock.shift(MINUTE)
    assert visit(site, path).word == "STALE"
    settle(app, cache)
    assert visit(site, path).page == ("HIT", f"run 2 http://localhost{path}")


def not_yet(make_app: MakeApp) -> tuple[Flask, StaleCache]:
    """An app whose cache is not set up yet."""
    app = Flask("shop")
    app.config["STALECACHE_DIR"] = make_app()[0].config["STALECACHE_DIR"]
    return app, StaleCache()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["dispatcher", "proxy"])
def test_mounted_by_the_apps_own_wsgi_app(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin, when: str, kind: str
) -> None:
    """The well-known ``app.wsgi_app = DispatcherMiddleware(...)``, before ``init_app`` or after: a refresh comes in through it."""
    app, cache = not_yet(make_app)
    if when == "after":
        cache.init_app(app)
    if kind == "proxy":
        outside(app)
    else:
        app.wsgi_app = DispatcherMiddleware(Response("nothing here", 404), {"/shop": app.wsgi_app})  # type: ignore[method-assign]
    if when == "before":
        cache.init_app(app)
    origin.answer = lambda: f"run {origin.runs} {url_for('page', _external=True)}"
    cached(app, cache, origin.view, "/x")
    path, fields = ("/shop/x", {}) if kind == "dispatcher" else ("/x", {"X-Forwarded-Prefix": "/shop"})
    assert visit(app, path, fields).page == ("MISS", "run 1 http://localhost/shop/x")
    clock.shift(MINUTE)
    assert visit(app, path, fields).word == "STALE"
    settle(app, cache)
    assert visit(app, path, fields).page == ("HIT", "run 2 http://localhost/shop/x")


def test_mounted_twice(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    """One app under two roots, through its own ``wsgi_app``."""
    app, cache = make_app()
    origin.answer = lambda: f"run {origin.runs} {url_for('page', _external=True)}"
    cached(app, cache, origin.view, "/x")
    inner = app.wsgi_app
    app.wsgi_app = DispatcherMiddleware(inner, {"/a": inner, "/b": inner})  # type: ignore[method-assign]
    paths = ("/a/x", "/b/x", "/x")
    for path in paths:
        assert visit(app, path).text.endswith(f" http://localhost{path}")
    clock.shift(MINUTE)
    assert [visit(app, path).word for path in paths] == ["STALE"] * 3
    settle(app, cache)
    for path in paths:
        seen = visit(app, path)
        assert (seen.word, seen.text.split()[2]) == ("HIT", f"http://localhost{path}")
    assert origin.runs == 6


def test_a_script_name_from_the_server(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    app, cache = make_app()
    origin.answer = lambda: f"run {origin.runs} {url_for('page')}"
    cached(app, cache, origin.view, "/x")
    app.config["APPLICATION_ROOT"] = "/shop"
    stale(app, cache, clock, "/x", base_url="http://localhost/shop")
    assert visit(app, "/x", base_url="http://localhost/shop").page == ("HIT", "run 2 /shop/x")


def generating(inner: WSGIApplication) -> WSGIApplication:
    """A middleware that is a generator: nothing of it runs before the first chunk is asked for."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        iterable = inner(environ, start_response)
        try:
            yield from iterable
        finally:
            if hasattr(iterable, "close"):
                iterable.close()

    return app


def listing(inner: WSGIApplication) -> WSGIApplication:
    """A middleware that swallows the body and answers with a list."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        iterable = inner(environ, start_response)
        try:
            return [b"".join(iterable)]
        finally:
            if hasattr(iterable, "close"):
                iterable.close()

    return app


@pytest.mark.parametrize("middleware", [generating, listing])
@pytest.mark.parametrize("when", ["before", "after"])
def test_middleware_around_the_app(
    clock: time_machine.Traveller,
    origin: Origin,
    middleware: Callable[[WSGIApplication], WSGIApplication],
    when: str,
    make_app: MakeApp,
) -> None:
    """Added before or after ``init_app``."""
    directory = make_app()[0].config["STALECACHE_DIR"]
    app = Flask("shop")
    app.config["STALECACHE_DIR"] = directory
    cache = StaleCache()
    if when == "before":
        app.wsgi_app = middleware(app.wsgi_app)  # type: ignore[method-assign, assignment]
    cache.init_app(app)
    if when == "after":
        app.wsgi_app = middleware(app.wsgi_app)  # type: ignore[method-assign, assignment]
    cached(app, cache, origin.view)
    stale(app, cache, clock)
    assert visit(app).page == ("HIT", "run 2")


@pytest.mark.parametrize("moment", ["before", "after", "close"])
def test_middleware_that_raises(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The error stays within the refresh. If the view has answered, its page is stored; otherwise the copy stays."""
    caplog.set_level(logging.CRITICAL, "flask_stalecache.none")
    app, cache = make_app(REFRESH_BACKOFF=(10, 100))
    inner = app.wsgi_app

    class Closing:
        def __init__(self, iterable: Iterable[bytes]) -> None:
            self.iterable = iterable

        def __iter__(self) -> Iterator[bytes]:
            return iter(self.iterable)

        def close(self) -> None:
            raise LookupError("the middleware is broken")

    def broken(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        refreshing = "flask_stalecache.replay" in environ
        if refreshing and moment == "before":
            raise LookupError("the middleware is broken")
        iterable = inner(environ, start_response)
        if refreshing and moment == "after":
            raise LookupError("the middleware is broken")
        return Closing(iterable) if refreshing and moment == "close" else iterable

    app.wsgi_app = broken  # type: ignore[method-assign]
    cached(app, cache, origin.view)
    stale(app, cache, clock)
    expected = ("UPDATING", "run 1") if moment == "before" else ("HIT", "run 2")
    assert visit(app).page == expected


def test_middleware_that_answers_itself_stores_nothing(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    app, cache = make_app(REFRESH_BACKOFF=(10, 100))
    inner = app.wsgi_app
    maintenance = Response("maintenance")

    def closed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return (maintenance if "flask_stalecache.replay" in environ else inner)(environ, start_response)

    app.wsgi_app = closed  # type: ignore[method-assign]
    cached(app, cache, origin.view)
    stale(app, cache, clock)
    assert visit(app).page == ("UPDATING", "run 1")


def test_the_response_of_a_refresh_is_closed(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    app, cache = make_app()
    closed: list[int] = []

    def answer() -> Response:
        response = Response(f"run {origin.runs}")
        response.call_on_close(lambda run=origin.runs: closed.append(run))
        return response

    origin.answer = answer
    cached(app, cache, origin.view)
    stale(app, cache, clock)
    assert closed == [1, 2]


def test_a_cached_view_called_by_the_refreshed_one(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    """The inner view is not mistaken for the page that is being refreshed: its own copy is fresh, and is served."""
    app, cache = make_app()
    inner = cache.cached(600, jitter=0)(origin.view)
    runs: list[int] = []

    def outer() -> str:
        runs.append(1)
        return f"{len(runs)}: {make_response(inner()).get_data(as_text=True)}"

    cached(app, cache, outer)
    stale(app, cache, clock)
    assert visit(app).page == ("HIT", "2: run 1")
    assert (len(runs), origin.runs) == (2, 1)


def test_async_views_are_refreshed(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    async def view() -> Any:
        return origin.view()

    app, cache = make_app()
    cached(app, cache, view)
    stale(app, cache, clock)
    assert visit(app).page == ("HIT", "run 2")
