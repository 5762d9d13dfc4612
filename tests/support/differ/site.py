"""A site that greets its members, built with or without a cache: same pages, same logins, same middleware.

All its answers depend on the request alone, so that the site without a cache says what each visitor must see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import time_machine
from flask import Flask, Request, Response, abort, current_app, g, redirect, request, session, stream_with_context, url_for
from flask.sessions import SecureCookieSession, SessionInterface, SessionMixin
from flask_login import LoginManager, UserMixin, current_user
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_stalecache import GatewayCache, StaleCache
from support.clock import NOON
from support.flask_gateway import signed
from support.silence import silent_logger

Wsgi: TypeAlias = "Callable[[dict[str, Any], Any], Iterable[bytes]]"

WINDOWS = {"max_age": 60, "stale_while_revalidate": 600, "stale_if_error": 6000, "jitter": 0}
IGNORED = ["utm_*"]
#: Where the site is found if it is mounted in another one.
MOUNT = "/shop"
LOCALHOST = "127.0.0.1"

#: The fronts: the view, the gateway of all views and of one view, and the gateway in front of the site as any WSGI app.
VIEW, GATEWAY, GATEWAY_VIEW, WSGI = "cached", "STALECACHE_GATEWAY", "cached(gateway=True)", "GatewayCache"
FRONTS = (VIEW, GATEWAY, GATEWAY_VIEW, WSGI)


# -- who is there ----------------------------------------------------------------------------------------------------


class Users(SessionInterface):
    """Looks the user up while the session is opened, and leaves the name in ``g``."""

    def open_session(self, app: Flask, request: Request) -> SessionMixin:
        g.user = request.cookies.get("user")
        return SecureCookieSession()

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Do nothing: the session never changes."""


class SignOn:
    """Middleware that says who is there, as a proxy for single sign-on does.

    :param name: the name in the environ that it sets.
    :param source: the field that it reads.
    """

    def __init__(self, app: Wsgi, name: str, source: str) -> None:
        self._app, self._name, self._source = app, name, source

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        value = environ.get(self._source, "")
        if self._source == "HTTP_COOKIE":
            value = next((part[5:] for part in value.split("; ") if part.startswith("user=")), "")
        if value:
            environ[self._name] = value
        return self._app(environ, start_response)


def _allowed() -> str | None:
    return "admin" if request.remote_addr == LOCALHOST else None


def _with_flask_login(app: Flask) -> None:
    manager = LoginManager(app)

    @manager.user_loader
    def load(name: str) -> UserMixin:
        user = UserMixin()
        user.id = name  # type: ignore[attr-defined]
        return user


def _keeping_users(app: Flask) -> None:
    app.session_interface = Users()


@dataclass(frozen=True)
class Login:
    """A way in which the site knows its members.

    :ivar fields: what a member sends.
    :ivar who: returns the member's name, in the view.
    :ivar in_hook: a hook asks, and leaves the name in ``g``.
    :ivar setup: what else the app needs.
    :ivar inner: middleware that is put in front of the app before the extension.
    :ivar outer: middleware that is put in front of the app after the extension.
    :ivar vary: what the app has to name in ``Vary`` if the cache can't observe what it reads.
    """

    fields: Callable[[str], dict[str, str]]
    who: Callable[[], str | None]
    in_hook: bool = False
    setup: Callable[[Flask], None] | None = None
    inner: Callable[[Wsgi], Wsgi] | None = None
    outer: Callable[[Wsgi], Wsgi] | None = None
    vary: str = "Cookie"


def _cookie(name: str) -> dict[str, str]:
    return {"HTTP_COOKIE": f"user={name}"}


def _field(name: str) -> dict[str, str]:
    return {"HTTP_X_USER": name}


def _session(name: str) -> dict[str, str]:
    return {"HTTP_COOKIE": SESSIONS[name]}


def _signed(name: str) -> str:
    with time_machine.travel(NOON - 86_400):
        return signed({"user": name, "_user_id": name})


MEMBERS = ("ann", "bob")
#: Signed a day before the walks: a session contains the time at which it was signed, which must not be in the future.
SESSIONS = {name: _signed(name) for name in MEMBERS}

