"""The fields of a page with filled holes, which belongs to one visitor, whatever the fields of the stored page are. Pure.

================================================================ =================================================================
field                                                            what is sent
================================================================ =================================================================
``Cache-Control``                                                ``private, no-cache``; ``no-store`` and ``no-transform`` are kept
``Expires``, targeted fields (RFC 9213), those of edges          nothing: a browser would show the page after the visitor has left
``ETag``, ``Last-Modified``, digests of the content              nothing: they describe the stored body
``Content-Length``, ``Accept-Ranges``                            nothing: each visitor's body has a length of its own
================================================================ =================================================================
"""

from __future__ import annotations

from ..http.cache_control import response_directives
from ..http.fields import Headers, lines_of

#: Fields that describe the bytes of a body.
OF_BODY = frozenset({"accept-ranges", "content-digest", "content-length", "content-md5", "digest", "etag", "repr-digest"})
_OF_LIFETIME = frozenset({"edge-control", "expires", "last-modified", "surrogate-control", "x-accel-expires"})
_KEPT = ("no-store", "no-transform")


def fields_of_filled(headers: Headers) -> list[tuple[str, str]]:
    """Return the fields to send with a filled page."""
    return private_fields(without_lengths(headers))


def private_fields(headers: Headers) -> list[tuple[str, str]]:
    """Return the fields of a response as one visitor's, for this moment alone."""
    fields = list(headers)
    said = response_directives([("Cache-Control", value) for value in lines_of(fields, "cache-control")])
    value = ", ".join(["private", "no-cache", *(name for name in _KEPT if name in said)])
    kept = [(name, value) for name, value in fields if not _is_of_lifetime(name.lower())]
    return [*kept, ("Cache-Control", value)]


def is_private(headers: Headers) -> bool:
    """Whether fields are those of one visitor's response, as :func:`private_fields` returns them."""
    is_said = False
    for name, value in headers:
        if _is_of_lifetime(name.lower()):
            # A field that hooks have added comes after ours.
            if is_said or not value.startswith("private, no-cache"):
                return False
            is_said = True
    return is_said


def without_lengths(headers: Headers) -> list[tuple[str, str]]:
    """Return fields without those that describe the bytes of a body."""
    return [(name, value) for name, value in headers if name.lower() not in OF_BODY]


def _is_of_lifetime(name: str) -> bool:
    return name in _OF_LIFETIME or name.endswith("cache-control")
