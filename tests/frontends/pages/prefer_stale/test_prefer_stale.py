"""``prefer_stale``: the stored page is served, however old it is."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import time_machine
from flask import Flask, Response, abort, redirect, request, session

from flask_stalecache import StaleCache
from support.client import MakeApp, Seen, settle, visit, words
from support.flask_gateway import signed
from support.old_pages import COOKIE, DAY, HEADER, WINDOWS, YEAR, Fields, fails
from support.servers import PATIENCE
from support.threads import wait_until

IN_SWR, IN_SIE, PAST_ALL = 61, 661, 6061

AGES = [
    pytest.param(IN_SWR, id="in SWR"), pytest.param(IN_SIE, id="in SIE"), pytest.param(PAST_ALL, id="past all"),
    pytest.param(DAY, id="a day"), pytest.param(YEAR, id="a year"),
]  # fmt: skip

BY_HEADER, BY_COOKIE = {"PREFER_STALE_HEADER": "X-Prefer-Stale"}, {"PREFER_STALE_COOKIE": "prefer_stale"}

NOBODY: dict[str, str] = {}


class View:
    """A view that counts its runs, and answers as a test says.

    :ivar answers: what it answers; without it, the number of the run.
    :ivar go_on: cleared, it holds refreshes up.
    """

    def __init__(self) -> None:
        self.runs = 0
        self.answers: Callable[[], Any] | None = None
        self.go_on = threading.Event()
        self.go_on.set()
        self.is_refresh: Callable[[], bool] = lambda: False

    def __call__(self) -> Any:
        self.runs += 1
        text = f"run {self.runs}"
        if self.is_refresh():
            assert self.go_on.wait(3 * PATIENCE)
        return text if self.answers is None else self.answers()


@pytest.fixture
def view() -> Iterator[View]:
    view = View()
    yield view
    view.go_on.set()


def site(make_app: MakeApp, view: View, policy: dict[str, Any] | None = None, **config: Any) -> tuple[Flask, StaleCache]:
    app, cache = make_app(**config)
    app.add_url_rule("/", "page", cache.cached(**{**WINDOWS, **(policy or {})})(view))
    view.is_refresh = lambda: cache.refreshing
    return app, cache


# -- however old -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("age", AGES)
def test_what_is_stored_is_served_at_once_and_renewed_once_behind(
    make_app: MakeApp, clock: time_machine.Traveller, view: View, age: int
) -> None:
    app, cache = site(make_app, view, {"prefer_stale": True})
    assert visit(app).page == ("MISS", "run 1")
    clock.shift(age)
    view.go_on.clear()
    assert visit(app).page == ("STALE", "run 1")
    wait_until(lambda: view.runs == 2, "the refresh")
    others = [visit(app).page for _ in range(5)]
    assert others == [("UPDATING" if age == IN_SWR else "STALE", "run 1")] * 5
    view.go_on.set()
    settle(app, cache)
    assert visit(app).page == ("HIT", "run 2")
    assert view.runs == 2


@pytest.mark.parametrize(
    "policy",
    [{"key": lambda: "all"}, {"ignore_session": True}, {"vary": ["Accept-Language"]}, {"wait": 0}, {"refresh_ahead": 10}],
    ids=["key", "ignore_session", "vary", "wait", "refresh_ahead"],
)
def test_whatever_else_is_said_of_the_page(
    make_app: MakeApp, clock: time_machine.Traveller, view: View, policy: dict[str, Any]
) -> None:
    app, cache = site(make_app, view, {"prefer_stale": True, **policy})
    visit(app)
    clock.shift(YEAR)
    assert visit(app).page == ("STALE", "run 1")
    settle(app, cache)
    assert visit(app).page == ("HIT", "run 2")


def test_it_goes_on_like_this(make_app: MakeApp, clock: time_machine.Traveller, view: View) -> None:
    app, cache = site(make_app, view, {"prefer_stale": True})
    visit(app)
    for run in range(1, 6):
        clock.shift(YEAR)
        assert visit(app).page == ("STALE", f"run {run}")
        settle(app, cache)
        assert visit(app).page == ("HIT", f"run {run + 1}")


def test_what_is_fresh_is_a_hit(make_app: MakeApp, clock: time_machine.Traveller, view: View) -> None:
    app, cache = site(make_app, view, {"prefer_stale": True})
    visit(app)
    clock.shift(59)
    assert visit(app).page == ("HIT", "run 1")
    settle(app, cache)
    assert view.runs == 1


def test_without_stale_windows_it_is_served_all_the_same(make_app: MakeApp, clock: time_machine.Traveller, view: View) -> None:
    policy = {"prefer_stale": True, "stale_while_revalidate": 0, "stale_if_error": 0}
    app, cache = site(make_app, view, policy)
    visit(app)
    clock.shift(YEAR)
    assert visit(app).page == ("STALE", "run 1")
    settle(app, cache)
    assert visit(app).page == ("HIT", "run 2")


def test_another_process_serves_it_too(make_app: MakeApp, clock: time_machine.Traveller, view: View) -> None:
    """What is stored outlives the process that stored it, and is read anew."""
    app, _ = site(make_app, view)
    visit(app)
    clock.shift(YEAR)
    later, cache = site(make_app, view, {"prefer_stale": True})
    assert visit(later).page == ("STALE", "run 1")
    settle(later, cache)
    assert visit(later).page == ("HIT", "run 2")


# -- who says so -----------------------------------------------------------------------------------------------------


ASKED: list[Any] = [
    pytest.param({"prefer_stale": True}, {}, NOBODY, True, id="the view"),
    pytest.param({"prefer_stale": True}, {"PREFER_STALE": False}, NOBODY, True, id="the view, not the app"),
    pytest.param({"prefer_stale": True}, BY_HEADER, {"X-Prefer-Stale": "0"}, True, id="the view, not the header"),
    pytest.param({"prefer_stale": lambda: True}, {}, NOBODY, True, id="a callable"),
    pytest.param({"prefer_stale": lambda: "yes"}, {}, NOBODY, True, id="a callable that is true in some way"),
    pytest.param({"prefer_stale": lambda: request.headers.get("X-Hurry")}, {}, {"X-Hurry": "1"}, True, id="a callable that looks"),
    pytest.param({"prefer_stale": lambda: request.headers.get("X-Hurry")}, {}, NOBODY, False, id="a callable that looks, in vain"),
    pytest.param({"prefer_stale": lambda: False}, {"PREFER_STALE": True}, NOBODY, False, id="a callable over the app"),
    pytest.param({"prefer_stale": lambda: None}, BY_HEADER, HEADER, False, id="a callable over the header"),
    pytest.param({"prefer_stale": lambda: ""}, BY_COOKIE, COOKIE, False, id="a callable over the cookie"),
    pytest.param({}, {}, NOBODY, False, id="nobody"),
    pytest.param({}, {"PREFER_STALE": True}, NOBODY, True, id="the app"),
    pytest.param({}, {"PREFER_STALE": True, **BY_HEADER}, {"X-Prefer-Stale": "0"}, True, id="the app, not the header"),
    pytest.param({}, BY_HEADER, HEADER, True, id="the header"),
    pytest.param({}, BY_HEADER, {"x-prefer-stale": "yes please"}, True, id="the header in words"),
    pytest.param({}, BY_HEADER, {"X-Prefer-Stale": ""}, False, id="an empty header"),
    pytest.param({}, BY_HEADER, {"X-Prefer-Stale": "0"}, False, id="the header says 0"),
    pytest.param({}, BY_HEADER, NOBODY, False, id="no header"),
    pytest.param({}, BY_HEADER, {"X-Prefer": "1", "X-Prefer-Stale-Too": "1"}, False, id="a header of another name"),
    pytest.param({}, BY_HEADER, {"Cookie": "X-Prefer-Stale=1"}, False, id="a cookie of the header's name"),
    pytest.param({}, {}, {**HEADER, **COOKIE}, False, id="a header that the app did not name"),
    pytest.param({}, BY_COOKIE, COOKIE, True, id="the cookie"),
    pytest.param({}, BY_COOKIE, {"Cookie": "a=1; prefer_stale=on; b=2"}, True, id="the cookie among others"),
    pytest.param({}, BY_COOKIE, {"Cookie": "prefer_stale="}, False, id="an empty cookie"),
    pytest.param({}, BY_COOKIE, {"Cookie": "prefer_stale=0"}, False, id="the cookie says 0"),
    pytest.param({}, BY_COOKIE, {"Cookie": "prefer_stale_=1; a=prefer_stale"}, False, id="a cookie of another name"),
    pytest.param({}, BY_COOKIE, {"prefer_stale": "1"}, False, id="a header of the cookie's name"),
    pytest.param({}, {**BY_HEADER, **BY_COOKIE}, HEADER, True, id="the header, both named"),
    pytest.param({}, {**BY_HEADER, **BY_COOKIE}, COOKIE, True, id="the cookie, both named"),
    pytest.param({}, {**BY_HEADER, **BY_COOKIE}, {"X-Prefer-Stale": "0", **COOKIE}, True, id="one of both"),
    pytest.param({}, {**BY_HEADER, **BY_COOKIE}, {"X-Prefer-Stale": "0", "Cookie": "prefer_stale=0"}, False, id="none of both"),
    pytest.param({"prefer_stale": False}, {"PREFER_STALE": True}, NOBODY, False, id="the view refuses, over the app"),
    pytest.param({"prefer_stale": False}, BY_HEADER, HEADER, False, id="the view refuses, over the header"),
    pytest.param({"prefer_stale": False}, BY_COOKIE, COOKIE, False, id="the view refuses, over the cookie"),
]  # fmt: skip


@pytest.mark.parametrize(("policy", "config", "headers", "preferred"), ASKED)
def test_who_prefers_stale_is_served_stale(
    make_app: MakeApp,
    clock: time_machine.Traveller,
    view: View,
    policy: dict[str, Any],
    config: dict[str, Any],
    headers: Fields,
    preferred: bool,
) -> None:
    app, cache = site(make_app, view, policy, **config)
    visit(app)
    clock.shift(PAST_ALL)
    assert visit(app, "/", headers).page == (("STALE", "run 1") if preferred else ("EXPIRED", "run 2"))
    settle(app, cache)
    assert visit(app, "/", headers).page == ("HIT", "run 2")


def test_each_request_speaks_for_itself(make_app: MakeApp, clock: time_machine.Traveller, view: View) -> None:
    app, _ = site(make_app, view, **BY_HEADER, PREFER_STALE_REFRESH=False)
    visit(app)
    clock.shift(PAST_ALL)
    assert words(app, HEADER, HEADER, NOBODY, HEADER, NOBODY) == ["STALE", "STALE", "EXPIRED", "HIT", "HIT"]


#: What a callable may read to find out who is in a hurry, and a request that carries it.
READS: list[Any] = [
    pytest.param(lambda: request.headers.get("X-Hurry"), {"X-Hurry": "1"}, id="a field"),
    pytest.param(lambda: "X-Hurry" in request.headers, {"X-Hurry": "1"}, id="whether a field is there"),
    pytest.param(lambda: dict(request.headers), {"X-Hurry": "1"}, id="all fields"),
    pytest.param(lambda: request.user_agent.string, {"User-Agent": "browser"}, id="a field by its attribute"),
    pytest.param(lambda: request.cookies.get("user"), {"Cookie": "user=ann"}, id="a cookie"),
    pytest.param(lambda: list(request.cookies), {"Cookie": "user=ann"}, id="all cookies"),
    pytest.param(lambda: session.get("user"), {"Cookie": "session=ann"}, id="the session"),
    pytest.param(lambda: dict(session), {"Cookie": "session=ann"}, id="all of the session"),
    pytest.param(lambda: session.permanent, {"Cookie": "session=ann"}, id="whether the session is permanent"),
]


@pytest.mark.grid
@pytest.mark.parametrize(("reads", "carrier"), READS)
@pytest.mark.parametrize("order", ["carrier first", "carrier later"])
def test_what_a_callable_reads_does_not_count(
    make_app: MakeApp, clock: time_machine.Traveller, view: View, reads: Callable[[], object], carrier: Fields, order: str
) -> None:
    """It makes no difference to the page: all visitors share one."""
    app, cache = site(make_app, view, {"prefer_stale": lambda: [reads()] and request.headers.get("X-Stale") == "1"})
    first, then = (carrier, NOBODY) if order == "carrier first" else (NOBODY, carrier)
    assert words(app, first, then, first, then) == ["MISS", "HIT", "HIT", "HIT"]
    clock.shift(PAST_ALL)
    assert words(app, {**first, "X-Stale": "1"}) == ["STALE"]
    settle(app, cache)
    assert words(app, first, then) == ["HIT", "HIT"]
    assert view.runs == 2


def test_the_ignored_parameters_that_a_callable_reads_do_not_count(make_app: MakeApp, view: View) -> None:
    policy = {"prefer_stale": lambda: request.args.get("utm_x") or request.url, "ignored_parameters": ["utm_*"]}
    app, _ = site(make_app, view, policy)
    assert [visit(app, path).word for path in ("/?utm_x=1", "/?utm_x=2", "/")] == ["MISS", "HIT", "HIT"]


@pytest.mark.parametrize(
    ("reads", "member"),
    [
        pytest.param(lambda: request.cookies.get("user", "anybody"), {"Cookie": "user=ann"}, id="a cookie"),
        pytest.param(lambda: request.headers.get("X-User", "anybody"), {"X-User": "ann"}, id="a field"),
        pytest.param(lambda: session.get("user", "anybody"), {"Cookie": signed({"user": "ann"})}, id="the session"),
    ],
)
def test_what_the_view_reads_counts_although_the_callable_read_it_before(
    make_app: MakeApp, view: View, reads: Callable[[], str], member: Fields
) -> None:
    app, _ = site(make_app, view, {"prefer_stale": lambda: bool(reads())})
    view.answers = lambda: f"for {reads()}"
    assert words(app, member, NOBODY, NOBODY, member) == ["MISS", "MISS", "HIT", "BYPASS"]


@pytest.mark.parametrize("error", [KeyError("hurry"), ZeroDivisionError(), "abort"], ids=repr)
def test_a_callable_that_raises_says_nothing(
    make_app: MakeApp,
    clock: time_machine.Traveller,
    monotonic: Callable[[float], None],
    view: View,
    caplog: pytest.LogCaptureFixture,
    error: Any,
) -> None:
    def ask() -> bool:
        if error == "abort":
            abort(403)
        raise error

    app, _ = site(make_app, view, {"prefer_stale": ask})
    assert words(app, NOBODY, NOBODY) == ["MISS", "HIT"]
    clock.shift(PAST_ALL)
    assert words(app, NOBODY, NOBODY) == ["EXPIRED", "HIT"]

    def told() -> list[str]:
        return [record.getMessage() for record in caplog.records if "prefer_stale" in record.getMessage()]

    assert len(told()) == 1, "it is said once"
    assert "View" in told()[0], "it says which view"
    monotonic(61)
    visit(app)
    assert len(told()) == 2, "it is said again after a minute"


# -- whether it is renewed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("age", AGES)
def test_without_a_refresh_the_next_one_triggers_it(make_app: MakeApp, clock: time_machine.Traveller, view: View, age: int) -> None:
    app, cache = site(make_app, view, **BY_HEADER, PREFER_STALE_REFRESH=False)
    visit(app)
    clock.shift(age)
    assert [visit(app, "/", HEADER).page for _ in range(5)] == [("STALE", "run 1")] * 5
    settle(app, cache)
    assert view.runs == 1
    # A visitor who does not prefer stale has the page renewed: in SWR in the background, later while they wait.
    assert visit(app).page == (("STALE", "run 1") if age == IN_SWR else ("EXPIRED", "run 2"))
    settle(app, cache)
    assert visit(app, "/", HEADER).page == ("HIT", "run 2")
    assert view.runs == 2


@pytest.mark.parametrize("how", ["view", "app"])
def test_without_a_refresh_nobody_triggers_it_where_all_prefer_stale(
    make_app: MakeApp, clock: time_machine.Traveller, view: View, how: str
) -> None:
    policy, config = ({"prefer_stale": True}, {}) if how == "view" else ({}, {"PREFER_STALE": True})
    app, cache = site(make_app, view, policy, **config, PREFER_STALE_REFRESH=False)
    visit(app)
    for _ in range(3):
        clock.shift(YEAR)
        assert visit(app).page == ("STALE", "run 1")
        settle(app, cache)
    assert view.runs == 1


# -- nothing stored --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "status", "text", "words_then"),
    [
        pytest.param(lambda: "page", 200, "page", ["MISS", "HIT", "HIT"], id="a page is stored"),
        pytest.param(lambda: ("busy", 503), 503, "busy", ["MISS"] * 3, id="503"),
        pytest.param(fails, 500, None, [""] * 3, id="an exception"),
        pytest.param(lambda: abort(404), 404, None, [""] * 3, id="404"),
        pytest.param(lambda: ("gone", 410), 410, "gone", ["MISS", "HIT", "HIT"], id="a listed status is stored"),
        pytest.param(lambda: redirect("/elsewhere"), 302, None, ["MISS"] * 3, id="a redirect"),
        pytest.param(lambda: Response("mine", headers={"Cache-Control": "private"}), 200, "mine", ["MISS"] * 3, id="private"),
    ],
)
def test_where_nothing_is_stored_the_view_answers_with_its_own_status(
    make_app: MakeApp, view: View, answers: Callable[[], Any], status: int, text: str | None, words_then: list[str]
) -> None:
    app, _ = site(make_app, view, {"prefer_stale": True, "statuses": {410: 60}})
    view.answers = answers
    seen = [visit(app) for _ in range(3)]
    assert {one.status for one in seen} == {status}
    assert text is None or {one.text for one in seen} == {text}
    assert [one.word for one in seen] == words_then
    assert view.runs == (1 if "HIT" in words_then else 3)


def test_a_page_that_is_gone_is_gone_for_who_prefers_stale_too(
    make_app: MakeApp, clock: time_machine.Traveller, view: View
) -> None:
    app, cache = site(make_app, view, {"prefer_stale": True})
    visit(app)
    view.answers = lambda: abort(404)
    clock.shift(DAY)
    assert visit(app).page == ("STALE", "run 1")
    settle(app, cache)
    assert visit(app).status == 404


# -- what is never served stale --------------------------------------------------------------------------------------


@pytest.mark.grid
@pytest.mark.parametrize(
    ("directives", "is_served"),
    [
        ("must-revalidate", False),
        ("max-age=5, proxy-revalidate", False),
        ("s-maxage=5", True),
        ("s-maxage=5, must-revalidate", False),
        ("must-revalidate, stale-while-revalidate=9, stale-if-error=9", False),
        ("s-maxage=5, stale-while-revalidate=9", True),
        ("max-age=5", True),
        ("public", True),
    ],
)
@pytest.mark.parametrize("age", [IN_SWR, YEAR])
@pytest.mark.parametrize("refreshes", [True, False], ids=["and refresh", "alone"])
def test_what_forbids_stale_is_fetched(
    make_app: MakeApp, clock: time_machine.Traveller, view: View, directives: str, is_served: bool, age: int, refreshes: bool
) -> None:
    app, _ = site(make_app, view, {"prefer_stale": True}, PREFER_STALE_REFRESH=refreshes)
    view.answers = lambda: Response(f"run {view.runs}", headers={"Cache-Control": directives})
    assert words(app, NOBODY, NOBODY) == ["MISS", "HIT"]
    clock.shift(age)
    assert visit(app).page == (("STALE", "run 1") if is_served else ("EXPIRED", "run 2"))


def test_what_forbids_stale_is_not_served_although_the_view_fails(
    make_app: MakeApp, clock: time_machine.Traveller, view: View
) -> None:
    app, _ = site(make_app, view, {"prefer_stale": True})
    view.answers = lambda: Response("page", headers={"Cache-Control": "must-revalidate"})
    visit(app)
    clock.shift(IN_SWR)
    view.answers = fails
    assert [visit(app).status for _ in range(3)] == [500] * 3


@pytest.mark.parametrize("age", [0, IN_SWR, YEAR])
def test_what_was_purged_is_not_served(make_app: MakeApp, clock: time_machine.Traveller, view: View, age: int) -> None:
    app, cache = site(make_app, view, {"prefer_stale": True})
    visit(app)
    clock.shift(age)
    with app.app_context():
        cache.purge("/")
    assert visit(app).page == ("MISS", "run 2")


def test_what_was_purged_is_not_served_where_the_view_fails(make_app: MakeApp, view: View) -> None:
    app, cache = site(make_app, view, {"prefer_stale": True})
    visit(app)
    with app.app_context():
        cache.purge("/")
    view.answers = fails
    assert visit(app).status == 500


@pytest.mark.parametrize("refreshes", [True, False], ids=["and refresh", "alone"])
@pytest.mark.parametrize("age", [0, IN_SWR, YEAR])
def test_what_was_softly_purged_is_served_as_stale(
    make_app: MakeApp, clock: time_machine.Traveller, view: View, age: int, refreshes: bool
) -> None:
    app, cache = site(make_app, view, {"prefer_stale": True}, PREFER_STALE_REFRESH=refreshes)
    visit(app)
    with app.app_context():
        cache.purge("/", soft=True)
    clock.shift(age)
    assert visit(app).page == ("STALE", "run 1")
    settle(app, cache)
    assert visit(app).page == (("HIT", "run 2") if refreshes else ("STALE", "run 1"))


# -- for whom --------------------------------------------------------------------------------------------------------


def test_who_carries_an_absent_name_has_a_page_of_their_own(make_app: MakeApp, clock: time_machine.Traveller, view: View) -> None:
    app, cache = site(make_app, view, {"prefer_stale": True})
    view.answers = lambda: f"run {view.runs} for {request.cookies.get('user', 'anybody')}"
    visit(app)
    clock.shift(YEAR)
    ann = {"Cookie": "user=ann"}
    assert visit(app, "/", ann).page == ("BYPASS", "run 2 for ann")
    assert visit(app).page == ("STALE", "run 1 for anybody")
    settle(app, cache)
    assert visit(app, "/", ann).page == ("BYPASS", "run 4 for ann")
    assert visit(app).page == ("HIT", "run 3 for anybody")


@pytest.mark.parametrize(
    ("policy", "request_"),
    [
        pytest.param({"unless": lambda: True}, {}, id="unless"),
        pytest.param({}, {"headers": {"Authorization": "Basic YTpi"}}, id="Authorization"),
        pytest.param({}, {"method": "GET", "data": "a=1"}, id="a body"),
        pytest.param({}, {"environ": {"REMOTE_USER": "ann"}}, id="REMOTE_USER"),
    ],
)
def test_what_is_live_is_live(
    make_app: MakeApp, clock: time_machine.Traveller, view: View, policy: dict[str, Any], request_: dict[str, Any]
) -> None:
    app, _ = site(make_app, view, {"prefer_stale": True, **policy})
    visit(app)
    clock.shift(DAY)
    assert visit(app, "/", **request_).page == ("BYPASS", "run 2")


def test_a_head_and_a_condition_are_answered_from_the_old_copy(
    make_app: MakeApp, clock: time_machine.Traveller, view: View
) -> None:
    app, cache = site(make_app, view, {"prefer_stale": True}, PREFER_STALE_REFRESH=False)
    etag = visit(app).headers["ETag"]
    clock.shift(YEAR)
    head, same = visit(app, method="HEAD"), visit(app, "/", {"If-None-Match": etag})
    assert (head.word, head.status, head.body) == ("STALE", 200, b"")
    assert (same.word, same.status, same.body) == ("STALE", 304, b"")
    settle(app, cache)
    assert view.runs == 1


# -- what is said of it ----------------------------------------------------------------------------------------------


def told(seen: Seen) -> tuple[str, str, str | None]:
    return seen.headers["X-Cache-Status"], seen.headers["Cache-Status"], seen.headers.get("Age")


def test_the_status_fields_name_the_source(make_app: MakeApp, clock: time_machine.Traveller, view: View) -> None:
    app, cache = site(make_app, view, {"prefer_stale": True})
    assert told(visit(app)) == ("MISS", "stalecache; fwd=uri-miss; fwd-status=200; ttl=60; stored", None)
    clock.shift(10)
    assert told(visit(app)) == ("HIT", "stalecache; hit; ttl=50", "10")
    clock.shift(DAY - 10)
    assert told(visit(app)) == ("STALE", f"stalecache; hit; ttl=-{DAY - 60}", str(DAY))
    settle(app, cache)
    assert told(visit(app)) == ("HIT", "stalecache; hit; ttl=60", "0")


@pytest.mark.parametrize("what", ["softly purged", "of an older version"])
def test_what_is_stale_before_its_time_is_not_said_to_be_fresh(
    make_app: MakeApp, clock: time_machine.Traveller, view: View, what: str
) -> None:
    app, cache = site(make_app, view, {"prefer_stale": True}, VERSION="1")
    visit(app)
    clock.shift(10)
    if what == "softly purged":
        with app.app_context():
            cache.purge("/", soft=True)
    else:
        app, cache = site(make_app, view, {"prefer_stale": True}, VERSION="2")
    assert told(visit(app)) == ("STALE", "stalecache; hit; ttl=0", "10")
    settle(app, cache)
    assert told(visit(app)) == ("HIT", "stalecache; hit; ttl=60", "0")


# -- a third party that is down --------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [fails, lambda: ("busy", 503), lambda: abort(502)], ids=["raises", "503", "abort"])
def test_a_view_that_fails_is_not_noticed_by_who_prefers_stale(
    make_app: MakeApp, clock: time_machine.Traveller, view: View, failure: Callable[[], Any]
) -> None:
    app, cache = site(make_app, view, {"prefer_stale": True}, REFRESH_BACKOFF=(10, 10))
    visit(app)
    clock.shift(DAY)
    view.answers = failure
    for tries in range(1, 6):
        for _ in range(3):
            assert visit(app).page == ("STALE", "run 1")
            settle(app, cache)
        assert view.runs == 1 + tries, "one try, then a pause"
        clock.shift(13)
    view.answers = None
    assert visit(app).page == ("STALE", "run 1")
    settle(app, cache)
    assert visit(app).page == ("HIT", "run 7")


def test_a_failure_past_all_windows_is_told_who_does_not_prefer_stale(
    make_app: MakeApp, clock: time_machine.Traveller, view: View, caplog: pytest.LogCaptureFixture
) -> None:
    app, cache = site(make_app, view, **BY_HEADER)
    visit(app)
    clock.shift(DAY)
    view.answers = fails
    assert visit(app, "/", HEADER).page == ("STALE", "run 1")
    settle(app, cache)
    failures = [record for record in caplog.records if "the refresh of" in record.getMessage()]
    assert [record.levelno for record in failures] == [logging.ERROR]
    assert visit(app).status == 500
    assert visit(app, "/", HEADER).page == ("STALE", "run 1")
