"""Responses to visitors: windows and switches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

import pytest
import time_machine
from flask import Flask, Response, g
from werkzeug.http import http_date

from flask_stalecache import StaleCache
from support.client import MakeApp, settle, visit
from support.clock import NOON
from support.responses import PAGE, WINDOWS, Switch, site

# -- windows -----------------------------------------------------------------------------------------------------------


CONFIGURED = {"MAX_AGE": 30, "STALE_WHILE_REVALIDATE": 40, "STALE_IF_ERROR": 50}


def probes(fresh: int, swr: int, sie: int) -> list[tuple[int, bool, str]]:
    """Return when to request a page with these windows, in seconds, whether the view fails then, and the expected word."""
    last_fresh = [(fresh - 1, False, "HIT")] if fresh else []
    in_swr = [(fresh, False, "STALE"), (fresh + swr - 1, False, "STALE")] if swr else []
    in_sie = [(fresh + sie - 1, True, "STALE")] if sie > swr else []
    return [*last_fresh, *in_swr, (fresh + swr, False, "EXPIRED"), *in_sie, (fresh + max(swr, sie), True, "")]


@pytest.mark.parametrize(
    ("headers", "code", "windows"),
    [
        ({}, {}, (30, 40, 50)),
        ({}, {"max_age": 10}, (10, 40, 50)),
        ({}, {"max_age": 10, "stale_while_revalidate": 5, "stale_if_error": 7}, (10, 5, 7)),
        ({}, {"stale_while_revalidate": 0, "stale_if_error": 0}, (30, 0, 0)),
        ({"Cache-Control": "max-age=20"}, {}, (20, 40, 50)),
        ({"Cache-Control": "max-age=20"}, {"max_age": 10}, (10, 40, 50)),
        ({"Cache-Control": "max-age=20, stale-while-revalidate=3, stale-if-error=6"}, {}, (20, 3, 6)),
        ({"Cache-Control": "max-age=20, stale-while-revalidate=3, stale-if-error=6"}, {"stale_if_error": 9}, (20, 3, 9)),
        ({"Cache-Control": "stale-if-error=60"}, {"max_age": 10}, (10, 40, 60)),
        ({"Cache-Control": "stale-while-revalidate=4"}, {"max_age": 10}, (10, 4, 50)),
        ({"Cache-Control": "s-maxage=15, max-age=20"}, {}, (15, 0, 0)),
        ({"Cache-Control": "s-maxage=15, stale-if-error=6"}, {}, (15, 0, 6)),
        ({"Cache-Control": "s-maxage=15, stale-while-revalidate=6"}, {}, (15, 6, 0)),
        ({"Cache-Control": "max-age=20, must-revalidate, stale-if-error=6"}, {}, (20, 0, 0)),
        ({"Cache-Control": "max-age=20, must-revalidate"}, {"stale_if_error": 9}, (20, 0, 0)),
        ({"Cache-Control": "max-age=20, proxy-revalidate"}, {"max_age": 10, "stale_while_revalidate": 9}, (10, 0, 0)),
        ({"Cache-Control": "max-age=20", "CDN-Cache-Control": "max-age=12"}, {}, (12, 40, 50)),
        ({"Stalecache-Cache-Control": "max-age=8", "CDN-Cache-Control": "max-age=12"}, {}, (8, 40, 50)),
        ({"Stalecache-Cache-Control": "max-age=8"}, {"max_age": 10}, (10, 40, 50)),
        ({"Stalecache-Cache-Control": "", "Cache-Control": "max-age=20"}, {}, (20, 40, 50)),
        ({"CDN-Cache-Control": "max-age=12, must-revalidate"}, {}, (12, 0, 0)),
        ({"CDN-Cache-Control": "max-age=12", "Cache-Control": "must-revalidate"}, {}, (12, 40, 50)),
        ({"CDN-Cache-Control": "stale-if-error=45", "Expires": "0"}, {}, (30, 40, 45)),
        ({"Expires": http_date(NOON + 25)}, {}, (25, 40, 50)),
        ({"Expires": http_date(NOON + 25), "Date": http_date(NOON + 5)}, {}, (20, 40, 50)),
        ({"Expires": http_date(NOON + 25), "Cache-Control": "max-age=20"}, {}, (20, 40, 50)),
        ({"Expires": "0"}, {}, (0, 40, 50)),
        ({"Expires": "0"}, {"max_age": 10}, (10, 40, 50)),
        ({"Cache-Control": "max-age=abc"}, {}, (0, 40, 50)),
        ({"Cache-Control": "max-age=20, max-age=25"}, {}, (0, 40, 50)),
        ({"Cache-Control": "immutable, max-age=20"}, {}, (20, 40, 50)),
    ],
)
def test_whose_rules(
    make_app: MakeApp,
    clock: time_machine.Traveller,
    headers: Mapping[str, str],
    code: Mapping[str, Any],
    windows: tuple[int, int, int],
) -> None:
    """Code, then the response's targeted field, then its Cache-Control or Expires, then the configuration; prohibitions always."""
    app, cache = make_app(**CONFIGURED, REFRESH_WORKERS=0)
    fails: list[bool] = []

    def view(number: int) -> Response:
        if any(fails):
            raise LookupError("down")
        return Response(PAGE, headers=dict(headers))

    app.add_url_rule("/<int:number>", "page", cache.cached(jitter=0, **code)(view))
    asked = probes(*windows)
    assert [visit(app, f"/{number}").word for number in range(len(asked))] == ["MISS"] * len(asked)
    now, said = 0, []
    for number, (second, failing, _) in enumerate(asked):
        clock.shift(second - now)
        now, fails[:] = second, [failing]
        said.append(visit(app, f"/{number}").word)
    assert said == [word for _, _, word in asked]


