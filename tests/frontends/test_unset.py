"""Fields that are taken away from a response before it is stored: at a view, in a rule of a Flask app, and in front of any app."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import time_machine
from flask import Flask, Response, make_response, redirect, render_template_string, request, session
from flask.sessions import SecureCookieSession, SessionInterface
from flask_login import LoginManager, UserMixin, login_user

from flask_stalecache import ConfigError, GatewayCache, Policy, StaleCache
from support.client import MakeApp, Seen, settle, visit
from support.threads import PATIENCE, go, results, wait_until
from support.wsgi_apps import App, Body, ask, wait_for_waiters

UNSET = ["Set-Cookie", "x-powered-by"]
WINDOWS = {"max_age": 10, "stale_while_revalidate": 100, "stale_if_error": 1000}

Install: TypeAlias = "Callable[[MakeApp, Callable[[], Any]], tuple[Flask, StaleCache]]"


def at_view(make_app: MakeApp, show: Callable[[], Any]) -> tuple[Flask, StaleCache]:
    app, cache = make_app()
    app.add_url_rule("/", "page", cache.cached(**WINDOWS, jitter=0, unset=UNSET)(show))
    return app, cache


def in_a_rule(make_app: MakeApp, show: Callable[[], Any]) -> tuple[Flask, StaleCache]:
    app, cache = make_app(GATEWAY=[("/*", Policy(**WINDOWS, jitter=0, unset=UNSET))])
    app.add_url_rule("/", "page", show, methods=["GET", "POST"])
    return app, cache


def at_a_gateway_view(make_app: MakeApp, show: Callable[[], Any]) -> tuple[Flask, StaleCache]:
    app, cache = make_app()
    app.add_url_rule("/", "page", cache.cached(**WINDOWS, jitter=0, unset=UNSET, gateway=True)(show))
    return app, cache


IN_FRONT = pytest.mark.parametrize("install", [in_a_rule, at_a_gateway_view])
EVERYWHERE = pytest.mark.parametrize("install", [at_view, in_a_rule, at_a_gateway_view])


def numbered(**cookies: str) -> Callable[[], Response]:
    """Return a view whose pages say which they are, and set cookies."""
    numbers = count(1)

    def show() -> Response:
        response = make_response(f"page {next(numbers)}")
        response.headers["X-Powered-By"] = "Flask"
        response.headers["X-Shop"] = "1"
        for name, value in cookies.items():
            response.set_cookie(name, value)
        return response

    return show


def left(seen: Seen) -> list[str]:
    """Return which of the fields in question a visitor got."""
    return [name for name in ("Set-Cookie", "X-Powered-By", "X-Shop") if name in seen.headers]


# -- who gets the fields ---------------------------------------------------------------------------------------------


@EVERYWHERE
def test_a_stray_cookie_keeps_no_page_from_the_store_and_nobody_gets_it(make_app: MakeApp, install: Install) -> None:
    app, _ = install(make_app, numbered(seen="1"))
    visitors = [visit(app), visit(app), visit(app, headers={"Cookie": "other=1"}), visit(app, method="HEAD")]
    assert [each.word for each in visitors] == ["MISS", "HIT", "HIT", "HIT"]
    assert [each.text for each in visitors] == ["page 1", "page 1", "page 1", ""]
    assert [left(each) for each in visitors] == [["X-Shop"]] * 4


@EVERYWHERE
def test_without_unset_the_cookie_keeps_it_out(make_app: MakeApp, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "UNSET", ["X-Powered-By"])
    app, _ = install(make_app, numbered(seen="1"))
    visitors = [visit(app), visit(app)]
    assert [each.page for each in visitors] == [("MISS", "page 1"), ("MISS", "page 2")]
    # What is not stored is sent as the app made it.
    assert [left(each) for each in visitors] == [["Set-Cookie", "X-Powered-By", "X-Shop"]] * 2


@EVERYWHERE
def test_those_who_wait_and_the_refreshes_get_the_same(make_app: MakeApp, install: Install, clock: time_machine.Traveller) -> None:
    ready, show, begun = threading.Event(), numbered(seen="1"), threading.Event()

    def slow() -> Response:
        begun.set()
        assert ready.wait(PATIENCE)
        return show()

    app, cache = install(make_app, slow)
    first = go(lambda: visit(app))
    wait_until(begun.is_set, "the first call")
    second = go(lambda: visit(app))
    wait_for_waiters(app, 1)
    ready.set()
    assert sorted((each.text, *left(each)) for each in results([first, second])) == [("page 1", "X-Shop")] * 2
    clock.shift(11)
    assert visit(app).word == "STALE"
    settle(app, cache)
    renewed = visit(app)
    assert (renewed.page, left(renewed)) == (("HIT", "page 2"), ["X-Shop"])


@EVERYWHERE
def test_a_page_that_is_not_stored_is_sent_whole(make_app: MakeApp, install: Install) -> None:
    show = numbered(seen="1")

    def private() -> Response:
        response = show()
        response.headers["Cache-Control"] = "private"
        return response

    app, _ = install(make_app, private)
    assert [left(visit(app)) for _ in range(2)] == [["Set-Cookie", "X-Powered-By", "X-Shop"]] * 2


def test_a_post_keeps_its_cookie(make_app: MakeApp) -> None:
    app, _ = in_a_rule(make_app, numbered(seen="1"))
    assert left(visit(app, method="POST")) == ["Set-Cookie", "X-Powered-By", "X-Shop"]


# -- sessions and logins ---------------------------------------------------------------------------------------------


class ServerSide(SessionInterface):
    """Keeps the values of sessions on the server, by an id in a cookie."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, Any]] = {}

    def open_session(self, app: Flask, request: Any) -> SecureCookieSession:
        opened = SecureCookieSession(self.values.get(request.cookies.get("s", ""), {}))
        opened.accessed = False
        return opened

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        if session.accessed:
            response.vary.add("Cookie")
        if session.modified:
            number = f"{len(self.values) + 1}"
            self.values[number] = dict(session)
            response.set_cookie("s", number)


