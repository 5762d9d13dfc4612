"""Dates, as a cache must read them (RFC 9110 section 5.6.7, RFC 9111 section 4.2)."""

from __future__ import annotations

import re

from werkzeug.http import parse_date

#: A day. A third party that asks for more is called again after that.
_LONGEST_PAUSE = 86400.0
_TIME = r"\d\d:\d\d:\d\d"
_MONTH = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
_DAY = "(?:mon|tue|wed|thu|fri|sat|sun)"
_LONG_DAY = "(?:mon|tues|wednes|thurs|fri|satur|sun)day"
#: The three forms. No zone but GMT: "EST" and "+0100" are nobody's word for the end of freshness.
_DATE = re.compile(
    rf"{_DAY}, \d\d {_MONTH} \d{{4}} {_TIME} gmt"
    rf"|{_LONG_DAY}, \d\d-{_MONTH}-\d\d {_TIME} gmt"
    rf"|{_DAY} {_MONTH} [ \d]\d {_TIME} \d{{4}}",
    re.ASCII | re.IGNORECASE,
)


def timestamp(value: str | None) -> float | None:
    """Return a date in seconds since the epoch; ``None`` if there is none, or none that is valid.

    All three forms of RFC 9110 section 5.6.7 are read, in any case (RFC 9111 section 4.2).
    """
    if value is None or not _DATE.fullmatch(value.strip()):
        return None
    # Werkzeug reads much more than HTTP allows, such as other zones; what it can't read here is on no day.
    date = parse_date(value.strip())
    return None if date is None else date.timestamp()


def retry_after(value: str, now: float) -> float | None:
    """Return the seconds that a Retry-After field asks for (RFC 9110 section 10.2.3), a day at most; ``None`` if it is not valid.

    :param value: the field; "" if there is none.
    :param now: seconds since the epoch.
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(min(int(value[:9]), _LONGEST_PAUSE))
    # More than HTTP allows is read here: a pause that is too long does less harm than none.
    date = parse_date(value) if value else None
    return None if date is None else min(max(0.0, date.timestamp() - now), _LONGEST_PAUSE)
