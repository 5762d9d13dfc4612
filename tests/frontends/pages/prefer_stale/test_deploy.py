"""A deploy makes stored pages stale, and does not remove them."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask, Response

from flask_stalecache import FileStore, StaleCache
from flask_stalecache.stores.formats.entry_format import decode_head
from support.client import MakeApp, settle, visit
from support.old_pages import DAY, HEADER, WINDOWS, Fields, fails
from support.servers import PATIENCE, Gate, Server, crowd, serving, wait_for

# -- a deploy --------------------------------------------------------------------------------------------------------


class Deploys:
    """Apps on one directory, set up one after the other. Their view names the app that made the page."""

    def __init__(self, make_app: MakeApp, clock: time_machine.Traveller) -> None:
        self.make_app = make_app
        self.clock = clock
        self.runs: list[str] = []
        self.fails = False
        self.caches: dict[Flask, StaleCache] = {}

    def deploy(self, name: str, policy: dict[str, Any] | None = None, headers: Fields | None = None, **config: Any) -> Flask:
        """Set up an app some seconds after the one before."""
        self.clock.shift(5)
        app, cache = self.make_app(**config)
        self.caches[app] = cache

        def page() -> Any:
            self.runs.append(name)
            if self.fails:
                fails()
            return Response(f"{name}, run {len(self.runs)}", headers=headers or {})

        app.add_url_rule("/", "page", cache.cached(**{**WINDOWS, **(policy or {})})(page))
        return app

    def visit(self, app: Flask) -> tuple[str, str]:
        """Let a visitor come, and wait for the refresh that they may have handed over."""
        seen = visit(app)
        settle(app, self.caches[app])
        return seen.page


@pytest.fixture
def deploys(make_app: MakeApp, clock: time_machine.Traveller) -> Deploys:
    return Deploys(make_app, clock)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"VERSION": "1"}, {"VERSION": "2"}),
        ({"VERSION": "2"}, {"VERSION": "1"}),
        ({"VERSION": 1}, {"VERSION": 2}),
        ({}, {"VERSION": "1"}),
        ({"VERSION": "1"}, {}),
        ({"VERSION": ""}, {"VERSION": "0"}),
    ],
    ids=repr,
)
def test_a_new_version_makes_what_is_stored_stale_not_gone(deploys: Deploys, before: dict[str, Any], after: dict[str, Any]) -> None:
    old = deploys.deploy("old", **before)
    assert deploys.visit(old) == ("MISS", "old, run 1")
    new = deploys.deploy("new", **after)
    assert [deploys.visit(new) for _ in range(3)] == [("STALE", "old, run 1"), ("HIT", "new, run 2"), ("HIT", "new, run 2")]


@pytest.mark.parametrize(("before", "after"), [("1", "1"), (1, "1"), (None, None), (None, ""), (2.5, "2.5")])
def test_a_restart_is_no_deploy(deploys: Deploys, before: Any, after: Any) -> None:
    deploys.visit(deploys.deploy("first", VERSION=before))
    assert deploys.visit(deploys.deploy("second", VERSION=after)) == ("HIT", "first, run 1")


def test_old_and_new_workers_beside_each_other_do_not_renew_each_others_pages(deploys: Deploys) -> None:
    old = deploys.deploy("old", VERSION="1")
    deploys.visit(old)
    new = deploys.deploy("new", VERSION="2")
    seen = [deploys.visit(app) for _ in range(20) for app in (old, new)]
    assert seen == [("HIT", "old, run 1"), ("STALE", "old, run 1"), *[("HIT", "new, run 2")] * 38]
    assert deploys.runs == ["old", "new"]


def test_an_old_worker_that_renews_a_page_costs_the_new_one_a_single_run_more(deploys: Deploys) -> None:
    """For half an hour old and new workers answer in turn."""
    old, new = deploys.deploy("old", VERSION="1"), deploys.deploy("new", VERSION="2")
    for _ in range(180):
        deploys.visit(old)
        deploys.visit(new)
        deploys.clock.shift(10)
    assert 30 <= len(deploys.runs) <= 2 * 31
    assert deploys.runs.count("new") <= 31


def test_a_rollback_is_a_deploy(deploys: Deploys) -> None:
    first = deploys.deploy("first", VERSION="1")
    deploys.visit(first)
    second = deploys.deploy("second", VERSION="2")
    deploys.visit(second)
    again = deploys.deploy("again", VERSION="1")
    assert [deploys.visit(again) for _ in range(2)] == [("STALE", "second, run 2"), ("HIT", "again, run 3")]
    seen = [deploys.visit(app) for _ in range(5) for app in (second, again)]
    assert seen == [("HIT", "again, run 3")] * 10
    assert deploys.runs == ["first", "second", "again"]


def test_what_was_stored_before_a_deploy_and_a_rollback_is_fresh_as_it_was(deploys: Deploys) -> None:
    deploys.visit(deploys.deploy("first", VERSION="1"))
    deploys.deploy("second", VERSION="2")
    assert deploys.visit(deploys.deploy("again", VERSION="1")) == ("HIT", "first, run 1")


@pytest.mark.parametrize(
    "headers", [{"Cache-Control": "must-revalidate"}, {"Cache-Control": "s-maxage=60, proxy-revalidate"}], ids=repr
)
def test_what_forbids_stale_is_fetched_after_a_deploy(deploys: Deploys, headers: Fields) -> None:
    deploys.visit(deploys.deploy("old", headers=headers, VERSION="1"))
    new = deploys.deploy("new", headers=headers, VERSION="2")
    assert [deploys.visit(new) for _ in range(2)] == [("EXPIRED", "new, run 2"), ("HIT", "new, run 2")]


@pytest.mark.parametrize("windows", [(0, 0), (0, 6000)], ids=["no stale windows", "stale only if it fails"])
def test_what_has_no_window_for_it_is_not_served_stale_after_a_deploy(deploys: Deploys, windows: tuple[int, int]) -> None:
    policy = {"stale_while_revalidate": windows[0], "stale_if_error": windows[1]}
    deploys.visit(deploys.deploy("old", policy, VERSION="1"))
    new = deploys.deploy("new", policy, VERSION="2")
    assert [deploys.visit(new) for _ in range(2)] == [("EXPIRED", "new, run 2"), ("HIT", "new, run 2")]


def test_a_deploy_of_a_view_that_fails_leaves_the_old_page(deploys: Deploys) -> None:
    deploys.visit(deploys.deploy("old", VERSION="1"))
    new = deploys.deploy("new", VERSION="2", REFRESH_BACKOFF=(10, 10))
    deploys.fails = True
    assert [deploys.visit(new) for _ in range(3)] == [("STALE", "old, run 1"), *[("UPDATING", "old, run 1")] * 2]
    deploys.fails = False
    deploys.clock.shift(13)
    assert [deploys.visit(new) for _ in range(2)] == [("STALE", "old, run 1"), ("HIT", "new, run 3")]


def test_with_debug_the_start_is_the_version(deploys: Deploys, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that edited templates show."""
    monkeypatch.setenv("FLASK_DEBUG", "1")
    first = deploys.deploy("first")
    assert [deploys.visit(first)[0] for _ in range(2)] == ["MISS", "HIT"]
    second = deploys.deploy("second")
    assert [deploys.visit(second) for _ in range(2)] == [("STALE", "first, run 1"), ("HIT", "second, run 2")]


