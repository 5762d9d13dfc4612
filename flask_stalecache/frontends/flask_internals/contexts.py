"""The contexts of apps and requests, and how they are hidden from memoized calls."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Protocol

import flask.globals
from flask import Flask, Request, current_app, request
from werkzeug.local import LocalProxy
from werkzeug.routing import MapAdapter

from ...core.addressing.base_url import Base
from ...core.kept_by_class import kept_by_class

# Not imported by name, which would fail or warn if a name is missing or deprecated: check_versions reports that.
GLOBALS = vars(flask.globals)


class RequestContext(Protocol):
    """The context of a request. Flask's own class is merged into another one in 3.2, where importing it warns."""

    @property
    def app(self) -> Flask:
        """The app that answers."""

    @property
    def request(self) -> Request:
        """The request."""


class _AppContext(Protocol):
    @property
    def app(self) -> Flask:
        """The current app."""

    @property
    def g(self) -> Any:
        """The object in which the app keeps values until the context ends."""


#: The variable with the context of the current app. ``current_app`` is public, but a proxy costs a fifth of a memoized hit.
app_context_variable: ContextVar[_AppContext] = GLOBALS.get("_cv_app") or ContextVar("no_app_context")
#: The variable with the context of the current request; in Flask 3.2, that of the current app.
request_context_variable: ContextVar[RequestContext] = GLOBALS.get("_cv_request") or app_context_variable  # type: ignore[assignment]
#: Whether a request and its app have one context, as in Flask 3.2.
IS_MERGED = "_cv_request" not in GLOBALS


def request_context() -> RequestContext:
    """Return the context of the current request, since no public name gives app, request and session at the cost of one lookup.

    :raises RuntimeError: Flask's own, outside of a request.
    """
    context = request_context_variable.get(None)
    if context is None:
        request._get_current_object()  # type: ignore[attr-defined]
    return context  # type: ignore[return-value]


def outer_context() -> _AppContext | None:
    """Return the context of the current app; ``None`` outside of one."""
    return app_context_variable.get(None)


def own_globals(context: _AppContext) -> Any:
    """Return the ``g`` that a context was made with, even during a call that sees another one."""
    return vars(context).get("g")


def can_hide_caller(context: _AppContext) -> bool:
    """Give a context a class whose attributes can be hidden. Return false if the app's own context class does not allow that."""
    if isinstance(vars(type(context)).get("g"), _Hidden):
        return True
    try:
        context.__class__ = kept_by_class(type(context), "_stalecache_hiding", _hiding)
    except TypeError:
        return False
    return True


def hide_caller(context: _AppContext, call_globals: Any, url_adapter: Any) -> None:
    """Enter the context of a caller with its request, session and ``g`` hidden, until the current context variables are dropped.

    Only code with these context variables is affected: other threads of the request still see the whole context. It stays the same
    object, since extensions keep database sessions by the identity of the context.

    :param context: one of which :func:`can_hide_caller` is true.
    :param call_globals: stands in for ``g``.
    :param url_adapter: builds URLs.
    """
    shown: dict[str, Any] = {"g": call_globals, "url_adapter": url_adapter}
    if hasattr(context, "has_request"):
        shown |= dict.fromkeys(_OF_REQUEST) | {"_after_request_functions": []}
    _call.set((context, shown))
    app_context_variable.set(context)


#: The context that a call shares with its caller, and the values that hidden attributes of the context have in the call.
_call: ContextVar[tuple[object, dict[str, Any]]] = ContextVar("stalecache_call")
#: The attributes of the app's context in which Flask 3.2 keeps parts of the request.
_OF_REQUEST = ("_request", "_session", "_flashes", "flashes")


class _Hidden:
    """An attribute of a context that has another value in calls."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, context: object, owner: type | None = None) -> Any:
        try:
            return _shown(context)[self._name]
        except KeyError:
            raise AttributeError(self._name) from None

    def __set__(self, context: object, value: object) -> None:
        _shown(context)[self._name] = value


def _shown(context: object) -> dict[str, Any]:
    call = _call.get(None)
    return call[1] if call is not None and call[0] is context else vars(context)


def _hiding(kind: type) -> type:
    """Return a subclass of a class of contexts whose attributes are hidden from calls."""
    names = ("g", "url_adapter", *(("_after_request_functions", *_OF_REQUEST) if hasattr(kind, "has_request") else ()))
    return type(kind.__name__, (kind,), {"__module__": kind.__module__, **{name: _Hidden(name) for name in names}})


def request_or_none() -> Request | None:
    """Return the current request; ``None`` without one. For the hot path: the proxy costs several times as much."""
    context = request_context_variable.get(None)
    return None if context is None or (IS_MERGED and not context.has_request) else context.request  # type: ignore[attr-defined]


def current_flask_app() -> Flask:
    """Return the app behind the proxy ``current_app``, for use beyond the current context."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    return app


def is_request_missing(error: RuntimeError) -> bool:
    """Whether an error says that code used the request outside of one. Flask has no class of its own for it."""
    return str(error).startswith(("Working outside of request context", "There is no request in this context"))


def is_host_missing(error: RuntimeError) -> bool:
    """Whether an error says that code used ``url_for`` where there is neither a request nor ``SERVER_NAME``."""
    return str(error).startswith("Unable to build URLs outside an active request")


def url_adapter_of(app: Flask, base: Base) -> MapAdapter | None:
    """Return the adapter that builds the URLs of an app as in a request to a base URL."""
    return app.create_url_adapter(Request(base.recipe(base.address(str(base))).to_environ()))


def is_empty_proxy(value: object) -> bool:
    """Whether a value is a proxy without an object behind it, such as ``request`` outside of a request."""
    # By its type: a proxy answers for the object behind it.
    if not issubclass(type(value), LocalProxy):
        return False
    try:
        return value._get_current_object() is None  # type: ignore[attr-defined]
    except RuntimeError:
        return True
