"""Sessions of Flask: when they are opened, which code reads them, and the content of their signed cookies."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from operator import itemgetter
from types import FrameType, MappingProxyType
from typing import Any, NamedTuple
from weakref import WeakSet

from flask import Flask
from flask.sessions import NullSession, SecureCookieSession, SecureCookieSessionInterface
from itsdangerous import BadSignature, SignatureExpired
from werkzeug.sansio.http import parse_cookie

from .contexts import IS_MERGED, RequestContext, request_context_variable

_OPEN_SESSION = SecureCookieSessionInterface.open_session
#: The code with which Flask saves a session.
SAVE_SESSION = SecureCookieSessionInterface.save_session.__code__
#: The classes of the sessions that Flask's own interface opens.
FLASKS_SESSIONS = SecureCookieSession, NullSession
#: The apps that are configured with an opener of their sessions.
APPS_WITH_OPENER: WeakSet[Flask] = WeakSet()
#: The package of Flask-Session, whose interfaces load the values that they keep on the server.
_FLASK_SESSION = "flask_session."
#: The keys that Flask itself sets in a session, for its lifetime and for messages that are shown once.
SESSION_BOOKKEEPING = frozenset({"_permanent", "_flashes"})


def session_of(context: RequestContext) -> Any:
    """Return the session without marking it as accessed, as the public ``session`` does."""
    return context._get_session() if IS_MERGED else context._session  # type: ignore[attr-defined]


def replace_session(context: RequestContext, session: Any) -> None:
    """Put another session in the place of the one that was opened. The public attribute can't be set."""
    context._session = session  # type: ignore[attr-defined]


def app_opening_session() -> Flask | None:
    """Return the current app while it opens the session of a request; no signal or hook marks that moment."""
    context = request_context_variable.get(None)
    if context is None or (IS_MERGED and not context.has_request) or context._session is not None:  # type: ignore[attr-defined]
        return None
    return context.app


def has_flasks_sessions(app: Flask) -> bool:
    """Whether an app has Flask's own session interface, exactly, which does nothing but load the values when it opens a session.

    Any other interface may look up the visitor then.
    """
    interface = app.session_interface
    if type(interface) is not SecureCookieSessionInterface or interface.session_class is not SecureCookieSession:
        return False
    # Neither a function in the instance nor one that was put into the class.
    return SecureCookieSessionInterface.open_session is _OPEN_SESSION and "open_session" not in interface.__dict__


def loads_sessions_only(app: Flask, session: Any = None) -> bool:
    """Whether an app's session interface does nothing but load the values when it opens a session.

    Flask's own interface and those of Flask-Session do, and any other one if the app has configured an opener for it.

    :param session: a session that the interface has opened, whose class is checked too; ``None``: it is about to open one.
    """
    interface, kind = app.session_interface, type(session)
    if has_flasks_sessions(app):
        return session is None or kind is SecureCookieSession or kind is NullSession
    if app in APPS_WITH_OPENER:
        return session is None or isinstance(session, dict)
    is_own = type(interface).__module__.startswith(_FLASK_SESSION) and "open_session" not in vars(interface)
    return is_own and (session is None or (kind.__module__.startswith(_FLASK_SESSION) and isinstance(session, dict)))


class SavedSession(NamedTuple):
    """A session as read from its cookie.

    :ivar keys: its keys.
    :ivar signed: when the cookie was signed, in whole seconds since the epoch.
    :ivar valid_until: the last second in which it is valid.
    :ivar prolonged_within: its lifetime, if the app prolongs it at each request; else 0.
    :ivar values: its values that were requested, by their keys.
    """

    keys: frozenset[str] = frozenset()
    signed: float = -math.inf
    valid_until: float = math.inf
    prolonged_within: float = 0.0
    values: Mapping[str, Any] = MappingProxyType({})


