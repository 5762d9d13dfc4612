"""Walks through all entries: list, count, and verify them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType

from ...core.addressing.keys import digest
from ...core.model.entry import Entry
from ...core.model.note import NOTHING, Note
from ...core.rules.variant_index import INDEX
from ...errors import BrokenEntry
from ...filesystem.atomic import read_file, remove_file, store_errors
from ...stats.counters import Counters
from ..base import Checked, Stored, Usage
from ..entry_file import BLOCK, read_entry, read_head
from ..folders import BILLION, Folders, KeyFiles
from ..formats import note_format
from ..purges.purge_record import PurgeRecord, left_of
from ..purges.purge_records import CachedPurgeRecords, PurgeRecords
from ..table.stamps import FOLDERS, Stamps, digest_mark

NOTHING_PURGED: Mapping[str, PurgeRecord] = MappingProxyType({})


class Contents:
    """The entries of a cache directory.

    :param folders: its files.
    :param records: the records of purges.
    :param counters: counts broken entries.
    """

    def __init__(self, folders: Folders, records: PurgeRecords, counters: Counters) -> None:
        self._folders = folders
        self._purge_records = records
        self._counters = counters

    def usage(self, stamps: Stamps | None) -> Usage:
        """Return the counts in the table; without a table, count the files."""
        if stamps is not None:
            return Usage(sum(stamps.folder_entries), sum(stamps.folder_sizes))
        looks = [self._folders.look(number) for number in range(FOLDERS)]
        return Usage(sum(folder.entries for folder in looks), sum(folder.size for folder in looks))

    def walk(self, stamps: Stamps | None, before: Mapping[str, PurgeRecord] = NOTHING_PURGED) -> Iterator[Stored]:
        """Yield all entries that can be read, folder by folder.

        :param before: earlier records of purges by their names, which are used instead of the present ones.
        """
        records = CachedPurgeRecords(self._purge_records, stamps)
        for number in range(FOLDERS):
            for name, kinds in self._folders.listed(number).keys.items():
                stored = self._stored(name, kinds, stamps, records, before) if "entry" in kinds else None
                if stored is not None:
                    yield stored

    def recall(self, names: tuple[str, ...], stamps: Callable[[], Stamps | None]) -> Callable[[], Iterator[Stored]]:
        """Return a function that walks through the entries that have one of the names now, even after their purge.

        :param stamps: returns the table at the time of the walk.
        """
        before = {name: self._purge_records.read(name) for name in names}

        def walk() -> Iterator[Stored]:
            with store_errors():
                yield from (each for each in self.walk(stamps(), before) if not before.keys().isdisjoint(each.entry.names))

        return walk

    def verify(self, stamps: Stamps | None, *, fix: bool) -> Iterator[Checked]:
        """Read every entry whole, and yield the result of the check, folder by folder.

        :param fix: remove broken entries.
        """
        for number in range(FOLDERS):
            for name, kinds in self._folders.listed(number).keys.items():
                checked = self._checked(name) if "entry" in kinds else None
                if checked is not None and checked.problem:
                    self._counters.count("broken_entries")
                    checked = self._removed(name, checked, stamps) if fix else checked
                if checked is not None:
                    yield checked

    def _checked(self, name: str) -> Checked | None:
        path, key = self._folders.file(name), None
        try:
            head = read_head(path)
            if head is None:
                return None
            key = head.entry.key
            if digest(key) != name:
                raise BrokenEntry("another key")
            problem = "" if read_entry(path, key, BLOCK) is not None else None
        except (BrokenEntry, OSError) as error:
            problem = str(error) if isinstance(error, BrokenEntry) else f"can't be read: {error.strerror}"
        return None if problem is None else Checked(str(path), key, problem)

    def _removed(self, name: str, checked: Checked, stamps: Stamps | None) -> Checked:
        """Remove a broken entry, if its lock is free and it is still broken under the lock."""
        lock = self._folders.lock(name)
        if not lock.acquire():
            return checked
        try:
            again = self._checked(name)
            if again is None or not again.problem:
                return checked
            found = self._folders.found(name, frozenset(["entry"]))
            with suppress(FileNotFoundError):
                remove_file(self._folders.file(name))
            self._folders.has_gone(found, stamps)
            return again._replace(removed=True)
        finally:
            lock.release()

    def _stored(
        self,
        name: str,
        kinds: frozenset[str],
        stamps: Stamps | None,
        records: CachedPurgeRecords,
        before: Mapping[str, PurgeRecord],
    ) -> Stored | None:
        try:
            found = self._folders.found(name, kinds - {"lock"})
            head = None if found.entry is None else read_head(self._folders.file(name))
            if head is None or (entry := head.entry).status == INDEX:
                return None
            if digest(entry.key) != name:
                raise BrokenEntry("another key")
        except (BrokenEntry, OSError):
            # Loads, the sweep and ``verify`` count a broken entry; walks do not, since they are frequent.
            return None
        purges = records.since(entry.seq, entry.names)
        left = left_of(entry, [before.get(record.name, record) for record in purges] if before else purges)
        return None if left is None else self._told(left, head.length, found, stamps)

    def _told(self, entry: Entry, length: int, found: KeyFiles, stamps: Stamps | None) -> Stored:
        is_marked = stamps is not None and stamps.marks[digest_mark(found.name)] != 0
        used = time.time() if is_marked else found.used_ns / BILLION
        return Stored(entry, length, found.size, used, self._note(found))

    def _note(self, found: KeyFiles) -> Note:
        # A note is only advice: if it can't be read, the entry is listed all the same.
        with suppress(OSError):
            data = None if found.note is None else read_file(self._folders.file(found.name, ".note"))
            return NOTHING if data is None else note_format.decode(data)
        return NOTHING
