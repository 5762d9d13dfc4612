"""Asks an app's error handlers for their answer to an exception of a cached view.

Only their answer tells whether the view has failed: a handler may turn the app's own exception into a 404. They are asked once for
each exception, since they may log it or roll back a transaction. If the exception reaches Flask, the page that was made is sent.
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

#: On the request: the last exception that the handlers were asked about. Its traceback knows the request, which is a cycle of
#: references: the code that is done with it removes it.
HANDLED = "_stalecache_handled"


class Handled(NamedTuple):
    """The outcome of the error handlers for an exception.

    :ivar error: the exception.
    :ivar page: their answer; ``None`` if there is no handler, or if it has raised.
    :ivar raised: what goes on to Flask instead, which answers it with 500.
    """

    error: Exception
    page: Response | None
    raised: Exception | None

    @property
    def has_failed(self) -> bool:
        """Whether the exception means that the view has failed."""
        return self.page is None or self.page.status_code in FAILURE_STATUSES


def ask_handlers(context: RequestContext, error: Exception) -> Handled:
    """Return what the error handlers of the app answer to an exception."""
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
        # The developer sees where it was raised, not that we have asked.
        error.__traceback__ = traceback


def _page_of(context: RequestContext, error: Exception) -> Any:
    try:
        # Flask raises what is being handled if there is no handler.
        raise error
    except Exception:
        return handle_user_exception(context, error)


def _response_of(error: HTTPException, context: RequestContext) -> Any:
    # make_response would take an exception for a WSGI app, and its body for a stream.
    given: Any = error.response
    if given is None:
        return error.get_response(context.request.environ)
    if not given.is_sequence:
        return error
    # A copy, since requests that waited may be given the exception, while hooks change the response.
    return Response(list(given.iter_encoded()), given.status, Headers(given.headers))


def answer_once(context: RequestContext, error: Exception, ask: Callable[[], Any]) -> Any:
    """Answer an exception that has reached Flask: with the page that was made already, if there is one.

    :param ask: asks the error handlers.
    """
    handled: Handled | None = context.request.__dict__.pop(HANDLED, None)
    if handled is None or handled.error is not error:
        return ask()
    if handled.raised is not None:
        raise handled.raised
    return handled.page
