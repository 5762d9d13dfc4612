"""How long a visitor waits for a refresh: ``wait``."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask, Response, abort, redirect, request

from flask_stalecache import FileStore, StaleCache
from flask_stalecache.engine import background, timed_calls
from flask_stalecache.stores.formats.entry_format import decode_head
from support.client import MakeApp, Seen, settle, visit
from support.page_waits import IN_SIE, IN_SWR, NEW, OLD, PAST_ALL, WINDOWS, View, fails, old_site, site
from support.processes import Worker, workers
from support.threads import PATIENCE, crowd, go, results, wait_until

pytestmark = pytest.mark.usefixtures("no_housekeeping")

#: Far longer than ``PATIENCE``: if a visitor really waits so long, the test fails.
LONG = 1000


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The identifiers of the threads that wait, or have waited, for a renewal."""
    threads: set[int] = set()
    wait = timed_calls.wait_a_moment

    def noting_wait(*args: Any) -> None:
        threads.add(threading.get_ident())
        wait(*args)

    monkeypatch.setattr(timed_calls, "wait_a_moment", noting_wait)
    return threads


def come(app: Flask, waiting: set[int]) -> Future[Seen]:
    """Let a visitor come in a thread of their own, and return when they wait for a renewal."""
    before = len(waiting)
    visitor = go(visit, app)
    wait_until(lambda: len(waiting) > before or visitor.done(), "the visitor waits")
    assert not visitor.done(), visitor.result().page
    return visitor


# -- a renewal that takes long ---------------------------------------------------------------------------------------


def test_who_does_not_want_to_wait_is_served_at_once(make_app: MakeApp, clock: time_machine.Traveller, view: View) -> None:
    app, cache = old_site(make_app, clock, view, {"wait": 0}, REFRESH_WORKERS=1, REFRESH_QUEUE=1)
    view.hangs()
    assert [visit(app).page for _ in range(3)] == [OLD] * 3
    wait_until(lambda: len(view.runs) == 2, "the refresh")
    assert [visit(app).page for _ in range(3)] == [OLD] * 3
    assert app.extensions["stalecache"].counters["refreshes_dropped"] == 0, "one was handed over"
    view.go_on.set()
    settle(app, cache)
    assert visit(app).page == ("HIT", "run 2")
    assert view.runs == [False, True], "the renewal is one refresh"


def test_a_visitor_waits_so_long_and_no_longer(
    make_app: MakeApp, clock: time_machine.Traveller, monotonic: Callable[[float], None], view: View, waiting: set[int]
) -> None:
    app, cache = old_site(make_app, clock, view, {"wait": LONG})
    view.hangs()
    visitor = come(app, waiting)
    wait_until(lambda: len(view.runs) == 2, "the refresh")
    monotonic(LONG - 1)
    assert not visitor.done()
    monotonic(1)
    assert visitor.result(PATIENCE).page == OLD
    view.go_on.set()
    settle(app, cache)
    assert visit(app).page == ("HIT", "run 2")
    assert view.runs == [False, True]


def test_the_wait_counts_from_the_hand_over(
    make_app: MakeApp, clock: time_machine.Traveller, monotonic: Callable[[float], None], view: View, waiting: set[int]
) -> None:
    """A page whose third party hangs costs its visitors the wait once, not each."""
    app, _ = old_site(make_app, clock, view, {"wait": LONG})
    view.hangs()
    first = come(app, waiting)
    wait_until(lambda: len(view.runs) == 2, "the refresh")
    monotonic(LONG / 2)
    second = come(app, waiting)
    monotonic(LONG / 2)
    assert [visitor.result(PATIENCE).page for visitor in (first, second)] == [OLD] * 2
    assert [go(visit, app).result(PATIENCE).page for _ in range(3)] == [OLD] * 3
    assert view.runs == [False, True]


