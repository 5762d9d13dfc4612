"""The order in which waiting refreshes run: fair between endpoints, and within one by demand. It knows no thread and no clock.

======================= =========================================================================================================
between groups          they take turns, so that many slow pages of one endpoint don't delay the page of another
within a group          the job with the most demand is next: asks count, and half as much after each :data:`HALF_LIFE`
every fourth turn       the job of the group that has waited longest is next, so that none waits for ever
a key that waits        a second job for it takes the place of the first, with the demand of both
a full queue            the largest group loses the job with the least demand: of groups of one size that of the new job
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
#: One of so many turns of a group is for the job that has waited longest.
TURNS_OF_THE_OLDEST = 4
#: Jobs at each end of a group that a choice looks at.
LOOKED_AT = 500


class Demand:
    """The demand for something: how often, and how recently, it was asked for.

    Requests add to it without a lock, so an ask may be lost now and then, which changes an order at most.

    :param rank: that of asks in another process. Default: it was not asked for.
    :ivar more: asks since the last call of :meth:`ask`, at about its time: for those who can't afford a call.
    """

    __slots__ = ("_asked", "_rank", "more")

    def __init__(self, rank: float = -math.inf) -> None:
        self._rank = rank
        self._asked = 0.0
        self.more = 0

    @property
    def rank(self) -> float:
        """Compares demands at any time: their order does not change without new requests."""
        return _sum(self._rank, self._asked / HALF_LIFE + math.log2(self.more)) if self.more else self._rank

    def ask(self, now: float) -> None:
        """Count one ask.

        :param now: seconds on a clock that never steps back.
        """
        # Forward decay: instead of halving all counts as time goes by, a later ask counts more.
        self._rank, self.more, self._asked = _sum(self.rank, now / HALF_LIFE), 0, now

    def add(self, other: Demand) -> None:
        """Count the asks of another one, too."""
        self._rank, self.more = _sum(self.rank, other.rank), 0


def _sum(one: float, other: float) -> float:
    """Add two counts that are given by their binary logarithms."""
    less, more = sorted((one, other))
    return more if less == -math.inf else more + math.log2(1.0 + 2.0 ** (less - more))


def _nothing() -> None:
    pass


@dataclass(eq=False, slots=True)
class Waiting:
    """A job that waits.

    :param job: the job.
    :param group: what it belongs to, such as an endpoint.
    :param key: jobs of one key are one; ``None``: it is a job of its own.
    :param demand: how much it is asked for. It may grow while the job waits.
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
        """Return the job with the least demand. Of equals it is the newest: the others have waited for their turn."""
        return min(reversed([*self._candidates()]), key=_rank)

    def _candidates(self) -> Iterator[Waiting]:
        """Yield the jobs to choose from, the oldest first: of very many only the oldest and the newest, to be quick."""
        waiting = self.jobs.values()
        if len(waiting) <= 2 * LOOKED_AT:
            return iter(waiting)
        return chain(islice(waiting, LOOKED_AT), reversed([*islice(reversed(waiting), LOOKED_AT)]))


_rank = attrgetter("demand.rank")


class FairQueue:
    """Waiting jobs. Not safe for threads: its user holds a lock.

    :param size: jobs that may wait.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        #: In the order of their turns. There is no other list or count: an exception that comes in between could not be told.
        self._groups: OrderedDict[Hashable, _Group] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(group.jobs) for group in list(self._groups.values()))

    def push(self, waiting: Waiting, *, is_bound: bool = True) -> Waiting | None:
        """Let a job wait. Return the job that will not run because of that: another one, this one, or ``None``.

        :param is_bound: it may wait only within the size of the queue.
        """
        group = self._groups.get(waiting.group)
        before = None if group is None or waiting.key is None else group.jobs.get(waiting.key)
        if before is not None:
            waiting.demand.add(before.demand)
            self._add(waiting)
            return before
        self._add(waiting)
        return self._drop_least(waiting.group) if is_bound and len(self) > self._size else None

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
        # Of groups of one size that of the new job: no share grows at the cost of an equal one.
        largest = self._groups[max(self._groups, key=lambda name: (len(self._groups[name].jobs), name == newest))]
        waiting = largest.least()
        self._remove(waiting)
        return waiting


def _key_of(waiting: Waiting) -> Hashable:
    return waiting if waiting.key is None else waiting.key
