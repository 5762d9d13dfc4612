"""Gateway hits over the wire, for ``gateway.py``: wrk sends requests to real servers on 127.0.0.1, one after the other.

On each server a raw WSGI callable, an empty Flask view and the gateway's hit answer the same 10 kB; and so does a raw callable that
sends all header fields of a hit, since each field costs a server time. nginx's ``proxy_cache`` and Varnish, with one worker process
each, are measured beside them. All of them are asked in turn, round by round, and only one at a time; a ratio is taken within a
round. A server that is not installed has a row that says so.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPMessage
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeAlias

ROOT = Path(__file__).resolve().parent.parent
CONNECTIONS = 32
#: Threads for requests. uWSGI keeps one per connection, and lets further connections wait.
THREADS, UWSGI_THREADS = 8, CONNECTIONS
#: Time limit in seconds for every step of the benchmark.
PATIENCE = 60.0
PACKAGES = {"wrk": "wrk", "nginx": "nginx-light", "varnishd": "varnish"}
#: Debian's directories for programs of root.
PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))

RAW, SAME, EMPTY, HIT = APPS = "raw", "same", "empty", "hit"
NGINX, VARNISH, UWSGI = "nginx", "Varnish", "uWSGI"
#: With one thread, requests do not contend for the interpreter; with more, slow views do not block each other.
GRANIAN, GRANIAN_THREADS = "granian, 1 thread", f"granian, {THREADS} threads"
#: The lowest acceptable throughput of hits, as a multiple of the raw callable's.
TARGETS = {"gunicorn sync": 0.95, "gunicorn gthread": 0.95, "waitress": 0.95, UWSGI: 0.9, GRANIAN: 0.9, GRANIAN_THREADS: 0.9}
#: The lowest acceptable throughput of granian's hits, as a multiple of nginx's.
AGAINST_NGINX = 0.75
#: The name of each server, and the programs that it needs.
NEEDED = {
    "gunicorn sync": "gunicorn",
    "gunicorn gthread": "gunicorn",
    "waitress": "waitress",
    UWSGI: "pyuwsgi",
    GRANIAN: "granian",
    GRANIAN_THREADS: "granian",
}

APP = """
from pathlib import Path

from flask import Flask, Response
from flask_stalecache import GatewayCache

PAGE = b"x" * 10_000
FIELDS = [("Content-Type", "text/html"), ("Content-Length", "10000"), ("Cache-Control", "max-age=86400")]


def raw(environ, start_response):
    start_response("200 OK", FIELDS.copy())
    return [PAGE]


def same(environ, start_response):
    more = [("Age", "12"), ("Cache-Status", "stalecache; hit; ttl=86388"), ("X-Cache-Status", "HIT")]
    start_response("200 OK", [*FIELDS, *more])
    return [PAGE]


empty = Flask(__name__)
hit = GatewayCache(raw, dir=Path(__file__).parent / "cache")


@empty.get("/page")
def page():
    return Response(PAGE, headers=FIELDS)
