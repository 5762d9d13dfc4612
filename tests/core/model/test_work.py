"""Whether an origin computes or waits, from its times and those of the process."""

from __future__ import annotations

import pytest

from flask_stalecache.core.model.work import NO_WORK, Work, measured, rest_after


@pytest.mark.parametrize(
    ("own", "took", "all_threads", "running", "computes"),
    [
        pytest.param(5.0, 5.0, 5.0, 1, True, id="computes, alone"),
        pytest.param(1.0, 4.0, 4.0, 4, True, id="computes, one of four that do"),
        pytest.param(0.5, 4.0, 4.0, 8, True, id="computes, one of eight that do"),
        pytest.param(0.06, 1.06, 0.06, 1, False, id="waits, and computes a little"),
        pytest.param(0.06, 1.06, 0.7, 12, False, id="waits, one of twelve that do"),
        pytest.param(0.1, 1.1, 0.8, 8, False, id="waits, one of eight that compute a little more"),
        pytest.param(0.06, 1.06, 1.06, 4, False, id="waits, beside three that compute"),
        pytest.param(0.04, 0.04, 0.04, 1, False, id="computes too little to be noticed"),
        pytest.param(0.05, 0.05, 0.05, 1, True, id="computes just long enough"),
        pytest.param(0.4, 1.0, 1.0, 1, False, id="alone, beside visitors: less than half is not corrected"),
        pytest.param(2.0, 2.0, 9.0, 3, True, id="C code that leaves the interpreter to others"),
        pytest.param(0.0, 1.0, 1.0, 2, False, id="only waits"),
        pytest.param(1.0, 0.0, 1.0, 1, False, id="a clock that stood still"),
        pytest.param(-1.0, 1.0, 0.0, 1, False, id="a clock that stepped back"),
    ],
)
def test_what_computes(own: float, took: float, all_threads: float, running: int, computes: bool) -> None:
    work = measured(own, took, all_threads, running)
    assert work.computes is computes
    assert 0.0 <= work.share <= 1.0


@pytest.mark.parametrize(
    ("own", "took", "all_threads", "running", "ready", "computes"),
    [
        pytest.param(1.0, 4.0, 1.0, 1, 3.0, True, id="computes, alone, on a busy machine"),
        pytest.param(0.25, 4.0, 1.0, 4, 0.75, True, id="computes, one of four that do"),
        pytest.param(0.06, 2.0, 0.06, 1, 0.2, False, id="waits"),
        pytest.param(0.06, 2.0, 0.5, 8, 0.06, False, id="waits, one of eight that do"),
        pytest.param(1.0, 4.0, 1.0, 1, -1.0, False, id="no number of the system's"),
    ],
)
def test_what_computes_on_a_busy_machine(
    own: float, took: float, all_threads: float, running: int, ready: float, computes: bool
) -> None:
    assert measured(own, took, all_threads, running, ready).computes is computes


@pytest.mark.parametrize(("work", "computes"), [(NO_WORK, False), (Work(9.0, 0.49), False), (Work(0.05, 0.5), True)])
def test_its_limits(work: Work, computes: bool) -> None:
    assert work.computes is computes


@pytest.mark.parametrize(
    ("own", "took", "all_threads", "rest"),
    [
        pytest.param(1.0, 1.0, 1.0, 0.0, id="alone"),
        pytest.param(1.0, 1.0, 1.25, 0.25, id="a few visitors"),
        pytest.param(1.0, 2.5, 2.5, 1.5, id="as many visitors as it could serve"),
        pytest.param(1.0, 2.0, 7.0, 2.0, id="C code that leaves the interpreter to others: not longer than the turn"),
        pytest.param(0.1, 4.0, 0.1, 0.0, id="waits for a third party"),
        pytest.param(1.0, 1.0, 0.5, 0.0, id="a clock that stepped back"),
    ],
)
def test_the_lane_rests_after_a_turn_beside_visitors(own: float, took: float, all_threads: float, rest: float) -> None:
    assert rest_after(own, took, all_threads) == pytest.approx(rest)
