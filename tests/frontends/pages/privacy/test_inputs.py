"""Privacy: a view that reads request fields and cookies without naming them, anywhere in the app.

Covers ``frontends.observation.read_log``, ``frontends.pages.watching.request_recorder`` and ``frontends.pages.watching.watch``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import (
    Blueprint,
    Flask,
    Request,
    Response,
    abort,
    g,
    get_flashed_messages,
    render_template_string,
    request,
    session,
)
from flask.sessions import SessionMixin
from flask.views import MethodView
from werkzeug.datastructures import MultiDict
from werkzeug.routing import BaseConverter
from werkzeug.utils import cached_property

from flask_stalecache import StaleCache
from support.client import MakeApp, visit, words
from support.flask_gateway import signed
from support.privacy import ANN, ANN_AND_MORE, BOB, NOBODY, Build, Fields, Untold, UntoldInterface, as_member, play, shown, who

# -- rule 4: names -----------------------------------------------------------------------------------------------------


def by_subscript() -> str:
    try:
        return request.cookies["user"]
    except KeyError:
        return "-"


def by_format_map() -> str:
    try:
        return "{user}".format_map(request.cookies)
    except KeyError:
        return "-"


def header_by_subscript() -> str:
    try:
        return request.headers["X-User"]
    except KeyError:
        return "-"


#: Every way to read one name of a request, and a visitor who carries it, whose page nobody else may see.
NAMED: dict[str, tuple[Callable[[], object], Fields]] = {
    "cookies.get": (lambda: request.cookies.get("user"), {"Cookie": "user=ann"}),
    "cookies.get-default": (lambda: request.cookies.get("user", "-", str), {"Cookie": "a=b; user=ann"}),
    "cookies[]": (by_subscript, {"Cookie": "user=ann"}),
    "in-cookies": (lambda: "user" in request.cookies, {"Cookie": "user="}),
    "cookies.getlist": (lambda: request.cookies.getlist("user"), {"Cookie": "user=ann; user=bob"}),
    "cookies.get-key": (lambda: request.cookies.get(key="user"), {"Cookie": "user=ann"}),
    "cookie-quoted": (lambda: request.cookies.get("user"), {"Cookie": 'user="a\\054nn"'}),
    "cookie-umlaut": (lambda: request.cookies.get("süß"), {"Cookie": "süß=ann"}),
    "cookie-format_map": (by_format_map, {"Cookie": "user=ann"}),
    "cookie-template": (lambda: render_template_string("{{ request.cookies.user }}"), {"Cookie": "user=ann"}),
    "cookie-template-method": (lambda: render_template_string("{{ request.cookies.get('user') }}"), {"Cookie": "user=ann"}),
    "headers.get": (lambda: request.headers.get("X-User"), {"X-User": "ann"}),
    "headers.get-case": (lambda: request.headers.get("x-uSER"), {"X-User": "ann"}),
    "headers.get-underscore": (lambda: request.headers.get("X_User"), {"X-User": "ann"}),
    "headers.get-type": (lambda: request.headers.get("X-User", type=str), {"X-User": "ann"}),
    "headers.get-empty": (lambda: request.headers.get("X-User"), {"X-User": ""}),
    "headers[]": (header_by_subscript, {"X-User": "ann"}),
    "in-headers": (lambda: "X-User" in request.headers, {"X-User": "ann"}),
    "headers.getlist": (lambda: request.headers.getlist("X-User"), {"X-User": "ann"}),
    "headers.get_all": (lambda: request.headers.get_all("X-User"), {"X-User": "ann"}),
    "header-template": (lambda: render_template_string("{{ request.headers['X-User'] }}"), {"X-User": "ann"}),
    "cookie-field": (lambda: request.headers.get("Cookie"), {"Cookie": "user=ann"}),
    "content-type": (lambda: request.content_type, {"Content-Type": "text/x"}),
    "content-type-field": (lambda: request.headers.get("Content-Type"), {"Content-Type": "text/x"}),
    "mimetype": (lambda: request.mimetype, {"Content-Type": "text/x"}),
    "mimetype_params": (lambda: request.mimetype_params, {"Content-Type": "text/x; charset=x"}),
    "is_json": (lambda: request.is_json, {"Content-Type": "application/json"}),
    "get_json": (lambda: request.get_json(silent=True), {"Content-Type": "application/json"}),
    "user_agent": (lambda: request.user_agent.string, {"User-Agent": "ann"}),
    "cache_control": (lambda: request.cache_control.no_cache, {"Cache-Control": "no-cache"}),
    "pragma": (lambda: request.pragma.to_header(), {"Pragma": "no-cache"}),
    "date": (lambda: request.date, {"Date": "Tue, 15 Nov 1994 08:12:31 GMT"}),
    "referrer": (lambda: request.referrer, {"Referer": "http://ann.test/"}),
    "origin": (lambda: request.origin, {"Origin": "http://ann.test"}),
    "max_forwards": (lambda: request.max_forwards, {"Max-Forwards": "3"}),
    "content_encoding": (lambda: request.content_encoding, {"Content-Encoding": "x"}),
    "content_md5": (lambda: request.content_md5, {"Content-MD5": "x"}),
    "access_control_request_method": (lambda: request.access_control_request_method, {"Access-Control-Request-Method": "PUT"}),
    "access_control_request_headers": (
        lambda: request.access_control_request_headers,
        {"Access-Control-Request-Headers": "X-Ann"},
    ),
    "session.get": (lambda: session.get("user"), as_member("ann")),
    "in-session": (lambda: "user" in session, as_member("ann")),
    "bool-session": (lambda: bool(session), as_member("ann")),
    "dict-session": (lambda: dict(session), as_member("ann")),
    "session-template": (lambda: render_template_string("{{ session.user }}"), as_member("ann")),
    "session-cookie": (lambda: request.cookies.get("session"), as_member("ann")),
    "flashes": (lambda: get_flashed_messages(), {"Cookie": signed({"_flashes": [["message", "welcome"]]})}),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_page_is_shared_by_those_who_do_not_carry_what_it_read(make_app: MakeApp, name: str) -> None:
    read, member = NAMED[name]
    said = play(make_app, shown(lambda: f"{read()!s}"), NOBODY, NOBODY, member, NOBODY, member)
    assert said == ["MISS", "HIT", "BYPASS", "HIT", "BYPASS"]


@pytest.mark.grid
@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("where", ["view", "hook"])
def test_a_page_of_one_who_carries_what_it_read_is_not_stored(make_app: MakeApp, where: str, name: str) -> None:
    read, member = NAMED[name]
    if where == "view":
        build = shown(lambda: f"{read()!s}")
    else:

        def build(app: Flask, cache: StaleCache) -> None:
            @app.before_request
            def load() -> None:
                g.read = f"{read()!s}"

            shown(lambda: g.read)(app, cache)

    assert play(make_app, build, member, NOBODY, member, NOBODY) == ["MISS", "MISS", "BYPASS", "HIT"]


def test_two_members_never_see_each_other(make_app: MakeApp) -> None:
    """Whatever a page reads and whoever comes: no copy of one member is shown to another, and none to strangers."""
    build = shown(lambda: f"{request.cookies.get('user')} {request.headers.get('X-User')} {request.headers.get('X-More')}")
    assert play(make_app, build, ANN, BOB, NOBODY, ANN, ANN_AND_MORE, BOB, NOBODY)[-1] == "HIT"


def test_a_part_of_a_name_is_another_name(make_app: MakeApp) -> None:
    build = shown(lambda: f"for {request.cookies.get('user')}")
    others = [{"Cookie": "superuser=1"}, {"Cookie": "user2=1"}, {"Cookie": "a=user"}, {"Cookie": "USER=1"}]
    assert play(make_app, build, NOBODY, *others) == ["MISS"] + ["HIT"] * 4


def test_a_visitor_who_carries_other_names_may_fill(make_app: MakeApp) -> None:
    build = shown(lambda: f"for {request.cookies.get('user')}")
    assert play(make_app, build, {"Cookie": "theme=dark", "X-More": "1"}, NOBODY, ANN) == ["MISS", "HIT", "BYPASS"]


def test_what_chose_the_path_is_among_the_names(make_app: MakeApp) -> None:
    def view() -> str:
        if request.cookies.get("beta"):
            return f"beta for {request.headers.get('X-User')}"
        return "plain"

    beta = {"Cookie": "beta=1"}
    said = play(make_app, shown(view), ANN, NOBODY, beta, {**beta, "X-User": "ann"}, {**beta, "X-User": "bob"}, BOB)
    assert said == ["MISS", "HIT", "BYPASS", "BYPASS", "BYPASS", "HIT"]


def test_a_later_fill_replaces_the_names(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    reads = ["user", "theme"]
    app, cache = make_app()
    app.add_url_rule("/", "page", cache.cached(60, 0, 0)(lambda: f"{request.cookies.get(reads[0])}"))
    ann, dark = {"Cookie": "user=ann"}, {"Cookie": "theme=dark"}
    assert words(app, NOBODY, dark, ann) == ["MISS", "HIT", "BYPASS"]
    clock.shift(100)
    reads.pop(0)
    assert words(app, NOBODY, dark, ann) == ["EXPIRED", "BYPASS", "HIT"]


def test_vary_is_extended_by_the_names(make_app: MakeApp) -> None:
    def view() -> Response:
        session.get("a")
        read = f"{request.headers.get('X-User')} {request.headers.get('X-More')}"
        return Response(read, headers={"Vary": "Accept-Language"})

    app, cache = make_app()
    shown(view, vary=["Accept-Language"])(app, cache)
    for word in ("MISS", "HIT"):
        seen = visit(app)
        assert seen.word == word
        assert {name.strip().lower() for line in seen.headers.getlist("Vary") for name in line.split(",")} == {
            "accept-language", "cookie", "x-user", "x-more",
        }  # fmt: skip


def test_vary_is_extended_by_what_is_in_the_key(make_app: MakeApp) -> None:
    app, cache = make_app()
    shown(lambda: f"for {request.headers.get('X-User')}", vary=["X-User"])(app, cache)
    assert [visit(app, "/", ANN).headers.get("Vary") for _ in range(2)] == ["X-User", "X-User"]


def test_a_page_that_reads_nothing_has_no_vary(make_app: MakeApp) -> None:
    app, cache = make_app()
    shown(lambda: "page")(app, cache)
    assert ["Vary" in visit(app).headers for _ in range(2)] == [False, False]


def test_an_unused_session_is_not_a_name(make_app: MakeApp) -> None:
    assert play(make_app, shown(lambda: "page"), as_member("ann"), NOBODY, as_member("bob")) == ["MISS", "HIT", "HIT"]


def test_what_is_read_after_the_view_is_no_name(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        @app.after_request
        def compress(response: Response) -> Response:
            response.headers["X-Encoded"] = request.headers.get("Accept-Encoding", "-")
            return response

        shown(lambda: "page")(app, cache)

    assert play(make_app, build, {"Accept-Encoding": "gzip"}, {"Accept-Encoding": "br"}, NOBODY) == ["MISS", "HIT", "HIT"]


# -- rule 4: read from everywhere --------------------------------------------------------------------------------------


def in_context_processor(app: Flask, cache: StaleCache) -> None:
    app.context_processor(lambda: {"user": who()})
    shown(lambda: render_template_string("for {{ user }}"))(app, cache)


def in_template_global(app: Flask, cache: StaleCache) -> None:
    app.add_template_global(who, "user")
    shown(lambda: render_template_string("for {{ user() }}"))(app, cache)


def in_before_request(app: Flask, cache: StaleCache) -> None:
    @app.before_request
    def load() -> None:
        g.user = who()

    shown(lambda: f"for {g.user}")(app, cache)


def in_blueprint_hook(app: Flask, cache: StaleCache) -> None:
    blueprint = Blueprint("shop", "shop")

    @blueprint.before_app_request
    def load() -> None:
        g.user = who()

    blueprint.add_url_rule("/", "page", cache.cached(60)(lambda: f"for {g.user}"))
    app.register_blueprint(blueprint)


def in_url_value_preprocessor(app: Flask, cache: StaleCache) -> None:
    @app.url_value_preprocessor
    def load(endpoint: str | None, values: dict[str, Any] | None) -> None:
        g.user = who()

    shown(lambda: f"for {g.user}")(app, cache)


def in_signal(app: Flask, cache: StaleCache) -> None:
    from flask import request_started

    def load(sender: Flask) -> None:
        g.user = who()

    request_started.connect(load, app, weak=False)
    shown(lambda: f"for {g.user}")(app, cache)


def in_session_interface(app: Flask, cache: StaleCache) -> None:
    class Interface(UntoldInterface):
        def open_session(self, app: Flask, request: Request) -> SessionMixin:
            g.user = request.headers.get("X-User") or request.cookies.get("user") or "-"
            return Untold()

    app.session_interface = Interface()
    shown(lambda: f"for {g.user}")(app, cache)


def in_async_view(app: Flask, cache: StaleCache) -> None:
    async def view() -> str:
        return f"for {who()}"

    shown(view)(app, cache)


def in_method_view(app: Flask, cache: StaleCache) -> None:
    class Page(MethodView):
        @cache.cached(60)
        def get(self) -> str:
            return f"for {who()}"

    app.add_url_rule("/", view_func=Page.as_view("page"))


def in_decorated_method_view(app: Flask, cache: StaleCache) -> None:
    class Page(MethodView):
        decorators = [cache.cached(60)]  # noqa: RUF012

        def get(self) -> str:
            return f"for {who()}"

    app.add_url_rule("/", view_func=Page.as_view("page"))


def in_decorator_above(app: Flask, cache: StaleCache) -> None:
    cached = cache.cached(60)(lambda: f"for {g.user}")

    def view() -> Any:
        g.user = who()
        return cached()

    app.add_url_rule("/", "page", view)


def in_thread_of_the_view(app: Flask, cache: StaleCache) -> None:
    from flask import copy_current_request_context

    def view() -> str:
        said: list[str] = []
        thread = threading.Thread(target=copy_current_request_context(lambda: said.append(who())))
        thread.start()
        thread.join()
        return f"for {said}"

    shown(view)(app, cache)


EVERYWHERE: list[Build] = [
    in_context_processor, in_template_global, in_before_request, in_blueprint_hook, in_url_value_preprocessor, in_signal,
    in_session_interface, in_async_view, in_method_view, in_decorated_method_view, in_decorator_above,
    in_thread_of_the_view,
]  # fmt: skip


@pytest.mark.parametrize("build", EVERYWHERE)
def test_names_are_seen_wherever_they_are_read(make_app: MakeApp, build: Build) -> None:
    """No member's page is stored, so that the first stranger finds none."""
    said = play(make_app, build, ANN, BOB, NOBODY, ANN, BOB, NOBODY)
    assert said == ["MISS", "MISS", "MISS", "BYPASS", "BYPASS", "HIT"]


