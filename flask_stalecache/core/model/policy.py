"""The windows and rules of one view or path, checked and immutable. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from types import MappingProxyType
from typing import Any, TypeAlias

from ...errors import ConfigError
from .checks import FIELD_NAME, names, seconds, share, tags
from .query import NamePatterns

Normaliser: TypeAlias = "Callable[[str | None], str | None]"

DEFAULT_STATUSES = (200, 301, 308)
#: The share of freshness by which it is shortened at random, so that pages that were stored together do not expire together.
DEFAULT_JITTER = 0.1
#: Too many requests (RFC 6585 section 4): it is about how often a client sends requests, not about the page.
TOO_MANY = 429
#: Statuses that mean that the origin failed (RFC 5861 section 4), or that it did not try.
FAILURE_STATUSES = frozenset({TOO_MANY, 500, 502, 503, 504})
_NEVER_STORED = frozenset({206, 304})
#: Fields that concern only one connection (RFC 9110 section 7.6.1).
HOP_BY_HOP = frozenset(
    {
        "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
        "proxy-authenticate", "proxy-authentication-info", "proxy-authorization", "proxy-connection",
    }
)  # fmt: skip
#: Fields that can't be in the key, and the advice to developers.
NEVER_VARIED = {
    "cookie": "name those that matter, such as cookies=['lang']",
    "authorization": "requests with Authorization are always served live",
}
#: Keys of the session whose values can't be in a cache key, and why.
NEVER_IN_SESSION = {
    "_flashes": "messages are shown once, so a page that shows one is live",
    "_permanent": "how long a session lasts makes no difference to a page",
    "_fresh": "it is Flask-Login's mark; name a value that the page shows",
    "csrf_token": "it is another one for each visitor; leave the form out of the page, or fetch its token by a request of its own",
}
#: A name of a cookie: a token (RFC 6265 section 4.1.1).
COOKIE_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: Fields that a stored response needs, and what to write instead of unsetting them.
NEVER_UNSET = {
    **dict.fromkeys(("content-length", *HOP_BY_HOP), "it is never stored, but written again for each client"),
    **dict.fromkeys(("age", "date"), "caches further out count the age of the page from it"),
    **dict.fromkeys(("cache-status", "x-cache-status"), "STALECACHE_STATUS_HEADERS says which of our fields are sent"),
    **dict.fromkeys(
        ("content-encoding", "content-range", "content-type"),
        "without it clients can't read the body; send the body in another form instead",
    ),
    **dict.fromkeys(
        ("cache-control", "cdn-cache-control", "expires", "pragma", "stalecache-cache-control"),
        "it says how long the page may be kept; write max_age= for its freshness here, or send another lifetime",
    ),
    "location": "a redirect without it leads nowhere; send another status instead",
    "vary": "it says for which requests the page is; leave it out in the app, or name a normaliser for its fields in vary=",
    "www-authenticate": "without it clients can't log in; leave the page out of the cache with unless=",
}


@dataclass(frozen=True, slots=True)
class Windows:
    """The three windows of an entry, in seconds; both stale windows start where freshness ends."""

    max_age: float
    stale_while_revalidate: float
    stale_if_error: float

    def shortened(self, share: float) -> Windows:
        """Return the windows with freshness shortened by a share of it."""
        return Windows(self.max_age * (1 - share), self.stale_while_revalidate, self.stale_if_error)


def statuses(value: object) -> Mapping[int, float | None]:
    """Return which statuses are stored and for how long (``None``: for ``max_age``), or raise :class:`ConfigError`."""
    known: dict[int, float | None] = dict.fromkeys(DEFAULT_STATUSES)
    if value is None:
        return MappingProxyType(known)
    if not isinstance(value, Mapping):
        raise ConfigError(f"statuses={value!r} is not a mapping: write for instance {{404: 60}} (status: seconds)")
    for status, lifetime in value.items():
        known[_storable_status(status)] = None if lifetime is None else seconds(f"statuses[{status}]", lifetime)
    return MappingProxyType(known)


def _storable_status(status: object) -> int:
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
        raise ConfigError(f"statuses contains {status!r}: give HTTP statuses from 200 to 599")
    if status in FAILURE_STATUSES:
        raise ConfigError(
            f"statuses contains {status}: 429, 500, 502, 503 and 504 are failures and never stored; use stale_if_error"
        )
    if status in _NEVER_STORED:
        raise ConfigError(f"statuses contains {status}: 206 and 304 are parts of an answer and never stored")
    return int(status)


def _vary(value: object) -> Mapping[str, Normaliser | None]:
    fields: Mapping[str, Any]
    fields = value if isinstance(value, Mapping) else dict.fromkeys(names("vary", value))
    for name, normalise in fields.items():
        if not isinstance(name, str) or not FIELD_NAME.fullmatch(name) or name == "*":
            raise ConfigError(f"vary contains {name!r}: give names of request fields, such as 'Accept-Language'")
        if name.lower() in NEVER_VARIED:
            raise ConfigError(f"vary contains {name!r}, which would keep a copy for every visitor: {NEVER_VARIED[name.lower()]}")
        if normalise is not None and not callable(normalise):
            raise ConfigError(f"vary[{name!r}]={normalise!r} is not a normaliser: give a callable of the field's value, or None")
    # Sorted: a set has another order in each worker, and all workers must build the same keys.
    return MappingProxyType(
        {name.lower(): normalise for name, normalise in sorted(fields.items(), key=lambda item: item[0].lower())}
    )


def _named(parameter: str, value: object) -> Mapping[str, Normaliser | None]:
    given: Mapping[Any, Any] = value if isinstance(value, Mapping) else dict.fromkeys(names(parameter, value))
    for name, normalise in given.items():
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{parameter} contains {name!r}: give names as non-empty strings")
        if normalise is not None and not callable(normalise):
            raise ConfigError(f"{parameter}[{name!r}]={normalise!r} is not a normaliser: give a callable of the value, or None")
        if iscoroutinefunction(normalise):
            raise ConfigError(f"{parameter}[{name!r}]={normalise!r} is a coroutine function: give a plain function")
    # Sorted: a set has another order in each worker.
    return MappingProxyType(dict(sorted(given.items())))


def _cookies(value: object) -> Mapping[str, Normaliser | None] | None:
    if value is None:
        return None
    named = _named("cookies", value)
    for name in named:
        if not COOKIE_NAME.fullmatch(name):
            raise ConfigError(f"cookies contains {name!r}, which no cookie can be named: give names, such as 'lang'")
    return named


def _session(value: object) -> Mapping[str, Normaliser | None]:
    named = _named("session", value)
    for key in named:
        if key in NEVER_IN_SESSION:
            raise ConfigError(f"session contains {key!r}, which can't be in a key: {NEVER_IN_SESSION[key]}")
    return named


def _unset(value: object) -> frozenset[str]:
    given = names("unset", value)
    for name in given:
        if not FIELD_NAME.fullmatch(name) or "*" in name:
            raise ConfigError(f"unset contains {name!r}: give whole names of response fields, such as 'Set-Cookie'")
        if name.lower() in NEVER_UNSET:
            raise ConfigError(f"unset contains {name!r}, which can't be taken away: {NEVER_UNSET[name.lower()]}")
    return frozenset(name.lower() for name in given)


def _min_uses(value: object) -> int:
    # A count is one byte (engine.use_counts).
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 255:
        raise ConfigError(f"min_uses={value!r}: give a whole number from 1 to 255; 1 stores the answer to the first request")
    return value


def _optional_callable(name: str, value: object, accepted: str) -> None:
    if value is not None and not callable(value):
        raise ConfigError(f"{name}={value!r} is not callable: give {accepted}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The windows and rules of an origin, as set in code.

    For a window that is ``None``, the response's own fields decide, then the configuration.

    :param max_age: seconds an entry is fresh (RFC 9111).
    :param stale_while_revalidate: seconds after that in which it is served immediately and refreshed in the background (RFC 5861
        section 3).
    :param stale_if_error: seconds after freshness in which it is served if the origin fails (RFC 5861 section 4).
    :param statuses: status to lifetime in seconds (``None``: ``max_age``), added to the default 200, 301 and 308.
    :param vary: request fields that belong to the key, or a mapping of field to a normaliser of its value.
    :param cookies: the cookies that the page depends on: names, or a mapping of name to a normaliser of its value (``None`` without
        the cookie). Their values are in the key. In the rules of ``GatewayCache``, the app gets no other cookies for a page that is
        stored; ``()``: it gets none. Default: the app may use any cookie.
    :param session: the keys of the session whose values the page depends on: names, or a mapping of key to a normaliser of its
        value (``None`` without it). Not in the rules of ``GatewayCache``, which has no sessions.
    :param ignored_parameters: query parameters that are not in the key: names or patterns such as ``utm_*``.
    :param sort_query: the order of the query parameters is not in the key; that of several values of one name is. Default false.
    :param convert_head: HEAD is looked up as GET: if nothing is stored, the app is called with GET, and its response is stored.
        Only in rules of the gateway. Default false.
    :param key: a callable without arguments whose result replaces path and query in the key.
    :param unless: a callable without arguments; with a true result the request bypasses the cache.
    :param renew: a callable without arguments; with a true result the request skips the stored page, and its answer replaces it.
    :param response_filter: a callable of the response; with a false result the response is not stored.
    :param unset: response fields that are removed before the response is stored. The client whose request led to the response does
        not get them either. A response that is not stored keeps them.
    :param tags: names by which the stored page can be purged; or a callable of the view's arguments that returns them.
    :param prefer_stale: serve a stale entry whatever its age; or a callable without arguments that decides. Default: configured.
    :param wait: the longest time in seconds that a request waits for a refresh, if a stale entry may be served instead. Default:
        no limit.
    :param refresh_ahead: the last seconds of freshness, in which a hit also queues a refresh. Default 0.
    :param jitter: the share of ``max_age``, 0 to 1, by which freshness is shortened at random. Default 0.1.
    :param lock_timeout: the longest time in seconds to wait for another request's call of the origin. Default: configured.
    :param min_uses: a page is stored from this number of requests on, counted over a limited time, 1 to 255. Default 1.
    :param ignore_session: the page does not depend on the session, although the view uses it. Default false.
    :param gateway: the gateway stores and serves it; hits do not enter the app. Default false.
    :raises ConfigError: naming the parameter, the value and what is accepted.
    """

    max_age: Any = None
    stale_while_revalidate: Any = None
    stale_if_error: Any = None
    statuses: Any = None
    vary: Any = ()
    cookies: Any = None
    session: Any = ()
    ignored_parameters: Any = ()
    sort_query: bool = False
    convert_head: bool = False
    key: Callable[[], object] | None = None
    unless: Callable[[], object] | None = None
    renew: Callable[[], object] | None = None
    response_filter: Callable[[Any], object] | None = None
    unset: Any = ()
    tags: Any = ()
    prefer_stale: Any = None
    wait: Any = None
    refresh_ahead: Any = None
    jitter: Any = None
    lock_timeout: Any = None
    min_uses: Any = 1
    ignore_session: bool = False
    gateway: bool = False
    listed_statuses: frozenset[int] = field(init=False, default=frozenset())
    #: The names of the cookies and of the keys of the session whose values are in the key; empty if there are none.
    named: tuple[tuple[str, ...], ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {}
        for name in ("max_age", "stale_while_revalidate", "stale_if_error", "lock_timeout", "wait", "refresh_ahead"):
            value = getattr(self, name)
            checked[name] = None if value is None else seconds(name, value)
        checked["tags"] = self.tags if callable(self.tags) else tags("tags", self.tags)
        checked["jitter"] = DEFAULT_JITTER if self.jitter is None else share("jitter", self.jitter)
        checked["min_uses"] = _min_uses(self.min_uses)
        checked["listed_statuses"] = frozenset(self.statuses) if isinstance(self.statuses, Mapping) else frozenset()
        checked["statuses"] = statuses(self.statuses)
        checked["vary"] = _vary(self.vary)
        checked["cookies"] = _cookies(self.cookies)
        checked["session"] = _session(self.session)
        checked["unset"] = _unset(self.unset)
        ignored = self.ignored_parameters
        checked["ignored_parameters"] = (
            ignored if isinstance(ignored, NamePatterns) else NamePatterns(names("ignored_parameters", ignored))
        )
        names_in_key = tuple(checked["cookies"] or ()), tuple(checked["session"])
        checked["named"] = names_in_key if any(names_in_key) else ()
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        self._check_callables()
        self._check_contradictions()

    def _check_callables(self) -> None:
        _optional_callable("key", self.key, "a callable without arguments that returns a string, number or tuple of those")
        _optional_callable("unless", self.unless, "a callable without arguments")
        _optional_callable("renew", self.renew, "a callable that says which requests renew what is stored, such as an editor's")
        if iscoroutinefunction(self.renew):
            raise ConfigError(f"renew={self.renew!r} is a coroutine function, whose result is always true: give a plain function")
        _optional_callable("response_filter", self.response_filter, "a callable of the response")
        if not isinstance(self.ignore_session, bool):
            raise ConfigError(f"ignore_session={self.ignore_session!r}: give True or False")
        for name in ("gateway", "sort_query", "convert_head"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name}={getattr(self, name)!r}: give True or False")
        if self.prefer_stale is not None and not isinstance(self.prefer_stale, bool) and not callable(self.prefer_stale):
            raise ConfigError(f"prefer_stale={self.prefer_stale!r}: give True, False or a callable without arguments")

    def _check_contradictions(self) -> None:
        if self.max_age is not None and self.refresh_ahead and self.refresh_ahead >= self.max_age:
            raise ConfigError(
                f"refresh_ahead={self.refresh_ahead:g} is not shorter than max_age={self.max_age:g}: "
                "every hit would refresh the page"
            )
        if self.key is not None and self.ignored_parameters:
            raise ConfigError("ignored_parameters has no effect beside key=, which stands for the whole query: leave one out")
        if self.key is not None and self.sort_query:
            raise ConfigError("sort_query has no effect beside key=, which stands for the whole query: leave one out")
