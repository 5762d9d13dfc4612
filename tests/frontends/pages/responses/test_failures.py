"""Responses to visitors: hooks, closing, and views that fail. Covers ``frontends.pages.bound_view``."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import time_machine
from flask import Response, abort, make_response, request, send_file
from werkzeug.exceptions import ServiceUnavailable

from support.client import MakeApp, visit
from support.responses import PAGE, WINDOWS, Switch, site

# -- hooks and closing -------------------------------------------------------------------------------------------------


def test_hooks_see_and_change_every_answer(make_app: MakeApp) -> None:
    app, cache = make_app()

    @app.after_request
    def sign(response: Response) -> Response:
        response.set_data(response.get_data() + request.headers.get("X-User", "-").encode())
        response.headers["X-Signed"] = "1"
        return response

    app.add_url_rule("/", "page", cache.cached(60)(lambda: "for "))
    said = [visit(app, "/", {"X-User": name}) for name in ("ann", "bob", "ann")]
    assert [page.page for page in said] == [("MISS", "for ann"), ("HIT", "for bob"), ("HIT", "for ann")]
    assert [page.headers.getlist("X-Signed") for page in said] == [["1"]] * 3
    assert [page.headers["Content-Length"] for page in said] == ["7"] * 3


def test_a_hook_that_writes_to_the_stream_writes_to_one_answer(make_app: MakeApp) -> None:
    app, cache = make_app()

    @app.after_request
    def sign(response: Response) -> Response:
        response.stream.write(b" signed")
        return response

    app.add_url_rule("/", "page", cache.cached(60)(lambda: "page"))
    assert [visit(app).page for _ in range(3)] == [("MISS", "page signed"), ("HIT", "page signed"), ("HIT", "page signed")]


def test_a_hook_that_answers_instead_changes_no_copy(make_app: MakeApp) -> None:
    app, cache = make_app()

    @app.after_request
    def refuse(response: Response) -> Response:
        return Response("no", 403) if request.headers.get("X-User") == "eve" else response

    app.add_url_rule("/", "page", cache.cached(60)(lambda: "page"))
    said = [visit(app, "/", {"X-User": name}) for name in ("eve", "ann", "eve")]
    assert [(page.status, page.text) for page in said] == [(403, "no"), (200, "page"), (403, "no")]
    assert said[1].word == "HIT"


@pytest.mark.parametrize("kind", ["text", "file", "stream"])
def test_call_on_close_runs_with_the_first_response(make_app: MakeApp, kind: str) -> None:
    closed: list[str] = []

    def view() -> Response:
        answers: dict[str, Callable[[], Response]] = {
            "text": lambda: make_response(PAGE),
            "file": lambda: send_file(io.BytesIO(PAGE.encode()), mimetype="text/plain"),
            "stream": lambda: Response(iter([PAGE])),
        }
        response = answers[kind]()
        response.call_on_close(lambda: closed.append("closed"))
        return response

    app = site(make_app, view)
    assert visit(app).page == ("MISS", PAGE)
    # Without a cache, Werkzeug never calls it for a file that it passes through. A file that was stored is not passed through.
    assert closed == ["closed"]
    again = visit(app)
    assert again.page == ("MISS" if kind == "stream" else "HIT", PAGE)
    assert closed == ["closed"] * (2 if kind == "stream" else 1)


def test_call_on_close_of_a_hook_runs_for_every_hit(make_app: MakeApp) -> None:
    closed: list[str] = []
    app, cache = make_app()

    @app.after_request
    def watch(response: Response) -> Response:
        response.call_on_close(lambda: closed.append(response.headers["X-Cache-Status"]))
        return response

    app.add_url_rule("/", "page", cache.cached(60)(lambda: PAGE))
    for _ in range(3):
        visit(app)
    assert closed == ["MISS", "HIT", "HIT"]


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure", [LookupError("down"), ServiceUnavailable(), ("broken", 500), ("", 502), ("broken", 503), ("broken", 504)]
)
def test_a_failure_is_answered_with_the_copy(make_app: MakeApp, clock: time_machine.Traveller, failure: Any) -> None:
    switch = Switch()
    app = site(make_app, switch.view, REFRESH_BACKOFF=(2, 10))
    visit(app)
    switch.answer = failure
    clock.shift(60 + 120)
    assert visit(app).page == ("STALE", PAGE)
    assert visit(app).page == ("STALE", PAGE)
    assert switch.runs == 2, "the second visitor meets the back-off"
    clock.shift(3600 - 120 - 1)
    assert visit(app).page == ("STALE", PAGE)
    assert switch.runs == 3
    clock.shift(1)
    assert visit(app).status >= 500


@pytest.mark.parametrize("answer", [("gone", 404), ("gone", 410), ("no", 403), ("not built", 501), ("teapot", 418)])
@pytest.mark.parametrize("raised", [True, False], ids=["raised", "returned"])
def test_another_error_is_an_answer(
    make_app: MakeApp, clock: time_machine.Traveller, answer: tuple[str, int], raised: bool
) -> None:
    def view() -> Any:
        if not answers:
            return PAGE
        return abort(answer[1], answer[0]) if raised else answer

    answers: list[int] = []
    app = site(make_app, view)
    visit(app)
    answers.append(1)
    clock.shift(180)
    seen = visit(app)
    assert (seen.status, answer[0] in seen.text) == (answer[1], True)
    answers.clear()
    assert visit(app).page == ("MISS", PAGE)


def test_a_failure_is_not_stored(make_app: MakeApp) -> None:
    switch = Switch(("broken", 503))
    app = site(make_app, switch.view)
    assert visit(app).page == ("MISS", "broken")
    switch.answer = PAGE
    assert visit(app).page == ("MISS", PAGE)


def test_no_stale_if_error_shows_the_failure(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    switch = Switch()
    app = site(make_app, switch.view, policy={**WINDOWS, "stale_if_error": 0})
    visit(app)
    switch.answer = ("broken", 503)
    clock.shift(180)
    assert visit(app).page == ("EXPIRED", "broken")


@pytest.mark.parametrize("directive", ["must-revalidate", "proxy-revalidate", "s-maxage=60"])
def test_what_must_not_be_served_stale_is_not(make_app: MakeApp, clock: time_machine.Traveller, directive: str) -> None:
    switch = Switch(Response(PAGE, headers={"Cache-Control": directive}))
    app = site(make_app, switch.view, policy={"jitter": 0}, MAX_AGE=60)
    assert visit(app).word == "MISS"
    clock.shift(59)
    assert visit(app).word == "HIT"
    clock.shift(1)
    switch.answer = LookupError("down")
    assert visit(app).status == 500
