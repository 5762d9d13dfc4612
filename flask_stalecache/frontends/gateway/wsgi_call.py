"""One call of a WSGI app, taken apart: its status and fields first, then its body, chunk by chunk (PEP 3333)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from ...core.http.fields import end_to_end
from ...core.wsgi import close_iterable

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Fields = list[tuple[str, str]]
#: What stands for the end of a body: an app may yield anything.
_END: Any = object()


def code_of(status: str) -> int:
    """Return the number in a status line; 0 if there is none."""
    code = status[:3]
    return int(code) if len(code) == 3 and code.isascii() and code.isdigit() else 0


class AppCall:
    """What a WSGI app answers to one request.

    :param start_response: the server's; it is called when :meth:`send_head` is, or when the app calls ``write()``.
    :param around: entered around each step of the app: the call, and each chunk.
    :ivar status: the status line; "" until the app has begun to answer.
    :ivar fields: the fields.
    :ivar exc_info: what the app gave with them, if it did.
    :ivar first: the first chunks, which had to be asked for to learn the status.
    :ivar is_sent: the head is on its way, and can't be taken back.
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
        """The status as a number; 0 if it is none."""
        return code_of(self.status)

    def make(self, app: WSGIApplication, environ: WSGIEnvironment) -> None:
        """Call the app, up to where status and fields are known, if it tells them. What it raises, it raises here."""
        with self._around():
            self._body = app(environ, self._start)
        # One that is a generator has not even begun. Past its first chunk it is too late.
        while not self.status and not any(self.first[-1:]) and (chunk := self._next()) is not _END:
            self.first.append(chunk)

    def _start(self, status: str, headers: Fields, exc_info: OptExcInfo | None = None) -> Callable[[bytes], object]:
        if self.is_sent:
            # The server says what is to be said of that: it raises the exception, or its own.
            assert self._start_response is not None
            return self._start_response(status, headers, exc_info)
        if self.status and exc_info is None:
            raise AssertionError("start_response was called twice without exc_info (PEP 3333)")
        self.status, self.fields, self.exc_info = status, [*headers], exc_info
        return self._write

    def _write(self, data: bytes) -> object:
        self.has_written = True
        return self._send(self.fields)(data)

    def _send(self, fields: Fields) -> Callable[[bytes], object]:
        if not self.is_sent:
            self.is_sent = True
            # PEP 3333 forbids hop-by-hop fields, and servers refuse them; but apps that were proxied before have them.
            fields = end_to_end(fields)
            if self._start_response is None:
                self._writer: Callable[[bytes], object] = lambda data: None
            elif self.exc_info is None:
                self._writer = self._start_response(self.status, fields)
            else:
                self._writer = self._start_response(self.status, fields, self.exc_info)
        return self._writer

    def send_head(self, more: Fields) -> None:
        """Give status and fields to the server, with some more fields; nothing, if ``write()`` has done that."""
        self._send([*self.fields, *more])

    def begun(self) -> bytes | None:
        """Return the body up to the first chunk that is not empty, which is asked for; ``None`` if it is not made of bytes."""
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
        """Return the body if all of it is there already, as a list or a tuple of bytes; else ``None``."""
        if self._iterator is not None or type(self._body) not in (list, tuple):
            return None
        chunks = list(self._body)
        return b"".join(chunks) if all(type(chunk) is bytes for chunk in chunks) else None

    def rest(self) -> Iterable[bytes]:
        """Return the rest of the answer for the server, which closes it: the app's own iterable, if nothing of it was asked for."""
        if self._iterator is not None:
            return _Rest(self)
        body, self._body = self._body, ()
        return body

    def __iter__(self) -> Iterator[Any]:
        """Go through the body, first what is there already."""
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
    """The body of a call, of which the first chunks were asked for."""

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
    """Hands a body on, chunk by chunk, and keeps a copy of it up to a size.

    :param call: the app's answer.
    :param limit: bytes that are kept at most.
    :param length: bytes that the body is said to have; ``None``: not said.
    :param over: told once when it is over: with the body if all of it has come; with ``None`` and whether that was because it is
        too large.
    """

    def __init__(self, call: AppCall, limit: int, length: int | None, over: Callable[[bytes | None, bool], object]) -> None:
        self._call = call
        self._chunks = iter(call)
        self._kept: list[bytes] | None = []
        self._size = 0
        self._limit = limit
        self._length = length
        self._over: Callable[[bytes | None, bool], object] | None = over

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            chunk: bytes = next(self._chunks)
        except StopIteration:
            self._tell(self._body(), False)
            raise
        except BaseException:
            self._tell(None, False)
            raise
        self._keep(chunk)
        return chunk

    def _keep(self, chunk: bytes) -> None:
        if self._kept is None:
            return
        if type(chunk) is not bytes:
            self._tell(None, False)
            return
        self._size += len(chunk)
        if self._size > self._limit:
            self._tell(None, True)
        else:
            self._kept.append(chunk)
            if self._size == self._length:
                # Stored before it is sent to its end: a client that has all of it may come back at once.
                self._tell(self._body(), False)

    def _body(self) -> bytes | None:
        if self._kept is None or self._length not in (None, self._size):
            return None
        return b"".join(self._kept)

    def _tell(self, body: bytes | None, is_too_large: bool) -> None:
        over, self._over, self._kept = self._over, None, None
        if over is not None:
            over(body, is_too_large)

    def close(self) -> None:
        """Close the app's iterable; a body that was not gone through to its end is none."""
        try:
            self._call.close()
        finally:
            self._tell(None, False)
