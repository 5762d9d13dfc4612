"""Times from the future, and the clock that counts from the start of the machine."""

from __future__ import annotations

import pytest

from flask_stalecache.core.model.moments import Uptime, is_future

NOON = 1_800_000_000.0


@pytest.mark.parametrize(("ahead", "future"), [(-1e9, False), (0.0, False), (10.0, False), (10.1, True), (86400.0 * 365, True)])
def test_some_seconds_ahead_are_no_future(ahead: float, future: bool) -> None:
    assert is_future(NOON + ahead, NOON) is future


@pytest.mark.parametrize(
    ("then", "now", "past"),
    [
        pytest.param(Uptime("a", 100.0), Uptime("a", 160.0), False, id="just"),
        pytest.param(Uptime("a", 100.0), Uptime("a", 160.1), True, id="long ago"),
        pytest.param(Uptime("a", 100.0), Uptime("a", 50.0), False, id="a container with a clock of its own"),
        pytest.param(Uptime("a", 100.0), Uptime("b", 101.0), True, id="the machine was started again"),
        pytest.param(Uptime("a", 100.0), Uptime("b", 50.0), True, id="started again a short while ago"),
        pytest.param(Uptime("", 100.0), Uptime("", 160.0), False, id="no identifier, just"),
        pytest.param(Uptime("", 100.0), Uptime("", 160.1), True, id="no identifier, long ago"),
        pytest.param(Uptime("", 100.0), Uptime("", 50.0), True, id="no identifier, the machine was started again"),
        pytest.param(Uptime("a", 100.0), Uptime("", 101.0), False, id="the identifier can't be read any more, just"),
        pytest.param(Uptime("", 100.0), Uptime("b", 200.0), True, id="the identifier can be read by now, long ago"),
    ],
)
def test_a_span_is_past_or_the_machine_was_started_again(then: Uptime, now: Uptime, past: bool) -> None:
    assert then.is_past(60.0, now) is past
