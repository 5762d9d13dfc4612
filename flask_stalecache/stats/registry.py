"""What one app counts in this process, and the numbers of all processes that share its cache directory."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from ..core.exhaustive import assert_never
from ..errors import ConfigError, StoreError
from ..filesystem.atomic import make_directories
from . import schema
from .counter_file import BORN_CELL, HEAD, LABELS, NAMED, OTHERS, CounterFile, acquire_file, read_rows
from .counters import Counters
from .history import History
from .schema import Kept, Sample, Series, Stats, gauge_cells, named_cells, value_at
from .tally import CELLS, KINDS, Tally, Totals, added, private_cells, requests_of, series_of

#: In the cache directory.
FOLDER = "stats"
#: Seconds after which a file that could not be had is tried for again.
_PAUSE = 10.0
_log_warning = logging.getLogger("flask_stalecache").warning


def _no_listener(name: str, by: int) -> None:
    pass


class Registry:
    """Counts for one app. What is counted before there is a file to count in, or without one, is counted in memory.

    :param counters: named counts, which go here too.
    :param directory: the cache directory; ``None``: there is none, and the numbers are those of this process.
    :param check: raises :class:`ConfigError` if that can't be used.
    :param warn: logs a warning: a message and its arguments. Default: to the logger ``flask_stalecache``.
    :ivar listener: called with the name and the number of what is counted by name.
    """

    def __init__(
        self,
        counters: Counters,
        directory: Path | None = None,
        check: Callable[[], object] = lambda: None,
        warn: Callable[..., object] = _log_warning,
    ) -> None:
        self.counters = counters
        if counters.sink is None:
            counters.sink = self
        self.directory = directory
        self.folder = None if directory is None else directory / FOLDER
        self.listener: Callable[[str, int], object] = _no_listener
        self._check = check
        self._warn = warn
        self._has_warned = False
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._others = {kind: Tally(kind, OTHERS) for kind in KINDS}
        self._head = private_cells(HEAD)
        self._named = {name: NAMED + cell for name, cell in named_cells().items()}
        self._gauge_cells = gauge_cells()
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
        index = self._named.get(name)
        if index is not None:
            self.open()
            self._head[index] += by
        self.listener(name, by)

    def gauge(self, name: str, value: int) -> None:
        """Say how many there are just now: ``refreshes_pending`` or ``scans_running``."""
        self._gauges[name] = value
        self._head[self._gauge_cells[name]] = value

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
            if self._try_again_at and not self.counters["store_failures"] and not self._has_warned:
                # Not at the first time, and not where the store fails too, which says so itself.
                self._has_warned = True
                self._warn("requests are counted in this process alone, no file for it at %s: %s", folder, error)
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

    def read(self, entries: int, bytes: int, max_size: int | None) -> Stats:
        """Return the numbers of all processes, living and dead, that share the directory.

        :param entries: number of stored entries.
        :param bytes: bytes that they take.
        :param max_size: bytes that they may take at most.
        """
        heads, held, labels = self._parts()
        blocks = _summed(labels)
        series = {kind: _series(kind, blocks) for kind in KINDS}
        stats = {
            "requests": requests_of(blocks, "endpoint"),
            "calls": requests_of(blocks, "function", "host"),
            **self._counted(added(heads), added([[0] * HEAD, *held]), series_of(added([[0] * CELLS, *blocks.values()]))),
            "entries": entries,
            "bytes": bytes,
            "max_size": max_size,
            "workers": len(held),
            "since": min(head[BORN_CELL] for head in heads) / 1e9,
            "endpoints": series["endpoint"],
            "functions": series["function"],
            "hosts": series["host"],
        }
        # Its keys are those of the table.
        return cast(Stats, stats)

    def _counted(self, head: Sequence[int], held: Sequence[int], every: Series) -> dict[str, Any]:
        """Return the values of all counters in the table, by their keys.

        :param head: the named cells of all processes, living and dead.
        :param held: those of the living ones.
        :param every: all endpoints, functions and hosts together.
        """
        counted: dict[str, Any] = {}
        for counter in schema.COUNTERS:
            if not counter.key:
                continue
            match counter.kept:
                case Kept.NAMED:
                    value: float = head[NAMED + counter.cell]
                case Kept.GAUGE:
                    value = held[counter.cell]
                case Kept.SERIES:
                    value = value_at(every, counter.name)
                case _:
                    assert_never(counter.kept)
            group, _, name = counter.key.rpartition(".")
            target = counted.setdefault(group, {}) if group else counted
            target[name] = target.get(name, 0) + value
        return counted

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
