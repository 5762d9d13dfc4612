"""The sweep removes what nobody uses, what was purged and what was left behind: a little at a time, one process at a time."""

from __future__ import annotations

import gc
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..errors import BrokenEntry
from ..filesystem.atomic import files_in, read_file, write_file
from ..filesystem.locks import FileKeyLock, held
from . import entry_format
from .entry_file import Head, read_head
from .eviction import Evictor
from .folders import BILLION, Folders, Found, Listed, Removed
from .purge_records import KEPT_FOR, CachedPurgeRecords, PurgeRecords
from .stamps import FOLDERS, SEQ_SLOT, Stamps, mark_of

#: Seconds of work at a time: what the process has to do beside is answering.
BUDGET = 0.01
#: Seconds for reading the names of a folder, from which on that is done at the beginning of a tick only.
LISTING = 0.005
#: Seconds between two sweeps at most; less if entries are removed after a shorter time.
PAUSE = 60.0
#: Seconds after which what nobody holds is taken for left behind.
LEFTOVER_AGE = 3600.0
#: What the removal of a purged entry is counted as.
_PURGED = "removed_purged"
#: Beside the table, this sweep's own state, the records of purges and their last number.
_LEFTOVER = re.compile(r"(stamps-\d+|sweep|last|[0-9a-f]{40})\.[0-9a-f]{16}\.tmp")
#: How many purged names that are still in use are remembered; with more, no record is removed in this sweep.
_MANY = 1000
#: How many records are removed at a time, since purges wait meanwhile.
_BATCH = 200


@dataclass(slots=True)
class Progress:
    """How far the sweep is; the next process goes on from there.

    :ivar next_at: when the next folder is due, in seconds since the epoch.
    :ivar folder: its number.
    :ivar after: the last key of that folder that was looked at; "" if none was.
    :ivar size: bytes of those that were, and have stayed.
    :ivar entries: how many entries they are.
    :ivar is_begun: whether it was begun; if not, it begins with the first folder.
    :ivar began: SEQ when this sweep began.
    :ivar began_at: when that was, in seconds since the epoch.
    :ivar checked: SEQ when the last sweep began that looked for purged entries.
    :ivar looks: whether this one does.
    :ivar escaped: whether something that was purged could not be removed; then the next sweep looks too.
    :ivar in_use: names whose purge some entry still has to be told of.
    """

    next_at: float = 0.0
    folder: int = 0
    after: str = ""
    size: int = 0
    entries: int = 0
    is_begun: bool = False
    began: int = 0
    began_at: float = 0.0
    checked: int = -1
    looks: bool = True
    escaped: bool = False
    in_use: list[str] = field(default_factory=list)

    def restart(self) -> None:
        """Begin anew with the first folder."""
        self.folder, self.is_begun = 0, False
        self.restart_folder()

    def restart_folder(self) -> None:
        """Begin with a folder."""
        self.after, self.size, self.entries = "", 0, 0


