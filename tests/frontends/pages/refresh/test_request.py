"""The refresh of a page: the request that is made from the recipe, and refreshes that carry the visitor's fields."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pytest
import time_machine
from flask import (
    Blueprint,
    Flask,
    Request,
    Response,
    flash,
    g,
    get_flashed_messages,
    request,
    session,
    url_for,
)
from flask.sessions import SessionInterface, SessionMixin
from werkzeug.datastructures import CallbackDict

from flask_stalecache import StaleCache
from support.client import MakeApp, settle, unrecorded_environ, visit

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
from support.page_refreshes import MINUTE, WINDOWS, Origin, cached, stale

# -- what it sends -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_a_stale_page_is_renewed_behind(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin, workers: int) -> None:
    app, cache = make_app(REFRESH_WORKERS=workers)
    cached(app, cache, origin.view)
    stale(app, cache, clock)
    assert visit(app).page == ("HIT", "run 2")
    assert origin.runs == 2


def test_it_stands_for_a_visitor_without_anything(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    app, cache = make_app()
    cached(app, cache, origin.view)
    stale(app, cache, clock, "/", {"Cookie": "user=ann", "User-Agent": "ann", "X-User": "ann", "Accept-Language": "de"})
    first, again = origin.seen
    assert first["HTTP_COOKIE"] == "user=ann"
    fields = {name: value for name, value in again.items() if name.startswith(("HTTP_", "CONTENT_", "REMOTE_"))}
    assert fields == {
        "HTTP_HOST": "localhost", "HTTP_USER_AGENT": "flask-stalecache refresh", "REMOTE_ADDR": "192.0.2.1",
    }  # fmt: skip
    assert again["REQUEST_METHOD"] == "GET"


def test_it_asks_for_the_same_page(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    app, cache = make_app(IGNORED_PARAMETERS=["utm_*"])
    cached(app, cache, origin.view, "/<path:name>", vary=["Accept-Language"])
    where: dict[str, Any] = {"base_url": "https://shop.test:8443/root"}
    path = "/a%20b/%C3%BC?b=2&utm_source=x&a=1&b=1"
    headers = {"Accept-Language": "de-AT", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "x.test"}
    stale(app, cache, clock, path, headers, **where)
    first, again = origin.seen
    kept = (
        "wsgi.url_scheme", "HTTP_HOST", "SCRIPT_NAME", "PATH_INFO", "SERVER_NAME", "SERVER_PORT", "HTTP_ACCEPT_LANGUAGE",
        "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST",
    )  # fmt: skip
    assert {name: again[name] for name in kept} == {name: first[name] for name in kept}
    assert again["QUERY_STRING"] == "b=2&a=1&b=1"
    for name in ("RAW_URI", "REQUEST_URI"):
        assert again[name] == first[name].replace("utm_source=x&", "")
    assert visit(app, path, {"Accept-Language": "de-AT"}, **where).word == "MISS"
    assert visit(app, path, headers, **where).page == ("HIT", "run 2")


def test_a_head_hands_over_a_get(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    app, cache = make_app()
    cached(app, cache, origin.view)
    visit(app)
    clock.shift(MINUTE)
    assert visit(app, method="HEAD").word == "STALE"
    settle(app, cache)
    assert origin.seen[-1]["REQUEST_METHOD"] == "GET"
    assert visit(app).page == ("HIT", "run 2")


@pytest.mark.parametrize("fields", [{"Range": "bytes=0-1"}, {"If-None-Match": "*"}], ids=["range", "conditional"])
@pytest.mark.parametrize("policy", [{}, {"key": lambda: "all"}, {"ignore_session": True}], ids=["plain", "key", "ignore_session"])
def test_a_question_about_a_part_renews_the_whole(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin, fields: dict[str, str], policy: dict[str, Any]
) -> None:
    app, cache = make_app()
    met: list[set[str]] = []
    app.before_request(lambda: met.append({"HTTP_RANGE", "HTTP_IF_NONE_MATCH"} & set(unrecorded_environ())))
    cached(app, cache, origin.view, **policy)
    visit(app)
    clock.shift(MINUTE)
    visit(app, "/", fields)
    settle(app, cache)
    assert [len(names) for names in met] == [0, 1, 0]
    assert visit(app).page == ("HIT", "run 2")


def test_hooks_run_as_for_any_request(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    app, cache = make_app()
    ran: list[tuple[str, bool]] = []
    blueprint = Blueprint("shop", "shop")
    app.before_request(lambda: ran.append(("before", cache.refreshing)))
    blueprint.before_request(lambda: ran.append(("blueprint", cache.refreshing)))
    app.url_value_preprocessor(lambda endpoint, values: ran.append(("values", cache.refreshing)))

    @app.after_request
    def after(response: Response) -> Response:
        ran.append(("after", cache.refreshing))
        return response

    @app.teardown_request
    def teardown(error: BaseException | None) -> None:
        ran.append(("teardown", cache.refreshing))

    blueprint.add_url_rule("/", "page", cache.cached(**WINDOWS)(origin.view))  # type: ignore[arg-type]
    app.register_blueprint(blueprint)
    stale(app, cache, clock)
    order = ["values", "before", "blueprint", "after", "teardown"]
    assert [name for name, refreshing in ran if refreshing] == order
    assert [name for name, refreshing in ran if not refreshing] == order * 2


def test_refreshing_is_true_in_a_refresh_only(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    app, cache = make_app()
    told: list[bool] = []
    origin.answer = lambda: told.append(cache.refreshing) or "page"
    cached(app, cache, origin.view)
    assert cache.refreshing is False
    with app.app_context():
        assert cache.refreshing is False
    stale(app, cache, clock)
    assert told == [False, True]
    with app.test_request_context():
        assert cache.refreshing is False


def test_a_visitor_cannot_pose_as_a_refresh(make_app: MakeApp, origin: Origin) -> None:
    app, cache = make_app()
    origin.answer = lambda: str(cache.refreshing)
    cached(app, cache, origin.view)
    headers = {"User-Agent": "flask-stalecache refresh", "flask_stalecache.replay": "1", "Flask-Stalecache-Replay": "1"}
    assert visit(app, "/", headers).page == ("MISS", "False")


def test_g_is_new_and_the_request_is_the_apps_own_class(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    app, cache = make_app()

    class Mine(Request):
        shop = "mine"

    app.config.update(STALECACHE_DIR=app.config["STALECACHE_DIR"])
    other = Flask("shop")
    other.request_class = Mine
    other.config["STALECACHE_DIR"] = app.config["STALECACHE_DIR"]
    cache = StaleCache(other)

    def view() -> str:
        g.count = g.get("count", 0) + 1
        return f"{g.count} {request.shop} {url_for('page', _external=True)}"  # type: ignore[attr-defined]

    origin.answer = view
    cached(other, cache, origin.view)
    stale(other, cache, clock)
    assert visit(other).page == ("HIT", "1 mine http://localhost/")


def test_a_status_or_body_that_a_hook_makes_is_not_stored(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    app, cache = make_app()

    @app.after_request
    def spoil(response: Response) -> Response:
        if cache.refreshing:
            response.set_data("spoiled")
            response.status_code = 500
            response.headers["Cache-Control"] = "no-store"
        return response

    cached(app, cache, origin.view)
    stale(app, cache, clock)
    assert visit(app).page == ("HIT", "run 2")


# -- pages that carry their visitor ------------------------------------------------------------------------------------


BY_COOKIE = {"key": lambda: request.cookies.get("user", "")}

BY_SESSION = {"key": lambda: session.get("user", "")}


def test_a_page_with_a_key_callable_carries_its_visitor(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    app, cache = make_app()
    origin.answer = lambda: f"run {origin.runs} for {request.cookies.get('user')}"
    cached(app, cache, origin.view, "/", **BY_COOKIE)
    ann, bob = {"Cookie": "user=ann"}, {"Cookie": "user=bob"}
    assert [visit(app, "/", who).page for who in (ann, bob)] == [("MISS", "run 1 for ann"), ("MISS", "run 2 for bob")]
    clock.shift(MINUTE)
    assert visit(app, "/", ann).word == "STALE"
    settle(app, cache)
    assert visit(app, "/", ann).page == ("HIT", "run 3 for ann")
    assert visit(app, "/", bob).page == ("STALE", "run 2 for bob")


def test_what_it_carries_of_the_visitor_is_never_written(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    app, cache = make_app()
    cached(app, cache, origin.view, ignore_session=True)
    stale(app, cache, clock, "/", {"Cookie": "user=secret-of-ann", "X-Token": "secret-of-ann"})
    assert origin.seen[-1]["HTTP_COOKIE"] == "user=secret-of-ann"
    files = [file for file in app.config["STALECACHE_DIR"].rglob("*") if file.is_file()]
    assert files
    assert not any(b"secret-of-ann" in file.read_bytes() for file in files)


def test_a_page_without_them_does_not_carry_its_visitor(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    app, cache = make_app()
    cached(app, cache, origin.view)
    stale(app, cache, clock, "/", {"Cookie": "user=ann", "X-Token": "ann"})
    assert not {"HTTP_COOKIE", "HTTP_X_TOKEN"} & set(origin.seen[-1])


class ServerSide(CallbackDict[str, Any], SessionMixin):
    """A session that lives on the server, as Flask-Session's does."""

    modified = False

    def __init__(self, initial: dict[str, Any], sid: str) -> None:
        def on_update(self: ServerSide) -> None:
            self.modified = True

        super().__init__(initial, on_update)
        self.sid = sid


