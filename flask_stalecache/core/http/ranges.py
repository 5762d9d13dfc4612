"""A single range of bytes (RFC 9110 section 14)."""

from __future__ import annotations

import re

#: The unit is case-insensitive. As in any list, there may be empty members around the range (RFC 9110 sections 14.1, 5.6.1).
_SINGLE = re.compile(r"[ \t]*bytes=[ \t,]*(\d*)-(\d*)[ \t,]*", re.ASCII | re.IGNORECASE)


class UnsatisfiableRange(ValueError):
    """The range is valid but outside of the body: 416."""


def single_range(field: str | None, size: int) -> slice | None:
    """Return the part of ``size`` bytes that a Range field asks for; ``None`` for the whole body.

    Several ranges may be answered with the whole body (section 14.2). A malformed field or another unit is ignored.

    :raises UnsatisfiableRange: if the range is outside of the body.
    """
    match = _SINGLE.fullmatch(field or "")
    if match is None or not (match[1] or match[2]):
        return None
    # Truncated first, since int() rejects thousands of digits. No body has so many bytes.
    first, last = (int(digits.lstrip("0")[:18] or "0") if digits else None for digits in match.groups())
    if first is None:
        return _suffix(last or 0, size)
    if last is not None and last < first:
        return None
    if first >= size:
        raise UnsatisfiableRange(field)
    return slice(first, size if last is None else min(last + 1, size))


def _suffix(length: int, size: int) -> slice | None:
    if length == 0:
        raise UnsatisfiableRange("the last 0 bytes")
    # The last bytes of an empty body are a valid range, but no Content-Range can express it.
    return slice(size - min(length, size), size) if size else None
