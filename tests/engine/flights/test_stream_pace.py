"""How fast the reader of a stream is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flask_stalecache.engine.flights.stream_pace import READER_PATIENCE, StreamPace

NEARLY, ALL = READER_PATIENCE * 0.9, READER_PATIENCE * 1.1
READER, ORIGIN = True, False


@pytest.mark.parametrize(
    ("steps", "is_slow"),
    [
        pytest.param([], False, id="it has just begun"),
        pytest.param([(READER, NEARLY)], False, id="not yet"),
        pytest.param([(READER, ALL)], True, id="it takes nothing"),
        pytest.param([(ORIGIN, 1000)], False, id="the origin takes long"),
        pytest.param([(READER, NEARLY), (ORIGIN, 1000)], False, id="the origin takes longer"),
        pytest.param([(READER, NEARLY), (ORIGIN, 5), (READER, NEARLY)], True, id="it trickles"),
        pytest.param([(READER, ALL), (ORIGIN, 0)], True, id="it has been slow"),
        pytest.param([(READER, 0.001), (ORIGIN, 0.001)] * 100, False, id="it keeps up"),
    ],
)
def test_a_reader_is_slow_by_the_time_that_it_has_taken(
    monotonic: Callable[[float], None], steps: list[tuple[bool, float]], is_slow: bool
) -> None:
    pace = StreamPace()
    for reads, seconds in steps:
        if reads:
            pace.given()
        else:
            pace.asked()
        monotonic(seconds)
    assert (not pace.left) is is_slow
