"""Never somebody else's page: what visitors send, what a page was made from, and who gets which copy.

The yardstick of most tests is the same app without a cache: whoever asks, in whatever order, sees what they would see there.
"""

from __future__ import annotations

import functools
import io
import json
import logging
import operator
import pickle
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from copy import copy, deepcopy
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

import pytest
import time_machine
from flask import (
    Blueprint,
    Flask,
    Request,
    Response,
    abort,
    after_this_request,
    current_app,
    flash,
    g,
    get_flashed_messages,
    jsonify,
    make_response,
    render_template_string,
    request,
    send_file,
    session,
    stream_with_context,
    url_for,
)
from flask.globals import request_ctx
from flask.sessions import NullSession, SecureCookieSession, SecureCookieSessionInterface, SessionInterface, SessionMixin
from flask.views import MethodView
from werkzeug.datastructures import MultiDict
from werkzeug.routing import BaseConverter
from werkzeug.utils import cached_property

from flask_stalecache import StaleCache
from support.client import MakeApp, Seen, visit, words
from support.engine import named

View: TypeAlias = "Callable[..., Any]"
Build: TypeAlias = "Callable[[Flask, StaleCache], None]"
Fields: TypeAlias = "Mapping[str, str]"

NOBODY: Fields = {}
ANN: Fields = {"Cookie": "user=ann", "X-User": "ann"}
BOB: Fields = {"Cookie": "user=bob", "X-User": "bob"}
ANN_AND_MORE: Fields = {"Cookie": "theme=dark; user=ann", "X-User": "ann", "X-More": "1"}


def shown(view: View, path: str = "/", **policy: Any) -> Build:
    """Return what sets up an app with one cached view."""

    def build(app: Flask, cache: StaleCache) -> None:
        app.add_url_rule(path, "page", cache.cached(60, **policy)(view))

    return build


def play(make_app: MakeApp, build: Build, *visitors: Fields, path: str = "/", **config: Any) -> list[str]:
    """Let visitors come, hold each page against the one that the app shows without a cache, and return how they were answered."""
    app, cache = make_app(**config)
    build(app, cache)
    plain, off = make_app(ENABLED=False)
    build(plain, off)
    said: list[str] = []
    for headers in visitors:
        seen, expected = visit(app, path, headers), visit(plain, path, headers)
        assert (seen.status, seen.text) == (expected.status, expected.text), f"after {said}, {dict(headers)}"
        said.append(seen.word)
    return said


def cookie_of(member: str, name: str = "session", key: str = "not a secret") -> str:
    """Return the field of somebody whose session says who they are."""
    app = Flask("shop")
    app.secret_key = key
    signer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert signer is not None
    return f"{name}={signer.dumps({'user': member})}"


def as_member(member: str, **more: str) -> Fields:
    return {"Cookie": cookie_of(member), **more}


@pytest.fixture
def exempt() -> Iterator[types.ModuleType]:
    """A module of a third party, which an app may name in IGNORED_READERS."""
    module = types.ModuleType("tracker.inside")
    source = """
from flask import request
def field(name): return request.headers.get(name, "-")
def cookie(name): return request.cookies.get(name, "-")
def agent(): return request.user_agent.string
def languages(): return str(request.accept_languages)
def everything(): return str(sorted(request.headers.keys()))
def attribute(name): return str(getattr(request, name))
"""
    exec(compile(source, "tracker/inside.py", "exec"), module.__dict__)
    sys.modules["tracker.inside"] = module
    yield module
    del sys.modules["tracker.inside"]


# -- rule 1: live, whoever asks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_other_methods_are_live_and_leave_the_copy_alone(make_app: MakeApp, method: str) -> None:
    app, cache = make_app()
    app.add_url_rule(
        "/",
        "page",
        cache.cached(60)(lambda: f"{request.method} {request.get_data(as_text=True)}"),
        methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
        provide_automatic_options=False,
    )
    said = [visit(app).page, visit(app, method=method, data="ann").page, visit(app, method=method, data="bob").page]
    assert said == [("MISS", "GET "), ("BYPASS", f"{method} ann"), ("BYPASS", f"{method} bob")]
    assert visit(app).page == ("HIT", "GET ")


def test_a_post_on_a_cold_key_fills_nothing(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.add_url_rule("/", "page", cache.cached(60)(lambda: f"it was {request.method}"), methods=["GET", "POST"])
    assert visit(app, method="POST").page == ("BYPASS", "it was POST")
    assert visit(app).page == ("MISS", "it was GET")


@pytest.mark.parametrize(
    "body",
    [
        {"data": b"ann"},
        {"data": b"ann", "content_type": "application/x-www-form-urlencoded"},
        {"environ": {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}, "data": b""},
    ],
    ids=["length", "form", "transfer-encoding"],
)
def test_a_get_with_a_body_is_live(make_app: MakeApp, body: dict[str, Any]) -> None:
    app, cache = make_app()
    app.add_url_rule("/", "page", cache.cached(60)(lambda: f"body {request.get_data(as_text=True)!r}"))
    assert visit(app, **body).word == "BYPASS"
    assert visit(app).page == ("MISS", "body ''")
    assert visit(app, **body).word == "BYPASS"
    assert visit(app).page == ("HIT", "body ''")


@pytest.mark.parametrize("length", ["", "0"])
def test_a_get_without_a_body_is_not_live_for_its_content_length(make_app: MakeApp, length: str) -> None:
    app, cache = make_app()
    shown(lambda: "page")(app, cache)
    assert [visit(app, environ={"CONTENT_LENGTH": length}).word for _ in range(2)] == ["MISS", "HIT"]


def test_authorization_is_live_and_stores_nothing(make_app: MakeApp) -> None:
    ann, bob = {"Authorization": "Basic YW5uOng="}, {"Authorization": "Bearer bob"}
    build = shown(lambda: f"for {request.environ.get('HTTP_AUTHORIZATION')}")
    assert play(make_app, build, ann, NOBODY, bob, NOBODY, ann) == ["BYPASS", "MISS", "BYPASS", "HIT", "BYPASS"]


@pytest.mark.parametrize("directive", ["public", "s-maxage=60", "must-revalidate"])
def test_authorization_may_fill_and_use_what_says_that_it_is_for_all(make_app: MakeApp, directive: str) -> None:
    def view() -> Response:
        return Response("for all", headers={"Cache-Control": directive})

    ann, bob = {"Authorization": "Bearer ann"}, {"Authorization": "Bearer bob"}
    assert play(make_app, shown(view), ann, bob, NOBODY) == ["MISS", "HIT", "HIT"]


@pytest.mark.parametrize("directive", ["max-age=60", 'no-transform, x="public"', "stale-if-error=60"])
def test_authorization_is_live_under_any_other_directive(make_app: MakeApp, directive: str) -> None:
    def view() -> Response:
        return Response(f"for {request.environ.get('HTTP_AUTHORIZATION')}", headers={"Cache-Control": directive})

    ann, bob = {"Authorization": "Bearer ann"}, {"Authorization": "Bearer bob"}
    assert play(make_app, shown(view), ann, NOBODY, bob) == ["BYPASS", "MISS", "BYPASS"]


def test_a_public_page_that_looks_at_authorization_is_still_nobody_elses(make_app: MakeApp) -> None:
    def view() -> Response:
        who = request.authorization
        return Response(f"for {who.token if who else 'all'}", headers={"Cache-Control": "public"})

    ann, bob = {"Authorization": "Bearer ann"}, {"Authorization": "Bearer bob"}
    assert "HIT" not in play(make_app, shown(view), ann, bob, ann)
    assert play(make_app, shown(view), NOBODY, ann, bob, NOBODY) == ["MISS", "BYPASS", "BYPASS", "HIT"]


def test_a_user_that_the_server_knows_is_live(make_app: MakeApp) -> None:
    app, cache = make_app()
    shown(lambda: f"for {request.remote_user}")(app, cache)
    ann, bob = {"REMOTE_USER": "ann"}, {"REMOTE_USER": "bob"}
    assert visit(app, environ=ann).page == ("BYPASS", "for ann")
    assert visit(app).page == ("MISS", "for None")
    assert visit(app, environ=bob).page == ("BYPASS", "for bob")
    assert visit(app).page == ("HIT", "for None")


@pytest.mark.parametrize("truthy", [True, 1, "yes", ["x"], {"a": 1}, object()], ids=named)
def test_unless_takes_whatever_is_true(make_app: MakeApp, truthy: object) -> None:
    build = shown(lambda: f"for {request.headers.get('X-User')}", unless=lambda: truthy)
    assert play(make_app, build, ANN, BOB, NOBODY) == ["BYPASS"] * 3


@pytest.mark.parametrize("falsy", [False, None, 0, "", ()], ids=repr)
def test_unless_takes_whatever_is_false(make_app: MakeApp, falsy: object) -> None:
    assert play(make_app, shown(lambda: "page", unless=lambda: falsy), ANN, BOB) == ["MISS", "HIT"]


def test_unless_that_raises_is_live_and_logged(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """As for the other callables of the developer's: a working page is not turned into an error."""
    build = shown(lambda: f"for {request.headers.get('X-User')}", unless=raises)
    assert play(make_app, build, ANN, BOB, NOBODY) == ["BYPASS"] * 3
    assert "no key today" in caplog.text


def test_what_unless_reads_is_seen(make_app: MakeApp) -> None:
    build = shown(lambda: f"for {request.environ.get('HTTP_X_USER')}", unless=lambda: request.headers.get("X-User") == "bob")
    assert play(make_app, build, NOBODY, ANN, BOB, NOBODY) == ["MISS", "BYPASS", "BYPASS", "HIT"]


def test_head_is_answered_from_a_stored_get_and_never_stored(make_app: MakeApp) -> None:
    app, cache = make_app()
    shown(lambda: f"{request.method} page")(app, cache)
    first = visit(app, method="HEAD")
    assert (first.word, first.body) == ("BYPASS", b"")
    assert visit(app).page == ("MISS", "GET page")
    again = visit(app, method="HEAD")
    assert (again.word, again.body, again.headers["Content-Length"]) == ("HIT", b"", "8")


def test_head_with_a_name_that_is_absent_is_live(make_app: MakeApp) -> None:
    app, cache = make_app()
    shown(lambda: Response("page", headers={"X-For": request.cookies.get("user", "all")}))(app, cache)
    visit(app)
    said = [visit(app, "/", who, method="HEAD").headers["X-For"] for who in (ANN, BOB, NOBODY)]
    assert said == ["ann", "bob", "all"]


# -- rule 2: the key ---------------------------------------------------------------------------------------------------


def link() -> str:
    return f"{request.root_url} {url_for('page', _external=True)}"


@pytest.mark.parametrize(
    "poison",
    [
        {"Host": "evil.test"},
        {"Host": "localhost:81"},
        {"X-Forwarded-Host": "evil.test"},
        {"X-Forwarded-Proto": "https"},
        {"X-Forwarded-Port": "81"},
        {"X-Forwarded-Prefix": "/evil"},
    ],
    ids=lambda poison: "-".join(next(iter(poison.items()))),
)
@pytest.mark.parametrize("proxied", [False, True])
def test_what_gets_into_links_is_in_the_key(make_app: MakeApp, poison: Fields, proxied: bool) -> None:
    from werkzeug.middleware.proxy_fix import ProxyFix

    def build(app: Flask, cache: StaleCache) -> None:
        shown(link)(app, cache)
        if proxied:
            app.wsgi_app = ProxyFix(app.wsgi_app, x_host=1, x_port=1, x_prefix=1)  # type: ignore[method-assign]

    assert play(make_app, build, poison, NOBODY, poison, NOBODY) == ["MISS", "MISS", "HIT", "HIT"]


def test_the_scheme_is_in_the_key(make_app: MakeApp) -> None:
    app, cache = make_app()
    shown(link)(app, cache)
    said = [visit(app, base_url=f"{scheme}://localhost").page for scheme in ("http", "https", "http")]
    assert [page[0] for page in said] == ["MISS", "MISS", "HIT"]
    assert said[1][1].startswith("https://localhost/")


def test_the_script_root_is_in_the_key(make_app: MakeApp) -> None:
    app, cache = make_app()
    shown(link)(app, cache)
    said = [visit(app, base_url=f"http://localhost{root}").page for root in ("/ann", "/bob", "/ann")]
    assert [page[0] for page in said] == ["MISS", "MISS", "HIT"]
    assert said[1][1] == "http://localhost/bob/ http://localhost/bob/"


@pytest.mark.parametrize("variable", ["RAW_URI", "REQUEST_URI"])
def test_the_raw_path_is_in_the_key_where_the_server_gives_one(make_app: MakeApp, variable: str) -> None:
    app, cache = make_app()
    app.add_url_rule("/<path:rest>", "page", cache.cached(60)(lambda rest: f"{rest} {request.environ[variable]}"))
    paths = ["/a/b", "/a%2Fb", "//a/b", "/a/b"]
    said = [visit(app, "/a/b", environ={"RAW_URI": "", "REQUEST_URI": "", variable: raw}).page for raw in paths]
    assert said == [("MISS", "a/b /a/b"), ("MISS", "a/b /a%2Fb"), ("MISS", "a/b //a/b"), ("HIT", "a/b /a/b")]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("/", "/?"),
        ("/?user=ann", "/?user=bob"),
        ("/?a=1&b=2", "/?b=2&a=1"),
        ("/?a=1;b=2", "/?a=1&b=2"),
        ("/?user=ann&user=bob", "/?user=bob&user=ann"),
        ("/?user=ann", "/?user=ann&user=bob"),
        ("/?user=ann", "/?user=ann%26user=bob"),
        ("/?user=a+b", "/?user=a%2Bb"),
        ("/?User=ann", "/?user=ann"),
        ("/?q=%FF", "/?q=%FE"),
        ("/?utm_source=x;user=bob", "/?user=ann"),
        ("/?user=ann&utm_source=x", "/?user=bob&utm_source=x"),
        ("/?user%3Dann=utm_source", "/?user=ann"),
        ("/?utm=1", "/?utm=2"),
    ],
)
def test_another_query_is_another_page(make_app: MakeApp, first: str, second: str) -> None:
    def view() -> str:
        return f"{request.args.getlist('user')} {request.args.get('q')} {request.args.get('a')} {request.args.get('utm')}"

    app, cache = make_app()
    shown(view, ignored_parameters=["utm_*"])(app, cache)
    plain, off = make_app(ENABLED=False)
    shown(view)(plain, off)
    for path in (first, second, first, second):
        assert visit(app, path).text == visit(plain, path).text
    # A server that tells no empty query from none gives both the same environ.
    assert visit(app, first).word == "HIT"


