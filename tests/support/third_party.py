"""A third party in this process, and sessions that ask it: for the tests of sessions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
from flask import Flask

from flask_stalecache import StaleCache
from support.threads import PATIENCE


@dataclass
class Asked:
    """What a third party was asked."""

    method: str
    path: str
    headers: dict[str, str]
    port: int


@dataclass
class Reply:
    """What a third party answers. A body may be a callable, which is given the request and the number of the call."""

    headers: dict[str, str] | list[tuple[str, str]] = field(default_factory=dict)
    body: Any = lambda asked, number: str(number)
    status: int = 200
    reason: str | None = None
    chunked: bool = False
    #: The answer is 304 where If-None-Match or If-Modified-Since is there.
    confirms: bool = False


class ThirdParty(ThreadingHTTPServer):
    """A third party that answers as it is told and remembers what it was asked.

    :ivar open: while it is not set, calls wait for their answers.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[Asked] = []
        self.replies: dict[str, Reply] = {}
        self.open = threading.Event()
        self.open.set()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def says(self, *lines: str, path: str = "/", **more: Any) -> None:
        """Answer with these fields from now on."""
        pairs = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        self.replies[path] = Reply(pairs, **more)

    @property
    def calls(self) -> int:
        return len(self.asked)

    @property
    def last(self) -> Asked:
        return self.asked[-1]

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller that has gone is no error."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    #: One packet for each answer: many small ones would wait for each other.
    wbufsize = 65536
    server: ThirdParty

    def do_GET(self) -> None:
        asked = Asked(self.command, self.path, dict(self.headers.items()), self.client_address[1])
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(asked)
        number = self.server.calls
        assert self.server.open.wait(PATIENCE)
        reply = self.server.replies.get(self.path) or self.server.replies["/"]
        is_confirmed = reply.confirms and ("If-None-Match" in self.headers or "If-Modified-Since" in self.headers)
        self.send_response_only(304 if is_confirmed else reply.status, None if is_confirmed else reply.reason)
        headers = [*(reply.headers.items() if isinstance(reply.headers, dict) else reply.headers)]
        for name, value in headers:
            self.send_header(name, value)
        if not any(name == "Date" for name, _ in headers):
            self.send_header("Date", formatdate(time.time(), usegmt=True))
        body = b"" if is_confirmed or reply.status == 204 else self._body(reply, asked, number)
        if reply.chunked and not is_confirmed:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(
                b"".join(b"%x\r\n%s\r\n" % (len(body[at : at + 7]), body[at : at + 7]) for at in range(0, len(body), 7))
            )
            self.wfile.write(b"0\r\n\r\n")
            return
        if not is_confirmed:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_GET

    @staticmethod
    def _body(reply: Reply, asked: Asked, number: int) -> bytes:
        body = reply.body(asked, number) if callable(reply.body) else reply.body
        return body if isinstance(body, bytes) else str(body).encode()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@dataclass
class Site:
    """An app with its cache, and sessions in its context."""

    app: Flask
    cache: StaleCache
    stack: ExitStack

    def session(self, *windows: float | None, **options: Any) -> requests.Session:
        session = self.stack.enter_context(self.cache.session(*windows, **options))
        session.trust_env = False
        return session

    def drain(self) -> None:
        assert self.cache.drain(PATIENCE)


@pytest.fixture
def party() -> Iterator[ThirdParty]:
    with ThirdParty() as server:
        try:
            yield server
        finally:
            server.open.set()
            server.shutdown()


@pytest.fixture
def make_site(make_app: Callable[..., tuple[Flask, StaleCache]]) -> Iterator[Callable[..., Site]]:
    """``make_site(**config)``: an app whose context is entered."""
    with ExitStack() as stack:

        def make(**settings: Any) -> Site:
            app, cache = make_app(**settings)
            stack.enter_context(app.app_context())
            return Site(app, cache, stack)

        yield make


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()


def status(response: requests.Response) -> str:
    return response.headers["X-Cache-Status"]


def outcome(session: requests.Session, url: str, **options: Any) -> object:
    """Return status and text of the answer, or the type of the exception."""
    try:
        answer = session.get(url, timeout=5, **options)
        return answer.status_code, answer.text
    except requests.RequestException as error:
        return type(error)
