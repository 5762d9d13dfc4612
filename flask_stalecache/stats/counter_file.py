"""Counter files: one for each process that counts, written by it alone, read by any process that adds them up.

A process holds an flock on its file as long as it lives; the kernel releases it however the process ends. The next process takes
over the first file that is not held, and goes on counting in it. So counts never have to be carried over, and there are as many
files as there were processes at the same time.

A file has a head (magic, version, start time, shared memory, gauges, named counts) and one block of cells for each label.
"""

from __future__ import annotations

import os
import stat
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..filesystem import shared_memory
from ..filesystem.atomic import files_in, make_directory, ours
from ..filesystem.descriptors import open_descriptor
from ..filesystem.held_file import HeldFile
from ..filesystem.process import this_process
from ..filesystem.shared_memory import SharedMemory
from ..filesystem.system import O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK, set_mode, try_flock
from .tally import ALL_CELLS, CELLS, KINDS, REASONS_DIGEST

MAGIC = int.from_bytes(b"stalerow", "little")
#: Each layout has its own version.
VERSION = 4
#: Cells of the head.
HEAD = 128
_MAGIC_CELL, _VERSION_CELL, BORN_CELL = 0, 1, 2
#: The name of the shared memory with the latest counts, and the inode of the file that it belongs to.
_MEMORY_CELL, _INODE_CELL = 3, 5
#: The digest of the reasons that the cells are for: the counts of other reasons are left out.
_REASONS_CELL = 6
#: Gauges belong to the process that holds the file, and are void when it has ended.
GAUGES = range(8, 16)
NAMED = 16
#: Labels in one file; further ones are counted together, under one label for each kind.
LABELS = 200
OTHERS = "(others)"
#: A block: kind and length of the label, its text, its cells.
_NAME_CELLS = 16
_BLOCK = _NAME_CELLS + ALL_CELLS
_LONGEST = (_NAME_CELLS - 1) * 8
SIZE = (HEAD + (LABELS + len(KINDS)) * _BLOCK) * 8
#: Seconds after which held files are tried again: a reader may have held them for a moment.
_SECOND_LOOK = 0.002
_TRIES = 10
#: Bytes that are written at a time, if any of them has changed.
_PART = 4096
#: Counts and times in nanoseconds are less than this; larger values are damaged.
_MOST = 2**62
_OPEN = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK


class CounterFile:
    """The file of this process, and the cells that it counts in.

    The cells are in shared memory, so that the counts of a killed process are not lost, and any process reads the latest counts.
    Without shared memory, the cells are private to this process. They are written to the file now and then. The file is not mapped:
    otherwise, a failing disk or a program that empties the file would end the process.

    :param path: its path.
    :param file: the open file, locked by this process.
    :raises OSError: if it can't be read.
    """

    def __init__(self, path: Path, file: HeldFile) -> None:
        self.path = path
        self._file: HeldFile | None = file
        self._process = this_process()
        content = file.read(SIZE, 0)
        memory = _memory_of(memoryview(content).cast("Q"), file)
        if memory is None:
            memory = _new_memory(content, file)
        self._memory = memory
        self._cells = memoryview(bytearray(content) if memory is None else memory.map).cast("Q")
        # The content of the file: save() writes only the parts that differ from it.
        self._saved = content
        self.head = self._cells[:HEAD]
        for gauge in GAUGES:
            self.head[gauge] = 0
        self.save()
        if self.head[_REASONS_CELL] != REASONS_DIGEST:
            self._begin_reasons()
        self._known = {(label.kind, label.name): label.start for label in _labels(self._cells)}
        # Not the number of labels, since there may be damaged blocks between the used ones.
        self._used = max((_number_of(start) + 1 for start in self._known.values() if start < _start_of(LABELS)), default=0)

    def save(self) -> None:
        """Write the parts of the counts that have changed to the file. A failure is ignored: the next call writes them again."""
        # After a fork without Python's hooks, the file and the counts are the parent's.
        file = self._file
        if file is None or self._process != this_process():
            return
        content = self._cells.tobytes()
        if self._memory is not None and content != self._saved:
            self._memory.touch()
        with suppress(OSError):
            for start in range(0, SIZE, _PART):
                part = content[start : start + _PART]
                if part != self._saved[start : start + _PART]:
                    file.write(part, start)
            self._saved = content

    def cells(self, kind: str, label: str) -> memoryview | None:
        """Return the cells of a label, which is added if it is new; ``None`` if the file is full."""
        name = _fitting(label)
        label = name.decode("utf-8")
        start = self._known.get((kind, label))
        if start is None:
            number = LABELS + KINDS.index(kind) if label == OTHERS else self._used
            if number >= LABELS and label != OTHERS:
                return None
            self._used += number < LABELS
            start = self._known[kind, label] = _start_of(number)
            self._name(start, kind, name)
        return _cells_at(self._cells, start)

    def _begin_reasons(self) -> None:
        """Count reasons from 0: the counts of a version with other reasons can't be interpreted."""
        for label in _labels(self._cells):
            counts = _cells_at(self._cells, label.start)
            for index in range(CELLS, ALL_CELLS):
                counts[index] = 0
        self.head[_REASONS_CELL] = REASONS_DIGEST

    def _name(self, start: int, kind: str, name: bytes) -> None:
        # A damaged block may be there.
        for index in range(_BLOCK):
            self._cells[start + index] = 0
        padded = name.ljust(_LONGEST, b"\0")
        for index in range(1, _NAME_CELLS):
            self._cells[start + index] = int.from_bytes(padded[(index - 1) * 8 : index * 8], "little")
        # Last, since readers take a block for used once this cell is set.
        self._cells[start] = (KINDS.index(kind) + 1) << 8 | len(name)

    def is_current(self) -> bool:
        """Whether the file is still at its path, and whole."""
        try:
            status = os.lstat(self.path)
        except OSError:
            return False
        file = self._file
        return file is not None and file.is_same(status) and _is_whole(status)

    def close(self) -> None:
        """Close the file. It is not unlocked, since after a fork the lock is shared with the parent."""
        self._file = None


