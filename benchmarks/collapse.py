"""A hundred visitors at once, over sockets: ``python benchmarks/collapse.py [--rounds 5]`` prints a table as Markdown.

Gunicorn with 2 workers of 50 threads serves a view that takes a second or two. In each round 100 visitors ask at the same moment,
each on a new connection: for a page that nobody has stored, for one past all its windows, and for a stale one.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
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

ROOT = Path(__file__).resolve().parent.parent
VISITORS = 100
WORKERS = 2
THREADS = 50
#: Seconds that anything may take before the benchmark gives up.
PATIENCE = 60.0
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


# A file rather than options, since gunicorn passes over names that its version lacks, as it may do with the last one.
CONFIG = f"""
workers = {WORKERS}
threads = {THREADS}
loglevel = "warning"
control_socket_disable = True
"""


class Case(NamedTuple):
    """What is asked for, and what the issue says of it.

    :param limit: seconds in which everyone is to be answered; in a stale page's case that is less than its view takes.
    """

    name: str
    kind: str
    limit: float


COLD = Case("cold, view of 1 s", "expiring", 1.5)
EXPIRED = Case("expired, view of 1 s", "expiring", 1.5)
STALE = Case("stale, view of 2 s", "stale", 1.0)


class Burst(NamedTuple):
    """What came of a hundred visitors at once."""

    runs: int
    slowest: float
    errors: int


class Site:
    """The app under gunicorn.

    :param folder: where it lives.
    :param port: where it listens on 127.0.0.1.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port

    def get(self, path: str) -> tuple[int, bytes]:
        """Ask on a new connection, and return status and body."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            with connection.getresponse() as response:
                return response.status, response.read()
        finally:
            connection.close()

    def runs(self, page: str) -> int:
        """Return how often the view of a page has run."""
        path = self._folder / page
        return path.stat().st_size if path.exists() else 0

    def burst(self, kind: str, page: str) -> Burst:
        """Let all visitors ask at once, and wait until the view that they may have started is over."""
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
    """Run the app under gunicorn until the end, and wait for all its workers first."""
    with tempfile.TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        folder, port = Path(name), listening.getsockname()[1]
        (folder / "app.py").write_text(APP)
        (folder / "gunicorn_conf.py").write_text(CONFIG)
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "gunicorn_conf.py", "-b", f"fd://{listening.fileno()}", "app:app"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            pass_fds=(listening.fileno(),),
        )
        try:
            site = Site(folder, port)
            wait_for_workers(site, process)
            yield site
        finally:
            process.terminate()
            process.wait(PATIENCE)


def wait_for_workers(site: Site, process: subprocess.Popen[bytes]) -> None:
    """Wait until each worker has answered."""
    deadline, seen = time.monotonic() + PATIENCE, set[bytes]()
    with ThreadPoolExecutor(8) as pool:
        while len(seen) < WORKERS:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("gunicorn did not start")
            seen.update(body for _, body in pool.map(site.get, ["/pid"] * 8))


def play(site: Site, rounds: int) -> dict[Case, list[Burst]]:
    """Play all cases."""
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
    parser.add_argument("--rounds", type=int, default=5, help="how often each case is played (default 5, about 50 s)")
    rounds = parser.parse_args().rounds
    if rounds < 1:
        parser.error("--rounds: give 1 or more")
    with running() as site:
        found = play(site, rounds)
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
