"""``memoize`` in an app: one call for many, stale values, failures, and bad arguments.

Covers ``frontends.memoize.handler``, ``frontends.memoize.function``, ``frontends.memoize.bound_function``,
``frontends.memoize.origin``, ``frontends.memoize.fetch`` and ``frontends.memoize.policy``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask, current_app

from flask_stalecache import (
    ConfigError,
    MemoizedFunction,
    OriginBusy,
    OriginSuspended,
    OriginTimeout,
    StaleCache,
    UnkeyableArgument,
)
from support.memoize import Fetch, MakeApp, Shop, rates_of
from support.threads import crowd, go, results, wait_until

# -- one key, one call -----------------------------------------------------------------------------------------------


def test_it_is_called_once_for_one_key(shop: Shop, fetch: Fetch) -> None:
    rates = rates_of(shop[1], fetch)
    assert [rates("EUR"), rates("EUR", 1), rates(base="EUR"), rates(day=1, base="EUR")] == ["EUR-1 1"] * 4
    assert rates("EUR", 2) == "EUR-2 2"
    assert rates("USD") == "USD-1 3"
    assert len(fetch.calls) == 3


def test_types_that_are_equal_are_told_apart(shop: Shop) -> None:
    @shop[1].memoize()
    def kind(value: object) -> str:
        return type(value).__name__

    assert [kind(1), kind(True), kind(1.0), kind("1"), kind(None)] == ["int", "bool", "float", "str", "NoneType"]


def test_another_process_finds_it(make_app: MakeApp, fetch: Fetch) -> None:
    for _ in range(2):
        app, cache = make_app()
        rates = rates_of(cache, fetch)
        with app.app_context():
            assert rates("EUR") == "EUR-1 1"


def test_outside_an_app_context_it_is_called_uncached(fetch: Fetch) -> None:
    rates = rates_of(StaleCache(), fetch)
    assert [rates("EUR"), rates("EUR")] == ["EUR-1 1", "EUR-1 2"]
    for ask in (rates.refresh, rates.purge, rates.peek):
        with pytest.raises(ConfigError, match="app_context"):
            ask("EUR")


def test_switched_off_it_is_called_as_if_not_decorated(make_app: MakeApp, fetch: Fetch) -> None:
    app, cache = make_app(ENABLED=False)
    rates = rates_of(cache, fetch)
    with app.app_context():
        assert [rates("EUR"), rates("EUR")] == ["EUR-1 1", "EUR-1 2"]
        assert rates.peek("EUR") is None


def test_without_an_extension_it_says_what_to_do() -> None:
    rates = rates_of(StaleCache(), Fetch())
    with Flask("bare").app_context(), pytest.raises(ConfigError, match="init_app"):
        rates("EUR")


def test_none_is_a_value(shop: Shop) -> None:
    calls = []

    @shop[1].memoize()
    def nothing() -> None:
        calls.append(1)

    nothing()
    nothing()
    assert len(calls) == 1


@pytest.mark.parametrize("rounds", [1, 3])
def test_changing_what_came_back_changes_nothing_stored(shop: Shop, rounds: int) -> None:
    @shop[1].memoize()
    def rows() -> list[dict[str, list[int]]]:
        return [{"numbers": [1]}]

    for _ in range(rounds):
        got = rows()
        got[0]["numbers"].append(2)
        got.append({})
    assert rows() == [{"numbers": [1]}]


def test_ignored_args_are_not_in_the_key(shop: Shop, fetch: Fetch) -> None:
    @shop[1].memoize(ignored_args=["client"])
    def rates(client: object, base: str) -> str:
        return fetch(base)

    assert rates(object(), "EUR") == rates(object(), base="EUR") == "EUR 1"


def test_a_method_says_its_key(shop: Shop, fetch: Fetch) -> None:
    class Shelf:
        def __init__(self, number: int) -> None:
            self.number = number

        @shop[1].memoize(key=lambda self, place: (self.number, place))
        def books(self, place: str) -> str:
            return fetch(self.number, place)

        @shop[1].memoize()
        def unkeyed(self) -> str:
            return ""

    one, same, other = Shelf(1), Shelf(1), Shelf(2)
    assert [one.books("a"), same.books("a"), other.books("a")] == ["1-a 1", "1-a 1", "2-a 2"]
    assert one.books.peek("a") == "1-a 1"
    with pytest.raises(UnkeyableArgument, match="self"):
        one.unkeyed()


def test_what_has_no_canonical_form_is_refused_by_name(shop: Shop, fetch: Fetch) -> None:
    rates = rates_of(shop[1], fetch)
    with pytest.raises(UnkeyableArgument, match=r"day.*ignored_args"):
        rates("EUR", object())
    assert fetch.calls == []


def test_two_functions_of_one_name_are_refused(shop: Shop, fetch: Fetch) -> None:
    def made(suffix: str) -> MemoizedFunction[[], str]:
        @shop[1].memoize()
        def ask() -> str:
            return fetch(suffix)

        return ask

    assert made("a")() == "a 1"
    with pytest.raises(ConfigError, match="two fetch functions"):
        made("b")()


# -- stale, failing --------------------------------------------------------------------------------------------------


def test_stale_is_returned_at_once_and_renewed_behind(shop: Shop, fetch: Fetch, clock: time_machine.Traveller) -> None:
    rates = rates_of(shop[1], fetch)
    rates("EUR")
    clock.shift(61)
    fetch.gate.clear()
    assert [rates("EUR") for _ in range(20)] == ["EUR-1 1"] * 20
    fetch.gate.set()
    assert shop[1].drain(30)
    assert rates("EUR") == "EUR-1 2"
    assert len(fetch.calls) == 2


@pytest.mark.parametrize("age", [61, 661, 6059])
def test_while_it_fails_what_is_stored_is_returned(shop: Shop, fetch: Fetch, clock: time_machine.Traveller, age: int) -> None:
    rates = rates_of(shop[1], fetch)
    rates("EUR")
    clock.shift(age)
    fetch.error = ConnectionError("down")
    assert rates("EUR") == "EUR-1 1"
    assert shop[1].drain(30)
    assert rates("EUR") == "EUR-1 1"
    assert shop[1].drain(30)
    assert len(fetch.calls) == 2, "it backs off"
    fetch.error = None
    clock.shift(2.6)
    rates("EUR")
    assert shop[1].drain(30)
    assert rates("EUR") == "EUR-1 3"


def test_a_failure_is_raised_where_nothing_can_stand_in(shop: Shop, fetch: Fetch, clock: time_machine.Traveller) -> None:
    rates = rates_of(shop[1], fetch)
    fetch.error = ConnectionError("down")
    for _ in range(2):
        with pytest.raises(ConnectionError, match="down"):
            rates("EUR")
    assert len(fetch.calls) == 2


def test_a_failure_is_remembered_if_asked(shop: Shop, fetch: Fetch, clock: time_machine.Traveller) -> None:
    rates = rates_of(shop[1], fetch, cache_failures=30)
    fetch.error = ConnectionError("down")
    with pytest.raises(ConnectionError):
        rates("EUR")
    with pytest.raises(OriginSuspended, match="not called again"):
        rates("EUR")
    assert len(fetch.calls) == 1
    clock.shift(31)
    fetch.error = None
    assert rates("EUR") == "EUR-1 2"


def test_the_fallback_stands_in_and_nothing_is_asked_in_the_back_off(
    shop: Shop, fetch: Fetch, clock: time_machine.Traveller
) -> None:
    rates = rates_of(shop[1], fetch, fallback=lambda base, day=1: f"no {base}")
    fetch.error = ConnectionError("down")
    assert [rates("EUR") for _ in range(5)] == ["no EUR"] * 5
    assert len(fetch.calls) == 1
    clock.shift(3)
    fetch.error = None
    assert rates("EUR") == "EUR-1 2"


def test_none_is_a_fallback_and_a_list_is_everybodys_own(shop: Shop, fetch: Fetch) -> None:
    fetch.error = ConnectionError("down")
    assert rates_of(shop[1], fetch, fallback=None)("EUR") is None

    @shop[1].memoize(fallback=[])
    def rows() -> list[int]:
        raise OSError

    rows().append(1)
    assert rows() == []


@pytest.mark.parametrize(
    ("failures", "kept"), [((ConnectionError,), True), ((KeyError, 503), False), (lambda it: isinstance(it, OSError), True)]
)
def test_failures_say_what_one_is(shop: Shop, fetch: Fetch, clock: time_machine.Traveller, failures: Any, kept: bool) -> None:
    rates = rates_of(shop[1], fetch, failures=failures)
    rates("EUR")
    clock.shift(1000)
    fetch.error = ConnectionError("down")
    if kept:
        assert rates("EUR") == "EUR-1 1"
    else:
        with pytest.raises(ConnectionError):
            rates("EUR")
        assert rates.peek("EUR") is None, "an answer takes the place of what was stored"


# -- many at once, hanging -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [None, 20])
def test_many_cold_callers_make_one_call(shop: Shop, fetch: Fetch, wait: float | None) -> None:
    app, cache = shop
    rates = rates_of(cache, fetch, wait=wait)
    fetch.gate.clear()

    def ask() -> Any:
        with app.app_context():
            return rates("EUR")

    asked = crowd(30, ask)
    wait_until(lambda: fetch.calls, "the call")
    fetch.gate.set()
    assert results(asked) == ["EUR-1 1"] * 30
    assert len(fetch.calls) == 1


def test_who_waited_long_enough_gets_the_fallback_and_the_call_goes_on(
    shop: Shop, fetch: Fetch, monotonic: Callable[[float], None]
) -> None:
    app, cache = shop
    rates = rates_of(cache, fetch, wait=10, fallback="none")
    fetch.gate.clear()

    def ask() -> Any:
        with app.app_context():
            return rates("EUR")

    first = go(ask)
    wait_until(lambda: fetch.calls, "the call")
    monotonic(11)
    assert first.result(30) == "none"
    assert rates("EUR") == "none", "later callers fall back at once"
    fetch.gate.set()
    assert cache.drain(30)
    assert rates("EUR") == "EUR-1 1"
    assert len(fetch.calls) == 1


def test_without_a_fallback_it_is_a_timeout(shop: Shop, fetch: Fetch) -> None:
    rates = rates_of(shop[1], fetch, wait=0)
    fetch.gate.clear()
    with pytest.raises(OriginTimeout, match=r"rates\(\).*0 s"):
        rates("EUR")


def test_any_stale_value_stands_in_for_one_that_hangs(shop: Shop, fetch: Fetch, clock: time_machine.Traveller) -> None:
    rates = rates_of(shop[1], fetch, wait=0, fallback="none")
    while rates("EUR") == "none":
        assert shop[1].drain(30)
    clock.shift(1e6)
    fetch.gate.clear()
    assert rates("EUR") == "EUR-1 1"


@pytest.mark.parametrize("wait", [0, None])
def test_no_more_calls_run_than_are_allowed(shop: Shop, fetch: Fetch, wait: float | None) -> None:
    app, cache = shop
    rates = rates_of(cache, fetch, wait=wait, max_concurrency=2)
    fetch.gate.clear()

    def ask(base: str) -> Any:
        with app.app_context():
            return rates(base)

    asked = [go(ask, base) for base in ("EUR", "USD")]
    wait_until(lambda: len(fetch.calls) == 2, "two calls")
    with pytest.raises(OriginBusy, match="max_concurrency"):
        rates("GBP")
    fetch.gate.set()
    assert cache.drain(30)
    for future in asked:
        future.exception(30)
    assert len(fetch.calls) == 2


def test_a_function_that_asks_for_its_own_value_is_not_stuck(shop: Shop) -> None:
    depth: list[int] = []

    @shop[1].memoize(wait=5)
    def ask() -> int:
        depth.append(1)
        return 1 if len(depth) > 1 else ask() + 1

    assert ask() == 2


# -- left alone ------------------------------------------------------------------------------------------------------


def test_after_some_failures_in_a_row_all_workers_leave_it_alone(
    make_app: MakeApp, fetch: Fetch, clock: time_machine.Traveller
) -> None:
    apps = [make_app() for _ in range(2)]
    both = [(app, rates_of(cache, fetch, suspend_after=3, suspend_for=60)) for app, cache in apps]

    def ask(which: int, base: str) -> Any:
        app, rates = both[which]
        with app.app_context():
            return rates(base)

    assert ask(0, "GBP") == "GBP-1 1"
    fetch.error = ConnectionError("down")
    for number, which in enumerate((0, 1, 0)):
        with pytest.raises(ConnectionError):
            ask(which, f"C{number}")
    for which in (0, 1):
        with pytest.raises(OriginSuspended, match=r"failed 3 times in a row.*60 s"):
            ask(which, "NEW")
    assert len(fetch.calls) == 4
    clock.shift(700)
    with pytest.raises(ConnectionError):
        ask(0, "NEW")
    with pytest.raises(OriginSuspended):
        ask(1, "NEW")
    assert ask(1, "GBP") == "GBP-1 1", "what is stored stands in"
    assert len(fetch.calls) == 5, "one was tried"
    clock.shift(61)
    fetch.error = None
    assert ask(1, "NEW") == "NEW-1 6"
    assert ask(0, "OTHER") == "OTHER-1 7"


def test_a_success_ends_the_row(shop: Shop, fetch: Fetch) -> None:
    rates = rates_of(shop[1], fetch, suspend_after=2, suspend_for=60)
    for number in range(3):
        fetch.error = ConnectionError("down")
        with pytest.raises(ConnectionError):
            rates("EUR", number)
        fetch.error = None
        rates("USD", number)
    assert len(fetch.calls) == 6


def test_one_that_hangs_is_tried_once_when_the_pause_is_over(
    make_app: MakeApp, fetch: Fetch, clock: time_machine.Traveller
) -> None:
    app, cache = make_app()
    rates = rates_of(cache, fetch, suspend_after=1, suspend_for=60, fallback="none")
    fetch.error = ConnectionError("down")
    with app.app_context():
        rates("EUR")
    clock.shift(61)
    fetch.gate.clear()

    def ask(base: str) -> Any:
        with app.app_context():
            return rates(base)

    trial = go(ask, "A")
    wait_until(lambda: len(fetch.calls) == 2, "the trial")
    assert [ask("B"), ask("C")] == ["none", "none"]
    assert len(fetch.calls) == 2
    fetch.gate.set()
    assert trial.result(30) == "none"


def test_one_that_is_given_up_counts_as_a_failure_once(
    make_app: MakeApp, fetch: Fetch, clock: time_machine.Traveller, monotonic: Callable[[float], None]
) -> None:
    app, cache = make_app(REFRESH_DEADLINE=60)
    rates = rates_of(cache, fetch, suspend_after=2, suspend_for=1000, wait=0, fallback="none")
    fetch.gate.clear()
    fetch.error = ConnectionError("too late")
    with app.app_context():
        for number, base in enumerate(("EUR", "USD")):
            assert rates(base) == "none"
            wait_until(lambda calls=number + 1: len(fetch.calls) == calls, "the call")
            monotonic(61)
            app.extensions["stalecache"].engine.runtime.tick()
            is_over = number == 1
            assert rates.peek("GBP") is None
            assert suspended(rates) is is_over
        fetch.gate.set()
        assert cache.drain(30)
        assert rates("GBP") == "none"
        assert len(fetch.calls) == 2
        clock.shift(1001)
        fetch.error = None
        wait_until(lambda: rates("GBP") == "GBP-1 3", "it is back")


def suspended(rates: MemoizedFunction[..., Any]) -> bool:
    """Whether a function is suspended by its circuit breaker."""
    calls = current_app.extensions["stalecache"].calls
    return calls._bound_function(rates._definition).suspension.is_on()


# -- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"wait": -1}, "wait=-1"),
        ({"fallback": threading.Lock()}, "fallback=.*give a callable"),
        ({"max_concurrency": 0}, "max_concurrency=0"),
        ({"max_concurrency": True}, "max_concurrency=True"),
        ({"suspend_after": 0, "suspend_for": 1}, "suspend_after=0"),
        ({"suspend_after": 1, "suspend_for": -1}, "suspend_for=-1"),
        ({"suspend_after": 1}, "belong together"),
        ({"suspend_for": 1}, "belong together"),
        ({"failures": "down"}, "failures contains 'd'"),
        ({"failures": [200]}, "failures contains 200"),
        ({"failures": 5.0}, "failures=5.0"),
        ({"cache_failures": -1}, "cache_failures=-1"),
        ({"inherit": 1}, "inherit=1"),
        ({"serializer": "yaml"}, "serializer"),
        ({"ignored_args": ["bas"]}, "bas.*base"),
        ({"ignored_args": "base"}, "ignored_args"),
        ({"ignored_args": ["base"], "key": lambda base: base}, "ignored_args has no effect"),
        ({"timeout": 5}, "wait="),
        ({"max_agee": 5}, "max_age"),
        ({"tags": "rates"}, "tags"),
        ({"key": 5}, "key=5"),
    ],
)
def test_bad_input_is_refused_at_decoration(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rates_of(StaleCache(), Fetch(), **rules)


def test_a_wait_longer_than_the_deadline_is_refused(make_app: MakeApp, fetch: Fetch) -> None:
    app, cache = make_app(REFRESH_DEADLINE=5)
    with app.app_context(), pytest.raises(ConfigError, match=r"wait=6.*REFRESH_DEADLINE"):
        rates_of(cache, fetch, wait=6)("EUR")


def test_a_wait_longer_than_the_deadline_is_refused_when_the_app_is_set_up(fetch: Fetch, directory: Path) -> None:
    cache = StaleCache()
    rates = rates_of(cache, fetch, wait=6)
    app = Flask("shop")
    app.config.update(STALECACHE_DIR=directory, STALECACHE_REFRESH_DEADLINE=5)
    with pytest.raises(ConfigError, match=r"wait=6.*REFRESH_DEADLINE"):
        cache.init_app(app)
    assert rates("EUR") == "EUR-1 1"


def test_without_parentheses_it_says_so() -> None:
    with pytest.raises(ConfigError, match="parentheses"):
        StaleCache().memoize(lambda: 1)  # type: ignore[arg-type]


def test_what_returns_no_value_of_its_own_is_refused() -> None:
    async def later() -> int:
        return 1

    def rows() -> Iterator[int]:
        yield 1

    for function in (later, rows, 5):
        with pytest.raises(ConfigError, match="memoize"):
            StaleCache().memoize()(function)  # type: ignore[arg-type]


def test_pickle_needs_a_secret_key(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.secret_key = None

    @cache.memoize(serializer="pickle")
    def made() -> int:
        return 1

    with app.app_context(), pytest.raises(ConfigError, match="SECRET_KEY"):
        made()
