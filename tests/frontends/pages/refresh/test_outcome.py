"""The refresh of a page: which answers count, failures, and the queue."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import time_machine
from flask import (
    Flask,
    Response,
    abort,
    redirect,
    request,
    session,
)

from flask_stalecache import StaleCache
from support.client import MakeApp, settle, visit

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
from support.page_refreshes import MINUTE, Origin, cached, stale

# -- what counts -------------------------------------------------------------------------------------------------------


def refused(app: Flask, path: str = "/") -> list[str]:
    return [visit(app, path).word for _ in range(3)]


@pytest.mark.parametrize(
    "instead",
    [
        lambda: redirect("/login"),
        lambda: ("please log in", 200),
        lambda: abort(403),
        lambda: ("busy", 503),
    ],
    ids=["redirect", "page", "abort", "busy"],
)
def test_what_a_hook_answers_in_the_views_place_is_never_stored(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin, instead: Callable[[], Any]
) -> None:
    """It counts as a failure: the copy stays, and the next try waits."""
    app, cache = make_app(REFRESH_BACKOFF=(10, 100))
    app.before_request(lambda: instead() if cache.refreshing else None)
    cached(app, cache, origin.view)
    stale(app, cache, clock)
    assert [visit(app).page for _ in range(3)] == [("UPDATING", "run 1")] * 3
    assert origin.runs == 1
    clock.shift(20)
    assert refused(app) == ["STALE", "UPDATING", "UPDATING"]


def test_a_hook_that_wants_a_login_leaves_the_copy(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    """A page was for all, until the site became one for members: the refresh has no login."""
    app, cache = make_app(REFRESH_BACKOFF=(10, 100))
    members: list[str] = []
    app.before_request(lambda: redirect("/login") if members and request.cookies.get("user") not in members else None)
    cached(app, cache, origin.view)
    assert visit(app).page == ("MISS", "run 1")
    members.append("ann")
    clock.shift(MINUTE)
    words = []
    for pause in (0, 0, 20, 0):
        clock.shift(pause)
        seen = visit(app, "/", {"Cookie": "user=ann"})
        settle(app, cache)
        assert seen.text == "run 1"
        words.append(seen.word)
    assert words == ["STALE", "UPDATING", "STALE", "UPDATING"]
    assert visit(app).status == 302
    assert origin.runs == 1


def test_pages_behind_a_login_are_not_stored(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    """The reverse of Flask's tutorial: the whole site is for members, whose pages are not stored. Nothing breaks."""
    app, cache = make_app()
    app.before_request(lambda: None if request.cookies.get("user") else redirect("/login"))
    cached(app, cache, origin.view)
    for user in ("ann", "bob", "ann"):
        seen = visit(app, "/", {"Cookie": f"user={user}"})
        assert seen.word == "MISS"
    assert visit(app).status == 302
    clock.shift(MINUTE)
    assert visit(app, "/", {"Cookie": "user=bob"}).page == ("MISS", "run 4")


