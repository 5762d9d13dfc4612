"""``cache.tag`` inside a view, and tags beside the view. Covers ``core.rules.cacheability``."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest
import time_machine
from flask import abort, render_template_string, request
from flask.views import MethodView

from flask_stalecache import StaleCache
from support.cacheability import WINDOWS, Runs, add, complaints, is_stored, purged_by, words_at, wrong
from support.client import MakeApp, settle, visit
from support.threads import PATIENCE, go, results

pytestmark = pytest.mark.usefixtures("no_housekeeping")


# -- tags beside the view --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "purged", "is_gone"),
    [
        (["news"], "news", True),
        (["news", "sport"], "news", True),
        (["news", "sport"], "sport", True),
        (["news", "news"], "news", True),
        (["news"], "sport", False),
        (["news"], "new", False),
        (["news"], "News", False),
        (["news"], "news ", False),
        ((), "news", False),
        (["Ünews 1/2?"], "Ünews 1/2?", True),
        (["all"], "all", True),
        ((), "all", False),
        ((), "path:/", False),
        ((), "/", False),
        (lambda: ["news"], "news", True),
        (lambda: ("news", "sport"), "sport", True),
        (lambda: {"news", "sport"}, "sport", True),
        (lambda: (name for name in ["news", "sport"]), "sport", True),
        (list, "news", False),
    ],
)
def test_a_page_is_purged_by_each_of_its_tags_and_no_other(
    make_app: MakeApp, runs: Runs, tags: Any, purged: str, is_gone: bool
) -> None:
    app, cache = make_app()
    add(app, cache, runs, tags=tags)
    visit(app)
    assert purged_by(app, cache, purged) is is_gone
    assert is_stored(app)


def test_tags_may_be_made_of_the_views_arguments(make_app: MakeApp, runs: Runs) -> None:
    app, cache = make_app()
    tags = {"tags": lambda kind, number: [kind, f"{kind}:{number}"]}
    add(app, cache, lambda kind, number: runs(f"{kind}{number}"), "/<kind>/<int:number>", **tags)
    paths = ["/book/1", "/book/2", "/film/1"]
    assert [is_stored(app, path) for path in paths * 2] == [False] * 3 + [True] * 3
    with app.app_context():
        cache.purge(tag="book:1")
    assert [is_stored(app, path) for path in paths] == [False, True, True]
    with app.app_context():
        cache.purge(tag="book")
    assert [is_stored(app, path) for path in paths] == [False, False, True]


def test_tags_may_be_made_of_the_arguments_defaults_too(make_app: MakeApp, runs: Runs) -> None:
    app, cache = make_app()
    view = cache.cached(**WINDOWS, tags=lambda number: [f"page:{number}"])(lambda number: runs())  # type: ignore[arg-type]
    app.add_url_rule("/", "first", view, defaults={"number": 1})
    visit(app)
    assert purged_by(app, cache, "page:1")


@pytest.mark.parametrize("style", ["decorators", "method"])
def test_tags_of_a_method_view(make_app: MakeApp, runs: Runs, style: str) -> None:
    app, cache = make_app()
    cached = cache.cached(**WINDOWS, tags=lambda name: [f"item:{name}"])  # type: ignore[arg-type]

    class Item(MethodView):
        decorators = [cached] if style == "decorators" else []

        def get(self, name: str) -> str:
            cache.tag("said")
            return runs(name)

        if style == "method":
            get = cached(get)

    app.add_url_rule("/<name>", view_func=Item.as_view("item"))
    for path in ("/a", "/b"):
        assert [is_stored(app, path) for _ in range(2)] == [False, True]
    assert purged_by(app, cache, "item:a", "/a")
    assert is_stored(app, "/b")
    assert purged_by(app, cache, "said", "/b")


BAD_TAGS: list[Any] = [
    pytest.param(wrong, "no such item", id="raises"),
    pytest.param(lambda: abort(404), "404", id="aborts"),
    pytest.param(lambda number: ["news"], "number", id="takes other arguments"),
    pytest.param(lambda: "news", "('news',)", id="a bare string"),
    pytest.param(lambda: "", "''", id="an empty string"),
    pytest.param(lambda: None, "None", id="None"),
    pytest.param(lambda: 7, "7", id="a number"),
    pytest.param(lambda: [7], "7", id="numbers"),
    pytest.param(lambda: ["news", ""], "''", id="an empty tag"),
    pytest.param(lambda: [None], "None", id="a tag that is None"),
    pytest.param(lambda: b"news", "b'news'", id="bytes"),
    pytest.param(lambda: (wrong() for _ in range(1)), "no such item", id="raises on the way"),
]


@pytest.mark.parametrize(("tags", "said"), BAD_TAGS)
def test_a_page_whose_tags_can_not_be_told_is_live_and_not_stored(
    make_app: MakeApp, runs: Runs, caplog: pytest.LogCaptureFixture, tags: Callable[..., Any], said: str
) -> None:
    """If the page were stored, it could not be purged by its tags."""
    app, cache = make_app()
    add(app, cache, runs, tags=tags)
    assert [visit(app).page for _ in range(3)] == [("MISS", f"page, run {run}") for run in (1, 2, 3)]
    [line] = complaints(caplog)
    assert "Runs" in line
    assert said in line


def test_one_page_whose_tags_can_not_be_told_spoils_no_other(make_app: MakeApp, runs: Runs) -> None:
    app, cache = make_app()
    add(app, cache, lambda number: runs(str(number)), "/<int:number>", tags=lambda number: [f"part {6 / number}"])
    assert [is_stored(app, path) for path in ("/0", "/1", "/0", "/1")] == [False, False, False, True]
    assert purged_by(app, cache, "part 6.0", "/1")


def test_a_renewed_page_has_the_tags_of_today(make_app: MakeApp, clock: time_machine.Traveller, runs: Runs) -> None:
    app, cache = make_app()
    today = {"beside": "monday", "inside": "rain"}

    def view() -> str:
        cache.tag(today["inside"])
        return runs()

    add(app, cache, view, tags=lambda: [today["beside"]])
    visit(app)
    today.update(beside="tuesday", inside="sun")
    clock.shift(61)
    assert visit(app).word == "STALE"
    settle(app, cache)
    assert [purged_by(app, cache, tag) for tag in ("monday", "rain", "tuesday")] == [False, False, True]
    assert purged_by(app, cache, "sun")


# -- tags said in the view -------------------------------------------------------------------------------------------


def said_by_template(cache: StaleCache) -> str:
    return render_template_string("{{ tag('news') or '' }}page", tag=cache.tag)


def said_deep_down(cache: StaleCache) -> str:
    def load(depth: int) -> None:
        cache.tag("news") if depth == 0 else load(depth - 1)

    load(5)
    return "page"


def said_in_thread(cache: StaleCache) -> str:
    context = contextvars.copy_context()
    go(context.run, cache.tag, "news").result(PATIENCE)
    return "page"


def said_twice(cache: StaleCache) -> str:
    cache.tag("news", "sport")
    cache.tag()
    cache.tag("news")
    return "page"


@pytest.mark.parametrize("say", [said_by_template, said_deep_down, said_in_thread, said_twice])
def test_what_a_view_says_is_heard_wherever_it_is_said(make_app: MakeApp, say: Callable[[StaleCache], str]) -> None:
    app, cache = make_app()
    add(app, cache, lambda: say(cache))
    visit(app)
    assert purged_by(app, cache, "news")
    assert not purged_by(app, cache, "other")


def test_what_a_thread_says_without_the_context_is_not_heard(make_app: MakeApp) -> None:
    app, cache = make_app()

    def view() -> str:
        go(cache.tag, "news").result(PATIENCE)
        go(cache.no_store).result(PATIENCE)
        return "page"

    add(app, cache, view)
    visit(app)
    assert not purged_by(app, cache, "news")


def test_an_async_view_is_heard(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache = make_app()

    async def load() -> None:
        cache.tag("news")
        cache.max_age(5)

    async def view() -> str:
        await load()
        if request.args.get("secret"):
            cache.no_store()
        return "page"

    add(app, cache, view)
    visit(app)
    assert purged_by(app, cache, "news")
    clock.shift(5)
    assert visit(app).word == "STALE"
    settle(app, cache)
    assert words_at(app, "/?secret=1", 2) == ["MISS", "MISS"]


def test_tags_beside_and_in_the_view_add_up(make_app: MakeApp) -> None:
    app, cache = make_app()

    def view() -> str:
        cache.tag("in", "both")
        return "page"

    add(app, cache, view, tags=["beside", "both"])
    visit(app)
    assert [purged_by(app, cache, tag) for tag in ("in", "beside", "both", "neither")] == [True, True, True, False]


def test_pages_that_are_made_at_the_same_time_don_t_hear_each_other(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache = make_app()
    together = threading.Barrier(2)

    def view(name: str) -> str:
        together.wait(PATIENCE)
        cache.tag(name)
        if name == "short":
            cache.max_age(5)
        together.wait(PATIENCE)
        return name

    add(app, cache, view, "/<name>")
    results([go(visit, app, path) for path in ("/short", "/long")])
    clock.shift(10)
    assert visit(app, "/long").word == "HIT"
    with app.app_context():
        cache.purge(tag="short")
    assert visit(app, "/long").word == "HIT"
