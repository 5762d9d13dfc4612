"""The log says once why a page is not stored, who read what, and the line to write: at each front end another one.

Covers ``frontends.pages.advice`` and ``frontends.gateway.judging.visitor_judge``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, Response, request
from flask.views import MethodView, View

from flask_stalecache import GatewayCache, Policy
from flask_stalecache.stats import tally
from support.client import MakeApp, visit
from support.wsgi_apps import PLAIN


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO, "flask_stalecache")
    return lambda: [record.getMessage() for record in caplog.records]


def greeting() -> str:
    return f"hello {request.cookies.get('name', 'nobody')}"


def beta() -> str:
    return request.headers.get("X-Beta", "no")


NOTHING = "nothing says how long /x is fresh"


@pytest.mark.parametrize(
    ("gateway", "level"),
    [(True, logging.WARNING), ({"/*": Policy()}, logging.WARNING), ({"/news/*": Policy(max_age=60)}, logging.INFO)],
    ids=["no-rules", "rule-without-lifetime", "rules-for-others"],
)
def test_a_page_without_a_lifetime_is_named_once(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, gateway: Any, level: int
) -> None:
    caplog.set_level(logging.INFO, "flask_stalecache")
    app, _ = make_app(GATEWAY=gateway)
    app.add_url_rule("/x", "page", lambda: "page")
    app.add_url_rule("/gone", "gone", lambda: ("gone", 404))
    app.add_url_rule("/away", "away", lambda: Response(status=302, headers={"Location": "/x"}))
    for path in ("/x", "/x", "/x?y=1", "/gone", "/away"):
        visit(app, path)
    advice = f"{NOTHING}: give it a rule in STALECACHE_GATEWAY, or @cache.cached(max_age=…)"
    assert [(record.getMessage(), record.levelno) for record in caplog.records] == [
        (f"the endpoint page is not stored by the gateway: {advice}", level)
    ]


def test_a_gateway_before_another_app_names_its_own_rules(told: Callable[[], list[str]]) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [PLAIN])
        return [b"page"]

    cache = GatewayCache(app, store="memory")
    for _ in range(2):
        list(cache({"REQUEST_METHOD": "GET", "PATH_INFO": "/x", "wsgi.url_scheme": "http", "HTTP_HOST": "a"}, lambda *head: None))
    advice = "give it a rule in GatewayCache(rules=…), or let it say Cache-Control: max-age=…"
    assert told() == [f"a response is not stored by the gateway: {NOTHING}: {advice}"]


def test_a_view_of_no_gateway_is_not_nagged(make_app: MakeApp, told: Callable[[], list[str]]) -> None:
    app, cache = make_app()
    app.add_url_rule("/x", "page", lambda: "page")
    app.add_url_rule("/y", "coded", cache.cached(60, gateway=True)(lambda: "page"))
    for path in ("/x", "/y"):
        visit(app, path)
    assert told() == []


@pytest.mark.parametrize(
    ("gateway", "view", "headers", "line"),
    [
        (
            True, greeting, {"Cookie": "name=ann"},
            "the endpoint page bypasses the gateway for requests with the cookie name, which was read by {}: do not read it if the "
            "page does not depend on it, or write cookies=['name'] in its rule in STALECACHE_GATEWAY if it has few values",
        ),
        (
            True, beta, {"X-Beta": "yes"},
            "the endpoint page is not stored by the gateway: the request field x-beta was read by {} and is not in Vary; name it "
            "in Vary, write vary=['x-beta'] in its rule in STALECACHE_GATEWAY, or name it in STALECACHE_IGNORED_HEADERS if the "
            "page does not depend on it",
        ),
    ],
    ids=["cookie", "field"],
)  # fmt: skip
def test_the_gateway_says_who_read_what(
    make_app: MakeApp, told: Callable[[], list[str]], gateway: bool, view: Any, headers: dict[str, str], line: str
) -> None:
    app, _ = make_app(GATEWAY=gateway)
    app.add_url_rule("/x", "page", view)
    for _ in range(2):
        visit(app, "/x", headers)
    assert told() == [line.replace("{}", __name__)]


@pytest.mark.parametrize(("view", "headers", "detail"), [
    (greeting, {"Cookie": "name=ann"}, "the cookie name was read by {}"),
    (beta, {"X-Beta": "yes"}, "the field x-beta was read by {}"),
    (lambda: "page", {}, f"not stored: {NOTHING}: give it a rule"),
])  # fmt: skip
def test_with_debug_the_response_says_so_too(make_app: MakeApp, view: Any, headers: dict[str, str], detail: str) -> None:
    app, _ = make_app(GATEWAY=True)
    app.debug = True
    app.add_url_rule("/x", "page", view)
    assert detail.replace("{}", __name__) in visit(app, "/x", headers).headers["Cache-Status"]


@pytest.mark.parametrize("gateway", [False, {"/*": Policy(max_age=60)}, True])
def test_what_is_usual_for_members_is_a_warning_if_nobody_gets_a_hit(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, gateway: Any
) -> None:
    monkeypatch.setattr(tally, "_MANY", 3)
    app, cache = make_app(GATEWAY=gateway)
    app.add_url_rule("/x", "page", greeting if gateway else cache.cached(60)(greeting))
    app.add_url_rule("/y", "mixed", greeting if gateway else cache.cached(60)(greeting))
    for path, cookie in (("/y", ""), ("/y", ""), *[(path, "name=ann") for path in ("/x", "/y") for _ in range(6)]):
        visit(app, path, {"Cookie": cookie} if cookie else {})
    said = [
        record.getMessage() for record in caplog.records if record.levelno == logging.WARNING and "cookie" in record.getMessage()
    ]
    assert len(said) == (gateway is not True)
    assert all(f"requests with the cookie name, which was read by {__name__}" in line for line in said)


def of_class(app: Flask, cached: Any) -> None:
    class Page(View):
        decorators = (cached,)

        def dispatch_request(self) -> str:
            return beta()

    app.add_url_rule("/a", view_func=Page.as_view("first"))
    app.add_url_rule("/b", view_func=Page.as_view("second"))


def of_wrapped_class(app: Flask, cached: Any) -> None:
    class Page(MethodView):
        def get(self) -> str:
            return beta()

    app.add_url_rule("/a", view_func=cached(Page.as_view("first")))
    app.add_url_rule("/b", view_func=cached(Page.as_view("second")))


@pytest.mark.parametrize("add", [of_class, of_wrapped_class])
def test_class_based_views_are_named_by_endpoint(
    make_app: MakeApp, told: Callable[[], list[str]], add: Callable[[Flask, Any], None]
) -> None:
    app, cache = make_app()
    add(app, cache.cached(60))
    for path in ("/a", "/b", "/a"):
        visit(app, path, {"X-Beta": "1"})
    assert [line.partition(":")[0] for line in told()] == ["the endpoint first is not stored", "the endpoint second is not stored"]
