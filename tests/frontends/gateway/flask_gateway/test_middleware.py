"""Middleware between the gateway and a Flask app: it works on the environ behind the gateway, and no hit reaches it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from http.cookies import SimpleCookie
from typing import Any
from wsgiref.validate import validator

import pytest
from flask import Flask, Request, redirect, request, url_for
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Response

from flask_stalecache import Policy, StaleCache
from support.client import Seen, visit
from support.endurance import IS_SOAK
from support.flask_gateway import Fields, fresh
from support.privacy import lines
from support.threads import PATIENCE, go, results
from support.wsgi_apps import wait_for_waiters

Environ = dict[str, Any]
App = Callable[[Environ, Any], Iterable[bytes]]
Middleware = Callable[[App], App]
ALICE: Fields = {"Cookie": "sso=alice"}
BOB: Fields = {"Cookie": "sso=bob"}
NOBODY: Fields = {}


def changing(change: Callable[[Environ], object]) -> Middleware:
    """Return middleware that changes the environ in place."""

    def wrap(app: App) -> App:
        def middleware(environ: Environ, start_response: Any) -> Iterable[bytes]:
            change(environ)
            return app(environ, start_response)

        return middleware

    return wrap


def copying(copy: Callable[[Environ], Environ], change: Callable[[Environ], object]) -> Middleware:
    """Return middleware that passes a changed copy of the environ on."""

    def wrap(app: App) -> App:
        def middleware(environ: Environ, start_response: Any) -> Iterable[bytes]:
            copied = copy(environ)
            change(copied)
            return app(copied, start_response)

        return middleware

    return wrap


def cookie_of(environ: Environ) -> str:
    cookies = SimpleCookie(environ.get("HTTP_COOKIE", ""))
    return cookies["sso"].value if "sso" in cookies else ""


def sso(environ: Environ) -> None:
    if name := cookie_of(environ):
        environ["REMOTE_USER"] = name


def sso_own_variable(environ: Environ) -> None:
    environ["sso.user"] = cookie_of(environ) or None


def sso_by_request(environ: Environ) -> None:
    environ["sso.user"] = Request(environ).cookies.get("sso")


def sso_by_field(environ: Environ) -> None:
    environ["HTTP_X_USER"] = cookie_of(environ)


def sso_forwarded(environ: Environ) -> None:
    if "HTTP_X_FORWARDED_USER" in environ:
        environ["REMOTE_USER"] = environ["HTTP_X_FORWARDED_USER"]


def method_override(environ: Environ) -> None:
    method = environ.get("HTTP_X_HTTP_METHOD_OVERRIDE", "").upper()
    if method in ("OPTIONS", "POST", "DELETE", "HEAD"):
        environ["REQUEST_METHOD"] = method


def reverse_proxied(environ: Environ) -> None:
    """The well-known snippet."""
    if script_name := environ.get("HTTP_X_SCRIPT_NAME", ""):
        environ["SCRIPT_NAME"] = script_name
        if environ["PATH_INFO"].startswith(script_name):
            environ["PATH_INFO"] = environ["PATH_INFO"][len(script_name) :]
    if scheme := environ.get("HTTP_X_SCHEME", ""):
        environ["wsgi.url_scheme"] = scheme
    if host := environ.get("HTTP_X_ORIGINAL_HOST", ""):
        environ["HTTP_HOST"] = host


def show(app: Flask) -> None:
    """Add a page that shows who is there, where it is, and how it was asked for."""

    def page() -> Any:
        if request.scheme == "http" and request.args.get("secure"):
            return redirect(request.url.replace("http://", "https://"))
        who = request.environ.get("REMOTE_USER") or request.environ.get("sso.user") or request.headers.get("X-User") or "stranger"
        return f"{request.method} {who} {url_for('page', _external=True)} {request.root_path}"

    app.add_url_rule("/", "page", page, methods=["GET", "POST", "DELETE", "OPTIONS"], provide_automatic_options=False)
    app.after_request(fresh)


MakeSite = Callable[..., tuple[Flask, Flask]]


@pytest.fixture
def make_site(tmp_path: Any) -> MakeSite:
    """Return a function that makes the same app with a gateway and without a cache, with middleware put on before ``init_app``."""

    def make(middleware: Middleware, gateway: Any = True, **config: Any) -> tuple[Flask, Flask]:
        apps = []
        for enabled in (True, False):
            app = Flask("shop")
            app.config.update(STALECACHE_DIR=tmp_path / "cache", STALECACHE_GATEWAY=gateway, STALECACHE_ENABLED=enabled, **config)
            app.wsgi_app = middleware(app.wsgi_app)  # type: ignore[method-assign, assignment]
            cache = StaleCache(app)
            show(app)
            if gateway is False:
                app.view_functions["page"] = cache.cached(60, gateway=True)(app.view_functions["page"])
            apps.append(app)
        return apps[0], apps[1]

    return make


def walk(site: tuple[Flask, Flask], *visitors: Fields, path: str = "/") -> list[str]:
    """Make the visits, compare each answer with that of the same site without a cache, and return the cache status words."""
    app, plain = site
    said = []
    for headers in visitors:
        seen, expected = visit(app, path, headers), visit(plain, path, headers)
        assert _shown(seen) == _shown(expected), (said, dict(headers))
        said.append(seen.word)
    return said


def _shown(seen: Seen) -> tuple[Any, ...]:
    return seen.status, seen.text, seen.headers.get("Location")


#: Middleware, and the fields that the members of its site send.
SITES: dict[str, tuple[Middleware, list[Fields]]] = {
    "REMOTE_USER from a cookie": (changing(sso), [ALICE, BOB]),
    "a variable of its own": (changing(sso_own_variable), [ALICE, BOB]),
    "a variable, by a request": (changing(sso_by_request), [ALICE, BOB]),
    "a field from a cookie": (changing(sso_by_field), [ALICE, BOB]),
    "REMOTE_USER from a field": (changing(sso_forwarded), [{"X-Forwarded-User": "alice"}, {"X-Forwarded-User": "bob"}]),
    "REMOTE_USER in a copy": (copying(dict.copy, sso), [ALICE, BOB]),
    "REMOTE_USER in a dict": (copying(dict, sso), [ALICE, BOB]),
    "REMOTE_USER in an unpacked dict": (copying(lambda environ: {**environ}, sso), [ALICE, BOB]),
    "REMOTE_USER in environ.copy()": (copying(lambda environ: environ.copy(), sso), [ALICE, BOB]),
    "method override": (
        changing(method_override),
        [{"X-HTTP-Method-Override": method} for method in ("OPTIONS", "POST", "DELETE", "HEAD")],
    ),
    "script root": (changing(reverse_proxied), [{"X-Script-Name": "//evil.example"}, {"X-Script-Name": "/shop"}]),
    "scheme": (changing(reverse_proxied), [{"X-Scheme": "https"}, {"X-Scheme": "javascript"}]),
    "host": (changing(reverse_proxied), [{"X-Original-Host": "evil.example"}]),
}
#: Sites whose pages are never stored: the middleware copies the environ in C code, so that what it reads of the copy is not seen,
#: or makes a request object of the whole environ.
NEVER = {"a variable, by a request", "REMOTE_USER in a copy", "REMOTE_USER in a dict", "REMOTE_USER in an unpacked dict"}


#: Who comes first, and to which page. Under ``make test``, each once.
WALKS = [("a stranger first", "/"), ("members first", "/?secure=1")]
if IS_SOAK:
    WALKS += [("a stranger first", "/?secure=1"), ("members first", "/")]


@pytest.mark.grid
@pytest.mark.parametrize("gateway", [True, False], ids=["STALECACHE_GATEWAY", "gateway=True"])
@pytest.mark.parametrize("name", SITES)
@pytest.mark.parametrize(("order", "path"), WALKS)
def test_nobody_sees_anothers_page(make_site: MakeSite, name: str, order: str, path: str, gateway: bool) -> None:
    middleware, members = SITES[name]
    site = make_site(middleware, gateway)
    walk(site, *([NOBODY, *members, NOBODY] if order == "a stranger first" else [*members, NOBODY, *members]), path=path)
    walk(site, NOBODY, *reversed(members), NOBODY, path=path)
    assert walk(site, NOBODY, path=path) == (["HIT"] if name not in NEVER else ["MISS"])
    assert "HIT" not in walk(site, *members, path=path)


def by_server(environ: Environ) -> None:
    environ["REMOTE_USER"] = environ.get("SSL_CLIENT_S_DN", "")


#: Changes for which no field was read, so that nothing tells the visitors apart.
UNTOLD: dict[str, Callable[[Environ], object]] = {
    "REMOTE_USER": lambda environ: environ.update(REMOTE_USER="alice"),
    "REMOTE_USER by certificate": by_server,
    "method": lambda environ: environ.update(REQUEST_METHOD="POST"),
    "scheme": lambda environ: environ.update({"wsgi.url_scheme": "https"}),
    "host": lambda environ: environ.update(HTTP_HOST="evil.example"),
    "server": lambda environ: environ.update(SERVER_NAME="evil.example"),
    "path": lambda environ: environ.update(SCRIPT_NAME="//evil.example"),
    "query": lambda environ: environ.update(QUERY_STRING="secure="),
    "the field x-user": lambda environ: environ.update(HTTP_X_USER="alice"),
}


@pytest.mark.parametrize("name", UNTOLD)
def test_what_is_changed_without_a_field_is_not_stored(make_site: MakeSite, caplog: pytest.LogCaptureFixture, name: str) -> None:
    app, plain = make_site(changing(UNTOLD[name]))
    certificate = {"SSL_CLIENT_S_DN": "alice"}
    for _ in range(3):
        assert visit(app, environ=certificate).text == visit(plain, environ=certificate).text
    assert visit(app, environ=certificate).word == "MISS"
    said = [line for line in lines(caplog) if "not stored" in line]
    assert len(said) == 1
    assert "put" in said[0]
    assert "after init_app" in said[0]


def test_a_certificate_that_nobody_had_bars_those_who_have_one(make_site: MakeSite) -> None:
    """No field tells them apart, but a variable of the environ does."""
    app, _ = make_site(changing(by_server))
    assert [visit(app).word for _ in range(2)] == ["MISS", "HIT"]
    seen = visit(app, environ={"SSL_CLIENT_S_DN": "alice"})
    assert (seen.word, seen.text.split()[1]) == ("BYPASS", "alice")


@pytest.mark.parametrize("name", ["REMOTE_USER from a cookie", "REMOTE_USER from a field", "REMOTE_USER in a dict"])
def test_who_waits_gets_a_page_of_their_own(make_site: MakeSite, name: str) -> None:
    """Members and strangers at once: what the first of them brings is not given to the others."""
    middleware, (alice, bob) = SITES[name]
    started, more = threading.Event(), threading.Event()

    def held(app: App) -> App:
        def hold(environ: Environ, start_response: Any) -> Iterable[bytes]:
            if not started.is_set():
                started.set()
                assert more.wait(PATIENCE)
            return app(environ, start_response)

        return hold

    app, _ = make_site(lambda inner: held(middleware(inner)))
    first = go(visit, app, "/", alice)
    assert started.wait(PATIENCE)
    others = [go(visit, app, "/", headers) for headers in (bob, NOBODY, bob)]
    wait_for_waiters(app, 3)
    more.set()
    assert [seen.text.split()[1] for seen in results([first, *others])] == ["alice", "bob", "stranger", "bob"]


@pytest.mark.parametrize("status", [200, 404, 503])
def test_requests_that_are_alike_do_not_share_what_middleware_made_of_them(make_site: MakeSite, status: int) -> None:
    """Nothing in the request tells who asks: the server's connection does, for example."""
    names = iter(["alice", "bob", "carl"])
    started, more = threading.Event(), threading.Event()

    def by_connection(app: App) -> App:
        def middleware(environ: Environ, start_response: Any) -> Iterable[bytes]:
            environ["REMOTE_USER"] = next(names)
            if not started.is_set():
                started.set()
                assert more.wait(PATIENCE)
            return app(environ, start_response)

        return middleware

    app, _ = make_site(by_connection)
    app.view_functions["page"] = lambda: (f"sorry {request.environ['REMOTE_USER']}", status)
    first = go(visit, app)
    assert started.wait(PATIENCE)
    others = [go(visit, app) for _ in range(2)]
    wait_for_waiters(app, 2)
    more.set()
    shown = [seen.text for seen in results([first, *others])]
    assert len({text for text in shown if text.startswith("sorry")}) == len([text for text in shown if text.startswith("sorry")])
    assert shown[0] == "sorry alice"
    assert "alice" not in "".join(shown[1:])


