"""Cost of a hit, in process: ``python benchmarks/hit.py [--rounds 30]`` prints a table as Markdown.

A raw WSGI callable, an empty Flask view, our hit with all its headers, and Flask-Caching's hits all answer the same 10 kB. They are
called in turn, round by round, so that a machine that becomes slower affects all of them: first on their own, then while a
thread in the background renders a template in a loop. A ratio is taken within a round; what is printed is the median of the rounds.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from flask import Flask
from flask_caching import Cache
from jinja2 import Environment
from werkzeug.test import create_environ

from flask_stalecache import StaleCache

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

SIZE = 10_000
PAGE = "x" * SIZE
YEAR = 31_536_000
#: Seconds for each turn of a variant: several times the 5 ms after which Python switches threads.
TURN = 0.02
#: Turns of each variant in one round.
TURNS = 4

RAW, EMPTY, OURS = "raw WSGI callable", "empty Flask view", "flask_stalecache hit"
STALE = "flask_stalecache stale hit, refresh pending"
SIMPLE, FILES = "Flask-Caching hit, SimpleCache", "Flask-Caching hit, FileSystemCache"
#: The cache status that our variants must have.
WORDS = {OURS: "HIT", STALE: "UPDATING"}


class Target(NamedTuple):
    """The highest acceptable value of a ratio."""

    name: str
    limit: float


AGAINST_EMPTY = Target("our hit ÷ empty Flask view", 1.0)
AGAINST_FRESH = Target("our stale hit, refresh pending ÷ our hit", 1.1)
AGAINST_FILES = Target("our hit ÷ Flask-Caching's FileSystemCache hit", 0.55)
UNDER_RENDER = Target("our hit under a background render ÷ our idle hit", 1.2)


# -- what is measured ------------------------------------------------------------------------------------------------


def raw(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Serve the page without a framework."""
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(SIZE))])
    return [PAGE.encode()]


def page() -> str:
    """The view in all Flask apps."""
    return PAGE


def empty_view() -> WSGIApplication:
    app = Flask("empty")
    app.add_url_rule("/page", view_func=page)
    return app


def our_hit(folder: Path) -> WSGIApplication:
    app = Flask("ours")
    app.config["STALECACHE_DIR"] = folder / "stalecache"
    app.add_url_rule("/page", view_func=StaleCache(app).cached(3600)(page))
    return app


def our_stale_hit(folder: Path) -> WSGIApplication:
    app = Flask("stale")
    # The pending refresh must not reach its deadline during the measurement.
    app.config.from_mapping(STALECACHE_DIR=folder / "stale", STALECACHE_REFRESH_DEADLINE=86400)
    view = StaleCache(app).cached(0, YEAR, YEAR)(page)
    app.add_url_rule("/page", view_func=view)
    engine = app.extensions["stalecache"].engine
    call(app, request())
    for stored in engine.store.walk():
        engine.runtime.claim(engine.store.load(stored.entry.key))
    return app


def flask_caching_hit(**config: Any) -> WSGIApplication:
    app = Flask("theirs")
    app.add_url_rule("/page", view_func=Cache(app, config=config).cached(timeout=3600)(page))
    return app


def variants(folder: Path) -> dict[str, WSGIApplication]:
    """Return all measured apps by name."""
    return {
        RAW: raw,
        EMPTY: empty_view(),
        OURS: our_hit(folder),
        STALE: our_stale_hit(folder),
        SIMPLE: flask_caching_hit(CACHE_TYPE="SimpleCache"),
        FILES: flask_caching_hit(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(folder / "flask_caching")),
    }


def request() -> dict[str, Any]:
    """Return the environ of a browser's request, like gunicorn's."""
    fields = {
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "Accept-Language": "en-US,en;q=0.5",
        "Accept-Encoding": "gzip, deflate, br",
        "Connection": "keep-alive",
    }
    return {**create_environ("/page", "http://shop.example", headers=fields), "RAW_URI": "/page"}


# -- measuring -------------------------------------------------------------------------------------------------------


def call(app: WSGIApplication, environ: dict[str, Any]) -> tuple[dict[str, str], bytes]:
    """Make one request like a server: call, iterate, close. Return fields and body."""
    sent: list[tuple[str, str]] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        sent.extend([("status", status), *headers])
        return sent.append  # type: ignore[return-value]

    iterable = app(environ, start_response)
    try:
        body = b"".join(iterable)
    finally:
        close = getattr(iterable, "close", None)
        if close is not None:
            close()
    return dict(sent), body


