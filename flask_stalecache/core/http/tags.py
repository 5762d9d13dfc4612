"""Tags in response fields, as apps send them to a CDN: ``Surrogate-Key``, ``Cache-Tag``, ``xkey``. Pure.

Fastly and Varnish separate them by spaces, Cloudflare and Akamai by commas. No tag contains either, so both separate tags.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from .fields import Headers

#: The fields that are read by default.
TAG_FIELDS = ("Surrogate-Key", "Cache-Tag", "xkey")
_SEPARATORS = re.compile(r"[\s,]+")


def tags_in_fields(headers: Headers, names: Collection[str]) -> tuple[str, ...]:
    """Return the tags in all lines of some fields, without duplicates.

    :param names: the names of the fields, in lower case.
    """
    lines = [_as_typed(value) for name, value in headers if name.lower() in names]
    return tuple(dict.fromkeys(tag for line in lines for tag in _SEPARATORS.split(line) if tag))


def without_fields(headers: Headers, names: Collection[str]) -> list[tuple[str, str]]:
    """Return the fields except those with these names, which are in lower case."""
    return [(name, value) for name, value in headers if name.lower() not in names]


def _as_typed(value: str) -> str:
    """Return a value as developers type it: PEP 3333 decodes the bytes as Latin-1, but most apps mean UTF-8."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value
