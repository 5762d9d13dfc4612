"""A gateway in front of Flask apps whose views are cached by the decorator too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    request,
    session,
    stream_with_context,
)

from flask_stalecache import ConfigError, StaleCache
from support.client import MakeApp, Seen, settle, unrecorded_environ, visit
from support.flask_gateway import ANN, CARL, NOBODY, Fields, fresh, signed, site, who_by_session

# -- beside the decorator --------------------------------------------------------------------------------------------


def statuses_of(seen: Seen) -> list[str]:
    """Return the members of ``Cache-Status``."""
    return [member for line in seen.headers.getlist("Cache-Status") for member in line.split(",")]


@pytest.mark.parametrize("chosen", [("Cache-Status", "X-Cache-Status"), ("Cache-Status",)], ids=len)
def test_a_cached_page_is_stored_once_and_speaks_once(
    make_app: MakeApp, clock: time_machine.Traveller, chosen: tuple[str, ...]
) -> None:
    app, cache = make_app(GATEWAY=True, STATUS_HEADERS=chosen)
    visits: list[bool] = []
    app.before_request(lambda: visits.append(cache.refreshing))
    calls: list[int] = []

    @app.route("/", methods=["GET", "POST"])
    @cache.cached(10, 100, 1000, jitter=0)
    def page() -> str:
        calls.append(1)
        return f"{who_by_session()} {len(calls)}"

    # Signed by the clock of the test: a cookie from another time holds nothing.
    ann = {"Cookie": signed({"user": "ann"})}
    asked: list[tuple[str, Fields]] = [("GET", NOBODY), ("GET", NOBODY), ("HEAD", NOBODY), ("POST", NOBODY), ("GET", ann)]
    said = [visit(app, "/", headers, method=method) for method, headers in asked]
    assert [len(statuses_of(seen)) for seen in said] == [1] * 5
    assert ["hit" in statuses_of(seen)[0] for seen in said] == [False, True, True, False, False]
    # Each request has entered the app: the gateway stores nothing of this page.
    assert visits == [False] * 5
    clock.shift(11)
    stale = visit(app)
    assert (stale.text, statuses_of(stale)) == ("hello stranger 1", ["stalecache; hit; ttl=-1"])
    settle(app, cache)
    assert visits == [False] * 6 + [True]
    renewed = visit(app)
    assert (renewed.text, len(calls), len(statuses_of(renewed))) == ("hello stranger 4", 4, 1)


def test_pages_take_over_tags_and_freshness_of_the_values_they_are_made_of(
    make_app: MakeApp, clock: time_machine.Traveller
) -> None:
    app, cache = make_app(GATEWAY=True)
    calls: list[str] = []

    @cache.memoize(10, 100, 1000, tags=("rates",), jitter=0)
    def rates() -> int:
        calls.append("rates")
        return calls.count("rates")

    def view() -> Response:
        calls.append("page")
        return Response(f"rate {rates()}", headers={"Cache-Control": "max-age=60, stale-while-revalidate=100"})

    site(view)(app)
    assert [visit(app).page for _ in range(2)] == [("MISS", "rate 1"), ("HIT", "rate 1")]
    clock.shift(11)
    # Its refresh renews the value first.
    assert visit(app).page == ("STALE", "rate 1")
    settle(app, cache)
    assert visit(app).page == ("HIT", "rate 2")
    assert calls == ["page", "rates", "rates", "page"]
    with app.app_context():
        cache.purge(tag="rates")
    assert visit(app).page == ("MISS", "rate 3")


def test_a_stream_takes_them_over_too(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache = make_app(GATEWAY=True)

    @cache.memoize(10, tags=("rates",), jitter=0)
    def rates() -> int:
        return 1

    def chunks() -> Iterator[str]:
        yield "rate "
        cache.tag("late")
        yield str(rates())

    site(lambda: Response(stream_with_context(chunks())))(app)
    assert [visit(app).page for _ in range(2)] == [("MISS", "rate 1"), ("HIT", "rate 1")]
    for tag in ("rates", "late"):
        with app.app_context():
            cache.purge(tag=tag)
        assert [visit(app).word for _ in range(2)] == ["MISS", "HIT"]
    clock.shift(11)
    assert visit(app).word == "EXPIRED"


@pytest.mark.parametrize("where", ["view", "hook", "stream"])
def test_the_app_has_the_last_word(make_app: MakeApp, clock: time_machine.Traveller, where: str) -> None:
    app, cache = make_app(GATEWAY=True)

    def speak(response: Any = None) -> Any:
        if request.path == "/never":
            cache.no_store()
        cache.max_age(5)
        cache.tag("news")
        return response

    def chunks() -> Iterator[str]:
        yield "pa"
        speak()
        yield "ge"

    def view(**args: str) -> Any:
        if where == "view":
            speak()
        return Response(stream_with_context(chunks())) if where == "stream" else "page"

    app.add_url_rule("/<name>", "page", view)
    app.after_request(fresh)
    if where == "hook":
        app.after_request(speak)
    assert [visit(app, "/never").word == "HIT" for _ in range(2)] == [False, False]
    assert [visit(app, "/page").word for _ in range(2)] == ["MISS", "HIT"]
    clock.shift(4)
    assert visit(app, "/page").word == "HIT"
    clock.shift(2)
    assert [visit(app, "/page").word for _ in range(2)] == ["EXPIRED", "HIT"]
    with app.app_context():
        cache.purge(tag="news")
    assert visit(app, "/page").word == "MISS"


@pytest.mark.grid
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    "selector",
    [{"tag": "news"}, {"url": "/en/a?x=1"}, {"url": "http://localhost/en/a?x=1"}, {"endpoint": "news.page"}, {"all": True}],
    ids=lambda selector: next(iter(selector)),
)
@pytest.mark.parametrize("varies", [False, True])
def test_another_worker_purges(make_app: MakeApp, selector: dict[str, Any], soft: bool, varies: bool) -> None:
    """Two apps over one directory, as two workers have them."""

    def worker() -> tuple[Flask, StaleCache]:
        app, cache = make_app(GATEWAY=True)
        bp = Blueprint("news", __name__, url_prefix="/<lang>")

        @bp.get("/a")
        def page(lang: str) -> Response:
            cache.tag("news")
            made.append(cache.refreshing)
            control = {"Cache-Control": "max-age=60, stale-while-revalidate=60"}
            return Response("page", headers={**control, "Vary": "Accept-Language"} if varies else control)

        app.register_blueprint(bp)
        return app, cache

    made: list[bool] = []
    (app, cache), (other, others) = worker(), worker()
    fields = {"Accept-Language": "en"}
    assert [visit(each, "/en/a?x=1", fields).word for each in (app, app, other, other)] == ["MISS", "HIT", "HIT", "HIT"]
    with other.app_context():
        others.purge(**selector, soft=soft)
    assert visit(app, "/en/a?x=1", fields).word == ("STALE" if soft else "MISS")
    settle(app, cache)
    assert visit(app, "/en/a?x=1", fields).word == "HIT"
    assert visit(other, "/en/a?x=1", fields).word == "HIT"
    assert made == [False, soft]


def test_a_refresh_is_told_from_a_visit_and_enters_the_app(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache = make_app(GATEWAY=True)
    seen: list[tuple[bool, str, str | None, str | None]] = []

    def look() -> None:
        # Past the recorder, since a page that depends on these is not stored.
        environ = unrecorded_environ()
        seen.append((cache.refreshing, request.url, environ.get("REMOTE_ADDR"), environ.get("HTTP_COOKIE")))

    def view() -> Response:
        return Response("page", headers={"Cache-Control": "max-age=10, stale-while-revalidate=60"})

    site(view, before_request=look)(app)
    visit(app, "/?a=1", {"Host": "shop.example", **CARL})
    clock.shift(11)
    assert visit(app, "/?a=1", {"Host": "shop.example", **CARL}).word == "STALE"
    settle(app, cache)
    assert visit(app, "/?a=1", {"Host": "shop.example"}).word == "HIT"
    url = "http://shop.example/?a=1"
    assert seen == [(False, url, "192.0.2.7", "theme=dark"), (True, url, "192.0.2.1", None)]


def test_a_failing_app_is_covered(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, _ = make_app(GATEWAY=True)
    calls: list[int] = []

    def view() -> Response:
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("down")
        return Response("page", headers={"Cache-Control": "max-age=10, stale-if-error=100"})

    site(view)(app)
    app.config["PROPAGATE_EXCEPTIONS"] = False
    visit(app)
    clock.shift(11)
    assert [visit(app).page for _ in range(3)] == [("STALE", "page")] * 3
    assert len(calls) == 2
    clock.shift(100)
    assert visit(app).status == 500


# -- cached(gateway=True) --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("early", [True, False], ids=["decorated before init_app", "decorated after"])
def test_a_hit_of_a_gateway_view_does_not_enter_the_app(directory: Path, early: bool) -> None:
    cache, app, visits = StaleCache(), Flask("shop"), []
    app.config["STALECACHE_DIR"] = directory
    app.before_request(lambda: visits.append(request.path))
    if not early:
        cache.init_app(app)
    app.add_url_rule("/", "page", cache.cached(60, gateway=True)(lambda: "page"))
    app.add_url_rule("/other", "other", lambda: Response("other", headers={"Cache-Control": "public, max-age=60"}))
    app.add_url_rule("/cached", "cached", cache.cached(60)(lambda: "cached"))
    if early:
        cache.init_app(app)
    assert [visit(app).page for _ in range(3)] == [("MISS", "page"), ("HIT", "page"), ("HIT", "page")]
    assert visits == ["/"]
    # Nothing else is stored by the gateway.
    assert [visit(app, "/other").word == "HIT" for _ in range(2)] == [False, False]
    assert [visit(app, "/cached").page for _ in range(2)] == [("MISS", "cached"), ("HIT", "cached")]
    assert visits == ["/", "/other", "/other", "/cached", "/cached"]


def test_a_gateway_view_has_the_windows_that_cached_has(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    """As the documentation of ``cached`` has it: code, then the response, then the configuration with its defaults."""
    app, cache = make_app()
    says = {"Cache-Control": "max-age=5"}
    app.add_url_rule("/bare", "bare", cache.cached(gateway=True, jitter=0)(lambda: "page"))
    app.add_url_rule("/said", "said", cache.cached(gateway=True, jitter=0)(lambda: Response("page", headers=says)))
    app.add_url_rule("/coded", "coded", cache.cached(20, gateway=True, jitter=0)(lambda: Response("page", headers=says)))
    pages = ("/bare", "/said", "/coded")

    def words() -> list[str]:
        return [visit(app, path).word for path in pages]

    assert words() == ["MISS"] * 3
    clock.shift(4)
    assert words() == ["HIT"] * 3
    clock.shift(2)
    assert words() == ["HIT", "STALE", "HIT"]
    settle(app, cache)
    clock.shift(15)
    assert words() == ["HIT", "STALE", "STALE"]
    settle(app, cache)
    clock.shift(40)
    assert words() == ["STALE"] * 3
    settle(app, cache)
    # Past stale-while-revalidate, and within stale-if-error.
    clock.shift(60 + 600 + 1)
    assert words() == ["EXPIRED"] * 3


def test_the_jitter_of_a_gateway_view_is_its_own(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache = make_app()
    app.add_url_rule("/<number>", "page", cache.cached(1000, gateway=True, jitter=0.5)(lambda number: "page"))
    app.add_url_rule("/exact/<number>", "exact", cache.cached(1000, gateway=True, jitter=0)(lambda number: "page"))

    def ttls(prefix: str) -> set[str]:
        return {
            visit(app, f"{prefix}/{number}").headers["Cache-Status"].partition("ttl=")[2].partition(";")[0] for number in range(20)
        }

    assert ttls("/exact") == {"1000"}
    spread = {int(ttl) for ttl in ttls("")}
    assert len(spread) > 5
    assert 500 <= min(spread) < 900


def test_a_gateway_view_says_what_cached_says(make_app: MakeApp) -> None:
    """statuses, tags, vary and response_filter, by the names that ``cached`` has."""
    app, cache = make_app()
    calls: list[str] = []

    def view(name: str) -> Any:
        calls.append(name)
        if name == "gone":
            abort(404)
        return Response(f"{name} {request.headers.get('X-Kind', '-')}", headers={"X-Keep": "no" if name == "kept-out" else "yes"})

    decorated = cache.cached(
        60,
        gateway=True,
        statuses={410: 5},
        tags=lambda name: (f"page-{name}",),
        vary=("X-Kind",),
        response_filter=lambda response: response.headers["X-Keep"] == "yes",
    )(view)
    app.add_url_rule("/<name>", "page", decorated)
    assert [visit(app, "/a", {"X-Kind": kind}).page for kind in "xyx"] == [("MISS", "a x"), ("MISS", "a y"), ("HIT", "a x")]
    assert "X-Kind" in visit(app, "/a").headers["Vary"]
    with app.app_context():
        cache.purge(tag="page-b")
    assert visit(app, "/a", {"X-Kind": "x"}).word == "HIT"
    with app.app_context():
        cache.purge(tag="page-a")
    assert visit(app, "/a", {"X-Kind": "x"}).word == "MISS"
    assert [visit(app, "/kept-out").word == "HIT" for _ in range(2)] == [False, False]


@pytest.mark.parametrize("wrong", ["tags", "response_filter"])
def test_a_callable_of_a_gateway_view_that_raises_breaks_no_page(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    app, cache = make_app()

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("not today")

    app.add_url_rule("/", "page", cache.cached(60, gateway=True, **{wrong: broken})(lambda: "page"))
    assert [visit(app).page[1] for _ in range(2)] == ["page"] * 2
    assert visit(app).word != "HIT"
    assert "not today" in caplog.text


def test_statuses_of_a_gateway_view(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.add_url_rule("/listed", "listed", cache.cached(60, gateway=True, statuses={418: 60})(lambda: ("tea", 418)))
    app.add_url_rule("/unlisted", "unlisted", cache.cached(60, gateway=True)(lambda: ("tea", 418)))
    app.add_url_rule("/aborted", "aborted", cache.cached(60, gateway=True, statuses={410: 60})(lambda: abort(410)))
    assert [visit(app, "/listed").word for _ in range(2)] == ["MISS", "HIT"]
    assert [visit(app, "/unlisted").word == "HIT" for _ in range(2)] == [False, False]
    assert [(seen.status, seen.word) for seen in (visit(app, "/aborted"), visit(app, "/aborted"))] == [(410, "MISS"), (410, "HIT")]


@pytest.mark.parametrize("ignored", [True, False])
def test_a_gateway_view_may_ignore_the_session(make_app: MakeApp, ignored: bool) -> None:
    app, cache = make_app()
    app.add_url_rule("/", "page", cache.cached(60, gateway=True, ignore_session=ignored)(lambda: f"page {bool(session)}"))
    words = [visit(app, "/", headers).word for headers in (NOBODY, ANN, NOBODY)]
    assert words == (["MISS", "HIT", "HIT"] if ignored else ["MISS", "BYPASS", "HIT"])


#: Parameters for which a hit would have to call the app, and what the error advises instead.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unless": ({"unless": lambda: False}, "STALECACHE_GATEWAY"),
    "key": ({"key": lambda: "x"}, "vary="),
    "ignored_parameters": ({"ignored_parameters": ("utm_*",)}, "STALECACHE_IGNORED_PARAMETERS"),
    "prefer_stale": ({"prefer_stale": False}, "STALECACHE_GATEWAY"),
    "wait": ({"wait": 0.5}, "STALECACHE_GATEWAY"),
    "lock_timeout": ({"lock_timeout": 1}, "STALECACHE_GATEWAY"),
    "refresh_ahead": ({"refresh_ahead": 1}, "STALECACHE_GATEWAY"),
    "vary": ({"vary": {"Accept-Language": lambda value: "en"}}, "normaliser"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_hit_would_have_to_ask_the_app_is_refused_at_decoration(make_app: MakeApp, name: str) -> None:
    _, cache = make_app()
    given, advice = REFUSED[name]
    with pytest.raises(ConfigError) as refused:
        cache.cached(60, gateway=True, **given)
    assert name in str(refused.value)
    assert advice in str(refused.value)


@pytest.mark.parametrize("given", [{"lock_timeout": 0}, {"wait": 0}, {"refresh_ahead": 0}])
def test_zero_is_said_too(make_app: MakeApp, given: dict[str, Any]) -> None:
    """``lock_timeout=0`` and ``wait=0`` set something, and are refused. ``refresh_ahead=0`` changes nothing, and is accepted."""
    _, cache = make_app()
    if "refresh_ahead" in given:
        cache.cached(60, gateway=True, **given)
    else:
        with pytest.raises(ConfigError):
            cache.cached(60, gateway=True, **given)