def test_an_app_that_sees_another_page_in_it_stores_nothing(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    """The key is made anew in the refresh; here it differs, since a middleware changes what is in it."""
    app, cache = make_app(REFRESH_BACKOFF=(10, 100))
    inner = app.wsgi_app

    def with_language(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if "flask-stalecache" in environ.get("HTTP_USER_AGENT", ""):
            environ["HTTP_ACCEPT_LANGUAGE"] = "xx"
        return inner(environ, start_response)

    app.wsgi_app = with_language  # type: ignore[method-assign]
    origin.answer = lambda: f"in {request.headers.get('Accept-Language')}"
    cached(app, cache, origin.view, vary=["Accept-Language"])
    stale(app, cache, clock, "/", {"Accept-Language": "de"})
    assert visit(app, "/", {"Accept-Language": "de"}).page == ("UPDATING", "in de")
    assert visit(app, "/", {"Accept-Language": "xx"}).page == ("MISS", "in xx")
    assert any("refresh" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("kind", ["cookie", "no-store", "private", "session", "stream", "404", "redirect"])
def test_a_page_that_can_no_longer_be_stored_is_dropped(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin, kind: str
) -> None:
    def answer() -> Any:
        response = Response("for one only")
        if kind == "cookie":
            response.set_cookie("user", "ann")
        elif kind == "session":
            session["a"] = 1
        elif kind == "stream":
            return iter(["for one only"])
        elif kind == "404":
            abort(404)
        elif kind == "redirect":
            return redirect("/x")
        else:
            response.headers["Cache-Control"] = kind
        return response

    app, cache = make_app()
    cached(app, cache, origin.view)
    visit(app)
    origin.answer = answer
    clock.shift(MINUTE)
    assert visit(app).page == ("STALE", "run 1")
    settle(app, cache)
    origin.answer = None
    assert visit(app).page == ("MISS", "run 3")
    assert visit(app).page == ("HIT", "run 3")


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("raised", [False, True], ids=["returned", "raised"])
def test_a_listed_status_replaces_the_page(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin, status: int, raised: bool
) -> None:
    app, cache = make_app()
    app.register_error_handler(status, lambda error: ("gone", status))
    cached(app, cache, origin.view, statuses={404: 60, 410: 60})
    visit(app)
    origin.answer = lambda: abort(status) if raised else ("gone", status)
    clock.shift(MINUTE)
    assert visit(app).page == ("STALE", "run 1")
    settle(app, cache)
    after = visit(app)
    assert (after.page, after.status) == (("HIT", "gone"), status)


def test_a_page_that_turns_personal_keeps_its_copy_and_backs_off(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin
) -> None:
    """It begins to read User-Agent, which every refresh carries."""
    app, cache = make_app(REFRESH_BACKOFF=(10, 100))
    cached(app, cache, origin.view)
    visit(app)
    origin.answer = lambda: f"for {request.headers.get('User-Agent')}"
    clock.shift(MINUTE)
    visit(app)
    settle(app, cache)
    assert visit(app).page == ("UPDATING", "run 1")


# -- failure -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        LookupError("the third party is down"),
        500,
        502,
        503,
        504,
        "abort",
    ],
)
def test_a_failed_refresh_keeps_the_copy(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin, failure: Exception | int | str
) -> None:
    app, cache = make_app(REFRESH_BACKOFF=(10, 100))
    cached(app, cache, origin.view)
    visit(app)
    if isinstance(failure, Exception):
        origin.fails = failure
    else:
        origin.answer = lambda: abort(503) if failure == "abort" else ("broken", failure)
    clock.shift(MINUTE)
    assert visit(app).page == ("STALE", "run 1")
    settle(app, cache)
    assert visit(app).page == ("UPDATING", "run 1")
    assert origin.runs == 2
    origin.fails = origin.answer = None
    clock.shift(13)
    assert visit(app).page == ("STALE", "run 1")
    settle(app, cache)
    assert visit(app).page == ("HIT", "run 3")


def test_the_pause_after_failures_doubles_up_to_the_longest(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin
) -> None:
    """The pauses are 4, 8, 16, 20, 20 … seconds, each lengthened by up to a quarter at random."""
    app, cache = make_app(REFRESH_BACKOFF=(4, 20), REFRESH_WORKERS=0)
    cached(app, cache, origin.view, stale_while_revalidate=6000)
    visit(app)
    origin.fails = LookupError("down")
    clock.shift(MINUTE)
    assert visit(app).word == "STALE"
    for pause in (4, 8, 16, 20, 20):
        runs = origin.runs
        clock.shift(pause - 0.01)
        assert visit(app).word == "UPDATING"
        assert origin.runs == runs
        clock.shift(pause * 0.25 + 0.02)
        assert visit(app).word == "STALE"
        assert origin.runs == runs + 1


def test_a_good_refresh_ends_the_doubling(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    app, cache = make_app(REFRESH_BACKOFF=(4, 1000), REFRESH_WORKERS=0)
    cached(app, cache, origin.view, stale_while_revalidate=6000)
    visit(app)
    for _ in range(2):
        origin.fails = LookupError("down")
        clock.shift(MINUTE)
        assert visit(app).word == "STALE"
        assert visit(app).word == "UPDATING"
        origin.fails = None
        clock.shift(5.1)
        assert visit(app).word == "STALE"
        assert visit(app).word == "HIT"


def test_the_back_off_holds_for_other_processes(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    """Two apps on one directory stand for two workers."""
    apps = [make_app(REFRESH_BACKOFF=(10, 100), REFRESH_WORKERS=0) for _ in range(2)]
    for app, cache in apps:
        cached(app, cache, origin.view)
    visit(apps[0][0])
    origin.fails = LookupError("down")
    clock.shift(MINUTE)
    assert visit(apps[0][0]).word == "STALE"
    assert [visit(app).page for app, _ in apps] == [("UPDATING", "run 1")] * 2
    assert origin.runs == 2


def test_a_failed_refresh_is_logged_with_its_page_and_why(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    app, cache = make_app()
    cached(app, cache, origin.view, "/rates")
    visit(app, "/rates")
    origin.fails = LookupError("the third party is down")
    clock.shift(MINUTE)
    visit(app, "/rates")
    settle(app, cache)
    ours = [record for record in caplog.records if record.name == "flask_stalecache"]
    assert len(ours) == 1
    assert "/rates" in ours[0].getMessage()
    assert ours[0].exc_info is not None
    assert "the third party is down" in str(ours[0].exc_info[1])


def test_testing_apps_that_propagate_exceptions_refresh_too(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin
) -> None:
    app, cache = make_app(REFRESH_WORKERS=0, REFRESH_BACKOFF=(10, 100))
    app.testing = True
    cached(app, cache, origin.view)
    visit(app)
    origin.fails = LookupError("down")
    clock.shift(MINUTE)
    assert [visit(app).word for _ in range(2)] == ["STALE", "UPDATING"]


# -- the queue ---------------------------------------------------------------------------------------------------------


def test_a_full_queue_drops_the_refresh_and_counts_it(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    app, cache = make_app(REFRESH_QUEUE=0)
    cached(app, cache, origin.view)
    visit(app)
    clock.shift(MINUTE)
    for dropped in (1, 2):
        assert visit(app).page == ("STALE", "run 1")
        assert app.extensions["stalecache"].counters.as_dict()["refreshes_dropped"] == dropped
    settle(app, cache)
    assert origin.runs == 1


def test_a_queue_holds_as_many_as_it_says(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    """One refresh runs, one waits, and that of the less requested page is dropped.

    The copy of that page stays, and the next visitor hands the refresh over again.
    """
    running, go_on = threading.Event(), threading.Event()

    def answer() -> str:
        if cache.refreshing:
            running.set()
            assert go_on.wait(10)
        return f"{request.path} run {origin.runs}"

    origin.answer = answer
    app, cache = make_app(REFRESH_QUEUE=1, REFRESH_WORKERS=1)
    cached(app, cache, origin.view, "/<name>")
    for path in ("/a", "/b", "/c"):
        visit(app, path)
    clock.shift(MINUTE)
    assert visit(app, "/a").word == "STALE"
    assert running.wait(10)
    assert [visit(app, "/b").word for _ in range(3)] == ["STALE", "UPDATING", "UPDATING"]
    assert [visit(app, path).word for path in ("/c", "/a", "/b", "/c")] == ["STALE", "UPDATING", "UPDATING", "STALE"]
    assert app.extensions["stalecache"].counters.as_dict()["refreshes_dropped"] == 2
    go_on.set()
    settle(app, cache)
    assert [visit(app, path).word for path in ("/a", "/b", "/c")] == ["HIT", "HIT", "STALE"]
    settle(app, cache)


def test_drain_says_whether_all_is_done(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    running, go_on = threading.Event(), threading.Event()

    def answer() -> str:
        if cache.refreshing:
            running.set()
            assert go_on.wait(10)
        return f"run {origin.runs}"

    origin.answer = answer
    app, cache = make_app()
    cached(app, cache, origin.view)
    with app.app_context():
        assert cache.drain(0) is True
    visit(app)
    clock.shift(MINUTE)
    assert visit(app).word == "STALE"
    assert running.wait(10)
    with app.app_context():
        assert cache.drain(0.01) is False
        assert visit(app).page == ("UPDATING", "run 1")
        go_on.set()
        assert cache.drain() is True
        assert cache.drain(0) is True
    assert visit(app).page == ("HIT", "run 2")


def test_one_refresh_whoever_asks_meanwhile(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    """Two apps on one directory stand for two workers: the second one's refresh finds the lock taken and leaves it at that."""
    running, go_on = threading.Event(), threading.Event()
    apps = [make_app() for _ in range(2)]

    def answer() -> str:
        if any(cache.refreshing for _, cache in apps):
            running.set()
            assert go_on.wait(10)
        return f"run {origin.runs}"

    origin.answer = answer
    for app, cache in apps:
        cached(app, cache, origin.view)
    visit(apps[0][0])
    clock.shift(MINUTE)
    assert visit(apps[0][0]).word == "STALE"
    assert running.wait(10)
    assert visit(apps[1][0]).page == ("STALE", "run 1")
    settle(*apps[1])
    assert origin.runs == 2
    go_on.set()
    settle(*apps[0])
    assert [visit(app).page for app, _ in apps] == [("HIT", "run 2")] * 2


def test_a_refresh_that_waited_heeds_a_back_off(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    """Two apps on one directory stand for two workers: while the first one's refresh waits for a thread, the second one's fails."""
    running, go_on = threading.Event(), threading.Event()
    asked: list[str] = []
    first, second = make_app(REFRESH_WORKERS=1), make_app(REFRESH_WORKERS=0, REFRESH_BACKOFF=(100, 100))

    def answer() -> str:
        asked.append(request.path)
        if any(cache.refreshing for _, cache in (first, second)):
            if request.path == "/page":
                raise LookupError("down")
            running.set()
            assert go_on.wait(10)
        return "page"

    origin.answer = answer
    for app, cache in (first, second):
        cached(app, cache, origin.view, "/<name>")
    visit(first[0], "/busy")
    visit(first[0], "/page")
    clock.shift(MINUTE)
    assert visit(first[0], "/busy").word == "STALE"
    assert running.wait(10)
    assert visit(first[0], "/page").word == "STALE"
    assert visit(second[0], "/page").word == "STALE"
    go_on.set()
    settle(*first)
    assert asked == ["/busy", "/page", "/busy", "/page"]
    assert visit(first[0], "/page").page == ("UPDATING", "page")


def test_a_response_that_is_not_closed_hands_nothing_over(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    """The refresh begins after the response: when its iterable is closed, and not before."""
    app, cache = make_app()
    cached(app, cache, origin.view)
    visit(app)
    clock.shift(MINUTE)
    response = app.test_client().get("/", buffered=False)
    assert response.headers["X-Cache-Status"] == "STALE"
    settle(app, cache)
    assert origin.runs == 1
    response.close()
    settle(app, cache)
    assert origin.runs == 2


def test_a_sent_file_hands_over_too(make_app: MakeApp, clock: time_machine.Traveller, origin: Origin) -> None:
    import io

    from flask import send_file

    app, cache = make_app()
    origin.answer = lambda: send_file(io.BytesIO(f"run {origin.runs}".encode()), mimetype="text/plain")
    cached(app, cache, origin.view)
    stale(app, cache, clock)
    assert visit(app).page == ("HIT", "run 2")


def test_a_view_called_outside_a_server_hands_over_at_once(
    make_app: MakeApp, clock: time_machine.Traveller, origin: Origin
) -> None:
    """In a test request context nobody closes the response."""
    app, cache = make_app(REFRESH_WORKERS=0)
    cached(app, cache, origin.view)
    with app.test_request_context("/"):
        assert app.full_dispatch_request().headers["X-Cache-Status"] == "MISS"
    clock.shift(MINUTE)
    with app.test_request_context("/"):
        assert app.full_dispatch_request().headers["X-Cache-Status"] == "STALE"
    assert visit(app).page == ("HIT", "run 2")


def test_outside_an_app_context_all_apps_are_drained(tmp_path: Path, clock: time_machine.Traveller) -> None:
    cache = StaleCache()
    made: list[tuple[Flask, list[str]]] = []
    for name in ("one", "two"):
        app, runs = Flask(name), list[str]()
        app.config["STALECACHE_DIR"] = tmp_path / name
        cache.init_app(app)
        app.add_url_rule("/", "page", cache.cached(60, 600, jitter=0)(lambda runs=runs: (runs.append("run"), "page")[1]))
        made.append((app, runs))
    for _ in range(2):
        for app, _ in made:
            visit(app)
        clock.shift(61)
    assert cache.drain(10)
    assert [len(runs) for _, runs in made] == [2, 2]
