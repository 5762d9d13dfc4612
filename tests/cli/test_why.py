"""``flask stalecache why``: what it prints, and that it only reads the live store."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result
from flask import Flask, request

from flask_stalecache import Policy, StaleCache
from flask_stalecache.core.addressing.keys import digest
from support.client import MakeApp, visit

BASE = "http://shop.example"


@pytest.fixture
def run(make_app: MakeApp) -> Callable[..., Result]:
    app, cache = make_app(BASE_URL=BASE)
    site(app, cache)
    return lambda *args: app.test_cli_runner().invoke(args=["stalecache", *args])


def site(app: Flask, cache: StaleCache) -> None:
    @app.get("/hello")
    @cache.cached(60, jitter=0)
    def hello() -> str:
        return f"hello {request.cookies.get('name', 'nobody')}"


def rows(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [line.rstrip() for line in result.stdout.splitlines()]


VIEW = f"{__name__}.site.<locals>.hello"


def test_a_page_that_is_cached(run: Callable[..., Result]) -> None:
    *told, live = rows(run("why", "/hello"))
    assert told == [
        "/hello is cached: the second request was answered from the store; it is fresh for 60 s.",
        f"  asked      GET {BASE}/hello, twice",
        "  answered   200 OK, MISS: nothing was stored yet",
        "             200 OK, HIT",
        f"  by         {VIEW}, at @cache.cached()",
        f"  key        {VIEW} as hello: {BASE}/hello",
        f"  read       the cookie name, read by {__name__}",
        "  visitors   visitors without the cookie name are served the stored page; the others go to the app",
    ]
    assert live.startswith("  live       nothing is stored")


def test_a_visitor_with_a_cookie(run: Callable[..., Result]) -> None:
    told = json.loads(run("why", "/hello", "--cookie", "name=ann", "--header", "X-A: b", "--json").stdout)
    assert told["first"] == (
        f"/hello is not cached for this visitor: it depends on the cookie name, read by {__name__}, which this visitor has and "
        "the key lacks"
    )
    assert told["visitors"] == [
        "visitors without cookies and Authorization are served the stored page; this one then goes to the app (BYPASS)"
    ]
    assert told["fix"] == [
        "do not read it if the page does not depend on it, or write cookies=['name'] in @cache.cached() if it has few values"
    ]


@pytest.mark.parametrize("front", ["view", "gateway"])
def test_what_is_named_is_told(make_app: MakeApp, front: str) -> None:
    named: dict[str, Any] = {"cookies": ["lang"], "session": ["size"]}
    app, cache = make_app(BASE_URL=BASE, **({} if front == "view" else {"GATEWAY": {"/*": Policy(max_age=60, jitter=0, **named)}}))
    show: Callable[[], str] = lambda: f"{request.cookies.get('lang')} {request.cookies.get('name')}"  # noqa: E731
    app.add_url_rule("/hello", "hello", cache.cached(60, jitter=0, **named)(show) if front == "view" else show)
    run = app.test_cli_runner().invoke

    def asked(*cookies: str) -> dict[str, Any]:
        given = [option for cookie in cookies for option in ("--cookie", cookie)]
        told: dict[str, Any] = json.loads(run(args=["stalecache", "why", "/hello", "--json", *given]).stdout)
        return told

    german, ann = asked("lang=de"), asked("lang=de", "name=ann")
    assert german["first"].startswith("/hello is cached: the second request was answered from the store")
    assert german["key"][0].endswith(f"{BASE}/hello cookie lang:{digest(ascii(('de',)))[:8]} session size:")
    assert "the cookie name, read by" in ann["first"]
    visit(app, "/hello", {"Cookie": "lang=de"}, base_url=BASE)
    shown = run(args=["stalecache", "show", "/hello"]).stdout
    assert f"cookie lang: (digest {digest(ascii(('de',)))[:8]})" in shown
    assert "session key size: (absent)" in shown


def test_a_page_past_the_cache(run: Callable[..., Result]) -> None:
    assert rows(run("why", "/nowhere"))[:3] == [
        "/nowhere is not cached: it matches no endpoint of the app, which answered 404 NOT FOUND.",
        f"  asked      GET {BASE}/nowhere, twice",
        "  answered   404 NOT FOUND, past the cache",
    ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("hello",), "give a path that begins with '/'"),
        (("/hello", "--cookie", "ann"), "give a name and a value, such as 'lang=de'"),
        (("/hello", "--header", "X-A"), "give a name and a value, such as 'Accept-Language: de'"),
        (("/hello", "--header", "Range: bytes=0-1"), "leave it out"),
    ],
)
def test_wrong_use(run: Callable[..., Result], arguments: tuple[str, ...], told: str) -> None:
    result = run("why", *arguments)
    assert result.exit_code == 2
    assert told in result.output


def test_it_says_what_the_live_store_has_and_leaves_it(make_app: MakeApp) -> None:
    app, cache = make_app(BASE_URL=BASE)
    site(app, cache)
    live = lambda: rows(app.test_cli_runner().invoke(args=["stalecache", "why", "/hello"]))[-1]  # noqa: E731
    assert live().startswith("  live       nothing is stored")
    visit(app, "/hello", base_url=BASE)
    assert live().startswith("  live       HIT: fresh for another")
    assert visit(app, "/hello", base_url=BASE).word == "HIT"


def test_a_store_in_memory_is_each_processes_own(make_app: MakeApp) -> None:
    app, cache = make_app(STORE="memory", DIR=None)
    site(app, cache)
    result = app.test_cli_runner().invoke(args=["stalecache", "why", "/hello"])
    assert rows(result)[0].startswith("/hello is cached")
    assert rows(result)[-1].endswith("each process of the server has entries of its own, which this command does not see")


def test_the_statistics_have_the_reasons(make_app: MakeApp) -> None:
    app, cache = make_app(BASE_URL=BASE)
    site(app, cache)
    for cookie in ("", "name=ann", "name=ann"):
        visit(app, "/hello", {"Cookie": cookie} if cookie else {})
    told = rows(app.test_cli_runner().invoke(args=["stalecache", "stats"]))
    assert [" ".join(line.split()) for line in told[-3:]] == [
        "COUNT NOT FROM THE STORE, SINCE OF",
        "2 the page depends on a cookie that the request carries hello",
        "1 nothing was stored yet hello",
    ]
