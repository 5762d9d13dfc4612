"""In front of an app that can't be observed: what is stored of the answers to requests that say who asks.

Covers ``frontends.gateway.judging.visitor_judge`` and ``frontends.gateway.app_environ``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import time_machine

from flask_stalecache import ConfigError, GatewayCache, Policy
from support.client import MakeApp
from support.threads import PATIENCE, go, results, wait_until
from support.wsgi_apps import App, ask, wait_for_waiters

ALICE, BOB = {"HTTP_COOKIE": "user=alice"}, {"HTTP_COOKIE": "user=bob"}


def greeting(*fields: tuple[str, str], status: str = "200 OK") -> App:
    """Return an app that greets who asks, by a cookie or a field that a proxy sends."""

    def answer(environ: Mapping[str, Any], start_response: Any) -> list[bytes]:
        start_response(status, list(fields))
        who = environ.get("HTTP_COOKIE") or environ.get("HTTP_X_FORWARDED_USER") or environ.get("HTTP_X_API_KEY") or "stranger"
        return [f"hello {who}".encode()]

    return App(answer)


LIFETIMES: dict[str, tuple[tuple[str, str], ...]] = {
    "max-age": (("Cache-Control", "max-age=60"),),
    "must-revalidate": (("Cache-Control", "max-age=60, must-revalidate"),),
    "Expires": (("Expires", "Fri, 15 Jan 2100 08:00:00 GMT"),),
    "Last-Modified": (("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT"),),
    "windows": (("Cache-Control", "max-age=60, stale-while-revalidate=60"),),
    "targeted": (("CDN-Cache-Control", "max-age=60"),),
    "quoted": (("Cache-Control", 'max-age=60, note="public"'),),
}


@pytest.mark.grid
@pytest.mark.parametrize("lifetime", LIFETIMES)
@pytest.mark.parametrize("alice", [ALICE, {"HTTP_X_FORWARDED_USER": "alice"}, {"HTTP_X_API_KEY": "alice"}])
def test_a_members_page_is_not_stored(directory: Path, lifetime: str, alice: Mapping[str, str]) -> None:
    gateway = GatewayCache(greeting(*LIFETIMES[lifetime]), dir=directory)
    assert b"alice" in ask(gateway, **alice).body
    assert ask(gateway).page == ("MISS", b"hello stranger")
    assert ask(gateway).word == "HIT"


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "301 Moved Permanently"])
def test_a_rule_with_a_lifetime_alone_is_no_promise(directory: Path, status: str) -> None:
    rules = {"/*": Policy(max_age=60, statuses={404: 60})}
    gateway = GatewayCache(greeting(status=status), dir=directory, rules=rules)
    assert ask(gateway, **ALICE).body == b"hello user=alice"
    assert ask(gateway, **BOB).body == b"hello user=bob"
    assert [ask(gateway).page for _ in range(2)] == [("MISS", b"hello stranger"), ("HIT", b"hello stranger")]


@pytest.mark.parametrize("said", ["public, max-age=60", "s-maxage=60", "PUBLIC, max-age=60"])
def test_what_is_said_to_be_for_everybody_is_stored(directory: Path, said: str) -> None:
    gateway = GatewayCache(greeting(("Cache-Control", said)), dir=directory)
    assert [ask(gateway, **visitor).word for visitor in (ALICE, BOB, {})] == ["MISS", "HIT", "HIT"]


def test_vary_tells_members_apart(directory: Path) -> None:
    gateway = GatewayCache(greeting(("Cache-Control", "max-age=60"), ("Vary", "Cookie")), dir=directory)
    assert [ask(gateway, **visitor).page for visitor in (ALICE, BOB, ALICE, {})] == [
        ("MISS", b"hello user=alice"),
        ("MISS", b"hello user=bob"),
        ("HIT", b"hello user=alice"),
        ("MISS", b"hello stranger"),
    ]


def test_what_is_stored_for_strangers_is_served_to_members_too(directory: Path) -> None:
    """As HTTP has it: the app would have to say Vary: Cookie."""
    gateway = GatewayCache(greeting(("Cache-Control", "max-age=60")), dir=directory)
    assert [ask(gateway, **visitor).word for visitor in ({}, ALICE)] == ["MISS", "HIT"]


def test_the_guard_can_be_taken_off(directory: Path) -> None:
    gateway = GatewayCache(greeting(("Cache-Control", "max-age=60")), dir=directory, credentials_need_public=False)
    assert [ask(gateway, **visitor).word for visitor in (ALICE, BOB, {})] == ["MISS", "HIT", "HIT"]


def test_a_rule_may_say_that_cookies_do_not_matter(directory: Path) -> None:
    """Then the app is given none, so that the stored page is nobody's."""
    app = greeting(("Cache-Control", "max-age=60"))
    gateway = GatewayCache(app, dir=directory, rules={"/news/*": Policy(cookies=())})
    pages = [ask(gateway, "/news/1", **visitor).page for visitor in (ALICE, BOB, {})]
    assert pages == [("MISS", b"hello stranger"), ("HIT", b"hello stranger"), ("HIT", b"hello stranger")]
    assert ask(gateway, "/mine", **ALICE).body == b"hello user=alice"
    assert ask(gateway, "/mine").page == ("MISS", b"hello stranger")
    assert ask(gateway, "/news/2", HTTP_X_FORWARDED_USER="alice").body == b"hello alice"
    assert ask(gateway, "/news/2").page == ("MISS", b"hello stranger")


