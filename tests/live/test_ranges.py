"""curl requests parts of a file that is too large to be stored, from Flask and Django on a real server, and resumes downloads."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from support.servers import PATIENCE, Server, serving, wait_for

pytestmark = pytest.mark.server

#: Bytes of the film, more than ``STALECACHE_MAX_ENTRY_SIZE``.
SIZE = 20_000_000
FILM = Random(1).randbytes(SIZE)

SOURCE = """
import os

import flask_compress
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse
from django.urls import path as route
from flask import Flask, Response, make_response, request, send_file
from flask_stalecache import GatewayCache, StaleCache
from werkzeug.middleware.dispatcher import DispatcherMiddleware

FOLDER = os.environ["FOLDER"]
FILM = FOLDER + "/film"

app = Flask("live")
app.config.update(STALECACHE_DIR=FOLDER + "/flask", STALECACHE_GATEWAY=True)
StaleCache(app)
made = []


@app.get("/<any(film, resumed, player):name>")
def film(name):
    return send_file(FILM, mimetype="video/mp4", max_age=600)


@app.get("/basket")
def basket():
    response = make_response("basket" * 10_000)
    response.headers["Cache-Control"] = "private, no-cache"
    response.set_etag("ann")
    response.make_conditional(request)
    made.append(response.status_code)
    return response


@app.get("/made")
def statuses():
    return Response(" ".join(map(str, made)), headers={"Cache-Control": "no-store"})


class Body:
    def __init__(self):
        self.file = open(FILM, "rb")

    def __iter__(self):
        return iter(lambda: self.file.read(10_000), b"")

    def close(self):
        self.file.close()
        made.append("closed")


@app.get("/stream")
def stream():
    headers = {"Cache-Control": "no-store", "Content-Length": os.stat(FILM).st_size}
    return Response(Body(), headers=headers, direct_passthrough=True)


settings.configure(SECRET_KEY="not a secret", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, MIDDLEWARE=[])
shop = Flask("shop")
shop.config.update(STALECACHE_DIR=FOLDER + "/shop")
flask_compress.Compress(shop)


@shop.get("/page")
@StaleCache(shop).cached(600)
def page():
    return " ".join(map(str, range(20_000)))


urlpatterns = [route("film", lambda request: FileResponse(open(FILM, "rb"), headers={"Cache-Control": "max-age=600"}))]
app.wsgi_app = DispatcherMiddleware(
    app.wsgi_app, {"/django": GatewayCache(get_wsgi_application(), dir=FOLDER + "/django"), "/shop": shop}
)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("film")
    (folder / "film").write_bytes(FILM)
    with serving("gthread", SOURCE, folder, env={"FOLDER": folder}, workers=1, threads=4) as made:
        # Load the frameworks and their modules first, so that they do not count as growth.
        for path in ("/made", "/django/missing"):
            made.get(path)
        yield made


@pytest.fixture(autouse=True)
def grows_little(server: Server) -> Iterator[None]:
    """A worker never holds the file."""
    before = peak(server)
    yield
    # A worker that held the file would grow by its whole size. The first use of a compressor allocates buffers of a few MB.
    assert peak(server) - before < SIZE // 2


def peak(server: Server) -> int:
    """Return the most memory that the worker has ever had, in bytes."""
    (pid,) = server.worker_pids
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def curl(server: Server, path: str, *options: str) -> tuple[int, dict[str, str], bytes]:
    """Return the status, the header fields and the body of the response that curl gets."""
    command = ["curl", "-sS", "--max-time", str(PATIENCE), "-D", "-", *options, server.url + path]
    done = subprocess.run(command, capture_output=True, timeout=2 * PATIENCE, check=True)
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    return int(lines[0].split()[1]), {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}, body


