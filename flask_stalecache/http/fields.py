"""Which fields are stored, and what ``Vary`` names (RFC 9111 sections 3.1 and 4.1)."""

from __future__ import annotations

from collections.abc import Iterable

from ..policy import HOP_BY_HOP

#: A copy's own length is computed anew.
_NOT_STORED = HOP_BY_HOP | {"content-length"}


def stored_fields(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return the fields to store: all but hop-by-hop ones, those that Connection names, and Content-Length."""
    fields = list(headers)
    named = {token for name, value in fields if name.lower() == "connection" for token in listed(value)}
    return tuple((name, value) for name, value in fields if name.lower() not in _NOT_STORED and name.lower() not in named)


def listed(value: str) -> list[str]:
    """Return the members of a comma-separated field of tokens, in lower case."""
    return [token.strip().lower() for token in value.split(",") if token.strip()]


def vary_names(headers: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Return the field names in all Vary lines, in lower case."""
    return frozenset(token for name, value in headers if name.lower() == "vary" for token in listed(value))
