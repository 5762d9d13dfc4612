"""Sends stored responses: whole, in part, or as a 304."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from http import HTTPStatus
from io import FileIO
from typing import TYPE_CHECKING, Any

from werkzeug.wsgi import FileWrapper

from ...core.exhaustive import assert_never
from ...core.http.fields import fields_to_send, first_of, request_fields
from ...core.http.tags import without_fields
from ...core.model.entry import Entry
from ...core.model.inputs import RequestInputs
from ...core.responses.conditional import (
    ANSWERED_FIELDS,
    Extent,
    Selected,
    fields_of_206,
    fields_of_416,
    fields_of_any_part,
    select,
    with_accept_ranges,
)
from ...core.responses.ended import without_freshness
from ...core.responses.ranges import UnsatisfiableRange, accepts_ranges, single_range
from ...core.responses.validators import CONDITIONS, fields_of_304
from ...engine.standing import Standing
from ...errors import StoreError
from ...stats.tally import UNCOUNTED, Tally

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

Fields = list[tuple[str, str]]
#: Bytes of a file that are sent in one block.
BLOCK = 256 * 1024
#: The conditions that a request for a range must not have on the short way.
_OTHER_CONDITIONS = tuple(name for name in CONDITIONS if name not in ("HTTP_RANGE", "HTTP_IF_RANGE"))
#: Statuses without a body and without Content-Length.
_BODILESS = (204, 304)


@dataclass(frozen=True, slots=True)
class PreparedFields:
    """The fields of a stored response, for as long as its Age and its remaining seconds of freshness stay the same.

    :ivar since: the beginning of that time, in seconds since the epoch.
    :ivar until: its end.
    :ivar whole: the fields of the whole response.
    :ivar confirmed: the fields of a 304.
    :ivar part: the fields of a 206 that come before those of the part.
    :ivar more: the fields of a 206 that come after those of the part.
    :ivar standing: the decision to serve it although a refresh is due; ``None``: it is fresh.
    """

    since: float
    until: float
    whole: Fields
    confirmed: Fields
    part: Fields
    more: Fields
    standing: Standing | None


NOT_PREPARED = PreparedFields(math.inf, 0.0, [], [], [], [], None)


class PreparedResponse:
    """An entry that is ready to be sent.

    :param entry: the entry.
    :param removed: fields that are not sent, in lower case.
    :param is_over: its freshness was ended early, so that caches in front get a lifetime of 0.
    :ivar line: the status line.
    :ivar fields: the fields that are always the same: all but Age and the status fields.
    :ivar body: the body, in a tuple; ``None`` if it is in a file.
    :ivar absent: the entry's absent names but for session keys: a request that carries one gets another response; or ``None``.
    :ivar keys: the session keys among its absent names.
    :ivar etag: its ETag, if a 304 may be sent in its place.
    :ivar modified: its Last-Modified, likewise.
    :ivar has_parts: ranges may be cut from it.
    :ivar fields_now: all fields as they may be sent now.
    :ivar tally: the counters of its endpoint.
    """

    __slots__ = ("absent", "body", "entry", "etag", "fields", "fields_now", "has_parts", "keys", "line", "modified", "tally")

    def __init__(self, entry: Entry, tally: Tally = UNCOUNTED, removed: Collection[str] = (), *, is_over: bool = False) -> None:
        self.entry = entry
        self.tally = tally
        self.line = status_line(entry.status)
        fields = without_fields(_fields_sent(entry), removed)
        self.fields = without_freshness(fields) if is_over else fields
        self.body = (entry.body,) if entry.file is None else None
        self.absent: RequestInputs | None = replace(entry.absent, session=()) or None
        self.keys = entry.absent.session
        # Only a 200 is answered with a 304: the validators of other statuses are not compared (RFC 9110 section 13.2.1).
        is_confirmed = entry.status == 200
        self.etag = first_of(entry.headers, "etag") if is_confirmed else None
        self.modified = first_of(entry.headers, "last-modified") if is_confirmed else None
        self.has_parts = is_confirmed and self.body is not None and accepts_ranges(fields)
        self.fields_now = NOT_PREPARED

    def is_confirmed_by(self, get: Callable[[str], Any]) -> bool:
        """Whether a client sends exactly this ETag, or without one exactly this date. If not, the long way may still confirm it."""
        tag = get("HTTP_IF_NONE_MATCH")
        if tag is None:
            return self.modified is not None and self.modified == get("HTTP_IF_MODIFIED_SINCE")
        return self.etag is not None and tag == self.etag

    def part_for(self, get: Callable[[str], Any]) -> slice | None:
        """Return the range of a request whose only condition, if any, is exactly this ETag; ``None``: the long way decides."""
        condition = get("HTTP_IF_RANGE")
        if not self.has_parts or any(get(name) is not None for name in _OTHER_CONDITIONS):
            return None
        if condition is not None and (condition != self.etag or not condition.startswith('"')):
            return None
        try:
            return single_range(get("HTTP_RANGE"), len(self.entry.body))
        except UnsatisfiableRange:
            return None

    def fields_at(self, now: float, more: Fields, until: float, standing: Standing | None = None) -> PreparedFields:
        """Return the fields that may be sent now, with the time when they expire.

        :param now: seconds since the epoch.
        :param more: Age and the status fields.
        :param until: the latest time when they expire, in seconds since the epoch.
        :param standing: the decision to serve it although a refresh is due; ``None``: it is fresh.
        """
        entry = self.entry
        age = entry.age(now)
        left = entry.windows.max_age - age
        # Until Age changes, or until ttl in Cache-Status changes.
        until = min(until, now + min(math.floor(age) + 1 - age, left - math.floor(left)))
        part = fields_of_any_part(self.fields) if self.has_parts else []
        whole, confirmed = [*self.fields, *more], [*fields_of_304(self.fields), *more]
        return PreparedFields(now, until, whole, confirmed, part, more, standing)


def _fields_sent(entry: Entry) -> Fields:
    fields = fields_to_send(entry.headers, entry.varied)
    if entry.status not in _BODILESS:
        fields.append(("Content-Length", str(entry.length)))
    return with_accept_ranges(entry.status, fields)


def status_line(status: int) -> str:
    """Return a status with its reason phrase."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Unknown"


