"""The dashboard on several hosts, on a real server: the table of hosts, and purges that say who has heard them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_stalecache import StaleCache, StoreError
from flask_stalecache.dashboard.actions import act
from flask_stalecache.dashboard.health import Level, health
from flask_stalecache.stats.counters import Counters
from flask_stalecache.stats.registry import Registry
from support.host_apps import BASE, Host, live_for_long
from support.shared_hosts import Server
from support.threads import PATIENCE


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    if server.process is not None and server.process.poll() is None:
        server.kill()


@pytest.fixture
def hosts(
    server: Server,
    make_app: Callable[..., tuple[Flask, StaleCache]],
    tmp_path: Path,
    no_housekeeping: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[list[Host]]:
    live_for_long(monkeypatch)
    settings = {"STORE": server.url, "BASE_URL": BASE, "SHARED_TIMEOUT": PATIENCE, "SHARED_PURGE_WAIT": PATIENCE}
    made = [Host(*make_app(DIR=tmp_path / name, **settings)) for name in ("one", "two")]
    for host in made:
        host.visit()
        host.store.follower.tick()
        host.runtime.tick()
    yield made
    for host in made:
        host.store.follower.stop()


def shown(host: Host, path: str = "/stalecache/") -> str:
    with host.app.test_client().get(path, base_url=BASE) as response:
        assert response.status_code == 200
        return " ".join(unescape(response.text).split())


def test_hosts_are_shown(hosts: list[Host], server: Server) -> None:
    one, two = hosts
    one.store.purge("nothing", soft=True)
    page = shown(one)
    assert '<h2 id="hosts-title">Hosts</h2>' in page
    assert f'<th scope="row">{one.name} <span class="soft">(this one)</span></th> <td>connected</td>' in page
    assert f'<th scope="row">{two.name}</th> <td>connected</td>' in page
    assert ": heard by all" in page
    # Numbers and charts are those of this host.
    with one.app.test_client().get("/stalecache/now", base_url=BASE) as response:
        parts: dict[str, Any] = response.get_json()["parts"]
    assert two.name in parts["hosts"]
    assert '<td class="figure">2</td>' not in parts["origins"]
    server.kill()
    page = shown(one)
    assert two.name not in page
    assert "Only this host is known: unix://" in page
    assert "goes on without the others" in page
    shown(one, "/stalecache/now")


def test_one_host_has_no_table(make_app: Callable[..., tuple[Flask, StaleCache]]) -> None:
    app, cache = make_app()
    app.register_blueprint(cache.dashboard, url_prefix="/stalecache", authorize=lambda: True)
    with app.test_client().get("/stalecache/") as response:
        assert "hosts-title" not in response.text
    with app.test_client().get("/stalecache/now") as response:
        assert "hosts" not in response.get_json()["parts"]


def test_actions_say_who_has_heard(hosts: list[Host], server: Server) -> None:
    one, two = hosts
    state = one.app.extensions["stalecache"]
    assert act(state, "purge", "url", "/news") == "Purged on 2 of 2 hosts: URL or path /news"
    assert two.visit() == "MISS"
    one.visit()
    assert act(state, "soft", "tag", "news") == "Softly purged on 2 of 2 hosts: Tag news"
    assert act(state, "purge", "prefix", "/") == "Purged on 2 of 2 hosts: Prefix / (1 done)"
    two.store.follower.stop()
    two.store.follower.read_once()
    one.store._purge_wait = 0.25
    said = act(state, "purge", "url", "/news")
    assert said == f"Purged on 1 of 2 hosts; host {two.name} has not acknowledged within 0.25 s: URL or path /news"
    one.visit()
    server.kill()
    said = act(state, "purge", "prefix", "/")
    assert said.startswith("Purged: Prefix / (1 done, 1 failed: purged on this host only: unix://")
    with pytest.raises(StoreError, match="purged on this host only"):
        act(state, "purge", "url", "/news")


def test_a_lost_server_is_a_notice() -> None:
    stats: dict[str, Any] = dict(Registry(Counters()).read(0, 0, None))
    stats["shared"] = {"problem": "redis://a can't be reached", "last_purge": None, "gone": 0, "hosts": []}
    how = health(stats, [], [], 60.0, 100)
    assert how.level is Level.NOTICE
    assert how.headline == "This host goes on without the others: redis://a can't be reached."
