"""Fixtures of the tests of waiting for refreshes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.page_waits import View


@pytest.fixture
def view() -> Iterator[View]:
    view = View()
    yield view
    view.go_on.set()