class GoneError(Exception):
    """The file of a body has been replaced or removed since the look-up."""


def send_stored(environ: WSGIEnvironment, start_response: StartResponse, sent: PreparedResponse, more: Fields) -> Iterable[bytes]:
    """Send an entry: whole, or as a conditional or range request asks.

    :param more: Age and the status fields.
    :raises GoneError: before anything is sent.
    """
    if sent.entry.status == 200:
        for name in ANSWERED_FIELDS:
            if name in environ:
                return _send_part(environ, start_response, sent, more)
    return _send_whole(environ, start_response, sent, more)


def _send_whole(environ: WSGIEnvironment, start_response: StartResponse, sent: PreparedResponse, more: Fields) -> Iterable[bytes]:
    body: Iterable[bytes] = ()
    if environ["REQUEST_METHOD"] != "HEAD":
        # Before start_response: if the file has gone, another response can still be sent.
        body = _from_file(sent.entry, environ) if sent.body is None else sent.body
    start_response(sent.line, [*sent.fields, *more])
    return body


def _from_file(entry: Entry, environ: WSGIEnvironment) -> Iterable[bytes]:
    """Return a body that is in a file. The server may use sendfile for it (``wsgi.file_wrapper``, PEP 3333)."""
    # The file is positioned at the body, which is its last part. uWSGI ignores the position and would send the head of the entry.
    keeps_position = "uwsgi.version" not in environ
    wrapper: Callable[[FileIO, int], Iterable[bytes]] = (keeps_position and environ.get("wsgi.file_wrapper")) or FileWrapper
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
    method, asked = environ["REQUEST_METHOD"], request_fields(environ)
    selected = select(method, asked, entry.status, sent.fields, entry.answered, entry.length)
    match selected.extent:
        case Extent.FULL:
            return _send_whole(environ, start_response, sent, more)
        case Extent.NOT_MODIFIED:
            start_response("304 Not Modified", [*fields_of_304(sent.fields), *more])
            return ()
        case Extent.PARTIAL:
            return _send_range(selected, start_response, sent, more)
        case Extent.UNSATISFIABLE:
            start_response("416 Range Not Satisfiable", [*fields_of_416(selected), *more])
            return ()
        case _:
            return assert_never(selected.extent)


def _send_range(selected: Selected, start_response: StartResponse, sent: PreparedResponse, more: Fields) -> Iterable[bytes]:
    entry, part = sent.entry, selected.part
    size = part.stop - part.start
    body: Iterable[bytes] = (entry.body[part],) if entry.file is None else FilePart(_opened(entry), part.start, size)
    start_response("206 Partial Content", [*fields_of_206(sent.fields, selected), *more])
    return body


class FilePart:
    """A part of a file, block by block.

    :param file: the file, positioned at the beginning of the body.
    :param start: the offset of the part in the body, in bytes.
    :param size: the size of the part in bytes.
    """

    def __init__(self, file: FileIO, start: int, size: int) -> None:
        # Relative: the file is positioned at the body, behind the head of the entry.
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
