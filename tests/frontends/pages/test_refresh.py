"""A refresh of a page: a new request through the whole app, made from the recipe, that stands for a visitor without cookies."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import time_machine
from flask import (
    Blueprint,
    Flask,
    Request,
    Response,
    abort,
    flash,
    g,
    get_flashed_messages,
    make_response,
    redirect,
    request,
    session,
    url_for,
)
from flask.sessions import SessionInterface, SessionMixin
from werkzeug.datastructures import CallbackDict
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_stalecache import StaleCache
from support.client import MakeApp, settle, visit

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

MINUTE = 61
#: Fresh for a minute, then stale for ten; no jitter, so that a test knows the moment.
WINDOWS = {"max_age": 60, "stale_while_revalidate": 600, "stale_if_error": 6000, "jitter": 0}


class Origin:
    """What the view under test answers, and what it saw."""

    def __init__(self) -> None:
        self.runs = 0
        self.fails: Exception | None = None
        self.answer: Callable[[], Any] | None = None
        self.seen: list[dict[str, Any]] = []

    def view(self, **_: object) -> Any:
        self.runs += 1
        self.seen.append({name: value for name, value in request.environ.items() if isinstance(value, str)})
        if self.fails is not None:
            raise self.fails
        return f"run {self.runs}" if self.answer is None else self.answer()


@pytest.fixture
def origin() -> Origin:
    return Origin()


def cached(app: Flask, cache: StaleCache, view: Callable[..., Any], path: str = "/", **policy: Any) -> None:
    app.add_url_rule(path, "page", cache.cached(**{**WINDOWS, **policy})(view))


def stale(app: Flask, cache: StaleCache, clock: time_machine.Traveller, path: str = "/", *args: Any, **options: Any) -> None:
    """Fill a page, let it get stale, and let the visitor come whose request hands over the refresh; wait for that."""
    assert visit(app, path, *args, **options).word == "MISS"
    clock.shift(MINUTE)
    assert visit(app, path, *args, **options).word == "STALE"
    settle(app, cache)


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
        "HTTP_HOST": "localhost", "HTTP_USER_AGENT": "flask-stalecache refresh", "REMOTE_ADDR": "127.0.0.1",
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
    app.before_request(lambda: met.append({"HTTP_RANGE", "HTTP_IF_NONE_MATCH"} & set(request.environ)))
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


# -- what counts -------------------------------------------------------------------------------------------------------


def refused(app: Flask, path: str = "/") -> list[str]:
    return [visit(app, path).word for _ in range(3)]


@pytest.mark.parametrize(
    "instead",
    [
        lambda: redirect("/login"),
        lambda: ("please log in", 200),
        lambda: abort(403),
        lambda: ("busy", 503),
    ],
    ids=["redirect", "page", "abort", "busy"],
)
def test_what_a_hook_answers_in_the_views_place_is_never_stored(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin, instead: Callable[[], Any]
) -> None:
    """It counts as a failure: the copy stays, and the next try waits."""
    app, cache = make_app(REFRESH_BACKOFF=(10, 100))
    app.before_request(lambda: instead() if cache.refreshing else None)
    cached(app, cache, origin.view)
    stale(app, cache, clock)
    assert [visit(app).page for _ in range(3)] == [("UPDATING", "run 1")] * 3
    assert origin.runs == 1
    clock.shift(20)
    assert refused(app) == ["STALE", "UPDATING", "UPDATING"]


def test_a_hook_that_wants_a_login_leaves_the_copy(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    """Flask's tutorial turned round: the whole site is for members, whose pages are not stored; nothing breaks."""
    app, cache = make_app()
    app.before_request(lambda: None if request.cookies.get("user") else redirect("/login"))
    cached(app, cache, origin.view)
    for user in ("ann", "bob", "ann"):
        seen = visit(app, "/", {"Cookie": f"user={user}"})
        assert seen.word == "MISS"
    assert visit(app).status == 302
    clock.shift(MINUTE)
    assert visit(app, "/", {"Cookie": "user=bob"}).page == ("MISS", "run 4")


