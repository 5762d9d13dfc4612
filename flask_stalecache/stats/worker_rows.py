"""Describes the activity of this host's worker in words, for the shell and for the dashboard. Pure."""

from __future__ import annotations

from typing import NamedTuple

from ..core.formatting import clock, number, spell
from .schema import WorkerState


class RunningRow(NamedTuple):
    """A refresh that runs.

    :ivar seconds: for how long it has run.
    :ivar process: the process that runs it.
    """

    title: str
    seconds: str
    process: str


def worker_sentence(worker: WorkerState) -> str:
    """Return what the worker is doing, in one line."""
    waiting, longest = worker["waiting"], spell(worker["longest_wait"])
    waits = f"{number(waiting)} {'wait' if waiting != 1 else 'waits'}" + (f", for {longest} at most" if waiting else "")
    parts = [
        f"{number(worker['processes'])} {'processes' if worker['processes'] != 1 else 'process'}",
        f"{number(len(worker['running']))} running",
        waits,
        f"{number(worker['taken'])} done since {clock(worker['since'], '%Y-%m-%d %H:%M')} UTC",
    ]
    others = ("refused", "dropped", "bad", "restarts")
    parts += [f"{number(worker[name])} {name}" for name in others if worker[name]]  # type: ignore[literal-required]
    return ", ".join(parts)


def running_rows(worker: WorkerState) -> list[RunningRow]:
    """Return the refreshes that run, the one that has run longest first."""
    running = sorted(worker["running"], key=lambda each: -each["seconds"])
    return [RunningRow(each["title"] or each["key"], spell(each["seconds"]), str(each["pid"])) for each in running]
