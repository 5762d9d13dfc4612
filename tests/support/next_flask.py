"""Changes the installed Flask to the API of Flask 3.2, as far as extensions use it. Import this module before the package.

One context holds app and request, ``request_ctx`` and ``RequestContext`` warn, and the app's methods are given the context.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import flask
import flask.app
import flask.ctx
import flask.globals
from flask import Flask

# Code that recognizes Flask's classes by their module must take the class below for one of them.
__name__ = "flask.ctx"

_cv_app: Any = flask.globals._cv_app
#: Flask's proxies go on reading this one; its name is hidden.
_cv_request: Any = flask.globals._cv_request  # type: ignore[attr-defined]


class MergedContext:
    """An app context, and a request context if it has a request."""

    def __init__(self, app: Flask, request: Any = None, session: Any = None) -> None:
        self.app, self._request, self._session = app, request, session
        self.g = app.app_ctx_globals_class()
        self.flashes = None
        self._after_request_functions: list[Any] = []
        self._tokens: list[tuple[Any, Any]] = []
        self.url_adapter = None
        try:
            self.url_adapter = app.create_url_adapter(request)
        except flask.app.HTTPException as error:
            request.routing_exception = error

    @property
    def has_request(self) -> bool:
        return self._request is not None

    @property
    def request(self) -> Any:
        if self._request is None:
            raise RuntimeError("There is no request in this context.")
        return self._request

    def _get_session(self) -> Any:
        if self._session is None:
            interface = self.app.session_interface
            self._session = interface.open_session(self.app, self.request)
            if self._session is None:
                self._session = interface.make_null_session(self.app)
        return self._session

    @property
    def session(self) -> Any:
        session = self._get_session()
        session.accessed = True
        return session

    def match_request(self) -> None:
        try:
            self.request.url_rule, self.request.view_args = self.url_adapter.match(return_rule=True)  # type: ignore[attr-defined]
        except flask.app.HTTPException as error:
            self.request.routing_exception = error

    def push(self) -> None:
        self._tokens.append((_cv_app.set(self), _cv_request.set(self)))
        if len(self._tokens) == 1 and self.has_request:
            self._get_session()
            if self.url_adapter is not None:
                self.match_request()

    def pop(self, error: BaseException | None = None) -> None:
        if len(self._tokens) == 1:
            if self.has_request:
                self.app.do_teardown_request(self, error)  # type: ignore[arg-type,call-arg]
                self.request.close()
            self.app.do_teardown_appcontext(self, error)  # type: ignore[arg-type,call-arg]
        of_app, of_request = self._tokens.pop()
        _cv_app.reset(of_app)
        _cv_request.reset(of_request)

    def __enter__(self) -> MergedContext:
        self.push()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.pop(error)


_old = {
    name: getattr(Flask, name)
    for name in (
        "preprocess_request", "dispatch_request", "process_response", "handle_user_exception", "do_teardown_request",
        "do_teardown_appcontext",
    )
}  # fmt: skip


def _request_context(self: Flask, environ: dict[str, Any]) -> MergedContext:
    request = self.request_class(environ)
    request.json_module = self.json
    return MergedContext(self, request)


def _given_context(name: str) -> Any:
    def method(self: Flask, ctx: MergedContext, *args: Any) -> Any:
        assert isinstance(ctx, MergedContext), f"{name} is not given the context"
        return _old[name](self, *args)

    return method


def _full_dispatch_request(self: Any, ctx: MergedContext) -> Any:
    self._got_first_request = True
    try:
        answer = self.preprocess_request(ctx)
        if answer is None:
            answer = self.dispatch_request(ctx)
    except Exception as error:
        answer = self.handle_user_exception(ctx, error)
    return self.finalize_request(ctx, answer)


def _finalize_request(self: Any, ctx: MergedContext, answer: Any, from_error_handler: bool = False) -> Any:
    return self.process_response(ctx, self.make_response(answer))


def _handle_exception(self: Any, ctx: MergedContext, error: Exception) -> Any:
    if self.testing or self.config["PROPAGATE_EXCEPTIONS"]:
        raise error
    self.logger.error("Exception on %s", ctx.request.path, exc_info=error)
    return self.finalize_request(ctx, flask.app.InternalServerError(original_exception=error), from_error_handler=True)


def _wsgi_app(self: Any, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    ctx = self.request_context(environ)
    error: BaseException | None = None
    try:
        try:
            ctx.push()
            response = self.full_dispatch_request(ctx)
        except Exception as raised:
            error = raised
            response = self.handle_exception(ctx, raised)
        return response(environ, start_response)  # type: ignore[no-any-return]
    finally:
        ctx.pop(error)


def _warns(module: ModuleType, name: str, value: object) -> None:
    del vars(module)[name]

    def read(wanted: str) -> object:
        if wanted != name:
            raise AttributeError(wanted)
        warnings.warn(f"{name!r} is deprecated", DeprecationWarning, stacklevel=2)
        return value

    module.__dict__["__getattr__"] = read


def _has_request_context() -> bool:
    context = _cv_app.get(None)
    return context is not None and context.has_request


def install() -> None:
    assert "flask_stalecache" not in sys.modules
    for name in _old:
        setattr(Flask, name, _given_context(name))
    Flask.app_context = lambda self: MergedContext(self)  # type: ignore[assignment,method-assign,return-value]
    Flask.request_context = _request_context  # type: ignore[assignment,method-assign]
    Flask.full_dispatch_request = _full_dispatch_request  # type: ignore[assignment,method-assign]
    Flask.finalize_request = _finalize_request  # type: ignore[assignment,method-assign]
    Flask.handle_exception = _handle_exception  # type: ignore[assignment,method-assign]
    Flask.wsgi_app = _wsgi_app  # type: ignore[method-assign]
    _warns(flask.globals, "request_ctx", flask.globals.app_ctx)
    del vars(flask.globals)["_cv_request"]
    _warns(flask.ctx, "RequestContext", MergedContext)
    for module in (flask, flask.ctx):
        module.has_request_context = _has_request_context  # type: ignore[attr-defined]


install()
