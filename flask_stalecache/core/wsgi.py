"""Calls of a WSGI app in this process, without a server (PEP 3333)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


class AppReply:
    """The answer of an app.

    :ivar status: the status line; "" until the app has called ``start_response``.
    :ivar headers: the fields.
    """

    def __init__(self) -> None:
        self.status = ""
        self.headers: list[tuple[str, str]] = []

    @contextmanager
    def of(self, app: WSGIApplication, environ: dict[str, Any]) -> Iterator[Iterable[bytes]]:
        """Call an app for its body, and close the body in the end, however much of it was read."""
        body = app(environ, self._start_response)
        try:
            yield body
        finally:
            close_iterable(body)

    def _start_response(self, status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Callable[[bytes], object]:
        # An app may call it again after an error. The last call counts.
        self.status, self.headers = status, headers
        return self.write

    def write(self, data: bytes) -> None:
        """Take bytes that the app sends without its iterable: the old ``write()`` of PEP 333."""


def close_iterable(iterable: object) -> None:
    """Call the ``close`` method of an iterable, if it has one."""
    close = getattr(iterable, "close", None)
    if close is not None:
        close()
