"""The record of the purges of one name, and their effect on an entry. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ...core.model.entry import Entry
from ...core.model.moments import Uptime

#: Maximum number of soft purges in a record.
_MOST_SOFTS = 48


@dataclass(frozen=True, slots=True)
class PurgeRecord:
    """The last purges of one name.

    :param name: the name.
    :param hard: number of the last hard purge, which drops entries.
    :param softs: number and time (seconds since the epoch) of each soft purge, which ends the freshness of entries; in order.
    :param up: when it was written, since the start of the machine; ``None``: unknown.
    """

    name: str
    hard: int = 0
    softs: tuple[tuple[int, float], ...] = ()
    up: Uptime | None = field(default=None, compare=False)

    @property
    def soft(self) -> int:
        """The number of the last soft purge."""
        return self.softs[-1][0] if self.softs else 0

    def ended_at(self, seq: int) -> float | None:
        """Return when the freshness of an entry that was begun at a number ended; ``None`` if no soft purge ended it."""
        return next((at for number, at in self.softs if seq < number), None)

    @property
    def last(self) -> int:
        """The number of the last purge."""
        return max(self.hard, self.soft)

    def purged(self, number: int, now: float, *, soft: bool) -> PurgeRecord:
        """Return the record after one more purge."""
        if soft:
            return replace(self, softs=_thinned(sorted([*self.softs, (number, now)]), now))
        # A purge that could not wait for the lock may be recorded after a later one.
        return replace(self, hard=max(self.hard, number))

    def is_past(self, span: float, up: Uptime) -> bool:
        """Whether it was written more than some seconds before a moment, by the clock of the machine; yes if that is unknown."""
        return self.up is None or self.up.is_past(span, up)


class Purge(NamedTuple):
    """One purge.

    :ivar names: the purged names.
    :ivar number: its number.
    :ivar soft: whether it only ends freshness.
    :ivar at: its time, in seconds since the epoch.
    """

    names: tuple[str, ...]
    number: int
    soft: bool
    at: float

    def of(self, name: str) -> PurgeRecord:
        """Return the record of one of its names, as if there were no other purge."""
        return PurgeRecord(name).purged(self.number, self.at, soft=self.soft)


def _thinned(softs: list[tuple[int, float]], now: float) -> tuple[tuple[int, float], ...]:
    """Leave out soft purges, if there are too many: those with the closest neighbours, measured by their age.

    The first one stays, for all entries that are older than the record.
    """
    while len(softs) > _MOST_SOFTS:
        gaps = [(softs[at + 1][1] - softs[at - 1][1]) / max(now - softs[at - 1][1], 1.0) for at in range(1, len(softs) - 1)]
        del softs[gaps.index(min(gaps)) + 1]
    return tuple(softs)


def left_of(entry: Entry, records: Iterable[PurgeRecord]) -> Entry | None:
    """Apply purges to an entry: return it, return it without freshness, or return ``None``."""
    for record in records:
        if entry.seq < record.hard:
            return None
        at = record.ended_at(entry.seq)
        if at is not None:
            entry = entry.softly_purged(at)
    return entry
