"""Counts the requests for keys that are not stored, so that an answer is stored from the nth request on (``min_uses``).

The counts are in tables of a fixed size (count-min sketches), since visitors choose the URLs. Each key has one cell in each row of
a table, and its count is that of its lowest cell. So a count may be too high, if a key shares all its cells with other keys, but
never too low. Two tables follow each other: the older one is dropped after a while, or when the newer one has so many keys that
its counts would become guesses.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from struct import Struct

from ..core.guarded import guarded

#: A quarter of the cells of a row may be used. Then one new key in 400 is taken for one that was counted before.
ROWS, CELLS = 4, 1 << 18
MAX_KEYS = CELLS // 4
#: A cell is one byte.
HIGHEST = 255
_numbers = Struct(f"{ROWS}I").unpack


class _Table:
    """One table.

    :ivar keys: the number of different keys in it.
    """

    def __init__(self) -> None:
        self.cells = bytearray(ROWS * CELLS)
        self.keys = 0

    def of(self, places: Iterable[int]) -> int:
        """Return the count of a key by its cells."""
        return min(self.cells[place] for place in places)

    def add(self, places: Iterable[int]) -> None:
        """Count one use. Only the lowest cells are raised, so that the counts of other keys stay as low as possible."""
        cells, count = self.cells, self.of(places)
        self.keys += not count
        if count < HIGHEST:
            for place in places:
                if cells[place] == count:
                    cells[place] = count + 1


class UseCounts:
    """The counts of one process, in 2 MiB.

    :param within: the least time in seconds that a use is counted, unless there are too many keys. The longest is twice that.
    """

    def __init__(self, within: float) -> None:
        self._within = within
        self._mutex = threading.Lock()
        #: Keeps visitors from choosing URLs that share cells with another URL.
        self._secret = os.urandom(16)
        self._now, self._before = _Table(), _Table()
        self._began = time.monotonic()

    def count(self, key: str) -> int:
        """Count a use of a key, and return its uses so far."""
        hashed = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=4 * ROWS, key=self._secret).digest()
        places = [row * CELLS + number % CELLS for row, number in enumerate(_numbers(hashed))]
        return self._count(places)

    @guarded
    def _count(self, places: Sequence[int]) -> int:
        self._drop_old()
        self._now.add(places)
        return self._now.of(places) + self._before.of(places)

    def _drop_old(self) -> None:
        now = time.monotonic()
        age = now - self._began
        if age < self._within and self._now.keys < MAX_KEYS:
            return
        self._before = self._now if age < 2 * self._within else _Table()
        self._now, self._began = _Table(), now