def saved_session(app: Flask, field: str, kept: frozenset[str] = frozenset()) -> SavedSession | None:
    """Return the session that Flask's own interface loads from a Cookie field; ``None`` if the signature is out of time.

    Raises the interface's exception for a cookie with a valid signature that can't be decoded.

    :param field: the Cookie field.
    :param kept: the keys whose values are wanted.
    """
    value, signer = parse_cookie(field).get(session_cookie(app)), app.session_interface.get_signing_serializer(app)  # type: ignore[attr-defined]
    if not value or signer is None:
        return SavedSession()
    lifetime = int(app.permanent_session_lifetime.total_seconds())
    try:
        values, signed = signer.loads(value, max_age=lifetime, return_timestamp=True)
    except SignatureExpired:
        return None
    except BadSignature:
        return SavedSession()
    values, at = dict(values), int(signed.timestamp())
    is_prolonged = bool(values.get("_permanent")) and app.config["SESSION_REFRESH_EACH_REQUEST"]
    wanted = {key: value for key, value in values.items() if key in kept} if kept else {}
    return SavedSession(frozenset(values), at, at + lifetime, lifetime if is_prolonged else 0.0, MappingProxyType(wanted))


#: Returns the settings of an app by which Flask's own interface loads sessions. The name of the cookie comes first.
session_settings = itemgetter(
    "SESSION_COOKIE_NAME", "SECRET_KEY", "SECRET_KEY_FALLBACKS", "PERMANENT_SESSION_LIFETIME", "SESSION_REFRESH_EACH_REQUEST"
)


def around_sessions(
    app: Flask, opened: Callable[[RequestContext, Any], None], handed_out: Callable[[RequestContext, Any, FrameType], Any]
) -> None:
    """Run a step when a request has opened its session, before other code can read it, and one when code gets it from the context.

    No signal or hook runs before URL converters. The second step is also given the frame of that code, and returns the session.
    """
    make: Any = app.request_context
    kind_of: Any = lru_cache(maxsize=64)(partial(_noting_session, opened=opened, handed_out=handed_out))
    usual = _class_of_contexts() if getattr(make, "__func__", None) is Flask.request_context else None
    if usual is not None:
        # With the right class from the start: changing it afterwards costs a hit as much as ten calls.
        app.request_context = partial(kind_of(usual), app)  # type: ignore[method-assign]
        return

    def request_context(environ: dict[str, Any]) -> Any:
        context = make(environ)
        # The app's own class of contexts may not allow it: then a session counts as one name, that of its cookie.
        try:
            context.__class__ = kind_of(type(context))
        except (AttributeError, TypeError):
            return context
        return context

    app.request_context = request_context  # type: ignore[method-assign]


def _class_of_contexts() -> type | None:
    """Return the class that Flask calls with an app and an environ for the context of a request; ``None`` if it does otherwise."""
    function = Flask.request_context
    names = function.__code__.co_names
    return function.__globals__.get(names[0]) if len(names) == 1 else None


def _noting_session(kind: Any, opened: Callable[[Any, Any], None], handed_out: Callable[[Any, Any, FrameType], Any]) -> type:
    """Return a class of contexts that runs a step when the session is opened, and one when code gets it."""
    ask, match = kind.session.fget, kind.match_request

    def match_request(self: Any) -> None:
        # Flask calls it as soon as it has opened the session. Without a URL adapter it does not: then the session is one name.
        opened(self, self._session)
        match(self)

    def session(self: Any) -> Any:
        return handed_out(self, ask(self), sys._getframe(1))

    members = {"__module__": kind.__module__, "match_request": match_request, "session": property(session)}
    return type(kind.__name__, (kind,), members)


def is_flask_opening_session(frame: FrameType) -> bool:
    """Whether code that reads cookies is exactly Flask's own session interface, opening a session: it reads no other cookie.

    :param frame: the frame of the code that reads.
    """
    if frame.f_code is not _OPEN_SESSION.__code__:
        return False
    # app_opening_session() written out, since every hit gets here.
    context: Any = request_context_variable.get(None)
    if context is None or (IS_MERGED and not context.has_request) or context._session is not None:
        return False
    return has_flasks_sessions(context.app)


def session_cookie(app: Flask) -> str:
    """Return the name of the session's cookie."""
    named = getattr(app.session_interface, "get_cookie_name", None)
    return str(app.config["SESSION_COOKIE_NAME"] if named is None else named(app))
