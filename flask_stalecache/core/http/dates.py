"""Parses dates and Retry-After (RFC 9110 sections 5.6.7 and 10.2.3, RFC 9111 section 4.2)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from werkzeug.http import parse_date

#: The longest pause, in seconds: one day. A longer Retry-After is reduced to it.
_LONGEST_PAUSE = 86400.0
_TIME = r"\d\d:\d\d:\d\d"
_MONTH = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
_DAY = "(?:mon|tue|wed|thu|fri|sat|sun)"
_LONG_DAY = "(?:mon|tues|wednes|thurs|fri|satur|sun)day"
#: The three forms of a date. GMT is the only zone.
_DATE = re.compile(
    rf"{_DAY}, \d\d {_MONTH} \d{{4}} {_TIME} gmt"
    rf"|{_LONG_DAY}, \d\d-{_MONTH}-\d\d {_TIME} gmt"
    rf"|{_DAY} {_MONTH} [ \d]\d {_TIME} \d{{4}}",
    re.ASCII | re.IGNORECASE,
)


def timestamp(value: str | None) -> float | None:
    """Return a date in seconds since the epoch, or ``None`` if it is missing or invalid.

    It accepts all three forms of RFC 9110 section 5.6.7, in any case (RFC 9111 section 4.2).
    """
    if value is None or not _DATE.fullmatch(value.strip()):
        return None
    # Werkzeug accepts more than HTTP allows, such as other zones, hence the check above. It returns None for Feb 30.
    date = parse_date(value.strip())
    return None if date is None else date.timestamp()


def pause_asked(status: int, headers: Iterable[tuple[str, str]], now: float) -> float | None:
    """Return the seconds that an answer with status 429 or 503 asks to wait for; ``None`` if it asks for none.

    :param now: seconds since the epoch.
    """
    if status not in (429, 503):
        return None
    return retry_after(next((value for name, value in headers if name.lower() == "retry-after"), ""), now)


def retry_after(value: str, now: float) -> float | None:
    """Return the seconds of a Retry-After field (RFC 9110 section 10.2.3), at most a day; ``None`` if it is not valid.

    :param value: the field; "" without one.
    :param now: seconds since the epoch.
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(min(int(value[:9]), _LONGEST_PAUSE))
    # Lenient: a pause that is too long does less harm than no pause.
    date = parse_date(value) if value else None
    return None if date is None else min(max(0.0, date.timestamp() - now), _LONGEST_PAUSE)