def test_an_error_handler_that_reads_is_seen(make_app: MakeApp) -> None:
    """Its page is stored, since the status is listed. An error page that does not come from the cache has no status word."""

    def build(app: Flask, cache: StaleCache) -> None:
        app.register_error_handler(404, lambda error: (f"not for {who()}", 404))
        shown(lambda: abort(404), statuses={404: 60})(app, cache)

    assert play(make_app, build, NOBODY, ANN, BOB, NOBODY)[::3] == ["MISS", "HIT"]
    assert "HIT" not in play(make_app, build, {**ANN, "Host": "x"}, {**BOB, "Host": "x"})


def test_an_error_page_of_a_status_that_is_not_listed_is_everybodys_own(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        app.register_error_handler(403, lambda error: (f"{error.description} {request.environ['HTTP_X_USER']}", 403))
        shown(lambda: abort(403, "not for"))(app, cache)

    assert "HIT" not in play(make_app, build, {"X-User": "ann"}, {"X-User": "bob"}, {"X-User": "ann"})


def test_a_url_converter_that_reads_is_seen(make_app: MakeApp) -> None:
    class Mine(BaseConverter):
        def to_python(self, value: str) -> str:
            return f"{value} for {who()}"

    def build(app: Flask, cache: StaleCache) -> None:
        app.url_map.converters["mine"] = Mine
        app.add_url_rule("/<mine:page>", "page", cache.cached(60)(lambda page: page))

    assert play(make_app, build, NOBODY, ANN, BOB, NOBODY, path="/x") == ["MISS", "BYPASS", "BYPASS", "HIT"]


def in_init(cls: type[Request]) -> type[Request]:
    class Mine(cls):  # type: ignore[misc, valid-type]
        def __init__(self, environ: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            super().__init__(environ, *args, **kwargs)
            self.user = self.headers.get("X-User") or self.cookies.get("user") or "-"

    return Mine


def in_cached_property(cls: type[Request]) -> type[Request]:
    class Mine(cls):  # type: ignore[misc, valid-type]
        @cached_property
        def user(self) -> str:
            return self.headers.get("X-User") or self.cookies.get("user") or "-"

    return Mine


def in_overridden_attribute(cls: type[Request]) -> type[Request]:
    class Mine(cls):  # type: ignore[misc, valid-type]
        @cached_property
        def accept_languages(self) -> Any:
            return self.headers.get("X-User") or self.cookies.get("user") or "-"

        @property
        def user(self) -> str:
            return str(self.accept_languages)

    return Mine


def in_overridden_cookies(cls: type[Request]) -> type[Request]:
    class Mine(cls):  # type: ignore[misc, valid-type]
        @cached_property
        def cookies(self) -> Any:
            return MultiDict({"user": self.headers.get("X-User") or super().cookies.get("user") or "-"})

        @property
        def user(self) -> str:
            return str(self.cookies["user"])

    return Mine


@pytest.mark.parametrize("make", [in_init, in_cached_property, in_overridden_attribute, in_overridden_cookies])
@pytest.mark.parametrize("early", [False, True], ids=["view", "hook-first"])
def test_a_request_class_of_the_apps_own_is_seen_through(
    directory: Path, make: Callable[[type[Request]], type[Request]], early: bool
) -> None:
    def made(enabled: bool) -> Flask:
        app = Flask("shop")
        app.request_class = make(Request)
        app.config.update(STALECACHE_DIR=directory, STALECACHE_ENABLED=enabled)
        cache = StaleCache(app)
        if early:
            app.before_request(lambda: setattr(g, "user", request.user))  # type: ignore[attr-defined]
        shown(lambda: f"for {request.user}")(app, cache)  # type: ignore[attr-defined]
        return app

    app, plain = made(True), made(False)
    said = []
    for fields in (NOBODY, ANN, {"X-User": "bob"}, {"Cookie": "user=bob"}, NOBODY):
        seen = visit(app, "/", fields)
        assert seen.text == visit(plain, "/", fields).text
        said.append(seen.word)
    assert said[0] == "MISS"
    assert said[1:4] == ["BYPASS"] * 3


def test_a_request_class_that_can_change_its_cookies_is_seen_through(directory: Path) -> None:
    class Mine(Request):
        dict_storage_class = MultiDict  # type: ignore[assignment]

    app = Flask("shop")
    app.request_class = Mine
    app.config["STALECACHE_DIR"] = directory
    cache = StaleCache(app)
    shown(lambda: f"for {request.cookies.pop('user', '-')}")(app, cache)
    assert [visit(app, "/", who).text for who in (NOBODY, ANN, BOB, NOBODY)] == ["for -", "for ann", "for bob", "for -"]


@pytest.mark.parametrize(
    "spoil",
    [lambda app: setattr(app, "request_class", Request), lambda app: setattr(app, "request_class", in_cached_property(Request))],
    ids=["plain", "own"],
)
def test_a_request_class_replaced_after_init_app_is_live_and_logged_once(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, spoil: Callable[[Flask], None]
) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        spoil(app)
        shown(lambda: f"for {request.cookies.get('user')}")(app, cache)

    assert play(make_app, build, ANN, BOB, NOBODY, NOBODY) == ["BYPASS"] * 4
    assert len([record for record in caplog.records if "request_class" in record.getMessage()]) == 1
