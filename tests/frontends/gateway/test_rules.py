"""The rules of docs/rules.rst at the gateway, over real sockets with a real app behind: see ``support.gateway.table``.

Covers ``frontends.gateway.backend``, ``frontends.gateway.deliver``, ``frontends.gateway.judging.entry_builder``,
``frontends.gateway.origin``, ``frontends.gateway.fetch``, ``frontends.gateway.judging.response_judge`` and
``frontends.gateway.invalidation``.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
import time_machine

from flask_stalecache.stores.upkeep.sweep import Sweeper
from support.gateway.freshness import FRESHNESS
from support.gateway.served import SERVED
from support.gateway.site import PATIENCE, Body, Script, Seen, Site
from support.gateway.stored import STORED
from support.gateway.table import FRESH, Case, Reply, case, hit, new
from support.threads import go, results, wait_until

CASES = [*STORED, *FRESHNESS, *SERVED]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with gateways, and an app that answers as a case says."""
    with pytest.MonkeyPatch.context() as patch:
        # It would take files for left behind: they have the time of the machine, and cases set another clock.
        patch.setattr(Sweeper, "tick", lambda sweeper, stamps: None)
        made = Site(tmp_path_factory.mktemp("gateways"))
        yield made
        made.close()


@pytest.mark.parametrize("played", [pytest.param(each, id=each.id) for each in CASES])
def test_case(played: Case, site: Site, clock: time_machine.Traveller) -> None:
    site.play(played, clock)


def test_every_rule_has_cases() -> None:
    assert {number for each in CASES for number in each.rules} == set(range(1, 32))


def test_cases_have_names_of_their_own() -> None:
    assert len({each.id for each in CASES}) == len(CASES) >= 250


# -- what WSGI allows: rule 31 ---------------------------------------------------------------------------------------

Start = Callable[..., Callable[[bytes], object]]
PLAIN = [("Cache-Control", "max-age=60"), ("Content-Type", "text/plain")]


