"""The one seam to Flask and Werkzeug: every private or version-dependent name of theirs that we use.

Supports Flask 3.1, and Flask 3.2 as developed, which differs in:

====================  ======================================  =====================================================
what                  Flask 3.1                               Flask 3.2
====================  ======================================  =====================================================
request's context     ``RequestContext`` in ``_cv_request``   merged into ``AppContext``, in ``_cv_app``
no request            no context in ``_cv_request``           a context whose ``request`` raises ``RuntimeError``
session               opened when the context is pushed       opened by ``_get_session()``
methods of the app    ``process_response(response)``          ``process_response(ctx, response)``, and others likewise
====================  ======================================  =====================================================

:func:`check_versions` is called at start-up, so that a version that lacks a name fails there and not in a request.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache, partial
from importlib.metadata import version
from inspect import signature, unwrap
from operator import itemgetter
from types import FrameType, MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from weakref import WeakSet

import flask.globals
from flask import Flask, Request, current_app, request
from flask.sessions import NullSession, SecureCookieSession, SecureCookieSessionInterface
from itsdangerous import BadSignature, SignatureExpired
from jinja2 import Environment
from jinja2.runtime import Macro
from werkzeug.datastructures import EnvironHeaders, Headers
from werkzeug.local import LocalProxy
from werkzeug.routing import MapAdapter
from werkzeug.sansio.http import parse_cookie
from werkzeug.wrappers import Response

from ..core.model.base_url import Base
from ..errors import ConfigError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

# Not by import, which would fail or warn where a name is missing or deprecated: check_versions is to report that.
_globals = vars(flask.globals)


# -- contexts ----------------------------------------------------------------------------------------------------------


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
        """The values that the app keeps there until the context ends."""


#: The variable with the context of the current app. ``current_app`` is public, but a proxy costs a fifth of a memoized hit.
app_context_variable: ContextVar[_AppContext] = _globals.get("_cv_app") or ContextVar("no_app_context")
#: The variable with the context of the current request; in Flask 3.2, that of the current app.
request_context_variable: ContextVar[RequestContext] = _globals.get("_cv_request") or app_context_variable  # type: ignore[assignment]
#: The context of a request is that of its app.
_IS_MERGED = "_cv_request" not in _globals


def request_context() -> RequestContext:
    """Return the context of the current request, since no public name gives app, request and session at the cost of one look.

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
    """Return the ``g`` that a context was made with, also during a call that is given another one."""
    return vars(context).get("g")


def can_hide_caller(context: _AppContext) -> bool:
    """Make a context one whose attributes can be hidden, and return whether it is: the app may have contexts of its own class."""
    if isinstance(vars(type(context)).get("g"), _Hidden):
        return True
    try:
        context.__class__ = _hiding(type(context))
    except TypeError:
        return False
    return True


def hide_caller(context: _AppContext, call_globals: Any, url_adapter: Any) -> None:
    """Enter the context of a caller without its request, session and ``g``, until the current context variables are dropped.

    Only code with these context variables is affected: other threads of the request go on seeing all of it. It stays one object,
    since extensions keep database sessions by its identity.

    :param context: one of which :func:`can_hide_caller` is true.
    :param call_globals: stands in for ``g``.
    :param url_adapter: builds URLs.
    """
    shown: dict[str, Any] = {"g": call_globals, "url_adapter": url_adapter}
    if hasattr(context, "has_request"):
        shown |= dict.fromkeys(_OF_REQUEST) | {"_after_request_functions": []}
    _call.set((context, shown))
    app_context_variable.set(context)


#: The context that a call shares with its caller, and what the call sees of it.
_call: ContextVar[tuple[object, dict[str, Any]]] = ContextVar("stalecache_call")
#: What Flask 3.2 keeps of the request in the context of the app.
_OF_REQUEST = ("_request", "_session", "_flashes", "flashes")


class _Hidden:
    """An attribute of a context that calls see otherwise."""

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


@lru_cache(maxsize=64)
def _hiding(kind: type) -> type:
    """Return a subclass of a class of contexts whose attributes are hidden from calls."""
    names = ("g", "url_adapter", *(("_after_request_functions", *_OF_REQUEST) if hasattr(kind, "has_request") else ()))
    return type(kind.__name__, (kind,), {"__module__": kind.__module__, **{name: _Hidden(name) for name in names}})


