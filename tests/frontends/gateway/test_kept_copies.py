"""The copy that stands in for failures outlives what one visitor is answered.

Covers ``core.http.credentials`` with ``frontends.gateway.fetch``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask, abort, make_response, request

from flask_stalecache import GatewayCache
from flask_stalecache.core.http.credentials import credentials_in
from flask_stalecache.core.rules.storability import is_about_page
from support.client import MakeApp, visit
from support.wsgi_apps import ask

WINDOWS = "max-age=10, stale-while-revalidate=5, stale-if-error=1000"
ALICE = {"HTTP_COOKIE": "user=alice"}


class Site:
    """A plain WSGI app whose next answer a test chooses."""

    def __init__(self) -> None:
        self.public()

    def public(self) -> None:
        self.says("200 OK", b"for all", ("Cache-Control", WINDOWS), ("ETag", '"a"'))

    def says(self, status: str, body: bytes, *fields: tuple[str, str]) -> None:
        self.status, self.body, self.fields = status, body, [("Content-Length", str(len(body))), *fields]

    def __call__(self, environ: Mapping[str, Any], start_response: Any) -> list[bytes]:
        start_response(self.status, list(self.fields))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [self.body]


@pytest.fixture
def plain() -> Site:
    return Site()


@pytest.fixture
def gateway(plain: Site, directory: Path, clock: time_machine.Traveller) -> GatewayCache:
    """A gateway in front of it, with a copy that is past its freshness but stands in for failures."""
    made = GatewayCache(plain, dir=directory, max_entry_size=100)
    assert ask(made).page == ("MISS", b"for all")
    clock.shift(60)
    return made


OWN: dict[str, tuple[Mapping[str, str], str, tuple[tuple[str, str], ...]]] = {
    "private to a cookie": (ALICE, "200 OK", (("Cache-Control", "private, max-age=60"),)),
    "no-store to a cookie": (ALICE, "200 OK", (("Cache-Control", "no-store"),)),
    "Set-Cookie to a cookie": (ALICE, "200 OK", (("Cache-Control", WINDOWS), ("Set-Cookie", "seen=1"))),
    "Vary to a cookie": (ALICE, "200 OK", (("Cache-Control", WINDOWS), ("Vary", "*"))),
    "404 to a cookie": (ALICE, "404 Not Found", (("Cache-Control", "no-store"),)),
    "redirect to a cookie": (ALICE, "302 Found", (("Location", "/members"),)),
    "304 to a cookie": (ALICE, "304 Not Modified", (("Cache-Control", "private"), ("ETag", '"a"'))),
    "too large for a cookie": (ALICE, "200 OK", (("Cache-Control", WINDOWS), ("X-Size", "large"))),
    "private to a proxy's user": ({"HTTP_X_FORWARDED_USER": "alice"}, "200 OK", (("Cache-Control", "private"),)),
    "private to Authorization": ({"HTTP_AUTHORIZATION": "Bearer a"}, "200 OK", (("Cache-Control", "private"),)),
    "401": ({}, "401 Unauthorized", ()),
    "403": ({}, "403 Forbidden", (("Cache-Control", "no-store"),)),
    "Set-Cookie": ({}, "200 OK", (("Cache-Control", WINDOWS), ("Set-Cookie", "seen=1"))),
    "206": ({}, "206 Partial Content", (("Content-Range", "bytes 0-1/7"),)),
}


@pytest.mark.parametrize("case", OWN)
def test_one_visitors_answer_leaves_the_copy_alone(gateway: GatewayCache, plain: Site, case: str) -> None:
    asked, status, fields = OWN[case]
    body = b"x" * 200 if case.startswith("too large") else b"" if status.startswith("304") else b"hello alice"
    plain.says(status, body, *fields)
    got = ask(gateway, **asked)
    assert got.body == (b"for all" if status.startswith("304") else body)
    plain.says("503 Service Unavailable", b"down")
    assert ask(gateway).page == ("STALE", b"for all")


HEADS: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "another length": ("200 OK", (("Content-Length", "4711"),)),
    "another ETag": ("200 OK", (("ETag", '"b"'),)),
    "404": ("404 Not Found", ()),
    "410": ("410 Gone", (("Cache-Control", "no-store"),)),
    "no-store": ("200 OK", (("Cache-Control", "no-store"),)),
}


@pytest.mark.parametrize("case", HEADS)
def test_a_head_leaves_the_copy_alone(gateway: GatewayCache, plain: Site, case: str) -> None:
    status, fields = HEADS[case]
    plain.says(status, b"")
    plain.fields = list(fields)
    for _ in range(2):
        ask(gateway, method="HEAD")
    plain.says("503 Service Unavailable", b"down")
    assert ask(gateway).page == ("STALE", b"for all")


def test_a_head_that_shows_a_change_makes_a_fresh_copy_stale(plain: Site, directory: Path, clock: time_machine.Traveller) -> None:
    gateway = GatewayCache(plain, dir=directory, honor_request_cache_control=True)
    ask(gateway)
    plain.says("200 OK", b"changed", ("Cache-Control", WINDOWS), ("ETag", '"b"'))
    ask(gateway, method="HEAD", HTTP_CACHE_CONTROL="no-cache", **ALICE)
    assert ask(gateway).page == ("HIT", b"for all"), "a member's page may be another one"
    ask(gateway, method="HEAD", HTTP_CACHE_CONTROL="no-cache")
    clock.shift(5)
    assert ask(gateway).page == ("EXPIRED", b"changed")


PUBLIC: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "no-store": ("200 OK", (("Cache-Control", "no-store"),)),
    "private": ("200 OK", (("Cache-Control", "private"),)),
    "404": ("404 Not Found", (("Cache-Control", "no-store"),)),
    "410": ("410 Gone", (("Cache-Control", "no-store"),)),
}


@pytest.mark.parametrize("case", PUBLIC)
def test_what_everybody_is_answered_drops_the_copy(gateway: GatewayCache, plain: Site, case: str) -> None:
    status, fields = PUBLIC[case]
    plain.says(status, b"changed", *fields)
    assert ask(gateway).body == b"changed"
    plain.says("503 Service Unavailable", b"down")
    assert ask(gateway).body == b"down"


# -- the same in front of Flask ------------------------------------------------------------------------------------------


def limited(app: Flask, refuses: list[int]) -> None:
    @app.before_request
    def limit() -> Any:
        return make_response("slow down", refuses[0]) if refuses else None


def member_or_stranger(fails: list[bool]) -> Callable[[], Any]:
    def view() -> Any:
        if fails:
            abort(503)
        user = request.cookies.get("user")
        response = make_response(f"hello {user}" if user else "for all")
        response.headers["Cache-Control"] = "private" if user else WINDOWS
        return response

    return view


@pytest.mark.parametrize("kind", ["view", "gateway", "coded"])
def test_in_front_of_flask_too(make_app: MakeApp, clock: time_machine.Traveller, kind: str) -> None:
    refuses: list[int] = []
    fails: list[bool] = []
    app, cache = make_app(GATEWAY=kind == "gateway")
    limited(app, refuses)
    view = member_or_stranger(fails)
    if kind != "gateway":
        view = cache.cached(10, 5, 1000, gateway=kind == "coded")(view)
    app.add_url_rule("/", "page", view)
    visit(app)
    clock.shift(60)
    assert visit(app, headers={"Cookie": "user=alice"}).text == "hello alice"
    refuses[:] = [403]
    assert visit(app).text == "slow down"
    refuses[:] = [429]
    # For the gateway in front of the hook, it is a failure of the app.
    assert visit(app).text == ("for all" if kind == "gateway" else "slow down")
    refuses.clear()
    visit(app, method="HEAD", headers={"Cookie": "user=alice"})
    fails.append(True)
    assert visit(app).page == ("STALE", "for all")


# -- the rules -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, ()),
        ({"HTTP_HOST": "shop", "HTTP_USER_AGENT": "a", "HTTP_ACCEPT": "*/*"}, ()),
        ({"HTTP_COOKIE": ""}, ("cookie",)),
        ({"HTTP_X_REMOTE_USER": "ann", "HTTP_AUTHORIZATION": "Basic a"}, ("authorization", "x-remote-user")),
        ({"REMOTE_USER": "ann"}, ()),
    ],
)
def test_credentials(environ: Mapping[str, str], names: tuple[str, ...]) -> None:
    assert credentials_in(environ).headers == names


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        *[(status, [], True) for status in (200, 204, 301, 302, 404, 405, 410, 414, 451, 501)],
        *[(status, [], False) for status in (206, 304, 400, 401, 403, 406, 407, 412, 416, 421, 429, 431)],
        (200, [("set-cookie", "a=b")], False),
    ],
)
def test_what_is_about_the_page(status: int, headers: list[tuple[str, str]], expected: bool) -> None:
    assert is_about_page(status, headers) is expected
