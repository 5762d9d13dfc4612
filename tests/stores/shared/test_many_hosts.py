"""Pages on several hosts: processes with directories of their own, and one server."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from flask import Flask

from flask_stalecache import StaleCache
from flask_stalecache.stores.shared.store import RedisStore
from support.processes import workers
from support.shared_hosts import Server
from support.threads import PATIENCE, wait_until

#: What one worker keeps: its app and its cache.
KEPT: list[tuple[Flask, StaleCache]] = []


def set_up(url: str, directory: Path, calls: Path) -> None:
    app = Flask(__name__)
    cache = StaleCache(app, store=RedisStore(url, directory, name="pages", timeout=PATIENCE, purge_wait=PATIENCE))

    @app.get("/")
    @cache.cached(max_age=600, stale_while_revalidate=6000)
    def page() -> str:
        with calls.open("a") as log:
            log.write("called\n")
        # Long enough for the other hosts to come meanwhile.
        time.sleep(0.2)
        return "page"

    KEPT.append((app, cache))


def visit() -> str:
    response = KEPT[0][0].test_client().get("/")
    assert response.data == b"page"
    response.close()
    return str(response.headers["Cache-Status"])


def purge() -> None:
    app, cache = KEPT[0]
    with app.app_context():
        cache.purge("/", soft=True)


def test_each_change_is_made_once_over_all_hosts(server: Server, tmp_path: Path) -> None:
    log = tmp_path / "calls"

    def calls() -> int:
        return len(log.read_text().splitlines())

    with workers(3) as hosts:
        for number, host in enumerate(hosts):
            host.run(set_up, server.url, tmp_path / str(number), log)
        for host in hosts:
            host.start(visit)
        answers: list[Any] = [host.result() for host in hosts]
        assert calls() == 1
        assert all("hit" in answer or "miss" in answer for answer in answers)
        hosts[1].run(purge)
        for host in hosts:
            host.start(visit)
        assert all("hit" in host.result() for host in hosts)
        wait_until(lambda: calls() == 2, "the refresh")
        for host in hosts:
            assert "hit" in host.run(visit)
        assert calls() == 2