def request_or_none() -> Request | None:
    """Return the current request; ``None`` without one. For hits: the proxy costs several times as much."""
    context = request_context_variable.get(None)
    return None if context is None or (_IS_MERGED and not context.has_request) else context.request  # type: ignore[attr-defined]


def current_flask_app() -> Flask:
    """Return the app behind the proxy ``current_app``, to keep beyond the current context."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    return app


def is_request_missing(error: RuntimeError) -> bool:
    """Whether an error says that code used the request where there is none. Flask has no class of its own for it."""
    return str(error).startswith(("Working outside of request context", "There is no request in this context"))


def is_host_missing(error: RuntimeError) -> bool:
    """Whether an error says that code used ``url_for`` where there is neither a request nor ``SERVER_NAME``."""
    return str(error).startswith("Unable to build URLs outside an active request")


def url_adapter_of(app: Flask, base: Base) -> MapAdapter | None:
    """Return what builds the URLs of an app as in a request to a base URL."""
    return app.create_url_adapter(Request(base.recipe(base.address(str(base))).to_environ()))


def is_empty_proxy(value: object) -> bool:
    """Whether a value is a proxy for what is not there, such as the request outside of one."""
    # By its type: a proxy answers for what is behind it.
    if not issubclass(type(value), LocalProxy):
        return False
    try:
        return value._get_current_object() is None  # type: ignore[attr-defined]
    except RuntimeError:
        return True


def home_of_macro(macro: Macro) -> tuple[Environment, str]:
    """Return the environment of a macro and the name of the template in which it is defined."""
    return macro._environment, str(macro._func.__globals__.get("name"))


# -- sessions ----------------------------------------------------------------------------------------------------------

_OPEN_SESSION = SecureCookieSessionInterface.open_session
#: The code with which Flask saves a session.
SAVE_SESSION = SecureCookieSessionInterface.save_session.__code__
#: The classes of the sessions that Flask's own interface opens.
FLASKS_SESSIONS = SecureCookieSession, NullSession
#: The apps that have named an opener of their sessions.
APPS_WITH_OPENER: WeakSet[Flask] = WeakSet()
#: The package of Flask-Session, whose interfaces load the values that they keep on the server.
_FLASK_SESSION = "flask_session."
#: What Flask itself keeps in a session: its lifetime, and messages that are shown once.
SESSION_BOOKKEEPING = frozenset({"_permanent", "_flashes"})


def session_of(context: RequestContext) -> Any:
    """Return the session without marking it as accessed, as the public ``session`` does."""
    return context._get_session() if _IS_MERGED else context._session  # type: ignore[attr-defined]


def replace_session(context: RequestContext, session: Any) -> None:
    """Put another session in the place of the one that was opened. The public attribute can't be set."""
    context._session = session  # type: ignore[attr-defined]


def app_opening_session() -> Flask | None:
    """Return the current app while it opens the session of a request; no signal or hook tells that moment."""
    context = request_context_variable.get(None)
    if context is None or (_IS_MERGED and not context.has_request) or context._session is not None:  # type: ignore[attr-defined]
        return None
    return context.app


def has_flasks_sessions(app: Flask) -> bool:
    """Whether an app has Flask's own session interface, exactly, which does nothing but load the values when it opens a session.

    Any other one may look up the visitor then.
    """
    interface = app.session_interface
    if type(interface) is not SecureCookieSessionInterface or interface.session_class is not SecureCookieSession:
        return False
    # Neither a function in the instance nor one that was put into the class.
    return SecureCookieSessionInterface.open_session is _OPEN_SESSION and "open_session" not in interface.__dict__


