"""The file of a table in a cache directory. It determines where the table is, for all processes that share the directory.

=========== ============================================= ==================================================================
table       the file holds                                used
=========== ============================================= ==================================================================
`shared`    its name in shared memory, and saved counts   wherever all processes see the same shared memory, and may map it
`here`      the whole table, read and never mapped        else: by containers that share the directory but not ``/dev/shm``
=========== ============================================= ==================================================================

No file of the directory is mapped: a full (copy-on-write) or failing disk, or a restore that rewrites the file, would kill each
process that reads a mapping of it, with SIGBUS.

Each process keeps the file open and locked (shared) as long as it uses the table. A process that can lock it exclusively is
alone, and may replace the table by a better one. A process that is not alone, and does not see the shared memory, replaces the
table by one that is *here*, and waits until the others have noticed: their next round of housekeeping is due within a second.
"""

from __future__ import annotations

import errno
import os
import re
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from ...filesystem import shared_memory
from ...filesystem.atomic import PLANTED, ours, remove_file, status_of
from ...filesystem.descriptors import open_descriptor
from ...filesystem.directory import Place, where
from ...filesystem.held_file import HeldFile
from ...filesystem.shared_memory import SharedMemory
from ...filesystem.system import O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK
from ..file_numbers import LIMIT, MOST, ZERO, FileMarks, FileNumbers, Marks, Numbers, decoded, encoded, unequal

#: Bytes before the numbers.
_HEAD = 128
_FORM = re.compile(rb"stalecache table\n(?:here (\d{1,20})|shared (stalecache-[0-9a-f]{32}) (\d{1,20}) (\d{1,20}))\n+")
_TRIES = 100
#: Attempts while another process has locked the file to open the table: that takes a millisecond, unless it was stopped.
_TRIES_ALONE = 20
#: Seconds between two attempts, and between two checks for other processes; and the longest wait for those.
_PAUSE, PATIENCE = 0.005, 3.0
#: Seconds for which a new table stays *here*: processes that gave up their memory, for one that does not see it, are about to join.
SETTLING = 10.0
#: Seconds after which a process saves the counts of a table in memory again.
_SAVED_EVERY = 10.0


class Layout(NamedTuple):
    """The parts of a table, in their order.

    :param counts: how many numbers are saved in the file, and so outlive a table in memory.
    :param stamps: how many other numbers there are.
    :param marks: how many marks there are, of one byte each.
    """

    counts: int
    stamps: int
    marks: int

    @property
    def size(self) -> int:
        """Bytes of the whole table."""
        return (self.counts + self.stamps) * 8 + self.marks


class _Head(NamedTuple):
    """The beginning of the file.

    :param name: the name of the table in memory; "" if the table is here.
    :param device: the number of the memory's file system.
    :param made: when a table here was made, in seconds since the epoch.
    """

    data: bytes
    name: str
    device: int
    made: int


class Table:
    """A table that this process uses.

    :param place: the place of the file.
    :param file: the file, locked.
    :param memory: the table in memory; ``None`` if it is here.
    :param why: why it is not in memory.
    :ivar replaces_copy: whether it replaces the copy of a table's file, such as that of a restored backup.
    """

    replaces_copy = False

    def __init__(self, place: Place, head: _Head, file: HeldFile, layout: Layout, memory: SharedMemory | None, why: str) -> None:
        self._place = place
        self._head = head
        self._file = file
        self._layout = layout
        self._memory = memory
        self.why = why
        self._saved_at = time.monotonic()
        numbers = layout.counts + layout.stamps
        self._cells = None if memory is None else memoryview(memory.map)[: numbers * 8].cast("Q")
        self._file_marks = None if memory is not None else FileMarks(file, _HEAD + numbers * 8, layout.marks)
        self.marks: Marks = self._file_marks or memoryview(memory.map if memory else b"")[numbers * 8 :]

    @property
    def is_in_memory(self) -> bool:
        """Whether it is mapped."""
        return self._cells is not None

    def numbers(self, first: int, count: int) -> Numbers:
        """Return some of the counts and stamps."""
        if self._cells is not None:
            return self._cells[first : first + count]
        is_count = first < self._layout.counts
        place, unknown, limit = _HEAD + 8 * first, int if is_count else unequal, MOST if is_count else LIMIT
        return FileNumbers(self._file, place, count, unknown, limit)

    def is_current(self) -> bool:
        """Whether other processes use the same table."""
        try:
            is_there = self._file.is_open() and self._file.is_same(status_of(self._place))
            return (
                is_there
                and _head_of(self._file, self._layout) == self._head
                and (self._memory is None or self._memory.is_current())
            )
        except OSError:
            return False

    def tick(self) -> None:
        """Write the marks of a table in the file; from time to time, write the counts of a table in memory."""
        if self._file_marks is not None:
            self._file_marks.flush()
        elif self._memory is not None and self._cells is not None and time.monotonic() - self._saved_at >= _SAVED_EVERY:
            self._saved_at = time.monotonic()
            self._memory.touch()
            with suppress(OSError):
                self._file.write(encoded(self._cells[: self._layout.counts].tolist()), _HEAD)


