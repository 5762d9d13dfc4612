"""The values that the ``STALECACHE_*`` keys accept: each function converts one, or raises :class:`ConfigError`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from ..core.addressing.base_url import Base
from ..core.addressing.keys import FORWARDED_FIELDS
from ..core.addressing.server_url import ServerUrl
from ..core.http.fields import FIELD_VALUE
from ..core.model import checks
from ..core.model.checks import FIELD_NAME
from ..core.model.policy import HOP_BY_HOP, NEVER_VARIED
from ..core.model.query import NamePatterns
from ..core.rules.status import STATUS_HEADERS
from ..errors import ConfigError

#: The least that SHARED_MAX_DEAF may be, in seconds: a host hears the shared server once a second, if nothing is slow.
SHORTEST_DEAF = 5


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{name}={value!r}: give True or False")
    return value


def count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f"{name}={value!r}: give a whole number, 0 or more")
    return value


def size(name: str, value: object) -> int:
    number = count(name, value)
    if number == 0:
        raise ConfigError(f"{name}={value!r}: give more than 0 bytes")
    return number


def optional_size(name: str, value: object) -> int | None:
    return None if value is None else size(name, value)


def longest_deaf(name: str, value: object) -> float | None:
    """Return the seconds that a host may go without hearing its server, or ``None`` for no limit."""
    number = None if value is None else checks.seconds(name, value)
    if number is not None and number < SHORTEST_DEAF:
        raise ConfigError(f"{name}={value!r}: give at least {SHORTEST_DEAF} seconds, or None")
    return number


def positive_seconds(name: str, value: object) -> float:
    number = checks.seconds(name, value)
    if number == 0:
        raise ConfigError(f"{name}={value!r}: give more than 0 seconds")
    return number


def switch_interval(name: str, value: object) -> float | None:
    if value is None:
        return None
    seconds = positive_seconds(name, value)
    if not 1e-6 <= seconds <= 1:
        raise ConfigError(f"{name}={value!r}: give seconds from 0.000001 to 1, such as 0.0002, or None to leave the interval alone")
    return seconds


def backoff(name: str, value: object) -> tuple[float, float]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ConfigError(f"{name}={value!r}: give two durations, the first and the longest back-off, such as (2, 300)")
    first, longest = (positive_seconds(name, item) for item in value)
    if longest < first:
        raise ConfigError(f"{name}={value!r}: the longest back-off is shorter than the first")
    return first, longest


def directory(name: str, value: object) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value) or "\0" in os.fsdecode(os.fspath(value)):
        raise ConfigError(f"{name}={value!r}: give the path of a directory")
    return Path(os.fsdecode(os.fspath(value)))


STORE_METHODS = (
    "lookup", "load", "moved", "touch", "write", "remove", "write_note", "lock", "seq", "purge", "walk", "usage", "verify",
    "sweep", "check", "tick", "forget",
)  # fmt: skip


_STORES = ("file", "memory")


def store(name: str, value: object) -> Any:
    """Return the name of a kind of store, the URL of a server, or a store; raise :class:`ConfigError` for anything else."""
    if isinstance(value, str) and ":" in value:
        return ServerUrl.of(name, value)
    missing = [method for method in STORE_METHODS if not callable(getattr(value, method, None))]
    if value not in _STORES and missing:
        raise ConfigError(
            f"{name}={value!r}: give 'file', 'memory', an object with the methods of flask_stalecache.Store, or the URL of a "
            "server that many hosts share, such as 'redis://127.0.0.1:6379/0'"
        )
    return value


def shared_name(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or _SHARED_NAME.fullmatch(value) is None:
        raise ConfigError(f"{name}={value!r}: give a name of 1 to 100 letters, digits and '_-.:', which all hosts of the app use")
    return value


#: Neither braces, which would move the keys of the cache to several slots of a cluster, nor `*`, which would match other caches.
_SHARED_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


def version(name: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{name}={value!r}: give a string or a number that changes with each deploy")
    return str(value)


#: Request fields with a meaning of their own: hop-by-hop fields (RFC 9110 section 7.6.1) and these.
_TAKEN_FIELDS = HOP_BY_HOP | {"host", "cookie", "authorization", "content-type", "content-length"}


def own_field(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not FIELD_NAME.fullmatch(value):
        raise ConfigError(f"{name}={value!r}: give the name of a request field, such as 'X-Prefer-Stale'")
    if value.lower() in _TAKEN_FIELDS:
        raise ConfigError(f"{name}={value!r} is a field with a meaning of its own: give another name, such as 'X-Prefer-Stale'")
    return value


def own_cookie(name: str, value: object) -> str | None:
    if value is not None and (not isinstance(value, str) or not FIELD_NAME.fullmatch(value)):
        raise ConfigError(f"{name}={value!r}: give the name of a cookie, such as 'prefer_stale'")
    return value


def patterns(name: str, value: object) -> NamePatterns:
    return NamePatterns(checks.names(name, value))


def ignored_names(name: str, value: object) -> frozenset[str]:
    names = frozenset(item.lower() for item in checks.names(name, value))
    if taken := sorted(names & NEVER_VARIED.keys()):
        raise ConfigError(
            f"{name} contains {taken[0]!r}, by which visitors log in, so that their pages would be shared: {NEVER_VARIED[taken[0]]}"
        )
    return names


def readers(name: str, value: object) -> Mapping[str, frozenset[str]]:
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{name}={value!r}: give a mapping from each package to the fields and variables that it may read, "
            "such as {'tracker': ['User-Agent', 'REMOTE_ADDR']}"
        )
    checks.names(name, value)
    return {package: ignored_names(f"{name}[{package!r}]", names) for package, names in value.items()}


#: The extensions whose holes are known.
EXTENSIONS_WITH_HOLES = ("flask_login", "flask_principal", "flask_seasurf", "flask_talisman", "flask_wtf")


def extensions(name: str, value: object) -> frozenset[str]:
    chosen = checks.names(name, value)
    for extension in chosen:
        if extension not in EXTENSIONS_WITH_HOLES:
            raise ConfigError(f"{name} contains {extension!r}: give some of {', '.join(EXTENSIONS_WITH_HOLES)}")
    return frozenset(chosen)


def hooks(name: str, value: object) -> frozenset[str]:
    chosen = checks.names(name, value)
    for hook in chosen:
        if not all(part.isidentifier() or part == "<locals>" for part in hook.split(".")) or "." not in hook:
            raise ConfigError(
                f"{name} contains {hook!r}: give the module and the name of a function, such as 'shop.auth.load_user'"
            )
    return frozenset(chosen)


#: Response fields with a meaning of their own, which are no lists of tags.
_OWN_MEANING = HOP_BY_HOP | {
    "age", "cache-control", "content-encoding", "content-length", "content-range", "content-type", "date", "etag", "expires",
    "last-modified", "location", "set-cookie", "vary",
}  # fmt: skip


def tag_fields(name: str, value: object) -> frozenset[str]:
    fields = checks.names(name, value)
    for field in fields:
        if FIELD_NAME.fullmatch(field) is None or field.lower() in _OWN_MEANING:
            raise ConfigError(f"{name} contains {field!r}: give response fields that list tags, such as 'Surrogate-Key'")
    return frozenset(field.lower() for field in fields)


#: Fields that a refresh takes from the page that it renews, or that would turn it into another request.
_NOT_CARRIED = _TAKEN_FIELDS | {*FORWARDED_FIELDS, "range"}


def refresh_headers(name: str, value: object) -> Mapping[str, str]:
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


def failure_statuses(name: str, value: object) -> frozenset[int]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise ConfigError(f"{name}={value!r}: give a sequence of statuses, such as (404, 429, 500, 502, 503, 504)")
    chosen = tuple(value)
    for status in chosen:
        if isinstance(status, bool) or not isinstance(status, int) or not 400 <= status <= 599:
            raise ConfigError(f"{name} contains {status!r}: give HTTP statuses from 400 to 599")
    return frozenset(chosen)


def status_headers(name: str, value: object) -> frozenset[str]:
    known = {header.lower(): header for header in STATUS_HEADERS}
    chosen = checks.names(name, value)
    for header in chosen:
        if header.lower() not in known:
            raise ConfigError(f"{name} contains {header!r}: give names out of {', '.join(STATUS_HEADERS)}, or () for none")
    return frozenset(known[header.lower()] for header in chosen)


def address(name: str, value: object) -> str:
    try:
        return str(ip_address(value)) if isinstance(value, str) else str(ip_address(""))
    except ValueError:
        raise ConfigError(f"{name}={value!r}: give an IP address, such as '192.0.2.1'") from None


def base_url(name: str, value: object) -> Base | None:
    return None if value is None else Base.of(name, value)


def gateway(name: str, value: object) -> Any:
    if isinstance(value, bool) or (isinstance(value, (Mapping, list, tuple)) and value):
        return value
    raise ConfigError(f"{name}={value!r}: give True, False, or rules such as {{'/news/*': Policy(max_age=60)}}")


def refresher(name: str, value: object) -> Any:
    """Return the object that queues refreshes for other processes."""
    if value is None or (callable(getattr(value, "submit", None)) and not isinstance(value, type)):
        return value
    raise ConfigError(
        f"{name}={value!r}: give an object with a method submit(job) that queues a refresh and returns True; the name of a broker "
        "would name no queue"
    )


def opener(name: str, value: object) -> Any:
    if value is None or callable(value):
        return value
    raise ConfigError(
        f"{name}={value!r}: give a function of an app and a request that returns the session, such as "
        "app.session_interface.open_session"
    )