def test_a_confirmation_for_a_member_changes_nothing_that_is_stored(directory: Path, clock: time_machine.Traveller) -> None:
    def answer(environ: Mapping[str, Any], start_response: Any) -> list[bytes]:
        fields = [("Cache-Control", "max-age=10"), ("ETag", '"a"'), ("X-User", environ.get("HTTP_COOKIE", "nobody"))]
        if environ.get("HTTP_IF_NONE_MATCH") == '"a"':
            start_response("304 Not Modified", fields)
            return []
        start_response("200 OK", fields)
        return [b"page"]

    gateway = GatewayCache(App(answer), dir=directory)
    ask(gateway)
    clock.shift(20)
    alice = ask(gateway, **ALICE)
    assert (alice.page, dict(alice.fields)["X-User"]) == (("REVALIDATED", b"page"), "user=alice")
    bob = ask(gateway)
    assert (bob.page, dict(bob.fields)["X-User"]) == (("REVALIDATED", b"page"), "nobody")


def test_members_wait_for_one_answer_at_most(directory: Path) -> None:
    """The first member's answer is not for the others: the app is called for all of them at once. A stranger fills the store."""
    entered, opened = threading.Barrier(6), threading.Event()
    calls: list[str] = []

    def answer(environ: Mapping[str, Any], start_response: Any) -> list[bytes]:
        who = environ.get("HTTP_COOKIE", "nobody")
        calls.append(who)
        if len(calls) == 1:
            assert opened.wait(PATIENCE)
        else:
            # The barrier breaks, unless all other calls are here at the same time.
            entered.wait(PATIENCE)
        start_response("200 OK", [("Cache-Control", "max-age=60")])
        return [b"hello " + who.encode()]

    gateway = GatewayCache(App(answer), dir=directory)
    first = go(lambda: ask(gateway, HTTP_COOKIE="user=0"))
    wait_until(lambda: calls, "the first call")
    others = [go(lambda number=number: ask(gateway, HTTP_COOKIE=f"user={number}")) for number in range(1, 6)]  # type: ignore[misc]
    strangers = [go(lambda: ask(gateway)) for _ in range(2)]
    wait_for_waiters(gateway, 7)
    opened.set()
    assert first.result(PATIENCE).body == b"hello user=0"
    results(others)
    assert [got.body for got in results(strangers)] == [b"hello nobody"] * 2
    assert calls.count("nobody") == 1


def test_one_log_line_says_what_to_write(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    gateway = GatewayCache(greeting(("Cache-Control", "max-age=60")), dir=directory)
    for number in range(3):
        ask(gateway, f"/{number}", HTTP_COOKIE=f"user={number}")
    (line,) = [record.getMessage() for record in caplog.records]
    assert "the field cookie" in line
    for advice in ("public", "s-maxage", "cookies=()", "STALECACHE_CREDENTIALS_NEED_PUBLIC"):
        assert advice in line
    assert "user=" not in line


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Policy(cookies="lang"), "cookies='lang' is not a sequence"),
        (lambda: GatewayCache(greeting(), dir="cache", credentials_need_public=1), "CREDENTIALS_NEED_PUBLIC=1: give True or False"),
    ],
)
def test_nonsense_is_refused(make: Callable[[], object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make()


@pytest.mark.parametrize("settings", [{"CREDENTIALS_NEED_PUBLIC": False}, {"GATEWAY": {"/*": Policy(max_age=60, cookies=())}}])
def test_a_flask_app_needs_neither(make_app: MakeApp, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="has no effect on a Flask app"):
        make_app(**settings)
