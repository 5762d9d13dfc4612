"""State of one process that a forked child must not share, such as locks and threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from .process import ProcessId, this_process

T = TypeVar("T")


class PerProcess(Generic[T]):
    """A value that each process makes for itself, at first use and again after a fork.

    Some servers fork without running the hooks of ``os.register_at_fork``, so each use checks which process it is in. That is a
    system call: hits must not use this class.

    :param make: makes the value. Two threads may call it at the same time; then one of the values is dropped.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: dict[ProcessId, T] = {}

    def get(self) -> T:
        """Return the value of this process. Make it at first use."""
        process = this_process()
        value = self._values.get(process)
        # setdefault is atomic, so that two threads get the same value. A lock could be held at the moment of a fork.
        return self._values.setdefault(process, self._make()) if value is None else value

    def peek(self) -> T | None:
        """Return the value of this process, or ``None`` if there is no value yet."""
        return self._values.get(this_process())

    def set_first(self, value: T) -> bool:
        """Set the value if this process has none, and return whether it had none."""
        return self._values.setdefault(this_process(), value) is value

    def clear(self) -> None:
        """Forget the value of this process."""
        self._values.pop(this_process(), None)
