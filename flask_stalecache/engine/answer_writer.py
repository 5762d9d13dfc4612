"""Writes answers to the store as their verdicts require, and sets the results for waiting requests.

A store error is counted and logged but never reaches a request: the page is served uncached instead.

Locks: an entry and its note are written while the lock of their key is held. A flight holds it from before the call until the
write is done. A request that called the origin without the lock writes only if the lock is free.
"""

from __future__ import annotations

import os
import random
import threading
import time
from dataclasses import replace

from ..core.exhaustive import assert_never
from ..core.model.entry import Entry
from ..core.model.note import NOTHING, Lasting, Note
from ..core.model.reasons import ABOUT_ONE_REQUEST, LASTING, NEVER_STORED, StoreRefusal
from ..core.rules.storability import Action, Verdict, after
from ..core.rules.variant_index import merged_index
from ..errors import StoreError
from ..filesystem.per_process import PerProcess
from ..filesystem.uptime import seconds_up
from ..stats.counters import Counters
from ..stores.base import Copy, Store
from .flights.singleflight import LOOK_AGAIN, Flight, FlightOutcome, FlightResult, Flights
from .instrumentation import Instrumentation
from .log import RateLimitedLog
from .origin import Answer, Start
from .scheduling.lane import Lane
from .scheduling.meter import Meter
from .unstorable_marks import UnstorableMark, UnstorableMarks


def result_for_waiters(answer: Answer, key: str, start: Start, seq: int) -> FlightResult:
    """Return the result of a flight for the requests that wait for it.

    ============================ ==================== =====================================================
    verdict                      result               what the waiters do
    ============================ ==================== =====================================================
    STORABLE                     STORED, the entry    serve it, even if the store can't be written
    STORABLE, purged meanwhile   OVER                 look again: the entry was made from older data
    STORABLE, purged before      DATED, the entry     serve it if they asked for it before that purge, too
    STORABLE, for another key    OVER                 look again: the index entry leads each to its key
    UNSTORABLE                   UNSTORABLE           call the origin, all at once
    PERSONAL                     OVER                 look again, and elect a new leader
    FAILED                       FAILED, the answer   serve a stale copy, else what :meth:`Origin.share_of` returns
    WORSE                        FAILED               serve the stale copy, which is better
    REFUSED                      FAILED, the answer   serve a stale copy, else the same refusal
    ============================ ==================== =====================================================

    :param key: the key of the flight.
    :param start: the facts of the call. A front end may know that its entry counts as begun earlier than the call.
    :param seq: the number of the last purge by now.
    """
    match answer.verdict:
        case Verdict.STORABLE:
            if seq != start.seq or _is_elsewhere(answer, key):
                return LOOK_AGAIN
            is_dated = answer.entry is not None and answer.entry.seq != seq
            outcome = FlightOutcome.DATED if is_dated else FlightOutcome.STORED
            return FlightResult(outcome, Copy(key, answer.entry, NOTHING, 0, 0, seq))
        case Verdict.UNSTORABLE:
            return FlightResult(FlightOutcome.UNSTORABLE)
        case Verdict.PERSONAL:
            return LOOK_AGAIN
        case Verdict.FAILED:
            return FlightResult(FlightOutcome.FAILED, failure=answer)
        case Verdict.WORSE:
            return FlightResult(FlightOutcome.FAILED)
        case Verdict.REFUSED:
            return FlightResult(FlightOutcome.FAILED, failure=answer)
        case _:
            return assert_never(answer.verdict)


