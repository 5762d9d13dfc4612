"""Replays the requests of an access log: how many of them a cache would have answered, and with copies of which age. Pure.

Calls of the origin take no time here, so that a refresh ends before the next request. Each request of the log shows what the
origin would have answered at that time:

========== =============================================== ======================= =========================================
kind       in the log                                      without a copy          with a copy in its stale windows
========== =============================================== ======================= =========================================
PAGE       GET with a status that is stored                called, stored          served, and replaced
HEAD       HEAD with a status that is stored                called                  served, and replaced
FAILURE    GET or HEAD with a status of a failure          called                  served in both stale windows, with pauses
OTHER      GET or HEAD with another status                 called                  served once, and dropped
LIVE       another method, or a request with credentials   called                  called
========== =============================================== ======================= =========================================
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum

from ..model.note import NOTHING
from ..model.policy import Windows
from .status import CacheStatus


class RequestKind(IntEnum):
    """The kind of a request in the log, as a cache treats it."""

    PAGE = 0
    HEAD = 1
    FAILURE = 2
    OTHER = 3
    LIVE = 4


class Visits:
    """The requests of a log, in columns: a million of them take 25 MB."""

    def __init__(self) -> None:
        self._keys, self._groups, self._times = array("L"), array("L"), array("d")
        self._kinds, self._sizes = bytearray(), array("L")
        self._sorted = True

    def __len__(self) -> int:
        return len(self._times)

    def add(self, key: int, group: int, at: float, kind: RequestKind, size: int) -> None:
        """Add one request.

        :param key: a number for its key.
        :param group: the number of the group in which it is counted, such as its endpoint.
        :param at: seconds since the epoch.
        :param kind: how a cache treats it.
        :param size: the bytes of its body, 0 if they are not known.
        """
        self._sorted = self._sorted and (not self._times or self._times[-1] <= at)
        self._keys.append(key)
        self._groups.append(group)
        self._times.append(at)
        self._kinds.append(kind)
        self._sizes.append(size)

    @property
    def span(self) -> tuple[float, float]:
        """The times of the first and the last request."""
        return (min(self._times), max(self._times)) if self._times else (0.0, 0.0)

    def in_order(self) -> Iterable[tuple[int, int, float, int, int]]:
        """Return the requests by time. Workers write lines when their answers end, so that a log is nearly in order."""
        columns = (self._keys, self._groups, self._times, self._kinds, self._sizes)
        if self._sorted:
            return zip(*columns, strict=True)
        order = sorted(range(len(self)), key=self._times.__getitem__)
        return ((*(column[place] for column in columns),) for place in order)  # type: ignore[misc]


class ReplayOutcome:
    """The result of a cache for one group of requests.

    :ivar statuses: requests by status; ``BYPASS`` for those that no cache answers.
    :ivar calls: calls of the origin, refreshes included.
    :ivar entries: the most copies at one time.
    :ivar size: the most bytes of their bodies at one time.
    """

    def __init__(self) -> None:
        self.statuses = dict.fromkeys(_STATUSES, 0)
        self.calls = self.entries = self.size = 0
        self._now_entries = self._now_size = 0
        self._ages = array("f")
        self._are_sorted = True

    @property
    def visits(self) -> int:
        """The number of requests."""
        return sum(self.statuses.values())

    @property
    def from_store(self) -> int:
        """The number of requests that waited for no call of the origin."""
        return self.statuses[CacheStatus.HIT] + self.statuses[CacheStatus.STALE]

    @property
    def saved(self) -> int:
        """The number of calls of the origin that the cache saves."""
        return self.visits - self.calls

    def age(self, share: float) -> float | None:
        """Return the age in seconds that a share of the served copies did not exceed; ``None`` if none was served."""
        if not self._ages:
            return None
        if not self._are_sorted:
            self._ages, self._are_sorted = array("f", sorted(self._ages)), True
        return self._ages[min(len(self._ages) - 1, int(share * len(self._ages)))]

    def serve(self, status: CacheStatus, age: float) -> None:
        """Count a request that is answered by a copy.

        :param age: the age of the copy in seconds.
        """
        self.statuses[status] += 1
        self._ages.append(age)
        self._are_sorted = False

    def keep(self, size: int) -> None:
        """Count a copy that is stored."""
        self._now_entries += 1
        self.entries = max(self.entries, self._now_entries)
        self.resize(size)

    def resize(self, change: int) -> None:
        """Count the replacement of a stored copy by one with so many more bytes."""
        self._now_size += change
        self.size = max(self.size, self._now_size)

    def drop(self, size: int) -> None:
        """Count a copy that is removed."""
        self._now_entries -= 1
        self._now_size -= size


_STATUSES = (CacheStatus.HIT, CacheStatus.STALE, CacheStatus.MISS, CacheStatus.EXPIRED, CacheStatus.BYPASS)


class _Copy:
    __slots__ = ("freshness", "group", "note", "size", "stored_at")

    def __init__(self, group: int) -> None:
        self.group, self.size, self.note = group, 0, NOTHING
        self.stored_at = self.freshness = 0.0


class LogReplay:
    """A cache with one lifetime for everything.

    :param windows: its windows.
    :param jitter: the share of freshness by which it is shortened at random.
    :param backoff: the first and the longest pause after failed calls, in seconds.
    :param inactive: how long copies are kept past their windows, in seconds.
    :param groups: the number of groups.
    :param chance: returns a random number from 0 to 1.
    """

    def __init__(
        self,
        windows: Windows,
        *,
        jitter: float,
        backoff: tuple[float, float],
        inactive: float,
        groups: int,
        chance: Callable[[], float],
    ) -> None:
        self._windows = windows
        self._jitter, self._backoff, self._chance = jitter, backoff, chance
        self._kept_for = windows.max_age + max(windows.stale_while_revalidate, windows.stale_if_error) + inactive
        self._outcomes = [ReplayOutcome() for _ in range(groups)]
        #: By key, the oldest first.
        self._copies: OrderedDict[int, _Copy] = OrderedDict()
        #: No copy is removed before this time.
        self._next_removal = 0.0

    def play(self, visits: Visits) -> Sequence[ReplayOutcome]:
        """Return the outcome for each group."""
        for key, group, at, kind, size in visits.in_order():
            if at >= self._next_removal:
                self._remove_old(at)
            self._visit(key, group, at, kind, size)
        return self._outcomes

    def _visit(self, key: int, group: int, at: float, kind: int, size: int) -> None:
        outcome = self._outcomes[group]
        copy = None if kind == RequestKind.LIVE else self._copies.get(key)
        if copy is None:
            outcome.statuses[CacheStatus.BYPASS if kind == RequestKind.LIVE else CacheStatus.MISS] += 1
            outcome.calls += 1
            if kind == RequestKind.PAGE:
                self._store(key, group, at, size)
            return
        age = at - copy.stored_at
        stale_for = age - copy.freshness
        if stale_for < 0:
            outcome.serve(CacheStatus.HIT, age)
        elif self._may_be_served(copy, stale_for, at, kind):
            outcome.serve(CacheStatus.STALE, age)
            if not copy.note.backing_off(at):
                self._call(outcome, key, copy, at, kind, size)
        else:
            outcome.statuses[CacheStatus.EXPIRED] += 1
            if kind == RequestKind.HEAD:
                # Its answer has no body to store. A refresh, which any request can start, asks for the whole page.
                outcome.calls += 1
            else:
                self._call(outcome, key, copy, at, kind, size)

    def _may_be_served(self, copy: _Copy, stale_for: float, at: float, kind: int) -> bool:
        if stale_for < self._windows.stale_while_revalidate:
            return True
        has_failed = kind == RequestKind.FAILURE or copy.note.backing_off(at)
        return has_failed and stale_for < self._windows.stale_if_error

    def _call(self, outcome: ReplayOutcome, key: int, copy: _Copy, at: float, kind: int, size: int) -> None:
        outcome.calls += 1
        if kind == RequestKind.FAILURE:
            copy.note = copy.note.failed(at, self._backoff, self._chance())
        elif kind == RequestKind.OTHER:
            self._drop(key)
        else:
            self._store(key, copy.group, at, size)

    def _store(self, key: int, group: int, at: float, size: int) -> None:
        copy = self._copies.get(key)
        if copy is None:
            copy = self._copies[key] = _Copy(group)
            self._outcomes[group].keep(0)
        else:
            self._copies.move_to_end(key)
        # A 304 and a HEAD say nothing about the size of the page.
        if size:
            self._outcomes[group].resize(size - copy.size)
            copy.size = size
        copy.stored_at, copy.freshness = at, self._windows.max_age * (1 - self._jitter * self._chance())
        copy.note = NOTHING

    def _drop(self, key: int) -> None:
        copy = self._copies.pop(key)
        self._outcomes[copy.group].drop(copy.size)

    def _remove_old(self, at: float) -> None:
        """Remove copies that were stored longer ago than the cache keeps them."""
        self._next_removal = at + self._kept_for
        while self._copies:
            key, copy = next(iter(self._copies.items()))
            if copy.stored_at + self._kept_for > at:
                self._next_removal = copy.stored_at + self._kept_for
                return
            self._drop(key)