@pytest.mark.parametrize("path", ["/film", "/django/film", "/stream"])
def test_parts_of_a_film(server: Server, path: str) -> None:
    """Once before the app has answered, once afterwards; Django and the stream do not support ranges themselves."""
    for _ in range(2):
        for asked, start, stop in (("100-199", 100, 200), (f"{SIZE - 7}-", SIZE - 7, SIZE), ("-100", SIZE - 100, SIZE)):
            status, fields, body = curl(server, path, "-r", asked)
            assert (status, body == FILM[start:stop]) == (206, True)
            assert (fields["content-range"], fields["content-length"]) == (f"bytes {start}-{stop - 1}/{SIZE}", str(stop - start))
    status, fields, _ = curl(server, path, "-r", f"{SIZE}-")
    assert (status, fields["content-range"]) == (416, f"bytes */{SIZE}")
    _, fields, _ = curl(server, path, "-I")
    assert (fields["accept-ranges"], fields["content-length"]) == ("bytes", str(SIZE))


@pytest.mark.parametrize("path", ["/resumed", "/django/film"])
def test_a_download_is_resumed(server: Server, path: str, tmp_path: Path) -> None:
    """The gateway makes the part for the first resumption, the app that for the second one, if it supports ranges."""
    for has in (SIZE // 2, 7):
        (tmp_path / "film").write_bytes(FILM[:has])
        status, _, _ = curl(server, path, "-C", "-", "-o", str(tmp_path / "film"))
        assert (status, (tmp_path / "film").read_bytes() == FILM) == (206, True)


def test_a_player_asks_as_safari_does(server: Server) -> None:
    """Safari plays nothing unless its first request gets two bytes and the size; then it requests all, with the ETag."""
    status, fields, body = curl(server, "/player", "-r", "0-1")
    assert (status, fields["content-range"], body) == (206, f"bytes 0-1/{SIZE}", FILM[:2])
    for asked in (f"0-{SIZE - 1}", "1000000-2000000"):
        status, _, body = curl(server, "/player", "-r", asked, "-H", f"If-Range: {fields['etag']}")
        first, last = map(int, asked.split("-"))
        assert (status, body == FILM[first : last + 1]) == (206, True)
    status, _, body = curl(server, "/player", "-r", "0-9", "-H", 'If-Range: "another"')
    assert (status, len(body)) == (200, SIZE)


def test_a_private_page_is_confirmed(server: Server) -> None:
    tag = '"ann"'
    for _ in range(4):
        status, fields, body = curl(server, "/basket", "-H", f"If-None-Match: {tag}")
        assert (status, fields["etag"], body) == (304, tag, b"")
    statuses = [word for word in curl(server, "/made")[2].decode().split() if word != "closed"]
    assert statuses == ["200", "304", "304", "304"]


def test_a_client_that_leaves_ends_the_stream(server: Server) -> None:
    before = server.get("/made").text.count("closed")
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
        connection.sendall(b"GET /stream HTTP/1.1\r\nHost: shop.example\r\nRange: bytes=1000-\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 206 ")
    wait_for(lambda: server.get("/made").text.count("closed") == before + 1, what="the body is closed")


@pytest.mark.parametrize("coding", ["br", "identity"])
def test_a_page_that_a_hook_compresses_is_resumed(server: Server, coding: str) -> None:
    accepts = ("-H", f"Accept-Encoding: {coding}")
    _, fields, page = curl(server, "/shop/page", *accepts)
    size = len(page)
    assert fields.get("content-encoding", "identity") == coding
    for asked, part in ("0-99", slice(100)), (f"{size // 2}-", slice(size // 2, size)), ("-7", slice(size - 7, size)):
        status, cut, body = curl(server, "/shop/page", *accepts, "-r", asked, "-H", f"If-Range: {fields['etag']}")
        start, stop, _ = part.indices(size)
        assert (status, cut["content-range"], body) == (206, f"bytes {start}-{stop - 1}/{size}", page[part])
    status, cut, body = curl(server, "/shop/page", *accepts, "-H", f"If-None-Match: {fields['etag']}")
    assert (status, cut["etag"], body) == (304, fields["etag"], b"")
