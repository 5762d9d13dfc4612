"""Privacy: answers that are not stored. Covers ``frontends.pages.origin`` and ``frontends.pages.watching.session_recorder``."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, Any, cast

import pytest
import time_machine
from flask import (
    Flask,
    Response,
    after_this_request,
    flash,
    g,
    request,
    send_file,
    session,
    stream_with_context,
)

from flask_stalecache import StaleCache
from support.client import MakeApp, visit
from support.privacy import (
    ANN,
    BOB,
    NOBODY,
    Fields,
    UntoldInterface,
    View,
    number,
    play,
    shown,
    streamed,
    with_callback,
    with_cookie,
    with_session,
)


def with_flash() -> str:
    flash("saved")
    return number()


def with_permanent_session() -> str:
    session.permanent = True
    return number()


@pytest.mark.parametrize(
    "view",
    [
        lambda: Response(number(), headers={"Cache-Control": "no-store"}),
        lambda: Response(number(), headers={"Cache-Control": "private"}),
        lambda: Response(number(), headers={"Cache-Control": 'private="x-user"'}),
        lambda: Response(number(), headers={"Cache-Control": "no-cache"}),
        lambda: Response(number(), headers={"Cache-Control": 'no-cache="x-user"'}),
        lambda: Response(number(), headers={"Cache-Control": "public, max-age=60, Private"}),
        lambda: Response(number(), headers=[("Cache-Control", "public"), ("Cache-Control", "no-store")]),
        lambda: Response(number(), headers={"CDN-Cache-Control": "private"}),
        lambda: Response(number(), headers={"Stalecache-Cache-Control": "no-store", "Cache-Control": "public"}),
        with_cookie,
        lambda: Response(number(), headers={"set-cookie": "a=b"}),
        lambda: Response(number(), headers={"Vary": "*"}),
        lambda: Response(number(), headers={"Vary": "X-User"}),
        lambda: Response(number(), headers=[("Vary", "Host"), ("vary", "Accept, X-User")]),
        lambda: Response(number(), headers={"Vary": "Cookie"}),
        lambda: (number(), 404),
        lambda: (number(), 201),
        lambda: (number(), 302, {"Location": "/"}),
        lambda: (number(), 410),
        lambda: (number(), 206, {"Content-Range": "bytes 0-5/10"}),
        streamed,
        lambda: Response(streamed()),
        lambda: Response(stream_with_context(streamed())),
        lambda: Response(iter([number()])),
        with_session,
        with_flash,
        with_permanent_session,
        with_callback,
        lambda: Response([number()], headers={"Content-Length": "3"}),
    ],
    ids=[
        "no-store", "private", "private-qualified", "no-cache", "no-cache-qualified", "private-among-others",
        "no-store-second-line", "cdn-private", "own-no-store", "set_cookie", "set-cookie", "vary-star", "vary",
        "vary-lines", "vary-cookie", "404", "201", "302", "410", "206", "generator", "generator-response",
        "stream_with_context", "iterator", "session", "flash", "permanent", "after_this_request", "cut",
    ],
)  # fmt: skip
def test_what_is_not_stored(make_app: MakeApp, view: View) -> None:
    app, cache = make_app()
    shown(view)(app, cache)
    pages = [visit(app, "/", who) for who in (ANN, BOB, NOBODY, ANN)]
    assert [page.word for page in pages] == ["MISS"] * 4
    assert [page.text[:6] for page in pages] == [f"page {count}" for count in range(1, 5)]
    assert [page.headers.get("X-For") for page in pages] in (["ann", "bob", "-", "ann"], [None] * 4)


@pytest.mark.parametrize("status", [301, 308, 200])
def test_what_is_stored_unasked(make_app: MakeApp, status: int) -> None:
    assert play(make_app, shown(lambda: (str(status), status, {"Location": "/x"})), NOBODY, ANN) == ["MISS", "HIT"]


@pytest.mark.parametrize("headers", [{"Vary": "Accept-Language"}, {"Vary": "accept-language, Host"}, {"Vary": "X-Forwarded-Proto"}])
def test_a_vary_within_the_key_is_stored(make_app: MakeApp, headers: Fields) -> None:
    build = shown(lambda: Response("page", headers=headers), vary=["Accept-Language"])
    assert play(make_app, build, NOBODY, NOBODY, {"Accept-Language": "de"}) == ["MISS", "HIT", "MISS"]


@pytest.mark.parametrize("status", [200, 204, 205])
def test_emptiness_does_not_replace_content(make_app: MakeApp, clock: time_machine.Traveller, status: int) -> None:
    """After a refresh that brought nothing, the page with content is still there."""
    answers: list[tuple[str, int]] = [("content", 200), ("", status)]
    app, cache = make_app(REFRESH_WORKERS=0)
    app.add_url_rule(
        "/", "page", cache.cached(60, 600, 6000, jitter=0)(lambda: answers[0] if len(answers) == 1 else answers.pop(0))
    )
    assert visit(app).page == ("MISS", "content")
    clock.shift(61)
    assert visit(app).page == ("STALE", "content")
    assert visit(app).text == "content"


@pytest.mark.parametrize("status", [200, 204, 205])
def test_emptiness_replaces_content_if_statuses_says_so(make_app: MakeApp, clock: time_machine.Traveller, status: int) -> None:
    answers: list[tuple[str, int]] = [("content", 200), ("", status)]
    app, cache = make_app(REFRESH_WORKERS=0)
    policy: dict[str, Any] = {"statuses": {status: None}, "jitter": 0}
    app.add_url_rule("/", "page", cache.cached(60, 600, **policy)(lambda: answers[0] if len(answers) == 1 else answers.pop(0)))
    assert visit(app).page == ("MISS", "content")
    clock.shift(61)
    assert visit(app).page == ("STALE", "content")
    after = visit(app)
    assert (after.word, after.status, after.body) == ("HIT", status, b"")


def test_an_empty_page_over_nothing_is_stored(make_app: MakeApp) -> None:
    assert play(make_app, shown(lambda: ""), NOBODY, ANN) == ["MISS", "HIT"]


@pytest.mark.parametrize("kind", ["path", "BytesIO"])
@pytest.mark.parametrize(("size", "second"), [(1000, "HIT"), (1001, "MISS")])
def test_a_sent_file_is_stored_up_to_max_entry_size(make_app: MakeApp, tmp_path: Path, kind: str, size: int, second: str) -> None:
    content = bytes(range(256)) * 4
    file = tmp_path / "file.bin"
    file.write_bytes(content[:size])

    def view() -> Response:
        return send_file(file if kind == "path" else io.BytesIO(content[:size]), mimetype="application/octet-stream")

    app, cache = make_app(MAX_ENTRY_SIZE=1000)
    shown(view)(app, cache)
    seen = [visit(app, "/", who) for who in (ANN, BOB)]
    assert [page.word for page in seen] == ["MISS", second]
    assert [page.body for page in seen] == [content[:size]] * 2
    assert [page.headers["Content-Length"] for page in seen] == [str(size)] * 2


def test_a_sent_file_without_a_known_size_is_passed_through(make_app: MakeApp) -> None:
    """Not stored, and not read at once either: it may be endless."""
    chunks: list[int] = []

    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            chunks.append(len(buffer))
            assert len(chunks) < 10, "it is read to its end, which does not come"
            return len(buffer)

    app, cache = make_app()
    shown(lambda: send_file(cast("IO[bytes]", Endless()), mimetype="application/octet-stream"))(app, cache)
    for _ in range(2):
        chunks.clear()
        response = app.test_client().get("/", buffered=False)
        assert response.headers["X-Cache-Status"] == "MISS"
        response.close()


@pytest.mark.parametrize("size", [100, 101])
def test_a_page_is_stored_up_to_max_entry_size(make_app: MakeApp, size: int) -> None:
    said = play(make_app, shown(lambda: "x" * size), NOBODY, NOBODY, MAX_ENTRY_SIZE=100)
    assert said == ["MISS", "HIT" if size == 100 else "MISS"]


def test_the_file_of_a_stored_page_is_closed(make_app: MakeApp) -> None:
    opened: list[io.BytesIO] = []

    def view() -> Response:
        opened.append(io.BytesIO(b"content"))
        return send_file(opened[-1], mimetype="text/plain")

    assert play(make_app, shown(view), NOBODY, NOBODY) == ["MISS", "HIT"]
    assert all(file.closed for file in opened)


@pytest.mark.parametrize("change", ["session", "after_this_request", "set-cookie"])
def test_what_a_hook_does_is_neither_stored_nor_judged(make_app: MakeApp, change: str) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        @app.before_request
        def before() -> None:
            if change == "session":
                session["seen"] = "yes"
            elif change == "after_this_request":
                after_this_request(with_mark)

        @app.after_request
        def after(response: Response) -> Response:
            if change == "set-cookie":
                response.set_cookie("user", request.environ.get("HTTP_X_USER", "-"))
            return response

        shown(lambda: "page")(app, cache)

    def with_mark(response: Response) -> Response:
        response.headers["X-For"] = request.environ.get("HTTP_X_USER", "-")
        return response

    app, cache = make_app()
    build(app, cache)
    who = ({"X-User": "ann"}, {"X-User": "bob"})
    seen = [visit(app, "/", headers) for headers in who]
    assert [page.word for page in seen] == ["MISS", "HIT"]
    told = [page.headers.get("X-For") or page.headers["Set-Cookie"] for page in seen]
    if change == "session":
        assert all("session=" in line for line in told)
    else:
        assert ["ann" in told[0], "bob" in told[1], "ann" in told[1]] == [True, True, False]


def test_a_session_that_a_hook_modified_is_saved_on_every_hit(make_app: MakeApp) -> None:
    app, cache = make_app()

    @app.before_request
    def count() -> None:
        session["visits"] = session.get("visits", 0) + 1

    shown(lambda: "page", ignore_session=True)(app, cache)
    client = app.test_client()
    for visits in (1, 2, 3):
        with client.get("/") as response:
            assert response.headers["X-Cache-Status"] == ("MISS" if visits == 1 else "HIT")
        with client.session_transaction() as stored:
            assert stored["visits"] == visits


@pytest.mark.parametrize("first_of_all", [True, False], ids=["cold", "warm"])
def test_what_a_hook_has_just_put_into_the_session_is_nobody_elses(make_app: MakeApp, first_of_all: bool) -> None:
    """Each new visitor gets a number of their own, and the page shows it: none of them carried anything that tells them apart."""
    app, cache = make_app()
    numbers = iter(range(1, 10))

    @app.before_request
    def number_visitor() -> None:
        if "number" not in session:
            session["number"] = next(numbers)

    shown(lambda: f"you are number {session['number']}")(app, cache)
    if not first_of_all:
        client = app.test_client()
        for _ in range(2):
            with client.get("/") as response:
                assert response.get_data(as_text=True) == "you are number 1"
    said = [visit(app).text for _ in range(3)]
    assert len(set(said)) == 3, said


@pytest.mark.parametrize(
    ("view", "second"),
    [(lambda: f"for {session['user']}", "MISS"), (lambda: "for all", "HIT")],
    ids=["used", "unused"],
)
def test_a_session_that_cannot_tell_counts_as_modified_if_the_view_used_it(make_app: MakeApp, view: View, second: str) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        app.session_interface = UntoldInterface()
        shown(view)(app, cache)

    assert play(make_app, build, NOBODY, NOBODY) == ["MISS", second]


def test_a_session_that_cannot_tell_and_that_only_a_hook_used_was_not_modified_by_the_view(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        app.session_interface = UntoldInterface()

        @app.before_request
        def load() -> None:
            g.user = session["user"]

        shown(lambda: f"for {g.user}")(app, cache)

    ann = {"Cookie": "session=ann"}
    assert play(make_app, build, NOBODY, NOBODY, ann, NOBODY) == ["MISS", "HIT", "BYPASS", "HIT"]