def loads_sessions_only(app: Flask, session: Any = None) -> bool:
    """Whether an app's session interface does nothing but load the values when it opens a session.

    Flask's own and those of Flask-Session do, and any other one that the app names an opener for.

    :param session: one that it has opened; it has to be of the interface's own class. ``None``: it is about to open one.
    """
    interface, kind = app.session_interface, type(session)
    if has_flasks_sessions(app):
        return session is None or kind is SecureCookieSession or kind is NullSession
    if app in APPS_WITH_OPENER:
        return session is None or isinstance(session, dict)
    is_own = type(interface).__module__.startswith(_FLASK_SESSION) and "open_session" not in vars(interface)
    return is_own and (session is None or (kind.__module__.startswith(_FLASK_SESSION) and isinstance(session, dict)))


class SavedSession(NamedTuple):
    """A session as its cookie says.

    :ivar keys: its keys.
    :ivar signed: when the cookie was signed, in whole seconds since the epoch.
    :ivar valid_until: the last second in which it is valid.
    :ivar prolonged_within: its lifetime, if the app prolongs it at each request; else 0.
    :ivar values: those values of it that are wanted, by their keys.
    """

    keys: frozenset[str] = frozenset()
    signed: float = -math.inf
    valid_until: float = math.inf
    prolonged_within: float = 0.0
    values: Mapping[str, Any] = MappingProxyType({})


def saved_session(app: Flask, field: str, kept: frozenset[str] = frozenset()) -> SavedSession | None:
    """Return the session that Flask's own interface loads from a Cookie field; ``None`` if it is out of time.

    Raises what that raises for a cookie that was signed, but can't be read.

    :param field: the field.
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


#: Returns, of a configuration, what Flask's own interface loads sessions by, the name of the cookie first.
session_settings = itemgetter(
    "SESSION_COOKIE_NAME", "SECRET_KEY", "SECRET_KEY_FALLBACKS", "PERMANENT_SESSION_LIFETIME", "SESSION_REFRESH_EACH_REQUEST"
)


def around_sessions(
    app: Flask, opened: Callable[[RequestContext, Any], None], handed_out: Callable[[RequestContext, Any, FrameType], Any]
) -> None:
    """Run a step when a request has got its session, before anything else can read it, and one when its context is asked for it.

    No signal or hook comes before URL converters. The second step is given the frame that asks, too, and returns the session.
    """
    make: Any = app.request_context
    kind_of: Any = lru_cache(maxsize=64)(partial(_noting_session, opened=opened, handed_out=handed_out))
    usual = _class_of_contexts() if getattr(make, "__func__", None) is Flask.request_context else None
    if usual is not None:
        # At once, since a change of the class costs a hit as much as ten calls.
        app.request_context = partial(kind_of(usual), app)  # type: ignore[method-assign]
        return

    def request_context(environ: dict[str, Any]) -> Any:
        context = make(environ)
        # An app may have contexts of its own class, which can't be extended: then its sessions are one name.
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
    """Return a class of contexts that tells when it has got a session, and who asks for that."""
    ask, match = kind.session.fget, kind.match_request

    def match_request(self: Any) -> None:
        # Flask calls it as soon as it has opened the session. Without a map of URLs it does not: then the session is one name.
        opened(self, self._session)
        match(self)

    def session(self: Any) -> Any:
        return handed_out(self, ask(self), sys._getframe(1))

    members = {"__module__": kind.__module__, "match_request": match_request, "session": property(session)}
    return type(kind.__name__, (kind,), members)


def is_flask_opening_session(frame: FrameType) -> bool:
    """Whether Flask's own session interface, exactly, opens the session of a request: it reads the session's cookie, and no other.

    :param frame: that of the code that reads.
    """
    if frame.f_code is not _OPEN_SESSION.__code__:
        return False
    # app_opening_session() written out, since every hit gets here.
    context: Any = request_context_variable.get(None)
    if context is None or (_IS_MERGED and not context.has_request) or context._session is not None:
        return False
    return has_flasks_sessions(context.app)


def session_cookie(app: Flask) -> str:
    """Return the name of the session's cookie."""
    named = getattr(app.session_interface, "get_cookie_name", None)
    return str(app.config["SESSION_COOKIE_NAME"] if named is None else named(app))


# -- readers ------------------------------------------------------------------------------------------------------------

#: Flask's own entry: all code that runs below it answers the request.
_APP_ENTRY = Flask.wsgi_app.__code__
#: The parts of the standard library that read an environ do so for their caller.
_FRAMEWORK = frozenset({"werkzeug", "flask", "wsgiref"})
_VIEW_ENTRY = Flask.dispatch_request.__code__
_OURS = "flask_stalecache"


