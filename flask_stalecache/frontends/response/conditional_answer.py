"""Answers the conditions and the range of a request for a cached view from the final response.

Hooks and middleware may change the response after the view has returned it: a part that was cut before would be compressed as if
it were the whole. So they get the whole page, which is confirmed or cut where it leaves the app.

=============== =================================================================================================================
304             the validators that are sent match, whether the page is stored or not
206, 416        the size of the page or file is known and unchanged; or the page has another strong ETag than before, with which
                the code that changed the page declares another representation
whole           anything else
=============== =================================================================================================================
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from werkzeug.wsgi import FileWrapper

from ...core.exhaustive import assert_never
from ...core.http.content_policy import without_nonces
from ...core.http.fields import Headers, content_length, first_of, request_fields
from ...core.responses.conditional import Extent, Selected, fields_of_206, select, select_of_new, without_content
from ...core.responses.ranges import RangeCutter
from ...core.responses.validators import CONDITIONS
from ...core.wsgi import close_iterable

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

#: In the environ: the conditions and the range of the request, if it has any.
ASKED = "flask_stalecache.asked"


class ViewPage(NamedTuple):
    """The page of a cached view as the view has returned it.

    :ivar size: its size in bytes, if ranges may be cut from it; ``None`` if not.
    :ivar etag: its ETag, if any.
    :ivar coding: its Content-Encoding, if any.
    :ivar is_last: Flask itself has called the view, so no other view has put the page into its own.
    """

    size: int | None
    etag: str | None
    coding: str | None
    is_last: bool

    @classmethod
    def of(cls, headers: Headers, size: int | None, *, is_last: bool) -> ViewPage:
        """Return the page of a response with these fields."""
        fields = tuple(headers)
        return cls(size, first_of(fields, "etag"), first_of(fields, "content-encoding"), is_last)

    def is_sent_as(self, headers: Headers) -> bool:
        """Whether a response with these fields is this page, changed or not, rather than that of a view that called this one."""
        return self.is_last or (self.etag is not None and first_of(headers, "etag") == self.etag)

    def size_sent(self, headers: Headers) -> int | None:
        """Return the size of the response with these fields, which is sent in its place; ``None`` if no range is cut from it."""
        fields = tuple(headers)
        if self.size is None:
            return None
        sent, etag = content_length(fields), first_of(fields, "etag")
        is_same = sent == self.size and first_of(fields, "content-encoding") == self.coding
        is_another = etag is not None and etag.startswith('"') and etag != self.etag
        return sent if is_same or is_another else None


class RequestConditions:
    """The conditions and the range of one request.

    :param environ: the request.
    :param start_response: the server's.
    :ivar page: the page of the cached view that answered; ``None``: no cached view has answered, and the response is sent as it is.
    """

    def __init__(self, environ: WSGIEnvironment, start_response: StartResponse) -> None:
        self._method = environ["REQUEST_METHOD"]
        # A copy, since the conditions are hidden from the view.
        self._get = request_fields({name: environ[name] for name in CONDITIONS if name in environ})
        self._start_response = start_response
        self._selected: Selected | None = None
        self._cutter: RangeCutter | None = None
        self.page: ViewPage | None = None

    def is_answered_by(self, headers: Headers, answered: float) -> bool:
        """Whether the client already has a stored page, so that hooks don't need the whole page.

        :param answered: when the page was made, in seconds since the epoch.
        """
        return select(self._method, self._get, 200, headers, answered, None).extent is Extent.NOT_MODIFIED

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None) -> Callable[[bytes], object]:
        """Give the server the status and the fields of the part that the request asks for (PEP 3333)."""
        selected = self._selected = self._select(status, headers)
        given = () if exc_info is None else (exc_info,)
        match selected.extent:
            case Extent.FULL:
                return self._start_response(status, headers, *given)
            case Extent.NOT_MODIFIED:
                write = self._start_response("304 Not Modified", without_nonces(without_content(headers)), *given)
            case Extent.PARTIAL:
                self._cutter = RangeCutter(selected.part)
                write = self._start_response("206 Partial Content", fields_of_206(headers, selected), *given)
            case Extent.UNSATISFIABLE:
                length = [("Content-Range", selected.content_range), ("Content-Length", "0")]
                fields = [*without_content(headers, with_freshness=False), *length]
                write = self._start_response("416 Range Not Satisfiable", fields, *given)
            case _:
                assert_never(selected.extent)
        return lambda data: write(self.piece(data))

    def _select(self, status: str, headers: list[tuple[str, str]]) -> Selected:
        whole = Selected(Extent.FULL, 0, slice(0, 0))
        page = self.page
        if page is None or not status.startswith("200") or not page.is_sent_as(headers):
            return whole
        return select_of_new(self._method, self._get, 200, headers, time.time(), page.size_sent(headers))

    def cut(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Return the part of the body that is asked for."""
        selected = self._selected
        if selected is None:
            # A middleware that is a generator calls start_response when its first chunk is read.
            return _Part(body, self)
        if selected.extent is Extent.FULL:
            return body
        if selected.extent is Extent.PARTIAL and isinstance(body, FileWrapper) and body.seekable():
            body.seek(selected.part.start, os.SEEK_CUR)
            self._cutter = RangeCutter(selected.part, selected.part.start)
        return _Part(body, self)

    @property
    def is_over(self) -> bool:
        """Whether nothing more of the body is sent."""
        selected = self._selected
        if selected is None or selected.extent is Extent.FULL:
            return False
        return self._cutter is None or self._cutter.is_over

    def piece(self, chunk: bytes) -> bytes:
        """Return the part of the next chunk of the body that is sent."""
        selected = self._selected
        if selected is None or selected.extent is Extent.FULL:
            return chunk
        return b"" if self._cutter is None else self._cutter.piece(chunk)


class _Part:
    """The part of a body that is sent. The rest is not read."""

    def __init__(self, body: Iterable[bytes], asked: RequestConditions) -> None:
        self._body = body
        self._asked = asked
        self._chunks: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._chunks is None:
            self._chunks = iter(self._body)
        while not self._asked.is_over:
            chunk = next(self._chunks)
            if piece := self._asked.piece(chunk):
                return piece
        raise StopIteration

    def close(self) -> None:
        """Close the whole body."""
        close_iterable(self._body)


def asked_of(environ: WSGIEnvironment, start_response: StartResponse) -> tuple[WSGIEnvironment, RequestConditions | None]:
    """Return the environ to call an app with, and the conditions and the range of the request, which views find in that environ.

    The conditions are ``None`` if the request is neither a GET nor a HEAD.
    """
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return environ, None
    if "HTTP_RANGE" in environ and type(environ) is dict:
        # The file wrappers of most servers can't seek. A copy, since a server looks for its own class when it sends the body.
        environ = {**environ, "wsgi.file_wrapper": FileWrapper}
    asked = environ[ASKED] = RequestConditions(environ, start_response)
    return environ, asked