@pytest.mark.parametrize(
    "path", ["/?utm_source=x", "/?utm_source=x&utm_medium=y", "/?%75tm_source=x", "/?utm_source", "/?utm_source=a=b"]
)
def test_an_ignored_parameter_is_not_in_the_key(make_app: MakeApp, path: str) -> None:
    app, cache = make_app(IGNORED_PARAMETERS=["utm_*"])
    shown(lambda: f"page {request.args.get('n')}")(app, cache)
    assert [visit(app, where).word for where in (path, "/", path)] == ["MISS", "HIT", "HIT"]


def test_a_field_in_vary_is_in_the_key(make_app: MakeApp) -> None:
    build = shown(lambda: f"for {request.headers.get('X-User')}", vary=["X-User"])
    assert play(make_app, build, ANN, BOB, NOBODY, ANN, BOB, NOBODY) == ["MISS"] * 3 + ["HIT"] * 3


def test_a_normaliser_keeps_the_variants_few(make_app: MakeApp) -> None:
    def language(value: str | None) -> str:
        return "de" if (value or "").startswith("de") else "en"

    def view() -> str:
        return f"in {language(request.headers.get('Accept-Language'))}"

    languages = ["de-AT", "de", "fr", None, "de-CH"]
    fields = [{} if value is None else {"Accept-Language": value} for value in languages]
    build = shown(view, vary={"Accept-Language": language})
    assert play(make_app, build, *fields) == ["MISS", "HIT", "MISS", "HIT", "HIT"]


