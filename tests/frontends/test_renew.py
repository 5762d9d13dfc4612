"""``renew=``: some requests skip the stored page, and their answers replace it, at the view and at each gateway."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import time_machine
from flask import Flask, Response, g, request, session
from flask_login import LoginManager, UserMixin, current_user, login_user

from flask_stalecache import ConfigError, GatewayCache, Policy, StaleCache
from support.client import MakeApp, visit
from support.wsgi_apps import App, ask

EDITOR = {"X-Editor": "yes"}
ANYBODY: tuple[dict[str, str], ...] = (
    {},
    {"Cache-Control": "no-cache", "Pragma": "no-cache"},
    {"X-Editor": "no"},
    {"Cookie": "a=1"},
)


class Site(NamedTuple):
    """A page behind one of the front ends.

    :ivar get: asks for it with some request fields, and returns status word, body, and ``Cache-Status``.
    :ivar calls: one item for each call of its view, with the request's environ.
    :ivar answer: what the view does beside counting; a test changes it.
    """

    get: Callable[..., tuple[str, str, str]]
    calls: list[dict[str, Any]]
    answer: dict[str, Any]


def is_editor(environ: Mapping[str, Any]) -> bool:
    return environ.get("HTTP_X_EDITOR") == "yes"


def flask_site(directory: Path, gateway: bool, **how: Any) -> Site:
    app = Flask("shop")
    rule = {"/": Policy(max_age=60, stale_while_revalidate=600, stale_if_error=3600, jitter=0, renew=is_editor, **how)}
    app.config.update(STALECACHE_DIR=directory, STALECACHE_GATEWAY=rule if gateway else False)
    cache = StaleCache(app)
    calls: list[dict[str, Any]] = []
    answer: dict[str, Any] = {"status": 200}

    def page() -> tuple[str, int, dict[str, str]]:
        calls.append({})
        return f"page {len(calls)}", answer["status"], answer.get("fields", {})

    def renew() -> bool:
        return request.headers.get("X-Editor") == "yes"

    app.add_url_rule("/", "page", page if gateway else cache.cached(60, 600, 3600, jitter=0, renew=renew, **how)(page))

    def get(headers: Mapping[str, str] | None = None) -> tuple[str, str, str]:
        seen = visit(app, "/", headers)
        return seen.word, seen.text, seen.headers["Cache-Status"]

    return Site(get, calls, answer)


def wsgi_site(directory: Path, **how: Any) -> Site:
    calls: list[dict[str, Any]] = []
    answer: dict[str, Any] = {"status": 200}

    def page(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        calls.append(environ)
        start_response(f"{answer['status']} X", [*answer.get("fields", {}).items()])
        return [f"page {len(calls)}".encode()]

    gateway = GatewayCache(
        App(page),
        dir=directory,
        rules={"/": Policy(max_age=60, stale_while_revalidate=600, stale_if_error=3600, jitter=0, renew=is_editor, **how)},
    )

    def get(headers: Mapping[str, str] | None = None) -> tuple[str, str, str]:
        asked = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in (headers or {}).items()}
        got = ask(gateway, "/", **asked)
        return got.word, got.body.decode(), dict(got.fields)["Cache-Status"]

    return Site(get, calls, answer)


@pytest.fixture(params=["view", "Flask's gateway", "gateway"])
def make_site(request: pytest.FixtureRequest, directory: Path) -> Callable[..., Site]:
    if request.param == "gateway":
        return lambda **how: wsgi_site(directory, **how)
    return lambda **how: flask_site(directory, request.param != "view", **how)


def test_an_editor_replaces_the_page_for_all_and_nobody_else_does(make_site: Callable[..., Site]) -> None:
    site = make_site()
    assert [site.get()[:2] for _ in range(3)] == [("MISS", "page 1"), ("HIT", "page 1"), ("HIT", "page 1")]
    word, text, status = site.get(EDITOR)
    assert (word, text) == ("EXPIRED", "page 2")
    assert status == "stalecache; fwd=request; fwd-status=200; ttl=60; stored"
    for headers in ANYBODY:
        assert site.get(headers)[:2] == ("HIT", "page 2"), headers
    assert [site.get(EDITOR)[1] for _ in range(2)] == ["page 3", "page 4"]
    assert site.get()[:2] == ("HIT", "page 4")


def test_an_editor_fills_too_and_is_not_remembered_by_name(make_site: Callable[..., Site]) -> None:
    site = make_site()
    assert site.get(EDITOR)[:2] == ("MISS", "page 1")
    # What renew read is no part of the page: those who carry the field are served the same one.
    assert site.get({"X-Editor": "no"})[:2] == site.get()[:2] == ("HIT", "page 1")


def test_a_failure_keeps_what_is_stored(make_site: Callable[..., Site], clock: time_machine.Traveller) -> None:
    site = make_site()
    site.get()
    clock.shift(1)
    site.answer["status"] = 503
    assert site.get(EDITOR)[:2] == ("STALE", "page 1")
    assert site.get()[:2] == ("HIT", "page 1")
    site.answer["status"] = 200
    # The back-off after a failure does not hold an editor up.
    assert site.get(EDITOR)[:2] == ("EXPIRED", "page 3")


@pytest.mark.parametrize("how", [{"wait": 0}, {"prefer_stale": True}])
def test_neither_a_wait_nor_stale_pages_come_in_between(
    make_site: Callable[..., Site], clock: time_machine.Traveller, how: dict[str, Any]
) -> None:
    site = make_site(**how)
    site.get()
    clock.shift(1000)
    assert site.get(EDITOR)[:2] == ("EXPIRED", "page 2")


def test_what_may_not_be_stored_does_not_replace_the_page(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.get()
    site.answer["fields"] = {"Set-Cookie": "draft=1"}
    assert site.get(EDITOR)[1] == "page 2"
    site.answer["fields"] = {}
    assert site.get()[1] != "page 2"


def test_the_app_is_not_asked_to_confirm_what_is_stored(directory: Path) -> None:
    site = wsgi_site(directory)
    site.answer["fields"] = {"ETag": '"always the same"'}
    site.get()
    assert site.get(EDITOR)[:2] == ("EXPIRED", "page 2")
    assert "HTTP_IF_NONE_MATCH" not in site.calls[1]


# -- personal pages ------------------------------------------------------------------------------------------------------


class Member(UserMixin):
    def __init__(self, name: str) -> None:
        self.id = name


@pytest.mark.parametrize("parameter", ["renew", "prefer_stale"])
@pytest.mark.parametrize("is_stored", [True, False])
def test_the_page_of_an_editor_who_is_logged_in_is_never_stored(make_app: MakeApp, parameter: str, is_stored: bool) -> None:
    app, cache = make_app()
    LoginManager(app).user_loader(Member)

    @app.get("/login")
    def login() -> str:
        login_user(Member("Ada"))
        return "welcome"

    @app.get("/")
    # The callable loads the user, whom Flask-Login keeps in g: the view finds the user there.
    @cache.cached(60, **{parameter: lambda: current_user.is_authenticated})
    def index() -> str:
        return f"hello {getattr(current_user, 'id', 'stranger')}"

    if is_stored:
        assert visit(app).page == ("MISS", "hello stranger")
    editor = app.test_client()
    editor.get("/login")
    assert [editor.get("/").text for _ in range(2)] == ["hello Ada"] * 2
    assert visit(app).page == ("HIT" if is_stored else "MISS", "hello stranger")
    assert editor.get("/").text == "hello Ada"
    assert visit(app).page == ("HIT", "hello stranger")


def test_nothing_that_renew_keeps_reaches_the_page(make_app: MakeApp) -> None:
    app, cache = make_app()

    class Connection:
        def close(self) -> None:
            """Be closed at teardown."""

    connection = Connection()

    @app.before_request
    def note_section() -> None:
        g.section = "news"

    def renew() -> bool:
        g.user = request.headers.get("X-Editor")
        g.section = "drafts"
        g.connection = connection
        request.member = g.user  # type: ignore[attr-defined]
        return g.user is not None

    @app.get("/")
    @cache.cached(60, renew=renew)
    def index() -> str:
        assert g.connection is connection
        return f"{g.get('user')} {getattr(request, 'member', None)} {g.section}"

    assert visit(app, "/", EDITOR).page == ("MISS", "None None news")
    assert visit(app).page == ("HIT", "None None news")


def test_an_editor_with_a_session_leaves_the_page_of_strangers_alone(directory: Path) -> None:
    app = Flask("shop")
    app.secret_key = "not a secret"
    rules = {"/": Policy(max_age=60, renew=lambda environ: "HTTP_COOKIE" in environ)}
    app.config.update(STALECACHE_DIR=directory, STALECACHE_GATEWAY=rules)
    StaleCache(app)

    @app.get("/login")
    def login() -> str:
        session["name"] = "Ada"
        return ""

    app.add_url_rule("/", "index", lambda: f"hello {session.get('name')}")
    editor = app.test_client()
    editor.get("/login")
    assert editor.get("/").text == "hello Ada"
    assert visit(app).page == ("MISS", "hello None")
    assert editor.get("/").text == "hello Ada"
    assert visit(app).page == ("HIT", "hello None")


# -- what renew does itself ----------------------------------------------------------------------------------------------


def test_one_that_raises_renews_nothing(make_app: MakeApp, directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*args: object) -> bool:
        raise LookupError("no")

    app, cache = make_app()
    app.add_url_rule("/", "index", cache.cached(60, renew=broken)(lambda: "page"))
    gateway = GatewayCache(
        App(lambda environ, start: (start("200 OK", []) and None) or [b""]),
        dir=directory,
        rules={"/": Policy(max_age=60, renew=broken)},
    )
    with caplog.at_level(logging.ERROR, "flask_stalecache"):
        assert [visit(app).word for _ in range(2)] == ["MISS", "HIT"]
        assert [ask(gateway).word for _ in range(2)] == ["MISS", "HIT"]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "the renew of" in said[0]
    assert "the renew of its rule raised LookupError('no')" in said[1]


async def renew_later() -> bool:
    return False


@pytest.mark.parametrize("renew", [True, "X-Editor", 1, renew_later])
def test_a_bad_value_is_refused_when_it_is_written(make_app: MakeApp, renew: Any) -> None:
    _, cache = make_app()
    with pytest.raises(ConfigError, match="renew="):
        cache.cached(60, renew=renew)
    with pytest.raises(ConfigError, match="renew="):
        Policy(max_age=60, renew=renew)


def test_a_view_of_the_gateway_says_where_to_write_it(make_app: MakeApp) -> None:
    _, cache = make_app()
    with pytest.raises(ConfigError, match=r"renew has no effect beside gateway=True.*STALECACHE_GATEWAY"):
        cache.cached(60, gateway=True, renew=lambda: True)


def test_a_refresh_is_nobodys_and_asks_nothing(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache = make_app()
    asked: list[bool] = []

    @app.get("/")
    @cache.cached(60, 600, renew=lambda: asked.append(cache.refreshing))
    def index() -> Response:
        return Response("page")

    visit(app)
    clock.shift(100)
    visit(app)
    with app.app_context():
        assert cache.drain(10)
    assert asked == [False, False]
