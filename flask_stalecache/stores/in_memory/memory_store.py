"""The memory store: entries of one process, for tests, read-only containers and systems without file locks.

Which lock guards what:

============ ========================================================================================
nothing      hits
the guard    everything else: writes, loads, purges and evictions, each for some microseconds
key's lock   calls of the origin, by one thread at a time
============ ========================================================================================

Other processes do not see the entries. A forked child goes on with its own copy of them.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from ...config.settings import KEYS, Settings
from ...core.addressing.keys import digest
from ...core.guarded import guarded
from ...core.model.checks import Duration
from ...core.model.entry import Entry
from ...core.model.note import NOTHING, Note
from ...core.rules.variant_index import INDEX
from ...errors import ConfigError, StoreError
from ...filesystem.process import ProcessId, this_process
from ...stats.counters import Counters
from ..base import NOTES_SHARE, Checked, Copy, Stored, Usage
from ..formats.summary import is_failing
from ..purges.purge_record import PurgeRecord, left_of
from ..purges.purge_records import records_within
from .memory_lock import Guard, MemoryKeyLock
from .memory_purges import MemoryPurges

MIB = 1024 * 1024
#: Maximum number of pages with a failing origin that are spared when room is made.
_SPARED = 64
#: Maximum seconds between two sweeps, and the number of keys that one round of housekeeping looks at.
_PAUSE, _ROUND = 60.0, 1000
#: Seconds without use after which a note without an entry is removed.
_NOTE_AGE = 3600.0
_NO_RECORDS: Mapping[str, PurgeRecord] = {}


class _Kept(Copy):
    """Entry and note of a key. It is replaced whenever one of them is written.

    :ivar used_at: time of the last use that a sweep has seen, or of the write, in seconds since the epoch.
    :ivar generation: the store's generation at the last load; a copy of an earlier one is loaded again. -1: not loaded yet.
    """

    __slots__ = ("generation", "used_at")

    def __init__(self, key: str, entry: Entry | None, note: Note, stamp: int, seq: int) -> None:
        super().__init__(key, entry, note, stamp, slot=0, seq=seq)
        self.used_at = time.time()
        self.generation = -1

    @property
    def purged_by(self) -> tuple[str, ...]:
        """The names by which entry and note are purged."""
        names = () if self.entry is None else self.entry.names
        return (*names, *self.note.names) if self.note.names else names


class MemoryStore:
    """Entries in the memory of this process.

    :param max_size: limit of their estimated bytes of memory; the least used entries are evicted. Default 100 MiB.
    :param inactive: seconds without use after which an entry past its stale windows is removed. Default 86400.
    :param counters: counts removed entries. Default: counters of its own.
    :raises ConfigError: for a number that is not accepted.
    """

    def __init__(self, *, max_size: int | None = 100 * MIB, inactive: Duration = 86400, counters: Counters | None = None) -> None:
        limit: int | None = KEYS["MAX_SIZE"].check("max_size", max_size)
        if limit is None:
            raise ConfigError("max_size=None: a store in memory needs a limit: give bytes for each process as STALECACHE_MAX_SIZE")
        self.max_size = limit
        self.is_private = True
        self.counters = Counters() if counters is None else counters
        self._inactive: float = KEYS["INACTIVE"].check("inactive", inactive)
        #: In the order in which they were written, or considered for eviction since.
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        #: The notes without an entry; then the bytes of everything kept, and of these notes.
        self._notes: OrderedDict[str, _Kept] = OrderedDict()
        self._size = self._notes_size = 0
        self._purges = MemoryPurges(records_within(limit))
        self._evicted = 0
        self._stamps = itertools.count(1)
        self._generation = 0
        self._guards: dict[ProcessId, Guard] = {}
        self._to_sweep: list[str] = []
        self._next_sweep = 0.0

    def __repr__(self) -> str:
        return f"MemoryStore(max_size={self.max_size})"

    def _guard(self) -> Guard:
        process = this_process()
        # setdefault is atomic, so that two threads get the same guard.
        return self._guards.get(process) or self._guards.setdefault(process, Guard())

    @property
    def _mutex(self) -> threading.Lock:
        return self._guard().lock

    def _count_evicted(self) -> None:
        """Count the evictions, now that the mutex is free: a signal's receiver may call the store."""
        if self._evicted and (evicted := self._take_evicted()):
            self.counters.count("evicted_for_size", evicted)

    @guarded
    def _take_evicted(self) -> int:
        evicted, self._evicted = self._evicted, 0
        return evicted

    # -- reading -------------------------------------------------------------------------------------------------

    def lookup(self, key: str) -> Copy | None:
        """Return the copy of a key, unless it was purged since, and mark it as used: no system call, no lock."""
        kept = self._kept.get(key)
        if kept is None or kept.generation != self._generation:
            return None
        if kept.seq != self._purges.seq and not self._outlived(kept):
            return None
        kept.used = True
        return kept

    def _outlived(self, kept: _Kept) -> bool:
        # The number is read before the records: a purge that begins in between shows at the next lookup.
        seq = self._purges.seq
        if self._purges.since(kept.seq, kept.purged_by):
            return False
        kept.seq = seq
        return True

    def load(self, key: str) -> Copy:
        """Return entry and note of a key, with the purges since the entry was begun applied."""
        copy = self._load(key)
        self._count_evicted()
        return copy

    @guarded
    def _load(self, key: str) -> Copy:
        kept, seq = self._kept.get(key), self._purges.seq
        if kept is None:
            return Copy(key, None, NOTHING, 0, 0, seq)
        entry = None if kept.entry is None else self._purges.outlive(kept.entry)
        note = self._purges.left_of_note(kept.note)
        if entry is None and kept.entry is not None:
            # The purged entry stays until the next sweep: the caller of the purge may ask which entries it has purged.
            return Copy(key, None, note, kept.stamp, 0, seq)
        if entry is not kept.entry or note is not kept.note:
            kept = self._put(key, entry, note, seq, kept.stamp)
            if kept is None:
                return Copy(key, None, NOTHING, 0, 0, seq)
        kept.seq, kept.generation = seq, self._generation
        return kept

    def moved(self, copy: Copy) -> bool:
        """Whether the copy's key was written or purged since the copy was loaded."""
        kept = self._kept.get(copy.key)
        if kept is None or kept.stamp != copy.stamp:
            return kept is not None or copy.stamp != 0
        names = () if copy.entry is None else copy.entry.names
        return bool(self._purges.since(copy.seq, (*names, *copy.note.names)))

    def touch(self, copy: Copy) -> None:
        """Mark a copy that came from :meth:`load` as used."""
        copy.used = True
        kept = self._kept.get(copy.key)
        if kept is not None:
            kept.used = True

    def seq(self) -> int:
        """Return the last purge number."""
        return self._purges.seq

    def seq_without_io(self) -> int:
        """Return the last purge number."""
        return self._purges.seq

    # -- writing -------------------------------------------------------------------------------------------------

    def write(self, entry: Entry) -> bool:
        """Replace the key's entry. Return false if the new one was purged since it was begun.

        :raises StoreError: if it is larger than the store.
        """
        is_written = self._write(entry)
        self._count_evicted()
        return is_written

    @guarded
    def _write(self, entry: Entry) -> bool:
        left, old = self._purges.outlive(entry), self._kept.get(entry.key)
        if left is None:
            return False
        note = NOTHING if old is None else self._purges.left_of_note(old.note)
        self._put(entry.key, left, note, self._purges.seq, next(self._stamps))
        return True

    def write_note(self, key: str, note: Note) -> None:
        """Replace a key's note; an empty note removes it."""
        self._write_note(key, note)
        self._count_evicted()

    @guarded
    def _write_note(self, key: str, note: Note) -> None:
        old = self._kept.get(key)
        if old is None and note == NOTHING:
            return
        # Purges up to this number are known not to affect entry and note.
        seq = self._purges.seq if old is None else old.seq
        seq = min(seq, note.seq) if note.names else seq
        self._put(key, None if old is None else old.entry, note, seq, next(self._stamps))

    @guarded
    def remove(self, key: str) -> None:
        """Remove a key's entry."""
        old = self._kept.get(key)
        if old is not None and old.entry is not None:
            self._put(key, None, old.note, old.seq, next(self._stamps))

    def lock(self, key: str) -> MemoryKeyLock:
        """Return a new lock of a key, which excludes the other threads of this process."""
        guard = self._guard()
        return MemoryKeyLock(key, guard.holders, guard.key_lock)

    def purge(self, *names: str, soft: bool) -> None:
        """Purge all entries that have one of the names and were begun before now."""
        if names:
            self._purge(names, soft)

    @guarded
    def _purge(self, names: tuple[str, ...], soft: bool) -> None:
        self._purges.add(names, soft=soft)

    def _put(self, key: str, entry: Entry | None, note: Note, seq: int, stamp: int) -> _Kept | None:
        """Replace the entry and note of a key and return them; ``None`` if there are neither. The guard is held."""
        old = self._kept.get(key)
        if entry is None and note == NOTHING:
            self._drop(old)
            return None
        kept = _Kept(key, entry, note, stamp, seq)
        if kept.size > self.max_size:
            raise StoreError(f"no room for {kept.size} bytes under STALECACHE_MAX_SIZE")
        self._drop(old)
        self._make_room(kept)
        self._kept[key] = kept
        self._size += kept.size
        if entry is None:
            self._notes[key] = kept
            self._notes_size += kept.size
        return kept

    def _drop(self, kept: _Kept | None) -> None:
        if kept is not None and self._kept.pop(kept.key, None) is not None:
            self._size -= kept.size
            if self._notes.pop(kept.key, None) is not None:
                self._notes_size -= kept.size

    def _make_room(self, new: _Kept) -> None:
        """Evict the oldest notes without an entry that exceed their share, then keys not used since the last look (CLOCK)."""
        while new.entry is None and self._notes and self._notes_size + new.size > self.max_size // NOTES_SHARE:
            self._drop(next(iter(self._notes.values())))
            self._evicted += 1
        # Each round evicts, clears a mark, or spares a page that could not be built again. Only a few are spared, so this ends.
        spares, now = _SPARED, time.time()
        while self._kept and self._size + new.size > self.max_size:
            oldest = next(iter(self._kept.values()))
            if oldest.used:
                oldest.used, oldest.used_at = False, now
                self._kept.move_to_end(oldest.key)
            elif spares and oldest.entry is not None and is_failing(oldest.note, now) and oldest.entry.in_any_window(now):
                spares -= 1
                self._kept.move_to_end(oldest.key)
            else:
                self._drop(oldest)
                self._evicted += 1

    # -- contents ------------------------------------------------------------------------------------------------

    def walk(self) -> Iterator[Stored]:
        """Yield all entries."""
        yield from self._walk(_NO_RECORDS)

    def recall(self, *names: str) -> Callable[[], Iterator[Stored]]:
        """Return a function that walks through the entries that have one of the names now, even after their purge."""
        before = {name: self._purges.record(name) for name in names}
        return lambda: (each for each in self._walk(before) if not before.keys().isdisjoint(each.entry.names))

    def _walk(self, before: Mapping[str, PurgeRecord]) -> Iterator[Stored]:
        """Yield all entries.

        :param before: earlier records of purges by their names, which are used instead of the present ones.
        """
        for key in self._keys():
            kept = self._kept.get(key)
            if kept is None or kept.entry is None or kept.entry.status == INDEX:
                continue
            records = self._purges.since(kept.entry.seq, kept.entry.names)
            entry = left_of(kept.entry, [before.get(record.name, record) for record in records])
            if entry is not None:
                used = time.time() if kept.used else kept.used_at
                yield Stored(replace(entry, body=b""), len(entry.body), kept.size, used, kept.note)

    @guarded
    def _keys(self) -> list[str]:
        return list(self._kept)

    def usage(self) -> Usage:
        """Return the number of entries and their estimated bytes of memory."""
        return Usage(len(self._kept) - len(self._notes), self._size)

    def verify(self, *, fix: bool) -> Iterator[Checked]:
        """Yield each entry: in memory all of them are sound.

        :param fix: has no effect.
        """
        for key in self._keys():
            kept = self._kept.get(key)
            if kept is not None and kept.entry is not None:
                yield Checked(f"memory:{digest(key)}", key, "")

    # -- upkeep --------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Accept every system: this store has no requirements."""

    def tick(self) -> None:
        """Sweep a little, if it is due."""
        if not self._to_sweep:
            if time.monotonic() < self._next_sweep:
                return
            self._next_sweep = time.monotonic() + min(_PAUSE, max(1.0, self._inactive / 10))
            self._to_sweep = self._keys()
        part, self._to_sweep = self._to_sweep[:_ROUND], self._to_sweep[_ROUND:]
        self._sweep(part)

    def sweep(self) -> Mapping[str, int]:
        """Do a whole sweep now; return the number of removals by reason, and the ``bytes`` freed."""
        return self._sweep(self._keys())

    def _sweep(self, keys: list[str]) -> dict[str, int]:
        removed = Counter[str]({"bytes": 0})
        for key in keys:
            why, size = self._remove_if_due(key)
            if why:
                removed[why] += 1
                removed["bytes"] += size
                self.counters.count(why)
        self._measure()
        return dict(removed)

    @guarded
    def _remove_if_due(self, key: str) -> tuple[str, int]:
        """Remove the entry and note of a key if that is due. Return the counter for it, or "" if they stay, and the bytes freed."""
        kept = self._kept.get(key)
        why = "" if kept is None else self._why_remove(kept, time.time())
        if kept is None or not why:
            return "", 0
        self._drop(kept)
        return why, kept.size

    @guarded
    def _measure(self) -> None:
        # A fork or an exception may have come in the middle of a write.
        self._size = sum(kept.size for kept in self._kept.values())
        self._notes_size = sum(kept.size for kept in self._notes.values())

    def _why_remove(self, kept: _Kept, now: float) -> str:
        """Return the counter for the removal of an entry and its note, or "" if they stay."""
        entry = kept.entry
        if entry is not None and self._purges.outlive(entry) is None:
            return "removed_purged"
        if kept.used or kept.used_at > now:
            # A time in the future, from before a clock stepped back, would keep it for ever.
            kept.used, kept.used_at = False, now
        idle = now - kept.used_at
        if entry is None:
            return "removed_notes" if idle > min(self._inactive, _NOTE_AGE) else ""
        return "" if idle <= self._inactive or entry.in_any_window(now) else "evicted_inactive"

    def forget(self) -> None:
        """Let everything be loaded again: after a fork, say. The entries stay, since they are nowhere else."""
        self._generation += 1


def memory_store(settings: Settings, counters: Counters) -> MemoryStore:
    """Return the memory store of an app, with the configured limits."""
    return MemoryStore(max_size=settings.max_size, inactive=settings.inactive, counters=counters)