def open_table(place: Place, layout: Layout) -> Table:
    """Return the table of a cache directory. If there is none, make it.

    :raises OSError: if it can't be read or made.
    """
    opening = _Opening(place, layout)
    for _ in range(_TRIES):
        table = opening.attempt()
        if table is not None:
            return table
        if opening.met_opener == _TRIES_ALONE:
            break
    raise OSError(f"no usable table of stamps at {place}")


def is_being_opened(place: Place) -> bool:
    """Whether another process has locked the file exclusively, to open the table: then no process uses the table."""
    path, at = where(place)
    try:
        file = HeldFile(ours(open_descriptor(path, os.O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, at=at), place))
        return not file.try_lock(exclusive=False)
    except OSError:
        return False


class _Opening:
    """Opens a table, in several attempts if other processes do the same.

    :ivar met_opener: at how many attempts another process had locked the file exclusively.
    """

    def __init__(self, place: Place, layout: Layout) -> None:
        self._place = place
        self._layout = layout
        self._why = ""
        self._replaces_copy = False
        self.met_opener = 0

    def attempt(self) -> Table | None:
        """Return the table; ``None`` if another attempt is needed."""
        file = self._open()
        if file is None:
            return None
        head = _head_of(file, self._layout)
        if head is None:
            # Cut by a crash, rewritten by another program, or not ours.
            self._replaces_copy = self._replaces_copy or _is_copy(file, self._layout)
            self._set_aside(file)
            return None
        is_alone = file.try_lock(exclusive=True)
        if not is_alone and not file.try_lock(exclusive=False):
            # Another process is opening or replacing it just now.
            self.met_opener += 1
            time.sleep(_PAUSE)
            return None
        if not file.is_same(status_of(self._place)):
            return None
        return self._joined(file, head, is_alone=is_alone)

    def _joined(self, file: HeldFile, head: _Head, *, is_alone: bool) -> Table | None:
        if head.name:
            memory, is_refused = self._memory(head)
            if memory is None:
                is_elsewhere = not is_alone and (is_refused or head.device != shared_memory.device())
                self._replace(file, wants_memory=not is_elsewhere, awaited=is_elsewhere)
                return None
        else:
            memory = None
            is_settled = abs(time.time() - head.made) >= SETTLING
            if is_alone and is_settled and not self._why and self._replace(file, wants_memory=True, only_by_memory=True):
                return None
        if not file.try_lock(exclusive=False):
            # A lock is changed in two steps. Between them, another process that opens the table has locked the file.
            return None
        table = Table(self._place, head, file, self._layout, memory, self._why)
        table.replaces_copy = self._replaces_copy
        return table

    def _memory(self, head: _Head) -> tuple[SharedMemory | None, bool]:
        """Return the table in memory, or ``None`` if this process can't use it, and whether the system refuses to map it."""
        try:
            memory = shared_memory.find(head.name, self._layout.size)
        except OSError as error:
            self._why = f"shared memory can't be used: {error.strerror}"
            return None, True
        return memory, False

    def _replace(self, file: HeldFile, *, wants_memory: bool, only_by_memory: bool = False, awaited: bool = False) -> bool:
        """Replace the file by that of a new table with the same counts. Return false if it was left.

        :param wants_memory: the new table should be in memory.
        :param only_by_memory: leave the file if the new table can't be in memory.
        :param awaited: other processes use the table; wait until they have noticed.
        """
        if awaited and not self._why:
            self._why = "another process shares the directory, and sees other shared memory: that of another container"
        saved = decoded(file.read(8 * self._layout.counts, _HEAD), self._layout.counts)
        memory = self._new_memory(saved) if wants_memory else None
        if only_by_memory and memory is None:
            return False
        path, at = where(self._place)
        with _written_beside(path, at, self._layout, memory, saved) as beside:
            if file.is_same(status_of(self._place)):
                os.rename(beside, path, src_dir_fd=at, dst_dir_fd=at)
        until = time.monotonic() + PATIENCE
        while awaited and not file.try_lock(exclusive=True) and time.monotonic() < until:
            time.sleep(_PAUSE)
        return True

    def _open(self) -> HeldFile | None:
        path, at = where(self._place)
        try:
            return HeldFile(ours(open_descriptor(path, os.O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, at=at), self._place))
        except FileNotFoundError:
            self._make()
        except OSError as error:
            if error.errno not in (*PLANTED, errno.EISDIR, errno.ENXIO):
                raise
            self._set_aside(None)
        return None

    def _make(self) -> None:
        # Completed under another name, then linked: no process ever sees a half-written file, and the first of two makers wins.
        counts = [0] * self._layout.counts
        memory = self._new_memory(counts)
        path, at = where(self._place)
        try:
            with _written_beside(path, at, self._layout, memory, counts) as beside:
                os.link(beside, path, src_dir_fd=at, dst_dir_fd=at)
        except FileExistsError:
            if memory is not None:
                memory.remove()

    def _new_memory(self, counts: list[int]) -> SharedMemory | None:
        """Return a new table in memory; ``None`` if there can be none."""
        try:
            memory = shared_memory.make(self._layout.size)
        except OSError as error:
            self._why = self._why or f"shared memory can't be used: {error.strerror}"
            return None
        cells = memoryview(memory.map)[: self._layout.counts * 8].cast("Q")
        cells[:] = memoryview(array("Q", counts))
        return memory

    def _set_aside(self, file: HeldFile | None) -> None:
        with suppress(FileNotFoundError):
            if file is None or file.is_same(status_of(self._place)):
                remove_file(self._place)