def of_server(app: Flask) -> None:
    app.config["SESSION_COOKIE_NAME"] = "s"
    app.session_interface = ServerSide()


def of_flask(app: Flask) -> None:
    app.config["SESSION_COOKIE_NAME"] = "shop_visit"


SESSIONS = pytest.mark.parametrize("prepare", [of_flask, of_server])


@SESSIONS
@EVERYWHERE
def test_a_page_that_changes_the_session_is_nobody_elses(
    make_app: MakeApp, install: Install, prepare: Callable[[Flask], None]
) -> None:
    numbers = count(1)

    def basket() -> str:
        number = session.setdefault("basket", next(numbers))
        return f"basket {number}"

    app, _ = install(make_app, basket)
    prepare(app)
    visitors = [visit(app), visit(app)]
    assert [each.page for each in visitors] == [("MISS", "basket 1"), ("MISS", "basket 2")]
    assert ["Set-Cookie" in each.headers for each in visitors] == [True, True]


@pytest.mark.grid
@SESSIONS
@EVERYWHERE
def test_a_page_that_reads_the_session_stays_its_owners_whatever_cookie_it_sets(
    make_app: MakeApp, install: Install, prepare: Callable[[Flask], None]
) -> None:
    show = numbered(seen="1")

    def hello() -> Response:
        response = show()
        response.set_data(f"hello {session.get('user', 'stranger')}")
        return response

    app, _ = install(make_app, hello)
    prepare(app)

    @app.post("/login")
    def login() -> str:
        session["user"] = request.form["user"]
        return "ok"

    def cookie_of(user: str) -> dict[str, str]:
        said = visit(app, "/login", method="POST", data={"user": user}).headers["Set-Cookie"]
        return {"Cookie": said.partition(";")[0]}

    ann, bob = cookie_of("ann"), cookie_of("bob")
    texts = [visit(app, headers=each).text for each in (ann, bob, {}, ann, {}, bob)]
    assert texts == ["hello ann", "hello bob", "hello stranger", "hello ann", "hello stranger", "hello bob"]
    members = [visit(app, headers=each) for each in (ann, bob)]
    assert [(each.word, left(each)) for each in members] == [("BYPASS", ["Set-Cookie", "X-Powered-By", "X-Shop"])] * 2
    stranger = visit(app)
    assert (stranger.page, left(stranger)) == (("HIT", "hello stranger"), ["X-Shop"])


@IN_FRONT
@SESSIONS
def test_a_hook_that_changes_the_session_keeps_the_page_out(
    make_app: MakeApp, install: Install, prepare: Callable[[Flask], None]
) -> None:
    app, _ = install(make_app, numbered(seen="1"))
    prepare(app)
    app.before_request(lambda: session.__setitem__("last", "now"))
    assert [visit(app).page for _ in range(2)] == [("MISS", "page 1"), ("MISS", "page 2")]


