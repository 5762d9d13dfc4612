"""Caches in front learn that a soft purge or a deploy has ended the freshness of a page, at the view and at each gateway."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask, Response
from werkzeug.datastructures import Headers

from flask_stalecache import GatewayCache, StaleCache
from support.client import visit
from support.wsgi_apps import App, ask

PROMISE = "public, max-age=3600, stale-while-revalidate=600"
ENDED = "public, max-age=0, stale-while-revalidate=600"


def flask_app(folder: Path, version: str, **how: Any) -> tuple[Callable[..., Headers], Callable[[], object], Callable[[], object]]:
    """Return three functions: to visit a Flask app, to purge its page softly, and to wait for its refreshes."""
    app = Flask("shop")
    gateway = how.pop("whole", False)
    app.config.update(STALECACHE_DIR=folder, STALECACHE_VERSION=version, STALECACHE_GATEWAY=gateway)
    cache = StaleCache(app)

    def page() -> Response:
        return Response("page", headers={"Cache-Control": PROMISE, "ETag": '"1"', "Last-Modified": "Fri, 01 Jan 2010 00:00:00 GMT"})

    app.add_url_rule("/", "page", page if gateway else cache.cached(**how)(page))

    def purge() -> None:
        with app.app_context():
            cache.purge("/", soft=True)

    def drain() -> bool:
        with app.app_context():
            return cache.drain(10)

    return lambda **more: visit(app, **more).headers, purge, drain


def wsgi_app(folder: Path, version: str) -> tuple[Callable[..., Headers], Callable[[], object], Callable[[], object]]:
    """Return the same functions for a gateway in front of a WSGI app."""

    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Cache-Control", PROMISE), ("ETag", '"2"')])
        return [b"page"]

    gateway = GatewayCache(App(answer), dir=folder, version=version)

    def seen(method: str = "GET", headers: dict[str, str] | None = None) -> Headers:
        asked = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in (headers or {}).items()}
        return Headers(ask(gateway, "/", method, **asked).fields)

    return seen, lambda: gateway.purge("/", soft=True), lambda: gateway.drain(10)


FRONT_ENDS = {
    "view": lambda folder, version: flask_app(folder, version, max_age=3600),
    "view of the gateway": lambda folder, version: flask_app(folder, version, max_age=3600, gateway=True),
    "gateway": lambda folder, version: flask_app(folder, version, whole=True),
    "any WSGI app": wsgi_app,
}


@pytest.fixture(params=list(FRONT_ENDS))
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Any]:
    """Return a function that sets up an app of the given version, always with the same directory."""
    return lambda version: FRONT_ENDS[request.param](tmp_path, version)


def lifetime(fields: Headers) -> tuple[str, str | None, str]:
    return fields["X-Cache-Status"], fields["Cache-Control"], fields["Age"]


REQUESTS = [
    {},
    {"method": "HEAD"},
    {"headers": {"If-None-Match": '"1", "2"'}},
    {"headers": {"Range": "bytes=0-0"}},
]


@pytest.mark.grid
@pytest.mark.parametrize("asked", REQUESTS, ids=["get", "head", "304", "206"])
def test_after_a_soft_purge(site: Callable[[str], Any], clock: time_machine.Traveller, asked: dict[str, Any]) -> None:
    seen, purge, drain = site("1")
    seen()
    clock.shift(10)
    assert lifetime(seen(**asked)) == ("HIT", PROMISE, "10")
    purge()
    assert lifetime(seen(**asked)) == ("STALE", ENDED, "10")
    assert drain()
    assert lifetime(seen(**asked)) == ("HIT", PROMISE, "0")


def test_after_a_deploy(site: Callable[[str], Any], clock: time_machine.Traveller) -> None:
    seen, _, drain = site("1")
    seen()
    clock.shift(10)
    seen, _, drain = site("2")
    assert lifetime(seen()) == ("STALE", ENDED, "10")
    assert drain()
    assert lifetime(seen()) == ("HIT", PROMISE, "0")


def test_what_has_become_stale_by_itself_goes_out_as_it_is(site: Callable[[str], Any], clock: time_machine.Traveller) -> None:
    seen, _, _ = site("1")
    seen()
    clock.shift(3610)
    assert lifetime(seen()) == ("STALE", PROMISE, "3610")
