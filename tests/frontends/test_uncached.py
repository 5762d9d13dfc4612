"""Every answer that is no hit is counted with its reason: by endpoint, by rule, and by function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import time_machine
from flask import Flask, Response, abort, request, session

from flask_stalecache import GatewayCache, Policy, StaleCache
from flask_stalecache.core.model.reasons import BY_CODE
from flask_stalecache.stats.tally import STATUSES
from support.client import MakeApp, visit
from support.wsgi_apps import FRESH, PLAIN

FROM_STORE = frozenset({"HIT", "STALE", "UPDATING"})
MEMBER = {"Cookie": "name=ann"}
AGENT = {"User-Agent": "a"}


def of_session() -> str:
    session["seen"] = True
    return "page"


def of_cookie() -> str:
    return request.cookies.get("name", "nobody")


def of_agent() -> str:
    return request.headers.get("User-Agent", "none")


def of_address() -> str:
    return request.environ.get("AUTH_TYPE") or "page"


def stream() -> Response:
    return Response(iter([b"a", b"b"]), mimetype="text/plain")


def broken() -> str:
    raise RuntimeError("no")


def missing() -> str:
    abort(404)


def private() -> Response:
    return Response("page", headers={"Cache-Control": "private"})


def at_view(make_app: MakeApp, view: Callable[[], Any]) -> tuple[Flask, StaleCache]:
    app, cache = make_app()
    app.add_url_rule("/", "page", cache.cached(60, 60, 60, jitter=0)(view), methods=["GET", "POST"])
    return app, cache


def at_gateway(make_app: MakeApp, view: Callable[[], Any]) -> tuple[Flask, StaleCache]:
    app, cache = make_app(GATEWAY={"/*": Policy(max_age=60, stale_while_revalidate=60, stale_if_error=60, jitter=0)})
    app.add_url_rule("/", "page", view, methods=["GET", "POST"])
    return app, cache


def counted(app: Flask, cache: StaleCache, endpoint: str = "page") -> dict[str, int]:
    """Return the reasons of an endpoint, and check that each answer that is no hit has one."""
    with app.app_context():
        stats = cache.stats()
    series = stats["endpoints"][endpoint]
    assert series["requests"].keys() == set(STATUSES)
    assert sum(series["reasons"].values()) == sum(count for status, count in series["requests"].items() if status not in FROM_STORE)
    assert series["reasons"].keys() <= BY_CODE.keys()
    assert stats["reasons"] == series["reasons"] or len(stats["endpoints"]) > 1
    return series["reasons"]


def ask(app: Flask, *asked: dict[str, Any]) -> None:
    for options in asked:
        visit(app, **options)


@pytest.mark.grid
@pytest.mark.parametrize("site", [at_view, at_gateway])
@pytest.mark.parametrize(
    ("view", "asked", "reasons"),
    [
        (lambda: "page", [{}, {}, {}], {"nothing_stored": 1}),
        (lambda: "page", [{"method": "POST"}, {"headers": {"Transfer-Encoding": "chunked"}}], {"method": 1, "body": 1}),
        (of_cookie, [{}, {}, {"headers": MEMBER}, {"headers": MEMBER}], {"nothing_stored": 1, "carries_cookie": 2}),
        (of_cookie, [{"headers": MEMBER}, {}, {}], {"nothing_stored": 1, "carries_cookie": 1}),
        (of_agent, [{"headers": AGENT}, {}, {"headers": AGENT}], {"nothing_stored": 1, "carries_field": 2}),
        (lambda: "page", [{"headers": {"Authorization": "Basic x"}}] * 2, {"authorization": 2}),
        (private, [{}, {}], {"cache_control": 2}),
    ],
    ids=["stored", "bypass", "stranger-first", "member-first", "field", "authorization", "private"],
)  # fmt: skip
def test_each_answer_that_is_no_hit_has_a_reason(
    make_app: MakeApp,
    site: Callable[[MakeApp, Callable[[], Any]], tuple[Flask, StaleCache]],
    view: Callable[[], Any],
    asked: list[dict[str, Any]],
    reasons: dict[str, int],
) -> None:
    app, cache = site(make_app, view)
    ask(app, *asked)
    assert counted(app, cache) == reasons


@pytest.mark.parametrize(
    ("view", "reasons"),
    [
        (of_session, {"modified_session": 2}),
        (stream, {"stream": 2}),
        (missing, {"status_not_listed": 2}),
        (broken, {"raised": 2}),
    ],
)
def test_reasons_of_a_view(make_app: MakeApp, view: Callable[[], Any], reasons: dict[str, int]) -> None:
    app, cache = at_view(make_app, view)
    ask(app, {}, {})
    assert counted(app, cache) == reasons


def test_too_old_and_renewed(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache = make_app()
    app.add_url_rule("/", "page", cache.cached(60, 0, 0, jitter=0, renew=lambda: "renew" in request.args)(lambda: "page"))
    for seconds, query in ((0, ""), (61, ""), (1, "")):
        clock.shift(seconds)
        visit(app, f"/{query}")
    assert counted(app, cache) == {"nothing_stored": 1, "too_old": 1}


def test_renew_is_a_reason(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.add_url_rule("/", "page", cache.cached(60, jitter=0, renew=lambda: True)(lambda: "page"))
    ask(app, {}, {})
    assert counted(app, cache) == {"nothing_stored": 1, "renewed": 1}


def test_a_gateway_without_rules_counts_that_nothing_gives_a_lifetime(make_app: MakeApp) -> None:
    app, cache = make_app(GATEWAY=True)
    app.add_url_rule("/", "page", lambda: "page")
    ask(app, {}, {})
    assert counted(app, cache) == {"nothing_said": 2}


def test_a_stream_at_the_gateway_is_counted_once_its_body_has_ended(make_app: MakeApp) -> None:
    app, cache = make_app(GATEWAY={"/*": Policy(max_age=60, jitter=0)}, MAX_ENTRY_SIZE=10)

    def body(size: int) -> Iterator[bytes]:
        for _ in range(size):
            yield b"x" * 4

    app.add_url_rule("/<int:size>", "page", lambda size: Response(body(size), mimetype="text/plain"))
    for path in ("/2", "/2", "/9", "/9"):
        visit(app, path)
    assert counted(app, cache) == {"nothing_stored": 1, "too_large": 2}


def test_fetch_functions_have_reasons_too(make_app: MakeApp) -> None:
    app, cache = make_app()

    @cache.memoize(60, jitter=0, unless=lambda number: number == 2)
    def made(number: int) -> Any:
        if number == 3:
            raise RuntimeError("no")
        return object() if number == 4 else number

    with app.app_context():
        for number in (1, 1, 2, 3, 4):
            try:
                made(number)
            except RuntimeError:
                continue
        (series,) = cache.stats()["functions"].values()
    assert series["reasons"] == {"nothing_stored": 1, "unless": 1, "raised": 1, "unstorable_value": 1}


def test_a_gateway_before_another_app_counts_by_rule() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        said = [FRESH] if environ["PATH_INFO"] == "/free" else []
        start_response("200 OK", [PLAIN, *said])
        return [b"page"]

    cache = GatewayCache(app, store="memory", rules=[("/news/*", Policy(max_age=60, jitter=0)), ("/shop/*", Policy())])
    for path in ("/news/1", "/news/1", "/news/2", "/shop/1", "/shop/2", "/free", "/free", "/other"):
        list(cache({"REQUEST_METHOD": "GET", "PATH_INFO": path, "wsgi.url_scheme": "http", "HTTP_HOST": "a"}, lambda *head: None))
    endpoints = cache.stats()["endpoints"]
    assert {name: series["reasons"] for name, series in endpoints.items()} == {
        "/news/*": {"nothing_stored": 2},
        "/shop/*": {"nothing_said": 2},
        "": {"nothing_stored": 1, "nothing_said": 1},
    }
    assert endpoints["/news/*"]["requests"]["HIT"] == endpoints[""]["requests"]["HIT"] == 1


@pytest.mark.parametrize("gateway", [True, False])
def test_visitors_add_no_labels(make_app: MakeApp, gateway: bool) -> None:
    app, cache = make_app(GATEWAY=gateway)
    app.add_url_rule("/<path:path>", "page", cache.cached(60)(lambda path: path))
    for number in range(12):
        visit(app, f"/{number}?{number}", {"Host": f"{number}.example", "Cookie": f"c{number}=1", "User-Agent": str(number)})
    with app.app_context():
        stats = cache.stats()
    assert list(stats["endpoints"]) == ["page"]
    assert stats["reasons"] == {"nothing_stored": 12}
