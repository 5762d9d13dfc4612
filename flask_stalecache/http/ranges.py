"""A single range of bytes (RFC 9110 section 14)."""

from __future__ import annotations

import re

_SINGLE = re.compile(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.ASCII | re.IGNORECASE)


class UnsatisfiableRange(ValueError):
    """The range is a good one, but nothing of it is there: 416."""


def single_range(field: str | None, size: int) -> slice | None:
    """Return the part of ``size`` bytes that a Range field asks for; ``None`` if the whole is the answer.

    Several ranges may be answered with the whole (section 14.2), and a malformed field is ignored.

    :raises UnsatisfiableRange: if the field asks for nothing that is there.
    """
    match = _SINGLE.fullmatch(field or "")
    if match is None or not (match[1] or match[2]):
        return None
    # Cut, since int() refuses thousands of digits; no body has as many bytes.
    first, last = (int(digits[:18]) if digits else None for digits in match.groups())
    if first is None:
        first, last = size - min(last or 0, size), size - 1
    elif last is not None and last < first:
        return None
    if first >= size:
        raise UnsatisfiableRange(field)
    return slice(first, size if last is None else min(last + 1, size))