class AnswerWriter:
    """Writes the answers of origins to one store.

    :param store: where entries live.
    :param backoff: the first and the longest pause in seconds after a failure.
    :param counters: counts failures.
    :param complaints: logs failures.
    :param lane: the lane of refreshes that compute, if there is one.
    :ivar instrumentation: sends a signal for each stored entry.
    """

    def __init__(
        self, store: Store, backoff: tuple[float, float], counters: Counters, complaints: RateLimitedLog, lane: Lane | None = None
    ) -> None:
        self.instrumentation = Instrumentation(lane, complaints)
        self.store = store
        self.backoff = backoff
        self.counters = counters
        self.complaints = complaints
        self._marks = PerProcess(UnstorableMarks)
        #: Held while an index is read and written.
        self._indexing = PerProcess(threading.Lock)

    def start(self, copy: Copy) -> Start:
        """Record the facts of a call that is about to begin."""
        now = time.time()
        is_lasting = copy.entry is None and copy.note.lasts is not Lasting.NOTHING
        if is_lasting:
            # The note counts as used as long as its key is requested.
            self.store.touch(copy)
        return Start(
            self.store.seq(),
            now,
            os.urandom(8).hex(),
            copy.entry,
            self.is_marked(copy, now),
            is_lasting,
            seconds_up(),
            meter=Meter(),
        )

    def is_marked(self, copy: Copy, now: float) -> bool:
        """Whether answers for the key could not be stored so far, so that requests need not wait for the call of another one.

        The note is for all processes, and lasts a short while; the marks of this process last until an answer can be stored.

        :param now: seconds since the epoch.
        """
        if copy.note.unstorable(now):
            return True
        if copy.entry is not None:
            # An answer could be stored, by whichever process.
            return False
        mark = self._marks.get().of(copy.key)
        # A hard purge ends the note: the page has changed.
        return mark is UnstorableMark.CERTAIN or (mark is UnstorableMark.REPEATED and copy.note != NOTHING)

    def mark_endless(self, key: str) -> None:
        """Mark a key whose body takes longer than requests wait for it. The mark ends if the body is ever stored."""
        self._marks.get().add(key, is_certain=True)

    def _mark(self, key: str, answer: Answer) -> None:
        """Mark a key whose answer can't be stored, if the next answers probably can't be stored either."""
        reason = None if answer.reason is None else answer.reason.reason
        if reason in ABOUT_ONE_REQUEST or (reason is None and answer.error is None):
            return
        self._marks.get().add(key, is_certain=answer.anybodys and reason in NEVER_STORED)

    def load(self, key: str) -> Copy:
        """Load the copy of a key. Return an empty copy if the store fails."""
        try:
            return self.store.load(key)
        except StoreError as error:
            self.store_failed(error)
            return Copy(key, None, NOTHING, 0, 0)

    def write_flight(self, flights: Flights, flight: Flight, start: Start, answer: Answer) -> bool:
        """Write the flight's answer to the store and set the result for its waiters. Return whether the answer was stored.

        :raises StoreError: if the store can't be written. The waiters of this process still get their result.
        """
        flight.result = result_for_waiters(answer, flight.key, start, self.store.seq())
        if answer.verdict is Verdict.REFUSED:
            return False
        if _is_elsewhere(answer, flight.key):
            return self._write_both(flight, answer)
        if flight.lock is None and not flights.is_current(flight):
            # The deadline has passed: housekeeping released the lock, and another process may hold it.
            return self.write_if_unlocked(flight.key, answer)
        # A leader that timed out waiting for the lock called without it: another process may have stored an entry since then.
        copy = self.store.lookup(flight.key) or self.store.load(flight.key)
        is_late = copy.entry is not None and copy.entry.serial != (start.previous.serial if start.previous else None)
        if is_late and answer.verdict is not Verdict.STORABLE:
            return False
        if self._apply(copy, answer, start.seq):
            flight.result = FlightResult(FlightOutcome.STORED, self.store.load(flight.key))
            return True
        if flight.result.outcome is FlightOutcome.STORED:
            # The answer was purged meanwhile, or is older than the stored entry.
            flight.result = LOOK_AGAIN
        return False

    def write_if_unlocked(self, key: str, answer: Answer | None) -> bool:
        """Store an answer that was made without the lock, if it is storable and the lock is free."""
        if answer is not None and answer.verdict is Verdict.UNSTORABLE:
            if _is_of_storable(answer):
                self._unmark_if_unlocked(key, answer)
            self._mark(key, answer)
        if answer is None or answer.verdict is not Verdict.STORABLE:
            return False
        if _is_elsewhere(answer, key):
            return self._write_both(None, answer)
        lock = self.store.lock(key)
        try:
            return lock.acquire() and self._apply(self.store.load(key), answer, _begun(answer))
        except StoreError as error:
            self.store_failed(error)
            return False
        finally:
            lock.release()

    def _unmark_if_unlocked(self, key: str, answer: Answer) -> None:
        """End the marks of a key. Do nothing if the lock is taken: the answer of the running call decides."""
        if not self._ends_marks(self.store.lookup(key) or self.load(key), answer, time.time()):
            return
        lock = self.store.lock(key)
        try:
            if lock.acquire():
                copy, now = self.store.load(key), time.time()
                self._write_note(copy, copy.note.marked_storable(now), ())
        except StoreError as error:
            self.store_failed(error)
        finally:
            lock.release()

    def _ends_marks(self, copy: Copy, answer: Answer, now: float) -> bool:
        """End the mark in this process after a part of an answer that could be stored. Return whether the note has a mark too.

        Do nothing as long as the note keeps requests from queueing: if the fields of an app's whole answers differ from those of
        their parts, the app would be called for the whole each time.
        """
        told = frozenset() if answer.reason is None else _TOLD_BY_PART.get(answer.reason.reason, frozenset())
        if copy.note.unstorable(now) or copy.note.lasts not in told:
            return False
        self._marks.get().remove(copy.key)
        return copy.note.lasts is not Lasting.NOTHING

    def remove_if_unlocked(self, key: str) -> bool:
        """Remove the entry of a key. Return false if the lock is taken: a refresh may be running."""
        lock = self.store.lock(key)
        try:
            if not lock.acquire():
                return False
            self.store.remove(key)
        except StoreError as error:
            self.store_failed(error)
            return False
        finally:
            lock.release()
        return True

    def end_freshness(self, entry: Entry) -> None:
        """Make a stored entry stale. Do nothing if it was replaced, or if the lock is taken: a call may be running."""
        lock = self.store.lock(entry.key)
        try:
            if not lock.acquire():
                return
            stored, now = self.store.load(entry.key).entry, time.time()
            if stored is not None and stored.serial == entry.serial and stored.is_fresh(now):
                self.store.write(stored.in_memory().softly_purged(now))
        except StoreError as error:
            self.store_failed(error)
        finally:
            lock.release()

    def _write_both(self, flight: Flight | None, answer: Answer) -> bool:
        """Store an answer under its own key, and then the index entry that leads there, if that has changed.

        If the process dies between the two writes, no request finds the first entry, which does no harm.
        """
        here, beside = replace(answer, beside=None), answer.beside
        if answer.entry is None or not self._write_under(flight, answer.entry.key, here):
            return False
        if beside is None:
            return True
        try:
            return self._write_index(flight, beside, replace(here, entry=beside))
        except StoreError as error:
            self.store_failed(error)
            return False

    def _write_index(self, flight: Flight | None, index: Entry, answer: Answer) -> bool:
        """Store an index, merged with the variants that other requests have added meanwhile.

        If another call holds the lock, the index is written without the lock: that call may take long, and adds to the same index
        at its end. At worst, two processes leave out a variant, which is added again when it is stored next.
        """
        lock = (
            None if flight is not None and flight.lock_key == index.key and flight.lock is not None else self.store.lock(index.key)
        )
        try:
            if lock is not None:
                lock.acquire()
            with self._indexing.get():
                copy = self.store.load(index.key)
                return self._replace(copy, replace(answer, entry=merged_index(index, copy.entry)), time.time())
        finally:
            if lock is not None:
                lock.release()

    def _write_under(self, flight: Flight | None, key: str, answer: Answer) -> bool:
        """Store an answer under a key, whose lock the flight may hold."""
        if flight is not None and flight.lock_key == key and flight.lock is not None:
            return self._apply(self.store.load(key), answer, _begun(answer))
        return self.write_if_unlocked(key, answer)

    def _apply(self, copy: Copy, answer: Answer, seq: int | None) -> bool:
        """Update the entry and the note as the verdict asks. Return whether the answer was stored. The key's lock is held.

        :param seq: the last purge number when the origin was called; ``None``: unknown.
        """
        now = time.time()
        if after(answer.verdict, stored=copy.entry is not None, anybodys=answer.anybodys) is Action.DROP:
            self.store.remove(copy.key)
        match answer.verdict:
            case Verdict.STORABLE:
                return self._replace(copy, answer, now)
            case Verdict.UNSTORABLE:
                self._note_unstorable(copy, answer, now, seq)
            case Verdict.PERSONAL:
                self._write_note(copy, copy.note.marked_personal(now, answer.carried), answer.names, seq)
            case Verdict.FAILED:
                self.note_failure(copy, answer, answer.names, seq=seq)
            case Verdict.WORSE:
                note = copy.note.put_off(now, answer.retry_after or self.backoff[0])
                self._write_note(copy, note, answer.names, seq)
            case Verdict.REFUSED:
                # The origin was not called, so there is nothing to record.
                pass
            case _:
                assert_never(answer.verdict)
        return False

    def _note_unstorable(self, copy: Copy, answer: Answer, now: float, seq: int | None) -> None:
        if not _is_of_storable(answer):
            self._mark(copy.key, answer)
            self._write_note(copy, copy.note.marked_unstorable(now, lasts=_what_lasts(answer)), answer.names, seq)
        elif self._ends_marks(copy, answer, now):
            self._write_note(copy, copy.note.marked_storable(now), answer.names, seq)

    def _replace(self, copy: Copy, answer: Answer, now: float) -> bool:
        if answer.entry is None or not answer.entry.outdates(copy.entry, now):
            return False
        if not self.store.write(answer.entry):
            return False
        self._marks.get().remove(copy.key)
        self.instrumentation.entry_stored(answer.entry)
        if answer.retry_after:
            self._write_note(copy, Note(written=now, retry_at=now + answer.retry_after), answer.entry.names, answer.entry.seq)
        elif copy.note != NOTHING:
            self.store.write_note(copy.key, NOTHING)
        return True

    def note_failure(
        self, copy: Copy, answer: Answer | None = None, names: tuple[str, ...] = (), *, seq: int | None = None
    ) -> None:
        """Count a failure in the key's note, so that all workers back off.

        :param answer: the origin's answer, which may ask for a longer back-off.
        :param names: the names by which the note is purged, if no entry with names is stored.
        :param seq: the last purge number when the origin was called; ``None``: unknown.
        """
        self.counters.count("origin_failures")
        asked = (0.0, 0.0) if answer is None else (answer.retry_after or 0.0, answer.silent_for or 0.0)
        self._write_note(copy, copy.note.failed(time.time(), self.backoff, random.random(), *asked), names, seq)

    def _write_note(self, copy: Copy, note: Note, names: tuple[str, ...], seq: int | None = None) -> None:
        """Write a note. A hard purge of the entry, or of what would be the entry, ends it, even one since the origin was called."""
        stored = () if copy.entry is None else copy.entry.names
        # The note before has outlived all purges up to its own number.
        number = self.store.seq() if seq is None else max(seq, copy.note.seq)
        self.store.write_note(copy.key, replace(note, names=names or stored or note.names, seq=number))

    def store_failed(self, error: StoreError) -> None:
        """Count a failure of the store, and log it once a minute."""
        self.counters.count("store_failures")
        self.complaints.error_every_minute("store", "the cache store failed, pages are served live: %s", error)


