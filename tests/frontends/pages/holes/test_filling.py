"""Covers ``frontends.pages.filling_holes.filling``, ``frontends.pages.filling_holes.filled_copies`` and
``frontends.pages.view_call``."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from flask import (
    Flask,
    Response,
    abort,
    flash,
    g,
    get_flashed_messages,
    redirect,
    render_template,
    send_file,
    session,
    stream_template,
)
from markupsafe import Markup, escape

from flask_stalecache import StaleCache
from support.client import MakeApp, settle, visit
from support.holes import ANN, BASE, BOB, NOBODY, VISITORS, compare, said, templates, who

pytestmark = pytest.mark.usefixtures("clock")
View = Callable[..., Any]


def page(view: Callable[[View], Any], **policy: Any) -> Callable[[Flask, StaleCache], None]:
    """Return a function that sets up an app with one cached view, which calls ``view`` with a hole."""

    def build(app: Flask, cache: StaleCache) -> None:
        hole = cache.hole(name="who")(who)
        app.jinja_env.globals["who"] = hole
        templates(app, base=BASE, page="{% extends 'base.html' %}{% block main %}text{% endblock %}")
        app.add_url_rule("/", "page", cache.cached(60, **policy)(lambda: view(hole)))

    return build


# -- what is stored ----------------------------------------------------------------------------------------------------

STORED: dict[str, Callable[[View], Any]] = {
    "a text": lambda hole: f"<p>{hole()}",
    "escaped": lambda hole: f"<p title='{escape(hole())}'>",
    "with arguments": lambda hole: f"{hole(1, 'a', [None, {'b': 1.5}], c=True)}",
    "twice": lambda hole: f"{hole()} and {hole()}",
    "one result twice": lambda hole: f"{hole()} and " * 2,
    "json": lambda hole: {"who": hole(), "text": f"hello {hole()}"},
    "a template": lambda hole: render_template("page.html"),
    "headers too": lambda hole: Response(str(hole()), headers={"X-Page": "1"}, mimetype="text/plain"),
    "latin-1": lambda hole: str(hole()).encode("latin-1", "xmlcharrefreplace"),
    "no content": lambda hole: f"{hole()}{hole()}",
    "a list": lambda hole: Response(["a", str(hole()), "b"]),
}


@pytest.mark.parametrize("view", STORED.values(), ids=STORED)
def test_every_visitor_has_their_own(view: Callable[[View], Any], make_app: MakeApp) -> None:
    answers = compare(make_app, page(view), *VISITORS)
    assert said(answers) == ["HIT"] * 3
    assert len({each.body for each in answers}) == 3


#: Views that do something else with the mark than to show it.
ALTERED: dict[str, Callable[[View], Any]] = {
    "upper case": lambda hole: str(hole()).upper(),
    "asked": lambda hole: f"{hole()}" if hole() else "",
    "length": lambda hole: f"{hole()}{len(hole())}",
    "not shown": lambda hole: f"{hole()!s:.0}",
    "base64": lambda hole: base64.b64encode(str(hole()).encode()),
    "gzip": lambda hole: gzip.compress(str(hole()).encode(), mtime=0),
    "in a field": lambda hole: Response(f"{hole()}", headers={"X-Who": base64.b64encode(str(hole()).encode()).decode()}),
    "compared": lambda hole: f"{mark}" if (mark := hole()) != "bob" else "it is bob",
    "raised": lambda hole: f"{int(hole(), 36)}",
    "its length sent": lambda hole: Response(f"{hole()}", headers={"Content-Length": str(len(str(hole())))}),
    "in part": lambda hole: str(hole())[:3],
    "sorted": lambda hole: "".join(sorted(hole())),
    "encoded twice": lambda hole: json.dumps({"a": json.dumps({"b": json.dumps(str(hole()))})}),
}


@pytest.mark.parametrize("name", ALTERED)
def test_a_page_that_alters_a_mark_is_made_for_each_visitor(name: str, make_app: MakeApp) -> None:
    answers = compare(make_app, page(ALTERED[name]), *VISITORS)
    assert "HIT" not in said(answers)


def test_a_mark_in_a_field_of_the_response(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        hole = cache.hole(lambda: session.get("user", "nobody")[:3])
        app.add_url_rule("/", "page", cache.cached(60)(lambda: Response("text", headers={"X-Who": str(hole())})))
        app.add_url_rule("/to", "to", cache.cached(60, statuses={302: 60})(lambda: redirect(f"/of/{hole()}")))

    assert "HIT" not in said(compare(make_app, build, *VISITORS))
    app, cache = make_app()
    build(app, cache)
    assert [visit(app, "/", each).headers["X-Who"] for each in VISITORS] == ["ann", "bob", "nob"]
    assert [visit(app, "/to", each).headers["Location"] for each in VISITORS] == ["/of/ann", "/of/bob", "/of/nob"]


def test_a_mark_in_an_exception(make_app: MakeApp) -> None:
    answers = compare(make_app, page(lambda hole: abort(404, description=f"no {hole()}"), statuses={404: 60}), *VISITORS)
    assert "HIT" not in said(answers)


def test_a_mark_in_the_session(make_app: MakeApp) -> None:
    def view(hole: View) -> str:
        session["last"] = f"for {hole()}"
        flash(f"for {hole()}")
        return f"{hole()}"

    def build(app: Flask, cache: StaleCache) -> None:
        page(view)(app, cache)
        app.add_url_rule("/next", "next", lambda: f"{session.get('last')} {get_flashed_messages()}")

    assert "HIT" not in said(compare(make_app, build, *VISITORS))
    app, cache = make_app()
    build(app, cache)
    client = app.test_client()
    for path in ("/", "/next"):
        with client.get(path) as response:
            shown = response.text
    assert shown == "for nobody ['for nobody']"


def test_a_view_that_fails_because_of_a_mark(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        number = cache.hole(lambda: str(len(session.get("user", ""))))
        app.add_url_rule("/", "page", cache.cached(60)(lambda: f"{int(number()) + 1}"))

    assert "HIT" not in said(compare(make_app, build, *VISITORS))


def test_an_altered_mark_is_tried_again_only_after_a_while(make_app: MakeApp, monotonic: Callable[[float], None]) -> None:
    app, cache = make_app()
    calls: list[int] = []

    @cache.cached(60)
    def view() -> str:
        calls.append(1)
        return str(hole()).upper()

    hole = cache.hole(who)
    app.add_url_rule("/", "page", view)
    assert [visit(app, "/", each).text for each in (*VISITORS, BOB)][1:] == ["BOB", "NOBODY", "BOB"]
    assert len(calls) == 5
    monotonic(61)
    assert visit(app, "/", BOB).text == "BOB"
    assert len(calls) == 7


def test_why_a_page_is_not_stored_is_logged_once(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app, cache = make_app()
    page(lambda hole: f"{hole()}{bool(hole())}")(app, cache)
    for each in VISITORS:
        visit(app, "/", each)
    (line,) = [record.message for record in caplog.records if "is not stored" in record.message]
    assert "looked at or changed by frontends.pages.holes.test_filling" in line.replace("tests.", "")
    assert "do that in the hole" in line


# -- streams -----------------------------------------------------------------------------------------------------------


def streamed(hole: View) -> Response:
    who = hole()
    return Response(iter(["a", str(who)]))


def streamed_later(hole: View) -> Response:
    def chunks() -> Any:
        yield f"a {hole()}"

    from flask import stream_with_context

    return Response(stream_with_context(chunks()))


@pytest.mark.parametrize("view", [streamed, streamed_later, lambda hole: stream_template("page.html")])
def test_in_a_stream_a_hole_is_a_plain_call(view: Callable[[View], Any], make_app: MakeApp) -> None:
    assert "HIT" not in said(compare(make_app, page(view), *VISITORS))


# -- what is sent ------------------------------------------------------------------------------------------------------


def dated(hole: View) -> Response:
    response = Response(f"hello {hole()}")
    response.cache_control.max_age = 60
    response.cache_control.public = True
    response.headers.update(
        {"ETag": '"1"', "Last-Modified": "Sun, 29 Nov 2026 11:00:00 GMT", "Expires": "Sun, 29 Nov 2026 13:00:00 GMT"}
    )
    return response


def test_a_filled_page_is_sent_as_one_visitors(make_app: MakeApp) -> None:
    app, cache = make_app()
    page(dated)(app, cache)
    for word in ("MISS", "HIT"):
        seen = visit(app, "/", BOB)
        assert seen.page == (word, "hello bob")
        assert seen.headers.getlist("Cache-Control") == ["private, no-cache"]
        assert seen.headers["Content-Length"] == "9"
        assert {"ETag", "Last-Modified", "Expires", "Accept-Ranges"}.isdisjoint(seen.headers.keys())


def test_a_hook_that_lets_all_pages_be_kept(make_app: MakeApp) -> None:
    app, cache = make_app()
    page(lambda hole: f"hello {hole()}")(app, cache)

    @app.after_request
    def keep(response: Response) -> Response:
        response.headers["Cache-Control"] = "public, max-age=60, no-transform"
        response.headers["Expires"] = "Sun, 29 Nov 2026 23:00:00 GMT"
        return response

    for word in ("MISS", "HIT"):
        seen = visit(app, "/", BOB)
        assert seen.page == (word, "hello bob")
        assert seen.headers.getlist("Cache-Control") == ["private, no-cache, no-transform"]
        assert "Expires" not in seen.headers


def test_a_file_in_an_app_with_forms(make_app: MakeApp, tmp_path: Path) -> None:
    import flask_wtf.csrf  # noqa: F401

    app, cache = make_app()
    calls: list[int] = []
    (tmp_path / "a.txt").write_text("text")

    @cache.cached(60)
    def file() -> Response:
        calls.append(1)
        return send_file(tmp_path / "a.txt")

    app.add_url_rule("/", "page", file)
    assert [visit(app).page for _ in range(2)] == [("MISS", "text"), ("HIT", "text")]
    assert len(calls) == 1


def test_head_fills_no_hole_and_tells_no_length(make_app: MakeApp) -> None:
    app, cache = make_app()
    calls: list[int] = []

    @cache.hole
    def counted() -> str:
        calls.append(1)
        return "x"

    app.add_url_rule("/", "page", cache.cached(60)(lambda: f"{counted()}"))
    heads = [visit(app, "/", method="HEAD"), visit(app, "/"), visit(app, "/", method="HEAD")]
    assert [(each.word, each.body, each.headers.get("Content-Length")) for each in heads] == [
        ("BYPASS", b"", None),
        ("MISS", b"x", "1"),
        ("HIT", b"", None),
    ]
    assert len(calls) == 1


@pytest.mark.parametrize(
    "asked",
    [
        {"If-None-Match": "*"},
        {"If-None-Match": '"1"'},
        {"If-Modified-Since": "Sun, 29 Nov 2026 23:00:00 GMT"},
        {"Range": "bytes=0-1"},
        {"If-Match": '"2"'},
    ],
)
def test_conditions_and_ranges_are_not_answered_from_it(asked: dict[str, str], make_app: MakeApp) -> None:
    app, cache = make_app()
    page(dated)(app, cache)
    visit(app, "/", ANN)
    for _ in range(2):
        seen = visit(app, "/", {**BOB, **asked})
        assert (seen.status, seen.text) == (200, "hello bob")


def test_holes_run_before_hooks_and_before_the_session_is_saved(make_app: MakeApp) -> None:
    app, cache = make_app()

    @cache.hole
    def counted() -> str:
        session["seen"] = session.get("seen", 0) + 1
        g.is_counted = True
        return str(session["seen"])

    app.add_url_rule("/", "page", cache.cached(60)(lambda: f"{counted()}"))

    @app.after_request
    def tell(response: Response) -> Response:
        response.headers["X-Counted"] = str(g.get("is_counted"))
        return response

    client = app.test_client()
    for number in (1, 2, 3):
        with client.get("/") as response:
            assert (response.text, response.headers["X-Counted"]) == (str(number), "True")
    assert visit(app, "/").page == ("HIT", "1")


# -- what a hole finds -------------------------------------------------------------------------------------------------


def test_the_first_visitor_finds_in_g_what_all_others_find(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        @app.before_request
        def hook() -> None:
            g.hook = session.get("user")

        @cache.hole
        def shown() -> str:
            return f"{g.get('hook')} {g.get('view')}"

        @cache.cached(60)
        def view() -> str:
            g.view = "set by the view"
            return f"{shown()}"

        app.add_url_rule("/", "page", view)
        app.after_request(lambda response: response.headers.add("X-View", g.get("view", "none")) or response)

    app, cache = make_app()
    build(app, cache)
    assert [visit(app, "/", each).text for each in (BOB, BOB, NOBODY)] == ["bob None", "bob None", "None None"]
    assert visit(app, "/?2").headers["X-View"] == "set by the view"


def test_what_a_hole_opens_is_closed_with_the_request(make_app: MakeApp) -> None:
    app, cache = make_app()
    closed: list[str] = []

    class Connection:
        def __init__(self, name: str) -> None:
            self.name = name

        def close(self) -> None:
            closed.append(self.name)

    @cache.hole
    def shown() -> str:
        if "db" not in g:
            g.db = Connection("by the hole")
        return g.db.name  # type: ignore[no-any-return]

    @app.teardown_request
    def close(error: BaseException | None) -> None:
        if (found := g.pop("db", None)) is not None:
            found.close()

    app.add_url_rule("/", "page", cache.cached(60)(lambda: f"{shown()}"))
    assert [visit(app).text for _ in range(2)] == ["by the hole"] * 2
    assert closed == ["by the hole"] * 2


def test_what_is_read_in_a_hole_does_not_make_the_page_personal(make_app: MakeApp, directory: Path) -> None:
    answers = compare(make_app, page(lambda hole: f"text {hole()}"), *VISITORS)
    assert said(answers) == ["HIT"] * 3
    stored = b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())
    assert b"text " in stored
    assert b"ann" not in stored
    assert b"bob" not in stored


# -- failures ----------------------------------------------------------------------------------------------------------


def failing(cache: StaleCache, **options: Any) -> View:
    @cache.hole(name="box", **options)
    def box(number: int = 1) -> Any:
        if session.get("user") == "bob":
            abort(404)
        return f"[{number}]"

    return box


@pytest.mark.parametrize(
    ("options", "shown"),
    [({}, ""), ({"fallback": "none"}, "none"), ({"fallback": lambda number: Markup("<b>%d</b>") % number}, "<b>7</b>")],
    ids=["nothing", "a text", "a callable"],
)
def test_a_hole_that_fails(options: dict[str, Any], shown: str, make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app, cache = make_app()
    box = failing(cache, **options)
    app.add_url_rule("/", "page", cache.cached(60)(lambda: f"box {escape(box(7))}"))
    pages = [visit(app, "/", each).page for each in (BOB, NOBODY, BOB)]
    assert pages == [("MISS", f"box {shown}"), ("HIT", "box [7]"), ("HIT", f"box {shown}")]
    (record,) = [each for each in caplog.records if "the hole box has failed" in each.message]
    assert record.exc_info is not None


def test_a_fallback_that_fails(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app, cache = make_app()
    box = failing(cache, fallback=lambda number: 1 / 0)
    app.add_url_rule("/", "page", cache.cached(60)(lambda: f"box {box(7)}"))
    assert [visit(app, "/", BOB).text for _ in range(2)] == ["box ", "box "]
    assert "ZeroDivisionError" in caplog.text


def test_with_debug_its_error_is_shown(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.debug = True
    box = failing(cache)
    app.add_url_rule("/", "page", cache.cached(60)(lambda: f"box {box()}"))
    assert visit(app, "/", NOBODY).text == "box [1]"
    with pytest.raises(Exception, match="the hole box has failed: 404"):
        visit(app, "/", BOB)


@pytest.mark.parametrize("value", [None, 1, b"a", Response("a"), ("a", 1)])
def test_what_a_hole_must_not_return(value: Any, make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app, cache = make_app()
    box = cache.hole(lambda: value)
    app.add_url_rule("/", "page", cache.cached(60)(lambda: f"box {box()}"))
    assert visit(app).text == "box "
    assert f"has returned a {type(value).__name__}" in caplog.text


def test_refreshes_and_warming_run_no_hole(make_app: MakeApp, clock: Any) -> None:
    app, cache = make_app()
    calls: list[int] = []

    @cache.hole
    def counted() -> str:
        calls.append(1)
        return "x"

    app.add_url_rule("/", "page", cache.cached(60, 600)(lambda: f"{counted()}"))
    with app.app_context():
        cache.warm("http://localhost/").wait(10)
    assert calls == []
    clock.shift(100)
    assert visit(app).page == ("STALE", "x")
    settle(app, cache)
    assert visit(app).page == ("HIT", "x")
    assert len(calls) == 2


# -- pages within pages ------------------------------------------------------------------------------------------------


def test_a_page_within_a_page(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        hole = cache.hole(who)

        @cache.cached(60)
        def inner() -> str:
            return f"<i>{escape(hole(1))}</i>"

        @cache.cached(60)
        def outer() -> str:
            return f"outer {hole(2)} {app.make_response(inner()).get_data(as_text=True)}"

        app.add_url_rule("/inner", "inner", inner)
        app.add_url_rule("/", "outer", outer)
        app.add_url_rule("/live", "live", lambda: f"live {app.make_response(inner()).get_data(as_text=True)}")

    for path in ("/", "/inner"):
        assert said(compare(make_app, build, *VISITORS, path=path)) == ["HIT"] * 3
    compare(make_app, build, *VISITORS, path="/live")
    app, cache = make_app()
    build(app, cache)
    paths = ("/inner", "/", "/live", "/", "/inner")
    for path in paths:
        for each in VISITORS:
            shown = visit(app, path, each).text
            assert ("bob" in shown) == (each is BOB), (path, shown)
            assert ("ann" in shown) == (each is ANN), (path, shown)


def test_a_page_within_a_page_that_alters_it(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        hole = cache.hole(who)

        @cache.cached(60)
        def inner() -> str:
            return f"<i>{hole()}</i>"

        @cache.cached(60)
        def middle() -> str:
            return app.make_response(inner()).get_data(as_text=True).upper()

        @cache.cached(60)
        def outer() -> str:
            return f"outer {app.make_response(middle()).get_data(as_text=True)}"

        app.add_url_rule("/", "outer", outer)

    assert "HIT" not in said(compare(make_app, build, *VISITORS))


# -- others ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [404, 500])
def test_the_page_of_an_error_has_holes(status: int, make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        templates(app, error=BASE)
        app.register_error_handler(status, lambda error: (render_template("error.html"), status))
        app.add_url_rule("/", "page", cache.cached(60, statuses={404: 60})(lambda: abort(status)))

    answers = compare(make_app, build, *VISITORS)
    assert said(answers) == ["HIT" if status == 404 else ""] * 3


def test_a_mark_in_an_argument_of_a_fetch_function_is_an_error(make_app: MakeApp) -> None:
    app, cache = make_app()
    hole = cache.hole(who)
    greet = cache.memoize(60)(lambda name: f"hello {name}")
    app.testing = True
    app.add_url_rule("/", "page", cache.cached(60)(lambda: greet(f"{hole()}")))
    # A view that fails with a mark is called again, and then the hole is a plain call.
    assert [visit(app, "/", each).text for each in (BOB, NOBODY)] == ["hello bob", "hello nobody"]


def test_a_mark_that_a_function_has_kept_is_told(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app, cache = make_app()
    hole = cache.hole(who)
    kept = lru_cache(lambda: f"kept {hole()}")
    app.add_url_rule("/<int:number>", "page", cache.cached(60)(lambda number: kept()))
    assert visit(app, "/1", BOB).text == "kept bob"
    assert "of another page" not in caplog.text
    visit(app, "/2", BOB)
    assert "shows the mark of a hole of another page" in caplog.text


def test_a_hole_that_nobody_knows_any_more_makes_the_page_anew(make_app: MakeApp) -> None:
    app, cache = make_app()
    hole = cache.hole(name="old")(who)
    app.add_url_rule("/", "page", cache.cached(60)(lambda: f"old {hole()}"))
    assert [visit(app, "/", BOB).page for _ in range(2)] == [("MISS", "old bob"), ("HIT", "old bob")]
    later, cache = make_app()
    hole = cache.hole(name="new")(who)
    later.add_url_rule("/", "page", cache.cached(60)(lambda: f"new {hole()}"))
    assert [visit(later, "/", BOB).page for _ in range(2)] == [("EXPIRED", "new bob"), ("HIT", "new bob")]


#: Functions that versions of an app have under one name, and how their pages call them.
VERSIONS: dict[str, tuple[Callable[..., str], Callable[[View], str]]] = {
    "none": (lambda: who(), lambda hole: hole()),
    "one": (lambda greeting: f"{greeting} {who()}", lambda hole: hole("hi")),
    "by name": (lambda *, greeting: f"{greeting} {who()}", lambda hole: hole(greeting="hi")),
}


@pytest.mark.parametrize(("before", "after"), list(permutations(VERSIONS, 2)))
def test_a_hole_with_other_parameters_makes_the_page_anew(before: str, after: str, make_app: MakeApp) -> None:
    """Two versions of an app run side by side, and no page of theirs has an empty hole."""
    apps = []
    for name in (before, after):
        app, cache = make_app()
        function, call = VERSIONS[name]
        app.add_url_rule("/", "page", cache.cached(60)(partial(call, cache.hole(name="box")(function))))
        apps.append(app)
    for app in apps * 2:
        words, texts = zip(*(visit(app, "/", BOB).page for _ in range(2)), strict=True)
        assert words[1] == "HIT"
        assert all(text.endswith("bob") for text in texts)


def test_an_argument_too_many_is_an_error_where_the_hole_is_called(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.testing = True
    hole: Any = cache.hole(lambda: who())
    app.add_url_rule("/", "page", cache.cached(60)(lambda: hole("one too many")))
    with pytest.raises(TypeError, match="too many positional"):
        visit(app, "/", BOB)


def test_text_that_looks_like_a_mark_is_text(make_app: MakeApp) -> None:
    quoted: list[str] = []

    def view(hole: View) -> str:
        mark = hole()
        if not quoted:
            quoted.append(f"{mark}")
        return f"<p>{escape(quoted[0])}</p>{mark}"

    app, cache = make_app()
    page(view)(app, cache)
    first = visit(app, "/?1", BOB).text
    assert first == "<p>bob</p>bob"
    second = visit(app, "/?2", BOB).text
    assert second == f"<p>{escape(quoted[0])}</p>bob"
