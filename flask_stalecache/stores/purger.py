"""Purges the entries of one cache directory: the order of its steps, with ``purge.lock`` and without it.

A purge takes the lock for a few milliseconds. A process that holds it for longer may have been stopped, and a purge does not wait
for it: the purge is noted beside the records (:mod:`.waiting_purges`), and the next holder of the lock turns it into records.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeAlias

from ..core.addressing.purge_names import EVERYTHING, address_of
from ..errors import BrokenEntry, StoreError
from ..filesystem.atomic import has_no_room
from .cache_directory import CacheDirectory
from .entry_file import read_head
from .folders import Folders
from .formats.entry_format import purges_of
from .purges.purge_record import Purge, PurgeRecord
from .purges.purge_records import PurgeRecords
from .purges.waiting_purges import SEQ_STEPS
from .table.stamps import FOLDERS, SEQ_SLOT, Stamps, is_settled, slot_of

logger = logging.getLogger("flask_stalecache")

#: A function that purges in the table of this process; ``None``: this process has no table.
_Step: TypeAlias = "Callable[[Stamps | None], None]"
#: A purge is repeated at most once if others have raised SEQ meanwhile. After the first pass no purged entry is served any more,
#: and the second pass purges the entries that were made from one before the end of the first.
_PASSES = 2
#: Attempts of a purge that a new table interrupts.
_ATTEMPTS = 100


class Purger:
    """Purges by name.

    :param directory: the cache directory, with its table and the lock.
    :param records: the records of purges.
    :param folders: the files.
    """

    def __init__(self, directory: CacheDirectory, records: PurgeRecords, folders: Folders) -> None:
        self._directory = directory
        self._records = records
        self._folders = folders

    def purge(self, names: tuple[str, ...], soft: bool) -> None:
        """Purge by name.

        :raises OSError: if that can't be done; :class:`StoreError` likewise.
        """
        self._do(names, partial(self._purge, names, soft), partial(self._purge_without_lock, names, soft))

    def apply(self, purges: Sequence[Purge]) -> None:
        """Apply purges that other hosts have numbered, all at once, except those that were applied already.

        :raises OSError: if that can't be done; :class:`StoreError` likewise.
        """
        names = [name for purge in purges for name in purge.names]
        self._do(names, partial(self._apply, purges), partial(self._apply_without_lock, purges))

    def _do(self, names: Iterable[str], purge: _Step, without_lock: _Step) -> None:
        """Purge by name, in the table that other processes use.

        :param names: the names.
        :param purge: purges with ``purge.lock`` held, in a table.
        :param without_lock: purges if another process holds the lock.
        """
        for _ in range(_ATTEMPTS):
            try:
                if self._purges_in_current(purge, without_lock):
                    return
            except (OSError, StoreError) as error:
                if not has_no_room(error):
                    raise
                if self._removes_in_current(frozenset(map(address_of, names))):
                    return
        raise StoreError(f"the table of stamps of {self._directory.path} is replaced again and again")

    def _purges_in_current(self, purge: _Step, without_lock: _Step) -> bool:
        """Purge, and return whether that is valid: if the directory was replaced meanwhile, other processes use the new one.

        All steps use one table, and the check at the end asks whether other processes use that table: another thread of this
        process may open the table again at any moment.
        """
        # Before the lock is taken, since opening a new table takes it too.
        self._directory.reopen_if_replaced()
        if self._directory.has_unmapped_table():
            raise StoreError("the table of stamps can't be opened here, and others would not see the purge")
        lock = self._directory.take_purge_lock()
        if lock is None:
            stamps = self._directory.table
            without_lock(stamps)
            return self._directory.is_current(stamps)
        try:
            stamps = self._directory.catch_up()
            if not self._directory.is_current(stamps):
                return False
            self._make_up(stamps)
            self._adopt(stamps)
            purge(stamps)
            return self._directory.is_current(stamps)
        finally:
            lock.release()

    def _removes_in_current(self, names: frozenset[str]) -> bool:
        """Remove the purged entries, and return whether that is valid."""
        stamps = self._directory.table
        self._remove(names, stamps)
        return self._directory.is_current(stamps)

    def _purge(self, names: tuple[str, ...], soft: bool, stamps: Stamps | None) -> None:
        """Purge in an order that is safe at any interruption, each step for all names. ``purge.lock`` is held.

        1. Note the number, so that it is never given twice, even if table and records are lost.
        2. Raise SEQ: from here on, lookups compare the stamps of names, and loads check entries begun before with the records.
        3. Write the records: an entry begun before the end of the purge is dropped or loses its freshness when it is read. Until
           the next step, copies are still served, so an entry begun meanwhile may be made from a purged copy.
        4. Move the stamps of the names: copies of purged entries are no longer valid.
        5. Raise SEQ once more: for copies loaded between 2 and 4, the stamps of their names are compared again.

        If SEQ was raised meanwhile by a purge that could not get the lock, an entry begun then seems to be newer than this purge.
        So all steps are repeated, with a higher number.

        ``tests/stores/purging/test_model.py`` simulates this order and others. A purge that is killed midway was not acknowledged
        and can be repeated.
        """
        for _ in range(_PASSES):
            number = self._next_number(stamps)
            self._records.note_number(number + 1)
            if stamps is not None:
                stamps.begin_purge(number)
            for name in names:
                self._records.write(self._records.read(name).purged(number + 1, time.time(), soft=soft))
            with suppress(OSError):
                # On a full disk there are more records until the next purge.
                self._records.merge_oldest()
            if _is_over(stamps, names, number):
                return

    def _purge_without_lock(self, names: tuple[str, ...], soft: bool, stamps: Stamps | None) -> None:
        """Purge in the same order, but add a line to the waiting purges instead of changing the records.

        The number is higher than SEQ was, so every entry with this number or a higher one was begun after the purge. Several
        processes may raise SEQ at once here, and one may lower it again: then an entry counts as older than it is, which is safe.
        """
        for _ in range(_PASSES):
            number = self._next_number(stamps)
            if stamps is not None:
                stamps.begin_purge(number)
            self._records.waiting.append(Purge(names, number + 1, soft, time.time()))
            if _is_over(stamps, names, number, random.randrange(SEQ_STEPS)):
                break
        self._keep_number(stamps)

    def _apply(self, purges: Sequence[Purge], stamps: Stamps | None) -> None:
        """Apply the purges of other hosts in the order of a purge. ``purge.lock`` is held.

        Each purge keeps its number, since entries of other hosts are compared with it too. If SEQ is higher here already, the purge
        gets a number above SEQ: an entry that was begun since may be made from one that is purged only now. While the purges are
        applied, SEQ is lower than all their numbers.
        """
        new = self._not_applied(purges)
        for _ in range(_PASSES):
            if not new:
                return
            number = self._number_after_last(stamps)
            later = [purge._replace(number=max(purge.number, number) + 1) for purge in new]
            last = max(purge.number for purge in later)
            self._records.note_number(last)
            if stamps is not None:
                stamps.begin_purge(number)
            records: dict[str, PurgeRecord] = {}
            for name, purge in [(name, each) for each in later for name in each.names]:
                record = records.get(address_of(name)) or self._records.read(name)
                records[address_of(name)] = record.purged(purge.number, purge.at, soft=purge.soft)
            for record in records.values():
                self._records.write(record)
            with suppress(OSError):
                self._records.merge_oldest()
            if _is_over(stamps, _names_of(new), number, to=last):
                break
            # Another process that has raised SEQ meanwhile may have applied the same purges: then entries begun since are newer.
            new = self._not_applied(new)
        self._records.note_applied(max(purge.number for purge in purges))

    def _not_applied(self, purges: Sequence[Purge]) -> list[Purge]:
        applied = self._records.applied()
        return [purge for purge in purges if purge.number > applied]

    def _apply_without_lock(self, purges: Sequence[Purge], stamps: Stamps | None) -> None:
        """Add the purges of other hosts to the waiting purges, unless the holder of the lock has applied them meanwhile.

        If they were applied again, entries that were begun since on other hosts would seem to be older than the purges.
        """
        for _ in range(_PASSES):
            new = self._not_applied(purges)
            if not new:
                break
            number = self._number_after_last(stamps)
            if stamps is not None:
                stamps.begin_purge(number)
            later = [purge._replace(number=max(purge.number, number) + 1) for purge in new]
            for purge in later:
                self._records.waiting.append(purge)
            last = max(purge.number for purge in later)
            if _is_over(stamps, _names_of(new), number, random.randrange(SEQ_STEPS), to=last):
                break
        self._keep_number(stamps)
        self._records.note_applied(max(purge.number for purge in purges))

    def _keep_number(self, stamps: Stamps | None) -> None:
        """Write down what SEQ was raised to without the lock, unless a waiting purge implies it: that may be a record by now."""
        if stamps is not None and (last := int(stamps.table[SEQ_SLOT])) > self._records.last_number():
            self._records.waiting.append(Purge((), last, False, time.time()))

    def _remove(self, names: frozenset[str], stamps: Stamps | None) -> None:
        """Remove the entries that have a name with one of the addresses: a full disk has room for that, but not for a record.

        A soft purge removes them too, since without a record the end of their freshness would be unknown. Origins that were called
        before may still be running: LOST in the table, instead of a record, keeps their answers out of the store.
        """
        for _ in range(_PASSES):
            number = self._next_number(stamps)
            if stamps is not None:
                stamps.begin_purge(number)
                stamps.raise_lost(number + 1)
            for folder in range(FOLDERS):
                for name, kinds in self._folders.listed(folder).keys.items():
                    if "entry" in kinds and self._is_named(name, names, number + 1):
                        self._folders.drop(self._folders.found(name, kinds), stamps)
            if _is_over(stamps, names, number, random.randrange(SEQ_STEPS)):
                return

    def _is_named(self, name: str, names: frozenset[str], number: int) -> bool:
        """Whether an entry has one of the names and was begun before a number. A broken entry has no names, and is not served."""
        with suppress(BrokenEntry):
            head = read_head(self._folders.file(name))
            if head is not None:
                seq, its_names = purges_of(head.data)
                return seq < number and not names.isdisjoint(map(address_of, its_names))
        return False

    def _next_number(self, stamps: Stamps | None) -> int:
        number = max(self._last_number(stamps) + 1, time.time_ns())
        return number + number % 2

    def _number_after_last(self, stamps: Stamps | None) -> int:
        last = self._last_number(stamps)
        return last + 1 + (last + 1) % 2

    def _last_number(self, stamps: Stamps | None) -> int:
        # A purge without the lock may have lowered SEQ. If the written number went back too, that would look like a lost purge.
        last = self._records.highest_seen if stamps is None else max(self._records.highest_seen, int(stamps.table[SEQ_SLOT]))
        # A table that hits do not read yet may lack the last purge. A number less than 0: the table was cut.
        if stamps is None or stamps is not self._directory.stamps or int(stamps.table[SEQ_SLOT]) < 0:
            last = max(last, self._records.last_number())
        return last

    def last_number(self) -> int | None:
        """Return the number of the last purge, for a process without a table; ``None`` if another purge may be running.

        A purge writes its number before its records. In between, purged entries are still read, and pages may be made from them.

        :raises OSError: if the directory can't be read; :class:`StoreError` likewise.
        """
        self._directory.hold()
        number = self._records.last_number()
        # Read first: a later purge has a higher number. Another thread in this method may hold the lock for a moment.
        lock = self._directory.take_purge_lock()
        if lock is None:
            return None
        lock.release()
        return number

    def settle(self) -> None:
        """End the purge of a process that was killed in the middle of it: entries begun until now count as older than the purge."""
        stamps = self._directory.table
        if stamps is None or is_settled(int(stamps.table[SEQ_SLOT])):
            return
        lock = self._directory.take_purge_lock(waits=False)
        if lock is not None:
            # A purge without the lock that runs now is done again, since it finds another number at its end.
            stamps.raise_seq(int(stamps.table[SEQ_SLOT]))
            lock.release()

    def adopt_waiting(self) -> None:
        """Turn the waiting purges into records, unless another process holds the lock."""
        if not self._records.waiting.exist():
            return
        lock = self._directory.take_purge_lock(waits=False)
        if lock is None:
            return
        try:
            stamps = self._directory.catch_up()
            if self._directory.is_current(stamps):
                self._make_up(stamps)
                self._adopt(stamps)
        finally:
            lock.release()

    def make_up_for_lost(self) -> None:
        """End the freshness of everything, once, if the directory was restored to an older state and lacks purges.

        :raises OSError: if that can't be done; :class:`StoreError` likewise. Then it is tried again.
        """
        self._directory.is_unchecked = False
        try:
            if self._records.has_gone_back():
                self._try_to_make_up()
        except BaseException:
            self._directory.is_unchecked = True
            raise

    def _try_to_make_up(self) -> None:
        lock = self._directory.take_purge_lock()
        if lock is None:
            # Its holder may have been stopped.
            self._records.is_copy = False
            self.purge((EVERYTHING,), soft=True)
            return
        try:
            self._make_up(self._directory.catch_up())
        except (OSError, StoreError) as error:
            if not has_no_room(error):
                raise
            self._remove(frozenset({address_of(EVERYTHING)}), self._directory.table)
        finally:
            lock.release()

    def _make_up(self, stamps: Stamps | None) -> None:
        """Make up for lost purges, unless another process has done so. ``purge.lock`` is held."""
        if not self._records.has_gone_back():
            return
        if any(self._folders.listed(folder).keys for folder in range(FOLDERS)):
            logger.warning(
                "%s was restored to an older state, and purges since then are missing: the freshness of all its entries ends now",
                self._directory.path,
            )
            self._purge((EVERYTHING,), True, stamps)
        # Else the directory is empty, and entries stored from now on are not older than any purge.
        self._records.accept()

    def _adopt(self, stamps: Stamps | None) -> None:
        """Turn the waiting purges into records. ``purge.lock`` is held.

        SEQ is raised before and after, so that a process that has read the waiting purges and not yet the records reads both again.
        """
        if not self._records.waiting.exist():
            return
        number = self._next_number(stamps)
        self._records.note_number(number + 1)
        if stamps is not None:
            stamps.begin_purge(number)
        self._records.adopt_waiting()
        if stamps is not None:
            stamps.raise_seq(number + 1)
            if (last := int(stamps.table[SEQ_SLOT])) > number + 1:
                # A purge without the lock has raised SEQ further. It did not write the number down, since its line was still there.
                self._records.note_number(last)


def _is_over(stamps: Stamps | None, names: Iterable[str], number: int, more: int = 0, *, to: int = 0) -> bool:
    """Move the stamps of the names and raise SEQ, at the end of a purge; return false if the purge must be repeated.

    :param number: the number of the purge.
    :param more: further steps by which SEQ is raised.
    :param to: the least number to raise SEQ to: numbers of other hosts may be far ahead, and a process may have raised SEQ to them.
    """
    if stamps is None:
        return True
    for name in names:
        stamps.move(slot_of(address_of(name)))
    # Read only now: a copy that was loaded before the stamps were moved has another number.
    last = int(stamps.table[SEQ_SLOT])
    raised = (max(last + 1, to) + more) | 1
    stamps.raise_seq(raised)
    # Read again: a purge without the lock may have raised it in between, and this purge would not affect entries begun since.
    return last == number and int(stamps.table[SEQ_SLOT]) == raised


def _names_of(purges: Iterable[Purge]) -> set[str]:
    return {name for purge in purges for name in purge.names}
