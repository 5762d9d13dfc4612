"""A gateway in front of Flask apps: sessions by key. Covers ``frontends.flask_app.flask_sessions``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from cachelib import SimpleCache
from flask import (
    Flask,
    Request,
    Response,
    flash,
    g,
    get_flashed_messages,
    render_template_string,
    request,
    session,
    stream_with_context,
)
from flask.globals import request_ctx
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from flask_login import LoginManager, UserMixin
from flask_session.cachelib import CacheLibSessionInterface  # type: ignore[import-untyped]
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from flask_stalecache import ConfigError, Policy, StaleCache
from support.client import MakeApp, Seen, visit
from support.flask_gateway import NOBODY, Build, Fields, fresh, signed, site, who_by_session
from support.threads import PATIENCE, go, results
from support.wsgi_apps import wait_for_waiters

NOON = 1_800_000_000


def holding(**values: Any) -> Fields:
    """Return a visitor with these values in their session."""
    return {"Cookie": signed(values)}


ANN, BOB = holding(user="ann", csrf_token="of ann"), holding(user="bob")
FORM, MESSAGE, EMPTY = holding(csrf_token="random"), holding(_flashes=[["message", "welcome"]]), holding()
FORGED: Fields = {"Cookie": "session=forged"}


def raw() -> Any:
    return session._get_current_object()  # type: ignore[attr-defined]


def play(make_app: MakeApp, build: Build, *visitors: Fields, path: str = "/", **config: Any) -> list[str]:
    """Make the visits, compare each page with the one without a cache, and return the cache status words."""
    said: list[str] = []
    app, plain = make_app(GATEWAY=True, **config)[0], make_app(ENABLED=False)[0]
    for each in (app, plain):
        build(each)
    for fields in visitors:
        seen, expected = visit(app, path, fields), visit(plain, path, fields)
        assert (seen.status, seen.text) == (expected.status, expected.text), (said, fields)
        said.append(seen.word)
    return said


def late() -> Response:
    """Read once the response has begun."""

    def chunks() -> Iterator[str]:
        yield "hello "
        yield session.get("user", "stranger")

    return Response(stream_with_context(chunks()))


def later() -> Response:
    """Keep the session object, and read it after the request context has ended."""
    mine = raw()
    mine.get("theme")

    def chunks() -> Iterator[str]:
        yield "hello "
        yield mine.get("user", "stranger")

    return Response(chunks())


def add_name(response: Response) -> Response:
    response.set_data(f"{response.get_data(as_text=True)}, {session.get('user')}")
    return response


def set_user() -> None:
    g.user = session.get("user")


#: Pages that read one key of the session, in different places; and pages that read the session in ways that no key describes.
BY_KEY: dict[str, Build] = {
    "view": site(who_by_session),
    "hook": site(lambda: f"hello {g.user}", before_request=set_user),
    "after the view": site(lambda: "hello", after_request=add_name),
    "template": site(lambda: render_template_string("hello {{ session.user }}")),
    "stream": site(late),
}
BY_COOKIE: dict[str, Build] = {
    "as a whole": site(lambda: f"hello {dict(session).get('user')}"),
    "whether there is one": site(lambda: f"hello {bool(session)}"),
    "the session itself": site(lambda: f"hello {dict.get(raw(), 'user')}"),
    "kept for a stream": site(later),
}


@pytest.mark.parametrize("name", BY_KEY)
def test_who_lacks_a_key_gets_the_page_of_one_who_lacks_it(make_app: MakeApp, name: str) -> None:
    assert play(make_app, BY_KEY[name], ANN, FORM, NOBODY, MESSAGE, BOB, EMPTY, FORGED, NOBODY, ANN) == [
        "MISS", "MISS", "HIT", "HIT", "BYPASS", "HIT", "HIT", "HIT", "BYPASS",
    ]  # fmt: skip


@pytest.mark.parametrize("name", BY_COOKIE)
def test_what_no_key_tells_is_told_by_the_cookie(make_app: MakeApp, name: str) -> None:
    assert play(make_app, BY_COOKIE[name], FORM, NOBODY, FORM, ANN, BOB, NOBODY) == [
        "MISS", "MISS", "BYPASS", "BYPASS", "BYPASS", "HIT",
    ]  # fmt: skip


def test_a_view_of_the_gateway_is_observed_by_key(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.add_url_rule("/", "page", cache.cached(60, gateway=True)(who_by_session))
    seen = [visit(app, "/", fields) for fields in (ANN, FORM, NOBODY, BOB, FORM, ANN)]
    assert [each.word for each in seen] == ["MISS", "MISS", "HIT", "BYPASS", "HIT", "BYPASS"]
    assert [each.text.split()[1] for each in seen] == ["ann", "stranger", "stranger", "bob", "stranger", "ann"]
    assert all("Cookie" in each.headers["Vary"] for each in seen)


def test_keys_beside_vary_cookie_of_the_apps_own_make_variants(make_app: MakeApp) -> None:
    """Then the Cookie field is in the cache key, and it makes no difference which keys the session has."""

    def view() -> Response:
        response = Response(who_by_session())
        response.vary.add("Cookie")
        return response

    assert play(make_app, site(view), ANN, ANN, BOB, BOB, NOBODY, ANN) == ["MISS", "HIT", "MISS", "HIT", "MISS", "HIT"]


def test_variants_are_chosen_among_those_for_a_session(make_app: MakeApp) -> None:
    """A page that varies, and reads the session only in one of its languages."""

    def view() -> Response:
        is_german = request.headers.get("Accept-Language") == "de"
        response = Response(f"hallo {session.get('user')}" if is_german else "hello")
        response.vary.add("Accept-Language" if is_german else "X-Other")
        return response

    german = {"Accept-Language": "de"}
    visitors = ({**german, **ANN}, {**german, **FORM}, FORM, german, {**german, **BOB}, NOBODY, {**german, **FORM})
    said = play(make_app, site(view), *visitors)
    assert [said[number] for number in (3, 5, 6)] == ["HIT", "HIT", "HIT"]
    assert said[4] != "HIT"


def test_a_message_is_shown_once_and_to_its_visitor(make_app: MakeApp) -> None:
    build = site(lambda: f"messages: {get_flashed_messages()}")
    assert play(make_app, build, MESSAGE, NOBODY, MESSAGE, FORM, ANN, MESSAGE) == ["MISS", "MISS", "BYPASS", "HIT", "HIT", "BYPASS"]


def test_a_session_that_was_put_in_its_place_is_one_name(make_app: MakeApp) -> None:
    def replace() -> None:
        request_ctx._session = SecureCookieSession({"user": request_ctx._session.get("user", "stranger")})  # type: ignore[attr-defined]

    build = site(who_by_session, before_request=replace)
    assert play(make_app, build, ANN, NOBODY, ANN, BOB, FORM, NOBODY) == ["MISS", "MISS", "BYPASS", "BYPASS", "BYPASS", "HIT"]


def test_the_session_of_an_app_that_is_mounted_is_one_name(make_app: MakeApp) -> None:
    outer, _ = make_app(GATEWAY=True)
    inner, _ = make_app()
    inner.after_request(fresh)
    inner.add_url_rule("/", "page", who_by_session)
    outer.wsgi_app = DispatcherMiddleware(outer.wsgi_app, {"/in": inner.wsgi_app})  # type: ignore[method-assign]
    said = [visit(outer, "/in/", fields).text for fields in (NOBODY, FORM, ANN, BOB, NOBODY)]
    assert said == ["hello stranger", "hello stranger", "hello ann", "hello bob", "hello stranger"]


# -- what is stored ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hook",
    [
        lambda: setattr(session, "permanent", True),
        lambda: session.__setitem__("_fresh", False),
        lambda: session.update(_permanent=True),
    ],
)
def test_a_mark_in_the_session_is_its_visitors_and_keeps_no_page_out(make_app: MakeApp, hook: Callable[[], None]) -> None:
    app, _ = make_app(GATEWAY=True)
    site(who_by_session, before_request=hook)(app)
    seen = [visit(app, "/", fields) for fields in (NOBODY, NOBODY, FORM, ANN)]
    assert [each.page for each in seen] == [
        ("MISS", "hello stranger"), ("HIT", "hello stranger"), ("HIT", "hello stranger"), ("BYPASS", "hello ann"),
    ]  # fmt: skip
    assert ["session=" in each.headers.get("Set-Cookie", "") for each in seen] == [True, False, False, True]


@pytest.mark.parametrize(
    "hook",
    [
        lambda: session.__setitem__("last", "now"),
        lambda: session.clear(),
        lambda: session.update({}, _fresh=False, more=1),
        lambda: setattr(session, "modified", True),
        lambda: raw().update(_fresh=False),
        lambda: flash("hello"),
    ],
)
def test_a_session_that_has_changed_keeps_its_page_out(make_app: MakeApp, hook: Callable[[], object]) -> None:
    build = site(who_by_session, before_request=lambda: hook() and None)
    assert "HIT" not in play(make_app, build, FORM, FORM, ANN, FORM)


def session_sent(app: Flask, seen: Seen) -> dict[str, Any] | None:
    """Return what is in the session that a visitor was sent; ``None`` if they were sent none."""
    signer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert signer is not None
    sent = [line.partition(";")[0].partition("=") for line in seen.headers.getlist("Set-Cookie")]
    return next((signer.loads(value) for name, _, value in sent if name == "session"), None)


@pytest.mark.parametrize("sets_another", [True, False])
def test_who_waits_is_not_sent_the_session_of_another(make_app: MakeApp, sets_another: bool) -> None:
    """A page that sets another cookie beside the session's is not stored, as usual; without one, it is stored without any."""
    started, more = threading.Event(), threading.Event()

    def view() -> Response:
        if not started.is_set():
            started.set()
            assert more.wait(PATIENCE)
        session.permanent = True
        response = Response("hello")
        if sets_another:
            response.set_cookie("seen", "1")
        return response

    app, _ = make_app(GATEWAY=True)
    site(view)(app)
    ann = go(visit, app, "/", ANN)
    assert started.wait(PATIENCE)
    others = [go(visit, app, "/", fields) for fields in (BOB, NOBODY)]
    wait_for_waiters(app, 2)
    more.set()
    seen = results([ann, *others])
    assert {each.text for each in seen} == {"hello"}
    mine = [{"_permanent": True, "user": "ann", "csrf_token": "of ann"}, {"_permanent": True, "user": "bob"}, {"_permanent": True}]
    assert [session_sent(app, each) for each in seen] == (mine if sets_another else [mine[0], None, None])
    assert live(app, NOBODY, NOBODY, FORM) == (["MISS"] * 3 if sets_another else ["HIT"] * 3)


