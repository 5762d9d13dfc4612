"""The origin's last word: ``cache.tag``, ``cache.no_store`` and ``cache.max_age`` inside a view; and the tags of a page."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from flask import Flask, Response, abort, make_response, render_template_string, request, session
from flask.views import MethodView

from flask_stalecache import ConfigError, StaleCache
from support.client import MakeApp, settle, visit, words
from support.threads import PATIENCE, go, results

pytestmark = pytest.mark.usefixtures("no_housekeeping")

#: Fresh for a minute, then stale for ten; no jitter, so that a test knows the moment.
WINDOWS = {"max_age": 60, "stale_while_revalidate": 600, "stale_if_error": 6000, "jitter": 0}
NOBODY: dict[str, str] = {}
ANN = {"Cookie": "user=ann"}


class Runs:
    """Counts how often a view ran, by name."""

    def __init__(self) -> None:
        self.of: dict[str, int] = {}

    def __call__(self, name: str = "page") -> str:
        self.of[name] = self.of.get(name, 0) + 1
        return f"{name}, run {self.of[name]}"


@pytest.fixture
def runs() -> Runs:
    return Runs()


def add(app: Flask, cache: StaleCache, view: Callable[..., Any], path: str = "/", **policy: Any) -> None:
    app.add_url_rule(path, f"page at {path}", cache.cached(**{**WINDOWS, **policy})(view))


def is_stored(app: Flask, path: str = "/") -> bool:
    """Whether visitors are served a copy; it fills the page if not."""
    return visit(app, path).word != "MISS"


def purged_by(app: Flask, cache: StaleCache, tag: str, path: str = "/") -> bool:
    """Whether a stored page is gone after a purge of a tag."""
    assert is_stored(app, path), "it was not stored"
    with app.app_context():
        cache.purge(tag=tag)
    return not is_stored(app, path)


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("flask_stalecache")]


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


def wrong(*_: object, **__: object) -> Any:
    raise KeyError("no such item")


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
    """It could not be purged by them."""
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


def words_at(app: Flask, path: str, visits: int) -> list[str]:
    return [visit(app, path).word for _ in range(visits)]


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


# -- no_store --------------------------------------------------------------------------------------------------------


def test_a_page_that_says_no_store_is_not_stored(make_app: MakeApp, runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    app, cache = make_app()

    def view() -> str:
        cache.no_store()
        cache.tag("news")
        return runs()

    add(app, cache, view)
    seen = [visit(app) for _ in range(3)]
    assert [one.page for one in seen] == [("MISS", f"page, run {run}") for run in (1, 2, 3)]
    assert all("stored" not in one.headers["Cache-Status"] for one in seen)
    assert complaints(caplog) == [], "it is the developer's wish"


def test_nobody_queues_for_a_page_that_said_no_store(make_app: MakeApp) -> None:
    app, cache = make_app()
    together = threading.Barrier(2)

    def view() -> str:
        cache.no_store()
        if request.args.get("first") is None:
            # Both are in at the same time, or this breaks.
            together.wait(PATIENCE)
        return "page"

    add(app, cache, view, ignored_parameters=["first"])
    visit(app, "/?first=1")
    assert [seen.text for seen in results([go(visit, app) for _ in range(2)])] == ["page", "page"]


def test_the_first_page_that_does_not_say_it_is_stored(make_app: MakeApp, runs: Runs) -> None:
    app, cache = make_app()

    def view() -> str:
        if runs.of.get("page", 0) < 2:
            cache.no_store()
        return runs()

    add(app, cache, view)
    assert words_at(app, "/", 5) == ["MISS", "MISS", "MISS", "HIT", "HIT"]


@pytest.mark.parametrize("age", [61, 661, 6061], ids=["in SWR", "in SIE", "past all"])
def test_no_store_drops_what_was_stored(make_app: MakeApp, clock: time_machine.Traveller, runs: Runs, age: int) -> None:
    app, cache = make_app()

    def view() -> str:
        if runs.of:
            cache.no_store()
        return runs()

    add(app, cache, view)
    assert words_at(app, "/", 2) == ["MISS", "HIT"]
    clock.shift(age)
    visit(app)
    settle(app, cache)
    assert [visit(app).page for _ in range(2)] == [("MISS", "page, run 3"), ("MISS", "page, run 4")]


@pytest.mark.parametrize("fails", [lambda: abort(503), wrong, lambda: ("busy", 503)], ids=["abort", "raises", "503"])
def test_a_failure_keeps_what_is_stored_whatever_it_says(
    make_app: MakeApp, clock: time_machine.Traveller, runs: Runs, fails: Callable[[], Any]
) -> None:
    app, cache = make_app()

    def view() -> Any:
        if runs.of:
            cache.no_store()
            cache.max_age(0)
            return fails()
        return runs()

    add(app, cache, view)
    visit(app)
    clock.shift(661)
    assert [visit(app).page for _ in range(2)] == [("STALE", "page, run 1")] * 2


# -- max_age ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "policy", "headers", "config", "fresh_for"),
    [
        ([5], {}, {}, {}, 5),
        ([5.5], {}, {}, {}, 5.5),
        ([timedelta(seconds=5)], {}, {}, {}, 5),
        ([60], {}, {}, {}, 60),
        ([61], {}, {}, {}, 60),
        ([10**9], {}, {}, {}, 60),
        ([7, 5, 9], {}, {}, {}, 5),
        ([9, 7, 5], {}, {}, {}, 5),
        ([5], {"max_age": None}, {"Cache-Control": "max-age=30"}, {}, 5),
        ([50], {"max_age": None}, {"Cache-Control": "max-age=30"}, {}, 30),
        ([5], {"max_age": None}, {"CDN-Cache-Control": "max-age=30"}, {}, 5),
        ([5], {"max_age": None}, {}, {"MAX_AGE": 30}, 5),
        ([50], {"max_age": None}, {}, {"MAX_AGE": 30}, 30),
        ([5], {"statuses": {200: 30}}, {}, {}, 5),
        ([50], {"statuses": {200: 30}}, {}, {}, 30),
        ([50], {"max_age": 60}, {"Cache-Control": "max-age=30"}, {}, 50),
    ],
    ids=repr,
)
def test_a_view_shortens_its_pages_freshness_and_never_lengthens_it(
    make_app: MakeApp,
    clock: time_machine.Traveller,
    said: list[Any],
    policy: dict[str, Any],
    headers: dict[str, str],
    config: dict[str, Any],
    fresh_for: float,
) -> None:
    app, cache = make_app(**config)

    def view() -> Response:
        for limit in said:
            cache.max_age(limit)
        return Response("page", headers=headers)

    add(app, cache, view, **policy)
    visit(app)
    clock.shift(fresh_for - 0.5)
    assert visit(app).headers["Cache-Status"] == "stalecache; hit; ttl=0"
    clock.shift(0.5)
    assert visit(app).word == "STALE"


def test_jitter_shortens_what_is_left(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache = make_app()
    add(app, cache, lambda: cache.max_age(10) or "page", jitter=1)
    lengths = set()
    for _ in range(20):
        with app.app_context():
            cache.purge("/")
        visit(app)
        lengths.add(visit(app).headers["Cache-Status"])
    assert len(lengths) > 1
    assert all(int(line.rpartition("=")[2]) < 10 for line in lengths)


def test_a_page_with_max_age_0_is_stale_at_once_and_served_all_the_same(
    make_app: MakeApp, clock: time_machine.Traveller, runs: Runs
) -> None:
    app, cache = make_app()

    def view() -> str:
        cache.max_age(0)
        return runs()

    add(app, cache, view)
    assert visit(app).page == ("MISS", "page, run 1")
    for run in (1, 2, 3):
        assert visit(app).page == ("STALE", f"page, run {run}")
        settle(app, cache)


def test_the_stale_windows_begin_where_the_shortened_freshness_ends(
    make_app: MakeApp, clock: time_machine.Traveller, runs: Runs
) -> None:
    app, cache = make_app(REFRESH_WORKERS=0)

    def view() -> str:
        cache.max_age(10)
        return runs()

    add(app, cache, view)
    visit(app)
    clock.shift(609)
    assert visit(app).page == ("STALE", "page, run 1")
    clock.shift(610)
    assert visit(app).page == ("EXPIRED", "page, run 3")


# -- error pages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["view", "handler"])
def test_an_error_page_of_a_listed_status_is_heard_too(
    make_app: MakeApp, clock: time_machine.Traveller, runs: Runs, where: str
) -> None:
    app, cache = make_app()

    def say() -> None:
        cache.tag("missing")
        cache.max_age(5)

    def view() -> Any:
        if where == "view":
            say()
        runs()
        abort(404)

    @app.errorhandler(404)
    def not_found(error: Exception) -> tuple[str, int]:
        if where == "handler":
            say()
        return "nothing here", 404

    add(app, cache, view, statuses={404: 60})
    visit(app)
    assert purged_by(app, cache, "missing")
    clock.shift(5)
    seen = visit(app)
    assert (seen.status, seen.word, seen.text) == (404, "STALE", "nothing here")


def test_an_error_page_that_says_no_store_is_not_stored(make_app: MakeApp, runs: Runs) -> None:
    app, cache = make_app()

    def view() -> Any:
        runs()
        cache.no_store()
        abort(404)

    add(app, cache, view, statuses={404: 60})
    assert [visit(app).status for _ in range(3)] == [404] * 3
    assert runs.of == {"page": 3}


def test_an_answer_that_is_not_stored_leaves_no_word_behind(make_app: MakeApp, clock: time_machine.Traveller, runs: Runs) -> None:
    app, cache = make_app()

    def spoken() -> Any:
        cache.no_store()
        cache.max_age(0)
        raise KeyError("after it has spoken")

    add(app, cache, spoken, "/spoken")
    add(app, cache, runs)
    assert visit(app, "/spoken").status == 500
    assert words_at(app, "/", 2) == ["MISS", "HIT"]


# -- a cached view within another ------------------------------------------------------------------------------------


class Nested:
    """An outer page made of an inner one."""

    def __init__(self, make_app: MakeApp, runs: Runs, inner: dict[str, Any] | None = None, outer: dict[str, Any] | None = None):
        self.app, self.cache = make_app()
        self.say_inside: Callable[[], object] = lambda: None
        self.say_before: Callable[[], object] = lambda: None
        self.say_after: Callable[[], object] = lambda: None
        self.is_shown = True
        self.runs = runs

        def made_inside() -> str:
            self.say_inside()
            return runs("inner")

        shown = self.cache.cached(**{**WINDOWS, **(inner or {})})(made_inside)

        def around() -> str:
            self.say_before()
            box = make_response(shown()).get_data(as_text=True) if self.is_shown else ""
            self.say_after()
            return f"{runs('outer')} of {box}"

        add(self.app, self.cache, around, **(outer or {}))

    def purge(self, tag: str) -> None:
        with self.app.app_context():
            self.cache.purge(tag=tag)


@pytest.mark.parametrize("how", ["beside", "callable", "said"])
@pytest.mark.parametrize("is_warm", [False, True], ids=["cold", "warm"])
def test_a_page_has_the_tags_of_the_page_it_is_made_of(
    make_app: MakeApp, clock: time_machine.Traveller, runs: Runs, how: str, is_warm: bool
) -> None:
    inner = {"beside": {"tags": ["news"]}, "callable": {"tags": lambda: ["news"]}, "said": {}}[how]
    nested = Nested(make_app, runs, {**inner, "max_age": 600}, {"stale_while_revalidate": 0})
    if how == "said":
        nested.say_inside = lambda: nested.cache.tag("news")
    visit(nested.app)
    if is_warm:
        # The outer page expires first, and is made again of the inner one's copy.
        clock.shift(61)
        assert visit(nested.app).page == ("EXPIRED", "outer, run 2 of inner, run 1")
    nested.purge("other")
    assert is_stored(nested.app)
    nested.purge("news")
    before = dict(runs.of)
    visit(nested.app)
    assert runs.of == {"inner": before["inner"] + 1, "outer": before["outer"] + 1}


@pytest.mark.parametrize("how", ["beside", "said"])
def test_a_page_has_the_tags_of_a_page_that_is_not_stored_itself(make_app: MakeApp, runs: Runs, how: str) -> None:
    nested = Nested(make_app, runs, {"response_filter": lambda response: False, "tags": ["news"] if how == "beside" else []})
    if how == "said":
        nested.say_inside = lambda: nested.cache.tag("news")
    assert words_at(nested.app, "/", 2) == ["MISS", "HIT"]
    assert purged_by(nested.app, nested.cache, "news")


def test_a_page_is_not_fresher_than_the_page_it_is_made_of_allowed(
    make_app: MakeApp, clock: time_machine.Traveller, runs: Runs
) -> None:
    nested = Nested(make_app, runs)
    nested.say_inside = lambda: nested.cache.max_age(5)
    visit(nested.app)
    clock.shift(4.9)
    assert visit(nested.app).word == "HIT"
    clock.shift(0.1)
    assert visit(nested.app).word == "STALE"


def test_a_page_made_of_one_that_is_not_to_be_stored_is_not_stored(make_app: MakeApp, runs: Runs) -> None:
    nested = Nested(make_app, runs)
    nested.say_inside = nested.cache.no_store
    assert [visit(nested.app).word for _ in range(3)] == ["MISS"] * 3
    assert runs.of == {"inner": 3, "outer": 3}


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_the_outer_view_says_is_not_said_of_the_inner_page(
    make_app: MakeApp, clock: time_machine.Traveller, runs: Runs, when: str
) -> None:
    nested = Nested(make_app, runs)

    def say() -> None:
        nested.cache.tag("outer")
        nested.cache.max_age(0)
        nested.cache.no_store()

    setattr(nested, f"say_{when}", say)
    visit(nested.app)
    clock.shift(30)
    nested.purge("outer")
    assert visit(nested.app).text == "outer, run 2 of inner, run 1"


def test_what_is_said_after_the_inner_page_is_made_is_said_of_the_outer_one(
    make_app: MakeApp, clock: time_machine.Traveller, runs: Runs
) -> None:
    nested = Nested(make_app, runs)
    nested.say_after = lambda: (nested.cache.tag("outer"), nested.cache.max_age(5))
    visit(nested.app)
    clock.shift(5)
    assert visit(nested.app).word == "STALE"
    settle(nested.app, nested.cache)
    assert purged_by(nested.app, nested.cache, "outer")


def test_an_inner_page_that_is_not_shown_counts_for_nothing(make_app: MakeApp, runs: Runs) -> None:
    nested = Nested(make_app, runs, {"tags": ["news"]})
    nested.is_shown = False
    visit(nested.app)
    nested.purge("news")
    assert is_stored(nested.app)


# -- where nothing is being made -------------------------------------------------------------------------------------


def say_all(cache: StaleCache) -> None:
    cache.tag("news")
    cache.tag()
    cache.max_age(0)
    cache.no_store()


@pytest.mark.parametrize("where", ["nowhere", "app context", "request context"])
def test_outside_of_any_origin_nothing_happens(make_app: MakeApp, where: str) -> None:
    app, cache = make_app()
    add(app, cache, lambda: "page")
    if where == "nowhere":
        say_all(cache)
    else:
        with app.app_context() if where == "app context" else app.test_request_context("/"):
            say_all(cache)
    assert words_at(app, "/", 2) == ["MISS", "HIT"]


def test_an_object_without_an_app_may_speak() -> None:
    say_all(StaleCache())


def test_what_an_uncached_view_says_is_nobodys(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.add_url_rule("/live", "live", lambda: say_all(cache) or "live")
    add(app, cache, lambda: "page")
    assert visit(app, "/live").text == "live"
    assert words_at(app, "/", 2) == ["MISS", "HIT"]


def test_what_hooks_say_is_nobodys(make_app: MakeApp) -> None:
    app, cache = make_app()

    def speak(answer: Any = None, *_: object) -> Any:
        say_all(cache)
        return answer

    app.before_request(speak)
    app.after_request(speak)
    app.teardown_request(lambda error: say_all(cache))
    app.url_value_preprocessor(lambda endpoint, values: say_all(cache))
    add(app, cache, lambda: "page")
    visit(app)
    assert not purged_by(app, cache, "news")
    assert visit(app).word == "HIT"


@pytest.mark.parametrize("name", ["unless", "key", "prefer_stale", "response_filter", "tags"])
def test_what_the_callables_beside_the_view_say_is_nobodys(make_app: MakeApp, name: str) -> None:
    answers = {"unless": False, "key": "all", "prefer_stale": False, "response_filter": True, "tags": []}
    app, cache = make_app()
    add(app, cache, lambda: "page", **{name: lambda *_: say_all(cache) or answers[name]})
    visit(app)
    assert not purged_by(app, cache, "news")
    assert visit(app).word == "HIT"


def test_where_the_cache_is_off_nothing_happens(make_app: MakeApp, runs: Runs) -> None:
    app, cache = make_app(ENABLED=False)

    def view() -> str:
        say_all(cache)
        return runs()

    add(app, cache, view, tags=wrong)
    assert [visit(app).page for _ in range(2)] == [("", "page, run 1"), ("", "page, run 2")]


# -- what is not accepted --------------------------------------------------------------------------------------------

BAD_WORDS: list[Any] = [
    *[
        pytest.param(lambda cache, value=value: cache.tag(value), repr(value), "tag contains", id=f"tag {value!r}")
        for value in ("", 7, None, True, b"news", ["news"], ("news",), 1.5)
    ],
    pytest.param(lambda cache: cache.tag("news", ""), "''", "tag contains", id="one tag of two"),
    *[
        pytest.param(lambda cache, value=value: cache.max_age(value), f"max_age={value!r}", "seconds", id=f"max_age {value!r}")
        for value in (-1, -0.5, "5", None, True, float("nan"), float("inf"), [5])
    ],
    pytest.param(lambda cache: cache.max_age(timedelta(seconds=-1)), "max_age=-1.0", "seconds", id="a negative timedelta"),
]


@pytest.mark.parametrize(("say", "value", "said"), BAD_WORDS)
def test_a_bad_word_is_refused_by_name_and_value(say: Callable[[StaleCache], object], value: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        say(StaleCache())
    assert value in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(("say", "value", "said"), BAD_WORDS[:1] + BAD_WORDS[-1:])
@pytest.mark.parametrize("enabled", [True, False])
def test_a_bad_word_in_a_view_is_the_views_error(
    make_app: MakeApp, say: Callable[[StaleCache], object], value: str, said: str, enabled: bool
) -> None:
    app, cache = make_app(ENABLED=enabled)
    app.testing = True
    add(app, cache, lambda: say(cache) or "page")
    with pytest.raises(ConfigError, match=said):
        visit(app)


# -- personal pages stay personal ------------------------------------------------------------------------------------


def test_whatever_is_said_a_members_page_is_theirs(make_app: MakeApp) -> None:
    app, cache = make_app()

    def view() -> str:
        cache.tag("news")
        cache.max_age(5)
        return f"for {request.cookies.get('user', 'anybody')}"

    add(app, cache, view)
    assert [visit(app, "/", who).page for who in (ANN, NOBODY, ANN, NOBODY)] == [
        ("MISS", "for ann"),
        ("MISS", "for anybody"),
        ("BYPASS", "for ann"),
        ("HIT", "for anybody"),
    ]


@pytest.mark.parametrize(
    ("is_member", "member"),
    [
        pytest.param(lambda: "user" in request.cookies, ANN, id="cookie"),
        pytest.param(lambda: bool(request.headers.get("X-User")), {"X-User": "ann"}, id="field"),
        pytest.param(lambda: "user" in session or "session" in request.cookies, {"Cookie": "session=x"}, id="session"),
    ],
)
def test_a_page_that_forbids_storing_for_members_is_stored_for_all_others(
    make_app: MakeApp, clock: time_machine.Traveller, is_member: Callable[[], bool], member: dict[str, str]
) -> None:
    """What is said to a member says nothing of the others: no mark, and their copy stays."""
    app, cache = make_app()

    def view() -> str:
        if is_member():
            cache.no_store()
            return "for a member"
        return "for anybody"

    add(app, cache, view)
    assert words(app, member, NOBODY, NOBODY, member, NOBODY) == ["MISS", "MISS", "HIT", "BYPASS", "HIT"]
    clock.shift(61)
    assert words(app, member, NOBODY) == ["BYPASS", "STALE"]


def test_no_store_does_not_hide_what_was_read(make_app: MakeApp) -> None:
    """A member's page says it, an anonymous one does not: what kept the first one out is remembered by its name."""
    app, cache = make_app()

    def view() -> str:
        user = request.cookies.get("user")
        if user == "ann":
            cache.no_store()
        return f"for {user or 'anybody'}"

    add(app, cache, view)
    bob = {"Cookie": "user=bob"}
    texts = [visit(app, "/", who).text for who in (ANN, bob, NOBODY, bob, ANN, NOBODY)]
    assert texts == ["for ann", "for bob", "for anybody", "for bob", "for ann", "for anybody"]
