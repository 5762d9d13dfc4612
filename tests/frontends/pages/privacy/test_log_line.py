"""Privacy: the one log line that names why a view's pages are not stored."""

from __future__ import annotations

import logging
import types

import pytest
from flask import (
    Flask,
    Response,
    abort,
    request,
    session,
)

from flask_stalecache import StaleCache
from support.client import MakeApp, visit, words
from support.privacy import (
    ANN,
    BOB,
    NOBODY,
    Fields,
    View,
    as_member,
    lines,
    play,
    shown,
    streamed,
    with_callback,
    with_cookie,
    with_session,
)


def reading_view() -> str:
    return f"for {request.headers.get('X-User')} {request.cookies.get('user')}"


def test_a_field_is_named_with_its_reader_and_what_to_write(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert play(make_app, shown(reading_view), {"X-User": "ann"}, {"X-User": "bob"}) == ["MISS", "MISS"]
    (line,) = lines(caplog)
    for part in ("test_log_line.reading_view", "x-user", f"read by {__name__}", "vary=['x-user']", "STALECACHE_IGNORED_HEADERS"):
        assert part in line


def test_a_cookie_is_named_with_its_reader_and_what_to_write(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    play(make_app, shown(reading_view), {"Cookie": "user=ann"}, {"Cookie": "user=bob"})
    (line,) = lines(caplog)
    for part in ("test_log_line.reading_view", "cookie user", f"read by {__name__}"):
        assert part in line


def test_the_reader_in_a_hook_is_named(make_app: MakeApp, caplog: pytest.LogCaptureFixture, exempt: types.ModuleType) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        app.before_request(lambda: (exempt.field("X-User"), None)[-1])
        shown(reading_view)(app, cache)

    play(make_app, build, {"X-User": "ann"}, {"X-User": "bob"}, NOBODY)
    (line,) = lines(caplog)
    assert "read by tracker.inside" in line


def test_the_session_is_named_with_what_to_write(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    play(make_app, shown(lambda: f"for {session.get('user')}"), as_member("ann"), as_member("bob"))
    (line,) = lines(caplog)
    assert "ignore_session=True" in line


def test_a_parameter_is_named_with_what_to_write(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app, cache = make_app()
    shown(lambda: f"{request.args.get('ref')}", ignored_parameters=["ref"])(app, cache)
    assert [visit(app, path).text for path in ("/?ref=ann", "/?ref=bob")] == ["ann", "bob"]
    (line,) = lines(caplog)
    assert "ref" in line
    assert "ignored_parameters" in line


@pytest.mark.parametrize(
    ("view", "told"),
    [
        (lambda: str(dict(request.headers)), ["test_log_line goes through all headers", "by name"]),
        (lambda: str(dict(request.cookies)), ["test_log_line goes through all cookies", "by name"]),
        (lambda: Response("page", headers={"Vary": "X-User"}), ["vary=['x-user']"]),
        (with_cookie, ["sets a cookie"]),
        (with_session, ["session"]),
        (with_callback, ["after_this_request"]),
        (streamed, ["stream"]),
        (lambda: Response(b"x" * 101), ["MAX_ENTRY_SIZE"]),
    ],
    ids=["headers", "cookies", "vary", "set-cookie", "session", "after_this_request", "stream", "size"],
)
def test_each_reason_that_can_be_mended_gives_one_line(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, view: View, told: list[str]
) -> None:
    app, cache = make_app(MAX_ENTRY_SIZE=100)
    shown(view)(app, cache)
    assert words(app, ANN, BOB, NOBODY) == ["MISS"] * 3
    (line,) = lines(caplog)
    assert view.__qualname__ in line
    for part in told:
        assert part in line


def test_two_views_have_a_line_each(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app, cache = make_app()
    app.add_url_rule("/a", "a", cache.cached(60)(reading_view))
    app.add_url_rule("/b", "b", cache.cached(60)(with_cookie))
    for path in ("/a", "/b", "/a", "/b"):
        visit(app, path, {"X-User": "ann"})
    assert sorted(line.split()[0].rpartition(".")[2] for line in lines(caplog)) == ["reading_view", "with_cookie"]


def test_a_page_that_is_too_large_has_one_line_whatever_its_size(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app, cache = make_app(MAX_ENTRY_SIZE=100)
    shown(lambda: "x" * (100 + len(request.path)))(app, cache)
    app.add_url_rule("/<path:more>", "more", cache.cached(60)(lambda more: "x" * (100 + len(more))))
    for count in range(1, 6):
        visit(app, f"/{'a' * count}")
    assert len(lines(caplog)) == 1


@pytest.mark.parametrize("field", ["*", "Cookie", "Authorization", "X-User", "Accept-Encoding, X-User"])
def test_what_a_line_says_to_write_is_accepted(make_app: MakeApp, caplog: pytest.LogCaptureFixture, field: str) -> None:
    app, cache = make_app()
    shown(lambda: Response("page", headers={"Vary": field}))(app, cache)
    visit(app)
    (line,) = lines(caplog)
    _, written, rest = line.partition("vary=[")
    if written:
        cache.cached(60, vary=[name.strip(" '\"") for name in rest.partition("]")[0].split(",")])


@pytest.mark.parametrize(
    "view",
    [
        lambda: Response("page", headers={"Cache-Control": "private"}),
        lambda: Response("page", headers={"Cache-Control": "no-store"}),
        lambda: ("page", 404),
        lambda: abort(403),
        lambda: "page",
    ],
    ids=["private", "no-store", "404", "abort", "stored"],
)
def test_what_the_developer_wished_gives_no_line(make_app: MakeApp, caplog: pytest.LogCaptureFixture, view: View) -> None:
    caplog.set_level(logging.INFO)
    app, cache = make_app()
    shown(view)(app, cache)
    words(app, ANN, BOB, NOBODY)
    assert lines(caplog) == []


def test_a_view_that_a_decorator_gives_an_argument_is_live_with_a_line(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """The usual ``@with_user`` above the cache: the developer can mend it, so they are told."""
    app, cache = make_app()
    cached = cache.cached(60)(lambda user: f"for {user}")
    app.add_url_rule("/", "page", lambda: cached(user=request.cookies.get("user")))
    assert [visit(app, "/", who).page for who in (ANN, BOB)] == [("BYPASS", "for ann"), ("BYPASS", "for bob")]
    assert len(lines(caplog)) == 1


@pytest.mark.parametrize(
    ("read", "fields"),
    [
        (lambda: request.headers.get("Authorization"), {"Authorization": "Bearer ann"}),
        (lambda: request.headers.get("Cookie"), {"Cookie": "user=ann"}),
    ],
    ids=["authorization", "cookie"],
)
def test_a_field_by_which_visitors_log_in_is_not_advised_to_be_ignored(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, read: View, fields: Fields
) -> None:
    """Settings refuse it, since a response that says ``public`` would be anybody's."""
    caplog.set_level(logging.INFO)
    view = shown(lambda: Response(f"for {read()}", headers={"Cache-Control": "public, max-age=60"}))
    assert "HIT" not in play(make_app, view, fields, NOBODY, fields)
    (line,) = lines(caplog)
    assert "IGNORED_HEADERS" not in line
    assert "vary=" not in line
