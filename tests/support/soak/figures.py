"""Figures of soak tests: what processes and the cache directory take, tables of it, and what must not grow."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

MIB = 1024 * 1024
#: The property of a test's report that holds its tables.
PROPERTY = "figures"


@dataclass(frozen=True)
class Usage:
    """What processes and their cache directory take. Of several processes, the highest value of each figure.

    :ivar memory: resident bytes.
    :ivar files: files in the directory, of which ``unfinished`` are temporary ones and ``locks`` lock files.
    :ivar disk: bytes that the directory takes on the disk.
    """

    memory: int = 0
    threads: int = 0
    descriptors: int = 0
    files: int = 0
    unfinished: int = 0
    locks: int = 0
    disk: int = 0

    @classmethod
    def of(cls, pids: Iterable[int], directory: Path) -> Usage:
        return most([_of_process(pid) for pid in pids] + [_of_directory(directory)])

    def row(self) -> list[str]:
        memory, disk = f"{self.memory / MIB:.1f}", f"{self.disk / MIB:.2f}"
        return [memory, *map(str, (self.threads, self.descriptors, self.files, self.unfinished, self.locks)), disk]


COLUMNS = ["memory MiB", "threads", "descriptors", "files", "unfinished", "locks", "disk MiB"]


def most(usages: Sequence[Usage]) -> Usage:
    """Return the highest value of each figure."""
    return Usage(**{field.name: max((getattr(usage, field.name) for usage in usages), default=0) for field in fields(Usage)})


def _of_process(pid: int) -> Usage:
    process = Path(f"/proc/{pid}")
    try:
        pages = int((process / "statm").read_text().split()[1])
        threads, descriptors = len(os.listdir(process / "task")), len(os.listdir(process / "fd"))
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return Usage()
    return Usage(pages * os.sysconf("SC_PAGE_SIZE"), threads, descriptors)


def _of_directory(directory: Path) -> Usage:
    files = unfinished = locks = disk = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                disk += os.lstat(f"{folder}/{name}").st_blocks * 512
            except FileNotFoundError:
                continue
            files += 1
            unfinished += name.endswith(".tmp")
            locks += name.endswith(".lock")
    return Usage(files=files, unfinished=unfinished, locks=locks, disk=disk)


class Samples:
    """What was taken in the course of a test. The first quarter is for warming up."""

    def __init__(self) -> None:
        self.taken: list[Usage] = []

    def take(self, pids: Iterable[int], directory: Path) -> None:
        self.taken.append(Usage.of(pids, directory))

    def quarter(self, number: int) -> Usage:
        """Return the most that was taken in a quarter, of 1 to 4."""
        count = len(self.taken)
        return most(self.taken[count * (number - 1) // 4 : max(1, count * number // 4)])

    def assert_flat(self, memory: int, threads: int = 8, descriptors: int = 16) -> None:
        """Compare the last quarter with the second one.

        :param memory: by how many bytes the memory may grow; the other limits are counts.
        """
        before, after = self.quarter(2), self.quarter(4)
        assert len(self.taken) >= 4, "too few samples for four quarters"
        assert min(before.memory, after.memory) > 0, "no process was there to be looked at"
        assert after.memory - before.memory < memory, (before, after)
        assert after.threads - before.threads <= threads, (before, after)
        assert after.descriptors - before.descriptors <= descriptors, (before, after)

    def rows(self, name: str) -> list[list[str]]:
        """Return rows for a table: the second quarter, and the last one."""
        return [[name, "second quarter", *self.quarter(2).row()], [name, "last quarter", *self.quarter(4).row()]]


def table(rows: Sequence[Sequence[object]]) -> str:
    """Return a table whose first row is its head."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in texts)