_PACKAGES = ("werkzeug.", "flask.", "flask_stalecache.")


def outside_caller(frame: FrameType) -> str | None:
    """Return the module of a caller if it is outside Werkzeug, Flask and this package.

    Unlike :func:`outside_reader` it looks at no further frame, so that every hit can afford it.
    """
    name: str = frame.f_globals.get("__name__", "")
    return None if name.startswith(_PACKAGES) else name


def is_of_framework(module: str) -> bool:
    """Whether a module is one of Werkzeug's, Flask's or of this package."""
    return module.startswith(_PACKAGES)


def outside_reader(frame: FrameType) -> str | None:
    """Return the module of the first caller outside Werkzeug, Flask and this package; ``None`` if one of those reads for itself.

    :param frame: that of the code that reads.
    """
    caller: FrameType | None = frame
    while caller is not None:
        name = str(caller.f_globals.get("__name__", ""))
        package = name.partition(".")[0]
        if package not in _FRAMEWORK and package != _OURS:
            return name
        # Middleware of Werkzeug's may be called by middleware of the app's, which does not read by that.
        if package == _OURS or caller.f_code is _APP_ENTRY or name.startswith("werkzeug.middleware."):
            return None
        caller = caller.f_back
    return None


def is_in_view(frame: FrameType) -> bool:
    """Whether code runs in a view, rather than in a hook.

    :param frame: that of the code.
    """
    caller: FrameType | None = frame
    while caller is not None and caller.f_code is not _VIEW_ENTRY:
        caller = caller.f_back
    return caller is not None


def packages_of_view(app: Flask, endpoint: str | None) -> frozenset[str]:
    """Return the packages whose code is that of a view: its own, the app's, and that of templates."""
    view: Any = unwrap(app.view_functions.get(endpoint or "", app))
    modules = (getattr(getattr(view, "view_class", view), "__module__", ""), app.import_name, "jinja2", "")
    return frozenset(str(module).partition(".")[0] for module in modules)


def is_made_by_flask(frame: FrameType) -> bool:
    """Whether Flask makes a request object for the request that it answers, rather than other code for its own use.

    :param frame: that of the caller of the object's class.
    """
    caller: FrameType | None = frame
    # The app's request class may have a constructor of its own.
    while caller is not None and caller.f_code.co_name == "__init__" and _package_of(caller) not in _FRAMEWORK:
        caller = caller.f_back
    return caller is not None and _package_of(caller) == "flask"


def _package_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


# -- the app's steps for a request -------------------------------------------------------------------------------------


def callbacks_of(context: RequestContext) -> list[Any]:
    """Return what ``after_this_request`` was given: Flask does not tell whether a view has called it."""
    callbacks: list[Any] = context._after_request_functions  # type: ignore[attr-defined]
    return callbacks


def handle_user_exception(context: RequestContext, error: Exception) -> Any:
    """Return what the app's error handlers answer to an exception. The method is public, but its parameters changed."""
    handle: Any = context.app.handle_user_exception
    return handle(context, error) if _takes_context("handle_user_exception") else handle(error)


def around_user_exceptions(app: Flask, answer: Callable[[RequestContext, Exception, Callable[[], Any]], Any]) -> None:
    """Let a step answer the exceptions that reach the app's error handlers. It is given a function that asks these.

    Nothing changes if it is the outermost step. An extension that was set up later, such as flask-restx, may have put itself
    around it.
    """
    handle_exception: Any = app.handle_user_exception
    if getattr(handle_exception, "answer", None) is answer:
        return

    def handle(*args: Any) -> Any:
        context = args[0] if len(args) > 1 else request_context()
        return answer(context, args[-1], lambda: handle_exception(*args))

    handle.answer = answer  # type: ignore[attr-defined]
    app.handle_user_exception = handle  # type: ignore[method-assign,assignment]


