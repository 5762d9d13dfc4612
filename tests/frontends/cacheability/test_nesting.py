"""What a view says of its page: cached views within others, bad arguments, and personal pages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from flask import make_response, request, session

from flask_stalecache import ConfigError, StaleCache
from support.cacheability import WINDOWS, Runs, add, is_stored, purged_by, words_at, wrong
from support.client import MakeApp, settle, visit, words

pytestmark = pytest.mark.usefixtures("no_housekeeping")

NOBODY: dict[str, str] = {}

ANN = {"Cookie": "user=ann"}


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


def test_what_hooks_say_after_the_view_is_nobodys(make_app: MakeApp) -> None:
    """What they say before it holds for its page: see tests/frontends/request/test_request_hints.py."""
    app, cache = make_app()

    @app.after_request
    def speak(response: Any) -> Any:
        say_all(cache)
        return response

    app.teardown_request(lambda error: say_all(cache))
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
    """``no_store`` in a member's page leaves no hit-for-miss mark for other visitors, and the page stored for them stays."""
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
    """Only Ann's page says ``no_store``. The cookie that it read still counts: members are never given the page of strangers."""
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
