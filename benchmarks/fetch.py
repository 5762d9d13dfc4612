"""Fetch functions compared with other caches: ``python benchmarks/fetch.py [--rounds 10]`` prints tables as Markdown.

What a hit costs is a ratio taken within a round, since a machine that gets slower gets slower for all; what is printed is the
median of the rounds. Then how often the origin, an HTTP server that takes 0.2 s, is called when 20 ask for something stale at once,
and when 100 ask for something that nobody has stored. The others are installed with ``pip install -e '.[bench]'``.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from datetime import timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from flask import Flask
from hit import call
from werkzeug.test import create_environ

from flask_stalecache import StaleCache

VIEW = "an empty Flask view"
OUR_SESSION = "ours, session"
TEXT = "x" * 100
ROWS = [{"id": number, "name": f"name {number}", "price": number / 7} for number in range(20)]
CALLS = 300
STALE_CALLERS, COLD_CALLERS = 20, 100
#: Seconds that the origin takes, and freshness of its responses in seconds, in each of the two parts.
TAKES, FRESH, LONG = 0.2, 1.0, 3600.0
PATIENCE = 30.0

Fetch = Callable[[str], Any]


class Origin(ThreadingHTTPServer):
    """A slow third party that counts its calls."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.calls = 0
        self.takes = 0.0
        self.fresh = LONG
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """The URL of the origin."""
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    server: Origin

    def do_GET(self) -> None:
        self.server.calls += 1
        time.sleep(self.server.takes)
        self.send_response(200)
        self.send_header("Content-Length", str(len(TEXT)))
        self.send_header("Cache-Control", f"max-age={self.server.fresh:g}, stale-while-revalidate=600")
        self.end_headers()
        self.wfile.write(TEXT.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


def get(url: str, base: str) -> str:
    """Call the origin, in the same way for all caches of functions."""
    import requests

    return requests.get(f"{url}{base}", timeout=PATIENCE).text


# -- the caches ------------------------------------------------------------------------------------------------------


class Cached(NamedTuple):
    """A cache under test: the call, and the app in whose context it runs."""

    fetch: Fetch
    app: Flask


def ours(folder: Path, ask: Fetch, fresh: float) -> Cached:
    app = Flask("ours")
    app.config["STALECACHE_DIR"] = folder
    return Cached(StaleCache(app).memoize(fresh, 600, 600, jitter=0)(ask), app)


def our_stale(folder: Path, ask: Fetch) -> Cached:
    app = Flask("our_stale")
    # The pending refresh must not reach its deadline during the measurement.
    app.config.from_mapping(STALECACHE_DIR=folder, STALECACHE_REFRESH_DEADLINE=86400)
    fetch = StaleCache(app).memoize(0, LONG * 1000, LONG)(ask)
    engine = app.extensions["stalecache"].engine
    with app.app_context():
        fetch("EUR")
    for stored in engine.store.walk():
        engine.runtime.claim(engine.store.load(stored.entry.key))
    return Cached(fetch, app)


def flask_caching(folder: Path, ask: Fetch, fresh: float) -> Cached:
    from flask_caching import Cache

    app = Flask("flask_caching")
    cache = Cache(app, config={"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(folder)})
    return Cached(cache.memoize(timeout=int(fresh))(ask), app)


def dogpile(backend: str, folder: Path, ask: Fetch, fresh: float) -> Cached:
    from dogpile.cache import make_region

    folder.mkdir()
    region = make_region().configure(backend, expiration_time=fresh, arguments={"filename": str(folder / "it.dbm")})
    return Cached(region.cache_on_arguments()(ask), Flask("dogpile"))


def diskcache(folder: Path, ask: Fetch, fresh: float) -> Cached:
    from diskcache import Cache

    return Cached(Cache(str(folder)).memoize(expire=fresh)(ask), Flask("diskcache"))


def our_session(folder: Path, url: str, fresh: float) -> Cached:
    app = Flask("our_session")
    app.config["STALECACHE_DIR"] = folder
    session = StaleCache(app).session()
    return Cached(lambda base: session.get(f"{url}{base}", timeout=PATIENCE).text, app)


def bare_session(folder: Path, url: str, fresh: float) -> Cached:
    import requests

    session = requests.Session()
    return Cached(lambda base: session.get(f"{url}{base}", timeout=PATIENCE).text, Flask("bare_session"))


def requests_cache(backend: str, folder: Path, url: str, fresh: float) -> Cached:
    import requests_cache

    session = requests_cache.CachedSession(
        str(folder), backend=backend, expire_after=fresh, stale_while_revalidate=timedelta(seconds=600)
    )
    return Cached(lambda base: session.get(f"{url}{base}", timeout=PATIENCE).text, Flask("requests_cache"))


def cachecontrol(folder: Path, url: str, fresh: float) -> Cached:
    import requests
    from cachecontrol import CacheControl

    session = CacheControl(requests.Session())
    return Cached(lambda base: session.get(f"{url}{base}", timeout=PATIENCE).text, Flask("cachecontrol"))


def hishel(folder: Path, url: str, fresh: float) -> Cached:
    import requests
    from hishel import SqliteStorage
    from hishel.requests import CacheAdapter

    folder.mkdir()
    session = requests.Session()
    # Follow the rules of HTTP, like the others: by default, it keeps every response as long as its storage does.
    session.mount("http://", CacheAdapter(storage=SqliteStorage(database_path=folder / "it.db"), rfc=True))
    return Cached(lambda base: session.get(f"{url}{base}", timeout=PATIENCE).text, Flask("hishel"))


#: Caches of functions take a directory, a function and seconds of freshness; HTTP caches a directory, a URL and seconds.
FUNCTIONS: dict[str, Callable[[Path, Fetch, float], Cached]] = {
    "ours": ours,
    "Flask-Caching memoize, FileSystemCache": flask_caching,
    "dogpile.cache, memory": partial(dogpile, "dogpile.cache.memory"),
    "dogpile.cache, dbm": partial(dogpile, "dogpile.cache.dbm"),
    "diskcache memoize": diskcache,
}
SESSIONS: dict[str, Callable[[Path, str, float], Cached]] = {
    OUR_SESSION: our_session,
    "requests.Session, no cache": bare_session,
    "requests-cache, memory": partial(requests_cache, "memory"),
    "requests-cache, sqlite": partial(requests_cache, "sqlite"),
    "requests-cache, filesystem": partial(requests_cache, "filesystem"),
    "CacheControl": cachecontrol,
    "hishel, sqlite": hishel,
}


# -- cost of a hit ---------------------------------------------------------------------------------------------------


def seconds(function: Callable[[], object], times: int) -> float:
    """Return the processor time of one call in this process."""
    start = time.process_time()
    for _ in range(times):
        function()
    return (time.process_time() - start) / times


def rows(base: str) -> list[dict[str, Any]]:
    return ROWS


def text(base: str) -> str:
    return TEXT


def hits(folder: Path, origin: Origin) -> dict[str, tuple[Cached, Callable[[], object], int]]:
    """Return the measured calls, with their number of repetitions per round."""
    bare = Flask("bare")
    bare.add_url_rule("/", view_func=lambda: "")
    environ = create_environ("/")
    caches = {name: make(folder / name, text, LONG) for name, make in FUNCTIONS.items()}
    caches |= {name: make(folder / name, origin.url, LONG) for name, make in SESSIONS.items()}
    caches["ours, 20 rows"] = ours(folder / "rows", rows, LONG)
    caches["ours, stale, refresh pending"] = our_stale(folder / "stale", text)
    made = {
        name: (cache, partial(cache.fetch, "EUR"), CALLS // 10 if name in SESSIONS else CALLS) for name, cache in caches.items()
    }
    return {VIEW: (Cached(rows, Flask("none")), lambda: call(bare.wsgi_app, environ), CALLS), **made}


def tell_hits(rounds: int, folder: Path, origin: Origin) -> None:
    made = hits(folder, origin)
    measured: dict[str, list[float]] = {name: [] for name in made}
    # The first round fills the caches, and does not count.
    for number in range(rounds + 1):
        for name, (cache, fetch, times) in made.items():
            with nullcontext() if name == VIEW else cache.app.app_context():
                took = seconds(fetch, times)
            if number:
                measured[name].append(took)
    print("| a hit of | µs | ÷ an empty Flask view | ÷ ours of its kind |\n|---|---|---|---|")
    for name, each in measured.items():
        kind = measured[OUR_SESSION if name in SESSIONS else "ours"]
        print(f"| {name} | {median(each) * 1e6:.1f} | {ratio(each, measured[VIEW]):.3f} | {ratio(each, kind):.1f} |")


def ratio(ones: list[float], others: list[float]) -> float:
    """Return the median of the rounds' ratios."""
    return median(one / other for one, other in zip(ones, others, strict=True))


# -- how often the origin is called ------------------------------------------------------------------------------------


def calls_of(fetch: Fetch, origin: Origin, callers: int, *, stale: bool) -> int:
    """Return the number of calls of the origin for concurrent callers."""
    base = "stale" if stale else "cold"
    if stale:
        origin.takes = 0.0
        fetch(base)
        time.sleep(FRESH + 0.2)
    before, origin.takes = origin.calls, TAKES
    together = threading.Barrier(callers)

    def ask() -> object:
        together.wait(PATIENCE)
        return fetch(base)

    with ThreadPoolExecutor(callers) as pool:
        for future in [pool.submit(ask) for _ in range(callers)]:
            future.result(PATIENCE)
    # Some caches refresh in the background.
    time.sleep(2 * TAKES)
    return origin.calls - before


def in_context(cache: Cached) -> Fetch:
    """Return a function that runs in an app context in any thread."""

    def ask(base: str) -> Any:
        with cache.app.app_context():
            return cache.fetch(base)

    return ask


def tell_calls(folder: Path, origin: Origin) -> None:
    print(f"\n| calls of the origin | {STALE_CALLERS} stale at once | {COLD_CALLERS} cold at once |\n|---|---|---|")
    where = folder / "calls"
    where.mkdir()
    caches = {name: make(where / name, partial_get(origin.url), FRESH) for name, make in FUNCTIONS.items()}
    caches |= {name: make(where / name, origin.url, FRESH) for name, make in SESSIONS.items()}
    for name, cache in caches.items():
        fetch = in_context(cache)
        counts = calls_of(fetch, origin, STALE_CALLERS, stale=True), calls_of(fetch, origin, COLD_CALLERS, stale=False)
        print(f"| {name} | {counts[0]} | {counts[1]} |")


def partial_get(url: str) -> Fetch:
    """Return the cached function; some caches use its name and its signature."""

    def ask(base: str) -> str:
        return get(url, base)

    return ask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="rounds of hits (default 10)")
    rounds = parser.parse_args().rounds
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stalecache-fetch-", ignore_cleanup_errors=True)))
        origin = stack.enter_context(Origin())
        stack.callback(origin.shutdown)
        tell_hits(rounds, folder, origin)
        origin.fresh = FRESH
        tell_calls(folder, origin)


if __name__ == "__main__":
    main()