def around_response_processing(
    app: Flask, before: Callable[[RequestContext], None], after: Callable[[RequestContext, Response], None]
) -> None:
    """Run a step before the app's ``after_request`` hooks run and its session is saved, and one with the finished response.

    No hook does this: ``after_request`` hooks run in an order that the developer chooses, and all others run too early.
    """
    process_response: Any = app.process_response

    def process(*args: Any) -> Response:
        # Flask 3.1 gives the response, 3.2 the context and the response. Flask checks only methods of subclasses.
        context = args[0] if len(args) > 1 else request_context_variable.get(None) or request_context()
        before(context)
        response: Response = process_response(*args)
        after(context, response)
        return response

    app.process_response = process  # type: ignore[method-assign,assignment]


def around_url_for(app: Flask, step: Callable[[str, dict[str, Any]], str]) -> None:
    """Run a step before an app builds a URL. It gets the endpoint and the parameters, and returns the endpoint to build."""
    build: Any = app.url_for

    def url_for(endpoint: str, /, **values: Any) -> str:
        url: str = build(step(endpoint, values), **values)
        return url

    app.url_for = url_for  # type: ignore[method-assign,assignment]
    # Not made early: the app may not have set its options yet.
    if "jinja_env" in vars(app) and app.jinja_env.globals.get("url_for") == build:
        app.jinja_env.globals["url_for"] = url_for


def around_template_context(app: Flask, step: Callable[[dict[str, Any], Callable[[], None]], None]) -> None:
    """Run a step around the context processors of an app. It gets the variables of a template, and a function that runs them."""
    update_template_context: Any = app.update_template_context

    def update(*args: Any) -> None:
        # Flask 3.1 gives the variables, 3.2 the context of the app and the variables.
        step(args[-1], lambda: update_template_context(*args))

    app.update_template_context = update  # type: ignore[method-assign,assignment]


def before_context(app: Flask, step: Callable[[dict[str, Any]], None]) -> None:
    """Run a step with the environ of each request that an app was called for, before anything of the app sees it."""
    make: Any = app.request_context

    def request_context(environ: dict[str, Any]) -> Any:
        step(environ)
        return make(environ)

    app.request_context = request_context  # type: ignore[method-assign]


def before_dispatch(app: Flask, step: Callable[[RequestContext], None]) -> None:
    """Run a step when a request has got past the hooks of an app, before its view is called."""
    dispatch_request: Any = app.dispatch_request

    def dispatch(*args: Any) -> Any:
        step(args[0] if args else request_context())
        return dispatch_request(*args)

    # On the app itself, so that a method of the app's own class is called too.
    app.dispatch_request = dispatch  # type: ignore[method-assign]


def _takes_context(method: str) -> bool:
    # Of Flask itself: it adapts overriding methods of either kind.
    return "ctx" in signature(getattr(Flask, method)).parameters


# -- request fields ----------------------------------------------------------------------------------------------------


class HandsOut(Protocol):
    """An environ that records its reads."""

    def hand_out(self, receiver: str) -> Any:
        """Return itself to a module outside the framework."""


class RecordedHeaders(EnvironHeaders):
    """Request fields whose reads by name are reported.

    All public ways to read a field (``[]``, ``get``, ``in`` …) end in ``_get_key``; to override each of them would miss the next.

    :param environ: the plain environ.
    :param note: records the read of a field.
    :param recorder: the environ that records.
    """

    __slots__ = ("_hand_out", "_note", "_plain")

    def __init__(self, environ: dict[str, Any], note: Callable[[str], None], recorder: HandsOut) -> None:
        self._plain = environ
        self._note = note
        self._hand_out = recorder.hand_out
        super().__init__(environ)
        # For vars(). The property stands before it in all other ways.
        self.__dict__["environ"] = recorder

    @property
    def environ(self) -> Any:
        """The environ: to code outside the framework, the one that records its reads."""
        receiver = outside_caller(sys._getframe(1))
        return self._plain if receiver is None else self._hand_out(receiver)

    @environ.setter
    def environ(self, value: dict[str, Any]) -> None:
        """Ignore what the constructor sets: it is known by then."""

    def _get_key(self, key: str) -> str:
        if isinstance(key, str):
            self._note(key)
        return super()._get_key(key)


# -- responses ---------------------------------------------------------------------------------------------------------


