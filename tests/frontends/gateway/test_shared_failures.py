"""What the requests that waited are given of another visitor's failure.

Covers ``frontends.gateway.judging.failures``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, g, request, session

from flask_stalecache import GatewayCache
from flask_stalecache.frontends.gateway.judging.failures import bare_failure
from flask_stalecache.frontends.request.request_origin import all_fields, shows_request
from support.client import MakeApp, Seen, visit
from support.flask_gateway import signed
from support.threads import PATIENCE, go, results, wait_until
from support.wsgi_apps import Got, ask


class Gate:
    """Counts the calls, and holds the first ones until the others wait for them.

    :param holds: how many calls are held.
    """

    def __init__(self, holds: int = 1) -> None:
        self.calls: list[str] = []
        self.opened = [threading.Event() for _ in range(holds)]
        self._mutex = threading.Lock()

    def enter(self, who: str) -> None:
        with self._mutex:
            self.calls.append(who)
            number = len(self.calls)
        if number <= len(self.opened):
            assert self.opened[number - 1].wait(PATIENCE)


def waiting(engine: Any) -> int:
    flights = list(engine.runtime.process.flights._flights.values())
    return sum(len(flight.done.waiters) for flight in flights)


def all_at_once(engine: Any, gate: Gate, visits: list[Callable[[], Any]]) -> list[Any]:
    """Let the first visit lead and the others wait for it, then release the held calls, and return all results."""
    first = go(visits[0])
    wait_until(lambda: gate.calls, "the first call")
    others = [go(each) for each in visits[1:]]

    def all_wait(number: int) -> bool:
        early = [each.result() for each in others if each.done()]
        assert len(early) <= number, early
        return len(gate.calls) > number and waiting(engine) == len(others) - number

    for number, opened in enumerate(gate.opened):
        wait_until(lambda number=number: all_wait(number), "the wait")  # type: ignore[misc]
        opened.set()
    return results([first, *others])


# -- in front of an app that can't be observed -------------------------------------------------------------------------


def failing(gate: Gate, status: str, *fields: tuple[str, str]) -> Callable[..., Any]:
    def app(environ: Mapping[str, Any], start_response: Any) -> list[bytes]:
        who = environ.get("HTTP_X_FORWARDED_USER") or environ.get("HTTP_COOKIE") or environ.get("REMOTE_ADDR", "stranger")
        gate.enter(who)
        body = f"Sorry {who}: order 4711".encode()
        start_response(status, [("Content-Length", str(len(body))), *fields])
        return [body]

    return app


IDENTITIES: dict[str, Callable[[int], dict[str, str]]] = {
    "a field of a proxy": lambda number: {"HTTP_X_FORWARDED_USER": f"user{number}"},
    "a cookie": lambda number: {"HTTP_COOKIE": f"user={number}"},
    "the address": lambda number: {"REMOTE_ADDR": f"192.0.2.{100 + number}"},
}


@pytest.mark.grid
@pytest.mark.parametrize("status", ["500 Sorry user0", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"])
@pytest.mark.parametrize("identity", IDENTITIES)
def test_nobody_is_given_the_page_of_another(directory: Path, status: str, identity: str) -> None:
    gate = Gate(2)
    gateway = GatewayCache(failing(gate, status), dir=directory)
    visitors = [IDENTITIES[identity](number) for number in range(8)]
    got: list[Got] = all_at_once(gateway._engine, gate, [lambda each=each: ask(gateway, **each) for each in visitors])  # type: ignore[misc]
    for seen, visitor in zip(got, visitors, strict=True):
        (who,) = visitor.values()
        assert seen.status.startswith(status[:3])
        assert seen.body in (f"Sorry {who}: order 4711".encode(), bare_failure(int(status[:3]), [])[0][0])
    assert len(gate.calls) == 2, "one more of them has asked, and then it was clear that the app has failed"
    assert b"Sorry" not in got[-1].body or len(set(gate.calls)) == 2


def test_those_who_ask_for_the_same_share_the_page(directory: Path) -> None:
    gate = Gate()
    gateway = GatewayCache(failing(gate, "503 Service Unavailable", ("Retry-After", "7")), dir=directory)
    got = all_at_once(gateway._engine, gate, [lambda: ask(gateway, HTTP_X_FORWARDED_USER="ann")] * 8)
    assert {(seen.status, seen.body) for seen in got} == {("503 Service Unavailable", b"Sorry ann: order 4711")}
    assert gate.calls == ["ann"]


def test_a_failure_of_one_visitor_does_not_keep_the_others_from_the_page(directory: Path) -> None:
    """Whoever can make the app fail for themselves must not make it fail for all."""
    gate = Gate(2)

    def app(environ: Mapping[str, Any], start_response: Any) -> list[bytes]:
        gate.enter(environ.get("HTTP_X_CRASH", ""))
        if "HTTP_X_CRASH" in environ:
            start_response("500 Oops", [])
            return [b"crashed"]
        start_response("200 OK", [("Cache-Control", "max-age=60")])
        return [b"page"]

    gateway = GatewayCache(app, dir=directory)
    visits = [lambda: ask(gateway, HTTP_X_CRASH="1"), *[lambda: ask(gateway)] * 6]
    got = all_at_once(gateway._engine, gate, visits)
    assert [seen.body for seen in got[1:]] == [b"page"] * 6
    assert len(gate.calls) == 2


def test_an_app_that_raises(directory: Path) -> None:
    gate = Gate(2)

    def app(environ: Mapping[str, Any], start_response: Any) -> list[bytes]:
        gate.enter(environ["HTTP_X_USER"])
        raise LookupError("down")

    gateway = GatewayCache(app, dir=directory)
    visits = [lambda number=number: ask(gateway, HTTP_X_USER=str(number)) for number in range(6)]  # type: ignore[misc]
    assert {seen.status for seen in all_at_once(gateway._engine, gate, visits)} == {"500 Internal Server Error"}
    assert len(gate.calls) == 2


@pytest.mark.parametrize("fields", [("Set-Cookie", "user=ann"), ("Cache-Control", "private"), ("Cache-Control", "no-store")])
def test_not_even_those_who_ask_for_the_same_share_what_is_forbidden(directory: Path, fields: tuple[str, str]) -> None:
    gate = Gate(2)
    gateway = GatewayCache(failing(gate, "503 Service Unavailable", fields), dir=directory)
    got = all_at_once(gateway._engine, gate, [lambda: ask(gateway)] * 4)
    assert sorted(b"Sorry" in seen.body for seen in got) == [False, False, True, True]


# -- in front of Flask ---------------------------------------------------------------------------------------------------


def failing_site(make_app: MakeApp, front: str, gate: Gate, page: Callable[[], str], raises: bool) -> tuple[Flask, Any]:
    app, cache = make_app(GATEWAY=front == "gateway")

    @app.errorhandler(LookupError)
    def sorry(error: LookupError) -> Any:
        return f"sorry {error}", 500

    @app.after_request
    def lasting(response: Any) -> Any:
        response.headers.setdefault("X-Frame-Options", "DENY")
        return response

    def view() -> Any:
        gate.enter("call")
        text = page()
        if raises:
            raise LookupError(text)
        return f"sorry {text}", 503

    if front != "gateway":
        view = cache.cached(60, gateway=front == "coded")(view)
    app.add_url_rule("/", "page", view)
    return app, app.extensions["stalecache"].engine


FRONTS = ["view", "gateway", "coded"]


@pytest.mark.parametrize("raises", [False, True], ids=["returned", "raised"])
@pytest.mark.parametrize("front", FRONTS)
def test_eight_visitors_of_a_failing_view_share_one_call(make_app: MakeApp, front: str, raises: bool) -> None:
    gate = Gate()
    app, engine = failing_site(make_app, front, gate, lambda: "all", raises)
    visits = [lambda n=n: visit(app, headers={"Cookie": f"other={n}", "User-Agent": f"agent/{n}"}) for n in range(8)]  # type: ignore[misc]
    seen: list[Seen] = all_at_once(engine, gate, visits)
    assert {(each.status, each.text) for each in seen} == {(500 if raises else 503, "sorry all")}
    assert len(gate.calls) == 1
    if not (raises and front == "view"):
        assert sum("collapsed" in each.headers["Cache-Status"] for each in seen) == 7
    assert {each.headers["X-Frame-Options"] for each in seen} == {"DENY"}


WHO: dict[str, Callable[[], Any]] = {
    "a cookie": lambda: request.cookies.get("user", "stranger"),
    "a field": lambda: request.headers.get("X-User", "stranger"),
    "the session": lambda: session.get("user", "stranger"),
    "all fields": lambda: dict(request.headers.items()).get("X-User", "stranger"),
    "what a hook has looked up": lambda: g.user,
    "a request id": lambda: request.headers.get("X-Request-Id", "stranger"),
}


@pytest.mark.grid
@pytest.mark.parametrize("raises", [False, True], ids=["returned", "raised"])
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("front", FRONTS)
def test_a_failure_that_names_its_visitor_is_not_shared(make_app: MakeApp, front: str, who: str, raises: bool) -> None:
    gate = Gate()
    app, engine = failing_site(make_app, front, gate, WHO[who], raises)

    @app.before_request
    def look_up() -> None:
        g.user = request.cookies.get("user", "stranger") if who.startswith("what a hook") else ""

    def fields(user: str) -> dict[str, str]:
        return {"Cookie": f"user={user}; {signed({'user': user})}", "X-User": user, "X-Request-Id": user}

    users = ["alice", "robert", "caroline", "", ""]
    visits = [lambda user=user: visit(app, headers=fields(user) if user else {}) for user in users]  # type: ignore[misc]
    seen = all_at_once(engine, gate, visits)
    for user, each in zip(users, seen, strict=True):
        assert each.status in (500, 503)
        for other in users:
            assert not other or other == user or other not in each.text
        if user and front != "gateway" and who not in ("all fields", "a request id"):
            assert user in each.text, "those like the first do not wait for each other, and are told their own"


# -- the rules -----------------------------------------------------------------------------------------------------------


def test_a_bare_failure_has_nothing_of_the_page() -> None:
    body, line, fields = bare_failure(503, [("Retry-After", "7"), ("X-User", "ann"), ("Content-Type", "text/html")])
    assert (body, line) == ((b"503 Service Unavailable\n",), "503 Service Unavailable")
    assert dict(fields) == {
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": "24",
        "Cache-Control": "no-store",
        "Retry-After": "7",
    }
    assert "Retry-After" not in dict(bare_failure(503, [("Retry-After", "ask ann")])[2])


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HTTP_X_REQUEST_ID": "abcdef"}, True),
        ({"HTTP_X_REQUEST_ID": "abc"}, False),
        ({"HTTP_HOST": "shop.example"}, False),
        ({"REMOTE_ADDR": "192.0.2.7"}, True),
        ({"HTTP_ACCEPT_LANGUAGE": "abcdef"}, False),
        ({"HTTP_X": "\udcff\udcff\udcff\udcff\udcff"}, False),
    ],
)
def test_a_page_that_shows_the_request(environ: Mapping[str, str], expected: bool) -> None:
    assert shows_request(environ, b"abcdef at shop.example for 192.0.2.7") is expected


@pytest.mark.parametrize(
    ("more", "same"),
    [
        ({"HTTP_X_A": "1"}, False),
        ({"REMOTE_ADDR": "192.0.2.9"}, False),
        ({"QUERY_STRING": "utm_source=a"}, False),
        ({"SSL_CLIENT_S_DN": "ann"}, False),
        ({"REMOTE_PORT": "4711", "wsgi.input": object()}, True),
    ],
)
def test_requests_agree_in_every_field(more: Mapping[str, Any], same: bool) -> None:
    asked = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_HOST": "shop.example", "REMOTE_ADDR": "192.0.2.7", "QUERY_STRING": ""}
    assert (all_fields(asked) == all_fields({**asked, **more})) is same
