"""The file store: one file for each entry in 256 folders, replaced by renaming, and one lock file for each key.

Which lock guards what:

================ ===================================================================================================
nothing          reads; the files are authoritative, and a changed stamp means that they are read again
the key's lock   calls of the origin, and with them writes and removals of an entry
``purge.lock``   purge numbers, the records of purges, and SEQ in the table; for a purge that can't get it see :mod:`.purger`
``sweep.lock``   the progress of the sweep
================ ===================================================================================================
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from ..config.settings import KEYS, Settings
from ..core.addressing.keys import digest
from ..core.model.checks import Duration
from ..core.model.entry import Entry
from ..core.model.note import NOTHING, Note
from ..core.rules.variant_index import INDEX
from ..errors import BrokenEntry, ConfigError, StoreError
from ..filesystem.atomic import read_file, remove_file, store_errors, write_file
from ..filesystem.directory import Directory
from ..filesystem.locks import FileKeyLock
from ..filesystem.system import lacks_for_files
from ..stats.counters import Counters
from .base import Checked, Copy, Marking, Stored, Usage
from .cache_directory import CacheDirectory
from .copies import Copies
from .entry_file import read_entry, read_head
from .file_numbers import Numbers
from .folders import BILLION, Folders, folder_of, on_disk, size_on_disk
from .foreign_changes import ForeignChanges
from .formats import entry_format, note_format
from .purger import Purger
from .purges.purge_records import PurgeRecords, records_within
from .queue_marks import QueueMarks
from .table.stamps import LOST_SLOT, SEQ_SLOT, digest_mark, is_settled, slot_of, stands
from .upkeep.eviction import Evictor
from .upkeep.sweep import Sweeper
from .upkeep.walk import Contents

MIB = 1024 * 1024
#: Numbers in place of the last purge number while another process may be purging. They are lower than those of all purges, and no
#: two are equal, since equal numbers mean that there was no purge between them.
_unknown = itertools.count(2, 2)
#: Attempts of a load that purges interrupt; after that the entry counts as purged.
_LOADS = 10


class FileStore:
    """Entries in a directory that the processes of one user share. Reads take no lock.

    :param directory: the cache directory; created with mode 0700 at first use. A directory of another user, or one that others
        can write to, is refused.
    :param memory_size: bytes of copies that this process keeps in memory. Default 32 MiB; 0 for none.
    :param max_size: limit of the bytes on disk; the least used entries are evicted. Default 100 MiB; ``None``: no limit.
    :param min_free: bytes that stay free on the disk; entries are evicted to keep them free. Default 0.
    :param inactive: seconds without use after which an entry past its stale windows is removed. Default 86400.
    :param counters: counts broken and removed entries. Default: counters of its own.
    :param allow_network_directory: accept a directory on a network file system, which only this host may use. Default false.
    :raises ConfigError: for a number that is not accepted, or on a system without file locks.
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
        allow_network_directory: bool = False,
    ) -> None:
        if lacking := lacks_for_files():
            raise ConfigError(f"FileStore() needs {lacking}, which this system lacks: set STALECACHE_STORE='memory'")
        # Absolute, since the process may change its working directory.
        self.directory = Path(directory).absolute()
        self.counters = Counters() if counters is None else counters
        # Larger bodies stay in their files: a copy of more than an eighth of the memory would not be kept.
        self._large = max(memory_size // 8, MIB)
        self._copies = Copies(KEYS["MEMORY_SIZE"].check("memory_size", memory_size))
        max_size, min_free = KEYS["MAX_SIZE"].check("max_size", max_size), KEYS["MIN_FREE"].check("min_free", min_free)
        idle: float = KEYS["INACTIVE"].check("inactive", inactive)
        allows_network: bool = KEYS["ALLOW_NETWORK_DIR"].check("allow_network_directory", allow_network_directory)
        held = Directory(self.directory)
        self._records = PurgeRecords(held, records_within(max_size))
        self._cache_directory = CacheDirectory(held, self._records, self.counters, self._copies.clear, allows_network)
        self._folders = Folders(held, self._cache_directory.make_folder, self.counters)
        self._evictor = Evictor(self._folders, max_size, min_free, self._records)
        self._contents = Contents(self._folders, self._records, self.counters)
        self._purger = Purger(self._cache_directory, self._records, self._folders)
        foreign = ForeignChanges(self._cache_directory, self._records, self._purger, self._folders)
        self.apply_purges, self.applied, self.purges_since = foreign.apply_purges, foreign.applied, foreign.purges_since
        self.hard_purges, self.has_purged = foreign.hard_purges, foreign.has_purged
        self.move, self.move_all, self.remove_begun_before = foreign.move, foreign.move_all, foreign.remove_begun_before
        self.queue_marks: Marking = QueueMarks(held, self._cache_directory.lock)
        self._sweeper = Sweeper(self._folders, self._records, self._evictor, idle, self._cache_directory.lock)

    def __repr__(self) -> str:
        return f"FileStore({str(self.directory)!r})"

    # -- reading -------------------------------------------------------------------------------------------------

    def lookup(self, key: str) -> Copy | None:
        """Return this process's copy of a key, unless the key was written or purged since, and mark it as used.

        No system call, no lock.
        """
        # The table is read once: a tick may replace it meanwhile, and the copy's stamps belong to one table.
        copy, stamps = self._copies.get(key), self._cache_directory.stamps
        if copy is None or stamps is None or not stands(copy, stamps.table):
            return None
        copy.used = True
        stamps.marks[copy.mark] = 1
        return copy

    def load(self, key: str) -> Copy:
        """Read the entry and the note of a key, and apply the purges since the entry was begun."""
        name = digest(key)
        with store_errors():
            self._open()
            for _ in range(_LOADS):
                copy = self._read_copy(key, name)
                if self._knows_purges(copy):
                    break
            else:
                # There was a purge during every attempt, so it is unknown whether the entry outlived them.
                copy.entry = None
        if copy.table is not None and (copy.entry is not None or copy.note is not NOTHING):
            self._copies.put(copy)
        else:
            self._copies.discard(key)
        return copy

    def _open(self) -> None:
        self._cache_directory.open()
        if self._cache_directory.is_unchecked:
            self._purger.make_up_for_lost()

    def _read_copy(self, key: str, name: str) -> Copy:
        """Read entry and note. SEQ and the stamp are read before the files, so that a later write is never missed."""
        slot, stamps = slot_of(name), self._cache_directory.stamps
        table = None if stamps is None else stamps.table
        seq, stamp = (next(_unknown), 0) if table is None else (int(table[SEQ_SLOT]), int(table[slot]))
        return Copy(key, self._read_entry(name, key), self._read_note(name), stamp, slot, seq, table, digest_mark(name))

    def _knows_purges(self, copy: Copy) -> bool:
        """Apply to a copy the purges since its entry and note were begun. Return false if everything must be read again.

        Order: stamps of the names, then SEQ, then the records. A purge raises SEQ before it writes a record, and moves the stamps
        after that, so a purge that runs meanwhile shows in SEQ or in a stamp.
        """
        entry, note, table = copy.entry, copy.note, copy.table
        if table is not None:
            slots = [slot_of(digest(name)) for name in {*(() if entry is None else entry.names), *note.names}]
            copy.names = tuple((slot, int(table[slot])) for slot in slots)
        # SEQ as it is now, not as the copy has it: a purge that has begun since may have written a record.
        if note.names and not _is_last(table, note.seq) and self._records.is_dropped(note):
            copy.note = NOTHING
        if entry is None or _is_last(table, entry.seq):
            return True
        copy.entry = self._records.outlive(entry)
        if table is None:
            return True
        # The sweep raises SEQ before it removes records: if SEQ has changed, a record that this entry needed may be missing.
        return entry.seq >= copy.seq or table[SEQ_SLOT] == copy.seq

    def moved(self, copy: Copy) -> bool:
        """Whether the copy's key was written or purged since the copy was loaded. Without a table that is unknown: yes."""
        stamps = self._cache_directory.stamps
        return stamps is None or not stands(copy, stamps.table)

    def touch(self, copy: Copy) -> None:
        """Mark a copy as used: in this process's memory, and in the table for the eviction of entries."""
        copy.used, stamps = True, self._cache_directory.stamps
        if stamps is not None and copy.table is stamps.table:
            stamps.marks[copy.mark] = 1

    def seq(self) -> int:
        """Return the last purge number: an entry that is begun now counts as older than the purges that are running."""
        stamps = self._cache_directory.table
        # Less than 0: the table was cut.
        if stamps is not None and (number := int(stamps.table[SEQ_SLOT])) >= 0:
            return number
        # An entry begun at 0 counts as older than every purge: it is stored in vain, but never served by mistake.
        with suppress(OSError, ConfigError, StoreError):
            last = self._purger.last_number()
            return next(_unknown) if last is None else last
        return 0

    def seq_without_io(self) -> int:
        """Return the last purge number; without a table, the time, which every later purge exceeds: see :mod:`.purger`."""
        stamps = self._cache_directory.table
        return time.time_ns() if stamps is None else max(0, int(stamps.table[SEQ_SLOT]))

    def _read_entry(self, name: str, key: str) -> Entry | None:
        try:
            return read_entry(self._folders.file(name), key, self._large)
        except BrokenEntry:
            self.counters.count("broken_entries")
            self._remove_broken(name, key)
            return None

    def _read_note(self, name: str) -> Note:
        data = read_file(self._folders.file(name, ".note"))
        return NOTHING if data is None else note_format.decode(data)

    # -- writing -------------------------------------------------------------------------------------------------

    def write(self, entry: Entry) -> bool:
        """Replace the entry's file, then move the stamp. Return false if the entry was purged since it was begun, or may have been.

        If the process is killed before the stamp moves, copies in other processes are served to the end of their freshness.
        """
        if not self.accepts(entry):
            return False
        self._replace(entry.key, "", entry_format.encode(entry))
        if not self._is_lost(entry):
            return True
        # Meanwhile there was a purge without a record. It has removed the entries that were stored then, but not this one.
        self.remove(entry.key)
        return False

    def accepts(self, entry: Entry) -> bool:
        """Whether an entry can be stored: it was not purged since it was begun, and the records go back as far as that."""
        with store_errors():
            self._open()
            if self._is_lost(entry) or (self.seq() != entry.seq and self._records.outlive(entry) is None):
                return False
        return self._records.reach_back_to(entry)

    def _is_lost(self, entry: Entry) -> bool:
        """Whether there was no room for the record of a purge after an entry was begun."""
        stamps = self._cache_directory.table
        return stamps is not None and entry.seq < stamps.table[LOST_SLOT]

    def write_note(self, key: str, note: Note) -> None:
        """Replace the note's file, then move the stamp; an empty note removes the file."""
        if note == NOTHING:
            self._unlink(key, ".note")
        else:
            self._replace(key, ".note", note_format.encode(note))

    def remove(self, key: str) -> None:
        """Remove a key's entry and move its stamp."""
        self._unlink(key, "")

    def lock(self, key: str) -> FileKeyLock:
        """Return a new lock of a key.

        Each key has a lock file of its own, since a page holds its lock while it calls fetch functions: with shared locks, two
        pages could wait for each other.
        """
        return self._folders.lock(digest(key))

    def _replace(self, key: str, suffix: str, data: bytes) -> None:
        name = digest(key)
        with store_errors():
            self._cache_directory.make_folder(self.directory / name[:2])
            file = self._folders.file(name, suffix)
            size, stamps, is_lone = on_disk(len(data)), self._cache_directory.table, self._folders.is_lone(name, suffix)
            self._evictor.reserve(folder_of(name), size, stamps, is_lone=is_lone)
            before = size_on_disk(file)
            try:
                write_file(file, data, int(time.time() * BILLION))
            except BaseException:
                self._evictor.release(folder_of(name), size, stamps, is_lone=is_lone)
                raise
            self._has_changed(name, -(before or 0), before is None and not suffix, is_lone)

    def _unlink(self, key: str, suffix: str) -> None:
        name = digest(key)
        with store_errors():
            self._cache_directory.open()
            file = self._folders.file(name, suffix)
            before, is_lone = size_on_disk(file), self._folders.is_lone(name, suffix)
            with suppress(FileNotFoundError):
                remove_file(file)
                self._has_changed(name, -(before or 0), -(not suffix), is_lone)

    def _remove_broken(self, name: str, key: str) -> None:
        """Remove a broken entry under its lock, unless another process is writing it or has replaced it."""
        lock = self.lock(key)
        if not lock.acquire():
            return
        try:
            data = read_file(self._folders.file(name))
            if data is not None:
                entry_format.decode(data, key)
        except BrokenEntry:
            self._unlink(key, "")
        finally:
            lock.release()

    def _has_changed(self, name: str, grown: int, more: int, is_lone: bool) -> None:
        # Read once: a tick in another thread may close the table in between.
        stamps = self._cache_directory.table
        self._folders.has_changed(name, stamps, grown, more, is_lone=is_lone)

    # -- purging -------------------------------------------------------------------------------------------------

    def purge(self, *names: str, soft: bool) -> None:
        """Purge all entries that have one of the names and were begun before now."""
        with store_errors():
            if names:
                self._purger.purge(names, soft)

    def key_of(self, address: str) -> str | None:
        """Return the key of an entry by its digest, from the head of its file; ``None`` if the entry is missing or broken."""
        with store_errors():
            try:
                head = read_head(self._folders.file(address)) if self._cache_directory.open_if_exists() else None
                entry = None if head is None else head.entry
            except BrokenEntry:
                return None
        is_one = entry is not None and entry.status != INDEX and digest(entry.key) == address
        return entry.key if entry is not None and is_one else None

    # -- contents ------------------------------------------------------------------------------------------------

    def walk(self) -> Iterator[Stored]:
        """Yield all entries, folder by folder."""
        with store_errors():
            if self._cache_directory.open_if_exists():
                yield from self._contents.walk(self._cache_directory.table)

    def recall(self, *names: str) -> Callable[[], Iterator[Stored]]:
        """Return a function that walks through the entries that have one of the names now, even after their purge."""
        with store_errors():
            is_there = self._cache_directory.open_if_exists()
            return self._contents.recall(names if is_there else (), lambda: self._cache_directory.table)

    def usage(self) -> Usage:
        """Return the counts in the table; without a table, count the files."""
        with store_errors():
            return self._contents.usage(self._cache_directory.table) if self._cache_directory.open_if_exists() else Usage(0, 0)

    @property
    def max_size(self) -> int | None:
        """The limit of the bytes on disk; ``None``: no limit."""
        return self._evictor.max_size

    def verify(self, *, fix: bool) -> Iterator[Checked]:
        """Read every entry whole, verify its checksum, and yield the result.

        :param fix: remove broken entries.
        """
        with store_errors():
            if self._cache_directory.open_if_exists():
                yield from self._contents.verify(self._cache_directory.table, fix=fix)

    def sweep(self) -> Mapping[str, int]:
        """Do a whole sweep now; return the number of removals by reason, and the ``bytes`` freed."""
        with store_errors():
            if not self._cache_directory.open_if_exists():
                return {"bytes": 0}
            self._cache_directory.reopen_if_replaced()
            self._purger.make_up_for_lost()
            return self._sweeper.sweep(self._cache_directory.table)

    # -- the directory -------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise :class:`ConfigError` if the directory exists and is a file, not ours, writable by others, or not writable by us.

        Likewise if it is on a network file system, or on one without file locks.
        """
        self._cache_directory.check()

    def newer_version(self) -> str | None:
        """Return the name of a table in the directory that a later version of this package has made; ``None`` if there is none."""
        return self._cache_directory.newer_version()

    def tick(self) -> None:
        """Open the table again if it was replaced, complete interrupted purges, and sweep a little."""
        if not self._cache_directory.was_opened:
            return
        with store_errors():
            self._cache_directory.tick()
            if self._records.number_has_changed() or self._cache_directory.is_unchecked:
                self._purger.make_up_for_lost()
            self._purger.adopt_waiting()
            self._purger.settle()
            self._sweeper.tick(self._cache_directory.table)

    def forget(self) -> None:
        """Drop all copies, and their lock, which a fork may have left held."""
        self._copies.clear()


def _is_last(table: Numbers | None, seq: int) -> bool:
    """Whether there was no purge since SEQ had a number, and none was running then."""
    return table is not None and is_settled(seq) and table[SEQ_SLOT] == seq


def file_store(directory: Path, settings: Settings, counters: Counters) -> FileStore:
    """Return the file store of an app, with the configured limits."""
    return FileStore(
        directory,
        memory_size=settings.memory_size,
        max_size=settings.max_size,
        min_free=settings.min_free,
        inactive=settings.inactive,
        counters=counters,
        allow_network_directory=settings.allow_network_dir,
    )
