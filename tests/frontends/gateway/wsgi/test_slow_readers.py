"""A client that reads a stream slowly delays nobody, and takes little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_stalecache.core.wsgi import close_iterable
from flask_stalecache.engine.flights.singleflight import Flight, Flights
from flask_stalecache.engine.flights.stream_pace import StreamPace
from flask_stalecache.frontends.gateway.gateway_cache import GatewayCache
from support.threads import PATIENCE, crowd, go, results, wait_until
from support.wsgi_apps import FRESH, PLAIN, App, Behind, ask, body_of, environ_for

CHUNKS = (b"one", b"two", b"three")
WHOLE = b"".join(CHUNKS)


def streaming(*chunks: bytes, **options: Any) -> App:
    """Return an app that streams the same at each call."""
    return App(lambda *asked: body_of(*(chunks or CHUNKS), **options)(*asked))


def be_patient(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    for module in ("stream_pace", "singleflight"):
        monkeypatch.setattr(f"flask_stalecache.engine.flights.{module}.READER_PATIENCE", seconds)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client is slow after a moment."""
    be_patient(monkeypatch, 0.05)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No client is slow."""
    be_patient(monkeypatch, PATIENCE)


@pytest.fixture
def slow() -> Iterator[Callable[..., Any]]:
    """``slow(gateway)``: a client takes one chunk, and then no more; returns the rest of the body."""
    bodies: list[Any] = []

    def begin(gateway: Any, path: str = "/") -> Any:
        bodies.append(gateway(environ_for(path), lambda *args: lambda data: None))
        chunk = next(iter(bodies[-1]))
        assert chunk
        return bodies[-1]

    yield begin
    for body in bodies:
        # A body from the store is a tuple, which has no ``close()``.
        close_iterable(body)


def count_of(gateway: GatewayCache, name: str) -> int:
    return gateway._engine.counters[name]


def kept_by(gateway: GatewayCache) -> int:
    copies = gateway._engine.runtime._copies.get()._copies
    return sum(len(copy.kept or b"") for copy in copies)


@pytest.mark.parametrize("known", [True, False], ids=["of known length", "of unknown length"])
@pytest.mark.usefixtures("hasty")
def test_those_who_wait_for_a_slow_reader_are_released_with_one_more_call(
    behind: Behind, slow: Callable[..., Any], known: bool
) -> None:
    fields = [FRESH, PLAIN, *([("Content-Length", str(len(WHOLE)))] if known else [])]
    app = streaming(fields=fields)
    gateway = behind(app)
    reader = slow(gateway)
    assert [got.body for got in results(crowd(4, lambda: ask(gateway)))] == [WHOLE] * 4
    assert (app.calls, count_of(gateway, "slow_readers")) == (2, 1)
    assert ask(gateway).page == ("HIT", WHOLE)
    assert b"".join(reader) == WHOLE[3:], "the slow one gets all of it too"
    assert (ask(gateway).page, app.calls) == (("HIT", WHOLE), 2)


@pytest.mark.usefixtures("hasty")
def test_what_a_slow_reader_has_taken_whole_is_stored_if_nothing_is(behind: Behind, slow: Callable[..., Any]) -> None:
    app = streaming()
    gateway = behind(app)
    reader = slow(gateway)
    wait_until(lambda: gateway._engine.runtime.process.flights.slow())
    gateway._engine.runtime.tick()
    assert count_of(gateway, "slow_readers") == 1
    assert b"".join(reader) == WHOLE[3:]
    assert (ask(gateway).page, app.calls) == (("HIT", WHOLE), 1)


@pytest.mark.usefixtures("hasty")
def test_other_processes_are_released_by_housekeeping(directory: Path, slow: Callable[..., Any]) -> None:
    app = streaming()
    gateway, elsewhere = (GatewayCache(app, dir=directory) for _ in range(2))
    slow(gateway)
    assert [got.body for got in results(crowd(3, lambda: ask(elsewhere)))] == [WHOLE] * 3
    assert app.calls == 2
    assert ask(gateway).page == ("HIT", WHOLE)


def test_where_no_thread_runs_a_stream_holds_up_no_other_process(directory: Path, slow: Callable[..., Any]) -> None:
    app = streaming()
    gateway, elsewhere = (GatewayCache(app, dir=directory) for _ in range(2))
    gateway._engine.runtime.go_in_line("this server runs no threads")
    reader = slow(gateway)
    assert ask(elsewhere).page == ("MISS", WHOLE)
    assert b"".join(reader) == WHOLE[3:]
    assert (ask(gateway).page, app.calls) == (("HIT", WHOLE), 2)


@pytest.mark.usefixtures("hasty")
def test_one_slow_reader_after_the_other_holds_up_nobody(
    behind: Behind, slow: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A visitor who has waited for two slow readers waits for no third one."""
    app = streaming()
    gateway = behind(app)
    slow(gateway)
    end_slow = Flights.end_slow

    def end_and_let_another_lead(flights: Flights, flight: Flight) -> bool:
        is_ended = end_slow(flights, flight)
        if is_ended:
            # Another slow client is quicker than the visitor.
            another, _ = flights.join(flight.key)
            another.leader, another.pace = 0, StreamPace()
        return is_ended

    monkeypatch.setattr(Flights, "end_slow", end_and_let_another_lead)
    assert go(ask, gateway).result(PATIENCE).page == ("MISS", WHOLE)
    assert (app.calls, count_of(gateway, "slow_readers")) == (2, 2)
    assert ask(gateway).page == ("HIT", WHOLE)