# -- what stays a hit ------------------------------------------------------------------------------------------------


def proxied(app: App) -> App:
    return ProxyFix(app, x_for=1, x_proto=1, x_host=1, x_port=1, x_prefix=1)


def mounted(app: App) -> App:
    return DispatcherMiddleware(Response("nothing here", 404), {"/shop": app})


def logging_only(environ: Environ) -> None:
    """Read what is in every key, and set variables of its own."""
    environ["log.line"] = environ["REQUEST_METHOD"], environ.get("SCRIPT_NAME"), environ["PATH_INFO"], environ["HTTP_HOST"]
    assert environ["log.line"]


def adding_a_field(app: App) -> App:
    """Change the response only."""

    def middleware(environ: Environ, start_response: Any) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(status, [*headers, ("X-Served-By", "shop")], *([exc_info] if exc_info else []))

        return app(environ, start)

    return middleware


FORWARDED = {
    "X-Forwarded-For": "203.0.113.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "shop.example",
    "X-Forwarded-Port": "444",
    "X-Forwarded-Prefix": "/pre",
}
ORDINARY: dict[str, tuple[Middleware, str]] = {
    "nothing": (lambda app: app, "/"),
    "ProxyFix": (proxied, "/"),
    "mount": (mounted, "/shop/"),
    "mount, then ProxyFix": (lambda app: mounted(proxied(app)), "/shop/"),
    "ProxyFix, then mount": (lambda app: proxied(mounted(app)), "/shop/"),
    "logging": (changing(logging_only), "/"),
    "a copy": (copying(lambda environ: environ.copy(), logging_only), "/"),
    "the response": (adding_a_field, "/"),
}


