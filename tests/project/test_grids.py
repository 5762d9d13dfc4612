"""The part of a grid of parameters that ``make test`` runs."""

from __future__ import annotations

from itertools import product

import pytest

from support.grids import covering


@pytest.mark.parametrize(
    "lists", [["abcdefgh", "xyz"], ["ab", "xyz", "12"], ["a", "x"], ["abcd", "wxyz", "1234"], ["abcdef", "xy", "12"]]
)
def test_each_value_is_played(lists: list[str]) -> None:
    rows = list(product(*lists))
    kept = [rows[place] for place in covering(rows)]
    assert len(kept) == max(map(len, lists))
    assert [set(values) for values in zip(*kept, strict=True)] == [set(each) for each in lists]


def test_no_value_is_always_beside_the_same_one() -> None:
    rows = list(product("abcdef", "xy", "12"))
    assert {rows[place][1:] for place in covering(rows)} == set(product("xy", "12"))


def test_a_grid_with_gaps() -> None:
    rows = [("a", "x"), ("a", "y"), ("b", "y"), ("c", "y"), ("c", "z")]
    kept = [rows[place] for place in covering(rows)]
    assert [set(values) for values in zip(*kept, strict=True)] == [set("abc"), set("xyz")]