def test_a_normaliser_that_raises_is_live_and_logged(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    def broken(value: str | None) -> str:
        raise LookupError("no such language")

    build = shown(lambda: f"for {request.headers.get('X-User')}", vary={"X-User": broken})
    assert play(make_app, build, ANN, BOB, NOBODY) == ["BYPASS"] * 3
    assert "no such language" in caplog.text


@pytest.mark.parametrize("value", [["ann"], {"user": "ann"}, object(), b"ann"], ids=["list", "dict", "object", "bytes"])
def test_a_normaliser_that_returns_no_text_is_live_and_logged(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, value: object
) -> None:
    """What an object looks like says nothing of what it is."""
    normalise = cast("Any", lambda field: value)
    build = shown(lambda: f"for {request.headers.get('X-User')}", vary={"X-User": normalise})
    assert play(make_app, build, ANN, BOB, NOBODY) == ["BYPASS"] * 3
    assert len(lines(caplog)) == 1


# -- rule 2: the key callable ------------------------------------------------------------------------------------------


def test_what_the_key_callable_returns_is_in_the_key(make_app: MakeApp) -> None:
    build = shown(lambda: f"for {request.cookies.get('user')}", key=lambda: request.cookies.get("user", ""))
    assert play(make_app, build, ANN, BOB, NOBODY, ANN, BOB, NOBODY) == ["MISS"] * 3 + ["HIT"] * 3


def test_scheme_and_host_stay_in_the_key_beside_a_key_callable(make_app: MakeApp) -> None:
    build = shown(link, key=lambda: "front")
    evil = {"Host": "evil.test"}
    assert play(make_app, build, evil, NOBODY, {"X-Forwarded-Host": "evil.test"}, NOBODY) == ["MISS", "MISS", "MISS", "HIT"]


@pytest.mark.parametrize(
    "read",
    [
        lambda: request.headers.get("X-User"),
        lambda: request.headers.get("X-More"),
        lambda: str(request.accept_languages),
    ],
    ids=["user", "more", "languages"],
)
def test_a_key_callable_covers_only_what_it_reads(make_app: MakeApp, read: Callable[[], object]) -> None:
    build = shown(lambda: f"{request.cookies.get('theme')} {read()}", key=lambda: request.cookies.get("theme", "light"))
    german = {**ANN_AND_MORE, "Accept-Language": "de"}
    assert "HIT" not in play(make_app, build, german, {**german, "X-User": "bob", "X-More": "2", "Accept-Language": "fr"})
    assert play(make_app, build, NOBODY, german, NOBODY)[1:] == ["MISS", "HIT"]


def test_what_a_hook_read_before_the_key_callable_is_not_covered(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        @app.before_request
        def load() -> None:
            g.user = request.headers.get("X-User", "-")

        shown(lambda: f"{g.user}", key=lambda: "same for all")(app, cache)

    assert play(make_app, build, NOBODY, ANN, BOB, NOBODY) == ["MISS", "BYPASS", "BYPASS", "HIT"]
    assert "HIT" not in play(make_app, build, ANN, BOB, ANN, path="/")[:1]


def test_a_key_callable_that_uses_the_session_covers_no_other_use_of_it(make_app: MakeApp) -> None:
    """Who is logged in is another thing than the language in the same session."""

    def build(app: Flask, cache: StaleCache) -> None:
        @app.before_request
        def load() -> None:
            g.user = session.get("user", "-")

        shown(lambda: f"in {session.get('lang')}, for {g.user}", key=lambda: session.get("lang", "en"))(app, cache)

    play(make_app, build, as_member("ann"), as_member("bob"), NOBODY, as_member("ann"))


def session_by_subscript() -> str:
    try:
        return str(session["user"])
    except KeyError:
        return "-"


#: Ways to read who is logged in out of a session.
SESSION: dict[str, Callable[[], object]] = {
    "get": lambda: session.get("user"),
    "[]": session_by_subscript,
    "in": lambda: "user" in session,
    "template": lambda: render_template_string("{{ session.user }}"),
    "template-subscript": lambda: render_template_string("{{ session['user'] }}"),
    "iter": lambda: sorted(session),
    "for": lambda: [session[name] for name in session],
    "dict": lambda: dict(session),
    "{**}": lambda: {**session},
    "f(**)": lambda: (lambda **kw: kw)(**session),
    "len": lambda: len(session),
    "bool": lambda: bool(session),
    "==": lambda: session == {"user": "ann"},
    "!=": lambda: session != {"user": "ann"},
    "|": lambda: dict(operator.or_({"a": 1}, session)),
    "keys": lambda: sorted(session.keys()),
    "values": lambda: list(session.values()),
    "items": lambda: list(session.items()),
    "copy": lambda: dict(session.copy()),  # type: ignore[attr-defined]
    "copy.copy": lambda: dict(copy(session._get_current_object())),  # type: ignore[attr-defined]
    "deepcopy": lambda: dict(deepcopy(session._get_current_object())),  # type: ignore[attr-defined]
    "reversed": lambda: list(reversed(session)),  # type: ignore[call-overload]
    "json.dumps": lambda: json.dumps(session._get_current_object()),  # type: ignore[attr-defined]
    "jsonify": lambda: jsonify(session._get_current_object()).get_data(as_text=True),  # type: ignore[attr-defined]
    "repr": lambda: repr(session).partition("{")[2],
    "object": lambda: request_ctx.session.get("user"),
    "update": lambda: (lambda d: (d.update(session), d))({"a": "b"}),
}


@pytest.mark.parametrize("name", SESSION)
@pytest.mark.parametrize("strangers_first", [True, False])
def test_a_key_callable_that_uses_the_session_covers_no_other_part_of_it(
    make_app: MakeApp, name: str, strangers_first: bool
) -> None:
    """The view looks up who it is, beside a key that has the language only."""
    build = shown(lambda: f"in {session.get('lang')}, for {SESSION[name]()}", key=lambda: session.get("lang", "en"))
    members = (as_member("ann"), as_member("bob"), as_member("ann"))
    play(make_app, build, *((NOBODY, *members) if strangers_first else (*members, NOBODY)))


@pytest.mark.parametrize("name", SESSION)
def test_a_use_of_the_session_is_seen_without_a_key_callable(make_app: MakeApp, name: str) -> None:
    build = shown(lambda: f"for {SESSION[name]()}")
    assert play(make_app, build, NOBODY, as_member("ann"), as_member("bob"), NOBODY) == ["MISS", "BYPASS", "BYPASS", "HIT"]
    assert "HIT" not in play(make_app, build, *({**as_member(who), "Host": "x"} for who in ("ann", "bob", "ann")))


def test_an_attribute_of_the_session_is_a_part_of_it(make_app: MakeApp) -> None:
    """A session that lives on the server has an id, which a view may show."""

    class Mine(dict[str, Any], SessionMixin):
        modified = False

        def __init__(self, sid: str) -> None:
            super().__init__(lang="en")
            self.sid = sid

    class Interface(UntoldInterface):
        def open_session(self, app: Flask, request: Request) -> SessionMixin:
            return Mine(request.cookies.get(self.get_cookie_name(app), "-"))

    def build(app: Flask, cache: StaleCache) -> None:
        app.session_interface = Interface()
        shown(lambda: f"session {session.sid}", key=lambda: session["lang"])(app, cache)  # type: ignore[attr-defined]

    play(make_app, build, NOBODY, {"Cookie": "session=ann"}, {"Cookie": "session=bob"}, NOBODY)


def test_what_worked_with_a_session_still_works(make_app: MakeApp) -> None:
    def view() -> str:
        own = session._get_current_object()  # type: ignore[attr-defined]
        session.setdefault("a", 1)
        pickled = pickle.loads(pickle.dumps(dict(own)))
        return f"{isinstance(own, SecureCookieSession)} {pickled == own} {own == dict(own)} {sorted(own)} {session.pop('a')}"

    build = shown(view, key=lambda: session.get("lang", "en"))
    assert play(make_app, build, NOBODY, as_member("ann")) == ["MISS", "MISS"]
    app, cache = make_app()
    build(app, cache)
    assert visit(app).text == "True True True ['a'] 1"


def test_a_key_callable_may_use_the_session(make_app: MakeApp) -> None:
    build = shown(lambda: f"for {session.get('user')}", key=lambda: session.get("user", ""))
    assert play(make_app, build, as_member("ann"), as_member("bob"), NOBODY, as_member("ann")) == ["MISS"] * 3 + ["HIT"]


@pytest.mark.parametrize("value", ["a", 1, 1.5, True, ("a", 1), ("a", ("b", 2.5)), ()], ids=repr)
def test_a_key_callable_may_return(make_app: MakeApp, value: object) -> None:
    assert play(make_app, shown(lambda: "page", key=lambda: value), NOBODY, ANN) == ["MISS", "HIT"]


@pytest.mark.parametrize(
    ("one", "other"),
    [("1", 1), (1, 1.0), (1, True), ("a,b", ("a", "b")), (("a", "b"), ("ab",)), (("a", ("b",)), (("a",), "b")), ("", ())],
    ids=repr,
)
def test_two_values_of_a_key_callable_are_two_keys(make_app: MakeApp, one: object, other: object) -> None:
    values = {"ann": one, "bob": other}
    build = shown(lambda: request.environ["HTTP_X_USER"], key=lambda: values[request.headers["X-User"]])
    assert play(make_app, build, ANN, BOB, ANN, BOB) == ["MISS", "MISS", "HIT", "HIT"]


def raises() -> object:
    raise LookupError("no key today")


def refuses() -> object:
    abort(418)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (lambda: None, "returned None"),
        (lambda: ["a"], "returned list"),
        (lambda: {"a": 1}, "returned dict"),
        (lambda: ("a", None), "returned NoneType"),
        (lambda: object(), "returned object"),
        (lambda: b"a", "returned bytes"),
        (raises, "no key today"),
        (refuses, "418"),
    ],
)
def test_a_key_that_is_none_is_live_and_logged(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, key: Callable[[], object], told: str
) -> None:
    def page() -> str:
        return f"for {request.headers.get('X-User')}"

    assert play(make_app, shown(page, key=key), ANN, BOB, NOBODY) == ["BYPASS"] * 3
    lines = [record.getMessage() for record in caplog.records if told in record.getMessage()]
    assert len(lines) == 1
    assert page.__qualname__ in lines[0]


