"""Privacy: requests that bypass the cache, whoever sends them."""

from __future__ import annotations

from typing import Any

import pytest
from flask import (
    Response,
    request,
)

from support.client import MakeApp, visit
from support.engine import named
from support.privacy import ANN, BOB, NOBODY, play, raises, shown


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_other_methods_are_live_and_leave_the_copy_alone(make_app: MakeApp, method: str) -> None:
    app, cache = make_app()
    app.add_url_rule(
        "/",
        "page",
        cache.cached(60)(lambda: f"{request.method} {request.get_data(as_text=True)}"),
        methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
        provide_automatic_options=False,
    )
    said = [visit(app).page, visit(app, method=method, data="ann").page, visit(app, method=method, data="bob").page]
    assert said == [("MISS", "GET "), ("BYPASS", f"{method} ann"), ("BYPASS", f"{method} bob")]
    assert visit(app).page == ("HIT", "GET ")


def test_a_post_on_a_cold_key_fills_nothing(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.add_url_rule("/", "page", cache.cached(60)(lambda: f"it was {request.method}"), methods=["GET", "POST"])
    assert visit(app, method="POST").page == ("BYPASS", "it was POST")
    assert visit(app).page == ("MISS", "it was GET")


@pytest.mark.parametrize(
    "body",
    [
        {"data": b"ann"},
        {"data": b"ann", "content_type": "application/x-www-form-urlencoded"},
        {"environ": {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}, "data": b""},
    ],
    ids=["length", "form", "transfer-encoding"],
)
def test_a_get_with_a_body_is_live(make_app: MakeApp, body: dict[str, Any]) -> None:
    app, cache = make_app()
    app.add_url_rule("/", "page", cache.cached(60)(lambda: f"body {request.get_data(as_text=True)!r}"))
    assert visit(app, **body).word == "BYPASS"
    assert visit(app).page == ("MISS", "body ''")
    assert visit(app, **body).word == "BYPASS"
    assert visit(app).page == ("HIT", "body ''")


@pytest.mark.parametrize("length", ["", "0"])
def test_a_get_without_a_body_is_not_live_for_its_content_length(make_app: MakeApp, length: str) -> None:
    app, cache = make_app()
    shown(lambda: "page")(app, cache)
    assert [visit(app, environ={"CONTENT_LENGTH": length}).word for _ in range(2)] == ["MISS", "HIT"]


def test_authorization_is_live_and_stores_nothing(make_app: MakeApp) -> None:
    ann, bob = {"Authorization": "Basic YW5uOng="}, {"Authorization": "Bearer bob"}
    build = shown(lambda: f"for {request.environ.get('HTTP_AUTHORIZATION')}")
    assert play(make_app, build, ann, NOBODY, bob, NOBODY, ann) == ["BYPASS", "MISS", "BYPASS", "HIT", "BYPASS"]


@pytest.mark.parametrize("directive", ["public", "s-maxage=60", "must-revalidate"])
def test_authorization_may_fill_and_use_what_says_that_it_is_for_all(make_app: MakeApp, directive: str) -> None:
    def view() -> Response:
        return Response("for all", headers={"Cache-Control": directive})

    ann, bob = {"Authorization": "Bearer ann"}, {"Authorization": "Bearer bob"}
    assert play(make_app, shown(view), ann, bob, NOBODY) == ["MISS", "HIT", "HIT"]


@pytest.mark.parametrize("directive", ["max-age=60", 'no-transform, x="public"', "stale-if-error=60"])
def test_authorization_is_live_under_any_other_directive(make_app: MakeApp, directive: str) -> None:
    def view() -> Response:
        return Response(f"for {request.environ.get('HTTP_AUTHORIZATION')}", headers={"Cache-Control": directive})

    ann, bob = {"Authorization": "Bearer ann"}, {"Authorization": "Bearer bob"}
    assert play(make_app, shown(view), ann, NOBODY, bob) == ["BYPASS", "MISS", "BYPASS"]


def test_a_public_page_that_looks_at_authorization_is_still_nobody_elses(make_app: MakeApp) -> None:
    def view() -> Response:
        who = request.authorization
        return Response(f"for {who.token if who else 'all'}", headers={"Cache-Control": "public"})

    ann, bob = {"Authorization": "Bearer ann"}, {"Authorization": "Bearer bob"}
    assert "HIT" not in play(make_app, shown(view), ann, bob, ann)
    assert play(make_app, shown(view), NOBODY, ann, bob, NOBODY) == ["MISS", "BYPASS", "BYPASS", "HIT"]


def test_a_user_that_the_server_knows_is_live(make_app: MakeApp) -> None:
    app, cache = make_app()
    shown(lambda: f"for {request.remote_user}")(app, cache)
    ann, bob = {"REMOTE_USER": "ann"}, {"REMOTE_USER": "bob"}
    assert visit(app, environ=ann).page == ("BYPASS", "for ann")
    assert visit(app).page == ("MISS", "for None")
    assert visit(app, environ=bob).page == ("BYPASS", "for bob")
    assert visit(app).page == ("HIT", "for None")


@pytest.mark.parametrize("truthy", [True, 1, "yes", ["x"], {"a": 1}, object()], ids=named)
def test_unless_takes_whatever_is_true(make_app: MakeApp, truthy: object) -> None:
    build = shown(lambda: f"for {request.headers.get('X-User')}", unless=lambda: truthy)
    assert play(make_app, build, ANN, BOB, NOBODY) == ["BYPASS"] * 3


@pytest.mark.parametrize("falsy", [False, None, 0, "", ()], ids=repr)
def test_unless_takes_whatever_is_false(make_app: MakeApp, falsy: object) -> None:
    assert play(make_app, shown(lambda: "page", unless=lambda: falsy), ANN, BOB) == ["MISS", "HIT"]


def test_unless_that_raises_is_live_and_logged(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """As for the other callables of the developer's: a working page is not turned into an error."""
    build = shown(lambda: f"for {request.headers.get('X-User')}", unless=raises)
    assert play(make_app, build, ANN, BOB, NOBODY) == ["BYPASS"] * 3
    assert "no key today" in caplog.text


def test_what_unless_reads_is_seen(make_app: MakeApp) -> None:
    build = shown(lambda: f"for {request.environ.get('HTTP_X_USER')}", unless=lambda: request.headers.get("X-User") == "bob")
    assert play(make_app, build, NOBODY, ANN, BOB, NOBODY) == ["MISS", "BYPASS", "BYPASS", "HIT"]


def test_head_is_answered_from_a_stored_get_and_never_stored(make_app: MakeApp) -> None:
    app, cache = make_app()
    shown(lambda: f"{request.method} page")(app, cache)
    first = visit(app, method="HEAD")
    assert (first.word, first.body) == ("BYPASS", b"")
    assert visit(app).page == ("MISS", "GET page")
    again = visit(app, method="HEAD")
    assert (again.word, again.body, again.headers["Content-Length"]) == ("HIT", b"", "8")


def test_head_with_a_name_that_is_absent_is_live(make_app: MakeApp) -> None:
    app, cache = make_app()
    shown(lambda: Response("page", headers={"X-For": request.cookies.get("user", "all")}))(app, cache)
    visit(app)
    said = [visit(app, "/", who, method="HEAD").headers["X-For"] for who in (ANN, BOB, NOBODY)]
    assert said == ["ann", "bob", "all"]