def with_login(app: Flask) -> None:
    manager = LoginManager(app)

    @manager.user_loader
    def load(name: str) -> UserMixin:
        user = UserMixin()
        user.id = name  # type: ignore[attr-defined]
        return user

    app.add_url_rule("/", "page", lambda: render_template_string("hello {{ current_user.id or 'stranger' }}"))
    app.after_request(fresh)


def test_strangers_with_a_session_get_the_pages_of_flask_login(make_app: MakeApp) -> None:
    ann, bob = (holding(_user_id=name, _fresh=True) for name in ("ann", "bob"))
    assert play(make_app, with_login, ann, FORM, NOBODY, MESSAGE, bob, EMPTY, ann, FORM) == [
        "MISS", "MISS", "HIT", "HIT", "BYPASS", "HIT", "BYPASS", "HIT",
    ]  # fmt: skip


# -- the cookie ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


def live(app: Flask, *visitors: Fields) -> list[str]:
    return [visit(app, "/", fields).word for fields in visitors]


def test_a_cookie_from_a_host_whose_clock_is_ahead_becomes_valid(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, _ = make_app(GATEWAY=True)
    site(who_by_session)(app)
    clock.shift(10)
    ann = holding(user="ann")
    clock.shift(-10)
    assert [visit(app, "/", fields).page for fields in (NOBODY, ann, ann)] == [
        ("MISS", "hello stranger"), ("HIT", "hello stranger"), ("HIT", "hello stranger"),
    ]  # fmt: skip
    clock.shift(10)
    assert visit(app, "/", ann).page == ("BYPASS", "hello ann")


def test_a_cookie_that_has_run_out_holds_nothing(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, _ = make_app(GATEWAY=[("/", Policy(max_age=10**8))])
    app.add_url_rule("/", "page", who_by_session)
    app.permanent_session_lifetime = timedelta(seconds=20)
    ann = holding(user="ann")
    assert live(app, NOBODY, ann, ann) == ["MISS", "BYPASS", "BYPASS"]
    clock.shift(20)
    assert live(app, ann) == ["BYPASS"]
    clock.shift(1)
    assert live(app, ann, ann) == ["HIT", "HIT"]


@pytest.mark.parametrize("refreshes", [True, False])
def test_a_permanent_session_is_prolonged_by_the_app(make_app: MakeApp, clock: time_machine.Traveller, refreshes: bool) -> None:
    app, _ = make_app(GATEWAY=[("/", Policy(max_age=10**8))])
    app.config["SESSION_REFRESH_EACH_REQUEST"] = refreshes
    app.add_url_rule("/", "page", who_by_session)
    app.permanent_session_lifetime = timedelta(seconds=20)
    basket, other = holding(basket=[1], _permanent=True), holding(basket=[1])
    assert live(app, NOBODY, basket, other) == ["MISS", "HIT", "HIT"]
    clock.shift(2)
    assert live(app, basket, other) == ["HIT", "HIT"]
    clock.shift(1)
    seen = visit(app, "/", basket)
    assert (seen.word, seen.text) == ("BYPASS" if refreshes else "HIT", "hello stranger")
    assert ("Set-Cookie" in seen.headers) is refreshes
    assert live(app, other) == ["HIT"]
    if refreshes:
        prolonged = {"Cookie": seen.headers["Set-Cookie"].partition(";")[0]}
        assert live(app, prolonged, prolonged) == ["HIT", "HIT"]


def test_settings_that_change_while_the_app_runs_are_followed(make_app: MakeApp) -> None:
    app, _ = make_app(GATEWAY=True)
    site(who_by_session)(app)
    assert live(app, NOBODY, ANN, FORM) == ["MISS", "BYPASS", "HIT"]
    app.secret_key = "another secret"
    assert live(app, ANN, ANN) == ["HIT", "HIT"]
    app.config["SECRET_KEY_FALLBACKS"] = ["not a secret"]
    assert live(app, ANN) == ["BYPASS"]
    app.config["SESSION_COOKIE_NAME"] = "sid"
    assert live(app, ANN, {"Cookie": ANN["Cookie"].replace("session=", "sid=")}) == ["HIT", "BYPASS"]


@pytest.mark.parametrize(
    "cookie", ["theme=dark", "session=", "session", "a=\xff; session=x", f"session={'x' * 9000}", "sessions=x"]
)
def test_a_cookie_without_a_session_is_nobodys(make_app: MakeApp, cookie: str) -> None:
    assert play(make_app, site(who_by_session), NOBODY, {"Cookie": cookie}, {"Cookie": cookie}) == ["MISS", "HIT", "HIT"]


def test_an_interface_that_is_replaced_while_the_app_runs_is_not_asked(make_app: MakeApp) -> None:
    class Other(SecureCookieSessionInterface):
        """Opens sessions in ways of its own."""

    app, _ = make_app(GATEWAY=True)
    site(who_by_session)(app)
    assert live(app, NOBODY, FORM, ANN) == ["MISS", "HIT", "BYPASS"]
    app.session_interface = Other()
    assert live(app, NOBODY, FORM, ANN) == ["HIT", "BYPASS", "BYPASS"]


def test_a_request_class_that_finds_cookies_elsewhere_is_one_name(make_app: MakeApp, directory: Any) -> None:
    class Mine(Request):
        @property
        def cookies(self) -> Any:
            return {"session": self.headers.get("X-Session", "")}

    def app_with(enabled: bool) -> Flask:
        app = Flask("shop")
        app.request_class = Mine
        app.config.update(SECRET_KEY="not a secret", STALECACHE_DIR=directory, STALECACHE_GATEWAY=True, STALECACHE_ENABLED=enabled)
        StaleCache(app)
        site(who_by_session)(app)
        return app

    app, plain = app_with(True), app_with(False)
    for name in ("stranger", "ann", "bob", "stranger"):
        fields = {"X-Session": signed({"user": name}).partition("=")[2]} if name != "stranger" else {}
        assert visit(app, "/", fields).text == visit(plain, "/", fields).text == f"hello {name}"


# -- other interfaces ------------------------------------------------------------------------------------------------------


def on_shelf(app: Flask) -> None:
    """Give an app sessions of Flask-Session, over a cache in memory."""
    app.session_interface = CacheLibSessionInterface(app, client=SimpleCache())
    app.add_url_rule("/set/<key>", "set", lambda key: session.__setitem__(key, "ann") or "set")
    site(who_by_session)(app)


def sid(app: Flask, key: str) -> Fields:
    return {"Cookie": visit(app, f"/set/{key}").headers["Set-Cookie"].partition(";")[0]}


def test_flask_sessions_are_observed_by_key_at_the_view(make_app: MakeApp) -> None:
    app, cache = make_app()
    on_shelf(app)
    app.add_url_rule("/view", "view", cache.cached(60)(who_by_session))
    form, ann = sid(app, "csrf_token"), sid(app, "user")
    seen = [visit(app, "/view", fields).page for fields in (ann, form, NOBODY, ann, form)]
    assert seen == [
        ("MISS", "hello ann"), ("MISS", "hello stranger"), ("HIT", "hello stranger"), ("BYPASS", "hello ann"),
        ("HIT", "hello stranger"),
    ]  # fmt: skip


@pytest.mark.parametrize("is_named", [True, False])
def test_flask_sessions_are_observed_by_key_at_the_gateway_if_an_opener_is_named(make_app: MakeApp, is_named: bool) -> None:
    opener = (lambda app, request: app.session_interface.open_session(app, request)) if is_named else None
    app, _ = make_app(GATEWAY=True, SESSION_OPENER=opener)
    on_shelf(app)
    form, ann = sid(app, "csrf_token"), sid(app, "user")
    seen = [visit(app, "/", fields) for fields in (NOBODY, form, ann, form)]
    assert [each.text for each in seen] == ["hello stranger", "hello stranger", "hello ann", "hello stranger"]
    assert [each.word for each in seen] == (
        ["MISS", "HIT", "BYPASS", "HIT"] if is_named else ["MISS", "BYPASS", "BYPASS", "BYPASS"]
    )


def test_an_opener_that_fails_leaves_visitors_live(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    def fails(app: Flask, request: Request) -> Any:
        raise OSError("the shelf is away")

    app, _ = make_app(GATEWAY=True, SESSION_OPENER=fails)
    on_shelf(app)
    form = sid(app, "csrf_token")
    assert live(app, NOBODY, form, form, NOBODY) == ["MISS", "BYPASS", "BYPASS", "HIT"]
    assert sum("STALECACHE_SESSION_OPENER raised" in record.getMessage() for record in caplog.records) == 1


def test_an_opener_is_a_function(make_app: MakeApp) -> None:
    with pytest.raises(ConfigError, match=r"STALECACHE_SESSION_OPENER='cookie': give a function .*open_session"):
        make_app(SESSION_OPENER="cookie")
