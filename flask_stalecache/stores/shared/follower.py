"""Follows the logs of the server for all processes of a host: applies purges, and moves the stamps of what others have replaced.

One process at a time does so: the one that has ``follower.lock``, which the kernel frees with it. The others take it over at their
next tick. Purges are applied under ``purge.lock`` and only once, so that any process may do that, too.

===================================== ==========================================================================================
what is noticed                       what is done
===================================== ==========================================================================================
changes are missing in the log        every key is asked for once
purges are missing in the log         everything on this host is purged: it was away for more than a day
another generation of bookkeeping     everything is softly purged, by one purge for all hosts: the server has lost its memory
the server lacks purges of this host  they are said again: a failover has lost them
changes were not sent to the others   they are sent now
===================================== ==========================================================================================
"""

from __future__ import annotations

import logging
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence

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
#: Seconds between two reads at least, after changes and after purges alone.
_PAUSE, _SHORT_PAUSE = 0.02, 0.005
#: Reads that wait after one that did not and has found nothing.
_REST = 50
#: Seconds between two attempts while the server does not answer: at first, and at most.
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.05, 2.0
#: Seconds by which the server's clock may differ.
_CLOCK_DIFFERS = 2.0
#: Seconds between two looks for purges that no entry needs any more, and between two looks at what others have noted.
_HOUR, _SECOND = 3600.0, 1.0


class Follower:
    """Follows the logs for one host.

    :param files: the cache directory.
    :param known: what its processes know of the server.
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
        #: The last change that was read, and what it says.
        self._last_change = (0, 0)
        self._pace = _Pace()
        #: What was put into slots lately: a process may have noted an older serial at the same moment.
        self._put: dict[int, int] = {}
        self._put_at = time.monotonic()

    # -- one a host ----------------------------------------------------------------------------------------------

    @property
    def follows(self) -> bool:
        """Whether this process follows for its host."""
        return self._thread is not None and self._thread.is_alive()

    def tick(self) -> None:
        """Follow from now on, if nobody on this host does; without threads, read what is new. Called about once a second."""
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
        """The minimum seconds between two reads: what arrives meanwhile is read together. Purges are rare, and callers wait."""
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
            # The client may have said so already.
            if self._is_connected and not self._known.is_down:
                logger.warning("the shared server can't be reached: %s; this host goes on alone until it can be", error)
            pause = min(_LONGEST_BACKOFF, max(_FIRST_BACKOFF, 2 * backoff))
            self._is_down(pause)
            return pause
        except Exception:
            # Nothing else would follow in its place.
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
        """Read what is new, unless the follower of this host has heard the server lately: before the first answer of a process.

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
        """Do what was read says; return whether there is more."""
        # Another process may have met an outage that this one has not: then purges may be missing there.
        is_first = not self._is_connected or self._known.down_until > 0
        # Before purges are applied, so that what they make stale is refreshed with the server's locks, once over all hosts.
        self._note_up()
        if self._lacks_purges(read, applied):
            self._purge_all_here(read)
        else:
            self.apply(read.last_purge, read.purges, applied)
        # Another process may have read on meanwhile.
        if self._known.change == change:
            self._heed_changes(read)
        was_told = self.backlog.tell(looks=is_first)
        # What was applied since the question came from the server after its answer.
        was_said = read.last_number < applied and self._reminder.say_since(read.last_number)
        self._is_connected = True
        if was_told or was_said or len(read.purges) >= MOST or len(read.changes) >= MOST:
            return True
        # Once more, which notes how far this host is now: a purge may wait for it.
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
        """Say once that this clock differs from the server's, which stood between the question and now if both are right."""
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
        """Deal with bookkeeping of another generation, after which the logs must be read again."""
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
        # All purges of this generation have higher numbers. What is begun from now on counts at the server.
        self._files.apply_purges([Purge((), local_number(generation), False, time.time())])
        known.applied = max(applied, known.applied, generation)
        known.generation = number_of(read.generation)

    def _joins(self, read: LogState) -> None:
        """Begin to follow with a directory that is new to the server."""
        applied = max(int(read.generation), read.last_purge)
        # Nobody knows what others have purged before of what is here.
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

        :param number: that of the last purge which has to be applied.
        :param purges: the purges since those that are applied, in their order.
        :param applied: the last one that is applied.
        """
        new = [logged for logged in purges if logged.number > applied]
        if new and new[0].before > applied:
            return False
        if new:
            self._files.apply_purges([self._reminder.left_of(logged) for logged in new])
            self._known.applied = max(self._known.applied, new[-1].number)
        return self._known.applied >= number

    def purge(self, names: Sequence[str], *, soft: bool) -> int:
        """Purge on all hosts, and here before this returns the number on the server.

        :raises StoreError: if the server can't be reached.
        """
        known = self._known
        known.open()
        if not known.generation or not known.applied:
            self.read_once()
        applied, above = known.applied, self._reminder.above()
        number, generation, logged = self._logs.purge(known.host_id(), names, soft=soft, above=above, applied=applied)
        # All that came before it first: otherwise what is begun meanwhile would seem to be newer than those.
        if number_of(generation) != known.generation or not self.apply(number, logged, applied):
            # The server may lose this purge before it is read from the log. It is said again then, since it was made here.
            self._files.purge(*names, soft=soft)
            self.read_once()
        return number

    # -- changes -------------------------------------------------------------------------------------------------

    def _heed_changes(self, read: LogState) -> None:
        known = self._known
        changes, last = read.changes, read.first + len(read.changes) - 1
        if known.change and read.first == known.change:
            # The last one again: after a failover the log may have another one in its place.
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
                self._put[slot] = serial
                moved.append(slot)
            if removed:
                self._files.remove_begun_before(address, int(text[1:]) / 1e6)
        self._files.move(moved)

    def _forget_changes(self, last: int) -> None:
        """Let every key be asked for once: it is not known which of them have changed."""
        self._known.change = last
        self._last_change = (0, 0)
        self._known.forget_all()
        self._files.move_all()

    def _look_at_slots(self) -> None:
        """Let keys be asked for in whose slots a process has noted something at the same moment: it may have been older."""
        known = self._known
        for slot, serial in self._put.items():
            if serial and known.serial(slot) != serial:
                known.put(slot, 0)
        self._put = {}

    # -- other hosts ---------------------------------------------------------------------------------------------

    def acknowledged(self, number: int, seconds: float) -> Acknowledged:
        """Wait until all hosts that were heard lately have applied a purge, and return which have.

        :param number: the purge.
        :param seconds: for how long at most.
        """
        until, pause = time.monotonic() + seconds, 0.001
        while True:
            others, late, silent = self._logs.laggards(self._known.host_id(), number)
            if not late or time.monotonic() >= until:
                return Acknowledged(others + 1, tuple(late), seconds, silent)
            time.sleep(pause)
            pause = min(2 * pause, 0.02)


class _Pace:
    """Tells when to read again without waiting first, which saves a round trip: while changes come all the time.

    If one such read finds nothing, they come in bursts, and it takes a while until the next attempt.
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
        # A program that has gone is not kept by this thread.
        del follower
        rest = pause_after - (time.monotonic() - began)
        wait = backoff * random.uniform(0.5, 1.0) if backoff else max(0.0, rest)
        if wait:
            pause.wait(wait)


def _number(change: EntryChange) -> int:
    return int(digest(" ".join(change))[:12], 16) or 1
