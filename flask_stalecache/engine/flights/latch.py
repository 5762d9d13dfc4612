"""An event that no exception leaves locked.

``threading.Event`` takes a lock in Python code, both to wait and to set. If a signal's handler raises in there, the lock stays
held, and all waiters hang, whatever their timeouts. Here each waiter has a lock of its own, which only ever becomes free.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress


class Latch:
    """A flag that is set once, by any thread. Many threads may wait for it.

    :ivar waiters: the locks of the threads that wait or waited.
    """

    __slots__ = ("_is_set", "waiters")

    def __init__(self) -> None:
        self._is_set = False
        self.waiters: deque[threading.Lock] = deque()

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and wake all waiters. If that is interrupted, the remaining waiters see it at the end of their timeouts."""
        self._is_set = True
        with suppress(IndexError):
            while True:
                self.waiters.popleft().release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set. Return whether it is.

        :param timeout: seconds to wait at most. Default: no limit.
        """
        if self._is_set:
            return True
        waiter = threading.Lock()
        waiter.acquire()
        self.waiters.append(waiter)
        # Checked only after the lock is in the list, since set() sets the flag first and then wakes the waiters in the list.
        if not self._is_set:
            waiter.acquire(timeout=-1 if timeout is None else max(0.0, timeout))
        with suppress(ValueError):
            self.waiters.remove(waiter)
        return self._is_set
