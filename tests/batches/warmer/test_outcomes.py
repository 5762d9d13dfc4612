"""Warming: the outcome of each URL."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask, Response, abort, redirect, request, session

from flask_stalecache import StaleCache
from support.client import MakeApp, visit
from support.threads import PATIENCE, go, wait_until
from support.warm_site import HERE, Site, by_path, counts, stored


def test_what_is_fresh_is_left_as_it_is_unless_forced(site: Site) -> None:
    assert site.see("/news/1") == ("MISS", "/news/1 1")
    batch = site.warm(["/news/1", "/news/2"], concurrency=1)
    assert counts(batch) == (2, 1, 0, 1)
    outcome = by_path(batch)["/news/1"]
    assert (outcome.skipped, outcome.stored, outcome.reason, outcome.status) == (True, True, "it is fresh already", 200)
    batch = site.warm(["/news/1", "/news/2"], concurrency=1, force=True)
    assert (counts(batch), stored(batch)) == ((2, 2, 0, 0), {"/news/1", "/news/2"})
    assert [site.see(f"/news/{number}") for number in (1, 2)] == [("HIT", "/news/1 3"), ("HIT", "/news/2 4")]


def test_what_is_stale_is_made_again_while_it_waits(site: Site, clock: time_machine.Traveller) -> None:
    site.see("/news/1")
    clock.shift(100)
    batch = site.warm("/news/1")
    assert (counts(batch), stored(batch)) == ((1, 1, 0, 0), {"/news/1"})
    assert site.see("/news/1") == ("HIT", "/news/1 2")


@pytest.mark.parametrize("force", [False, True])
def test_a_page_with_a_wait_is_waited_for_to_its_end(make_app: MakeApp, clock: time_machine.Traveller, force: bool) -> None:
    app, cache = make_app(BASE_URL=HERE)
    runs: list[int] = []

    @app.get("/")
    @cache.cached(60, 0, 86400, wait=0.001)
    def index() -> str:
        runs.append(1)
        threading.Event().wait(0.05)
        return f"{len(runs)}"

    visit(app, "/", base_url=HERE)
    clock.shift(100)
    with app.app_context():
        batch = cache.warm("/", force=force)
        assert batch.wait(PATIENCE)
    assert (batch.done, batch.outcomes[0].stored) == (1, True)
    assert visit(app, "/", base_url=HERE).page == ("HIT", "2")


def test_one_that_fails_keeps_what_is_stored_and_is_left_alone_for_a_while(site: Site, clock: time_machine.Traveller) -> None:
    site.see("/news/1")
    clock.shift(100)
    site.fails = True
    batch = site.warm(["/news/1", "/news/2"])
    assert {path: outcome[1:2] + outcome[3:] for path, outcome in by_path(batch).items()} == {
        "/news/1": (200, False, "ConnectionError('the third party is down')", False, True),
        "/news/2": (500, False, "ConnectionError('the third party is down')", False, True),
    }
    made = len(site.made)
    batch = site.warm("/news/1")
    assert [outcome.reason for outcome in batch.outcomes] == ["it failed a short while ago, and is not tried again yet"]
    assert (counts(batch), len(site.made)) == ((1, 0, 0, 1), made)
    batch = site.warm("/news/1", force=True)
    assert (counts(batch), len(site.made)) == ((1, 0, 1, 0), made + 1)
    site.fails = False
    clock.shift(100)
    assert stored(site.warm("/news/1")) == {"/news/1"}


def test_an_app_that_raises_is_a_failure_of_that_url_alone(site: Site) -> None:
    site.app.config["PROPAGATE_EXCEPTIONS"] = True

    @site.app.errorhandler(404)
    def fail(error: Exception) -> str:
        raise SystemExit(3)

    batch = site.warm(["/none", "/news/1"], concurrency=1)
    assert by_path(batch)["/none"][3:] == (False, "SystemExit(3)", False, True)
    assert stored(batch) == {"/news/1"}
    site.fails = True
    batch = site.warm("/news/2")
    assert (batch.failed, batch.outcomes[0].reason) == (1, "ConnectionError('the third party is down')")


def test_each_tells_why_it_is_not_stored(make_app: MakeApp) -> None:
    app, cache = make_app(BASE_URL=HERE)

    def cached(path: str, view: Callable[[], Any], **options: Any) -> None:
        app.add_url_rule(path, path, cache.cached(60, **options)(view))

    app.add_url_rule("/live", "live", lambda: "live")
    cached("/private", lambda: Response("", headers={"Cache-Control": "private"}))
    cached("/moved", lambda: redirect("/private"))
    cached("/forever", lambda: redirect("/private", 301))
    cached("/gone", lambda: abort(404))
    cached("/listed", lambda: abort(404), statuses={404: 60})
    cached("/agent", lambda: str(request.user_agent))
    cached("/session", lambda: session.setdefault("name", "x"))
    cached("/unless", lambda: "", unless=lambda: True)
    cached("/keyed", lambda: "keyed", key=lambda: request.path)
    cached("/said", lambda: cache.no_store() or "said")
    cached("/language", lambda: request.headers.get("Accept-Language", ""))
    cached("/filtered", lambda: "", response_filter=lambda response: False)
    paths = [rule.rule for rule in app.url_map.iter_rules() if rule.endpoint != "static"]
    with app.app_context():
        batch = cache.warm([*paths, "/none"], headers={"Accept-Language": "de"})
        assert batch.wait(PATIENCE)
    assert (batch.found, batch.failed, batch.not_stored) == (len(paths) + 1, 0, len(paths) + 1 - 4)
    assert stored(batch) == {"/forever", "/listed", "/keyed", "/language"}
    told = {path: (outcome.status, outcome.reason) for path, outcome in by_path(batch).items() if not outcome.stored}
    assert told == {
        "/live": (200, "nothing caches it"),
        "/none": (404, "nothing caches it"),
        "/private": (200, "Cache-Control: private"),
        "/moved": (302, "status 302 is not listed in statuses"),
        "/gone": (404, told["/gone"][1]),
        "/agent": (200, f"it was made for this visitor: the field user-agent was read by {__name__}"),
        "/session": (200, told["/session"][1]),
        "/unless": (200, "unless said so"),
        "/said": (200, "the view said no_store()"),
        "/filtered": (200, "response_filter said so"),
    }
    assert all(told.values())


def test_a_page_within_a_page_has_no_part_in_what_is_told(make_app: MakeApp) -> None:
    app, cache = make_app(BASE_URL=HERE)
    inner = cache.cached(60)(lambda: "inner")
    app.add_url_rule("/inner", "inner", inner)
    app.add_url_rule(
        "/outer", "outer", cache.cached(60)(lambda: Response(inner().get_data(), headers={"Cache-Control": "private"}))
    )
    with app.app_context():
        batch = cache.warm("/outer")
        assert batch.wait(PATIENCE)
    assert [(outcome.stored, outcome.reason) for outcome in batch.outcomes] == [(False, "Cache-Control: private")]


def test_values_that_are_stale_are_renewed_for_the_page(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache = make_app(BASE_URL=HERE)
    runs: list[str] = []

    @cache.memoize(60, 600)
    def rates(base: str) -> str:
        runs.append(base)
        return f"{len(runs)}"

    app.add_url_rule("/", "index", cache.cached(60)(lambda: rates("EUR")))
    with app.app_context():
        rates("EUR")
        clock.shift(100)
        assert cache.warm("/").wait(PATIENCE)
    assert visit(app, "/", base_url=HERE).page == ("HIT", "2")


def test_visitors_who_come_meanwhile_wait_for_the_same_call(site: Site) -> None:
    site.held.clear()
    with site.app.app_context():
        batch = site.cache.warm("/news/1")
    wait_until(lambda: site.open == 1, "it is made")
    visitor = go(site.see, "/news/1")
    again = go(site.warm, "/news/1")
    wait_until(lambda: len(site.asked) == 3, "they come")
    site.held.set()
    assert visitor.result(PATIENCE) == ("MISS", "/news/1 1")
    assert again.result(PATIENCE).outcomes[0].stored
    assert batch.wait(PATIENCE)
    assert site.made == ["/news/1"]


def test_a_page_that_hangs_is_given_up_and_the_others_are_made(make_app: MakeApp, monotonic: Callable[[float], None]) -> None:
    app, cache = make_app(BASE_URL=HERE, REFRESH_DEADLINE=100)
    held = threading.Event()
    app.add_url_rule("/hangs", "hangs", cache.cached(60)(lambda: f"{held.wait(PATIENCE)}"))
    app.add_url_rule("/", "index", cache.cached(60)(lambda: "index"))
    with app.app_context():
        batch = cache.warm(["/hangs", "/"], concurrency=1)
    assert not batch.wait(0.05)
    monotonic(101)
    app.extensions["stalecache"].engine.runtime.tick()
    assert batch.wait(PATIENCE)
    assert counts(batch) == (2, 1, 1, 0)
    assert by_path(batch)["/hangs"].reason == "it took longer than STALECACHE_REFRESH_DEADLINE"
    held.set()


def test_once_cancelled_nothing_more_is_asked(site: Site) -> None:
    site.held.clear()
    with site.app.app_context():
        batch = site.cache.warm([f"/news/{number}" for number in range(5)], concurrency=2)
    wait_until(lambda: site.open == 2, "two are made")
    batch.cancel()
    site.held.set()
    assert batch.wait(PATIENCE)
    assert (batch.found, batch.done, len(site.asked)) == (5, 2, 2)


def test_a_stream_is_not_read_for_ever(site: Site) -> None:
    closed: list[str] = []

    def endless(text: str) -> Iterator[str]:
        try:
            while True:
                yield text
        finally:
            closed.append(text[:1])

    site.app.add_url_rule("/events", "events", lambda: Response(endless("x"), content_type="text/event-stream"))
    site.app.add_url_rule("/large", "large", lambda: Response(endless("y" * 100_000)))
    batch = site.warm(["/events", "/large"])
    assert (batch.done, batch.not_stored, sorted(closed)) == (2, 2, ["x", "y"])


def test_with_caching_off_nothing_is_asked(directory: Path) -> None:
    app = Flask("shop")
    app.config.update(STALECACHE_DIR=directory, STALECACHE_ENABLED=False, STALECACHE_BASE_URL=HERE)
    cache, asked = StaleCache(app), []
    app.add_url_rule("/", "index", lambda: asked.append(1) or "")
    with app.app_context():
        batch = cache.warm("/")
        assert batch.wait(PATIENCE)
    assert (counts(batch), asked) == ((0, 0, 0, 0), [])


def test_in_a_request_without_threads_it_is_no_part_of_what_is_made_there(make_app: MakeApp) -> None:
    app, cache = make_app(BASE_URL=HERE, REFRESH_WORKERS=0)
    app.add_url_rule("/tagged", "tagged", cache.cached(60, tags=["inner"])(lambda: cache.max_age(1) or "tagged"))

    @app.get("/")
    @cache.cached(60)
    def index() -> str:
        return f"{cache.warm('/tagged').done} {request.path}"

    assert visit(app, "/", base_url=HERE).page == ("MISS", "1 /")
    entry = next(each.entry for each in app.extensions["stalecache"].engine.store.walk() if "path:/" in each.entry.names)
    assert "tag:inner" not in entry.names
    assert entry.windows.max_age > 50
