"""Mistakes with a shared server, through an app: one clear line at first use, and pages are served.

Covers ``stores.shared.introduction``.
"""

from __future__ import annotations

import logging
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask

from flask_stalecache import ConfigError, StaleCache
from flask_stalecache.stores.shared.store import RedisStore
from support.client import settle, visit
from support.shared_hosts import Server, free_port

MakeShop = Callable[..., "Shop"]


class Shop:
    """An app on one host."""

    def __init__(self, url: str, place: Path, name: str = "shop", **settings: Any) -> None:
        self.app = Flask(name, root_path=str(place))
        config = {"STORE": url, "DIR": place / "cache", "SHARED_NAME": "shop", "SHARED_PURGE_WAIT": 0, **settings}
        self.app.config.update({f"STALECACHE_{key}": value for key, value in config.items()})
        self.cache = StaleCache(self.app)
        self.made = 0

        @self.app.get("/<page>")
        @self.cache.cached(max_age=600, stale_while_revalidate=6000)
        def page(page: str) -> str:
            self.made += 1
            return f"{page} {name} {self.made}"

    @property
    def store(self) -> RedisStore:
        store = self.app.extensions["stalecache"].engine.store
        assert isinstance(store, RedisStore)
        return store

    def see(self, path: str = "/page") -> tuple[str, str]:
        seen = visit(self.app, path)
        assert seen.status == 200
        return seen.page

    def purge(self, path: str = "/page", *, soft: bool = False) -> None:
        with self.app.app_context():
            self.cache.purge(path, soft=soft)

    def hear(self) -> None:
        self.store.follower.read_once()

    def settle(self) -> None:
        settle(self.app, self.cache)


@pytest.fixture
def make_shop(tmp_path: Path, no_housekeeping: None) -> MakeShop:
    return lambda url, place="one", **settings: Shop(url, tmp_path / place, **settings)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture
def web_server() -> Iterator[int]:
    """Return the port of a server that speaks HTTP."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                peer.recv(1000)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    threading.Thread(target=answer, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("http://:secret@cache.example/", "redis://"),
        ("redis:/run/cache", "name of the host"),
        ("redis://:secret@cache.example:six/", "redis://127.0.0.1:6379/0"),
        ("redis://:secret@cache.example/sessions", "number of the database"),
        ("unix://:secret@", "path of the socket"),
        ("redis://:secret@cache.example/0?socket_timeout=1", "STALECACHE_SHARED_TIMEOUT"),
        ("redis://:secret@cache.example/0?decode_responses=yes", "unknown parameter"),
        ("redis://:secret@cache.example?db=secret", "number of the database"),
        ("rediss://:secret@cache.example/0?ssl_cert_reqs=yes", "ssl_cert_reqs"),
    ],
)
def test_a_url_that_is_none_is_refused_at_the_start(make_shop: MakeShop, url: str, wanted: str) -> None:
    with pytest.raises(ConfigError, match="STORE") as caught:
        make_shop(url)
    assert wanted in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def wrong_password(server: Server, web: int) -> str:
    return f"unix://shop:secret@{server.socket}"


def something_else(server: Server, web: int) -> str:
    return f"redis://:secret@127.0.0.1:{web}/0"


def nothing(server: Server, web: int) -> str:
    return f"redis://:secret@127.0.0.1:{free_port()}/0"


def no_socket(server: Server, web: int) -> str:
    return f"unix://:secret@{server.folder}/nothing"


def unknown_host(server: Server, web: int) -> str:
    return "redis://:secret@cache.invalid/0"


def no_such_database(server: Server, web: int) -> str:
    return f"unix://{server.socket}?db=99"


MISTAKES = {
    wrong_password: "refuses user or password",
    something_else: "no Redis or Valkey",
    nothing: "can't be connected to",
    no_socket: "can't be connected to",
    unknown_host: "can't be connected to",
    no_such_database: "no such database",
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_server_that_can_not_be_used(
    server: Server, web_server: int, make_shop: MakeShop, said: Callable[[], list[str]], mistake: Callable[[Server, int], str]
) -> None:
    shop = make_shop(mistake(server, web_server))
    # Nothing connects before the first visitor comes.
    assert said() == []
    for number, path in enumerate(("/page", "/other"), 1):
        assert shop.see(path) == ("MISS", f"{path[1:]} shop {number}")
        assert shop.see(path) == ("HIT", f"{path[1:]} shop {number}")
    (line,) = said()
    assert MISTAKES[mistake] in line
    assert "secret" not in line
    assert "\n" not in line


@pytest.mark.parametrize("ahead", [-10, 10])
def test_clocks_that_differ(server: Server, make_shop: MakeShop, said: Callable[[], list[str]], ahead: int) -> None:
    right, wrong = make_shop(server.url, "one", name="right"), make_shop(server.url, "two", name="wrong")
    assert right.see("/first") == ("MISS", "first right 1")
    with time_machine.travel(time.time() + ahead, tick=True):
        assert wrong.see("/first") == ("HIT", "first right 1")
        assert wrong.see("/second") == ("MISS", "second wrong 1")
        wrong.hear()
    right.hear()
    (line,) = said()
    assert "10 s" in line
    assert "NTP" in line
    assert right.see("/second") == ("HIT", "second wrong 1")
    # The order of purges does not depend on clocks.
    for purger in (right, wrong):
        for soft in (False, True):
            purger.purge("/second", soft=soft)
            right.hear()
            before = right.made
            assert right.see("/second")[0] == ("STALE" if soft else "MISS")
            right.settle()
            assert right.made == before + 1
            with time_machine.travel(time.time() + ahead, tick=True):
                wrong.hear()
                assert wrong.see("/second") == ("HIT", f"second right {right.made}")
    with time_machine.travel(time.time() + ahead, tick=True):
        wrong.purge("/second", soft=True)
        assert wrong.see("/second") == ("STALE", f"second right {right.made}")
        wrong.settle()
        assert wrong.see("/second") == ("HIT", f"second wrong {wrong.made}")
    right.hear()
    assert right.see("/second") == ("HIT", f"second wrong {wrong.made}")
    assert len(said()) == 1


def test_a_directory_that_was_copied_from_another_host(
    server: Server, make_shop: MakeShop, tmp_path: Path, said: Callable[[], list[str]]
) -> None:
    one = make_shop(server.url, "one")
    assert one.see() == ("MISS", "page shop 1")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one.purge("/page")
    assert one.see() == ("MISS", "page shop 2")
    two = make_shop(server.url, "two", name="copy")
    # What was purged meanwhile does not come back with the copy.
    assert two.see()[1] != "page shop 1"
    assert two.store._known.host_id() != one.store._known.host_id()
    mine, theirs = one.store.lock("key"), two.store.lock("key")
    assert mine.acquire()
    assert not theirs.acquire()
    mine.release()
    two.purge()
    one.hear()
    assert one.see() == ("MISS", "page shop 3")
    print(said())


def test_two_apps_with_one_name(server: Server, make_shop: MakeShop, said: Callable[[], list[str]]) -> None:
    one, forum = make_shop(server.url, "one"), make_shop(server.url, "two", name="forum")
    for number in range(20):
        forum.app.add_url_rule(f"/thread/{number}", f"thread{number}", lambda: "thread")
        one.app.add_url_rule(f"/shelf/{number}", f"shelf{number}", lambda: "shelf")
    assert one.see() == ("MISS", "page shop 1")
    assert said() == []
    forum.see()
    assert forum.see("/own") == ("MISS", f"own forum {forum.made}")
    (line,) = said()
    assert 'another app ("shop") than this one ("forum") uses the name "shop"' in line
    assert "STALECACHE_SHARED_NAME" in line
    forum.see("/third")
    assert len(said()) == 1


def test_another_deployment_is_the_same_app(server: Server, make_shop: MakeShop, said: Callable[[], list[str]]) -> None:
    for number in range(12):
        shop = make_shop(server.url, f"host {number}", name=f"release {number}")
        for shelf in range(number, number + 10):
            shop.app.add_url_rule(f"/shelf/{shelf}", f"shelf{shelf}", lambda: "shelf")
        shop.see()
    assert said() == []


def test_data_of_a_newer_version(server: Server, make_shop: MakeShop, said: Callable[[], list[str]]) -> None:
    old = make_shop(server.url)
    assert old.see() == ("MISS", "page shop 1")
    server.client().hset("stalecache:{shop}:m", "v", "2")
    before = server.client().execute_command("DUMP", "stalecache:{shop}:m")
    shop = make_shop(server.url, "two", name="old")
    for number, path in enumerate(("page", "other"), 1):
        assert shop.see(f"/{path}") == ("MISS", f"{path} old {number}")
        assert shop.see(f"/{path}") == ("HIT", f"{path} old {number}")
    (line,) = said()
    assert "another version" in line
    assert "STALECACHE_SHARED_NAME" in line
    assert server.client().execute_command("DUMP", "stalecache:{shop}:m") == before
