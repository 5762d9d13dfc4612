"""The rules for clocks that may be wrong. Pure.

All of them are here:

- A time that lies ahead of now was written while the wall clock was wrong. How long ago that was is unknown: an entry from the
  future is stale, and a note from the future is ignored. A few seconds of difference between hosts do not count as wrong:
  :data:`AHEAD`.
- Decisions that must not come too early also use the clock that counts from the start of the machine: :class:`Uptime`.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Seconds that a time may lie ahead: clocks of hosts differ a little, and are corrected in small steps.
AHEAD = 10.0


def is_future(moment: float, now: float) -> bool:
    """Whether a time was written by a clock that was wrong, if the clock is right now.

    :param moment: seconds since the epoch.
    :param now: likewise.
    """
    return moment > now + AHEAD


@dataclass(frozen=True, slots=True)
class Uptime:
    """A moment by the clock that counts from the start of the machine. Nobody sets that clock, and it keeps running in standby.

    :param boot: the identifier of that start; "" if the system has none.
    :param seconds: the seconds since that start.
    """

    boot: str
    seconds: float

    def is_past(self, span: float, now: Uptime) -> bool:
        """Whether more than some seconds have passed since the moment, or the machine was started again.

        Without an identifier, a restart shows only if the clock has a lower value now. Otherwise the moment may be older than it
        seems.

        :param span: the seconds.
        :param now: the moment that counts as now.
        """
        is_known = self.boot != "" and now.boot != ""
        is_restarted = self.boot != now.boot if is_known else now.seconds < self.seconds
        return is_restarted or now.seconds - self.seconds > span