def _memory_of(cells: memoryview, file: HeldFile) -> SharedMemory | None:
    """Return the memory that a file names; ``None`` if it is lost, or belongs to another file, of which this one is a copy."""
    try:
        memory = shared_memory.find(_memory_name(cells), SIZE)
    except OSError:
        return None
    return memory if memory is not None and _is_of(memoryview(memory.map).cast("Q"), file.inode) else None


def _new_memory(content: bytes, file: HeldFile) -> SharedMemory | None:
    """Return new memory with the same counts; ``None`` where there is no shared memory."""
    try:
        memory = shared_memory.make(SIZE)
    except OSError:
        return None
    memory.map[:] = content
    name = bytes.fromhex(memory.name.rpartition("-")[2])
    memory.map[_MEMORY_CELL * 8 : _MEMORY_CELL * 8 + 24] = name + file.inode.to_bytes(8, "little")
    return memory


def _memory_name(cells: memoryview) -> str:
    return f"stalecache-{cells[_MEMORY_CELL : _MEMORY_CELL + 2].tobytes().hex()}"


def _is_of(cells: memoryview, inode: int) -> bool:
    return _is_ours(cells) and bool(cells[_INODE_CELL] == inode)


def acquire_file(folder: Path) -> CounterFile:
    """Return a file that no other process counts in: the first free one, or a new one.

    :raises OSError: if no file can be made.
    """
    make_directory(folder)
    for _ in range(2):
        paths = _paths(folder)
        for path in paths:
            if (file := _take_over(path)) is not None:
                return file
        if not paths:
            break
        time.sleep(_SECOND_LOOK)
    _remove_leftovers(folder)
    for _ in range(_TRIES):
        # Between creation and lock, another process may take the file for left over and remove it.
        with suppress(FileNotFoundError):
            return _create(folder)
    return _create(folder)


class Reading(NamedTuple):
    """The contents of one file.

    :ivar head: the cells of its head.
    :ivar labels: cells by kind and label.
    :ivar is_held: whether a living process counts in it.
    """

    head: memoryview
    labels: dict[tuple[str, str], Sequence[int]]
    is_held: bool


def read_files(folder: Path) -> Iterator[Reading]:
    """Yield the contents of each file in a folder; files that are not ours are skipped."""
    for path in _paths(folder):
        try:
            with ours(open_descriptor(path, os.O_RDONLY | _OPEN), path) as descriptor:
                cells = memoryview(_latest(os.read(descriptor, SIZE + 1), os.fstat(descriptor).st_ino))
                is_held = not try_flock(descriptor, exclusive=False)
        except OSError:
            continue
        if len(cells) == SIZE and _is_ours(numbers := cells.cast("Q")):
            labels = {(label.kind, label.name): _known_at(numbers, label.start) for label in _labels(numbers)}
            yield Reading(numbers[:HEAD], labels, is_held)


# -- the files -------------------------------------------------------------------------------------------------------


def _paths(folder: Path) -> list[Path]:
    try:
        names = [entry.name for entry in files_in(folder) if entry.name.isascii() and entry.name.isdigit()]
    except OSError:
        return []
    return [folder / name for name in sorted(names, key=int)]


