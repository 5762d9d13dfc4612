"""Freezes responses into bytes, and builds them from a copy or an answer, with status fields."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

from flask import Flask
from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response

from ...core.http.fields import fields_to_send
from ...core.http.vary import vary_with
from ...core.kept_by_class import kept_by_class
from ...core.model.entry import Entry
from ...core.responses.conditional import with_accept_ranges
from ...core.responses.ended import without_freshness
from ...core.rules.serving import ServeOptions, was_ended
from ...core.rules.status import CacheStatus
from ...core.wsgi import close_iterable
from ...engine.origin import Served
from ..flask_internals.responses import StoredResponse, clone_response
from ..request.request_origin import shows_request
from ..response.conditional_answer import RequestConditions, ViewPage
from ..response.status_headers import fields_for_answer, fields_for_copy

# -- freezing --------------------------------------------------------------------------------------------------------


def body_size(response: Response) -> int | None:
    """Return the size of a response's body in bytes, or ``None`` for a stream. A ``send_file`` has it in Content-Length."""
    if response.direct_passthrough:
        return response.content_length
    if not response.is_sequence:
        return None
    return sum(len(chunk) for chunk in response.iter_encoded())


def freeze(response: Response) -> bytes | None:
    """Return the body, and put it into the response as a tuple, to which no hook can append.

    Return ``None`` if it is not as long as its Content-Length says, so that it is incomplete (RFC 9111 section 3.3).
    """
    body = b"".join(response.iter_encoded())
    if response.direct_passthrough:
        close_iterable(response.response)
        response.direct_passthrough = False
    response.response = (body,)
    return body if response.content_length in (None, len(body)) else None


def frozen_failure(response: Response, environ: Mapping[str, Any]) -> tuple[tuple[bytes, ...], str, list[tuple[str, str]]] | None:
    """Return body, status and fields of a failure for requests that waited; ``None`` if it is one visitor's own, or a stream.

    :param environ: the request that it answers.
    """
    if not response.is_sequence or "Set-Cookie" in response.headers:
        return None
    body = tuple(response.iter_encoded())
    return None if shows_request(environ, b"".join(body)) else (body, response.status, list(response.headers))


# -- answering -------------------------------------------------------------------------------------------------------


def respond_with_copy(app: Flask, served: Served, chosen: Collection[str], more: str = "") -> Response:
    """Build the response from a copy. It runs on every hit.

    :param app: has the response class.
    :param served: how the request is answered.
    :param chosen: which of the status fields are sent.
    :param more: the detail of ``Cache-Status``.
    """
    copy = served.copy
    assert copy is not None
    entry = copy.entry
    assert entry is not None
    if copy.prepared is None:
        copy.prepared = _prepare(app.response_class, entry)
    return clone_response(copy.prepared, fields_for_copy(served, entry, time.time(), chosen, more))


def tell_end_of_freshness(response: Response, served: Served, terms: ServeOptions) -> None:
    """Tell caches in front that a stored page is no longer fresh, if a soft purge or a deploy has ended its freshness.

    :param response: made of the copy; changed in place.
    """
    entry = None if served.copy is None else served.copy.entry
    if entry is not None and was_ended(entry, time.time(), terms):
        response.headers = Headers(without_freshness(response.headers))


def _stored_class(base: type[Response]) -> type[Response]:
    return type(f"Stored{base.__name__}", (StoredResponse, base), {})


def _prepare(response_class: type[Response], entry: Entry) -> Response:
    """Return the response of an entry, to be cloned for each visitor."""
    return prepared_response(response_class, entry, _fields_sent(entry), (entry.body,))


def prepared_response(response_class: type[Response], entry: Entry, fields: list[tuple[str, str]], body: tuple[bytes]) -> Response:
    """Return a response to be cloned for each visitor, with all its fields."""
    is_plain = _is_plain(response_class, entry.status, fields)
    kind = kept_by_class(response_class, "_stalecache_stored", _stored_class) if is_plain else response_class
    response = kind(body, status=entry.status, headers=fields)
    # Without the Content-Type that Werkzeug adds to a response that lacks it: the stored fields are complete.
    response.headers = Headers(fields)
    response.__dict__["given_body"] = body
    return response


def _is_plain(response_class: type[Response], status: int, fields: list[tuple[str, str]]) -> bool:
    """Whether Werkzeug would send it as it is: status 200, no location to complete, no methods overridden by the app's class."""
    if status != 200 or any(name.lower() in {"location", "content-location"} for name, _ in fields):
        return False
    steps = ("__init__", "__call__", "get_wsgi_response", "get_wsgi_headers", "get_app_iter", "iter_encoded")
    return all(getattr(response_class, step) is getattr(Response, step) for step in steps)


def respond_with_answer(app: Flask, served: Served, chosen: Collection[str], more: str = "", reason: str = "") -> Response:
    """Build the response from the answer of the origin.

    :param reason: the value of ``fwd`` in ``Cache-Status``; "": the status determines it.
    """
    answer = served.answer
    assert answer is not None
    # A request that waited has not called the view: it gets a response of its own with the shared failure.
    response: Response = app.response_class(*answer.shared) if served.collapsed else answer.value
    if (value := vary_with(response.headers, answer.absent.fields)) is not None:
        response.headers["Vary"] = value
    if response.status_code == 200 and _size_to_cut(response, stored_page(served)) is not None:
        response.headers = Headers(with_accept_ranges(200, response.headers))
    return add_fields(response, fields_for_answer(served, response.status_code, chosen, reason, more))


def stored_page(served: Served) -> Entry | None:
    """Return the stored page that a request is answered with; ``None`` if the answer of the origin is not stored."""
    return None if served.answer is not None and served.status is CacheStatus.BYPASS else served.entry


def add_fields(response: Response, fields: list[tuple[str, str]]) -> Response:
    """Add the status fields to a response. Ours come last, behind those of caches nearer to the origin (RFC 9211 section 2)."""
    response.headers.extend(fields)
    return response


def _fields_sent(entry: Entry) -> list[tuple[str, str]]:
    length = [("Content-Length", str(len(entry.body)))] if entry.body else []
    return with_accept_ranges(entry.status, [*fields_to_send(entry.headers, entry.varied), *length])


def leave_conditions(asked: RequestConditions, response: Response, entry: Entry | None, *, is_last: bool) -> None:
    """Leave the conditions and the range of a request to be answered once hooks and middleware are done with its response.

    :param response: the whole page; a stored one that the client has already becomes a 304 at once, which hooks leave alone.
    :param entry: the stored page that it is made of; ``None`` if it is not stored.
    :param is_last: no other view may put the page into its own.
    """
    if response.status_code != 200:
        return
    asked.page = ViewPage.of(response.headers, _size_to_cut(response, entry), is_last=is_last)
    if is_last and entry is not None and asked.is_answered_by(response.headers, entry.answered):
        response.status_code = 304


def _size_to_cut(response: Response, entry: Entry | None) -> int | None:
    if entry is not None:
        return len(entry.body)
    # send_file would have cut a range of a file, but the conditions were hidden from it.
    return response.content_length if response.direct_passthrough else None
