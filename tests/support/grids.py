"""Grids of parameters: what of them ``make test`` plays. ``make soak`` plays all combinations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from itertools import combinations
from typing import Any, TypeAlias

import pytest

#: Of a combination: which value each parameter has.
Row: TypeAlias = "tuple[Hashable, ...]"


def covering(rows: Sequence[Row]) -> list[int]:
    """Return the indexes of a few rows that together have each value of each parameter.

    The next row is always the one with most values that no chosen row has. Among equals, it is the one with most pairs of values
    that no chosen row has, and then the one whose values were chosen least: a value is not always beside the same one.
    """
    held = [set(enumerate(row)) for row in rows]
    pairs = [set(combinations(enumerate(row), 2)) for row in rows]
    left: set[tuple[int, Hashable]] = set().union(*held)
    met: set[object] = set()
    used: Counter[tuple[int, Hashable]] = Counter()
    chosen: list[int] = []
    while left:
        place = max(
            range(len(rows)),
            key=lambda at: (len(held[at] & left), len(pairs[at] - met), -sum(used[value] for value in held[at]), -at),
        )
        chosen.append(place)
        left -= held[place]
        met |= pairs[place]
        used.update(held[place])
    return sorted(chosen)


def left_out_of_grids(items: Iterable[pytest.Item]) -> dict[pytest.Item, None]:
    """Return those combinations of grids (the marker ``grid``) whose values are in others."""
    grids: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("grid"):
            grids.setdefault(item.nodeid.partition("[")[0], []).append(item)
    left_out: dict[pytest.Item, None] = {}
    for grid in grids.values():
        kept = set(covering([_row(item) for item in grid]))
        left_out |= {item: None for place, item in enumerate(grid) if place not in kept}
    return left_out


def _row(item: pytest.Item) -> Row:
    """Return the values of a test's parameters.

    The parameters that one ``parametrize`` sets together count as one value, without those that the marker names.
    """
    params: dict[str, Any] = dict(item.callspec.params)  # type: ignore[attr-defined]
    apart = item.get_closest_marker("grid").args  # type: ignore[union-attr]
    row: list[Hashable] = [_known(params.pop(name)) for name in apart]
    for mark in item.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs["argnames"]
        names = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
        row.append(tuple(_known(params.pop(name)) for name in names if name not in apart))
    # Parameters of fixtures.
    return (*row, *(_known(params[name]) for name in sorted(params)))


def _known(value: Any) -> Hashable:
    """Return a hashable stand-in for a value: for an unhashable one its ID, since all combinations of a grid share the object."""
    try:
        hash(value)
    except TypeError:
        return id(value)
    return type(value), value
