"""Calls a cached view whose holes leave marks. If the view has altered the marks, it is called again, with holes as plain calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from ...core.rules.cacheability import no_store
from ...core.rules.hole_marks import HoleMarks
from ..flask_internals.contexts import RequestContext
from ..flask_internals.sessions import session_of
from ..flask_internals.steps import callbacks_of
from ..observation.watched_session import plain_values
from ..response.holes import Making, being_made, with_marks, without_marks
from .bound_view import BoundView
from .error_pages import HANDLED, ask_handlers
from .filling_holes.filling import globals_now, holes_of
from .watching.hook_reads import count_hook_reads
from .watching.watch import Covered, Watch, is_changed, watched


@dataclass(frozen=True, slots=True)
class ViewCall:
    """The call of a view that makes a page.

    :param bound: the view in this app.
    :param context: the request's context.
    :param key: the key of the page.
    :param args: the view's arguments.
    :param kwargs: likewise.
    """

    bound: BoundView
    context: RequestContext
    key: str
    args: Any
    kwargs: Any

    def answer(self) -> tuple[Response | None, Exception | None, Making]:
        """Call the view. Return its response without marks or its exception, and how holes were treated in it."""
        holes, values, page = self.bound.holes, globals_now(), self.bound.holes.page_to_make(self.key)
        callbacks = callbacks_of(self.context)
        before = len(callbacks)
        response, error = self._called(page)
        if page.marks is not None and page.asks_functions and len(callbacks) > before:
            page.marks.altered = page.marks.altered or "the view has registered a callback with after_this_request"
        if _is_altered(self.context, page, error) or (response is not None and not holes.cut(page, response, values)):
            holes.note_altered(self.key, page)
            page = without_marks(page.why_altered)
            # The second call registers them again.
            del callbacks[before:]
            if response is not None:
                response.close()
            response, error = self._called(page)
        if page.marks is None or page.reads_globals:
            count_hook_reads(self.context)
        return response, error, page

    def _called(self, page: Making) -> tuple[Response | None, Exception | None]:
        with being_made(page), self.bound.holes.known.around(self.context, page):
            try:
                return self.bound.call_view(self.args, self.kwargs), None
            except Exception as error:
                return None, error

    def error_page(self, error: Exception, watch: Watch, page: Making, covered: Covered) -> tuple[Response | None, Making]:
        """Return what the app's error handlers make of an exception, ``None`` if nothing, and how holes were treated in it.

        :param watch: gets their effects.
        :param page: how holes were treated in the view.
        :param covered: the parts of the request that the key covers.
        """
        holes, values = self.bound.holes, globals_now()
        page = page if page.marks is None else with_marks()
        with watched(self.context, covered) as handling:
            response = self._handled(error, page)
            if response is not None and not holes.cut(page, response, values):
                holes.note_altered(self.key, page)
                # So that the handlers are called a second time.
                self.context.request.__dict__.pop(HANDLED, None)
                page = without_marks(page.why_altered)
                response = self._handled(error, page)
        if page.marks is None or page.reads_globals:
            count_hook_reads(self.context)
        watch.add(handling)
        return response, page

    def _handled(self, error: Exception, page: Making) -> Response | None:
        with being_made(page), self.bound.holes.known.around(self.context, page):
            return ask_handlers(self.context, error).page


def answer_for_gateway(bound: BoundView, context: RequestContext, args: Any, kwargs: Any) -> Response:
    """Call a view whose pages the gateway stores. A page with holes is filled, and the next one is stored by the app."""
    response, error, _ = ViewCall(bound, context, f"{bound.cached.name} {context.request.path}", args, kwargs).answer()
    if error is not None:
        raise error
    assert response is not None
    if holes_of(response):
        bound.cached.has_holes = True
        no_store()
        bound.holes.fill(context, response)
    return response


def _is_altered(context: RequestContext, page: Making, error: Exception | None) -> bool:
    """Whether a view has used marks elsewhere than in its response: it has failed because of them, or put them into its session."""
    marks = page.marks
    if marks is None or not marks.calls:
        return False
    if error is not None and (marks.altered or marks.is_in(str(error)) or (page.asks_functions and not _is_meant(error))):
        marks.altered = marks.altered or f"the view has failed with what a hole returns ({type(error).__qualname__})"
    session = session_of(context)
    if is_changed(session) and marks.is_in(str(plain_values(session))):
        marks.altered = marks.altered or "what a hole returns is in the session"
        for key, value in plain_values(session).items():
            session[key] = _without(marks, value)
    return bool(marks.altered)


def _without(marks: HoleMarks, value: Any) -> Any:
    """Return a value of a session without texts that contain marks."""
    if isinstance(value, list):
        # A message is a tuple of its category and its text.
        return [_without(marks, each) for each in value if isinstance(each, (dict, list)) or not marks.is_in(str(each))]
    if isinstance(value, dict):
        return {key: _without(marks, each) for key, each in value.items() if not marks.is_in(str(key))}
    return None if marks.is_in(str(value)) else value


def _is_meant(error: Exception) -> bool:
    return isinstance(error, HTTPException)