def _latest(content: bytes, inode: int) -> bytes:
    """Return the counts in the shared memory that a file names, or else those in the file."""
    if len(content) != SIZE or not _is_ours(cells := memoryview(content).cast("Q")):
        return content
    latest = shared_memory.read(_memory_name(cells), SIZE)
    return latest if latest is not None and _is_of(memoryview(latest).cast("Q"), inode) else content


def _take_over(path: Path) -> CounterFile | None:
    """Take over a file; ``None`` if another process holds it, or it is not whole."""
    try:
        file = HeldFile(ours(open_descriptor(path, os.O_RDWR | _OPEN), path))
        is_free = file.try_lock(exclusive=True) and file.is_same(os.lstat(path)) and _is_whole(os.lstat(path))
        return CounterFile(path, file) if is_free and _is_ours(memoryview(file.read(8 * HEAD, 0)).cast("Q")) else None
    except OSError:
        return None


def _create(folder: Path) -> CounterFile:
    """Create a file, complete and locked, under another name, then link it, so that no process ever sees an incomplete one."""
    beside = folder / f"{os.urandom(8).hex()}.tmp"
    # The try begins before the file is created, since an exception may come as soon as it exists.
    try:
        descriptor = open_descriptor(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | O_CLOEXEC | O_NOFOLLOW)
        file = HeldFile(descriptor)
        file.try_lock(exclusive=True)
        set_mode(descriptor, 0o600)
        file.write(struct.pack("=QQQ", MAGIC, VERSION, time.time_ns()).ljust(SIZE, b"\0"), 0)
        return CounterFile(_linked(beside, folder), file)
    finally:
        with suppress(OSError):
            os.unlink(beside)


def _linked(beside: Path, folder: Path) -> Path:
    number = 0
    while True:
        path = folder / str(number)
        try:
            os.link(beside, path, follow_symlinks=False)
        except FileExistsError:
            number += 1
        else:
            return path


def _remove_leftovers(folder: Path) -> None:
    """Remove unfinished files whose creators were killed: they are not locked."""
    for entry in files_in(folder):
        if entry.name.endswith(".tmp"):
            with suppress(OSError):
                _remove_if_unlocked(entry.path)


def _remove_if_unlocked(path: str) -> None:
    with open_descriptor(path, os.O_RDONLY | _OPEN) as descriptor:
        if try_flock(descriptor, exclusive=True):
            os.unlink(path)


def _is_whole(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_size == SIZE


def _is_ours(cells: memoryview) -> bool:
    is_known = cells[_MAGIC_CELL] == MAGIC and cells[_VERSION_CELL] == VERSION
    return bool(is_known and cells[BORN_CELL] < _MOST and _are_plausible(cells[NAMED:HEAD]))


def _are_plausible(counts: memoryview) -> bool:
    """Whether counts are small enough to be real. Damaged ones could be so large that nothing can be added to them."""
    return max(counts, default=0) < _MOST


# -- the labels ------------------------------------------------------------------------------------------------------


class _Label(NamedTuple):
    kind: str
    name: str
    start: int


def _start_of(number: int) -> int:
    return HEAD + number * _BLOCK


def _number_of(start: int) -> int:
    return (start - HEAD) // _BLOCK


def _cells_at(cells: memoryview, start: int) -> memoryview:
    return cells[start + _NAME_CELLS : start + _BLOCK]


def _known_at(cells: memoryview, start: int) -> Sequence[int]:
    """Return the counts of a label. Those of reasons are 0 if the file was written by a version with other reasons."""
    counts = _cells_at(cells, start)
    return counts if cells[_REASONS_CELL] == REASONS_DIGEST else [*counts[:CELLS], *[0] * (ALL_CELLS - CELLS)]


def _labels(cells: memoryview) -> Iterator[_Label]:
    for number in range(LABELS + len(KINDS)):
        start = _start_of(number)
        kind, length = divmod(cells[start], 256)
        if 0 < kind <= len(KINDS) and length <= _LONGEST and _are_plausible(_cells_at(cells, start)):
            name = b"".join(cells[start + index].to_bytes(8, "little") for index in range(1, _NAME_CELLS))[:length]
            yield _Label(KINDS[kind - 1], name.decode("utf-8", "replace"), start)


def _fitting(label: str) -> bytes:
    """Return a label as the file stores it. A long label loses its beginning, which identifies it less than its end does."""
    return label.encode("utf-8", "replace")[-_LONGEST:].decode("utf-8", "ignore").encode("utf-8")
