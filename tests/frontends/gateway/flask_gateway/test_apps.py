"""A gateway in front of Flask apps: whole apps, and the rules of their pages.

Covers ``frontends.gateway.gateway_cache``, ``frontends.flask_app.flask_gateway`` and ``frontends.flask_app.flask_observer``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import (
    Blueprint,
    Flask,
    Response,
    request,
    send_file,
    stream_with_context,
    url_for,
)

from flask_stalecache import ConfigError, Policy, StaleCache
from flask_stalecache.frontends.gateway.handler import Gateway
from support.client import MakeApp, settle, visit
from support.flask_gateway import NOBODY, Fields, signed, site, who_by_session
from support.threads import PATIENCE, go, wait_until

# -- apps ------------------------------------------------------------------------------------------------------------


def test_two_apps_of_one_object_have_gateways_of_their_own(tmp_path: Path) -> None:
    cache, apps = StaleCache(), []
    view = cache.cached(60, gateway=True)(lambda: request.host)
    for name in ("one", "two"):
        app = Flask(name)
        app.config.update(STALECACHE_DIR=tmp_path / name, STALECACHE_GATEWAY=name == "two")
        app.add_url_rule("/", "page", view)
        app.add_url_rule("/free", "free", lambda: Response("free", headers={"Cache-Control": "max-age=60"}))
        cache.init_app(app)
        apps.append(app)
    assert [visit(app).word for app in apps * 2] == ["MISS", "MISS", "HIT", "HIT"]
    assert [visit(app, "/free").word == "HIT" for app in apps * 2] == [False, False, False, True]
    with apps[0].app_context():
        cache.purge(all=True)
    assert [visit(app).word for app in apps] == ["MISS", "HIT"]


def test_a_gateway_before_a_gateway_speaks_for_the_outer_only_if_it_can_see(directory: Path, make_app: MakeApp) -> None:
    """An app that is mounted in another one: what it reads of the session is known by its own cookie's name."""
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    inner = Flask("inner")
    inner.config.update(SECRET_KEY="not a secret", SESSION_COOKIE_NAME="inner", STALECACHE_DIR=directory / "inner")
    inner.config["STALECACHE_GATEWAY"] = True
    StaleCache(inner)
    site(lambda: Response(who_by_session(), headers={"Cache-Control": "max-age=0, stale-while-revalidate=9"}))(inner)
    outer = Flask("outer")
    outer.config.update(SECRET_KEY="not a secret", STALECACHE_DIR=directory, STALECACHE_GATEWAY=[("/*", Policy(max_age=60))])
    outer.wsgi_app = DispatcherMiddleware(outer.wsgi_app, {"/in": inner.wsgi_app})  # type: ignore[method-assign]
    StaleCache(outer)
    ann = {"Cookie": f"inner={signed({'user': 'ann'}).partition('=')[2]}"}
    for headers in (ann, NOBODY, ann, NOBODY, NOBODY, ann):
        assert visit(outer, "/in/", headers).text == ("hello ann" if headers else "hello stranger")


def test_switched_off_there_is_no_gateway(make_app: MakeApp) -> None:
    app, cache = make_app(ENABLED=False, GATEWAY=True)
    site(cache.cached(60, gateway=True)(lambda: "page"))(app)
    seen = [visit(app), visit(app)]
    assert [each.word for each in seen] == ["", ""]
    assert "Cache-Status" not in seen[0].headers
    assert not isinstance(app.wsgi_app, Gateway)


def test_a_factory_may_be_called_twice(tmp_path: Path) -> None:
    cache, bp = StaleCache(), Blueprint("shop", __name__)
    calls: list[int] = []
    bp.add_url_rule("/page", "page", cache.cached(60, gateway=True)(lambda: f"page {calls.append(1) or len(calls)}"))

    def create_app() -> Flask:
        app = Flask("shop")
        app.config["STALECACHE_DIR"] = tmp_path / "cache"
        cache.init_app(app)
        app.register_blueprint(bp, url_prefix="/shop")
        return app

    first, second = create_app(), create_app()
    assert [visit(app, "/shop/page").page for app in (first, second)] == [("MISS", "page 1"), ("HIT", "page 1")]


def test_middleware_around_and_inside(make_app: MakeApp) -> None:
    """Middleware put around the app after ``init_app`` is in front of the gateway: what it makes of the request is in the key."""
    from werkzeug.middleware.proxy_fix import ProxyFix

    app, _ = make_app(GATEWAY=True)
    site(lambda: url_for("page", _external=True))(app)
    app.wsgi_app = ProxyFix(app.wsgi_app, x_proto=1, x_host=1, x_prefix=1)  # type: ignore[method-assign]
    asked: list[Fields] = [
        NOBODY,
        {"X-Forwarded-Proto": "https"},
        {"X-Forwarded-Host": "shop.example"},
        {"X-Forwarded-Prefix": "/x"},
    ]
    links = ["http://localhost/", "https://localhost/", "http://shop.example/", "http://localhost/x/"]
    assert [visit(app, "/", headers).page for headers in asked] == [("MISS", link) for link in links]
    assert [visit(app, "/", headers).page for headers in asked] == [("HIT", link) for link in links]


