"""The table of counters: its rows, and that each of them appears in every output. Covers ``stats.counters`` too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_type_hints

import pytest

from flask_stalecache.cli.stats import _lines
from flask_stalecache.core.formatting import number
from flask_stalecache.dashboard.health import OFF
from flask_stalecache.dashboard.overview import overview
from flask_stalecache.stats import schema
from flask_stalecache.stats.counter_file import GAUGES, HEAD, NAMED
from flask_stalecache.stats.counters import Counters
from flask_stalecache.stats.prometheus import families
from flask_stalecache.stats.registry import Registry
from flask_stalecache.stats.schema import COUNTERS, Counter, Kept, Stats, value_at

SHOWN = [counter for counter in COUNTERS if counter.key]
#: One more row, as somebody would add it.
ADDED = Counter(
    name="detours", kept=Kept.NAMED, cell=25, key="detours",
    metric="detours", help="Detours.", line="detours", words="taken", tile="Size", note="{} detours",
)  # fmt: skip


def ids(counter: Counter) -> str:
    return f"{counter.name} as {counter.key}"


def counted() -> dict[str, Any]:
    """Return statistics in which each counter of the table has a value of its own."""
    registry = Registry(Counters())
    registry.tally("endpoint", "page")
    stats: dict[str, Any] = dict(registry.read(3, 3000, None))
    for value, counter in enumerate(dict.fromkeys(counter.key for counter in schema.COUNTERS if counter.key), 1001):
        group, _, name = counter.rpartition(".")
        (stats[group] if group else stats)[name] = value
    series = next(iter(registry_with_a_call().read(0, 0, None)["endpoints"].values()))
    names = ("origin_calls", "origin_failures", "computed", "waits")
    stats["endpoints"] = {"page": {**series, **{name: stats[name] for name in names}}}
    return stats


def registry_with_a_call() -> Registry:
    registry = Registry(Counters())
    registry.tally("endpoint", "page").asked(0.1, failed=False)
    return registry


def samples(stats: Any) -> Iterator[tuple[str, float]]:
    for family in families(stats):
        for sample in family.samples:
            yield family.name, sample.value


def tiles(stats: Any) -> str:
    return " ".join(f"{tile.title} {tile.figure} {tile.note}" for tile in overview(stats, [], OFF, 0.0, "").tiles)


# -- the rows --------------------------------------------------------------------------------------------------------


def test_a_named_count_has_one_cell_and_a_cell_one_name() -> None:
    named = {(counter.name, counter.cell) for counter in COUNTERS if counter.kept is Kept.NAMED}
    assert len({name for name, _ in named}) == len({cell for _, cell in named}) == len(named)
    assert all(0 <= cell < HEAD - NAMED for _, cell in named)


def test_the_cells_of_gauges_are_those_that_end_with_their_process() -> None:
    cells = list(schema.gauge_cells().values())
    assert len(set(cells)) == len(cells)
    assert set(cells) <= set(GAUGES)


def test_a_cell_is_never_given_to_another_name() -> None:
    # Files of processes that run another version hold these names in these cells.
    assert schema.named_cells() == {
        "purges": 0, "store_failures": 1, "uncounted": 2, "broken_entries": 3, "lock_timeouts": 4, "evicted_for_size": 5,
        "evicted_inactive": 6, "removed_purged": 7, "removed_notes": 8, "refreshes": 9, "refreshes_queued": 10,
        "refreshes_dropped": 11, "refreshes_overdue": 12, "origin_failures": 13, "invalidations": 14, "broken_values": 15,
        "sweep_failures": 16, "no_stamps": 17, "scans_found": 18, "scans_done": 19, "scans_failed": 20, "scans_skipped": 21,
        "slow_readers": 22, "copies_given_up": 23, "scans_refused": 24,
        "refreshes_handed_over": 30, "refreshes_returned": 31,
    }  # fmt: skip


def test_the_first_row_of_a_metric_has_its_help() -> None:
    first = {counter.metric: counter for counter in reversed(COUNTERS) if counter.metric}
    assert all(counter.help for counter in first.values())


def test_the_keys_of_the_table_are_those_of_the_types() -> None:
    types = get_type_hints(Stats)
    for group in ("computed", "refreshes", "scans"):
        expected = {counter.key for counter in SHOWN if counter.key.startswith(f"{group}.")}
        assert {f"{group}.{name}" for name in get_type_hints(types[group])} == expected
    others = {"requests", "calls", "reasons", "entries", "bytes", "max_size", "workers", "since", "endpoints", "functions", "hosts"}
    others |= {"shared", "worker"}
    assert set(types) - others == {counter.key.partition(".")[0] for counter in SHOWN}


# -- every row appears -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counter", [counter for counter in SHOWN if counter.kept is not Kept.SERIES], ids=ids)
def test_what_is_counted_is_in_the_statistics(counter: Counter) -> None:
    counters = Counters()
    registry = Registry(counters)
    if counter.kept is Kept.GAUGE:
        registry.gauge(counter.name, 7)
    else:
        counters.count(counter.name, 7)
    assert value_at(registry.read(0, 0, None), counter.key) == 7


@pytest.mark.parametrize("counter", SHOWN, ids=ids)
def test_each_row_appears_where_it_says(counter: Counter) -> None:
    stats: Any = counted()
    value = value_at(stats, counter.key)
    if counter.metric:
        assert (f"stalecache_{counter.metric}", value) in list(samples(stats))
    if counter.line:
        line = next(line for line in _lines(stats) if line.split()[0] == counter.line)
        assert f"{number(value)} {counter.words}".rstrip() in line
    if counter.tile:
        assert counter.note.format(number(value)) in tiles(stats)


def test_one_more_row_appears_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ADDED.cell not in schema.named_cells().values()
    monkeypatch.setattr(schema, "COUNTERS", (*COUNTERS, ADDED))
    counters = Counters()
    registry = Registry(counters)
    counters.count("detours", 1234)
    stats: Any = registry.read(0, 0, None)
    assert stats["detours"] == 1234
    assert ("stalecache_detours", 1234) in list(samples(stats))
    assert "detours     1,234 taken" in list(_lines(stats))
    assert "1,234 detours" in tiles(stats)
