"""Our part of a hit makes no system call, takes no lock and calls few functions."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, session
from flask.testing import EnvironBuilder
from werkzeug.test import create_environ

from flask_stalecache import StaleCache
from flask_stalecache.engine.engine import Engine
from flask_stalecache.frontends.gateway.gateway_cache import GatewayCache
from flask_stalecache.frontends.pages.handler import ANSWERED
from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.table.stamps import SEQ_SLOT
from support.flask_gateway import signed
from support.hot_path import calls_of_a_hit, counted_without_system_calls, without_system_calls
from support.processes import Worker, workers
from support.threads import PATIENCE, all_taken, go, locks_in, wait_until


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with workers(1) as made:
        yield made[0]


def make_site(directory: Path) -> Flask:
    app = Flask("shop")
    app.config.update(SECRET_KEY="not a secret", STALECACHE_DIR=directory)
    cache = StaleCache(app)

    @app.get("/<page>")
    @cache.cached(3600, 600, 86400, vary=("Accept-Language",), ignored_parameters=("utm_*",))
    def show(page: str) -> str:
        # The session is used, so that the entry has an absent name.
        return f"{page} for {session.get('name', 'everybody')} " * 500

    return app


#: The cookie of somebody whose session has other keys than the page has read.
SESSION = signed({"csrf_token": "random", "language": "de"})
#: What a visitor sends who gets a hit, and how it is answered.
VISITORS: dict[str, tuple[dict[str, Any], int]] = {
    "plain": ({}, 200),
    "with cookies": ({"headers": {"Cookie": "theme=dark; sessions=none"}}, 200),
    "with a query": ({"query_string": "page=2&utm_source=letter"}, 200),
    "head": ({"method": "HEAD"}, 200),
    "conditional": ({"headers": {"If-None-Match": '"something-else"'}}, 200),
    "not modified": ({"headers": {"If-Modified-Since": "Wed, 21 Oct 2065 07:28:00 GMT", "If-None-Match": "*"}}, 304),
    "a range": ({"headers": {"Range": "bytes=0-9"}}, 206),
    "with a session": ({"headers": {"Cookie": SESSION}}, 200),
}


# -- no system call --------------------------------------------------------------------------------------------------


def filtered(name: str) -> tuple[int, bytes]:
    """Run one of a few actions under the filter, to check that it catches system calls and nothing else."""
    things: dict[str, Callable[[], object]] = {
        "nothing": lambda: None,
        "memory": lambda: bytearray(500_000),
        "getpid": os.getpid,
        "stat": lambda: os.path.exists("/"),
        "write elsewhere": lambda: os.write(1, b""),
    }
    return without_system_calls(lambda: things[name])


@pytest.mark.parametrize("name", ["nothing", "memory"])
def test_the_filter_lets_pass_what_is_no_system_call_of_ours(worker: Worker, name: str) -> None:
    assert worker.run(filtered, name) == (0, b"ok")


@pytest.mark.parametrize("name", ["getpid", "stat", "write elsewhere"])
def test_the_filter_catches_system_calls(worker: Worker, name: str) -> None:
    assert worker.run(filtered, name) == (signal.SIGSYS, b"")


def hit_by_the_view(directory: Path, visitor: str) -> tuple[int, bytes]:
    """Warm a page, and call its decorated view in a forked process."""
    app, (options, status) = make_site(directory), VISITORS[visitor]
    warm(app, options)

    def prepare() -> Callable[[], object]:
        context = app.test_request_context("/page", **options)
        context.push()
        view = app.view_functions["show"]

        def run() -> None:
            # With this mark, the next call would not count as a visit.
            context.request.environ.pop(ANSWERED, None)
            response = view(page="page")
            # Conditions and ranges are answered where the response leaves the app.
            assert response.headers["X-Cache-Status"] == "HIT"
            assert response.status_code in (status, 200)

        run()
        return run

    return counted_without_system_calls(app.extensions["stalecache"].engine, prepare)


def hit_by_the_app(directory: Path, visitor: str) -> tuple[int, bytes]:
    """The same, from the server's call of the app to the close of the response."""
    app, (options, status) = make_site(directory), VISITORS[visitor]
    warm(app, options)
    builder = EnvironBuilder(app, "/page", **options)
    environ = builder.get_environ()
    builder.close()

    def run() -> None:
        told: list[Any] = []
        body = app.wsgi_app(dict(environ), lambda *args: told.append(args))
        assert (dict(told[0][1])["X-Cache-Status"], told[0][0][:3]) == ("HIT", str(status))
        assert list(body) or status == 304 or environ["REQUEST_METHOD"] == "HEAD"
        getattr(body, "close", lambda: None)()

    def prepare() -> Callable[[], object]:
        run()
        return run

    return counted_without_system_calls(app.extensions["stalecache"].engine, prepare)


