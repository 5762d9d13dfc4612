"""Privacy: failures, and visitors that wait for another's page."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import time_machine
from flask import (
    Flask,
    Response,
    abort,
    current_app,
    request,
)

from support.client import MakeApp, Seen, visit
from support.privacy import ANN, BOB, NOBODY, Fields, View, number, raises, shown
from support.threads import PATIENCE, go, results
from support.wsgi_apps import wait_for_waiters


def at_once(app: Flask, view_runs: threading.Event, go_on: threading.Event, first: Fields, *others: Fields) -> list[Seen]:
    """Let one visitor come, whose call of the view hangs, and go on when all others wait for its result."""
    coming = [go(visit, app, "/", first)]
    try:
        assert view_runs.wait(PATIENCE)
        coming += [go(visit, app, "/", who) for who in others]
        wait_for_waiters(app, len(others))
    finally:
        go_on.set()
    return results(coming)


@pytest.mark.parametrize("fails", [False, True], ids=["good", "failing"])
def test_who_waited_for_a_strangers_page_gets_their_own(make_app: MakeApp, fails: bool) -> None:
    """An anonymous visitor leads; a member who waited is not given what was made for those who don't carry the cookie."""
    running, go_on = threading.Event(), threading.Event()

    def view() -> tuple[str, int]:
        user = request.cookies.get("user", "-")
        running.set()
        assert go_on.wait(PATIENCE)
        return f"for {user}", 503 if fails and user == "-" else 200

    app, cache = make_app()
    shown(view)(app, cache)
    stranger, ann = at_once(app, running, go_on, NOBODY, ANN)
    assert (stranger.text, stranger.status) == ("for -", 503 if fails else 200)
    assert (ann.text, ann.status) == ("for ann", 200)


def test_who_waited_for_a_members_failure_gets_their_own(make_app: MakeApp) -> None:
    running, go_on = threading.Event(), threading.Event()

    def view() -> tuple[str, int]:
        user = request.cookies.get("user", "-")
        running.set()
        assert go_on.wait(PATIENCE)
        return f"for {user}", 503 if user == "ann" else 200

    app, cache = make_app()
    shown(view)(app, cache)
    ann, *strangers = at_once(app, running, go_on, ANN, NOBODY, NOBODY)
    assert ann.page == ("MISS", "for ann")
    assert [seen.text for seen in strangers] == ["for -", "for -"]


def test_a_failure_that_could_be_anybodys_is_shared(make_app: MakeApp) -> None:
    """One run of the view; but each has a response of their own, which hooks may change."""
    running, go_on = threading.Event(), threading.Event()

    def view() -> tuple[str, int]:
        running.set()
        assert go_on.wait(PATIENCE)
        return number(), 503

    app, cache = make_app()

    @app.after_request
    def sign(response: Response) -> Response:
        response.stream.write(b" signed")
        response.headers.add("X-Signed", "1")
        return response

    shown(view)(app, cache)
    seen = at_once(app, running, go_on, NOBODY, NOBODY, NOBODY)
    assert [page.text for page in seen] == ["page 1 signed"] * 3
    assert [page.headers.getlist("X-Signed") for page in seen] == [["1"]] * 3


@pytest.mark.parametrize(
    "fail",
    [
        lambda: ("busy", 503),
        lambda: (iter(["bu", "sy"]), 503),
        lambda: abort(503, "busy"),
        lambda: abort(current_app.response_class("busy", 503)),
        raises,
    ],
    ids=["returned", "stream", "abort", "abort-with-response", "raised"],
)
def test_who_shares_a_failure_is_not_given_what_hooks_did_for_the_first(make_app: MakeApp, fail: View) -> None:
    """Such as the session cookie that is saved with the first one's response, while the others wake up."""
    running, go_on, signed = threading.Event(), threading.Event(), threading.Event()
    mark = "first.visitor"

    class Slow(Response):
        def iter_encoded(self) -> Iterator[bytes]:
            # Visitors who waited read the failure only after the hooks have run for the first one.
            assert not request or mark in request.environ or signed.wait(10)
            return super().iter_encoded()

    def view() -> Any:
        running.set()
        assert go_on.wait(PATIENCE)
        return fail()

    app, cache = make_app()
    app.response_class = Slow
    app.register_error_handler(LookupError, lambda error: ("busy", 500))
    visitors = iter([True])

    @app.before_request
    def count() -> None:
        if next(visitors, False):
            request.environ[mark] = True

    @app.after_request
    def sign(response: Response) -> Response:
        if mark in request.environ:
            response.set_cookie("session", "of the first")
            response.set_data("dear first visitor")
            signed.set()
        else:
            assert signed.wait(10)
        return response

    shown(view)(app, cache)
    first, *others = at_once(app, running, go_on, NOBODY, NOBODY, NOBODY)
    assert ("first" in first.headers["Set-Cookie"], first.text) == (True, "dear first visitor")
    assert ["busy" in page.text for page in others] == [True, True]
    assert ["Set-Cookie" in page.headers for page in others] == [False, False]


def fails_for_ann() -> str:
    if request.cookies.get("user") == "ann":
        raise LookupError("nothing for ann")
    return f"for {request.cookies.get('user')}"


def test_a_stale_copy_is_not_for_who_carries_an_absent_name(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    """Not while it is renewed, and not because the origin fails for them."""
    app, cache = make_app(REFRESH_WORKERS=0)
    app.add_url_rule("/", "page", cache.cached(60, 60, 6000, jitter=0)(fails_for_ann))
    assert visit(app).page == ("MISS", "for None")
    clock.shift(70)
    assert visit(app, "/", BOB).page == ("BYPASS", "for bob")
    assert visit(app, "/", ANN).status == 500
    assert visit(app).page == ("STALE", "for None")
    clock.shift(1000)
    assert visit(app, "/", BOB).page == ("BYPASS", "for bob")
    assert visit(app, "/", ANN).status == 500
