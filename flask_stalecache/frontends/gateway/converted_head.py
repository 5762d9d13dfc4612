"""HEAD requests that are looked up as GET, so that they fill the store (``convert_head``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ...core.model.environ import CONVERTED
from ...core.wsgi import close_iterable

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

#: A range has no meaning for HEAD (RFC 9110 section 14.2).
_ONLY_GET = ("HTTP_RANGE", "HTTP_IF_RANGE")


def as_get(environ: WSGIEnvironment) -> WSGIEnvironment:
    """Return a HEAD request as the GET that fills the store. A variable records that it was a HEAD."""
    kept = {name: value for name, value in environ.items() if name not in _ONLY_GET}
    return {**kept, "REQUEST_METHOD": "GET", CONVERTED: True}


def as_sent(environ: WSGIEnvironment) -> WSGIEnvironment:
    """Return a request with the method that its client has sent."""
    return {**environ, "REQUEST_METHOD": "HEAD"} if CONVERTED in environ else environ


def discarding(start_response: StartResponse) -> StartResponse:
    """Return a ``start_response`` whose ``write()`` sends nothing."""

    def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
        start_response(status, headers, *exc_info)
        return lambda data: None

    return start


class NoBody:
    """The answer to a HEAD: it sends nothing of a body, and closes the body when the response is closed.

    :param body: the body of the answer to the GET.
    """

    def __init__(self, body: Iterable[bytes]) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return iter(())

    def close(self) -> None:
        """Close the body."""
        close_iterable(self._body)
