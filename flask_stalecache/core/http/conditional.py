"""Decides whether a stored response is sent whole, in part, or not at all (RFC 9110 sections 13 and 14). Pure.

================================================== ====== ================
request                                            method result
================================================== ====== ================
stored status is not 200                           any    FULL
If-None-Match or If-Modified-Since matches         any    NOT_MODIFIED
no Range, or a malformed or multiple one           any    FULL
Range                                              HEAD   FULL
Range, and If-Range does not match                 GET    FULL
Range within the body                              GET    PARTIAL
Range beyond the body                              GET    UNSATISFIABLE
================================================== ====== ================

If-Match and If-Unmodified-Since are conditions on the origin's current state, so no stored response can answer them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .fields import Headers, Lookup
from .ranges import UnsatisfiableRange, single_range
from .validators import Validators

#: Environ keys of the conditions and ranges that a stored response answers. A request without them gets the whole response.
ANSWERED_FIELDS = ("HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_RANGE")


class Extent(Enum):
    """How much of a stored response is sent."""

    FULL = "full"
    #: 304: the client already has it.
    NOT_MODIFIED = "not modified"
    #: 206: one range of it.
    PARTIAL = "partial"
    #: 416: the range is outside of the body.
    UNSATISFIABLE = "unsatisfiable"


@dataclass(frozen=True, slots=True)
class Selected:
    """The part of a stored response to send.

    :ivar size: the size of the whole body in bytes.
    :ivar part: the range of bytes that is sent; all of them unless ``extent`` is PARTIAL.
    """

    extent: Extent
    size: int
    part: slice

    @property
    def content_range(self) -> str:
        """The value of Content-Range in a 206 or 416 (RFC 9110 section 14.4)."""
        if self.extent is Extent.UNSATISFIABLE:
            return f"bytes */{self.size}"
        return f"bytes {self.part.start}-{self.part.stop - 1}/{self.size}"


def select(method: str, get: Lookup, status: int, headers: Headers, answered: float, size: int) -> Selected:
    """Return how much of a stored response answers a request.

    :param method: ``GET`` or ``HEAD``.
    :param get: the fields of the request.
    :param status: the status of the stored response.
    :param headers: its fields.
    :param answered: when it was received, in seconds since the epoch; replaces a missing Date.
    :param size: the size of its body in bytes.
    """
    whole = slice(0, size)
    if status != 200:
        return Selected(Extent.FULL, size, whole)
    validators = Validators.of(headers, answered)
    # Conditions come before Range (RFC 9110 section 13.2.2).
    if validators.not_modified(get):
        return Selected(Extent.NOT_MODIFIED, size, whole)
    if method != "GET" or not validators.allow_range(get):
        return Selected(Extent.FULL, size, whole)
    try:
        part = single_range(get("range"), size)
    except UnsatisfiableRange:
        return Selected(Extent.UNSATISFIABLE, size, whole)
    return Selected(Extent.FULL, size, whole) if part is None else Selected(Extent.PARTIAL, size, part)
