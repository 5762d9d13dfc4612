"""Finds the entry of a URL without a walk: builds a request for the URL, from which the cache keys are computed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit

from ..core.model.keys import RAW_PATHS
from ..errors import ConfigError

#: Characters that browsers do not quote in a path and in a query.
_PATH, _QUERY = "%/:@!$&'()*+,;=~", "%/:@!$&'()*+,;=~?[]"


def request_for(url: str, environ: Mapping[str, Any]) -> dict[str, Any]:
    """Return the WSGI environ of a request for a URL, as the server of the current request would make it.

    :param url: a path, on the host of the current request; or a full URL.
    :param environ: the WSGI environ of the current request.
    :raises ConfigError: if it is no URL.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError(f"url={url!r}: {error}") from None
    raw, query = quote(parts.path or "/", safe=_PATH), quote(parts.query, safe=_QUERY)
    path, root = unquote_to_bytes(raw).decode("latin-1"), environ.get("SCRIPT_NAME", "")
    is_here = path == root or path.startswith(f"{root}/")
    asked = {
        **environ,
        "SCRIPT_NAME": root if is_here else "",
        "PATH_INFO": path.removeprefix(root) if is_here else path,
        "QUERY_STRING": query,
        **{name: f"{raw}?{query}" if query else raw for name in RAW_PATHS if environ.get(name)},
    }
    return {**asked, "wsgi.url_scheme": parts.scheme, "HTTP_HOST": parts.netloc} if parts.netloc else asked
