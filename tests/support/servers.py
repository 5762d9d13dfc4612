"""Real servers for tests: an app in a subprocess, visitors who talk to it over sockets, and a third party that a test holds still.

::

    with Gate() as gate, serving("gthread", SOURCE, tmp_path, env={"GATE": gate.url}) as server:
        gate.hold()
        ...
        wait_for(lambda: gate.open == 1)
        gate.release()
"""

from __future__ import annotations

import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeVar
from urllib.parse import parse_qs, urlsplit

import pytest

from support import prepared
from support.endurance import IS_SOAK
from support.prepared import PreparedProcess

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
#: Seconds that anything may take before a test gives up on it; far more than anything takes.
PATIENCE = 30.0
#: Seconds that a server may take to stop before it is killed.
STOP_PATIENCE = 20.0

#: What gunicorn runs under for each kind that :func:`serving` knows.
GUNICORN: Mapping[str, Mapping[str, object]] = {
    "sync": {"worker_class": "sync"},
    "gthread": {"worker_class": "gthread", "threads": 8},
    "preload": {"worker_class": "gthread", "threads": 8, "preload_app": True},
    "gevent": {"worker_class": "gevent"},
    "gevent-preload": {"worker_class": "gevent", "preload_app": True},
}
#: What uWSGI runs under; the app is loaded before the fork, unless ``lazy-apps`` says otherwise.
UWSGI: Mapping[str, Sequence[str]] = {
    "uwsgi": ("--enable-threads",),
    "uwsgi-fork-hooks": ("--enable-threads", "--py-call-uwsgi-fork-hooks"),
    "uwsgi-lazy": ("--enable-threads", "--lazy-apps"),
    "uwsgi-unasked": (),
    "uwsgi-threadless": (),
}
#: The kinds that every test of tests/live/test_pages.py runs on. An app that is loaded before the fork has tests of its own.
KINDS = ("sync", "gthread", "waitress", *([pytest.param("preload", marks=pytest.mark.soak)] if IS_SOAK else []))
#: The kinds that start as forks of a process with all imports done. The others patch the standard library, or are not in Python.
#: ``tests/project/test_docs.py`` starts every kind anew.
PREPARED = ("sync", "gthread", "preload", "waitress")
#: The kinds of tests/live/test_servers.py; ``reloader`` is Flask's development server.
MORE_KINDS = ("gevent", "gevent-preload", "uwsgi", "uwsgi-lazy", "granian", "reloader")

# Each process says it in one write: print() makes two, text and end of line, and those of two workers may mix.
_READY = re.compile(r"ready (\d+)\n")
_GUNICORN_CONFIG = """\
import os

def post_worker_init(worker):
    os.write(1, b"ready %d\\n" % worker.pid)
"""
_WAITRESS = """\
import os, socket, sys
from gunicorn.util import import_app
from waitress import serve
app = import_app(sys.argv[1])
os.write(1, b"ready %d\\n" % os.getpid())
serve(app, sockets=[socket.socket(fileno=int(sys.argv[2]))], threads=int(sys.argv[3]), connection_limit=1000)
"""
_UWSGI = "import sys, pyuwsgi; pyuwsgi.run(sys.argv[1:])"
#: The module that uWSGI, granian and the development server load: it says which processes are going to answer requests.
_ENTRY = """\
import os
from gunicorn.util import import_app

kind = os.environ["SERVED_BY"]
if kind == "uwsgi-threadless":
    import uwsgi

    # From 2.0.27 on it says yes, and runs them, whatever its options are.
    uwsgi.has_threads = 0
app = import_app(os.environ["SERVED_APP"])


def ready():
    os.write(1, b"ready %d\\n" % os.getpid())


if kind.startswith("uwsgi"):
    import uwsgi

    if uwsgi.worker_id():
        ready()
    else:
        uwsgi.post_fork_hook = ready
elif kind != "reloader" or "WERKZEUG_RUN_MAIN" in os.environ:
    ready()
"""


# -- waiting ---------------------------------------------------------------------------------------------------------