class ServerSideInterface(SessionInterface):
    """Keeps sessions in a dict, and counts its writes."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.saved: list[str] = []

    def open_session(self, app: Flask, request: Request) -> ServerSide:
        sid = request.cookies.get(self.get_cookie_name(app)) or uuid.uuid4().hex
        return ServerSide(dict(self.kept.get(sid, {})), sid)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        assert isinstance(session, ServerSide)
        if session.accessed:
            response.vary.add("Cookie")
        if not session.modified:
            return
        self.saved.append(session.sid)
        self.kept[session.sid] = dict(session)
        response.set_cookie(self.get_cookie_name(app), session.sid)


ANN = {"Cookie": "session=ann"}

# An interface of the app's own may know the visitor when it opens the session: only the developer can say that the key covers it.
CARRIES = [{"ignore_session": True}, {"key": lambda: "all", "ignore_session": True}, {**BY_SESSION, "ignore_session": True}]


@pytest.fixture
def server_side(make_app: MakeApp) -> tuple[Flask, StaleCache, ServerSideInterface]:
    app, cache = make_app(REFRESH_WORKERS=0)
    interface = app.session_interface = ServerSideInterface()
    interface.kept["ann"] = {"user": "ann"}
    return app, cache, interface


@pytest.mark.parametrize("policy", CARRIES, ids=["ignore_session", "key", "key-session"])
def test_a_refresh_does_not_eat_the_flash_message(
    server_side: tuple[Flask, StaleCache, ServerSideInterface],
    clock: time_machine.Traveller,
    origin: Origin,
    policy: dict[str, Any],
) -> None:
    """A page that shows messages is renewed behind a visitor's back: their message still waits for them."""
    app, cache, interface = server_side
    origin.answer = lambda: f"run {origin.runs} {get_flashed_messages()}"
    cached(app, cache, origin.view, "/", **policy)

    @app.post("/save")
    def save() -> str:
        flash("saved")
        return "ok"

    app.add_url_rule("/other", "other", lambda: str(get_flashed_messages()))
    assert visit(app, "/", ANN).page == ("MISS", "run 1 []")
    visit(app, "/save", ANN, method="POST")
    clock.shift(MINUTE)
    assert visit(app, "/", ANN).page == ("STALE", "run 1 []")
    assert interface.saved == ["ann"]
    assert visit(app, "/other", ANN).text == "['saved']"


