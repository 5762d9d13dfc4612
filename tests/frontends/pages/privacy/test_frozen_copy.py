"""Privacy: the stored copy can't be changed by later requests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import (
    Response,
    request,
    send_file,
)

from support.client import MakeApp, visit
from support.privacy import shown

CONDITIONALS = {
    "If-None-Match": '"mine"',
    "If-Match": '"other"',
    "If-Modified-Since": "Tue, 15 Nov 2039 08:12:31 GMT",
    "If-Unmodified-Since": "Tue, 15 Nov 1994 08:12:31 GMT",
    "Range": "bytes=0-1",
    "If-Range": '"mine"',
}


@pytest.mark.parametrize("name", CONDITIONALS)
def test_conditionals_and_range_are_hidden_from_the_view(make_app: MakeApp, name: str) -> None:
    reads = {
        "If-None-Match": lambda: request.if_none_match.to_header(),
        "If-Match": lambda: request.if_match.to_header(),
        "If-Modified-Since": lambda: request.if_modified_since,
        "If-Unmodified-Since": lambda: request.if_unmodified_since,
        "Range": lambda: request.range,
        "If-Range": lambda: request.if_range.to_header(),
    }
    told: list[object] = []

    def view() -> str:
        told.append((request.headers.get(name), reads[name](), name in request.headers))
        return "page"

    app, cache = make_app()
    shown(view)(app, cache)
    visit(app, "/", {name: CONDITIONALS[name]})
    assert told == [(None, reads_nothing(name), False)]
    assert visit(app).page == ("HIT", "page")


def reads_nothing(name: str) -> object:
    return "" if name in {"If-None-Match", "If-Match", "If-Range"} else None


def test_conditionals_are_hidden_from_the_view_also_if_a_hook_has_read_them(make_app: MakeApp) -> None:
    """Werkzeug keeps what it parsed."""
    told: list[bool] = []

    def view() -> str:
        told.append(request.if_none_match.contains("mine"))
        return "page"

    app, cache = make_app()
    app.before_request(lambda: (request.if_none_match, None)[-1])
    shown(view)(app, cache)
    assert visit(app, "/", {"If-None-Match": '"mine"'}).status == 200
    assert told == [False]


def test_a_range_does_not_cut_the_copy(make_app: MakeApp, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    app, cache = make_app()
    shown(lambda: send_file(tmp_path / "file", mimetype="text/plain"))(app, cache)
    part = visit(app, "/", {"Range": "bytes=2-3"})
    assert (part.status, part.text, part.headers["Content-Range"]) == (206, "23", "bytes 2-3/10")
    assert visit(app).page == ("HIT", "0123456789")


def test_conditionals_are_there_again_after_the_view(make_app: MakeApp) -> None:
    told: list[str | None] = []
    app, cache = make_app()

    @app.after_request
    def look(response: Response) -> Response:
        told.append(request.headers.get("If-None-Match"))
        return response

    shown(lambda: "page")(app, cache)
    visit(app, "/", {"If-None-Match": '"mine"'})
    assert told == ['"mine"']


@pytest.mark.grid
@pytest.mark.parametrize(
    "change",
    [
        lambda response: response.stream.write(b"for ann"),
        lambda response: response.set_data("for ann"),
        lambda response: setattr(response, "response", ["for ann"]),
        lambda response: response.headers.add("X-For", "ann"),
        lambda response: response.headers.clear(),
        lambda response: response.set_cookie("user", "ann"),
        lambda response: setattr(response, "status_code", 500),
        lambda response: setattr(response, "content_type", "text/x"),
        lambda response: response.vary.add("X-Ann"),
        lambda response: setattr(response.cache_control, "private", True),
        lambda response: response.set_etag("ann"),
        lambda response: response.freeze(),
    ],
    ids=[
        "stream.write", "set_data", "response", "headers.add", "headers.clear", "set_cookie", "status", "content_type", "vary",
        "cache_control", "set_etag", "freeze",
    ],
)  # fmt: skip
@pytest.mark.parametrize("when", ["MISS", "HIT"])
def test_what_a_hook_does_to_a_response_never_reaches_the_copy(
    make_app: MakeApp, change: Callable[[Response], object], when: str
) -> None:
    app, cache = make_app()

    @app.after_request
    def mark(response: Response) -> Response:
        if request.environ.get("HTTP_X_USER") == "ann":
            change(response)
        return response

    shown(lambda: Response("page", headers={"X-Own": "1"}))(app, cache)
    if when == "HIT":
        visit(app)
    visit(app, "/", {"X-User": "ann"})
    after = visit(app, "/", {"X-User": "bob"})
    assert (after.word, after.status, after.text, after.headers["X-Own"]) == ("HIT", 200, "page", "1")
    assert "ann" not in str(after.headers).lower()
    assert after.headers.get("Content-Type") == "text/html; charset=utf-8"
    assert "Cache-Control" not in after.headers


def test_bodies_are_handed_out_in_a_tuple(make_app: MakeApp) -> None:
    app, cache = make_app()
    kinds: list[type] = []

    @app.after_request
    def look(response: Response) -> Response:
        kinds.append(type(response.response))
        return response

    shown(lambda: Response(["pa", "ge"]))(app, cache)
    assert [visit(app).page for _ in range(3)] == [("MISS", "page"), ("HIT", "page"), ("HIT", "page")]
    assert kinds == [tuple] * 3
