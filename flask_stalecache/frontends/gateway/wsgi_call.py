"""One call of a WSGI app in two steps: first its status and fields, then its body, chunk by chunk (PEP 3333)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from werkzeug.wsgi import FileWrapper

from ...core.http.fields import content_length, end_to_end, first_of
from ...core.model.reasons import StoreRefusal
from ...core.wsgi import close_iterable
from ...engine.flights.stream_copies import StreamCopy

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Fields = list[tuple[str, str]]
#: Marks the end of a body. An app may yield anything, so the mark must be a unique object.
_END: Any = object()


def status_code_of(status: str) -> int:
    """Return the number in a status line; 0 if it has no number."""
    code = status[:3]
    return int(code) if len(code) == 3 and code.isascii() and code.isdigit() else 0


class AppCall:
    """The response of a WSGI app to one request.

    :param start_response: the server's. It is called by :meth:`send_head`, or when the app calls ``write()``.
    :param around: a context for each step of the app: the call, and each chunk.
    :ivar status: the status line; "" until the app has called ``start_response``.
    :ivar fields: the fields.
    :ivar exc_info: the ``exc_info`` of the app's last ``start_response``, if it gave one.
    :ivar first: the first chunks, which had to be read to learn the status.
    :ivar is_sent: status and fields were given to the server, and can't be replaced.
    """

    def __init__(self, start_response: StartResponse | None, around: Callable[[], AbstractContextManager[object]]) -> None:
        self._start_response = start_response
        self._around = around
        self._body: Iterable[Any] = ()
        self._iterator: Iterator[Any] | None = None
        self.status = ""
        self.fields: Fields = []
        self.exc_info: OptExcInfo | None = None
        self.first: list[Any] = []
        self.is_sent = False
        self.has_written = False

    @property
    def code(self) -> int:
        """The status as a number; 0 if it has no number."""
        return status_code_of(self.status)

    def make(self, app: WSGIApplication, environ: WSGIEnvironment) -> None:
        """Call the app, and read its body until status and fields are known. Raises what the app raises."""
        with self._around():
            self._body = app(environ, self._start)
        # A generator calls start_response only when its first chunk is read, and must do so before that chunk (PEP 3333).
        while not self.status and not any(self.first[-1:]) and (chunk := self._next()) is not _END:
            self.first.append(chunk)

    def _start(self, status: str, headers: Fields, exc_info: OptExcInfo | None = None) -> Callable[[bytes], object]:
        if self.is_sent:
            # The server handles this: it raises the exception of the app, or one of its own.
            assert self._start_response is not None
            return self._start_response(status, headers, exc_info)
        if self.status and exc_info is None:
            raise AssertionError("start_response was called twice without exc_info (PEP 3333)")
        self.status, self.fields, self.exc_info = status, [*headers], exc_info
        return self._write

    def _write(self, data: bytes) -> object:
        # Bytes that bypass the iterable are not part of the copy, so the response can't be stored.
        self.has_written = True
        return self._send(self.fields)(data)

    def _send(self, fields: Fields, status: str = "") -> Callable[[bytes], object]:
        if not self.is_sent:
            self.is_sent = True
            # PEP 3333 forbids hop-by-hop fields, and servers refuse them. Apps that proxy other servers send them anyway.
            fields = end_to_end(fields)
            if self._start_response is None:
                self._writer: Callable[[bytes], object] = lambda data: None
            elif self.exc_info is None:
                self._writer = self._start_response(status or self.status, fields)
            else:
                self._writer = self._start_response(status or self.status, fields, self.exc_info)
        return self._writer

    def send_head(self, fields: Fields, status: str = "") -> None:
        """Give the status and these fields to the server. Does nothing if ``write()`` has already sent the app's own.

        :param status: another status line than the app's.
        """
        self._send(fields, status)

    @property
    def size(self) -> int | None:
        """The size of the body in bytes, by its Content-Length or as a list; ``None`` if neither tells it, or if they disagree."""
        length, body = content_length(self.fields), self._listed()
        if body is None or (length is None and first_of(self.fields, "content-length") is not None):
            return length
        size = sum(len(chunk) for chunk in body)
        return size if length in (None, size) else None

    def begun(self) -> bytes | None:
        """Read the body up to the first chunk that is not empty. Return the bytes so far; ``None`` if a chunk is not bytes."""
        while not any(self.first[-1:]):
            chunk = self._next()
            if chunk is _END:
                break
            self.first.append(chunk)
        return b"".join(self.first) if all(type(chunk) is bytes for chunk in self.first) else None

    def _next(self) -> Any:
        with self._around():
            if self._iterator is None:
                self._iterator = iter(self._body)
            return next(self._iterator, _END)

    def whole(self) -> bytes | None:
        """Return the body if it is complete: a list or a tuple of bytes; else ``None``."""
        chunks = self._listed()
        return None if chunks is None else b"".join(chunks)

    def _listed(self) -> list[bytes] | None:
        if self._iterator is not None or type(self._body) not in (list, tuple):
            return None
        chunks = list(self._body)
        return chunks if all(type(chunk) is bytes for chunk in chunks) else None

    def ahead(self, length: int) -> bytes | None:
        """Read a whole body ahead, keep it for the client, and return it; ``None`` if its length or the type of a chunk is wrong.

        :param length: the length that it must have, in bytes.
        """
        size = sum(len(chunk) for chunk in self.first)
        while size < length and (chunk := self._next()) is not _END:
            self.first.append(chunk)
            size += len(chunk)
        is_whole = size == length and all(type(chunk) is bytes for chunk in self.first)
        return b"".join(self.first) if is_whole else None

    def rest(self) -> Iterable[bytes]:
        """Return the rest of the body for the server, which closes it: the app's own iterable, if nothing was read yet."""
        if self._iterator is not None:
            return _Rest(self)
        # Untouched: the server may recognise it and send it in its own way, such as a wsgi.file_wrapper.
        body, self._body = self._body, ()
        return body

    def skip(self, count: int) -> int:
        """Skip bytes of a body that is a file from which nothing was read. Return how many were skipped."""
        body = self._body
        if self._iterator is not None or type(body) is not FileWrapper or not body.seekable():
            return 0
        body.seek(count, os.SEEK_CUR)
        return count

    def __iter__(self) -> Iterator[Any]:
        """Yield the chunks of the body, including those that were read already."""
        while self.first:
            yield self.first.pop(0)
        while (chunk := self._next()) is not _END:
            yield chunk

    def close(self) -> None:
        """Close the app's iterable, once."""
        body, self._body = self._body, ()
        with self._around():
            close_iterable(body)


