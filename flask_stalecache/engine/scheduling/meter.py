"""Measures how much of its time a call of an origin spends computing. It knows neither engine nor entry."""

from __future__ import annotations

import os
import sys
import threading
import time
from weakref import WeakSet

from ...core.model.work import LEAST_SECONDS, NO_WORK, Work, measured
from ...filesystem.descriptors import open_descriptor
from ...filesystem.per_process import PerProcess
from ...filesystem.system import O_CLOEXEC


def is_measurable() -> bool:
    """Whether threads take turns in one interpreter, and have times of their own.

    Greenlets share the time of one thread, and threads without the interpreter's lock don't take turns.
    """
    return not has_greenlets() and has_lock()


def has_greenlets() -> bool:
    """Whether gevent has replaced the threads of this process."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def has_lock() -> bool:
    """Whether one thread at a time runs Python code: not on a free-threaded build."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


#: The calls that run in this process, for all its caches. Weak, so that a call is forgotten even if ``__exit__`` was interrupted.
_running: PerProcess[WeakSet[Meter]] = PerProcess(WeakSet)


def seconds_ready() -> float:
    """Return the seconds that this thread has waited for a processor that others used; 0 if the system does not report it."""
    try:
        with open_descriptor("/proc/thread-self/schedstat", os.O_RDONLY | O_CLOEXEC) as descriptor:
            return int(os.read(descriptor, 100).split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


class Meter:
    """The measurement of one call, in the thread that makes it."""

    __slots__ = ("__weakref__", "_begun", "_others", "_own", "_processor", "_ready", "_thread", "_work")

    def __init__(self) -> None:
        self._thread: int | None = None
        self._work: Work | None = None
        self._begun = self._own = self._processor = self._ready = 0.0
        self._others = 1

    def __enter__(self) -> Meter:
        if is_measurable():
            running = _running.get()
            running.add(self)
            self._work, self._others = None, len(running)
            self._ready, self._processor = seconds_ready(), time.process_time()
            self._begun, self._own = time.perf_counter(), time.thread_time()
            self._thread = threading.get_ident()
        return self

    def __exit__(self, *raised: object) -> None:
        self._work = self.work()
        self._thread = None
        _running.get().discard(self)

    def work(self) -> Work:
        """Return the work of the call. While it runs, its own thread gets the work so far, and other threads get none."""
        if self._work is not None:
            return self._work
        if self._thread != threading.get_ident():
            return NO_WORK
        took, own = time.perf_counter() - self._begun, time.thread_time() - self._own
        # Read only if needed: most calls compute too little.
        ready = seconds_ready() - self._ready if own >= LEAST_SECONDS else 0.0
        others = max(self._others, len(_running.get()))
        return measured(own, took, time.process_time() - self._processor, others, ready)