@pytest.mark.grid
@pytest.mark.parametrize("policy", CARRIES, ids=["ignore_session", "key", "key-session"])
@pytest.mark.parametrize("where", ["before", "after", "view", "instead", "error"])
def test_a_refresh_changes_no_session(
    server_side: tuple[Flask, StaleCache, ServerSideInterface],
    clock: time_machine.Traveller,
    origin: Origin,
    policy: dict[str, Any],
    where: str,
) -> None:
    """Whoever changes it: a hook, the view, a hook that answers in the view's place, a view that raises."""
    app, cache, interface = server_side
    here = where

    def change(place: str) -> None:
        if cache.refreshing and place == here:
            session["seen"] = session.get("seen", 0) + 1

    @app.before_request
    def before() -> Any:
        change("before")
        change("instead")
        return "not the page" if cache.refreshing and here == "instead" else None

    @app.after_request
    def after(response: Response) -> Response:
        change("after")
        return response

    def answer() -> str:
        change("view")
        change("error")
        if cache.refreshing and here == "error":
            raise LookupError("down")
        return f"run {origin.runs}"

    origin.answer = answer
    cached(app, cache, origin.view, "/", **policy)
    stale(app, cache, clock, "/", ANN)
    assert interface.saved == []
    assert interface.kept == {"ann": {"user": "ann"}}


