"""The sweep: removes unused, purged and left-over files, a few milliseconds at a time, one process at a time.

``sweep.lock`` guards its progress, which is a file, so that the next process goes on where the last one stopped. What is removed:

==================== ============================================================================================
purged entry         at once, if anything was purged since the last sweep that looked for purged entries
entry                unused for ``inactive`` seconds, and past its stale windows
note without entry   unused for ``inactive`` seconds, or an hour if that is less
broken entry         at once
lock file            of a killed worker: without entry and note idle for a minute; else idle for an hour
unfinished file      an hour old: its writer was killed; likewise a warming request or its outcome
record of a purge    a day old, and a whole sweep since has found no entry that needs it
==================== ============================================================================================

Entries and notes are removed under the key's lock, and only if they have not changed since they were looked at.
"""

from __future__ import annotations

import gc
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from ...core.model.moments import Uptime
from ...core.packets.warm_data import FILES as WARM_FILES
from ...errors import BrokenEntry
from ...filesystem.atomic import files_in, read_file, remove_file, status_of, write_file
from ...filesystem.directory import Inside
from ...filesystem.locks import FileKeyLock, held
from ...filesystem.uptime import uptime
from ...stats.worker_state import is_left_to_worker
from ..entry_file import EntryHead, read_head
from ..folders import BILLION, Folders, KeyFiles, Listed, Removed
from ..formats import entry_format
from ..purges.purge_records import CachedPurgeRecords, PurgeRecords
from ..table.stamps import FOLDERS, SEQ_SLOT, Stamps, digest_mark
from . import sweep_progress
from .eviction import Evictor
from .sweep_progress import Progress

#: Seconds of work at a time, since the process has requests to answer.
BUDGET = 0.01
#: If listing a folder takes longer, in seconds, the next folder is left to the next tick.
LISTING = 0.005
#: Maximum seconds between two sweeps; fewer if ``inactive`` is short.
PAUSE = 60.0
#: Seconds after which an idle file counts as left over.
LEFTOVER_AGE = 3600.0
#: Counter of removed purged entries.
_PURGED = "removed_purged"
#: Unfinished files of the table, of the sweep's progress, of records and of their last number; and warming requests.
_LEFTOVER = re.compile(rf"(stamps-\d+|sweep|last|floors|reserve|waiting|[0-9a-f]{{40}})\.[0-9a-f]{{16}}\.tmp|{WARM_FILES.pattern}")
#: Maximum number of purged names in use that are noted; if there are more, this sweep removes no record.
_MANY = 1000
#: Records removed at a time, since purges wait meanwhile.
_BATCH = 200


class _Rest:
    """The keys of a folder that are still to be looked at, in order.

    :ivar after: the last key that was taken.
    :ivar took: seconds that listing them took.
    """

    def __init__(self, folder: int = -1, after: str = "", listed: Listed | None = None) -> None:
        self.folder = folder
        self.after = after
        self.took = 0.0
        self._kinds = {} if listed is None else listed.keys
        self._left = sorted((name for name in self._kinds if name > after), reverse=True)

    def __iter__(self) -> Iterator[tuple[str, frozenset[str]]]:
        while self._left:
            self.after = name = self._left.pop()
            yield name, self._kinds[name]

    @property
    def is_over(self) -> bool:
        """Whether no key is left."""
        return not self._left


