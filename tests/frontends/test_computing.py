"""How much an origin computes stands in the head of its entry, whichever front end has stored it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import create_environ

from flask_stalecache import GatewayCache, StaleCache
from flask_stalecache.core.model.entry import Entry
from flask_stalecache.engine.engine import Engine
from support.threads import PATIENCE


def compute() -> None:
    until = time.thread_time() + 0.06
    while time.thread_time() < until:
        sum(range(500))


def of_a_view(directory: Path, work: Callable[[], None], **options: Any) -> tuple[Engine, Callable[[], object]]:
    app = Flask("shop")
    app.config["STALECACHE_DIR"] = directory
    cache = StaleCache(app)

    @app.get("/page")
    @cache.cached(0, 600, 600, **options)
    def report() -> str:
        work()
        return "page"

    return app.extensions["stalecache"].engine, lambda: app.test_client().get("/page").close()


def of_a_view_at_the_gateway(directory: Path, work: Callable[[], None]) -> tuple[Engine, Callable[[], object]]:
    return of_a_view(directory, work, gateway=True)


def of_a_function(directory: Path, work: Callable[[], None]) -> tuple[Engine, Callable[[], object]]:
    app = Flask("shop")
    app.config["STALECACHE_DIR"] = directory

    @StaleCache(app).memoize(0, 600, 600)
    def report() -> int:
        work()
        return 1

    def call() -> None:
        with app.app_context():
            report()

    return app.extensions["stalecache"].engine, call


def of_an_app(
    directory: Path, work: Callable[[], None], body: Callable[[], Any] = lambda: [b"page"]
) -> tuple[Engine, Callable[[], object]]:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        work()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", "max-age=0, stale-while-revalidate=600")])
        return body()

    gateway = GatewayCache(app, dir=directory)

    def ask() -> None:
        answer = gateway(create_environ("/page", "http://localhost/"), lambda *args: lambda data: None)
        b"".join(answer)
        getattr(answer, "close", lambda: None)()

    return gateway._engine, ask


def of_a_stream(directory: Path, work: Callable[[], None]) -> tuple[Engine, Callable[[], object]]:
    def body() -> Iterator[bytes]:
        yield b"pa"
        yield b"ge"

    return of_an_app(directory, work, body)


def stored(engine: Engine) -> Entry:
    (found,) = list(engine.store.walk())
    return found.entry


@pytest.mark.parametrize("made", [of_a_view, of_a_view_at_the_gateway, of_a_function, of_an_app, of_a_stream])
def test_a_fill_and_a_refresh_are_measured(
    directory: Path, made: Callable[[Path, Callable[[], None]], tuple[Engine, Callable[[], object]]]
) -> None:
    engine, ask = made(directory, compute)
    ask()
    first = stored(engine)
    assert first.work.computes
    assert first.work.seconds >= 0.06
    ask()
    assert engine.runtime.drain(PATIENCE)
    assert stored(engine).serial != first.serial
    assert stored(engine).work.computes
    stats = engine.runtime.stats()
    assert stats["computed"]["calls"] == 2
    assert stats["computed"]["seconds"] >= 0.12
    (series,) = [*stats["endpoints"].values(), *stats["functions"].values()]
    assert series["computed"] == stats["computed"]


@pytest.mark.parametrize("made", [of_a_view, of_a_function, of_an_app])
def test_one_that_does_not_compute_is_not_counted(
    directory: Path, made: Callable[[Path, Callable[[], None]], tuple[Engine, Callable[[], object]]]
) -> None:
    engine, ask = made(directory, lambda: None)
    ask()
    assert not stored(engine).work.computes
    assert engine.runtime.stats()["computed"] == {"calls": 0, "seconds": 0.0}


def test_the_log_says_once_what_to_do_about_it(
    directory: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_stalecache.engine.instrumentation.WORTH_SAYING", 0.05)
    engine, ask = of_a_view(directory, compute)
    for _ in range(3):
        ask()
        assert engine.runtime.drain(PATIENCE)
    assert caplog.text.count("report computes, for 0.1 s when it was last made") == 1
    assert "flask stalecache worker" in caplog.text


def test_a_process_that_only_refreshes_says_nothing(
    directory: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_stalecache.engine.instrumentation.WORTH_SAYING", 0.05)
    engine, ask = of_a_view(directory, compute)
    engine.runtime.lane.has_visitors = False
    ask()
    assert "computes" not in caplog.text
