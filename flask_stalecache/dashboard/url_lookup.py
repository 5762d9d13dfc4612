"""Finds the entry of a URL without a walk: builds a request for the URL, from which the cache keys are computed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit

from ..core.addressing.arrival import place_of_path, unsent
from ..core.addressing.keys import RAW_PATHS, host_of
from ..core.model.environ import as_arrived
from ..errors import ConfigError

#: Characters that browsers do not quote in a path and in a query.
_PATH, _QUERY = "%/:@!$&'()*+,;=~", "%/:@!$&'()*+,;=~?[]"
#: The same in a path that is decoded.
_DECODED = _PATH.removeprefix("%")


def request_for(url: str, environ: Mapping[str, Any]) -> dict[str, Any]:
    """Return the WSGI environ of a request for a URL, as the server of the current request would make it.

    :param url: a path, on the host of the current request; or a full URL.
    :param environ: the WSGI environ of the current request.
    :raises ConfigError: if it is not a URL.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError(f"url={url!r}: {error}") from None
    raw, query = quote(parts.path or "/", safe=_PATH), quote(parts.query, safe=_QUERY)
    path, root = unquote_to_bytes(raw).decode("latin-1"), environ.get("SCRIPT_NAME", "")
    is_here = path == root or path.startswith(f"{root}/")
    sent = raw.removeprefix(unsent(environ))
    asked = {
        **environ,
        "SCRIPT_NAME": root if is_here else "",
        "PATH_INFO": path.removeprefix(root) if is_here else path,
        "QUERY_STRING": query,
        **{name: f"{sent}?{query}" if query else sent for name in RAW_PATHS if environ.get(name)},
    }
    return {**asked, "wsgi.url_scheme": parts.scheme, "HTTP_HOST": parts.netloc} if parts.netloc else asked


def arriving(asked: Mapping[str, Any], environ: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request for a URL as it would arrive in front of all middleware of the app, as far as that is known.

    :param asked: the request as the app would see it.
    :param environ: the WSGI environ of the current request.
    """
    arrived, path = as_arrived(environ), asked["SCRIPT_NAME"] + asked["PATH_INFO"]
    place = place_of_path(quote(path.encode("latin-1"), safe=_DECODED), arrived, environ)
    if place is None or host_of(asked) != host_of(environ):
        return dict(asked)
    root = arrived.get("SCRIPT_NAME", "")
    is_below = place.path == root or place.path.startswith(f"{root}/")
    query = asked["QUERY_STRING"]
    return {
        **arrived,
        "SCRIPT_NAME": root if is_below else "",
        "PATH_INFO": place.path.removeprefix(root) if is_below else place.path,
        "QUERY_STRING": query,
        **{name: f"{place.raw}?{query}" if query else place.raw for name in RAW_PATHS if environ.get(name)},
    }
