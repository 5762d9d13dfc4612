"""A follower beside a web server, as real processes on a real Valkey. Covers ``cli.follow``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import pytest
from flask import Flask

from flask_stalecache import RedisStore, StaleCache
from support import prepared, shared_hosts
from support.prepared import PreparedProcess
from support.servers import Server, environment, serving, wait_for
from support.threads import PATIENCE

SOURCE = """
import os
from flask import Flask
from flask_stalecache import StaleCache

app = Flask("shop")
app.config.update(
    STALECACHE_STORE=os.environ["STORE"], STALECACHE_DIR=os.environ["DIR"], STALECACHE_SHARED_NAME="shop",
    STALECACHE_BASE_URL="http://shop.example",
)
cache = StaleCache(app)


@app.get("/news")
@cache.cached(600)
def news():
    return "news"
"""

HOST = {"Host": "shop.example"}


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[shared_hosts.Server]:
    server = shared_hosts.Server(tmp_path_factory.mktemp("valkey"))
    yield server
    server.kill()


@pytest.fixture
def follower(tmp_path: Path, valkey: shared_hosts.Server) -> Iterator[tuple[PreparedProcess, TextIO]]:
    (tmp_path / "live_app.py").write_text(SOURCE)
    command = ["-m", "flask", "--app", "live_app", "stalecache", "follow"]
    env = environment(tmp_path, {"STORE": valkey.url, "DIR": tmp_path / "web"})
    with prepared.printing(command, prepared.SERVER_MODULES, folder=tmp_path, env=env) as running:
        yield running


@pytest.mark.server
def test_a_follower_beside_a_web_server(
    tmp_path: Path, valkey: shared_hosts.Server, follower: tuple[PreparedProcess, TextIO]
) -> None:
    process, printed = follower
    assert printed.readline() == f"following RedisStore({valkey.url!r}, {str(tmp_path / 'web')!r}) for this host\n"
    other = RedisStore(valkey.url, tmp_path / "other", name="shop", purge_wait=PATIENCE)

    def reaches(web: Server) -> bool:
        """Purge on another host; return whether both hosts have acknowledged that and the web server has dropped its page."""
        assert [web.get("/news", HOST).headers["X-Cache-Status"] for _ in range(2)][1] == "HIT"
        heard = other.purge("all", soft=False)
        assert heard is not None
        assert not heard.late
        return web.get("/news", HOST).headers["X-Cache-Status"] == "MISS" and heard.hosts == 2

    with serving("gthread", SOURCE, tmp_path, env={"STORE": valkey.url, "DIR": tmp_path / "web"}, workers=1) as web:
        wait_for(lambda: reaches(web), what="the follower beside it follows")
        process.terminate()
        assert process.wait(PATIENCE) == 0
        assert printed.read() == "stopped\n"
        # A thread of the web server takes over.
        wait_for(lambda: reaches(web), what="the web server follows")
    other.follower.stop()


def test_one_host_has_nothing_to_follow(make_app: Callable[..., tuple[Flask, StaleCache]]) -> None:
    app, _ = make_app()
    result = app.test_cli_runner().invoke(args=["stalecache", "follow"])
    assert result.exit_code == 2
    assert result.output.startswith(
        "Error: flask stalecache follow is for a server that several hosts share, and this cache belongs"
    )
