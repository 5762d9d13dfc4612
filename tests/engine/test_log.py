"""The log: no visitor can forge a line in it, and what is remembered of it is limited."""

from __future__ import annotations

import io
import logging
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_stalecache import GatewayCache, Policy, StaleCache
from flask_stalecache.engine import log
from flask_stalecache.engine.log import RateLimitedLog, logger
from support.wsgi_apps import answering, ask

MakeApp = Callable[..., tuple[Flask, StaleCache]]
FORGED = "\n2026-01-01 CRITICAL all data is lost"
#: What a visitor may send, and the escaped form that the line must contain.
EVIL = {
    "line feed": (f"/a{FORGED}", r"/a\n2026-01-01"),
    "carriage return": ("/a\rforged", r"/a\rforged"),
    "escape sequence": ("/a\x1b[2Jforged", r"/a\x1b[2Jforged"),
    "one-byte escape": ("/a\x9b2Jforged", r"/a\x9b2Jforged"),
    "line separator": ("/a\u2028forged", r"/a\u2028forged"),
    "next line": ("/a\x85forged", r"/a\x85forged"),
    "right to left": ("/a\u202eforged", r"/a\u202eforged"),
    "half a pair": ("/a\ud800forged", r"/a\ud800forged"),
    "null": ("/a\0forged", r"/a\0forged".replace(r"\0", r"\x00")),
}


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """All that a handler of the app writes, as a file would get it."""
    stream, level = io.StringIO(), logger.level
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(level)


def begins_of(written: io.StringIO) -> list[str]:
    """Return the lines that begin with a date, like lines of the log. Lines end at everything that a reader may take for an end."""
    return [line for line in written.getvalue().splitlines() if line.startswith("20")]


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("form", ["%s", "%r"])
def test_what_a_visitor_chose_is_escaped(written: io.StringIO, name: str, form: str) -> None:
    value, shown = EVIL[name]
    RateLimitedLog().warn_once("it", f"the page at {form} failed", value)
    assert shown in written.getvalue()
    assert len(written.getvalue().splitlines()) == 1


def test_what_can_be_printed_stays_as_it_is(written: io.StringIO) -> None:
    RateLimitedLog().warn_once("it", "%s: %r, %.1f", "/caf\u00e9 \N{SNOWMAN}", ["a"], 0.25)
    assert written.getvalue().endswith("WARNING /caf\u00e9 \N{SNOWMAN}: ['a'], 0.2\n")


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("it can't be said")


def caused() -> Exception:
    """Return an exception that came from another, both with what a visitor chose."""
    try:
        try:
            raise ValueError(f"no such page{FORGED}")
        except ValueError as error:
            raise LookupError(f"outer{FORGED}") from error
    except LookupError as error:
        return error


@pytest.mark.parametrize("make", [lambda: OSError(f"down{FORGED}"), lambda: Silent(), caused], ids=["plain", "silent", "caused"])
def test_exceptions_are_escaped_and_tracebacks_are_kept(written: io.StringIO, make: Callable[[], Exception]) -> None:
    error = make()
    RateLimitedLog().error_every_minute("it", "it failed", exc_info=error)
    lines = written.getvalue().splitlines()
    assert len(begins_of(written)) == 1
    assert type(error).__name__ in lines[-1]
    assert ("ValueError: no such page\\n2026" in written.getvalue()) is (make is caused)


def failing(make_app: MakeApp, **settings: Any) -> Flask:
    app, cache = make_app(REFRESH_WORKERS=0, **settings)

    @app.get("/<what>")
    @cache.cached(max_age=10, stale_while_revalidate=600, stale_if_error=600, unless=lambda: 1 / 0)
    def page(what: str) -> str:
        raise RuntimeError(f"no {what}")

    return app


@pytest.mark.parametrize("settings", [{}, {"GATEWAY": {"/*": Policy(max_age=10)}}], ids=["view", "gateway"])
@pytest.mark.parametrize("char", ["%0a", "%0d", "%0d%0a", "%1b[2K%1b[1G", "%e2%80%a8", "%c2%85", "%c2%9b2J"])
def test_a_path_forges_no_line(make_app: MakeApp, written: io.StringIO, settings: dict[str, Any], char: str) -> None:
    app = failing(make_app, **settings)
    for _ in range(2):
        with app.test_client().get(f"/a{char}2026-01-01%20CRITICAL%20forged?b={char}2026-01-01") as response:
            assert response.status_code == 500
    assert written.getvalue()
    assert not [line for line in begins_of(written) if line.startswith("2026-01-01")]
    assert "\x1b" not in written.getvalue()
    assert "\x9b" not in written.getvalue()


def test_a_path_forges_no_line_of_a_gateway(directory: Path, written: io.StringIO) -> None:
    gateway = GatewayCache(answering(RuntimeError(f"no such page{FORGED}")), dir=directory, max_age=10)
    for _ in range(2):
        ask(gateway, f"/a{FORGED}")
    assert written.getvalue()
    assert not [line for line in begins_of(written) if line.startswith("2026-01-01")]


def test_what_is_remembered_of_the_log_is_limited(soak: Callable[[int, int], int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log.logger, "disabled", True)
    complaints = RateLimitedLog()
    tracemalloc.start()
    try:
        for number in range(soak(1_000_000, 5000)):
            complaints.warn_once(("x" * 8000 + str(number), "value"), "it is %s", "x")
        # Threads of earlier tests may still be at work.
        ours = [tracemalloc.Filter(True, __file__), tracemalloc.Filter(True, "*/flask_stalecache/engine/log.py")]
        taken = tracemalloc.take_snapshot().filter_traces(ours).statistics("filename")
        assert 0 < sum(line.size for line in taken) < 1_000_000
    finally:
        tracemalloc.stop()