class _Rest:
    """The keys of a folder after one of them, in order.

    :ivar after: the last one that was taken.
    :ivar took: seconds that it took to read them.
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
        """Whether none is left."""
        return not self._left


class Sweeper:
    """Sweeps one cache directory.

    :param folders: what is stored.
    :param records: the purges.
    :param evictor: the limits, which may have been lowered since the entries were written.
    :param inactive: seconds without use after which an entry past its stale windows is removed.
    :param lock: returns a lock of the directory for a purpose.
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
        self._state = folders.directory / "sweep"
        #: How far it is, if the disk is too full to say so there: then this process goes on.
        self._unsaved: Progress | None = None
        #: The keys of a folder that this process has begun, and not yet looked at.
        self._rest = _Rest()
        self._known = CachedPurgeRecords(records, None)
        self._removed = Removed()

    def tick(self, stamps: Stamps | None) -> None:
        """Sweep some folders if that is due and no other process does."""
        if not self._is_due(self._progress()):
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
        """Do a whole sweep at once; return what was removed by reason, and the ``bytes`` that it took.

        :raises StoreError: if another process has been at it for some seconds: at a whole one, too.
        """
        with held(self._lock("sweep")):
            progress, self._removed = self._progress(), Removed({"bytes": 0})
            progress.restart()
            self._sweep(progress, stamps, math.inf)
            self._note(progress)
            return dict(self._removed)

    def _note(self, progress: Progress) -> None:
        self._unsaved = progress
        write_file(self._state, json.dumps(asdict(progress)).encode("ascii"), int(time.time() * BILLION))
        self._unsaved = None

    def _progress(self) -> Progress:
        return self._unsaved or _decoded(read_file(self._state) or b"")

    def _is_due(self, progress: Progress) -> bool:
        # A clock that stepped back must not put it off.
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
            # The names of a large folder take their time, and more if they are not in memory: they are the first of a tick.
            if time.monotonic() >= until or (self._rest.took > LISTING and until < math.inf):
                return

    def _begin(self, progress: Progress, stamps: Stamps | None) -> None:
        progress.began = self.records.last_number() if stamps is None else int(stamps.table[SEQ_SLOT])
        progress.began_at = time.time()
        progress.looks = progress.began != progress.checked or bool(self._old_records(progress))
        progress.in_use, progress.escaped, progress.is_begun = [], False, True
        # Due until it is over, whatever the clock said when the last one was.
        progress.next_at = 0.0

    def _end(self, progress: Progress, stamps: Stamps | None, until: float) -> None:
        if progress.looks:
            progress.checked = progress.checked if progress.escaped else progress.began
            if stamps is not None:
                self._remove_old_records(progress, stamps, until)
        for folder in (self.folders.directory, self.records.folder):
            _remove_old((Path(entry.path) for entry in files_in(folder) if _LEFTOVER.fullmatch(entry.name)), time.time())
        self._known, self._rest = CachedPurgeRecords(self.records, None), _Rest()
        progress.restart()
        progress.next_at = time.time() + self._pause

    # -- folders -------------------------------------------------------------------------------------------------

    def _sweep_folder(self, progress: Progress, stamps: Stamps | None, until: float) -> bool:
        """Go on with a folder, by one key at least, and return whether that was the last one."""
        rest, now = self._rest_of(progress), time.time()
        for name, kinds in rest:
            found = self.folders.found(name, kinds)
            progress.after = name
            if not self._sweep_key(found, progress, stamps, now):
                progress.size += found.size
                progress.entries += found.entry is not None
            if time.monotonic() >= until:
                break
        if not rest.is_over:
            return False
        if stamps is not None:
            stamps.count(progress.folder, progress.size, progress.entries)
        return True

    def _rest_of(self, progress: Progress) -> _Rest:
        """Return the keys of a folder that are still to be looked at: as they were, if this process has paused in the folder."""
        rest = self._rest
        if not progress.after or (rest.folder, rest.after) != (progress.folder, progress.after):
            start, listed = time.monotonic(), self.folders.listed(progress.folder)
            rest = self._rest = _Rest(progress.folder, progress.after, listed)
            rest.took = time.monotonic() - start
            if not progress.after:
                progress.size = listed.unfinished
                _remove_old(listed.leftovers, time.time())
        return rest

    def _sweep_key(self, found: Found, progress: Progress, stamps: Stamps | None, now: float) -> bool:
        """Remove what there is of a key if it is to go, and return whether it is gone."""
        try:
            return self._remove_key(found, progress, stamps, now)
        except OSError:
            # A bad block, say: of one key, which keeps no other.
            self.folders.counters.count("sweep_failures")
            return False

    def _remove_key(self, found: Found, progress: Progress, stamps: Stamps | None, now: float) -> bool:
        if found.is_orphan:
            self._remove_idle_lock(found, now, LEFTOVER_AGE / 60)
            return False
        why = self._why_remove(found, progress, stamps, now)
        if why and self.folders.remove(found, stamps, why, self._removed):
            return True
        progress.escaped = progress.escaped or why == _PURGED
        self._remove_idle_lock(found, now, LEFTOVER_AGE)
        return False

    def _why_remove(self, found: Found, progress: Progress, stamps: Stamps | None, now: float) -> str:
        """Return what to count the removal of a key's files as, or "" if they stay."""
        try:
            # Before its last use is noted, which would change its file.
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
        is_wanted = entry.is_fresh(now) or entry.in_swr(now) or entry.in_sie(now)
        return "" if is_wanted else "evicted_inactive"

    def _idle(self, found: Found, stamps: Stamps | None, now: float) -> float:
        """Return the seconds since a key's last use, after noting that in its file if it was used since that was written."""
        mark = mark_of(found.name)
        is_marked = stamps is not None and stamps.marks[mark] != 0
        if is_marked or found.used_ns > now * BILLION:
            # One from the future, after a clock stepped back, would stay for ever.
            self.folders.note_use(found.name, int(now * BILLION))
            if stamps is not None:
                stamps.marks[mark] = 0
            return 0.0
        return now - found.used_ns / BILLION

    def _head(self, found: Found) -> Head:
        head = read_head(self.folders.file(found.name))
        if head is None:
            raise FileNotFoundError(found.name)
        return head

    def _is_purged(self, found: Found, progress: Progress) -> bool:
        seq, names = entry_format.purges_of(self._head(found).data)
        records = self._known.since(seq, names)
        # Also of what is to be removed, since it may escape: somebody holds its lock.
        if len(progress.in_use) <= _MANY:
            progress.in_use += [record.name for record in records if record.name not in progress.in_use]
        return any(seq < record.hard for record in records)

    def _remove_idle_lock(self, found: Found, now: float, age: float) -> None:
        # From the future too: the clock was wrong then, or is now.
        if found.lock is not None and abs(now - found.lock.st_mtime) > age:
            self.folders.remove_lock(found.name)

    # -- records of purges ---------------------------------------------------------------------------------------

    def _old_records(self, progress: Progress) -> list[Path]:
        # A day before the sweep began: who was begun before such a purge had ended when the first folder was looked at.
        return self.records.older_than(int((progress.began_at - KEPT_FOR) * BILLION))

    def _remove_old_records(self, progress: Progress, stamps: Stamps, until: float) -> None:
        """Remove the records that no entry needs any more: a whole sweep has looked at all entries since they were written."""
        old = self._old_records(progress)
        if not old or len(progress.in_use) > _MANY:
            return
        for first in range(0, len(old), _BATCH):
            self._remove_records(old[first : first + _BATCH], progress, stamps)
            if time.monotonic() >= until:
                # The rest after the next sweep.
                return

    def _remove_records(self, old: list[Path], progress: Progress, stamps: Stamps) -> None:
        with held(self._lock("purge")):
            if not stamps.is_current():
                return
            # Who read an entry before it was removed, and its record after, sees that SEQ has moved.
            number = int(stamps.table[SEQ_SLOT]) + 1
            self.records.note_number(number)
            stamps.raise_seq(number)
            for path in old:
                self.records.remove(path, lambda record: record.last < progress.began and record.name not in progress.in_use)


@contextmanager
def _collecting_later() -> Iterator[None]:
    """Put off Python's own collection of garbage for a stretch, to which it would add tens of milliseconds."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _remove_old(leftovers: Iterable[Path], now: float) -> None:
    for path in leftovers:
        with suppress(OSError):
            if abs(now - path.lstat().st_mtime) > LEFTOVER_AGE:
                path.unlink()


def _decoded(data: bytes) -> Progress:
    """Return what a process noted; a new sweep, if a crash has left something else."""
    try:
        noted = json.loads(data)
        progress = Progress(
            next_at=float(noted["next_at"]),
            folder=int(noted["folder"]),
            after=str(noted["after"]),
            size=int(noted["size"]),
            entries=int(noted["entries"]),
            is_begun=bool(noted["is_begun"]),
            began=int(noted["began"]),
            began_at=float(noted["began_at"]),
            checked=int(noted["checked"]),
            looks=bool(noted["looks"]),
            escaped=bool(noted["escaped"]),
            in_use=list(map(str, noted["in_use"])),
        )
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return Progress()
    return progress if 0 <= progress.folder < FOLDERS else Progress()