def test_a_renewal_that_comes_in_time_is_served(
    make_app: MakeApp, clock: time_machine.Traveller, view: View, waiting: set[int]
) -> None:
    app, cache = old_site(make_app, clock, view, {"wait": LONG})
    view.hangs()
    visitors = [come(app, waiting) for _ in range(3)]
    view.go_on.set()
    seen = [visitor.result(PATIENCE) for visitor in visitors]
    assert [one.page for one in seen] == [NEW] * 3
    assert {one.headers["Cache-Status"] for one in seen} == {"stalecache; fwd=stale; fwd-status=200; ttl=60; collapsed"}
    settle(app, cache)
    assert visit(app).page == ("HIT", "run 2")
    assert view.runs == [False, True]


@pytest.mark.grid
@pytest.mark.parametrize("config", [{}, {"REFRESH_WORKERS": 1}, {"REFRESH_WORKERS": 0}], ids=["4 workers", "1 worker", "in line"])
@pytest.mark.parametrize(
    "policy",
    [{}, {"key": lambda: "all"}, {"ignore_session": True}, {"vary": ["Accept"]}, {"tags": ["news"]}, {"refresh_ahead": 10}],
    ids=["plain", "key", "ignore_session", "vary", "tags", "refresh_ahead"],
)
def test_a_quick_renewal_is_served(
    make_app: MakeApp, clock: time_machine.Traveller, view: View, policy: dict[str, Any], config: dict[str, Any]
) -> None:
    app, cache = old_site(make_app, clock, view, {"wait": LONG, **policy}, **config)
    for run in range(2, 5):
        assert visit(app).page == ("EXPIRED", f"run {run}")
        settle(app, cache)
        assert visit(app).page == ("HIT", f"run {run}")
        clock.shift(IN_SIE)
    assert view.runs == [False, True, True, True]


def test_of_many_at_once_one_has_it_renewed(make_app: MakeApp, clock: time_machine.Traveller, view: View) -> None:
    app, _ = old_site(make_app, clock, view, {"wait": LONG})
    assert {seen.page for seen in results(crowd(10, lambda: visit(app)))} <= {NEW, ("HIT", "run 2")}
    assert view.runs == [False, True]


def test_the_renewal_of_a_page_with_a_key_has_its_visitors_fields(
    make_app: MakeApp, clock: time_machine.Traveller, view: View, waiting: set[int]
) -> None:
    app, cache = site(make_app, view, {"wait": LONG, "key": lambda: request.headers.get("X-Tenant", "")})
    view.answers = lambda: f"run {len(view.runs)} for {request.headers.get('X-Tenant')}"
    one, other = {"X-Tenant": "one"}, {"X-Tenant": "other"}
    assert [visit(app, "/", who).text for who in (one, other)] == ["run 1 for one", "run 2 for other"]
    clock.shift(IN_SIE)
    assert visit(app, "/", other).page == ("EXPIRED", "run 3 for other")
    assert visit(app, "/", one).page == ("EXPIRED", "run 4 for one")
    settle(app, cache)


# -- a renewal that brings something else ----------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [fails, lambda: ("busy", 503), lambda: abort(504)], ids=["raises", "503", "abort"])
@pytest.mark.parametrize("config", [{}, {"REFRESH_WORKERS": 0}], ids=["behind", "in line"])
def test_a_renewal_that_fails_leaves_the_copy_and_backs_off(
    make_app: MakeApp, clock: time_machine.Traveller, view: View, failure: Callable[[], Any], config: dict[str, Any]
) -> None:
    app, cache = old_site(make_app, clock, view, {"wait": LONG}, REFRESH_BACKOFF=(10, 10), **config)
    view.answers = failure
    for tries in range(1, 4):
        for _ in range(3):
            assert visit(app).page == OLD
            settle(app, cache)
        assert len(view.runs) == 1 + tries, "one try, then a pause"
        clock.shift(13)
    view.answers = None
    assert visit(app).page == ("EXPIRED", "run 5")


def test_a_hook_that_answers_in_the_views_place_leaves_the_copy(
    make_app: MakeApp, clock: time_machine.Traveller, view: View
) -> None:
    app, cache = site(make_app, view, {"wait": LONG})
    app.before_request(lambda: redirect("/login") if cache.refreshing else None)
    visit(app)
    clock.shift(IN_SIE)
    assert [visit(app).page for _ in range(3)] == [OLD] * 3
    assert view.runs == [False]


