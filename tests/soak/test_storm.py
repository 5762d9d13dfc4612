"""The storm: everything at once, with a model beside it that knows which answers are allowed."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support.processes import workers
from support.soak.clock import SharedClock
from support.soak.figures import COLUMNS, MIB
from support.soak.ledger import THINGS, Ledger
from support.soak.storm import HANGS, Outcome, rage, renewed, swept

PROCESSES = 2
#: Bytes of the disk. Entries may take a tenth of it, and the counters of each app that lives or has just ended 300 kB.
DISK = 16_000_000
#: Steps of the clock, in seconds.
STEPS = (0, 0, 1, -1, 5, -5, 3600, -3600, 86400, -86400, 400 * 86400)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own, or a folder if no disk may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "storm", str(place)]
    is_mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield place
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, sizes: tuple[int, ...] = (65536, 4096)) -> None:
    """Fill the disk, unless it is only a folder."""
    if not os.path.ismount(disk):
        return
    for size in sizes:
        with suppress(OSError), (disk / f"ballast-{size}").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(size))


def make_room(disk: Path) -> None:
    for ballast in disk.glob("ballast-*"):
        ballast.unlink()


def blow(disk: Path, ledger: Ledger, clock: SharedClock, seconds: float) -> Counter[str]:
    """Let the disk be full, the clock be wrong and the third party be down, now and then."""
    dice, until, done = random.Random(16), time.monotonic() + seconds, Counter[str]()
    while time.monotonic() < until and not ledger.is_over:
        what = dice.choice(("disk", "clock", "third party"))
        done[what] += 1
        if what == "disk":
            fill(disk)
        elif what == "clock":
            clock.step(dice.choice(STEPS))
        else:
            ledger.set_down(True)
        time.sleep(min(seconds / 4, dice.uniform(0.2, 1.5)))
        make_room(disk)
        clock.step(0)
        ledger.set_down(False)
        time.sleep(min(seconds / 8, dice.uniform(0.1, 0.5)))
    ledger.end()
    return done


@pytest.mark.soak
def test_no_answer_is_wrong_in_a_storm(
    disk: Path, tmp_path: Path, soak: Callable[[int, int], int], figures: Callable[[str, list[list[object]]], None]
) -> None:
    directory, seconds = disk / "cache", soak(90, 1)
    ledger, clock = Ledger.make(tmp_path / "ledger"), SharedClock.make(tmp_path / "clock")
    with workers(PROCESSES + 1) as (calm, *raging):
        for number, worker in enumerate(raging):
            worker.start(rage, directory, ledger.file, tmp_path / "clock", number, soak(70, 8))
        blown = blow(disk, ledger, clock, seconds)
        outcomes: list[Outcome] = [worker.result(10 * HANGS) for worker in raging]
        stuck = calm.run(renewed, directory, ledger.file, soak(THINGS, 3))
        left = calm.run(swept, directory)
    done = sum((outcome.done for outcome in outcomes), blown)
    wrongs = sum(outcome.wrongs for outcome in outcomes) + len(stuck)
    slowest = {name: max(outcome.slowest.get(name, 0) for outcome in outcomes) for name in done}
    figures("the storm", [["process", "when", *COLUMNS], *rows_of(outcomes), ["after a sweep", "", *left.row()]])
    figures("", [["what", "times", "slowest s"], *([name, count, f"{slowest[name]:.2f}"] for name, count in done.most_common())])
    said = sum((outcome.said for outcome in outcomes), Counter[str]())
    figures("", [["lines of the log", "times"], *said.most_common()])
    figures("", [["wrong answers", wrongs]])
    assert [wrong for outcome in outcomes for wrong in outcome.wrong] + stuck == []
    assert left.unfinished == 0
    if seconds > 60:
        assert {"HIT", "STALE", "UPDATING", "MISS", "EXPIRED", "BYPASS"} <= done.keys()
        for outcome in outcomes:
            # Apps that were replaced may still answer, with threads and locks of their own; their number varies.
            outcome.samples.assert_flat(memory=20 * MIB, threads=50, descriptors=60)


def rows_of(outcomes: list[Outcome]) -> list[list[object]]:
    return [row for number, outcome in enumerate(outcomes, 1) for row in outcome.samples.rows(f"process {number}")]
