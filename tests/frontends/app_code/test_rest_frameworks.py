"""Cached methods of flask-restful's and flask-restx's resources answer as they do without the cache."""

from __future__ import annotations

import gc
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import flask_restful
import flask_restx
import pytest
import time_machine
from flask import Flask, Response, request

from flask_stalecache import StaleCache
from flask_stalecache.frontends.pages.bound_view import CachedView

VALUES: dict[str, Any] = {
    "dict": {"a": 1},
    "list": [1, 2],
    "string": "text",
    "number": 7,
    "none": None,
    "status": ({"a": 1}, 200),
    "fields": ({"a": 1}, 200, {"X-Page": "7"}),
    "nothing left": (None, 204),
    "not found": ({"message": "none"}, 404),
    "redirect": ("", 301, {"Location": "/elsewhere"}),
    "response": lambda: Response("plain", mimetype="text/plain"),
    "pair of data": ([1, 2], 200, {}),
}
FRAMEWORKS = {"flask-restful": flask_restful, "flask-restx": flask_restx}
Decorate = Callable[[StaleCache], Any]


def on_the_method(cache: StaleCache) -> dict[str, Any]:
    return {"method": cache.cached(60)}


def on_all_methods(cache: StaleCache) -> dict[str, Any]:
    return {"methods": [cache.cached(60)]}


def on_the_api(cache: StaleCache) -> dict[str, Any]:
    return {"api": [cache.cached(60)]}


def at_the_gateway(cache: StaleCache) -> dict[str, Any]:
    return {"method": cache.cached(60, gateway=True)}


def uncached(cache: StaleCache) -> dict[str, Any]:
    return {}


def add_pages(framework: Any, app: Flask, value: Any, *, method: Any = None, methods: Any = (), api: Any = ()) -> None:
    """Add a resource at ``/page/<number>``, decorated or not."""

    class Page(framework.Resource):  # type: ignore[misc, name-defined]
        method_decorators = tuple(methods)

        def get(self, number: str) -> Any:
            app.config["CALLS"] += 1
            return value() if callable(value) else value

        if method is not None:
            get = method(get)

    framework.Api(app, decorators=list(api)).add_resource(Page, "/page/<number>")


def visit(app: Flask, number: int = 1, **fields: str) -> tuple[Any, ...]:
    with app.test_client().get(f"/page/{number}", headers=fields) as response:
        shown = {
            name: value
            for name, value in response.headers
            if name not in ("Cache-Status", "X-Cache-Status", "Age", "ETag", "Vary", "Accept-Ranges")
        }
        return response.status_code, response.data, shown, response.headers.get("X-Cache-Status", "")


@pytest.mark.grid
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("decorate", [on_the_method, on_all_methods, on_the_api, at_the_gateway])
def test_answers_are_those_without_the_cache(
    make_app: Callable[..., tuple[Flask, StaleCache]], framework: str, decorate: Decorate
) -> None:
    for number, (name, value) in enumerate(VALUES.items()):
        answers = []
        for how in (uncached, decorate):
            app, cache = make_app()
            app.config["CALLS"] = 0
            add_pages(FRAMEWORKS[framework], app, value, **how(cache))
            answers.append([visit(app, number)[:3], visit(app, number)[:3], visit(app, number, Accept="application/json")[:3]])
        assert answers[1] == answers[0], name
        if name not in ("nothing left", "not found"):
            assert visit(app, number)[3] == "HIT", name


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("decorate", [on_the_method, on_all_methods, on_the_api])
def test_a_stale_answer_is_refreshed(make_app: Callable[..., tuple[Flask, StaleCache]], framework: str, decorate: Decorate) -> None:
    app, cache = make_app(REFRESH_WORKERS=0)
    app.config["CALLS"] = 0
    add_pages(FRAMEWORKS[framework], app, "text", **decorate(cache))
    with time_machine.travel(1_700_000_000, tick=False) as clock:
        assert visit(app)[3] == "MISS"
        clock.shift(100)
        assert visit(app)[3] == "STALE"
        assert visit(app)[3] == "HIT"
    assert app.config["CALLS"] == 2


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_media_types_of_a_resource_are_variants(make_app: Callable[..., tuple[Flask, StaleCache]], framework: str) -> None:
    app, cache = make_app()

    def as_text(data: Any, status: int, headers: Any = None) -> Response:
        return Response(f"text of {data}", status, headers)

    def as_json(data: Any, status: int, headers: Any = None) -> Response:
        return Response(f"json of {data}", status, headers)

    class Page(FRAMEWORKS[framework].Resource):  # type: ignore[misc, name-defined]
        representations = MappingProxyType({"text/plain": as_text, "application/json": as_json})

        @cache.cached(60)
        def get(self, number: str) -> Any:
            return number

    FRAMEWORKS[framework].Api(app).add_resource(Page, "/page/<number>")
    for _ in range(2):
        for media_type, text in (("text/plain", b"text of 1"), ("application/json", b"json of 1")):
            assert visit(app, Accept=media_type)[1:3] == (text, {**visit(app, Accept=media_type)[2], "Content-Type": media_type})


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_error_of_a_resource_stays_its_own(make_app: Callable[..., tuple[Flask, StaleCache]], framework: str) -> None:
    package = FRAMEWORKS[framework]
    answers = []
    for how in (uncached, on_the_method):
        app, cache = make_app()
        decorate = how(cache).get("method", lambda view: view)

        class Page(package.Resource):  # type: ignore[misc, name-defined]
            @decorate
            def get(self, number: str) -> Any:
                package.abort(404, message=f"no {request.path}")

        package.Api(app).add_resource(Page, "/page/<number>")
        answers.append(visit(app)[:3])
    assert answers[0] == answers[1]


def test_a_method_is_decorated_once(make_app: Callable[..., tuple[Flask, StaleCache]]) -> None:
    """flask-restful applies ``method_decorators`` at each request. This must make one cached view, not one for each request."""
    app, cache = make_app()
    app.config["CALLS"] = 0
    add_pages(flask_restful, app, "text", **on_all_methods(cache))
    visit(app)
    before = sum(isinstance(each, CachedView) for each in gc.get_objects())
    for _ in range(20):
        visit(app)
    assert sum(isinstance(each, CachedView) for each in gc.get_objects()) == before