@pytest.mark.parametrize("when", ["in time", "too late"])
@pytest.mark.parametrize("kind", ["404", "410 in words", "no_store", "private", "cookie"])
def test_a_page_that_can_no_longer_be_stored_is_live(
    make_app: MakeApp,
    clock: time_machine.Traveller,
    monotonic: Callable[[float], None],
    view: View,
    waiting: set[int],
    kind: str,
    when: str,
) -> None:
    app, cache = old_site(make_app, clock, view, {"wait": LONG})

    def answers() -> Any:
        if kind == "404":
            abort(404)
        if kind == "410 in words":
            return "gone", 410
        if kind == "no_store":
            cache.no_store()
        response = Response(f"live {len(view.runs)}")
        if kind == "private":
            response.headers["Cache-Control"] = "private"
        elif kind == "cookie":
            response.set_cookie("user", "ann")
        return response

    status = {"404": 404, "410 in words": 410}.get(kind, 200)
    view.answers = answers
    view.hangs()
    visitor = come(app, waiting)
    wait_until(lambda: len(view.runs) == 2, "the refresh")
    if when == "too late":
        monotonic(LONG)
        assert visitor.result(PATIENCE).page == OLD
    view.go_on.set()
    settle(app, cache)
    if when == "in time":
        seen = visitor.result(PATIENCE)
        assert seen.status == status
        assert status != 200 or seen.text == "live 3", "made for this visitor"
    runs = len(view.runs)
    assert {visit(app).status for _ in range(2)} == {status}
    assert len(view.runs) == runs + 2, "the copy is gone"


@pytest.mark.parametrize("when", ["the renewal comes", "the wait is over"])
def test_what_is_purged_meanwhile_is_not_served(
    make_app: MakeApp,
    clock: time_machine.Traveller,
    monotonic: Callable[[float], None],
    view: View,
    waiting: set[int],
    when: str,
) -> None:
    """The result of the renewal is not served either, since it was begun before the purge."""
    app, cache = old_site(make_app, clock, view, {"wait": LONG})
    view.hangs()
    visitor = come(app, waiting)
    wait_until(lambda: len(view.runs) == 2, "the refresh")
    with app.app_context():
        cache.purge("/")
    if when == "the wait is over":
        monotonic(LONG)
    else:
        view.go_on.set()
    assert visitor.result(PATIENCE).text == "run 3"
    assert visit(app).page == ("HIT", "run 3")
    view.go_on.set()
    settle(app, cache)
    assert visit(app).page == ("HIT", "run 3")
    assert view.runs == [False, True, False]


@pytest.mark.parametrize("when", ["the renewal comes", "the wait is over"])
def test_what_is_softly_purged_meanwhile_is_stale(
    make_app: MakeApp,
    clock: time_machine.Traveller,
    monotonic: Callable[[float], None],
    view: View,
    waiting: set[int],
    when: str,
) -> None:
    app, cache = old_site(make_app, clock, view, {"wait": LONG})
    view.hangs()
    visitor = come(app, waiting)
    wait_until(lambda: len(view.runs) == 2, "the refresh")
    with app.app_context():
        cache.purge("/", soft=True)
    if when == "the wait is over":
        monotonic(LONG)
        assert visitor.result(PATIENCE).page == OLD
        view.go_on.set()
    else:
        view.go_on.set()
        # It was begun before the purge, so it is stale already, and renewed once more; the visitor may still wait for that.
        assert visitor.result(PATIENCE).page in [("STALE", "run 2"), ("UPDATING", "run 2"), ("EXPIRED", "run 3")]
    settle(app, cache)
    wait_until(lambda: visit(app).page == ("HIT", "run 3"), "the page of after the purge")
    assert view.runs == [False, True, True]


# -- where there is nothing to wait for ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "age"),
    [
        pytest.param({}, PAST_ALL, id="past SIE"),
        pytest.param({"stale_if_error": 0}, IN_SIE, id="without SIE"),
        pytest.param({"stale_if_error": 600}, IN_SIE, id="past a shorter SIE"),
        pytest.param({"stale_while_revalidate": 0, "stale_if_error": 0}, IN_SWR, id="without stale windows"),
    ],
)
def test_where_no_copy_can_stand_in_the_view_runs_in_the_request(
    make_app: MakeApp, clock: time_machine.Traveller, view: View, policy: dict[str, Any], age: float
) -> None:
    app, _ = old_site(make_app, clock, view, {"wait": 0, **policy}, age)
    assert visit(app).page == NEW
    assert view.runs == [False, False]


