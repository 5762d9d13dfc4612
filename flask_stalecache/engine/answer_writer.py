"""What becomes of an answer: does to the store what the verdict asks for. A store that fails is nobody's error."""

from __future__ import annotations

import os
import random
import time
from dataclasses import replace

from ..core.model.entry import Entry
from ..core.model.note import NOTHING, Note
from ..core.rules.storability import Action, Verdict, after
from ..errors import StoreError
from ..stats.counters import Counters
from ..stores.base import Copy, Store
from .instrumentation import Instrumentation
from .log import RateLimitedLog
from .origin import Answer, Start
from .singleflight import Flight, Flights, Outcome


class AnswerWriter:
    """Settles answers of origins in one store.

    :param store: where entries live.
    :param backoff: the first and the longest pause in seconds after a failure.
    :param counters: where failures are counted.
    :param complaints: where they are told.
    :ivar instrumentation: sees what is stored.
    """

    def __init__(self, store: Store, backoff: tuple[float, float], counters: Counters, complaints: RateLimitedLog) -> None:
        self.instrumentation = Instrumentation()
        self.store = store
        self.backoff = backoff
        self.counters = counters
        self.complaints = complaints

    def start(self, copy: Copy) -> Start:
        """Return what is noted before an origin is called."""
        now = time.time()
        return Start(self.store.seq(), now, os.urandom(8).hex(), copy.entry, copy.note.unstorable(now))

    def load(self, key: str) -> Copy:
        """Return what is stored; nothing, if the store fails."""
        try:
            return self.store.load(key)
        except StoreError as error:
            self.store_failed(error)
            return Copy(key, None, NOTHING, 0, 0)

    def write_flight(self, flights: Flights, flight: Flight, start: Start, answer: Answer) -> bool:
        """Store what a flight brought, tell its waiters how it ended, and return whether it was stored.

        :raises StoreError: if that can't be written; who waited in this process is served all the same.
        """
        if answer.verdict is Verdict.UNSTORABLE:
            flight.outcome = Outcome.UNSTORABLE
        elif answer.verdict is Verdict.REFUSED:
            flight.outcome, flight.failure = Outcome.FAILED, answer
            return False
        elif answer.verdict is Verdict.WORSE:
            flight.outcome = Outcome.FAILED
        elif answer.verdict is Verdict.FAILED:
            may_share = answer.anybodys and (answer.error is not None or answer.shared is not None)
            flight.outcome, flight.failure = Outcome.FAILED, answer if may_share else None
        elif answer.verdict is Verdict.STORABLE and self.store.seq() == start.seq:
            # For those who wait in this process, even if it can't be written.
            flight.outcome, flight.copy = Outcome.STORED, Copy(flight.key, answer.entry, NOTHING, 0, 0, start.seq)
        if answer.beside is not None:
            # Those who waited for another key find the way to theirs in what is stored beside.
            flight.outcome, flight.copy = Outcome.OVER, None
            return self._settle_elsewhere(flight, answer, answer.beside)
        if flight.lock is None and not flights.is_current(flight):
            # A deadline took the lock from us.
            return self.write_if_unlocked(flight.key, answer)
        # Who waited too long calls without the lock, so that somebody may have stored since we looked.
        copy = self.store.lookup(flight.key) or self.store.load(flight.key)
        is_late = copy.entry is not None and copy.entry.serial != (start.previous.serial if start.previous else None)
        if is_late and answer.verdict is not Verdict.STORABLE:
            return False
        if not self._settle(copy, answer):
            if answer.verdict is Verdict.STORABLE:
                # Purged meanwhile, or older than what is stored: who waited looks again.
                flight.outcome, flight.copy = Outcome.OVER, None
            return False
        flight.outcome = Outcome.STORED
        flight.copy = self.store.load(flight.key)
        return True

    def write_if_unlocked(self, key: str, answer: Answer | None) -> bool:
        """Store an answer that came without the lock, if it is storable and nobody holds the lock now."""
        if answer is None or answer.verdict is not Verdict.STORABLE:
            return False
        if answer.beside is not None:
            return self._settle_elsewhere(None, answer, answer.beside)
        lock = self.store.lock(key)
        try:
            return lock.acquire() and self._settle(self.store.load(key), answer)
        except StoreError as error:
            self.store_failed(error)
            return False
        finally:
            lock.release()

    def remove_if_unlocked(self, key: str) -> bool:
        """Remove what is stored, and return whether that could be done: somebody may be renewing it."""
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

    def _settle_elsewhere(self, flight: Flight | None, answer: Answer, beside: Entry) -> bool:
        """Store an answer under its own key, and beside it what leads there: that first goes without the other is no harm."""
        here, there = replace(answer, beside=None), replace(answer, beside=None, entry=beside)
        if answer.entry is None or not self._settle_under(flight, answer.entry.key, here):
            return False
        return self._settle_under(flight, beside.key, there)

    def _settle_under(self, flight: Flight | None, key: str, answer: Answer) -> bool:
        """Store an answer under a key, whose lock the flight may hold."""
        if flight is not None and flight.key == key and flight.lock is not None:
            return self._settle(self.store.load(key), answer)
        return self.write_if_unlocked(key, answer)

    def _settle(self, copy: Copy, answer: Answer) -> bool:
        """Do to what is stored what the answer asks for, and return whether the answer was stored."""
        now = time.time()
        if answer.verdict is Verdict.STORABLE:
            return self._replace(copy, answer, now)
        if after(answer.verdict, stored=copy.entry is not None, anybodys=answer.anybodys) is Action.DROP:
            self.store.remove(copy.key)
        if answer.verdict is Verdict.FAILED:
            self.note_failure(copy, answer)
        elif answer.verdict is Verdict.WORSE:
            self.store.write_note(copy.key, copy.note.put_off(now, answer.retry_after or self.backoff[0]))
        elif answer.verdict is Verdict.UNSTORABLE:
            self.store.write_note(copy.key, copy.note.marked_unstorable(now))
        else:
            self.store.write_note(copy.key, copy.note.marked_personal(now, answer.carried))
        return False

    def _replace(self, copy: Copy, answer: Answer, now: float) -> bool:
        if answer.entry is None or not answer.entry.outdates(copy.entry, now):
            return False
        if not self.store.write(answer.entry):
            return False
        self.instrumentation.entry_stored(answer.entry)
        if answer.retry_after:
            self.store.write_note(copy.key, Note(written=now, retry_at=now + answer.retry_after))
        elif copy.note != NOTHING:
            self.store.write_note(copy.key, NOTHING)
        return True

    def note_failure(self, copy: Copy, answer: Answer | None = None) -> None:
        """Count a failure in the key's note, so that all workers back off.

        :param answer: what the origin said of it, if it said anything.
        """
        self.counters.count("origin_failures")
        asked = (0.0, 0.0) if answer is None else (answer.retry_after or 0.0, answer.silent_for or 0.0)
        self.store.write_note(copy.key, copy.note.failed(time.time(), self.backoff, random.random(), *asked))

    def store_failed(self, error: StoreError) -> None:
        """Count a failure of the store, and say it once a minute."""
        self.counters.count("store_failures")
        self.complaints.error_every_minute("store", "the cache store failed, pages are served live: %s", error)
