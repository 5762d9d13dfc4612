"""Fixtures of the tests of ``memoize``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from flask_stalecache import (
    StaleCache,
)
from support.memoize import Fetch, MakeApp


@pytest.fixture
def fetch() -> Iterator[Fetch]:
    it = Fetch()
    yield it
    it.gate.set()


@pytest.fixture
def shop(make_app: MakeApp) -> Iterator[tuple[Flask, StaleCache]]:
    app, cache = make_app()
    with app.app_context():
        yield app, cache
    assert cache.drain(30)