def test_a_version_counts_with_debug_too(deploys: Deploys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "1")
    deploys.visit(deploys.deploy("first", VERSION="1"))
    assert deploys.visit(deploys.deploy("second", VERSION="1")) == ("HIT", "first, run 1")


def test_debug_may_be_set_after_init_app(deploys: Deploys) -> None:
    """As ``app.run(debug=True)`` does."""
    deploys.visit(deploys.deploy("first"))
    second = deploys.deploy("second")
    second.debug = True
    assert deploys.visit(second) == ("STALE", "first, run 1")


# -- over two workers ------------------------------------------------------------------------------------------------


SOURCE = """
import json
import os
from pathlib import Path
from urllib.request import urlopen

from flask import Flask
from flask_stalecache import StaleCache


app = Flask(__name__)
app.config.update(json.loads(os.environ["SETTINGS"]))
cache = StaleCache(app)


@app.before_request
def arrive():
    if not cache.refreshing:
        with open(Path(os.environ["FOLDER"]) / "arrivals", "ab", buffering=0) as arrivals:
            arrivals.write(b".")


@app.after_request
def sign(response):
    response.headers["X-Worker"] = str(os.getpid())
    return response


@app.get("/")
@cache.cached(60, 0, 0)
def page():
    with urlopen(os.environ["GATE"]) as answer:
        return answer.read()
"""

