"""The order in which waiting refreshes run, and which one is dropped."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_stalecache.engine.scheduling.fair_queue import HALF_LIFE, LOOKED_AT, TURNS_OF_THE_OLDEST, Demand, FairQueue, Waiting


def demand(*asked: float) -> Demand:
    """Return a demand with asks at these times."""
    made = Demand()
    for now in asked:
        made.ask(now)
    return made


def nothing() -> None:
    pass


def named(name: str, *asked: float, dropped: Callable[[], object] = nothing) -> Waiting:
    """Return the job of a key such as ``hot/1``: the group is what stands before the slash."""
    return Waiting(nothing, name.split("/")[0], name, demand(*asked), dropped)


def queue_of(*waiting: Waiting, size: int = 1000) -> FairQueue:
    queue = FairQueue(size)
    for one in waiting:
        assert queue.push(one) is None
    return queue


def order_of(queue: FairQueue) -> list[object]:
    taken = []
    while (waiting := queue.pop()) is not None:
        taken.append(waiting.key)
    assert len(queue) == 0
    return taken


@pytest.mark.parametrize(
    ("less", "more"),
    [
        pytest.param((), (0.0,), id="never asked for, and once"),
        pytest.param((5.0,), (5.0, 5.0), id="once, and twice at the same time"),
        pytest.param((5.0,), (6.0,), id="once, and once later"),
        pytest.param((6.0,), (5.0, 5.0, 5.0), id="once, and thrice a moment earlier"),
        pytest.param((0.0,) * 3, (2 * HALF_LIFE,), id="thrice, and once two half-lives later"),
        pytest.param((2 * HALF_LIFE,), (0.0,) * 5, id="once, and five times two half-lives earlier"),
        pytest.param((1e9,), (1e9, 1e9 + 1e-3), id="on a clock that has run for decades"),
        pytest.param((0.0,) * 1000, (1e9,), id="what was asked for long ago counts nothing"),
    ],
)
def test_a_demand_is_more_than_another(less: tuple[float, ...], more: tuple[float, ...]) -> None:
    assert demand(*less).rank < demand(*more).rank


def test_demands_add_up() -> None:
    both = demand(1.0, 2.0)
    both.add(demand(3.0))
    assert both.rank == pytest.approx(demand(1.0, 2.0, 3.0).rank)
    both.add(Demand())
    assert both.rank == pytest.approx(demand(1.0, 2.0, 3.0).rank)


@pytest.mark.parametrize(
    ("waiting", "order"),
    [
        pytest.param([named("a/1"), named("a/2"), named("a/3")], "a/1 a/2 a/3", id="without any demand, the oldest first"),
        pytest.param([named("a/1", 1), named("a/2", 2), named("a/3", 3)], "a/3 a/2 a/1", id="once each, the latest first"),
        pytest.param([named("a/1", 1, 1, 1), named("a/2", 1), named("a/3", 1, 1)], "a/1 a/3 a/2", id="the most asked first"),
        pytest.param(
            [named("a/1", 1), named("a/2", 1), named("b/1", 1), named("a/3", 1), named("c/1", 1)],
            "a/1 b/1 c/1 a/2 a/3",
            id="groups take turns",
        ),
        pytest.param(
            [named("a/1", 1), *(named(f"a/{number}", number) for number in range(2, 8))],
            "a/7 a/6 a/5 a/1 a/4 a/3 a/2",
            id="each fourth turn of a group is the oldest one's",
        ),
    ],
)
def test_jobs_run_in_order(waiting: list[Waiting], order: str) -> None:
    assert order_of(queue_of(*waiting)) == order.split()


def test_a_hot_page_passes_240_slow_pages_of_another_endpoint_and_of_its_own() -> None:
    """240 stale hits on slow pages came first, and the hot page is asked for again and again."""
    slow = [named(f"slow/{number}", number / 1000) for number in range(240)]
    assert order_of(queue_of(*slow, named("hot/page", 1.0))).index("hot/page") <= 1
    plain = [named(f"app/{number}", number / 1000) for number in range(240)]
    hot = named("app/hot", 0.0)
    queue = queue_of(hot, *plain)
    for _ in range(10):
        hot.demand.ask(0.3)
    assert order_of(queue)[0] == "app/hot"


def test_a_second_job_of_a_key_takes_the_place_of_the_first_with_the_demand_of_both() -> None:
    first, second = named("a/1", 1, 1), named("a/1", 1, 1)
    queue = queue_of(first, named("a/2", 1, 1, 1))
    assert queue.push(second) is first
    assert len(queue) == 2
    assert queue.pop() is second
    assert order_of(queue) == ["a/2"]


def test_a_second_job_of_a_key_may_be_of_another_group() -> None:
    first, second = named("a/1", 1, 1), Waiting(nothing, "b", "a/1", demand(1, 1))
    queue = queue_of(first, named("b/2", 1, 1, 1))
    assert queue.push(second) is first
    assert len(queue) == 2
    assert queue.pop() is second, "it has the demand of both"
    assert order_of(queue) == ["b/2"]


@pytest.mark.parametrize(
    ("waiting", "new", "dropped"),
    [
        pytest.param([named("a/1", 1), named("a/2", 2)], named("a/3", 3), "a/1", id="the one that is asked for least"),
        pytest.param([named("a/1", 3), named("a/2", 3)], named("a/3", 1), "a/3", id="the new one, if nobody asks for it"),
        pytest.param([named("a/1"), named("a/2")], named("a/3"), "a/3", id="of equals the newest"),
        pytest.param([named("a/1", 5), named("a/2", 6)], named("b/1", 1), "a/1", id="one of the largest group"),
        pytest.param([named("a/1", 1), named("b/1", 1)], named("c/1", 2), "c/1", id="of groups of one size, that of the new one"),
        pytest.param([named("a/1", 1, 1), named("b/1", 1)], named("a/2", 1), "a/2", id="a flood drops its own"),
    ],
)
def test_a_full_queue_drops_one(waiting: list[Waiting], new: Waiting, dropped: str) -> None:
    queue = queue_of(*waiting, size=2)
    gone = queue.push(new)
    assert gone is not None
    assert gone.key == dropped
    assert len(queue) == 2


def test_a_job_that_runs_at_once_is_not_bound_by_the_size() -> None:
    queue = queue_of(size=0)
    assert queue.push(named("a/1"), is_bound=False) is None
    assert order_of(queue) == ["a/1"]


def test_clearing_says_how_many_waited() -> None:
    queue = queue_of(named("a/1"), named("b/1"))
    assert queue.clear() == 2
    assert queue.pop() is None
    assert queue.clear() == 0


def test_a_choice_among_very_many_looks_at_both_ends() -> None:
    jobs = [named(f"a/{number}", 1.0) for number in range(5 * LOOKED_AT)]
    queue = queue_of(*jobs, size=5 * LOOKED_AT)
    jobs[-1].demand.ask(1.0)
    first = queue.pop()
    assert first is jobs[-1]
    jobs[1].demand.ask(2.0)
    assert queue.pop() is jobs[1]
    assert sorted(map(str, order_of(queue))) == sorted(str(job.key) for job in jobs if job not in (jobs[1], jobs[-1]))


def test_none_waits_for_ever_below_an_endless_demand() -> None:
    """New jobs that are asked for more come at each turn, in the same group."""
    cold = [named(f"a/cold {number}", 1.0) for number in range(10)]
    queue, turns = queue_of(*cold), 0
    left = {waiting.key for waiting in cold}
    while left:
        turns += 1
        queue.push(named(f"a/hot {turns}", *[float(turns)] * 5))
        waiting = queue.pop()
        assert waiting is not None
        left.discard(waiting.key)
    assert turns <= len(cold) * TURNS_OF_THE_OLDEST


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(0, 3)) | st.none(), max_size=60), st.integers(0, 8)
)
def test_each_job_is_taken_dropped_or_waits(steps: list[tuple[str, int, int] | None], size: int) -> None:
    queue, pushed, gone = FairQueue(size), list[Waiting](), list[Waiting]()
    for now, step in enumerate(steps):
        if step is None:
            one = queue.pop()
        else:
            group, number, asks = step
            pushed.append(named(f"{group}/{number}", *[float(now)] * asks))
            one = queue.push(pushed[-1])
        gone += [] if one is None else [one]
        assert len(queue) <= size
        assert len(queue) == len(pushed) - len(gone)
    while (one := queue.pop()) is not None:
        gone.append(one)
    assert sorted(map(id, gone)) == sorted(map(id, pushed))
