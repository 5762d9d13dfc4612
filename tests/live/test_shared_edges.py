"""On a real server: redirects of the routing, Vary, credentials, tracing fields, and the queue of refreshes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from support.servers import Server, serving, wait_for

pytestmark = pytest.mark.server

SOURCE = """
import os, threading
from flask import Flask, request
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from flask_stalecache import GatewayCache, StaleCache

released, order = threading.Event(), []


def hello():
    return "Hello " + request.cookies.get("user", "stranger")


def traced():
    return "request " + request.headers.get("X-Request-Id", "none")


def slow(number):
    # Only the refreshes wait: the first visits fill the store.
    if number in order:
        released.wait(30)
    order.append(number)
    return f"slow {number}"


def hot():
    order.append("hot")
    return "hot"


def make(kind):
    app = Flask(kind)
    app.config.update(
        STALECACHE_DIR=os.environ["FOLDER"] + kind, STALECACHE_GATEWAY=kind == "gateway", STALECACHE_REFRESH_WORKERS=1
    )
    stored = stale = lambda view: view
    if kind == "any":
        app.wsgi_app = GatewayCache(app.wsgi_app, dir=os.environ["FOLDER"] + kind)
    else:
        cache = StaleCache(app)
        if kind == "view":
            stored, stale = cache.cached(600), cache.cached(0, 600)
    app.add_url_rule("/shop/", "shop", stored(lambda: "the shop"))
    app.add_url_rule("/hello", "hello", stored(hello))
    app.add_url_rule("/traced", "traced", stored(traced))
    app.add_url_rule("/slow/<int:number>", "slow", stale(slow))
    app.add_url_rule("/hot", "hot", stale(hot))
    app.add_url_rule("/order", "order", lambda: order)
    app.add_url_rule("/counts", "counts", lambda: app.extensions["stalecache"].engine.counters.as_dict())
    app.add_url_rule("/release", "release", lambda: (released.set(), "")[1])

    @app.after_request
    def add_lifetime(response):
        if kind != "view":
            response.headers["Cache-Control"] = "max-age=600" + (", public" if "public" in request.args else "")
        return response

    return app


app = DispatcherMiddleware(make("root"), {f"/{kind}": make(kind) for kind in ("view", "gateway", "any")})
"""
KINDS = ["view", "gateway", "any"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("edges")
    with serving("gthread", SOURCE, folder, env={"FOLDER": folder / "cache-"}, workers=1) as server:
        yield server


@pytest.mark.parametrize("kind", KINDS)
def test_a_redirect_of_the_routing_repeats_no_other_visitors_parameters(server: Server, kind: str) -> None:
    for _ in range(2):
        for query in ("?utm_source=EVIL", "?utm_source=letter", ""):
            answer = server.get(f"/{kind}/shop{query}")
            assert (answer.status, answer.headers["Location"]) == (308, f"{server.url}/{kind}/shop/{query}")


@pytest.mark.parametrize("kind", ["view", "gateway"])
def test_a_member_who_comes_first_gets_an_answer_that_caches_in_front_keep_apart(server: Server, kind: str) -> None:
    ann = {"Cookie": "user=ann"}
    for headers, text in ((ann, "Hello ann"), ({}, "Hello stranger"), (ann, "Hello ann"), ({}, "Hello stranger")):
        answer = server.get(f"/{kind}/hello", headers)
        assert answer.text == text
        assert "cookie" in (answer.headers["Vary"] or "").lower()
    assert answer.cache == "HIT"


def test_an_unobserved_app_shares_no_answer_to_a_cookie_that_is_not_public(server: Server) -> None:
    ann, bob = {"Cookie": "user=ann"}, {"Cookie": "user=bob"}
    texts = [server.get("/any/hello", headers).text for headers in (ann, bob, ann, {})]
    assert texts == ["Hello ann", "Hello bob", "Hello ann", "Hello stranger"]
    shared = [server.get("/any/hello?public", headers).text for headers in (ann, {})]
    assert shared == ["Hello ann", "Hello ann"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_id_that_a_page_shows_is_its_visitors(server: Server, kind: str) -> None:
    sent = ["<script>alert(1)</script>", "8f2c6a1e-77aa-4d10", "<script>alert(2)</script>", None]
    # An app that isn't observed and sends no Vary declares the stranger's page to be for all, so there is no second pass.
    for value in sent if kind == "any" else [*sent, *sent]:
        answer = server.get(f"/{kind}/traced", {} if value is None else {"X-Request-Id": value})
        assert answer.text == f"request {value or 'none'}"


def test_a_hot_page_does_not_wait_for_the_refreshes_of_slow_ones(server: Server) -> None:
    slow = [f"/view/slow/{number}" for number in range(20)]
    assert [server.get(path).cache for path in [*slow, "/view/hot"]] == ["MISS"] * 21
    assert {server.get(path).cache for path in [*slow, "/view/hot"]} == {"STALE"}
    # A refresh is queued after its visitor has the page.
    wait_for(lambda: json.loads(server.get("/view/counts").text)["refreshes_queued"] == 21, what="the refreshes wait")
    server.get("/view/release")

    def refreshed() -> list[object]:
        return json.loads(server.get("/view/order").text)[21:]  # type: ignore[no-any-return]

    done = wait_for(lambda: "hot" in (order := refreshed()) and order, what="the refresh of the hot page")
    assert isinstance(done, list)
    # It came after the refresh that was running, and after at most one more of the other endpoint.
    assert done.index("hot") <= 2
