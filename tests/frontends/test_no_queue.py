"""Requests for what no policy could store don't queue for each other: at the view, at the gateways, and in sessions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask, Response, abort, make_response, request

from flask_stalecache import GatewayCache, StaleCache
from support.client import MakeApp, visit
from support.third_party import Site, ThirdParty
from support.threads import PATIENCE, crowd, results, wait_until
from support.wsgi_apps import ask

#: Long after the ten seconds of a hit-for-miss mark.
HOUR = 3600
TOGETHER = 4


class Meeting:
    """A view that can make its visitors meet: each waits for the others, so that none may queue for another.

    :ivar say: makes the response.
    """

    def __init__(self, say: Callable[[], Any]) -> None:
        self.say = say
        self.runs = 0
        self.barrier: threading.Barrier | None = None

    def __call__(self) -> Any:
        self.runs += 1
        if self.barrier is not None:
            self.barrier.wait(PATIENCE)
        return self.say()

    def of(self, ask: Callable[[], object]) -> None:
        """Let visitors come at once, and fail if one waits for another's answer."""
        self.barrier = threading.Barrier(TOGETHER)
        results(crowd(TOGETHER, ask))
        assert not self.barrier.broken, "a visitor has waited for another one's answer"
        self.barrier = None


def saying(control: str = "", status: int = 200, **fields: str) -> Callable[[], Response]:
    """Return a view whose response says this."""

    def say() -> Response:
        response = Response("page", status)
        if control:
            response.headers["Cache-Control"] = control
        response.headers.extend({name.replace("_", "-"): value for name, value in fields.items()})
        return response

    return say


def no_page() -> None:
    abort(404)


NOTHING_SAID = [
    pytest.param(saying(), 1, id="nothing says how long"),
    pytest.param(saying(status=302, Location="/x"), 1, id="a redirect"),
    pytest.param(saying("max-age=0"), 1, id="never fresh"),
    pytest.param(saying("no-store"), 2, id="no-store"),
    pytest.param(saying("private"), 2, id="private"),
    pytest.param(saying("max-age=60", Set_Cookie="a=b"), 2, id="sets a cookie"),
    pytest.param(saying("max-age=60", Vary="*"), 2, id="Vary: *"),
    pytest.param(no_page, 1, id="404"),
]


@pytest.mark.parametrize(("say", "before"), NOTHING_SAID)
def test_at_the_gateway_of_an_app(make_app: MakeApp, clock: time_machine.Traveller, say: Callable[[], Any], before: int) -> None:
    app, _ = make_app(GATEWAY=True)
    view = Meeting(say)
    app.add_url_rule("/", "page", view)
    for _ in range(before):
        visit(app)
    for _ in range(3):
        clock.shift(HOUR)
        view.of(lambda: visit(app))


@pytest.mark.parametrize(("say", "before"), NOTHING_SAID)
def test_at_the_gateway_of_any_app(directory: Path, clock: time_machine.Traveller, say: Callable[[], Any], before: int) -> None:
    app, view = Flask("other"), Meeting(say)
    app.add_url_rule("/", "page", view)
    gateway = GatewayCache(app.wsgi_app, dir=directory)
    for _ in range(before):
        ask(gateway)
    for _ in range(3):
        clock.shift(HOUR)
        view.of(lambda: ask(gateway))


@pytest.mark.parametrize(
    ("say", "policy"),
    [
        pytest.param(saying("no-store"), {}, id="no-store"),
        pytest.param(saying(status=404), {}, id="a status that is not listed"),
        pytest.param(no_page, {}, id="abort"),
        pytest.param(saying(), {"response_filter": lambda response: False}, id="response_filter"),
        pytest.param(saying(Set_Cookie="a=b"), {}, id="sets a cookie"),
        pytest.param(lambda: Response(iter(["page"])), {}, id="a stream"),
    ],
)
def test_at_the_view(make_app: MakeApp, clock: time_machine.Traveller, say: Callable[[], Any], policy: dict[str, Any]) -> None:
    app, cache = make_app()
    view = Meeting(say)
    app.add_url_rule("/", "page", cache.cached(**policy)(view))
    for _ in range(2):
        visit(app)
    for _ in range(3):
        clock.shift(HOUR)
        view.of(lambda: visit(app))


def with_coded(make_app: MakeApp, view: Meeting, **settings: Any) -> tuple[Flask, StaleCache]:
    """Return an app with one view of the gateway, and another view."""
    app, cache = make_app(**settings)
    app.add_url_rule("/coded", "coded", cache.cached(60, gateway=True)(lambda: "page"))
    app.add_url_rule("/<name>", "other", lambda name: view())
    return app, cache