class _Rest:
    """A body whose first chunks were read already."""

    def __init__(self, call: AppCall) -> None:
        self._call = call
        self._chunks = iter(call)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk: bytes = next(self._chunks)
        return chunk

    def close(self) -> None:
        self._call.close()


class Copied:
    """Passes a body on, chunk by chunk, and keeps a copy of it.

    :param call: the app's response.
    :param copy: the copy, which is empty.
    :param limit: the largest copy, in bytes.
    :param length: the Content-Length of the response; ``None`` if it has none.
    :param over: called once at the end, with the body and ``None``. Without a complete copy, it is called with ``None`` and the
        reason, which is ``None`` too if the body was cut short.
    """

    def __init__(
        self,
        call: AppCall,
        copy: StreamCopy,
        limit: int,
        length: int | None,
        over: Callable[[bytes | None, StoreRefusal | None], object],
    ) -> None:
        self._call = call
        self._chunks = iter(call)
        self._copy: StreamCopy | None = copy
        self._pace = copy.pace
        self._size = 0
        self._limit = limit
        self._length = length
        self._over: Callable[[bytes | None, StoreRefusal | None], object] | None = over

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._pace.asked()
        try:
            chunk: bytes = next(self._chunks)
        except StopIteration:
            self._end(is_whole=self._length in (None, self._size))
            raise
        except BaseException:
            self._end()
            raise
        if self._copy is not None:
            self._keep(self._copy, chunk)
        self._pace.given()
        return chunk

    def _keep(self, copy: StreamCopy, chunk: bytes) -> None:
        if type(chunk) is not bytes:
            self._end()
            return
        self._size += len(chunk)
        if self._size > self._limit:
            self._end(StoreRefusal.TOO_LARGE)
        elif not copy.add(chunk):
            self._end(StoreRefusal.SLOW_READER)
        elif self._size == self._length:
            # Before the last chunk is sent: a client that has the whole body may send its next request immediately.
            self._end(is_whole=True)

    def _end(self, why: StoreRefusal | None = None, *, is_whole: bool = False) -> None:
        """Report once how the body has ended, and release the copy.

        :param why: why there is no copy.
        :param is_whole: the body is complete.
        """
        copy, self._copy = self._copy, None
        over, self._over = self._over, None
        body = None if copy is None else copy.end()
        if over is None:
            return
        if is_whole and body is None:
            # The copy was given up at the last chunk.
            why = StoreRefusal.SLOW_READER
        over(body if is_whole else None, why)

    def close(self) -> None:
        """Close the app's iterable. A body that was not read to its end is incomplete."""
        try:
            self._call.close()
        finally:
            self._end()
