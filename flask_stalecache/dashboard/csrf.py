"""CSRF protection: a form needs a token from the session, and must come from a page of this host.

=================== ========================= ================================
``Sec-Fetch-Site``  ``Origin``                accepted
=================== ========================= ================================
``same-origin``     (ignored)                 yes
another value       (ignored)                 no
absent              absent                    yes: no browser, or an old one
absent              of this host              yes
absent              of another host           no
=================== ========================= ================================
"""

from __future__ import annotations

import hmac
from secrets import token_urlsafe
from urllib.parse import urlsplit

from flask import Request, session
from flask.sessions import NullSession

from ..errors import ConfigError

#: Where the session keeps the token.
_TOKEN = "_stalecache_token"


def token() -> str:
    """Return the token for the forms of this visitor.

    :raises ConfigError: if the app has no session.
    """
    if isinstance(session, NullSession):
        raise ConfigError("the dashboard's forms need a session, and the app has none: set app.secret_key")
    known: str | None = session.get(_TOKEN)
    if known is None:
        known = session[_TOKEN] = token_urlsafe(32)
    return known


def is_ours(request: Request) -> bool:
    """Whether a form has this visitor's token and was sent from a page of this host."""
    known, sent = session.get(_TOKEN), request.form.get("token", "")
    if not isinstance(known, str) or not hmac.compare_digest(known.encode(), sent.encode("utf-8", "replace")):
        return False
    return _comes_from_here(request)


def _comes_from_here(request: Request) -> bool:
    """Whether the browser's fields allow the form; see the table above."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        # Origin is not compared then: behind a proxy that changes Host, it has the outer host.
        return site == "same-origin"
    try:
        return origin is None or urlsplit(origin).netloc == request.host
    except ValueError:
        return False
