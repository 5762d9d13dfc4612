"""Fills the holes of pages for the visitor of the request.

=========================================  ==================================================================================
the page is requested                      its holes
=========================================  ==================================================================================
by a visitor                               are called in the visitor's request, before ``after_request`` hooks run
by a view that makes a page with marks     become marks of that page
by a view that makes a page without marks  are called, and that page is not stored
with HEAD, by a refresh, or to warm        are not called: no visitor sees the body
=========================================  ==================================================================================
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from flask import Flask
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from ....core.model.entry import Entry
from ....core.model.environ import REFRESHING, WARMING
from ....core.model.holes import Hole, HoleCall
from ....core.remembered import MIB, Remembered
from ....core.responses.filled import OF_BODY, fields_of_filled, is_private, private_fields
from ....core.rules.hole_encodings import is_encoding
from ....core.rules.hole_marks import HoleMarks, Pieces, foreign_mark
from ....engine.log import RateLimitedLog
from ....errors import StaleCacheError
from ...flask_internals.contexts import RequestContext, outer_context
from ...flask_internals.responses import is_as_cloned
from ...request.caller_context import is_connection
from ...response.holes import HoleFunctions, Making, checked_result, page_being_made, with_marks, without_marks
from .known_holes import KnownHoles

#: On a response: its holes, which are still to be filled.
_TO_FILL = "_stalecache_to_fill"
#: On a request: the response has filled holes.
FILLED_HOLES = "_stalecache_holes_filled"
#: Seconds for which a page whose marks were altered is made without marks.
PAUSE = 60.0
#: Returns the function that renders the body of a hole in a template; ``None`` if there is no such body.
Render = Callable[[HoleCall], "Callable[[], str] | None"]


class ToFill(NamedTuple):
    """The holes of a response.

    :ivar globals: the values in ``g`` before the view was called, as a hit finds them.
    """

    holes: tuple[Hole, ...]
    globals: dict[str, Any]


class Altered(NamedTuple):
    """A page whose marks were altered.

    :ivar why: how they were altered.
    :ivar until: when it is made with marks again, in seconds of the monotonic clock.
    """

    why: str
    until: float


class AppHoles:
    """The holes of one app.

    :param app: the app.
    :param functions: the functions under ``hole``.
    :param known: the holes of extensions.
    :param render: renders the holes in templates.
    :param log: logs failures.
    """

    def __init__(self, app: Flask, functions: HoleFunctions, known: KnownHoles, render: Render, log: RateLimitedLog) -> None:
        self._app = app
        self._functions = functions
        self.known = known
        self._render = render
        self._log = log
        self._altered: Remembered[str, Altered] = Remembered(1000, MIB, 4096)

    def know(self, copy: Any) -> bool:
        """Whether all holes of a page can be filled here.

        :param copy: the copy of its entry.
        """
        prepared = copy.prepared
        if prepared is not None and prepared.__dict__.get("is_known", False):
            return True
        entry: Entry = copy.entry
        return all(is_encoding(hole.encoding) and self._found(hole.call) is not None for hole in entry.holes)

    def functions_of(self, page: Pieces) -> tuple[Callable[[], Any] | None, ...]:
        """Return the functions that fill the holes of a page; ``None`` for one that is looked up each time, as in a template."""
        functions = [self._functions.get(call) for call in page.calls]
        return tuple(
            None if function is None else partial(function.function, *call.args, **call.kwargs)
            for function, call in zip(functions, page.calls, strict=True)
        )

    def _found(self, call: HoleCall) -> Callable[[], str] | None:
        function = self._functions.get(call)
        if function is not None:
            return lambda: function.fill(call)
        of_extension = self.known.found(call)
        return self._render(call) if of_extension is None else of_extension

    # -- making a page -------------------------------------------------------------------------------------------------

    def page_to_make(self, key: str) -> Making:
        """Return a new page for a view to make, with marks unless they were altered lately.

        :param key: its key.
        """
        altered = self._altered.get(key)
        is_over = altered is None or altered.until <= time.monotonic()
        return with_marks() if altered is None or is_over else without_marks(altered.why)

    def note_altered(self, key: str, page: Making) -> None:
        """Record that the marks of a page were altered, so that it is made without marks for a while."""
        self._altered.pop(key, None)
        self._altered.note(key, Altered(page.why_altered, time.monotonic() + PAUSE))

    def cut(self, page: Making, response: Response, values: dict[str, Any]) -> bool:
        """Cut the marks out of a response. Return false if they were altered, so that the places of its holes are not known.

        :param page: the page that the marks belong to.
        :param values: the values in ``g`` before the view was called.
        """
        marks = page.marks
        if marks is None or not marks.are_used or (response.direct_passthrough and not marks.are_shown):
            if response.is_sequence and not response.direct_passthrough:
                self._note_foreign(b"".join(response.iter_encoded()))
            return True
        if not self._are_in_body(marks, response):
            return False
        body = b"".join(response.iter_encoded())
        if response.content_length not in (None, len(body)):
            marks.altered = "the body with holes is not as long as its Content-Length says"
            return False
        found = marks.cut(body)
        if found is None:
            return False
        clean, holes = found
        self._note_foreign(clean)
        if holes:
            for name in OF_BODY:
                response.headers.remove(name)
            response.response = (clean,)
            response.__dict__[_TO_FILL] = ToFill(holes, values)
        return True

    def _are_in_body(self, marks: HoleMarks, response: Response) -> bool:
        if marks.is_in(response.status) or any(marks.is_in(value) for _, value in response.headers):
            marks.altered = marks.altered or "what a hole returns is in a field of the response"
        elif not response.is_sequence or response.direct_passthrough:
            # A stream is made while it is sent. Its holes are plain calls then.
            marks.altered = marks.altered or "a response with holes is a stream or a file"
        return not marks.altered

    def _note_foreign(self, body: bytes) -> None:
        if foreign_mark(body):
            self._log.warn_once(
                "foreign marks",
                "a page shows the mark of a hole of another page: if a function such as one under lru_cache has kept what a hole "
                "returned, call the hole outside of it",
            )

    # -- filling -------------------------------------------------------------------------------------------------------

    def fill(self, context: RequestContext, response: Response) -> None:
        """Fill the holes of a response that a view has just made, if it has any."""
        to_fill: ToFill | None = response.__dict__.pop(_TO_FILL, None)
        if to_fill is None:
            return
        body, around = b"".join(response.iter_encoded()), page_being_made()
        if around is not None and around.marks is not None:
            response.response = (marked(around.marks, Pieces.of(body, to_fill.holes)),)
            return
        response.headers = Headers(fields_of_filled(response.headers))
        note_filled(context)
        if not is_shown(context.request.environ):
            send_nothing(response)
            return
        page = Pieces.of(body, to_fill.holes)
        with _globals_of_hit(to_fill.globals):
            filled = self.filled(page, self.functions_of(page))
        response.response = (filled,)
        response.headers["Content-Length"] = str(len(filled))

    def filled(self, page: Pieces, functions: tuple[Callable[[], Any] | None, ...]) -> bytes:
        """Return a page with the results of its holes for the current visitor.

        :param functions: as :meth:`functions_of` returns them.
        """
        if (around := page_being_made()) is not None:
            # A view makes a page without marks, and this one may become a part of it.
            around.call_plainly()
        return page.filled(list(map(self._result, page.calls, functions)))

    def _result(self, call: HoleCall, function: Callable[[], Any] | None) -> str:
        try:
            found = self._found(call) if function is None else function
            if found is None:
                raise StaleCacheError(f"there is no hole {call.label} any more")
            result = found()
            return result if isinstance(result, str) else checked_result(result, call.label)
        except Exception as error:
            return self._instead(call, error)

    def _instead(self, call: HoleCall, error: Exception) -> str:
        function = self._functions.get(call)
        try:
            fallback = None if function is None else function.fall_back(call)
        except Exception as failed:
            error, fallback = failed, None
        if fallback is None and self._app.debug:
            if isinstance(error, HTTPException):
                # Flask would answer with the page of this exception, as if the view had raised it.
                raise StaleCacheError(f"the hole {call.label} has failed: {error}") from error
            raise error
        self._log.error_every_minute(
            ("hole", call.name),
            "the hole %s has failed: %r; %s",
            call.label,
            error,
            "it is empty for this visitor" if fallback is None else "its fallback stands in for it",
            exc_info=error,
        )
        return fallback or ""


def note_filled(context: RequestContext) -> None:
    """Note that the response to a request is one visitor's."""
    context.request.__dict__[FILLED_HOLES] = True