LOGINS = {
    "cookie in a view": Login(_cookie, lambda: request.cookies.get("user")),
    "cookie in a hook": Login(_cookie, lambda: request.cookies.get("user"), in_hook=True),
    "field in a view": Login(_field, lambda: request.headers.get("X-User"), vary="X-User"),
    "field in a hook": Login(_field, lambda: request.headers.get("X-User"), in_hook=True, vary="X-User"),
    "environ in a view": Login(_field, lambda: request.environ.get("HTTP_X_USER"), vary="X-User"),
    "environ in a hook": Login(_field, lambda: request.environ.get("HTTP_X_USER"), in_hook=True, vary="X-User"),
    "headers.environ": Login(_field, lambda: request.headers.environ.get("HTTP_X_USER"), vary="X-User"),
    "session in a view": Login(_session, lambda: session.get("user")),
    "session in a hook": Login(_session, lambda: session.get("user"), in_hook=True),
    "flask-login": Login(_session, lambda: getattr(current_user, "id", None), setup=_with_flask_login),
    "session interface": Login(_cookie, lambda: g.user, setup=_keeping_users),
    "authorization": Login(
        lambda name: {"HTTP_AUTHORIZATION": f"Bearer {name}"},
        lambda: None if request.authorization is None else request.authorization.token,
        vary="Authorization",
    ),
    "address in a view": Login(lambda name: {"REMOTE_ADDR": LOCALHOST}, _allowed, vary="*"),
    "address in a hook": Login(lambda name: {"REMOTE_ADDR": LOCALHOST}, _allowed, in_hook=True, vary="*"),
    "sign-on by cookie, inside": Login(
        _cookie, lambda: request.remote_user, inner=lambda app: SignOn(app, "REMOTE_USER", "HTTP_COOKIE")
    ),
    "sign-on by field, inside": Login(
        _field, lambda: request.remote_user, inner=lambda app: SignOn(app, "REMOTE_USER", "HTTP_X_USER"), vary="X-User"
    ),
    "sign-on by a name of its own, inside": Login(
        _cookie, lambda: request.environ.get("sso.user"), inner=lambda app: SignOn(app, "sso.user", "HTTP_COOKIE")
    ),
    "sign-on by cookie, outside": Login(
        _cookie, lambda: request.remote_user, outer=lambda app: SignOn(app, "REMOTE_USER", "HTTP_COOKIE")
    ),
    "sign-on by field, outside": Login(
        _field, lambda: request.remote_user, outer=lambda app: SignOn(app, "REMOTE_USER", "HTTP_X_USER"), vary="X-User"
    ),
}


# -- middleware ------------------------------------------------------------------------------------------------------


class ReverseProxied:
    """A snippet that many apps behind a proxy have copied, unchanged."""

    def __init__(self, app: Wsgi) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        script_name = environ.get("HTTP_X_SCRIPT_NAME", "")
        if script_name:
            environ["SCRIPT_NAME"] = script_name
            path_info = environ["PATH_INFO"]
            if path_info.startswith(script_name):
                environ["PATH_INFO"] = path_info[len(script_name) :]
        scheme = environ.get("HTTP_X_SCHEME", "")
        if scheme:
            environ["wsgi.url_scheme"] = scheme
        return self._app(environ, start_response)


class MethodOverride:
    """Lets a form or a proxy choose the method."""

    def __init__(self, app: Wsgi) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        method = environ.get("HTTP_X_HTTP_METHOD_OVERRIDE", "").upper()
        if method in ("GET", "HEAD", "POST", "OPTIONS", "DELETE"):
            environ["REQUEST_METHOD"] = method
        return self._app(environ, start_response)


class OnACopy:
    """Gives the app an environ of its own, as some middleware does."""

    def __init__(self, app: Wsgi) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return self._app({**environ, "HTTP_X_USER": environ.get("HTTP_X_ALIAS") or environ.get("HTTP_X_USER", "")}, start_response)


