"""The table of stamps: 64-bit numbers in a file that all workers map, so that a hit needs no system call.

Each key and each name hashes to a slot. A write or a purge gives the slot a new random value, and a copy stands while its slots
are unchanged. Truth is in the files, stamps only say "read again": a collision of two keys costs a reload and nothing else.

Which process writes what:

=============== ============================================================================================
slot 0 (SEQ)    the last purge number; raised with ``purge.lock`` held
other slots     moved without a lock, after the files were changed
counts          bytes and entries of each folder; without a lock, so that updates may be lost, and corrected
                whenever a folder is read
marks           one byte for each use since the last look (CLOCK); set by hits, cleared by eviction and sweep
=============== ============================================================================================
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from pathlib import Path

from ..filesystem.atomic import PLANTED, ours, remove_file, status_of
from ..filesystem.directory import Place, where
from ..filesystem.system import O_CLOEXEC, O_NOFOLLOW, allocate, allocated, set_mode
from .base import Copy

#: Each layout has its own name.
FILE_NAME = "stamps-3"
SLOTS = 65536
FOLDERS = 256
#: More marks than stamps: keys that share a stamp cost a reload, keys that share a mark keep each other from being evicted.
MARKS = 262_144
_NUMBERS = SLOTS + 2 * FOLDERS
#: Stamps and counts are 64-bit numbers, a mark is one byte.
SIZE = _NUMBERS * 8 + MARKS
#: Slot 0 holds SEQ, the last purge number.
SEQ_SLOT = 0


def newer_table(directory: Path) -> str | None:
    """Return the name of a table of a later layout, made by a later version of this package; ``None`` if there is none."""
    own = int(FILE_NAME.partition("-")[2])
    tables = (name.partition("-") for name in os.listdir(directory))
    return next(("-".join((kind, number)) for kind, _, number in tables if kind == "stamps" and _is_after(number, own)), None)


def _is_after(number: str, own: int) -> bool:
    return number.isascii() and number.isdigit() and int(number) > own


def slot_of(digest: str) -> int:
    """Return the slot of a hexadecimal digest; never 0."""
    return 1 + int(digest[:15], 16) % (SLOTS - 1)


def mark_of(digest: str) -> int:
    """Return the mark of a hexadecimal digest."""
    return int(digest[15:30], 16) % MARKS


class Stamps:
    """The mapped table of one cache directory.

    :param place: its file; created if it does not exist.
    :raises OSError: if it can't be created at its full size or mapped.
    """

    def __init__(self, place: Place) -> None:
        descriptor = _open_whole(place)
        try:
            status = os.fstat(descriptor)
            self._identity = (status.st_dev, status.st_ino)
            self._map = mmap.mmap(descriptor, SIZE)
        finally:
            os.close(descriptor)
        self._place = place
        numbers = memoryview(self._map)[: _NUMBERS * 8].cast("Q")
        self.table = numbers[:SLOTS]
        #: Bytes of the files in each of the 256 folders.
        self.folder_sizes = numbers[SLOTS : SLOTS + FOLDERS]
        #: Entries in each of them.
        self.folder_entries = numbers[SLOTS + FOLDERS :]
        #: Not 0: a key that hashes to it was used since the last look (CLOCK).
        self.marks = memoryview(self._map)[_NUMBERS * 8 :]

    def move(self, slot: int) -> None:
        """Give a slot a new random value, so that copies are loaded again."""
        # os.urandom, since two forks of a process share the state of the random module.
        self.table[slot] = int.from_bytes(os.urandom(8), "big")

    def raise_seq(self, number: int) -> None:
        """Raise SEQ to a purge number, unless it is higher already. ``purge.lock`` is held."""
        if self.table[SEQ_SLOT] < number:
            self.table[SEQ_SLOT] = number

    def grow(self, folder: int, size: int, entries: int) -> None:
        """Add to the bytes and entries of a folder; negative if some were removed."""
        self.folder_sizes[folder] = max(0, self.folder_sizes[folder] + size)
        self.folder_entries[folder] = max(0, self.folder_entries[folder] + entries)

    def count(self, folder: int, size: int, entries: int) -> None:
        """Correct the counts of a folder."""
        self.folder_sizes[folder] = size
        self.folder_entries[folder] = entries

    def is_current(self) -> bool:
        """Whether the mapped file is still the one of its name, and whole."""
        try:
            status = status_of(self._place)
        except OSError:
            return False
        return status is not None and (status.st_dev, status.st_ino) == self._identity and _is_whole(status)


def stands(copy: Copy, table: memoryview) -> bool:
    """Whether a copy is still valid: since it was loaded, no write to its key, no purge of its names. Called on each hit."""
    if copy.table is not table or table[copy.slot] != copy.stamp:
        return False
    return bool(table[SEQ_SLOT] == copy.seq) or _outlived(copy, table)


def _outlived(copy: Copy, table: memoryview) -> bool:
    # SEQ is read before the stamps: a purge that begins in between raises it once more, which shows at the next lookup.
    seq = int(table[SEQ_SLOT])
    for slot, stamp in copy.names:
        if table[slot] != stamp:
            return False
    copy.seq = seq
    return True


def _open_whole(place: Place) -> int:
    """Return a descriptor of a table that has all its blocks: access to a sparse or cut file would raise SIGBUS."""
    path, at = where(place)
    for _ in range(10):
        try:
            descriptor = ours(os.open(path, os.O_RDWR | O_CLOEXEC | O_NOFOLLOW, dir_fd=at), place)
        except FileNotFoundError:
            _make(path, at)
            continue
        except OSError as error:
            if error.errno not in PLANTED:
                raise
            _set_aside(place)
            continue
        if _is_whole(os.fstat(descriptor)):
            return descriptor
        os.close(descriptor)
        _set_aside(place)
    raise OSError(f"no usable table of stamps at {place}")


def _is_whole(status: os.stat_result) -> bool:
    return status.st_size == SIZE and allocated(status) >= SIZE


def _make(path: str, at: int | None) -> None:
    # Completed under another name, then linked: no process ever sees a half table, and the first of two creators wins.
    beside = f"{path}.{os.urandom(8).hex()}.tmp"
    descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | O_CLOEXEC, 0o600, dir_fd=at)
    try:
        set_mode(descriptor, 0o600)
        allocate(descriptor, SIZE)
        os.link(beside, path, src_dir_fd=at, dst_dir_fd=at)
    except FileExistsError:
        pass
    finally:
        os.close(descriptor)
        os.unlink(beside, dir_fd=at)


def _set_aside(place: Place) -> None:
    with suppress(FileNotFoundError):
        remove_file(place)
