"""Clients that read nothing of a cold stream, on real servers: other clients still get that page, and other pages."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.servers import PATIENCE, Server, crowd, serving, wait_for

pytestmark = pytest.mark.server

#: The lock timeout is longer than a test waits for anything.
SOURCE = """
import os
from pathlib import Path

from flask import Flask, Response
from flask_stalecache import Policy, StaleCache

FOLDER = Path(os.environ["FOLDER"])
SIZE = 6_000_000

app = Flask("live")
app.config.update(STALECACHE_DIR=FOLDER / "cache", STALECACHE_GATEWAY=[("/*", Policy(max_age=600))], STALECACHE_LOCK_TIMEOUT=600)
StaleCache(app)


@app.get("/<name>")
def page(name):
    with open(FOLDER / "calls", "ab", buffering=0) as calls:
        calls.write(f"{name}\\n".encode())
    if name == "other":
        return "another page"

    def chunks():
        for _ in range(SIZE // 10_000):
            yield b"x" * 10_000

    return Response(chunks())
"""
SIZE = 6_000_000


@pytest.fixture(
    scope="module", params=[("gthread", 1), ("gthread", 2), ("granian", 1)], ids=["gthread", "gthread of two workers", "granian"]
)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose processes have four threads, of which a page with a slow reader must not take all."""
    kind, workers = request.param
    folder = tmp_path_factory.mktemp("slow")
    with serving(kind, SOURCE, folder, env={"FOLDER": folder}, workers=workers, threads=4) as made:
        yield made


def calls(server: Server, name: str) -> int:
    log = Path(server.log.parent) / "calls"
    return log.read_text().split().count(name) if log.exists() else 0


def slow_reader(server: Server, path: str) -> socket.socket:
    """Return the connection of a client that has asked for a page, and reads nothing of it."""
    connection = socket.socket()
    # As little as possible may arrive unread.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(PATIENCE)
    connection.connect(("127.0.0.1", server.port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n".encode())
    wait_for(lambda: calls(server, path.strip("/")) == 1, what="the call for the slow reader")
    return connection


def test_a_client_that_reads_nothing_delays_nobody(server: Server) -> None:
    with slow_reader(server, "/stream"), crowd(server, 6, "/stream", {"Host": "shop.example"}) as others:
        assert server.get("/other", {"Host": "shop.example"}).text == "another page"
        assert {len(other.result(PATIENCE).body) for other in others} == {SIZE}
        answer = server.get("/stream", {"Host": "shop.example"})
        assert (answer.cache, len(answer.body)) == ("HIT", SIZE)


def test_three_clients_that_read_nothing_delay_nobody(server: Server) -> None:
    """One thread is left, if there is one process."""
    with slow_reader(server, "/a"), slow_reader(server, "/b"), slow_reader(server, "/c"):
        assert len(server.get("/a", {"Host": "shop.example"}).body) == SIZE
        assert server.get("/other", {"Host": "shop.example"}).text == "another page"
