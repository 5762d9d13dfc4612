"""Fixtures of the soak tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from support.soak.figures import PROPERTY, table


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Callable[[str, Sequence[Sequence[object]]], None]:
    """``figures(title, rows)``: a table for the end of the run. Its first row is its head."""
    return lambda title, rows: record_property(PROPERTY, f"{title}\n{table(rows)}")
