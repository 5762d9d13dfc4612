"""HEAD that fills the store as GET, where a rule has ``convert_head``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import make_response, request, session

from flask_stalecache import ConfigError, GatewayCache, Policy, StaleCache
from support.client import MakeApp, settle, visit
from support.threads import go, results, wait_until
from support.wsgi_apps import App, Body, ask

WINDOWS = {"max_age": 10, "stale_while_revalidate": 100, "stale_if_error": 1000}
PLAIN = ("Content-Type", "text/plain")


def page(*parts: Any, status: str = "200 OK", fields: tuple[tuple[str, str], ...] = ()) -> Callable[..., Any]:
    """Return an app that answers HEAD without a body, as apps do."""

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        start_response(status, [PLAIN, *fields])
        return Body(*parts) if environ["REQUEST_METHOD"] == "GET" else Body()

    return answer


def length(number: int) -> tuple[tuple[str, str], ...]:
    return (("Content-Length", str(number)),)


def behind(answer: Callable[..., Any], directory: Path, **policy: Any) -> tuple[App, GatewayCache]:
    app = App(answer)
    given: dict[str, Any] = {**WINDOWS, "jitter": 0, "convert_head": True, **policy}
    return app, GatewayCache(app, dir=directory, rules=[("/*", Policy(**given))], refresh_workers=0)


def methods(app: App) -> list[str]:
    return [environ["REQUEST_METHOD"] for environ in app.environs]


BODIES: dict[str, Callable[..., Any]] = {
    "in one chunk": page(b"page", fields=length(4)),
    "in parts": page(b"pa", b"ge", fields=length(4)),
    "without length": page(b"pa", b"ge"),
    "in a list": lambda environ, start_response: start_response("200 OK", [PLAIN]) and [b"pa", b"ge"],
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_head_fills_the_store_for_gets_and_heads(tmp_path: Path, kind: str) -> None:
    app, gateway = behind(BODIES[kind], tmp_path)
    first, head, get = ask(gateway, method="HEAD"), ask(gateway, method="HEAD"), ask(gateway)
    assert [each.word for each in (first, head, get)] == ["MISS", "HIT", "HIT"]
    assert [each.body for each in (first, head, get)] == [b"", b"", b"page"]
    assert [dict(each.fields)["Content-Length"] for each in (first, head, get)] == ["4"] * 3
    assert methods(app) == ["GET"]
    assert "stored" in dict(first.fields)["Cache-Status"]
    assert app.closed in ([1], [])


def test_without_it_a_head_goes_to_the_app_as_it_is(tmp_path: Path) -> None:
    app, gateway = behind(page(b"page", fields=length(4)), tmp_path, convert_head=False)
    assert [ask(gateway, method=method).word for method in ("HEAD", "HEAD", "GET", "HEAD")] == ["MISS", "MISS", "MISS", "HIT"]
    assert methods(app) == ["HEAD", "HEAD", "GET"]


def test_conditions_are_answered_and_ranges_have_no_meaning(tmp_path: Path) -> None:
    app, gateway = behind(page(b"page", fields=(*length(4), ("ETag", '"1"'))), tmp_path)
    got = [
        ask(gateway, method="HEAD", HTTP_RANGE="bytes=0-0", HTTP_IF_RANGE='"1"'),
        ask(gateway, method="HEAD", HTTP_RANGE="bytes=0-0"),
        ask(gateway, method="HEAD", HTTP_IF_NONE_MATCH='"1"'),
        ask(gateway, "/other", method="HEAD", HTTP_IF_NONE_MATCH='"1"'),
    ]
    assert [(each.status, each.word) for each in got] == [
        ("200 OK", "MISS"), ("200 OK", "HIT"), ("304 Not Modified", "HIT"), ("304 Not Modified", "MISS"),
    ]  # fmt: skip
    assert [each.body for each in got] == [b""] * 4
    assert methods(app) == ["GET", "GET"]


def test_a_stale_page_is_renewed_behind_a_head_and_an_old_one_by_it(tmp_path: Path, clock: time_machine.Traveller) -> None:
    app, gateway = behind(page(b"page", fields=length(4)), tmp_path)
    ask(gateway)
    clock.shift(11)
    assert [ask(gateway, method="HEAD").word for _ in range(2)] == ["STALE", "HIT"]
    clock.shift(2000)
    assert [ask(gateway, method="HEAD").word for _ in range(2)] == ["EXPIRED", "HIT"]
    assert methods(app) == ["GET"] * 3


def test_where_the_app_fails_the_stored_page_answers(tmp_path: Path, clock: time_machine.Traveller) -> None:
    fails: list[bool] = []

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        return page(b"page", status="503 Down" if fails else "200 OK", fields=length(4))(environ, start_response)

    _, gateway = behind(answer, tmp_path)
    fails.append(True)
    failed = ask(gateway, method="HEAD")
    assert (failed.status, failed.body) == ("503 Down", b"")
    fails.clear()
    ask(gateway)
    clock.shift(500)
    fails.append(True)
    stale = ask(gateway, method="HEAD")
    assert (stale.status, stale.word, stale.body) == ("200 OK", "STALE", b"")


class Made(Body):
    """A body whose parts are made while they are read."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        super().__init__()
        self._parts = parts


