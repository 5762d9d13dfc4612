"""What the gateway sends: stored responses whole, in part or as 304, and what is said of them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from io import FileIO
from typing import TYPE_CHECKING, Any, NamedTuple

from werkzeug.wsgi import FileWrapper

from ...core.http.fields import first_of, missing_in_vary, request_fields
from ...core.http.ranges import UnsatisfiableRange, single_range
from ...core.http.validators import Validators, fields_of_304
from ...core.model.entry import Entry
from ...core.model.inputs import RequestInputs
from ...errors import StoreError
from ...stats.tally import UNCOUNTED, Tally

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

Fields = list[tuple[str, str]]
#: What the copy answers by itself. If-Match and If-Unmodified-Since are the app's business (http.md rule 21).
_ASKED_OF_COPY = ("HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_RANGE")
#: Bytes of a file that are sent at a time.
BLOCK = 256 * 1024
#: These have no body, nor a Content-Length.
_BODILESS = (204, 304)


class PreparedFields(NamedTuple):
    """What is sent of a fresh entry for a while: until its Age or the seconds of freshness left are others.

    :ivar since: when that begins, in seconds since the epoch.
    :ivar until: when it ends.
    :ivar whole: the fields of the whole.
    :ivar confirmed: the fields of a 304.
    """

    since: float
    until: float
    whole: Fields
    confirmed: Fields


NO_MOMENT = PreparedFields(math.inf, 0.0, [], [])


class PreparedResponse:
    """An entry, ready to be sent.

    :param entry: the entry.
    :ivar line: the status line.
    :ivar fields: the fields without those that depend on the moment.
    :ivar body: the body, in a tuple; ``None`` if it is in a file.
    :ivar absent: names whose carriers it is not for; ``None``: there are none.
    :ivar etag: its ETag, if its status lets it be confirmed.
    :ivar modified: its Last-Modified, likewise.
    :ivar moment: what is sent just now.
    :ivar tally: where it is counted.
    """

    __slots__ = ("absent", "body", "entry", "etag", "fields", "line", "modified", "moment", "tally")

    def __init__(self, entry: Entry, tally: Tally = UNCOUNTED) -> None:
        self.entry = entry
        self.tally = tally
        self.line = status_line(entry.status)
        self.fields = _fields_sent(entry)
        self.body = (entry.body,) if entry.file is None else None
        self.absent: RequestInputs | None = entry.absent or None
        is_confirmed = entry.status == 200
        self.etag = first_of(entry.headers, "etag") if is_confirmed else None
        self.modified = first_of(entry.headers, "last-modified") if is_confirmed else None
        self.moment = NO_MOMENT

    def is_had_by(self, get: Callable[[str], Any]) -> bool:
        """Whether a client says just the same tag, or without a tag the same date. It may have this where it does not."""
        tag = get("HTTP_IF_NONE_MATCH")
        if tag is None:
            return self.modified is not None and self.modified == get("HTTP_IF_MODIFIED_SINCE")
        return self.etag is not None and tag == self.etag

    def note_moment(self, now: float, more: Fields, ahead: float) -> None:
        """Note what is sent of it just now, and until when that holds.

        :param now: seconds since the epoch.
        :param more: the fields that depend on the moment.
        :param ahead: the last seconds of freshness, in which a hit does more than to be sent.
        """
        entry = self.entry
        age = entry.age(now)
        left = entry.windows.max_age - age
        until = now + min(math.floor(age) + 1 - age, left - math.floor(left), left - min(ahead, entry.windows.max_age / 2))
        self.moment = PreparedFields(now, until, [*self.fields, *more], [*fields_of_304(self.fields), *more])


def _fields_sent(entry: Entry) -> Fields:
    # A cache nearer to the app may have put its own Age there; ours is counted from it.
    fields = [(name, value) for name, value in entry.headers if name.lower() != "age"]
    if missing := missing_in_vary(entry.headers, entry.varied):
        fields.append(("Vary", ", ".join(missing)))
    if entry.status not in _BODILESS:
        fields.append(("Content-Length", str(entry.length)))
    return fields


def status_line(status: int) -> str:
    """Return a status with its phrase; one that nobody has registered has none."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Unknown"


