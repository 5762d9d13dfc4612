"""Forty thousand keys through one worker: its memory, its directory and its housekeeping stay within bounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.processes import workers
from support.soak.figures import COLUMNS, MIB
from support.soak.many_keys import fill, revisit

#: The full count.
KEYS = 40_000
#: Bytes on the disk that an entry of these pages takes.
ENTRY = 4096
SMALL = 10 * MIB
#: Seconds that a worker may take, on a busy machine.
PATIENCE = 3600


@pytest.mark.soak
def test_very_many_keys_pass_through_a_worker(
    directory: Path, soak: Callable[[int, int], int], figures: Callable[[str, list[list[object]]], None]
) -> None:
    keys = soak(KEYS, 200)
    with workers(2) as (first, second):
        first.start(fill, directory, 8 * keys * ENTRY, keys)
        whole = first.result(PATIENCE)
        # Revisit a sample of all keys, some of which the small cache evicts.
        second.start(revisit, directory, SMALL, range(0, keys, max(1, keys // 2000)))
        small, words = second.result(PATIENCE)
    figures(
        f"{keys} keys through one worker",
        [
            ["worker", "when", *COLUMNS],
            *whole.samples.rows("filling"),
            ["filling", "after a sweep", *whole.usage.row()],
            ["with a small cache", "after a sweep", *small.usage.row()],
        ],
    )
    head = ["worker", "entries", "whole sweep s", "slowest housekeeping s"]
    rows = [[name, done.entries, f"{done.sweep:.2f}", f"{done.tick:.3f}"] for name, done in (("filling", whole), ("small", small))]
    wrong = whole.wrong + small.wrong
    figures("", [head, *rows])
    figures("", [["filling s", f"{whole.filling:.1f}"], *words.items(), ["wrong answers", len(wrong)]])
    assert wrong == []
    assert (whole.entries, whole.usage.unfinished) == (keys, 0)
    assert whole.usage.disk < keys * ENTRY * 1.05 + 2 * MIB
    assert whole.usage.locks < 10
    assert small.entries * ENTRY <= SMALL
    assert small.usage.disk < SMALL + 4 * MIB
    if keys == KEYS:
        whole.samples.assert_flat(memory=8 * MIB)
        assert "MISS" in words
