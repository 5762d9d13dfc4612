"""A decision that stands: while a refresh is pending, or its next try has to wait, hits of a stale copy are answered alike.

The decision, with all that it takes into account, costs ten times as much as a hit. In an outage most hits are of this kind, so one
per second decides, and the others repeat its decision.
"""

from __future__ import annotations

from collections.abc import Callable

from ..core.rules.serving import ServeOptions
from ..core.rules.status import CacheStatus
from ..stats.tally import PLAIN_CELLS
from .scheduling.fair_queue import Demand

#: Seconds that a decision stands at most, so that receivers of signals and the debug log are asked again.
LONGEST = 1.0


def never() -> bool:
    """Only time ends the decision."""
    return False


class Standing:
    """The decision to serve a copy as it is, without handing over a refresh.

    It belongs to the copy: what is written or purged meanwhile ends both. A clock that steps back ends it too.

    :param status: how the requests are answered.
    :param terms: the serving options of the requests that are answered so.
    :param since: when it was made, in seconds since the epoch.
    :param until: when time may change it.
    :param is_over: whether something else has ended it: the refresh is no longer pending.
    :param demand: counts the requests, for the place of the refresh in the queue.
    """

    __slots__ = ("cell", "demand", "is_over", "since", "status", "terms", "until")

    def __init__(
        self,
        status: CacheStatus,
        terms: ServeOptions,
        since: float,
        until: float,
        is_over: Callable[[], bool] = never,
        demand: Demand | None = None,
    ) -> None:
        self.status = status
        self.cell = PLAIN_CELLS[status]
        self.terms = terms
        self.since = since
        self.until = until
        self.is_over = is_over
        self.demand = Demand() if demand is None else demand

    def count(self) -> int:
        """Count one more request that is answered so, for the queue. Return the cell in which it is counted for the statistics."""
        self.demand.more += 1
        return self.cell

    def holds(self, now: float, terms: ServeOptions) -> bool:
        """Whether a request is answered so.

        :param now: seconds since the epoch.
        :param terms: its serving options.
        """
        return self.since <= now < self.until and not self.is_over() and self.terms == terms
