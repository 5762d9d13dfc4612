"""Counting without a system call and without a lock: 64-bit cells that other processes read and add up.

CPython (since 3.10) switches threads only at calls of Python functions and at backward jumps. ``cells[i] += 1`` on a memoryview
with an ``int`` index has neither between load and store. So threads lose no counts, and processes lose none since each has cells of
its own. ``tests/stats/test_tally.py`` checks this.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import TypeAlias

from ..core.model.reasons import REASONS, Reason, code_of
from ..core.rules.status import CacheStatus
from .schema import Histogram, Series

#: Upper bounds of a histogram's buckets, in seconds; one more bucket has no bound.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BUCKET_NAMES = (*map(str, BOUNDS), "+Inf")
_BUCKETS = len(BUCKET_NAMES)
#: The statuses in the order of their cells, which never changes.
STATUSES = ("MISS", "BYPASS", "EXPIRED", "STALE", "UPDATING", "REVALIDATED", "HIT")

#: Kinds of labels that are counted separately.
KINDS = ("endpoint", "function", "host")
#: Cells by kind and label.
Totals: TypeAlias = "Mapping[tuple[str, str], Sequence[int]]"

#: The first cell of a label. A fresh hit from this process's memory adds to this cell only.
PLAIN = 0
_STATUS = {CacheStatus(name): 1 + index for index, name in enumerate(STATUSES)}
#: Likewise for a stale copy from memory that is served by a repeated decision. These cells follow those of the histograms.
PLAIN_UPDATING, PLAIN_STALE = 46, 47
PLAIN_CELLS = {CacheStatus.HIT: PLAIN, CacheStatus.UPDATING: PLAIN_UPDATING, CacheStatus.STALE: PLAIN_STALE}
_FROM_STORE = (*PLAIN_CELLS.values(), *(_STATUS[status] for status in PLAIN_CELLS))
#: The number of requests after which a label without a hit is remarkable.
_MANY = 100
_CALLS, _FAILURES, _WAITS, _REFRESHED, _REFRESH_FAILED, _REFRESH_NS, _SERVED_NS, _ORIGIN_NS = range(8, 16)
_SERVED, _ORIGIN = 16, 16 + _BUCKETS
_COMPUTED, _COMPUTED_NS = 48, 49
#: Cells of a label's series: all of the above, and a few spare ones.
CELLS = 56
#: Cells for reasons, of which most are spare ones.
_ROOM = 120
#: Cells of a label: those of its series, and one for each reason why something was not answered from the store.
ALL_CELLS = CELLS + _ROOM
_CODES = tuple(map(code_of, REASONS))
_REASON = {reason: CELLS + index for index, reason in enumerate(REASONS)}
#: Identifies the reasons that the cells are for: other versions of this package have other reasons.
REASONS_DIGEST = int.from_bytes(blake2b(" ".join(_CODES).encode(), digest_size=7).digest(), "little")
_BILLION = 1_000_000_000


def private_cells(count: int) -> memoryview:
    """Return cells in this process's memory."""
    return memoryview(bytearray(count * 8)).cast("Q")