def test_a_refresh_that_unless_makes_live_changes_no_session(
    server_side: tuple[Flask, StaleCache, ServerSideInterface], clock: time_machine.Traveller, origin: Origin
) -> None:
    app, cache, interface = server_side
    origin.answer = lambda: session.update(seen=1) or "page" if cache.refreshing else "page"
    cached(app, cache, origin.view, ignore_session=True, unless=lambda: cache.refreshing)
    stale(app, cache, clock, "/", ANN)
    assert interface.saved == []
    assert interface.kept == {"ann": {"user": "ann"}}


def test_a_refresh_with_a_signed_cookie_session_sets_no_cookie_for_anybody(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin
) -> None:
    app, cache = make_app(REFRESH_WORKERS=0)
    sent: list[str | None] = []
    inner = app.wsgi_app

    def look(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            if "flask_stalecache.replay" in environ:
                sent.append(dict(headers).get("Set-Cookie"))
            return start_response(status, headers, exc_info)

        return inner(environ, start)

    app.wsgi_app = look  # type: ignore[method-assign]

    @app.before_request
    def count() -> None:
        session["visits"] = session.get("visits", 0) + 1

    cached(app, cache, origin.view, ignore_session=True)
    stale(app, cache, clock)
    assert sent == [None]
    assert visit(app).page == ("HIT", "run 2")


def test_a_session_that_tells_by_itself_is_believed(make_app: MakeApp, origin: Origin) -> None:
    """Flask-Session's class says ``self.modified = False`` in its ``__init__``, and inherits ``True`` from Flask's mixin."""

    class AsInFlaskSession(CallbackDict[str, Any], SessionMixin):
        def __init__(self, initial: dict[str, Any]) -> None:
            def on_update(self: AsInFlaskSession) -> None:
                self.modified = True

            super().__init__(initial, on_update)
            self.modified = False

    class Interface(ServerSideInterface):
        def open_session(self, app: Flask, request: Request) -> Any:
            return AsInFlaskSession({"user": request.cookies.get(self.get_cookie_name(app), "-")})

        def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
            """Do nothing: this test is not about saving."""

    app, cache = make_app()
    app.session_interface = Interface()
    origin.answer = lambda: f"for {session['user']}"
    cached(app, cache, origin.view)
    assert [visit(app, "/", who).page for who in ({}, {}, ANN)] == [("MISS", "for -"), ("HIT", "for -"), ("BYPASS", "for ann")]
