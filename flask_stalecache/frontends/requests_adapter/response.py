"""Turns the responses of third parties into data, and data into responses of ``requests`` (with ``urllib3`` below them)."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, NamedTuple

from requests import PreparedRequest, Response
from requests.exceptions import ChunkedEncodingError, SSLError
from requests.exceptions import ConnectionError as NoConnection
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers
from urllib3 import HTTPResponse
from urllib3._collections import HTTPHeaderDict
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError
from urllib3.exceptions import SSLError as BadTls

from ...engine.flights.stream_copies import StreamCopy
from ...errors import StaleCacheError

Fields = list[tuple[str, str]]
CHUNK = 65536
#: Statuses without a body and without Content-Length.
BODILESS = (204, 304)


class ResponseHead(NamedTuple):
    """The head of a response that is made from data.

    :ivar status: the status.
    :ivar reason: the reason phrase.
    :ivar headers: the fields for ``urllib3``, line by line.
    :ivar joined: the fields for ``requests``.
    :ivar encoding: the text encoding that they name.
    """

    status: int
    reason: str
    headers: HTTPHeaderDict
    joined: CaseInsensitiveDict[str]
    encoding: str | None

    @classmethod
    def of(cls, status: int, reason: str, fields: Fields) -> ResponseHead:
        """Return the head with these fields."""
        headers = HTTPHeaderDict()
        for name, value in fields:
            headers.add(name, value)
        joined: CaseInsensitiveDict[str] = CaseInsensitiveDict(headers)
        return cls(status, reason, headers, joined, get_encoding_from_headers(joined))


def phrase(status: int) -> str:
    """Return the reason phrase of a status; "" if none is registered."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def fields_of(response: Response) -> Fields:
    """Return the fields of a response, line by line."""
    headers = getattr(response.raw, "headers", None)
    lines = headers.iteritems() if isinstance(headers, HTTPHeaderDict) else response.headers.items()
    return [(str(name), str(value)) for name, value in lines]


def is_unread(response: Response) -> bool:
    """Whether the body of a response was not read yet, so that we can read it."""
    return isinstance(response.raw, HTTPResponse) and getattr(response, "_content", None) is False


def is_chunked(response: Response) -> bool:
    """Whether a body is chunked. A reader may depend on the bounds of the chunks."""
    return bool(getattr(response.raw, "chunked", False))


# -- from data ------------------------------------------------------------------------------------------------------


def response_from(request: PreparedRequest, head: ResponseHead, body: bytes, connection: Any, cookies_of: Any = None) -> Response:
    """Return a response as an adapter returns it: with a body that is neither read nor decoded.

    :param request: the request that it answers.
    :param connection: the adapter.
    :param cookies_of: the ``urllib3`` response of the third party, whose cookies the caller gets.
    """
    response = Response()
    response.status_code, response.reason = head.status, head.reason
    response.headers, response.encoding = head.joined.copy(), head.encoding
    response.url, response.request = request.url or "", request
    response.connection = connection
    file = _Whole(b"" if request.method == "HEAD" else body)
    response.raw = _raw(head.status, head.reason, head.headers.copy(), file, request.method, cookies_of)
    return response


def _raw(status: int, reason: str | None, headers: HTTPHeaderDict, body: Any, method: str | None, original: Any) -> HTTPResponse:
    return HTTPResponse(
        body=body,
        headers=headers,
        status=status,
        reason=reason,
        version=11,
        preload_content=False,
        decode_content=False,
        original_response=getattr(original, "_original_response", None),
        request_method=method,
    )


