"""The way to the page of a URL that does not lead through the whole store: a request for it, from which its keys are made. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit

from ..core.model.keys import RAW_PATHS
from ..errors import ConfigError

#: What browsers leave as it is in a path and in a query.
_PATH, _QUERY = "%/:@!$&'()*+,;=~", "%/:@!$&'()*+,;=~?[]"


def request_for(url: str, environ: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request for a URL, as the server that this request came through would hand it over.

    :param url: a path, on the host of this request; or a full URL.
    :param environ: the WSGI environ of this request.
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
