"""The sweep is the worker's while there is one."""

from __future__ import annotations

from pathlib import Path

import pytest
import time_machine

from flask_stalecache.core.packets.packets import socket_name
from flask_stalecache.stats import worker_state
from flask_stalecache.stats.schema import WorkerState
from flask_stalecache.stats.worker_state import LASTS, become_worker, write_state
from support.sweep import BRIEF, INACTIVE, PAUSE, TICKS, keep, kept, open_store, sweep

STATE: WorkerState = {
    "pid": 7, "since": 1.5, "processes": 1, "running": [], "waiting": 0, "longest_wait": 0.0, "taken": 0, "refused": 0,
    "dropped": 0, "bad": 0, "restarts": 0,
}  # fmt: skip


@pytest.mark.parametrize("whose", ["a web process", "the worker", "a web process whose worker was killed"])
def test_web_processes_leave_the_sweep_to_a_worker(
    directory: Path, clock: time_machine.Traveller, whose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_state, "_workers", set())
    store = open_store(directory)
    keep(store, "page", windows=BRIEF)
    sweep(store)
    clock.shift(INACTIVE + PAUSE + 10)
    # The worker of another app with the same directory sweeps it too.
    write_state(directory / f"{socket_name('news', '7')}.state", STATE)
    if whose == "the worker":
        become_worker()
    elif whose == "a web process whose worker was killed":
        clock.shift(LASTS + 1)
    if whose == "a web process":
        for _ in range(TICKS):
            store.tick()
        assert kept(store, "page") == ["page"]
    else:
        sweep(store)
        assert kept(store, "page") == []
