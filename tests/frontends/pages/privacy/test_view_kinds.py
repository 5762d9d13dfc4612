"""Privacy: views of all kinds."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import (
    Blueprint,
    Flask,
    Request,
    Response,
    current_app,
    g,
    make_response,
    request,
    session,
    url_for,
)
from flask.sessions import NullSession
from flask.views import MethodView
from werkzeug.datastructures import MultiDict

from flask_stalecache import StaleCache
from support.client import MakeApp, visit, words
from support.privacy import ANN, BOB, NOBODY, Fields, View, link, number, play, shown, with_session


def test_a_view_called_by_another_with_other_arguments_is_live(make_app: MakeApp) -> None:
    app, cache = make_app()

    @cache.cached(60)
    def profile(name: str) -> str:
        return f"profile of {name}"

    app.add_url_rule("/profile/<name>", "profile", profile)
    app.add_url_rule("/both/<name>", "both", lambda name: f"{profile(name).text} {profile(name='bob').text}")  # type: ignore[attr-defined]
    app.add_url_rule("/me", "me", lambda: profile(request.headers["X-User"]))
    app.response_class = TextResponse
    assert [visit(app, "/me", who).page for who in (ANN, BOB)] == [("BYPASS", "profile of ann"), ("BYPASS", "profile of bob")]
    assert visit(app, "/profile/ann").page == ("MISS", "profile of ann")
    assert visit(app, "/both/ann").text == "profile of ann profile of bob"
    assert visit(app, "/profile/bob").page == ("MISS", "profile of bob")


class TextResponse(Response):
    @property
    def text(self) -> str:
        return self.get_data(as_text=True)


@pytest.mark.parametrize(
    ("read", "policy", "one", "other"),
    [
        (lambda: request.cookies.get("user"), {}, NOBODY, ANN),
        (lambda: request.headers.get("X-User"), {}, NOBODY, ANN),
        (lambda: request.headers.get("X-User"), {"vary": ["X-User"]}, ANN, BOB),
        (lambda: request.headers.get("X-User"), {"key": lambda: request.headers.get("X-User", "")}, ANN, BOB),
    ],
    ids=["cookie", "field", "vary", "key"],
)
def test_a_cached_view_within_a_cached_view_hands_its_names_on(
    make_app: MakeApp, read: View, policy: dict[str, Any], one: Fields, other: Fields
) -> None:
    """The inner page is served from its copy, so what it depends on is not read anew; the outer one depends on it all the same."""

    def build(app: Flask, cache: StaleCache) -> None:
        inner = cache.cached(60, **policy)(lambda: f"for {read()}")
        app.add_url_rule("/", "outer", cache.cached(60)(lambda: f"<b>{make_response(inner()).get_data(as_text=True)}</b>"))
        app.add_url_rule("/inner", "inner", lambda: inner())

    play(make_app, build, one, other, one, other)


@pytest.mark.parametrize("where", ["hook", "decorator"])
def test_a_cached_view_called_before_a_cached_view_hands_its_names_on(make_app: MakeApp, where: str) -> None:
    """A box for every page, made by a hook or a decorator: it comes from its copy, and the page around it is stored."""

    def build(app: Flask, cache: StaleCache) -> None:
        box = cache.cached(60, vary=["X-User"])(lambda: f"for {request.headers.get('X-User')}")
        page = cache.cached(60)(lambda: f"<b>{g.box}</b>")

        def load() -> None:
            g.box = make_response(box()).get_data(as_text=True)

        def decorated() -> Any:
            load()
            return page()

        if where == "hook":
            app.before_request(load)
        app.add_url_rule("/", "page", page if where == "hook" else decorated)

    play(make_app, build, {"X-User": "ann"}, {"X-User": "bob"}, {"X-User": "ann"}, {"X-User": "bob"}, NOBODY)


def test_a_cached_view_within_a_cached_view_filled_before(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    """The outer page expires first: it is made again from the inner one's copy, which reads nothing."""
    app, cache = make_app()
    inner = cache.cached(600, 0, 0, jitter=0)(lambda: f"for {request.cookies.get('user')}")
    outer = cache.cached(60, 0, 0, jitter=0)(lambda: f"<b>{make_response(inner()).get_data(as_text=True)}</b>")
    app.add_url_rule("/", "outer", outer)
    assert visit(app).page == ("MISS", "<b>for None</b>")
    clock.shift(61)
    assert visit(app).page == ("EXPIRED", "<b>for None</b>")
    assert visit(app, "/", ANN).text == "<b>for ann</b>"


