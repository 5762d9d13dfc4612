"""A clock that all processes of a soak test share, in memory: it can be stepped, and it can run faster than time does."""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import time_machine

from flask_stalecache.filesystem import uptime

_NANO = 1_000_000_000


class SharedClock:
    """A clock in a file.

    :param file: made by :meth:`make`.
    """

    def __init__(self, file: Path) -> None:
        with file.open("r+b") as opened:
            self._cells = memoryview(mmap.mmap(opened.fileno(), 0)).cast("q")

    @classmethod
    def make(cls, file: Path, speed: int = 1) -> SharedClock:
        """Make one that begins now.

        :param speed: its seconds in a second.
        """
        file.write_bytes(bytes(24))
        made = cls(file)
        made._cells[0], made._cells[1] = time.monotonic_ns(), speed - 1
        return made

    def step(self, seconds: float) -> None:
        """Set how far the clock is from the right time, forwards or backwards."""
        self._cells[2] = int(seconds * _NANO)

    def passed(self) -> float:
        """Return its seconds since it was made; steps do not count."""
        elapsed = time.monotonic_ns() - self._cells[0]
        return elapsed * (self._cells[1] + 1) / _NANO

    def _ahead(self) -> int:
        return (time.monotonic_ns() - self._cells[0]) * self._cells[1]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let this process read this clock as its time. The end of the block does not undo that."""
        traveller = time_machine.travel(0, tick=True).start()
        real, up = time_machine.escape_hatch.time.time_ns, uptime.read_clock
        traveller.time_ns = lambda: real() + self._ahead() + self._cells[2]  # type: ignore[method-assign]
        uptime.read_clock = lambda: up() + self._ahead() / _NANO
        yield
