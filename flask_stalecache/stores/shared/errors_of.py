"""Classifies the errors of redis-py and valkey-py. Each library has its own classes, with the same names."""

from __future__ import annotations

from enum import Enum

from ...errors import StoreError


class ServerErrorKind(Enum):
    """The kinds of errors of a server."""

    #: No answer in time: the server may be slow, or gone.
    SLOW = "slow"
    #: The connection was lost, or could not be made.
    CUT = "cut"
    #: The memory is full.
    REFUSED = "refused"
    #: It answers, and can't be used.
    DOWN = "down"
    #: It refuses this command only.
    WRONG = "wrong"


class Unavailable(StoreError):
    """The server can't be used now: this host goes on alone."""


class Refused(StoreError):
    """The server has no memory left."""


_ONE_NODE = "it is one node of a cluster: give RedisStore() a function that returns a RedisCluster"
#: The kind of each error, and a text about it with the remedy, by the name of its class.
_KINDS: dict[str, tuple[ServerErrorKind, str]] = {
    "OutOfMemoryError": (ServerErrorKind.REFUSED, "its memory is full: set maxmemory-policy to volatile-lru, or give it more"),
    "TimeoutError": (ServerErrorKind.SLOW, "it does not answer in time"),
    "AuthenticationError": (ServerErrorKind.DOWN, "it refuses user or password: correct them in the URL"),
    "AuthenticationWrongNumberOfArgsError": (ServerErrorKind.DOWN, "it refuses user or password: correct them in the URL"),
    "AuthorizationError": (ServerErrorKind.DOWN, "it refuses the user"),
    "NoPermissionError": (ServerErrorKind.DOWN, "its user lacks rights: the documentation of several hosts lists them"),
    "BusyLoadingError": (ServerErrorKind.DOWN, "it is loading its data"),
    "ReadOnlyError": (ServerErrorKind.DOWN, "it is a replica, which can't be written: name the primary, or use Sentinel"),
    "MasterDownError": (ServerErrorKind.DOWN, "it is a replica without its primary"),
    "ClusterDownError": (ServerErrorKind.DOWN, "its cluster is down"),
    "AskError": (ServerErrorKind.DOWN, _ONE_NODE),
    "AnotherLayout": (
        ServerErrorKind.DOWN,
        "another version of this package has arranged its data in another way: update all hosts, or give this one a "
        "STALECACHE_SHARED_NAME of its own",
    ),
    "NoSuchDatabase": (ServerErrorKind.DOWN, "it has no such database: correct the number at the end of the URL"),
    "InvalidResponse": (ServerErrorKind.DOWN, "it is no Redis or Valkey: correct host and port in the URL"),
    "MaxConnectionsError": (ServerErrorKind.WRONG, "the client has no connection left: raise max_connections"),
    "ConnectionError": (ServerErrorKind.CUT, "it can't be connected to"),
    "ResponseError": (ServerErrorKind.WRONG, "it refuses a command"),
    "RedisClusterException": (ServerErrorKind.DOWN, "its cluster can't be used"),
    "ValkeyClusterException": (ServerErrorKind.DOWN, "its cluster can't be used"),
    "OSError": (ServerErrorKind.CUT, "it can't be connected to"),
    "RedisError": (ServerErrorKind.DOWN, "it can't be used"),
    "ValkeyError": (ServerErrorKind.DOWN, "it can't be used"),
}
#: Error codes for which not every version of the libraries has a class, and the class that each is treated as.
_ANSWERS = {
    "OOM": "OutOfMemoryError",
    "LOADING": "BusyLoadingError",
    "READONLY": "ReadOnlyError",
    "MASTERDOWN": "MasterDownError",
    "CLUSTERDOWN": "ClusterDownError",
    "NOPERM": "NoPermissionError",
    "NOAUTH": "AuthenticationError",
    "WRONGPASS": "AuthenticationError",
    "NOREPLICAS": "MasterDownError",
    "MISCONF": "ReadOnlyError",
    "LAYOUT": "AnotherLayout",
    "DB": "NoSuchDatabase",
}


def sort(error: Exception) -> tuple[ServerErrorKind, str] | None:
    """Return the kind of an error and a text about it; ``None`` if it is not an error of the server."""
    words = str(error).replace("-", " ").split()
    for name in _names(error):
        kind = _KINDS.get(name)
        if kind is None:
            continue
        if name == "ResponseError":
            # The error of a script contains the error of the command that failed.
            code = next((word for word in words if word in _ANSWERS), None)
            return kind if code is None else _KINDS[_ANSWERS[code]]
        return kind
    return None


def is_no_script(error: Exception) -> bool:
    """Whether the server does not know a script yet."""
    return "NoScriptError" in _names(error) or str(error).startswith("NOSCRIPT")


def _names(error: Exception) -> list[str]:
    return [each.__name__ for each in type(error).__mro__]
