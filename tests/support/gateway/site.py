"""A site behind gateways on a real server, whose app answers as a test says, and what a visitor must see of it.

The server is waitress on a thread of this process, so that a test may move the clock that it reads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPMessage, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import Any, NamedTuple

import time_machine
from waitress.server import create_server
from werkzeug.wsgi import ClosingIterator

from flask_stalecache.core.model.policy import Policy
from flask_stalecache.frontends.gateway.gateway_cache import GatewayCache
from support.gateway.table import FRESH, Case, Reply, Step

#: Seconds after which something that should have happened never will.
PATIENCE = 30.0
HOST = "shop.example"
#: The gateways of a site, by the first segment of the path, and their settings.
GATEWAYS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "honors": {"honor_request_cache_control": True},
    "honors-windows": {"honor_request_cache_control": True, "stale_while_revalidate": 60, "stale_if_error": 600},
    "windows": {"stale_while_revalidate": 60, "stale_if_error": 600},
    "small": {"max_entry_size": 1000},
    "silent": {"status_headers": ()},
    "rules": {"rules": [("/rules/*", Policy(max_age=60, jitter=0))]},
    "varied": {"rules": [("/varied/*", Policy(vary=["Accept-Language"], ignored_parameters=["utm_*"]))]},
}


class Broken(Exception):
    """Raised by the app if the reply of a case says so."""


# -- the app ---------------------------------------------------------------------------------------------------------


@dataclass
class Script:
    """What the app answers to one case, and what it was asked.

    :ivar asked: the environ of each call.
    :ivar replies: what each call was answered with.
    :ivar opened: bodies that were handed out with a ``close()``.
    :ivar closed: those that were closed.
    """

    name: str
    here: str
    reply: Reply = FRESH
    asked: list[dict[str, Any]] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    opened: int = 0
    closed: int = 0

    def body(self, call: int) -> bytes:
        """Return the body of a call's answer."""
        body = self.replies[call - 1].body
        return f"{self.name}, call {call}".encode() if body is None else body

    def head(self, call: int) -> list[tuple[str, str]]:
        """Return the fields of a call's answer."""
        reply = self.replies[call - 1]
        pairs = (line.replace("{here}", self.here).split(": ", 1) for line in reply.fields)
        fields = [(name, value) for name, value in pairs]
        has_length = any(name.lower() == "content-length" for name, _ in fields)
        if reply.length and not has_length and reply.status not in (204, 304):
            fields.append(("Content-Length", str(len(self.body(call)))))
        return fields


class Body:
    """A body that counts whether it is closed."""

    def __init__(self, script: Script, chunks: Sequence[bytes], *, breaks: bool) -> None:
        self._script = script
        self._chunks = iter(chunks)
        self._breaks = breaks
        script.opened += 1

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._chunks)
        except StopIteration:
            if self._breaks:
                raise Broken("in the middle of the body") from None
            raise

    def close(self) -> None:
        """Count it."""
        self._script.closed += 1


class App:
    """The WSGI app behind the gateways: one script for each case."""

    def __init__(self) -> None:
        self.scripts: dict[str, Script] = {}
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer as the case's script says."""
        script = self.scripts[environ["PATH_INFO"].split("/")[2]]
        with self._lock:
            script.asked.append(dict(environ))
            script.replies.append(script.reply)
            call, reply = len(script.replies), script.reply
        environ["wsgi.input"].read()
        if reply.raises == "at once":
            raise Broken("at once")
        if reply.runs is not None:
            return reply.runs({**environ, "test.call": call}, start_response)
        start_response(f"{reply.status} Said So", script.head(call))
        is_bodiless = environ["REQUEST_METHOD"] == "HEAD" or reply.status in (204, 304)
        body = b"" if is_bodiless else script.body(call)
        if reply.streams or reply.raises:
            half = len(body) // 2
            return Body(script, [body[:half]] if reply.raises else [body[:half], b"", body[half:]], breaks=bool(reply.raises))
        return [body]


# -- the site --------------------------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """What a visitor saw."""

    status: int
    headers: HTTPMessage
    body: bytes

    def lines(self, name: str) -> list[str]:
        """Return the lines of a field."""
        return self.headers.get_all(name) or []


