"""The ``STALECACHE_*`` keys: the meaning, default and accepted values of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..core.addressing.base_url import Base
from ..core.addressing.recipe import NOBODYS_ADDRESS
from ..core.http.tags import TAG_FIELDS
from ..core.model import checks
from ..core.model.policy import FAILURE_STATUSES, Windows
from ..core.model.query import NamePatterns
from ..core.rules.status import STATUS_HEADERS
from ..errors import ConfigError
from . import values as accept

PREFIX = "STALECACHE_"
MIB = 1024 * 1024

#: Fields that do not identify a visitor, and fields of conditional and range requests, which the stored page answers.
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

#: Packages that read fields or variables of every request on which no page depends, and the fields and variables that they read.
DEFAULT_IGNORED_READERS = {
    # The fingerprint by which Flask-Login protects the sessions of members, whom their session cookie distinguishes already.
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


KEYS: Mapping[str, Key] = {
    "DIR": Key(
        None, accept.directory, "The cache directory. Default: `stalecache` in the instance folder; under TESTING, a temporary one."
    ),
    "ALLOW_NETWORK_DIR": Key(
        False, accept.flag, "Accept a cache directory on a network file system, which only this host may use."
    ),
    "STORE": Key("file", accept.store, "`file`, `memory`, the URL of a Redis or Valkey server that many hosts share, or a Store."),
    "SHARED_NAME": Key(
        None, accept.shared_name, "The name of the cache at the server: the same on all hosts. Default: the app's name."
    ),
    "SHARED_TIMEOUT": Key(
        1, accept.positive_seconds, "Seconds for one try at the server; five times as long if nothing is stored here."
    ),
    "SHARED_LEASE": Key(15, accept.positive_seconds, "Seconds after which the lock of a host that has died ends."),
    "SHARED_ENTRY_SIZE": Key(
        MIB, accept.size, "The largest body that hosts share, in bytes; each host makes larger ones for itself."
    ),
    "SHARED_PURGE_WAIT": Key(0.25, checks.seconds, "Seconds that a purge waits for the other hosts to hear of it; 0: not at all."),
    "SHARED_MAX_DEAF": Key(
        None, accept.longest_deaf, "Seconds without hearing the server after which a host ends all freshness. None: it does not."
    ),
    "ENABLED": Key(True, accept.flag, "False: decorated views and fetch functions run as if they were not decorated."),
    "MAX_AGE": Key(60, checks.seconds, "Seconds of freshness if neither the code nor the response gives them."),
    "STALE_WHILE_REVALIDATE": Key(600, checks.seconds, "Seconds of stale-while-revalidate if nothing else gives them."),
    "STALE_IF_ERROR": Key(86400, checks.seconds, "Seconds of stale-if-error if nothing else gives them."),
    "INACTIVE": Key(86400, accept.positive_seconds, "Seconds that an entry past its stale windows is kept if it is not used."),
    "MAX_SIZE": Key(
        100 * MIB, accept.optional_size, "Disk space for entries, in bytes; the least used are evicted. None: no limit."
    ),
    "MIN_FREE": Key(0, accept.count, "Bytes that stay free on the disk: entries are evicted to keep them free."),
    "MAX_ENTRY_SIZE": Key(8 * MIB, accept.count, "The largest body that is stored, in bytes. Default: MAX_SIZE, if that is less."),
    "MEMORY_SIZE": Key(32 * MIB, accept.count, "Bytes of entries that a process keeps in memory; 0 for none."),
    "MIN_USES_WITHIN": Key(600, accept.positive_seconds, "Seconds for which a request counts for `min_uses=`."),
    "LOCK_TIMEOUT": Key(60, checks.seconds, "Seconds that a request waits for another request's call of the origin."),
    "REFRESH_WORKERS": Key(4, accept.count, "Refresh threads of a process; 0: refreshes run when the response is closed."),
    "REFRESH_QUEUE": Key(1000, accept.count, "Refreshes that can wait for a thread; further ones are dropped."),
    "REFRESH_BACKOFF": Key((2, 300), accept.backoff, "Seconds between failed refreshes: the first and the longest pause."),
    "REFRESH_DEADLINE": Key(
        120, accept.positive_seconds, "Seconds after which a refresh counts as failed and its lock is released."
    ),
    "REFRESHER": Key(None, accept.refresher, "An object with submit(job), which queues refreshes for other processes."),
    "SWITCH_INTERVAL": Key(
        0.0002, accept.switch_interval, "Python's switch interval while a refresh computes, in seconds; None leaves it unchanged."
    ),
    "REFRESH_REMOTE_ADDR": Key(
        NOBODYS_ADDRESS, accept.address, "The REMOTE_ADDR of refreshes and of warming requests: an address that belongs to nobody."
    ),
    "FAILURE_STATUSES": Key(
        tuple(sorted(FAILURE_STATUSES)),
        accept.failure_statuses,
        "Statuses that mean that a view, or the app behind a gateway, failed.",
    ),
    "REFRESH_HEADERS": Key({}, accept.refresh_headers, "Request fields that refreshes carry, and their values."),
    "VERSION": Key(
        None, accept.version, "The app's version: a new one makes older entries stale. Default with app.debug: the start time."
    ),
    "DEBUG_ERRORS": Key(True, accept.flag, "With app.debug, show the errors of views instead of their stale pages."),
    "PREFER_STALE": Key(False, accept.flag, "Serve stored entries however old they are, unless the view decides otherwise."),
    "PREFER_STALE_HEADER": Key(
        None, accept.own_field, "A request field by which a visitor prefers stale; `0` and empty don't count."
    ),
    "PREFER_STALE_COOKIE": Key(None, accept.own_cookie, "A cookie by which a visitor prefers stale; `0` and empty don't count."),
    "PREFER_STALE_REFRESH": Key(True, accept.flag, "Whether entries that are served because stale is preferred are refreshed."),
    "SHUTDOWN_WAIT": Key(1, checks.seconds, "Seconds that a worker that stops waits for its running refreshes."),
    "IGNORED_PARAMETERS": Key((), accept.patterns, "Query parameters, or patterns such as `utm_*`, that are left out of all keys."),
    "IGNORED_HEADERS": Key(
        DEFAULT_IGNORED_HEADERS, accept.ignored_names, "Request fields that views may read without the page depending on them."
    ),
    "IGNORED_READERS": Key(
        DEFAULT_IGNORED_READERS,
        accept.readers,
        "Packages, and the request fields and variables that each may read without the page depending on them.",
    ),
    "BASE_URL": Key(
        None, accept.base_url, "The base URL of the app, as its server sees it, for warming. Default: from SERVER_NAME."
    ),
    "GATEWAY": Key(
        False,
        accept.gateway,
        "True: cache in front of the whole app, as responses allow; or rules for responses without cache fields.",
    ),
    "SESSION_OPENER": Key(
        None,
        accept.opener,
        "A function of an app and a request that opens a session of an interface other than Flask's, and does nothing else: such "
        "sessions are then observed by key.",
    ),
    "HOLES": Key(
        accept.EXTENSIONS_WITH_HOLES,
        accept.extensions,
        "The extensions whose tokens and nonces are holes of pages, if they are there.",
    ),
    "HOOKS_SET_G": Key(
        (),
        accept.hooks,
        "Hooks before requests that only set values in g: their reads make a page personal only if it reads such a value.",
    ),
    "HONOR_REQUEST_CACHE_CONTROL": Key(
        False, accept.flag, "Whether the gateway obeys Cache-Control of requests, so that a reload reaches the app."
    ),
    "CREDENTIALS_NEED_PUBLIC": Key(
        True,
        accept.flag,
        "GatewayCache: whether an answer to a request with Cookie, or another field that identifies the client, is stored only if "
        "it says `public` or `s-maxage`.",
    ),
    "TAG_FIELDS": Key(TAG_FIELDS, accept.tag_fields, "Response fields from which the gateway takes tags."),
    "SEND_TAG_FIELDS": Key(True, accept.flag, "Whether the gateway sends the fields of TAG_FIELDS on, to a CDN in front of it."),
    "STATUS_HEADERS": Key(STATUS_HEADERS, accept.status_headers, "Which of `Cache-Status` and `X-Cache-Status` are sent."),
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
    shared_max_deaf: float | None
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
    refresher: Any
    switch_interval: float | None
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
    holes: frozenset[str]
    hooks_set_g: frozenset[str]
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