def test_cached_without_arguments_has_the_configured_windows(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    """With the usual jitter of a tenth."""
    app, cache = make_app(**CONFIGURED, REFRESH_WORKERS=0)
    app.add_url_rule("/<int:number>", "page", cache.cached()(lambda number: PAGE))
    for number in range(3):
        visit(app, f"/{number}")
    clock.shift(26.9)
    assert visit(app, "/0").word == "HIT"
    clock.shift(3.1)
    assert visit(app, "/1").word == "STALE"
    clock.shift(40)
    assert visit(app, "/2").word == "EXPIRED"


@pytest.mark.parametrize("jitter", [0, 0.1, 0.5, 1, None])
def test_jitter_shortens_freshness_by_its_share_at_most(make_app: MakeApp, jitter: float | None) -> None:
    app, cache = make_app()
    app.add_url_rule("/<int:number>", "page", cache.cached(1000, jitter=jitter)(lambda number: PAGE))
    lives = [int(visit(app, f"/{number}").headers["Cache-Status"].partition("ttl=")[2].partition(";")[0]) for number in range(30)]
    share = 0.1 if jitter is None else jitter
    assert all(1000 * (1 - share) - 1 <= life <= 1000 for life in lives)
    assert (len(set(lives)) > 1) == (share > 0)
    # The chance that all 30 draws fall into the same half is 2 in 10**9.
    assert share == 0 or min(lives) < 1000 * (1 - share / 2) < max(lives) + 1


# -- switches ----------------------------------------------------------------------------------------------------------


def test_not_enabled_is_as_if_it_were_not_there(make_app: MakeApp) -> None:
    switch = Switch()
    app, cache = make_app(ENABLED=False)
    plain = app.request_class, app.wsgi_app
    app.add_url_rule("/", "page", cache.cached(60)(switch.view))
    seen = [visit(app) for _ in range(2)]
    assert switch.runs == 2
    assert [page.text for page in seen] == [PAGE] * 2
    assert not {"Age", "ETag", "Cache-Status", "X-Cache-Status"} & set(seen[1].headers.keys())
    assert plain[0] is Flask.request_class
    with app.app_context():
        assert cache.drain(1) is True
    assert not app.config["STALECACHE_DIR"].exists()


def test_a_filter_keeps_responses_from_being_stored(make_app: MakeApp) -> None:
    switch = Switch("loading")
    asked: list[bytes] = []

    def complete(response: Response) -> object:
        asked.append(response.get_data())
        return "" if b"loading" in response.get_data() else "yes"

    app = site(make_app, switch.view, policy={**WINDOWS, "response_filter": complete})
    assert visit(app).page == ("MISS", "loading")
    assert visit(app).page == ("MISS", "loading")
    switch.answer = PAGE
    assert visit(app).page == ("MISS", PAGE)
    assert visit(app).page == ("HIT", PAGE)
    assert asked == [b"loading", b"loading", PAGE.encode()]


def test_a_filter_is_asked_of_a_refresh_too(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    switch = Switch()
    app = site(make_app, switch.view, policy={**WINDOWS, "response_filter": lambda response: b"loading" not in response.get_data()})
    visit(app)
    switch.answer = "loading"
    clock.shift(61)
    assert visit(app).page == ("STALE", PAGE)
    switch.answer = "later"
    assert "loading" not in visit(app).text


def test_a_filter_does_not_change_what_is_sent(make_app: MakeApp) -> None:
    app = site(make_app, policy={**WINDOWS, "response_filter": lambda response: response.direct_passthrough is False})
    assert [visit(app).page for _ in range(2)] == [("MISS", PAGE), ("HIT", PAGE)]


def test_a_filter_that_raises_is_no_error_to_visitors(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """The cache never turns a working page into an error."""

    def broken(response: Response) -> bool:
        raise LookupError("the filter is broken")

    app = site(make_app, policy={**WINDOWS, "response_filter": broken})
    assert [visit(app).page for _ in range(2)] == [("MISS", PAGE)] * 2
    assert "the filter is broken" in caplog.text


def test_the_views_own_values_reach_hooks_of_its_own_request_only(make_app: MakeApp) -> None:
    """On a hit the view does not run, so that ``g`` is what the hooks made of it."""
    app, cache = make_app()

    @app.before_request
    def begin() -> None:
        g.ran = False

    @app.after_request
    def tell(response: Response) -> Response:
        response.headers["X-Ran"] = str(g.ran)
        return response

    @app.get("/")
    @cache.cached(60)
    def page() -> str:
        g.ran = True
        return PAGE

    assert [visit(app).headers["X-Ran"] for _ in range(3)] == ["True", "False", "False"]


def test_dates_are_dates(clock: time_machine.Traveller) -> None:
    """The clock of these tests stands at noon, so that http dates can be counted with."""
    assert datetime.now(timezone.utc).timestamp() == NOON


def test_a_store_of_pages_outlives_the_app(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    """Another process on the same directory serves what the first one stored."""

    def create(cache: StaleCache) -> Callable[[], Any]:
        return cache.cached(**WINDOWS)(page_of_its_own)

    first, cache = make_app()
    first.add_url_rule("/", "page", create(cache))
    visited = visit(first)
    second, other = make_app()
    second.add_url_rule("/", "page", create(other))
    clock.shift(5)
    seen = visit(second)
    assert (seen.page, seen.headers["Age"], seen.headers["ETag"]) == (("HIT", PAGE), "5", visited.headers["ETag"])
    settle(second, other)


def page_of_its_own() -> str:
    return PAGE
