"""What a query parameter is called, just as the app sees it. Pure."""

from __future__ import annotations

from urllib.parse import parse_qsl

import werkzeug.urls  # noqa: F401  It registers the error handler that Werkzeug's request uses.


def parameter_name(part: str) -> str:
    """Return the name of one ``name=value`` part of a query.

    :param part: as in the WSGI environ: bytes as latin-1.
    """
    decoded = part.encode("latin-1", "replace").decode("utf-8", "replace")
    pairs = parse_qsl(decoded, keep_blank_values=True, errors="werkzeug.url_quote")
    return pairs[0][0] if pairs else ""
