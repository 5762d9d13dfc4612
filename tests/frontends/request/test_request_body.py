"""Bodies of GET requests that no field announces, as servers hand them over for HTTP/2."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, request

from flask_stalecache import StaleCache
from flask_stalecache.frontends.gateway.gateway_cache import GatewayCache
from flask_stalecache.frontends.request.request_body import UnannouncedBody, has_unannounced_body
from support.client import Seen, visit
from support.threads import PATIENCE, go, results


class Input(io.BytesIO):
    """An input that, like granian's, loses the rest of the body if ``read()`` follows a read of a part."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.has_begun = False

    def read(self, size: int | None = -1) -> bytes:
        is_lost = self.has_begun and size in (None, -1)
        self.has_begun = True
        return b"" if is_lost else super().read(size)


def http2(body: bytes, **more: Any) -> dict[str, Any]:
    """Return what a server gives for a GET over HTTP/2."""
    return {
        "SERVER_PROTOCOL": "HTTP/2", "CONTENT_LENGTH": None, "wsgi.input": Input(body), "wsgi.input_terminated": True, **more,
    }  # fmt: skip


def show() -> tuple[str, dict[str, str]]:
    return f"<{request.get_data(as_text=True)}>", {"Cache-Control": "public, max-age=60"}


def show_input() -> tuple[str, dict[str, str]]:
    return f"<{request.environ['wsgi.input'].read().decode()}>", {"Cache-Control": "public, max-age=60"}


def show_nothing() -> tuple[str, dict[str, str]]:
    return "<>", {"Cache-Control": "public, max-age=60"}


def app_with(folder: Path, kind: str, view: Callable[[], Any], before: Callable[[], Any] | None = None) -> Flask:
    """Return an app whose page is cached in one of the four ways."""
    app = Flask("shop")
    app.config.update(STALECACHE_DIR=folder, STALECACHE_GATEWAY=kind == "STALECACHE_GATEWAY")
    if kind == "GatewayCache":
        app.wsgi_app = GatewayCache(app.wsgi_app, dir=folder)  # type: ignore[method-assign]
    else:
        cache = StaleCache(app)
        if kind != "STALECACHE_GATEWAY":
            view = cache.cached(60, gateway=kind == "gateway=True")(view)
    if before is not None:
        app.before_request(before)
    app.add_url_rule("/", "page", view)
    return app


