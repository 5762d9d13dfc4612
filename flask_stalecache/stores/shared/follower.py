"""Follows the logs of the server for all processes of a host: applies purges, and moves the stamps of keys that others change.

One process at a time follows: the holder of ``follower.lock``, which the kernel frees when the process ends. Another process takes
the lock at its next tick. Purges are applied under ``purge.lock``, and only once, so any process may apply them, too.

===================================== ==========================================================================================
condition                             action
===================================== ==========================================================================================
changes are missing in the log        the server is asked once for each key, at its next use
purges are missing in the log         everything on this host is purged: it was away for more than a day
another generation of bookkeeping     everything is softly purged, by one purge for all hosts: the server has lost its memory
the server lacks purges of this host  they are repeated: a failover has lost them
changes were not sent to the others   they are sent now (:mod:`.backlog`)
===================================== ==========================================================================================
"""

from __future__ import annotations

import logging
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from ...core.addressing.keys import digest
from ...core.addressing.purge_names import EVERYTHING
from ...errors import StoreError
from ...filesystem.atomic import make_directories
from ...filesystem.locks import FileKeyLock
from ..base import Acknowledged
from ..file_store import FileStore
from ..purges.purge_record import Purge
from ..table.stamps import slot_of
from .backlog import Backlog
from .known import DOWN_FOR, Known, local_number, number_of
from .logs import MOST, EntryChange, Logged, LogState, SharedLogs
from .reminder import Reminder

logger = logging.getLogger("flask_stalecache")

#: Milliseconds for which a read waits for something new.
BLOCK = 1000
#: Minimum seconds between two reads, if the last read has found changes, and otherwise.
_PAUSE, _SHORT_PAUSE = 0.02, 0.005
#: Number of reads that wait first, after a read that did not wait and has found nothing.
_REST = 50
#: Seconds between two attempts while the server does not answer: at first, and at most.
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.05, 2.0
#: Seconds by which the server's clock may differ.
_CLOCK_DIFFERS = 2.0
#: Seconds between two removals of purge records that no entry needs any more, and between two checks of slots.
_HOUR, _SECOND = 3600.0, 1.0


