"""The cache directory in this process: made, checked and held open, with its table of stamps.

=============== ========= ========== =================== ==================================================================
state           `is_open` `stamps`   hits                ends
=============== ========= ========== =================== ==================================================================
closed          no        ``None``   read the files      at the first load, write or purge (`open`)
with a table    yes       the table  are served from     when the table's file turns out to be replaced, cut or deleted
                                     memory              (`reopen_if_replaced`: each tick and purge), or a folder can't be
                                                         made since the directory is gone (`make_folder`): opened again
without a table yes       ``None``   read the files      when there can be a table (`reopen_if_replaced`)
behind          yes       ``None``   read the files      when ``purge.lock`` is free (`reopen_if_replaced`): the table lacks the
                                                         last purge, and is in `table` for code that only writes to it
=============== ========= ========== =================== ==================================================================

The directory is held while it is open: files are opened relative to its descriptor, since another user may put a directory of their
own at its path. A new directory at the path is checked before it is used.

One thread at a time opens the directory. It may do so at any moment, if the table turns out to be replaced; meanwhile, `stamps` and
`table` are ``None``. So code that needs one table for several steps reads `table` once, and checks afterwards whether that table
was current.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ..core.guarded import guarded
from ..errors import ConfigError
from ..filesystem import shared_memory
from ..filesystem.atomic import make_directories, make_directory, status_of
from ..filesystem.directory import Directory, check_directory
from ..filesystem.locks import POLL, FileKeyLock
from ..filesystem.mounts import NETWORK, OF_THE_HOST, kind_at, why_no_locks
from ..filesystem.per_process import PerProcess
from ..stats.counters import Counters
from .purges.purge_records import PurgeRecords
from .table.stamps import FILE_NAME, SEQ_SLOT, Stamps, newer_table
from .table.table_file import is_being_opened

logger = logging.getLogger("flask_stalecache")

#: Attempts of a purge to take ``purge.lock``, :data:`POLL` seconds apart: another purge takes a few milliseconds.
_TRIES = 10
#: Seconds after which a process that still has the lock is logged.
SUSPICIOUS = 1.0


class CacheDirectory:
    """A cache directory, open or not.

    :param directory: the directory.
    :param records: the records of purges, whose last number a new table must have.
    :param counters: counts the failures to open a table.
    :param on_new_table: called when the table has changed, since copies with stamps of another table are not valid.
    :param allows_network: whether it may be on a network file system.
    :ivar stamps: the table; ``None``: see the states above. A hit reads it once, so that table and marks belong together.
    :ivar table: the same table, even while it may lack the last purge: for code that only writes to it.
    :ivar was_opened: whether this process has ever opened the directory.
    :ivar is_unchecked: whether the directory was opened and not yet checked for missing purges: see :mod:`.purger`.
    """

    def __init__(
        self,
        directory: Directory,
        records: PurgeRecords,
        counters: Counters,
        on_new_table: Callable[[], None],
        allows_network: bool = False,
    ) -> None:
        self.path = directory.path
        self._directory = directory
        self.stamps: Stamps | None = None
        self.table: Stamps | None = None
        self.was_opened = False
        self.is_unchecked = False
        #: Since when another process has held ``purge.lock``, on the monotonic clock; and whether that was logged.
        self._locked_out: float | None = None
        self._is_said = False
        self._is_open = False
        self._records = records
        self._counters = counters
        self._on_new_table = on_new_table
        self._allows_network = allows_network
        self._said: set[str | None] = set()
        # Reentrant, since a signal's handler may serve a page.
        self._mutexes = PerProcess(threading.RLock)

    @property
    def _mutex(self) -> AbstractContextManager[Any]:
        return self._mutexes.get()

    def check(self) -> None:
        """Raise :class:`ConfigError` if the directory exists and is a file, not ours, writable by others, or not writable by us.

        Likewise if its file system is not suitable for a cache directory.
        """
        check_directory(self.path)
        self._check_file_system()

    def _check_file_system(self) -> None:
        kind = kind_at(self.path)
        if kind in NETWORK and not self._allows_network:
            raise ConfigError(
                f"the cache directory {self.path} is on a network file system ({kind}): other hosts would not see purges, and "
                "locks may not hold; give a directory on a local disk as STALECACHE_DIR, or, if only this host uses it, set "
                "STALECACHE_ALLOW_NETWORK_DIR=True"
            )
        if reason := why_no_locks(self.path):
            raise ConfigError(
                f"the file system of the cache directory {self.path} has no file locks ({reason}): give a directory on a local "
                "disk as STALECACHE_DIR, or set STALECACHE_STORE='memory'"
            )
        if kind in OF_THE_HOST and kind not in self._said:
            self._said.add(kind)
            logger.warning(
                "the cache directory %s is shared with a host (%s): locks may not reach beyond this machine, so nobody else may "
                "use it; a directory on a local disk as STALECACHE_DIR is faster too",
                self.path,
                kind,
            )

    def newer_version(self) -> str | None:
        """Return the name of a table that a later version of this package has made; ``None`` if there is none, or no directory."""
        return newer_table(self.path) if self.path.is_dir() else None

    def lock(self, purpose: str) -> FileKeyLock:
        """Return a new lock of the whole directory: ``purge`` or ``sweep``."""
        return FileKeyLock(self.path / f"{purpose}.lock", self._make, directory=self._directory)

    def hold(self) -> None:
        """Check and hold the directory without its table, unless it is held; raise :class:`OSError` if it does not exist."""
        if not self._directory.is_held:
            self._directory.hold()

    def _make(self, path: Path) -> None:
        # Not open(): the lock is also taken while the directory is being opened.
        if not self._directory.is_held:
            self._check_file_system()
            make_directories(path)
            self._directory.hold()

    # -- open ----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Make the directory and open its table, unless it is open."""
        if not self._is_open:
            self._open_once()

    @guarded
    def _open_once(self) -> None:
        if not self._is_open:
            self._check_file_system()
            make_directories(self.path)
            self._directory.hold()
            self._open_table()
            self._is_open = self.was_opened = self.is_unchecked = True

    def open_if_exists(self) -> bool:
        """Open the directory if it exists, and return whether it does: commands that only read must not create it."""
        if not self._is_open and not os.path.lexists(self.path):
            return False
        self.open()
        return True

    def make_folder(self, folder: Path) -> None:
        """Make one of the 256 folders; the directory too, if it was deleted while it was open."""
        self.open()
        if not self._directory.is_current():
            # Not only at the next tick: files that are written to a directory that was moved away are lost.
            self.reopen_if_replaced()
        try:
            make_directory(self._directory.at(folder.name))
        except FileNotFoundError:
            self._is_open = False
            self.open()
            make_directory(self._directory.at(folder.name))

    # -- the table -----------------------------------------------------------------------------------------------

    def _open_table(self) -> None:
        try:
            stamps = Stamps(self._directory.at(FILE_NAME))
        except OSError:
            # The disk has no room for the table, say: everything works, but each hit reads its file.
            self._counters.count("no_stamps")
            self.stamps = self.table = None
        else:
            self.stamps, self.table = None, stamps
            self._records.is_copy = self._records.is_copy or stamps.replaces_copy
            self._try_to_catch_up()
            self._say(stamps.why_read)
        self._on_new_table()

    def _try_to_catch_up(self) -> None:
        """Use the table if it has the last purge, or can be caught up because ``purge.lock`` is free. Never wait for the lock."""
        stamps = self.table
        if stamps is None:
            return
        if stamps.table[SEQ_SLOT] >= self._records.last_number():
            self._use(stamps)
            return
        lock = self.take_purge_lock(waits=False)
        if lock is not None:
            try:
                self.catch_up()
            finally:
                lock.release()

    def catch_up(self) -> Stamps | None:
        """Return the table. If it is behind, raise its SEQ to the last purge, then use it. ``purge.lock`` is held."""
        stamps = self.table
        if stamps is not None and stamps is not self.stamps:
            stamps.raise_seq(self._records.last_number())
            self._use(stamps)
            self._on_new_table()
        return stamps

    def _use(self, stamps: Stamps) -> None:
        self.stamps = stamps
        if self.table is not stamps:
            # Another thread is opening the table again, or has done so: the next round of housekeeping uses the new table.
            self.stamps = None

    def take_purge_lock(self, *, waits: bool = True) -> FileKeyLock | None:
        """Take ``purge.lock``; return ``None`` if another process holds it. That process may have been stopped.

        :param waits: try for as long as a purge takes, unless another process has held the lock for longer already.
        """
        lock = self.lock("purge")
        for left in range(_TRIES if waits and self._locked_out is None else 1, 0, -1):
            if lock.acquire():
                self._locked_out, self._is_said = None, False
                return lock
            if left > 1:
                time.sleep(POLL)
        self._is_locked_out()
        return None

    def _is_locked_out(self) -> None:
        now = time.monotonic()
        since = self._locked_out = now if self._locked_out is None else self._locked_out
        if now - since >= SUSPICIOUS and not self._is_said:
            self._is_said = True
            logger.warning(
                "another process has held %s for more than %g s: it may have been stopped in the middle of a purge; until it "
                "goes on or is killed, purges are noted beside the records, and workers that start now read pages from their files",
                self.path / "purge.lock",
                SUSPICIOUS,
            )

    def _say(self, why_read: str | None) -> None:
        if why_read in self._said:
            return
        self._said.add(why_read)
        if why_read is None:
            logger.debug("hits of %s compare numbers in shared memory", self.path)
        else:
            message = "each hit of %s makes two system calls to read its table of stamps, since workers share no memory: %s"
            logger.log(logging.WARNING if shared_memory.is_expected() else logging.DEBUG, message, self.path, why_read)

    def is_current(self, stamps: Stamps | None) -> bool:
        """Whether other processes see what is written to a table; for ``None``, whether they have no table either."""
        has_others = self._others_may_have_table() if stamps is None else not stamps.is_current()
        return self._directory.is_current() and not has_others

    def tick(self) -> None:
        """Open the table again if it was replaced, and write the marks or counts that it holds back."""
        self.reopen_if_replaced()
        # Read once: another thread may open the table again in between.
        stamps = self.stamps
        if stamps is not None:
            stamps.tick()

    def has_unmapped_table(self) -> bool:
        """Whether other processes may have a table that this one can't open."""
        return self.table is None and self._others_may_have_table()

    def _others_may_have_table(self) -> bool:
        # No process has a table while one of them opens it. If that one was stopped, it looks for the last purge when it goes on.
        place = self._directory.at(FILE_NAME)
        return status_of(place) is not None and not is_being_opened(place)

    @guarded
    def reopen_if_replaced(self) -> None:
        """Open the table again if its file was replaced or deleted, or could not be opened before."""
        # No local variable refers to the table: opening it again would fail at the lock of the old one.
        if self.table is None or not self.is_current(self.table):
            # The old table is dropped even if the new one can't be opened: other processes don't write to it any more.
            self._is_open, self.stamps, self.table = False, None, None
            self._on_new_table()
            self.open()
        elif self.stamps is not self.table:
            self._try_to_catch_up()
