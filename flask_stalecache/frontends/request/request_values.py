"""The random-looking values that an app keeps for one request: in ``g``, or as attributes of the request object."""

from __future__ import annotations

from flask import Request, g

from .kept_values import is_random

#: Attributes that Werkzeug sets in each request.
_OF_WERKZEUG = frozenset(
    {"environ", "headers", "host", "json_module", "method", "path", "query_string", "remote_addr", "root_path", "scheme", "server"}
)


def values_kept_for(request: Request) -> tuple[tuple[str, str], ...]:
    """Return names and values that the app keeps for the current request.

    :param request: the current request.
    """
    environ = request.environ
    # A value from the URL is in the key.
    url = "".join(str(environ.get(name, "")) for name in ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING"))
    own = {name: value for name, value in request.__dict__.items() if not _is_werkzeugs(name)}
    return tuple(
        (f"{place}.{name}", value)
        for place, values in (("g", getattr(g, "__dict__", {})), ("request", own))
        for name, value in list(values.items())
        if isinstance(value, str) and is_random(value) and value not in url
    )


def _is_werkzeugs(name: str) -> bool:
    return name.startswith("_") or name in _OF_WERKZEUG or hasattr(Request, name)
