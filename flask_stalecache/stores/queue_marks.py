"""Marks the refreshes that wait in the queue of another program, so that the processes of a host do not all queue the same one.

A slot of the table holds a part of the digest of the refresh's name, and the time until which the mark is valid. Two refreshes with
one slot displace each other's mark: then a refresh is queued twice, which is harmless.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from ..core.addressing.keys import digest
from ..errors import StoreError
from ..filesystem.directory import Directory, Inside
from ..filesystem.locks import POLL, FileKeyLock
from ..filesystem.uptime import seconds_up
from .file_numbers import Numbers
from .table.stamps import SLOTS, slot_of
from .table.table_file import Layout, Table, open_table

FILE_NAME = "queued-1"
_LAYOUT = Layout(counts=0, stamps=SLOTS, marks=0)
#: Bits of a time in milliseconds. The other bits of a number, which is less than 2**63, are a part of the digest.
_TIME_BITS = 42
_TIMES = 1 << _TIME_BITS
_DIGEST_DIGITS = 5
#: Attempts to take the lock of the table, :data:`POLL` seconds apart; and seconds that a refresh counts as marked if they fail.
_TRIES, BUSY = 100, 0.5


class QueueMarks:
    """The marks of one host.

    :param directory: the cache directory.
    :param lock: returns a lock of the whole directory.
    """

    def __init__(self, directory: Directory, lock: Callable[[str], FileKeyLock]) -> None:
        self._directory = directory
        self._lock = lock
        self._table: Table | None = None
        self._place: Inside | None = None
        self._numbers: Numbers = [0] * SLOTS

    def mark(self, name: str, seconds: float) -> float:
        """Mark a refresh as queued, and return 0; if it is marked already, return for how many seconds it still is."""
        name = digest(name)
        # Two processes that read the same slot before one of them writes would both queue it.
        lock = self._lock("queued")
        if not _try(lock):
            return BUSY
        try:
            self._open()
            now = seconds_up()
            left = self._left(name, now, seconds)
            if left <= 0:
                self._numbers[slot_of(name)] = _part_of(name) << _TIME_BITS | int((now + seconds) * 1000) % _TIMES
        finally:
            lock.release()
        return left

    def unmark(self, name: str) -> None:
        """Remove a mark."""
        name, lock = digest(name), self._lock("queued")
        if _try(lock):
            try:
                self._open()
                if self._left(name, seconds_up(), float("inf")) > 0:
                    self._numbers[slot_of(name)] = 0
            finally:
                lock.release()

    def _left(self, name: str, now: float, most: float) -> float:
        """Return for how many seconds a refresh is still marked; 0: it is not."""
        number = self._numbers[slot_of(name)]
        # A number that is lost is less than 0.
        if number <= 0 or number >> _TIME_BITS != _part_of(name):
            return 0.0
        left = (number & (_TIMES - 1)) / 1000 - now
        # A time that is further ahead was written before the machine was started.
        return left if 0 < left <= most else 0.0

    def _open(self) -> None:
        # Without a directory or a table, each process has its own marks.
        with suppress(OSError):
            place = self._directory.at(FILE_NAME)
            if self._table is None or place != self._place or not self._table.is_current():
                self._table, self._place, self._numbers = None, place, [0] * SLOTS
                self._table = open_table(place, _LAYOUT)
                self._numbers = self._table.numbers(0, SLOTS)


def _try(lock: FileKeyLock) -> bool:
    """Take a lock that is only held for a moment. Return false if that was not possible: its holder may have been stopped."""
    for _ in range(_TRIES):
        try:
            if lock.acquire():
                return True
        except StoreError:
            # There is no directory, say: each process has its own marks.
            return True
        time.sleep(POLL)
    return False


def _part_of(name: str) -> int:
    # The slot is made from the first digits.
    return int(name[-_DIGEST_DIGITS:], 16)
