"""Fetch functions whose third party, value or code is at fault: what callers get, how often it is called, and what is logged.

Covers ``engine.timed_calls`` and ``frontends.memoize.circuit_breaker``.
"""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import time_machine
from flask import Flask, request, session

from flask_stalecache import ConfigError, StaleCache
from flask_stalecache.engine import timed_calls
from flask_stalecache.engine.answer_writer import AnswerWriter
from support.threads import crowd, go, no_threads, results, wait_until
from support.unpicklable import Bomb

MakeApp = Callable[..., tuple[Flask, StaleCache]]

NO_REQUEST = r"nosy\(\) uses the request.*give it what it needs as an argument"


def counts(app: Flask) -> dict[str, int]:
    return app.extensions["stalecache"].counters.as_dict()  # type: ignore[no-any-return]


# -- a live value is never lost --------------------------------------------------------------------------------------


class Own:
    pass


@pytest.mark.parametrize("wait", [None, 20])
@pytest.mark.parametrize(
    ("value", "hint", "serializer", "reason"),
    [
        (Own(), Any, "json", r"Own has no form in JSON; annotate what the function returns, .*or give serializer="),
        ("one", int, "json", r"annotation says <class 'int'>, and str came: mend one of them, or give serializer="),
        (None, list[str], "json", r"annotation says list\[str\], and NoneType came: mend one of them"),
        ([1, "a"], list[int], "json", r"annotation says list\[int\], and list came: mend one of them"),
        (lambda: 1, Any, "pickle", "it can't be pickled"),
    ],
    ids=["no json", "another type", "none", "another item", "no pickle"],
)
def test_a_value_that_can_not_be_stored_is_everybodys_live(
    value: Any, hint: Any, serializer: str, reason: str, wait: float | None, make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    app, cache = make_app()

    def made() -> Any:
        return value

    made.__annotations__["return"] = hint
    made = cache.memoize(wait=wait, fallback="fallback", serializer=serializer)(made)
    with app.app_context():
        assert [made(), made(), made()] == [value] * 3
        assert made.peek() is None
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert re.search(rf"made\(\) returned is not stored: .*{reason}", told[0])


def signed_by_another(app: Flask, make_app: MakeApp) -> Flask:
    other, _ = make_app()
    other.secret_key = "another"
    return other


def tampered_with(app: Flask, make_app: MakeApp) -> Flask:
    """Flip a bit of the stored value. The file around it is sound."""
    store = app.extensions["stalecache"].engine.store
    key = next(iter(app.extensions["stalecache"].calls._bound_functions.values())).key((), {})
    entry = store.load(key).entry
    body = entry.body[:-2] + bytes([entry.body[-2] ^ 1]) + entry.body[-1:]
    assert store.write(replace(entry, body=body, serial="another"))
    return make_app()[0]


@pytest.mark.parametrize("wait", [None, 20])
@pytest.mark.parametrize("changed", [signed_by_another, tampered_with])
def test_a_pickle_that_is_not_ours_is_a_counted_miss_and_never_unpickled(
    changed: Callable[[Flask, MakeApp], Flask], wait: float | None, make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    app, cache = make_app()
    calls: list[int] = []

    @cache.memoize(serializer="pickle", wait=wait)
    def made() -> Any:
        calls.append(1)
        return Bomb() if len(calls) == 1 else {len(calls)}

    with app.app_context():
        made()
    other = changed(app, make_app)
    before = Bomb.gone_off
    with other.app_context():
        assert [made(), made(), made.peek()] == [{2}] * 3
    assert (Bomb.gone_off, len(calls), counts(other)["broken_values"]) == (before, 2, 1)
    assert "is not signed with this app's secret key" in caplog.text


# -- the developer's code --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [None, 20])
@pytest.mark.parametrize("touch", [lambda: request.args, lambda: session.get("user"), lambda: [request.path for _ in "a"]])
def test_who_touches_the_request_is_told_also_behind_a_fallback(
    touch: Callable[[], Any], wait: float | None, make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    app, cache = make_app()

    @cache.memoize(wait=wait, fallback="fallback")
    def nosy() -> Any:
        return touch()

    with app.test_request_context("/"):
        assert nosy() == "fallback"
    assert len([record for record in caplog.records if "its fallback stands in" in record.getMessage()]) == 1
    assert re.search(NO_REQUEST, caplog.text)


def test_a_caller_is_told_of_the_failure_of_its_own_call_and_not_of_the_back_off(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller looks while the back-off is already written and the call is not over yet."""
    app, cache = make_app()
    looks: list[int] = []
    wait, write, is_over = timed_calls.wait_a_moment, AnswerWriter.write_flight, threading.Event()

    def noting_wait(*args: Any) -> None:
        looks.append(1)
        wait(*args)

    def write_slowly(*args: Any) -> bool:
        stored, before = write(*args), len(looks)
        wait_until(lambda: is_over.is_set() or len(looks) >= before + 2, "the caller looks")
        return stored

    monkeypatch.setattr(timed_calls, "wait_a_moment", noting_wait)
    monkeypatch.setattr(AnswerWriter, "write_flight", write_slowly)

    @cache.memoize(wait=20, fallback="fallback")
    def ask() -> str:
        raise ConnectionError("down")

    with app.app_context():
        assert ask() == "fallback"
    is_over.set()
    assert len([record for record in caplog.records if "its fallback stands in" in record.getMessage()]) == 1


@pytest.mark.parametrize("wait", ["2", True, float("inf"), float("nan"), [1]])
def test_a_wait_that_is_no_duration_is_refused(wait: Any) -> None:
    with pytest.raises(ConfigError, match=r"wait=.*give seconds, 0 or more"):
        StaleCache().memoize(wait=wait)(lambda: 1)


def test_what_is_no_exception_ends_the_call_and_is_not_tried_over_and_over(make_app: MakeApp) -> None:
    app, cache = make_app()
    calls: list[int] = []

    @cache.memoize(wait=0.5, fallback="fallback")
    def ask() -> str:
        calls.append(1)
        raise asyncio.CancelledError

    with app.app_context():
        ask()
    assert cache.drain(30)
    assert len(calls) == 1


# -- how often it is asked -------------------------------------------------------------------------------------------


def waits_or_asks(app: Flask) -> bool:
    """Whether a call in this process is under way, or waits for one in another process."""
    process = app.extensions["stalecache"].engine.runtime.process
    return bool(process.flights._flights or process.refreshes._pending)


@pytest.mark.parametrize("wait", [None, 20])
@pytest.mark.parametrize("stored", [False, True], ids=["cold", "past all windows"])
def test_processes_that_waited_for_one_that_fails_do_not_ask_again_at_once(
    stored: bool, wait: float | None, make_app: MakeApp, clock: time_machine.Traveller
) -> None:
    calls: list[int] = []
    gate = threading.Event()

    def made() -> tuple[Flask, Callable[[], str]]:
        app, cache = make_app()

        @cache.memoize(60, 0, 0, wait=wait, fallback="fallback")
        def ask() -> str:
            calls.append(1)
            if stored and len(calls) == 1:
                return "stored"
            assert gate.wait(30)
            raise ConnectionError("down")

        def asked() -> str:
            with app.app_context():
                return ask()

        return app, asked

    sites = [made() for _ in range(4)]
    if stored:
        assert sites[0][1]() == "stored"
        clock.shift(61)
    asking = [go(ask) for _, ask in sites]
    wait_until(lambda: all(waits_or_asks(app) for app, _ in sites), "all wait")
    gate.set()
    assert results(asking) == ["fallback"] * 4
    assert len(calls) - stored == 1


@pytest.mark.parametrize("fallback", [{"fallback": "none"}, {}], ids=["fallback", "no fallback"])
@pytest.mark.parametrize("wait", [None, 20])
def test_pages_made_of_what_is_past_its_windows_ask_once_a_step(
    wait: float | None, fallback: dict[str, str], make_app: MakeApp, clock: time_machine.Traveller
) -> None:
    app, cache = make_app()
    calls: list[int] = []

    @cache.memoize(60, 0, 60, jitter=0, wait=wait, **fallback)
    def ask() -> str:
        calls.append(1)
        if len(calls) > 1:
            raise ConnectionError("down")
        return "stored"

    @app.get("/<int:number>")
    @cache.cached(600, 6000, 6000, jitter=0)
    def page(number: int) -> str:
        return ask()

    client = app.test_client()
    for number in range(5):
        client.get(f"/{number}").close()
    clock.shift(200)
    for number in range(5):
        with client.get(f"/{number}") as response:
            assert response.text == "stored"
        assert cache.drain(30)
    assert len(calls) == 2, "one attempt in this step, whichever page it is for"


def test_values_that_can_not_be_stored_do_not_make_their_callers_queue(make_app: MakeApp) -> None:
    app, cache = make_app()
    together = threading.Barrier(4)
    alone = [True]

    @cache.memoize(wait=20)
    def ask() -> Any:
        if not alone[0]:
            together.wait(3)
        return Own()

    def asked() -> Any:
        with app.app_context():
            return ask()

    asked()
    alone[0] = False
    assert all(isinstance(value, Own) for value in results(crowd(4, asked)))


@pytest.mark.parametrize("seed", [9, 10, 21])
def test_a_page_is_fresh_within_one_step_of_the_value_that_it_is_made_of(
    seed: int, make_app: MakeApp, clock: time_machine.Traveller
) -> None:
    random.seed(seed)
    app, cache = make_app()
    attempts: list[float] = []
    is_down = True

    @cache.memoize(60, 600, 6000, jitter=0, fallback="fallback")
    def ask() -> str:
        attempts.append(time.time())
        if is_down:
            raise ConnectionError("down")
        return "back"

    @app.get("/")
    @cache.cached(60, 600, 6000, jitter=0)
    def page() -> str:
        return ask()

    def visit() -> str:
        with app.test_client().get("/") as response:
            text = response.text
        assert cache.drain(30)
        clock.shift(1)
        return text

    assert {visit() for _ in range(61)} == {"fallback"}
    is_down, back, step = False, time.time(), 2 * 2.0 ** (len(attempts) - 1)
    while visit() != "back":
        assert time.time() - back <= 1.25 * step + 2


def test_who_waits_is_woken_when_it_lands(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_stalecache.engine.timed_calls.POLL", 5.0)
    app, cache = make_app()

    @cache.memoize(wait=20)
    def ask(number: int) -> int:
        return number

    def asked() -> list[int]:
        with app.app_context():
            return [ask(number) for number in range(20)]

    assert go(asked).result(3) == [*range(20)]


def test_out_of_threads_for_a_while_callers_still_do_not_wait_for_one_that_hangs(
    make_app: MakeApp, monotonic: Callable[[float], None]
) -> None:
    app, cache = make_app()
    gate = threading.Event()
    ran_in: list[threading.Thread] = []

    @cache.memoize(wait=0, fallback="fallback")
    def ask(number: int) -> str:
        ran_in.append(threading.current_thread())
        assert gate.wait(30)
        return "value"

    def asked(*numbers: int) -> list[str]:
        with app.app_context():
            return [ask(number) for number in numbers]

    with no_threads():
        assert asked(0, 1) == ["fallback"] * 2
    monotonic(6)
    asking = go(asked, 2, 3, 4)
    try:
        assert asking.result(3) == ["fallback"] * 3
    finally:
        gate.set()
    assert cache.drain(30)
    assert all(thread.name == "stalecache-refresh" for thread in ran_in)