def wait_for(condition: Callable[[], T], seconds: float = PATIENCE, what: str = "") -> T:
    """Wait until a condition is true, and return what it returned.

    :param seconds: how long at most; then it is an AssertionError.
    :param what: what is waited for, for the message.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what or condition}"
        time.sleep(0.01)
    return value


# -- servers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Server:
    """A running server.

    :ivar process: gunicorn's arbiter, uWSGI's or granian's master, the reloader's parent, or waitress itself.
    :ivar port: where it listens on 127.0.0.1.
    :ivar log: the file with what it printed.
    """

    process: subprocess.Popen[bytes] | PreparedProcess
    port: int
    log: Path

    @property
    def url(self) -> str:
        """Its URL, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def worker_pids(self) -> list[int]:
        """The processes that answer requests now: the workers, the reloader's child, or waitress itself."""
        return [pid for pid in map(int, _READY.findall(self.log_text)) if is_alive(pid)]

    @property
    def log_text(self) -> str:
        """What it printed so far."""
        return self.log.read_text(errors="replace")

    def stop(self) -> int:
        """Stop it with SIGTERM, after a while with SIGKILL, and return its exit status. Harmless if it has ended."""
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                return self.process.wait(STOP_PATIENCE)
            # It leads its own group, so this reaches its workers too, and nobody else.
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait(STOP_PATIENCE)

    def listens(self) -> bool:
        """Whether it takes connections."""
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.port)) == 0

    def get(self, path: str = "/", headers: Mapping[str, str] | None = None) -> Answer:
        """Ask for a path on a connection of its own."""
        with Visitor(self) as visitor:
            return visitor.get(path, headers)

    def get_at_once(self, count: int, path: str = "/", headers: Mapping[str, str] | None = None) -> list[Answer]:
        """Ask for a path many times at once, each on a connection of its own, and return all answers."""
        with crowd(self, count, path, headers) as asked:
            return [future.result(PATIENCE) for future in asked]


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and was not waited for does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc/self").exists()


@contextmanager
def serving(
    kind: str,
    source: str,
    folder: Path,
    *,
    app: str = "live_app:app",
    env: Mapping[str, object] | None = None,
    workers: int = 2,
    **settings: object,
) -> Iterator[Server]:
    """Run an app, wait until it answers, and stop it at the end.

    :param kind: one of :data:`KINDS` or :data:`MORE_KINDS`; ``preload`` is gthread with the app loaded before the fork.
    :param source: the text of the module ``live_app``; or "" if ``app`` names a module that is importable from the project's root.
    :param folder: where the module and the log are written; two servers may share it.
    :param app: the module and what in it is the app, or a call that makes it: ``example_app:create_app()``.
    :param env: environment variables for it, made strings.
    :param workers: processes under gunicorn, uWSGI and granian; the others are always one.
    :param settings: gunicorn's own, such as ``threads=50``; of these, waitress, uWSGI and granian take ``threads``. For granian,
        ``respawns=True`` replaces workers that are killed, as the others do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if source:
        (folder / "live_app.py").write_text(source)
    (folder / "entry.py").write_text(_ENTRY)
    with ExitStack() as sockets:
        # Held while the server starts, so that nobody can take the port in between.
        held = sockets.enter_context(_reserved_port() if kind in ("granian", "reloader") else _listening_port())
        place = _Place(folder, held.fileno(), held.getsockname()[1])
        log = folder / f"{kind}-{place.port}.log"
        command = _command(kind, app, place, workers, settings)
        server = Server(_process(kind, command, place, log, {"SERVED_APP": app, "SERVED_BY": kind, **(env or {})}), place.port, log)
        expected = 1 if kind in ("waitress", "reloader") else workers
        try:
            wait_for(lambda: _is_ready(server, expected), what=f"{kind} is ready")
            sockets.close()
            yield server
        finally:
            server.stop()


class _Place(NamedTuple):
    """Where a server runs: its folder, the socket that it inherits, and the socket's port."""

    folder: Path
    fd: int
    port: int


def _listening_port() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=256)


