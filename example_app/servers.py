"""Starts the third party, the news site and Valkey as processes of their own, and stops them by their ids."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_urlsafe
from typing import TypeVar

from example_app.gunicorn_conf import READY, workers
from example_app.stopping import ServerFailed, held_back

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
START_LIMIT = 30
STOP_LIMIT = 10


@dataclass(frozen=True, slots=True)
class Server:
    """A running server, its URL, and the file with its output."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def check(self) -> None:
        """Check that it still runs.

        :raises ServerFailed: when it has ended, with the end of its output.
        """
        if self.process.poll() is not None:
            raise ServerFailed(f"{self.log.stem} ended with status {self.process.returncode}:\n{tail(self.log)}")


@contextmanager
def third_party(sleep: float, folder: Path) -> Iterator[Server]:
    """Run the third party on a free port.

    :param sleep: seconds that a call takes.
    :param folder: where its log is written.
    """
    command = ["-m", "example_app.third_party", "--port", "0", "--sleep", str(sleep)]
    with process([sys.executable, *command], folder / "third_party.log") as starting:
        url = until(lambda: starting.log.read_text().partition("\n")[0], starting)
        yield Server(starting.process, url, starting.log)


@contextmanager
def news_site(settings: Mapping[str, object], folder: Path) -> Iterator[Server]:
    """Run the news site under gunicorn on a free port.

    :param settings: its settings, without the prefix ``NEWS_``.
    :param folder: where its log, the cache and what editors publish are written.
    """
    secret = f"demo-{token_urlsafe()}"
    settings = {"STALECACHE_DIR": folder / "cache", "ARTICLES_DIR": folder / "articles", "SECRET_KEY": secret, **settings}
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # Passed on as an open socket, so that no other process can take the port.
        fd = listening.fileno()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        command = [sys.executable, "-m", "gunicorn", "-c", "python:example_app.gunicorn_conf", "-b", f"fd://{fd}"]
        with process([*command, "example_app:create_app()"], folder / "news_site.log", settings, (fd,), url) as server:
            # Closed here, so that requests do not wait in its queue after gunicorn has ended.
            listening.close()
            until(lambda: server.log.read_text().count(READY) == workers, server)
            yield server


@contextmanager
def worker(settings: Mapping[str, object], folder: Path) -> Iterator[Server]:
    """Run the worker of the cache for the news site.

    :param settings: those of the site, with its directory.
    :param folder: where its log is written.
    """
    command = [sys.executable, "-m", "flask", "--app", "example_app", "stalecache", "worker"]
    with process(command, folder / "worker.log", settings) as started:
        until(lambda: any(path.is_socket() for path in Path(str(settings["STALECACHE_DIR"])).rglob("*")), started)
        yield started


def tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


@contextmanager
def process(
    command: Sequence[str],
    log: Path,
    settings: Mapping[str, object] | None = None,
    fds: Sequence[int] = (),
    url: str = "",
) -> Iterator[Server]:
    """Run a command as a server, and stop it at the end.

    :param command: the program and its arguments.
    :param log: the file of its output, which is added to.
    :param settings: settings of the site, without the prefix ``NEWS_``.
    :param fds: descriptors that it inherits.
    :param url: the URL that it will have.
    """
    with ExitStack() as stack:
        # A signal must not come between the start of a process and the registration of its stop.
        with log.open("ab") as output, held_back():
            started = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment(settings or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=fds,
                # A new session, so that Ctrl-C reaches only the demo, which stops its servers in order.
                start_new_session=True,
            )
            stack.callback(_stop, started)
        yield Server(started, url, log)


def environment(settings: Mapping[str, object]) -> dict[str, str]:
    """Return this process's environment, without variables that would change the demo, plus the site's settings."""
    ours = ("NEWS_", "FLASK_", "GUNICORN_")
    others = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return others | {"NO_PROXY": "127.0.0.1"} | {f"NEWS_{name}": str(value) for name, value in settings.items()}


def _stop(running: subprocess.Popen[bytes]) -> None:
    running.terminate()
    try:
        running.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        # It leads its own process group, so this reaches gunicorn's workers too, and no other process.
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def until(condition: Callable[[], T], server: Server) -> T:
    """Wait until the condition is true, and return what it returned.

    :raises ServerFailed: when the server ends, or the condition is not true within :data:`START_LIMIT` seconds.
    """
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        server.check()
        if value := condition():
            return value
        time.sleep(0.05)
    raise ServerFailed(f"{server.log.stem} was not there within {START_LIMIT} seconds:\n{tail(server.log)}")
