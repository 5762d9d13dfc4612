"""``cache.no_store`` and ``cache.max_age`` inside a view, and error pages."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from flask import Response, abort, request

from support.cacheability import Runs, add, complaints, purged_by, words_at, wrong
from support.client import MakeApp, settle, visit
from support.threads import PATIENCE, go, results

pytestmark = pytest.mark.usefixtures("no_housekeeping")


# -- no_store --------------------------------------------------------------------------------------------------------


def test_a_page_that_says_no_store_is_not_stored(make_app: MakeApp, runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    app, cache = make_app()

    def view() -> str:
        cache.no_store()
        cache.tag("news")
        return runs()

    add(app, cache, view)
    seen = [visit(app) for _ in range(3)]
    assert [one.page for one in seen] == [("MISS", f"page, run {run}") for run in (1, 2, 3)]
    assert all("stored" not in one.headers["Cache-Status"] for one in seen)
    assert complaints(caplog) == [], "it is the developer's wish"


def test_nobody_queues_for_a_page_that_said_no_store(make_app: MakeApp) -> None:
    app, cache = make_app()
    together = threading.Barrier(2)

    def view() -> str:
        cache.no_store()
        if request.args.get("first") is None:
            # Both are in at the same time, or this breaks.
            together.wait(PATIENCE)
        return "page"

    add(app, cache, view, ignored_parameters=["first"])
    visit(app, "/?first=1")
    assert [seen.text for seen in results([go(visit, app) for _ in range(2)])] == ["page", "page"]


def test_the_first_page_that_does_not_say_it_is_stored(make_app: MakeApp, runs: Runs) -> None:
    app, cache = make_app()

    def view() -> str:
        if runs.of.get("page", 0) < 2:
            cache.no_store()
        return runs()

    add(app, cache, view)
    assert words_at(app, "/", 5) == ["MISS", "MISS", "MISS", "HIT", "HIT"]


@pytest.mark.parametrize("age", [61, 661, 6061], ids=["in SWR", "in SIE", "past all"])
def test_no_store_drops_what_was_stored(make_app: MakeApp, clock: time_machine.Traveller, runs: Runs, age: int) -> None:
    app, cache = make_app()

    def view() -> str:
        if runs.of:
            cache.no_store()
        return runs()

    add(app, cache, view)
    assert words_at(app, "/", 2) == ["MISS", "HIT"]
    clock.shift(age)
    visit(app)
    settle(app, cache)
    assert [visit(app).page for _ in range(2)] == [("MISS", "page, run 3"), ("MISS", "page, run 4")]


@pytest.mark.parametrize("fails", [lambda: abort(503), wrong, lambda: ("busy", 503)], ids=["abort", "raises", "503"])
def test_a_failure_keeps_what_is_stored_whatever_it_says(
    make_app: MakeApp, clock: time_machine.Traveller, runs: Runs, fails: Callable[[], Any]
) -> None:
    app, cache = make_app()

    def view() -> Any:
        if runs.of:
            cache.no_store()
            cache.max_age(0)
            return fails()
        return runs()

    add(app, cache, view)
    visit(app)
    clock.shift(661)
    assert [visit(app).page for _ in range(2)] == [("STALE", "page, run 1")] * 2


# -- max_age ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "policy", "headers", "config", "fresh_for"),
    [
        ([5], {}, {}, {}, 5),
        ([5.5], {}, {}, {}, 5.5),
        ([timedelta(seconds=5)], {}, {}, {}, 5),
        ([60], {}, {}, {}, 60),
        ([61], {}, {}, {}, 60),
        ([10**9], {}, {}, {}, 60),
        ([7, 5, 9], {}, {}, {}, 5),
        ([9, 7, 5], {}, {}, {}, 5),
        ([5], {"max_age": None}, {"Cache-Control": "max-age=30"}, {}, 5),
        ([50], {"max_age": None}, {"Cache-Control": "max-age=30"}, {}, 30),
        ([5], {"max_age": None}, {"CDN-Cache-Control": "max-age=30"}, {}, 5),
        ([5], {"max_age": None}, {}, {"MAX_AGE": 30}, 5),
        ([50], {"max_age": None}, {}, {"MAX_AGE": 30}, 30),
        ([5], {"statuses": {200: 30}}, {}, {}, 5),
        ([50], {"statuses": {200: 30}}, {}, {}, 30),
        ([50], {"max_age": 60}, {"Cache-Control": "max-age=30"}, {}, 50),
    ],
    ids=repr,
)
def test_a_view_shortens_its_pages_freshness_and_never_lengthens_it(
    make_app: MakeApp,
    clock: time_machine.Traveller,
    said: list[Any],
    policy: dict[str, Any],
    headers: dict[str, str],
    config: dict[str, Any],
    fresh_for: float,
) -> None:
    app, cache = make_app(**config)

    def view() -> Response:
        for limit in said:
            cache.max_age(limit)
        return Response("page", headers=headers)

    add(app, cache, view, **policy)
    visit(app)
    clock.shift(fresh_for - 0.5)
    assert visit(app).headers["Cache-Status"] == "stalecache; hit; ttl=0"
    clock.shift(0.5)
    assert visit(app).word == "STALE"


def test_jitter_shortens_what_is_left(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache = make_app()
    add(app, cache, lambda: cache.max_age(10) or "page", jitter=1)
    lengths = set()
    for _ in range(20):
        with app.app_context():
            cache.purge("/")
        visit(app)
        lengths.add(visit(app).headers["Cache-Status"])
    assert len(lengths) > 1
    assert all(int(line.rpartition("=")[2]) < 10 for line in lengths)


def test_a_page_with_max_age_0_is_stale_at_once_and_served_all_the_same(
    make_app: MakeApp, clock: time_machine.Traveller, runs: Runs
) -> None:
    app, cache = make_app()

    def view() -> str:
        cache.max_age(0)
        return runs()

    add(app, cache, view)
    assert visit(app).page == ("MISS", "page, run 1")
    for run in (1, 2, 3):
        assert visit(app).page == ("STALE", f"page, run {run}")
        settle(app, cache)


def test_the_stale_windows_begin_where_the_shortened_freshness_ends(
    make_app: MakeApp, clock: time_machine.Traveller, runs: Runs
) -> None:
    app, cache = make_app(REFRESH_WORKERS=0)

    def view() -> str:
        cache.max_age(10)
        return runs()

    add(app, cache, view)
    visit(app)
    clock.shift(609)
    assert visit(app).page == ("STALE", "page, run 1")
    clock.shift(610)
    assert visit(app).page == ("EXPIRED", "page, run 3")


# -- error pages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["view", "handler"])
def test_an_error_page_of_a_listed_status_is_heard_too(
    make_app: MakeApp, clock: time_machine.Traveller, runs: Runs, where: str
) -> None:
    app, cache = make_app()

    def say() -> None:
        cache.tag("missing")
        cache.max_age(5)

    def view() -> Any:
        if where == "view":
            say()
        runs()
        abort(404)

    @app.errorhandler(404)
    def not_found(error: Exception) -> tuple[str, int]:
        if where == "handler":
            say()
        return "nothing here", 404

    add(app, cache, view, statuses={404: 60})
    visit(app)
    assert purged_by(app, cache, "missing")
    clock.shift(5)
    seen = visit(app)
    assert (seen.status, seen.word, seen.text) == (404, "STALE", "nothing here")


def test_an_error_page_that_says_no_store_is_not_stored(make_app: MakeApp, runs: Runs) -> None:
    app, cache = make_app()

    def view() -> Any:
        runs()
        cache.no_store()
        abort(404)

    add(app, cache, view, statuses={404: 60})
    assert [visit(app).status for _ in range(3)] == [404] * 3
    assert runs.of == {"page": 3}


def test_an_answer_that_is_not_stored_leaves_no_word_behind(make_app: MakeApp, clock: time_machine.Traveller, runs: Runs) -> None:
    app, cache = make_app()

    def spoken() -> Any:
        cache.no_store()
        cache.max_age(0)
        raise KeyError("after it has spoken")

    add(app, cache, spoken, "/spoken")
    add(app, cache, runs)
    assert visit(app, "/spoken").status == 500
    assert words_at(app, "/", 2) == ["MISS", "HIT"]
