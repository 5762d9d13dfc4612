"""The share of its time in which an origin computes rather than waits. Pure.

A refresh that waits for a third party costs visitors nothing. A refresh that computes takes the interpreter away from them.
"""

from __future__ import annotations

from typing import NamedTuple

#: An origin counts as computing if it computes for at least this share of its time, and for at least so many seconds.
LEAST_SHARE, LEAST_SECONDS = 0.5, 0.05


class Work(NamedTuple):
    """The work of one call of an origin.

    :ivar seconds: the processor time of its thread.
    :ivar share: the share of its duration in which it computed, or would have computed alone: 0 to 1.
    """

    seconds: float = 0.0
    share: float = 0.0

    @property
    def computes(self) -> bool:
        """Whether it computes for so long that visitors would notice."""
        return self.share >= LEAST_SHARE and self.seconds >= LEAST_SECONDS


#: The work of a call that was not measured.
NO_WORK = Work()


def measured(own: float, took: float, all_threads: float, running: int, ready: float = 0.0) -> Work:
    """Return the work of a call that shared the interpreter with others.

    Threads that compute share the interpreter, so that each of four has a quarter of it. The share is corrected by the number of
    calls that ran at the same time, as far as other threads did compute: calls that wait leave the interpreter to the others. On a
    busy machine a thread also waits for a processor; that time counts as computed, for the other threads in proportion.

    :param own: processor seconds of its thread.
    :param took: its duration in seconds.
    :param all_threads: processor seconds of all threads of the process in that time.
    :param running: the calls of origins that ran at the same time, this one included.
    :param ready: seconds that its thread has waited for a processor.
    """
    if took <= 0.0 or own <= 0.0:
        return NO_WORK
    stretched = 1.0 + max(0.0, ready) / own
    others = min(max(0.0, all_threads - own) * stretched / took, 1.0)
    competing = min(float(max(running, 1)), 1.0 / (1.0 - others) if others < 1.0 else float(running))
    return Work(own, min(1.0, own * stretched / took * max(competing, 1.0)))


def rest_after(own: float, took: float, all_threads: float) -> float:
    """Return the seconds for which no refresh computes after a turn: an endless series of refreshes must leave visitors some time.

    The rest is as long as other threads were busy during the turn, since those served visitors, but not longer than the turn.
    Without visitors there is none, and a wait for a third party does not count.

    :param own: processor seconds of the thread of the turn.
    :param took: the duration of the turn in seconds.
    :param all_threads: processor seconds of all threads of the process during the turn.
    """
    return max(0.0, min(all_threads - own, took))
