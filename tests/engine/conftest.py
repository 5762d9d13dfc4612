"""Fixtures of the tests of the engine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_stalecache import FileStore
from flask_stalecache.engine.engine import Engine
from flask_stalecache.engine.flights.singleflight import Flight, Flights
from support.engine import make_engine


@pytest.fixture
def engine(directory: Path) -> Engine:
    return make_engine(directory)


@pytest.fixture
def elsewhere(directory: Path) -> FileStore:
    """The same store, as another process has it."""
    return FileStore(directory)


@pytest.fixture
def held() -> Iterator[threading.Event]:
    """An event on which origins hang; set at the end."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One key for each visitor who has joined or leads a flight."""
    keys: list[str] = []
    join = Flights.join

    def noting_join(flights: Flights, key: str, *lead: Any) -> tuple[Flight, bool]:
        outcome = join(flights, key, *lead)
        keys.append(key)
        return outcome

    monkeypatch.setattr(Flights, "join", noting_join)
    return keys
