"""Fixtures of the tests of purging by many processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_stalecache.stores.file_store import FileStore
from support.processes import Worker, workers
from support.purging import DAY


@pytest.fixture(scope="module")
def pair() -> Iterator[list[Worker]]:
    with workers(2) as made:
        yield made


@pytest.fixture(scope="module")
def worker(pair: list[Worker]) -> Worker:
    return pair[0]


@pytest.fixture
def store(directory: Path) -> FileStore:
    return FileStore(directory, inactive=30 * DAY)
