"""The purges of the memory store: the same records as in the file store, with the same limit on their number.

Hits read without a lock. So a record is written before the last number is raised, and a merged record is in its floor before it is
removed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from ...core.addressing.keys import digest
from ...core.model.entry import Entry
from ...core.model.note import NOTHING, Note
from ..purges.purge_floors import Floors
from ..purges.purge_record import PurgeRecord, left_of


class MemoryPurges:
    """All purges of one store. The caller of :meth:`add` holds the store's lock.

    :param most: the number of records above which the oldest are merged.
    :ivar seq: the last purge number; 0: nothing was purged.
    """

    def __init__(self, most: int) -> None:
        self.seq = 0
        self._most = most
        self._records: dict[str, PurgeRecord] = {}
        self._floors = Floors(None)

    def add(self, names: Iterable[str], *, soft: bool) -> None:
        """Purge the entries with one of the names that were begun before now."""
        number, now = max(self.seq + 1, time.time_ns()), time.time()
        for name in names:
            self._records[name] = self.record(name).purged(number, now, soft=soft)
        if len(self._records) > self._most:
            self._merge()
        self.seq = number

    def _merge(self) -> None:
        oldest = sorted(self._records.values(), key=lambda record: record.last)[: len(self._records) - self._most * 3 // 4]
        for record in oldest:
            self._floors.raise_to(record, digest(record.name))
        for record in oldest:
            del self._records[record.name]

    def record(self, name: str) -> PurgeRecord:
        """Return the record of a name; an empty one if it has none."""
        return self._records.get(name) or PurgeRecord(name)

    def since(self, seq: int, names: Sequence[str]) -> list[PurgeRecord]:
        """Return the records of the names that were purged after a number; those of a floor have no name."""
        if seq == self.seq:
            return []
        found = [record for name in names if (record := self._records.get(name)) is not None]
        return [record for record in (*found, *map(self._floors.of, names)) if seq < record.last]

    def outlive(self, entry: Entry) -> Entry | None:
        """Apply the purges since an entry was begun: return it, return it without freshness, or return ``None``."""
        return left_of(entry, self.since(entry.seq, entry.names))

    def left_of_note(self, note: Note) -> Note:
        """Return a note; an empty one if a hard purge of one of its names has ended it."""
        return NOTHING if any(note.seq < record.hard for record in self.since(note.seq, note.names)) else note