def greet(greeting: str, name: str) -> str:
    return f"{greeting} {name} {request.cookies.get('user')}"


class Greeter:
    def __call__(self, name: str) -> str:
        return greet("hello", name)

    def method(self, name: str) -> str:
        return greet("hello", name)


@pytest.mark.parametrize(
    "view",
    [functools.partial(greet, "hello"), Greeter(), Greeter().method, lambda name: greet("hello", name)],
    ids=["partial", "object", "method", "lambda"],
)
def test_a_view_may_be_any_callable(make_app: MakeApp, view: View) -> None:
    build = shown(view, "/<name>")
    assert play(make_app, build, NOBODY, ANN, NOBODY, path="/x") == ["MISS", "BYPASS", "HIT"]


@pytest.mark.parametrize("style", ["decorators", "method"])
def test_a_method_view_is_cached_by_its_arguments(make_app: MakeApp, style: str) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        decorate = cache.cached(60)

        class Page(MethodView):
            decorators = [decorate] if style == "decorators" else []
            init_every_request = style == "decorators"

            def get(self, name: str) -> str:
                return f"{name} {request.cookies.get('user')}"

            if style == "method":
                get = decorate(get)

            def post(self, name: str) -> str:
                return f"posted {name}"

        app.add_url_rule("/<name>", view_func=Page.as_view("page"))

    app, cache = make_app()
    build(app, cache)
    assert [visit(app, path).page for path in ("/a", "/b", "/a")] == [("MISS", "a None"), ("MISS", "b None"), ("HIT", "a None")]
    assert visit(app, "/a", ANN).page == ("BYPASS", "a ann")
    assert visit(app, "/a", method="POST").text == "posted a"


def test_an_async_view_is_cached(make_app: MakeApp) -> None:
    async def view(name: str) -> str:
        return f"{name} {request.cookies.get('user')} {number()}"

    app, cache = make_app()
    app.add_url_rule("/<name>", "page", cache.cached(60)(view))
    assert [visit(app, "/x").page for _ in range(2)] == [("MISS", "x None page 1"), ("HIT", "x None page 1")]
    assert visit(app, "/x", ANN).page == ("BYPASS", "x ann page 2")


def test_an_async_view_that_modifies_the_session_is_not_stored(make_app: MakeApp) -> None:
    async def view() -> str:
        return with_session()

    app, cache = make_app()
    shown(view)(app, cache)
    assert words(app, ANN, BOB) == ["MISS", "MISS"]


def test_blueprints_mounted_twice_are_two_pages(make_app: MakeApp) -> None:
    app, cache = make_app()
    blueprint = Blueprint("shop", "shop")

    @blueprint.get("/")
    @cache.cached(60)
    def index() -> str:
        return f"{request.blueprint} {url_for('.index')}"

    for name in ("ann", "bob"):
        app.register_blueprint(blueprint, name=name, url_prefix=f"/{name}")
    said = [visit(app, path).page for path in ("/ann/", "/bob/", "/ann/")]
    assert said == [("MISS", "ann /ann/"), ("MISS", "bob /bob/"), ("HIT", "ann /ann/")]


def test_two_apps_on_one_object_share_nothing(tmp_path: Path) -> None:
    cache = StaleCache()

    def create_app(name: str, **config: Any) -> Flask:
        app = Flask("shop")
        app.config.update(STALECACHE_DIR=tmp_path / name, NAME=name, **config)
        cache.init_app(app)
        app.register_blueprint(blueprint)
        return app

    blueprint = Blueprint("shop", "shop")

    @blueprint.get("/")
    @cache.cached()
    def index() -> str:
        return f"{current_app.config['NAME']} {request.cookies.get('user')}"

    ann = create_app("ann", STALECACHE_STATUS_HEADERS=["X-Cache-Status"])
    bob = create_app("bob", STALECACHE_IGNORED_PARAMETERS=["ref"])
    off = create_app("off", STALECACHE_ENABLED=False)
    assert [visit(app).page for app in (ann, bob, off)] == [("MISS", "ann None"), ("MISS", "bob None"), ("", "off None")]
    assert [visit(app, "/?ref=x").word for app in (ann, bob, off)] == ["MISS", "HIT", ""]
    assert ["Cache-Status" in visit(app).headers for app in (ann, bob)] == [False, True]
    assert [visit(app, "/", ANN).page for app in (ann, bob)] == [("BYPASS", "ann ann"), ("BYPASS", "bob ann")]


