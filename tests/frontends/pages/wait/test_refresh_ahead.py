"""A busy page is refreshed before it is stale: ``refresh_ahead``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import time_machine
from flask import Flask, Response

from flask_stalecache import StaleCache
from support.client import MakeApp, settle, visit
from support.page_waits import IN_SWR, NO_DEADLINE, OLD, WINDOWS, View, fails, old_site, site
from support.threads import wait_until

pytestmark = pytest.mark.usefixtures("no_housekeeping")

AHEAD = {"refresh_ahead": 10}


def test_in_the_last_seconds_of_freshness_a_hit_has_the_page_renewed(
    make_app: MakeApp, clock: time_machine.Traveller, view: View
) -> None:
    app, cache = old_site(make_app, clock, view, AHEAD, 49)
    view.hangs()
    assert visit(app).page == ("HIT", "run 1")
    settle(app, cache)
    assert len(view.runs) == 1, "not yet"
    clock.shift(1)
    assert visit(app).page == ("HIT", "run 1")
    wait_until(lambda: len(view.runs) == 2, "the refresh")
    clock.shift(9)
    assert [visit(app).page for _ in range(5)] == [("HIT", "run 1")] * 5
    view.go_on.set()
    settle(app, cache)
    seen = visit(app)
    assert seen.page == ("HIT", "run 2")
    assert (seen.headers["Age"], seen.headers["Cache-Status"]) == ("0", "stalecache; hit; ttl=60")
    assert view.runs == [False, True]


@pytest.mark.parametrize("age", [0, 49.9])
def test_before_that_nothing_is_renewed(make_app: MakeApp, clock: time_machine.Traveller, view: View, age: float) -> None:
    app, cache = old_site(make_app, clock, view, AHEAD, age)
    assert [visit(app).page for _ in range(3)] == [("HIT", "run 1")] * 3
    settle(app, cache)
    assert len(view.runs) == 1


@pytest.mark.parametrize("age", [55, IN_SWR], ids=["ahead", "stale"])
def test_a_refresh_that_comes_too_late_runs_nothing(
    make_app: MakeApp, clock: time_machine.Traveller, view: View, age: float
) -> None:
    """It was handed over, and another process was quicker."""
    one, cache = old_site(make_app, clock, view, AHEAD, age)
    other, other_cache = make_app(**NO_DEADLINE)
    other.add_url_rule("/", "page", other_cache.cached(**{**WINDOWS, **AHEAD})(view))
    with other.test_client().get("/") as response:
        assert response.get_data(as_text=True) == "run 1"
        visit(one)
        settle(one, cache)
        assert len(view.runs) == 2
    settle(other, other_cache)
    assert len(view.runs) == 2
    assert visit(other).page == ("HIT", "run 2")


@pytest.mark.parametrize(
    "policy", [{"stale_while_revalidate": 0, "stale_if_error": 0}, {"key": lambda: "all"}, {"wait": 0}, {"prefer_stale": True}],
    ids=["no stale windows", "key", "wait", "prefer_stale"],
)  # fmt: skip
def test_ahead_whatever_else_is_said_of_the_page(
    make_app: MakeApp, clock: time_machine.Traveller, view: View, policy: dict[str, Any]
) -> None:
    app, cache = old_site(make_app, clock, view, {**AHEAD, **policy}, 55)
    assert visit(app).page == ("HIT", "run 1")
    settle(app, cache)
    assert visit(app).page == ("HIT", "run 2")


def test_what_forbids_stale_is_renewed_ahead_too(make_app: MakeApp, clock: time_machine.Traveller, view: View) -> None:
    app, cache = site(make_app, view, AHEAD)
    view.answers = lambda: Response(f"run {len(view.runs)}", headers={"Cache-Control": "must-revalidate"})
    visit(app)
    for run in range(1, 5):
        clock.shift(55)
        assert visit(app).page == ("HIT", f"run {run}")
        settle(app, cache)
    assert view.runs == [False, *[True] * 4]


def test_a_view_that_fails_is_left_alone_for_a_while(make_app: MakeApp, clock: time_machine.Traveller, view: View) -> None:
    app, cache = old_site(make_app, clock, view, {"refresh_ahead": 20}, 40, REFRESH_BACKOFF=(4, 4))
    view.answers = fails
    for tries in (1, 2, 3):
        for _ in range(3):
            assert visit(app).page == ("HIT", "run 1")
            settle(app, cache)
        assert len(view.runs) == 1 + tries
        clock.shift(6)
    view.answers = None
    assert visit(app).page == ("HIT", "run 1")
    settle(app, cache)
    assert visit(app).page == ("HIT", "run 5")


@pytest.mark.parametrize("headers", [{"Cache-Control": "max-age=4"}, {"Cache-Control": "max-age=0"}], ids=repr)
def test_a_response_that_says_less_is_not_renewed_without_end(
    make_app: MakeApp, clock: time_machine.Traveller, view: View, headers: dict[str, str]
) -> None:
    """``refresh_ahead`` counts as half of the freshness at most. Otherwise each hit would renew the page."""
    app, cache = site(make_app, view, {"refresh_ahead": 10, "max_age": None})
    view.answers = lambda: Response(f"run {len(view.runs)}", headers=headers)
    visit(app)
    if headers["Cache-Control"] == "max-age=0":
        assert visit(app).page == OLD
        settle(app, cache)
        assert view.runs == [False, True]
        return
    for age in (0, 1.9):
        clock.shift(age)
        assert visit(app).page == ("HIT", "run 1")
        settle(app, cache)
    assert len(view.runs) == 1
    clock.shift(0.2)
    for page in (("HIT", "run 1"), ("HIT", "run 2"), ("HIT", "run 2")):
        assert visit(app).page == page
        settle(app, cache)
    assert len(view.runs) == 2


def test_what_a_status_or_the_view_shortens_has_its_own_last_seconds(
    make_app: MakeApp, clock: time_machine.Traveller, view: View
) -> None:
    app, cache = site(make_app, view, {"refresh_ahead": 2, "statuses": {404: 10}})
    view.answers = lambda: (f"run {len(view.runs)}", 404)
    visit(app)
    clock.shift(7)
    assert visit(app).page == ("HIT", "run 1")
    settle(app, cache)
    assert len(view.runs) == 1
    clock.shift(1)
    assert visit(app).page == ("HIT", "run 1")
    settle(app, cache)
    assert visit(app).page == ("HIT", "run 2")


def test_two_processes_renew_a_page_ahead_once(make_app: MakeApp, clock: time_machine.Traveller, view: View) -> None:
    one, cache = old_site(make_app, clock, view, AHEAD, 50)
    other, other_cache = make_app(**NO_DEADLINE)
    other.add_url_rule("/", "page", other_cache.cached(**{**WINDOWS, **AHEAD})(view))
    view.is_refresh = lambda: cache.refreshing or other_cache.refreshing
    assert visit(other).page == ("HIT", "run 1")
    settle(other, other_cache)
    view.hangs()
    assert [visit(app).page for app in (one, other)] == [("HIT", "run 2")] * 2
    clock.shift(50)
    assert visit(one).page == ("HIT", "run 2")
    wait_until(lambda: len(view.runs) == 3, "the refresh here")
    assert [visit(app).page for app in (other, one, other)] == [("HIT", "run 2")] * 3
    settle(other, other_cache)
    assert len(view.runs) == 3
    view.go_on.set()
    settle(one, cache)
    assert [visit(app).page for app in (one, other)] == [("HIT", "run 3")] * 2


def play_busy_hour(app: Flask, cache: StaleCache, clock: time_machine.Traveller, seconds: int) -> None:
    """Let somebody come each five seconds, and fail if they are not served a fresh page."""
    assert visit(app).word == "MISS"
    for _ in range(seconds // 5):
        clock.shift(5)
        assert visit(app).word == "HIT"
        settle(app, cache)


def test_a_busy_page_is_never_stale(make_app: MakeApp, clock: time_machine.Traveller, view: View) -> None:
    app, cache = site(make_app, view, AHEAD)
    play_busy_hour(app, cache, clock, 3600)
    assert view.runs == [False, *[True] * (3600 // 50)], "renewed where the last ten seconds begin"


@pytest.mark.grid
@pytest.mark.parametrize("jitter", [0, 0.1, 0.5])
@pytest.mark.parametrize("ahead", [10, 30, 59])
def test_a_busy_page_is_never_stale_whatever_chance_takes_off_its_freshness(
    make_app: MakeApp, clock: time_machine.Traveller, view: View, jitter: float, ahead: float, soak: Callable[[int, int], int]
) -> None:
    seconds = soak(3600, 300)
    app, cache = site(make_app, view, {"refresh_ahead": ahead, "jitter": jitter})
    play_busy_hour(app, cache, clock, seconds)
    assert view.runs.count(False) == 1
    # At least once a minute, and not before half of the freshness, which is a minute less the jitter.
    assert seconds / 60 <= view.runs.count(True) <= seconds / (30 * (1 - jitter))
