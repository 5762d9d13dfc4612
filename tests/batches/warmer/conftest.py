"""Fixtures of the tests of warming."""

from __future__ import annotations

import pytest

from support.client import MakeApp
from support.warm_site import HERE, Site


@pytest.fixture
def site(make_app: MakeApp) -> Site:
    app, cache = make_app(BASE_URL=HERE)
    site = Site(app, cache)

    @app.get("/news/<int:number>")
    @cache.cached(60, 600, 86400, tags=["news"])
    def article(number: int) -> str:
        return site.make()

    @app.get("/caf\u00e9/<name>")
    @cache.cached(60)
    def cafe(name: str) -> str:
        return site.make()

    @app.get("/live")
    def live() -> str:
        return "live"

    return site
