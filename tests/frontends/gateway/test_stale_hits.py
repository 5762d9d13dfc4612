"""Stale hits while a refresh is pending, and ranges, cost about what fresh hits cost, and are answered as on the long way.

No system call, no lock, few functions: for the gateway, a cached view and a fetch function.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import create_environ

from flask_stalecache import GatewayCache, StaleCache
from flask_stalecache.core.model.environ import REFRESHING
from flask_stalecache.engine.engine import Engine
from support.hot_path import calls_of_a_hit, counted_without_system_calls
from support.processes import Worker, workers
from support.threads import PATIENCE, all_taken, go, locks_in

Answer = tuple[str, list[tuple[str, str]], bytes]
BODY = b"0123456789" * 500
CONTROL = "max-age=0, stale-while-revalidate=600"


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with workers(1) as made:
        yield made[0]


def bare(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer a page that is stale at once; ``/fresh``, a fresh one."""
    control = "max-age=600" if environ["PATH_INFO"] == "/fresh" else CONTROL
    fields = [("Content-Type", "text/plain"), ("ETag", '"one"'), ("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")]
    start_response("200 OK", [*fields, ("Cache-Control", control), ("Content-Length", str(len(BODY)))])
    return [BODY]


def made(kind: str, directory: Path) -> tuple[Any, Engine]:
    """Return a WSGI app whose page is stale at once, and its engine."""
    if kind == "bare":
        gateway = GatewayCache(bare, dir=directory)
        return gateway, gateway._engine
    app = Flask("shop")
    app.config["STALECACHE_DIR"] = directory
    cache = StaleCache(app)

    @app.get("/page")
    @cache.cached(0, 600, 86400, gateway=kind == "gateway")
    def page() -> bytes:
        return BODY

    return app.wsgi_app, app.extensions["stalecache"].engine


def ask(app: Any, path: str = "/page", **more: Any) -> Answer:
    """Ask once, from the server's call to the close."""
    told: list[Any] = []
    body = app({**create_environ(path, "http://localhost/"), **more}, lambda *args: told.append(args))
    content = b"".join(body)
    getattr(body, "close", lambda: None)()
    return told[0][0], told[0][1], content


def word_of(answer: Answer) -> str:
    return dict(answer[1])["X-Cache-Status"]


def fill(app: Any, engine: Engine) -> None:
    """Store the page, let a refresh be pending for it, and use the pool, so that all locks are there."""
    assert word_of(ask(app)) == "MISS"
    for stored in list(engine.store.walk()):
        assert engine.runtime.claim(engine.store.load(stored.entry.key))
    assert [word_of(ask(app)) for _ in range(3)] == ["UPDATING"] * 3
    assert engine.runtime.refresher.submit(lambda: None)
    assert engine.runtime.drain(PATIENCE)


FIELDS: dict[str, dict[str, str]] = {
    "plain": {},
    "confirmed": {"HTTP_IF_NONE_MATCH": '"one"'},
    "a part": {"HTTP_RANGE": "bytes=0-9"},
}
ALL = [("bare", name) for name in FIELDS] + [("gateway", "plain"), ("gateway", "a part"), ("view", "plain")]


def stale_hits(directory: Path, kind: str, fields: dict[str, str]) -> tuple[int, bytes]:
    app, engine = made(kind, directory)
    fill(app, engine)
    environ = {**create_environ("/page", "http://localhost/"), **fields}

    def run() -> None:
        told: list[Any] = []
        body = app(environ.copy(), lambda *args: told.append(args))
        b"".join(body)
        getattr(body, "close", lambda: None)()
        assert dict(told[0][1])["X-Cache-Status"] == "UPDATING"

    def prepare() -> Callable[[], object]:
        run()
        return run

    return counted_without_system_calls(engine, prepare, "UPDATING")


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_a_stale_hit_makes_no_system_call(worker: Worker, directory: Path, kind: str, name: str) -> None:
    assert worker.run(stale_hits, directory, kind, FIELDS[name]) == (0, b"ok")


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_a_stale_hit_takes_no_lock(directory: Path, kind: str, name: str) -> None:
    app, engine = made(kind, directory)
    fill(app, engine)
    locks = {id(lock): lock for lock in (*locks_in(app), *locks_in(engine))}
    assert len(locks) >= 5
    with all_taken(list(locks.values())):
        assert word_of(go(lambda: ask(app, **FIELDS[name])).result(PATIENCE)) == "UPDATING"


#: Functions of the package that such a hit may call at most.
MOST_CALLS = {"gateway": 10, "bare": 10, "view": 60}


@pytest.mark.parametrize("kind", MOST_CALLS)
def test_a_stale_hit_calls_few_functions(directory: Path, kind: str) -> None:
    app, engine = made(kind, directory)
    fill(app, engine)
    environ = create_environ("/page", "http://localhost/")
    called = min((calls_of_a_hit(app, environ.copy(), "UPDATING") for _ in range(3)), key=len)
    assert len(called) <= MOST_CALLS[kind], called


def test_a_range_calls_few_functions(directory: Path) -> None:
    app, _ = made("bare", directory)
    for _ in range(3):
        ask(app, "/fresh")
    environ = {**create_environ("/fresh", "http://localhost/"), "HTTP_RANGE": "bytes=10-19"}
    called = min((calls_of_a_hit(app, environ.copy()) for _ in range(3)), key=len)
    assert len(called) <= 20, called


