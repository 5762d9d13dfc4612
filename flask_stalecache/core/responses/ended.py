"""Sets the lifetime of a response to 0 for other caches, if its freshness has ended early. Pure.

A soft purge or a deploy ends freshness early. Caches that get the old response must not keep it for the rest of its lifetime:

=============================================================== ==============================================================
field                                                           what is sent
=============================================================== ==============================================================
``max-age`` and ``s-maxage`` in ``Cache-Control``, a targeted   0. The other directives, such as stale windows, stay as
field (RFC 9213), ``Surrogate-Control`` or ``Edge-Control``     they are
``X-Accel-Expires``                                             0
``Expires`` without them                                        a date in the past
none of them, but ``Last-Modified``                             ``Cache-Control: max-age=0`` is added, since a cache could
                                                                guess a lifetime (RFC 9111 section 4.2.2)
=============================================================== ==============================================================

A higher ``Age`` would also do for caches that read it. But ``Age`` says when the origin answered (RFC 9111 section 5.1), and nginx
does not read it.
"""

from __future__ import annotations

import re

from ..http.fields import Headers

_PAST = "Thu, 01 Jan 1970 00:00:00 GMT"
_LIFETIME = re.compile(r'(?<![\w-])((?:s-maxage|max-age)\s*=\s*)(?:"[^"]*"|[^\s,;"]*)', re.IGNORECASE)
_BY_EDGES = ("surrogate-control", "edge-control")


def without_freshness(headers: Headers) -> list[tuple[str, str]]:
    """Return the fields of a response with its lifetime set to 0 for every cache that gets it."""
    fields = [(name, _ended(name.lower(), value)) for name, value in headers]
    names = {name.lower() for name, _ in fields}
    is_said = any(name.lower() == "cache-control" and _LIFETIME.search(value) for name, value in fields)
    if not is_said and "last-modified" in names and "expires" not in names:
        fields.append(("Cache-Control", "max-age=0"))
    return fields


def _ended(name: str, value: str) -> str:
    if name == "expires":
        return _PAST
    if name == "x-accel-expires":
        return "0"
    if name.endswith("cache-control") or name in _BY_EDGES:
        return _LIFETIME.sub(r"\g<1>0", value)
    return value