"""
_WAITRESS = """
import socket, sys
from importlib import import_module
from waitress import serve
serve(getattr(import_module("app"), sys.argv[1]), sockets=[socket.socket(fileno=int(sys.argv[2]))], threads=int(sys.argv[3]))
"""
_GUNICORN = """
import os
bind = f"fd://{os.environ['LISTENS']}"
worker_class = os.environ["WORKER_CLASS"]
threads = int(os.environ["THREADS"])
loglevel = "warning"
control_socket_disable = True
"""
_NGINX = """
daemon off;
master_process off;
pid nginx.pid;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 100000000;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    proxy_cache_path cache keys_zone=pages:1m inactive=1d;
    sendfile on;
    tcp_nopush on;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_cache pages;
            proxy_cache_lock on;
            add_header X-Cache-Status $upstream_cache_status;
        }}
    }}
}}
"""

#: Server and app.
Variant: TypeAlias = "tuple[str, str]"


class Round(NamedTuple):
    """Requests per second in one round, and the number of errors and missing responses."""

    rates: Mapping[Variant, float]
    errors: Mapping[Variant, int]


def install() -> None:
    """Install missing programs with apt-get."""
    missing = [package for program, package in PACKAGES.items() if program_of(program) is None]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SystemExit(f"--install needs root and apt-get; install by yourself: {' '.join(missing)}")
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *missing]):
        subprocess.run(["apt-get", *command], check=True, stdout=subprocess.DEVNULL)


def program_of(name: str) -> str | None:
    """Return the path of a program, or ``None`` if it is not installed."""
    return shutil.which(name, path=PATH)


# -- servers ---------------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """The directory of a server, and the socket that it inherits, or that reserves the port which it binds itself."""

    folder: Path
    socket: socket.socket

    @property
    def port(self) -> int:
        """The port on 127.0.0.1."""
        return int(self.socket.getsockname()[1])


def listening() -> socket.socket:
    """Return a socket for a server that inherits one."""
    return socket.create_server(("127.0.0.1", 0), backlog=256)


def reserved() -> socket.socket:
    """Return a socket that does not listen and only reserves the port, for servers that create their own."""
    held = socket.socket()
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        held.setsockopt(socket.SOL_SOCKET, option, 1)
    held.bind(("127.0.0.1", 0))
    return held


def command(server: str, app: str, place: Place) -> list[str]:
    """Return the command line of a Python server."""
    if server == "waitress":
        return [sys.executable, "-c", _WAITRESS, app, str(place.socket.fileno()), str(THREADS)]
    if server == UWSGI:
        options = [
            "--master",
            "--die-on-term",
            "--need-app",
            "--processes",
            "1",
            "--threads",
            str(UWSGI_THREADS),
            "--disable-logging",
        ]
        where = ["--http11-socket", f"fd://{place.socket.fileno()}", "--module", f"app:{app}"]
        return [sys.executable, "-c", "import sys, pyuwsgi; pyuwsgi.run(sys.argv[1:])", *where, "--enable-threads", *options]
    if NEEDED[server] == "granian":
        where = ["--host", "127.0.0.1", "--port", str(place.port), "--log-level", "warning"]
        pools = ["--workers", "1", "--blocking-threads", "1" if server == GRANIAN else str(THREADS)]
        return [sys.executable, "-m", "granian", "--interface", "wsgi", *where, *pools, f"app:{app}"]
    return [sys.executable, "-m", "gunicorn", "-c", "gunicorn_conf.py", f"app:{app}"]


@contextmanager
def running(line: Sequence[str], place: Place, env: Mapping[str, str]) -> Iterator[None]:
    """Run a server, wait until it responds, and stop it at the end."""
    log = place.folder / f"{place.port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            line,
            cwd=place.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **env},
            pass_fds=(place.socket.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_it_answers(process, place, log)
        yield
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a process, in the end with SIGKILL."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until_it_answers(process: subprocess.Popen[bytes], place: Place, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with suppress(OSError, HTTPException):
            ask(place.port)
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"a server did not start: {process.args!r}\n{log.read_text(errors='replace')}")
        time.sleep(0.05)


def ask(port: int) -> HTTPMessage:
    """Request the page on a new connection, and return the fields of the response."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/page")
        with connection.getresponse() as response:
            if response.status != 200 or len(response.read()) != 10_000:
                raise HTTPException(f"{response.status} {response.reason}")
            return response.headers
    finally:
        connection.close()


@contextmanager
def python_server(server: str, app: str, folder: Path) -> Iterator[int]:
    """Run an app under a server, and yield its port."""
    with reserved() if NEEDED[server] == "granian" else listening() as held:
        place = Place(folder, held)
        settings = {"LISTENS": str(held.fileno()), "WORKER_CLASS": server.split()[-1]}
        settings["THREADS"] = str(THREADS if server.endswith("gthread") else 1)
        with running(command(server, app, place), place, settings):
            yield place.port


@contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[int]:
    """Run nginx in front of a server, and yield its port."""
    with reserved() as held:
        place = Place(folder, held)
        (folder / "nginx.conf").write_text(_NGINX.format(port=place.port, upstream=upstream))
        line = [program_of("nginx") or "", "-p", str(folder), "-c", "nginx.conf", "-e", "nginx.log"]
        with running(line, place, {}):
            yield place.port


@contextmanager
def varnish(folder: Path, upstream: int) -> Iterator[int]:
    """Run Varnish in front of a server, and yield its port."""
    with reserved() as held:
        place = Place(folder, held)
        where = ["-a", f"127.0.0.1:{place.port}", "-b", f"127.0.0.1:{upstream}", "-n", str(folder / "varnish"), "-T", "none"]
        line = [program_of("varnishd") or "", "-j", "none", "-F", *where, "-s", "malloc,64m"]
        with running(line, place, {}):
            yield place.port


def start_all(stack: ExitStack, folder: Path) -> dict[Variant, int]:
    """Start all installed servers, and return their ports."""
    (folder / "app.py").write_text(APP)
    (folder / "gunicorn_conf.py").write_text(_GUNICORN)
    servers = [server for server, module in NEEDED.items() if find_spec(module) is not None]
    variants = [(server, app) for server in servers for app in APPS]
    ports = {variant: stack.enter_context(python_server(*variant, folder)) for variant in variants}
    fronts: Mapping[str, tuple[str, Callable[..., AbstractContextManager[int]]]]
    fronts = {NGINX: ("nginx", nginx), VARNISH: ("varnishd", varnish)}
    for name, (program, start) in fronts.items():
        if ports and program_of(program) is not None:
            ports[name, HIT] = stack.enter_context(start(folder, next(iter(ports.values()))))
    return ports


def check(ports: Mapping[Variant, int]) -> None:
    """Check that the caches respond from the store."""
    for (server, app), port in ports.items():
        if app != HIT:
            continue
        _, fields = ask(port), ask(port)
        # On a hit, Varnish names two requests: this one, and the one that stored the page.
        word = "HIT" if server == VARNISH and " " in fields.get("X-Varnish", "") else fields.get("X-Cache-Status")
        if word != "HIT":
            raise SystemExit(f"{server} does not answer from the store: {fields.items()}")


