"""A site behind gateways on a real server, whose app answers as a test says, and what a visitor must see of it.

The server is waitress on a thread of this process, so that a test may move the clock that it reads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPMessage, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import Any, NamedTuple

import time_machine
from waitress.server import create_server
from werkzeug.http import http_date
from werkzeug.wsgi import ClosingIterator

from flask_stalecache.gateway.cache import GatewayCache
from flask_stalecache.policy import Policy

#: When every case begins.
NOON = 1_800_000_000.0
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


def date(offset: float = 0) -> str:
    """Return a date so many seconds after every case's beginning."""
    return http_date(NOON + offset)


class Broken(Exception):
    """What the app raises if it is to."""


# -- what the app answers --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """What the app answers.

    :param status: the status.
    :param fields: the fields, as ``Name: value``; ``{here}`` stands for the path of the case.
    :param body: the body; ``None``: one that tells the case and the call.
    :param length: a Content-Length is sent.
    :param streams: the body is an iterable with ``close()``.
    :param raises: the app raises instead: at once, or "later", in the middle of the body.
    :param runs: a WSGI app that answers instead; it is given the number of the call as ``test.call``.
    """

    status: int = 200
    fields: tuple[str, ...] = ()
    body: bytes | None = None
    length: bool = True
    streams: bool = False
    raises: str = ""
    runs: Callable[..., Iterable[bytes]] | None = None


def answer(status: int, *fields: str, **more: Any) -> Reply:
    """Return an answer of the app."""
    return Reply(status, fields, **more)


def ok(*fields: str, **more: Any) -> Reply:
    """Return an answer of the app with status 200."""
    return Reply(200, fields, **more)


def cc(value: str, *fields: str, **more: Any) -> Reply:
    """Return an answer of the app with status 200 and a Cache-Control."""
    return ok(f"Cache-Control: {value}", *fields, **more)


def unchanged(*fields: str) -> Reply:
    """Return the app's word that what was asked about is still good."""
    return answer(304, *fields)


FRESH = cc("max-age=60")
FAILS = Reply(raises="at once")


# -- what a visitor asks and must see --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """A request, and what must come of it.

    :param sent: the request's fields, as ``Name: value``.
    :param reply: what the app answers if it is asked; ``None``: as before.
    :param calls: how often it must be asked.
    :param of: the number of the call whose body must be seen; 0: that of this step if ``is_new``, else the one seen last.
    :param is_new: the visitor sees what the app answers now.
    :param status: what must be seen; 0: the status of the answer that is seen.
    :param body: likewise, beside a status that has another body.
    :param has: fields of the response; ``None``: it must not be there; a list: its lines.
    :param asked: fields that the app must have been sent when it was asked last; ``None``: it must not.
    :param after: seconds that pass before.
    :param word: ``X-Cache-Status``; "": whatever it is.
    """

    sent: tuple[str, ...] = ()
    reply: Reply | None = None
    calls: int = 0
    of: int = 0
    is_new: bool = False
    status: int = 0
    body: bytes | None = None
    has: Mapping[str, Any] = field(default_factory=dict)
    asked: Mapping[str, str | None] = field(default_factory=dict)
    after: float = 0.0
    word: str = ""
    method: str = "GET"
    path: str = ""
    payload: bytes = b""


def new(reply: Reply | None = FRESH, *sent: str, **more: Any) -> Step:
    """The app is asked, and the visitor is given what it answers."""
    return replace(Step(sent, reply, 1, is_new=True), **more)


def hit(*sent: str, **more: Any) -> Step:
    """The app is not asked."""
    return replace(Step(sent, word="HIT"), **more)


def confirmed(reply: Reply, *sent: str, **more: Any) -> Step:
    """The app says that what is stored is good, and the visitor is given that."""
    return replace(Step(sent, reply, 1, word="REVALIDATED"), **more)


def stale(reply: Reply, *sent: str, **more: Any) -> Step:
    """The visitor is given what is stored although it is stale; the app is asked behind, or in vain."""
    return replace(Step(sent, reply, 1, word="STALE"), **more)


def asks(reply: Reply, *, calls: int = 1, **more: Any) -> Step:
    """The app is asked in vain, or not at all."""
    return replace(Step((), reply, calls), **more)


def gone(*sent: str, reply: Reply = FRESH, calls: int = 0, **more: Any) -> Step:
    """The gateway says that nothing may be served."""
    return replace(Step(sent, reply, calls, status=504, body=b""), **more)


def post(reply: Reply | None = None, *sent: str, **more: Any) -> Step:
    """The app is sent something, and answers the visitor itself."""
    return new(reply or ok(), *sent, **{"method": "POST", "payload": b"a=1", "word": "BYPASS", **more})


class Case(NamedTuple):
    """A sequence of requests for one page.

    :param rules: the numbers of the rules of http.md that it holds.
    :param choice: what we do where the RFC leaves it open, and that it does; else "".
    :param gateway: the gateway that is asked.
    """

    rules: tuple[int, ...]
    name: str
    steps: tuple[Step, ...]
    choice: str = ""
    gateway: str = "plain"

    @property
    def id(self) -> str:
        """What the test is called."""
        return f"rule{'-'.join(map(str, self.rules))}-{self.name}"


def case(rules: int | tuple[int, ...], name: str, *steps: Step, choice: str = "", gateway: str = "plain") -> Case:
    """Return a case; one rule needs no tuple."""
    return Case(rules if isinstance(rules, tuple) else (rules,), name, steps, choice, gateway)


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
        # Files have the time of the machine, and cases another: nothing is to seem unused for months.
        common = {"inactive": 1e9}
        self.app = App()
        self.gateways = {
            name: GatewayCache(self.app, dir=folder / name, **{**common, **settings}) for name, settings in GATEWAYS.items()
        }
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
        self._server.trigger.pull_trigger(lambda: self._server.asyncore.close_all(self._server._map))
        self._thread.join(PATIENCE)
        self._server.task_dispatcher.shutdown()
        assert not self._thread.is_alive()

    def ask(self, method: str, path: str, sent: Sequence[str], payload: bytes = b"") -> Seen:
        """Send a request with just these fields, beside Host, and return what came once all of it is over."""
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
            seen = self.ask(step.method, here + step.path, sent, step.payload)
            self.gateways[played.gateway].drain(PATIENCE)
            calls = len(script.asked) - before
            shown = step.of or (before + 1 if step.is_new else shown)
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
