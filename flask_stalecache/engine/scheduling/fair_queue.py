"""The order in which waiting refreshes run: fair between endpoints, by demand within an endpoint. It uses no threads and no clock.

======================= =========================================================================================================
between groups          they take turns, so that many slow pages of one endpoint don't delay the page of another
within a group          the job with the most demand is next; an ask counts half as much after each :data:`HALF_LIFE`
every fourth turn       the job of the group that has waited longest is next, so that no job waits forever
a key that waits        a second job for it takes the place of the first, with the demand of both
a full queue            the largest group loses its job with the least demand; among equally large ones, the group of the new job
======================= =========================================================================================================
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from operator import attrgetter
from typing import TypeAlias

Job: TypeAlias = Callable[[], None]

#: Seconds after which an ask counts half.
HALF_LIFE = 10.0
#: One in this many turns of a group is for the job that has waited longest.
TURNS_OF_THE_OLDEST = 4
#: How many of the oldest and of the newest jobs of a group are considered for the next turn.
LOOKED_AT = 500


class Demand:
    """The demand for something: how often, and how recently, it was asked for.

    Requests add to it without a lock, so an ask may be lost now and then, which at most changes the order.

    :param rank: the rank of the demand in another process. Default: no asks.
    :ivar more: number of asks since the last call of :meth:`ask`, counted at about the time of that call. The hot path increments
        it directly, because a method call would cost too much.
    """

    __slots__ = ("_asked", "_rank", "more")

    def __init__(self, rank: float = -math.inf) -> None:
        self._rank = rank
        self._asked = 0.0
        self.more = 0

    @property
    def rank(self) -> float:
        """The number by which demands are compared. Their order changes only with new asks."""
        return _sum(self._rank, self._asked / HALF_LIFE + math.log2(self.more)) if self.more else self._rank

    def ask(self, now: float) -> None:
        """Count one ask.

        :param now: seconds on a clock that never steps back.
        """
        # Forward decay: instead of halving all counts as time goes by, a later ask counts more.
        self._rank, self.more, self._asked = _sum(self.rank, now / HALF_LIFE), 0, now

    def add(self, other: Demand) -> None:
        """Add the asks of another demand."""
        self._rank, self.more = _sum(self.rank, other.rank), 0


def _sum(one: float, other: float) -> float:
    """Return the binary logarithm of the sum of two counts, given by their binary logarithms."""
    less, more = sorted((one, other))
    return more if less == -math.inf else more + math.log2(1.0 + 2.0 ** (less - more))


def _nothing() -> None:
    pass


@dataclass(eq=False, slots=True)
class Waiting:
    """A job that waits.

    :param job: the job.
    :param group: what it belongs to, such as an endpoint.
    :param key: only one job of a key waits at a time; ``None``: it has no key.
    :param demand: the demand for it. It may grow while the job waits.
    :param dropped: called if the job will not run, since the queue is full or another job has taken its place.
    """

    job: Job
    group: Hashable = ""
    key: Hashable = None
    demand: Demand = field(default_factory=Demand)
    dropped: Callable[[], object] = _nothing


class _Group:
    """The waiting jobs of one group, the oldest first."""

    __slots__ = ("jobs", "turns")

    def __init__(self) -> None:
        self.jobs: dict[Hashable, Waiting] = {}
        self.turns = 0

    def next(self) -> Waiting:
        """Return the job that is next."""
        self.turns += 1
        if self.turns % TURNS_OF_THE_OLDEST == 0:
            return next(iter(self.jobs.values()))
        return max(self._candidates(), key=_rank)

    def least(self) -> Waiting:
        """Return the job with the least demand: the newest if several have it, since the others have waited longer."""
        return min(reversed([*self._candidates()]), key=_rank)

    def _candidates(self) -> Iterator[Waiting]:
        """Yield the jobs to choose from, the oldest first. If there are very many, leave out those in the middle, to save time."""
        waiting = self.jobs.values()
        if len(waiting) <= 2 * LOOKED_AT:
            return iter(waiting)
        return chain(islice(waiting, LOOKED_AT), reversed([*islice(reversed(waiting), LOOKED_AT)]))


_rank = attrgetter("demand.rank")


class FairQueue:
    """The queue of waiting jobs. It is not thread-safe: its user holds a lock.

    :param size: jobs that may wait.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        #: The groups in the order of their turns. This is the only record of the waiting jobs: a second list or a counter could get
        #: out of step if an exception came between two updates.
        self._groups: OrderedDict[Hashable, _Group] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(group.jobs) for group in list(self._groups.values()))

    def push(self, waiting: Waiting, *, is_bound: bool = True) -> Waiting | None:
        """Add a job. Return the job that will not run because of that: another one, this one, or ``None``.

        :param is_bound: whether the size of the queue limits it.
        """
        before = self._waiting_for(waiting.key)
        if before is None:
            self._add(waiting)
            return self._drop_least(waiting.group) if is_bound and len(self) > self._size else None
        waiting.demand.add(before.demand)
        self._add(waiting)
        if before.group != waiting.group:
            self._remove(before)
        return before

    def _waiting_for(self, key: Hashable) -> Waiting | None:
        """Return the job that waits for a key, in whatever group: a URL may belong to another endpoint by now."""
        if key is None:
            return None
        return next((group.jobs[key] for group in self._groups.values() if key in group.jobs), None)

    def pop(self) -> Waiting | None:
        """Take the job that is next; ``None`` if none waits."""
        while self._groups:
            name, group = next(iter(self._groups.items()))
            if not group.jobs:
                del self._groups[name]
                continue
            waiting = group.next()
            self._groups.move_to_end(name)
            self._remove(waiting)
            return waiting
        return None

    def clear(self) -> int:
        """Drop all jobs, and return how many there were."""
        count = len(self)
        self._groups.clear()
        return count

    def _add(self, waiting: Waiting) -> None:
        group = self._groups.get(waiting.group)
        if group is None:
            group = self._groups[waiting.group] = _Group()
        group.jobs[_key_of(waiting)] = waiting

    def _remove(self, waiting: Waiting) -> None:
        group = self._groups[waiting.group]
        del group.jobs[_key_of(waiting)]
        if not group.jobs:
            del self._groups[waiting.group]

    def _drop_least(self, newest: Hashable) -> Waiting:
        # Among equally large groups, that of the new job: no group grows at the cost of one of the same size.
        largest = self._groups[max(self._groups, key=lambda name: (len(self._groups[name].jobs), name == newest))]
        waiting = largest.least()
        self._remove(waiting)
        return waiting


def _key_of(waiting: Waiting) -> Hashable:
    return waiting if waiting.key is None else waiting.key
