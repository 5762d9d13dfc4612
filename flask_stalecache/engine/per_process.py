"""State of one process that a forked child must not share: locks, threads and what is known of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """A value that each process makes for itself, at first use and again after a fork.

    Not every server lets ``os.register_at_fork`` run. So each use asks for the process id. That is a system call: hits must not
    come here.

    :param make: makes the value. Of two threads that are first in a process both may call it; one value is dropped.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: dict[int, T] = {}

    def get(self) -> T:
        """Return the value of this process, and make it at first use."""
        pid = os.getpid()
        value = self._values.get(pid)
        # setdefault is atomic, and needs no lock that a fork could find taken: two threads get the same value.
        return self._values.setdefault(pid, self._make()) if value is None else value

    def peek(self) -> T | None:
        """Return the value of this process; ``None`` if it was not made yet."""
        return self._values.get(os.getpid())

    def set_first(self, value: T) -> bool:
        """Set the value if this process has none, and return whether it had none."""
        return self._values.setdefault(os.getpid(), value) is value

    def clear(self) -> None:
        """Forget the value of this process."""
        self._values.pop(os.getpid(), None)
