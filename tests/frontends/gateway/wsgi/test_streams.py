"""The gateway between a WSGI app and its server: streams, and bodies in files."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import pytest
import time_machine

from flask_stalecache import StoreError
from flask_stalecache.frontends.gateway.gateway_cache import GatewayCache
from flask_stalecache.stores.entry_file import FileBody
from support.threads import PATIENCE, go, results, wait_until
from support.wsgi_apps import (
    FRESH,
    PLAIN,
    App,
    Behind,
    Body,
    answering,
    ask,
    body_of,
    environ_for,
    length,
    list_of,
    wait_for_waiters,
)

# -- streams ---------------------------------------------------------------------------------------------------------


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves is no news."""


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


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
    """Return a part of a body that is sent once the event is set."""

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
    """The client knows by the length that it has all, and may come back at once: the page must be stored by then."""
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


def test_those_who_wait_for_an_endless_stream_do_so_once(behind: Behind) -> None:
    """Its client is quick, and its head does not say that it is endless. After the lock timeout nobody waits for it again."""
    more = threading.Event()
    app = App(lambda *asked: body_of(b"one", held(more, b"two"))(*asked))
    gateway = behind(app, lock_timeout=0.2)
    first = go(ask, gateway)
    wait_until(lambda: app.calls == 1 and app.bodies[0].asked == 2, "the stream")
    others = [go(ask, gateway) for _ in range(3)]
    wait_until(lambda: app.calls == 4, "their own streams")
    assert gateway._engine.runtime.process.flights._flights == {}
    late = go(ask, gateway)
    wait_until(lambda: app.calls == 5, "the stream of a late one")
    more.set()
    assert {got.body for got in results([first, *others, late])} == {b"onetwo"}
    assert ask(gateway).page == ("HIT", b"onetwo")


def test_a_client_that_leaves_in_mid_stream_leaves_nobody_waiting(behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("stream_pace", "singleflight"):
        monkeypatch.setattr(f"flask_stalecache.engine.flights.{module}.READER_PATIENCE", PATIENCE)
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
    clock.shift(-3600)
    fields[:] = [FRESH]
    assert [visit(), visit()] == ["EXPIRED", "HIT"]