def test_two_views_with_the_same_key_value_are_two_pages(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.add_url_rule("/a", "a", cache.cached(60, key=lambda: "all")(first_page))
    app.add_url_rule("/b", "b", cache.cached(60, key=lambda: "all")(second_page))
    assert [visit(app, path).text for path in ("/a", "/b", "/a")] == ["first", "second", "first"]


def first_page() -> str:
    return "first"


def second_page() -> str:
    return "second"


def test_two_views_of_one_name_are_two_pages(make_app: MakeApp) -> None:
    """A factory of views, or a lambda, gives several of them the same qualified name."""

    def page_of(name: str) -> Callable[[], str]:
        return lambda: f"page of {name}"

    app, cache = make_app()
    for name in ("ann", "bob"):
        app.add_url_rule(f"/{name}", name, cache.cached(60, key=lambda: "all")(page_of(name)))
    assert [visit(app, path).text for path in ("/ann", "/bob")] == ["page of ann", "page of bob"]


def test_two_method_views_with_decorators_are_two_pages(make_app: MakeApp) -> None:
    app, cache = make_app()

    class Ann(MethodView):
        decorators = [cache.cached(60, key=lambda: "all")]  # noqa: RUF012

        def get(self) -> str:
            return "page of ann"

    class Bob(MethodView):
        decorators = [cache.cached(60, key=lambda: "all")]  # noqa: RUF012

        def get(self) -> str:
            return "page of bob"

    app.add_url_rule("/ann", view_func=Ann.as_view("ann"))
    app.add_url_rule("/bob", view_func=Bob.as_view("bob"))
    assert [visit(app, path).text for path in ("/ann", "/bob")] == ["page of ann", "page of bob"]


# -- rule 3: what is not stored ----------------------------------------------------------------------------------------

counter = {"n": 0}


def number() -> str:
    """Return another text at each call: a page that is not stored is never the same."""
    counter["n"] += 1
    return f"page {counter['n']}"


@pytest.fixture(autouse=True)
def from_one() -> None:
    counter["n"] = 0


def with_cookie() -> Response:
    response = make_response(number())
    response.set_cookie("user", request.environ.get("HTTP_X_USER", "-"))
    return response


def with_callback() -> str:
    @after_this_request
    def mark(response: Response) -> Response:
        response.headers["X-For"] = request.environ.get("HTTP_X_USER", "-")
        return response

    return number()


def with_session() -> str:
    session["visits"] = number()
    return str(session["visits"])


def with_flash() -> str:
    flash("saved")
    return number()


def with_permanent_session() -> str:
    session.permanent = True
    return number()


def streamed() -> Iterator[str]:
    yield number()
    yield "!"


@pytest.mark.parametrize(
    "view",
    [
        lambda: Response(number(), headers={"Cache-Control": "no-store"}),
        lambda: Response(number(), headers={"Cache-Control": "private"}),
        lambda: Response(number(), headers={"Cache-Control": 'private="x-user"'}),
        lambda: Response(number(), headers={"Cache-Control": "no-cache"}),
        lambda: Response(number(), headers={"Cache-Control": 'no-cache="x-user"'}),
        lambda: Response(number(), headers={"Cache-Control": "public, max-age=60, Private"}),
        lambda: Response(number(), headers=[("Cache-Control", "public"), ("Cache-Control", "no-store")]),
        lambda: Response(number(), headers={"CDN-Cache-Control": "private"}),
        lambda: Response(number(), headers={"Stalecache-Cache-Control": "no-store", "Cache-Control": "public"}),
        with_cookie,
        lambda: Response(number(), headers={"set-cookie": "a=b"}),
        lambda: Response(number(), headers={"Vary": "*"}),
        lambda: Response(number(), headers={"Vary": "X-User"}),
        lambda: Response(number(), headers=[("Vary", "Host"), ("vary", "Accept, X-User")]),
        lambda: Response(number(), headers={"Vary": "Cookie"}),
        lambda: (number(), 404),
        lambda: (number(), 201),
        lambda: (number(), 302, {"Location": "/"}),
        lambda: (number(), 410),
        lambda: (number(), 206, {"Content-Range": "bytes 0-5/10"}),
        streamed,
        lambda: Response(streamed()),
        lambda: Response(stream_with_context(streamed())),
        lambda: Response(iter([number()])),
        with_session,
        with_flash,
        with_permanent_session,
        with_callback,
        lambda: Response([number()], headers={"Content-Length": "3"}),
    ],
    ids=[
        "no-store", "private", "private-qualified", "no-cache", "no-cache-qualified", "private-among-others",
        "no-store-second-line", "cdn-private", "own-no-store", "set_cookie", "set-cookie", "vary-star", "vary",
        "vary-lines", "vary-cookie", "404", "201", "302", "410", "206", "generator", "generator-response",
        "stream_with_context", "iterator", "session", "flash", "permanent", "after_this_request", "cut",
    ],
)  # fmt: skip
def test_what_is_not_stored(make_app: MakeApp, view: View) -> None:
    app, cache = make_app()
    shown(view)(app, cache)
    pages = [visit(app, "/", who) for who in (ANN, BOB, NOBODY, ANN)]
    assert [page.word for page in pages] == ["MISS"] * 4
    assert [page.text[:6] for page in pages] == [f"page {count}" for count in range(1, 5)]
    assert [page.headers.get("X-For") for page in pages] in (["ann", "bob", "-", "ann"], [None] * 4)


@pytest.mark.parametrize("status", [301, 308, 200])
def test_what_is_stored_unasked(make_app: MakeApp, status: int) -> None:
    assert play(make_app, shown(lambda: (str(status), status, {"Location": "/x"})), NOBODY, ANN) == ["MISS", "HIT"]


@pytest.mark.parametrize("headers", [{"Vary": "Accept-Language"}, {"Vary": "accept-language, Host"}, {"Vary": "X-Forwarded-Proto"}])
def test_a_vary_within_the_key_is_stored(make_app: MakeApp, headers: Fields) -> None:
    build = shown(lambda: Response("page", headers=headers), vary=["Accept-Language"])
    assert play(make_app, build, NOBODY, NOBODY, {"Accept-Language": "de"}) == ["MISS", "HIT", "MISS"]


@pytest.mark.parametrize("status", [200, 204, 205])
def test_emptiness_does_not_replace_content(make_app: MakeApp, clock: time_machine.Traveller, status: int) -> None:
    """After a refresh that brought nothing, the page with content is still there."""
    answers: list[tuple[str, int]] = [("content", 200), ("", status)]
    app, cache = make_app(REFRESH_WORKERS=0)
    app.add_url_rule(
        "/", "page", cache.cached(60, 600, 6000, jitter=0)(lambda: answers[0] if len(answers) == 1 else answers.pop(0))
    )
    assert visit(app).page == ("MISS", "content")
    clock.shift(61)
    assert visit(app).page == ("STALE", "content")
    assert visit(app).text == "content"


@pytest.mark.parametrize("status", [200, 204, 205])
def test_emptiness_replaces_content_if_statuses_says_so(make_app: MakeApp, clock: time_machine.Traveller, status: int) -> None:
    answers: list[tuple[str, int]] = [("content", 200), ("", status)]
    app, cache = make_app(REFRESH_WORKERS=0)
    policy: dict[str, Any] = {"statuses": {status: None}, "jitter": 0}
    app.add_url_rule("/", "page", cache.cached(60, 600, **policy)(lambda: answers[0] if len(answers) == 1 else answers.pop(0)))
    assert visit(app).page == ("MISS", "content")
    clock.shift(61)
    assert visit(app).page == ("STALE", "content")
    after = visit(app)
    assert (after.word, after.status, after.body) == ("HIT", status, b"")


def test_an_empty_page_over_nothing_is_stored(make_app: MakeApp) -> None:
    assert play(make_app, shown(lambda: ""), NOBODY, ANN) == ["MISS", "HIT"]


@pytest.mark.parametrize("kind", ["path", "BytesIO"])
@pytest.mark.parametrize(("size", "second"), [(1000, "HIT"), (1001, "MISS")])
def test_a_sent_file_is_stored_up_to_max_entry_size(make_app: MakeApp, tmp_path: Path, kind: str, size: int, second: str) -> None:
    content = bytes(range(256)) * 4
    file = tmp_path / "file.bin"
    file.write_bytes(content[:size])

    def view() -> Response:
        return send_file(file if kind == "path" else io.BytesIO(content[:size]), mimetype="application/octet-stream")

    app, cache = make_app(MAX_ENTRY_SIZE=1000)
    shown(view)(app, cache)
    seen = [visit(app, "/", who) for who in (ANN, BOB)]
    assert [page.word for page in seen] == ["MISS", second]
    assert [page.body for page in seen] == [content[:size]] * 2
    assert [page.headers["Content-Length"] for page in seen] == [str(size)] * 2


def test_a_sent_file_without_a_known_size_is_passed_through(make_app: MakeApp) -> None:
    """Not stored, and not read at once either: it may be endless."""
    chunks: list[int] = []

    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            chunks.append(len(buffer))
            assert len(chunks) < 10, "it is read to its end, which does not come"
            return len(buffer)

    app, cache = make_app()
    shown(lambda: send_file(cast("IO[bytes]", Endless()), mimetype="application/octet-stream"))(app, cache)
    for _ in range(2):
        chunks.clear()
        response = app.test_client().get("/", buffered=False)
        assert response.headers["X-Cache-Status"] == "MISS"
        response.close()


@pytest.mark.parametrize("size", [100, 101])
def test_a_page_is_stored_up_to_max_entry_size(make_app: MakeApp, size: int) -> None:
    said = play(make_app, shown(lambda: "x" * size), NOBODY, NOBODY, MAX_ENTRY_SIZE=100)
    assert said == ["MISS", "HIT" if size == 100 else "MISS"]


def test_the_file_of_a_stored_page_is_closed(make_app: MakeApp) -> None:
    opened: list[io.BytesIO] = []

    def view() -> Response:
        opened.append(io.BytesIO(b"content"))
        return send_file(opened[-1], mimetype="text/plain")

    assert play(make_app, shown(view), NOBODY, NOBODY) == ["MISS", "HIT"]
    assert all(file.closed for file in opened)


@pytest.mark.parametrize("change", ["session", "after_this_request", "set-cookie"])
def test_what_a_hook_does_is_neither_stored_nor_judged(make_app: MakeApp, change: str) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        @app.before_request
        def before() -> None:
            if change == "session":
                session["seen"] = "yes"
            elif change == "after_this_request":
                after_this_request(with_mark)

        @app.after_request
        def after(response: Response) -> Response:
            if change == "set-cookie":
                response.set_cookie("user", request.environ.get("HTTP_X_USER", "-"))
            return response

        shown(lambda: "page")(app, cache)

    def with_mark(response: Response) -> Response:
        response.headers["X-For"] = request.environ.get("HTTP_X_USER", "-")
        return response

    app, cache = make_app()
    build(app, cache)
    who = ({"X-User": "ann"}, {"X-User": "bob"})
    seen = [visit(app, "/", headers) for headers in who]
    assert [page.word for page in seen] == ["MISS", "HIT"]
    told = [page.headers.get("X-For") or page.headers["Set-Cookie"] for page in seen]
    if change == "session":
        assert all("session=" in line for line in told)
    else:
        assert ["ann" in told[0], "bob" in told[1], "ann" in told[1]] == [True, True, False]


def test_a_session_that_a_hook_modified_is_saved_on_every_hit(make_app: MakeApp) -> None:
    app, cache = make_app()

    @app.before_request
    def count() -> None:
        session["visits"] = session.get("visits", 0) + 1

    shown(lambda: "page", ignore_session=True)(app, cache)
    client = app.test_client()
    for visits in (1, 2, 3):
        with client.get("/") as response:
            assert response.headers["X-Cache-Status"] == ("MISS" if visits == 1 else "HIT")
        with client.session_transaction() as stored:
            assert stored["visits"] == visits


@pytest.mark.parametrize("first_of_all", [True, False], ids=["cold", "warm"])
def test_what_a_hook_has_just_put_into_the_session_is_nobody_elses(make_app: MakeApp, first_of_all: bool) -> None:
    """Each new visitor gets a number of their own, and the page shows it: none of them carried anything that tells them apart."""
    app, cache = make_app()
    numbers = iter(range(1, 10))

    @app.before_request
    def number_visitor() -> None:
        if "number" not in session:
            session["number"] = next(numbers)

    shown(lambda: f"you are number {session['number']}")(app, cache)
    if not first_of_all:
        client = app.test_client()
        for _ in range(2):
            with client.get("/") as response:
                assert response.get_data(as_text=True) == "you are number 1"
    said = [visit(app).text for _ in range(3)]
    assert len(set(said)) == 3, said


class Untold(dict[str, Any], SessionMixin):
    """A session that can't tell whether it was changed."""


class UntoldInterface(SessionInterface):
    def open_session(self, app: Flask, request: Request) -> SessionMixin:
        return Untold(user=request.cookies.get(self.get_cookie_name(app), "-"))

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """It lives nowhere."""


@pytest.mark.parametrize(
    ("view", "second"),
    [(lambda: f"for {session['user']}", "MISS"), (lambda: "for all", "HIT")],
    ids=["used", "unused"],
)
def test_a_session_that_cannot_tell_counts_as_modified_if_the_view_used_it(make_app: MakeApp, view: View, second: str) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        app.session_interface = UntoldInterface()
        shown(view)(app, cache)

    assert play(make_app, build, NOBODY, NOBODY) == ["MISS", second]


def test_a_session_that_cannot_tell_and_that_only_a_hook_used_was_not_modified_by_the_view(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        app.session_interface = UntoldInterface()

        @app.before_request
        def load() -> None:
            g.user = session["user"]

        shown(lambda: f"for {g.user}")(app, cache)

    ann = {"Cookie": "session=ann"}
    assert play(make_app, build, NOBODY, NOBODY, ann, NOBODY) == ["MISS", "HIT", "BYPASS", "HIT"]


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


#: Every way to read one name of a request, and a visitor who carries it; whoever does not must never see the difference.
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
    "accept_languages": (lambda: request.accept_languages.best, {"Accept-Language": "de"}),
    "accept_mimetypes": (lambda: request.accept_mimetypes.best, {"Accept": "text/x"}),
    "accept_charsets": (lambda: request.accept_charsets.best, {"Accept-Charset": "x"}),
    "accept_encodings": (lambda: request.accept_encodings.best, {"Accept-Encoding": "x"}),
    "access_route": (lambda: request.access_route[0], {"X-Forwarded-For": "198.51.100.1"}),
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
    "flashes": (lambda: get_flashed_messages(), as_member("ann")),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_page_is_shared_by_those_who_do_not_carry_what_it_read(make_app: MakeApp, name: str) -> None:
    read, member = NAMED[name]
    said = play(make_app, shown(lambda: f"{read()!s}"), NOBODY, NOBODY, member, NOBODY, member)
    assert said == ["MISS", "HIT", "BYPASS", "HIT", "BYPASS"]


@pytest.mark.parametrize("name", NAMED)
def test_a_page_of_one_who_carries_what_it_read_is_not_stored(make_app: MakeApp, name: str) -> None:
    read, member = NAMED[name]
    said = play(make_app, shown(lambda: f"{read()!s}"), member, NOBODY, member, NOBODY)
    assert said == ["MISS", "MISS", "BYPASS", "HIT"]


@pytest.mark.parametrize("name", NAMED)
def test_what_a_hook_reads_counts_as_much(make_app: MakeApp, name: str) -> None:
    read, member = NAMED[name]

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


def who() -> str:
    return request.headers.get("X-User") or request.cookies.get("user") or "-"


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
    assert play(make_app, build, NOBODY, ANN, BOB, NOBODY) == ["MISS", "BYPASS", "BYPASS", "HIT"]


@pytest.mark.parametrize("build", EVERYWHERE)
def test_names_are_seen_wherever_they_are_read_also_if_a_member_comes_first(make_app: MakeApp, build: Build) -> None:
    assert play(make_app, build, ANN, BOB, NOBODY, ANN, NOBODY) == ["MISS", "MISS", "MISS", "BYPASS", "HIT"]


def test_an_error_handler_that_reads_is_seen(make_app: MakeApp) -> None:
    """Its page is stored for the listed status; one that is not the cache's has no word of ours."""

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


# -- rule 4: as a whole ------------------------------------------------------------------------------------------------


def matched() -> str:
    match request.cookies:
        case {"user": str(name)}:
            return name
        case _:
            return "-"


WHOLE: dict[str, Callable[[], object]] = {
    "iter-cookies": lambda: sorted(request.cookies),
    "for-cookies": lambda: [request.cookies[name] for name in request.cookies],
    "dict(cookies)": lambda: dict(request.cookies),
    "{**cookies}": lambda: {**request.cookies},
    "f(**cookies)": lambda: (lambda **kw: kw)(**request.cookies),
    "len(cookies)": lambda: len(request.cookies),
    "bool(cookies)": lambda: bool(request.cookies),
    "cookies==": lambda: request.cookies == {},
    "==cookies": lambda: operator.eq({"user": "ann"}, request.cookies),
    "cookies!=": lambda: request.cookies != {},
    "cookies|": lambda: dict(request.cookies | {"a": "b"}),
    "|cookies": lambda: {"a": "b"} | request.cookies,
    "update(cookies)": lambda: (lambda d: (d.update(request.cookies), d))({"a": "b"}),
    "cookies.keys": lambda: list(request.cookies.keys()),
    "cookies.values": lambda: list(request.cookies.values()),
    "cookies.items": lambda: list(request.cookies.items()),
    "cookies.lists": lambda: list(request.cookies.lists()),
    "cookies.listvalues": lambda: list(request.cookies.listvalues()),
    "cookies.to_dict": lambda: request.cookies.to_dict(),
    "cookies.copy": lambda: dict(request.cookies.copy()),
    "copy(cookies)": lambda: dict(copy(request.cookies)),
    "deepcopy(cookies)": lambda: dict(deepcopy(request.cookies)),
    "reversed(cookies)": lambda: list(reversed(request.cookies)),
    "repr(cookies)": lambda: repr(request.cookies).partition("(")[2],
    "json.dumps(cookies)": lambda: json.dumps(request.cookies),
    "jsonify(cookies)": lambda: jsonify(request.cookies).get_data(as_text=True),
    "tojson": lambda: render_template_string("{{ request.cookies|tojson }}"),
    "json-indented": lambda: json.dumps(request.cookies, indent=1),
    "set(cookies)": lambda: sorted(set(request.cookies)),
    "|=cookies": lambda: sorted({"a"} | set(request.cookies)),
    "fromkeys(cookies)": lambda: dict.fromkeys(request.cookies, 1),
    "match-cookies": matched,
    "template-loop": lambda: render_template_string("{% for name in request.cookies %}{{ name }},{% endfor %}"),
    "template-if": lambda: render_template_string("{% if request.cookies %}member{% endif %}"),
    "template-length": lambda: render_template_string("{{ request.cookies|length }}"),
    "iter-headers": lambda: sorted(request.headers),
    "dict(headers)": lambda: sorted(dict(request.headers)),
    "len(headers)": lambda: len(request.headers),
    "headers.keys": lambda: sorted(request.headers.keys()),
    "headers.values": lambda: sorted(request.headers.values()),
    "headers.items": lambda: sorted(request.headers.items()),
    "headers.items-lower": lambda: sorted(request.headers.items(lower=True)),
    "str(headers)": lambda: str(request.headers),
    "repr(headers)": lambda: repr(request.headers).partition("(")[2],
    "to_wsgi_list": lambda: sorted(request.headers.to_wsgi_list()),
    "json-headers": lambda: json.dumps(dict(request.headers)),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_a_page_that_goes_through_all_fields_or_cookies_is_not_stored(make_app: MakeApp, name: str) -> None:
    build = shown(lambda: f"{WHOLE[name]()!s}")
    assert play(make_app, build, NOBODY, ANN, BOB, NOBODY) == ["MISS"] * 4


@pytest.mark.parametrize("name", WHOLE)
def test_a_hook_that_goes_through_all_fields_or_cookies_counts_as_much(make_app: MakeApp, name: str) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        @app.before_request
        def load() -> None:
            g.read = f"{WHOLE[name]()!s}"

        shown(lambda: g.read)(app, cache)

    assert play(make_app, build, ANN, NOBODY, BOB, NOBODY) == ["MISS"] * 4


@pytest.mark.parametrize(
    "use",
    [
        lambda: hash(request.args) == hash(request.args),
        lambda: pickle.loads(pickle.dumps(request.args)) == MultiDict(request.args),
        lambda: pickle.loads(pickle.dumps(request.cookies)) == MultiDict(request.cookies),
        lambda: deepcopy(request.args) == MultiDict(request.args),
        lambda: isinstance(request.args, MultiDict),
        lambda: request.args == request.args and operator.ne(request.args, request.args) is False,
        lambda: request.args == MultiDict(request.args) and MultiDict(request.args) == request.args,
        lambda: request.args != request.cookies and request.cookies != request.args,
        lambda: sorted(request.args.items(multi=True)) == [("a", "1"), ("a", "2"), ("b", "3")],
        lambda: type(request.args)([("c", "4")])["c"] == "4",
        lambda: request.headers == request.headers,
    ],
    ids=[
        "hash",
        "pickle",
        "pickle-cookies",
        "deepcopy",
        "isinstance",
        "equal",
        "equal-plain",
        "unequal",
        "multi",
        "same-type",
        "headers",
    ],
)
def test_what_worked_with_a_request_still_works(make_app: MakeApp, use: Callable[[], object]) -> None:
    """In a view of the app that has nothing to do with the cache."""
    app, _ = make_app()
    app.add_url_rule("/", "page", lambda: f"{use()}")
    assert visit(app, "/?a=1&a=2&b=3", ANN).text == "True"


# -- rule 4: the query -------------------------------------------------------------------------------------------------


def parameter_by_subscript() -> str:
    try:
        return request.args["utm_source"]
    except KeyError:
        return "-"


QUERY: dict[str, Callable[[], object]] = {
    "args.get": lambda: request.args.get("utm_source"),
    "args[]": parameter_by_subscript,
    "in-args": lambda: "utm_source" in request.args,
    "args.getlist": lambda: request.args.getlist("utm_source"),
    "args.to_dict": lambda: request.args.to_dict(),
    "dict(args)": lambda: dict(request.args),
    "args.items": lambda: list(request.args.items()),
    "len(args)": lambda: len(request.args),
    "bool(args)": lambda: bool(request.args),
    "args==": lambda: request.args == {},
    "json.dumps(args)": lambda: json.dumps(request.args),
    "values.get": lambda: request.values.get("utm_source"),
    "in-values": lambda: "utm_source" in request.values,
    "dict(values)": lambda: request.values.to_dict(),
    "len(values)": lambda: len(request.values),
    "url": lambda: request.url,
    "full_path": lambda: request.full_path,
    "query_string": lambda: request.query_string,
    "template": lambda: render_template_string("{{ request.args.utm_source }}"),
    "url_for": lambda: url_for("page", **request.args),
}
TAGGED, OTHER, BARE = "/?utm_source=ann", "/?utm_source=bob", "/"


@pytest.mark.parametrize("name", QUERY)
@pytest.mark.parametrize("where", ["view", "hook"])
def test_a_page_that_reads_an_ignored_parameter_is_not_stored(make_app: MakeApp, name: str, where: str) -> None:
    """Whoever fills while one is present: nobody else sees it. Who comes without one is cached as ever."""
    app, cache = make_app(IGNORED_PARAMETERS=["utm_*"])
    if where == "hook":
        app.before_request(lambda: setattr(g, "read", f"{QUERY[name]()!s}"))
    shown(lambda: f"{QUERY[name]()!s}" if where == "view" else g.read)(app, cache)
    plain, off = make_app(ENABLED=False)
    shown(lambda: f"{QUERY[name]()!s}")(plain, off)
    said = []
    for path in (TAGGED, OTHER, BARE, BARE):
        seen = visit(app, path)
        assert seen.text == visit(plain, path).text
        said.append(seen.word)
    assert said == ["MISS", "MISS", "MISS", "HIT"]


@pytest.mark.parametrize("name", QUERY)
def test_a_page_that_reads_the_query_without_an_ignored_parameter_is_stored(make_app: MakeApp, name: str) -> None:
    app, cache = make_app()
    shown(lambda: f"{QUERY[name]()!s}", ignored_parameters=["ref"])(app, cache)
    paths = ("/?utm_source=ann", "/?utm_source=bob", "/?utm_source=ann", "/?utm_source=bob")
    assert [visit(app, path).word for path in paths] == ["MISS", "MISS", "HIT", "HIT"]


def test_reading_another_parameter_than_the_ignored_one_is_stored(make_app: MakeApp) -> None:
    app, cache = make_app()
    shown(lambda: f"page {request.args.get('n')} {request.args.get('utm_campaign')}", ignored_parameters=["utm_*"])(app, cache)
    said = [visit(app, path).page for path in ("/?n=1&utm_source=ann", "/?utm_source=bob&n=1", "/?n=2")]
    assert said == [("MISS", "page 1 None"), ("HIT", "page 1 None"), ("MISS", "page 2 None")]


def test_the_path_and_the_endpoint_say_nothing_of_the_query(make_app: MakeApp) -> None:
    def view() -> str:
        return " ".join([request.path, request.base_url, request.host_url, str(request.endpoint), url_for("page")])

    app, cache = make_app()
    shown(view, ignored_parameters=["utm_*"])(app, cache)
    assert [visit(app, path).word for path in (TAGGED, OTHER, BARE)] == ["MISS", "HIT", "HIT"]


def come_with_invented_names(make_app: MakeApp) -> None:
    """A page that reads ``request.url`` beside ignored patterns: each visitor may bring another name that matches."""
    app, cache = make_app()
    shown(lambda: f"at {request.url}", ignored_parameters=["utm_*"])(app, cache)
    for count in range(100):
        visit(app, f"/?utm_{count:050}=x")


def test_names_that_visitors_invent_are_told_once(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    come_with_invented_names(make_app)
    assert len(lines(caplog)) == 1


def test_names_that_visitors_invent_do_not_pile_up(make_app: MakeApp, directory: Path) -> None:
    come_with_invented_names(make_app)
    (note,) = directory.rglob("*.note")
    assert note.stat().st_size < 2000


# -- rule 4: what is exempt --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["X-Request-Id", "Traceparent", "Tracestate", "x-request-id"])
def test_fields_that_say_nothing_of_the_visitor_do_not_count(make_app: MakeApp, name: str) -> None:
    def view() -> str:
        request.headers.get(name)
        return "page"

    assert play(make_app, shown(view), {name: "1"}, {name: "2"}, NOBODY) == ["MISS", "HIT", "HIT"]


def test_ignored_headers_are_what_the_developer_says(make_app: MakeApp) -> None:
    def view() -> str:
        request.headers.get("X-Trace")
        return f"for {request.headers.get('X-User')}"

    said = play(make_app, shown(view), {"X-Trace": "1"}, {"X-Trace": "2"}, ANN, NOBODY, IGNORED_HEADERS=["x-tRACE"])
    assert said == ["MISS", "HIT", "BYPASS", "HIT"]


def test_fields_that_an_ignored_reader_reads_do_not_count(make_app: MakeApp, exempt: types.ModuleType) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        app.before_request(lambda: (exempt.field("X-User"), exempt.agent(), exempt.languages(), None)[-1])
        shown(lambda: "page")(app, cache)

    fields = {"X-User": "ann", "User-Agent": "a", "Accept-Language": "de"}
    assert play(make_app, build, fields, NOBODY, IGNORED_READERS=["tracker"]) == ["MISS", "HIT"]
    assert play(make_app, build, {**fields, "Host": "again"}, IGNORED_READERS=["track"]) == ["MISS"]


def test_a_reader_counts_if_it_is_not_exempt(make_app: MakeApp, exempt: types.ModuleType) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        app.before_request(lambda: (exempt.field("X-User"), None)[-1])
        shown(lambda: "page")(app, cache)

    # "track" is no parent package of "tracker.inside".
    assert play(make_app, build, ANN, BOB, NOBODY, NOBODY, IGNORED_READERS=["track"]) == ["MISS", "MISS", "MISS", "HIT"]


@pytest.mark.parametrize(
    ("exempt_read", "read", "one", "other"),
    [
        (lambda m: m.agent(), lambda: request.user_agent.string, {"User-Agent": "a"}, {"User-Agent": "b"}),
        (lambda m: m.agent(), lambda: request.headers.get("User-Agent"), {"User-Agent": "a"}, {"User-Agent": "b"}),
        (lambda m: m.languages(), lambda: str(request.accept_languages), {"Accept-Language": "de"}, {"Accept-Language": "fr"}),
        (lambda m: m.field("X-User"), lambda: request.headers.get("X-User"), ANN, BOB),
        (lambda m: m.everything(), lambda: str(dict(request.headers)), ANN, BOB),
    ],
    ids=["agent", "agent-field", "languages", "field", "everything"],
)
def test_what_the_view_reads_after_an_ignored_reader_counts(
    make_app: MakeApp, exempt: types.ModuleType, exempt_read: Callable[[Any], object], read: View, one: Fields, other: Fields
) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        app.before_request(lambda: (exempt_read(exempt), None)[-1])
        shown(lambda: f"for {read()}")(app, cache)

    assert "HIT" not in play(make_app, build, one, other, one, IGNORED_READERS=["tracker"])


@pytest.mark.parametrize(
    ("name", "field", "one", "other"),
    [
        ("accept_charsets", "Accept-Charset", "a", "b"),
        ("accept_encodings", "Accept-Encoding", "a", "b"),
        ("accept_languages", "Accept-Language", "de", "fr"),
        ("accept_mimetypes", "Accept", "text/a", "text/b"),
        ("access_route", "X-Forwarded-For", "198.51.100.1", "198.51.100.2"),
        ("cache_control", "Cache-Control", "no-cache", "max-age=0"),
        ("content_type", "Content-Type", "text/a", "text/b"),
        ("date", "Date", "Tue, 15 Nov 1994 08:12:31 GMT", "Tue, 15 Nov 1994 08:12:32 GMT"),
        ("is_json", "Content-Type", "application/json", "text/b"),
        ("mimetype", "Content-Type", "text/a", "text/b"),
        ("mimetype_params", "Content-Type", "text/a; a=1", "text/a; a=2"),
        ("origin", "Origin", "http://a.test", "http://b.test"),
        ("pragma", "Pragma", "a", "b"),
        ("referrer", "Referer", "http://a.test", "http://b.test"),
        ("user_agent", "User-Agent", "a", "b"),
    ],
)
def test_what_werkzeug_has_parsed_for_an_ignored_reader_counts_for_the_view(
    make_app: MakeApp, exempt: types.ModuleType, name: str, field: str, one: str, other: str
) -> None:
    """Werkzeug keeps it: the view's reading looks at no field any more."""

    def build(app: Flask, cache: StaleCache) -> None:
        app.before_request(lambda: (exempt.attribute(name), None)[-1])
        shown(lambda: f"for {getattr(request, name)}")(app, cache)

    said = play(make_app, build, {field: one}, {field: other}, NOBODY, {field: one}, NOBODY, IGNORED_READERS=["tracker"])
    assert said == ["MISS", "MISS", "MISS", "BYPASS", "HIT"]


@pytest.mark.parametrize("name", ["cookie", "field"])
def test_cookies_that_an_ignored_reader_reads_count(make_app: MakeApp, exempt: types.ModuleType, name: str) -> None:
    """By name, or by asking for the whole Cookie field."""

    def build(app: Flask, cache: StaleCache) -> None:
        @app.before_request
        def load() -> None:
            g.user = exempt.cookie("user") if name == "cookie" else exempt.field("Cookie")

        shown(lambda: f"for {g.user}")(app, cache)

    said = play(make_app, build, ANN, BOB, NOBODY, ANN, NOBODY, IGNORED_READERS=["tracker"])
    assert said == ["MISS", "MISS", "MISS", "BYPASS", "HIT"]


@pytest.mark.parametrize("read", [lambda: session.get("user"), lambda: render_template_string("{{ session.user }}")])
def test_ignore_session_takes_no_notice_of_the_session(make_app: MakeApp, read: View) -> None:
    app, cache = make_app()

    def view() -> str:
        read()
        return f"theme {request.cookies.get('theme')}"

    shown(view, ignore_session=True)(app, cache)
    dark = {"Cookie": f"{cookie_of('ann')}; theme=dark"}
    assert words(app, as_member("ann"), as_member("bob"), NOBODY, dark) == ["MISS", "HIT", "HIT", "BYPASS"]


def test_ignore_session_does_not_cover_its_cookie_read_by_name(make_app: MakeApp) -> None:
    build = shown(lambda: f"for {request.cookies.get('session')}", ignore_session=True)
    assert "HIT" not in play(make_app, build, as_member("ann"), as_member("bob"))


def test_ignore_session_does_not_cover_a_change_of_it(make_app: MakeApp) -> None:
    app, cache = make_app()
    shown(with_session, ignore_session=True)(app, cache)
    assert words(app, as_member("ann"), as_member("bob"), NOBODY) == ["MISS"] * 3


def test_a_session_cookie_of_another_name_is_the_name(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        app.config["SESSION_COOKIE_NAME"] = "sid"
        shown(lambda: f"for {session.get('user')}")(app, cache)

    ann = {"Cookie": cookie_of("ann", "sid")}
    assert play(make_app, build, NOBODY, ann, as_member("bob"), NOBODY) == ["MISS", "BYPASS", "HIT", "HIT"]


def test_an_app_without_a_secret_key_is_cached(directory: Path) -> None:
    app = Flask("shop")
    app.config["STALECACHE_DIR"] = directory
    shown(lambda: f"for {session.get('user')}")(app, StaleCache(app))
    assert words(app, NOBODY, NOBODY, {"Cookie": "session=x"}) == ["MISS", "HIT", "BYPASS"]


# -- rule 4: failures and waiting --------------------------------------------------------------------------------------


def waiters(app: Flask) -> int:
    """Return how many threads wait for a flight."""
    flights = app.extensions["stalecache"].engine.process.flights._flights
    return sum(len(flight.done._cond._waiters) for flight in list(flights.values()))


def at_once(app: Flask, view_runs: threading.Event, go_on: threading.Event, first: Fields, *others: Fields) -> list[Seen]:
    """Let one visitor come, and the others wait for that one's answer."""
    seen: dict[int, Seen] = {}

    def come(number: int, headers: Fields) -> None:
        seen[number] = visit(app, "/", headers)

    threads = [threading.Thread(target=come, args=(count, who)) for count, who in enumerate((first, *others))]
    threads[0].start()
    assert view_runs.wait(10)
    for thread in threads[1:]:
        thread.start()
    pause = threading.Event()
    for _ in range(1000):
        if waiters(app) == len(others):
            break
        pause.wait(0.01)
    go_on.set()
    for thread in threads:
        thread.join(10)
    return [seen[number] for number in range(len(threads))]


@pytest.mark.parametrize("fails", [False, True], ids=["good", "failing"])
def test_who_waited_for_a_strangers_page_gets_their_own(make_app: MakeApp, fails: bool) -> None:
    """An anonymous visitor leads; a member who waited is not given what was made for those who don't carry the cookie."""
    running, go_on = threading.Event(), threading.Event()

    def view() -> tuple[str, int]:
        user = request.cookies.get("user", "-")
        running.set()
        go_on.wait(10)
        return f"for {user}", 503 if fails and user == "-" else 200

    app, cache = make_app()
    shown(view)(app, cache)
    stranger, ann = at_once(app, running, go_on, NOBODY, ANN)
    assert (stranger.text, stranger.status) == ("for -", 503 if fails else 200)
    assert (ann.text, ann.status) == ("for ann", 200)


def test_who_waited_for_a_members_failure_gets_their_own(make_app: MakeApp) -> None:
    running, go_on = threading.Event(), threading.Event()

    def view() -> tuple[str, int]:
        user = request.cookies.get("user", "-")
        running.set()
        go_on.wait(10)
        return f"for {user}", 503 if user == "ann" else 200

    app, cache = make_app()
    shown(view)(app, cache)
    ann, *strangers = at_once(app, running, go_on, ANN, NOBODY, NOBODY)
    assert ann.page == ("MISS", "for ann")
    assert [seen.text for seen in strangers] == ["for -", "for -"]


def test_a_failure_that_could_be_anybodys_is_shared(make_app: MakeApp) -> None:
    """One run of the view; but each has a response of their own, which hooks may change."""
    running, go_on = threading.Event(), threading.Event()

    def view() -> tuple[str, int]:
        running.set()
        go_on.wait(10)
        return number(), 503

    app, cache = make_app()

    @app.after_request
    def sign(response: Response) -> Response:
        response.stream.write(b" signed")
        response.headers.add("X-Signed", "1")
        return response

    shown(view)(app, cache)
    seen = at_once(app, running, go_on, NOBODY, NOBODY, NOBODY)
    assert [page.text for page in seen] == ["page 1 signed"] * 3
    assert [page.headers.getlist("X-Signed") for page in seen] == [["1"]] * 3


@pytest.mark.parametrize(
    "fail",
    [
        lambda: ("busy", 503),
        lambda: (iter(["bu", "sy"]), 503),
        lambda: abort(503, "busy"),
        lambda: abort(current_app.response_class("busy", 503)),
        raises,
    ],
    ids=["returned", "stream", "abort", "abort-with-response", "raised"],
)
def test_who_shares_a_failure_is_not_given_what_hooks_did_for_the_first(make_app: MakeApp, fail: View) -> None:
    """Such as the session cookie that is saved with the first one's response, while the others wake up."""
    running, go_on, signed = threading.Event(), threading.Event(), threading.Event()
    mark = "first.visitor"

    class Slow(Response):
        def iter_encoded(self) -> Iterator[bytes]:
            # Whoever waited is slow to look at the failure, until the first one's hooks are done with it.
            assert not request or mark in request.environ or signed.wait(10)
            return super().iter_encoded()

    def view() -> Any:
        running.set()
        go_on.wait(10)
        return fail()

    app, cache = make_app()
    app.response_class = Slow
    app.register_error_handler(LookupError, lambda error: ("busy", 500))
    visitors = iter([True])

    @app.before_request
    def count() -> None:
        if next(visitors, False):
            request.environ[mark] = True

    @app.after_request
    def sign(response: Response) -> Response:
        if mark in request.environ:
            response.set_cookie("session", "of the first")
            response.set_data("dear first visitor")
            signed.set()
        else:
            assert signed.wait(10)
        return response

    shown(view)(app, cache)
    first, *others = at_once(app, running, go_on, NOBODY, NOBODY, NOBODY)
    assert ("first" in first.headers["Set-Cookie"], first.text) == (True, "dear first visitor")
    assert ["busy" in page.text for page in others] == [True, True]
    assert ["Set-Cookie" in page.headers for page in others] == [False, False]


def fails_for_ann() -> str:
    if request.cookies.get("user") == "ann":
        raise LookupError("nothing for ann")
    return f"for {request.cookies.get('user')}"


def test_a_stale_copy_is_not_for_who_carries_an_absent_name(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    """Not while it is renewed, and not because the origin fails for them."""
    app, cache = make_app(REFRESH_WORKERS=0)
    app.add_url_rule("/", "page", cache.cached(60, 60, 6000, jitter=0)(fails_for_ann))
    assert visit(app).page == ("MISS", "for None")
    clock.shift(70)
    assert visit(app, "/", BOB).page == ("BYPASS", "for bob")
    assert visit(app, "/", ANN).status == 500
    assert visit(app).page == ("STALE", "for None")
    clock.shift(1000)
    assert visit(app, "/", BOB).page == ("BYPASS", "for bob")
    assert visit(app, "/", ANN).status == 500


# -- rule 5: the copy is frozen ----------------------------------------------------------------------------------------

CONDITIONALS = {
    "If-None-Match": '"mine"',
    "If-Match": '"other"',
    "If-Modified-Since": "Tue, 15 Nov 2039 08:12:31 GMT",
    "If-Unmodified-Since": "Tue, 15 Nov 1994 08:12:31 GMT",
    "Range": "bytes=0-1",
    "If-Range": '"mine"',
}


@pytest.mark.parametrize("name", CONDITIONALS)
def test_conditionals_and_range_are_hidden_from_the_view(make_app: MakeApp, name: str) -> None:
    reads = {
        "If-None-Match": lambda: request.if_none_match.to_header(),
        "If-Match": lambda: request.if_match.to_header(),
        "If-Modified-Since": lambda: request.if_modified_since,
        "If-Unmodified-Since": lambda: request.if_unmodified_since,
        "Range": lambda: request.range,
        "If-Range": lambda: request.if_range.to_header(),
    }
    told: list[object] = []

    def view() -> str:
        told.append((request.headers.get(name), reads[name](), name in request.headers))
        return "page"

    app, cache = make_app()
    shown(view)(app, cache)
    visit(app, "/", {name: CONDITIONALS[name]})
    assert told == [(None, reads_nothing(name), False)]
    assert visit(app).page == ("HIT", "page")


def reads_nothing(name: str) -> object:
    return "" if name in {"If-None-Match", "If-Match", "If-Range"} else None


def test_conditionals_are_hidden_from_the_view_also_if_a_hook_has_read_them(make_app: MakeApp) -> None:
    """Werkzeug keeps what it parsed."""
    told: list[bool] = []

    def view() -> str:
        told.append(request.if_none_match.contains("mine"))
        return "page"

    app, cache = make_app()
    app.before_request(lambda: (request.if_none_match, None)[-1])
    shown(view)(app, cache)
    assert visit(app, "/", {"If-None-Match": '"mine"'}).status == 200
    assert told == [False]


def test_a_range_does_not_cut_the_copy(make_app: MakeApp, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    app, cache = make_app()
    shown(lambda: send_file(tmp_path / "file", mimetype="text/plain"))(app, cache)
    part = visit(app, "/", {"Range": "bytes=2-3"})
    assert (part.status, part.text, part.headers["Content-Range"]) == (206, "23", "bytes 2-3/10")
    assert visit(app).page == ("HIT", "0123456789")


def test_conditionals_are_there_again_after_the_view(make_app: MakeApp) -> None:
    told: list[str | None] = []
    app, cache = make_app()

    @app.after_request
    def look(response: Response) -> Response:
        told.append(request.headers.get("If-None-Match"))
        return response

    shown(lambda: "page")(app, cache)
    visit(app, "/", {"If-None-Match": '"mine"'})
    assert told == ['"mine"']


@pytest.mark.parametrize(
    "change",
    [
        lambda response: response.stream.write(b"for ann"),
        lambda response: response.set_data("for ann"),
        lambda response: setattr(response, "response", ["for ann"]),
        lambda response: response.headers.add("X-For", "ann"),
        lambda response: response.headers.clear(),
        lambda response: response.set_cookie("user", "ann"),
        lambda response: setattr(response, "status_code", 500),
        lambda response: setattr(response, "content_type", "text/x"),
        lambda response: response.vary.add("X-Ann"),
        lambda response: setattr(response.cache_control, "private", True),
        lambda response: response.set_etag("ann"),
        lambda response: response.freeze(),
    ],
    ids=[
        "stream.write", "set_data", "response", "headers.add", "headers.clear", "set_cookie", "status", "content_type", "vary",
        "cache_control", "set_etag", "freeze",
    ],
)  # fmt: skip
@pytest.mark.parametrize("when", ["MISS", "HIT"])
def test_what_a_hook_does_to_a_response_never_reaches_the_copy(
    make_app: MakeApp, change: Callable[[Response], object], when: str
) -> None:
    app, cache = make_app()

    @app.after_request
    def mark(response: Response) -> Response:
        if request.environ.get("HTTP_X_USER") == "ann":
            change(response)
        return response

    shown(lambda: Response("page", headers={"X-Own": "1"}))(app, cache)
    if when == "HIT":
        visit(app)
    visit(app, "/", {"X-User": "ann"})
    after = visit(app, "/", {"X-User": "bob"})
    assert (after.word, after.status, after.text, after.headers["X-Own"]) == ("HIT", 200, "page", "1")
    assert "ann" not in str(after.headers).lower()
    assert after.headers.get("Content-Type") == "text/html; charset=utf-8"
    assert "Cache-Control" not in after.headers


def test_bodies_are_handed_out_in_a_tuple(make_app: MakeApp) -> None:
    app, cache = make_app()
    kinds: list[type] = []

    @app.after_request
    def look(response: Response) -> Response:
        kinds.append(type(response.response))
        return response

    shown(lambda: Response(["pa", "ge"]))(app, cache)
    assert [visit(app).page for _ in range(3)] == [("MISS", "page"), ("HIT", "page"), ("HIT", "page")]
    assert kinds == [tuple] * 3


# -- rule 6: one line --------------------------------------------------------------------------------------------------


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("flask_stalecache")]


def reading_view() -> str:
    return f"for {request.headers.get('X-User')} {request.cookies.get('user')}"


def test_a_field_is_named_with_its_reader_and_what_to_write(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert play(make_app, shown(reading_view), {"X-User": "ann"}, {"X-User": "bob"}) == ["MISS", "MISS"]
    (line,) = lines(caplog)
    for part in ("test_privacy.reading_view", "x-user", f"read by {__name__}", "vary=['x-user']", "STALECACHE_IGNORED_HEADERS"):
        assert part in line


def test_a_cookie_is_named_with_its_reader_and_what_to_write(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    play(make_app, shown(reading_view), {"Cookie": "user=ann"}, {"Cookie": "user=bob"})
    (line,) = lines(caplog)
    for part in ("test_privacy.reading_view", "cookie user", f"read by {__name__}"):
        assert part in line


def test_the_reader_in_a_hook_is_named(make_app: MakeApp, caplog: pytest.LogCaptureFixture, exempt: types.ModuleType) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        app.before_request(lambda: (exempt.field("X-User"), None)[-1])
        shown(reading_view)(app, cache)

    play(make_app, build, {"X-User": "ann"}, {"X-User": "bob"}, NOBODY)
    (line,) = lines(caplog)
    assert "read by tracker.inside" in line


def test_the_session_is_named_with_what_to_write(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    play(make_app, shown(lambda: f"for {session.get('user')}"), as_member("ann"), as_member("bob"))
    (line,) = lines(caplog)
    assert "ignore_session=True" in line


def test_a_parameter_is_named_with_what_to_write(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app, cache = make_app()
    shown(lambda: f"{request.args.get('ref')}", ignored_parameters=["ref"])(app, cache)
    assert [visit(app, path).text for path in ("/?ref=ann", "/?ref=bob")] == ["ann", "bob"]
    (line,) = lines(caplog)
    assert "ref" in line
    assert "ignored_parameters" in line


@pytest.mark.parametrize(
    ("view", "told"),
    [
        (lambda: str(dict(request.headers)), ["test_privacy goes through all headers", "by name"]),
        (lambda: str(dict(request.cookies)), ["test_privacy goes through all cookies", "by name"]),
        (lambda: Response("page", headers={"Vary": "X-User"}), ["vary=['x-user']"]),
        (with_cookie, ["sets a cookie"]),
        (with_session, ["session"]),
        (with_callback, ["after_this_request"]),
        (streamed, ["stream"]),
        (lambda: Response(b"x" * 101), ["MAX_ENTRY_SIZE"]),
    ],
    ids=["headers", "cookies", "vary", "set-cookie", "session", "after_this_request", "stream", "size"],
)
def test_each_reason_that_can_be_mended_gives_one_line(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, view: View, told: list[str]
) -> None:
    app, cache = make_app(MAX_ENTRY_SIZE=100)
    shown(view)(app, cache)
    assert words(app, ANN, BOB, NOBODY) == ["MISS"] * 3
    (line,) = lines(caplog)
    assert view.__qualname__ in line
    for part in told:
        assert part in line


def test_two_views_have_a_line_each(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app, cache = make_app()
    app.add_url_rule("/a", "a", cache.cached(60)(reading_view))
    app.add_url_rule("/b", "b", cache.cached(60)(with_cookie))
    for path in ("/a", "/b", "/a", "/b"):
        visit(app, path, {"X-User": "ann"})
    assert sorted(line.split()[0].rpartition(".")[2] for line in lines(caplog)) == ["reading_view", "with_cookie"]


def test_a_page_that_is_too_large_has_one_line_whatever_its_size(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app, cache = make_app(MAX_ENTRY_SIZE=100)
    shown(lambda: "x" * (100 + len(request.path)))(app, cache)
    app.add_url_rule("/<path:more>", "more", cache.cached(60)(lambda more: "x" * (100 + len(more))))
    for count in range(1, 6):
        visit(app, f"/{'a' * count}")
    assert len(lines(caplog)) == 1


@pytest.mark.parametrize("field", ["*", "Cookie", "Authorization", "X-User", "Accept-Encoding, X-User"])
def test_what_a_line_says_to_write_is_accepted(make_app: MakeApp, caplog: pytest.LogCaptureFixture, field: str) -> None:
    app, cache = make_app()
    shown(lambda: Response("page", headers={"Vary": field}))(app, cache)
    visit(app)
    (line,) = lines(caplog)
    _, written, rest = line.partition("vary=[")
    if written:
        cache.cached(60, vary=[name.strip(" '\"") for name in rest.partition("]")[0].split(",")])


@pytest.mark.parametrize(
    "view",
    [
        lambda: Response("page", headers={"Cache-Control": "private"}),
        lambda: Response("page", headers={"Cache-Control": "no-store"}),
        lambda: ("page", 404),
        lambda: abort(403),
        lambda: "page",
    ],
    ids=["private", "no-store", "404", "abort", "stored"],
)
def test_what_the_developer_wished_gives_no_line(make_app: MakeApp, caplog: pytest.LogCaptureFixture, view: View) -> None:
    caplog.set_level(logging.INFO)
    app, cache = make_app()
    shown(view)(app, cache)
    words(app, ANN, BOB, NOBODY)
    assert lines(caplog) == []


def test_a_view_that_a_decorator_gives_an_argument_is_live_with_a_line(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """The usual ``@with_user`` above the cache: the developer can mend it, so they are told."""
    app, cache = make_app()
    cached = cache.cached(60)(lambda user: f"for {user}")
    app.add_url_rule("/", "page", lambda: cached(user=request.cookies.get("user")))
    assert [visit(app, "/", who).page for who in (ANN, BOB)] == [("BYPASS", "for ann"), ("BYPASS", "for bob")]
    assert len(lines(caplog)) == 1


# -- views of all kinds ------------------------------------------------------------------------------------------------


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
            """It lives nowhere."""

    def build(app: Flask, cache: StaleCache) -> None:
        app.session_interface = BareInterface()  # type: ignore[assignment]
        shown(lambda: f"for {session['user']}")(app, cache)

    assert play(make_app, build, NOBODY, {"Cookie": "session=ann"}, {"Cookie": "session=bob"}, NOBODY) == ["MISS"] * 4
