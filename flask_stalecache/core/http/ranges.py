"""A single range of bytes (RFC 9110 section 14)."""

from __future__ import annotations

import re

#: The unit in any case, and empty members beside the one range, as in any list (RFC 9110 sections 14.1 and 5.6.1).
_SINGLE = re.compile(r"[ \t]*bytes=[ \t,]*(\d*)-(\d*)[ \t,]*", re.ASCII | re.IGNORECASE)


class UnsatisfiableRange(ValueError):
    """The range is a good one, but nothing of it is there: 416."""


def single_range(field: str | None, size: int) -> slice | None:
    """Return the part of ``size`` bytes that a Range field asks for; ``None`` if the whole is the answer.

    Several ranges may be answered with the whole (section 14.2), and a malformed field or another unit is ignored.

    :raises UnsatisfiableRange: if the field asks for nothing that is there.
    """
    match = _SINGLE.fullmatch(field or "")
    if match is None or not (match[1] or match[2]):
        return None
    # Cut, since int() refuses thousands of digits; no body has as many bytes.
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
    # The last bytes of nothing are there, but no Content-Range can name them.
    return slice(size - min(length, size), size) if size else None
