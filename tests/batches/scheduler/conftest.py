"""Fixtures of the tests of batches."""

from __future__ import annotations

import pytest

from support.batch_site import Site, make_site
from support.client import MakeApp


@pytest.fixture
def site(make_app: MakeApp) -> Site:
    return make_site(*make_app())
