"""The windows of an entry as a bar, with a marker for its age. Pure."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..core.formatting import spell
from ..core.model.entry import Entry
from ..core.rules.explain import EntryState


class Part(NamedTuple):
    """A part of the bar.

    :ivar state: the state of an entry of this age.
    :ivar left: position, in percent.
    :ivar width: width, in percent.
    :ivar ends: the age at which it ends, in words; "" for the last part, which has no end.
    :ivar lasts: its duration, in words; "" for the last part.
    """

    state: EntryState
    left: float
    width: float
    ends: str
    lasts: str


class Bar(NamedTuple):
    """The windows of an entry.

    :ivar parts: its windows, from left to right.
    :ivar now: position of the marker, in percent.
    :ivar anchor: alignment of the marker's label, so that it fits: ``start``, ``middle`` or ``end``.
    """

    parts: list[Part]
    now: float
    anchor: str


class WindowSpan(NamedTuple):
    """A window: the ages at which it begins and ends, in seconds."""

    state: EntryState
    begins: float
    ends: float


def stretches(entry: Entry) -> list[WindowSpan]:
    """Return the windows of an entry, without empty ones; the last one has no end."""
    windows, passed, at = entry.windows, [], 0.0
    ends = [(EntryState.FRESH, windows.max_age)]
    if not entry.never_stale:
        ends.append((EntryState.STALE, windows.max_age + windows.stale_while_revalidate))
        ends.append((EntryState.IF_ERROR, windows.max_age + windows.stale_if_error))
    for state, end in ends:
        if end > at:
            passed.append(WindowSpan(state, at, end))
            at = end
    return [*passed, WindowSpan(EntryState.EXPIRED, at, math.inf)]


def bar_of(entry: Entry, now: float) -> Bar:
    """Return the bar of an entry. It is not to scale, since a minute next to a day would be invisible.

    :param now: seconds since the epoch.
    """
    passed = stretches(entry)
    weights = [_weight(stretch) for stretch in passed]
    unit, age, left, at = 100 / sum(weights), entry.age(now), 0.0, 0.0
    parts = []
    for stretch, weight in zip(passed, weights, strict=True):
        width = weight * unit
        if stretch.begins <= age:
            at = left + width * _share(stretch, age)
        has_end = math.isfinite(stretch.ends)
        ends, lasts = (spell(stretch.ends), spell(stretch.ends - stretch.begins)) if has_end else ("", "")
        parts.append(Part(stretch.state, round(left, 2), round(width, 2), ends, lasts))
        left += width
    return Bar(parts, round(at, 2), "start" if at < 12 else "end" if at > 88 else "middle")


def _weight(stretch: WindowSpan) -> float:
    return 1.0 if math.isinf(stretch.ends) else 1.5 + math.log10(1 + stretch.ends - stretch.begins) / 2


def _share(stretch: WindowSpan, age: float) -> float:
    beyond = age - stretch.begins
    if math.isinf(stretch.ends):
        # Approaches the end without reaching it.
        return 0.1 + 0.8 * beyond / (beyond + max(60.0, stretch.begins))
    return min(1.0, beyond / (stretch.ends - stretch.begins))
