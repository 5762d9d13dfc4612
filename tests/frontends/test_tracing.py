"""Tracing fields: ignored where hooks and libraries read them, counted where a view does or the answer shows the value."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, g, render_template_string, request

from flask_stalecache import GatewayCache, StaleCache
from support.client import MakeApp, visit
from support.privacy import lines

ONE = {
    "X-Request-Id": "8f2c6a1e-77aa-4d10-9c55-1c2b3a4d5e6f",
    "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}
OTHER = {"X-Request-Id": "<script>alert(1)</script>", "Traceparent": "00-11111111111111111111111111111111-2222222222222222-01"}

Build = Callable[[Flask, StaleCache, Callable[[], Any]], None]


def at_view(app: Flask, cache: StaleCache, show: Callable[[], Any]) -> None:
    app.add_url_rule("/", "page", cache.cached(60)(show))


def at_coded(app: Flask, cache: StaleCache, show: Callable[[], Any]) -> None:
    app.add_url_rule("/", "page", cache.cached(60, gateway=True)(show))


def at_gateway(app: Flask, cache: StaleCache, show: Callable[[], Any]) -> None:
    def view() -> Response:
        response = app.make_response(show())
        response.headers["Cache-Control"] = "max-age=60"
        return response

    app.add_url_rule("/", "page", view)


FRONTS = pytest.mark.parametrize(
    ("front", "config"), [(at_view, {}), (at_coded, {}), (at_gateway, {"GATEWAY": True})], ids=["view", "coded", "gateway"]
)


def library() -> types.ModuleType:
    """Return a library that reads a field for its log."""
    module = types.ModuleType("tracer.inside")
    exec("from flask import request\ndef read(name): return request.headers.get(name)", module.__dict__)
    return module


@FRONTS
@pytest.mark.parametrize("name", ["X-Request-Id", "Traceparent", "Tracestate"])
def test_hooks_and_libraries_read_them_without_a_page_depending_on_it(
    make_app: MakeApp, front: Build, config: Any, name: str
) -> None:
    app, cache = make_app(**config)
    app.before_request(lambda: setattr(g, "trace", request.headers.get(name)))
    app.before_request(lambda: setattr(g, "again", request.environ.get("HTTP_X_REQUEST_ID")))

    def show() -> str:
        library().read(name)
        return "page"

    front(app, cache, show)
    assert [visit(app, "/", {name: value}).word for value in ("one", "two")] == ["MISS", "HIT"]
    assert visit(app).word == "HIT"


@pytest.mark.grid
@FRONTS
@pytest.mark.parametrize(
    "read",
    [
        lambda: request.headers.get("X-Request-Id"),
        lambda: request.environ.get("HTTP_X_REQUEST_ID"),
        lambda: request.headers.get("Traceparent"),
        lambda: render_template_string("{% if request.headers['X-Request-Id'] %}{% endif %}"),
    ],
    ids=["field", "environ", "traceparent", "template"],
)
def test_a_view_that_reads_them_depends_on_them(make_app: MakeApp, front: Build, config: Any, read: Callable[[], object]) -> None:
    """Also where a hook has read the same before, and where the page shows nothing of the value."""
    app, cache = make_app(**config)
    app.before_request(lambda: setattr(g, "trace", (request.headers.get("X-Request-Id"), request.headers.get("Traceparent"))))

    def show() -> str:
        value = read()
        return "with" if value else "without"

    front(app, cache, show)
    assert [visit(app, "/", fields).word for fields in (ONE, OTHER, {}, ONE, {})] == ["MISS", "MISS", "MISS", "BYPASS", "HIT"]


SHOWN: dict[str, Callable[[], Any]] = {
    "body": lambda: f"<p>{g.trace}</p>",
    "escaped": lambda: render_template_string("<p>{{ g.trace }}</p>"),
    "json": lambda: {"id": g.trace},
    "header": lambda: Response("page", headers={"X-Trace": g.trace}),
}


@pytest.mark.grid
@FRONTS
@pytest.mark.parametrize("name", SHOWN)
def test_a_value_that_the_answer_shows_is_its_visitors(
    make_app: MakeApp, front: Build, config: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    app, cache = make_app(**config)
    app.before_request(lambda: setattr(g, "trace", request.headers.get("X-Request-Id") or "none"))
    front(app, cache, SHOWN[name])
    said = [visit(app, "/", fields).word for fields in (OTHER, ONE, {}, {})]
    assert said == ["MISS", "MISS", "MISS", "HIT"]
    assert any("x-request-id" in line and "hooks and libraries" in line for line in lines(caplog))


@pytest.mark.parametrize("config", [{"GATEWAY": True}])
def test_a_hook_after_the_view_that_sends_the_value_is_seen_at_the_gateway(make_app: MakeApp, config: Any) -> None:
    app, cache = make_app(**config)

    @app.after_request
    def send(response: Response) -> Response:
        response.headers["X-Request-Id"] = request.headers.get("X-Request-Id", "none")
        return response

    at_gateway(app, cache, lambda: "page")
    assert [visit(app, "/", fields).headers["X-Request-Id"] for fields in (OTHER, ONE, {}, {})] == [
        OTHER["X-Request-Id"], ONE["X-Request-Id"], "none", "none",
    ]  # fmt: skip


def test_a_value_that_any_app_shows_is_its_clients(directory: Path) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [("Cache-Control", "public, max-age=60")])
        return [environ.get("HTTP_X_REQUEST_ID", "none").encode()]

    client = Flask("client")
    client.wsgi_app = GatewayCache(app, dir=directory)  # type: ignore[method-assign,assignment]
    said = [visit(client, "/", fields).page for fields in (OTHER, ONE, {}, {})]
    assert said == [("MISS", OTHER["X-Request-Id"]), ("MISS", ONE["X-Request-Id"]), ("MISS", "none"), ("HIT", "none")]