def test_a_file_is_sent_and_stored(make_app: MakeApp, tmp_path: Path) -> None:
    (tmp_path / "page.txt").write_bytes(b"page")
    app, _ = make_app(GATEWAY=True)
    site(lambda: send_file(tmp_path / "page.txt", max_age=60))(app)
    assert [visit(app).page for _ in range(2)] == [("MISS", "page"), ("HIT", "page")]
    seen = visit(app)
    assert visit(app, "/", {"If-None-Match": seen.headers["ETag"]}).status == 304
    assert visit(app, "/", {"Range": "bytes=1-2"}).text == "ag"


def test_what_flask_closes_is_closed(make_app: MakeApp) -> None:
    """``call_on_close`` and the teardown of a stream's context run once for each call of the app."""
    closed: list[str] = []

    def view(how: str) -> Response:
        def chunks() -> Iterator[str]:
            yield "pa"
            if how == "breaks":
                raise RuntimeError("broken")
            yield "ge"

        response = Response(stream_with_context(chunks()) if how != "plain" else "page", headers={"Cache-Control": "max-age=60"})
        response.call_on_close(lambda: closed.append("closed"))
        return response

    def closings(app: Flask, how: str, text: str) -> list[str]:
        closed.clear()
        with suppress(RuntimeError):
            assert visit(app, f"/{how}").text == text
        return sorted(closed)

    (app, _), (plain, _) = make_app(GATEWAY=True), make_app(ENABLED=False)
    for each in (app, plain):
        each.add_url_rule("/<how>", "page", view)
        each.teardown_request(lambda error: closed.append("torn down"))
    for how in ("plain", "stream", "breaks"):
        expected = closings(plain, how, "page")
        assert expected.count("closed") == 1
        assert closings(app, how, "page") == expected
        assert closings(app, how, "page") == (expected if how == "breaks" else [])


# -- rules -----------------------------------------------------------------------------------------------------------


def views(app: Flask) -> list[str]:
    """Add some pages that say nothing about caching; return the paths that were asked."""
    calls: list[str] = []

    def page(**args: str) -> Any:
        calls.append(request.path)
        if args.get("name") == "gone":
            return "gone", 410
        return f"page {request.args.get('page', '-')}"

    for rule, endpoint in (("/news/<name>", "news"), ("/shop/<name>", "shop"), ("/ü/<name>", "umlaut")):
        app.add_url_rule(rule, endpoint, page)
    return calls


def is_hit(app: Flask, path: str, headers: Fields | None = None, **options: Any) -> bool:
    """Whether the second of two visits comes from the store."""
    visit(app, path, headers, **options)
    return visit(app, path, headers, **options).word == "HIT"


def test_the_first_rule_that_matches_holds(make_app: MakeApp) -> None:
    rules = [
        ("/news/live*", Policy(unless=lambda environ: True)),
        ("/news/*", Policy(max_age=60, statuses={410: 60}, ignored_parameters=("utm_*",))),
        ("shop", Policy(max_age=60, unless=lambda environ: "HTTP_X_STAFF" in environ)),
        ("/shop/*", Policy(max_age=60, statuses={410: 60})),
        ("/ü/?", Policy(max_age=60)),
        ("/*", Policy(max_age=60, response_filter=lambda status, fields: False)),
    ]
    app, _ = make_app(GATEWAY=rules)
    views(app)
    assert not is_hit(app, "/news/live-1")
    assert is_hit(app, "/news/a")
    assert is_hit(app, "/news/gone")
    assert visit(app, "/news/a?utm_source=letter").word == "HIT"
    assert visit(app, "/news/a?page=2").word == "MISS"
    assert is_hit(app, "/shop/a")
    assert visit(app, "/shop/a", {"X-Staff": "1"}).word == "BYPASS"
    # The endpoint's rule comes first, and has no such status.
    assert not is_hit(app, "/shop/gone")
    assert is_hit(app, "/ü/a")
    assert not is_hit(app, "/ü/long")


