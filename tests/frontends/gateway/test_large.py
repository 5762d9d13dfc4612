"""Large bodies at the gateway: sent from their files, in ranges, and never kept in memory."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import time_machine
from werkzeug.test import Client, TestResponse, create_environ
from werkzeug.wsgi import FileWrapper

from flask_stalecache import GatewayCache
from support.servers import serving

MIB = 1024 * 1024
#: Consecutive numbers, so that each part shows from where in the body it was taken.
BODY = struct.pack(f">{MIB}I", *range(MIB))


class App:
    """It sends the body as a stream, and confirms it if asked."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.body = BODY

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        fields = [("Cache-Control", "max-age=60"), ("ETag", '"a"')]
        if "HTTP_IF_NONE_MATCH" in environ:
            self.calls.append("304")
            start_response("304 Not Modified", fields)
            return []
        self.calls.append("200")
        start_response("200 OK", [*fields, ("Content-Type", "application/octet-stream")])
        return (self.body[start : start + 100_000] for start in range(0, len(self.body), 100_000))


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def gateway(app: App, directory: Path) -> GatewayCache:
    return GatewayCache(app, dir=directory, memory_size=8 * MIB)


def ask(client: Client, **options: Any) -> TestResponse:
    """Ask for the page, read all of the answer, and close it."""
    return client.open("/", buffered=True, **options)


def open_bodies() -> list[str]:
    """Return the open files large enough for a body, since housekeeping threads open and close small ones at any moment."""
    found = []
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            if path.is_file() and path.stat().st_size >= len(BODY):
                found.append(os.readlink(path))
    return found


def copies(gateway: GatewayCache) -> int:
    """Return the bytes of all copies in memory."""
    return gateway._engine.store._copies.size  # type: ignore[attr-defined,no-any-return]


def test_it_is_sent_from_its_file(app: App, gateway: GatewayCache) -> None:
    client = Client(gateway)
    assert ask(client).data == BODY
    wrapped: list[Any] = []

    class Wrapper(FileWrapper):
        def __init__(self, file: Any, size: int) -> None:
            super().__init__(file, size)
            wrapped.append(file)

    for _ in range(3):
        answer = ask(client, environ_overrides={"wsgi.file_wrapper": Wrapper})
        assert (answer.data, answer.headers["X-Cache-Status"], answer.content_length) == (BODY, "HIT", len(BODY))
    assert len(wrapped) == 3
    assert ask(client).data == BODY, "also where the server has no such thing"
    assert copies(gateway) < MIB
    assert app.calls == ["200"]


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=1000001-2000000", slice(1_000_001, 2_000_001)),
        ("bytes=-5", slice(len(BODY) - 5, len(BODY))),
        ("bytes=4194300-", slice(4_194_300, len(BODY))),
    ],
)
def test_a_range_is_read_and_no_more(app: App, gateway: GatewayCache, asked: str, part: slice) -> None:
    client = Client(gateway)
    ask(client)
    answer = ask(client, headers={"Range": asked})
    assert (answer.status_code, answer.data, answer.content_length) == (206, BODY[part], len(BODY[part]))
    assert answer.headers["Content-Range"] == f"bytes {part.start}-{part.stop - 1}/{len(BODY)}"
    assert ask(client, headers={"Range": "bytes=9999999-"}).status_code == 416
    assert app.calls == ["200"]


def test_no_file_is_opened_for_who_wants_no_body(app: App, gateway: GatewayCache) -> None:
    client = Client(gateway)
    ask(client)
    before = open_bodies()
    head = ask(client, method="HEAD")
    assert (head.status_code, head.data, head.content_length) == (200, b"", len(BODY))
    assert ask(client, headers={"If-None-Match": '"a"'}).status_code == 304
    assert open_bodies() == before


def test_files_are_closed(app: App, gateway: GatewayCache) -> None:
    client = Client(gateway)
    ask(client)
    before = open_bodies()
    for headers in ({}, {"Range": "bytes=0-10"}):
        for whole in (True, False):
            answer = client.get("/", headers=headers, buffered=False)
            assert not whole or answer.data
            answer.close()
    assert open_bodies() == before


def test_a_confirmed_body_stays(app: App, gateway: GatewayCache, clock: time_machine.Traveller) -> None:
    client = Client(gateway)
    ask(client)
    clock.shift(61)
    answer = ask(client)
    assert (answer.data, answer.headers["X-Cache-Status"]) == (BODY, "REVALIDATED")
    assert (ask(client).data, app.calls) == (BODY, ["200", "304"])


def files(directory: Path) -> list[Path]:
    return [path for path in directory.glob("??/*") if not path.suffix and path.stat().st_size > MIB]


def delete(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [delete, cut, flip])
def test_a_file_that_was_harmed_is_a_miss(app: App, gateway: GatewayCache, directory: Path, harm: Callable[[Path], None]) -> None:
    client = Client(gateway)
    ask(client)
    assert ask(client).headers["X-Cache-Status"] == "HIT"
    (path,) = files(directory)
    harm(path)
    answer = ask(client)
    assert (answer.data, answer.headers["X-Cache-Status"]) == (BODY, "MISS")
    assert (ask(client).data, app.calls) == (BODY, ["200", "200"])


def test_another_process_replaces_it(app: App, gateway: GatewayCache, directory: Path) -> None:
    other, client = GatewayCache(app, dir=directory, memory_size=8 * MIB), Client(gateway)
    ask(client)
    assert ask(client).data == BODY
    iterable = gateway(create_environ("/"), lambda *args: print)
    gateway.purge("/")
    app.body = BODY[::-1]
    assert ask(Client(other)).data == app.body
    assert b"".join(iterable) == BODY, "who has begun to read goes on with what it was"
    iterable.close()  # type: ignore[attr-defined]
    assert ask(client).data == app.body


SOURCE = """
import os
from flask_stalecache import GatewayCache

BODY = b"".join(number.to_bytes(4, "big") for number in range(1024 * 1024))

def origin(environ, start_response):
    start_response("200 OK", [("Cache-Control", "max-age=600"), ("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]

app = GatewayCache(origin, dir=os.environ["CACHE"], memory_size=8 * 1024 * 1024)
"""


@pytest.mark.server
@pytest.mark.parametrize("kind", ["sync", "gthread", "waitress", "uwsgi", "granian"])
def test_servers_send_all_of_it(kind: str, tmp_path: Path) -> None:
    with serving(kind, SOURCE, tmp_path, env={"CACHE": tmp_path / "cache"}, workers=1) as server:
        for status in ("MISS", "HIT", "HIT"):
            answer = server.get("/")
            assert (answer.cache, answer.body == BODY) == (status, True)
        part = server.get("/", headers={"Range": "bytes=1000000-3000000"})
        assert (part.status, part.body == BODY[1_000_000:3_000_001]) == (206, True)
