"""What one app counts in this process, and the numbers of all processes that share its cache directory."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ..engine.log import RateLimitedLog
from ..engine.signals import entry_evicted, send
from ..errors import ConfigError, StoreError
from ..filesystem.atomic import make_directories
from ..stores.base import Usage
from .counter_file import BORN_CELL, HEAD, LABELS, NAMED, OTHERS, CounterFile, acquire_file, read_rows
from .counters import Counters
from .history import History
from .schema import Sample, Series, Stats
from .tally import CELLS, KINDS, Tally, Totals, added, private_cells, requests_of, series_of

#: In the cache directory.
FOLDER = "stats"
#: Named counts that are added up over processes, in the order of their cells, which is never changed.
NAMES = (
    "purges", "store_failures", "uncounted", "broken_entries", "lock_timeouts", "evicted_for_size", "evicted_inactive",
    "removed_purged", "removed_notes", "refreshes", "refreshes_queued", "refreshes_dropped", "refreshes_overdue",
    "origin_failures", "invalidations", "broken_values", "sweep_failures", "no_stamps", "scans_found", "scans_done",
    "scans_failed", "scans_skipped",
)  # fmt: skip
_CELL_OF = {name: NAMED + index for index, name in enumerate(NAMES)}
#: What is so many just now.
_GAUGES = {"refreshes_pending": 8, "scans_running": 9}
#: What entries are evicted for, and what that is counted as.
EVICTIONS = {
    "size": "evicted_for_size",
    "inactive": "evicted_inactive",
    "purged": "removed_purged",
    "broken": "broken_entries",
    "notes": "removed_notes",
}
_REASONS = {name: reason for reason, name in EVICTIONS.items()}
#: Seconds after which a file that could not be had is tried for again.
_PAUSE = 10.0


class Registry:
    """Counts for one app. What is counted before there is a file to count in, or without one, is counted in memory.

    :param counters: named counts, which go here too.
    :param directory: the cache directory; ``None``: there is none, and the numbers are those of this process.
    :param check: raises :class:`ConfigError` if that can't be used.
    :ivar sender: who sends the signals of what is counted by name.
    """

    def __init__(self, counters: Counters, directory: Path | None = None, check: Callable[[], object] = lambda: None) -> None:
        self.counters = counters
        if counters.sink is None:
            counters.sink = self
        self.directory = directory
        self.folder = None if directory is None else directory / FOLDER
        self.sender: object = None
        self._check = check
        self._complaints = RateLimitedLog()
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._others = {kind: Tally(kind, OTHERS) for kind in KINDS}
        self._head = private_cells(HEAD)
        self._gauges: dict[str, int] = {}
        self._began = time.time_ns()
        self._row: CounterFile | None = None
        self._pid = os.getpid()
        self._try_again_at = 0.0
        self._lock = threading.Lock()
        self._history = History(self.folder, self._totals)
        _ledgers.add(self)

    # -- counting ------------------------------------------------------------------------------------------------

    def tally(self, kind: str, label: str) -> Tally:
        """Return where an endpoint, a function or a host is counted. The first time it may do I/O."""
        found = self._tallies.get((kind, label))
        return found if found is not None else self._new_tally(kind, label)

    def _new_tally(self, kind: str, label: str) -> Tally:
        self.open()
        if len(self._tallies) >= LABELS or label == OTHERS:
            return self._others[kind]
        with self._lock:
            tally = self._tallies.get((kind, label))
            if tally is None:
                tally = Tally(kind, label)
                # Before anybody counts in it, and once: what is there already would be added to itself.
                if self._row is not None:
                    tally.cells = self._cells_in(self._row, tally)
                self._tallies[kind, label] = tally
        return tally

    def count(self, name: str, by: int) -> None:
        """Add to what is counted under a name."""
        index = _CELL_OF.get(name)
        if index is not None:
            self.open()
            self._head[index] += by
        if name in _REASONS:
            send(entry_evicted, self.sender, reason=_REASONS[name], count=by)

    def gauge(self, name: str, value: int) -> None:
        """Say how many there are just now: ``refreshes_pending`` or ``scans_running``."""
        self._gauges[name] = value
        self._head[_GAUGES[name]] = value

    # -- the file ------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """See to it that this process counts in a file of its own, if there is one to be had. It never waits."""
        self.see_fork()
        if self._row is not None or self.folder is None or time.monotonic() < self._try_again_at:
            return
        # Whoever holds it is about to do the same, or does so further up in this very thread.
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._row is None:
                self._take_row(self.folder)
        finally:
            self._lock.release()

    def _take_row(self, folder: Path) -> None:
        try:
            make_directories(folder.parent)
            self._check()
            row = acquire_file(folder)
        except (OSError, ConfigError) as error:
            if self._try_again_at and not self.counters["store_failures"]:
                # Not at the first time, and not where the store fails too, which says so itself.
                self._complaints.warn_once(
                    "row", "requests are counted in this process alone, no file for it at %s: %s", folder, error
                )
            self._try_again_at = time.monotonic() + _PAUSE
            self.counters.count("uncounted")
            return
        self._row = row
        before, self._head = self._head, row.head
        for index in range(NAMED, HEAD):
            if before[index]:
                row.head[index] += before[index]
        for name, value in self._gauges.items():
            self.gauge(name, value)
        for tally in self._all_tallies():
            tally.move_to(self._cells_in(row, tally))

    def _cells_in(self, row: CounterFile, tally: Tally) -> memoryview:
        cells = row.cells(tally.kind, tally.label)
        if cells is None:
            # There were many before, of other names.
            cells = row.cells(tally.kind, OTHERS)
            assert cells is not None
        return cells

    def _all_tallies(self) -> list[Tally]:
        return [*self._tallies.values(), *self._others.values()]

    def tick(self) -> None:
        """Take another file if ours was deleted or replaced, or could not be had before."""
        if self._row is None:
            if self._try_again_at:
                self.open()
        elif not self._row.is_current():
            with self._lock:
                self._let_go()
            self.open()
        self._sample()

    def _sample(self) -> None:
        """Keep the history, where anything was counted. It is nobody's error if it can't be."""
        if self._row is None and (self.folder is not None or not self._tallies):
            return
        try:
            self._history.tick()
        except (OSError, StoreError):
            self.counters.count("uncounted")

    def history(self, since: float = 0.0) -> list[Sample]:
        """Return the last hour: a sample for each quarter of a minute, the oldest first, as long as any process lived.

        :param since: only those that were taken after this moment, in seconds since the epoch. Default: all.
        """
        try:
            return self._history.samples(since)
        except OSError:
            return []

    def running(self) -> Sample | None:
        """Return what was counted since the last sample of the history; ``None`` if that is not known just now."""
        try:
            return self._history.running()
        except OSError:
            return None

    def see_fork(self) -> None:
        """Count anew in the child of a fork: two processes that count in the same cells would lose counts."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._lock = threading.Lock()
            self._try_again_at = 0.0
            self._gauges = {}
            self._let_go()

    def _let_go(self) -> None:
        """Forget all numbers: they are in a file that is not ours any more."""
        row, self._row = self._row, None
        self._head = private_cells(HEAD)
        self._began = time.time_ns()
        for tally in self._all_tallies():
            tally.cells = private_cells(CELLS)
        if row is not None:
            row.close()

    # -- adding up -----------------------------------------------------------------------------------------------

    def read(self, usage: Usage, max_size: int | None) -> Stats:
        """Return the numbers of all processes, living and dead, that share the directory.

        :param usage: how much is stored.
        :param max_size: bytes that may be stored at most.
        """
        heads, held, labels = self._parts()
        blocks = _summed(labels)
        named = dict(zip(NAMES, added(heads)[NAMED:], strict=False))
        gauges = {name: sum(head[index] for head in held) for name, index in _GAUGES.items()}
        every = added([[0] * CELLS, *blocks.values()])
        refreshes = series_of(every)["refreshes"]
        series = {kind: _series(kind, blocks) for kind in KINDS}
        return {
            "requests": requests_of(blocks, "endpoint"),
            "calls": requests_of(blocks, "function", "host"),
            "origin_calls": series_of(every)["origin_calls"],
            "origin_failures": series_of(every)["origin_failures"],
            "waits": series_of(every)["waits"],
            "lock_timeouts": named["lock_timeouts"],
            "refreshes": {
                "queued": named["refreshes_queued"],
                "pending": gauges["refreshes_pending"],
                "done": refreshes["done"],
                "failed": refreshes["failed"],
                "dropped": named["refreshes_dropped"],
                "overdue": named["refreshes_overdue"],
                "seconds": refreshes["seconds"],
            },
            "scans": {
                "running": gauges["scans_running"],
                "found": named["scans_found"],
                "done": named["scans_done"],
                "failed": named["scans_failed"],
                "skipped": named["scans_skipped"],
            },
            "purges": named["purges"],
            "store_failures": named["store_failures"] + named["uncounted"],
            "broken_entries": named["broken_entries"],
            "evictions": {reason: named[name] for reason, name in EVICTIONS.items()},
            "entries": usage.entries,
            "bytes": usage.bytes,
            "max_size": max_size,
            "workers": len(held),
            "since": min(head[BORN_CELL] for head in heads) / 1e9,
            "endpoints": series["endpoint"],
            "functions": series["function"],
            "hosts": series["host"],
        }

    def _totals(self) -> Totals:
        return _summed(self._parts()[2])

    def _parts(self) -> tuple[list[Sequence[int]], list[Sequence[int]], dict[tuple[str, str], list[Sequence[int]]]]:
        """Return the heads of all files, those that are held, and all cells by label; with what is counted in memory."""
        heads: list[Sequence[int]] = []
        held: list[Sequence[int]] = []
        labels: dict[tuple[str, str], list[Sequence[int]]] = {}
        for reading in () if self.folder is None else read_rows(self.folder):
            heads.append(reading.head)
            if reading.is_held:
                held.append(reading.head)
            for key, cells in reading.labels.items():
                labels.setdefault(key, []).append(cells)
        if self._row is None:
            mine = self._head.tolist()
            is_counting = any(mine) or self.folder is None
            mine[BORN_CELL] = self._began
            # One that only reads is no worker.
            heads += [mine] if is_counting or not heads else []
            held += [mine] if is_counting else []
            for tally in self._all_tallies():
                labels.setdefault((tally.kind, tally.label), []).append(tally.cells)
        if not heads:
            # Somebody has removed them, ours too, which is not noticed yet: all numbers begin anew.
            heads.append([self._began if index == BORN_CELL else 0 for index in range(HEAD)])
        return heads, held, labels


def _summed(labels: Mapping[tuple[str, str], list[Sequence[int]]]) -> dict[tuple[str, str], list[int]]:
    return {key: added(parts) for key, parts in labels.items()}


def _series(kind: str, blocks: dict[tuple[str, str], list[int]]) -> dict[str, Series]:
    return {label: series_of(cells) for (of, label), cells in sorted(blocks.items()) if of == kind and any(cells)}


_ledgers: weakref.WeakSet[Registry] = weakref.WeakSet()


def _each() -> Iterator[Registry]:
    yield from list(_ledgers)


def _see_fork() -> None:
    for registry in _each():
        registry.see_fork()


# At once, since a hit on what the child has inherited does not ask. Not every server lets it run: slow paths look at the pid too.
os.register_at_fork(after_in_child=_see_fork)