class Sweeper:
    """Sweeps one cache directory.

    :param folders: the files.
    :param records: the records of purges.
    :param evictor: enforces the limits, which may have been lowered since the entries were written.
    :param inactive: seconds without use after which an entry past its stale windows is removed.
    :param lock: returns a lock of the whole directory.
    """

    def __init__(
        self, folders: Folders, records: PurgeRecords, evictor: Evictor, inactive: float, lock: Callable[[str], FileKeyLock]
    ) -> None:
        self.folders = folders
        self.records = records
        self.evictor = evictor
        self.inactive = inactive
        self._lock = lock
        self._pause = min(PAUSE, max(1.0, inactive / 10))
        #: The progress, if the disk is too full to write it: then this process goes on from it.
        self._unsaved: Progress | None = None
        #: The rest of the folder in which this process has stopped.
        self._rest = _Rest()
        self._known = CachedPurgeRecords(records, None)
        self._removed = Removed()

    def tick(self, stamps: Stamps | None) -> None:
        """Sweep for a few milliseconds if that is due and no other process does it. A worker does it for all web processes."""
        if not self._is_due(self._progress()) or is_left_to_worker(self.folders.directory.at(".")):
            return
        lock = self._lock("sweep")
        if not lock.acquire():
            return
        try:
            progress = self._progress()
            if self._is_due(progress):
                with _collecting_later():
                    self._sweep(progress, stamps, time.monotonic() + BUDGET)
                self._note(progress)
        finally:
            lock.release()

    def sweep(self, stamps: Stamps | None) -> dict[str, int]:
        """Do a whole sweep at once; return the number of removals by reason, and the ``bytes`` freed.

        :raises StoreError: if another process holds the lock for some seconds, since it does a whole sweep too.
        """
        with held(self._lock("sweep")):
            progress, self._removed = self._progress(), Removed({"bytes": 0})
            progress.restart()
            self._sweep(progress, stamps, math.inf)
            self._note(progress)
            return dict(self._removed)

    def _note(self, progress: Progress) -> None:
        self._unsaved = progress
        write_file(self._state(), sweep_progress.encode(progress), int(time.time() * BILLION))
        self._unsaved = None

    def _progress(self) -> Progress:
        return self._unsaved or sweep_progress.decode(read_file(self._state()))

    def _state(self) -> Inside:
        return self.folders.directory.at("sweep")

    def _is_due(self, progress: Progress) -> bool:
        # A time too far ahead was written before the clock stepped back: it must not delay the sweep.
        return not time.time() < progress.next_at <= time.time() + self._pause

    def _sweep(self, progress: Progress, stamps: Stamps | None, until: float) -> None:
        if not self.evictor.enforce(stamps, self._removed, until):
            return
        self._known = self._known if self._known.is_of(stamps) else CachedPurgeRecords(self.records, stamps)
        while True:
            if not progress.is_begun:
                self._begin(progress, stamps)
            if self._sweep_folder(progress, stamps, until):
                progress.folder += 1
                progress.restart_folder()
            if progress.folder == FOLDERS:
                self._end(progress, stamps, until)
                return
            # Listing a large folder takes long if its names are not in the page cache, so it gets a tick of its own.
            if time.monotonic() >= until or (self._rest.took > LISTING and until < math.inf):
                return

    def _begin(self, progress: Progress, stamps: Stamps | None) -> None:
        progress.began = self.records.last_number() if stamps is None else max(0, int(stamps.table[SEQ_SLOT]))
        progress.began_at, up = time.time(), uptime()
        progress.boot, progress.began_up = up.boot, up.seconds
        progress.looks = progress.began != progress.checked or bool(self._old_records(progress))
        progress.in_use, progress.escaped, progress.is_begun = [], False, True
        # The sweep is due until it is over.
        progress.next_at = 0.0

    def _end(self, progress: Progress, stamps: Stamps | None, until: float) -> None:
        if progress.looks:
            progress.checked = progress.checked if progress.escaped else progress.began
            if stamps is not None:
                self._remove_old_records(progress, stamps, until)
        for folder in (".", "names"):
            names = [entry.name for entry in files_in(self.folders.directory.at(folder)) if _LEFTOVER.fullmatch(entry.name)]
            _remove_old([self.folders.directory.at(f"{folder}/{name}") for name in names], time.time())
        self._known, self._rest = CachedPurgeRecords(self.records, None), _Rest()
        progress.restart()
        progress.next_at = time.time() + self._pause

    # -- folders -------------------------------------------------------------------------------------------------

    def _sweep_folder(self, progress: Progress, stamps: Stamps | None, until: float) -> bool:
        """Go on with a folder, by one key at least, and return whether it is done."""
        rest, now = self._rest_of(progress), time.time()
        for name, kinds in rest:
            found = self.folders.found(name, kinds)
            progress.after = name
            if not self._sweep_key(found, progress, stamps, now):
                progress.size += found.size
                progress.entries += found.entry is not None
                progress.notes += found.lone_size
            if time.monotonic() >= until:
                break
        if not rest.is_over:
            return False
        if stamps is not None:
            stamps.count(progress.folder, progress.size, progress.entries, progress.notes)
        return True

    def _rest_of(self, progress: Progress) -> _Rest:
        """Return the rest of the folder: from memory if this process has stopped there, else from a new listing."""
        rest = self._rest
        if not progress.after or (rest.folder, rest.after) != (progress.folder, progress.after):
            start, listed = time.monotonic(), self.folders.listed(progress.folder)
            rest = self._rest = _Rest(progress.folder, progress.after, listed)
            rest.took = time.monotonic() - start
            if not progress.after:
                progress.size = listed.unfinished
                _remove_old(listed.leftovers, time.time())
        return rest

    def _sweep_key(self, found: KeyFiles, progress: Progress, stamps: Stamps | None, now: float) -> bool:
        """Remove the files of a key if they are due, and return whether they are gone."""
        try:
            return self._remove_key(found, progress, stamps, now)
        except OSError:
            # A bad block, say. It must not keep the sweep from other keys.
            self.folders.counters.count("sweep_failures")
            return False

    def _remove_key(self, found: KeyFiles, progress: Progress, stamps: Stamps | None, now: float) -> bool:
        if found.is_orphan:
            self._remove_idle_lock(found, now, LEFTOVER_AGE / 60)
            return False
        why = self._why_remove(found, progress, stamps, now)
        if why and self.folders.remove(found, stamps, why, self._removed):
            return True
        progress.escaped = progress.escaped or why == _PURGED
        self._remove_idle_lock(found, now, LEFTOVER_AGE)
        return False

    def _why_remove(self, found: KeyFiles, progress: Progress, stamps: Stamps | None, now: float) -> str:
        """Return the counter for the removal of a key's files, or "" if they stay."""
        try:
            # Before the last use is written, since that changes the file, and changed files are not removed.
            if progress.looks and found.entry is not None and self._is_purged(found, progress):
                return _PURGED
            idle = self._idle(found, stamps, now)
            if found.entry is None:
                return "removed_notes" if idle > min(self.inactive, LEFTOVER_AGE) else ""
            if idle <= self.inactive:
                return ""
            entry = self._head(found).entry
        except BrokenEntry:
            return "broken_entries"
        # The age of an entry from the future is unknown: such an entry stays as long as it is used.
        return "" if entry.in_any_window(now) else "evicted_inactive"

    def _idle(self, found: KeyFiles, stamps: Stamps | None, now: float) -> float:
        """Return the seconds since a key's last use. If its mark is set, write the use to its files and clear the mark."""
        mark = digest_mark(found.name)
        is_marked = stamps is not None and stamps.marks[mark] != 0
        if is_marked or found.used_ns > now * BILLION:
            # A time in the future, from before a clock stepped back, would keep the files for ever.
            self.folders.note_use(found.name, int(now * BILLION))
            if stamps is not None:
                stamps.marks[mark] = 0
            return 0.0
        return now - found.used_ns / BILLION

    def _head(self, found: KeyFiles) -> EntryHead:
        head = read_head(self.folders.file(found.name))
        if head is None:
            raise FileNotFoundError(found.name)
        return head

    def _is_purged(self, found: KeyFiles, progress: Progress) -> bool:
        seq, names = entry_format.purges_of(self._head(found).data)
        records = self._known.since(seq, names)
        # Noted also for an entry that is removed now, since the removal fails if its lock is held.
        if len(progress.in_use) <= _MANY:
            progress.in_use += [record.name for record in records if record.name and record.name not in progress.in_use]
        return any(seq < record.hard for record in records)

    def _remove_idle_lock(self, found: KeyFiles, now: float, age: float) -> None:
        # abs(): a time in the future means that the clock was wrong then, or is now.
        if found.lock is not None and abs(now - found.lock.st_mtime) > age:
            self.folders.remove_lock(found.name)

    # -- records of purges ---------------------------------------------------------------------------------------

    def _old_records(self, progress: Progress) -> list[Inside]:
        # A day old when this sweep began: an origin call from before such a purge had ended when the first folder was looked at.
        return self.records.outdated(progress.began_at, Uptime(progress.boot, progress.began_up))

    def _remove_old_records(self, progress: Progress, stamps: Stamps, until: float) -> None:
        """Remove the records that no entry needs: this sweep has looked at all entries since they were written."""
        old = self._old_records(progress)
        if not old or len(progress.in_use) > _MANY:
            return
        for first in range(0, len(old), _BATCH):
            self._remove_records(old[first : first + _BATCH], progress, stamps)
            if time.monotonic() >= until:
                # The rest is removed by the next sweep.
                return

    def _remove_records(self, old: list[Inside], progress: Progress, stamps: Stamps) -> None:
        lock = self._lock("purge")
        if not lock.acquire():
            # The next sweep does it.
            return
        try:
            if not stamps.is_current():
                return
            # A load that reads an entry before a record is removed, and the records after that, sees that SEQ has changed.
            number = (max(int(stamps.table[SEQ_SLOT]), self.records.last_number()) + 1) | 1
            self.records.note_number(number)
            stamps.raise_seq(number)
            for file in old:
                self.records.remove(file, lambda record: record.last <= progress.began and record.name not in progress.in_use)
        finally:
            lock.release()


@contextmanager
def _collecting_later() -> Iterator[None]:
    """Suspend Python's garbage collector, which would add tens of milliseconds to the sweep's few."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _remove_old(leftovers: Iterable[Inside], now: float) -> None:
    for file in leftovers:
        with suppress(OSError):
            status = status_of(file)
            if status is not None and abs(now - status.st_mtime) > LEFTOVER_AGE:
                remove_file(file)