def uses_write(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    write = start_response("200 OK", PLAIN)
    write(b"a")
    write(b"b")
    return [b"c"]


def changes_its_mind(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)
    try:
        raise LookupError("nothing to show")
    except LookupError:
        start_response("500 Oh", [("Content-Type", "text/plain")], sys.exc_info())
    return [b"abc"]


def starts_late(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
    start_response("200 OK", PLAIN)
    yield b""
    yield b"abc"


def starts_twice(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)
    start_response("200 OK", PLAIN)
    return [b"abc"]


def breaks_off_and_says_so(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
    start_response("200 OK", [*PLAIN, ("Content-Length", "20")])
    yield b"abc"
    try:
        raise LookupError("nothing more to show")
    except LookupError:
        start_response("500 Oh", [], sys.exc_info())
    yield b"never sent"


def is_an_iterator(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)
    return iter((b"a", b"bc"))


def is_a_tuple(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)
    return (b"a", b"", b"bc")


def is_not_stored(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", [("Cache-Control", "no-store")])
    return iter((b"a", b"bc"))


WSGI = [
    case(31, "write", new(Reply(runs=uses_write), body=b"abc"), new(None, body=b"abc")),
    case(
        31,
        "exc-info-before-the-body",
        new(Reply(runs=changes_its_mind), status=500, body=b"abc"),
        new(None, status=500, body=b"abc"),
    ),
    case(31, "start-response-at-the-first-chunk", new(Reply(runs=starts_late), body=b"abc"), hit(body=b"abc")),
    case(31, "exc-info-within-the-body", new(Reply(runs=breaks_off_and_says_so), body=b"abc"), new(FRESH)),
    case(31, "an-iterator", new(Reply(runs=is_an_iterator), body=b"abc"), hit(body=b"abc")),
    case(31, "a-tuple", new(Reply(runs=is_a_tuple), body=b"abc"), hit(body=b"abc", has={"Content-Length": "3"})),
    case(31, "an-iterator-not-stored", new(Reply(runs=is_not_stored), body=b"abc"), new(None, body=b"abc")),
]


@pytest.mark.parametrize("played", [pytest.param(each, id=each.id) for each in WSGI])
def test_what_wsgi_allows(played: Case, site: Site, clock: time_machine.Traveller) -> None:
    site.play(played, clock)


def test_start_response_twice_is_an_error_of_the_app(site: Site, clock: time_machine.Traveller) -> None:
    script = site.app.scripts["twice"] = Script("twice", "/plain/twice", Reply(runs=starts_twice))
    assert site.ask("GET", script.here, ()).status == 500
    script.reply = FRESH
    assert site.ask("GET", script.here, ()).body == script.body(2)


# -- visitors at the same time ---------------------------------------------------------------------------------------


class Held:
    """An app whose calls are held until a test lets them go.

    :ivar inside: how many calls have begun.
    """

    def __init__(self, site: Site, name: str, *fields: str) -> None:
        self.site = site
        self.script = site.app.scripts[name] = Script(name, f"/plain/{name}", Reply(runs=self._run))
        self._fields = [(name, value) for name, value in (line.split(": ", 1) for line in fields)]
        self._let_go = threading.Event()
        self.inside = 0

    def _run(self, environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        call = environ["test.call"]
        self.inside = max(self.inside, call)
        assert self._let_go.wait(PATIENCE)
        start_response("200 OK", self._fields)
        return [b"call %d" % call]

    def visit(self, count: int) -> list[Future[Seen]]:
        """Let visitors come, and return once they are there."""
        entered = self.site.entered
        coming = [go(self.site.exchange, "GET", self.script.here) for _ in range(count)]
        wait_until(lambda: self.site.entered == entered + count, "all visitors have come")
        return coming

    def let_go(self) -> None:
        """Let all calls go on, and those to come."""
        self._let_go.set()


def first_and_others(held: Held, clock: time_machine.Traveller) -> tuple[Seen, list[Seen]]:
    """Return what the first visitor saw, and what those saw who came while the app was at work for the first."""
    first = held.visit(1)
    wait_until(lambda: held.inside == 1)
    clock.shift(1)
    others = held.visit(6)
    clock.shift(1)
    held.let_go()
    return results(first)[0], results(others)


def test_rule27_one_call_for_all_who_wait(site: Site, clock: time_machine.Traveller) -> None:
    held = Held(site, "collapsed", "Cache-Control: max-age=60")
    first, others = first_and_others(held, clock)
    assert {seen.body for seen in (first, *others)} == {b"call 1"}
    assert len(held.script.asked) == 1
    assert first.lines("Cache-Status") == ["stalecache; fwd=uri-miss; fwd-status=200; ttl=60; stored"]
    told = {seen.lines("Cache-Status")[0] for seen in others}
    assert told <= {"stalecache; fwd=uri-miss; fwd-status=200; ttl=60; collapsed", "stalecache; hit; ttl=60"}


@pytest.mark.parametrize("fields", [("Cache-Control: private",), ("Cache-Control: max-age=60", "Set-Cookie: a=b"), ()])
def test_rule1_what_is_one_visitors_own_is_given_to_nobody_else(
    fields: tuple[str, ...], site: Site, clock: time_machine.Traveller
) -> None:
    held = Held(site, f"own-{len(fields)}", *fields)
    first, others = first_and_others(held, clock)
    assert len({seen.body for seen in (first, *others)}) == 7


def test_rule16_who_waits_is_given_no_answer_that_each_use_must_confirm(site: Site, clock: time_machine.Traveller) -> None:
    # RFC 9111 section 4: requests that can't use the answer are forwarded. They can if the app was called after they had come.
    held = Held(site, "no-cache-collapsed", "Cache-Control: no-cache", 'ETag: "a"')
    first, others = first_and_others(held, clock)
    assert first.body == b"call 1"
    assert b"call 1" not in {seen.body for seen in others}
    assert 2 <= len(held.script.asked) <= 7


# -- visitors who leave ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gateway", ["plain", "small"])
def test_rule7_what_a_visitor_has_left_is_closed_and_not_stored(gateway: str, site: Site, clock: time_machine.Traveller) -> None:
    script = site.app.scripts[f"left-{gateway}"] = Script("left", f"/{gateway}/left-{gateway}")

    def without_end(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        return Body(script, Without(), breaks=False)

    script.reply = Reply(runs=without_end)
    with socket.create_connection(("127.0.0.1", site.port), PATIENCE) as connection:
        connection.sendall(f"GET {script.here} HTTP/1.1\r\nHost: shop.example\r\n\r\n".encode())
        assert connection.recv(100_000)
    wait_until(lambda: script.closed == 1, "the app's iterable is closed")
    script.reply = FRESH
    assert site.ask("GET", script.here, ()).body == script.body(2)
    assert len(script.asked) == 2


class Without:
    """Chunks without end."""

    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield b"x" * 65536
