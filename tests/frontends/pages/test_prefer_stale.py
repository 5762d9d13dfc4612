"""The dead-upstream trick: what is stored is served, however old; and a deploy makes what is stored stale, not gone."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import time_machine
from flask import Flask, Response, abort, redirect, request, session

from flask_stalecache import FileStore, StaleCache
from flask_stalecache.stores.entry_format import decode_head
from support.client import MakeApp, Seen, settle, visit, words
from support.servers import PATIENCE, Gate, Server, crowd, serving, wait_for
from support.threads import wait_until

#: Fresh for a minute, then stale for ten, then only if the view fails; no jitter, so that a test knows the moment.
WINDOWS = {"max_age": 60, "stale_while_revalidate": 600, "stale_if_error": 6000, "jitter": 0}
IN_SWR, IN_SIE, PAST_ALL = 61, 661, 6061
DAY, YEAR = 86400, 365 * 86400
AGES = [
    pytest.param(IN_SWR, id="in SWR"), pytest.param(IN_SIE, id="in SIE"), pytest.param(PAST_ALL, id="past all"),
    pytest.param(DAY, id="a day"), pytest.param(YEAR, id="a year"),
]  # fmt: skip
HEADER, COOKIE = {"X-Prefer-Stale": "1"}, {"Cookie": "prefer_stale=1"}
BY_HEADER, BY_COOKIE = {"PREFER_STALE_HEADER": "X-Prefer-Stale"}, {"PREFER_STALE_COOKIE": "prefer_stale"}
NOBODY: dict[str, str] = {}
Fields: TypeAlias = "dict[str, str]"


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
        pytest.param(lambda: session.get("user", "anybody"), {"Cookie": "session=ann"}, id="the session"),
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
    # Who has not asked for it has the page renewed: behind in SWR, else while it is waited for.
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


def fails() -> Any:
    raise ConnectionError("the third party is down")


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


@pytest.mark.parametrize(
    ("directives", "is_served"),
    [
        ("must-revalidate", False),
        ("max-age=5, proxy-revalidate", False),
        ("s-maxage=5", False),
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


# -- a deploy --------------------------------------------------------------------------------------------------------


class Deploys:
    """Apps on one directory, set up one after the other, with one view that says whose it is."""

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


@pytest.mark.parametrize("headers", [{"Cache-Control": "must-revalidate"}, {"Cache-Control": "s-maxage=60"}], ids=repr)
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
    # A worker takes no more connections than it has threads, or some would wait for a thread and not arrive.
    room = {} if kind == "sync" else {"threads": VISITORS // 2, "worker_connections": VISITORS // 2, "keepalive": 0}
    environment = {"GATE": gate.url, "FOLDER": folder, "SETTINGS": json.dumps(config)}
    return serving(kind, SOURCE, folder, env=environment, **room)


def make_older(directory: Path, seconds: float) -> None:
    """Let all that is stored have been stored so much earlier."""
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
