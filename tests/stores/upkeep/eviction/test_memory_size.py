"""Eviction: ``STALECACHE_MEMORY_SIZE``. Covers ``stores.copies``."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
import time_machine

from flask_stalecache.stores.base import Copy
from support.client import MakeApp, visit
from support.eviction import BLOCK, shop


def bytes_in_memory(marker: bytes) -> int:
    """Return the bytes of all bodies with a marker that copies hold."""
    gc.collect()
    bodies = {
        id(thing.entry.body): len(thing.entry.body)
        for thing in gc.get_objects()
        if type(thing) is Copy and thing.entry is not None and thing.entry.body.startswith(marker)
    }
    return sum(bodies.values())


@pytest.mark.parametrize("memory_size", [0, 100_000, 200_000])
def test_copies_stay_within_their_size_in_a_flood(make_app: MakeApp, clock: time_machine.Traveller, memory_size: int) -> None:
    app, runs = shop(make_app, MEMORY_SIZE=memory_size, MAX_SIZE=60 * BLOCK)
    marker = f"m{memory_size}"
    for number in range(80):
        clock.shift(1)
        visit(app, f"/{marker}-flood-{number}/3000")
        visit(app, f"/{marker}-hot/3000")
        if number % 40 == 39:
            assert bytes_in_memory(marker.encode()) <= memory_size
    assert runs[f"{marker}-hot"] == 1
    if memory_size:
        # Not by keeping nothing: what is around a body takes about twice as much as one of this size.
        assert bytes_in_memory(marker.encode()) > memory_size / 6


@pytest.mark.usefixtures("no_housekeeping")
@pytest.mark.parametrize("gateway", [False, True])
def test_copies_are_counted_with_all_that_they_take(make_app: MakeApp, gateway: bool) -> None:
    """The bodies of small pages are the least of it: heads, recipes, names, and what is prepared for the next hit."""
    app, cache = make_app(GATEWAY=gateway, MAX_SIZE=None)

    @app.get("/<int:page>")
    @cache.cached(10**6, 0, 0, tags=["news", "sport"], gateway=gateway)
    def show(page: int) -> str:
        return f"{page}".ljust(1000, ".")

    for number in range(20):
        visit(app, f"/{number}")
    copies = app.extensions["stalecache"].engine.store._copies
    # Python's own table of names of files grows by leaps, and the app of an earlier test may be saving its counts.
    ours = [tracemalloc.Filter(False, "*/pathlib*"), tracemalloc.Filter(False, "*/counter_file*")]
    tracemalloc.start()
    try:
        counted, before = -copies.size, tracemalloc.take_snapshot().filter_traces(ours)
        for number in range(100, 140):
            assert [visit(app, f"/{number}").word for _ in range(2)] == ["MISS", "HIT"]
        gc.collect()
        counted, after = counted + copies.size, tracemalloc.take_snapshot().filter_traces(ours)
    finally:
        tracemalloc.stop()
    grown = after.compare_to(before, "filename")
    taken = sum(line.size_diff for line in grown)
    assert 0.6 * counted < taken < 1.1 * counted, "\n".join(map(str, grown[:5]))
