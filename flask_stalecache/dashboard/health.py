"""What is wrong, if anything: in one line, and one line for each of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from ..core.formatting import number, percent, spell
from ..frontends.memoize.handler import Suspended
from .charts import ONE_OF, Moment, together

#: Seconds of the past in which a failure is news, at least.
RECENT = 300.0
#: How many of the places in the queue may be taken before that is worth a word.
CROWDED = 0.5
#: How full the store may be before that is worth a word; it evicts, so that it is never quite full.
FULL = 0.9


class Level(str, Enum):
    """How bad it is."""

    GOOD = "good"
    NOTICE = "notice"
    BAD = "bad"

    def __str__(self) -> str:
        return self.value


class Trouble(NamedTuple):
    """Something that is wrong.

    :ivar what: the endpoint, function, third party or part of the cache.
    :ivar says: what is wrong with it.
    """

    level: Level
    what: str
    says: str


class Health(NamedTuple):
    """How the cache does."""

    level: Level
    headline: str
    troubles: list[Trouble]


OFF = Health(Level.NOTICE, "The cache is off: STALECACHE_ENABLED is False.", [])


def health(
    stats: Mapping[str, Any], moments: Sequence[Moment], suspended: Sequence[Suspended], longest: float, queue: int
) -> Health:
    """Return how the cache does.

    :param stats: the numbers of all workers.
    :param moments: the last hour.
    :param suspended: fetch functions that are left alone.
    :param longest: seconds for which an origin that fails is left alone at most: so old may the last news of it be.
    :param queue: refreshes that may wait in a worker.
    """
    failing = [*_suspended(suspended), *_failing(moments, longest, {each.name for each in suspended})]
    troubles = sorted([*failing, *_of_the_cache(stats, queue)], key=lambda trouble: trouble.level is not Level.BAD)
    down = [trouble.what for trouble in failing if trouble.level is Level.BAD]
    if down:
        more = f" and {len(down) - 1} more" if len(down) > 1 else ""
        return Health(
            Level.BAD, f"{down[0]}{more} {'fail' if more else 'fails'}. Stored copies stand in where there are any.", troubles
        )
    if troubles:
        return Health(troubles[0].level, f"{troubles[0].what} {troubles[0].says}", troubles if len(troubles) > 1 else [])
    return Health(Level.GOOD, "All is well: no origin fails, and nothing is left waiting.", [])


def _suspended(suspended: Iterable[Suspended]) -> Iterable[Trouble]:
    for each in suspended:
        yield Trouble(
            Level.BAD,
            each.name,
            f"is suspended after {each.failures} failures in a row; tried again in {spell(max(0.0, each.left))}.",
        )


def _failing(moments: Sequence[Moment], longest: float, known: set[str]) -> Iterable[Trouble]:
    """Yield what failed when it was called last."""
    begins = moments[-1].at - max(RECENT, longest) if moments else 0.0
    recent = [moment for moment in moments if moment.at > begins]
    for key in {key: None for moment in reversed(recent) for key, line in moment.lines.items() if line.failures}:
        lines = [line for moment in recent if (line := moment.lines.get(key)) is not None and (line.calls or line.failures)]
        # A call may be counted in one moment, and that it failed in the next.
        last, line = lines[-1], together(lines)
        if key[1] in known or not last.failures:
            continue
        level, says = (Level.BAD, "fails") if last.failures >= last.calls else (Level.NOTICE, "fails now and then")
        said = f"{number(line.failures)} of {number(line.calls)} calls failed in the last {spell(moments[-1].at - begins)}."
        yield Trouble(level, key[1] or "The app", f"({ONE_OF[key[0]]}) {says}: {said}")


def _of_the_cache(stats: Mapping[str, Any], queue: int) -> Iterable[Trouble]:
    pending, places = stats["refreshes"]["pending"], queue * stats["workers"]
    if places and pending > CROWDED * places:
        said = f"wait for others: {number(pending)} of {number(places)} places are taken, and what finds none is dropped."
        yield Trouble(Level.NOTICE, "Refreshes", said)
    limit = stats["max_size"]
    if limit and stats["bytes"] > FULL * limit and stats["evictions"]["size"]:
        said = f"is {percent(stats['bytes'], limit)} full: {number(stats['evictions']['size'])} entries were evicted for size."
        yield Trouble(Level.NOTICE, "The store", said)
