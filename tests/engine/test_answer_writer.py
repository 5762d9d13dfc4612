"""The result of a flight's waiters for each answer. What the store holds afterwards is tested in test_engine and test_failures."""

from __future__ import annotations

import pytest

from flask_stalecache.core.rules.storability import Verdict
from flask_stalecache.engine.answer_writer import result_for_waiters
from flask_stalecache.engine.flights.singleflight import LOOK_AGAIN, FlightOutcome
from flask_stalecache.engine.origin import Answer, Start
from support.engine import failed, make_entry, personal, storable, unstorable

START = Start(seq=7, started=1000.0, serial="ours", previous=None)
BESIDE = Answer(verdict=Verdict.STORABLE, entry=make_entry("variant"), beside=make_entry("page"))
VALUE = Answer(verdict=Verdict.FAILED, value="one member's own page")
SHARED = Answer(verdict=Verdict.FAILED, value="a page with hooks", shared="a frozen one")
REFUSED = Answer(verdict=Verdict.REFUSED, error=ConnectionError("too many calls"))


@pytest.mark.parametrize(
    ("answer", "seq", "outcome", "is_shared"),
    [
        pytest.param(storable(START), 8, FlightOutcome.OVER, False, id="storable-but-purged"),
        pytest.param(BESIDE, 7, FlightOutcome.OVER, False, id="storable-for-another-key"),
        pytest.param(BESIDE, 8, FlightOutcome.OVER, False, id="storable-for-another-key-and-purged"),
        pytest.param(unstorable(), 7, FlightOutcome.UNSTORABLE, False, id="unstorable"),
        pytest.param(personal("member"), 7, FlightOutcome.OVER, False, id="personal"),
        pytest.param(failed(), 7, FlightOutcome.FAILED, True, id="raised"),
        pytest.param(failed(anybodys=False), 7, FlightOutcome.FAILED, False, id="raised-for-one-visitor"),
        pytest.param(VALUE, 7, FlightOutcome.FAILED, False, id="failed-with-nothing-to-share"),
        pytest.param(SHARED, 7, FlightOutcome.FAILED, True, id="failed-with-a-frozen-page"),
        pytest.param(Answer(verdict=Verdict.WORSE), 7, FlightOutcome.FAILED, False, id="worse"),
        pytest.param(REFUSED, 7, FlightOutcome.FAILED, True, id="refused"),
    ],
)
def test_waiters_are_told_by_the_verdict(answer: Answer, seq: int, outcome: FlightOutcome, is_shared: bool) -> None:
    result = result_for_waiters(answer, "page", START, seq)
    assert (result.outcome, result.copy) == (outcome, None)
    assert (result.failure is not None and result.failure.may_be_shared) is is_shared


def test_a_stored_answer_is_served_to_all_as_of_the_purges_before_the_call() -> None:
    answer = storable(START)
    result = result_for_waiters(answer, "page", START, 7)
    assert result.outcome is FlightOutcome.STORED
    assert result.copy is not None
    assert (result.copy.key, result.copy.entry, result.copy.seq) == ("page", answer.entry, 7)


def test_an_answer_that_counts_as_begun_before_a_purge_is_for_requests_that_are_as_old() -> None:
    answer = storable(START._replace(seq=5))
    result = result_for_waiters(answer, "page", START, 7)
    assert result.outcome is FlightOutcome.DATED
    assert result.copy is not None
    assert (result.copy.entry, result.copy.seq) == (answer.entry, 7)
    assert result_for_waiters(answer, "page", START, 8) == LOOK_AGAIN


@pytest.mark.parametrize("verdict", list(Verdict))
def test_every_verdict_has_a_result(verdict: Verdict) -> None:
    result = result_for_waiters(Answer(verdict=verdict), "page", START, 8)
    assert result.copy is None or verdict is Verdict.STORABLE
    assert (result == LOOK_AGAIN) is (verdict in (Verdict.STORABLE, Verdict.PERSONAL))