class _Whole(io.BytesIO):
    """A complete body as the file of an ``HTTPResponse``. It counts as closed once read, else ``stream(None)`` would not end."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self._size = len(body)

    def isclosed(self) -> bool:
        """Whether it was read to its end."""
        return self.closed or self.tell() >= self._size


def put_body(response: Response, body: Any) -> None:
    """Give a response whose body was read a new body, which is not decoded yet.

    :param body: a file.
    """
    raw = response.raw
    # The new body is not chunked.
    headers = HTTPHeaderDict((name, value) for name, value in fields_of(response) if name.lower() != "transfer-encoding")
    response.raw = _raw(raw.status, raw.reason, headers, body, response.request.method, raw)


# -- read ------------------------------------------------------------------------------------------------------------


class Late(StaleCacheError):
    """A body takes longer than the refresh deadline."""


def read_whole(response: Response, limit: int, until: float | None) -> bytes | None:
    """Read a body without decoding it, so that it can be read again.

    :param limit: the largest body in bytes; the last chunk may exceed it.
    :param until: when to stop, on the monotonic clock; ``None``: no limit.
    :return: the body; ``None`` if it is larger: then the rest is left to the caller.
    :raises requests.RequestException: if the body breaks off: the exception that reading it through ``requests`` would raise.
    :raises Late: if it takes too long.
    """
    raw = response.raw
    chunks = raw.stream(CHUNK, decode_content=False) if until is None else _as_they_come(raw)
    try:
        parts, is_whole = _read(chunks, limit, until)
    except HTTPError as error:
        raw.close()
        raise _as_requests_says(error) from error
    except BaseException:
        raw.close()
        raise
    if not is_whole:
        # Too large to store: the caller gets what was read, then the rest from the connection.
        put_body(response, Passing(raw, lambda size: next(chunks, b""), b"".join(parts)))
        return None
    # All of it was read: the connection goes back to its pool while the caller still works with the response.
    raw.release_conn()
    body = b"".join(parts)
    put_body(response, _Whole(body))
    return body


def _as_they_come(raw: HTTPResponse) -> Iterator[bytes]:
    """Yield the parts of a body as they arrive, without waiting for whole chunks, so that the caller can check the clock."""
    read = getattr(raw, "read1", raw.read)
    while chunk := read(CHUNK, decode_content=False):
        yield chunk


def _read(chunks: Iterator[bytes], limit: int, until: float | None) -> tuple[list[bytes], bool]:
    """Return the parts that arrived, and whether the body is complete."""
    parts, size = [], 0
    for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size > limit:
            return parts, False
        if until is not None and time.monotonic() > until:
            raise Late("the body takes longer than STALECACHE_REFRESH_DEADLINE")
    return parts, True


def let_go(response: Response) -> None:
    """Return the connection of a response without a body to its pool."""
    if is_unread(response):
        response.raw.drain_conn()
        response.raw.release_conn()


def _as_requests_says(error: HTTPError) -> Exception:
    """Return the exception that ``requests`` raises if a body breaks off."""
    if isinstance(error, ProtocolError):
        return ChunkedEncodingError(error)
    if isinstance(error, ReadTimeoutError):
        return NoConnection(error)
    return SSLError(error) if isinstance(error, BadTls) else error


class Passing(io.RawIOBase):
    """A body that a caller reads as it arrives. A copy of it may be kept.

    :param raw: the ``urllib3`` response; closed with this.
    :param more: returns the next bytes, given how many are wanted.
    :param before: the bytes that were read before.
    :param copy: the copy, which is empty.
    :param over: called with the whole body once it has arrived, unless the copy was given up.
    :param length: the length of the body, if it is copied; no more bytes than that are kept.
    """

    def __init__(
        self,
        raw: HTTPResponse,
        more: Callable[[int], bytes],
        before: bytes = b"",
        copy: StreamCopy | None = None,
        over: Callable[[bytes], object] | None = None,
        length: int = 0,
    ) -> None:
        super().__init__()
        self._raw = raw
        self._more = more
        self._rest = before
        self._copy = copy
        self._over = over
        self._length = length
        self._size = 0
        self._is_over = False

    def readable(self) -> bool:
        """Return true: the body can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read a part of the body into a buffer. Return its size in bytes."""
        if not self._rest:
            self._rest = self._next(len(buffer))
            self._is_over = not self._rest
            self._keep(self._rest)
        part, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    def _next(self, size: int) -> bytes:
        if self._copy is None:
            return self._more(size)
        self._copy.pace.asked()
        chunk = self._more(size)
        self._copy.pace.given()
        return chunk

    def _keep(self, chunk: bytes) -> None:
        if self._copy is None:
            return
        self._size += len(chunk)
        if not self._copy.add(chunk):
            self._copy = None
        elif self._size >= self._length:
            self._is_over = True
            copy, self._copy = self._copy, None
            body = copy.end()
            # Before the caller sees the end: with the whole body it may send its next request immediately.
            if self._size == self._length and body is not None and self._over is not None:
                self._over(body)

    def isclosed(self) -> bool:
        """Whether it was read to its end."""
        return self.closed or (self._is_over and not self._rest)

    def read1(self, size: int = -1) -> bytes:
        """Read and return a part of the body."""
        return self.read(size) or b""

    def close(self) -> None:
        """Close the response of the third party, and release its connection."""
        if not self.closed:
            if self._copy is not None:
                self._copy.end()
            self._copy = self._over = None
            self._raw.close()
            self._raw.release_conn()
        super().close()


def keep_copy(response: Response, copy: StreamCopy, length: int, over: Callable[[bytes], object]) -> None:
    """Keep a copy of a body while it is read.

    :param copy: the copy, which is empty.
    :param length: the Content-Length of the response.
    :param over: called with the whole body once it has arrived.
    """
    raw = response.raw
    put_body(response, Passing(raw, lambda size: raw.read(size, decode_content=False), b"", copy, over, length))
