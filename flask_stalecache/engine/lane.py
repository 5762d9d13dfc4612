"""The lane of refreshes that compute: one at a time in a process, while the interpreter lets visitors in between more often.

Four threads that compute leave visitors a hundredth of the hits that they had. One that does, with a lower switch interval, leaves
them most. So a refresh of an entry that took long to compute waits for its turn, apart from those that wait for third parties.
All caches of a process share one turn. A process outside the web server has no visitors to spare (:mod:`.switch_interval` is not
asked there), and gevent and free-threaded builds have no lane.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from .meter import is_measurable
from .per_process import PerProcess
from .switch_interval import lowered

#: Seconds after which a thread that waits for its turn looks whether it was given to somebody who hangs.
LOOK = 0.5


class Turn:
    """The right to compute, which one thread of a process has at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: int | None = None

    def is_mine(self) -> bool:
        """Whether this thread has it."""
        return self._holder == threading.get_ident()

    def take(self, patience: float) -> threading.Lock | None:
        """Wait for it, and return what :meth:`leave` is given; ``None`` if it could not be had in time.

        :param patience: seconds to wait at most.
        """
        until = time.monotonic() + patience
        while True:
            lock, left = self._lock, until - time.monotonic()
            if lock.acquire(timeout=max(0.0, min(LOOK, left))):
                if lock is self._lock:
                    self._holder = threading.get_ident()
                    return lock
                lock.release()
            elif left <= 0.0:
                return None

    def leave(self, lock: threading.Lock) -> None:
        """Give it back."""
        if lock is self._lock:
            self._holder = None
        lock.release()

    def give_up(self, thread: int) -> None:
        """Take it from a thread that hangs, if it has it.

        :param thread: the ident of the thread.
        """
        if self._holder == thread:
            # The other lock stays taken until the thread ends, which may be never.
            self._holder, self._lock = None, threading.Lock()


_turns = PerProcess(Turn)


class Lane:
    """The part of one cache in the lane of its process.

    :param interval: the switch interval while somebody computes, in seconds; ``None`` leaves it alone.
    :ivar spares: whether there are visitors to spare: not in a process that only refreshes.
    """

    def __init__(self, interval: float | None) -> None:
        self.interval = interval
        self.spares = True

    @property
    def is_open(self) -> bool:
        """Whether this process has a lane."""
        return is_measurable()

    def is_mine(self) -> bool:
        """Whether this thread has the turn."""
        return _turns.get().is_mine()

    @contextmanager
    def turn(self, patience: float) -> Iterator[None]:
        """Wait for the turn, and have it meanwhile. A thread that has it already goes on. After too long a wait, go on without.

        :param patience: seconds to wait at most.
        """
        turn = _turns.get()
        if turn.is_mine():
            yield
            return
        lock = turn.take(patience)
        try:
            with self.gently():
                yield
        finally:
            if lock is not None:
                turn.leave(lock)

    def gently(self) -> AbstractContextManager[None]:
        """Lower the switch interval meanwhile."""
        return lowered(self.interval) if self.spares and self.is_open else nullcontext()

    def give_up(self, thread: int) -> None:
        """Take the turn from a thread that hangs."""
        _turns.get().give_up(thread)
