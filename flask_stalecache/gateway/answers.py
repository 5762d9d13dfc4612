"""What the gateway sends: stored responses whole, in part or as 304, and what is said of them."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from ..entry import Entry
from ..http.fields import request_fields, vary_names
from ..http.ranges import UnsatisfiableRange, single_range
from ..http.validators import Validators, fields_of_304

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

Fields = list[tuple[str, str]]
#: What the copy answers by itself. If-Match and If-Unmodified-Since are the app's business (http.md rule 21).
_ASKED_OF_COPY = ("HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_RANGE")
#: These have no body, nor a Content-Length.
_BODILESS = (204, 304)


class Prepared(NamedTuple):
    """An entry, as far as it is the same for all who are sent it.

    :ivar line: the status line.
    :ivar fields: the fields without those that depend on the moment.
    :ivar body: the body, in a tuple.
    """

    line: str
    fields: Fields
    body: tuple[bytes, ...]


def prepare(entry: Entry) -> Prepared:
    """Return what is sent of an entry, whoever asks."""
    # A cache nearer to the app may have put its own Age there; ours is counted from it.
    fields = [(name, value) for name, value in entry.headers if name.lower() != "age"]
    missing = [name for name in entry.varied if name.lower() not in vary_names(entry.headers)]
    if missing:
        fields.append(("Vary", ", ".join(missing)))
    if entry.status not in _BODILESS:
        fields.append(("Content-Length", str(len(entry.body))))
    return Prepared(status_line(entry.status), fields, (entry.body,))


def status_line(status: int) -> str:
    """Return a status with its phrase; one that nobody has registered has none."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Unknown"


def send_stored(
    environ: WSGIEnvironment, start_response: StartResponse, entry: Entry, sent: Prepared, more: Fields
) -> tuple[bytes, ...]:
    """Send an entry: whole, or what a conditional or range request asks for. It is called on every hit.

    :param more: fields that say how it came to be sent.
    """
    if entry.status == 200:
        for name in _ASKED_OF_COPY:
            if name in environ:
                return _send_part(environ, start_response, entry, sent, more)
    start_response(sent.line, [*sent.fields, *more])
    return () if environ["REQUEST_METHOD"] == "HEAD" else sent.body


def _send_part(
    environ: WSGIEnvironment, start_response: StartResponse, entry: Entry, sent: Prepared, more: Fields
) -> tuple[bytes, ...]:
    validators, asked = Validators.of(sent.fields, entry.answered), request_fields(environ)
    if validators.not_modified(asked):
        start_response("304 Not Modified", [*fields_of_304(sent.fields), *more])
        return ()
    is_get = environ["REQUEST_METHOD"] == "GET"
    if not is_get or "HTTP_RANGE" not in environ or not validators.allow_range(asked):
        start_response(sent.line, [*sent.fields, *more])
        return sent.body if is_get else ()
    return _send_range(environ["HTTP_RANGE"], start_response, entry.body, sent, more)


def _send_range(asked: str, start_response: StartResponse, body: bytes, sent: Prepared, more: Fields) -> tuple[bytes, ...]:
    size = len(body)
    try:
        part = single_range(asked, size)
    except UnsatisfiableRange:
        start_response("416 Range Not Satisfiable", [("Content-Range", f"bytes */{size}"), ("Content-Length", "0"), *more])
        return ()
    if part is None:
        start_response(sent.line, [*sent.fields, *more])
        return sent.body
    fields = [(name, value) for name, value in sent.fields if name.lower() != "content-length"]
    cut = [("Content-Range", f"bytes {part.start}-{part.stop - 1}/{size}"), ("Content-Length", str(part.stop - part.start))]
    start_response("206 Partial Content", [*fields, *cut, *more])
    return (body[part],)
