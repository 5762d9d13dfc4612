"""A decision that stands: while a refresh is pending or backing off, all hits of a stale copy are answered in the same way.

A full decision costs ten times as much as a hit. In an outage most hits are of this kind, so one of them per second decides, and
the others repeat its decision.
"""

from __future__ import annotations

from collections.abc import Callable

from ..core.rules.serving import ServeOptions
from ..core.rules.status import CacheStatus
from ..stats.tally import PLAIN_CELLS
from .scheduling.fair_queue import Demand

#: Seconds that a decision stands at most. Then the engine checks again for receivers of signals and for the debug log.
LONGEST = 1.0


def never() -> bool:
    """Return false, for a decision that only time ends."""
    return False


class Standing:
    """The decision to serve a copy as it is, without another refresh.

    It is part of the copy: a write or a purge of the key ends both. A clock that steps back ends the decision too.

    :param status: the status of the requests that it answers.
    :param terms: their serving options.
    :param since: when it was made, in seconds since the epoch.
    :param until: when time may change it.
    :param is_over: whether something other than time has ended it: the refresh is no longer pending.
    :param demand: counts the requests, which determine the place of the refresh in the queue.
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
        """Add one request to the demand for the refresh. Return the cell in which the statistics count the request."""
        self.demand.more += 1
        return self.cell

    def holds(self, now: float, terms: ServeOptions) -> bool:
        """Whether the decision applies to a request.

        :param now: seconds since the epoch.
        :param terms: the serving options of the request.
        """
        return self.since <= now < self.until and not self.is_over() and self.terms == terms