def _reserved_port() -> socket.socket:
    """Return a socket that does not listen: it only keeps the port for a server that insists on a socket of its own."""
    reserved = socket.socket()
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        reserved.setsockopt(socket.SOL_SOCKET, option, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


def _command(kind: str, app: str, place: _Place, workers: int, settings: Mapping[str, object]) -> list[str]:
    """Return the arguments for Python that start a server."""
    if kind == "waitress":
        return ["-c", _WAITRESS, app, str(place.fd), str(settings.get("threads", 8))]
    if kind in UWSGI:
        threads = ["--threads", str(settings["threads"])] if "threads" in settings else []
        # Without die-on-term, SIGTERM makes it load the app anew. On a busy machine, a worker with threads misses the signal of its
        # master once in about ten stops: all its threads, which are uWSGI's own, go on in wsgi_req_accept. A WSGI function of three
        # lines shows the same (pyuwsgi 2.0.30). Then the master kills the worker: after a minute, unless it is told otherwise.
        options = ["--master", "--die-on-term", "--need-app", "--processes", str(workers), *UWSGI[kind], *threads]
        options += ["--worker-reload-mercy", "8"]
        return ["-c", _UWSGI, "--http11-socket", f"fd://{place.fd}", *options, "--module", "entry:app"]
    where = ["--host", "127.0.0.1", "--port", str(place.port)]
    if kind == "granian":
        pools = ["--workers", str(workers), "--blocking-threads", str(settings.get("threads", 8))]
        # Otherwise, granian ends if a worker is killed.
        pools += ["--respawn-failed-workers", "--respawn-interval", "0.1"] if settings.get("respawns") else []
        return ["-m", "granian", "--interface", "wsgi", *where, *pools, "entry:app"]
    if kind == "reloader":
        # The reloader watches the app only: somebody may be editing the package.
        return ["-m", "flask", "--app", "entry:app", "run", "--debug", *where, "--exclude-patterns", f"{ROOT}/*"]
    config = place.folder / f"{kind}-{place.port}.conf.py"
    config.write_text(_gunicorn_config({**GUNICORN[kind], "workers": workers, "bind": f"fd://{place.fd}", **settings}))
    return ["-m", "gunicorn", "-c", str(config), app]


def _gunicorn_config(settings: Mapping[str, object]) -> str:
    # A file rather than options: in a file, gunicorn ignores settings that its version does not have, such as the last of these.
    known = {"graceful_timeout": 10, "keepalive": 60, "loglevel": "info", "control_socket_disable": True}
    return "".join(f"{name} = {value!r}\n" for name, value in {**known, **settings}.items()) + _GUNICORN_CONFIG


def _process(
    kind: str, command: Sequence[str], place: _Place, log: Path, env: Mapping[str, object]
) -> subprocess.Popen[bytes] | PreparedProcess:
    everything = environment(place.folder, env)
    with log.open("wb") as output:
        if kind in PREPARED:
            return prepared.start(
                command, prepared.SERVER_MODULES, folder=ROOT, env=everything, output=output, pass_fds=(place.fd,)
            )
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=everything,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(place.fd,),
            start_new_session=True,
        )