def test_a_call_whose_refresh_is_pending_takes_no_lock_and_decides_no_more(directory: Path) -> None:
    app = Flask("shop")
    app.config["STALECACHE_DIR"] = directory
    cache = StaleCache(app)
    hold, values = threading.Event(), iter(range(9))

    @cache.memoize(0, 600, 86400)
    def rates(base: str) -> int:
        value = next(values)
        assert value == 0 or hold.wait(PATIENCE)
        return value

    with app.app_context():
        assert [rates("EUR") for _ in range(4)] == [0] * 4
        before = cache.stats()["calls"]
        engine: Engine = app.extensions["stalecache"].engine

        def call() -> int:
            with app.app_context():
                return rates("EUR")

        with all_taken(locks_in(app.extensions["stalecache"])):
            assert go(call).result(PATIENCE) == 0
        assert cache.stats()["calls"]["UPDATING"] == before["UPDATING"] + 1
        hold.set()
        assert engine.runtime.drain(PATIENCE)


# -- the short way answers as the long way ---------------------------------------------------------------------------

RANGES = [
    "bytes=0-9", "bytes=10-", "bytes=-7", "bytes=0-", "bytes=0-99999", "bytes=4999-4999", "bytes=5000-", "bytes=-0", "bytes=9-3",
    "bytes=0-1,4-5", "lines=0-9", "bytes=a-b", "", "BYTES=0-9", " bytes= 1-2 ", "bytes=00000000000000000000000000001-2",
]  # fmt: skip
CONDITIONS: list[dict[str, str]] = [
    {},
    {"HTTP_IF_RANGE": '"one"'}, {"HTTP_IF_RANGE": '"two"'}, {"HTTP_IF_RANGE": 'W/"one"'},
    {"HTTP_IF_RANGE": "Wed, 21 Oct 2015 07:28:00 GMT"}, {"HTTP_IF_RANGE": "Wed, 21 Oct 2015 07:28:01 GMT"},
    {"HTTP_IF_MATCH": '"one"'}, {"HTTP_IF_MATCH": '"two"'}, {"HTTP_IF_NONE_MATCH": '"one"'}, {"HTTP_IF_NONE_MATCH": '"two"'},
    {"HTTP_IF_MODIFIED_SINCE": "Wed, 21 Oct 2015 07:28:00 GMT"}, {"HTTP_IF_UNMODIFIED_SINCE": "Wed, 21 Oct 2014 07:28:00 GMT"},
]  # fmt: skip


def on_the_long_way(app: GatewayCache, path: str, **fields: str) -> Answer:
    app._known.clear()
    return ask(app, path, **fields)


@pytest.mark.parametrize("path", ["/fresh", "/page"])
@pytest.mark.usefixtures("clock")
def test_what_takes_the_short_way_is_answered_as_on_the_long_way(directory: Path, path: str) -> None:
    app, engine = made("bare", directory)
    fill(app, engine)
    assert word_of(ask(app, "/fresh")) == "MISS"
    for conditions in CONDITIONS:
        for asked in [None, *RANGES]:
            fields = {**conditions, **({} if asked is None else {"HTTP_RANGE": asked})}
            expected = on_the_long_way(app, path, **fields)
            # Now the short way knows the page again.
            ask(app, path)
            assert ask(app, path, **fields) == expected, fields


@pytest.mark.usefixtures("clock")
def test_a_page_that_allows_no_parts_is_sent_whole(directory: Path) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Cache-Control", CONTROL), ("Accept-Ranges", "none"), ("Content-Type", "text/plain")])
        return [BODY]

    gateway = GatewayCache(app, dir=directory)
    fill(gateway, gateway._engine)
    for _ in range(3):
        status, _, body = ask(gateway, HTTP_RANGE="bytes=0-9")
        assert (status, body) == ("200 OK", BODY)


def test_a_purged_page_says_that_its_freshness_has_ended(directory: Path, clock: Any) -> None:
    """After a soft purge all hits are stale until the refresh is done: caches in front must not keep them."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        control = "max-age=600, stale-while-revalidate=600"
        start_response("200 OK", [("Cache-Control", control), ("Content-Type", "text/plain")])
        return [BODY]

    gateway = GatewayCache(app, dir=directory)
    ask(gateway)
    gateway.purge("/page", soft=True)
    engine = gateway._engine
    for stored in list(engine.store.walk()):
        assert engine.runtime.claim(engine.store.load(stored.entry.key))
    expected = on_the_long_way(gateway, "/page")
    assert word_of(expected) == "UPDATING"
    assert "max-age=600" not in dict(expected[1]).get("Cache-Control", "")
    assert [ask(gateway) for _ in range(3)] == [expected] * 3


def test_who_prefers_stale_and_who_does_not_are_answered_each_their_way(directory: Path, clock: Any) -> None:
    """Past its window a page is served to visitors who prefer stale, and made anew for others."""
    gateway = GatewayCache(bare, dir=directory, prefer_stale_header="X-Rather-Stale")
    fill(gateway, gateway._engine)
    clock.shift(601)
    gateway._engine.runtime.process.refreshes._pending.clear()
    for stored in list(gateway._engine.store.walk()):
        assert gateway._engine.runtime.claim(gateway._engine.store.load(stored.entry.key))
    assert [word_of(ask(gateway, HTTP_X_RATHER_STALE="1")) for _ in range(3)] == ["STALE"] * 3
    assert word_of(ask(gateway)) == "EXPIRED"


def test_a_refresh_that_passes_an_inner_gateway_is_counted_by_none(directory: Path) -> None:
    app, engine = made("bare", directory)
    fill(app, engine)
    before = engine.runtime.stats()["requests"]
    assert word_of(ask(app, **{REFRESHING: True})) == "UPDATING"
    assert engine.runtime.stats()["requests"] == before
