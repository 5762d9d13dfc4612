"""Fixtures of the tests of the gateway between a WSGI app and its server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flask_stalecache.frontends.gateway.gateway_cache import GatewayCache


@pytest.fixture
def behind(directory: Path) -> Callable[..., GatewayCache]:
    """``behind(app, **settings)``: the app behind a gateway."""
    return lambda app, **settings: GatewayCache(app, dir=directory, **settings)