def test_without_a_copy_the_view_runs_in_the_request(make_app: MakeApp, view: View) -> None:
    app, cache = site(make_app, view, {"wait": 0})
    assert visit(app).page == ("MISS", "run 1")
    with app.app_context():
        cache.purge("/")
    assert visit(app).page == ("MISS", "run 2")
    assert view.runs == [False, False]


@pytest.mark.parametrize("directives", ["must-revalidate", "s-maxage=60, proxy-revalidate"])
def test_what_forbids_stale_is_waited_for(make_app: MakeApp, clock: time_machine.Traveller, view: View, directives: str) -> None:
    app, _ = site(make_app, view, {"wait": 0})
    view.answers = lambda: Response(f"run {len(view.runs)}", headers={"Cache-Control": directives})
    visit(app)
    clock.shift(IN_SWR)
    assert visit(app).page == NEW
    assert view.runs == [False, False]


def test_in_swr_nobody_waits_and_the_refresh_is_handed_over_behind(
    make_app: MakeApp, clock: time_machine.Traveller, view: View, waiting: set[int]
) -> None:
    app, cache = old_site(make_app, clock, view, {"wait": LONG}, IN_SWR)
    view.hangs()
    assert [visit(app).page for _ in range(2)] == [OLD, ("UPDATING", "run 1")]
    view.go_on.set()
    settle(app, cache)
    assert visit(app).page == ("HIT", "run 2")
    assert not waiting


def test_who_prefers_stale_does_not_wait(make_app: MakeApp, clock: time_machine.Traveller, view: View, waiting: set[int]) -> None:
    app, _ = old_site(make_app, clock, view, {"wait": LONG, "prefer_stale": True})
    view.hangs()
    assert [visit(app).page for _ in range(3)] == [OLD] * 3
    assert not waiting


def test_who_carries_an_absent_name_is_live(
    make_app: MakeApp, clock: time_machine.Traveller, view: View, waiting: set[int]
) -> None:
    app, _ = site(make_app, view, {"wait": LONG})
    view.answers = lambda: f"run {len(view.runs)} for {request.cookies.get('user', 'anybody')}"
    visit(app)
    clock.shift(IN_SIE)
    view.hangs()
    assert visit(app, "/", {"Cookie": "user=ann"}).page == ("BYPASS", "run 2 for ann")
    assert not waiting


def test_a_full_queue_costs_nobody_the_wait(
    make_app: MakeApp, clock: time_machine.Traveller, view: View, waiting: set[int]
) -> None:
    app, cache = site(make_app, view, {"wait": LONG}, REFRESH_WORKERS=1, REFRESH_QUEUE=1)
    for name in ("busy", "queued"):
        app.add_url_rule(f"/{name}", name, cache.cached(**{**WINDOWS, "wait": 0})(view))
    for path in ("/", "/busy", "/queued"):
        visit(app, path)
    clock.shift(IN_SIE)
    view.hangs()
    assert visit(app, "/busy").word == "STALE"
    wait_until(lambda: len(view.runs) == 4, "the only worker is busy")
    assert visit(app, "/queued").word == "STALE"
    assert [go(visit, app).result(PATIENCE).page for _ in range(2)] == [OLD] * 2
    assert app.extensions["stalecache"].counters["refreshes_dropped"] == 2
    view.go_on.set()
    settle(app, cache)
    assert visit(app).page == ("EXPIRED", "run 6"), "the next visitor tries again"


def test_a_renewal_that_is_given_up_is_tried_again(
    make_app: MakeApp, clock: time_machine.Traveller, monotonic: Callable[[float], None], view: View
) -> None:
    app, cache = old_site(make_app, clock, view, {"wait": 0}, REFRESH_DEADLINE=100, REFRESH_BACKOFF=(10, 10))
    view.hangs()
    assert visit(app).page == OLD
    wait_until(lambda: len(view.runs) == 2, "the refresh")
    monotonic(101)
    app.extensions["stalecache"].engine.runtime.tick()
    assert visit(app).page == OLD
    assert len(view.runs) == 2, "there is a pause first"
    clock.shift(13)
    assert visit(app).page == OLD
    wait_until(lambda: len(view.runs) == 3, "another refresh")
    view.go_on.set()
    settle(app, cache)
    wait_until(lambda: visit(app).page == ("HIT", "run 3"), "the new page")


