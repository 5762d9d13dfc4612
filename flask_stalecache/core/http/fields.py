"""Header fields: how they are looked up, which are stored, and what ``Vary`` names (RFC 9111 sections 3.1 and 4.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from ..model.policy import HOP_BY_HOP

#: A response's fields, in order; a name may come several times.
Headers: TypeAlias = "Iterable[tuple[str, str]]"
#: A request's fields: the value for a name in lower case, several lines joined by commas; ``None`` for a field that is not there.
Lookup: TypeAlias = "Callable[[str], str | None]"

#: Two fields of a request have no prefix in an environ (PEP 3333).
_UNPREFIXED = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}


def request_fields(environ: Mapping[str, Any]) -> Lookup:
    """Return the look-up of a WSGI request's fields."""

    def look_up(name: str) -> str | None:
        value = environ.get(_UNPREFIXED.get(name) or f"HTTP_{name.upper().replace('-', '_')}")
        return None if value is None else str(value)

    return look_up


def lines_of(headers: Headers, name: str) -> list[str]:
    """Return the values of all lines of a field, in order.

    :param name: in lower case.
    """
    return [value for other, value in headers if other.lower() == name]


def first_of(headers: Headers, name: str) -> str | None:
    """Return the value of a field's first line; ``None`` if it has none.

    :param name: in lower case.
    """
    return next((value for other, value in headers if other.lower() == name), None)


def stored_fields(headers: Headers) -> tuple[tuple[str, str], ...]:
    """Return the fields to store: all but hop-by-hop ones, those that Connection names, Proxy-* and Content-Length."""
    return tuple((name, value) for name, value in end_to_end(headers) if _is_stored(name.lower()))


def _is_stored(name: str) -> bool:
    # The length of what is stored is counted anew.
    return name != "content-length" and not name.startswith("proxy-")


def end_to_end(headers: Headers) -> list[tuple[str, str]]:
    """Return the fields that go on: all but hop-by-hop ones and those that Connection names (RFC 9110 section 7.6.1)."""
    fields = list(headers)
    named = {token for value in lines_of(fields, "connection") for token in listed(value)}
    return [(name, value) for name, value in fields if name.lower() not in HOP_BY_HOP and name.lower() not in named]


def content_length(headers: Headers) -> int | None:
    """Return the bytes that a response says its body has; ``None`` if it does not say, or not in one good number."""
    lines = lines_of(headers, "content-length")
    # Cut, since int() refuses thousands of digits; no body has as many bytes.
    return int(lines[0][:18]) if len(lines) == 1 and lines[0].isascii() and lines[0].isdigit() else None


def is_event_stream(headers: Headers) -> bool:
    """Whether a response is a stream of server-sent events: its body has no end."""
    return any(value.lower().startswith("text/event-stream") for value in lines_of(headers, "content-type"))


def listed(value: str) -> list[str]:
    """Return the members of a comma-separated field of tokens, in lower case."""
    return [token.strip().lower() for token in value.split(",") if token.strip()]


def vary_names(headers: Headers) -> frozenset[str]:
    """Return the field names in all Vary lines, in lower case."""
    return frozenset(token for value in lines_of(headers, "vary") for token in listed(value))


def missing_in_vary(headers: Headers, varied: Iterable[str]) -> list[str]:
    """Return the request fields that an answer depends on and that its ``Vary`` does not name."""
    named = vary_names(headers)
    return [name for name in varied if name.lower() not in named]


def fields_to_send(headers: Headers, varied: Iterable[str]) -> list[tuple[str, str]]:
    """Return the fields of a stored response with which it is sent, without Age and Content-Length.

    A cache nearer to the origin may have added its own Age. It is part of the entry's age, from which ours is computed.

    :param varied: request fields that the response depends on; they are added to ``Vary``.
    """
    stored = tuple(headers)
    fields = [(name, value) for name, value in stored if name.lower() != "age"]
    if missing := missing_in_vary(stored, varied):
        fields.append(("Vary", ", ".join(missing)))
    return fields
