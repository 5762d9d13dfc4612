"""Fixtures of the tests of refreshes of pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    pass
from support.page_refreshes import Origin


@pytest.fixture
def origin() -> Origin:
    return Origin()