class Site:
    """A server with one gateway for each of :data:`GATEWAYS`, and one app behind them."""

    def __init__(self, folder: Path) -> None:
        self.app = App()
        self.gateways = {name: GatewayCache(self.app, dir=folder / name, **settings) for name, settings in GATEWAYS.items()}
        #: Requests that have come so far.
        self.entered = 0
        self._closed = threading.Event()
        self._server = create_server(self._front, host="127.0.0.1", port=0, threads=12, clear_untrusted_proxy_headers=False)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.effective_port)

    def _front(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        gateway = self.gateways[environ["PATH_INFO"].split("/")[1]]
        self.entered += 1
        try:
            return ClosingIterator(gateway(environ, start_response), [self._closed.set])
        except BaseException:
            self._closed.set()
            raise

    def close(self) -> None:
        """Stop the server."""
        # The worker threads first, since they write to the pipe that wakes the loop.
        self._server.task_dispatcher.shutdown(timeout=PATIENCE)
        self._server.trigger.pull_trigger(lambda: self._server.asyncore.close_all(self._server._map))
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def ask(self, method: str, path: str, sent: Sequence[str], payload: bytes = b"") -> Seen:
        """Send a request with just Host and these fields, and return the answer once the server has closed the response."""
        self._closed.clear()
        seen = self.exchange(method, path, sent, payload)
        assert self._closed.wait(PATIENCE), "the response was not closed"
        return seen

    def exchange(self, method: str, path: str, sent: Sequence[str] = (), payload: bytes = b"") -> Seen:
        """Send a request, and return what came."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            if not any(line.lower().startswith("host:") for line in sent):
                connection.putheader("Host", HOST)
            for line in sent:
                connection.putheader(*line.split(": ", 1))
            if payload:
                connection.putheader("Content-Length", str(len(payload)))
            connection.endheaders(payload or None)
            response = connection.getresponse()
            return Seen(response.status, response.headers, _read(response))
        finally:
            connection.close()

    # -- playing a case ----------------------------------------------------------------------------------------------

    def play(self, played: Case, clock: time_machine.Traveller) -> None:
        """Play a case, and fail where something else is seen than must be."""
        here = f"/{played.gateway}/{played.id}"
        script = self.app.scripts[played.id] = Script(played.id, here)
        shown = 0
        for number, step in enumerate(played.steps, 1):
            clock.shift(step.after)
            script.reply = step.reply or script.reply
            before = len(script.asked)
            sent = [line.replace("{here}", here) for line in step.sent]
            shown = step.of or (before + 1 if step.is_new else shown)
            # Hits are sent twice: the first one prepares the short way of the gateway, and the second one takes it.
            for _ in range(2 if step.word == "HIT" else 1):
                seen = self.ask(step.method, here + step.path, sent, step.payload)
                self.gateways[played.gateway].drain(PATIENCE)
                calls = len(script.asked) - before
                told = f"step {number}: {seen.status} {seen.headers.items()} {seen.body[:200]!r}, {calls} calls"
                assert calls == step.calls, f"{told}: {step.calls} calls expected"
                _check(step, script, shown, seen, told)
                assert script.opened == script.closed, f"{told}: {script.opened - script.closed} bodies were not closed"


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read()
    except IncompleteRead as error:
        return error.partial


def _check(step: Step, script: Script, shown: int, seen: Seen, told: str) -> None:
    status = step.status or script.replies[shown - 1].status
    assert seen.status == status, f"{told}: status {status} expected"
    bodiless = step.method == "HEAD" or status in (204, 304, 416)
    body = step.body if step.body is not None else b"" if bodiless else script.body(shown)
    assert seen.body == body, f"{told}: body {body[:200]!r} expected"
    for name, expected in step.has.items():
        lines = expected if isinstance(expected, list) else [] if expected is None else [expected]
        assert seen.lines(name) == lines, f"{told}: {name} {lines} expected"
    if step.asked:
        last = script.asked[-1]
        came = {name: last.get(f"HTTP_{name.upper().replace('-', '_')}") for name in step.asked}
        assert came == dict(step.asked), f"{told}: the app was sent {came}"
    if step.word and "X-Cache-Status" not in step.has:
        assert seen.lines("X-Cache-Status") == [step.word], f"{told}: X-Cache-Status {step.word} expected"
    _check_status(step, seen, told)


def _check_status(step: Step, seen: Seen, told: str) -> None:
    """What is said of an answer must fit it, whatever the case is about (rules 14 and 27)."""
    fields = seen.lines("Cache-Status")
    if not fields or "Cache-Status" in step.has:
        return
    ours = fields[-1]
    is_from_store = (step.has.get("X-Cache-Status") or step.word) in ("HIT", "STALE", "UPDATING")
    assert ours.startswith("stalecache; hit" if is_from_store else "stalecache; fwd="), f"{told}: Cache-Status does not fit"
    if is_from_store and seen.status != 416:
        assert len(seen.lines("Age")) == 1, f"{told}: no Age"
