"""Whether the tests of endurance are played with their full counts, as ``make soak`` does."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any, TypeVar

T = TypeVar("T")

IS_SOAK = os.environ.get("STALECACHE_SOAK") == "1"


def pairs(rows: Iterable[T], columns: Sequence[Any]) -> list[tuple[T, Any]]:
    """Return each row with one of the columns, which take turns; under ``make soak``, each row with each column."""
    if IS_SOAK:
        return list(product(rows, columns))
    return [(row, columns[number % len(columns)]) for number, row in enumerate(rows)]
