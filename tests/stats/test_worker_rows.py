"""What the worker is doing, in words."""

from __future__ import annotations

import pytest

from flask_stalecache.stats.schema import RunningRefresh, WorkerState
from flask_stalecache.stats.worker_rows import running_rows, worker_sentence

QUIET: WorkerState = {
    "pid": 7, "since": 0.0, "processes": 1, "running": [], "waiting": 0, "longest_wait": 0.0, "taken": 0, "refused": 0,
    "dropped": 0, "bad": 0, "restarts": 0,
}  # fmt: skip


def running(key: str, title: str, seconds: float) -> RunningRefresh:
    return {"key": key, "title": title, "seconds": seconds, "pid": 8}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "1 process, 0 running, 0 wait, 0 done since 1970-01-01 00:00 UTC"),
        ({"processes": 2, "waiting": 1, "longest_wait": 3.0}, "2 processes, 0 running, 1 waits, for 3 s at most, 0 done since "),
        ({"waiting": 2500, "longest_wait": 300.0}, "1 process, 0 running, 2,500 wait, for 5 min at most, "),
        ({"refused": 1, "dropped": 2, "bad": 3, "restarts": 4}, " UTC, 1 refused, 2 dropped, 3 bad, 4 restarts"),
        ({"running": [running("ab", "", 1.0)], "taken": 5}, "1 process, 1 running, 0 wait, 5 done since "),
    ],
    ids=ascii,
)
def test_the_sentence(change: WorkerState, expected: str) -> None:
    said = worker_sentence({**QUIET, **change})
    assert said.startswith(expected) or said.endswith(expected)


def test_the_one_that_has_run_longest_is_first() -> None:
    rows = running_rows({**QUIET, "running": [running("ab", "http://shop.example/", 0.5), running("cd", "", 12.0)]})
    assert rows == [("cd", "12 s", "8"), ("http://shop.example/", "0.5 s", "8")]
