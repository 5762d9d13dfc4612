"""The truth of the storm, in memory that all its processes share: which version each thing has, and which ones a visitor may see.

An editor makes a new version and purges the pages that show the thing. Once the purge has returned, a visit that begins may see no
version from before it: the *floor* of the page has risen. Each process, and the fork of each, has cells of its own, so that none
needs a lock of another; the version of a thing is the sum of its cells, and the floor of a page the greatest.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

#: The pages that show a thing; each has an address of its own.
KINDS = ("page", "flood", "gate", "stream", "memo", "both", "hello")
#: How many things there are.
THINGS = 60
WRITERS = 4
_ROWS = 1 + len(KINDS)
_IS_DOWN, _IS_OVER, _FIRST = 0, 1, 2

#: A kind and a thing.
Page: TypeAlias = "tuple[str, int]"


class Ledger:
    """The versions and floors, as one process sees them.

    :param file: made by :meth:`make`.
    :param writer: the number of this process.
    """

    def __init__(self, file: Path, writer: int) -> None:
        self.file = file
        self.writer = writer
        self._lock = threading.Lock()
        with file.open("r+b") as opened:
            self._cells = memoryview(mmap.mmap(opened.fileno(), 0)).cast("q")

    @classmethod
    def make(cls, file: Path) -> Ledger:
        file.write_bytes(bytes(8 * (_FIRST + _ROWS * WRITERS * THINGS)))
        return cls(file, 0)

    def forked(self) -> Ledger:
        """Return that of a fork of this process."""
        return Ledger(self.file, self.writer + 2)

    # -- what the third party does -------------------------------------------------------------------------------

    @property
    def is_down(self) -> bool:
        """Whether the third party of some things is down."""
        return self._cells[_IS_DOWN] != 0

    def set_down(self, is_down: bool) -> None:
        self._cells[_IS_DOWN] = is_down

    @property
    def is_over(self) -> bool:
        return self._cells[_IS_OVER] != 0

    def end(self) -> None:
        self._cells[_IS_OVER] = 1

    # -- versions and floors -------------------------------------------------------------------------------------

    def version(self, thing: int) -> int:
        return sum(self._of(0, thing))

    def versions(self) -> list[int]:
        return [self.version(thing) for thing in range(THINGS)]

    def edit(self, thing: int) -> int:
        """Make a new version of a thing, and return the version that it has at least."""
        with self._lock:
            self._cells[self._at(0, self.writer, thing)] += 1
            return self.version(thing)

    def floor(self, page: Page) -> int:
        return max(self._of(1 + KINDS.index(page[0]), page[1]))

    def purged(self, pages: Iterable[Page], versions: Sequence[int]) -> None:
        """Raise the floors of pages after a purge of them has returned.

        :param versions: the versions of all things before the purge began.
        """
        with self._lock:
            for kind, thing in pages:
                cell = self._at(1 + KINDS.index(kind), self.writer, thing)
                self._cells[cell] = max(self._cells[cell], versions[thing])

    def _of(self, row: int, thing: int) -> list[int]:
        return [self._cells[self._at(row, writer, thing)] for writer in range(WRITERS)]

    @staticmethod
    def _at(row: int, writer: int, thing: int) -> int:
        return _FIRST + (row * WRITERS + writer) * THINGS + thing
