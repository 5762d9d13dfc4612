"""A refresh that a hook refuses is a failure that backs off: it says nothing about the page, which visitors still get."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import flask_limiter
import flask_limiter.util
import pytest
import time_machine
from flask import Flask, Response, abort, redirect, request

from flask_stalecache import GatewayCache, Policy, StaleCache
from support.client import MakeApp, settle, visit
from support.wsgi_apps import App, ask

POLICY = Policy(max_age=10, stale_while_revalidate=1000, stale_if_error=10000, jitter=0)
WINDOWS = {"max_age": 10, "stale_while_revalidate": 1000, "stale_if_error": 10000, "jitter": 0}


class Shop:
    """A Flask app with one page, and a hook that may refuse requests.

    :ivar runs: calls of the view.
    :ivar asked: requests that reached the hook in the background.
    """

    def __init__(self, folder: Path, *, at_view: dict[str, Any] | None, gateway: Any) -> None:
        app = self.app = Flask("shop")
        app.config.update(STALECACHE_DIR=folder, STALECACHE_GATEWAY=gateway, STALECACHE_REFRESH_BACKOFF=(20, 300))
        cache = self.cache = StaleCache(app)
        self.runs: list[int] = []
        self.asked = 0
        self.refuse: Callable[[], Any] = lambda: None
        self.answer: Callable[[], Any] | None = None

        def page() -> Any:
            self.runs.append(1)
            return f"run {len(self.runs)}" if self.answer is None else self.answer()

        @app.before_request
        def look() -> Any:
            if cache.refreshing:
                self.asked += 1
                return self.refuse()
            return None

        app.add_url_rule("/", "page", page if at_view is None else cache.cached(**at_view)(page))

    def visit(self) -> tuple[str, str]:
        seen = visit(self.app)
        settle(self.app, self.cache)
        return seen.page


FRONT_ENDS: dict[str, Callable[[Path], Shop]] = {
    "view": lambda folder: Shop(folder, at_view=WINDOWS, gateway=False),
    "view of the gateway": lambda folder: Shop(folder, at_view={**WINDOWS, "gateway": True}, gateway=False),
    "gateway": lambda folder: Shop(folder, at_view=None, gateway=[("/*", POLICY)]),
}


@pytest.fixture(params=list(FRONT_ENDS))
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Shop:
    return FRONT_ENDS[request.param](tmp_path)


REFUSALS: dict[str, Callable[[], Any]] = {
    "401": lambda: abort(401),
    "403": lambda: ("secret field missing", 403),
    "429": lambda: abort(429),
    "302": lambda: redirect("/login"),
    "200": lambda: Response("log in", headers={"Cache-Control": "private"}),
}


@pytest.mark.grid
@pytest.mark.parametrize("refuse", REFUSALS.values(), ids=REFUSALS)
def test_the_page_stays_and_the_refresh_backs_off(shop: Shop, clock: time_machine.Traveller, refuse: Callable[[], Any]) -> None:
    assert [shop.visit(), shop.visit()] == [("MISS", "run 1"), ("HIT", "run 1")]
    shop.refuse = refuse
    clock.shift(11)
    assert shop.visit() == ("STALE", "run 1")
    assert [shop.visit() for _ in range(3)] == [("UPDATING", "run 1")] * 3
    assert shop.asked == 1
    shop.refuse = lambda: None
    clock.shift(301)
    assert shop.visit() == ("STALE", "run 1")
    assert shop.visit() == ("HIT", "run 2")


def test_what_the_view_says_is_about_the_page(shop: Shop, clock: time_machine.Traveller) -> None:
    shop.visit()
    shop.answer = lambda: abort(403)
    clock.shift(11)
    assert shop.visit() == ("STALE", "run 1")
    assert visit(shop.app).status == 403


def test_too_many_requests_of_the_view_is_a_failure_that_says_when_to_come_again(shop: Shop, clock: time_machine.Traveller) -> None:
    shop.visit()
    shop.answer = lambda: Response("slow down", 429, {"Retry-After": "500"})
    clock.shift(11)
    assert [shop.visit() for _ in range(2)] == [("STALE", "run 1"), ("UPDATING", "run 1")]
    shop.answer = None
    clock.shift(490)
    assert shop.visit() == ("UPDATING", "run 1")
    clock.shift(11)
    assert [shop.visit() for _ in range(2)] == [("STALE", "run 1"), ("HIT", "run 3")]


def test_too_many_requests_of_one_visitor_are_not_anothers(shop: Shop) -> None:
    def limited() -> Any:
        return Response("slow down", 429) if len(shop.runs) == 1 else "welcome"

    shop.answer = limited
    assert visit(shop.app).status == 429
    assert [shop.visit(), shop.visit()] == [("MISS", "welcome"), ("HIT", "welcome")]


@pytest.mark.parametrize("gone", [404, 410])
def test_a_hook_that_says_that_there_is_no_page_takes_it_away_at_the_gateway(
    tmp_path: Path, clock: time_machine.Traveller, gone: int
) -> None:
    shop = FRONT_ENDS["gateway"](tmp_path)
    shop.visit()
    shop.refuse = lambda: abort(gone)
    clock.shift(11)
    assert shop.visit() == ("STALE", "run 1")
    # A rule keeps a 404 for its stale windows, as it keeps the page.
    assert "run 1" not in shop.visit()[1]


def test_a_limiter_that_counts_refreshes(tmp_path: Path, clock: time_machine.Traveller) -> None:
    shop = FRONT_ENDS["gateway"](tmp_path)
    by_address = flask_limiter.util.get_remote_address
    limiter = flask_limiter.Limiter(by_address, app=shop.app, storage_uri="memory://", default_limits=["1 per minute"])
    shop.visit()
    clock.shift(11)
    # Each comes from an address of its own, so that the first refresh is let through, and the second is not.
    assert [shop.visit(), shop.visit()] == [("STALE", "run 1"), ("HIT", "run 2")]
    clock.shift(11)
    assert [shop.visit() for _ in range(2)] == [("STALE", "run 2"), ("UPDATING", "run 2")]
    clock.shift(61)
    assert [shop.visit() for _ in range(2)] == [("STALE", "run 2"), ("HIT", "run 3")]
    limiter.request_filter(lambda: shop.cache.refreshing)
    for number in range(3, 6):
        clock.shift(11)
        assert [shop.visit() for _ in range(2)] == [("STALE", f"run {number}"), ("HIT", f"run {number + 1}")]


def test_too_many_requests_before_any_wsgi_app(tmp_path: Path, clock: time_machine.Traveller) -> None:
    calls: list[str] = []

    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        calls.append(environ["REQUEST_METHOD"])
        is_refused = len(calls) == 2
        start_response("429 Too Many Requests" if is_refused else "200 OK", [("Retry-After", "100")] if is_refused else [])
        return [b"%d" % len(calls)]

    gateway = GatewayCache(App(answer), dir=tmp_path, rules=[("/*", POLICY)])

    def page() -> tuple[str, bytes]:
        seen = ask(gateway).page
        assert gateway.drain(10)
        return seen

    assert page() == ("MISS", b"1")
    clock.shift(11)
    assert [page(), page()] == [("STALE", b"1"), ("UPDATING", b"1")]
    clock.shift(80)
    assert page() == ("UPDATING", b"1")
    clock.shift(30)
    assert [page(), page()] == [("STALE", b"1"), ("HIT", b"3")]


# -- fields that refreshes carry -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(FRONT_ENDS))
@pytest.mark.parametrize("is_sent_by_visitors", [True, False])
def test_a_refresh_carries_the_fields_that_are_configured(
    make_app: MakeApp, clock: time_machine.Traveller, kind: str, is_sent_by_visitors: bool
) -> None:
    secret = {"X-Origin-Secret": "abc"}
    ignored = {"IGNORED_HEADERS": [*secret]} if is_sent_by_visitors else {}
    app, cache = make_app(GATEWAY=[("/*", POLICY)] if kind == "gateway" else False, REFRESH_HEADERS=secret, **ignored)
    runs: list[str] = []

    @app.before_request
    def check() -> Any:
        is_right = request.headers.get("X-Origin-Secret") == "abc"
        return None if is_right or not (cache.refreshing or is_sent_by_visitors) else ("no", 403)

    def page() -> str:
        runs.append(request.args.get("q", ""))
        return f"run {len(runs)}"

    how = {"view": WINDOWS, "view of the gateway": {**WINDOWS, "gateway": True}, "gateway": None}[kind]
    app.add_url_rule("/", "page", page if how is None else cache.cached(**how)(page))
    sent = secret if is_sent_by_visitors else {}
    assert [visit(app, headers=sent).page for _ in range(2)] == [("MISS", "run 1"), ("HIT", "run 1")]
    for number in (1, 2):
        clock.shift(11)
        assert visit(app, headers=sent).page == ("STALE", f"run {number}")
        settle(app, cache)
        assert visit(app, headers=sent).page == ("HIT", f"run {number + 1}")


def test_a_refresh_before_any_wsgi_app_carries_them(tmp_path: Path, clock: time_machine.Traveller) -> None:
    calls: list[str | None] = []

    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        calls.append(environ.get("HTTP_X_API_KEY"))
        start_response("200 OK", [])
        return [b"%d" % len(calls)]

    gateway = GatewayCache(App(answer), dir=tmp_path, rules=[("/*", POLICY)], refresh_headers={"X-Api-Key": "abc"})
    assert ask(gateway).page == ("MISS", b"1")
    clock.shift(11)
    assert ask(gateway).page == ("STALE", b"1")
    assert gateway.drain(10)
    assert ask(gateway).page == ("HIT", b"2")
    assert calls == [None, "abc"]


def test_the_command_line_does_not_show_their_values(make_app: MakeApp) -> None:
    app, _ = make_app(REFRESH_HEADERS={"X-Origin-Secret": "abc"})
    output = app.test_cli_runner().invoke(args=["stalecache", "config"]).output
    assert "STALECACHE_REFRESH_HEADERS" in output
    assert "x-origin-secret" in output
    assert "abc" not in output


# -- statuses that are failures ---------------------------------------------------------------------------------------


@pytest.mark.grid
@pytest.mark.parametrize("kind", list(FRONT_ENDS))
@pytest.mark.parametrize("raised", [True, False])
@pytest.mark.parametrize(("chosen", "is_kept"), [((404, 503), True), ((503,), False)])
def test_a_status_that_is_configured_as_a_failure_keeps_the_page(
    make_app: MakeApp, clock: time_machine.Traveller, kind: str, raised: bool, chosen: tuple[int, ...], is_kept: bool
) -> None:
    app, cache = make_app(GATEWAY=[("/*", POLICY)] if kind == "gateway" else False, FAILURE_STATUSES=chosen)
    gone = [True]

    def page() -> Any:
        if gone:
            return abort(404) if raised else ("gone", 404)
        return "page"

    how = {"view": WINDOWS, "view of the gateway": {**WINDOWS, "gateway": True}, "gateway": None}[kind]
    app.add_url_rule("/<name>", "page", lambda name: page()) if how is None else app.add_url_rule(
        "/<name>", "page", cache.cached(**how)(lambda name: page())
    )
    # Without a stored page, a 404 is an answer like any other.
    assert visit(app, "/other").status == 404
    gone.clear()
    assert visit(app, "/a").page == ("MISS", "page")
    gone.append(True)
    clock.shift(2000)
    assert (visit(app, "/a").status, visit(app, "/a").status) == ((200, 200) if is_kept else (404, 404))
