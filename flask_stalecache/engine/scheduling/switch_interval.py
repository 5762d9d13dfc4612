"""Lowers the switch interval of the interpreter while a refresh computes. It knows neither engine nor entry.

The interval belongs to the process: the caches of all its apps share one list of the threads that want it low, so that the last
thread to end restores the value that the app had. A value that the app sets meanwhile is kept.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ...filesystem.process import ProcessId, this_process


class _Owner:
    """The switch interval of one process, and the lower values that its threads want.

    :param process: the process.
    """

    def __init__(self, process: ProcessId) -> None:
        self.process = process
        self.mutex = threading.Lock()
        #: The interval that each computing thread wants.
        self.wanted: list[float] = []
        #: The app's own value, and what was set in its place; ``None``: nothing was.
        self.before: float | None = None
        self.placed: float | None = None

    def add(self, interval: float) -> None:
        """Lower the interval."""
        with self.mutex:
            self.wanted.append(interval)
            self._apply()

    def remove(self, interval: float) -> None:
        """Restore the interval, if no other thread wants it low."""
        with self.mutex:
            self.wanted.remove(interval)
            self._apply()

    def _apply(self) -> None:
        if self.placed is not None and sys.getswitchinterval() != self.placed:
            # The app has set another value meanwhile.
            self.before = self.placed = None
        own = sys.getswitchinterval() if self.before is None else self.before
        # Never raised: the app may want it lower still.
        least = min([own, *self.wanted])
        if least < own:
            sys.setswitchinterval(least)
            # Read back, since the interpreter rounds it.
            self.before, self.placed = own, sys.getswitchinterval()
        else:
            self.restore()

    def restore(self) -> None:
        """Set the app's own value again, unless it has set another one meanwhile."""
        if self.before is not None and sys.getswitchinterval() == self.placed:
            sys.setswitchinterval(self.before)
        self.before = self.placed = None


_owner = _Owner(this_process())


def _owner_here() -> _Owner:
    """Return the owner of this process. After a fork it is a new one: the threads that wanted the interval low are the parent's."""
    global _owner
    if _owner.process != this_process():
        parent, _owner = _owner, _Owner(this_process())
        parent.restore()
    return _owner


def see_fork() -> None:
    """Restore the interval if this process was forked while it was low: some servers fork without hooks."""
    _owner_here()


@contextmanager
def lowered(interval: float | None) -> Iterator[None]:
    """Lower the switch interval for the block, so that visitors wait less for a thread that computes.

    :param interval: seconds; ``None`` leaves it unchanged.
    """
    if interval is None:
        yield
        return
    owner = _owner_here()
    owner.add(interval)
    try:
        yield
    finally:
        owner.remove(interval)
