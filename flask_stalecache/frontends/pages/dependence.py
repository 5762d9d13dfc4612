"""The request fields that the answer of a cached view depends on. They belong in its ``Vary``, whether it is stored or not.

A cache between the app and its visitors knows only what ``Vary`` says. It must not send the answer for a member to others, or the
answer for visitors who are not logged in to members.
"""

from __future__ import annotations

from collections.abc import Iterable

from werkzeug.wrappers import Response

from ...core.http.vary import STAR, vary_with
from ..flask_internals.contexts import RequestContext
from ..flask_internals.sessions import session_of
from ..flask_internals.steps import callbacks_of
from .bound_view import BoundView
from .watching.request_recorder import ObservedRequest
from .watching.watch import OwnCallback, reads_of


def fields_of_answer(bound: BoundView, context: RequestContext) -> set[str]:
    """Return the request fields, present or absent, that an answer and its key depend on so far, in lower case.

    :param bound: the view that answers.
    """
    policy = bound.cached.policy
    if not isinstance(context.request, ObservedRequest):
        return {STAR}
    log = reads_of(context)
    log.settle()
    fields = {*policy.vary, *log.by_key, *log.fields(bound.settings.ignored_headers)}
    if not policy.ignore_session and (log.has_opened or getattr(session_of(context), "accessed", True)):
        fields.add("cookie")
    return fields


def add_to_vary(response: Response, fields: Iterable[str]) -> Response:
    """Add request fields to the ``Vary`` of a response. For a stream also add a star: its later reads are not known yet."""
    names = {*fields, *([STAR] if response.is_streamed and not response.direct_passthrough else [])}
    value = vary_with(response.headers, names) if names else None
    if value is not None:
        response.headers["Vary"] = value
    return response


class VaryOfErrorPage(OwnCallback):
    """Adds the request fields that an error page depends on to its ``Vary``.

    The app's own error handlers make the page once the view has raised.
    """

    def __init__(self, bound: BoundView, context: RequestContext) -> None:
        self._bound = bound
        self._context = context

    def __call__(self, response: Response) -> Response:
        """Add the fields. Flask calls it with the response."""
        return add_to_vary(response, fields_of_answer(self._bound, self._context))


def follow_error(bound: BoundView, context: RequestContext) -> None:
    """Register a callback that adds request fields to the ``Vary`` of the page that answers an exception of a view."""
    callbacks_of(context).append(VaryOfErrorPage(bound, context))
