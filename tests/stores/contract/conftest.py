"""Fixtures of the tests of the contract of a store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_stalecache.stores.base import Store
from support.processes import Worker, workers
from support.store_contract import KINDS, Kind


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    kind = KINDS[request.param]
    kind.on(put=monkeypatch.setattr, take=monkeypatch.delattr)
    return kind


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "shared"


@pytest.fixture
def store(kind: Kind, place: Path) -> Store:
    return kind.open(place)


@pytest.fixture
def other(kind: Kind, place: Path) -> Store:
    return kind.open(place)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with workers(1) as made:
        yield made[0]
