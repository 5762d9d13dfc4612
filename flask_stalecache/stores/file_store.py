"""Entries as files: one an entry, in 256 folders, written beside and renamed over, with a lock file a key."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from ..config import KEYS, Settings
from ..core.model.checks import Duration
from ..core.model.entry import Entry
from ..core.model.keys import digest
from ..core.model.note import NOTHING, Note
from ..errors import BrokenEntry, StoreError
from ..filesystem.atomic import read_file, store_errors, write_file
from ..filesystem.locks import FileKeyLock, held
from ..stats.counters import Counters
from . import entry_format, note_format
from .base import Checked, Copy, Stored, Usage
from .cache_directory import CacheDirectory
from .entry_file import read_entry
from .eviction import Evictor
from .folders import BILLION, Folders, folder_of, on_disk, size_on_disk
from .memory import Copies
from .purge_records import LONGEST_RUN, PurgeRecords
from .stamps import SEQ_SLOT, mark_of, slot_of, stands
from .sweep import Sweeper
from .walk import Contents

MIB = 1024 * 1024
#: How often a load looks again because of purges in between, before it takes the entry for purged.
_LOADS = 10


class FileStore:
    """Entries in a directory that one user's processes share. Readers take no lock.

    :param directory: the cache directory; made with mode 0700 at first use. One that belongs to somebody else, or that others can
        write to, is refused.
    :param memory_size: bytes of copies that this process keeps in memory. Default 32 MiB; 0 for none.
    :param max_size: bytes that entries take on the disk at most; the least used go first. Default 100 MiB; ``None``: no limit.
    :param min_free: bytes that stay free on the disk: entries go before they run short. Default 0.
    :param inactive: seconds without use after which an entry past its stale windows is removed. Default 86400.
    :param counters: where broken and removed entries are counted. Default: its own.
    :raises ConfigError: for a number that is not accepted.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        memory_size: int = 32 * MIB,
        max_size: int | None = 100 * MIB,
        min_free: int = 0,
        inactive: Duration = 86400,
        counters: Counters | None = None,
    ) -> None:
        # Absolute, so that it stays the same if the process changes its folder.
        self.directory = Path(directory).absolute()
        self.counters = Counters() if counters is None else counters
        self._large = max(memory_size // 8, MIB)
        self._copies = Copies(KEYS["MEMORY_SIZE"].check("memory_size", memory_size))
        max_size, min_free = KEYS["MAX_SIZE"].check("max_size", max_size), KEYS["MIN_FREE"].check("min_free", min_free)
        idle: float = KEYS["INACTIVE"].check("inactive", inactive)
        self._records = PurgeRecords(self.directory / "names")
        self._cache_directory = CacheDirectory(self.directory, self._records, self.counters, self._copies.clear)
        self._folders = Folders(self.directory, self._cache_directory.make_folder, self.counters)
        self._evictor = Evictor(self._folders, max_size, min_free)
        self._contents = Contents(self._folders, self._records, self.counters)
        self._sweeper = Sweeper(self._folders, self._records, self._evictor, idle, self._cache_directory.lock)

    def __repr__(self) -> str:
        return f"FileStore({str(self.directory)!r})"

    # -- reading -------------------------------------------------------------------------------------------------

    def lookup(self, key: str) -> Copy | None:
        """Return this process's copy if nothing was written or purged, and mark it as used: no system call, no lock."""
        copy, stamps = self._copies.get(key), self._cache_directory.stamps
        if copy is None or stamps is None or not stands(copy, stamps.table):
            return None
        copy.used = True
        stamps.marks[copy.mark] = 1
        return copy

    def load(self, key: str) -> Copy:
        """Read the entry and the note of a key, and what was purged since the entry was begun."""
        name = digest(key)
        with store_errors():
            self._cache_directory.open()
            for _ in range(_LOADS):
                copy = self._read_copy(key, name)
                if copy.entry is None or self._knows_purges(copy, copy.entry):
                    break
            else:
                # Purges rain, and nobody can tell whether it outlived them.
                copy.entry = None
        if copy.table is not None and (copy.entry is not None or copy.note is not NOTHING):
            self._copies.put(copy)
        else:
            self._copies.discard(key)
        return copy

    def _read_copy(self, key: str, name: str) -> Copy:
        """Read entry and note. SEQ and stamp are noted first, so that a later write is never missed."""
        slot, stamps = slot_of(name), self._cache_directory.stamps
        table = None if stamps is None else stamps.table
        seq, stamp = (0, 0) if table is None else (int(table[SEQ_SLOT]), int(table[slot]))
        return Copy(key, self._read_entry(name, key), self._read_note(name), stamp, slot, seq, table, mark_of(name))

    def _knows_purges(self, copy: Copy, entry: Entry) -> bool:
        """Apply the purges since an entry was begun to its copy; false: look at everything again.

        The stamps of its names are noted before their records are read.
        """
        table = copy.table
        if table is None:
            copy.entry = self._records.outlive(entry)
            return True
        slots = [slot_of(digest(name)) for name in entry.names]
        copy.names = tuple((slot, int(table[slot])) for slot in slots)
        # SEQ is looked at now: had a purge begun since SEQ was noted, its record would be missed.
        if table[SEQ_SLOT] == entry.seq:
            return True
        copy.entry = self._records.outlive(entry)
        # The sweep moves SEQ before it removes records: one may be gone that was there when the entry was read.
        return entry.seq >= copy.seq or table[SEQ_SLOT] == copy.seq

    def moved(self, copy: Copy) -> bool:
        """Whether something was written or purged since the copy was loaded; without a table nobody can tell, so: yes."""
        stamps = self._cache_directory.stamps
        return stamps is None or not stands(copy, stamps.table)

    def touch(self, copy: Copy) -> None:
        """Mark a copy as used for this process's memory, and what it is of for the directory."""
        copy.used, stamps = True, self._cache_directory.stamps
        if stamps is not None and copy.table is stamps.table:
            stamps.marks[copy.mark] = 1

    def seq(self) -> int:
        """Return the last purge number."""
        stamps = self._cache_directory.stamps
        if stamps is not None:
            return int(stamps.table[SEQ_SLOT])
        # An entry that was begun at 0 is older than any purge: it is stored in vain, and never served in error.
        with suppress(OSError):
            return self._records.last_number()
        return 0

    def _read_entry(self, name: str, key: str) -> Entry | None:
        try:
            return read_entry(self._folders.path(name), key, self._large)
        except BrokenEntry:
            self.counters.count("broken_entries")
            self._remove_broken(name, key)
            return None

    def _read_note(self, name: str) -> Note:
        data = read_file(self._folders.path(name, ".note"))
        return NOTHING if data is None else note_format.decode(data)

    # -- writing -------------------------------------------------------------------------------------------------

    def write(self, entry: Entry) -> bool:
        """Write beside, rename over, then move the stamp; return whether it was stored: not if it was purged since it was begun.

        Killed before the last step: other copies live to the end of their freshness.
        """
        with store_errors():
            self._cache_directory.open()
            if self.seq() != entry.seq and self._records.outlive(entry) is None:
                return False
        if entry.answered - entry.started > LONGEST_RUN:
            return False
        self._replace(entry.key, "", entry_format.encode(entry))
        return True

    def write_note(self, key: str, note: Note) -> None:
        """Write a note like an entry; an empty one is removed."""
        if note == NOTHING:
            self._unlink(key, ".note")
        else:
            self._replace(key, ".note", note_format.encode(note))

    def remove(self, key: str) -> None:
        """Remove a key's entry and move its stamp."""
        self._unlink(key, "")

    def lock(self, key: str) -> FileKeyLock:
        """Return a new lock of a key: one file a key, never striped, since a page holds its lock while it calls others."""
        return self._folders.lock(digest(key))

    def _replace(self, key: str, suffix: str, data: bytes) -> None:
        name = digest(key)
        with store_errors():
            path = self._folders.path(name, suffix)
            self._cache_directory.make_folder(path.parent)
            size, stamps = on_disk(len(data)), self._cache_directory.stamps
            self._evictor.reserve(folder_of(name), size, stamps)
            before = size_on_disk(path)
            try:
                write_file(path, data, int(time.time() * BILLION))
            except BaseException:
                self._evictor.release(folder_of(name), size, stamps)
                raise
            self._has_changed(name, -(before or 0), before is None and not suffix)

    def _unlink(self, key: str, suffix: str) -> None:
        name = digest(key)
        with store_errors():
            self._cache_directory.open()
            path = self._folders.path(name, suffix)
            before = size_on_disk(path)
            with suppress(FileNotFoundError):
                path.unlink()
                self._has_changed(name, -(before or 0), -(not suffix))

    def _remove_broken(self, name: str, key: str) -> None:
        """Remove a broken entry under its lock, unless it is being written, or is whole by now."""
        lock = self.lock(key)
        if not lock.acquire():
            return
        try:
            data = read_file(self._folders.path(name))
            if data is not None:
                entry_format.decode(data, key)
        except BrokenEntry:
            self._unlink(key, "")
        finally:
            lock.release()

    def _has_changed(self, name: str, grown: int, more: int) -> None:
        if self._cache_directory.stamps is not None:
            self._cache_directory.stamps.move(slot_of(name))
            self._cache_directory.stamps.grow(folder_of(name), grown, more)

    # -- purging -------------------------------------------------------------------------------------------------

    def purge(self, *names: str, soft: bool) -> None:
        """Purge all entries that have one of some names and were begun before now."""
        with store_errors():
            while names and not self._purge_in_current(names, soft):
                pass

    def _purge_in_current(self, names: tuple[str, ...], soft: bool) -> bool:
        """Purge, and return whether it counts: where the directory was replaced meanwhile, others look at the new one."""
        # Not under the lock, which a new table needs too.
        self._cache_directory.reopen_if_replaced()
        if self._cache_directory.has_unmapped_table():
            raise StoreError("the table of stamps can't be mapped here, and others would not see the purge")
        with held(self._cache_directory.lock("purge")):
            if not self._cache_directory.is_current():
                return False
            self._purge(names, soft)
            return self._cache_directory.is_current()

    def _purge(self, names: tuple[str, ...], soft: bool) -> None:
        """Go through the steps in the order that makes it safe, each for all names; ``purge.lock`` is held.

        ``tests/test_purge_model.py`` plays this order and others. Killed midway it was not acknowledged, and can be repeated.
        """
        number = max(self.seq() + 1, time.time_ns())
        self._records.note_number(number + 1)
        if self._cache_directory.stamps is not None:
            self._cache_directory.stamps.raise_seq(number)
        for name in names:
            self._records.write(self._records.read(name).purged(number, time.time(), soft=soft))
        if self._cache_directory.stamps is not None:
            for name in names:
                self._cache_directory.stamps.move(slot_of(digest(name)))
            self._cache_directory.stamps.raise_seq(number + 1)

    # -- looking through it ----------------------------------------------------------------------------------------

    def walk(self) -> Iterator[Stored]:
        """Yield what is stored, folder by folder."""
        with store_errors():
            if self._cache_directory.open_if_exists():
                yield from self._contents.walk(self._cache_directory.stamps)

    def usage(self) -> Usage:
        """Return the counts in the table; without one the files are counted."""
        with store_errors():
            return self._contents.usage(self._cache_directory.stamps) if self._cache_directory.open_if_exists() else Usage(0, 0)

    @property
    def max_size(self) -> int | None:
        """The bytes that entries take on the disk at most; ``None``: no limit."""
        return self._evictor.max_size

    def verify(self, *, fix: bool) -> Iterator[Checked]:
        """Read every entry whole, with its checksum, and yield whether it is sound.

        :param fix: whether those that are not are removed.
        """
        with store_errors():
            if self._cache_directory.open_if_exists():
                yield from self._contents.verify(self._cache_directory.stamps, fix=fix)

    def sweep(self) -> Mapping[str, int]:
        """Do a whole sweep now; return what was removed by reason, and the ``bytes`` that it took."""
        with store_errors():
            if not self._cache_directory.open_if_exists():
                return {"bytes": 0}
            self._cache_directory.reopen_if_replaced()
            return self._sweeper.sweep(self._cache_directory.stamps)

    # -- the directory -------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise :class:`ConfigError` if the directory exists and is a file, not ours, writable by others, or not by us."""
        self._cache_directory.check()

    def newer_version(self) -> str | None:
        """Return the name of a table in the directory that a later version of this package has made; ``None`` if there is none."""
        return self._cache_directory.newer_version()

    def tick(self) -> None:
        """See whether the table is still there, and sweep a little."""
        if not self._cache_directory.was_opened:
            return
        with store_errors():
            self._cache_directory.reopen_if_replaced()
            self._sweeper.tick(self._cache_directory.stamps)

    def forget(self) -> None:
        """Drop all copies; a fork may have left their lock taken."""
        self._copies.clear()


def file_store(directory: Path, settings: Settings, counters: Counters) -> FileStore:
    """Return the files of an app in a directory, with the limits that are configured."""
    return FileStore(
        directory,
        memory_size=settings.memory_size,
        max_size=settings.max_size,
        min_free=settings.min_free,
        inactive=settings.inactive,
        counters=counters,
    )
