"""Scans of the store with a time limit, so that a page is never slow however many entries there are."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from heapq import nlargest
from typing import NamedTuple

from ..core.model.entry import Entry
from ..core.rules.explain import EntryState, state_of_entry
from ..core.rules.serving import ServeOptions
from ..stores.base import Store, Stored

#: The longest time of a scan, in seconds.
LONGEST = 0.2
#: Seconds for which the result of a scan is reused.
GOOD_FOR = 2.0
#: The number of entries in a list.
SHOWN = 10
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Survey:
    """The result of a scan.

    :ivar looked: number of entries that were looked at.
    :ivar is_cut: whether the time ran out before all entries were looked at.
    :ivar states: number of entries in each state.
    :ivar biggest: the largest entries, the largest first.
    :ivar latest: the most recently used entries, the latest first.
    :ivar left_alone: entries whose origin failed, the one that is tried next first.
    """

    looked: int
    is_cut: bool
    states: Mapping[EntryState, int]
    biggest: list[Stored]
    latest: list[Stored]
    left_alone: list[Stored]


def survey(walk: Iterator[Stored], now: float, terms: ServeOptions, longest: float = LONGEST) -> Survey:
    """Scan a store.

    :param walk: its entries.
    :param now: seconds since the epoch.
    :param terms: the serving options of the app.
    :param longest: the time limit, in seconds.
    """
    states: Counter[EntryState] = Counter()
    biggest: list[Stored] = []
    latest: list[Stored] = []
    left_alone: list[Stored] = []
    looked, was_late = 0, False
    for batch, is_late in _in_time(walk, longest):
        looked, was_late = looked + len(batch), is_late
        states.update(state_of_entry(stored.entry, now, terms) for stored in batch)
        biggest = nlargest(SHOWN, [*biggest, *batch], key=lambda stored: stored.size)
        latest = nlargest(SHOWN, [*latest, *batch], key=lambda stored: stored.used)
        failing = [stored for stored in batch if stored.note.failures or stored.note.backing_off(now)]
        left_alone = nlargest(SHOWN, [*left_alone, *failing], key=lambda stored: -stored.note.retry_at)
    return Survey(looked, was_late, states, biggest, latest, left_alone)


class ScanResult(NamedTuple):
    """The result of a search.

    :ivar entries: the first entries that match.
    :ivar looked: number of entries that were looked at.
    :ivar is_cut: whether the search ended before all entries were looked at.
    """

    entries: list[Stored]
    looked: int
    is_cut: bool


def search(walk: Iterator[Stored], matches: Callable[[Entry], bool], longest: float, most: int) -> ScanResult:
    """Search a store.

    :param walk: its entries.
    :param matches: returns whether an entry matches.
    :param longest: the time limit, in seconds.
    :param most: end after this number of matches.
    """
    entries: list[Stored] = []
    looked, was_late = 0, False
    for batch, is_late in _in_time(walk, longest):
        looked, was_late = looked + len(batch), is_late
        entries += [stored for stored in batch if matches(stored.entry)]
        if len(entries) >= most:
            return ScanResult(entries[:most], looked, True)
    return ScanResult(entries, looked, was_late)


def _in_time(walk: Iterator[Stored], longest: float) -> Iterator[tuple[list[Stored], bool]]:
    """Yield entries in batches, each with a flag that is true once the time has run out."""
    deadline = time.monotonic() + longest
    batch: list[Stored] = []
    for stored in walk:
        batch.append(stored)
        is_late = time.monotonic() >= deadline
        if is_late or len(batch) >= _BATCH:
            yield batch, is_late
            batch = []
        if is_late:
            return
    yield batch, False


class StoreScanner:
    """Caches the last scan for a moment; the lock lets concurrent pages share one scan."""

    def __init__(self) -> None:
        self._last: tuple[float, int, Survey] | None = None
        self._mutex = threading.Lock()

    def look(self, store: Store, terms: ServeOptions) -> Survey:
        """Return a scan of the store, up to two seconds old, unless something was purged since.

        :raises StoreError: if it can't be read.
        """
        with self._mutex:
            seq, last = store.seq(), self._last
            if last is not None and last[1] == seq and 0 <= time.monotonic() - last[0] < GOOD_FOR:
                return last[2]
            seen = survey(store.walk(), time.time(), terms)
            self._last = time.monotonic(), seq, seen
            return seen
