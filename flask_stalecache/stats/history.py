"""The history of the last hour: one sample every 15 seconds, taken by one process for all.

``history.lock`` guards two files: ``totals``, the counts at the last sample, and ``history``, one line for each sample with the
counts since the previous sample.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..filesystem.atomic import make_directories, read_file, write_file
from ..filesystem.descriptors import open_descriptor
from ..filesystem.locks import FileKeyLock
from ..filesystem.sealed import LINE_SEAL, decoded, seal_json, seal_line, unseal_json, unseal_line
from ..filesystem.system import O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK
from .schema import Sample
from .tally import CELLS, KINDS, Totals, added, requests_of, series_of

#: Seconds between two samples, and seconds for which samples are kept.
INTERVAL, KEPT = 15.0, 3600.0
_SAMPLES = int(KEPT / INTERVAL)
_BILLION = 1_000_000_000
#: The kind of the sealed file ``totals``.
_KIND = b"TOTL"
#: No process counts this far; larger numbers are damaged.
_MOST = 2**62


class _Mark(NamedTuple):
    """The time of the last sample.

    :ivar at: in seconds since the epoch.
    :ivar monotonic: by the monotonic clock, which all processes of a machine share.
    :ivar written: number of samples written since the file was last shortened; -1 before the first one of a new store.
    """

    at: float
    monotonic: float
    written: int


class History:
    """Takes a sample every 15 seconds, unless another process has done so.

    :param folder: the folder of the files; ``None``: keep samples of this process in memory.
    :param totals: returns the counts of all processes so far.
    :param since: returns when counting began, in seconds since the epoch. Until a new store has its first sample, its counts at
        that time are taken as 0.
    """

    def __init__(self, folder: Path | None, totals: Callable[[], Totals], since: Callable[[], float]) -> None:
        self._folder = folder
        self._totals = totals
        self._since = since
        self._next = 0.0
        self._in_memory: list[bytes] = []
        self._last: tuple[_Mark, Totals] | None = None

    def tick(self) -> None:
        """Take a sample if one is due and no other process takes it.

        :raises OSError: if it can't be written.
        :raises StoreError: if the lock file can't be used.
        """
        if time.monotonic() < self._next:
            return
        if self._folder is None:
            self._take(None)
            return
        lock = FileKeyLock(self._folder / "history.lock", make_directories)
        if not lock.acquire():
            return
        try:
            self._take(self._folder)
        finally:
            lock.release()

    def _take(self, folder: Path | None) -> None:
        mark, before = self._last_sample(folder)
        now = time.monotonic()
        if mark is not None and 0 <= now - mark.monotonic < INTERVAL:
            self._next = mark.monotonic + INTERVAL
            if mark.written < 0:
                # Written, so that the beginning is known even if the clock is set before the first sample.
                self._note(folder, mark._replace(written=0), {})
            return
        self._next = now + INTERVAL
        totals = self._totals()
        new = _Mark(time.time(), now, 0 if mark is None else mark.written + 1)
        new = self._shortened(folder, new)
        # Written before the sample: if the process is killed between the two, a sample is missing, but nothing is counted twice.
        self._note(folder, new, totals)
        if mark is not None and before is not None:
            self._append(folder, _encoded(new, _seconds(mark, new), totals, before))

    # -- the last sample -------------------------------------------------------------------------------------------

    def _last_sample(self, folder: Path | None) -> tuple[_Mark | None, Totals | None]:
        """Return the time of the last sample and the counts at that time; each is ``None`` if it is unknown."""
        if folder is None:
            return (self._beginning(), {}) if self._last is None else self._last
        data = read_file(folder / "totals")
        if data is None:
            return None if (folder / "history").exists() else self._beginning(), {}
        return unseal_json(_KIND, data, _noted) or (None, None)

    def _beginning(self) -> _Mark | None:
        """Return when counting began, in place of a sample; ``None`` if that is too long ago for one interval."""
        since = self._since()
        age = time.time() - since
        return _Mark(since, time.monotonic() - age, -1) if 0 <= age < KEPT else None

    def _note(self, folder: Path | None, mark: _Mark, totals: Totals) -> None:
        if folder is None:
            self._last = mark, totals
            return
        noted = [[kind, label, list(cells)] for (kind, label), cells in totals.items()]
        write_file(folder / "totals", seal_json(_KIND, [mark, noted]), int(mark.at * _BILLION))

    # -- samples -----------------------------------------------------------------------------------------------------

    def _append(self, folder: Path | None, sample: bytes) -> None:
        if folder is None:
            self._in_memory = [*self._in_memory, sample][-_SAMPLES:]
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK
        with open_descriptor(folder / "history", flags) as descriptor:
            # A line break first, since the last line may be incomplete.
            os.write(descriptor, b"\n%b\n" % sample)

    def _shortened(self, folder: Path | None, mark: _Mark) -> _Mark:
        """Drop old samples once the file has twice as many lines as needed, and return the mark to write."""
        if folder is None or mark.written < 2 * _SAMPLES:
            return mark
        kept = self._lines()[-_SAMPLES:]
        write_file(folder / "history", b"\n".join([*kept, b""]), int(mark.at * _BILLION))
        return mark._replace(written=len(kept))

    def _lines(self) -> list[bytes]:
        if self._folder is None:
            return self._in_memory
        return [line for line in (read_file(self._folder / "history") or b"").splitlines() if line]

    def samples(self, since: float = 0.0) -> list[Sample]:
        """Return the samples of the last hour, the oldest first.

        :param since: only samples taken after this time, in seconds since the epoch. Default: all.
        """
        now = time.time()
        # Samples from the future were taken while the clock was wrong.
        lines = (line for line in self._lines() if max(since, now - KEPT) < _taken_at(line) <= now + INTERVAL)
        return [sample for line in lines if (sample := _decoded(line)) is not None]

    def running(self) -> Sample | None:
        """Return what was counted since the last sample; ``None`` if that is unknown at the moment."""
        mark, before = self._last_sample(self._folder)
        if mark is None or before is None:
            return None
        totals, now = self._totals(), _Mark(time.time(), time.monotonic(), 0)
        again, _ = self._last_sample(self._folder)
        if again is None or (again.at, again.written) != (mark.at, mark.written):
            # Another process has taken a sample meanwhile, so the totals may be from before or after it.
            return None
        return _decoded(_encoded(now, _seconds(mark, now), totals, before))


def _seconds(before: _Mark, now: _Mark) -> float:
    """Return the seconds between two samples. The machine may have been restarted, which resets the monotonic clock."""
    if now.monotonic > before.monotonic:
        return now.monotonic - before.monotonic
    return max(INTERVAL, now.at - before.at)


def _encoded(mark: _Mark, seconds: float, totals: Totals, before: Totals) -> bytes:
    counts = []
    for (kind, label), cells in totals.items():
        last = before.get((kind, label))
        changes = cells if last is None else [new - old for new, old in zip(cells, last, strict=True)]
        if any(change < 0 for change in changes):
            # Counter files were deleted, so counting started from 0.
            changes = cells
        if any(changes):
            counts.append([kind, label, {index: change for index, change in enumerate(changes) if change}])
    return seal_line(f"{mark.at} {json.dumps([seconds, counts])}".encode("ascii"))


def _taken_at(line: bytes) -> float:
    try:
        return float(line[LINE_SEAL:].partition(b" ")[0])
    except ValueError:
        return 0.0


def _decoded(line: bytes) -> Sample | None:
    """Return a sample; ``None`` for an incomplete or damaged line."""
    content = unseal_line(line)
    return None if content is None else decoded(content.partition(b" ")[2], partial(_sampled, _taken_at(line)))


def _sampled(at: float, noted: Any) -> Sample:
    seconds, counts = noted
    return _sample(at, _time(seconds), {(_kind(kind), str(label)): _spread(changes) for kind, label, changes in counts})


def _sample(at: float, seconds: float, counts: Mapping[tuple[str, str], Sequence[int]]) -> Sample:
    every = series_of(added([[0] * CELLS, *counts.values()]), cumulative=False)
    by_kind = {
        kind: {label: series_of(cells, cumulative=False) for (of, label), cells in counts.items() if of == kind} for kind in KINDS
    }
    return {
        "at": at,
        "seconds": seconds,
        "requests": requests_of(counts, "endpoint"),
        "calls": requests_of(counts, "function", "host"),
        "origin_calls": every["origin_calls"],
        "origin_failures": every["origin_failures"],
        "waits": every["waits"],
        "refreshes": every["refreshes"],
        "endpoints": by_kind["endpoint"],
        "functions": by_kind["function"],
        "hosts": by_kind["host"],
    }


def _noted(noted: Any) -> tuple[_Mark, Totals]:
    (at, monotonic, written), counts = noted
    mark = _Mark(_time(at), _time(monotonic), int(written))
    return mark, {(_kind(kind), str(label)): _whole(cells) for kind, label, cells in counts}


def _time(value: Any) -> float:
    if not math.isfinite(value):
        raise ValueError("not a time")
    return float(value)


def _kind(value: Any) -> str:
    return KINDS[KINDS.index(value)]


def _whole(cells: Any) -> list[int]:
    if len(cells) != CELLS:
        raise ValueError("so many cells has no label")
    return list(map(_count, cells))


def _spread(changes: Mapping[str, Any]) -> list[int]:
    cells = [0] * CELLS
    for index, change in changes.items():
        cells[range(CELLS)[int(index)]] = _count(change)
    return cells


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MOST:
        raise ValueError("not a count")
    return value