class Tally:
    """The counts of one endpoint, fetch function or host in this process.

    :ivar computes: whether its origin computed for long, rather than waited, when it was last called.
    :ivar live: the approximate number of requests that were not answered from the store: concurrent threads may lose some.
    :ivar cells: its cells; replaced after a fork, so they must be read for each count.
    """

    __slots__ = ("cells", "computes", "kind", "label", "live")

    def __init__(self, kind: str, label: str, cells: memoryview | None = None) -> None:
        self.kind = kind
        self.label = label
        self.live = 0
        self.computes = False
        self.cells = private_cells(ALL_CELLS) if cells is None else cells

    def move_to(self, cells: memoryview) -> None:
        """Count in other cells from now on, and add the counts so far to them."""
        before, self.cells = self.cells, cells
        for index, count in enumerate(before):
            if count:
                cells[index] += count

    def served(self, status: CacheStatus, took: float | None, *, waited: bool = False, why: Reason | None = None) -> None:
        """Count a request or a call.

        :param took: seconds until there was something to serve; ``None`` for a copy in memory that is fresh, or served by a
            repeated decision.
        :param waited: whether it waited for another request's call of the origin.
        :param why: why it was not answered from the store; ``None`` if it was, or if that is counted later.
        """
        if took is None:
            self.cells[PLAIN_CELLS[status]] += 1
            return
        index, bucket, nanoseconds = _STATUS[status], _SERVED + bisect_left(BOUNDS, took), int(took * _BILLION)
        self.cells[index] += 1
        self.cells[bucket] += 1
        self.cells[_SERVED_NS] += nanoseconds
        if waited:
            self.cells[_WAITS] += 1
        if why is not None:
            self.because(why)

    def because(self, why: Reason) -> None:
        """Count a reason why something was not answered from the store."""
        index = _REASON[why]
        self.cells[index] += 1
        self.live += 1

    @property
    def is_never_hit(self) -> bool:
        """Whether many requests were answered, and none of them from the store."""
        return self.live >= _MANY and not any(self.cells[index] for index in _FROM_STORE)

    def asked(self, seconds: float, *, failed: bool) -> None:
        """Count a call of the origin."""
        bucket, nanoseconds = _ORIGIN + bisect_left(BOUNDS, seconds), int(seconds * _BILLION)
        self.cells[_CALLS] += 1
        self.cells[bucket] += 1
        self.cells[_ORIGIN_NS] += nanoseconds
        if failed:
            self.cells[_FAILURES] += 1

    def computed(self, seconds: float) -> None:
        """Count a call of the origin that has computed.

        :param seconds: the processor time that it took.
        """
        nanoseconds = int(seconds * _BILLION)
        self.cells[_COMPUTED] += 1
        self.cells[_COMPUTED_NS] += nanoseconds

    def refreshed(self, seconds: float, *, failed: bool) -> None:
        """Count a refresh that has ended."""
        index, nanoseconds = _REFRESH_FAILED if failed else _REFRESHED, int(seconds * _BILLION)
        self.cells[index] += 1
        self.cells[_REFRESH_NS] += nanoseconds


#: For requests that another layer counts.
UNCOUNTED = Tally("", "")


def requests_in(cells: Sequence[int]) -> dict[str, int]:
    """Return requests by status."""
    requests = dict(zip(STATUSES, cells[1 : 1 + len(STATUSES)], strict=True))
    for status, index in PLAIN_CELLS.items():
        requests[status.value] += cells[index]
    return requests


def series_of(cells: Sequence[int], *, cumulative: bool = True) -> Series:
    """Return the counts in cells.

    :param cumulative: each bucket includes those below it.
    """
    served = [*cells[_SERVED : _SERVED + _BUCKETS]]
    served[0] += sum(cells[index] for index in PLAIN_CELLS.values())
    return {
        "requests": requests_in(cells),
        "origin_calls": cells[_CALLS],
        "origin_failures": cells[_FAILURES],
        "waits": cells[_WAITS],
        "refreshes": {
            "done": cells[_REFRESHED],
            "failed": cells[_REFRESH_FAILED],
            "seconds": cells[_REFRESH_NS] / _BILLION,
        },
        "computed": {"calls": cells[_COMPUTED], "seconds": cells[_COMPUTED_NS] / _BILLION},
        "served": _histogram(served, cells[_SERVED_NS], cumulative),
        "origin": _histogram(cells[_ORIGIN : _ORIGIN + _BUCKETS], cells[_ORIGIN_NS], cumulative),
        "reasons": reasons_in(cells),
    }


def reasons_in(cells: Sequence[int]) -> dict[str, int]:
    """Return the number of requests that were not answered from the store, by the name of the reason, without zeros."""
    return {code: count for code, count in zip(_CODES, cells[CELLS:], strict=False) if count}


def _histogram(counts: Sequence[int], nanoseconds: int, cumulative: bool) -> Histogram:
    buckets, total = [], 0
    for count in counts:
        total += count
        buckets.append(total if cumulative else count)
    return {"count": total, "sum": nanoseconds / _BILLION, "buckets": dict(zip(BUCKET_NAMES, buckets, strict=True))}


def requests_of(blocks: Mapping[tuple[str, str], Sequence[int]], *kinds: str) -> dict[str, int]:
    """Return requests by status of all labels of some kinds."""
    parts = [requests_in(cells) for (kind, _), cells in blocks.items() if kind in kinds]
    return {status: sum(part[status] for part in parts) for status in STATUSES}


def added(blocks: Iterable[Sequence[int]]) -> list[int]:
    """Return the sums of cells."""
    return [sum(column) for column in zip(*blocks, strict=True)]