@pytest.mark.grid
@pytest.mark.parametrize("name", ORDINARY)
@pytest.mark.parametrize("script_root", ["", "/app"])
def test_ordinary_middleware_leaves_hits(make_site: MakeSite, name: str, script_root: str) -> None:
    middleware, path = ORDINARY[name]
    app, plain = make_site(middleware)
    for headers in (NOBODY, {**FORWARDED}, {"X-Forwarded-Proto": "https"}, {"Host": "www.example"}):
        options: dict[str, Any] = {"base_url": f"http://localhost{script_root}"}
        seen = [visit(app, path, headers, **options) for _ in range(2)]
        expected = visit(plain, path, headers, **options)
        assert [(each.status, each.text) for each in seen] == [(expected.status, expected.text)] * 2
        assert [each.word for each in seen] == ["MISS", "HIT"]


def test_a_rule_that_names_the_field_makes_variants(make_site: MakeSite) -> None:
    site = make_site(changing(reverse_proxied), [("/*", Policy(max_age=60, vary=["X-Script-Name", "X-Scheme"]))])
    visitors: list[Fields] = [
        NOBODY,
        {"X-Script-Name": "/shop"},
        {"X-Scheme": "https"},
        {"X-Script-Name": "/shop", "X-Scheme": "https"},
    ]
    assert walk(site, *visitors, *visitors) == ["MISS"] * 4 + ["HIT"] * 4
    assert walk(site, {"X-Original-Host": "evil.example"}) == ["BYPASS"]


