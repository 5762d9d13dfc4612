"""Applies the changes of other hosts to a cache directory: purges with their numbers, and replaced entries."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from ..core.addressing.purge_names import EVERYTHING
from ..core.guarded import guarded
from ..errors import BrokenEntry
from ..filesystem.atomic import store_errors
from ..filesystem.per_process import PerProcess
from .cache_directory import CacheDirectory
from .entry_file import read_head
from .folders import Folders
from .purger import Purger
from .purges.purge_record import Purge
from .purges.purge_records import PurgeRecords


class ForeignChanges:
    """Applies the changes of other hosts to one cache directory.

    :param directory: the cache directory.
    :param records: its records of purges.
    :param purger: applies the purges.
    :param folders: the files.
    """

    def __init__(self, directory: CacheDirectory, records: PurgeRecords, purger: Purger, folders: Folders) -> None:
        self._cache_directory = directory
        self._records = records
        self._purger = purger
        self._folders = folders
        # One for each process: that of the parent may have been held at the fork.
        self._mutexes = PerProcess(threading.Lock)

    @property
    def _mutex(self) -> threading.Lock:
        return self._mutexes.get()

    @guarded
    def apply_purges(self, purges: Sequence[Purge]) -> None:
        """Apply purges that other hosts have numbered, except those that were applied already.

        One thread does so at a time. If several threads applied the same purges without ``purge.lock``, the later ones would give
        them numbers above those of entries that other hosts have begun since.

        :param purges: the purges, with even numbers, and without a gap after the last one that was applied. Names may be short.
        """
        with store_errors():
            if purges:
                self._purger.apply(purges)

    def applied(self) -> int:
        """Return the number of the last purge that :meth:`apply_purges` has applied; 0: none."""
        with store_errors():
            return self._records.applied() if self._cache_directory.open_if_exists() else 0

    def purges_since(self, number: int) -> Sequence[Purge]:
        """Return the purges of this directory above a number, in order. Merged ones are returned as purges of everything."""
        with store_errors():
            return self._found_since(number) if self._cache_directory.open_if_exists() else ()

    def hard_purges(self) -> tuple[dict[str, int], int]:
        """Return each hard-purged name with its last number, and the highest number of the hard purges that were merged."""
        with store_errors():
            if not self._cache_directory.open_if_exists():
                return {}, 0
            found: dict[str, int] = {}
            for name, number in self._named_hard():
                found[name] = max(number, found.get(name, 0))
            return found, self._records.floors().all_as_one().hard

    def _named_hard(self) -> Iterator[tuple[str, int]]:
        # Waiting purges before the records that they become. A damaged record has no name: it counts for everything.
        yield from ((name, each.number) for each in self._records.waiting.read() if not each.soft for name in each.names)
        yield from ((record.name or EVERYTHING, record.hard) for record in self._records.all() if record.hard)

    def has_purged(self, name: str, number: int) -> bool:
        """Whether a hard purge of a name, with a number or a higher one, was applied here.

        :param name: the name; it may be short.
        """
        with store_errors():
            return self._cache_directory.open_if_exists() and self._records.last_hard(name) >= number

    def _found_since(self, number: int) -> Sequence[Purge]:
        found = [purge for purge in self._records.waiting.read() if purge.number > number]
        # Records before floors, as in :meth:`PurgeRecords.since`. Merged and damaged ones have no names: they count for everything.
        for record in (*self._records.all(), self._records.floors().all_as_one()):
            names = (record.name or EVERYTHING,)
            found += [Purge(names, record.hard, False, record.hard / 1e9)] if record.hard > number else []
            found += [Purge(names, soft, True, at) for soft, at in record.softs if soft > number]
        return sorted(found, key=lambda purge: purge.number)

    def move(self, slots: Sequence[int]) -> None:
        """Move the stamps in some slots, so that the copies of their keys are loaded again."""
        stamps = self._cache_directory.table
        if stamps is not None:
            stamps.move_each(slots)

    def move_all(self) -> None:
        """Move all stamps, so that all copies are loaded again."""
        stamps = self._cache_directory.table
        if stamps is not None:
            stamps.move_all()

    def remove_begun_before(self, address: str, moment: float) -> None:
        """Remove an entry that another host has removed, unless the entry here was begun later.

        :param address: the digest of its key.
        :param moment: the time of the removal, in seconds since the epoch.
        """
        with store_errors():
            if not self._cache_directory.open_if_exists():
                return
            found = self._folders.found(address, frozenset({"entry", "note"}))
            try:
                head = read_head(self._folders.file(address))
            except BrokenEntry:
                return
            if head is not None and head.entry.started <= moment:
                self._folders.drop(found, self._cache_directory.table)
