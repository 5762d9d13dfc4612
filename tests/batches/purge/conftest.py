"""Fixtures of the tests of purging in an app."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.purge_site import Site, make_site


@pytest.fixture
def site(directory: Path) -> Site:
    return make_site(directory)
