"""Calls an app's error handlers for an exception of a cached view.

Only their answer shows whether the view has failed: a handler may turn the app's own exception into a 404. They are called once for
each exception, since they may log it or roll back a transaction. If the exception reaches Flask, the page that they made is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from ...core.model.policy import FAILURE_STATUSES
from ..flask_internals.contexts import RequestContext
from ..flask_internals.steps import around_user_exceptions, handle_user_exception

#: On the request: the outcome for the last exception that the handlers were called for. The traceback of the exception refers to
#: the request, which makes a cycle of references. So the last code that needs the outcome removes it.
HANDLED = "_stalecache_handled"


class Handled(NamedTuple):
    """The outcome of the error handlers for an exception.

    :ivar error: the exception.
    :ivar page: their answer; ``None`` if there is no handler, or if it has raised.
    :ivar raised: the exception that goes on to Flask if there is no page. Flask answers it with 500.
    """

    error: Exception
    page: Response | None
    raised: Exception | None

    @property
    def has_failed(self) -> bool:
        """Whether the exception means that the view has failed."""
        return self.page is None or self.page.status_code in FAILURE_STATUSES


def ask_handlers(context: RequestContext, error: Exception) -> Handled:
    """Return the outcome of the app's error handlers for an exception. They are called only the first time."""
    state = context.request.__dict__
    handled: Handled | None = state.get(HANDLED)
    if handled is None or handled.error is not error:
        around_user_exceptions(context.app, answer_once)
        handled = state[HANDLED] = _ask(context, error)
    return handled


def _ask(context: RequestContext, error: Exception) -> Handled:
    traceback = error.__traceback__
    try:
        page = _page_of(context, error)
        if isinstance(page, HTTPException):
            page = _response_of(page, context)
        return Handled(error, context.app.make_response(page), None)
    except Exception as raised:
        return Handled(error, None, raised)
    finally:
        # The developer sees where it was raised, without our frames.
        error.__traceback__ = traceback


def _page_of(context: RequestContext, error: Exception) -> Any:
    try:
        # If there is no handler, Flask raises the current exception again.
        raise error
    except Exception:
        return handle_user_exception(context, error)


def _response_of(error: HTTPException, context: RequestContext) -> Any:
    # make_response would call the exception as a WSGI app, and take the body for a stream.
    given: Any = error.response
    if given is None:
        return error.get_response(context.request.environ)
    if not given.is_sequence:
        return error
    # A copy, since hooks change the response while requests that waited may be given the exception.
    return Response(list(given.iter_encoded()), given.status, Headers(given.headers))


def answer_once(context: RequestContext, error: Exception, ask: Callable[[], Any]) -> Any:
    """Answer an exception that has reached Flask: with the page that was made already, if there is one.

    :param ask: calls the error handlers.
    """
    handled: Handled | None = context.request.__dict__.pop(HANDLED, None)
    if handled is None or handled.error is not error:
        return ask()
    if handled.raised is not None:
        raise handled.raised
    return handled.page
