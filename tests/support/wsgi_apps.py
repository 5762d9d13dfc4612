"""Helpers of the tests of the gateway between a WSGI app and its server."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from wsgiref.handlers import SimpleHandler
from wsgiref.util import setup_testing_defaults

from flask import Flask

from flask_stalecache.frontends.gateway.gateway_cache import GatewayCache
from support.threads import wait_until

FRESH = ("Cache-Control", "max-age=60")

#: Served while it is renewed, and where the app fails.
STALE = ("Cache-Control", "max-age=10, stale-while-revalidate=100, stale-if-error=1000")

PLAIN = ("Content-Type", "text/plain")

#: What the gateway adds.
OURS = ("x-cache-status", "cache-status", "age", "accept-ranges")


class Body:
    """What an app returns: an iterable that a server has to close.

    :param parts: chunks; exceptions, which are raised; and callables, which are called for a chunk.
    """

    def __init__(self, *parts: Any) -> None:
        self._parts = iter(parts)
        self.asked = 0
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self.asked += 1
        part = next(self._parts)
        if isinstance(part, BaseException):
            raise part
        return part() if callable(part) else part  # type: ignore[no-any-return]

    def close(self) -> None:
        self.closed += 1


@dataclass
class App:
    """A WSGI app that does what a test says.

    :param answer: is given environ and start_response, and returns the body.
    """

    answer: Callable[[dict[str, Any], Any], Any]
    environs: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.environs.append(environ)
        self.bodies.append(self.answer(environ, start_response))
        return self.bodies[-1]  # type: ignore[no-any-return]

    @property
    def calls(self) -> int:
        return len(self.environs)

    @property
    def closed(self) -> list[int]:
        """How often each body was closed."""
        return [body.closed for body in self.bodies if isinstance(body, Body)]


class Got(NamedTuple):
    """What came over the wire."""

    status: str
    fields: list[tuple[str, str]]
    body: bytes

    @property
    def word(self) -> str:
        return dict(self.fields).get("X-Cache-Status", "")

    @property
    def page(self) -> tuple[str, bytes]:
        return self.word, self.body

    def without_ours(self) -> Got:
        return self._replace(fields=[item for item in self.fields if item[0].lower() not in OURS])


class Handler(SimpleHandler):
    """The server of the standard library, as a CGI script has it, and without what it says on stderr."""

    origin_server = False

    def log_exception(self, exc_info: Any) -> None:
        self.raised = exc_info[0]


def environ_for(path: str = "/", method: str = "GET", **more: Any) -> dict[str, Any]:
    environ: dict[str, Any] = {"REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": ""}
    environ.update({"HTTP_HOST": "shop.example", **more})
    setup_testing_defaults(environ)
    return environ


def ask(app: Any, path: str = "/", method: str = "GET", **more: Any) -> Got:
    """Send one request through the server, and return what the client reads."""
    wire = io.BytesIO()
    handler = Handler(io.BytesIO(), wire, io.StringIO(), environ_for(path, method, **more))
    handler.run(app)
    head, _, body = wire.getvalue().partition(b"\r\n\r\n")
    lines = [tuple(line.split(": ", 1)) for line in head.decode("latin-1").split("\r\n") if line]
    status = next((value for name, value in lines if name == "Status"), "")
    return Got(status, [(name, value) for name, value in lines if name != "Status"], body)


Behind = Callable[..., GatewayCache]


def answering(*parts: Any, status: str = "200 OK", fields: Iterable[tuple[str, str]] = (FRESH, PLAIN)) -> App:
    """Return an app that answers with a body of these parts."""

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        start_response(status, list(fields))
        return Body(*parts)

    return App(answer)


def body_of(*parts: Any, status: Any = "200 OK", fields: Any = (FRESH, PLAIN)) -> Callable[..., Any]:
    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        start_response(status, list(fields))
        return Body(*parts)

    return answer


def list_of(*parts: Any, fields: Any = (FRESH, PLAIN)) -> Callable[..., Any]:
    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", list(fields))
        return list(parts)

    return answer


def length(number: Any) -> tuple[tuple[str, str], ...]:
    return FRESH, PLAIN, ("Content-Length", str(number))


def wait_for_waiters(cached: GatewayCache | Flask, count: int) -> None:
    """Wait until so many threads wait for the one flight of a gateway, or of an app."""
    engine = cached.extensions["stalecache"].engine if isinstance(cached, Flask) else cached._engine
    flights = engine.runtime.process.flights._flights

    def waiting() -> bool:
        return len(flights) == 1 and len(next(iter(flights.values())).done.waiters) == count  # type: ignore[attr-defined]

    wait_until(waiting, "the wait for the flight")
