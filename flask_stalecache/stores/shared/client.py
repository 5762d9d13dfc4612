"""The client of the server: the only module that uses redis-py and valkey-py.

The client is made at first use in each process, so that a fork shares no connection. After a failure, no process of the host asks
the server again until it is known to be back: visitors wait only once for an outage.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from hashlib import sha1
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit
from weakref import finalize

from ...core.addressing.server_url import ServerUrl
from ...core.exhaustive import assert_never
from ...core.formatting import printable
from ...errors import ConfigError
from ...filesystem.process import ProcessId, this_process
from .errors_of import Refused, ServerErrorKind, Unavailable, is_no_script, sort
from .known import Known

T = TypeVar("T")

logger = logging.getLogger("flask_stalecache")

#: URL schemes, and the libraries that support each of them, in the order of preference.
SCHEMES = {
    "redis": ("redis", "valkey"),
    "rediss": ("redis", "valkey"),
    "unix": ("redis", "valkey"),
    "valkey": ("valkey", "redis"),
    "valkeys": ("valkey", "redis"),
}
#: Seconds that are added to the timeout of the connection for commands that wait at the server.
WAITING = 1.5
#: Seconds between two log lines about a problem of the same kind.
_PAUSE = 60.0


class SharedClient:
    """Runs scripts at a server.

    :param source: its URL, or a callable that returns a client of redis-py or valkey-py.
    :param known: what this host knows of the server.
    :param timeout: seconds for one try. Default 1.
    :param patience: seconds for all tries at a server that is slow. Default 5.
    """

    def __init__(self, source: str | Callable[[], Any], known: Known, *, timeout: float = 1.0, patience: float = 5.0) -> None:
        if isinstance(source, str):
            ServerUrl.of("client", source)
        self._source = source
        self._known = known
        self.timeout = timeout
        self.patience = max(patience, timeout)
        self._clients: dict[tuple[ProcessId, bool], Any] = {}
        self._complained: dict[str, float] = {}
        self.where = named(source)
        if isinstance(source, str):
            # An app that is dropped, for instance in a test, must not leave connections open. Where several objects are collected
            # together, __del__ may run too late.
            finalize(self, _close, self._clients).atexit = False

    def run(
        self, script: str, keys: Sequence[str], args: Sequence[str | bytes | int | float], *, patience: float | None = None
    ) -> Any:
        """Run a script, and return its answer.

        :param patience: seconds for all tries. Default: those of the client.
        :raises Unavailable: if the server can't be used.
        :raises Refused: if its memory is full.
        """
        until = time.monotonic() + (self.patience if patience is None else patience)
        has_reconnected = False
        while True:
            try:
                return self._run(script, keys, args)
            except Exception as error:
                found = sort(error)
                if found is None:
                    raise
                trouble, what = found
                if trouble is ServerErrorKind.CUT and not has_reconnected:
                    # The server, or a device on the way to it, may have closed an idle connection.
                    has_reconnected = True
                    continue
                if trouble is ServerErrorKind.SLOW and self._known.is_heard and time.monotonic() + self.timeout <= until:
                    continue
                self._give_up(trouble, what, error)

    def _run(self, script: str, keys: Sequence[str], args: Sequence[str | bytes | int | float]) -> Any:
        client = self._connected()
        try:
            return client.evalsha(_sha(script), len(keys), *keys, *args)
        except Exception as error:
            if not is_no_script(error):
                raise
        return client.eval(script, len(keys), *keys, *args)

    def command(self, *words: str | int) -> Any:
        """Send a command that may wait at the server, over a separate connection, and return its answer.

        :raises Unavailable: if the server can't be used.
        """
        return self._asked(lambda: self._connected(waits=True).execute_command(*words))

    def _asked(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except Exception as error:
            found = sort(error)
            if found is None:
                raise
            return self._give_up(*found, error)

    def _give_up(self, trouble: ServerErrorKind, what: str, error: Exception) -> NoReturn:
        match trouble:
            case ServerErrorKind.REFUSED:
                self._complain("refused", "%s refuses to store: %s (%s)", self.where, what, error)
                raise Refused(f"{self.where}: {what}") from error
            case ServerErrorKind.WRONG:
                self._complain("wrong", "%s: %s (%s)", self.where, what, error)
            case ServerErrorKind.SLOW if self._known.is_heard:
                self._complain("slow", "%s is slow: %s (%s)", self.where, what, error)
            case ServerErrorKind.SLOW | ServerErrorKind.CUT | ServerErrorKind.DOWN:
                if self._known.note_down():
                    logger.warning(
                        "%s can't be used: %s (%s); until it is back, this host goes on alone: hits and stale pages are served as "
                        "before, and each host calls the origins itself",
                        self.where, what, printable(str(error)),
                    )  # fmt: skip
            case _:
                assert_never(trouble)
        raise Unavailable(f"{self.where}: {what}") from error

    def _complain(self, about: str, message: str, *args: object) -> None:
        now, last = time.monotonic(), self._complained.get(about)
        if last is None or now - last >= _PAUSE:
            self._complained[about] = now
            logger.warning(message, *args)

    def scan(self, prefix: str) -> Iterator[str]:
        """Yield all keys that begin with a prefix, without that prefix. A key may be yielded twice.

        :raises Unavailable: if the server can't be used.
        """
        keys = iter(self._connected().scan_iter(match=f"{_escaped(prefix)}*", count=1000))
        while (key := self._asked(lambda: next(keys, None))) is not None:
            yield key[len(prefix) :].decode("ascii", "replace")

    # -- the connection ----------------------------------------------------------------------------------------------

    def _connected(self, *, waits: bool = False) -> Any:
        """Return the client of this process. Making it does not connect.

        :param waits: return the client for commands that may wait at the server.
        """
        mine = this_process(), waits
        client = self._clients.get(mine)
        if client is None:
            # The clients that ancestors of this process have made belong to them, and so do the connections.
            client = self._clients.setdefault(mine, self._made(self.timeout + (WAITING if waits else 0)))
        return client

    def check(self) -> None:
        """Raise :class:`ConfigError` if the URL can't be used, or no installed library supports it. Does not connect."""
        if isinstance(self._source, str):
            from_url(self._source, self.timeout)

    def _made(self, timeout: float) -> Any:
        try:
            return from_url(self._source, timeout) if isinstance(self._source, str) else self._called(self._source, timeout)
        except Exception as error:
            # Whatever the callable raises, visitors get their pages. It may have taken long, so they wait for it only once.
            self._complain("client", "%s could not be made: %s; this host goes on alone", self.where, error)
            self._known.note_down()
            raise Unavailable(f"{self.where} could not be made: {error}") from error

    def _called(self, source: Callable[[], Any], timeout: float) -> Any:
        client = source()
        for settings in settings_of(client):
            if settings.get("decode_responses"):
                raise Unavailable(f"{self.where} returns a client that decodes responses: make it without decode_responses=True")
            # Without a timeout, a server that hangs would block each thread that asks it.
            settings["socket_timeout"] = timeout
            settings["socket_connect_timeout"] = settings.get("socket_connect_timeout") or self.timeout
        library = import_module(type(client).__module__.partition(".")[0])
        if hasattr(client, "set_retry") and (retry := no_retry(library)) is not None:
            client.set_retry(retry)
        return client


