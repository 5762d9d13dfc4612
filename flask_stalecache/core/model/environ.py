"""Names in a WSGI environ: those of request fields, and our own. Pure."""

from __future__ import annotations

#: In the environ: SCRIPT_NAME and PATH_INFO as they were when the request reached us, before any middleware further in.
ARRIVED = "flask_stalecache.arrived"
#: In the environ of every refresh, by which hooks can tell it from a visit.
REFRESHING = "flask_stalecache.refreshing"
#: In the environ: the refresh of a page that this request is, which is for its view and nobody before.
REPLAY = "flask_stalecache.replay"
#: In the environ: a request that fills what is not stored, before visitors come.
WARMING = "flask_stalecache.warming"


def environ_name(header: str) -> str:
    """Return the WSGI environ's key of a request field."""
    name = header.upper().replace("-", "_")
    return name if name in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{name}"
