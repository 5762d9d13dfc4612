"""A single range of bytes (RFC 9110 section 14)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ..http.fields import Headers, first_of, listed

#: The unit is case-insensitive. As in any list, there may be empty members around the range (RFC 9110 sections 14.1, 5.6.1).
_SINGLE = re.compile(r"[ \t]*bytes=[ \t,]*(\d*)-(\d*)[ \t,]*", re.ASCII | re.IGNORECASE)

#: The range in a 206, and the size of the whole body (RFC 9110 section 14.4).
_CONTENT_RANGE = re.compile(r"bytes +(?:\d+-\d+|\*)/(\d{1,18})", re.ASCII | re.IGNORECASE)

_ABOUT_RANGES = frozenset({"accept-ranges", "content-range"})


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


def accepts_ranges(headers: Headers) -> bool:
    """Whether a range of bytes may be cut from a response: it has no Content-Range, and no Accept-Ranges without ``bytes``."""
    for name, value in headers:
        if name.lower() in _ABOUT_RANGES and (name.lower() != "accept-ranges" or "bytes" not in listed(value)):
            return False
    return True


def whole_size(headers: Headers) -> int | None:
    """Return the size in bytes of the whole body that a 206 or 416 is about; ``None`` if its fields do not state it."""
    match = _CONTENT_RANGE.fullmatch((first_of(headers, "content-range") or "").strip())
    return None if match is None else int(match[1])


class RangeCutter:
    """Cuts a range from the chunks of a body as they pass.

    :param part: the range, with both ends.
    :param position: bytes of the body that came before the first chunk.
    """

    __slots__ = ("_part", "_position")

    def __init__(self, part: slice, position: int = 0) -> None:
        self._part = part
        self._position = position

    @property
    def is_over(self) -> bool:
        """Whether the rest of the body is outside of the range."""
        return bool(self._position >= self._part.stop)

    def piece(self, chunk: bytes) -> bytes:
        """Return the part of the next chunk that is in the range."""
        begun, self._position = self._position, self._position + len(chunk)
        return chunk[max(0, self._part.start - begun) : max(0, self._part.stop - begun)]


def cut(chunks: Iterable[bytes], part: slice) -> Iterator[bytes]:
    """Yield the chunks of a range of a body. The body is not read beyond the range.

    :param chunks: the whole body.
    :param part: the range, with both ends.
    """
    cutter = RangeCutter(part)
    for chunk in chunks:
        if piece := cutter.piece(chunk):
            yield piece
        if cutter.is_over:
            return