def _close(clients: Mapping[tuple[ProcessId, bool], Any]) -> None:
    """Close the connections of this process."""
    for (process, _), client in clients.items():
        if process == this_process():
            with suppress(Exception):
                # A server that has gone is no reason to fail here.
                client.close()


def settings_of(client: Any) -> Iterator[dict[str, Any]]:
    """Yield the connection settings of a client, of all nodes of a cluster, and of the sentinels that the client asks."""
    pool, nodes = getattr(client, "connection_pool", None), getattr(client, "nodes_manager", None)
    sentinels = getattr(getattr(pool, "sentinel_manager", None), "sentinels", ())
    for place in (pool, nodes, *(each.connection_pool for each in sentinels)):
        if isinstance(settings := getattr(place, "connection_kwargs", None), dict):
            yield settings
    if nodes is None:
        return
    for node in client.get_nodes():
        # A node that was asked for the slots of the cluster has a client by now.
        made = getattr(node, "redis_connection", None) or getattr(node, "valkey_connection", None)
        if made is not None:
            made.connection_pool.disconnect()
            yield made.connection_pool.connection_kwargs


def no_retry(library: Any) -> Any:
    """Return the retry policy that makes a library try once; ``None`` if the library has no such policies.

    This client retries by itself, and the library's own retries would multiply the waiting time.
    """
    return library.retry.Retry(library.backoff.NoBackoff(), 0) if hasattr(library, "retry") else None


def from_url(url: str, timeout: float) -> Any:
    """Return a client for the server at a URL.

    :param timeout: seconds for connecting, and for each answer.
    :raises ConfigError: if no installed library supports the URL, or if the URL can't be used.
    """
    scheme = urlsplit(url).scheme
    if scheme not in SCHEMES:
        raise ConfigError(f"{named(url)!r} is no URL of a server: it must begin with one of {', '.join(SCHEMES)}, and ://")
    for name in SCHEMES[scheme]:
        try:
            module = import_module(name)
        except ImportError:
            continue
        client, other = (module.Redis, "valkey") if name == "redis" else (module.Valkey, "redis")
        known = url.replace(other, name, 1) if scheme.startswith(other) else url
        settings = {
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "retry": no_retry(module),
            "decode_responses": False,
        }
        try:
            return client.from_url(known, **settings)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{named(url)!r} can't be used as the URL of a server: {error}") from error
    raise ConfigError(f"{scheme}:// needs redis-py or valkey-py: pip install flask-stalecache[redis]")


def check_installed(url: ServerUrl) -> None:
    """Raise :class:`ConfigError` if neither redis-py nor valkey-py is installed."""
    if not any(map(find_spec, SCHEMES[url.scheme])):
        raise ConfigError(f"{url} needs redis-py or valkey-py: pip install flask-stalecache[redis]")


def named(source: object) -> str:
    """Return the name of a server for messages: its URL without user and password, or the name of the callable."""
    if not isinstance(source, str):
        return f"the client of {getattr(source, '__qualname__', type(source).__name__)}"
    parts = urlsplit(source)
    place = parts.netloc.rpartition("@")[2]
    return printable(f"{parts.scheme}://{place}{parts.path}")


@lru_cache(maxsize=64)
def _sha(script: str) -> str:
    return sha1(script.encode("ascii"), usedforsecurity=False).hexdigest()


def _escaped(pattern: str) -> str:
    return "".join(f"\\{sign}" if sign in "*?[]\\^-" else sign for sign in pattern)
