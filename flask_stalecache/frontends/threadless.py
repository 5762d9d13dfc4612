"""Servers under which no thread of ours runs, and what to say of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


def why_no_threads(environ: Mapping[str, Any]) -> str:
    """Return why no thread will run between requests, and the way out; "" if they may.

    :param environ: the WSGI environ of any request.
    """
    if environ.get("wsgi.run_once"):
        return "the server ends this process after one request (wsgi.run_once): run the app under a server that stays"
    uwsgi = sys.modules.get("uwsgi")
    # Since 2.0.27 it always has them, whatever its options say.
    if uwsgi is not None and not getattr(uwsgi, "has_threads", True):
        return "uWSGI runs no threads of the app: start it with --enable-threads"
    return ""
