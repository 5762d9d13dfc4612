"""Builds responses from copies of pages with holes."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response

from ....core.http.fields import fields_to_send
from ....core.model.entry import Entry
from ....core.responses.filled import fields_of_filled, without_lengths
from ....core.rules.hole_marks import Pieces
from ....engine.origin import Served
from ...flask_internals.contexts import RequestContext
from ...flask_internals.responses import clone_response
from ...response.holes import page_being_made
from ...response.status_headers import fields_for_copy
from ..responses import add_fields, prepared_response
from .filling import AppHoles, is_shown, marked, note_filled


def respond_with_filled(
    holes: AppHoles,
    context: RequestContext,
    environ: Mapping[str, Any],
    served: Served,
    chosen: Collection[str],
    more: str = "",
) -> Response:
    """Build the response from a copy with holes. It runs on every hit of such a page.

    :param holes: fills them.
    :param environ: the request.
    :param served: how the request is answered.
    :param chosen: which of the status fields are sent.
    :param more: the detail of ``Cache-Status``.
    """
    copy = served.copy
    assert copy is not None
    entry = copy.entry
    assert entry is not None
    page = page_being_made()
    if page is not None and page.marks is not None:
        body = marked(page.marks, Pieces.of(entry.body, entry.holes))
        return _within(context, entry, body, fields_for_copy(served, entry, time.time(), chosen))
    prepared: Response = copy.prepared
    if prepared is None:
        prepared = copy.prepared = _prepare(holes, context.app.response_class, entry)
    fields = fields_for_copy(served, entry, time.time(), chosen, more)
    note_filled(context)
    if not is_shown(environ):
        response = clone_response(prepared, fields)
        response.automatically_set_content_length = False
        return response
    # The holes are filled first, since one may raise.
    given = (holes.filled(*prepared.__dict__["to_fill"]),)
    response = clone_response(prepared, [("Content-Length", str(len(given[0]))), *fields])
    response.__dict__["given_body"] = response.response = given
    return response


def _within(context: RequestContext, entry: Entry, body: bytes, fields: list[tuple[str, str]]) -> Response:
    """Build the response for another view that is making its own page: the body has marks of that page."""
    response: Response = context.app.response_class(body, status=entry.status)
    response.headers = Headers(without_lengths(fields_to_send(entry.headers, entry.varied)))
    return add_fields(response, fields)


def _prepare(holes: AppHoles, response_class: type[Response], entry: Entry) -> Response:
    """Return the response of an entry, with an empty body, to be cloned for each visitor."""
    response = prepared_response(response_class, entry, fields_of_filled(fields_to_send(entry.headers, entry.varied)), (b"",))
    page = Pieces.of(entry.body, entry.holes)
    functions = holes.functions_of(page)
    response.__dict__["to_fill"] = page, functions
    # Holes in templates are looked up each time, since a template may change while the app runs.
    response.__dict__["is_known"] = None not in functions
    return response
