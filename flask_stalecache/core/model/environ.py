"""Keys of a WSGI environ: those of request fields, and our own. Pure."""

from __future__ import annotations

#: SCRIPT_NAME and PATH_INFO as the request arrived, before inner middleware changed them.
ARRIVED = "flask_stalecache.arrived"
#: Set in every refresh, so that hooks can tell it from a visit.
REFRESHING = "flask_stalecache.refreshing"
#: The refresh that this request belongs to. Only the view of its page may answer it.
REPLAY = "flask_stalecache.replay"
#: Set in a request that warms the cache.
WARMING = "flask_stalecache.warming"


def environ_name(header: str) -> str:
    """Return the WSGI environ's key of a request field."""
    name = header.upper().replace("-", "_")
    return name if name in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{name}"
