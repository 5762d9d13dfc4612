"""Requests, refreshes and purges that are interrupted at each of their lines, as by a signal's handler that raises: nothing stays.

Covers ``core.guarded`` and ``engine.flights.latch``.
"""

from __future__ import annotations

import gc
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import pytest
from flask import Flask, has_app_context
from werkzeug.test import EnvironBuilder, run_wsgi_app

from flask_stalecache import Policy, StaleCache
from flask_stalecache.core.guarded import guarded
from flask_stalecache.core.rules import cacheability
from flask_stalecache.engine.engine import Engine
from flask_stalecache.engine.flights.latch import Latch
from flask_stalecache.engine.flights.singleflight import Flights, Lead
from flask_stalecache.engine.scheduling import meter
from flask_stalecache.frontends.memoize.circuit_breaker import ConcurrencyLimit
from flask_stalecache.stats.counters import Counters
from flask_stalecache.stats.registry import Registry
from flask_stalecache.stores.file_store import FileStore
from support.interrupting import PACKAGE, Interrupter, descriptors
from support.threads import PATIENCE, go, wait_until

MakeApp = Callable[..., tuple[Flask, StaleCache]]


def make_site(make_app: MakeApp, **settings: Any) -> tuple[Flask, StaleCache]:
    app, cache = make_app(LOCK_TIMEOUT=PATIENCE, **settings)

    @app.get("/<path:name>")
    @cache.cached(max_age=60, stale_while_revalidate=600)
    def page(name: str) -> str:
        return f"page {name}"

    @cache.memoize(max_age=60, stale_while_revalidate=600)
    def price(of: str) -> str:
        return f"price of {of}"

    app.extensions["price"] = price
    return app, cache


def ask(app: Any, path: str) -> bytes:
    """Ask a WSGI app for a page, in this thread, and close the answer."""
    body, _, _ = run_wsgi_app(app, EnvironBuilder(path).get_environ(), buffered=True)
    return b"".join(body)


