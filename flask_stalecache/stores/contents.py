"""What is stored, one after the other: for who looks through all of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

from .. import note as note_format
from ..errors import BrokenEntry
from ..keys import digest
from ..note import NOTHING, Note
from ..stats import Counters
from ..variants import INDEX
from .base import Stored, Usage
from .disk import read_file
from .folders import BILLION, Folders, Found
from .heads import Head, read_head
from .names import Known, Names, left_of
from .stamps import FOLDERS, Stamps, slot_of


class Contents:
    """What a cache directory holds.

    :param folders: its files.
    :param names: what was purged.
    :param counters: where broken entries are counted.
    """

    def __init__(self, folders: Folders, names: Names, counters: Counters) -> None:
        self._folders = folders
        self._names = names
        self._counters = counters

    def usage(self, stamps: Stamps | None) -> Usage:
        """Return how much there is, as it was counted; without a table by counting it now."""
        if stamps is not None:
            return Usage(sum(stamps.folder_entries), sum(stamps.folder_sizes))
        looks = [self._folders.look(number) for number in range(FOLDERS)]
        return Usage(sum(folder.entries for folder in looks), sum(folder.size for folder in looks))

    def walk(self, stamps: Stamps | None) -> Iterator[Stored]:
        """Yield what is stored and can be read, folder by folder."""
        known = Known(self._names, stamps)
        for number in range(FOLDERS):
            for name, kinds in self._folders.listed(number).keys.items():
                stored = self._stored(name, kinds, stamps, known) if "entry" in kinds else None
                if stored is not None:
                    yield stored

    def _stored(self, name: str, kinds: frozenset[str], stamps: Stamps | None, known: Known) -> Stored | None:
        try:
            found = self._folders.found(name, kinds - {"lock"})
            head = None if found.entry is None else read_head(self._folders.path(name))
            if head is None or head.entry.status == INDEX:
                return None
            if digest(head.entry.key) != name:
                raise BrokenEntry("another key")
        except (BrokenEntry, OSError):
            self._counters.count("broken_entries")
            return None
        return self._as_purged(head, found, stamps, known)

    def _as_purged(self, head: Head, found: Found, stamps: Stamps | None, known: Known) -> Stored | None:
        entry = left_of(head.entry, known.since(head.entry))
        if entry is None:
            return None
        is_marked = stamps is not None and stamps.marks[slot_of(found.name)] != 0
        used = time.time() if is_marked else found.used_ns / BILLION
        return Stored(entry, head.length, found.size, used, self._note(found))

    def _note(self, found: Found) -> Note:
        # A note is only advice: one that can't be read hides no entry.
        with suppress(OSError):
            data = None if found.note is None else read_file(self._folders.path(found.name, ".note"))
            return NOTHING if data is None else note_format.decode(data)
        return NOTHING