def test_url_defaults_and_preprocessors_keep_pages_apart(make_app: MakeApp) -> None:
    app, cache = make_app()

    @app.url_defaults
    def add(endpoint: str, values: dict[str, Any]) -> None:
        values.setdefault("lang", g.lang)

    @app.url_value_preprocessor
    def take(endpoint: str | None, values: dict[str, Any] | None) -> None:
        g.lang = (values or {}).pop("lang")

    @app.get("/<lang>/", defaults={"page": 1})
    @app.get("/<lang>/<int:page>")
    @cache.cached(60)
    def index(page: int) -> str:
        return f"{g.lang} {page} {url_for('index', page=2)}"

    said = [visit(app, path).page for path in ("/de/", "/en/", "/de/2", "/de/")]
    assert said == [("MISS", "de 1 /de/2"), ("MISS", "en 1 /en/2"), ("MISS", "de 2 /de/2"), ("HIT", "de 1 /de/2")]


def test_host_matching_keeps_hosts_apart(directory: Path) -> None:
    app = Flask("shop", host_matching=True, static_host="static.test")
    app.config["STALECACHE_DIR"] = directory
    cache = StaleCache(app)

    @app.get("/", host="<user>.test")
    @cache.cached(60)
    def index(user: str) -> str:
        return f"page of {user}"

    said = [visit(app, base_url=f"http://{user}.test").page for user in ("ann", "bob", "ann")]
    assert said == [("MISS", "page of ann"), ("MISS", "page of bob"), ("HIT", "page of ann")]


def test_a_host_that_is_not_trusted_never_gets_here(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.config["TRUSTED_HOSTS"] = ["localhost"]
    shown(link)(app, cache)
    assert visit(app, "/", {"Host": "evil.test"}).status == 400
    assert visit(app).word == "MISS"


@pytest.mark.parametrize(
    ("name", "value"),
    [("args", MultiDict({"a": "9"})), ("cookies", MultiDict({"a": "9"})), ("user_agent", "mine"), ("url", "http://mine/")],
)
def test_what_an_app_sets_on_a_request_is_what_it_gets(make_app: MakeApp, name: str, value: object) -> None:
    """Werkzeug's cached attributes can be set, which some apps do in a hook."""
    app, _ = make_app()
    seen: list[object] = []

    @app.before_request
    def replace() -> None:
        getattr(request, name)
        setattr(request, name, value)

    app.add_url_rule("/", "page", lambda: (seen.append(getattr(request, name) == value), "page")[1])
    visit(app, "/?a=1", ANN)
    assert seen == [True]


def test_a_session_without_flags_is_taken_to_be_changed_by_who_uses_it(make_app: MakeApp) -> None:
    class Bare(dict[str, Any]):
        """It has neither ``modified`` nor ``accessed``."""

    class BareInterface:
        null_session_class = NullSession

        def open_session(self, app: Flask, request: Request) -> Any:
            return Bare(user=request.cookies.get("session", "-"))

        def is_null_session(self, session: object) -> bool:
            return False

        def save_session(self, app: Flask, session: object, response: Response) -> None:
            """Do nothing: the session is made anew for each request."""

    def build(app: Flask, cache: StaleCache) -> None:
        app.session_interface = BareInterface()  # type: ignore[assignment]
        shown(lambda: f"for {session['user']}")(app, cache)

    assert play(make_app, build, NOBODY, {"Cookie": "session=ann"}, {"Cookie": "session=bob"}, NOBODY) == ["MISS"] * 4
