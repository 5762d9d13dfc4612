"""The file in which the worker says what it is doing."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import time_machine

from flask_stalecache.filesystem.sealed import seal_json
from flask_stalecache.stats.schema import WorkerState
from flask_stalecache.stats.worker_state import LASTS, is_recent, read_state, write_state

STATE: WorkerState = {
    "pid": 7, "since": 1.5, "processes": 2, "running": [{"key": "ab", "title": "", "seconds": 0.5, "pid": 8}], "waiting": 3,
    "longest_wait": 4.5, "taken": 5, "refused": 6, "dropped": 7, "bad": 8, "restarts": 9,
}  # fmt: skip


def test_what_is_written_is_read(tmp_path: Path, clock: time_machine.Traveller) -> None:
    place = tmp_path / "state"
    assert read_state(place) is None
    write_state(place, STATE)
    assert read_state(place) == STATE


def test_what_a_killed_worker_has_left_behind_is_none(tmp_path: Path, clock: time_machine.Traveller) -> None:
    place = tmp_path / "state"
    write_state(place, STATE)
    clock.shift(LASTS - 0.5)
    assert is_recent(place)
    clock.shift(1)
    assert (is_recent(place), read_state(place)) == (False, None)
    clock.shift(-3600)
    assert read_state(place) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"planted",
        seal_json(b"WRK1", []),
        seal_json(b"WRK1", {**STATE, "pid": "7"}),
        seal_json(b"WRK1", {**STATE, "waiting": True}),
        seal_json(b"WRK1", {**STATE, "running": [{}]}),
        seal_json(b"WRK1", {"pid": 7}),
        seal_json(b"XXXX", STATE),
    ],
    ids=range(8),
)
def test_what_is_damaged_or_planted_says_nothing(tmp_path: Path, data: Any, clock: time_machine.Traveller) -> None:
    place = tmp_path / "state"
    place.write_bytes(data)
    os.utime(place, (time.time(), time.time()))
    assert read_state(place) is None


def test_a_folder_in_its_place_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    assert read_state(tmp_path / "state") is None
