"""Collapsing in one process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import pytest

from flask_stalecache.engine.flights.singleflight import Flight, FlightOutcome, FlightResult, Flights
from flask_stalecache.engine.flights.stream_pace import READER_PATIENCE, StreamPace
from support.threads import PATIENCE, crowd, go, results, wait_until


@dataclass
class FakeLock:
    """A key's lock that counts its releases."""

    released: list[int] = field(default_factory=list)

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        self.released.append(threading.get_ident())


@pytest.fixture
def flights() -> Flights:
    return Flights()


def test_the_first_leads_and_the_others_join(flights: Flights) -> None:
    flight, leads = flights.join("page")
    assert leads
    assert flight.leader == threading.get_ident()
    assert flights.is_current(flight)
    for _ in range(3):
        assert flights.join("page") == (flight, False)
    assert not flight.done.is_set()


def test_another_key_has_a_flight_of_its_own(flights: Flights) -> None:
    page, news = flights.join("page")[0], flights.join("news")
    assert news[1]
    assert flights.end(news[0])
    assert flights.is_current(page)
    assert not page.done.is_set()


def test_who_comes_after_the_end_leads_again(flights: Flights) -> None:
    first, _ = flights.join("page")
    assert flights.end(first)
    assert first.done.is_set()
    assert not flights.is_current(first)
    second, leads = flights.join("page")
    assert leads
    assert second is not first


def test_the_end_tells_all_who_wait(flights: Flights) -> None:
    flight, _ = flights.join("page")
    waiting: list[int] = []

    def wait() -> FlightOutcome:
        joined, leads = flights.join("page")
        assert not leads
        waiting.append(1)
        assert joined.done.wait(PATIENCE)
        return joined.result.outcome

    futures = [go(wait) for _ in range(20)]
    wait_until(lambda: len(waiting) == 20)
    flight.result = FlightResult(FlightOutcome.UNSTORABLE)
    flights.end(flight)
    assert results(futures) == [FlightOutcome.UNSTORABLE] * 20


def test_the_end_without_an_outcome_says_nothing(flights: Flights) -> None:
    flight, _ = flights.join("page")
    flights.end(flight)
    assert flight.result == (FlightOutcome.OVER, None, None)


def test_the_lock_is_released_once_and_before_the_others_look(flights: Flights) -> None:
    flight, _ = flights.join("page")
    done_at_release: list[bool] = []

    class Lock(FakeLock):
        def release(self) -> None:
            done_at_release.append(flight.done.is_set())

    flight.lock = Lock()
    assert flights.end(flight)
    assert not flights.end(flight)
    assert done_at_release == [False]
    assert flight.lock is None


def test_a_second_end_leaves_the_next_flight_alone(flights: Flights) -> None:
    first, _ = flights.join("page")
    flights.end(first)
    second, _ = flights.join("page")
    assert not flights.end(first)
    assert flights.is_current(second)
    assert not second.done.is_set()


@pytest.mark.soak
def test_of_many_at_once_one_leads(flights: Flights, soak: Callable[[int, int], int]) -> None:
    for _ in range(soak(200, 20)):
        joined = results(crowd(20, lambda: flights.join("page")))
        leaders = [flight for flight, leads in joined if leads]
        assert len(leaders) == 1
        assert {id(flight) for flight, _ in joined} == {id(leaders[0])}
        flights.end(leaders[0])


# -- taking over -----------------------------------------------------------------------------------------------------


def test_a_flight_that_takes_too_long_is_replaced(flights: Flights) -> None:
    old: Flight = go(flights.join, "page").result(PATIENCE)[0]
    lock = old.lock = FakeLock()
    new = flights.take_over(old, 60)
    assert new is not None
    assert new.leader == threading.get_ident() != old.leader
    assert old.done.is_set()
    assert old.result.outcome is FlightOutcome.OVER
    assert flights.join("page") == (new, False)

    assert not flights.end(old)
    assert flights.is_current(new)
    assert not new.done.is_set()
    assert flights.end(new)
    assert len(lock.released) == 1


@pytest.mark.soak
def test_only_one_takes_over(flights: Flights, soak: Callable[[int, int], int]) -> None:
    for _ in range(soak(200, 20)):
        old, _ = flights.join("page")
        taken = [flight for flight in results(crowd(20, lambda old=old: flights.take_over(old, 60))) if flight is not None]
        assert len(taken) == 1
        flights.end(taken[0])
        flights.end(old)


