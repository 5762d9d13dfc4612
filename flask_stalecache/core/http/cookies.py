"""Finds named cookies in a Cookie field (RFC 6265 section 5.4). Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from werkzeug.sansio.http import parse_cookie

#: A value that all parsers read alike: the characters that are allowed, perhaps in quotes (RFC 6265 section 4.1.1).
_PLAIN = re.compile(r'("?)[!#-+\--:<-\[\]-~]*\1')


def only_named(field: str | None, names: Collection[str]) -> str | None:
    """Return a Cookie field reduced to some cookies, as received and in order; ``None`` if it has none of them.

    A part without ``=`` is left out: some parsers take it for a name, others for a value.

    :param field: the field; ``None`` without it.
    :param names: the names of these cookies.
    """
    parts = [part.strip() for part in (field or "").split(";")]
    kept = [part for part in parts if "=" in part and part.partition("=")[0].strip() in names]
    return "; ".join(kept) if kept else None


def raw_values(field: str | None, name: str) -> list[str]:
    """Return the values of a cookie as received, in their order: it may occur several times.

    :param field: the field; ``None`` without it.
    """
    parts = [part.partition("=") for part in (field or "").split(";") if "=" in part]
    return [value.strip() for found, _, value in parts if found.strip() == name]


def values(field: str | None, name: str) -> Sequence[str]:
    """Return the values of a cookie as Flask reads them, in their order.

    :param field: the field; ``None`` without it.
    """
    return parse_cookie(field).getlist(name)


def is_plain(raw: str) -> bool:
    """Whether all parsers read a value alike."""
    return _PLAIN.fullmatch(raw) is not None


def unquoted(raw: str) -> str:
    """Return a plain value without its quotes."""
    return raw[1:-1] if raw.startswith('"') else raw