@EVERYWHERE
def test_flask_login_logs_its_members_in_on_a_site_with_unset(make_app: MakeApp, install: Install) -> None:
    app, _ = install(make_app, lambda: render_template_string("hello {{ current_user.get_id() or 'stranger' }}"))
    users = LoginManager(app)

    class User(UserMixin):
        def __init__(self, name: str) -> None:
            self.id = name

    users.user_loader(User)
    app.after_request(lambda response: response.set_cookie("seen", "1") or response)

    @app.get("/magic/<name>")
    def magic(name: str) -> Any:
        """Logs in by a link in a mail, which a rule for all paths would store."""
        login_user(User(name), remember=True)
        return f"welcome {name}"

    def log_in(name: str) -> dict[str, str]:
        seen = visit(app, f"/magic/{name}")
        assert seen.text == f"welcome {name}"
        return {"Cookie": "; ".join(line.partition(";")[0] for line in seen.headers.getlist("Set-Cookie"))}

    ann, again = log_in("ann"), log_in("ann")
    assert all("remember_token" in each["Cookie"] and "session" in each["Cookie"] for each in (ann, again))
    texts = [visit(app, headers=each).page for each in ({}, ann, {}, log_in("bob"))]
    assert texts == [
        ("MISS", "hello stranger"), ("BYPASS", "hello ann"), ("HIT", "hello stranger"), ("BYPASS", "hello bob"),
    ]  # fmt: skip


@IN_FRONT
def test_a_login_by_a_cookie_of_its_own_is_not_stored(make_app: MakeApp, install: Install) -> None:
    app, _ = install(make_app, lambda: redirect("/"))

    def welcome() -> Response:
        response = make_response("welcome")
        response.set_cookie("access_token_cookie", "abc")
        return response

    app.view_functions["page"] = welcome
    seen = [visit(app), visit(app)]
    assert [(each.word, "Set-Cookie" in each.headers) for each in seen] == [("MISS", True)] * 2


@EVERYWHERE
@pytest.mark.parametrize("secret", ["aB3dE5gH7jK9mN1p{}", "visitor {}"], ids=["random", "short"])
def test_a_page_that_shows_the_cookie_that_it_sets_is_not_stored(make_app: MakeApp, install: Install, secret: str) -> None:
    numbers = count(1)

    def show() -> Response:
        value = secret.format(next(numbers))
        response = make_response(f'<input type="hidden" value="{value}">')
        response.set_cookie("form", value)
        return response

    app, _ = install(make_app, show)
    seen = [visit(app) for _ in range(3)]
    assert len({each.text for each in seen}) == 3
    assert ["Set-Cookie" in each.headers for each in seen] == [True] * 3


@EVERYWHERE
def test_a_cookie_that_is_the_same_in_each_page_is_no_secret(make_app: MakeApp, install: Install) -> None:
    def show() -> Response:
        response = make_response("version 2026.11")
        response.set_cookie("build", "2026.11")
        return response

    app, _ = install(make_app, show)
    assert [visit(app).word for _ in range(3)] == ["MISS", "MISS", "HIT"]


