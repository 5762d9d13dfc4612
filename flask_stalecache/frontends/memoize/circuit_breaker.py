"""What keeps calls of a third party from taking the process with them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from ...core.model.note import NOTHING, Note
from ...engine.per_process import PerProcess
from ...errors import StoreError
from ...stores.base import Store


class ConcurrencyLimit:
    """So many calls at the same time in a process, and no more. Made anew after a fork.

    :param limit: calls at most; ``None``: no limit.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._semaphores = PerProcess(lambda: threading.BoundedSemaphore(limit or 1))

    def take(self) -> bool:
        """Take a slot if one is free, and say whether it was; it never waits."""
        return self.limit is None or self._semaphores.get().acquire(blocking=False)

    def give_back(self) -> None:
        """Give back a slot that was taken in this process."""
        if self.limit is not None:
            self._semaphores.get().release()


class CircuitBreaker:
    """Stops the calls of a function that failed too often in a row, for a while; then one is tried (a circuit breaker).

    What is known stands in a note of the function, so that all workers of a machine share it.

    :param store: where the note is.
    :param function: the function's module and qualified name.
    :param after: failures in a row, over all keys; ``None``: it is never suspended.
    :param pause: seconds for which it is left alone.
    :param store_failed: told of a store that fails; then nothing is suspended.
    """

    def __init__(
        self, store: Store, function: str, after: int | None, pause: float, store_failed: Callable[[StoreError], None]
    ) -> None:
        self._store = store
        self._key = ascii(("function", function))
        self._after = after
        self._pause = pause
        self._store_failed = store_failed

    def is_on(self) -> bool:
        """Whether the function is left alone now."""
        return self._after is not None and self._known().backing_off(time.time())

    def left(self) -> float:
        """Return the seconds for which it is still left alone; 0 if it is not."""
        return max(0.0, self._known().retry_at - time.time())

    def failures(self) -> int:
        """Return the failures in a row."""
        return self._known().failures

    def admits(self) -> bool:
        """Whether a call may be made: of those that come when the pause is over, the first one."""
        if self._after is None or (note := self._known()).failures < self._after:
            return True
        if note.backing_off(time.time()):
            return False
        # The trial lengthens the pause, so that one that hangs does not end all trials.
        return self._change(
            lambda note, now: None if note.backing_off(now) else replace(note, written=now, retry_at=now + self._pause)
        )

    def learn(self, *, failed: bool) -> None:
        """Count a failure, or forget those before a success."""
        if self._after is None or (not failed and not self._known().failures):
            return
        self._change(self._after_failure if failed else lambda note, now: NOTHING)

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

    def _change(self, change: Callable[[Note, float], Note | None]) -> bool:
        """Write the note anew under its lock, and return whether that was done; ``None`` leaves it as it is."""
        lock = self._store.lock(self._key)
        try:
            for _ in range(_TRIES):
                if lock.acquire():
                    break
                time.sleep(_BETWEEN)
            else:
                return False
            now = time.time()
            note = change(self._store.load(self._key).note, now)
            if note is None:
                return False
            self._store.write_note(self._key, note)
            return True
        except StoreError as error:
            self._store_failed(error)
            return True
        finally:
            lock.release()


#: How often, and after how many seconds each, a note that another process is writing is tried again.
_TRIES, _BETWEEN = 20, 0.005
