"""Reads lines of access logs: Common and Combined Log Format, and JSON as nginx, Caddy and Traefik write it. Pure."""

from __future__ import annotations

import calendar
import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

#: What the messages call the formats.
FORMATS = "Common Log Format, Combined Log Format, or one JSON object on each line"


class LogLine(NamedTuple):
    """One request, as its server logged it.

    :ivar at: seconds since the epoch.
    :ivar host: the requested host; empty if the log does not state it.
    :ivar method: the method.
    :ivar path: the path, as sent.
    :ivar query: the query, as sent, without the question mark.
    :ivar status: the status of the answer.
    :ivar size: bytes of the answer's body; 0 if the log does not state it.
    :ivar seconds: how long the answer took; ``None`` if the log does not state it.
    :ivar has_user: the request had credentials of HTTP authentication.
    """

    at: float
    host: str
    method: str
    path: str
    query: str
    status: int
    size: int
    seconds: float | None
    has_user: bool


def read_line(line: str) -> LogLine | None:
    """Return the request of a line; ``None`` for a line in no known format."""
    try:
        return _read_json(line) if line.lstrip().startswith("{") else _read_combined(line)
    except (ValueError, TypeError, OverflowError, AttributeError, RecursionError):
        return None


# -- Common and Combined Log Format --------------------------------------------------------------------------------------

#: A user's name may contain spaces. Apache's variants begin with the virtual host; Combined adds two quoted fields. No part can
#: match a long text in two ways, since visitors choose paths and names.
_COMBINED = re.compile(
    r"(\S+) (?:\S+ )?\S+ (\S.*?) \[([^\]]{20,30})\] "
    r'"([^" ]+) ((?:[^"\\ ]|\\.)+)(?: [^"]*)?" (\d{3}) (\d+|-)(?: |$)'
)
_MONTHS = {
    "Jan": 1,
    "Feb": 2,
    "Mar": 3,
    "Apr": 4,
    "May": 5,
    "Jun": 6,
    "Jul": 7,
    "Aug": 8,
    "Sep": 9,
    "Oct": 10,
    "Nov": 11,
    "Dec": 12,
}
_TIME = re.compile(r"(\d{1,2})/(\w{3})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)")


def _read_combined(line: str) -> LogLine | None:
    found = _COMBINED.match(line)
    if found is None:
        return None
    _, user, when, method, target, status, size = found.groups()
    host, path, query = _split(target)
    has_user = user not in ("-", '""')
    return LogLine(_local_time(when), host, method, path, query, int(status), 0 if size == "-" else int(size), None, has_user)


# Lines of one second have the same text.
@lru_cache(maxsize=64)
def _local_time(text: str) -> float:
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(text)
    day, month, year, hour, minute, second, sign, hours, minutes = found.groups()
    moment = (int(year), _MONTHS.get(month, 0), int(day), int(hour), int(minute), int(second))
    datetime(*moment)  # It raises ValueError for a date that does not exist.
    offset = int(hours) * 3600 + int(minutes) * 60
    return calendar.timegm(moment) - (offset if sign == "+" else -offset)


def _split(target: str) -> tuple[str, str, str]:
    """Return host, path and query of a request's target, which may be a full URL."""
    if target.startswith("/"):
        path, _, query = target.partition("?")
        return "", path, query
    parts = urlsplit(target)
    if not parts.path.startswith("/") and not parts.netloc:
        raise ValueError(target)
    return parts.netloc.lower(), parts.path or "/", parts.query


# -- JSON ----------------------------------------------------------------------------------------------------------------

#: Names of each value, in the order in which they are looked for.
_WHEN = ("time_iso8601", "msec", "ts", "StartUTC", "time_local", "@timestamp", "timestamp", "time")
_METHOD = ("request_method", "RequestMethod", "method")
_TARGET = ("request_uri", "RequestPath", "uri", "path", "url")
_STATUS = ("status", "DownstreamStatus", "status_code")
_SIZE = ("body_bytes_sent", "DownstreamContentSize", "size", "bytes_sent", "bytes")
_HOST = ("host", "http_host", "RequestHost")
_USER = ("remote_user", "ClientUsername", "user_id", "user")
_SECONDS = ("request_time", "duration")
_QUERY = ("args", "query_string", "query")


def _read_json(line: str) -> LogLine:
    known = json.loads(line)
    inner = known.get("request")
    if isinstance(inner, Mapping):
        # Caddy describes the request by an object of its own.
        known = {**known, **inner}
    elif isinstance(inner, str) and len(words := inner.split()) >= 2:
        known = {"request_method": words[0], "request_uri": words[1], **known}
    host, path, query = _split(str(_one(known, _TARGET)))
    query = query or str(next(_values(known, _QUERY), "") or "").lstrip("?")
    return LogLine(
        _time_of(_one(known, _WHEN)),
        host or str(next(_values(known, _HOST), "")).lower(),
        str(_one(known, _METHOD)),
        path,
        query,
        int(_one(known, _STATUS)),
        int(next(_values(known, _SIZE), 0)),
        _seconds_of(known),
        next(_values(known, _USER), "-") not in ("", "-"),
    )


def _values(known: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[Any]:
    return (known[name] for name in names if known.get(name) is not None)


def _one(known: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """Return the first value that is there.

    :raises ValueError: if there is none.
    """
    for value in _values(known, names):
        return value
    raise ValueError(names[0])


def _seconds_of(known: Mapping[str, Any]) -> float | None:
    if isinstance(known.get("Duration"), int):
        return float(known["Duration"]) / 1e9  # Traefik's are nanoseconds.
    seconds = next(_values(known, _SECONDS), None)
    return None if seconds is None else float(seconds)


def _time_of(value: Any) -> float:
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return _local_time(value) if "/" in value else _iso_time(value)
    seconds = float(value)
    # Some loggers write milliseconds.
    seconds = seconds / 1000 if seconds > 1e11 else seconds
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(value)
    return seconds


_NUMBER = re.compile(r"\d+(\.\d+)?")
#: Python 3.10 reads neither ``Z`` nor fractions of other than three or six digits.
_FRACTION = re.compile(r"\.(\d{1,6})\d*")


@lru_cache(maxsize=64)
def _iso_time(text: str) -> float:
    text = _FRACTION.sub(lambda found: f".{found[1]:0<6}", text.strip().replace("Z", "+00:00").replace("z", "+00:00"))
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