def test_an_app_that_sees_another_page_in_it_stores_nothing(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    """The key is made anew in the refresh; here it differs, since a middleware changes what is in it."""
    app, cache = make_app(REFRESH_BACKOFF=(10, 100))
    inner = app.wsgi_app

    def with_language(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if "flask-stalecache" in environ.get("HTTP_USER_AGENT", ""):
            environ["HTTP_ACCEPT_LANGUAGE"] = "xx"
        return inner(environ, start_response)

    app.wsgi_app = with_language  # type: ignore[method-assign]
    origin.answer = lambda: f"in {request.headers.get('Accept-Language')}"
    cached(app, cache, origin.view, vary=["Accept-Language"])
    stale(app, cache, clock, "/", {"Accept-Language": "de"})
    assert visit(app, "/", {"Accept-Language": "de"}).page == ("UPDATING", "in de")
    assert visit(app, "/", {"Accept-Language": "xx"}).page == ("MISS", "in xx")
    assert any("refresh" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("kind", ["cookie", "no-store", "private", "session", "stream", "404", "redirect"])
def test_a_page_that_can_no_longer_be_stored_is_dropped(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin, kind: str
) -> None:
    def answer() -> Any:
        response = Response("for one only")
        if kind == "cookie":
            response.set_cookie("user", "ann")
        elif kind == "session":
            session["a"] = 1
        elif kind == "stream":
            return iter(["for one only"])
        elif kind == "404":
            abort(404)
        elif kind == "redirect":
            return redirect("/x")
        else:
            response.headers["Cache-Control"] = kind
        return response

    app, cache = make_app()
    cached(app, cache, origin.view)
    visit(app)
    origin.answer = answer
    clock.shift(MINUTE)
    assert visit(app).page == ("STALE", "run 1")
    settle(app, cache)
    origin.answer = None
    assert visit(app).page == ("MISS", "run 3")
    assert visit(app).page == ("HIT", "run 3")


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("raised", [False, True], ids=["returned", "raised"])
def test_a_listed_status_replaces_the_page(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin, status: int, raised: bool
) -> None:
    app, cache = make_app()
    app.register_error_handler(status, lambda error: ("gone", status))
    cached(app, cache, origin.view, statuses={404: 60, 410: 60})
    visit(app)
    origin.answer = lambda: abort(status) if raised else ("gone", status)
    clock.shift(MINUTE)
    assert visit(app).page == ("STALE", "run 1")
    settle(app, cache)
    after = visit(app)
    assert (after.page, after.status) == (("HIT", "gone"), status)


def test_a_page_that_turns_personal_keeps_its_copy_and_backs_off(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin
) -> None:
    """It begins to read User-Agent, which every refresh carries."""
    app, cache = make_app(REFRESH_BACKOFF=(10, 100))
    cached(app, cache, origin.view)
    visit(app)
    origin.answer = lambda: f"for {request.headers.get('User-Agent')}"
    clock.shift(MINUTE)
    visit(app)
    settle(app, cache)
    assert visit(app).page == ("UPDATING", "run 1")


# -- failure -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        LookupError("the third party is down"),
        500,
        502,
        503,
        504,
        "abort",
    ],
)
def test_a_failed_refresh_keeps_the_copy(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin, failure: Exception | int | str
) -> None:
    app, cache = make_app(REFRESH_BACKOFF=(10, 100))
    cached(app, cache, origin.view)
    visit(app)
    if isinstance(failure, Exception):
        origin.fails = failure
    else:
        origin.answer = lambda: abort(503) if failure == "abort" else ("broken", failure)
    clock.shift(MINUTE)
    assert visit(app).page == ("STALE", "run 1")
    settle(app, cache)
    assert visit(app).page == ("UPDATING", "run 1")
    assert origin.runs == 2
    origin.fails = origin.answer = None
    clock.shift(13)
    assert visit(app).page == ("STALE", "run 1")
    settle(app, cache)
    assert visit(app).page == ("HIT", "run 3")


def test_the_pause_after_failures_doubles_up_to_the_longest(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin
) -> None:
    """Each pause is between once and 1.25 times 4, 8, 16, 20, 20 … seconds."""
    app, cache = make_app(REFRESH_BACKOFF=(4, 20), REFRESH_WORKERS=0)
    cached(app, cache, origin.view, stale_while_revalidate=6000)
    visit(app)
    origin.fails = LookupError("down")
    clock.shift(MINUTE)
    assert visit(app).word == "STALE"
    for pause in (4, 8, 16, 20, 20):
        runs = origin.runs
        clock.shift(pause - 0.01)
        assert visit(app).word == "UPDATING"
        assert origin.runs == runs
        clock.shift(pause * 0.25 + 0.02)
        assert visit(app).word == "STALE"
        assert origin.runs == runs + 1


def test_a_good_refresh_ends_the_doubling(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    app, cache = make_app(REFRESH_BACKOFF=(4, 1000), REFRESH_WORKERS=0)
    cached(app, cache, origin.view, stale_while_revalidate=6000)
    visit(app)
    for _ in range(2):
        origin.fails = LookupError("down")
        clock.shift(MINUTE)
        assert visit(app).word == "STALE"
        assert visit(app).word == "UPDATING"
        origin.fails = None
        clock.shift(5.1)
        assert visit(app).word == "STALE"
        assert visit(app).word == "HIT"


def test_the_back_off_holds_for_other_processes(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    """Two apps on one directory stand for two workers."""
    apps = [make_app(REFRESH_BACKOFF=(10, 100), REFRESH_WORKERS=0) for _ in range(2)]
    for app, cache in apps:
        cached(app, cache, origin.view)
    visit(apps[0][0])
    origin.fails = LookupError("down")
    clock.shift(MINUTE)
    assert visit(apps[0][0]).word == "STALE"
    assert [visit(app).page for app, _ in apps] == [("UPDATING", "run 1")] * 2
    assert origin.runs == 2


def test_a_failed_refresh_is_logged_with_its_page_and_why(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    app, cache = make_app()
    cached(app, cache, origin.view, "/rates")
    visit(app, "/rates")
    origin.fails = LookupError("the third party is down")
    clock.shift(MINUTE)
    visit(app, "/rates")
    settle(app, cache)
    ours = [record for record in caplog.records if record.name == "flask_stalecache"]
    assert len(ours) == 1
    assert "/rates" in ours[0].getMessage()
    assert ours[0].exc_info is not None
    assert "the third party is down" in str(ours[0].exc_info[1])


def test_testing_apps_that_propagate_exceptions_refresh_too(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin
) -> None:
    app, cache = make_app(REFRESH_WORKERS=0, REFRESH_BACKOFF=(10, 100))
    app.testing = True
    cached(app, cache, origin.view)
    visit(app)
    origin.fails = LookupError("down")
    clock.shift(MINUTE)
    assert [visit(app).word for _ in range(2)] == ["STALE", "UPDATING"]


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
CARRIES = [{"ignore_session": True}, {"key": lambda: "all", "ignore_session": True}, BY_SESSION]


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
            """It is not about that."""

    app, cache = make_app()
    app.session_interface = Interface()
    origin.answer = lambda: f"for {session['user']}"
    cached(app, cache, origin.view)
    assert [visit(app, "/", who).page for who in ({}, {}, ANN)] == [("MISS", "for -"), ("HIT", "for -"), ("BYPASS", "for ann")]


# -- in all surroundings -----------------------------------------------------------------------------------------------


def outside(app: Flask) -> None:
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1, x_port=1, x_prefix=1)  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "fields",
    [
        {"X-Forwarded-For": "198.51.100.1", "X-Forwarded-Proto": "https"},
        {"X-Forwarded-Host": "shop.test", "X-Forwarded-Proto": "https"},
        {"X-Forwarded-Host": "shop.test", "X-Forwarded-Port": "8443", "X-Forwarded-Proto": "https"},
        {"X-Forwarded-Host": "shop.test", "X-Forwarded-Prefix": "/shop"},
        {"X-Forwarded-Host": "evil.test, shop.test", "X-Forwarded-Proto": "http, https"},
    ],
)
def test_behind_proxy_fix(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin, fields: dict[str, str]) -> None:
    app, cache = make_app()
    outside(app)
    origin.answer = lambda: f"run {origin.runs} {url_for('page', _external=True)}"
    cached(app, cache, origin.view)
    visit(app, "/", fields)
    link = visit(app, "/", fields).text.partition(" 1 ")[2]
    clock.shift(MINUTE)
    assert visit(app, "/", fields).word == "STALE"
    settle(app, cache)
    assert visit(app, "/", fields).page == ("HIT", f"run 2 {link}")


@pytest.mark.parametrize("root", ["/shop", "/a/b"])
def test_mounted_by_a_dispatcher_around_the_app(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin, root: str
) -> None:
    app, cache = make_app()
    origin.answer = lambda: f"run {origin.runs} {url_for('page', _external=True)}"
    cached(app, cache, origin.view, "/x")
    site = Flask("site")
    site.wsgi_app = DispatcherMiddleware(site.wsgi_app, {root: app})  # type: ignore[method-assign]
    path = f"{root}/x"
    assert visit(site, path).page == ("MISS", f"run 1 http://localhost{path}")
    clock.shift(MINUTE)
    assert visit(site, path).word == "STALE"
    settle(app, cache)
    assert visit(site, path).page == ("HIT", f"run 2 http://localhost{path}")


def not_yet(make_app: MakeApp) -> tuple[Flask, StaleCache]:
    """An app whose cache is not set up yet."""
    app = Flask("shop")
    app.config["STALECACHE_DIR"] = make_app()[0].config["STALECACHE_DIR"]
    return app, StaleCache()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["dispatcher", "proxy"])
def test_mounted_by_the_apps_own_wsgi_app(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin, when: str, kind: str
) -> None:
    """The well-known ``app.wsgi_app = DispatcherMiddleware(...)``, before ``init_app`` or after: a refresh comes in through it."""
    app, cache = not_yet(make_app)
    if when == "after":
        cache.init_app(app)
    if kind == "proxy":
        outside(app)
    else:
        app.wsgi_app = DispatcherMiddleware(Response("nothing here", 404), {"/shop": app.wsgi_app})  # type: ignore[method-assign]
    if when == "before":
        cache.init_app(app)
    origin.answer = lambda: f"run {origin.runs} {url_for('page', _external=True)}"
    cached(app, cache, origin.view, "/x")
    path, fields = ("/shop/x", {}) if kind == "dispatcher" else ("/x", {"X-Forwarded-Prefix": "/shop"})
    assert visit(app, path, fields).page == ("MISS", "run 1 http://localhost/shop/x")
    clock.shift(MINUTE)
    assert visit(app, path, fields).word == "STALE"
    settle(app, cache)
    assert visit(app, path, fields).page == ("HIT", "run 2 http://localhost/shop/x")


def test_mounted_twice(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    """One app under two roots, through its own ``wsgi_app``."""
    app, cache = make_app()
    origin.answer = lambda: f"run {origin.runs} {url_for('page', _external=True)}"
    cached(app, cache, origin.view, "/x")
    inner = app.wsgi_app
    app.wsgi_app = DispatcherMiddleware(inner, {"/a": inner, "/b": inner})  # type: ignore[method-assign]
    paths = ("/a/x", "/b/x", "/x")
    for path in paths:
        assert visit(app, path).text.endswith(f" http://localhost{path}")
    clock.shift(MINUTE)
    assert [visit(app, path).word for path in paths] == ["STALE"] * 3
    settle(app, cache)
    for path in paths:
        seen = visit(app, path)
        assert (seen.word, seen.text.split()[2]) == ("HIT", f"http://localhost{path}")
    assert origin.runs == 6


def test_a_script_name_from_the_server(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    app, cache = make_app()
    origin.answer = lambda: f"run {origin.runs} {url_for('page')}"
    cached(app, cache, origin.view, "/x")
    app.config["APPLICATION_ROOT"] = "/shop"
    stale(app, cache, clock, "/x", base_url="http://localhost/shop")
    assert visit(app, "/x", base_url="http://localhost/shop").page == ("HIT", "run 2 /shop/x")


def generating(inner: WSGIApplication) -> WSGIApplication:
    """A middleware that is a generator: nothing of it runs before the first chunk is asked for."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        iterable = inner(environ, start_response)
        try:
            yield from iterable
        finally:
            if hasattr(iterable, "close"):
                iterable.close()

    return app


def listing(inner: WSGIApplication) -> WSGIApplication:
    """A middleware that swallows the body and answers with a list."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        iterable = inner(environ, start_response)
        try:
            return [b"".join(iterable)]
        finally:
            if hasattr(iterable, "close"):
                iterable.close()

    return app


@pytest.mark.parametrize("middleware", [generating, listing])
@pytest.mark.parametrize("when", ["before", "after"])
def test_middleware_around_the_app(
    clock: time_machine.Traveller,
    origin: Origin,
    middleware: Callable[[WSGIApplication], WSGIApplication],
    when: str,
    make_app: MakeApp,
) -> None:
    """Added before or after ``init_app``."""
    directory = make_app()[0].config["STALECACHE_DIR"]
    app = Flask("shop")
    app.config["STALECACHE_DIR"] = directory
    cache = StaleCache()
    if when == "before":
        app.wsgi_app = middleware(app.wsgi_app)  # type: ignore[method-assign, assignment]
    cache.init_app(app)
    if when == "after":
        app.wsgi_app = middleware(app.wsgi_app)  # type: ignore[method-assign, assignment]
    cached(app, cache, origin.view)
    stale(app, cache, clock)
    assert visit(app).page == ("HIT", "run 2")


@pytest.mark.parametrize("moment", ["before", "after", "close"])
def test_middleware_that_raises(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is the refresh's own affair: what the view has answered is stored, else the copy stays."""
    caplog.set_level(logging.CRITICAL, "flask_stalecache.none")
    app, cache = make_app(REFRESH_BACKOFF=(10, 100))
    inner = app.wsgi_app

    class Closing:
        def __init__(self, iterable: Iterable[bytes]) -> None:
            self.iterable = iterable

        def __iter__(self) -> Iterator[bytes]:
            return iter(self.iterable)

        def close(self) -> None:
            raise LookupError("the middleware is broken")

    def broken(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        refreshing = "flask_stalecache.replay" in environ
        if refreshing and moment == "before":
            raise LookupError("the middleware is broken")
        iterable = inner(environ, start_response)
        if refreshing and moment == "after":
            raise LookupError("the middleware is broken")
        return Closing(iterable) if refreshing and moment == "close" else iterable

    app.wsgi_app = broken  # type: ignore[method-assign]
    cached(app, cache, origin.view)
    stale(app, cache, clock)
    expected = ("UPDATING", "run 1") if moment == "before" else ("HIT", "run 2")
    assert visit(app).page == expected


def test_middleware_that_answers_itself_stores_nothing(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    app, cache = make_app(REFRESH_BACKOFF=(10, 100))
    inner = app.wsgi_app
    maintenance = Response("maintenance")

    def closed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return (maintenance if "flask_stalecache.replay" in environ else inner)(environ, start_response)

    app.wsgi_app = closed  # type: ignore[method-assign]
    cached(app, cache, origin.view)
    stale(app, cache, clock)
    assert visit(app).page == ("UPDATING", "run 1")


def test_the_response_of_a_refresh_is_closed(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    app, cache = make_app()
    closed: list[int] = []

    def answer() -> Response:
        response = Response(f"run {origin.runs}")
        response.call_on_close(lambda run=origin.runs: closed.append(run))
        return response

    origin.answer = answer
    cached(app, cache, origin.view)
    stale(app, cache, clock)
    assert closed == [1, 2]


def test_a_cached_view_called_by_the_refreshed_one(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    """It is not taken for the page that is being renewed: its own copy is fresh, and serves."""
    app, cache = make_app()
    inner = cache.cached(600, jitter=0)(origin.view)
    runs: list[int] = []

    def outer() -> str:
        runs.append(1)
        return f"{len(runs)}: {make_response(inner()).get_data(as_text=True)}"

    cached(app, cache, outer)
    stale(app, cache, clock)
    assert visit(app).page == ("HIT", "2: run 1")
    assert (len(runs), origin.runs) == (2, 1)


def test_async_views_are_refreshed(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    async def view() -> Any:
        return origin.view()

    app, cache = make_app()
    cached(app, cache, view)
    stale(app, cache, clock)
    assert visit(app).page == ("HIT", "run 2")


# -- the queue ---------------------------------------------------------------------------------------------------------


def test_a_full_queue_drops_the_refresh_and_counts_it(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    app, cache = make_app(REFRESH_QUEUE=0)
    cached(app, cache, origin.view)
    visit(app)
    clock.shift(MINUTE)
    for dropped in (1, 2):
        assert visit(app).page == ("STALE", "run 1")
        assert app.extensions["stalecache"].counters.as_dict()["refreshes_dropped"] == dropped
    settle(app, cache)
    assert origin.runs == 1


def test_a_queue_holds_as_many_as_it_says(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    """One runs, one waits, the third is dropped; its page is there, and the next visitor hands it over again."""
    running, go_on = threading.Event(), threading.Event()

    def answer() -> str:
        if cache.refreshing:
            running.set()
            assert go_on.wait(10)
        return f"{request.path} run {origin.runs}"

    origin.answer = answer
    app, cache = make_app(REFRESH_QUEUE=1, REFRESH_WORKERS=1)
    cached(app, cache, origin.view, "/<name>")
    for path in ("/a", "/b", "/c"):
        visit(app, path)
    clock.shift(MINUTE)
    assert visit(app, "/a").word == "STALE"
    assert running.wait(10)
    assert [visit(app, path).word for path in ("/b", "/c", "/a", "/b", "/c")] == ["STALE", "STALE", "UPDATING", "UPDATING", "STALE"]
    assert app.extensions["stalecache"].counters.as_dict()["refreshes_dropped"] == 2
    go_on.set()
    settle(app, cache)
    assert [visit(app, path).word for path in ("/a", "/b", "/c")] == ["HIT", "HIT", "STALE"]
    settle(app, cache)


def test_drain_says_whether_all_is_done(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    running, go_on = threading.Event(), threading.Event()

    def answer() -> str:
        if cache.refreshing:
            running.set()
            assert go_on.wait(10)
        return f"run {origin.runs}"

    origin.answer = answer
    app, cache = make_app()
    cached(app, cache, origin.view)
    with app.app_context():
        assert cache.drain(0) is True
    visit(app)
    clock.shift(MINUTE)
    assert visit(app).word == "STALE"
    assert running.wait(10)
    with app.app_context():
        assert cache.drain(0.01) is False
        assert visit(app).page == ("UPDATING", "run 1")
        go_on.set()
        assert cache.drain() is True
        assert cache.drain(0) is True
    assert visit(app).page == ("HIT", "run 2")


def test_one_refresh_whoever_asks_meanwhile(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    """Two apps on one directory stand for two workers: the second one's refresh finds the lock taken and leaves it at that."""
    running, go_on = threading.Event(), threading.Event()
    apps = [make_app() for _ in range(2)]

    def answer() -> str:
        if any(cache.refreshing for _, cache in apps):
            running.set()
            assert go_on.wait(10)
        return f"run {origin.runs}"

    origin.answer = answer
    for app, cache in apps:
        cached(app, cache, origin.view)
    visit(apps[0][0])
    clock.shift(MINUTE)
    assert visit(apps[0][0]).word == "STALE"
    assert running.wait(10)
    assert visit(apps[1][0]).page == ("STALE", "run 1")
    settle(*apps[1])
    assert origin.runs == 2
    go_on.set()
    settle(*apps[0])
    assert [visit(app).page for app, _ in apps] == [("HIT", "run 2")] * 2


def test_a_refresh_that_waited_heeds_a_back_off(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    """Two apps on one directory stand for two workers: while the first one's refresh waits for a thread, the second one's fails."""
    running, go_on = threading.Event(), threading.Event()
    asked: list[str] = []
    first, second = make_app(REFRESH_WORKERS=1), make_app(REFRESH_WORKERS=0, REFRESH_BACKOFF=(100, 100))

    def answer() -> str:
        asked.append(request.path)
        if any(cache.refreshing for _, cache in (first, second)):
            if request.path == "/page":
                raise LookupError("down")
            running.set()
            assert go_on.wait(10)
        return "page"

    origin.answer = answer
    for app, cache in (first, second):
        cached(app, cache, origin.view, "/<name>")
    visit(first[0], "/busy")
    visit(first[0], "/page")
    clock.shift(MINUTE)
    assert visit(first[0], "/busy").word == "STALE"
    assert running.wait(10)
    assert visit(first[0], "/page").word == "STALE"
    assert visit(second[0], "/page").word == "STALE"
    go_on.set()
    settle(*first)
    assert asked == ["/busy", "/page", "/busy", "/page"]
    assert visit(first[0], "/page").page == ("UPDATING", "page")


def test_a_response_that_is_not_closed_hands_nothing_over(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    """The refresh begins after the response: when its iterable is closed, and not before."""
    app, cache = make_app()
    cached(app, cache, origin.view)
    visit(app)
    clock.shift(MINUTE)
    response = app.test_client().get("/", buffered=False)
    assert response.headers["X-Cache-Status"] == "STALE"
    settle(app, cache)
    assert origin.runs == 1
    response.close()
    settle(app, cache)
    assert origin.runs == 2


def test_a_sent_file_hands_over_too(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    import io

    from flask import send_file

    app, cache = make_app()
    origin.answer = lambda: send_file(io.BytesIO(f"run {origin.runs}".encode()), mimetype="text/plain")
    cached(app, cache, origin.view)
    stale(app, cache, clock)
    assert visit(app).page == ("HIT", "run 2")


def test_a_view_called_outside_a_server_hands_over_at_once(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin
) -> None:
    """In a test request context nobody closes the response."""
    app, cache = make_app(REFRESH_WORKERS=0)
    cached(app, cache, origin.view)
    with app.test_request_context("/"):
        assert app.full_dispatch_request().headers["X-Cache-Status"] == "MISS"
    clock.shift(MINUTE)
    with app.test_request_context("/"):
        assert app.full_dispatch_request().headers["X-Cache-Status"] == "STALE"
    assert visit(app).page == ("HIT", "run 2")


def test_outside_an_app_context_all_apps_are_drained(tmp_path: Path, clock: time_machine.Traveller) -> None:
    cache = StaleCache()
    made: list[tuple[Flask, list[str]]] = []
    for name in ("one", "two"):
        app, runs = Flask(name), list[str]()
        app.config["STALECACHE_DIR"] = tmp_path / name
        cache.init_app(app)
        app.add_url_rule("/", "page", cache.cached(60, 600, jitter=0)(lambda runs=runs: (runs.append("run"), "page")[1]))
        made.append((app, runs))
    for _ in range(2):
        for app, _ in made:
            visit(app)
        clock.shift(61)
    assert cache.drain(10)
    assert [len(runs) for _, runs in made] == [2, 2]
