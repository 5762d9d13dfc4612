"""The gateway between a WSGI app and its server (PEP 3333): what either of them gets wrong is seen as without a gateway.

The yardstick is the same app without one, under the server of the standard library.
"""

from __future__ import annotations

import gc
import io
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, NamedTuple
from wsgiref.handlers import SimpleHandler
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest
import time_machine

from flask_stalecache import Policy, StoreError
from flask_stalecache.frontends.gateway.gateway_cache import GatewayCache
from flask_stalecache.stores.entry_file import FileBody
from support.threads import PATIENCE, go, results, wait_until

FRESH = ("Cache-Control", "max-age=60")
#: Served while it is renewed, and where the app fails.
STALE = ("Cache-Control", "max-age=10, stale-while-revalidate=100, stale-if-error=1000")
PLAIN = ("Content-Type", "text/plain")
#: What the gateway adds.
OURS = ("x-cache-status", "cache-status", "age")


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


@pytest.fixture
def behind(directory: Path) -> Callable[..., GatewayCache]:
    """``behind(app, **settings)``: the app behind a gateway."""
    return lambda app, **settings: GatewayCache(app, dir=directory, **settings)


Behind = Callable[..., GatewayCache]


def answering(*parts: Any, status: str = "200 OK", fields: Iterable[tuple[str, str]] = (FRESH, PLAIN)) -> App:
    """Return an app that answers with a body of these parts."""

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        start_response(status, list(fields))
        return Body(*parts)

    return App(answer)


# -- what an app may get wrong ---------------------------------------------------------------------------------------


def raising_at_once(environ: dict[str, Any], start_response: Any) -> Any:
    raise RuntimeError("before")


def raising_after_the_head(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [FRESH, PLAIN])
    raise RuntimeError("after")


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


def starting_twice(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [FRESH, PLAIN])
    start_response("404 Not Found", [PLAIN])
    return Body(b"page")


def starting_anew(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [FRESH, PLAIN])
    try:
        raise RuntimeError("it went wrong")
    except RuntimeError:
        start_response("500 Internal Server Error", [PLAIN], sys.exc_info())
    return Body(b"sorry")


def starting_anew_in_the_first_chunk(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [FRESH, PLAIN])

    def chunks() -> Iterator[bytes]:
        try:
            raise RuntimeError("it went wrong")
        except RuntimeError:
            start_response("500 Internal Server Error", [PLAIN], sys.exc_info())
        yield b"sorry"

    return chunks()


def starting_anew_too_late(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [FRESH, PLAIN])

    def late() -> bytes:
        try:
            raise RuntimeError("it went wrong")
        except RuntimeError:
            start_response("500 Internal Server Error", [PLAIN], sys.exc_info())
        return b"sorry"

    return Body(b"page", late)


def never_starting(environ: dict[str, Any], start_response: Any) -> Any:
    return Body(b"page")


def never_starting_with_nothing(environ: dict[str, Any], start_response: Any) -> Any:
    return Body()


def starting_in_the_first_chunk(environ: dict[str, Any], start_response: Any) -> Any:
    def start() -> bytes:
        start_response("200 OK", [FRESH, PLAIN])
        return b"page"

    return Body(start, b" and more")


def starting_after_the_first_chunk(environ: dict[str, Any], start_response: Any) -> Any:
    def start() -> bytes:
        start_response("200 OK", [FRESH, PLAIN])
        return b" and more"

    return Body(b"page", start)


def writing(environ: dict[str, Any], start_response: Any) -> Any:
    write = start_response("200 OK", [FRESH, PLAIN])
    write(b"written, ")
    return Body(b"returned")


def writing_and_raising(environ: dict[str, Any], start_response: Any) -> Any:
    write = start_response("200 OK", [FRESH, PLAIN])
    write(b"written, ")
    raise RuntimeError("after")


def writing_and_starting_anew(environ: dict[str, Any], start_response: Any) -> Any:
    write = start_response("200 OK", [FRESH, PLAIN])
    write(b"written, ")
    try:
        raise RuntimeError("it went wrong")
    except RuntimeError:
        start_response("500 Internal Server Error", [PLAIN], sys.exc_info())
    return Body(b"sorry")


