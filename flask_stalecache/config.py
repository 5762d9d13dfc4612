"""The ``STALECACHE_*`` keys: the meaning, default and accepted values of each."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from .core.http.fields import FIELD_VALUE
from .core.http.tags import TAG_FIELDS
from .core.model import checks
from .core.model.base_url import Base
from .core.model.checks import FIELD_NAME
from .core.model.keys import FORWARDED_FIELDS
from .core.model.policy import FAILURE_STATUSES, HOP_BY_HOP, NEVER_VARIED, Windows
from .core.model.query import NamePatterns
from .core.model.recipe import NOBODYS_ADDRESS
from .core.model.server_url import ServerUrl
from .core.rules.status import STATUS_HEADERS
from .errors import ConfigError

PREFIX = "STALECACHE_"
MIB = 1024 * 1024

#: Fields that do not identify a visitor, and fields of conditional and range requests, which the stored copy answers.
DEFAULT_IGNORED_HEADERS = (
    "X-Request-Id",
    "Traceparent",
    "Tracestate",
    "Range",
    "If-Range",
    "If-Match",
    "If-None-Match",
    "If-Modified-Since",
    "If-Unmodified-Since",
)

#: Packages that read something in every request on which no page depends, and what that is.
DEFAULT_IGNORED_READERS = {
    # The fingerprint by which Flask-Login protects the session, which belongs to members: their session cookie tells them apart.
    "flask_login.utils": ("User-Agent", "X-Forwarded-For", "REMOTE_ADDR"),
    "flask_limiter.util": ("X-Forwarded-For", "REMOTE_ADDR"),
    # Attributes of the spans that are sent to a collector.
    "opentelemetry": (
        "Baggage", "User-Agent", "Content-Length", "REMOTE_ADDR", "REMOTE_HOST", "REMOTE_PORT", "SERVER_NAME", "SERVER_PORT",
        "SERVER_PROTOCOL", "QUERY_STRING", "opentelemetry-flask.activation_key", "opentelemetry-flask.reqctx_ref_key",
        "opentelemetry-flask.span_key", "opentelemetry-flask.starttime_key", "opentelemetry-flask.token",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Key:
    """One configuration key.

    :param default: the value if the app does not set the key.
    :param check: converts the given value; raises :class:`ConfigError` if it is not accepted.
    :param help: its meaning and unit.
    """

    default: object
    check: Callable[[str, Any], Any]
    help: str


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{name}={value!r}: give True or False")
    return value


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f"{name}={value!r}: give a whole number, 0 or more")
    return value


def _bytes(name: str, value: object) -> int:
    number = _count(name, value)
    if number == 0:
        raise ConfigError(f"{name}={value!r}: give more than 0 bytes")
    return number


def _optional_bytes(name: str, value: object) -> int | None:
    return None if value is None else _bytes(name, value)


def _positive_seconds(name: str, value: object) -> float:
    number = checks.seconds(name, value)
    if number == 0:
        raise ConfigError(f"{name}={value!r}: give more than 0 seconds")
    return number


def _backoff(name: str, value: object) -> tuple[float, float]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ConfigError(f"{name}={value!r}: give two durations, the first and the longest back-off, such as (2, 300)")
    first, longest = (_positive_seconds(name, item) for item in value)
    if longest < first:
        raise ConfigError(f"{name}={value!r}: the longest back-off is shorter than the first")
    return first, longest


def _directory(name: str, value: object) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value) or "\0" in os.fsdecode(os.fspath(value)):
        raise ConfigError(f"{name}={value!r}: give the path of a directory")
    return Path(os.fsdecode(os.fspath(value)))


_STORE_METHODS = (
    "lookup", "load", "moved", "touch", "write", "remove", "write_note", "lock", "seq", "purge", "walk", "usage", "verify",
    "sweep", "check", "tick", "forget",
)  # fmt: skip


_STORES = ("file", "memory")


def store(name: str, value: object) -> Any:
    """Return the name of a kind of store, the URL of a server, or a store; raise :class:`ConfigError` for anything else."""
    if isinstance(value, str) and ":" in value:
        return ServerUrl.of(name, value)
    missing = [method for method in _STORE_METHODS if not callable(getattr(value, method, None))]
    if value not in _STORES and missing:
        raise ConfigError(
            f"{name}={value!r}: give 'file', 'memory', an object with the methods of flask_stalecache.Store, or the URL of a "
            "server that many hosts share, such as 'redis://127.0.0.1:6379/0'"
        )
    return value


def _shared_name(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or _SHARED_NAME.fullmatch(value) is None:
        raise ConfigError(f"{name}={value!r}: give a name of 1 to 100 letters, digits and '_-.:', which all hosts of the app use")
    return value


#: Braces would move its keys to several slots of a cluster, and `*` would find other caches.
_SHARED_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


def _version(name: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{name}={value!r}: give a string or a number that changes with each deploy")
    return str(value)


#: Request fields with a meaning of their own: hop-by-hop fields (RFC 9110 section 7.6.1) and these.
_TAKEN_FIELDS = HOP_BY_HOP | {"host", "cookie", "authorization", "content-type", "content-length"}


def _own_field(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not FIELD_NAME.fullmatch(value):
        raise ConfigError(f"{name}={value!r}: give the name of a request field, such as 'X-Prefer-Stale'")
    if value.lower() in _TAKEN_FIELDS:
        raise ConfigError(f"{name}={value!r} is a field with a meaning of its own: give another name, such as 'X-Prefer-Stale'")
    return value


def _own_cookie(name: str, value: object) -> str | None:
    if value is not None and (not isinstance(value, str) or not FIELD_NAME.fullmatch(value)):
        raise ConfigError(f"{name}={value!r}: give the name of a cookie, such as 'prefer_stale'")
    return value


def _patterns(name: str, value: object) -> NamePatterns:
    return NamePatterns(checks.names(name, value))


def _ignored_names(name: str, value: object) -> frozenset[str]:
    names = frozenset(item.lower() for item in checks.names(name, value))
    if taken := sorted(names & NEVER_VARIED.keys()):
        raise ConfigError(
            f"{name} contains {taken[0]!r}, by which visitors log in, so that their pages would be shared: {NEVER_VARIED[taken[0]]}"
        )
    return names


def _readers(name: str, value: object) -> Mapping[str, frozenset[str]]:
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{name}={value!r}: give a mapping from each package to the fields and variables that it may read, "
            "such as {'tracker': ['User-Agent', 'REMOTE_ADDR']}"
        )
    checks.names(name, value)
    return {package: _ignored_names(f"{name}[{package!r}]", names) for package, names in value.items()}


#: Response fields with a meaning of their own, which are no lists of tags.
_OWN_MEANING = HOP_BY_HOP | {
    "age", "cache-control", "content-encoding", "content-length", "content-range", "content-type", "date", "etag", "expires",
    "last-modified", "location", "set-cookie", "vary",
}  # fmt: skip


def _tag_fields(name: str, value: object) -> frozenset[str]:
    fields = checks.names(name, value)
    for field in fields:
        if FIELD_NAME.fullmatch(field) is None or field.lower() in _OWN_MEANING:
            raise ConfigError(f"{name} contains {field!r}: give response fields that list tags, such as 'Surrogate-Key'")
    return frozenset(field.lower() for field in fields)


#: Fields that a refresh has from the page that it renews, or that would make it another request.
_NOT_CARRIED = _TAKEN_FIELDS | {*FORWARDED_FIELDS, "range"}


def _refresh_headers(name: str, value: object) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name}={value!r}: give a mapping from request fields to values, such as {{'X-Origin-Secret': 'abc'}}")
    for field, text in value.items():
        if not isinstance(field, str) or FIELD_NAME.fullmatch(field) is None:
            raise ConfigError(f"{name} contains {field!r}: give names of request fields, such as 'X-Origin-Secret'")
        if field.lower() in _NOT_CARRIED or field.lower().startswith("if-"):
            raise ConfigError(f"{name} contains {field!r}, which says whose or which page is asked for: give other fields")
        if not isinstance(text, str) or FIELD_VALUE.fullmatch(text) is None:
            # The value may be a secret.
            raise ConfigError(f"the value of {field!r} in {name} can't be sent: give a string of Latin-1 characters on one line")
    return {field.lower(): text for field, text in value.items()}


def _failure_statuses(name: str, value: object) -> frozenset[int]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise ConfigError(f"{name}={value!r}: give a sequence of statuses, such as (404, 429, 500, 502, 503, 504)")
    chosen = tuple(value)
    for status in chosen:
        if isinstance(status, bool) or not isinstance(status, int) or not 400 <= status <= 599:
            raise ConfigError(f"{name} contains {status!r}: give HTTP statuses from 400 to 599")
    return frozenset(chosen)


def _status_headers(name: str, value: object) -> frozenset[str]:
    known = {header.lower(): header for header in STATUS_HEADERS}
    chosen = checks.names(name, value)
    for header in chosen:
        if header.lower() not in known:
            raise ConfigError(f"{name} contains {header!r}: give names out of {', '.join(STATUS_HEADERS)}, or () for none")
    return frozenset(known[header.lower()] for header in chosen)


def _address(name: str, value: object) -> str:
    try:
        return str(ip_address(value)) if isinstance(value, str) else str(ip_address(""))
    except ValueError:
        raise ConfigError(f"{name}={value!r}: give an IP address, such as '192.0.2.1'") from None


def _base_url(name: str, value: object) -> Base | None:
    return None if value is None else Base.of(name, value)


def _gateway(name: str, value: object) -> Any:
    if isinstance(value, bool) or (isinstance(value, (Mapping, list, tuple)) and value):
        return value
    raise ConfigError(f"{name}={value!r}: give True, False, or rules such as {{'/news/*': Policy(max_age=60)}}")


def _opener(name: str, value: object) -> Any:
    if value is None or callable(value):
        return value
    raise ConfigError(
        f"{name}={value!r}: give a function of an app and a request that returns the session, such as "
        "app.session_interface.open_session"
    )


KEYS: Mapping[str, Key] = {
    "DIR": Key(
        None, _directory, "The cache directory. Default: `stalecache` in the instance folder; under TESTING, a temporary one."
    ),
    "ALLOW_NETWORK_DIR": Key(False, _flag, "Accept a cache directory on a network file system, which only this host may use."),
    "STORE": Key("file", store, "`file`, `memory`, the URL of a Redis or Valkey server that many hosts share, or a Store."),
    "SHARED_NAME": Key(None, _shared_name, "The name of the cache at the server: the same on all hosts. Default: the app's name."),
    "SHARED_TIMEOUT": Key(1, _positive_seconds, "Seconds for one try at the server; five times as long if nothing is stored here."),
    "SHARED_LEASE": Key(15, _positive_seconds, "Seconds after which the lock of a host ends that has died."),
    "SHARED_ENTRY_SIZE": Key(MIB, _bytes, "The largest body that hosts share, in bytes; each host makes larger ones for itself."),
    "SHARED_PURGE_WAIT": Key(0.25, checks.seconds, "Seconds that a purge waits for the other hosts to hear of it; 0: not at all."),
    "ENABLED": Key(True, _flag, "False: decorated views and fetch functions run as if they were not decorated."),
    "MAX_AGE": Key(60, checks.seconds, "Seconds of freshness if neither the code nor the response gives them."),
    "STALE_WHILE_REVALIDATE": Key(600, checks.seconds, "Seconds of stale-while-revalidate if nothing else gives them."),
    "STALE_IF_ERROR": Key(86400, checks.seconds, "Seconds of stale-if-error if nothing else gives them."),
    "INACTIVE": Key(86400, _positive_seconds, "Seconds that an entry past its stale windows is kept if it is not used."),
    "MAX_SIZE": Key(100 * MIB, _optional_bytes, "Disk space for entries, in bytes; the least used are evicted. None: no limit."),
    "MIN_FREE": Key(0, _count, "Bytes that stay free on the disk: entries are evicted to keep them free."),
    "MAX_ENTRY_SIZE": Key(8 * MIB, _count, "The largest body that is stored, in bytes. Default: MAX_SIZE, if that is less."),
    "MEMORY_SIZE": Key(32 * MIB, _count, "Bytes of entries that a process keeps in memory; 0 for none."),
    "MIN_USES_WITHIN": Key(600, _positive_seconds, "Seconds within which the requests count that `min_uses=` asks for."),
    "LOCK_TIMEOUT": Key(60, checks.seconds, "Seconds that a request waits for another request's call of the origin."),
    "REFRESH_WORKERS": Key(4, _count, "Refresh threads of a process; 0: refreshes run when the response is closed."),
    "REFRESH_QUEUE": Key(1000, _count, "Refreshes that can wait for a thread; further ones are dropped."),
    "REFRESH_BACKOFF": Key((2, 300), _backoff, "Seconds between failed refreshes: the first and the longest pause."),
    "REFRESH_DEADLINE": Key(120, _positive_seconds, "Seconds after which a refresh counts as failed and its lock is released."),
    "REFRESH_REMOTE_ADDR": Key(
        NOBODYS_ADDRESS, _address, "The REMOTE_ADDR of refreshes and of requests that warm: an address that is nobody's."
    ),
    "FAILURE_STATUSES": Key(
        tuple(sorted(FAILURE_STATUSES)), _failure_statuses, "Statuses that mean that a view, or the app behind a gateway, failed."
    ),
    "REFRESH_HEADERS": Key({}, _refresh_headers, "Request fields that refreshes carry, and their values."),
    "VERSION": Key(
        None, _version, "The app's version: a new one makes older entries stale. Default with app.debug: the start time."
    ),
    "DEBUG_ERRORS": Key(True, _flag, "With app.debug, show the errors of views instead of their stale pages."),
    "PREFER_STALE": Key(False, _flag, "Serve stored entries however old they are, unless the view decides otherwise."),
    "PREFER_STALE_HEADER": Key(None, _own_field, "A request field by which a visitor prefers stale; `0` and empty don't count."),
    "PREFER_STALE_COOKIE": Key(None, _own_cookie, "A cookie by which a visitor prefers stale; `0` and empty don't count."),
    "PREFER_STALE_REFRESH": Key(True, _flag, "Whether entries that are served because stale is preferred are refreshed."),
    "SHUTDOWN_WAIT": Key(1, checks.seconds, "Seconds that a worker that stops waits for its running refreshes."),
    "IGNORED_PARAMETERS": Key((), _patterns, "Query parameters, or patterns such as `utm_*`, that are left out of all keys."),
    "IGNORED_HEADERS": Key(
        DEFAULT_IGNORED_HEADERS, _ignored_names, "Request fields that views may read without the page depending on them."
    ),
    "IGNORED_READERS": Key(
        DEFAULT_IGNORED_READERS,
        _readers,
        "Packages, and the request fields and variables that each may read without the page depending on them.",
    ),
    "BASE_URL": Key(None, _base_url, "The base URL of the app, as its server sees it, for warming. Default: from SERVER_NAME."),
    "GATEWAY": Key(
        False, _gateway, "True: cache in front of the whole app, as responses allow; or rules for responses without cache fields."
    ),
    "SESSION_OPENER": Key(
        None,
        _opener,
        "A function of an app and a request that opens a session of an interface other than Flask's, and does nothing else: such "
        "sessions are then observed by key.",
    ),
    "HONOR_REQUEST_CACHE_CONTROL": Key(
        False, _flag, "Whether the gateway obeys Cache-Control of requests, so that a reload reaches the app."
    ),
    "CREDENTIALS_NEED_PUBLIC": Key(
        True,
        _flag,
        "GatewayCache: whether an answer to a request with Cookie, or another field that says who asks, is stored only if it says "
        "`public` or `s-maxage`.",
    ),
    "TAG_FIELDS": Key(TAG_FIELDS, _tag_fields, "Response fields from which the gateway takes tags."),
    "SEND_TAG_FIELDS": Key(True, _flag, "Whether the gateway sends the fields of TAG_FIELDS on, to a CDN in front of it."),
    "STATUS_HEADERS": Key(STATUS_HEADERS, _status_headers, "Which of `Cache-Status` and `X-Cache-Status` are sent."),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """The checked configuration of one app; one field for each key of :data:`KEYS`, in lower case."""

    dir: Path | None
    allow_network_dir: bool
    store: Any
    shared_name: str | None
    shared_timeout: float
    shared_lease: float
    shared_entry_size: int
    shared_purge_wait: float
    enabled: bool
    max_age: float
    stale_while_revalidate: float
    stale_if_error: float
    inactive: float
    max_size: int | None
    min_free: int
    max_entry_size: int
    memory_size: int
    min_uses_within: float
    lock_timeout: float
    refresh_workers: int
    refresh_queue: int
    refresh_backoff: tuple[float, float]
    refresh_deadline: float
    refresh_remote_addr: str
    failure_statuses: frozenset[int]
    refresh_headers: Mapping[str, str]
    version: str | None
    prefer_stale: bool
    prefer_stale_header: str | None
    prefer_stale_cookie: str | None
    prefer_stale_refresh: bool
    debug_errors: bool
    shutdown_wait: float
    ignored_parameters: NamePatterns
    ignored_headers: frozenset[str]
    ignored_readers: Mapping[str, frozenset[str]]
    base_url: Base | None
    gateway: Any
    session_opener: Any
    honor_request_cache_control: bool
    credentials_need_public: bool
    tag_fields: frozenset[str]
    send_tag_fields: bool
    status_headers: frozenset[str]

    @property
    def windows(self) -> Windows:
        """The windows of views that set none."""
        return Windows(self.max_age, self.stale_while_revalidate, self.stale_if_error)


def read(config: Mapping[str, Any]) -> Settings:
    """Return the checked settings of an app's configuration.

    :raises ConfigError: for an unknown ``STALECACHE_*`` key, with the nearest known one, or a value that is not accepted.
    """
    for name in config:
        if isinstance(name, str) and name.startswith(PREFIX) and name.removeprefix(PREFIX) not in KEYS:
            raise ConfigError(_unknown(name))
    values = {}
    for short, key in KEYS.items():
        name = PREFIX + short
        values[short.lower()] = key.check(name, config.get(name, key.default))
    _check_limits(config, values)
    return Settings(**values)


#: Keys that set up the file store. A custom store takes such settings as parameters.
_OF_THE_FILE_STORE = ("DIR", "ALLOW_NETWORK_DIR", "MEMORY_SIZE", "INACTIVE", "MAX_SIZE", "MIN_FREE")


def check_own_store(config: Mapping[str, Any]) -> None:
    """Raise :class:`ConfigError` if a key is set that has no effect on a custom store."""
    for short in _OF_THE_FILE_STORE:
        if config.get(PREFIX + short) is not None:
            raise ConfigError(
                f"{PREFIX}{short} has no effect with a store of your own: give {short.lower().replace('dir', 'directory')}= "
                "to FileStore, and leave the key out"
            )


def check_not_shared(config: Mapping[str, Any]) -> None:
    """Raise :class:`ConfigError` if a key is set that has no effect without a server that hosts share."""
    for short in KEYS:
        if short.startswith("SHARED_") and config.get(PREFIX + short) is not None:
            raise ConfigError(
                f"{PREFIX}{short} has no effect without a server: set {PREFIX}STORE to its URL, or give "
                f"{short.removeprefix('SHARED_').lower()}= to RedisStore"
            )


def check_memory(config: Mapping[str, Any]) -> None:
    """Raise :class:`ConfigError` if a key is set that has no effect on a store in memory."""
    for short, advice in _NOT_OF_MEMORY.items():
        if config.get(PREFIX + short) is not None:
            raise ConfigError(f"{PREFIX}{short} has no effect with {PREFIX}STORE='memory': {advice}")


_NOT_OF_MEMORY = {
    "DIR": "leave one of the two out",
    "ALLOW_NETWORK_DIR": "leave it out",
    "MIN_FREE": "leave it out",
    "MEMORY_SIZE": f"give the limit of the entries in each process as {PREFIX}MAX_SIZE",
}


def check_observed(config: Mapping[str, Any]) -> None:
    """Raise :class:`ConfigError` if a key is set that has no effect on an app whose reads are observed."""
    name = PREFIX + "CREDENTIALS_NEED_PUBLIC"
    if name in config:
        raise ConfigError(
            f"{name}={config[name]!r} has no effect on a Flask app, whose reads of cookies and fields are observed: leave it out"
        )


def _check_limits(config: Mapping[str, Any], values: dict[str, Any]) -> None:
    limit = values["max_size"]
    if limit is None or values["max_entry_size"] <= limit:
        return
    if PREFIX + "MAX_ENTRY_SIZE" in config:
        raise ConfigError(
            f"{PREFIX}MAX_ENTRY_SIZE={values['max_entry_size']} is over {PREFIX}MAX_SIZE={limit}: lower the one or raise the other"
        )
    values["max_entry_size"] = limit


def _unknown(name: str) -> str:
    nearest = get_close_matches(name, [PREFIX + short for short in KEYS], n=1, cutoff=0)
    return f"{name} is not a configuration key of flask_stalecache; the nearest is {nearest[0]}"
