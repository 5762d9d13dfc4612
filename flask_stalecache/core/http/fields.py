"""Looks up header fields, and selects those to store and to send (RFC 9111 sections 3.1 and 4.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from ..model.checks import FIELD_NAME
from ..model.policy import HOP_BY_HOP

#: A response's fields, in order. A name may occur several times.
Headers: TypeAlias = "Iterable[tuple[str, str]]"
#: A request's fields: the value for a name in lower case, several lines joined by commas; ``None`` for a missing field.
Lookup: TypeAlias = "Callable[[str], str | None]"

#: The values that can be sent in a field: no line ends, no other controls, and nothing outside Latin-1 (PEP 3333).
FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
#: The names in the environ of fields without a prefix (PEP 3333), and of those that are looked up at hits.
_IN_ENVIRON = {
    "content-type": "CONTENT_TYPE",
    "content-length": "CONTENT_LENGTH",
    "if-match": "HTTP_IF_MATCH",
    "if-modified-since": "HTTP_IF_MODIFIED_SINCE",
    "if-none-match": "HTTP_IF_NONE_MATCH",
    "if-range": "HTTP_IF_RANGE",
    "if-unmodified-since": "HTTP_IF_UNMODIFIED_SINCE",
    "range": "HTTP_RANGE",
}


def request_fields(environ: Mapping[str, Any]) -> Lookup:
    """Return a function that looks up the fields of a WSGI request."""

    def look_up(name: str) -> str | None:
        value = environ.get(_IN_ENVIRON.get(name) or f"HTTP_{name.upper().replace('-', '_')}")
        return None if value is None else str(value)

    return look_up


def lines_of(headers: Headers, name: str) -> list[str]:
    """Return the values of all lines of a field, in order.

    :param name: in lower case.
    """
    return [value for other, value in headers if other.lower() == name]


def first_of(headers: Headers, name: str) -> str | None:
    """Return the value of a field's first line; ``None`` for a missing field.

    :param name: in lower case.
    """
    return next((value for other, value in headers if other.lower() == name), None)


def stored_fields(headers: Headers) -> tuple[tuple[str, str], ...]:
    """Return the fields to store: all but hop-by-hop ones, those that Connection names, Proxy-* and Content-Length."""
    return tuple((name, value) for name, value in end_to_end(headers) if _is_stored(name.lower()))


def _is_stored(name: str) -> bool:
    # Content-Length is computed when the response is sent.
    return name != "content-length" and not name.startswith("proxy-")


def unsendable(headers: Headers) -> str | None:
    """Return the name of the first field whose name or value can't be sent, quoted; ``None`` if there is none."""
    for name, value in headers:
        # An app may give anything, such as a number.
        if FIELD_NAME.fullmatch(name) is None or not isinstance(value, str) or FIELD_VALUE.fullmatch(value) is None:
            return ascii(name[:40])
    return None


def end_to_end(headers: Headers) -> list[tuple[str, str]]:
    """Return the fields to forward: all but hop-by-hop ones and those that Connection names (RFC 9110 section 7.6.1)."""
    fields = list(headers)
    named = {token for value in lines_of(fields, "connection") for token in listed(value)}
    return [(name, value) for name, value in fields if name.lower() not in HOP_BY_HOP and name.lower() not in named]


def content_length(headers: Headers) -> int | None:
    """Return the Content-Length of a response; ``None`` if it is missing, invalid or ambiguous."""
    lines = lines_of(headers, "content-length")
    # Truncated, since int() rejects thousands of digits. No body has so many bytes.
    return int(lines[0][:18]) if len(lines) == 1 and lines[0].isascii() and lines[0].isdigit() else None


def is_event_stream(headers: Headers) -> bool:
    """Whether a response is a stream of server-sent events, whose body never ends."""
    return any(value.lower().startswith("text/event-stream") for value in lines_of(headers, "content-type"))


def listed(value: str) -> list[str]:
    """Return the members of a comma-separated field of tokens, in lower case."""
    return [token.strip().lower() for token in value.split(",") if token.strip()]


def vary_names(headers: Headers) -> frozenset[str]:
    """Return the field names in all Vary lines, in lower case."""
    return frozenset(token for value in lines_of(headers, "vary") for token in listed(value))


def missing_in_vary(headers: Headers, varied: Iterable[str]) -> list[str]:
    """Return the request fields that a response depends on but that are missing from its ``Vary``."""
    named = vary_names(headers)
    return [name for name in varied if name.lower() not in named]


def fields_to_send(headers: Headers, varied: Iterable[str]) -> list[tuple[str, str]]:
    """Return the fields to send with a stored response, without Age and Content-Length.

    An upstream cache may have added an Age. It is already part of the entry's age, from which the new Age is computed.

    :param varied: request fields that the response depends on; they are added to ``Vary``.
    """
    stored = tuple(headers)
    fields = [(name, value) for name, value in stored if name.lower() != "age"]
    if missing := missing_in_vary(stored, varied):
        fields.append(("Vary", ", ".join(missing)))
    return fields
