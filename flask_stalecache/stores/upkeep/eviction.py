"""Size limits: before a write would exceed one, notes without an entry and the least used entries are evicted.

The least used are guessed from a sample of some folders, as Redis does: no list of all keys is kept. A key whose mark is set was
used since the last look; it gets a second chance (CLOCK). No lock guards the counts: each look at a folder corrects them.

Of a sample, notes without an entry go first, and pages whose origin fails go last, since they can't be built again. Visitors
choose the keys of notes, so those without an entry have a limit of their own, within which they evict each other.
"""

from __future__ import annotations

import math
import random
import time
from contextlib import suppress

from ...errors import BrokenEntry, StoreError
from ...filesystem.atomic import read_file
from ...filesystem.system import free_bytes
from ..base import NOTES_SHARE
from ..entry_file import read_head
from ..folders import BILLION, Folders, KeyFiles, Removed
from ..formats import note_format
from ..formats.summary import is_failing
from ..purges.purge_records import PurgeRecords
from ..table.stamps import FOLDERS, SEQ_SLOT, OwnCounts, Stamps, digest_mark

#: Minimum number of keys in a sample, so that its least used are a fair guess at the least used of all.
SAMPLE = 32
#: Maximum number of keys of one folder in a sample; of the others only the names are read.
MOST = 512
#: The part of a sample (1/n) that is evicted before the next one is taken, if that is enough.
SHARE = 8
#: Minimum number of evictions at a time, so that a full cache does not evict at every write.
BATCH = 4
ROUNDS = 64
#: Ratio of counted to measured bytes above which the counts are taken for wrong.
_TRUSTED = 1.5
#: Maximum seconds that a write spends on counting again.
_COUNTING = 0.02
#: Maximum bytes of notes without an entry if there is no ``max_size``: these notes are limited all the same.
NOTES_WITHOUT_LIMIT = 64 * 1024 * 1024
#: Seconds after which a process without a table counts all files again.
_COUNTED_EVERY = 60.0
_EVICTED, _NOTE_EVICTED = "evicted_for_size", "removed_notes"


