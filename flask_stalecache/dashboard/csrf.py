"""Whether a form was sent from our own page: a token in the session, and what browsers say of where it came from."""

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
    """Return the token that forms of this visitor carry.

    :raises ConfigError: if the app has no session to keep it in.
    """
    if isinstance(session, NullSession):
        raise ConfigError("the dashboard's forms need a session, and the app has none: set app.secret_key")
    known: str | None = session.get(_TOKEN)
    if known is None:
        known = session[_TOKEN] = token_urlsafe(32)
    return known


def is_ours(request: Request) -> bool:
    """Whether a form carries this visitor's token, and was sent from a page of this host."""
    known, sent = session.get(_TOKEN), request.form.get("token", "")
    if not isinstance(known, str) or not hmac.compare_digest(known.encode(), sent.encode("utf-8", "replace")):
        return False
    return _comes_from_here(request)


def _comes_from_here(request: Request) -> bool:
    """Whether the browser says so, or says nothing: what sends neither field is no browser, or an old one."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        # Not what Origin says, since behind a proxy that passes on another Host it names the outer one.
        return site == "same-origin"
    try:
        return origin is None or urlsplit(origin).netloc == request.host
    except ValueError:
        return False
