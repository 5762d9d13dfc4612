"""A request class that records which cookies, fields, parameters and variables of the environ are read.

The app's request class gets a subclass, so that all reads are seen from the construction of the request on, in hooks and extensions
too. Werkzeug, Flask and this package get the plain environ, since they read it at every hit. All other code gets one that records
its reads.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import flask.app
import flask.ctx
from flask import Request
from werkzeug.sansio.http import parse_cookie

from ....core.http.accept import ACCEPT_FIELDS
from ....core.model.environ import REPLAY, environ_name
from ...flask_internals.readers import is_made_by_flask, is_of_framework, outside_caller
from ...flask_internals.request_fields import RecordedHeaders
from ...flask_internals.sessions import is_flask_opening_session
from ...observation.observed_accept import observed_accept
from ...observation.observed_environ import ObservedEnviron, RequestEnviron
from ...observation.observed_values import hand_out, observed_values
from ...observation.read_log import ReadLog
from .request_state import initial_state, sets_initial_state


class ObservedHeaders(RecordedHeaders):
    """Request fields that record their readers."""

    __slots__ = ("_log",)

    def __init__(self, environ: dict[str, Any], log: ReadLog, recorder: ObservedEnviron) -> None:
        super().__init__(environ, log.header, recorder)
        self._log = log

    def getlist(self, key: str, type: Any = None) -> Any:
        self._log.header(key)
        with self._log.paused():
            return super().getlist(key) if type is None else super().getlist(key, type)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        self._log.all_headers()
        return super().__iter__()


#: Attributes that Werkzeug computes from a field and caches, so that later reads would not be seen.
_FROM_FIELD = {
    "accept_charsets": "Accept-Charset",
    "accept_encodings": "Accept-Encoding",
    "accept_languages": "Accept-Language",
    "accept_mimetypes": "Accept",
    "authorization": "Authorization",
    "cache_control": "Cache-Control",
    "content_length": "Content-Length",
    "if_match": "If-Match",
    "if_modified_since": "If-Modified-Since",
    "if_none_match": "If-None-Match",
    "if_range": "If-Range",
    "if_unmodified_since": "If-Unmodified-Since",
    "is_json": "Content-Type",
    "mimetype": "Content-Type",
    "mimetype_params": "Content-Type",
    "pragma": "Pragma",
    "range": "Range",
    "user_agent": "User-Agent",
    "want_form_data_parsed": "Content-Type",
}


_frame = sys._getframe
_new_environ = RequestEnviron.__new__
#: The modules of Flask that read the environ at every hit: comparing them is the fastest way to recognise them.
_APP, _CONTEXT = vars(flask.app), vars(flask.ctx)


class ObservedRequest(Request):
    """A request that records its reads. :func:`observed_request_class` puts it between Flask's request class and the app's own."""

    stalecache_exempt: ClassVar[Mapping[str, frozenset[str]]] = {}
    #: Whether the constructor sets what :func:`~.request_state.initial_state` returns.
    stalecache_is_usual: ClassVar[bool] = False

    def __init__(self, environ: Any, *args: Any, **kwargs: Any) -> None:
        if type(environ) is dict and self.stalecache_is_usual and REPLAY not in environ and not args and not kwargs:
            state = self.__dict__ = initial_state(environ)
            held = state["environ"] = _new_environ(RequestEnviron)
            held._plain, held._log, held._exempt = environ, None, self.stalecache_exempt
            environ["werkzeug.request"] = self
            return
        # What middleware in front of the app reads is recorded apart.
        if type(environ) is ObservedEnviron and is_made_by_flask(sys._getframe(1)):
            environ = environ.plain
        if REPLAY in environ:
            environ[REPLAY].enter(type(self), environ.plain if isinstance(environ, ObservedEnviron) else environ)
        super().__init__(environ, *args, **kwargs)

    @property
    def stalecache_reads(self) -> ReadLog:
        """The log of the reads of this request. Reads by middleware are not in it: a gateway records them apart."""
        environ: ObservedEnviron = self.__dict__["environ"]
        return environ.log

    @property
    def environ(self) -> dict[str, Any]:
        environ: ObservedEnviron = self.__dict__["environ"]
        reader = _frame(1).f_globals
        if reader is _APP or reader is _CONTEXT:
            return environ._plain
        receiver = reader.get("__name__", "")
        if receiver == "werkzeug.utils":
            # environ_property reads at once, for its caller.
            return environ
        return environ._plain if is_of_framework(receiver) else environ.hand_out(receiver)

    @environ.setter
    def environ(self, value: dict[str, Any]) -> None:
        state = self.__dict__
        if type(value) is dict or not isinstance(value, ObservedEnviron):
            environ = _new_environ(RequestEnviron)
            environ._plain, environ._log, environ._exempt = value, None, self.stalecache_exempt
            value = environ
        state["environ"] = value
        if "_stalecache_headers" in state:
            del state["_stalecache_headers"]

    @property
    def headers(self) -> ObservedHeaders:
        headers = self.__dict__.get("_stalecache_headers")
        if headers is None:
            environ: ObservedEnviron = self.__dict__["environ"]
            headers = ObservedHeaders(environ.plain, self.stalecache_reads, environ)
            self.__dict__["_stalecache_headers"] = headers
        return headers

    @headers.setter
    def headers(self, value: object) -> None:
        """Ignore the fields that Werkzeug sets in its constructor: ours read the same environ."""

    @property
    def query_string(self) -> bytes:
        self.stalecache_reads.all_parameters()
        query: str = plain_environ(self).get("QUERY_STRING", "")
        return query.encode("latin1")

    @query_string.setter
    def query_string(self, value: bytes) -> None:
        """Ignore the query that Werkzeug sets in its constructor: it is in the environ, and ``vars()`` must not show it."""

    @property
    def remote_addr(self) -> str | None:
        address = self.__dict__.get(_ADDRESS) or plain_environ(self).get("REMOTE_ADDR")
        self.stalecache_reads.address(has_value=bool(address))
        return address

    @remote_addr.setter
    def remote_addr(self, value: str | None) -> None:
        # Werkzeug's constructor sets this before the environ, which has the same address.
        if "environ" in self.__dict__:
            self.__dict__[_ADDRESS] = value

    @property
    def access_route(self) -> list[str]:
        log = self.stalecache_reads
        log.header("X-Forwarded-For")
        if "HTTP_X_FORWARDED_FOR" not in plain_environ(self):
            log.address(has_value=True)
        with log.paused():
            return super().access_route

    @property
    def server(self) -> tuple[str, int | None] | None:
        if not is_of_framework(_frame(1).f_globals.get("__name__", "")):
            self.stalecache_reads.server()
        found: tuple[str, int | None] | None = self.__dict__["server"]
        return found

    @server.setter
    def server(self, value: tuple[str, int | None] | None) -> None:
        self.__dict__["server"] = value


def plain_environ(request: Request) -> dict[str, Any]:
    """Return the plain environ of a request. Reads of it are not recorded."""
    environ: dict[str, Any] = request.__dict__["environ"]
    return environ._plain if isinstance(environ, ObservedEnviron) else environ


def arrived_environ(request: Request) -> dict[str, Any]:
    """Return the environ of a request with the values that arrived in it, even if hooks have changed or removed them."""
    held = request.__dict__["environ"]
    if not isinstance(held, ObservedEnviron):
        return held  # type: ignore[no-any-return]
    log = held._log
    return held._plain if log is None or not log.changed else {**held._plain, **log.changed}


#: The attribute with the address that the app has set.
_ADDRESS = "_stalecache_address"


def _from_field(attribute: str, field: str) -> property:
    def read(self: Any) -> Any:
        self.stalecache_reads.header(field)
        with self.stalecache_reads.paused():
            return getattr(super(ObservedRequest, self), attribute)

    return property(read, _setter(attribute))


def _accept_field(attribute: str, field: str) -> property:
    """Return the property of an Accept field. Code outside the framework gets an object that records its reads."""
    cached, name = f"_stalecache_{attribute}", field.lower()

    def read(self: Any) -> Any:
        receiver = outside_caller(_frame(1))
        state, log = self.__dict__, self.stalecache_reads
        if receiver is None or attribute in state:
            log.header(field)
            with log.paused():
                return getattr(super(ObservedRequest, self), attribute)
        observed = state.get(cached)
        if observed is None:
            observed = state[cached] = observed_accept(name, plain_environ(self).get(environ_name(name)), log)
        log.uses(name).taken(receiver)
        return observed

    return property(read, _setter(attribute))


def _from_query(attribute: str) -> property:
    def read(self: Any) -> Any:
        self.stalecache_reads.all_parameters()
        with self.stalecache_reads.paused():
            return getattr(super(ObservedRequest, self), attribute)

    return property(read, _setter(attribute))


def _setter(attribute: str) -> Callable[[Any, Any], None]:
    """Let an attribute be set, since Werkzeug keeps the values of its cached attributes in the instance."""

    def write(self: Any, value: Any) -> None:
        self.__dict__[attribute] = value
        self.__dict__.pop(f"_stalecache_{attribute}", None)

    return write


def _values(attribute: str, note: str, note_all: str, kind: str, parse: Callable[[Any], Any]) -> property:
    cached = f"_stalecache_{attribute}"

    def read(self: Any) -> Any:
        reader = _frame(1)
        values = self.__dict__.get(cached)
        if values is None:
            if attribute == "cookies" and is_flask_opening_session(reader):
                # This happens at every hit of an app with sessions. The read does not count.
                return parse(self)
            log = self.stalecache_reads
            values = observed_values(parse(self), getattr(log, note), getattr(log, note_all), log.uses(kind))
            self.__dict__[cached] = values
        if (receiver := outside_caller(reader)) is not None:
            hand_out(values, receiver)
        return values

    return property(read, _setter(attribute))


def _parsed_cookies(request: Any) -> Any:
    """Return the cookies, as Werkzeug parses them, or those that the app has set instead."""
    state = request.__dict__
    if "cookies" in state:
        return state["cookies"]
    held = state["environ"]
    # Werkzeug goes through all fields to find this one. plain_environ() written out, since every hit gets here.
    environ = held._plain if isinstance(held, ObservedEnviron) else held
    return parse_cookie(environ.get("HTTP_COOKIE"), cls=request.dict_storage_class)


def _parsed_query(request: Any) -> Any:
    with request.stalecache_reads.paused():
        return super(ObservedRequest, request).args


for _attribute, _field in _FROM_FIELD.items():
    _make = _accept_field if _field.lower() in ACCEPT_FIELDS else _from_field
    setattr(ObservedRequest, _attribute, _make(_attribute, _field))
for _attribute in ("url", "full_path"):
    setattr(ObservedRequest, _attribute, _from_query(_attribute))
ObservedRequest.cookies = _values("cookies", "cookie", "all_cookies", "cookies", _parsed_cookies)  # type: ignore[method-assign,assignment]
ObservedRequest.args = _values("args", "parameter", "all_parameters", "query", _parsed_query)  # type: ignore[method-assign,assignment]


def observed_request_class(base: type[Request], exempt_readers: Mapping[str, frozenset[str]]) -> type[Request]:
    """Return a subclass of an app's request class that records its reads.

    :param base: the app's request class.
    :param exempt_readers: packages, and the fields and variables whose reads by them don't count.
    """
    # After the app's own class in the method resolution order, so that its overriding methods read through ours.
    bases = (ObservedRequest,) if base is Request else (base, ObservedRequest)
    attributes: dict[str, Any] = {"stalecache_exempt": exempt_readers}
    if base.__init__ is not Request.__init__:
        attributes["__init__"] = _observed_constructor(base)
    kind: Any = type(f"Observed{base.__name__}", bases, attributes)
    # A constructor of the app's own is not called to compare its result: it may have side effects.
    kind.stalecache_is_usual = "__init__" not in attributes and sets_initial_state(kind)
    return kind  # type: ignore[no-any-return]


def _observed_constructor(base: Any) -> Callable[..., None]:
    """Return a constructor that calls the app's own one with an environ that records its reads: it may read its argument."""

    def __init__(self: Any, environ: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(environ, ObservedEnviron):
            self.environ = environ
            environ = self.__dict__["environ"]
        base.__init__(self, environ, *args, **kwargs)

    return __init__