def test_a_hundred_slow_readers_keep_no_more_than_four_of_the_largest_bodies(
    behind: Behind, slow: Callable[..., Any], monotonic: Callable[[float], None]
) -> None:
    app = streaming(b"x" * 9000, b"x" * 1000)
    gateway = behind(app, max_entry_size=10_000)
    for number in range(100):
        slow(gateway, f"/{number}")
        monotonic(2)
        assert kept_by(gateway) <= 40_000
    assert count_of(gateway, "copies_given_up") == 96
    assert [len(ask(gateway, "/page").body) for _ in range(2)] == [10_000] * 2
    assert (ask(gateway, "/page").word, app.calls) == ("HIT", 101), "a fast one is stored"


@pytest.mark.usefixtures("patient")
def test_a_copy_that_was_given_up_releases_those_who_wait(behind: Behind, slow: Callable[..., Any]) -> None:
    """They are released with the next chunk, and all at once, since for a while none of them could store the page."""
    app = streaming(b"x" * 6000, b"x" * 4000)
    gateway = behind(app, max_entry_size=10_000)
    first = slow(gateway)
    (flight,) = gateway._engine.runtime.process.flights._flights.values()
    for number in range(6):
        slow(gateway, f"/{number}")
    assert count_of(gateway, "copies_given_up") == 1
    others = [go(ask, gateway) for _ in range(3)]
    wait_until(lambda: len(flight.done.waiters) == 3)  # type: ignore[attr-defined]
    assert len(b"".join(first)) == 4000
    assert [len(got.body) for got in results(others)] == [10_000] * 3
    assert app.calls == 1 + 6 + 3


def test_small_chunks_take_no_more_memory_than_their_bytes(behind: Behind) -> None:
    app = streaming(*[b"x"] * 5000)
    gateway = behind(app, max_entry_size=10_000)
    body = gateway(environ_for(), lambda *args: lambda data: None)
    for _, _ in zip(range(4000), body, strict=False):
        pass
    (copy,) = gateway._engine.runtime._copies.get()._copies
    assert copy.kept is not None
    assert copy.kept.__sizeof__() < 6000
    body.close()  # type: ignore[attr-defined]
    assert kept_by(gateway) == 0
