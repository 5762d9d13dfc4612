"""The table of stamps: 64-bit numbers in memory that all workers share, so that a hit needs no system call.

Each key and each name hashes to a slot. A write or a purge gives the slot a new random value, and a copy is valid while its slots
are unchanged. The files are authoritative, stamps only mean "read again": a collision of two keys costs a reload and nothing else.

Which process writes what:

=============== ============================================================================================
slot 0 (SEQ)    the last purge number; raised with ``purge.lock`` held, and by purges that could not get it. It is even
                while a purge runs: the values that it ends are still served, and pages may be made from them
LOST            the last purge number for whose record there was no room: entries begun before are not stored
other slots     moved without a lock, after the files were changed
counts          bytes, entries and notes without an entry of each folder; changed without a lock, so that updates
                may be lost, and corrected whenever a folder is read
marks           one byte each: whether a key was used since the last look (CLOCK); set by hits, cleared by eviction and sweep
=============== ============================================================================================

Where processes can't share memory, the same table is in a file that each of them reads and writes: see ``table_file``.
"""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Sequence
from pathlib import Path

from ...filesystem.directory import Place
from ..base import Copy
from ..file_numbers import LIMIT, MOST, Numbers, put_all, random_numbers
from .table_file import Layout, open_table

#: Each layout has its own name.
FILE_NAME = "stamps-4"
SLOTS = 65536
FOLDERS = 256
#: More marks than stamps: keys that share a stamp cost a reload, keys that share a mark keep each other from being evicted.
MARKS = 262_144
_LAYOUT = Layout(counts=3 * FOLDERS, stamps=SLOTS + 1, marks=MARKS)
#: Bytes of the table.
SIZE = _LAYOUT.size
#: Slot 0 holds SEQ, the last purge number.
SEQ_SLOT = 0
#: After the last slot is LOST, the last purge number without a record.
LOST_SLOT = SLOTS


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


def digest_mark(digest: str) -> int:
    """Return the mark of a hexadecimal digest."""
    return int(digest[15:30], 16) % MARKS


class Stamps:
    """The table of one cache directory, as this process has it open.

    :param place: its file; made if it does not exist.
    :raises OSError: if it can't be read or made.
    """

    def __init__(self, place: Place) -> None:
        self._table = table = open_table(place, _LAYOUT)
        #: Bytes of the files in each of the 256 folders.
        self.folder_sizes = table.numbers(0, FOLDERS)
        #: Entries in each of them.
        self.folder_entries = table.numbers(FOLDERS, FOLDERS)
        #: Bytes of the notes without an entry in each of them.
        self.folder_notes = table.numbers(2 * FOLDERS, FOLDERS)
        self.table = table.numbers(3 * FOLDERS, SLOTS + 1)
        #: Not 0: a key that hashes to it was used since the last look (CLOCK).
        self.marks = table.marks

    @property
    def why_read(self) -> str | None:
        """The reason why the table is read and not mapped, so that each hit makes system calls; ``None`` if it is mapped."""
        return None if self._table.is_in_memory else self._table.why

    @property
    def replaces_copy(self) -> bool:
        """Whether this table replaces the copy of a table, such as that of a restored backup."""
        return self._table.replaces_copy

    def tick(self) -> None:
        """Write the marks or counts that the table holds back."""
        self._table.tick()

    def move(self, slot: int) -> None:
        """Give a slot a new random value, so that copies are loaded again."""
        # os.urandom, since two forks of a process share the state of the random module.
        self.table[slot] = int.from_bytes(os.urandom(8), "big") % LIMIT

    def move_each(self, slots: Sequence[int]) -> None:
        """Give some slots a new random value each."""
        table = self.table
        for slot, value in zip(slots, array("Q", os.urandom(8 * len(slots))), strict=True):
            table[slot] = value % LIMIT

    def move_all(self) -> None:
        """Give all slots a new random value."""
        put_all(self.table, SEQ_SLOT + 1, random_numbers(LOST_SLOT - SEQ_SLOT - 1))

    def begin_purge(self, number: int) -> None:
        """Raise SEQ to the number of a purge, unless it is higher already. ``purge.lock`` is held, if the purge could get it.

        :param number: an even number.
        """
        if self.table[SEQ_SLOT] < number:
            self.table[SEQ_SLOT] = number

    def raise_seq(self, number: int) -> None:
        """Raise SEQ to a number, or the odd one after it, unless it is higher already: no purge runs. The lock is held likewise."""
        self.begin_purge(number | 1)

    def raise_lost(self, number: int) -> None:
        """Raise LOST to the number of a purge without a record: entries that were begun before may not be stored from now on."""
        if self.table[LOST_SLOT] < number:
            self.table[LOST_SLOT] = number

    def grow(self, folder: int, size: int, entries: int = 0, notes: int = 0) -> None:
        """Add to the counts of a folder; negative if something was removed.

        :param size: bytes of all files.
        :param entries: number of entries.
        :param notes: bytes of the notes without an entry.
        """
        self.folder_sizes[folder] = _bounded(self.folder_sizes[folder] + size)
        self.folder_entries[folder] = _bounded(self.folder_entries[folder] + entries)
        if notes:
            self.folder_notes[folder] = _bounded(self.folder_notes[folder] + notes)

    def count(self, folder: int, size: int, entries: int, notes: int) -> None:
        """Correct the counts of a folder."""
        self.folder_sizes[folder] = size
        self.folder_entries[folder] = entries
        self.folder_notes[folder] = notes

    def is_current(self) -> bool:
        """Whether other processes use the same table."""
        return self._table.is_current()


class OwnCounts(Stamps):
    """The counts of one process that has no table. Other processes do not see them, and all files are counted again now and then.

    :ivar since: when the files were counted, by the monotonic clock.
    """

    def __init__(self) -> None:
        # Without a call of Stamps.__init__: there is no file.
        self.since = time.monotonic()
        self.folder_sizes, self.folder_entries, self.folder_notes = ([0] * FOLDERS for _ in range(3))
        self.table = [0] * (SLOTS + 1)
        self.marks = bytearray(MARKS)


def _bounded(count: int) -> int:
    return min(max(0, count), MOST - 1)


def is_settled(seq: int) -> bool:
    """Whether no purge ran when SEQ had a number. An entry begun then needs no check against the records while SEQ is unchanged."""
    return seq % 2 == 1 or seq == 0


def stands(copy: Copy, table: Numbers) -> bool:
    """Whether a copy is still valid: no write to its key and no purge of its names since it was loaded. Called on each hit."""
    if copy.table is not table or table[copy.slot] != copy.stamp:
        return False
    return bool(table[SEQ_SLOT] == copy.seq) or _outlived(copy, table)


def _outlived(copy: Copy, table: Numbers) -> bool:
    # SEQ is read before the stamps: a purge that begins in between raises it once more, which shows at the next lookup.
    seq = int(table[SEQ_SLOT])
    for slot, stamp in copy.names:
        if table[slot] != stamp:
            return False
    copy.seq = seq
    return True