class GoneError(Exception):
    """The file that a body was in is another one by now, or none."""


def send_stored(environ: WSGIEnvironment, start_response: StartResponse, sent: PreparedResponse, more: Fields) -> Iterable[bytes]:
    """Send an entry: whole, or what a conditional or range request asks for.

    :param more: fields that say how it came to be sent.
    :raises GoneError: before anything is sent.
    """
    if sent.entry.status == 200:
        for name in _ASKED_OF_COPY:
            if name in environ:
                return _send_part(environ, start_response, sent, more)
    return _send_whole(environ, start_response, sent, more)


def _send_whole(environ: WSGIEnvironment, start_response: StartResponse, sent: PreparedResponse, more: Fields) -> Iterable[bytes]:
    body: Iterable[bytes] = ()
    if environ["REQUEST_METHOD"] != "HEAD":
        body = _from_file(sent.entry, environ) if sent.body is None else sent.body
    start_response(sent.line, [*sent.fields, *more])
    return body


def _from_file(entry: Entry, environ: WSGIEnvironment) -> Iterable[bytes]:
    """Return a body that is in a file, which the server may send in its own way (PEP 3333)."""
    # The body is the last in its file, and the file stands at its beginning; uWSGI would send the file from the first byte on.
    is_from_there = "uwsgi.version" not in environ
    wrapper: Callable[[FileIO, int], Iterable[bytes]] = (is_from_there and environ.get("wsgi.file_wrapper")) or FileWrapper
    return wrapper(_opened(entry), BLOCK)


def _opened(entry: Entry) -> FileIO:
    try:
        file = None if entry.file is None else entry.file.open()
    except StoreError as error:
        raise GoneError from error
    if file is None:
        raise GoneError
    return file


def _send_part(environ: WSGIEnvironment, start_response: StartResponse, sent: PreparedResponse, more: Fields) -> Iterable[bytes]:
    entry = sent.entry
    validators, asked = Validators.of(sent.fields, entry.answered), request_fields(environ)
    if validators.not_modified(asked):
        start_response("304 Not Modified", [*fields_of_304(sent.fields), *more])
        return ()
    if environ["REQUEST_METHOD"] != "GET" or "HTTP_RANGE" not in environ or not validators.allow_range(asked):
        return _send_whole(environ, start_response, sent, more)
    try:
        part = single_range(environ["HTTP_RANGE"], entry.length)
    except UnsatisfiableRange:
        fields = [("Content-Range", f"bytes */{entry.length}"), ("Content-Type", "text/plain"), ("Content-Length", "0")]
        start_response("416 Range Not Satisfiable", [*fields, *more])
        return ()
    if part is None:
        return _send_whole(environ, start_response, sent, more)
    return _send_range(part, start_response, sent, more)


def _send_range(part: slice, start_response: StartResponse, sent: PreparedResponse, more: Fields) -> Iterable[bytes]:
    entry, size = sent.entry, part.stop - part.start
    body: Iterable[bytes] = (entry.body[part],) if entry.file is None else FilePart(_opened(entry), part.start, size)
    fields = [(name, value) for name, value in sent.fields if name.lower() != "content-length"]
    cut = [("Content-Range", f"bytes {part.start}-{part.stop - 1}/{entry.length}"), ("Content-Length", str(size))]
    start_response("206 Partial Content", [*fields, *cut, *more])
    return body


class FilePart:
    """A part of a file, block by block.

    :param file: at the beginning of the body.
    :param start: where the part begins, in the body.
    :param size: its bytes.
    """

    def __init__(self, file: FileIO, start: int, size: int) -> None:
        file.seek(start, os.SEEK_CUR)
        self._file = file
        self._left = size

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        block = self._file.read(min(self._left, BLOCK))
        if not block:
            raise StopIteration
        self._left -= len(block)
        return block

    def close(self) -> None:
        """Close the file."""
        self._file.close()