# -- over two processes ----------------------------------------------------------------------------------------------


def test_who_waits_here_is_served_what_was_renewed_elsewhere(
    make_app: MakeApp, clock: time_machine.Traveller, view: View, waiting: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "BUSY_PAUSE", LONG)
    there, cache = old_site(make_app, clock, view, {"wait": 0})
    view.hangs()
    assert visit(there).page == OLD
    wait_until(lambda: len(view.runs) == 2, "the refresh there")
    here, _ = site(make_app, view, {"wait": LONG})
    visitor = come(here, waiting)
    view.is_refresh = lambda: cache.refreshing
    view.go_on.set()
    assert visitor.result(PATIENCE).page == NEW
    settle(there, cache)
    assert len(view.runs) == 2


def test_a_lock_that_is_held_elsewhere_is_waited_for_no_longer_than_a_renewal(
    make_app: MakeApp,
    clock: time_machine.Traveller,
    monotonic: Callable[[float], None],
    directory: Path,
    view: View,
    waiting: set[int],
) -> None:
    """Whether the other process is renewing the page can't be known, and the copy can stand in."""
    app, cache = old_site(make_app, clock, view, {"wait": LONG})
    [stored] = [path for path in directory.glob("??/*") if path.suffix == ""]
    lock = FileStore(directory).lock(decode_head(stored.read_bytes()).key)
    assert lock.acquire()
    visitors = [come(app, waiting) for _ in range(2)]
    monotonic(LONG)
    assert [visitor.result(PATIENCE).page for visitor in visitors] == [OLD] * 2
    settle(app, cache)
    assert view.runs == [False]
    lock.release()


#: The app and cache of each folder, in a worker process.
SITES: dict[Path, tuple[Flask, StaleCache]] = {}


def runs_at(place: Path) -> int:
    path = place / "runs"
    return path.stat().st_size if path.exists() else 0


def visit_there(place: Path, wait: float) -> tuple[str, str]:
    """Let a visitor come in this process; the first run is stale at once, and a refresh hangs until it may go on."""
    if place not in SITES:
        app = Flask("shop")
        app.config["STALECACHE_DIR"] = place / "cache"
        cache = StaleCache(app)

        def page() -> str:
            with open(place / "runs", "ab", buffering=0) as runs:
                runs.write(b".")
            number = runs_at(place)
            if number == 1:
                cache.max_age(0)
            if cache.refreshing:
                wait_until((place / "go on").exists)
            return f"run {number} by {os.getpid()}"

        app.add_url_rule("/", "page", cache.cached(60, 0, 600, wait=wait)(page))
        SITES[place] = app, cache
    return visit(SITES[place][0]).page


def settle_there(place: Path) -> None:
    settle(*SITES[place], PATIENCE)


@pytest.fixture(scope="module")
def team() -> Iterator[list[Worker]]:
    with workers(2) as made:
        yield made


def test_a_renewal_in_one_process_is_waited_for_in_another(team: list[Worker], tmp_path: Path) -> None:
    one, other = team
    pid = one.run(os.getpid)
    assert one.run(visit_there, tmp_path, 0) == ("MISS", f"run 1 by {pid}")
    assert one.run(visit_there, tmp_path, 0) == ("STALE", f"run 1 by {pid}")
    wait_until(lambda: runs_at(tmp_path) == 2, "the refresh")
    other.start(visit_there, tmp_path, LONG)
    (tmp_path / "go on").touch()
    # HIT if it came a moment too late to wait.
    assert other.result() in [(word, f"run 2 by {pid}") for word in ("EXPIRED", "HIT")]
    one.run(settle_there, tmp_path)
    assert other.run(visit_there, tmp_path, LONG) == ("HIT", f"run 2 by {pid}")
    assert runs_at(tmp_path) == 2