# -- measuring -------------------------------------------------------------------------------------------------------

_RATE = re.compile(r"^Requests/sec:\s+([\d.]+)$", re.MULTILINE)
_FAILED = re.compile(r"Non-2xx or 3xx responses: (\d+)")
_SOCKET_ERRORS = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")


def load(port: int, seconds: int) -> tuple[float, int]:
    """Run wrk for a while, and return requests per second and errors."""
    url = f"http://127.0.0.1:{port}/page"
    line = [program_of("wrk") or "", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", url]
    said = subprocess.run(line, check=True, capture_output=True, text=True, timeout=seconds + PATIENCE).stdout
    rate, failed, broken = _RATE.search(said), _FAILED.search(said), _SOCKET_ERRORS.search(said)
    if rate is None:
        raise SystemExit(f"wrk has measured nothing: {said}")
    return float(rate[1]), sum(map(int, [*(failed.groups() if failed else ()), *(broken.groups() if broken else ())]))


def groups_of(ports: Mapping[Variant, int]) -> list[list[Variant]]:
    """Return the groups that are measured in direct succession: the apps of each server, and nginx and Varnish with granian's."""
    groups: dict[str, list[Variant]] = {}
    for server, app in ports:
        groups.setdefault(GRANIAN if server in (NGINX, VARNISH) else server, []).append((server, app))
    return list(groups.values())


def measure(ports: Mapping[Variant, int], rounds: int, seconds: int) -> list[Round]:
    """Run the rounds, each in another order."""
    measured, shuffled, groups = [], random.Random(1), groups_of(ports)
    for port in ports.values():
        load(port, 1)
    for _ in range(rounds):
        shuffled.shuffle(groups)
        order = [variant for group in groups for variant in shuffled.sample(group, len(group))]
        found = {variant: load(ports[variant], seconds) for variant in order}
        measured.append(Round({variant: rate for variant, (rate, _) in found.items()}, {v: bad for v, (_, bad) in found.items()}))
    return measured


# -- the report ------------------------------------------------------------------------------------------------------


def ratio(rounds: Sequence[Round], one: Variant, other: Variant) -> float:
    return median(found.rates[one] / found.rates[other] for found in rounds)


def rate(rounds: Sequence[Round], variant: Variant) -> float:
    return median(found.rates[variant] for found in rounds)


def rows(rounds: Sequence[Round], seconds: int) -> Iterator[str]:
    """Yield the lines of the table."""
    heading = f"requests a second, 10 kB, {CONNECTIONS} connections, {len(rounds)} rounds of {seconds} s"
    columns = "raw callable | raw, fields of a hit | empty view | gateway hit | ÷ raw | ÷ same fields | ÷ empty view | errors"
    yield f"| {heading} | {columns} |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    for server in NEEDED:
        if (server, HIT) not in rounds[0].rates:
            yield f"| {server} | not installed | | | | | | | |"
            continue
        each = " | ".join(f"{rate(rounds, (server, app)):,.0f}" for app in APPS)
        against = " | ".join(f"{ratio(rounds, (server, HIT), (server, other)):.2f}" for other in (RAW, SAME, EMPTY))
        errors = sum(found.errors[server, app] for found in rounds for app in APPS)
        yield f"| {server} | {each} | {against} | {errors} |"
    for front in (NGINX, VARNISH):
        is_there = (front, HIT) in rounds[0].rates
        hits = f"{rate(rounds, (front, HIT)):,.0f}" if is_there else "not installed"
        yield f"| {front} | | | | {hits} | | | | {sum(found.errors[front, HIT] for found in rounds) if is_there else ''} |"


def verdicts(rounds: Sequence[Round]) -> Iterator[str]:
    """Yield the results for the targets."""
    yield "| target | at least | measured | |"
    yield "|---|---:|---:|---|"
    known = rounds[0].rates
    pairs = {f"{server}: gateway hit ÷ raw callable": ((server, HIT), (server, RAW), least) for server, least in TARGETS.items()}
    pairs[f"{GRANIAN}: gateway hit ÷ {NGINX} hit"] = ((GRANIAN, HIT), (NGINX, HIT), AGAINST_NGINX)
    pairs[f"{GRANIAN}: gateway hit ÷ {VARNISH} hit"] = ((GRANIAN, HIT), (VARNISH, HIT), 0.0)
    for name, (one, other, least) in pairs.items():
        if one not in known or other not in known:
            yield f"| {name} | {least or ''} | not installed | |"
            continue
        value = ratio(rounds, one, other)
        verdict = "" if not least else "reached" if value >= least else "NOT REACHED"
        yield f"| {name} | {least or ''} | {value:.2f} | {verdict} |"


def report(rounds: int, seconds: int) -> Iterator[str]:
    """Measure, and yield the lines of the result."""
    if program_of("wrk") is None:
        yield "Over the wire: wrk is not installed; `--install` lets apt-get install it."
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, ExitStack() as stack:
        ports = start_all(stack, Path(name))
        check(ports)
        measured = measure(ports, rounds, seconds)
    yield from rows(measured, seconds)
    yield ""
    yield from verdicts(measured)
