"""A look through the store that ends in time, however much is stored."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from heapq import nlargest
from typing import NamedTuple

from ..core.model.entry import Entry
from ..core.rules.explain import State, state_of
from ..core.rules.serving import ServeOptions
from ..stores.base import Store, Stored

#: Seconds that a look through the store takes at most.
LONGEST = 0.2
#: Seconds for which what was seen is good enough for the next page.
GOOD_FOR = 2.0
#: Entries in a list.
SHOWN = 10
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Survey:
    """What a look through the store came upon.

    :ivar looked: how many entries it has looked at.
    :ivar is_cut: it ended before all were looked at.
    :ivar states: how many are where in their life.
    :ivar biggest: those that take most of the disk, the biggest first.
    :ivar latest: those that were used last, the last first.
    :ivar left_alone: those whose origin failed, the next to be tried first.
    """

    looked: int
    is_cut: bool
    states: Mapping[State, int]
    biggest: list[Stored]
    latest: list[Stored]
    left_alone: list[Stored]


def survey(walk: Iterator[Stored], now: float, terms: ServeOptions, longest: float = LONGEST) -> Survey:
    """Look through a store for a while.

    :param walk: what is stored.
    :param now: seconds since the epoch.
    :param terms: what the app says of what is stored.
    :param longest: seconds that it takes at most.
    """
    states: Counter[State] = Counter()
    biggest: list[Stored] = []
    latest: list[Stored] = []
    left_alone: list[Stored] = []
    looked, was_late = 0, False
    for batch, is_late in _in_time(walk, longest):
        looked, was_late = looked + len(batch), is_late
        states.update(state_of(stored.entry, now, terms) for stored in batch)
        biggest = nlargest(SHOWN, [*biggest, *batch], key=lambda stored: stored.size)
        latest = nlargest(SHOWN, [*latest, *batch], key=lambda stored: stored.used)
        failing = [stored for stored in batch if stored.note.failures or stored.note.backing_off(now)]
        left_alone = nlargest(SHOWN, [*left_alone, *failing], key=lambda stored: -stored.note.retry_at)
    return Survey(looked, was_late, states, biggest, latest, left_alone)


class Found(NamedTuple):
    """What a search came upon.

    :ivar entries: the first of them.
    :ivar looked: how many entries it has looked at.
    :ivar is_cut: it ended before all were looked at.
    """

    entries: list[Stored]
    looked: int
    is_cut: bool


def search(walk: Iterator[Stored], matches: Callable[[Entry], bool], longest: float, most: int) -> Found:
    """Look through a store for entries, for a while.

    :param matches: whether an entry is one of them.
    :param longest: seconds that it takes at most.
    :param most: entries that are looked for at most.
    """
    entries: list[Stored] = []
    looked, was_late = 0, False
    for batch, is_late in _in_time(walk, longest):
        looked, was_late = looked + len(batch), is_late
        entries += [stored for stored in batch if matches(stored.entry)]
        if len(entries) >= most:
            return Found(entries[:most], looked, True)
    return Found(entries, looked, was_late)


def _in_time(walk: Iterator[Stored], longest: float) -> Iterator[tuple[list[Stored], bool]]:
    """Yield what is stored, some of it at a time, and with it whether that was all the time there is."""
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
    """Looks through a store now and then, and once for all who want to know."""

    def __init__(self) -> None:
        self._last: tuple[float, int, Survey] | None = None
        self._mutex = threading.Lock()

    def look(self, store: Store, terms: ServeOptions) -> Survey:
        """Return what is in the store: as it was a moment ago, unless something was purged since.

        :raises StoreError: if it can't be read.
        """
        with self._mutex:
            seq, last = store.seq(), self._last
            if last is not None and last[1] == seq and 0 <= time.monotonic() - last[0] < GOOD_FOR:
                return last[2]
            seen = survey(store.walk(), time.time(), terms)
            self._last = time.monotonic(), seq, seen
            return seen