def test_a_flight_that_has_ended_is_not_taken_over(flights: Flights) -> None:
    flight, _ = flights.join("page")
    flights.end(flight)
    assert flights.take_over(flight, 60) is None
    assert flights.join("page")[1]


# -- deadlines -------------------------------------------------------------------------------------------------------


def test_a_refresh_leads_only_where_nobody_does(flights: Flights) -> None:
    flight = flights.lead("page", 0.0)
    assert flight is not None
    assert flights.lead("page", 0.0) is None
    assert flights.join("page") == (flight, False)
    flights.end(flight)
    assert flights.join("page")[1]
    assert flights.lead("page", 0.0) is None


def test_only_refreshes_past_their_deadline_are_overdue(flights: Flights) -> None:
    now = time.monotonic()
    flights.join("a visitor's own call has no deadline")
    flights.lead("has time", now + 1000)
    late = flights.lead("late", now - 1)
    assert flights.overdue() == [late]
    assert late is not None
    flights.end(late)
    assert flights.overdue() == []


@pytest.mark.soak
def test_leaders_and_enders_in_many_threads(flights: Flights, soak: Callable[[int, int], int]) -> None:
    """Each leader ends its flight, no waiter waits forever, and no flight is left."""
    rounds, running, most = soak(2000, 200), [0], [0]
    mutex = threading.Lock()

    def play() -> int:
        led = 0
        for _ in range(rounds):
            flight, leads = flights.join("page")
            if not leads:
                assert flight.done.wait(PATIENCE)
                continue
            led += 1
            with mutex:
                running[0] += 1
                most[0] = max(most[0], running[0])
            with mutex:
                running[0] -= 1
            flights.end(flight)
        return led

    futures: list[Future[int]] = crowd(8, play)
    # A thread joins each flight once, so that eight threads make no more than eight joins of one.
    assert sum(results(futures)) >= rounds
    assert most == [1]
    assert flights.join("page")[1]


# -- streams ---------------------------------------------------------------------------------------------------------


def test_those_who_wait_for_a_stream_are_released_once_its_reader_is_slow(monotonic: Callable[[float], None]) -> None:
    counted: list[int] = []
    flights, lock = Flights(lambda: counted.append(1)), FakeLock()
    flight, _ = flights.join("page")
    flight.lock = lock
    flight.pace = StreamPace()
    assert flights.slow() == []
    monotonic(READER_PATIENCE)
    assert flights.slow() == [flight]
    waits = crowd(3, lambda: flights.wait_for(flight, time.monotonic() + PATIENCE))
    assert results(waits) == [True] * 3
    assert (flight.is_slow, flight.result.outcome, len(lock.released), counted) == (True, FlightOutcome.OVER, 1, [1])
    assert not flights.end_slow(flight)
    assert flights.join("page")[1]


def test_a_wait_for_a_stream_that_goes_well_ends_with_it(flights: Flights) -> None:
    flight, _ = flights.join("page")
    wait = go(flights.wait_for, flight, time.monotonic() + PATIENCE)
    flight.pace = StreamPace()
    flight.pace.asked()
    flight.result = FlightResult(FlightOutcome.UNSTORABLE)
    assert flights.end(flight)
    assert wait.result(PATIENCE)
    assert not flight.is_slow


def test_a_wait_ends_in_time(flights: Flights, monotonic: Callable[[float], None]) -> None:
    flight, _ = flights.join("page")
    assert not flights.wait_for(flight, time.monotonic())
    flights.end(flight)
    assert flights.wait_for(flight, time.monotonic())
    flight.pace = StreamPace()
    monotonic(READER_PATIENCE)
    assert not flights.end_slow(flight), "it is not the key's flight any more"
    assert not flight.is_slow


def test_a_flight_that_moves_wakes_its_waiters_and_is_found_under_its_new_key() -> None:
    flights = Flights()
    flight, _ = flights.join("url")
    done, (other, _) = flight.done, flights.join("other")
    flights.move(flight, "other")
    assert not done.is_set()
    flights.move(flight, "variant")
    assert done.is_set()
    assert flights.join("variant") == (flight, False)
    assert flights.join("url")[1]
    assert flight.lock_key == "url"
    assert flights.end(flight)
    assert flights.join("variant")[1]
    flights.move(flight, "later")
    assert flights.join("later")[1]
    assert flights.end(other)