def take_turn(app: WSGIApplication, base: dict[str, Any], times: list[int]) -> None:
    """Call the app for a while, and record the nanoseconds of each call."""
    until = time.perf_counter() + TURN
    while time.perf_counter() < until:
        environ = base.copy()
        start = time.perf_counter_ns()
        call(app, environ)
        times.append(time.perf_counter_ns() - start)


def microseconds(apps: Mapping[str, WSGIApplication], base: dict[str, Any]) -> dict[str, float]:
    """Call all apps in turn, and return the median for each."""
    times: dict[str, list[int]] = {name: [] for name in apps}
    for _ in range(TURNS):
        for name, app in apps.items():
            take_turn(app, base, times[name])
    return {name: median(found) / 1000 for name, found in times.items()}


@contextmanager
def background_render() -> Iterator[threading.Event]:
    """Run a thread that renders a template in a loop while the yielded event is set."""
    template = Environment(autoescape=True).from_string("{% for n in numbers %}<li>{{ n }}: {{ n * n }}</li>{% endfor %}")
    busy, over = threading.Event(), threading.Event()

    def render() -> None:
        while not over.is_set():
            busy.wait()
            template.render(numbers=range(1000))

    thread = threading.Thread(target=render, daemon=True)
    thread.start()
    try:
        yield busy
    finally:
        over.set()
        busy.set()
        thread.join()


class Round(NamedTuple):
    """Microseconds per call, by name."""

    idle: Mapping[str, float]
    rendering: Mapping[str, float]


def measure(apps: Mapping[str, WSGIApplication], rounds: int) -> list[Round]:
    """Run the rounds, each in another order."""
    base, order, found = request(), list(apps), []
    shuffled = random.Random(1)
    with background_render() as busy:
        for _ in range(rounds):
            shuffled.shuffle(order)
            mixed = {name: apps[name] for name in order}
            idle = microseconds(mixed, base)
            busy.set()
            found.append(Round(idle, microseconds(mixed, base)))
            busy.clear()
    return found


def check(apps: Mapping[str, WSGIApplication]) -> None:
    """Check that each app serves the page, and that the cached one has all header fields."""
    for name, app in apps.items():
        for _ in range(20):
            headers, body = call(app, request())
        if headers["status"] != "200 OK" or body != PAGE.encode():
            raise SystemExit(f"{name} does not answer the page: {headers['status']}")
        if name in WORDS and (
            headers["X-Cache-Status"] != WORDS[name] or not {"Age", "Cache-Status", "Content-Length", "ETag"} <= headers.keys()
        ):
            raise SystemExit(f"{name} is no {WORDS[name]} with all its headers: {headers}")


# -- the report ------------------------------------------------------------------------------------------------------


def ratio(rounds: list[Round], name: str, other: str) -> float:
    return median(found.idle[name] / found.idle[other] for found in rounds)


def slowdown(rounds: list[Round], name: str) -> float:
    return median(found.rendering[name] / found.idle[name] for found in rounds)


def table(rounds: list[Round]) -> Iterator[str]:
    """Yield the lines of the table, and the results for the targets."""
    yield f"| 10 kB, median of {len(rounds)} rounds | µs | ÷ empty view | ÷ FileSystemCache | µs under a render | ÷ idle |"
    yield "|---|---:|---:|---:|---:|---:|"
    for name in (RAW, EMPTY, OURS, STALE, SIMPLE, FILES):
        idle = median(found.idle[name] for found in rounds)
        rendering = median(found.rendering[name] for found in rounds)
        ratios = f"{ratio(rounds, name, EMPTY):.2f} | {ratio(rounds, name, FILES):.2f}"
        yield f"| {name} | {idle:.1f} | {ratios} | {rendering:.1f} | {slowdown(rounds, name):.2f} |"
    yield ""
    yield "| target | at most | measured | |"
    yield "|---|---:|---:|---|"
    measured = {
        AGAINST_EMPTY: ratio(rounds, OURS, EMPTY),
        AGAINST_FRESH: ratio(rounds, STALE, OURS),
        AGAINST_FILES: ratio(rounds, OURS, FILES),
        UNDER_RENDER: slowdown(rounds, OURS),
    }
    for target, value in measured.items():
        yield f"| {target.name} | {target.limit} | {value:.2f} | {'reached' if value <= target.limit else 'NOT REACHED'} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measures a hit and prints a table as Markdown.")
    parser.add_argument("--rounds", type=int, default=30, help="number of rounds (default 30, about 25 s)")
    rounds = parser.parse_args().rounds
    if rounds < 1:
        parser.error("--rounds: give 1 or more")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        apps = variants(Path(folder))
        check(apps)
        print("\n".join(table(measure(apps, rounds))))


if __name__ == "__main__":
    main()
