"""The gateway between a WSGI app and its server: the rules of PEP 3333.

Covers ``frontends.gateway.wsgi_call``, ``frontends.gateway.handler``, ``frontends.middleware``, ``frontends.gateway.bypass``
and ``frontends.wsgi``.
"""

from __future__ import annotations

import gc
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest
import time_machine

from flask_stalecache import Policy
from support.threads import PATIENCE, go
from support.wsgi_apps import FRESH, PLAIN, STALE, App, Behind, Body, answering, ask, environ_for, list_of


@pytest.fixture
def complaints(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Check stderr after the test: the validator of the standard library reports there what was not closed."""
    yield
    gc.collect()
    assert capsys.readouterr().err == ""


def polite(environ: dict[str, Any], start_response: Any) -> Any:
    """Answer as the path says. All but the stream are lists, which have no ``close()``: only the validator's wrapper is closed."""
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


@pytest.mark.grid
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
    assert [ask(gateway).page for _ in range(2)] == [("MISS", b"page"), ("HIT" if stored else "MISS", b"page")]


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
    # The call that failed is not waited for.
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


@pytest.mark.grid
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
