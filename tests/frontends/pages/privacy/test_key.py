"""Privacy: the key, and the ``key`` callable."""

from __future__ import annotations

import json
import operator
import pickle
from collections.abc import Callable
from copy import copy, deepcopy
from typing import Any, cast

import pytest
from flask import (
    Flask,
    Request,
    abort,
    g,
    jsonify,
    render_template_string,
    request,
    session,
)
from flask.globals import request_ctx
from flask.sessions import SecureCookieSession, SessionMixin
from flask.views import MethodView

from flask_stalecache import StaleCache
from support.client import MakeApp, visit
from support.privacy import (
    ANN,
    ANN_AND_MORE,
    BOB,
    NOBODY,
    Fields,
    UntoldInterface,
    as_member,
    lines,
    link,
    play,
    raises,
    shown,
)

# -- rule 2: the key ---------------------------------------------------------------------------------------------------


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
    # The environ of "/?" is that of "/" if the server does not distinguish an empty query from none: then they are one page.
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
    """The ``str`` of an object does not tell its value."""
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
    ],
    ids=["user", "more"],
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
    # On another host, members come first.
    nobody, ann, bob = ({**who, "Host": "other"} for who in (NOBODY, ANN, BOB))
    assert play(make_app, build, ann, bob, nobody, ann, nobody) == ["MISS", "MISS", "MISS", "BYPASS", "HIT"]


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


@pytest.mark.grid
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
    ann, bob = as_member("ann"), as_member("bob")
    on_another_host = ({**who, "Host": "x"} for who in (ann, bob, ann))
    said = play(make_app, build, NOBODY, ann, bob, NOBODY, *on_another_host)
    assert said == ["MISS", "BYPASS", "BYPASS", "HIT", "MISS", "MISS", "MISS"]


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