def _nothing_here(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("404 NOT FOUND", [("Content-Type", "text/plain")])
    return [b"nothing here"]


def _beside(app: Wsgi) -> Wsgi:
    """Put another app beside the site."""
    return DispatcherMiddleware(app, {"/api": _nothing_here})


def _mounted(app: Wsgi) -> Wsgi:
    return DispatcherMiddleware(_nothing_here, {MOUNT: app})


MIDDLEWARE: dict[str, Callable[[Wsgi], Wsgi]] = {
    "ReverseProxied": ReverseProxied,
    "ProxyFix": lambda app: ProxyFix(app, x_for=1, x_proto=1, x_host=1, x_prefix=1),
    "another app beside": _beside,
    "mount": _mounted,
    "method override": MethodOverride,
    "on a copy": OnACopy,
}
#: Fields that middleware reads, and that an honest app names in Vary.
READ_BY_MIDDLEWARE = (
    "X-Script-Name", "X-Scheme", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Prefix",
    "X-HTTP-Method-Override", "X-Alias",
)  # fmt: skip


class Honest:
    """Names in ``Vary`` what the site reads. A gateway in front of an app that it can't observe has to rely on that."""

    def __init__(self, app: Wsgi, login: Login) -> None:
        self._app = app
        self._vary = ", ".join((*READ_BY_MIDDLEWARE, "X-User", "X-Request-Id", "Accept-Language", login.vary))

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        # No field says which address a request comes from.
        vary = "*" if environ["PATH_INFO"].endswith("/origin") else self._vary

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            return start_response(status, [*headers, ("Vary", vary)], *more)

        return self._app(environ, start)


# -- pages -----------------------------------------------------------------------------------------------------------


def _who() -> str:
    scenario: Scenario = current_app.config["SCENARIO"]
    return (g.who if scenario.way.in_hook else scenario.way.who()) or "stranger"


def _late() -> Response:
    def chunks() -> Iterator[str]:
        yield "hello "
        yield _who()

    return Response(stream_with_context(chunks()), mimetype="text/plain")


def _members() -> str | Response:
    if _who() == "stranger":
        return redirect(url_for("plain", next=request.path), 302)  # type: ignore[return-value]
    return f"the secret of {_who()}"


def _secure() -> str | Response:
    if not request.is_secure:
        return redirect(request.url.replace("http:", "https:", 1), 301)  # type: ignore[return-value]
    return "behind a lock"


def _seen_by_hook() -> Response:
    return Response("hello", headers={"X-Greets": _who()})


def _with_cookie() -> Response:
    response = Response("have a cookie")
    response.set_cookie("seen", _who())
    return response


def _in_session() -> str:
    session["greeted"] = _who()
    return "we remember you"


def _failing() -> tuple[str, int]:
    return f"sorry {_who()}", 503


def _forbidden() -> str:
    if _who() == "stranger":
        abort(403)
    return "come in"


PAGES: dict[str, tuple[str, Callable[[], Any]]] = {
    "hello": ("/", lambda: f"hello {_who()}"),
    "plain": ("/plain", lambda: "the same for all"),
    "members": ("/members", _members),
    "forbidden": ("/forbidden", _forbidden),
    "late": ("/late", _late),
    "greets": ("/greets", _seen_by_hook),
    "signed": ("/signed", lambda: "sincerely yours"),
    "cookie": ("/cookie", _with_cookie),
    "session": ("/session", _in_session),
    "failing": ("/failing", _failing),
    "link": ("/link", lambda: f"{url_for('plain', _external=True)} {request.script_root} {request.scheme} {request.host}"),
    "relative": ("/relative", lambda: f"<script src={url_for('plain')}>"),
    "shelf": ("/shelf/", lambda: "a shelf"),
    "secure": ("/secure", _secure),
    "search": ("/search", lambda: f"found {request.args.get('q', '')}"),
    "campaign": ("/campaign", lambda: f"from {request.args.get('utm_source', '')}"),
    "address": ("/address", lambda: f"{request.url} {request.full_path}"),
    "method": ("/method", lambda: f"asked by {request.method}"),
    "body": ("/body", lambda: b"got " + request.get_data()),
    "id": ("/id", lambda: f"request {request.headers.get('X-Request-Id', '')}"),
    "language": ("/language", lambda: f"in {request.accept_languages.best_match(['de', 'en'], 'en')}"),
    "origin": ("/origin", lambda: f"from {request.remote_addr}"),
}
#: Where visitors go: the pages, a redirect that routing makes, two slashes in one, and nothing.
PATHS = (*(path for path, _ in PAGES.values()), "/shelf", "//plain", "/nothing")


# -- the site --------------------------------------------------------------------------------------------------------


class Scenario(NamedTuple):
    """How the site is built.

    :ivar front: one of :data:`FRONTS`.
    :ivar login: a name in :data:`LOGINS`.
    :ivar inner: names in :data:`MIDDLEWARE`, put in front of the app before the extension; the last one is called first.
    :ivar outer: those that are put there after the extension.
    """

    front: str
    login: str
    inner: tuple[str, ...] = ()
    outer: tuple[str, ...] = ()

    @property
    def way(self) -> Login:
        return LOGINS[self.login]

    @property
    def root(self) -> str:
        """Where the site is found."""
        return MOUNT if "mount" in self.inner + self.outer else ""


@dataclass
class Built:
    """The site, ready for visitors."""

    wsgi: Wsgi
    keep: Any = field(repr=False)


def build(scenario: Scenario, paths: frozenset[str], directory: Path | None = None) -> Built:
    """Build the site.

    :param paths: where visitors go; the site has no other pages, since each one takes its time to set up.
    :param directory: where its cache stores; ``None`` builds the same site without a cache.
    """
    app = Flask("shop")
    app.config.update(SECRET_KEY="not a secret", SCENARIO=scenario, PROPAGATE_EXCEPTIONS=False)
    # Apps of the same name would share one logger in the whole process.
    app.logger = silent_logger()
    way, is_wsgi = scenario.way, scenario.front == WSGI
    if way.setup is not None:
        way.setup(app)
    if way.in_hook:
        app.before_request(lambda: setattr(g, "who", way.who()))
    wsgi: Wsgi = app.wsgi_app
    for wrap in [*([way.inner] if way.inner else []), *(MIDDLEWARE[name] for name in scenario.inner)]:
        wsgi = wrap(wsgi)
    if is_wsgi:
        wsgi = Honest(wsgi, way)
    keep: Any = None
    if directory is not None and not is_wsgi:
        app.wsgi_app = wsgi  # type: ignore[method-assign]
        app.config.update(STALECACHE_DIR=directory, STALECACHE_REFRESH_WORKERS=0, STALECACHE_IGNORED_PARAMETERS=IGNORED)
        app.config.update(STALECACHE_GATEWAY=scenario.front == GATEWAY)
        keep = StaleCache(app)
        wsgi = app.wsgi_app
    _add_pages(app, scenario, paths, keep)
    if directory is not None and not is_wsgi:
        # A view with gateway=True has opened the gateway.
        wsgi = app.wsgi_app
    elif directory is not None:
        keep = wsgi = GatewayCache(wsgi, dir=directory, refresh_workers=0)
    for wrap in [*([way.outer] if way.outer else []), *(MIDDLEWARE[name] for name in scenario.outer)]:
        wsgi = wrap(wsgi)
    return Built(wsgi, (app, keep))


def _add_pages(app: Flask, scenario: Scenario, paths: frozenset[str], cache: StaleCache | None) -> None:
    # Others link to the plain page.
    needed = {"/plain", *(f"/{path.strip('/')}" for path in paths)}
    for name, (path, view) in PAGES.items():
        if f"/{path.strip('/')}" not in needed:
            continue
        if cache is not None and scenario.front in (VIEW, GATEWAY_VIEW):
            view = cache.cached(**WINDOWS, gateway=scenario.front == GATEWAY_VIEW)(view)  # type: ignore[arg-type]
        app.add_url_rule(path, name, view, methods=["GET", "POST"])
    app.after_request(_sign)
    app.register_error_handler(HTTPException, lambda error: (f"{error.code} for {_who()}", error.code))
    if scenario.front in (GATEWAY, WSGI):
        app.after_request(_fresh)


def _sign(response: Response) -> Response:
    """Write a visitor's name into a page that was made for all."""
    if request.endpoint == "signed":
        response.headers["X-Signed-For"] = _who()
    return response


def _fresh(response: Response) -> Response:
    response.headers.setdefault("Cache-Control", "max-age=60, stale-while-revalidate=600, stale-if-error=6000")
    return response