class Follower:
    """Follows the logs for one host.

    :param files: the cache directory.
    :param known: what this host knows of the server.
    :param logs: the logs.
    :param remove: removes the entry with an address on all hosts.
    """

    def __init__(self, files: FileStore, known: Known, logs: SharedLogs, remove: Callable[[str], object]) -> None:
        self._files = files
        self._known = known
        self._logs = logs
        self._reminder = Reminder(files, known, logs)
        self.backlog = Backlog(files.directory, known, self._reminder.purge, remove)
        self._lock = FileKeyLock(files.directory / "follower.lock", make_directories)
        self._thread: threading.Thread | None = None
        self._is_stopped = False
        self._is_connected = False
        self._is_clock_said = False
        self._read_at = self._tidied_at = time.monotonic()
        #: The number of the last change that was read, and a digest of its content.
        self._last_change = (0, 0)
        self._pace = _Pace()
        #: The slots and serials that were put lately. A process may have noted an older serial there at the same moment.
        # A deque, since requests that purge read the logs too: its methods need no lock.
        self._put: deque[tuple[int, int]] = deque()
        self._put_at = time.monotonic()

    # -- one a host ----------------------------------------------------------------------------------------------

    @property
    def follows(self) -> bool:
        """Whether this process follows for its host."""
        return self._thread is not None and self._thread.is_alive()

    def tick(self) -> None:
        """Start to follow if no process of this host does, or, without threads, read what is new. Called about once a second."""
        if self.follows or self._is_stopped:
            return
        self._known.tick()
        if not self._lock.acquire():
            return
        try:
            self._thread = threading.Thread(target=_follow, args=(weakref.ref(self),), name="stalecache-follower", daemon=True)
            self._thread.start()
        except RuntimeError:
            self._thread = None
            self._read_without_thread()

    def _read_without_thread(self) -> None:
        if not self._known.is_down:
            try:
                self.read_once()
            except StoreError:
                self._is_down(_LONGEST_BACKOFF)

    def stop(self) -> None:
        """Stop following; another process takes over."""
        self._is_stopped = True
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(2 * BLOCK / 1000)
        self._lock.release()

    @property
    def pause(self) -> float:
        """The minimum seconds between two reads: changes that arrive meanwhile are read together.

        It is shorter while no changes arrive: purges are rare, and their callers wait.
        """
        return _PAUSE if self._pace.is_busy else _SHORT_PAUSE

    def is_to_go_on(self) -> bool:
        """Whether it has not been stopped."""
        return not self._is_stopped

    def step(self, backoff: float) -> float:
        """Wait for something new and read it; return for how long to pause, in seconds.

        :param backoff: the last pause after a failure; 0: there was none.
        """
        try:
            waits = self._is_connected and not self._pace.goes_on()
            if waits:
                self._logs.wait(self._known.applied, self._known.change, BLOCK)
            before = self._known.change
            self.read_once()
            self._pace.note(waited=waits, found=self._known.change != before)
        except StoreError as error:
            # The client may have logged it already.
            if self._is_connected and not self._known.is_down:
                logger.warning("the shared server can't be reached: %s; this host goes on alone until it can be", error)
            pause = min(_LONGEST_BACKOFF, max(_FIRST_BACKOFF, 2 * backoff))
            self._is_down(pause)
            return pause
        except Exception:
            # No error may end the thread: while this process holds the lock, no other process follows.
            logger.exception("the logs of the shared server could not be followed")
            return _LONGEST_BACKOFF
        return 0.0

    def _is_down(self, pause: float) -> None:
        self._is_connected = False
        self._known.note_down(pause + DOWN_FOR)

    def _note_up(self) -> None:
        if self._known.down_until:
            self._known.down_until = 0.0

    # -- reading -------------------------------------------------------------------------------------------------

    def catch_up(self) -> None:
        """Read what is new before a process gives its first answer, unless the follower of this host has heard the server lately.

        :raises StoreError: if the server can't be reached.
        """
        self._known.open()
        if not self._known.is_heard and not self._known.is_down:
            self.read_once()

    def read_once(self) -> None:
        """Read all that is new, without waiting for more.

        :raises StoreError: if the server can't be reached.
        """
        self._known.open()
        while True:
            known = self._known
            applied = known.applied or self._applied_by_files()
            asked, change = time.time(), known.change
            read = self._logs.read(known.host_id(), applied, change, notes=known.applied > 0)
            self._compare_clocks(asked, read.now / 1e6)
            if number_of(read.generation) != known.generation:
                self._begins_anew(read, applied)
                continue
            more = self._heed(read, applied, change)
            if not more:
                break
        self._has_heard()

    def _applied_by_files(self) -> int:
        return self._files.applied() // 1000

    def _heed(self, read: LogState, applied: int, change: int) -> bool:
        """Apply the purges and changes that were read; return whether to read again."""
        # Another process may have met an outage that this one has not noticed: then the backlog may hold purges.
        is_first = not self._is_connected or self._known.down_until > 0
        # Before purges are applied: entries that they make stale must be refreshed under the server's locks, once over all hosts.
        self._note_up()
        if self._lacks_purges(read, applied):
            self._purge_all_here(read)
        else:
            self.apply(read.last_purge, read.purges, applied)
        # Another process may have read on meanwhile.
        if self._known.change == change:
            self._heed_changes(read)
        was_told = self.backlog.tell(looks=is_first)
        # Compared with the number from before the read: purges that were applied since then are newer than this answer.
        was_said = read.last_number < applied and self._reminder.say_since(read.last_number)
        self._is_connected = True
        if was_told or was_said or len(read.purges) >= MOST or len(read.changes) >= MOST:
            return True
        # Read once more, so that the server records how far this host is now: a purge may wait for that.
        return bool(read.purges) or self._known.applied != applied

    def _has_heard(self) -> None:
        known, now = self._known, time.monotonic()
        known.has_heard()
        self._note_up()
        if now - self._put_at >= _SECOND:
            self._put_at = now
            self._look_at_slots()
        if now - self._tidied_at >= _HOUR:
            self._tidied_at = now
            self._logs.drop_old_names()

    def _compare_clocks(self, asked: float, there: float) -> None:
        """Log once that this clock differs from the server's, whose time must be between the request and now if both are right."""
        off = max(0.0, asked - there) or min(0.0, time.time() - there)
        if abs(off) > _CLOCK_DIFFERS and not self._is_clock_said:
            self._is_clock_said = True
            logger.warning(
                "the clock of this host differs from that of the shared server by %.0f s: pages of other hosts look older or "
                "younger here than they are; let both follow a time server (NTP)",
                off,
            )

    # -- generations ---------------------------------------------------------------------------------------------

    def _begins_anew(self, read: LogState, applied: int) -> None:
        """Adapt to bookkeeping of another generation. The logs must be read again afterwards."""
        known, generation = self._known, int(read.generation)
        if applied == 0:
            self._joins(read)
        elif known.generation or applied < generation or read.last_number < applied:
            known.renew(applied)
            logger.warning("the shared server has lost its memory: the freshness of all entries ends now, on all hosts")
            said = self._reminder.say_all()
            if said:
                logger.warning("the shared server was told again of %d hard purges that it had lost", said)
            above = max(self._reminder.above(), applied + 1)
            self._logs.renew(known.host_id(), (EVERYTHING,), above=above, generation=read.generation)
            self._forget_changes(0)
        else:
            known.applied_before = applied
            self._forget_changes(read.last_change)
        # All purges of a generation have higher numbers than itself. The server ignores entries that were begun at lower ones.
        self._files.apply_purges([Purge((), local_number(generation), False, time.time())])
        known.applied = max(applied, known.applied, generation)
        known.generation = number_of(read.generation)

    def _joins(self, read: LogState) -> None:
        """Begin to follow with a directory that is new to the server."""
        applied = max(int(read.generation), read.last_purge)
        # It is not known which of the entries here were purged by others before.
        names = (EVERYTHING,) if self._files.usage().entries else ()
        self._files.apply_purges([Purge(names, local_number(applied), False, time.time())])
        self._known.applied_before = self._known.applied = applied
        self._forget_changes(read.last_change)

    # -- purges --------------------------------------------------------------------------------------------------

    @staticmethod
    def _lacks_purges(read: LogState, applied: int) -> bool:
        if read.purges:
            return read.purges[0].before > applied
        return read.last_purge > applied

    def _purge_all_here(self, read: LogState) -> None:
        last = max((read.last_purge, *(logged.number for logged in read.purges)))
        logger.warning("the shared server does not have all purges any more that this host has missed: all its entries are purged")
        self._files.apply_purges([Purge((EVERYTHING,), local_number(last), False, time.time())])
        self._known.applied = max(self._known.applied, last)

    def apply(self, number: int, purges: Sequence[Logged], applied: int) -> bool:
        """Apply purges of the log, and return whether all up to a number are applied now.

        :param number: the number of the last purge that has to be applied.
        :param purges: the purges since the last applied one, in their order.
        :param applied: the number of the last applied purge.
        """
        new = [logged for logged in purges if logged.number > applied]
        if new and new[0].before > applied:
            return False
        if new:
            self._files.apply_purges([self._reminder.left_of(logged) for logged in new])
            self._known.applied = max(self._known.applied, new[-1].number)
        return self._known.applied >= number

    def purge(self, names: Sequence[str], *, soft: bool) -> int:
        """Purge on all hosts, on this one before the method returns. Return the number of the purge on the server.

        :raises StoreError: if the server can't be reached.
        """
        known = self._known
        known.open()
        if not known.generation or not known.applied:
            self.read_once()
        applied, above = known.applied, self._reminder.above()
        number, generation, logged = self._logs.purge(known.host_id(), names, soft=soft, above=above, applied=applied)
        # All earlier purges are applied first: otherwise entries that are begun meanwhile would seem to be newer than those.
        if number_of(generation) != known.generation or not self.apply(number, logged, applied):
            # The server may lose this purge before it is read from the log. Since it is also made here, it is repeated then.
            self._files.purge(*names, soft=soft)
            self.read_once()
        return number

    # -- changes -------------------------------------------------------------------------------------------------

    def _heed_changes(self, read: LogState) -> None:
        known = self._known
        changes, last = read.changes, read.first + len(read.changes) - 1
        if known.change and read.first == known.change:
            # The last change is read again: after a failover, the log may have another change in its place.
            number, said = self._last_change
            if number == known.change and said != _number(changes[0]):
                self._forget_changes(read.last_change)
                return
            changes = changes[1:]
        elif read.first != known.change + 1 and read.last_change != known.change:
            self._forget_changes(read.last_change)
            return
        if read.last_change < known.change:
            self._forget_changes(read.last_change)
        elif changes:
            self._heed_each(changes)
            self._last_change = last, _number(read.changes[-1])
            known.change = last

    def _heed_each(self, changes: Iterable[EntryChange]) -> None:
        known, own = self._known, self._known.host_id()
        last = {address: serial for address, serial, origin in changes if origin != own}
        moved = []
        for address, text in last.items():
            slot, removed = slot_of(address), text.startswith("-")
            serial = 0 if removed else number_of(text)
            if not serial or known.serial(slot) != serial:
                known.put(slot, serial)
                self._put.append((slot, serial))
                moved.append(slot)
            if removed:
                self._files.remove_begun_before(address, int(text[1:]) / 1e6)
        self._files.move(moved)

    def _forget_changes(self, last: int) -> None:
        """Forget all serials, so that the server is asked once for each key: it is not known which keys have changed.

        :param last: the number of the last change.
        """
        self._known.change = last
        self._last_change = (0, 0)
        self._known.forget_all()
        self._files.move_all()

    def _look_at_slots(self) -> None:
        """Clear slots in which a process has noted another serial at the same moment: it may be older, so the server is asked."""
        known, put = self._known, dict[int, int]()
        with suppress(IndexError):
            while True:
                slot, serial = self._put.popleft()
                put[slot] = serial
        for slot, serial in put.items():
            if serial and known.serial(slot) != serial:
                known.put(slot, 0)

    # -- other hosts ---------------------------------------------------------------------------------------------

    def acknowledged(self, number: int, seconds: float) -> Acknowledged:
        """Wait until all hosts that were heard lately have applied a purge, and return which have.

        :param number: the number of the purge.
        :param seconds: the longest time to wait.
        """
        until, pause = time.monotonic() + seconds, 0.001
        while True:
            others, late, silent = self._logs.laggards(self._known.host_id(), number)
            if not late or time.monotonic() >= until:
                return Acknowledged(others + 1, tuple(late), seconds, silent)
            time.sleep(pause)
            pause = min(2 * pause, 0.02)


class _Pace:
    """Decides when to read again without waiting first: while changes arrive all the time, this saves a round trip.

    If such a read finds nothing, changes arrive in bursts, and the next :data:`_REST` reads wait first.
    """

    def __init__(self) -> None:
        #: Whether the last read has found changes.
        self.is_busy = False
        self._rest = 0

    def goes_on(self) -> bool:
        """Whether to read without waiting."""
        return self.is_busy and not self._rest

    def note(self, *, waited: bool, found: bool) -> None:
        """Note whether a read has waited, and has found changes."""
        self.is_busy = found
        self._rest = max(0, self._rest - 1) if waited or found else _REST


def _follow(reference: weakref.ref[Follower]) -> None:
    backoff = 0.0
    pause = threading.Event()
    while (follower := reference()) is not None and follower.is_to_go_on():
        began = time.monotonic()
        backoff = follower.step(backoff)
        pause_after = follower.pause
        # This thread must not keep the follower alive while it pauses.
        del follower
        rest = pause_after - (time.monotonic() - began)
        wait = backoff * random.uniform(0.5, 1.0) if backoff else max(0.0, rest)
        if wait:
            pause.wait(wait)


def _number(change: EntryChange) -> int:
    return int(digest(" ".join(change))[:12], 16) or 1
