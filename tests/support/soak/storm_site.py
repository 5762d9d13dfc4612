"""The site of the storm: pages of all front ends that show the version of a thing."""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import time_machine
from flask import Flask, Response, session

from flask_stalecache import Policy, StaleCache
from support.soak.ledger import Ledger

USERS = 5
DAY = 86400
MAX_SIZE = 1_500_000
#: Things whose third party is down now and then.
FRAIL = 10


class ThirdPartyDown(Exception):
    """It answers nothing."""


@dataclass(frozen=True)
class Site:
    """An app with its cache, as it was deployed."""

    app: Flask
    cache: StaleCache
    lookup: Any


def text_of(kind: str, thing: int, version: int, user: str = "nobody") -> str:
    """Return what a page shows. Each line contains everything, so that a page mixed from two is noticed."""
    line = f"{kind} {thing} {version} {user}\n"
    return line * (1 + zlib.crc32(f"{kind} {thing}".encode()) % 9000 // len(line))


def is_frail(thing: int) -> bool:
    return thing % FRAIL == FRAIL - 1


def make_site(directory: Path, ledger: Ledger, release: str, windows: tuple[float, float, float] = (2, 4, 20)) -> Site:
    """Make an app.

    :param windows: seconds of freshness, stale-while-revalidate and stale-if-error of all pages.
    """
    app = _new_app()
    fresh, stale, failing = windows
    policy = Policy(max_age=fresh, stale_while_revalidate=stale, stale_if_error=failing)
    app.config.update(
        STALECACHE_DIR=directory,
        STALECACHE_VERSION=release,
        STALECACHE_MAX_SIZE=MAX_SIZE,
        STALECACHE_MAX_ENTRY_SIZE=300_000,
        STALECACHE_MEMORY_SIZE=200_000,
        STALECACHE_MAX_AGE=fresh,
        STALECACHE_STALE_WHILE_REVALIDATE=stale,
        STALECACHE_STALE_IF_ERROR=failing,
        STALECACHE_REFRESH_BACKOFF=(0.2, 1),
        # Longer than the limit of the storm: to wait for a lock that is never released counts as hanging.
        STALECACHE_LOCK_TIMEOUT=120,
        STALECACHE_INACTIVE=30,
        STALECACHE_GATEWAY={"/gate/*": policy, "/stream/*": policy},
    )
    cache = StaleCache(app)

    def look_up(thing: int) -> int:
        # Before anything that takes time: what is shown was true when the page was begun.
        version = ledger.version(thing)
        if random.random() < 0.3:
            time.sleep(random.random() / 100)
        if is_frail(thing) and ledger.is_down:
            raise ThirdPartyDown(str(thing))
        return version

    lookup = cache.memoize(*windows, tags=_tags)(look_up)
    _add_views(app, cache, ledger, look_up, lookup)
    return Site(app, cache, lookup)


def login_cookies() -> list[str]:
    """Return the cookie of each user's session, good however the clock is set."""
    app = _new_app()
    signing = app.session_interface.get_signing_serializer(app)  # type: ignore[attr-defined]
    with time_machine.travel(time.time() - 10 * DAY):
        return [f"session={signing.dumps({'user': f'user-{number}'})}" for number in range(USERS)]


def _new_app() -> Flask:
    app = Flask("storm", static_folder=None)
    app.secret_key = "not a secret"
    app.config["PERMANENT_SESSION_LIFETIME"] = 1000 * DAY
    return app


def _tags(thing: int) -> list[str]:
    return [f"thing:{thing}", f"shelf:{thing % 6}"]


def _add_views(app: Flask, cache: StaleCache, ledger: Ledger, look_up: Any, lookup: Any) -> None:
    @app.errorhandler(ThirdPartyDown)
    def down(error: ThirdPartyDown) -> tuple[str, int]:
        return "down", 503

    @app.get("/page/<int:thing>")
    @cache.cached(tags=_tags)
    def page(thing: int) -> str:
        return text_of("page", thing, look_up(thing))

    @app.get("/hello/<int:thing>")
    @cache.cached(tags=_tags, gateway=True)
    def hello(thing: int) -> str:
        return text_of("hello", thing, look_up(thing), session.get("user", "nobody"))

    @app.get("/gate/<int:thing>")
    def gate(thing: int) -> Response:
        return _tagged(Response(text_of("gate", thing, look_up(thing))), thing)

    @app.post("/gate/<int:thing>")
    def edit(thing: int) -> str:
        return str(ledger.edit(thing))

    @app.get("/stream/<int:thing>")
    def stream(thing: int) -> Response:
        text = text_of("stream", thing, look_up(thing))

        def parts() -> Iterator[str]:
            for start in range(0, len(text), 500):
                yield text[start : start + 500]

        return _tagged(Response(parts()), thing)

    @app.get("/memo/<int:thing>")
    def memo(thing: int) -> Response:
        # Otherwise the gateway stores it, as long as the value is fresh, and a purge of the call does not end pages.
        return Response(text_of("memo", thing, lookup(thing)), headers={"Cache-Control": "no-store"})

    @app.get("/both/<int:thing>")
    @cache.cached()
    def both(thing: int) -> str:
        return text_of("both", thing, lookup(thing))


def _tagged(response: Response, thing: int) -> Response:
    response.headers["Surrogate-Key"] = " ".join(_tags(thing))
    return response
