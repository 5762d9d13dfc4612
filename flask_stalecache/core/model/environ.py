"""Keys of a WSGI environ: those of request fields, and our own. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: The URL variables of the request as it arrived, before inner middleware changed them.
ARRIVED = "flask_stalecache.arrived"
#: The report on a request by the app behind a gateway. Copies of the environ share it.
REPORT = "flask_stalecache.report"
#: Set in every refresh, so that hooks can tell it from a visit.
REFRESHING = "flask_stalecache.refreshing"
#: The refresh that this request belongs to. Only the view of its page may answer it.
REPLAY = "flask_stalecache.replay"
#: Set in a HEAD request that is looked up as GET.
CONVERTED = "flask_stalecache.converted"
#: Set in a request that warms the cache.
WARMING = "flask_stalecache.warming"
#: The session of a refresh: only the values that are in the key.
GIVEN_SESSION = "flask_stalecache.given_session"
#: Set in a request that is made to find out how and why it is answered.
PROBE = "flask_stalecache.probe"


#: The variables that make up the URL of a request. Middleware may change them.
URL_VARIABLES = ("wsgi.url_scheme", "HTTP_HOST", "SERVER_NAME", "SERVER_PORT", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING")


def url_variables(environ: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the URL variables of a request; ``None`` for one that is absent."""
    get = environ.get
    return {name: get(name) for name in URL_VARIABLES}


def as_arrived(environ: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the environ of a request with the URL variables that it arrived with."""
    arrived = environ.get(ARRIVED)
    return environ if arrived is None else with_variables(environ, arrived)


def with_variables(environ: Mapping[str, Any], changes: Mapping[str, str | None]) -> dict[str, Any]:
    """Return an environ with some variables changed; ``None`` removes one."""
    kept = {name: value for name, value in environ.items() if name not in changes}
    return {**kept, **{name: value for name, value in changes.items() if value is not None}}


def environ_name(header: str) -> str:
    """Return the WSGI environ's key of a request field."""
    name = header.upper().replace("-", "_")
    return name if name in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{name}"


#: Variables of the environ with the query.
QUERY_VARIABLES = frozenset({"QUERY_STRING", "RAW_URI", "REQUEST_URI"})
#: Variables that are in every key, or the same in every request to an app. SERVER_PORT is not: an app may listen on several ports.
_ANYBODYS = frozenset(
    {
        "DOCUMENT_ROOT", "GATEWAY_INTERFACE", "HTTPS", "PATH_INFO", "REQUEST_METHOD", "SCRIPT_NAME", "SERVER_SOFTWARE",
        "werkzeug.request",
    }
)  # fmt: skip
_ANYBODYS_PREFIXES = ("wsgi.", "flask.", "flask_stalecache.")


def field_of(variable: str) -> str | None:
    """Return the request field in a variable of the environ, in lower case; ``None`` if the variable is no field."""
    if variable.startswith("HTTP_"):
        return variable[5:].replace("_", "-").lower()
    return variable.replace("_", "-").lower() if variable in {"CONTENT_TYPE", "CONTENT_LENGTH"} else None


def is_anybodys(variable: str) -> bool:
    """Whether a variable of the environ reveals nothing about the visitor beyond what the key contains."""
    return variable in _ANYBODYS or variable.startswith(_ANYBODYS_PREFIXES)