class Evictor:
    """Keeps a cache directory within its limits.

    :param folders: the files.
    :param max_size: limit of the bytes on disk; ``None``: no limit.
    :param min_free: bytes that stay free on the disk.
    :param records: the records of purges, which take a part of ``max_size``.
    """

    def __init__(self, folders: Folders, max_size: int | None, min_free: int, records: PurgeRecords) -> None:
        self.folders = folders
        self.max_size = max_size
        self.min_free = min_free
        self._records = records
        self._candidates, self._lone_notes = _Candidates([]), _Candidates([])
        self._own_counts: OwnCounts | None = None

    def reserve(self, folder: int, size: int, stamps: Stamps | None, *, is_lone: bool = False) -> None:
        """Make room for some bytes, and count them.

        They are counted before they are written, so that concurrent writers know of each other.

        :param folder: the folder that they are written to.
        :param stamps: the table with the counts; without it this process counts for itself.
        :param is_lone: whether they are of a note without an entry.
        :raises StoreError: if there is no room.
        """
        if self.max_size is not None and size > self.max_size:
            raise StoreError(f"no room for {size} bytes under STALECACHE_MAX_SIZE")
        stamps = self._counts(stamps)
        if is_lone and stamps is not None:
            self._limit_notes(size, stamps)
        for _ in range(ROUNDS):
            _grow(stamps, folder, size, is_lone)
            missing = self._missing(size, stamps)
            if missing <= 0:
                return
            _grow(stamps, folder, -size, is_lone)
            if stamps is None or not self._evict(missing, stamps, Removed(), math.inf):
                break
        raise StoreError(f"no room for {size} bytes under STALECACHE_MAX_SIZE and above STALECACHE_MIN_FREE")

    def release(self, folder: int, size: int, stamps: Stamps | None, *, is_lone: bool = False) -> None:
        """Take back a reservation whose write failed."""
        _grow(stamps or self._own_counts, folder, -size, is_lone)

    def _counts(self, stamps: Stamps | None) -> Stamps | None:
        """Return the table; without one, the counts of this process, renewed every minute; ``None``: nothing is counted."""
        if stamps is not None or self.max_size is None:
            self._own_counts = None
            return stamps
        own = self._own_counts
        if own is None or time.monotonic() - own.since >= _COUNTED_EVERY:
            own = self._own_counts = OwnCounts()
            for number in range(FOLDERS):
                folder = self.folders.look(number)
                own.count(number, folder.size, folder.entries, folder.notes)
        return own

    def enforce(self, stamps: Stamps | None, removed: Removed, until: float) -> bool:
        """Evict until the limits hold, which may have been lowered. Return true if they do, or if evicting did not help.

        :param removed: counts the removals.
        :param until: the monotonic time at which to stop; the next call goes on.
        """
        in_vain, at_first = 0, removed["bytes"]
        while stamps is not None and in_vain < ROUNDS and (missing := self._missing(0, stamps)) > 0:
            before = removed["bytes"]
            if not self._evict(missing, stamps, removed, until):
                return True
            if time.monotonic() >= until:
                return removed["bytes"] == at_first
            in_vain = in_vain + 1 if removed["bytes"] == before else 0
        return True

    def _missing(self, size: int, stamps: Stamps | None) -> int:
        over = 0
        if self.max_size is not None and stamps is not None:
            records = self._records.size(int(stamps.table[SEQ_SLOT]))
            # Under a limit of less than a megabyte the records could leave no room for entries.
            over = sum(stamps.folder_sizes) + min(records, self.max_size // 4) - self.max_size
        if self.min_free:
            over = max(over, self.min_free + size - free_bytes(self.folders.directory.path))
        return over

    def _limit_notes(self, size: int, stamps: Stamps) -> None:
        """Evict the oldest notes without an entry until there is room for some bytes within their limit."""
        limit, removed = NOTES_WITHOUT_LIMIT if self.max_size is None else self.max_size // NOTES_SHARE, Removed()
        for _ in range(ROUNDS):
            over = sum(stamps.folder_notes) + size - limit
            if over <= 0:
                return
            if self._lone_notes.is_over or self._lone_notes.gone >= self._lone_notes.due:
                self._lone_notes = _Candidates(self._sample_notes(stamps))
            if not self._lone_notes.is_sample:
                return
            self._evict_from(self._lone_notes, over, stamps, removed, math.inf)

    def _evict(self, missing: int, stamps: Stamps, removed: Removed, until: float) -> bool:
        """Remove the least used of a sample. Return false if the sample had no keys."""
        candidates = self._candidates
        if candidates.is_over or candidates.gone >= candidates.due:
            sample, is_sound = self._sample(stamps)
            if not is_sound:
                # The counts include files that were deleted by hand or lost in a crash: count again before evicting more.
                self._measure(stamps)
                return True
            candidates = self._candidates = _Candidates(sample)
        self._evict_from(candidates, missing, stamps, removed, until)
        return candidates.is_sample

    def _evict_from(self, candidates: _Candidates, missing: int, stamps: Stamps, removed: Removed, until: float) -> None:
        freed = gone = 0
        while freed < missing or (gone < BATCH and candidates.gone < candidates.due):
            found = candidates.next()
            if found is None:
                break
            if candidates.spares and self._is_needed(found):
                candidates.spare(found)
            elif self._evict_one(found, stamps, removed):
                freed, gone, candidates.gone = freed + found.size, gone + 1, candidates.gone + 1
            if time.monotonic() >= until:
                break

    def _is_needed(self, found: KeyFiles) -> bool:
        """Whether a page is inside its windows and its origin fails, so that it could not be built again."""
        if found.entry is None or found.note is None:
            return False
        with suppress(OSError, BrokenEntry):
            note, now = read_file(self.folders.file(found.name, ".note")), time.time()
            if note is not None and is_failing(note_format.decode(note), now):
                head = read_head(self.folders.file(found.name))
                return head is not None and head.entry.in_any_window(now)
        return False

    def _evict_one(self, found: KeyFiles, stamps: Stamps, removed: Removed) -> bool:
        mark = digest_mark(found.name)
        if stamps.marks[mark]:
            # A second chance. The time of use is written before the mark is cleared: another process that evicts must not see
            # the key unmarked and old.
            self.folders.note_use(found.name, int(time.time() * BILLION))
            stamps.marks[mark] = 0
            return False
        # Taking the lock needs time, in which the key may be used: the mark is looked at once more under the lock.
        why = _NOTE_EVICTED if found.entry is None else _EVICTED
        return self.folders.remove(found, stamps, why, removed, spare_used=True)

    def _sample(self, stamps: Stamps) -> tuple[list[KeyFiles], bool]:
        """Return the keys of some folders, and whether the counts of these folders are about right."""
        filled = [number for number, size in enumerate(stamps.folder_sizes) if size]
        random.shuffle(filled)
        sample: list[KeyFiles] = []
        counted, measured = 0, 0.0
        while filled and len(sample) < SAMPLE:
            number = filled.pop()
            counted += stamps.folder_sizes[number]
            folder = self.folders.look(number, MOST)
            sample += folder.keys
            if folder.is_whole:
                measured += folder.size
                stamps.count(number, folder.size, folder.entries, folder.notes)
            else:
                measured += stamps.folder_sizes[number] * folder.listed / max(1, stamps.folder_entries[number])
        return sample, counted <= measured * _TRUSTED

    def _sample_notes(self, stamps: Stamps) -> list[KeyFiles]:
        """Return notes without an entry of some folders."""
        filled = [number for number, size in enumerate(stamps.folder_notes) if size]
        random.shuffle(filled)
        sample: list[KeyFiles] = []
        while filled and len(sample) < SAMPLE:
            number = filled.pop()
            folder = self.folders.look(number, MOST, only_notes=True)
            sample += folder.keys
            if folder.is_whole:
                stamps.folder_notes[number] = folder.notes
        return sample

    def _measure(self, stamps: Stamps) -> None:
        until = time.monotonic() + _COUNTING
        for number in random.sample(range(FOLDERS), FOLDERS):
            folder = self.folders.look(number)
            stamps.count(number, folder.size, folder.entries, folder.notes)
            if time.monotonic() >= until:
                return


class _Candidates:
    """A sample of keys: notes without an entry, then entries, both in the order of their last use.

    :ivar due: number of evictions before another sample is taken.
    :ivar gone: number of evictions so far.
    :ivar is_sample: whether the sample had any keys.
    :ivar spares: whether pages that are needed are still spared.
    """

    def __init__(self, sample: list[KeyFiles]) -> None:
        self.is_sample = bool(sample)
        self.due = max(1, len(sample) // SHARE)
        self.gone = 0
        self.spares = True
        self._most = max(1, len(sample) // 2)
        self._keys = sorted(sample, key=lambda found: (found.entry is not None, found.used_ns), reverse=True)
        self._spared: list[KeyFiles] = []

    @property
    def is_over(self) -> bool:
        """Whether the sample is used up: no key may be taken, or half are gone and the rest are hardly the least used of all."""
        return self.gone >= self._most or not (self._keys or self._must_take_spared)

    @property
    def _must_take_spared(self) -> bool:
        # If anything else could be evicted, another sample is taken first.
        return bool(self._spared) and not (self.spares and self.gone)

    def spare(self, found: KeyFiles) -> None:
        """Put a key aside that was taken, until nothing else is left."""
        self._spared.append(found)

    def next(self) -> KeyFiles | None:
        """Take the key that goes next out of the sample; ``None`` if no key is left."""
        # Other threads take from the same lists.
        with suppress(IndexError):
            if self.is_over:
                return None
            if self._keys:
                return self._keys.pop()
            self.spares = False
            return self._spared.pop(0)
        return None


def _grow(stamps: Stamps | None, folder: int, size: int, is_lone: bool) -> None:
    if stamps is not None:
        stamps.grow(folder, size, notes=size if is_lone else 0)
