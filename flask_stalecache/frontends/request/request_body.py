"""Bodies of GET requests that no field announces.

HTTP/2 and HTTP/3 need no Content-Length and no Transfer-Encoding, so a server may hand over a body that only reading can find, as
granian does. The answer to such a request is not stored. For an answer that may be stored, the view gets an empty body.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_INPUT = "wsgi.input"


class UnannouncedBody:
    """The input of a request, which can find out whether there is a body.

    Most requests are answered without reading it. So it is cheap to make: its reader is made at the first use.

    :param given: the server's input.
    """

    __slots__ = ("_given", "_used")

    def __init__(self, given: Any) -> None:
        self._given = given
        self._used: _BodyReader | None = None

    def is_there(self) -> bool:
        """Whether the request has a body, even one that was read already. It waits for the first byte, or for the end."""
        return self._reader().is_there()

    def _reader(self) -> _BodyReader:
        reader = self._used
        if reader is None:
            reader = self._used = _BodyReader(self._given)
        return reader

    def __getattr__(self, name: str) -> Any:
        """Return a method of the reader, or an attribute that the server's input has beyond PEP 3333, such as its socket."""
        if name in UnannouncedBody.__slots__:
            # A copy that was made without the constructor.
            raise AttributeError(name)
        return getattr(self._reader(), name)

    # Python looks these up in the class.

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._reader())

    def __next__(self) -> bytes:
        return next(self._reader())

    def __enter__(self) -> UnannouncedBody:
        return self

    def __exit__(self, *error: object) -> None:
        self._reader().close()


class _BodyReader(io.RawIOBase):
    """Reads the server's input, and records whether there was a body."""

    def __init__(self, given: Any) -> None:
        self._given = given
        self._first = b""
        self._is_there: bool | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._given, name)

    def is_there(self) -> bool:
        if self._is_there is None:
            try:
                self._first = self._given.read(1)
                self._is_there = bool(self._first)
            except Exception:
                # The client has disconnected, or the server refuses: the app gets this error itself when it reads.
                self._is_there = True
        return self._is_there

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes | None:
        return super().read(-1 if size is None else size)

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer. All other read methods end here, since some servers lose bytes if methods are mixed."""
        data, self._first = self._first or self._given.read(len(buffer)), b""
        self._is_there = self._is_there or bool(data)
        buffer[: len(data)] = data
        return len(data)


def _may_be_unannounced(environ: Mapping[str, Any]) -> bool:
    """Whether a request lacks the fields that HTTP/1.1 needs for a body (RFC 9112 section 6.3), and may have one without them."""
    if environ.get("CONTENT_LENGTH") or "HTTP_TRANSFER_ENCODING" in environ or environ.get("REQUEST_METHOD") != "GET":
        return False
    # After an upgrade another protocol begins, which may wait for the server to speak first.
    return "HTTP_UPGRADE" not in environ and _INPUT in environ


def watch_body(environ: WSGIEnvironment) -> None:
    """Replace the server's input with an :class:`UnannouncedBody`, if a body may come unannounced."""
    # The checks that rule out most requests come first, since every hit gets here. With HTTP/1, a read without the fields would
    # wait for the client for ever.
    is_known_to_end = environ.get("wsgi.input_terminated") or environ.get("SERVER_PROTOCOL", "HTTP/1")[:6] != "HTTP/1"
    if is_known_to_end and _may_be_unannounced(environ) and type(environ[_INPUT]) is not UnannouncedBody:
        environ[_INPUT] = UnannouncedBody(environ[_INPUT])


def has_unannounced_body(environ: WSGIEnvironment) -> bool:
    """Whether a GET has a body that no field announces."""
    watch_body(environ)
    body = environ.get(_INPUT)
    return type(body) is UnannouncedBody and body.is_there()


def take_body_away(environ: WSGIEnvironment) -> None:
    """Give an empty input to a request without a body."""
    environ[_INPUT] = io.BytesIO()