def hit_by_a_call(directory: Path) -> tuple[int, bytes]:
    """Call a fetch function whose value is in memory."""
    app = Flask("shop")
    app.config["STALECACHE_DIR"] = directory
    cache = StaleCache(app)

    @cache.memoize(3600)
    def rates(base: str) -> dict[str, float]:
        return {base: 1.5}

    def prepare() -> Callable[[], object]:
        app.app_context().push()

        def run() -> None:
            assert rates("EUR") == {"EUR": 1.5}

        run()
        return run

    with app.app_context():
        assert [rates("EUR"), rates("EUR")] == [{"EUR": 1.5}] * 2
    return counted_without_system_calls(app.extensions["stalecache"].engine, prepare)


def hit_after_purges_of_others(directory: Path) -> tuple[int, bytes]:
    """Call the decorated view. Before each hit, the table changes as if another process had purged something else."""
    app = make_site(directory)
    warm(app, {})
    store: FileStore = app.extensions["stalecache"].engine.store
    store.purge("tag:another", soft=False)

    def prepare() -> Callable[[], object]:
        stamps = store._cache_directory.stamps
        assert stamps is not None
        app.test_request_context("/page").push()

        def run() -> None:
            # For an entry with other names, a purge changes only its number in the table.
            stamps.raise_seq(stamps.table[SEQ_SLOT] + 2)
            assert app.view_functions["show"](page="page").headers["X-Cache-Status"] == "HIT"

        run()
        return run

    return without_system_calls(prepare)


def miss_by_the_view(directory: Path) -> tuple[int, bytes]:
    app = make_site(directory)
    warm(app, {})

    def prepare() -> Callable[[], object]:
        app.test_request_context("/page?another=1").push()
        return lambda: app.view_functions["show"](page="page")

    return without_system_calls(prepare)


def warm(app: Flask, options: dict[str, Any]) -> None:
    """Store the page for a visitor, and use the pool of refreshes, so that all locks are there."""
    query = options.get("query_string")
    for _ in range(2):
        with app.test_client().get("/page", query_string=query) as response:
            word = response.headers["X-Cache-Status"]
    assert word == "HIT"
    engine: Engine = app.extensions["stalecache"].engine
    assert engine.runtime.refresher.submit(lambda: None)
    assert engine.runtime.drain(PATIENCE)


@pytest.mark.grid
@pytest.mark.parametrize("visitor", VISITORS)
@pytest.mark.parametrize("hit", [hit_by_the_view, hit_by_the_app])
def test_a_hit_makes_no_system_call(
    worker: Worker, directory: Path, hit: Callable[[Path, str], tuple[int, bytes]], visitor: str
) -> None:
    assert worker.run(hit, directory, visitor) == (0, b"ok")


def test_a_hit_of_a_fetch_function_makes_no_system_call(worker: Worker, directory: Path) -> None:
    assert worker.run(hit_by_a_call, directory) == (0, b"ok")


def test_a_hit_after_an_unrelated_purge_makes_no_system_call(worker: Worker, directory: Path) -> None:
    assert worker.run(hit_after_purges_of_others, directory) == (0, b"ok")


def test_a_miss_does(worker: Worker, directory: Path) -> None:
    assert worker.run(miss_by_the_view, directory) == (signal.SIGSYS, b"")


# -- the gateway -----------------------------------------------------------------------------------------------------


