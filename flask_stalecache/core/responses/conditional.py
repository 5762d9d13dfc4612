"""Decides whether a whole response is sent whole, in part, or not at all (RFC 9110 sections 13 and 14). Pure.

================================================== ====== ================
request and response                               method result
================================================== ====== ================
the status is not 200                              any    FULL
If-None-Match or If-Modified-Since matches         any    NOT_MODIFIED
no Range, or a malformed or multiple one           any    FULL
Range                                              HEAD   FULL
Range, and If-Range or If-Match does not match     GET    FULL
Range, and the size of the body is not known       GET    FULL
Range, and the response says Accept-Ranges: none   GET    FULL
Range within the body                              GET    PARTIAL
Range beyond the body                              GET    UNSATISFIABLE
================================================== ====== ================

If-Match and If-Unmodified-Since are conditions on the origin's current state. A cache may ignore them (RFC 9110 section 13.1.1),
but a client that sends them with a Range appends the range to the part that it has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from ..http.cache_control import TARGETED_FIELDS
from ..http.fields import Headers, Lookup, first_of
from .ranges import UnsatisfiableRange, accepts_ranges, single_range
from .validators import Validators

#: Environ keys of the conditions and ranges that a stored response answers. A request without them gets the whole response.
ANSWERED_FIELDS = ("HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_RANGE")


class Extent(Enum):
    """The part of a response that is sent."""

    FULL = "full"
    #: 304: the client already has it.
    NOT_MODIFIED = "not modified"
    #: 206: one range of it.
    PARTIAL = "partial"
    #: 416: the range is outside of the body.
    UNSATISFIABLE = "unsatisfiable"


@dataclass(frozen=True, slots=True)
class Selected:
    """The part of a response to send.

    :ivar size: the size of the whole body in bytes; 0 if it is not known.
    :ivar part: the range of bytes that is sent; all of them unless ``extent`` is PARTIAL.
    """

    extent: Extent
    size: int
    part: slice

    @property
    def is_to_end(self) -> bool:
        """Whether a body is sent, up to its end."""
        return self.extent in (Extent.FULL, Extent.PARTIAL) and self.part.stop == self.size

    @property
    def content_range(self) -> str:
        """The value of Content-Range in a 206 or 416 (RFC 9110 section 14.4)."""
        if self.extent is Extent.UNSATISFIABLE:
            return f"bytes */{self.size}"
        return _content_range(self.part, self.size)


def select(method: str, get: Lookup, status: int, headers: Headers, answered: float, size: int | None) -> Selected:
    """Return how much of a stored response answers a request.

    :param method: ``GET`` or ``HEAD``.
    :param get: the fields of the request.
    :param status: the status of the stored response.
    :param headers: its fields.
    :param answered: when it was received, in seconds since the epoch; replaces a missing Date.
    :param size: the size of its body in bytes; ``None`` if it is not known.
    """
    whole = Selected(Extent.FULL, size or 0, slice(0, size or 0))
    if status != 200:
        return whole
    fields = tuple(headers)
    validators = Validators.of(fields, answered)
    # Conditions come before Range (RFC 9110 section 13.2.2).
    if validators.not_modified(get):
        return replace(whole, extent=Extent.NOT_MODIFIED)
    if method != "GET" or size is None or not accepts_ranges(fields) or not validators.allow_range(get):
        return whole
    try:
        part = single_range(get("range"), size)
    except UnsatisfiableRange:
        return replace(whole, extent=Extent.UNSATISFIABLE)
    return whole if part is None else Selected(Extent.PARTIAL, size, part)


def select_of_new(method: str, get: Lookup, status: int, headers: Headers, answered: float, size: int | None) -> Selected:
    """Return how much of a response that has just been made answers a request.

    Without Last-Modified, If-Modified-Since does not count: only for a stored response does the Date show that it has not changed
    since then (RFC 9110 section 13.1.3, RFC 9111 section 4.3.2).
    """
    fields = tuple(headers)
    is_dated = first_of(fields, "last-modified") is not None
    return select(
        method, lambda name: get(name) if is_dated or name != "if-modified-since" else None, status, fields, answered, size
    )


def fields_of_206(headers: Headers, selected: Selected) -> list[tuple[str, str]]:
    """Return the fields of a 206 (RFC 9110 section 15.3.7).

    :param headers: the fields of the whole response.
    """
    return [*fields_of_any_part(headers), *fields_of_part(selected.part, selected.size)]


def fields_of_any_part(headers: Headers) -> list[tuple[str, str]]:
    """Return the fields of a 206 that are the same for all parts."""
    return [(name, value) for name, value in headers if name.lower() != "content-length"]


def fields_of_part(part: slice, size: int) -> tuple[tuple[str, str], ...]:
    """Return the other fields of a 206.

    :param size: the size of the whole body in bytes.
    """
    return ("Content-Range", _content_range(part, size)), ("Content-Length", str(part.stop - part.start))


def _content_range(part: slice, size: int) -> str:
    return f"bytes {part.start}-{part.stop - 1}/{size}"


#: Fields about a body that is not sent.
_OF_CONTENT = frozenset(
    {
        "accept-ranges", "allow", "content-digest", "content-encoding", "content-language", "content-length", "content-md5",
        "content-range", "content-type", "digest", "repr-digest",
    }
)  # fmt: skip
#: Fields that would let a cache store a 416 as the page.
_OF_FRESHNESS = frozenset({"cache-control", "etag", "expires", "last-modified", *TARGETED_FIELDS})


def without_content(headers: Headers, *, with_freshness: bool = True) -> list[tuple[str, str]]:
    """Return the fields of a whole response without those about its body. Cookies and other fields for the visitor stay.

    :param with_freshness: keep its validators and its lifetime.
    """
    left_out = _OF_CONTENT if with_freshness else _OF_CONTENT | _OF_FRESHNESS
    return [(name, value) for name, value in headers if name.lower() not in left_out]


def fields_of_416(selected: Selected) -> list[tuple[str, str]]:
    """Return the fields of a 416 (RFC 9110 section 15.5.17)."""
    return [("Content-Range", selected.content_range), ("Content-Type", "text/plain"), ("Content-Length", "0")]


def with_accept_ranges(status: int, headers: Headers) -> list[tuple[str, str]]:
    """Return the fields of a whole response of known size, with Accept-Ranges if ranges of bytes may be cut from it."""
    fields = list(headers)
    if status == 200 and accepts_ranges(fields) and first_of(fields, "accept-ranges") is None:
        fields.append(("Accept-Ranges", "bytes"))
    return fields
