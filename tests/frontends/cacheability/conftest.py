"""Fixtures of the tests of what a view says of its page."""

from __future__ import annotations

import pytest

from support.cacheability import Runs


@pytest.fixture
def runs() -> Runs:
    return Runs()