def keep_private(response: Response) -> None:
    """Give a filled page private fields, even if a hook has set others, as it does for all pages."""
    if not is_as_cloned(response) and not is_private(response.headers):
        response.headers = Headers(private_fields(response.headers))


def is_shown(environ: Mapping[str, Any]) -> bool:
    """Whether a visitor sees the body of a page: not with HEAD, in a refresh or in a warming."""
    return environ["REQUEST_METHOD"] != "HEAD" and REFRESHING not in environ and WARMING not in environ


def send_nothing(response: Response) -> None:
    """Remove the Content-Length of a response that no visitor sees: its holes are not filled."""
    response.automatically_set_content_length = False
    response.headers.remove("Content-Length")


def marked(marks: HoleMarks, page: Pieces) -> bytes:
    """Return a page whose holes are marks of the page that a view is making."""
    return page.filled([marks.mark(call) for call in page.calls])


def holes_of(response: Response) -> tuple[Hole, ...]:
    """Return the holes of a response that are still to be filled."""
    to_fill: ToFill | None = response.__dict__.get(_TO_FILL)
    return () if to_fill is None else to_fill.holes


@contextmanager
def _globals_of_hit(values: dict[str, Any]) -> Iterator[None]:
    """Let holes find in ``g`` the values from before the view, as at a hit.

    Afterwards the values of the view are back, beside those that the holes have put there.
    """
    outer = outer_context()
    if outer is None or not hasattr(outer.g, "__dict__"):
        yield
        return
    own = vars(outer.g)
    after_view = own.copy()
    # One connection to a database is enough.
    shared = {name: value for name, value in after_view.items() if is_connection(value)}
    found = {**shared, **values}
    own.clear()
    own.update(found)
    try:
        yield
    finally:
        by_holes = {name: value for name, value in own.items() if name not in found or found[name] is not value}
        own.clear()
        own.update({**by_holes, **after_view})


def globals_now() -> dict[str, Any]:
    """Return a copy of the values in ``g``."""
    outer = outer_context()
    return {} if outer is None or not hasattr(outer.g, "__dict__") else vars(outer.g).copy()