def test_a_rule_may_say_all_that_cached_may(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    filtered: list[tuple[str, bool]] = []

    def keep(status: str, fields: list[tuple[str, str]]) -> bool:
        filtered.append((status, ("Content-Type", "text/html; charset=utf-8") in fields))
        return True

    rules = {
        "news": Policy(max_age=10, stale_while_revalidate=20, stale_if_error=100, vary=("X-Kind",), tags=("news",), jitter=0),
        "shop": Policy(max_age=10, prefer_stale=True, tags=lambda environ: (environ["PATH_INFO"],), response_filter=keep, jitter=0),
        "umlaut": Policy(max_age=10, refresh_ahead=5, jitter=0),
    }
    app, cache = make_app(GATEWAY=rules)
    calls = views(app)
    assert [visit(app, "/news/a", {"X-Kind": kind}).word for kind in "xyx"] == ["MISS", "MISS", "HIT"]
    visit(app, "/shop/a")
    visit(app, "/ü/a")
    clock.shift(6)
    assert visit(app, "/ü/a").word == "HIT"
    settle(app, cache)
    assert calls.count("/ü/a") == 2
    clock.shift(15)
    assert visit(app, "/news/a", {"X-Kind": "x"}).word == "STALE"
    settle(app, cache)
    assert visit(app, "/news/a", {"X-Kind": "x"}).word == "HIT"
    clock.shift(1000)
    assert visit(app, "/shop/a").word == "STALE"
    settle(app, cache)
    assert set(filtered) == {("200 OK", True)}
    for tag, path, headers in (("news", "/news/a", {"X-Kind": "x"}), ("/shop/a", "/shop/a", None)):
        is_hit(app, path, headers)
        with app.app_context():
            cache.purge(tag=tag)
        assert visit(app, path, headers).word == "MISS"


@pytest.mark.parametrize(
    ("headers", "prefers"),
    [
        ({"X-Stale": "1"}, True),
        ({"X-Stale": "0"}, False),
        ({"Cookie": "stale=yes"}, True),
        ({"Cookie": "stale=0"}, False),
        ({}, False),
    ],
)
def test_a_visitor_may_prefer_stale(make_app: MakeApp, clock: time_machine.Traveller, headers: Fields, prefers: bool) -> None:
    """By the field or the cookie that the configuration names, unless a rule says otherwise."""
    rules = {"/news/a": Policy(max_age=10, stale_while_revalidate=0, jitter=0), "/news/b": Policy(max_age=10, prefer_stale=False)}
    app, cache = make_app(GATEWAY=rules, PREFER_STALE_HEADER="X-Stale", PREFER_STALE_COOKIE="stale")
    views(app)
    assert [visit(app, path).word for path in ("/news/a", "/news/b")] == ["MISS", "MISS"]
    clock.shift(1000)
    assert visit(app, "/news/a", headers).word == ("STALE" if prefers else "EXPIRED")
    assert visit(app, "/news/b", headers).word == "EXPIRED"
    settle(app, cache)
    assert visit(app, "/news/a").word == "HIT"


def test_a_rule_may_limit_the_wait(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache = make_app(GATEWAY=[("/*", Policy(max_age=10, stale_while_revalidate=0, stale_if_error=100, wait=0.05, jitter=0))])
    more, calls = threading.Event(), []

    def view() -> str:
        calls.append(cache.refreshing)
        assert len(calls) == 1 or more.wait(PATIENCE)
        return f"page {len(calls)}"

    app.add_url_rule("/", "page", view)
    visit(app)
    clock.shift(11)
    assert visit(app).page == ("STALE", "page 1")
    wait_until(lambda: calls == [False, True], "the refresh, whose thread may start late")
    more.set()
    settle(app, cache)
    assert visit(app).page == ("HIT", "page 2")


@pytest.mark.parametrize("wrong", ["unless", "tags", "response_filter"])
def test_a_callable_of_a_rule_that_raises_breaks_no_page(make_app: MakeApp, caplog: pytest.LogCaptureFixture, wrong: str) -> None:
    def broken(*args: Any) -> Any:
        raise RuntimeError("not today")

    app, _ = make_app(GATEWAY={"/*": Policy(max_age=60, **{wrong: broken})})
    views(app)
    assert [visit(app, "/news/a").text for _ in range(2)] == ["page -"] * 2
    assert visit(app, "/news/a").word != "HIT"
    assert "not today" in caplog.text


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("/news/*", "GATEWAY"),
        ([("/news/*",)], "pairs"),
        ([("/news/*", 60)], "Policy"),
        ([("", Policy())], "pattern"),
        ([(7, Policy())], "pattern"),
        ([("/", Policy(key=lambda: "x"))], "vary"),
        ([("/", Policy(ignore_session=True))], "ignore_session"),
        ([("/", Policy(gateway=True))], "leave it out"),
        ([("/", Policy(prefer_stale=lambda: True))], "prefer_stale"),
        (7, "GATEWAY"),
    ],
)
def test_a_bad_rule_is_an_error_at_start_up(make_app: MakeApp, rules: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_app(GATEWAY=rules)


@pytest.mark.parametrize("matching", ["none", "server name", "hosts", "subdomains"])
def test_a_rule_finds_the_endpoint_that_answers(directory: Path, matching: str) -> None:
    """As Flask's routing does: by host or subdomain if the app matches them, otherwise whatever the Host field is."""
    hosts: dict[str, Any] = {"host_matching": True, "static_host": "shop.example"} if matching == "hosts" else {}
    app = Flask("shop", subdomain_matching=matching == "subdomains", **hosts)
    app.config.update(STALECACHE_DIR=directory, STALECACHE_GATEWAY={"page": Policy(max_age=60)})
    if matching in ("server name", "subdomains"):
        app.config["SERVER_NAME"] = "shop.example"
    where: dict[str, Any] = {"hosts": {"host": "www.shop.example"}, "subdomains": {"subdomain": "www"}}.get(matching, {})
    StaleCache(app)
    app.add_url_rule("/", "page", lambda: "page", **where)
    hit = is_hit(app, "/", {"Host": "www.shop.example"})
    assert visit(app, "/", {"Host": "www.shop.example"}).status == 200
    assert hit


def test_a_converter_that_needs_the_request_breaks_no_page(make_app: MakeApp) -> None:
    """Endpoints are looked up before the app is entered: what can't be found there has no rule."""
    from werkzeug.routing import BaseConverter

    class Needy(BaseConverter):
        def to_python(self, value: str) -> str:
            return f"{value} of {request.host}"

    app, _ = make_app(GATEWAY={"page": Policy(max_age=60)})
    app.url_map.converters["needy"] = Needy
    app.add_url_rule("/<needy:name>", "page", lambda name: name)
    assert [visit(app, "/a").text for _ in range(2)] == ["a of localhost"] * 2


def test_an_unknown_endpoint_in_a_rule_matches_nothing(make_app: MakeApp) -> None:
    app, _ = make_app(GATEWAY={"nowhere": Policy(max_age=60)})
    views(app)
    assert not is_hit(app, "/news/a")
    assert visit(app, "/nowhere").status == 404


@pytest.mark.parametrize(
    ("view", "told"),
    [
        (lambda: (request.headers.get("X-Shop"), "page")[1], f"the request field x-shop was read by {__name__} and is not in Vary"),
        (lambda: (list(request.headers), "page")[1], "goes through all headers of the request: read them by name"),
        (lambda: Response("page", headers={"Set-Cookie": "a=b"}), "the response sets a cookie"),
        (lambda: Response("page", headers={"Vary": "*"}), "Vary: *"),
        (lambda: "page" * 1000, "the body is larger than STALECACHE_MAX_ENTRY_SIZE"),
    ],
    ids=["a field", "all fields", "a cookie", "vary", "too large"],
)
def test_what_keeps_a_page_from_being_stored_is_said_once(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, view: Callable[[], Any], told: str
) -> None:
    app, _ = make_app(GATEWAY=True, MAX_ENTRY_SIZE=1000)
    site(view)(app)

    @app.after_request
    def fresh(response: Response) -> Response:
        response.cache_control.max_age = 60
        return response

    assert [visit(app, "/", {"X-Shop": "1"}).word == "HIT" for _ in range(3)] == [False] * 3
    said = [record.getMessage() for record in caplog.records if "is not stored by the gateway" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("the endpoint ")
    assert told in said[0]


def test_a_member_who_has_the_page_already_gets_no_second_one(make_app: MakeApp) -> None:
    """Conditions work for members too, although their page can't be stored: they get a 304."""
    app, _ = make_app(GATEWAY=True)

    def page() -> Response:
        response = Response(f"for {request.cookies.get('who')}", headers={"Cache-Control": "max-age=60"})
        response.set_etag("a")
        return response.make_conditional(request)

    site(page)(app)
    member = {"Cookie": "who=ann"}
    assert visit(app, "/", member).text == "for ann"
    for _ in range(2):
        assert visit(app, "/", {**member, "If-None-Match": '"a"'}).status == 304
    assert visit(app).text == "for None"


def test_nobody_waits_for_the_end_of_a_stream_of_events(make_app: MakeApp) -> None:
    app, _ = make_app(GATEWAY=[("/*", Policy(max_age=60))])

    def events() -> Iterator[str]:
        while True:
            yield "data: 1\n\n"

    site(lambda: Response(events(), mimetype="text/event-stream"))(app)

    def first_event() -> bytes:
        with app.test_client().get("/") as response:
            return next(response.iter_encoded())

    with app.test_client().get("/") as response:
        assert next(response.iter_encoded()) == b"data: 1\n\n"
        assert go(first_event).result(10) == b"data: 1\n\n"
