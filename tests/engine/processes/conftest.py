"""Fixtures of the tests of the engine in many processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engine_processes import PROCESSES, Board
from support.processes import Worker, workers


@pytest.fixture(scope="module")
def team() -> Iterator[list[Worker]]:
    with workers(PROCESSES) as made:
        yield made


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)
