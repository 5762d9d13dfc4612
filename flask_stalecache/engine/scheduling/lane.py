"""The lane of refreshes that compute: one runs at a time in a process, while the interpreter switches between threads more often.

With four threads that compute, a process serves only a hundredth of its hits. With one, and a lower switch interval, it serves most
of them. So a refresh of an entry that took long to compute waits for its turn, apart from refreshes that wait for third parties.
All caches of a process share one turn. After a turn during which visitors were served, the lane rests. A process outside the web
server serves no visitors: it does not use :mod:`.switch_interval`, and does not rest. With gevent and on free-threaded builds there
is no lane.
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

#: Seconds after which a thread that waits for the turn checks whether the turn was taken from a thread that hangs.
LOOK = 0.5


class Turn:
    """The right to compute, which one thread of a process has at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: int | None = None
        #: The end of the rest after the last turn, on the clock of :func:`time.perf_counter`.
        self._rests_until = 0.0

    def is_mine(self) -> bool:
        """Whether this thread has the turn."""
        return self._holder == threading.get_ident()

    def take(self, patience: float) -> threading.Lock | None:
        """Wait for the end of a rest and for the turn, and return the lock for :meth:`leave`; ``None`` if that takes too long.

        :param patience: seconds to wait at most.
        """
        until = time.perf_counter() + patience
        while (lock := self._try_to_take(until)) is None and time.perf_counter() < until:
            pass
        return lock

    def _try_to_take(self, until: float) -> threading.Lock | None:
        """Wait for the end of a rest, or for a moment for the turn. Return ``None`` if this thread does not have the turn yet."""
        lock, now = self._lock, time.perf_counter()
        rest, left = self._rests_until - now, max(0.0, until - now)
        if rest > 0.0:
            time.sleep(min(rest, left))
            return None
        if not lock.acquire(timeout=min(LOOK, left)):
            return None
        if lock is not self._lock or self._rests_until > time.perf_counter():
            # The thread that gave the turn back has begun a rest, or the turn was taken from a thread that hangs.
            lock.release()
            return None
        self._holder = threading.get_ident()
        return lock

    def leave(self, lock: threading.Lock, rest: float) -> None:
        """Give the turn back.

        :param lock: the lock that :meth:`take` has returned.
        :param rest: seconds for which the lane rests.
        """
        if lock is self._lock:
            self._holder, self._rests_until = None, time.perf_counter() + rest
        lock.release()

    def give_up(self, thread: int) -> None:
        """Take the turn from a thread that hangs, if that thread has it.

        :param thread: the ident of the thread.
        """
        if self._holder == thread:
            # The old lock stays taken until the thread ends, which may be never.
            self._holder, self._lock = None, threading.Lock()


_turns = PerProcess(Turn)


class Lane:
    """The access of one cache to the lane of its process.

    :param interval: the switch interval while a thread computes, in seconds; ``None`` leaves it unchanged.
    :ivar has_visitors: whether this process serves visitors, who must not be slowed down; false if it only refreshes.
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
        """Wait for the turn, and hold it for the block. A thread that has it goes on. After too long a wait, go on without it.

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
        """Lower the switch interval for a block, if this process has a lane and serves visitors."""
        return lowered(self.interval) if self.has_visitors and self.is_open else nullcontext()

    def give_up(self, thread: int) -> None:
        """Take the turn from a thread that hangs."""
        _turns.get().give_up(thread)
