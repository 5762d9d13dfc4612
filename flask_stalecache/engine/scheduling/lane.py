"""The lane of refreshes that compute: one at a time in a process, while the interpreter lets visitors in between more often.

Four threads that compute leave visitors a hundredth of their hits. One such thread, with a lower switch interval, leaves them most.
So a refresh of an entry that took long to compute waits for its turn, apart from those that wait for third parties. All caches of a
process share one turn. After a turn during which visitors were served, the lane rests. A process outside the web server has no
visitors to spare: it does not use :mod:`.switch_interval`, and does not rest. gevent and free-threaded builds have no lane.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from ...core.model.work import rest_after
from ...filesystem.per_process import PerProcess
from .meter import is_measurable
from .switch_interval import lowered

#: Seconds after which a thread that waits for its turn checks whether another thread that hangs has it.
LOOK = 0.5


class Turn:
    """The right to compute, which one thread of a process has at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: int | None = None
        #: The end of the rest after the turn before, on the clock of :func:`time.perf_counter`.
        self._rests_until = 0.0

    def is_mine(self) -> bool:
        """Whether this thread has it."""
        return self._holder == threading.get_ident()

    def take(self, patience: float) -> threading.Lock | None:
        """Wait for it, until a rest is over, and return what :meth:`leave` is given; ``None`` if it could not be had in time.

        :param patience: seconds to wait at most.
        """
        until = time.perf_counter() + patience
        while (lock := self._try_to_take(until)) is None and time.perf_counter() < until:
            pass
        return lock

    def _try_to_take(self, until: float) -> threading.Lock | None:
        """Wait for the end of a rest, or a moment for the thread that has it. Return ``None`` if it is not this thread's yet."""
        lock, now = self._lock, time.perf_counter()
        rest, left = self._rests_until - now, max(0.0, until - now)
        if rest > 0.0:
            time.sleep(min(rest, left))
            return None
        if not lock.acquire(timeout=min(LOOK, left)):
            return None
        if lock is not self._lock or self._rests_until > time.perf_counter():
            # The thread that gave it back has begun a rest, or it was taken from one that hangs.
            lock.release()
            return None
        self._holder = threading.get_ident()
        return lock

    def leave(self, lock: threading.Lock, rest: float) -> None:
        """Give it back.

        :param rest: seconds for which the lane rests.
        """
        if lock is self._lock:
            self._holder, self._rests_until = None, time.perf_counter() + rest
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

    :param interval: the switch interval while a thread computes, in seconds; ``None`` leaves it unchanged.
    :ivar has_visitors: whether visitors are served in this process, who are to be spared: not if it only refreshes.
    """

    def __init__(self, interval: float | None) -> None:
        self.interval = interval
        self.has_visitors = True

    @property
    def is_open(self) -> bool:
        """Whether this process has a lane."""
        return is_measurable()

    def is_mine(self) -> bool:
        """Whether this thread has the turn."""
        return _turns.get().is_mine()

    @contextmanager
    def turn(self, patience: float, *, rests: bool) -> Iterator[None]:
        """Wait for the turn, and have it meanwhile. A thread that has it already goes on. After too long a wait, go on without.

        :param patience: seconds to wait at most.
        :param rests: the lane rests afterwards.
        """
        turn = _turns.get()
        if turn.is_mine():
            yield
            return
        lock = turn.take(patience)
        begun, own, all_threads = time.perf_counter(), time.thread_time(), time.process_time()
        try:
            with self.gently():
                yield
        finally:
            if lock is not None:
                took, own = time.perf_counter() - begun, time.thread_time() - own
                turn.leave(lock, rest_after(own, took, time.process_time() - all_threads) if rests and self.has_visitors else 0.0)

    def gently(self) -> AbstractContextManager[None]:
        """Lower the switch interval meanwhile."""
        return lowered(self.interval) if self.has_visitors and self.is_open else nullcontext()

    def give_up(self, thread: int) -> None:
        """Take the turn from a thread that hangs."""
        _turns.get().give_up(thread)