def seen_of(app: Flask, body: bytes, **more: Any) -> Seen:
    environ = http2(body, **more)

    def serve(given: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        given.pop("CONTENT_LENGTH", None)
        return app(given, start_response)

    outer = Flask("server")
    outer.wsgi_app = serve  # type: ignore[method-assign]
    return visit(outer, environ=environ)


KINDS = ["cached", "STALECACHE_GATEWAY", "gateway=True", "GatewayCache"]


@pytest.mark.grid
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("view", [show, show_input, show_nothing], ids=["get_data", "wsgi.input", "not read"])
@pytest.mark.parametrize("protocol", ["HTTP/2", "HTTP/2.0", "HTTP/3", "HTTP/1.1"])
def test_a_body_fills_no_page(tmp_path: Path, kind: str, view: Callable[[], Any], protocol: str) -> None:
    app = app_with(tmp_path, kind, view)
    body, told = b"EVIL" * 20_000, "<>" if view is show_nothing else f"<{'EVIL' * 20_000}>"
    for _ in range(2):
        seen = seen_of(app, body, SERVER_PROTOCOL=protocol)
        assert (seen.text == told, seen.word) == (True, "BYPASS")
    assert [seen_of(app, b"", SERVER_PROTOCOL=protocol).page for _ in range(2)] == [("MISS", "<>"), ("HIT", "<>")]
    # A hit does not wait for a body, and is not made from one.
    assert seen_of(app, body, SERVER_PROTOCOL=protocol).page == ("HIT", "<>")


@pytest.mark.parametrize("kind", KINDS)
def test_a_fill_has_an_empty_input(tmp_path: Path, kind: str) -> None:
    """Over HTTP/1.1 there is no body without a field. Code that reads on would get what the connection has next."""
    app = app_with(tmp_path, kind, show_input)
    pages = [seen_of(app, b"next", SERVER_PROTOCOL="HTTP/1.1", **{"wsgi.input_terminated": False}).page for _ in range(2)]
    assert pages == [("MISS", "<>"), ("HIT", "<>")]


@pytest.mark.grid
@pytest.mark.parametrize("kind", ["cached", "STALECACHE_GATEWAY", "gateway=True"])
@pytest.mark.parametrize(
    "read", [lambda: request.get_data(), lambda: request.get_data(cache=False), lambda: request.stream.readline()]
)
def test_a_body_that_a_hook_has_read_counts(tmp_path: Path, kind: str, read: Callable[[], Any]) -> None:
    kept: list[bytes] = []

    def hook() -> None:
        kept[:] = [read()]

    app = app_with(tmp_path, kind, lambda: (kept[0], {"Cache-Control": "max-age=60"}), hook)
    assert [seen_of(app, b"EVIL").page, seen_of(app, b"").page] == [("BYPASS", "EVIL"), ("MISS", "")]


@pytest.mark.parametrize("kind", KINDS)
def test_who_waits_gets_no_page_of_a_body(tmp_path: Path, kind: str) -> None:
    """A body that is slow holds up nobody else either."""
    reached, more = threading.Event(), threading.Event()

    class Slow(Input):
        def read(self, size: int | None = -1) -> bytes:
            reached.set()
            assert more.wait(PATIENCE)
            return super().read(size)

    app = app_with(tmp_path, kind, show)
    evil = go(lambda: seen_of(app, b"", **{"wsgi.input": Slow(b"EVIL")}))
    assert reached.wait(PATIENCE)
    assert [seen_of(app, b"").page for _ in range(2)] == [("MISS", "<>"), ("HIT", "<>")]
    more.set()
    # There is a copy by now, but no answer to a body comes from the store.
    assert results([evil])[0].page == ("BYPASS", "<EVIL>")


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_that_shows_a_body_is_not_shared(tmp_path: Path, kind: str) -> None:
    app = app_with(tmp_path, kind, lambda: Response(f"failed: {request.get_data(as_text=True)}", 503))
    assert [seen_of(app, body).text for body in (b"EVIL", b"", b"EVIL")] == ["failed: EVIL", "failed: ", "failed: EVIL"]


@pytest.mark.grid
@pytest.mark.parametrize(
    "read",
    [
        lambda body: body.read(),
        lambda body: body.read(None),
        lambda body: body.read(3) + body.read(),
        lambda body: body.readline() + body.readline() + body.read(),
        lambda body: b"".join(body.readlines()),
        lambda body: b"".join(body),
        lambda body: b"".join(iter(lambda: body.read(2), b"")),
    ],
)
@pytest.mark.parametrize("peeks", [True, False])
def test_nothing_of_a_body_is_lost(read: Callable[[Any], bytes], peeks: bool) -> None:
    whole = b"ab\ncdef\n" + b"x" * 100_000
    environ: dict[str, Any] = {**http2(whole), "REQUEST_METHOD": "GET"}
    if peeks:
        assert has_unannounced_body(environ)
        assert has_unannounced_body(environ)
    else:
        environ["wsgi.input"] = UnannouncedBody(environ["wsgi.input"])
    assert read(environ["wsgi.input"]) == whole
    assert has_unannounced_body(environ)


@pytest.mark.parametrize(
    "announced",
    [
        {"CONTENT_LENGTH": "4"},
        {"HTTP_TRANSFER_ENCODING": "chunked"},
        {"REQUEST_METHOD": "POST"},
        {"REQUEST_METHOD": "HEAD"},
        {"HTTP_UPGRADE": "websocket"},
    ],
)
def test_an_announced_body_is_not_looked_for(announced: dict[str, Any]) -> None:
    environ: dict[str, Any] = {"REQUEST_METHOD": "GET", **http2(b"body"), **announced}
    given = environ["wsgi.input"]
    assert not has_unannounced_body(environ)
    assert environ["wsgi.input"] is given
    assert not has_unannounced_body({"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/2"})


def test_what_a_server_adds_to_its_input_is_at_hand() -> None:
    environ: dict[str, Any] = {**http2(b""), "REQUEST_METHOD": "GET"}
    assert not has_unannounced_body(environ)
    assert environ["wsgi.input"].has_begun is True
    with pytest.raises(AttributeError):
        environ["wsgi.input"].socket  # noqa: B018


def test_a_client_that_has_left_is_not_stored_from() -> None:
    class Gone(Input):
        def read(self, size: int | None = -1) -> bytes:
            raise ConnectionResetError

    environ: dict[str, Any] = {"REQUEST_METHOD": "GET", **http2(b""), "wsgi.input": Gone(b"")}
    assert has_unannounced_body(environ)
    with pytest.raises(ConnectionResetError):
        environ["wsgi.input"].read()
