"""Inserts steps of this package before, after and around those with which an app answers a request."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

from flask import Flask
from werkzeug.wrappers import Response

from .contexts import RequestContext, request_context, request_context_variable


def callbacks_of(context: RequestContext) -> list[Any]:
    """Return the functions given to ``after_this_request``: Flask has no public name that shows whether a view has called it."""
    callbacks: list[Any] = context._after_request_functions  # type: ignore[attr-defined]
    return callbacks


def handle_user_exception(context: RequestContext, error: Exception) -> Any:
    """Return the answer of the app's error handlers to an exception. The method is public, but its parameters differ by version."""
    handle: Any = context.app.handle_user_exception
    return handle(context, error) if takes_context("handle_user_exception") else handle(error)


def around_user_exceptions(app: Flask, answer: Callable[[RequestContext, Exception, Callable[[], Any]], Any]) -> None:
    """Let a step answer the exceptions that reach the app's error handlers. It is given a function that calls these.

    Nothing changes if the step is the outermost one already. Otherwise it is put around, even a second time: an extension that was
    set up later, such as flask-restx, may have put itself around it.
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
        # Flask 3.1 passes the response, 3.2 the context and the response. Flask checks only methods of subclasses.
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
    # The environment is not created early: the app may not have set its options yet.
    if "jinja_env" in vars(app) and app.jinja_env.globals.get("url_for") == build:
        app.jinja_env.globals["url_for"] = url_for


def before_context(app: Flask, step: Callable[[dict[str, Any]], None]) -> None:
    """Run a step with the environ of each request to an app, before any code of the app sees it."""
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


def takes_context(method: str) -> bool:
    """Whether a method of Flask's takes the context first, as in Flask 3.2."""
    # Looked up on Flask itself, which adapts overriding methods of either kind.
    return "ctx" in signature(getattr(Flask, method)).parameters
