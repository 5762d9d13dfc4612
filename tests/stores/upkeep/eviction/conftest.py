"""Fixtures of the tests of eviction."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flask_stalecache.stores.upkeep import eviction as room_module
from support.processes import Worker, workers


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with workers(1) as made:
        yield made[0]


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> int:
    """Lower the number of keys of a folder that are looked at, and return it: folders with more keys are large."""
    monkeypatch.setattr(room_module, "MOST", 32)
    return 32
