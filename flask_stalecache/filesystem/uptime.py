"""Reads the clock that counts from the start of the machine, which can't be set. All processes of a machine share it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from ..core.model.moments import Uptime

#: CLOCK_BOOTTIME of Linux counts standby too. Elsewhere CLOCK_MONOTONIC is the nearest, if there is one.
_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
#: Windows has neither.
_gettime: Callable[[int], float] | None = getattr(time, "clock_gettime", None)
_real_clock: Callable[[], float] = time.monotonic if _CLOCK is None or _gettime is None else partial(_gettime, _CLOCK)
#: Reads the clock. Tests replace it.
read_clock = _real_clock
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def uptime() -> Uptime:
    """Return the present moment."""
    return Uptime(boot_id(), seconds_up())


def seconds_up() -> float:
    """Return the seconds since the machine was started."""
    return read_clock()


@cache
def boot_id() -> str:
    """Return the identifier of the start of the machine; "" if the system has none."""
    try:
        return _BOOT.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
