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
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeVar
from urllib.parse import parse_qs, urlsplit

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
#: Seconds that anything may take before a test gives up on it; far more than anything takes.
PATIENCE = 30.0
#: Seconds that a server may take to stop before it is killed.
STOP_PATIENCE = 20.0

#: What every server runs under; the keys are the kinds that :func:`serving` knows beside ``waitress``.
GUNICORN: Mapping[str, Mapping[str, object]] = {
    "sync": {"worker_class": "sync"},
    "gthread": {"worker_class": "gthread", "threads": 8},
    "preload": {"worker_class": "gthread", "threads": 8, "preload_app": True},
}
KINDS = (*GUNICORN, "waitress")
#: The kinds that keep a connection open for the next request.
KEEP_ALIVE_KINDS = ("gthread", "preload", "waitress")

_READY = re.compile(r"^ready (\d+)$", re.MULTILINE)
_GUNICORN_CONFIG = """\
def post_worker_init(worker):
    print(f"ready {worker.pid}", flush=True)
"""
_WAITRESS = """\
import os, socket, sys
from gunicorn.util import import_app
from waitress import serve
app = import_app(sys.argv[1])
print(f"ready {os.getpid()}", flush=True)
serve(app, sockets=[socket.socket(fileno=int(sys.argv[2]))], threads=int(sys.argv[3]), connection_limit=1000)
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

    :ivar process: gunicorn's arbiter, or waitress itself.
    :ivar port: where it listens on 127.0.0.1.
    :ivar log: the file with what it printed.
    """

    process: subprocess.Popen[bytes]
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
        """The processes that answer requests now: gunicorn's workers, or waitress itself."""
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
            # It leads its own group, so this reaches gunicorn's workers too, and nobody else.
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait(STOP_PATIENCE)

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

    :param kind: one of :data:`KINDS`; ``preload`` is gthread with the app loaded before the fork.
    :param source: the text of the module ``live_app``; or "" if ``app`` names a module that is importable from the project's root.
    :param folder: where the module and the log are written; two servers may share it.
    :param app: the module and what in it is the app, or a call that makes it: ``example_app:create_app()``.
    :param env: environment variables for it, made strings.
    :param workers: processes under gunicorn; waitress is always one.
    :param settings: gunicorn's own, such as ``threads=50``; of these, waitress takes ``threads``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if source:
        (folder / "live_app.py").write_text(source)
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        # Handed over open, so that nobody can take the port in between.
        fd, port = listening.fileno(), listening.getsockname()[1]
        log = folder / f"{kind}-{port}.log"
        if kind == "waitress":
            expected = 1
            command = ["-c", _WAITRESS, app, str(fd), str(settings.get("threads", 8))]
        else:
            expected = workers
            config = folder / f"{kind}-{port}.conf.py"
            config.write_text(_gunicorn_config({**GUNICORN[kind], "workers": workers, "bind": f"fd://{fd}", **settings}))
            command = ["-m", "gunicorn", "-c", str(config), app]
        server = Server(_process(command, folder, log, env or {}, fd), port, log)
    try:
        wait_for(lambda: _is_ready(server, expected), what=f"{kind} is ready")
        yield server
    finally:
        server.stop()


def _gunicorn_config(settings: Mapping[str, object]) -> str:
    # A file rather than options, since gunicorn passes over names that its version lacks, as it may do with the last one.
    known = {"graceful_timeout": 10, "keepalive": 60, "loglevel": "info", "control_socket_disable": True}
    return "".join(f"{name} = {value!r}\n" for name, value in {**known, **settings}.items()) + _GUNICORN_CONFIG


def _process(command: Sequence[str], folder: Path, log: Path, env: Mapping[str, object], fd: int) -> subprocess.Popen[bytes]:
    ours = ("FLASK_", "GUNICORN_", "STALECACHE_DIR")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment |= {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "PYTHONUNBUFFERED": "1", "NO_PROXY": "127.0.0.1"}
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment | {name: str(value) for name, value in env.items()},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(fd,),
            start_new_session=True,
        )


def _is_ready(server: Server, workers: int) -> bool:
    status = server.process.poll()
    assert status is None, f"the server ended with status {status}:\n{server.log_text}"
    return len(_READY.findall(server.log_text)) >= workers


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
    """How the third party behaves."""

    passed: int = 0
    held: float = 0
    fails: bool = False
    text: str = "#"
    calls: int = 0
    open: int = 0
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
        return self._ways.open

    @property
    def questions(self) -> list[dict[str, str]]:
        """The queries of the calls, in their order."""
        with self._changed:
            return list(self._ways.questions)

    def hold(self, after: int = 0) -> None:
        """Keep all calls waiting from now on.

        :param after: so many calls, of all there ever were, still pass.
        """
        self._set(passed=after, held=math.inf)

    def let_new_pass(self) -> None:
        """Keep those waiting that wait, and answer those that come."""
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
            ways.open += 1
            try:
                while ways.passed < number <= ways.held and not self._closing:
                    if _is_gone(caller):
                        return None
                    self._changed.wait(0.02)
                if ways.fails:
                    return 503, "the third party is down"
                return 200, ways.text.replace("#", str(number))
            finally:
                ways.open -= 1

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