class StoredResponse(Response):
    """A response with status 200 from the store, which Werkzeug has checked and encoded when the view answered.

    Werkzeug would copy and check each field and encode each chunk again, which costs as much as the rest of a hit. If a hook has
    changed the response, it does.

    :ivar given_fields: the fields it was made with.
    :ivar given_body: the body it was made with.
    """

    given_fields: list[tuple[str, str]] | None = None
    given_body: tuple[bytes] | None = None

    def get_wsgi_response(self, environ: WSGIEnvironment) -> tuple[Iterable[bytes], str, list[tuple[str, str]]]:
        """Return body, status and fields as they are, where Werkzeug would return the same."""
        fields, body = self.given_fields, self.given_body
        if fields is None or body is None or self.headers._list != fields or self.response is not body:
            return super().get_wsgi_response(environ)
        if self._on_close or self._status_code != 200 or environ["REQUEST_METHOD"] != "GET":
            return super().get_wsgi_response(environ)
        return body, self._status, fields


def clone_response(prepared: Response, more: list[tuple[str, str]]) -> Response:
    """Return a copy of a response with more fields. It runs on every hit: to call the class costs several times as much."""
    kind = prepared.__class__
    fields = prepared.headers._list + more
    if kind.__init__ is not Response.__init__:
        # A class of the app's own may make state in it that must not be shared.
        response = kind(prepared.response, status=prepared.status)
    else:
        response = kind.__new__(kind)
        response.__dict__.update(prepared.__dict__)
        response._on_close = []
    response.__dict__["given_fields"] = fields
    # Not Headers(fields), which would check and convert every field again.
    headers = response.headers = Headers.__new__(Headers)
    headers._list = fields.copy()
    return response


# -- at start-up -------------------------------------------------------------------------------------------------------


def check_versions() -> None:
    """Raise :class:`ConfigError` if the installed Flask or Werkzeug lacks a name that this module uses."""
    if missing := _missing():
        raise ConfigError(
            f"Flask {version('flask')} with Werkzeug {version('werkzeug')} lacks {', '.join(missing)}, "
            "which flask_stalecache needs: install a flask_stalecache that supports it, or Flask 3.1"
        )


@lru_cache(maxsize=1)
def _missing() -> tuple[str, ...]:
    return tuple(_missing_names())


def _missing_names() -> Iterator[str]:
    if "_cv_app" not in _globals:
        yield "flask.globals._cv_app"
    app_context: Any = _bare_app().app_context()
    context: Any = _bare_app().test_request_context()
    if "_cv_request" not in _globals and not hasattr(context, "has_request"):
        yield "flask.globals._cv_request"
    response: Any = Response()
    macro = vars(Environment().from_string("{% macro it() %}{% endmacro %}").module)["it"]
    needed: tuple[tuple[Any, str, tuple[str, ...]], ...] = (
        (app_context, "the app context", ("g", "url_adapter")),
        (context, "the request context", ("_session", "_after_request_functions", "match_request")),
        (current_app, "flask.current_app", ("_get_current_object",)),
        (Flask, "flask.Flask", ("process_response", "handle_user_exception")),
        (macro, "a macro of Jinja", ("_func", "_environment")),
        (EnvironHeaders, "werkzeug.datastructures.EnvironHeaders", ("_get_key",)),
        (Headers(), "werkzeug.datastructures.Headers", ("_list",)),
        (response, "werkzeug.wrappers.Response", ("_on_close", "_status", "_status_code")),
    )
    for holder, name, attributes in needed:
        yield from (f"{name}: {attribute}" for attribute in attributes if not _has(holder, attribute))


@lru_cache(maxsize=1)
def _bare_app() -> Flask:
    """Return an app to look at, since the developer's may not be able to make a request yet.

    It lives as long as the process. Flask keeps a weak proxy of each app, and gevent looks at every object of a forked worker: it
    fails at the proxy of an app that was being collected at the fork.
    """
    return Flask("flask_stalecache", static_folder=None)


def _has(holder: object, attribute: str) -> bool:
    # Of a proxy, only its own attributes can be asked for without a context.
    return hasattr(type(holder) if holder is current_app else holder, attribute)