@pytest.mark.parametrize("say", [param.values[0] for param in NOTHING_SAID], ids=[param.id for param in NOTHING_SAID])
def test_one_view_of_the_gateway_makes_no_other_url_queue(make_app: MakeApp, say: Callable[[], Any]) -> None:
    """Not even the first visitors of a URL, and no file is written for it."""
    view = Meeting(say)
    app, _ = with_coded(make_app, view)
    for path in ("/a", "/b"):
        view.of(lambda path=path: visit(app, path))  # type: ignore[misc]
    directory = Path(app.config["STALECACHE_DIR"])
    assert not list(directory.glob("??/*"))


def test_nor_a_url_that_matches_nothing(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.add_url_rule("/coded", "coded", cache.cached(60, gateway=True)(lambda: "page"))
    view = Meeting(lambda: make_response("no such page", 404))
    app.register_error_handler(404, lambda error: view())
    view.of(lambda: visit(app, "/missing"))


def test_the_view_of_the_gateway_still_runs_once_for_all(make_app: MakeApp) -> None:
    runs: list[int] = []
    go_on = threading.Event()
    app, cache = make_app()

    @app.get("/")
    @cache.cached(60, gateway=True)
    def page() -> str:
        runs.append(1)
        assert go_on.wait(PATIENCE)
        return "page"

    visitors = crowd(5, lambda: visit(app))
    flights = app.extensions["stalecache"].engine.runtime.process.flights._flights
    wait_until(lambda: flights and len(next(iter(flights.values())).done.waiters) == 4)
    go_on.set()
    assert {seen.text for seen in results(visitors)} == {"page"}
    assert len(runs) == 1


def test_a_cached_view_behind_a_gateway_is_queued_for_at_the_view_alone(make_app: MakeApp) -> None:
    runs: list[int] = []
    entered: list[int] = []
    app, cache = make_app(GATEWAY=True)
    app.before_request(lambda: entered.append(1))

    @app.get("/")
    @cache.cached(60)
    def page() -> str:
        runs.append(1)
        # Wait until all of them have entered the app.
        wait_until(lambda: len(entered) == 5)
        return "page"

    assert {seen.text for seen in results(crowd(5, lambda: visit(app)))} == {"page"}
    assert len(runs) == 1


def test_the_first_answer_that_says_how_long_ends_it(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, _ = make_app(GATEWAY=True)
    view = Meeting(saying())
    app.add_url_rule("/<name>", "page", lambda name: view())
    for _ in range(2):
        visit(app, "/a")
    clock.shift(HOUR)
    view.of(lambda: visit(app, "/b"))
    view.say = saying("max-age=60")
    assert [visit(app, "/a").word for _ in range(2)] == ["MISS", "HIT"]
    clock.shift(HOUR)
    view.runs, go_on = 0, threading.Event()

    def slow() -> Response:
        assert go_on.wait(PATIENCE)
        return saying("max-age=60")()

    view.say = slow
    visitors = crowd(5, lambda: visit(app, "/c"))
    flights = app.extensions["stalecache"].engine.runtime.process.flights._flights
    wait_until(lambda: flights and len(next(iter(flights.values())).done.waiters) == 4)
    go_on.set()
    results(visitors)
    assert view.runs == 1


def test_conditions_of_the_client_reach_a_page_that_is_never_stored(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    view = Meeting(lambda: Response("page", headers={"ETag": '"a"'}).make_conditional(request))
    app, _ = with_coded(make_app, view)
    for _ in range(2):
        assert visit(app, "/a", {"If-None-Match": '"a"'}).status == 304
        clock.shift(HOUR)


def test_other_processes_learn_it_too(directory: Path, clock: time_machine.Traveller) -> None:
    app, view = Flask("other"), Meeting(saying())
    app.add_url_rule("/", "page", view)
    gateways = [GatewayCache(app.wsgi_app, dir=directory) for _ in range(2)]
    for gateway in gateways:
        ask(gateway)
        clock.shift(HOUR)
    turns = iter([gateways[number % 2] for number in range(TOGETHER)])
    view.of(lambda: ask(next(turns)))


@pytest.mark.parametrize(
    ("control", "before", "stream"),
    [
        pytest.param("max-age=60", 0, True, id="it is stored once it was read"),
        pytest.param("no-store", 2, False, id="no-store"),
        pytest.param("", 1, False, id="nothing says how long"),
    ],
)
def test_in_a_session(
    party: ThirdParty, site: Site, clock: time_machine.Traveller, control: str, before: int, stream: bool
) -> None:
    party.says(*([f"Cache-Control: {control}"] if control else []))
    session = site.session()
    for _ in range(before):
        session.get(party.url())
    clock.shift(HOUR)
    party.open.clear()

    def ask_party() -> int:
        with site.app.app_context():
            return session.get(party.url(), stream=stream).status_code

    asked = crowd(TOGETHER, ask_party)
    wait_until(lambda: party.calls == before + TOGETHER, "all of them")
    party.open.set()
    assert results(asked) == [200] * TOGETHER
