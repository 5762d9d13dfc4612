"""Bodies of GET requests that no field announces.

HTTP/2 and HTTP/3 need no Content-Length and no Transfer-Encoding, so a server may hand over a body that only reading can find, as
granian does. The answer to such a request is not stored; what may be stored is made without a body.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_INPUT = "wsgi.input"


class UnannouncedBody(io.RawIOBase):
    """The input of a request, which tells whether there is a body.

    :param given: the server's input.
    """

    def __init__(self, given: Any) -> None:
        self._given = given
        self._first = b""
        self._is_there: bool | None = None

    def __getattr__(self, name: str) -> Any:
        """Return what the server's input has in addition to PEP 3333, such as its socket."""
        return getattr(self._given, name)

    def is_there(self) -> bool:
        """Whether the request has a body, even one that was read already. It waits for the first byte, or for the end."""
        if self._is_there is None:
            try:
                self._first = self._given.read(1)
                self._is_there = bool(self._first)
            except Exception:
                # The client has left, or the server refuses: the app shall see that for itself.
                self._is_there = True
        return self._is_there

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def read(self, size: int | None = -1) -> bytes | None:
        """Read a part, or all that is left."""
        return super().read(-1 if size is None else size)

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer. All other methods to read end here, since some servers lose bytes if methods are mixed."""
        data, self._first = self._first or self._given.read(len(buffer)), b""
        self._is_there = self._is_there or bool(data)
        buffer[: len(data)] = data
        return len(data)


def _is_announced(environ: Mapping[str, Any]) -> bool:
    """Whether a request has the fields that HTTP/1.1 needs for a body, or can't have a body without them (RFC 9112 section 6.3)."""
    if environ.get("CONTENT_LENGTH") or "HTTP_TRANSFER_ENCODING" in environ or environ.get("REQUEST_METHOD") != "GET":
        return True
    if "HTTP_UPGRADE" in environ:
        # Another protocol begins, which may wait for the server to speak first.
        return True
    is_known_to_end = environ.get("wsgi.input_terminated") or not environ.get("SERVER_PROTOCOL", "HTTP/1").startswith("HTTP/1")
    return not is_known_to_end or _INPUT not in environ


def watch_body(environ: WSGIEnvironment) -> None:
    """Put an input in the place of the server's that notes what is read, if a body may come unannounced."""
    if not _is_announced(environ) and type(environ[_INPUT]) is not UnannouncedBody:
        environ[_INPUT] = UnannouncedBody(environ[_INPUT])


def has_unannounced_body(environ: WSGIEnvironment) -> bool:
    """Whether a GET has a body that no field announces."""
    watch_body(environ)
    body = environ.get(_INPUT)
    return type(body) is UnannouncedBody and body.is_there()


def take_body_away(environ: WSGIEnvironment) -> None:
    """Leave an empty input to a request without a body."""
    environ[_INPUT] = io.BytesIO()
