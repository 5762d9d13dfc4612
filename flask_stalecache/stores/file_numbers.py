"""Numbers and marks in a file that is not mapped: each access is a system call, and no failure of the disk ends the process.

Each number is written plus one. A 0 means that the number was never written, or is lost, for instance in a truncated file. The
number is unknown then, so no copy of an entry that depends on it is valid.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Callable, Iterator
from functools import cache
from typing import Protocol

from ..filesystem.held_file import HeldFile

#: Numbers are less than this: purge numbers are times in nanoseconds. A larger one is damaged, and as good as lost.
LIMIT = 2**63
#: Counts are less than this; a larger one is damaged.
MOST = 2**53
#: The number 0, as it is written.
ZERO = (1).to_bytes(8, "little")


class Numbers(Protocol):
    """64-bit numbers, mapped or not."""

    def __getitem__(self, index: int, /) -> int: ...
    def __setitem__(self, index: int, number: int, /) -> None: ...
    def __iter__(self, /) -> Iterator[int]: ...


class Marks(Protocol):
    """Marks of one byte each; 0 means not set."""

    def __getitem__(self, index: int, /) -> int: ...
    def __setitem__(self, index: int, mark: int, /) -> None: ...


def unequal() -> int:
    """Return a random negative number: less than every valid number, and not equal to one that was returned before."""
    return -1 - int.from_bytes(os.urandom(7), "big")


class FileNumbers:
    """Numbers in a file.

    :param file: the file.
    :param offset: offset of the first number.
    :param count: how many numbers there are.
    :param unknown: returns the value that stands for a lost number.
    :param limit: all numbers are less than this; a larger one is damaged, and counts as lost.
    """

    def __init__(self, file: HeldFile, offset: int, count: int, unknown: Callable[[], int], limit: int = LIMIT) -> None:
        self._file = file
        self._offset = offset
        self._count = count
        self._unknown = unknown
        self._limit = limit

    def __getitem__(self, index: int) -> int:
        try:
            data = self._file.read(8, self._offset + 8 * index)
        except OSError:
            return self._unknown()
        return self._decoded(data)

    def _decoded(self, data: bytes) -> int:
        number = int.from_bytes(data, "little") if len(data) == 8 else 0
        return number - 1 if 0 < number <= self._limit else self._unknown()

    def __iter__(self) -> Iterator[int]:
        try:
            data = self._file.read(8 * self._count, self._offset)
        except OSError:
            data = b""
        return (self._decoded(data[at : at + 8]) for at in range(0, 8 * self._count, 8))

    def __setitem__(self, index: int, number: int) -> None:
        try:
            self._file.write(encoded([number]), self._offset + 8 * index)
        except OSError:
            # No room to change a number: then none is reliable. Cutting needs no room; if it fails too, the error is raised.
            self._file.cut()


class FileMarks:
    """Marks in a file. Hits set them in memory only, without I/O; :meth:`flush` writes them to the file.

    :param offset: offset of the first mark.
    """

    def __init__(self, file: HeldFile, offset: int, count: int) -> None:
        self._file = file
        self._offset = offset
        self._set = bytearray(count)

    def __getitem__(self, index: int) -> int:
        if self._set[index]:
            return 1
        try:
            return int.from_bytes(self._file.read(1, self._offset + index), "big")
        except OSError:
            return 0

    def __setitem__(self, index: int, mark: int) -> None:
        self._set[index] = mark
        if not mark:
            self._write(index, b"\0")

    def flush(self) -> None:
        """Write the marks that were set since the last time."""
        at = self._set.find(1)
        while at >= 0:
            self._set[at] = 0
            self._write(at, b"\1")
            at = self._set.find(1, at + 1)

    def _write(self, index: int, mark: bytes) -> None:
        try:
            # Not beyond the end of a file that was cut: it would look whole again.
            if self._file.size > self._offset + index:
                self._file.write(mark, self._offset + index)
        except OSError:
            # Then an entry is evicted sooner than it should be.
            return


def put_all(numbers: Numbers, first: int, values: array[int]) -> None:
    """Write many numbers, at once if they are mapped."""
    if isinstance(numbers, memoryview):
        numbers[first : first + len(values)] = memoryview(values)
    else:
        for index, number in enumerate(values, first):
            numbers[index] = number


def random_numbers(count: int) -> array[int]:
    """Return random numbers below the limit."""
    return array("Q", (int.from_bytes(os.urandom(8 * count), "little") & _below_limit(count)).to_bytes(8 * count, "little"))


@cache
def _below_limit(count: int) -> int:
    return int.from_bytes((LIMIT - 1).to_bytes(8, "little") * count, "little")


def encoded(numbers: Iterator[int] | list[int]) -> bytes:
    """Return numbers as they are written."""
    written = [number + 1 for number in numbers]
    return struct.pack(f"<{len(written)}Q", *written)


def decoded(data: bytes, count: int) -> list[int]:
    """Return some counts from their bytes, with 0 for those that are lost or damaged."""
    cells = struct.unpack(f"<{count}Q", data[: 8 * count].ljust(8 * count, b"\0"))
    return [cell - 1 if 0 < cell <= MOST else 0 for cell in cells]
