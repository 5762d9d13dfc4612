"""``STALECACHE_STORE="memory"`` in apps: what visitors see, what is refused, and what commands and the log say."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import time_machine
from flask import Flask
from werkzeug.test import Client

from flask_stalecache import ConfigError, FileStore, StaleCache
from flask_stalecache.engine import runtime
from flask_stalecache.engine.log import RateLimitedLog
from flask_stalecache.filesystem import system
from flask_stalecache.frontends.gateway.gateway_cache import GatewayCache
from flask_stalecache.stores.in_memory.memory_store import MemoryStore
from support.client import settle, visit
from support.threads import crowd, results

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

LOGGER = "flask_stalecache"


def make_site(tmp_path: Path, **settings: Any) -> tuple[Flask, StaleCache, list[str]]:
    """Return an app, its cache, and the list of the pages that were made."""
    app = Flask("shop", instance_path=str(tmp_path / "instance"))
    app.config.update({f"STALECACHE_{name}": value for name, value in {"STORE": "memory", **settings}.items()})
    cache = StaleCache(app)
    made: list[str] = []

    @app.get("/<page>")
    @cache.cached(60, 600, 86400, tags=["news"], jitter=0)
    def show(page: str) -> str:
        made.append(page)
        if page == "slow":
            threading.Event().wait(0.2)
        return f"{page} {len(made)}"

    return app, cache, made


def purge(app: Flask, cache: StaleCache, **options: Any) -> None:
    with app.app_context():
        cache.purge(**options)


@pytest.fixture
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "_fcntl", None)


# -- what visitors see -----------------------------------------------------------------------------------------------


def test_pages_are_stored_refreshed_and_purged_without_any_file(tmp_path: Path, clock: time_machine.Traveller) -> None:
    app, cache, _ = make_site(tmp_path)
    assert [visit(app, "/a").page for _ in range(2)] == [("MISS", "a 1"), ("HIT", "a 1")]
    clock.shift(61)
    assert visit(app, "/a").page == ("STALE", "a 1")
    settle(app, cache)
    assert visit(app, "/a").page == ("HIT", "a 2")
    purge(app, cache, tag="news", soft=True)
    assert visit(app, "/a").page == ("STALE", "a 2")
    settle(app, cache)
    purge(app, cache, url="/a")
    assert visit(app, "/a").page == ("MISS", "a 4")
    with app.app_context():
        stats = cache.stats()
    assert (stats["entries"], stats["workers"], stats["max_size"]) == (1, 1, 100 * 1024 * 1024)
    assert stats["requests"]["HIT"] == 2
    assert list(tmp_path.iterdir()) == []


def test_one_thread_makes_a_page_and_all_others_wait_for_it(tmp_path: Path) -> None:
    app, _, made = make_site(tmp_path)
    assert {seen.text for seen in results(crowd(8, lambda: visit(app, "/slow")))} == {"slow 1"}
    assert made == ["slow"]


def test_max_size_is_the_limit_of_each_process(tmp_path: Path) -> None:
    app, _, _ = make_site(tmp_path, MAX_SIZE=100_000)
    for number in range(100):
        visit(app, f"/page-{number}")
        visit(app, "/hot")
    store = app.extensions["stalecache"].engine.store
    assert isinstance(store, MemoryStore)
    assert store.usage().bytes <= 100_000
    assert visit(app, "/hot").word == "HIT"


def plain_app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", "max-age=60")])
    return [environ["PATH_INFO"].encode()]


def test_a_gateway_in_front_of_any_app_keeps_pages_in_memory(tmp_path: Path) -> None:
    gateway = GatewayCache(plain_app, store="memory", max_size=1_000_000)
    client = Client(gateway)
    assert [client.get("/a").headers["X-Cache-Status"] for _ in range(2)] == ["MISS", "HIT"]
    gateway.purge("/a")
    assert client.get("/a").headers["X-Cache-Status"] == "MISS"
    assert gateway.stats()["max_size"] == 1_000_000


def test_a_gateway_may_be_told_by_name_that_it_has_files(tmp_path: Path) -> None:
    client = Client(GatewayCache(plain_app, store="file", dir=tmp_path / "cache"))
    assert [client.get("/a").headers["X-Cache-Status"] for _ in range(2)] == ["MISS", "HIT"]
    assert (tmp_path / "cache").is_dir()


# -- what is refused, and what is told -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DIR", "/var/cache/shop", "leave one of the two out"),
        ("MIN_FREE", 1000, "leave it out"),
        ("ALLOW_NETWORK_DIR", True, "leave it out"),
        ("MEMORY_SIZE", 1000, "as STALECACHE_MAX_SIZE"),
        ("MAX_SIZE", None, "STALECACHE_MAX_SIZE"),
    ],
)
def test_what_has_no_effect_on_a_store_in_memory_is_refused(tmp_path: Path, name: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_site(tmp_path, **{name: value})


def test_a_system_without_file_locks_has_a_store_in_memory_and_says_so_once(
    no_files: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = Flask("shop", instance_path=str(tmp_path / "instance"))
    app.config["STALECACHE_DIR"] = tmp_path / "cache"
    with caplog.at_level(logging.INFO, LOGGER):
        cache = StaleCache(app)
    app.get("/")(cache.cached(60)(lambda: "page"))
    assert [visit(app).word for _ in range(2)] == ["MISS", "HIT"]
    assert [record.getMessage() for record in caplog.records] == [
        "this system lacks flock, so that processes can't share files: each process keeps entries in its own memory, "
        "as with STALECACHE_STORE='memory'"
    ]
    told = json.loads(app.test_cli_runner().invoke(args=["stalecache", "config", "--json"]).stdout)
    assert told["STALECACHE_STORE"] == {"value": "memory", "from": "a system without file locks"}
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_asked_for_are_refused_where_they_can_not_be_locked(no_files: None, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="STALECACHE_STORE='file' needs flock, which this system lacks"):
        make_site(tmp_path, STORE="file")
    with pytest.raises(ConfigError, match="needs flock"):
        FileStore(tmp_path)
    with pytest.raises(ConfigError, match="STALECACHE_STORE='memory'"):
        GatewayCache(plain_app, store="file", dir=tmp_path)


@pytest.mark.parametrize(
    "args",
    ["list", "show /a", "stats", "purge /a", "purge --all", "refresh --all", "publish --all", "warm /a", "verify", "prune"],
)
def test_commands_say_that_they_see_nothing_of_the_server(tmp_path: Path, args: str) -> None:
    app, _, made = make_site(tmp_path)
    visit(app, "/a")
    result = app.test_cli_runner().invoke(args=["stalecache", *args.split()])
    assert result.exit_code != 0
    assert "this command sees none of them" in result.stderr
    assert made == ["a"]
    assert visit(app, "/a").word == "HIT"


def test_the_configuration_is_told_all_the_same(tmp_path: Path) -> None:
    app, _, _ = make_site(tmp_path)
    told = json.loads(app.test_cli_runner().invoke(args=["stalecache", "config", "--json"]).stdout)
    assert told["STALECACHE_STORE"] == {"value": "memory", "from": "app.config"}
    assert told["STALECACHE_DIR"]["value"] is None


@pytest.mark.grid
@pytest.mark.parametrize("has_others", [True, False])
@pytest.mark.parametrize("store", ["memory", "file"])
@pytest.mark.parametrize("gateway", [True, False])
def test_a_server_with_several_processes_is_warned_of_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    has_others: bool,
    store: str,
    gateway: bool,
) -> None:
    monkeypatch.setattr(runtime, "_server_complaints", RateLimitedLog())
    app, _, _ = make_site(tmp_path, STORE=store, GATEWAY=gateway)
    with caplog.at_level(logging.WARNING, LOGGER):
        for _ in range(3):
            visit(app, "/a", environ={"wsgi.multiprocess": has_others})
    said = [record.getMessage() for record in caplog.records if "several processes" in record.getMessage()]
    assert len(said) == (has_others and store == "memory")