@dataclass
class Scene:
    """Two processes that share a directory, played by two apps: one is interrupted, the other only sees its files."""

    make_app: MakeApp
    settings: dict[str, Any]
    engine: Engine = field(init=False)
    numbers: count[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        app, self.cache = make_site(self.make_app, **self.settings)
        self.app, self.price = app, app.extensions["price"]
        self.engine = app.extensions["stalecache"].engine
        self.other, _ = make_site(self.make_app, **self.settings)
        self.other_price = self.other.extensions["price"]

    def fresh_name(self) -> str:
        return f"page-{next(self.numbers)}"


@dataclass
class Deed:
    """An action to interrupt, and the look at the same key afterwards.

    :param prepare: called before, without an interruption.
    :param do: the action to interrupt.
    :param again: asks for the same page or value, in the process that was interrupted and in another one.
    """

    do: Callable[[Scene, str], object]
    again: Callable[[Scene, str], object]
    prepare: Callable[[Scene, str], object] = lambda scene, name: None


def ask_both(scene: Scene, name: str) -> None:
    for app in (scene.app, scene.other):
        assert ask(app, f"/{name}") == f"page {name}".encode()


def call_both(scene: Scene, name: str) -> None:
    for app, price in ((scene.app, scene.price), (scene.other, scene.other_price)):
        with app.app_context():
            assert price(name) == f"price of {name}"


def call(scene: Scene, name: str) -> None:
    with scene.app.app_context():
        scene.price(name)


def purge_both(scene: Scene, name: str) -> None:
    for app in (scene.app, scene.other):
        app.extensions["stalecache"].engine.purge(name, soft=False)
    ask_both(scene, name)


def expire(scene: Scene, name: str) -> None:
    ask(scene.app, f"/{name}")
    scene.engine.purge("all", soft=True)


DEEDS: dict[str, Deed] = {
    "a page": Deed(lambda it, name: ask(it.app, f"/{name}"), ask_both),
    "a refresh": Deed(lambda it, name: ask(it.app, f"/{name}"), ask_both, expire),
    "a purge": Deed(
        lambda it, name: it.engine.purge(name, "all", soft=False), purge_both, lambda it, name: ask(it.app, f"/{name}")
    ),
    "a call": Deed(call, call_both),
}


def check_that_nothing_stays(scene: Scene, deed: Deed, name: str, place: str | None, context: Context | None = None) -> None:
    flights = scene.engine.runtime.process.flights._flights
    gc.collect()
    assert flights == {}, place
    store: Any = scene.engine.store
    locks = [store.lock(name)]
    if isinstance(store, FileStore):
        assert list(store.directory.rglob("*.tmp")) == [], place
        locks += [store._cache_directory.lock(purpose) for purpose in ("purge", "sweep")]
    assert all(pool.open_jobs == 0 for pool in scene.engine.runtime.pools), place
    assert not has_app_context(), place
    assert context is None or not context.run(has_app_context), place
    # Later calls in this thread must not count as parts of the interrupted one.
    assert cacheability.current() is None, place
    assert sys.exc_info() == (None, None, None), place
    assert not meter._running.get(), place
    for lock in locks:
        assert lock.acquire(), place
        lock.release()
    # In another thread: a lock that this thread has left held might let this thread pass.
    go(deed.again, scene, name).result(PATIENCE)
    for app in (scene.app, scene.other):
        assert app.extensions["stalecache"].engine.counters["lock_timeouts"] == 0, place
    # The last look may have handed over a refresh.
    wait_until(lambda: not flights, f"the end of all flights after {place}")


def check_that_all_is_closed(open_before: dict[str, str], place: str | None) -> None:
    """Wait until no more files are open than before: other threads, such as those of earlier tests, may open one for a moment."""
    left = f"the end of {descriptors().items() - open_before.items()} after {place}"
    wait_until(lambda: len(descriptors()) <= len(open_before), left)


def play(scene: Scene, deed: Deed, step: int, *, at_signals: bool = False) -> list[str]:
    """Interrupt a deed at each place once. Return the places.

    :param step: interrupt it only at every so many places.
    """
    places: list[str] = []
    seen: set[tuple[str, int]] = set()
    for warm in range(2):
        deed.prepare(scene, f"warm-{warm}")
        deed.do(scene, f"warm-{warm}")
        deed.again(scene, f"warm-{warm}")
    open_before, threads_before = descriptors(), threading.active_count()
    while True:
        name = scene.fresh_name()
        deed.prepare(scene, name)
        interrupter = Interrupter(step, seen=seen, at_signals=at_signals)
        was_interrupted = interrupter.run(lambda: deed.do(scene, name))  # noqa: B023
        check_that_nothing_stays(scene, deed, name, interrupter.place, interrupter.context)
        if at_signals:
            assert interrupter.context.run(cacheability.current) is None, interrupter.place
        # The thread of the look may take a moment to end after its result is there.
        wait_until(lambda: threading.active_count() <= threads_before, f"the end of threads after {interrupter.place}")
        check_that_all_is_closed(open_before, interrupter.place)
        if not was_interrupted:
            return places
        places.append(str(interrupter.place))


#: The settings of the app. Refreshes run in line, in the thread that is interrupted.
SETTINGS: dict[str, dict[str, Any]] = {
    "in files": {"REFRESH_WORKERS": 0},
    "in memory": {"REFRESH_WORKERS": 0, "STORE": "memory", "DIR": None},
    "at the gateway": {"REFRESH_WORKERS": 0, "GATEWAY": [("/*", Policy(max_age=60, stale_while_revalidate=600))]},
}


@pytest.mark.soak
@pytest.mark.parametrize("deed", DEEDS.values(), ids=DEEDS)
def test_an_exception_at_any_line_leaves_nothing(
    make_app: MakeApp, no_housekeeping: None, deed: Deed, soak: Callable[[int, int], int]
) -> None:
    assert len(play(Scene(make_app, SETTINGS["in files"]), deed, soak(1, 50))) > soak(100, 3)


@pytest.mark.grid
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("deed", ["a page", "a refresh"])
def test_nor_does_one_wherever_handlers_of_signals_run(
    make_app: MakeApp, no_housekeeping: None, settings: dict[str, Any], deed: str, soak: Callable[[int, int], int]
) -> None:
    assert len(play(Scene(make_app, settings), DEEDS[deed], soak(6, 300), at_signals=True)) > soak(16, 1)


# -- real signals ----------------------------------------------------------------------------------------------------


class Alarm(BaseException):
    """The exception of a time-out by SIGALRM."""


#: Modules of Python that leave locks of their own held if an exception comes between two lines.
FRAGILE = ("/threading.py", "/logging/__init__.py", "/weakref.py", "/queue.py")


def ring(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename.endswith(FRAGILE):
            return
        frame = frame.f_back
    raise Alarm


@pytest.fixture
def alarms(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float, Callable[[], object]], bool]]:
    """``rings(seconds, do)``: do it under an alarm, and return whether the alarm came before the end."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals reach only the main thread")

    def rings(seconds: float, do: Callable[[], object]) -> bool:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            # Flask may be interrupted between two steps too, and leave its context.
            copy_context().run(do)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Alarm:
            return True
        except BaseException as error:
            # If Flask is interrupted, its clean-up may fail in turn.
            if not isinstance(error.__context__, Alarm):
                raise
            return True
        return False

    # An alarm in a finalizer is lost: Python reports it to this hook only.
    monkeypatch.setattr(sys, "unraisablehook", lambda *_: None)
    before = signal.signal(signal.SIGALRM, ring)
    yield rings
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.soak
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")
def test_a_storm_of_alarms_leaves_nothing(
    make_app: MakeApp,
    no_housekeeping: None,
    alarms: Callable[[float, Callable[[], object]], bool],
    soak: Callable[[int, int], int],
) -> None:
    """Alarms at random moments of misses, hits, refreshes, purges and calls, in a process whose refreshes run in threads."""
    scene, dice, deeds, rung = Scene(make_app, {"REFRESH_WORKERS": 2}), Random(9), list(DEEDS.values()), 0
    open_before = descriptors()
    for round_number in range(soak(4000, 100)):
        deed, name = dice.choice(deeds), f"page-{round_number % 7}"
        deed.prepare(scene, name)
        # In a context of its own: an alarm in a finally clause may leave a context variable, which later tests would see.
        if alarms(dice.uniform(1e-5, 4e-3), partial(copy_context().run, deed.do, scene, name)):
            rung += 1
            # An alarm in an except clause leaves its exception in a cycle with the frame, which keeps the flight.
            gc.collect()
        if round_number % 20 == 19:
            with scene.app.app_context():
                assert scene.cache.drain(PATIENCE)
            check_that_nothing_stays(scene, deed, name, f"round {round_number}")
    assert rung > soak(400, 10)
    assert len(descriptors()) < len(open_before) + 40


# -- the parts -------------------------------------------------------------------------------------------------------


def test_a_flight_ends_with_its_lead() -> None:
    flights, lead = Flights(), Lead()
    flight, leads = flights.join("page", lead)
    assert leads
    waiter = go(flights.wait_for, flight, time.monotonic() + PATIENCE)
    wait_until(lambda: flight.done.waiters)
    del lead
    assert waiter.result(PATIENCE)
    assert flights._flights == {}


def test_a_flight_that_is_taken_over_ends_with_the_new_lead() -> None:
    flights, first, second = Flights(), Lead(), Lead()
    flight, _ = flights.join("page", first)
    new = flights.take_over(flight, 0.0, second)
    assert new is not None
    del first
    assert flights.is_current(new)
    del second
    assert flights._flights == {}


def test_a_lead_that_ends_does_not_end_the_flights_of_others() -> None:
    flights, first, second = Flights(), Lead(), Lead()
    mine, _ = flights.join("page", first)
    assert flights.join("page", second) == (mine, False)
    del second
    assert flights.is_current(mine)
    assert flights.end(mine)
    others, _ = flights.join("page")
    del first
    assert flights.is_current(others)


def test_housekeeping_ends_the_calls_of_visitors_that_have_expired(monotonic: Callable[[float], None]) -> None:
    """The lead is still referenced, as by a debugger that keeps the frames of the request."""
    flights, lead = Flights(), Lead()
    flight, _ = flights.join("page", lead, time.monotonic() + 70)
    monotonic(60)
    flights.end_expired()
    assert flights.is_current(flight)
    monotonic(11)
    flights.end_expired()
    assert not flights.is_current(flight)
    assert flight.done.is_set()
    assert lead is not None


def test_a_latch_wakes_all_who_wait() -> None:
    latch = Latch()
    assert not latch.wait(0)
    waiting = [go(latch.wait, PATIENCE) for _ in range(5)]
    wait_until(lambda: len(latch.waiters) == 5)
    latch.set()
    latch.set()
    assert [each.result(PATIENCE) for each in waiting] == [True] * 5
    assert latch.wait()
    assert not latch.waiters


class Number:
    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self.value = 0

    @guarded
    def raise_to(self, value: int) -> int:
        """Raise it."""
        assert self._mutex.locked()
        self.value = max(value, self.value)
        return self.value


def test_a_guarded_method_holds_the_mutex() -> None:
    number = Number()
    assert number.raise_to(3) == 3
    assert number.raise_to(value=2) == 3
    with pytest.raises(TypeError):
        number.raise_to("three")  # type: ignore[arg-type]
    assert not number._mutex.locked()
    assert (Number.raise_to.__name__, Number.raise_to.__doc__) == ("raise_to", "Raise it.")


def test_no_slot_is_lost_to_an_exception() -> None:
    limit, seen = ConcurrencyLimit(2), set[tuple[str, int]]()

    def use() -> None:
        slot = limit.take()
        assert slot is not None
        limit.give_back(slot)

    while Interrupter(seen=seen).run(use):
        pass
    slots = [limit.take() for _ in range(3)]
    assert [slot is not None for slot in slots] == [True, True, False]
    assert len(seen) > 5


def test_no_part_of_a_call_stays_after_a_signal() -> None:
    """Neither its meter nor the object for its hints, which would make all later calls of the thread parts of a refresh."""
    seen, open_before = set[tuple[str, int]](), descriptors()

    def use() -> None:
        with cacheability.collecting(in_background=True), meter.Meter():
            meter.seconds_ready()

    was_interrupted = True
    while was_interrupted:
        interrupter = Interrupter(seen=seen, at_signals=True)
        was_interrupted = interrupter.run(use)
        assert interrupter.context.run(cacheability.current) is None, interrupter.place
        assert not meter._running.get(), interrupter.place
        check_that_all_is_closed(open_before, interrupter.place)
    assert len(seen) > 20


def test_counters_go_on_after_an_exception(directory: Path) -> None:
    seen, counters = set[tuple[str, int]](), Counters()
    while True:
        registry = Registry(counters, directory)
        was_interrupted = Interrupter(5, seen=seen).run(lambda: registry.tally("endpoint", "shop"))  # noqa: B023
        # In another thread: a lock that this thread has left held might let this thread pass.
        assert go(registry.tally, "endpoint", "shop").result(PATIENCE).label == "shop"
        if not was_interrupted:
            break
    assert registry._file is not None
    assert len(seen) > 50


def test_no_condition_takes_its_lock_in_python_code() -> None:
    """Each condition is given a lock, and the code takes that lock, not the condition."""
    sources = {path.name: path.read_text() for path in Path(PACKAGE).rglob("*.py")}
    assert [name for name, source in sources.items() if "Condition()" in source] == []
    names = {name for source in sources.values() for name in re.findall(r"(\w+) = threading.Condition\(", source)}
    assert names
    assert [name for name, source in sources.items() if re.search(rf"with [\w.]*\b({'|'.join(names)})\b", source)] == []
