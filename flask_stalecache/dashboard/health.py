"""The health of the cache: one headline, and one line for each problem. Pure.

====== ===================================================================================================
bad    a suspended fetch function, or an origin whose calls all failed lately
notice an origin some of whose calls failed lately, a crowded refresh queue, a full store, a cache that is off, a shared server that
       can't be used
good   none of these
====== ===================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from ..core.formatting import number, percent, spell
from ..frontends.memoize.handler import Suspended
from .charts import ONE_OF, Moment, sum_counts

#: The shortest time for which a failure is reported, in seconds.
RECENT = 300.0
#: The part of the refresh queue above which it counts as crowded.
CROWDED = 0.5
#: The part of the size limit above which the store counts as full; since it evicts, it never reaches the limit.
FULL = 0.9


class Level(str, Enum):
    """The severity of a problem."""

    GOOD = "good"
    NOTICE = "notice"
    BAD = "bad"

    def __str__(self) -> str:
        return self.value


class HealthProblem(NamedTuple):
    """One problem.

    :ivar what: the endpoint, function, third party or part of the cache.
    :ivar says: the problem, as the rest of the sentence.
    """

    level: Level
    what: str
    says: str


class Health(NamedTuple):
    """The health of the cache."""

    level: Level
    headline: str
    problems: list[HealthProblem]


OFF = Health(Level.NOTICE, "The cache is off: STALECACHE_ENABLED is False.", [])


def health(
    stats: Mapping[str, Any], moments: Sequence[Moment], suspended: Sequence[Suspended], longest: float, queue: int
) -> Health:
    """Return the health of the cache.

    :param stats: the statistics of all workers.
    :param moments: the last hour.
    :param suspended: the suspended fetch functions.
    :param longest: seconds of the longest back-off: the last call of a failing origin may be that long ago.
    :param queue: length of a worker's refresh queue.
    """
    failing = [*_suspended(suspended), *_failing(moments, longest, {each.name for each in suspended})]
    problems = sorted([*failing, *_of_the_cache(stats, queue)], key=lambda problem: problem.level is not Level.BAD)
    down = [problem.what for problem in failing if problem.level is Level.BAD]
    if down:
        more = f" and {len(down) - 1} more" if len(down) > 1 else ""
        return Health(
            Level.BAD, f"{down[0]}{more} {'fail' if more else 'fails'}. Stored copies stand in where there are any.", problems
        )
    if problems:
        return Health(problems[0].level, f"{problems[0].what} {problems[0].says}", problems if len(problems) > 1 else [])
    return Health(Level.GOOD, "All is well: no origin fails, and nothing is left waiting.", [])


def _suspended(suspended: Iterable[Suspended]) -> Iterable[HealthProblem]:
    for each in suspended:
        yield HealthProblem(
            Level.BAD,
            each.name,
            f"is suspended after {each.failures} failures in a row; tried again in {spell(max(0.0, each.left))}.",
        )


def _failing(moments: Sequence[Moment], longest: float, known: set[str]) -> Iterable[HealthProblem]:
    """Yield the origins with failures in the last interval in which they were called."""
    begins = moments[-1].at - max(RECENT, longest) if moments else 0.0
    recent = [moment for moment in moments if moment.at > begins]
    for key in {key: None for moment in reversed(recent) for key, line in moment.lines.items() if line.failures}:
        lines = [line for moment in recent if (line := moment.lines.get(key)) is not None and (line.calls or line.failures)]
        # A call may be counted in one interval, and its failure in the next.
        last, line = lines[-1], sum_counts(lines)
        if key[1] in known or not last.failures:
            continue
        level, says = (Level.BAD, "fails") if last.failures >= last.calls else (Level.NOTICE, "fails now and then")
        said = f"{number(line.failures)} of {number(line.calls)} calls failed in the last {spell(moments[-1].at - begins)}."
        yield HealthProblem(level, key[1] or "The app", f"({ONE_OF[key[0]]}) {says}: {said}")


def _of_the_cache(stats: Mapping[str, Any], queue: int) -> Iterable[HealthProblem]:
    if problem := stats.get("shared", {}).get("problem"):
        yield HealthProblem(Level.NOTICE, "This host", f"goes on without the others: {problem}.")
    pending, places = stats["refreshes"]["pending"], queue * stats["workers"]
    if places and pending > CROWDED * places:
        said = f"wait for others: {number(pending)} of {number(places)} places are taken, and what finds none is dropped."
        yield HealthProblem(Level.NOTICE, "Refreshes", said)
    limit = stats["max_size"]
    if limit and stats["bytes"] > FULL * limit and stats["evictions"]["size"]:
        said = f"is {percent(stats['bytes'], limit)} full: {number(stats['evictions']['size'])} entries were evicted for size."
        yield HealthProblem(Level.NOTICE, "The store", said)