def length(number: Any) -> tuple[tuple[str, str], ...]:
    return FRESH, PLAIN, ("Content-Length", str(number))


#: What apps do that they should not, and whether the second visitor may be given what the first one got.
WRONG: dict[str, tuple[Callable[..., Any], bool]] = {
    "raises at once": (raising_at_once, False),
    "raises after start_response": (raising_after_the_head, False),
    "raises at the first chunk": (body_of(RuntimeError("first")), False),
    "raises in mid-body": (body_of(b"pa", RuntimeError("middle")), False),
    "raises in mid-body, of known length": (body_of(b"pa", RuntimeError("middle"), fields=length(4)), False),
    "raises after a body of known length": (body_of(b"page", RuntimeError("late"), fields=length(4)), True),
    "yields str": (body_of("page"), False),
    "yields str later": (body_of(b"page", "more"), False),
    "yields None": (body_of(None), False),
    "yields None later": (body_of(b"page", None, b"more"), False),
    "yields a bytearray": (body_of(bytearray(b"page")), False),
    "has str in a list": (list_of("page"), False),
    "has None in a list": (list_of(b"page", None), False),
    "says too much": (body_of(b"page", fields=length(9)), False),
    "says too much of a list": (list_of(b"page", fields=length(9)), False),
    "says too little": (body_of(b"page", b"more", fields=length(3)), False),
    "says too little of a list": (list_of(b"page", fields=length(3)), False),
    "says what is no number": (body_of(b"page", fields=length("four")), False),
    "says two lengths": (body_of(b"page", fields=(*length(4), ("Content-Length", "9"))), False),
    "starts twice": (starting_twice, False),
    "starts anew": (starting_anew, False),
    "starts anew in the first chunk": (starting_anew_in_the_first_chunk, False),
    "starts anew too late": (starting_anew_too_late, False),
    "never starts": (never_starting, False),
    "never starts, and yields nothing": (never_starting_with_nothing, False),
    "starts in the first chunk": (starting_in_the_first_chunk, True),
    "starts after the first chunk": (starting_after_the_first_chunk, False),
    "writes": (writing, False),
    "writes and raises": (writing_and_raising, False),
    "writes and starts anew": (writing_and_starting_anew, False),
    "returns nothing": (lambda environ, start_response: start_response("200 OK", [FRESH, PLAIN]) and None, False),
    "returns bytes": (lambda environ, start_response: (start_response("200 OK", [FRESH, PLAIN]), b"page")[1], False),
    "returns str": (lambda environ, start_response: (start_response("200 OK", [FRESH, PLAIN]), "page")[1], False),
    "has a status without a phrase": (body_of(b"page", status="200 "), True),
    "has a status that is no number": (body_of(b"page", status="abc nonsense"), False),
    "has an unheard-of status": (body_of(b"page", status="799 Nonsense"), False),
    "has a status that is no string": (body_of(b"page", status=200), False),
    "has no status": (body_of(b"page", status=""), False),
    "has a field that is no string": (body_of(b"page", fields=(FRESH, ("X-Number", 7))), False),
    "has a field beyond latin-1": (body_of(b"page", fields=(FRESH, ("X-Name", "\u4e2d"))), False),
    "has fields that are no pairs": (body_of(b"page", fields=(FRESH, ("X-Name",))), False),
    "has odd fields": (body_of(b"page", fields=(("Cache-Control", 'max-age="60'), ("Vary", ",,"), ("Date", "?"))), False),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_an_app_does_wrong_is_seen_as_without_a_gateway(behind: Behind, wrong: str) -> None:
    """Cold, and once more when what may be stored is."""
    answer, is_stored = WRONG[wrong]
    bare, app = App(answer), App(answer)
    gateway = behind(app)
    assert ask(gateway).without_ours() == ask(bare).without_ours()
    expected, again = ask(bare).without_ours(), ask(gateway).without_ours()
    if is_stored:
        assert (again.status[:3], again.body) == (expected.status[:3], expected.body)
        assert set(expected.fields) <= set(again.fields)
    else:
        assert again == expected
    assert app.calls == (1 if is_stored else 2)
    assert app.closed == [1] * len(app.closed)


@pytest.mark.parametrize("wrong", [name for name, (_, is_stored) in WRONG.items() if not is_stored])
def test_what_an_app_does_wrong_is_seen_where_nothing_may_stand_in(
    behind: Behind, clock: time_machine.Traveller, wrong: str
) -> None:
    answer, _ = WRONG[wrong]
    good = body_of(b"good", fields=(("Cache-Control", "max-age=10"), PLAIN))
    app = App(lambda *asked: good(*asked) if app.calls == 1 else answer(*asked))
    gateway = behind(app)
    assert ask(gateway).page == ("MISS", b"good")
    clock.shift(11)
    assert ask(gateway).without_ours() == ask(App(answer)).without_ours()
    assert app.closed == [1] * len(app.closed)


#: What of that is no answer at all, so that what is stored stands in.
NO_ANSWER = (
    "raises at once", "raises after start_response", "raises at the first chunk", "starts twice", "starts anew",
    "starts anew in the first chunk", "never starts", "never starts, and yields nothing", "starts after the first chunk",
    "returns nothing", "has no status", "has a status that is no string", "has fields that are no pairs",
)  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_stored_stands_in_for_what_is_no_answer_and_for_nothing_else(
    behind: Behind, clock: time_machine.Traveller, wrong: str
) -> None:
    answer, _ = WRONG[wrong]
    good = body_of(b"good", fields=(("Cache-Control", "max-age=10, stale-if-error=100"), PLAIN))
    app = App(lambda *asked: good(*asked) if app.calls == 1 else answer(*asked))
    gateway = behind(app)
    ask(gateway)
    clock.shift(11)
    got = ask(gateway)
    if wrong in NO_ANSWER:
        assert got.page == ("STALE", b"good")
    else:
        assert got.without_ours() == ask(App(answer)).without_ours()
    assert app.closed == [1] * len(app.closed)


def test_an_app_that_raises_after_empty_chunks_has_not_answered(behind: Behind) -> None:
    """A server may have sent the head with the first of them (PEP 3333 asks it not to); here nothing is sent yet."""
    app = answering(b"", b"", RuntimeError("late"))
    assert ask(behind(app)).status == "500 Internal Server Error"
    assert app.closed == [1]


# -- manners (PEP 3333) ----------------------------------------------------------------------------------------------


@pytest.fixture
def complaints(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    """The validator of the standard library says on stderr what was not closed."""
    yield
    gc.collect()
    assert capsys.readouterr().err == ""


def polite(environ: dict[str, Any], start_response: Any) -> Any:
    """Answer as the path says; what is no body is a list, so that the validator's wrapper is what is closed."""
    how, asked = environ["PATH_INFO"], environ.get("HTTP_IF_NONE_MATCH")
    fields = [STALE if how == "/stale" else FRESH, PLAIN, ("ETag", '"one"')]
    if how == "/renewed" and asked == '"one"':
        start_response("304 Not Modified", [("ETag", '"one"'), FRESH])
        return []
    if how == "/fails":
        fields = [PLAIN]
    start_response("503 Service Unavailable" if how == "/fails" else "200 OK", fields)
    if how == "/stream":
        return Body(b"pa", b"", b"ge")
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [b"page"]


@pytest.mark.usefixtures("complaints")
@pytest.mark.parametrize("how", ["/list", "/stream", "/stale", "/renewed", "/fails"])
@pytest.mark.parametrize(
    "request_fields",
    [{}, {"HTTP_IF_NONE_MATCH": '"one"'}, {"HTTP_RANGE": "bytes=1-2"}, {"HTTP_RANGE": "bytes=9-"}, {"HTTP_AUTHORIZATION": "x"}],
    ids=lambda fields: "".join(fields),
)
def test_both_sides_are_as_the_validator_wants_them(
    behind: Behind, clock: time_machine.Traveller, how: str, request_fields: dict[str, str]
) -> None:
    """Cold, hit and stale, with GET and HEAD and with POST in between; and its refresh too."""
    gateway = behind(validator(polite))
    front = validator(gateway)
    for method in ("HEAD", "GET", "GET", "HEAD", "POST"):
        assert ask(front, how, method, **request_fields).status[:3] in ("200", "206", "304", "416", "503")
        assert ask(front, how, method).status[:3] in ("200", "503")
        clock.shift(40)
    assert ask(front, how).body == b"page"
    assert gateway.drain(PATIENCE)
    del front


def test_what_an_app_has_returned_is_closed_once(behind: Behind, clock: time_machine.Traveller) -> None:
    """On a miss, for HEAD, past the store, where it confirms, where it fails and the copy stands in, and in the background."""

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        how = environ.get("HTTP_X_HOW") or ("confirms" if "HTTP_IF_NONE_MATCH" in environ else "fails")
        if app.calls == 1 or environ["REQUEST_METHOD"] != "GET":
            how = "answers"
        status = {"answers": "200 OK", "confirms": "304 Not Modified", "fails": "503 Service Unavailable"}[how]
        start_response(status, [("Cache-Control", "max-age=10, stale-if-error=1000"), ("ETag", '"one"'), PLAIN])
        return Body(b"page" if how == "answers" else b"")

    app = App(answer)
    gateway = behind(app)
    said = [ask(gateway).word, ask(gateway).word]
    said += [ask(gateway, method=method).word for method in ("HEAD", "OPTIONS")]
    said.append(ask(gateway, HTTP_IF_NONE_MATCH='"one"').status)
    clock.shift(11)
    said.append(ask(gateway).word)
    clock.shift(11)
    said.append(ask(gateway, HTTP_IF_NONE_MATCH='"one"').word)
    clock.shift(11)
    said.append(ask(gateway, HTTP_X_HOW="fails").word)
    assert said == ["MISS", "HIT", "HIT", "BYPASS", "304 Not Modified", "REVALIDATED", "REVALIDATED", "STALE"]
    assert app.calls == 5
    assert app.closed == [1] * 5


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("once", [True, False])
def test_a_client_that_goes_away_is_one_close_and_nothing_stored(behind: Behind, stored: bool, once: bool) -> None:
    """Before the first chunk, after it, and before the end; also where no thread may run (``wsgi.run_once``)."""
    app = answering(b"pa", b"ge", fields=(FRESH if stored else ("Cache-Control", "no-store"), PLAIN))
    gateway = behind(app)
    for number in range(3):
        body = gateway(environ_for(**{"wsgi.run_once": once}), lambda *args: lambda data: None)
        chunks = iter(body)
        for _ in range(number):
            next(chunks)
        body.close()  # type: ignore[attr-defined]
    assert app.closed == [1, 1, 1]
    assert app.calls == 3
    assert ask(gateway).page == ("MISS" if stored else "BYPASS", b"page") or not stored


@pytest.mark.parametrize("fields", [(FRESH, PLAIN), (("Cache-Control", "no-store"), PLAIN)], ids=["stored", "not stored"])
@pytest.mark.parametrize("returned", [lambda: Body(b"page"), lambda: [b"page"], lambda: iter([b"page"])])
def test_where_no_thread_may_run_what_is_returned_is_closed_once_too(behind: Behind, fields: Any, returned: Any) -> None:
    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", list(fields))
        return returned()

    app = App(answer)
    gateway = behind(app, refresh_workers=0)
    assert ask(gateway, **{"wsgi.run_once": True}).body == b"page"
    assert ask(gateway, **{"wsgi.run_once": True}).body == b"page"
    assert app.closed == [1] * len(app.closed)


def test_what_a_server_raises_for_a_head_closes_the_body(behind: Behind) -> None:
    def refuse(*args: Any) -> Any:
        raise OSError("the client is gone")

    app = answering(b"page")
    gateway = behind(app)
    with pytest.raises(OSError, match="gone"):
        gateway(environ_for(), refuse)
    assert app.closed == [1]
    # Nobody waits for it.
    assert go(ask, gateway).result(PATIENCE).page == ("HIT" if app.calls == 1 else "MISS", b"page")


def test_a_wrapped_file_is_left_to_the_server_unless_it_is_stored(behind: Behind, tmp_path: Path) -> None:
    (tmp_path / "page.txt").write_bytes(b"page")
    fields = [("Cache-Control", "no-store"), PLAIN]

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", list(fields))
        return environ["wsgi.file_wrapper"]((tmp_path / "page.txt").open("rb"))

    app = App(answer)
    gateway = behind(app)
    for _ in range(2):
        body = gateway(environ_for(**{"wsgi.file_wrapper": FileWrapper}), lambda *args: lambda data: None)
        assert body is app.bodies[-1]
        body.close()  # type: ignore[attr-defined]
    fields[0] = FRESH
    assert [ask(gateway, "/stored").page for _ in range(2)] == [("MISS", b"page"), ("HIT", b"page")]


#: What goes through as it came: method, environ.
THROUGH: dict[str, tuple[str, dict[str, Any]]] = {
    "a body on a GET": ("GET", {"CONTENT_LENGTH": "4", "wsgi.input": io.BytesIO(b"body")}),
    "a body of chunks on a GET": ("GET", {"HTTP_TRANSFER_ENCODING": "chunked"}),
    "a body on a HEAD": ("HEAD", {"CONTENT_LENGTH": "4"}),
    "POST": ("POST", {"CONTENT_LENGTH": "4", "wsgi.input": io.BytesIO(b"body"), "HTTP_IF_MATCH": '"one"'}),
    "PURGE": ("PURGE", {}),
    "lower case": ("get", {}),
    "no method at all": ("", {}),
    "TRACE": ("TRACE", {}),
    "OPTIONS": ("OPTIONS", {}),
    "an upgrade": ("GET", {"HTTP_UPGRADE": "websocket", "HTTP_CONNECTION": "Upgrade"}),
    "a user of the server's": ("GET", {"REMOTE_USER": "ann"}),
}


@pytest.mark.parametrize("what", THROUGH)
def test_what_is_not_for_a_cache_goes_through_untouched(behind: Behind, what: str) -> None:
    method, more = THROUGH[what]
    app = answering(b"page")
    gateway = behind(app)
    ask(gateway)
    for _ in range(2):
        environ = environ_for(method=method, HTTP_RANGE="bytes=0-1", HTTP_IF_NONE_MATCH='"x"', **more)
        before = dict(environ)
        body = gateway(environ, lambda *args: lambda data: None)
        assert app.environs[-1] is environ
        assert environ == before
        assert body is app.bodies[-1]
        body.close()  # type: ignore[attr-defined]
    assert app.calls == 3


#: What clients and servers send that is nonsense.
NONSENSE: dict[str, dict[str, Any]] = {
    "length": {"CONTENT_LENGTH": "four"},
    "negative length": {"CONTENT_LENGTH": "-1"},
    "if-none-match": {"HTTP_IF_NONE_MATCH": '"'},
    "if-none-match of much": {"HTTP_IF_NONE_MATCH": '"a",' * 5000},
    "if-modified-since": {"HTTP_IF_MODIFIED_SINCE": "yesterday"},
    "range": {"HTTP_RANGE": "bytes=--1,9-"},
    "range of no bytes": {"HTTP_RANGE": "lines=1-2"},
    "range of many digits": {"HTTP_RANGE": f"bytes={'9' * 5000}-"},
    "if-range": {"HTTP_RANGE": "bytes=0-1", "HTTP_IF_RANGE": '"'},
    "cookie": {"HTTP_COOKIE": 'a="; \xff=\xff;;; =; \udc80'},
    "cache-control": {"HTTP_CACHE_CONTROL": 'max-age="1, no-cache=, ,=,max-age=-1,' + "9" * 5000},
    "pragma": {"HTTP_PRAGMA": "\xff"},
    "host": {"HTTP_HOST": "a b\xff:port:port"},
    "no host": {"HTTP_HOST": ""},
    "path": {"PATH_INFO": "/\xff\xfe\x00//../%zz"},
    "no path": {"PATH_INFO": ""},
    "path beyond latin-1": {"PATH_INFO": "/\u4e2d"},
    "query": {"QUERY_STRING": "&&=;%&\xff=%ff&utm=1"},
    "forwarded": {"HTTP_X_FORWARDED_HOST": "\xff,,", "HTTP_X_FORWARDED_PROTO": ",", "HTTP_X_FORWARDED_PORT": "port"},
    "accept": {"HTTP_ACCEPT_LANGUAGE": "*;q=x,;;,de;q=" + "9" * 5000},
    "raw": {"RAW_URI": "?", "REQUEST_URI": "http://["},
}


@pytest.mark.parametrize("what", NONSENSE)
@pytest.mark.parametrize("honors", [True, False])
def test_nonsense_in_a_request_is_no_error(behind: Behind, what: str, honors: bool) -> None:
    fields = [FRESH, PLAIN, ("ETag", '"one"'), ("Last-Modified", "?"), ("Vary", "Accept-Language")]
    app = answering(fields=fields, status="200 OK")
    app.answer = list_of(b"page", fields=fields)
    rules = [("/[ab]*", Policy(max_age=5, vary=("Accept",), ignored_parameters=("utm*",)))]
    gateway = behind(app, honor_request_cache_control=honors, rules=rules)
    for method in ("GET", "GET", "HEAD", "POST", "GET"):
        got = ask(gateway, method=method, **NONSENSE[what])
        assert got.status[:3] in ("200", "206", "304", "416")


# -- streams ---------------------------------------------------------------------------------------------------------


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves is no news."""


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Its log is the test's own business."""


@contextmanager
def listening(app: Any) -> Iterator[Callable[[], socket.socket]]:
    """Serve an app over sockets; yields a function that asks for the page at ``/`` and returns the connection."""
    server = _Server(("127.0.0.1", 0), _Quiet)
    server.set_app(app)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    connections: list[socket.socket] = []

    def connect() -> socket.socket:
        connections.append(socket.create_connection(server.server_address[:2], PATIENCE))
        connections[-1].sendall(b"GET / HTTP/1.0\r\nHost: shop.example\r\n\r\n")
        return connections[-1]

    try:
        yield connect
    finally:
        for connection in connections:
            connection.close()
        server.shutdown()
        thread.join(PATIENCE)
        server.server_close()


def read_until(connection: socket.socket, end: bytes) -> bytes:
    """Read until what has come ends with something."""
    data = b""
    while not data.endswith(end):
        more = connection.recv(65536)
        assert more, data
        data += more
    return data


def held(event: threading.Event, chunk: bytes) -> Callable[[], bytes]:
    """Return a part of a body that comes once a test lets it."""

    def part() -> bytes:
        assert event.wait(PATIENCE)
        return chunk

    return part


@pytest.mark.parametrize("control", ["max-age=60", "no-store"])
@pytest.mark.parametrize("known", [True, False], ids=["of known length", "of unknown length"])
def test_a_stream_reaches_the_client_while_the_app_still_makes_it(behind: Behind, control: str, known: bool) -> None:
    more = threading.Event()
    fields = [("Cache-Control", control), PLAIN, *([("Content-Length", "6")] if known else [])]
    app = answering(b"one", held(more, b"two"), fields=fields)
    gateway = behind(app)
    with listening(gateway) as connect:
        connection = connect()
        assert b"one" in read_until(connection, b"one")
        assert not more.is_set()
        more.set()
        assert read_until(connection, b"two") == b"two"
        wait_until(lambda: app.closed == [1], "the close")
    if control != "no-store":
        assert ask(gateway).page == ("HIT", b"onetwo")
        assert app.calls == 1


def test_what_a_client_has_whole_is_stored_before_it_comes_back(behind: Behind) -> None:
    """The client sees by the length that it has all, and is not to find the page missing."""
    more = threading.Event()
    app = answering(b"one", b"two", held(more, b""), fields=length(6))
    gateway = behind(app)
    with listening(gateway) as connect:
        read_until(connect(), b"onetwo")
        assert ask(gateway).page == ("HIT", b"onetwo")
        more.set()


@pytest.mark.parametrize("control", ["max-age=60", "no-store"])
def test_an_endless_stream_is_handed_on_chunk_by_chunk(behind: Behind, control: str) -> None:
    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Cache-Control", control), PLAIN])
        return Body(*([b"x" * 1000] * 1000))

    app = App(answer)
    gateway = behind(app, max_entry_size=10_000)
    for number in (1, 2):
        body = gateway(environ_for(), lambda *args: lambda data: None)
        for read, _ in zip(range(1, 100), body, strict=False):
            assert app.bodies[-1].asked <= read + 1
        body.close()  # type: ignore[attr-defined]
        assert (app.calls, app.closed) == (number, [1] * number)


@pytest.mark.parametrize(("size", "is_stored"), [(10_000, True), (10_001, False)])
@pytest.mark.parametrize("form", ["list", "iterable", "stream"])
@pytest.mark.parametrize("known", [True, False])
def test_a_body_is_stored_up_to_max_entry_size(behind: Behind, size: int, is_stored: bool, form: str, known: bool) -> None:
    chunks = [b"x" * 5000, b"x" * (size - 5000)] if form == "stream" else [b"x" * size]
    app = App((list_of if form == "list" else body_of)(*chunks, fields=length(size) if known else (FRESH, PLAIN)))
    gateway = behind(app, max_entry_size=10_000)
    assert [len(ask(gateway).body) for _ in range(2)] == [size, size]
    assert app.calls == (1 if is_stored else 2)


def test_those_who_wait_for_a_stream_get_all_of_it(behind: Behind) -> None:
    more = threading.Event()
    app = answering(b"one", held(more, b"two"))
    gateway = behind(app)
    first = go(ask, gateway)
    wait_until(lambda: app.calls == 1 and app.bodies[0].asked == 2, "the stream")
    others = [go(ask, gateway) for _ in range(3)]
    wait_for_waiters(gateway, 3)
    more.set()
    assert [got.page for got in results([first, *others])] == [("MISS", b"onetwo")] * 4
    assert app.closed == [1]


def wait_for_waiters(gateway: GatewayCache, count: int) -> None:
    """Wait until so many threads wait for the one flight."""
    flights = gateway._engine.process.flights._flights

    def waiting() -> bool:
        return len(flights) == 1 and len(next(iter(flights.values())).done._cond._waiters) == count  # type: ignore[attr-defined]

    wait_until(waiting, "the wait for the flight")


def test_a_client_that_leaves_in_mid_stream_leaves_nobody_waiting(behind: Behind) -> None:
    app = App(lambda *asked: body_of(b"one", b"two")(*asked))
    gateway = behind(app)
    left = gateway(environ_for(), lambda *args: lambda data: None)
    assert next(iter(left)) == b"one"
    others = [go(ask, gateway) for _ in range(3)]
    wait_for_waiters(gateway, 3)
    assert app.calls == 1
    left.close()  # type: ignore[attr-defined]
    assert [got.body for got in results(others)] == [b"onetwo"] * 3
    assert app.calls == 2
    assert app.closed == [1, 1]


@pytest.mark.parametrize("end", [RuntimeError("it broke"), b"x" * 20_000], ids=["breaks", "grows too large"])
def test_a_stream_that_comes_to_nothing_leaves_nobody_waiting(behind: Behind, end: Any) -> None:
    more = threading.Event()

    def last() -> bytes:
        assert more.wait(PATIENCE)
        if isinstance(end, BaseException):
            raise end
        return end  # type: ignore[no-any-return]

    app = App(lambda *asked: body_of(b"one", last)(*asked))
    gateway = behind(app, max_entry_size=10_000)
    first = go(ask, gateway)
    wait_until(lambda: app.calls == 1 and app.bodies[0].asked == 2, "the stream")
    others = [go(ask, gateway) for _ in range(2)]
    wait_for_waiters(gateway, 2)
    more.set()
    wanted = b"one" + (b"" if isinstance(end, BaseException) else end)
    assert [got.body for got in results([first, *others])] == [wanted] * 3
    assert app.closed == [1, 1, 1]


def test_a_stream_without_waiters_may_end_in_another_thread(behind: Behind) -> None:
    """Some servers send from another thread than they call the app in."""
    app = answering(b"one", b"two")
    gateway = behind(app)
    body = gateway(environ_for(), lambda *args: lambda data: None)

    def send() -> bytes:
        sent = b"".join(body)
        body.close()  # type: ignore[attr-defined]
        return sent

    assert go(send).result(PATIENCE) == b"onetwo"
    assert ask(gateway).page == ("HIT", b"onetwo")


# -- whose failure it is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "cookie", "is_shared"),
    [
        ((), "", True),
        ((), "user=ann", False),
        ((("Cache-Control", "private"),), "", False),
        ((("Cache-Control", "no-store"),), "", False),
        ((("Set-Cookie", "user=ann"),), "", False),
        ((("Vary", "X-User"),), "", False),
    ],
    ids=["plain", "a cookie in the request", "private", "no-store", "a cookie set", "vary"],
)
def test_a_failure_is_shared_only_if_it_could_have_been_anybodys(
    behind: Behind, fields: tuple[tuple[str, str], ...], cookie: str, is_shared: bool
) -> None:
    """What a bare app has read of a request is not seen: so its error page for one visitor is not shown to those who waited."""
    more = threading.Event()

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        user = environ["HTTP_X_USER"]
        if user == "ann":
            assert more.wait(PATIENCE)
        start_response("500 Internal Server Error", [PLAIN, *fields])
        return [f"sorry, {user}".encode()]

    app = App(answer)
    gateway = behind(app)
    ann = go(lambda: ask(gateway, HTTP_X_USER="ann", **({"HTTP_COOKIE": cookie} if cookie else {})))
    wait_until(lambda: app.calls == 1, "her request")
    bob = go(lambda: ask(gateway, HTTP_X_USER="bob"))
    wait_for_waiters(gateway, 1)
    more.set()
    assert ann.result(PATIENCE).body == b"sorry, ann"
    assert bob.result(PATIENCE).body == (b"sorry, ann" if is_shared else b"sorry, bob")


# -- bodies in files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [True, False], ids=["gone", "out of descriptors"])
def test_a_body_that_can_not_be_opened_is_asked_for_anew(
    behind: Behind, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch, missing: bool
) -> None:
    """On a hit, and where it is to stand in for the app's failure: and what the app has returned is closed."""

    def fail(body: FileBody) -> None:
        if not missing:
            raise StoreError("Too many open files")

    fails = [False]

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        fields = [("Cache-Control", "max-age=10, stale-if-error=100"), PLAIN]
        start_response("503 Service Unavailable" if fails[0] else "200 OK", [PLAIN] if fails[0] else fields)
        return Body(b"down") if fails[0] else Body(b"x" * 3_000_000)

    app = App(answer)
    gateway = behind(app, memory_size=2**20)
    ask(gateway)
    monkeypatch.setattr(FileBody, "open", fail)
    got = ask(gateway)
    assert (got.word, len(got.body), app.calls) == ("BYPASS", 3_000_000, 2)
    clock.shift(11)
    fails[0] = True
    got = ask(gateway)
    assert (got.status[:3], got.body) == ("503", b"down")
    assert app.closed == [1] * len(app.closed)


def test_a_variant_from_the_future_does_not_win(directory: Path, clock: time_machine.Traveller) -> None:
    """The clock has stepped back since it was stored, and the app has stopped varying since."""
    fields = [("Cache-Control", "no-cache"), ("ETag", '"a"'), ("Vary", "Accept-Language")]

    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [PLAIN, *fields])
        return [b"page"]

    gateway = GatewayCache(App(answer), dir=directory)

    def visit() -> str:
        told: list[Any] = []
        gateway(environ_for(), lambda *args: told.append(args))  # type: ignore[arg-type,func-returns-value]
        return str(dict(told[0][1])["X-Cache-Status"])

    assert [visit(), visit()] == ["MISS", "EXPIRED"]
    clock.shift(-3)
    fields[:] = [FRESH]
    assert [visit(), visit()] == ["EXPIRED", "HIT"]