def test_a_response_that_names_the_field_makes_variants(make_site: MakeSite) -> None:
    def varying(app: App) -> App:
        def middleware(environ: Environ, start_response: Any) -> Iterable[bytes]:
            reverse_proxied(environ)
            return app(environ, lambda status, headers, *more: start_response(status, [*headers, ("Vary", "X-Scheme")], *more))

        return middleware

    site = make_site(varying)
    assert walk(site, NOBODY, {"X-Scheme": "https"}, NOBODY, {"X-Scheme": "https"}) == ["MISS", "MISS", "HIT", "HIT"]


def test_a_field_that_explains_must_have_been_read(make_site: MakeSite) -> None:
    site = make_site(changing(UNTOLD["scheme"]), [("/*", Policy(max_age=60, vary=["X-Scheme"]))])
    assert walk(site, NOBODY, {"X-Scheme": "https"}, NOBODY, {"X-Scheme": "https"}) == ["MISS"] * 4


def test_middleware_around_the_gateway_may_do_all_that(make_site: MakeSite) -> None:
    app, _ = make_site(lambda inner: inner)
    app.wsgi_app = changing(lambda environ: (sso(environ), reverse_proxied(environ)))(app.wsgi_app)  # type: ignore[method-assign, assignment]
    visitors: list[Fields] = [NOBODY, ALICE, BOB, {"X-Scheme": "https"}] * 2
    seen = [visit(app, "/", headers).page for headers in visitors]
    assert [text.split()[1] for _, text in seen] == ["stranger", "alice", "bob", "stranger"] * 2
    assert [word for word, _ in seen] == ["MISS", "BYPASS", "BYPASS", "MISS", "HIT", "BYPASS", "BYPASS", "HIT"]


