"""A shop with middleware that changes its URLs, behind each of our front ends: what arrives is not what Flask sees."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from flask import Flask, redirect, url_for
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client, EnvironBuilder
from werkzeug.wrappers import Response

from flask_stalecache import GatewayCache, Policy, StaleCache
from support.client import Seen
from support.threads import PATIENCE

Environ: TypeAlias = "dict[str, Any]"
Wsgi: TypeAlias = "Callable[[Environ, Any], Iterable[bytes]]"
Middleware: TypeAlias = "Callable[[Wsgi], Wsgi]"
VIEW, GATEWAY, GATEWAY_VIEW, WSGI = FRONTS = ("cached", "STALECACHE_GATEWAY", "cached(gateway=True)", "GatewayCache")
WINDOWS: dict[str, Any] = {"max_age": 60, "stale_while_revalidate": 600, "jitter": 0}


def changing(change: Callable[[Environ], object]) -> Middleware:
    def wrap(app: Wsgi) -> Wsgi:
        def middleware(environ: Environ, start_response: Any) -> Iterable[bytes]:
            change(environ)
            return app(environ, start_response)

        return middleware

    return wrap


def _reverse_proxied(environ: Environ) -> None:
    """The well-known snippet."""
    if script_name := environ.get("HTTP_X_SCRIPT_NAME", ""):
        environ["SCRIPT_NAME"] = script_name
        environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix(script_name)
    if scheme := environ.get("HTTP_X_SCHEME", ""):
        environ["wsgi.url_scheme"] = scheme


def _without_slash(environ: Environ) -> None:
    environ["PATH_INFO"] = environ["PATH_INFO"].rstrip("/") or "/"


def proxied(app: Wsgi) -> Wsgi:
    return ProxyFix(app, x_for=1, x_proto=1, x_host=1, x_prefix=1)


def mounted(app: Wsgi) -> Wsgi:
    return DispatcherMiddleware(Response("nothing here", 404), {"/shop": app})


reverse_proxied, without_slash = changing(_reverse_proxied), changing(_without_slash)


@dataclass(frozen=True)
class Way:
    """A way from the visitor to the app.

    :ivar arrives: the base URL as the server has it.
    :ivar before: the path before that of the app, as it arrives; ``after`` follows it.
    :ivar public: the base URL as visitors have it, and as Flask sees it.
    """

    middleware: Middleware
    headers: Mapping[str, str] = field(default_factory=dict)
    before: str = ""
    after: str = ""
    public: str = "http://app:8000"
    arrives: str = "http://app:8000"
    fronts: tuple[str, ...] = FRONTS
    rules: Any = True


FORWARDED = {
    "X-Forwarded-For": "203.0.113.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "shop.example",
    "X-Forwarded-Prefix": "/shop",
}
BY_FIELD = {"X-Script-Name": "/shop", "X-Scheme": "https"}
#: What differs for another field than X-Forwarded-* is stored by a gateway only if a rule names the field.
NAMED = [("/*", Policy(**WINDOWS, vary=["X-Script-Name", "X-Scheme"]))]
WAYS: dict[str, Way] = {
    "ProxyFix": Way(proxied, FORWARDED, public="https://shop.example/shop"),
    "ReverseProxied": Way(reverse_proxied, BY_FIELD, before="/shop", public="https://app:8000/shop", fronts=(VIEW,)),
    "ReverseProxied, named": Way(
        reverse_proxied, BY_FIELD, before="/shop", public="https://app:8000/shop", fronts=(GATEWAY, WSGI), rules=NAMED
    ),
    "a mount": Way(mounted, before="/shop", public="http://app:8000/shop"),
    "a mount behind ReverseProxied": Way(
        lambda app: reverse_proxied(mounted(app)),
        {"X-Script-Name": "/eu"},
        before="/eu/shop",
        public="http://app:8000/eu/shop",
        fronts=(VIEW,),
    ),
    "SCRIPT_NAME": Way(lambda app: app, arrives="http://app:8000/shop", public="http://app:8000/shop"),
    "a trailing slash": Way(without_slash, after="/", fronts=(VIEW,)),
}
CASES = [(name, front) for name, way in WAYS.items() for front in way.fronts]


class Shop:
    """The shop behind one of the front ends.

    :ivar runs: how often the page was made.
    :ivar location: returns the URL that the answer to an order redirects to.
    """

    def __init__(self, directory: Path, way: Way, front: str, *, outside: bool = False, **config: Any) -> None:
        self.way, self.front, self.runs = way, front, 0
        self.location: Callable[[], str] = lambda: url_for("page", number=1)
        self.app = Flask("shop")
        self.app.config.update(STALECACHE_DIR=directory, STALECACHE_ENABLED=front != WSGI, STALECACHE_REFRESH_WORKERS=0, **config)
        self.app.config["STALECACHE_GATEWAY"] = way.rules if front == GATEWAY else False
        self.cache: Any = StaleCache()
        if not outside:
            self.app.wsgi_app = way.middleware(self.app.wsgi_app)  # type: ignore[method-assign, assignment]
        self.cache.init_app(self.app)
        if outside:
            self.app.wsgi_app = way.middleware(self.app.wsgi_app)  # type: ignore[method-assign, assignment]
        self._add_pages()
        self.wsgi: Any = self.app.wsgi_app
        if front == WSGI:
            rules = way.rules if way.rules is not True else [("/*", Policy(**WINDOWS))]
            base = {"base_url": config["STALECACHE_BASE_URL"]} if "STALECACHE_BASE_URL" in config else {}
            self.wsgi = self.cache = GatewayCache(self.app.wsgi_app, dir=directory, rules=rules, refresh_workers=0, **base)

    def _add_pages(self) -> None:
        def page(number: int) -> Any:
            self.runs += 1
            fields = {} if self.front == VIEW else {"Cache-Control": "max-age=60, stale-while-revalidate=600"}
            return f"{self.runs} {url_for('page', number=number, _external=True)}", fields

        if self.front in (VIEW, GATEWAY_VIEW):
            page = self.cache.cached(**WINDOWS, gateway=self.front == GATEWAY_VIEW)(page)
        self.app.add_url_rule("/page/<int:number>", "page", page)
        self.app.add_url_rule("/order", "order", lambda: redirect(self.location(), 303), methods=["POST"])

    def visit(self, path: str = "/page/1", headers: Mapping[str, str] | None = None, **options: Any) -> Seen:
        """Let a visitor come on the shop's way.

        :param path: the path as the app has it.
        """
        fields = self.way.headers if headers is None else headers
        where = f"{self.way.before}{path}{self.way.after}"
        # As servers give it, with the script root.
        raw = f"{self.way.arrives.removeprefix('http://app:8000')}{where}"
        builder = EnvironBuilder(
            where,
            base_url=self.way.arrives,
            headers=dict(fields),
            environ_overrides={"RAW_URI": raw, "REQUEST_URI": raw},
            **options,
        )
        with Client(self.wsgi, use_cookies=False).open(builder) as response:
            return Seen(response.status_code, response.get_data(), response.headers.copy())

    def do(self, operation: str, *args: Any, **options: Any) -> Any:
        """Purge, refresh, publish or warm, and wait for it."""
        with self.app.app_context():
            done = getattr(self.cache, operation)(*args, **options)
            assert self.cache.drain(PATIENCE)
        return done

    def urls(self, path: str = "/page/1") -> dict[str, str]:
        """Return all URLs and paths of a page, by what they are."""
        public = f"{self.way.public}{path}"
        root = self.way.arrives.removeprefix("http://app:8000")
        arrived = f"http://app:8000{root}{self.way.before}{path}{self.way.after}"
        return {
            "the public URL": public,
            "the public path": f"/{public.split('/', 3)[3]}",
            "the URL that arrives": arrived,
            "the path that arrives": f"/{arrived.split('/', 3)[3]}",
        }
