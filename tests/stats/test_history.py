"""The history of the last hour: one sample every 15 seconds, whichever process takes it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import time_machine

from flask_stalecache.core.rules.status import CacheStatus
from flask_stalecache.filesystem.sealed import seal, seal_line
from flask_stalecache.stats import history as history_module
from flask_stalecache.stats.counter_file import CounterFile
from flask_stalecache.stats.counters import Counters
from flask_stalecache.stats.history import INTERVAL, KEPT, History
from flask_stalecache.stats.registry import Registry
from flask_stalecache.stats.schema import Sample
from flask_stalecache.stats.tally import CELLS, PLAIN, Totals
from support.processes import workers

Move = Callable[[float], None]
STEP = INTERVAL + 1


@pytest.fixture
def move(clock: time_machine.Traveller, monotonic: Move) -> Move:
    """Return a function that advances both clocks."""

    def both(seconds: float) -> None:
        clock.shift(seconds)
        monotonic(seconds)

    return both


def make_ledger(directory: Path | None) -> Registry:
    return Registry(Counters(), directory)


def counted(samples: list[Sample]) -> list[int]:
    return [sample["requests"]["HIT"] for sample in samples]


def hit(registry: Registry, times: int, label: str = "news") -> None:
    for _ in range(times):
        registry.tally("endpoint", label).cells[PLAIN] += 1


@pytest.mark.parametrize("in_files", [True, False])
def test_each_sample_says_what_came_since_the_last_one(directory: Path, move: Move, in_files: bool) -> None:
    registry = make_ledger(directory if in_files else None)
    for times in (5, 3, 0, 2):
        hit(registry, times)
        registry.tick()
        move(STEP)
    # The store is new: it counts from zero, not from the first tick.
    samples = registry.history()
    assert counted(samples) == [8, 0, 2]
    assert [sample["seconds"] for sample in samples] == pytest.approx([STEP] * 3, abs=1)
    assert [b["at"] - a["at"] for a, b in pairwise(samples)] == [STEP, STEP]


def test_a_sample_has_all_of_what_happened_and_nothing_else(directory: Path, move: Move) -> None:
    registry = make_ledger(directory)
    hit(registry, 1, "quiet")
    registry.tick()
    move(STEP)
    registry.tick()
    move(STEP)
    tally = registry.tally("function", "shop.rates")
    tally.served(CacheStatus.MISS, 0.2, waited=True)
    tally.asked(0.2, failed=True)
    tally.refreshed(0.5, failed=False)
    registry.tally("host", "api.example").served(CacheStatus.STALE, 0.004)
    registry.tick()
    [_, sample] = registry.history()
    assert (sample["origin_calls"], sample["origin_failures"], sample["waits"]) == (1, 1, 1)
    assert sample["refreshes"] == {"done": 1, "failed": 0, "seconds": 0.5}
    assert (sample["calls"]["MISS"], sample["calls"]["STALE"], sum(sample["requests"].values())) == (1, 1, 0)
    assert ([*sample["endpoints"]], [*sample["functions"]], [*sample["hosts"]]) == ([], ["shop.rates"], ["api.example"])
    served = sample["functions"]["shop.rates"]["served"]
    assert (served["count"], served["sum"]) == (1, 0.2)
    assert {name: count for name, count in served["buckets"].items() if count} == {"0.25": 1}
    json.dumps(sample)


@pytest.mark.parametrize("in_files", [True, False])
@pytest.mark.parametrize("late", [1, STEP])
def test_a_new_store_counts_from_zero(directory: Path, move: Move, in_files: bool, late: float) -> None:
    registry = make_ledger(directory if in_files else None)
    hit(registry, 5)
    move(late)
    hit(registry, 2)
    running = registry.running()
    assert running is not None
    assert (counted([running]), running["seconds"]) == ([7], pytest.approx(late, abs=1)), "before the first tick"
    registry.tick()
    move(STEP)
    registry.tick()
    samples = registry.history()
    assert sum(counted(samples)) == 7
    assert samples[0]["seconds"] == pytest.approx(late if late == STEP else late + STEP, abs=1)


def test_a_store_that_has_counted_for_long_is_no_single_interval(directory: Path, move: Move) -> None:
    registry = make_ledger(directory)
    hit(registry, 1000)
    move(KEPT + 1)
    assert registry.running() is None
    registry.tick()
    move(STEP)
    hit(registry, 2)
    registry.tick()
    assert counted(registry.history()) == [2]


def test_one_of_all_takes_the_sample(directory: Path, move: Move) -> None:
    ledgers = [make_ledger(directory) for _ in range(3)]
    for _ in range(4):
        for registry in ledgers:
            hit(registry, 1)
        for registry in ledgers:
            registry.tick()
        move(STEP)
    assert counted(ledgers[0].history()) == counted(ledgers[2].history()) == [6, 3, 3]


def test_more_ticks_make_no_more_samples(directory: Path, move: Move) -> None:
    registry, another = make_ledger(directory), make_ledger(directory)
    hit(registry, 1)
    hit(another, 1)
    for _ in range(31):
        registry.tick()
        another.tick()
        move(1)
    assert len(registry.history()) == 2


def take_samples(directory: Path) -> None:
    registry = make_ledger(directory)
    hit(registry, 7)
    registry.tick()


def test_what_was_counted_by_one_that_was_killed_is_in_the_next_sample(directory: Path, move: Move) -> None:
    registry = make_ledger(directory)
    hit(registry, 1)
    registry.tick()
    with workers(1) as (worker,):
        worker.run(take_samples, directory)
    move(STEP)
    registry.tick()
    assert counted(registry.history()) == [8]


def test_only_the_last_hour_is_kept(directory: Path, move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "_SAMPLES", 5)
    registry, file = make_ledger(directory), directory / "stats" / "history"
    hit(registry, 1)
    registry.tick()
    lengths = []
    for times in range(1, 28):
        move(STEP)
        hit(registry, times)
        registry.tick()
        lengths.append(len(file.read_bytes().split()) // len(file.read_bytes().splitlines()[-1].split()))
    samples = counted(registry.history())
    assert samples == list(range(28 - len(samples), 28))
    assert len(samples) >= 5
    assert max(lengths) <= 2 * 5 + 1
    move(KEPT)
    assert registry.history() == []


def test_a_reader_asks_for_what_is_new(directory: Path, move: Move) -> None:
    registry = make_ledger(directory)
    for times in (9, 1, 2, 3):
        hit(registry, times)
        registry.tick()
        move(STEP)
    samples = registry.history()
    assert counted(registry.history(samples[0]["at"])) == [2, 3]
    assert registry.history(samples[-1]["at"]) == []


def test_a_clock_that_steps_makes_no_sample_of_no_time(directory: Path, clock: time_machine.Traveller, monotonic: Move) -> None:
    registry = make_ledger(directory)
    seen = []
    for times, step in [(9, STEP), (1, STEP - 7200), (2, STEP), (3, 9000), (4, 0)]:
        hit(registry, times)
        registry.tick()
        seen.append(counted(registry.history()))
        clock.shift(step)
        monotonic(STEP)
    # Samples from the future are not shown, nor those that are older than an hour by the present clock.
    assert seen == [[], [10], [2], [2, 3], [10, 4]]
    assert [round(sample["seconds"]) for sample in registry.history()] == [round(STEP)] * 2


def test_after_a_new_start_of_the_machine_it_goes_on(directory: Path, clock: time_machine.Traveller, monotonic: Move) -> None:
    registry = make_ledger(directory)
    hit(registry, 1)
    monotonic(100_000)
    registry.tick()
    # The monotonic clock starts from 0 again.
    monotonic(-100_000)
    clock.shift(60)
    another = make_ledger(directory)
    hit(another, 4)
    another.tick()
    [sample] = another.history()
    assert (counted([sample]), sample["seconds"]) == ([5], 60)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        *(
            seal(b"TOTL", damage)
            for damage in (
                b"",
                b"[[1, 2], []]",
                b"[[0, 0, 0], null]",
                b"\xff\xfe",
                b'[[1, 2, 3], [["endpoint", "news", [1]]]]',
                b"[[1, 1e999, 0], []]",
                b"[[1, 2, 1e999], []]",
                b"[" * 100_000,
            )
        ),
    ],
    ids=range(10),
)
def test_totals_that_can_not_be_read_cost_one_sample(directory: Path, move: Move, damage: bytes) -> None:
    registry = make_ledger(directory)
    hit(registry, 1)
    registry.tick()
    (directory / "stats" / "totals").write_bytes(damage)
    for times in (2, 3):
        move(STEP)
        hit(registry, times)
        registry.tick()
    assert counted(registry.history()) == [3]


@pytest.mark.parametrize(
    "damage",
    [
        b"17",
        b"\xff \xff",
        *(
            seal_line(damage)
            for damage in (
                b"1800000010.0",
                b"1800000010.0 [15.0",
                b'1800000010.0 ["x", []]',
                b"nan [1, []]",
                b"1e999 [1, []]",
                b"1800000010.0 [1e999, []]",
                b'1800000010.0 [15.0, [["endpoint", "news", {"99": 1}]]]',
                b'1800000010.0 [15.0, [["planet", "news", {"1": 1}]]]',
                b"1800000010.0 " + b"[" * 100_000,
            )
        ),
    ],
    ids=range(11),
)
def test_a_sample_that_was_not_written_to_its_end_hides_no_other(directory: Path, move: Move, damage: bytes) -> None:
    registry = make_ledger(directory)
    for times in (9, 1):
        hit(registry, times)
        registry.tick()
        move(STEP)
    with (directory / "stats" / "history").open("ab") as file:
        file.write(damage)
    hit(registry, 2)
    registry.tick()
    assert counted(registry.history()) == [10, 2]


def test_numbers_that_begin_anew_are_no_negative_rates(directory: Path, move: Move) -> None:
    registry = make_ledger(directory)
    hit(registry, 100)
    registry.tick()
    for path in (directory / "stats").glob("[0-9]"):
        path.unlink()
    move(STEP)
    registry.tick()
    hit(registry, 3)
    move(STEP)
    registry.tick()
    assert counted(registry.history())[-1] == 3
    assert min(counted(registry.history())) >= 0


def test_nothing_is_kept_where_nothing_was_counted(directory: Path, move: Move) -> None:
    registry = make_ledger(directory)
    for _ in range(3):
        registry.tick()
        move(STEP)
    assert not directory.exists()
    assert registry.history() == []


def test_a_history_that_can_not_be_written_is_counted(directory: Path, move: Move) -> None:
    registry = make_ledger(directory)
    hit(registry, 1)
    (directory / "stats" / "history").mkdir()
    for _ in range(3):
        registry.tick()
        move(STEP)
    assert registry.counters["uncounted"] == 2
    assert registry.history() == []


def test_the_sum_of_all_samples_is_what_was_counted(directory: Path, move: Move) -> None:
    """Also if the process that took the last sample is gone."""
    counts: dict[tuple[str, str], list[int]] = {("endpoint", "news"): [0] * CELLS}

    def totals() -> Totals:
        return {key: list(cells) for key, cells in counts.items()}

    directory.mkdir()
    for number in range(30):
        counts["endpoint", "news"][PLAIN] += number
        # Another process each time.
        History(directory, totals, time.time).tick()
        move(STEP)
    assert sum(counted(History(directory, totals, time.time).samples())) == sum(range(30))


@pytest.mark.parametrize("in_files", [True, False])
def test_what_came_since_the_last_sample_is_known_before_the_next(directory: Path, move: Move, in_files: bool) -> None:
    registry = make_ledger(directory if in_files else None)
    running = registry.running()
    assert running is not None
    assert sum(counted([running])) == 0
    hit(registry, 5)
    registry.tick()
    move(4)
    hit(registry, 3)
    for _ in range(2):
        running = registry.running()
        assert running is not None
        assert (counted([running]), running["seconds"]) == ([8], pytest.approx(4, abs=1))
    move(STEP)
    registry.tick()
    assert counted(registry.history()) == [8], "asking took nothing away"


def test_a_sample_that_is_taken_while_it_is_asked_is_no_rate(directory: Path, move: Move) -> None:
    registry, other = make_ledger(directory), make_ledger(directory)
    hit(registry, 5)
    registry.tick()
    move(STEP)

    def meanwhile() -> Totals:
        hit(other, 1)
        other.tick()
        return read()

    read = registry._history._totals
    registry._history._totals = meanwhile
    assert registry.running() is None


def test_a_file_that_cannot_be_looked_after_costs_no_sample(directory: Path, move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = make_ledger(directory)
    hit(registry, 1)
    registry.tick()
    move(STEP)
    hit(registry, 2)

    def fail(file: CounterFile) -> bool:
        raise ValueError("a wrong value")

    with monkeypatch.context() as patch:
        patch.setattr(CounterFile, "is_current", fail)
        with pytest.raises(ValueError, match="a wrong value"):
            registry.tick()
    assert counted(registry.history()) == [3]