def test_the_log_says_what_to_write(make_site: MakeSite, caplog: pytest.LogCaptureFixture) -> None:
    app, _ = make_site(changing(reverse_proxied))
    for _ in range(3):
        visit(app, "/", {"X-Scheme": "https"})
    assert [line for line in lines(caplog) if "not stored" in line] == [
        "the endpoint page is not stored by the gateway: the request field x-scheme was read by "
        f"{__name__}, between the gateway and the app; put that middleware around app.wsgi_app after init_app, "
        "or name the field in the vary of a rule"
    ]


def test_middleware_that_answers_itself_is_not_stored(make_site: MakeSite, caplog: pytest.LogCaptureFixture) -> None:
    """The gateway can't see on which reads such an answer depends."""

    def gate(app: App) -> App:
        def middleware(environ: Environ, start_response: Any) -> Iterable[bytes]:
            if cookie_of(environ) != "alice":
                return Response("closed", 403, {"Cache-Control": "max-age=60"})(environ, start_response)
            return app(environ, start_response)

        return middleware

    app, _ = make_site(gate)
    assert [visit(app, "/", headers).status for headers in (NOBODY, ALICE, BOB, NOBODY)] == [403, 200, 403, 403]
    assert "HIT" not in [visit(app, "/", headers).word for headers in (NOBODY, ALICE, BOB)]
    said = [line for line in lines(caplog) if "answered instead of the app" in line]
    assert len(said) == 1
    assert "around app.wsgi_app after init_app" in said[0]


def test_the_validator_of_wsgiref_breaks_no_page(make_site: MakeSite, caplog: pytest.LogCaptureFixture) -> None:
    """It accepts only a plain dict, whose reads can't be seen."""
    site = make_site(validator)
    assert walk(site, NOBODY, ALICE, NOBODY) == ["MISS"] * 3
    said = [line for line in lines(caplog) if "not stored" in line]
    assert len(said) == 1
    assert "wsgiref.validate reads the environ as a whole" in said[0]


def test_an_error_of_the_app_is_no_reason_to_call_it_again(make_site: MakeSite) -> None:
    calls: list[int] = []

    def broken(app: App) -> App:
        def middleware(environ: Environ, start_response: Any) -> Iterable[bytes]:
            calls.append(1)
            raise AssertionError("not today")

        return middleware

    app, _ = make_site(broken)
    with pytest.raises(AssertionError, match="not today"):
        visit(app)
    assert len(calls) == 1


def test_middleware_that_asks_the_app_twice_is_judged_by_both(make_site: MakeSite) -> None:
    def twice(app: App) -> App:
        def middleware(environ: Environ, start_response: Any) -> Iterable[bytes]:
            list(app({**environ.copy(), "HTTP_X_USER": environ.get("HTTP_X_USER", "")}, lambda *args: None))
            return app(environ, start_response)

        return middleware

    site = make_site(twice)
    walk(site, NOBODY, {"X-User": "alice"}, NOBODY)
    assert "HIT" not in walk(site, {"X-User": "alice"}, {"X-User": "bob"})


@pytest.mark.parametrize("read", ["REMOTE_ADDR", "SSL_CLIENT_S_DN"])
def test_middleware_that_reads_who_the_server_says_is_not_stored(make_site: MakeSite, read: str) -> None:
    def gate(app: App) -> App:
        def middleware(environ: Environ, start_response: Any) -> Iterable[bytes]:
            if environ.get(read) != "192.0.2.99":
                return Response("closed", 403)(environ, start_response)
            return app(environ, start_response)

        return middleware

    app, _ = make_site(gate)
    assert [visit(app, environ={read: who}).status for who in ("192.0.2.99", "192.0.2.98", "192.0.2.99")] == [200, 403, 200]
    assert visit(app, environ={read: "192.0.2.98"}).status == 403
