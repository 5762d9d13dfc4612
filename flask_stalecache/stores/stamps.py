"""A table of 64-bit numbers that all workers map: a look at one tells, without a system call, whether a copy still stands.

Truth is in the files. Stamps only say "look again", so a collision of two keys costs a reload and nothing else. The same file has
how many bytes and entries each folder holds, and a mark for what was used.
"""

from __future__ import annotations

import errno
import mmap
import os
from contextlib import suppress
from pathlib import Path

from .base import Copy

#: Another layout has another name.
FILE_NAME = "stamps-3"
SLOTS = 65536
FOLDERS = 256
#: More than stamps: two keys that share a stamp cost a reload, two that share a mark keep each other from going.
MARKS = 262_144
_NUMBERS = SLOTS + 2 * FOLDERS
#: Stamps, and bytes and entries of folders, are 64-bit numbers, a mark is one byte.
SIZE = _NUMBERS * 8 + MARKS
#: Slot 0 holds SEQ, the last purge number; keys and names have the others.
SEQ_SLOT = 0


def newer_table(directory: Path) -> str | None:
    """Return the name of a table of a later layout, by which a later version of this package is known; ``None``: there is none."""
    own = int(FILE_NAME.partition("-")[2])
    tables = (name.partition("-") for name in os.listdir(directory))
    return next(("-".join((kind, number)) for kind, _, number in tables if kind == "stamps" and _is_after(number, own)), None)


def _is_after(number: str, own: int) -> bool:
    return number.isascii() and number.isdigit() and int(number) > own


def slot_of(digest: str) -> int:
    """Return the slot of a hexadecimal digest: never 0."""
    return 1 + int(digest[:15], 16) % (SLOTS - 1)


def mark_of(digest: str) -> int:
    """Return the mark of a hexadecimal digest."""
    return int(digest[15:30], 16) % MARKS


class Stamps:
    """The mapped table of one cache directory.

    :param path: its file; made if it is not there.
    :raises OSError: if it can't be made at its full size or mapped.
    """

    def __init__(self, path: Path) -> None:
        descriptor = _open_whole(path)
        try:
            status = os.fstat(descriptor)
            self._identity = (status.st_dev, status.st_ino)
            self._map = mmap.mmap(descriptor, SIZE)
        finally:
            os.close(descriptor)
        self._path = path
        numbers = memoryview(self._map)[: _NUMBERS * 8].cast("Q")
        self.table = numbers[:SLOTS]
        #: Bytes of the files in each of the 256 folders. Who counts at once may lose one; each look at the files mends it.
        self.folder_sizes = numbers[SLOTS : SLOTS + FOLDERS]
        #: Likewise the number of entries.
        self.folder_entries = numbers[SLOTS + FOLDERS :]
        #: Not 0: what hashes to it was used since it was last looked at (CLOCK).
        self.marks = memoryview(self._map)[_NUMBERS * 8 :]

    def move(self, slot: int) -> None:
        """Give a slot a new random value: whoever holds a copy looks again."""
        # urandom, since the random module's state is the same in two forks of one process.
        self.table[slot] = int.from_bytes(os.urandom(8), "big")

    def raise_seq(self, number: int) -> None:
        """Set SEQ to a purge number, unless it is past that; ``purge.lock`` is held."""
        if self.table[SEQ_SLOT] < number:
            self.table[SEQ_SLOT] = number

    def grow(self, folder: int, size: int, entries: int) -> None:
        """Count bytes and entries that came to a folder, or went if negative."""
        self.folder_sizes[folder] = max(0, self.folder_sizes[folder] + size)
        self.folder_entries[folder] = max(0, self.folder_entries[folder] + entries)

    def count(self, folder: int, size: int, entries: int) -> None:
        """Correct the counts of a folder by what was found there."""
        self.folder_sizes[folder] = size
        self.folder_entries[folder] = entries

    def is_current(self) -> bool:
        """Whether the file is still the one that is mapped, and whole."""
        try:
            status = os.lstat(self._path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity and _is_whole(status)


def stands(copy: Copy, table: memoryview) -> bool:
    """Whether nothing was written for a copy's key, and none of its names purged, since it was loaded. It is called on a hit."""
    if copy.table is not table or table[copy.slot] != copy.stamp:
        return False
    return bool(table[SEQ_SLOT] == copy.seq) or _outlived(copy, table)


def _outlived(copy: Copy, table: memoryview) -> bool:
    # Before the stamps: a purge that begins in between moves it once more, and shows at the next look.
    seq = int(table[SEQ_SLOT])
    for slot, stamp in copy.names:
        if table[slot] != stamp:
            return False
    copy.seq = seq
    return True


def _open_whole(path: Path) -> int:
    """Return a descriptor of a table that has all its blocks: a sparse or cut one would be SIGBUS."""
    for _ in range(10):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            _make(path)
            continue
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            _set_aside(path)
            continue
        if _is_whole(os.fstat(descriptor)):
            return descriptor
        os.close(descriptor)
        _set_aside(path)
    raise OSError(f"no usable table of stamps at {path}")


def _is_whole(status: os.stat_result) -> bool:
    return status.st_size == SIZE and status.st_blocks * 512 >= SIZE


def _make(path: Path) -> None:
    # Made whole under another name, then linked: nobody ever sees a half one, and the first of two makers wins.
    beside = path.with_name(f"{path.name}.{os.urandom(8).hex()}.tmp")
    descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        os.posix_fallocate(descriptor, 0, SIZE)
        os.link(beside, path)
    except FileExistsError:
        pass
    finally:
        os.close(descriptor)
        os.unlink(beside)


def _set_aside(path: Path) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
