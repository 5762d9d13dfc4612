"""A hundred concurrent visitors, over sockets: ``python benchmarks/collapse.py [--rounds 5]`` prints a table as Markdown.

Gunicorn with 2 workers of 50 threads serves a view that takes a second or two. In each round, 100 visitors send a request at the
same moment, each on a new connection: for a page that is not stored, for one past all its windows, and for a stale one.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import NamedTuple

from workers import PATIENCE, gunicorn

VISITORS = 100
WORKERS = 2
THREADS = 50
#: Seconds for which a page is fresh.
MAX_AGE = 3.0

APP = f"""
import os
import time
from pathlib import Path

from flask import Flask
from flask_stalecache import StaleCache

FOLDER = Path(__file__).parent
app = Flask(__name__)
app.config["STALECACHE_DIR"] = FOLDER / "cache"
cache = StaleCache(app)


@app.get("/pid")
def pid():
    return str(os.getpid())


def run(page, seconds):
    with open(FOLDER / page, "ab", buffering=0) as runs:
        runs.write(b".")
    time.sleep(seconds)
    return "x" * 10_000


@app.get("/expiring/<page>")
@cache.cached({MAX_AGE}, 0, 0, jitter=0)
def expiring(page):
    return run(page, 1)


@app.get("/stale/<page>")
@cache.cached({MAX_AGE}, 600, 600, jitter=0)
def stale(page):
    return run(page, 2)
"""


class Case(NamedTuple):
    """A page, and its target.

    :param limit: seconds in which every visitor must be answered; for the stale page, this is less than its view takes.
    """

    name: str
    kind: str
    limit: float


COLD = Case("cold, view of 1 s", "expiring", 1.5)
EXPIRED = Case("expired, view of 1 s", "expiring", 1.5)
STALE = Case("stale, view of 2 s", "stale", 1.0)


class Burst(NamedTuple):
    """The result of a hundred concurrent requests."""

    runs: int
    slowest: float
    errors: int


class Site:
    """The app under gunicorn.

    :param folder: its directory.
    :param port: its port on 127.0.0.1.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port

    def get(self, path: str) -> tuple[int, bytes]:
        """Send a request on a new connection, and return status and body."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            with connection.getresponse() as response:
                return response.status, response.read()
        finally:
            connection.close()

    def runs(self, page: str) -> int:
        """Return the number of calls of a page's view."""
        path = self._folder / page
        return path.stat().st_size if path.exists() else 0

    def burst(self, kind: str, page: str) -> Burst:
        """Send the requests of all visitors at the same time, and wait until a view that they started has returned."""
        together, before = threading.Barrier(VISITORS), self.runs(page)

        def visit() -> tuple[float, bool]:
            together.wait(PATIENCE)
            start = time.monotonic()
            status, body = self.get(f"/{kind}/{page}")
            return time.monotonic() - start, status == 200 and len(body) == 10_000

        with ThreadPoolExecutor(VISITORS) as pool:
            answers = [future.result() for future in [pool.submit(visit) for _ in range(VISITORS)]]
        if kind == "stale":
            time.sleep(2.5)
        seconds, good = zip(*answers, strict=True)
        return Burst(self.runs(page) - before, max(seconds), VISITORS - sum(good))


@contextmanager
def running() -> Iterator[Site]:
    """Run the app under gunicorn until the end."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with gunicorn(folder, APP, WORKERS, lambda port: Site(folder, port).get("/pid")[1], threads=THREADS) as port:
            yield Site(folder, port)


def play(site: Site, rounds: int) -> dict[Case, list[Burst]]:
    """Measure all cases."""
    found: dict[Case, list[Burst]] = {COLD: [], EXPIRED: [], STALE: []}
    for number in range(rounds):
        expiring, stale = f"expiring-{number}", f"stale-{number}"
        found[COLD].append(site.burst("expiring", expiring))
        site.get(f"/stale/{stale}")
        time.sleep(MAX_AGE + 0.2)
        found[EXPIRED].append(site.burst("expiring", expiring))
        found[STALE].append(site.burst("stale", stale))
    return found


def table(found: dict[Case, list[Burst]]) -> Iterator[str]:
    """Yield the lines of the table."""
    rounds = len(found[COLD])
    heading = f"{VISITORS} at once, {rounds} rounds, gunicorn with {WORKERS} workers of {THREADS} threads"
    yield f"| {heading} | runs of the view | slowest, median | slowest of all | |"
    yield "|---|---:|---:|---:|---|"
    for case, bursts in found.items():
        runs, slowest = max(burst.runs for burst in bursts), [burst.slowest for burst in bursts]
        errors = sum(burst.errors for burst in bursts)
        reached = runs == 1 and max(slowest) <= case.limit and not errors
        verdict = f"{'reached' if reached else 'NOT REACHED'}: 1 run, everyone within {case.limit} s"
        verdict += f", {errors} errors" if errors else ""
        yield f"| {case.name} | {runs} | {median(slowest):.2f} s | {max(slowest):.2f} s | {verdict} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measures a hundred visitors at once and prints a table as Markdown.")
    parser.add_argument("--rounds", type=int, default=5, help="number of runs of each case (default 5, about 50 s)")
    rounds = parser.parse_args().rounds
    if rounds < 1:
        parser.error("--rounds: give 1 or more")
    with running() as site:
        found = play(site, rounds)
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
