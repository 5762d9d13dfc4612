"""Fixtures of the tests of the sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flask_stalecache.stores.folders import Folders, KeyFiles
from support.processes import Worker, workers


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with workers(1) as made:
        yield made[0]


@pytest.fixture
def found(directory: Path, monkeypatch: pytest.MonkeyPatch, monotonic: Callable[[float], None]) -> list[str]:
    """The names of the keys that were looked at; each look takes 4 ms."""
    names, find = list[str](), Folders.found

    def slow(folders: Folders, name: str, kinds: frozenset[str]) -> KeyFiles:
        if folders.directory.path == directory:
            names.append(name)
            monotonic(0.004)
        return find(folders, name, kinds)

    monkeypatch.setattr(Folders, "found", slow)
    return names