def _head_of(file: HeldFile, layout: Layout) -> _Head | None:
    """Return the beginning of a file; ``None`` if it is not the file of a table, not whole, or a copy of one."""
    data = file.read(_HEAD, 0)
    form = _FORM.fullmatch(data)
    if form is None or len(data) != _HEAD:
        return None
    if form[2] is None:
        return _Head(data, "", 0, int(form[1])) if file.size == _HEAD + layout.size else None
    # A copy of a directory must not use the table of the original.
    is_whole = file.size == _HEAD + 8 * layout.counts and int(form[4]) == file.inode
    return _Head(data, form[2].decode("ascii"), int(form[3]), 0) if is_whole else None


def _is_copy(file: HeldFile, layout: Layout) -> bool:
    """Whether a file is whole, but holds the inode number of another file."""
    form = _FORM.fullmatch(file.read(_HEAD, 0))
    return form is not None and form[2] is not None and file.size == _HEAD + 8 * layout.counts and int(form[4]) != file.inode


@contextmanager
def _written_beside(path: str, at: int | None, layout: Layout, memory: SharedMemory | None, counts: list[int]) -> Iterator[str]:
    """Write a complete new file under a temporary name, yield that name, and remove it at the end."""
    beside = f"{path}.{os.urandom(8).hex()}.tmp"
    # The ``try`` begins before the file is made: an exception may come as soon as the file exists.
    try:
        file = HeldFile(open_descriptor(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | O_CLOEXEC, 0o600, at))
        kind = f"here {time.time():.0f}" if memory is None else f"shared {memory.name} {shared_memory.device()} {file.inode}"
        rest = b"" if memory is not None else ZERO * layout.stamps + bytes(layout.marks)
        os.chmod(beside, 0o600, dir_fd=at)
        file.write(f"stalecache table\n{kind}\n".encode("ascii").ljust(_HEAD, b"\n") + encoded(counts) + rest, 0)
        yield beside
    finally:
        with suppress(FileNotFoundError):
            os.unlink(beside, dir_fd=at)
