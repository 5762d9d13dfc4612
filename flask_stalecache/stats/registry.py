"""The counters of one app in this process, and the statistics of all processes that share its cache directory.

Counting takes no lock. The lock guards the turn to acquire a file, the change to another file, and new labels. Before there is a
file, and without a cache directory, counts are in memory; they are added to the file once there is one. After a fork the child
starts with empty cells and a file of its own.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from ..core.exhaustive import assert_never
from ..core.guarded import guarded
from ..errors import ConfigError, StoreError
from ..filesystem.atomic import make_directories
from ..filesystem.process import this_process
from ..filesystem.system import after_fork_in_child
from . import schema
from .counter_file import BORN_CELL, HEAD, LABELS, NAMED, OTHERS, CounterFile, acquire_file, read_files
from .counters import Counters
from .history import History
from .schema import Kept, Sample, Series, Stats, gauge_cells, named_cells, value_at
from .tally import ALL_CELLS, CELLS, KINDS, Tally, Totals, added, private_cells, reasons_in, requests_of, series_of

#: In the cache directory.
FOLDER = "stats"
#: Seconds between two attempts to acquire a file.
_PAUSE = 10.0
_log_warning = logging.getLogger("flask_stalecache").warning


def _no_listener(name: str, by: int) -> None:
    pass


class _Turn:
    """The right to acquire a file. It ends with the object, so that no exception leaves it taken."""

    __slots__ = ("__weakref__",)


class Registry:
    """All counters of one app.

    :param counters: named counts, which are passed on to this registry.
    :param directory: the cache directory; ``None``: count this process only, in memory.
    :param check: raises :class:`ConfigError` if the directory can't be used.
    :param warn: logs a warning: a message and its arguments. Default: to the logger ``flask_stalecache``.
    :ivar listener: called for each named count, with its name and the number that was added.
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
        self._file: CounterFile | None = None
        self._process = this_process()
        self._try_again_at = 0.0
        self._mutex = threading.Lock()
        self._turn: weakref.ref[_Turn] | None = None
        self._history = History(self.folder, self._totals, self._since)
        _registries.add(self)

    # -- counting ------------------------------------------------------------------------------------------------

    def tally(self, kind: str, label: str) -> Tally:
        """Return the tally of an endpoint, a function or a host. The first call for a label may do I/O."""
        found = self._tallies.get((kind, label))
        return found if found is not None else self._new_tally(kind, label)

    def _new_tally(self, kind: str, label: str) -> Tally:
        self.open()
        if len(self._tallies) >= LABELS or label == OTHERS:
            return self._others[kind]
        return self._add_tally(kind, label)

    @guarded
    def _add_tally(self, kind: str, label: str) -> Tally:
        tally = self._tallies.get((kind, label))
        if tally is None:
            tally = Tally(kind, label)
            # Before the first count: ``move_to`` would add the counts that are in the file already to themselves.
            if self._file is not None:
                tally.cells = self._cells_in(self._file, tally)
            self._tallies[kind, label] = tally
        return tally

    def count(self, name: str, by: int) -> None:
        """Add to a named count."""
        index = self._named.get(name)
        if index is not None:
            self.open()
            self._head[index] += by
        self.listener(name, by)

    def gauge(self, name: str, value: int) -> None:
        """Set the current value of a gauge: ``refreshes_pending``, ``scans_running`` or ``scans_waiting``."""
        self._gauges[name] = value
        self._head[self._gauge_cells[name]] = value

    # -- the file ------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Acquire a file for this process, unless it has one, or the last attempt has just failed. Never blocks."""
        self.see_fork()
        if self._file is not None or self.folder is None or time.monotonic() < self._try_again_at:
            return
        turn = _Turn()
        # Another thread, or this one further up the stack, has the turn and is acquiring a file.
        if not self._take_turn(turn):
            return
        try:
            if self._file is None:
                self._acquire_file(self.folder)
        finally:
            self._turn = None

    @guarded
    def _take_turn(self, turn: _Turn) -> bool:
        # If an exception has ended a turn, its object is gone, and the reference is dead.
        if self._turn is not None and self._turn() is not None:
            return False
        self._turn = weakref.ref(turn)
        return True

    def _acquire_file(self, folder: Path) -> None:
        try:
            # Checked before the directory is created, and again afterwards, since another process may have created it meanwhile.
            self._check()
            make_directories(folder.parent)
            self._check()
            file = acquire_file(folder)
        except (OSError, ConfigError) as error:
            if self._try_again_at and not self.counters["store_failures"] and not self._has_warned:
                # Not for the first failure, and not if the store fails too: the store logs that itself.
                self._has_warned = True
                self._warn("requests are counted in this process alone, no file for it at %s: %s", folder, error)
            self._try_again_at = time.monotonic() + _PAUSE
            self.counters.count("uncounted")
            return
        self._move_to(file)

    @guarded
    def _move_to(self, file: CounterFile) -> None:
        self._file = file
        before, self._head = self._head, file.head
        for index in range(NAMED, HEAD):
            if before[index]:
                file.head[index] += before[index]
        for name, value in self._gauges.items():
            self.gauge(name, value)
        for tally in self._all_tallies():
            tally.move_to(self._cells_in(file, tally))

    def _cells_in(self, file: CounterFile, tally: Tally) -> memoryview:
        cells = file.cells(tally.kind, tally.label)
        if cells is None:
            # The file is full: it has the labels of processes before this one.
            cells = file.cells(tally.kind, OTHERS)
            assert cells is not None
        return cells

    def _all_tallies(self) -> list[Tally]:
        return [*self._tallies.values(), *self._others.values()]

    def tick(self) -> None:
        """Look after the file, and take a sample for the history, even if the first of these fails."""
        try:
            self._look_after_file()
        finally:
            self._sample()

    def _look_after_file(self) -> None:
        """Write to the file. Acquire another one if ours was deleted or replaced, or none could be acquired before."""
        file = self._file
        if file is None:
            if self._try_again_at:
                self.open()
        elif not file.is_current():
            self._start_anew()
            self.open()
        self.save()

    def save(self) -> None:
        """Write the counts to the file."""
        # Read once: housekeeping may give up a replaced file while another thread reads the statistics.
        file = self._file
        if file is not None:
            file.save()

    def _sample(self) -> None:
        """Take a sample for the history, if anything was counted. A failure is counted, and not raised."""
        if self._file is None and (self.folder is not None or not self._tallies):
            return
        try:
            self._history.tick()
        except (OSError, StoreError):
            self.counters.count("uncounted")

    def history(self, since: float = 0.0) -> list[Sample]:
        """Return the samples of the last hour, one every 15 seconds while any process lived, the oldest first.

        :param since: only samples taken after this time, in seconds since the epoch. Default: all.
        """
        try:
            return self._history.samples(since)
        except OSError:
            return []

    def running(self) -> Sample | None:
        """Return what was counted since the last sample of the history; ``None`` if that is unknown at the moment."""
        try:
            return self._history.running()
        except OSError:
            return None

    def see_fork(self) -> None:
        """In the child of a fork, start with empty cells: two processes that count in the same cells would lose counts."""
        if self._process != this_process():
            self._process = this_process()
            self._mutex, self._turn = threading.Lock(), None
            self._try_again_at = 0.0
            self._gauges = {}
            self._reset()

    @guarded
    def _start_anew(self) -> None:
        self._reset()

    def _reset(self) -> None:
        """Start with empty cells: the counts so far are in a file that is not ours any more."""
        file, self._file = self._file, None
        self._head = private_cells(HEAD)
        self._began = time.time_ns()
        for tally in self._all_tallies():
            tally.cells = private_cells(ALL_CELLS)
        if file is not None:
            file.close()

    # -- adding up -----------------------------------------------------------------------------------------------

    def read(self, entries: int, bytes: int, max_size: int | None) -> Stats:
        """Return the statistics of all processes, living and dead, that share the directory.

        :param entries: number of stored entries.
        :param bytes: bytes that they take.
        :param max_size: bytes that they may take at most.
        """
        heads, held, labels = self._parts()
        blocks = _summed(labels)
        series, every = {kind: _series(kind, blocks) for kind in KINDS}, added([[0] * ALL_CELLS, *blocks.values()])
        stats = {
            "requests": requests_of(blocks, "endpoint"),
            "calls": requests_of(blocks, "function", "host"),
            "reasons": reasons_in(every),
            **self._counted(added(heads), added([[0] * HEAD, *held]), series_of(every)),
            "entries": entries,
            "bytes": bytes,
            "max_size": max_size,
            "workers": len(held),
            "since": _born(heads),
            "endpoints": series["endpoint"],
            "functions": series["function"],
            "hosts": series["host"],
        }
        # Its keys are those of the table of counters, which type checkers can't see.
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
        # Without reasons, which the history does not keep.
        return {key: cells[:CELLS] for key, cells in _summed(self._parts()[2]).items()}

    def _since(self) -> float:
        return _born(self._parts()[0])

    def _parts(self) -> tuple[list[Sequence[int]], list[Sequence[int]], dict[tuple[str, str], list[Sequence[int]]]]:
        """Return the heads of all files, the heads of held ones, and all cells by label; counts in memory included."""
        heads: list[Sequence[int]] = []
        held: list[Sequence[int]] = []
        labels: dict[tuple[str, str], list[Sequence[int]]] = {}
        # Without shared memory, the latest counts of the other apps of this process are in their registries alone, until saved.
        for registry in list(_registries):
            if registry.folder == self.folder:
                registry.save()
        for reading in () if self.folder is None else read_files(self.folder):
            heads.append(reading.head)
            if reading.is_held:
                held.append(reading.head)
            for key, cells in reading.labels.items():
                labels.setdefault(key, []).append(cells)
        if self._file is None:
            mine = self._head.tolist()
            is_counting = any(mine) or self.folder is None
            mine[BORN_CELL] = self._began
            # A process that only reads, such as a command, is no worker.
            heads += [mine] if is_counting or not heads else []
            held += [mine] if is_counting else []
            for tally in self._all_tallies():
                labels.setdefault((tally.kind, tally.label), []).append(tally.cells)
        if not heads:
            # All files were deleted, ours too, which the next tick will notice: all counts start from 0.
            heads.append([self._began if index == BORN_CELL else 0 for index in range(HEAD)])
        return heads, held, labels


def _born(heads: Sequence[Sequence[int]]) -> float:
    """Return when the oldest of the counts began, in seconds since the epoch."""
    return min(head[BORN_CELL] for head in heads) / 1e9


def _summed(labels: Mapping[tuple[str, str], list[Sequence[int]]]) -> dict[tuple[str, str], list[int]]:
    return {key: added(parts) for key, parts in labels.items()}


def _series(kind: str, blocks: dict[tuple[str, str], list[int]]) -> dict[str, Series]:
    return {label: series_of(cells) for (of, label), cells in sorted(blocks.items()) if of == kind and any(cells)}


_registries: weakref.WeakSet[Registry] = weakref.WeakSet()


def _see_fork() -> None:
    for registry in list(_registries):
        registry.see_fork()


# At the fork, since a hit in the child does not check the pid. Some servers fork without this hook: slow paths check the pid too.
after_fork_in_child(_see_fork)


def _save_all() -> None:
    for registry in list(_registries):
        registry.save()


atexit.register(_save_all)