def bare(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer as :func:`make_site` does, without Flask."""
    fields = [("Cache-Control", "max-age=3600, stale-while-revalidate=600"), ("ETag", '"one"'), ("Content-Type", "text/plain")]
    varies = [("Vary", "Accept-Language")] if environ["PATH_INFO"] == "/varies" else []
    start_response("200 OK", [*fields, *varies, ("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")])
    return [b"for everybody " * 500]


def flask_behind_gateway(directory: Path, **settings: Any) -> Flask:
    app = Flask("shop")
    app.config.update(SECRET_KEY="not a secret", STALECACHE_DIR=directory, STALECACHE_GATEWAY=True, **settings)
    StaleCache(app)

    @app.get("/<page>")
    def show(page: str) -> Response:
        fields = {"Cache-Control": "max-age=3600, stale-while-revalidate=600", "ETag": '"one"'}
        response = Response(f"{page} for {session.get('name', 'everybody')} " * 500, headers=fields)
        if page == "varies":
            response.vary.add("Accept-Language")
        response.headers["Last-Modified"] = "Wed, 21 Oct 2015 07:28:00 GMT"
        return response

    return app


def gateway_of(kind: str, directory: Path) -> tuple[Any, Engine]:
    """Return a gateway and its engine: of a bare callable, of a Flask app, or of one in which only a view asks for it."""
    if kind == "bare":
        gateway = GatewayCache(bare, dir=directory)
        return gateway, gateway._engine
    app = flask_behind_gateway(directory) if kind == "flask" else flask_with_gateway_view(directory)
    return app.wsgi_app, app.extensions["stalecache"].engine


def flask_with_gateway_view(directory: Path) -> Flask:
    app = Flask("shop")
    app.config.update(SECRET_KEY="not a secret", STALECACHE_DIR=directory)
    cache = StaleCache(app)

    @app.get("/<page>")
    @cache.cached(3600, 600, gateway=True)
    def show(page: str) -> Response:
        fields = {"ETag": '"one"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
        response = Response(f"{page} for {session.get('name', 'everybody')} " * 500, headers=fields)
        if page == "varies":
            response.vary.add("Accept-Language")
        return response

    return app


#: What a visitor of the gateway sends who gets a hit, and how it is answered.
GATEWAY_VISITORS: dict[str, tuple[str, dict[str, Any], int]] = {
    "plain": ("/page", {}, 200),
    "with cookies": ("/page", {"headers": {"Cookie": "theme=dark; sessions=none"}}, 200),
    "with a query": ("/page", {"query_string": "page=2"}, 200),
    "a variant": ("/varies", {"headers": {"Accept-Language": "de"}}, 200),
    "a variant of none": ("/varies", {}, 200),
    "not modified": ("/page", {"headers": {"If-None-Match": '"one"'}}, 304),
    "not modified by weak comparison": ("/page", {"headers": {"If-None-Match": 'W/"two", W/"one"'}}, 304),
    "not modified since": ("/varies", {"headers": {"If-Modified-Since": "Wed, 21 Oct 2015 07:28:00 GMT"}}, 304),
    "conditional": ("/page", {"headers": {"If-None-Match": '"something-else"'}}, 200),
    "head": ("/page", {"method": "HEAD"}, 200),
    "a range": ("/page", {"headers": {"Range": "bytes=0-9"}}, 206),
    "with a session": ("/page", {"headers": {"Cookie": SESSION}}, 200),
}


def gateway_hit(gateway: Any, visitor: str) -> Callable[[], tuple[str, int]]:
    """Return a function that sends a gateway one request, up to the close of the body, and returns status word and status."""
    path, options, _ = GATEWAY_VISITORS[visitor]
    builder = EnvironBuilder(Flask("shop"), path, **options)
    environ = builder.get_environ()
    builder.close()

    def run() -> tuple[str, int]:
        told: list[Any] = []
        body = gateway(dict(environ), lambda *args: told.append(args))
        b"".join(body)
        getattr(body, "close", lambda: None)()
        return dict(told[0][1]).get("X-Cache-Status", ""), int(told[0][0][:3])

    return run


def warm_gateway(gateway: Any, engine: Engine, visitor: str) -> Callable[[], tuple[str, int]]:
    """Store a visitor's page, use the pool of refreshes, so that all locks exist, and return what :func:`gateway_hit` does."""
    path, options, status = GATEWAY_VISITORS[visitor]
    languages = {name: value for name, value in options.get("headers", {}).items() if name == "Accept-Language"}
    builder = EnvironBuilder(Flask("shop"), path, headers=languages, query_string=options.get("query_string"))
    body = gateway(builder.get_environ(), lambda *args: lambda data: None)
    b"".join(body)
    getattr(body, "close", lambda: None)()
    builder.close()
    hit = gateway_hit(gateway, visitor)
    assert [hit(), hit()] == [("HIT", status)] * 2
    assert engine.runtime.refresher.submit(lambda: None)
    assert engine.runtime.drain(PATIENCE)
    return hit


def hit_by_the_gateway(directory: Path, kind: str, visitor: str) -> tuple[int, bytes]:
    """Warm a page, and ask the gateway for it in a forked process."""
    gateway, engine = gateway_of(kind, directory)
    hit, status = warm_gateway(gateway, engine, visitor), GATEWAY_VISITORS[visitor][2]

    def prepare() -> Callable[[], object]:
        def run() -> None:
            assert hit() == ("HIT", status)

        run()
        return run

    return counted_without_system_calls(engine, prepare)


@pytest.mark.grid
@pytest.mark.parametrize("visitor", GATEWAY_VISITORS)
@pytest.mark.parametrize("kind", ["bare", "flask", "view"])
def test_a_hit_of_the_gateway_makes_no_system_call(worker: Worker, directory: Path, kind: str, visitor: str) -> None:
    assert worker.run(hit_by_the_gateway, directory, kind, visitor) == (0, b"ok")


@pytest.mark.grid
@pytest.mark.parametrize("visitor", GATEWAY_VISITORS)
@pytest.mark.parametrize("kind", ["bare", "flask", "view"])
def test_a_hit_of_the_gateway_takes_no_lock(directory: Path, kind: str, visitor: str) -> None:
    gateway, engine = gateway_of(kind, directory)
    hit, status = warm_gateway(gateway, engine, visitor), GATEWAY_VISITORS[visitor][2]
    locks = locks_in(gateway)
    # Those of the engine are found through it.
    assert {id(lock) for lock in locks_in(engine)} <= {id(lock) for lock in locks}
    assert len(locks) >= 5
    with all_taken(locks):
        assert go(hit).result(PATIENCE) == ("HIT", status)


# -- few calls --------------------------------------------------------------------------------------------------------

#: How many functions of the package a hit may call at most, so that nobody adds a call to each hit by accident.
MOST_CALLS = {"view": 49, "gateway": 14}


@pytest.mark.parametrize("kind", MOST_CALLS)
@pytest.mark.parametrize("more", [{}, {"wsgi.input_terminated": True}], ids=["plain", "as gunicorn"])
def test_a_hit_calls_few_functions(directory: Path, kind: str, more: dict[str, Any]) -> None:
    app = make_site(directory) if kind == "view" else flask_behind_gateway(directory)
    warm(app, {})
    environ = {**create_environ("/page", "http://localhost/"), **more}
    calls_of_a_hit(app.wsgi_app, environ.copy())
    called = calls_of_a_hit(app.wsgi_app, environ.copy())
    # With wsgi.input_terminated, a request may have a body that no field announces: its input is wrapped, but not read.
    assert len(called) <= MOST_CALLS[kind] + 3 * len(more), called
    assert "request_body.py:_reader" not in called


# -- no lock ---------------------------------------------------------------------------------------------------------


def test_every_lock_of_an_app_is_found(directory: Path) -> None:
    """Those of the copies, counters, numbers, flights, refreshes and the pool. Without them, the next test would prove nothing."""
    app = make_site(directory)
    warm(app, {})
    state = app.extensions["stalecache"]
    locks = locks_in(state)
    assert len(locks) >= 5
    assert len({id(lock) for lock in locks}) == len(locks)
    engine: Engine = state.engine
    for part in (state.counters, state.stats, engine.runtime.refresher, engine.store):
        of_part = locks_in(part)
        assert of_part
        assert {id(lock) for lock in of_part} <= {id(lock) for lock in locks}


@pytest.mark.parametrize("visitor", VISITORS)
def test_a_hit_takes_no_lock(directory: Path, visitor: str) -> None:
    app, (options, status) = make_site(directory), VISITORS[visitor]
    warm(app, options)

    def visit() -> tuple[str, int]:
        with app.test_client().open("/page", **{"method": "GET", **options}) as response:
            return response.headers["X-Cache-Status"], response.status_code

    with all_taken(locks_in(app.extensions["stalecache"])):
        assert go(visit).result(PATIENCE) == ("HIT", status)


def test_a_miss_waits_for_a_lock(directory: Path) -> None:
    """The control: whoever does take one is held up."""
    app = make_site(directory)
    warm(app, {})
    threads: list[threading.Thread] = []

    def miss() -> str:
        threads.append(threading.current_thread())
        with app.test_client().get("/another") as response:
            return response.headers["X-Cache-Status"]

    with all_taken(locks_in(app.extensions["stalecache"])):
        missing = go(miss)
        wait_until(lambda: threads and is_at_a_lock(threads[0]), "the wait for a lock")
        assert not missing.done()
    assert missing.result(PATIENCE) == "MISS"


def is_at_a_lock(thread: threading.Thread) -> bool:
    """Whether a thread stands still in a function of the package, as one that waits for a lock does."""

    def where() -> tuple[int, int] | None:
        frame = sys._current_frames().get(thread.ident or 0)
        ours = frame is not None and "flask_stalecache" in frame.f_code.co_filename
        return (id(frame), frame.f_lasti) if frame is not None and ours else None

    first = where()
    return first is not None and all(where() == first for _ in range(1000))