def environment(folder: Path, env: Mapping[str, object]) -> dict[str, str]:
    """Return environment variables for a subprocess that imports from the folder and from the project's root.

    :param env: variables of the test's own, made strings.
    """
    ours = ("FLASK_", "GRANIAN_", "GUNICORN_", "STALECACHE_DIR", "UWSGI_", "WERKZEUG_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    inherited |= {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "PYTHONUNBUFFERED": "1", "NO_PROXY": "127.0.0.1"}
    return inherited | {name: str(value) for name, value in env.items()}


def _is_ready(server: Server, workers: int) -> bool:
    status = server.process.poll()
    assert status is None, f"the server ended with status {status}:\n{server.log_text}"
    return len(_READY.findall(server.log_text)) >= workers and server.listens()


# -- visitors --------------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def cache(self) -> str | None:
        """``X-Cache-Status``."""
        return self.headers["X-Cache-Status"]

    @property
    def closes(self) -> bool:
        """Whether the server closes the connection after it."""
        return self.headers.get("Connection", "").lower() == "close"


class Visitor(AbstractContextManager["Visitor"]):
    """One connection, on which one request follows the other. A connection that the server closed is an error, never made anew."""

    def __init__(self, server: Server) -> None:
        self._connection = HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        self._connection.connect()
        # http.client would silently connect again.
        self._connection.auto_open = 0

    def get(self, path: str = "/", headers: Mapping[str, str] | None = None, method: str = "GET") -> Answer:
        """Ask for a path and read the whole answer."""
        self._connection.request(method, path, headers=dict(headers or {}))
        with self._connection.getresponse() as response:
            return Answer(response.status, response.headers, response.read())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._connection.close()


def visitors_of_two_workers(server: Server, stack: ExitStack, path: str, headers: Mapping[str, str]) -> list[Visitor]:
    """Return a visitor of each of two workers. A connection stays with the worker that has accepted it.

    :param stack: closes their connections.
    :param path: what they ask for; its answer has the field ``X-Pid``.
    """
    found: dict[str, Visitor] = {}

    def has_both() -> bool:
        visitor = stack.enter_context(Visitor(server))
        found.setdefault(visitor.get(path, headers).headers["X-Pid"], visitor)
        return len(found) == 2

    # One of them may not have started yet.
    wait_for(has_both, what="a connection to each of two workers")
    return list(found.values())


@contextmanager
def visits(server: Server) -> Iterator[Callable[..., Answer]]:
    """Yield a function that asks the server, on one connection as long as the server keeps it open."""
    with ExitStack() as stack:
        visitors: list[Visitor] = []

        def visit(path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Answer:
            visitor = visitors.pop() if visitors else stack.enter_context(Visitor(server))
            answer = visitor.get(path, headers, method)
            if not answer.closes:
                visitors.append(visitor)
            return answer

        yield visit


@contextmanager
def crowd(server: Server, count: int, path: str = "/", headers: Mapping[str, str] | None = None) -> Iterator[list[Future[Answer]]]:
    """Ask for a path many times at once, each on a connection of its own; yield the futures of the answers."""
    together = threading.Barrier(count)

    def ask() -> Answer:
        with Visitor(server) as visitor:
            together.wait(PATIENCE)
            return visitor.get(path, headers)

    with ThreadPoolExecutor(count, "visitor") as pool:
        yield [pool.submit(ask) for _ in range(count)]


# -- the third party -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Ways:
    """How the third party behaves, and its calls.

    :ivar passed: the calls up to this number are answered.
    :ivar held: of the calls after that, those up to this number wait.
    """

    passed: int = 0
    held: float = 0
    fails: bool = False
    text: str = "#"
    calls: int = 0
    open: list[dict[str, str]] = field(default_factory=list)
    questions: list[dict[str, str]] = field(default_factory=list)


class Gate(AbstractContextManager["Gate"]):
    """A third party in the test's own process: an HTTP server that counts its calls, and answers when and what the test says.

    A call is answered with its own number, 1, 2, 3 …, unless :meth:`answer` gave a text.
    The test's thread and the calls' threads may use it at the same time.
    What comes in the query (``gate.url + "?pid=7"``) is in :attr:`questions`.
    """

    def __init__(self) -> None:
        self._ways = _Ways()
        self._changed = threading.Condition()
        self._closing = False
        self._server = _ThirdParty(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="gate", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it is called."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    @property
    def calls(self) -> int:
        """How many calls have come."""
        return self._ways.calls

    def has_more_calls_than(self, number: int) -> bool:
        """Tell whether more calls than this have come."""
        return self.calls > number

    @property
    def open(self) -> int:
        """How many calls wait for their answer now; a caller that is gone does not."""
        return len(self._ways.open)

    @property
    def open_questions(self) -> list[dict[str, str]]:
        """The queries of the calls that wait for their answer now."""
        with self._changed:
            return list(self._ways.open)

    @property
    def questions(self) -> list[dict[str, str]]:
        """The queries of the calls, in their order."""
        with self._changed:
            return list(self._ways.questions)

    def hold(self, after: int = 0) -> None:
        """Keep all calls waiting from now on.

        :param after: so many calls still pass, counted from the first one ever.
        """
        self._set(passed=after, held=math.inf)

    def let_new_pass(self) -> None:
        """Answer the calls that come from now on, and keep those waiting that have come."""
        self._set(held=self.calls)

    def release(self) -> None:
        """Answer the calls that wait, and all that come."""
        self._set(held=0)

    def fail(self) -> None:
        """Answer 503 from now on."""
        self._set(fails=True)

    def answer(self, text: str = "#") -> None:
        """Answer with this text from now on; a ``#`` in it stands for the number of the call."""
        self._set(fails=False, text=text)

    def _set(self, **ways: object) -> None:
        with self._changed:
            for name, value in ways.items():
                setattr(self._ways, name, value)
            self._changed.notify_all()

    def _called(self, question: dict[str, str], caller: socket.socket) -> tuple[int, str] | None:
        """Return status and text for one call, when the test lets it go; ``None`` if the caller is gone by then."""
        ways = self._ways
        with self._changed:
            ways.calls += 1
            number = ways.calls
            ways.questions.append(question)
            ways.open.append(question)
            try:
                while ways.passed < number <= ways.held and not self._closing:
                    if _is_gone(caller):
                        return None
                    self._changed.wait(0.02)
                if ways.fails:
                    return 503, "the third party is down"
                return 200, ways.text.replace("#", str(number))
            finally:
                ways.open.remove(question)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._closing = True
        self.release()
        self._server.shutdown()
        self._thread.join(PATIENCE)
        self._server.server_close()


class _ThirdParty(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller that was killed is no news."""


def _handler_of(gate: Gate) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            question = {name: values[-1] for name, values in parse_qs(urlsplit(self.path).query).items()}
            answer = gate._called(question, self.connection)
            if answer is None:
                return
            status, text = answer
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Its log is the test's own business."""

    return Handler


def _is_gone(caller: socket.socket) -> bool:
    try:
        return caller.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