def test_the_log_says_why_a_cookie_stays(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app, _ = at_view(make_app, numbered(csrftoken="1"))
    other, _ = in_a_rule(make_app, numbered(csrftoken="1"))
    with caplog.at_level(logging.WARNING, "flask_stalecache"):
        visit(app)
        visit(other)
    told = [each.getMessage() for each in caplog.records]
    assert len(told) == 2
    assert all("it sets the cookie 'csrftoken', which belongs to a session or a login" in each for each in told)


# -- in front of any app ---------------------------------------------------------------------------------------------

FRESH = ("Cache-Control", "max-age=10, stale-while-revalidate=100")


def wsgi(*fields: tuple[str, str], later: tuple[str, str] | None = None) -> App:
    """Return an app that answers with these fields, and to conditions, if ``later`` is given, with a 304 that has that one too."""

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        if later is not None and "HTTP_IF_NONE_MATCH" in environ:
            start_response("304 Not Modified", [*fields, later])
            return []
        start_response("200 OK", [FRESH, *fields])
        return Body(b"page %d" % len(app.environs), b"")

    app = App(answer)
    return app


def in_front_of(app: App, directory: Path, **policy: Any) -> GatewayCache:
    return GatewayCache(app, dir=directory, rules=[("/*", Policy(unset=UNSET, **policy))])


def names(fields: list[tuple[str, str]]) -> set[str]:
    return {name.lower() for name, _ in fields} & {"set-cookie", "x-powered-by", "x-shop"}


def test_a_stream_is_sent_without_the_fields_too(tmp_path: Path) -> None:
    gateway = in_front_of(wsgi(("Set-Cookie", "seen=1"), ("X-POWERED-BY", "WSGI"), ("X-Shop", "1")), tmp_path)
    got = [ask(gateway), ask(gateway), ask(gateway, HTTP_IF_NONE_MATCH="*"), ask(gateway, HTTP_RANGE="bytes=0-0")]
    assert [each.word for each in got] == ["MISS", "HIT", "HIT", "HIT"]
    assert [names(each.fields) for each in got] == [{"x-shop"}, {"x-shop"}, set(), {"x-shop"}]


def test_a_304_brings_none_of_the_fields_back(tmp_path: Path, clock: time_machine.Traveller) -> None:
    app = wsgi(("Set-Cookie", "seen=1"), ("ETag", '"1"'), later=("X-Powered-By", "WSGI"))
    gateway = in_front_of(app, tmp_path, stale_if_error=0)
    assert ask(gateway).page == ("MISS", b"page 1")
    clock.shift(1000)
    got = ask(gateway)
    assert (got.page, names(got.fields)) == (("REVALIDATED", b"page 1"), set())
    assert names(ask(gateway).fields) == set()


def test_a_304_that_begins_a_session_begins_it_for_its_visitor(tmp_path: Path, clock: time_machine.Traveller) -> None:
    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        is_known = "HTTP_IF_NONE_MATCH" in environ
        start_response(*(("304", [("Set-Cookie", "sid=1")]) if is_known else ("200 OK", [FRESH, ("ETag", '"1"')])))
        return [] if is_known else [b"page"]

    gateway = in_front_of(App(answer), tmp_path)
    ask(gateway)
    clock.shift(1000)
    got = [ask(gateway), ask(gateway)]
    assert [(each.word, names(each.fields)) for each in got] == [("REVALIDATED", {"set-cookie"}), ("HIT", set())]


@pytest.mark.parametrize("fields", [(("Set-Cookie", "sessionid=1"),), (("Set-Cookie", "seen=1"), ("Vary", "Cookie"))])
def test_a_session_of_another_framework_is_nobody_elses(tmp_path: Path, fields: tuple[tuple[str, str], ...]) -> None:
    gateway = in_front_of(wsgi(*fields), tmp_path)
    got = [ask(gateway), ask(gateway)]
    assert [each.page for each in got] == [("MISS", b"page 1"), ("MISS", b"page 2")]
    assert [names(each.fields) for each in got] == [{"set-cookie"}] * 2


def test_an_answer_to_a_visitor_with_cookies_stays_that_visitors(tmp_path: Path) -> None:
    gateway = in_front_of(wsgi(("Set-Cookie", "seen=1")), tmp_path)
    got = [ask(gateway, HTTP_COOKIE="sid=ann"), ask(gateway), ask(gateway)]
    assert [each.page for each in got] == [("MISS", b"page 1"), ("MISS", b"page 2"), ("HIT", b"page 2")]
    assert [names(each.fields) for each in got] == [{"set-cookie"}, set(), set()]


def test_a_nonce_counts_although_its_policy_is_unset(tmp_path: Path) -> None:
    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        nonce = f"aB3dE5gH7jK9mN1p{len(app.environs)}"
        start_response("200 OK", [FRESH, ("Content-Security-Policy", f"script-src 'nonce-{nonce}'")])
        return [f'<script nonce="{nonce}">'.encode()]

    app = App(answer)
    gateway = GatewayCache(app, dir=tmp_path, rules=[("/*", Policy(unset=["Content-Security-Policy"]))])
    got = [ask(gateway), ask(gateway)]
    assert got[0].body != got[1].body
    assert all("Content-Security-Policy" in dict(each.fields) for each in got)


def test_the_fields_that_pages_are_purged_by_are_not_unset(tmp_path: Path) -> None:
    said = pytest.raises(ConfigError, match=r"'surrogate-key'.*STALECACHE_SEND_TAG_FIELDS")
    with said:
        GatewayCache(wsgi(), dir=tmp_path, rules=[("/*", Policy(unset=["Surrogate-Key"]))])
    with said:
        StaleCache().cached(60, unset=["Surrogate-Key"], gateway=True)