VISITORS = 50


def server_site(kind: str, folder: Path, gate: Gate) -> AbstractContextManager[Server]:
    config = {"STALECACHE_DIR": str(folder / "cache"), "STALECACHE_PREFER_STALE_HEADER": "X-Prefer-Stale"}
    # With more connections than threads, some requests would wait for a thread, and the hook would not count their arrival.
    room = {} if kind == "sync" else {"threads": VISITORS // 2, "worker_connections": VISITORS // 2, "keepalive": 0}
    environment = {"GATE": gate.url, "FOLDER": folder, "SETTINGS": json.dumps(config)}
    return serving(kind, SOURCE, folder, env=environment, **room)


def make_older(directory: Path, seconds: float) -> None:
    """Backdate all stored entries."""
    store = FileStore(directory)
    for file in [path for path in directory.glob("??/*") if path.suffix == ""]:
        entry = store.load(decode_head(file.read_bytes()).key).entry
        assert entry is not None
        assert store.write(replace(entry, started=entry.started - seconds, answered=entry.answered - seconds))


@pytest.mark.server
@pytest.mark.parametrize("kind", ["gthread", "sync"])
def test_over_two_workers_a_page_a_day_old_is_served_to_all_and_renewed_once(kind: str, tmp_path: Path) -> None:
    with Gate() as gate, server_site(kind, tmp_path, gate) as server:
        assert server.get().text == "1"
        make_older(tmp_path / "cache", DAY)
        gate.hold()
        answers = server.get_at_once(VISITORS, headers=HEADER)
        wait_for(lambda: gate.open == 1, what="the refresh")

        def both_workers_were_asked() -> bool:
            answers.append(server.get(headers=HEADER))
            return len({answer.headers["X-Worker"] for answer in answers}) == 2

        wait_for(both_workers_were_asked)
        answers += server.get_at_once(VISITORS, headers=HEADER)
        assert {(answer.status, answer.text, answer.cache) for answer in answers} == {(200, "1", "STALE")}
        assert all(int(answer.headers["Age"]) >= DAY for answer in answers)
        assert gate.calls == 2
        gate.release()
        wait_for(lambda: server.get(headers=HEADER).text == "2", what="the new page")
        assert {server.get(headers=HEADER).cache for _ in range(10)} == {"HIT"}
        assert gate.calls == 2


@pytest.mark.server
def test_over_two_workers_fifty_at_once_at_an_empty_cache_run_the_view_once(tmp_path: Path) -> None:
    arrivals = tmp_path / "arrivals"
    with Gate() as gate, server_site("gthread", tmp_path, gate) as server:
        gate.hold()
        with crowd(server, VISITORS, headers=HEADER) as asked:
            wait_for(lambda: arrivals.exists() and arrivals.stat().st_size == VISITORS, what="all have come in")
            wait_for(lambda: gate.open == 1, what="the view runs")
            gate.release()
            answers = [future.result(PATIENCE) for future in asked]
        assert {(answer.status, answer.text) for answer in answers} == {(200, "1")}
        assert {answer.cache for answer in answers} <= {"MISS", "HIT"}
        assert gate.calls == 1