@pytest.mark.parametrize("why", ["private", "too large", "write", "endless", "breaks off"])
def test_what_can_not_be_stored_is_answered_without_a_body(tmp_path: Path, why: str, monotonic: Callable[[float], None]) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            monotonic(30)
            yield b"x"

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        fields = {"private": [("Cache-Control", "private")], "breaks off": [*length(5)]}.get(why, [])
        write = start_response("200 OK", [PLAIN, *fields])
        if why == "write":
            write(b"written")
        parts = {"too large": iter([b"x" * 5000, b"x" * 6000]), "endless": endless(), "breaks off": iter([b"x", b""])}
        return Made(parts.get(why, iter([b"page"])))

    app = App(answer)
    rules = [("/*", Policy(max_age=10, convert_head=True))]
    gateway = GatewayCache(app, dir=tmp_path, rules=rules, max_entry_size=10_000)
    got = [ask(gateway, method="HEAD") for _ in range(2)]
    assert [(each.status, each.body) for each in got] == [("200 OK", b"")] * 2
    # An app that uses write() sends its own head.
    assert [each.word for each in got] == (["", ""] if why == "write" else ["MISS", "MISS"])
    assert app.closed == [1, 1]


def test_a_url_that_is_known_as_unstorable_gets_heads_again(tmp_path: Path) -> None:
    app, gateway = behind(page(b"page", fields=(*length(4), ("Cache-Control", "no-store"))), tmp_path)
    for _ in range(3):
        ask(gateway, method="HEAD")
    assert methods(app)[0] == "GET"
    assert methods(app)[-1] == "HEAD"


def test_what_bypasses_the_cache_stays_a_head(tmp_path: Path) -> None:
    app, gateway = behind(page(b"page", fields=length(4)), tmp_path, unless=lambda environ: "HTTP_X_LIVE" in environ)
    requests: list[dict[str, Any]] = [{"HTTP_X_LIVE": "1"}, {"REMOTE_USER": "ann"}]
    assert [ask(gateway, method="HEAD", **each).word for each in requests] == ["BYPASS", "BYPASS"]
    assert methods(app) == ["HEAD", "HEAD"]


def test_a_get_shares_the_call_of_a_head(tmp_path: Path) -> None:
    ready = threading.Event()

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        ready.wait(30)
        return page(b"page", fields=length(4))(environ, start_response)

    app, gateway = behind(answer, tmp_path)
    head = go(lambda: ask(gateway, method="HEAD"))
    wait_until(lambda: app.calls == 1, "the call")
    get = go(lambda: ask(gateway))
    ready.set()
    assert [each.body for each in results([head, get])] == [b"", b"page"]
    assert methods(app) == ["GET"]


def test_in_front_of_a_flask_app_a_monitor_fills_and_members_stay_live(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    seen: list[str] = []

    def show() -> Any:
        seen.append(request.method)
        response = make_response(f"hello {session.get('user', 'stranger')}")
        response.set_cookie("seen", "1")
        return response

    app, cache = make_app(GATEWAY=[("/*", Policy(**WINDOWS, jitter=0, convert_head=True, unset=["Set-Cookie"]))])
    app.add_url_rule("/", "page", show)

    @app.post("/login")
    def login() -> str:
        session["user"] = "ann"
        return "ok"

    ann = {"Cookie": visit(app, "/login", method="POST").headers["Set-Cookie"].partition(";")[0]}
    first = visit(app, method="HEAD")
    assert (first.word, first.body, "Set-Cookie" in first.headers) == ("MISS", b"", False)
    assert visit(app).page == ("HIT", "hello stranger")
    member = visit(app, method="HEAD", headers=ann)
    assert (member.word, member.body, "Set-Cookie" in member.headers) == ("BYPASS", b"", True)
    assert visit(app, headers=ann).page == ("BYPASS", "hello ann")
    assert seen == ["GET", "HEAD", "GET"]
    clock.shift(11)
    assert visit(app, method="HEAD").word == "STALE"
    settle(app, cache)
    assert visit(app, method="HEAD").word == "HIT"


def test_a_bad_value_is_refused_and_a_view_has_no_such_parameter() -> None:
    with pytest.raises(ConfigError, match=r"convert_head=1: give True or False"):
        Policy(convert_head=1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"convert_head"):
        StaleCache().cached(60, convert_head=True)  # type: ignore[arg-type]
