"""Protects the process from a third party that hangs or fails: a limit on concurrent calls, and a circuit breaker.

States of the breaker, all in one note that the workers of a machine share:

=========  ====================================  ==============================================
state      the note                              calls
=========  ====================================  ==============================================
closed     fewer failures than ``after``         all are made
open       ``retry_at`` is in the future         none is made
half open  ``retry_at`` has passed               the first one is a trial, the others are refused
=========  ====================================  ==============================================

The back-off of a single key is in :class:`~flask_stalecache.core.model.note.Note`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from weakref import WeakSet

from ...core.addressing.purge_names import EVERYTHING, function_name
from ...core.guarded import guarded
from ...core.model.note import NOTHING, Note
from ...errors import StoreError
from ...filesystem.per_process import PerProcess
from ...stores.base import Store


class Slot:
    """The place of one running call. It is free again when nothing refers to it any more."""

    __slots__ = ("__weakref__",)


class _Slots:
    """The slots that are taken in one process."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Reentrant: a slot may be garbage at any moment.
        self._mutex = threading.RLock()
        self._taken: WeakSet[Slot] = WeakSet()

    @guarded
    def take(self) -> Slot | None:
        if len(self._taken) >= self._limit:
            return None
        slot = Slot()
        self._taken.add(slot)
        return slot

    @guarded
    def give_back(self, slot: Slot) -> None:
        self._taken.discard(slot)


class ConcurrencyLimit:
    """Limits the concurrent calls in one process. A forked child starts with all slots free.

    No slot is lost to an exception that comes between taking it and the call.

    :param limit: the number of calls; ``None``: no limit.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._slots = PerProcess(lambda: _Slots(limit or 1))

    def take(self) -> Slot | None:
        """Take a slot without waiting. Return ``None`` if none is free."""
        return Slot() if self.limit is None else self._slots.get().take()

    def give_back(self, slot: Slot) -> None:
        """Release a slot that was taken in this process."""
        if self.limit is not None:
            self._slots.get().give_back(slot)


class CircuitBreaker:
    """Stops the calls of a function for a while after too many failures in a row; then allows one trial call.

    :param store: keeps the note of the function.
    :param function: the function's module and qualified name.
    :param after: failures in a row, over all keys; ``None``: it is never suspended.
    :param pause: seconds for which it is suspended.
    :param store_failed: called with errors of the store. While the store fails, nothing is suspended.
    """

    def __init__(
        self, store: Store, function: str, after: int | None, pause: float, store_failed: Callable[[StoreError], None]
    ) -> None:
        self._store = store
        self._key = ascii(("function", function))
        self._names = (EVERYTHING, function_name(function))
        self._after = after
        self._pause = pause
        self._store_failed = store_failed

    def is_on(self) -> bool:
        """Whether the function is suspended now."""
        return self._after is not None and self._known().backing_off(time.time())

    def left(self) -> float:
        """Return the seconds until a call is tried; 0 if the function is not suspended."""
        return self._known().pause_left(time.time())

    def failures(self) -> int:
        """Return the failures in a row."""
        return self._known().failures

    def admits(self) -> bool:
        """Whether a call may be made now. After the pause, only the first call may."""
        if self._after is None or (note := self._known()).failures < self._after:
            return True
        if note.backing_off(time.time()):
            return False
        # The trial starts another pause, after which there is a next trial even if this one hangs.
        return self._change(
            lambda note, now: None if note.backing_off(now) else replace(note, written=now, retry_at=now + self._pause),
            self.seq(),
        )

    def seq(self) -> int:
        """Return the last purge number. A later purge of the function or of everything ends the memory of failures before it."""
        return self._store.seq()

    def learn(self, *, failed: bool, seq: int) -> None:
        """Count a failure; a success resets the count.

        :param seq: the last purge number when the function was called.
        """
        if self._after is None or (not failed and not self._known().failures):
            return
        self._change(self._after_failure if failed else lambda note, now: NOTHING, seq)

    def _after_failure(self, note: Note, now: float) -> Note:
        failures = note.failures + 1
        is_enough = self._after is not None and failures >= self._after
        return replace(note, written=now, failures=failures, retry_at=now + self._pause if is_enough else 0.0)

    def _known(self) -> Note:
        try:
            return (self._store.lookup(self._key) or self._store.load(self._key)).note
        except StoreError as error:
            self._store_failed(error)
            return NOTHING

    def _change(self, change: Callable[[Note, float], Note | None], seq: int) -> bool:
        """Change the note under its lock. Return whether it was changed; true also if the store fails.

        It is not changed if the lock is taken, or if the change is ``None``.
        """
        lock = self._store.lock(self._key)
        try:
            for _ in range(_TRIES):
                if lock.acquire():
                    break
                time.sleep(_BETWEEN)
            else:
                return False
            now = time.time()
            known = self._store.load(self._key).note
            note = change(known, now)
            if note is None:
                return False
            self._store.write_note(self._key, replace(note, names=self._names, seq=max(seq, known.seq)))
            return True
        except StoreError as error:
            self._store_failed(error)
            return True
        finally:
            lock.release()


#: The number of tries to lock a note that another process is writing, and the seconds between them.
_TRIES, _BETWEEN = 20, 0.005