def _begun(answer: Answer) -> int | None:
    """Return the last purge number when the origin was called; ``None`` for an answer without an entry."""
    return None if answer.entry is None else answer.entry.seq


def _is_elsewhere(answer: Answer, key: str) -> bool:
    """Whether an answer is stored under another key than the one that was called for, or with an index entry."""
    return answer.beside is not None or (answer.entry is not None and answer.entry.key != key)


#: Which marks a part of an answer ends, by the reason why the part itself is not stored.
_TOLD_BY_PART = {
    StoreRefusal.PART_OF_STORABLE: frozenset(Lasting),
    StoreRefusal.PART_OF_UNSIZED: frozenset({Lasting.NOTHING, Lasting.FIELDS}),
    StoreRefusal.PART_OF_UNSAID: frozenset({Lasting.NOTHING}),
}


def _is_of_storable(answer: Answer) -> bool:
    """Whether an answer is a part or a confirmation of one that could be stored."""
    return answer.reason is not None and answer.reason.reason in _TOLD_BY_PART


def _what_lasts(answer: Answer) -> Lasting:
    """Return the cause that is likely to keep the next answers out of the store too."""
    reason = None if answer.reason is None else answer.reason.reason
    if reason is StoreRefusal.TOO_LARGE:
        return Lasting.SIZE
    return Lasting.FIELDS if reason in LASTING else Lasting.NOTHING
