"""The version and start time of an app: one for all its front ends."""

from __future__ import annotations

import pytest
from flask import Flask

from flask_stalecache import StaleCache
from flask_stalecache.app_state import state_of
from flask_stalecache.core.rules.prefer_stale import PreferStale
from flask_stalecache.core.rules.serving import ServeOptions
from flask_stalecache.frontends.setup.app_version import AppVersion
from support.client import MakeApp, visit


@pytest.mark.parametrize(
    ("configured", "is_debug", "version"),
    [
        (None, False, ""),
        (None, True, "debug 12.5"),
        ("7", False, "7"),
        ("7", True, "7"),
    ],
)
def test_the_version_is_the_configured_one_or_in_debug_mode_the_start_time(
    configured: str | None, is_debug: bool, version: str
) -> None:
    assert AppVersion(configured, 12.5, lambda: is_debug).version == version


def test_debug_mode_may_be_set_after_set_up() -> None:
    modes = [False]
    version = AppVersion(None, 12.5, lambda: modes[0])
    modes[0] = True
    assert version.version == "debug 12.5"


def test_serve_options_carry_version_and_start_time() -> None:
    options = AppVersion("7", 12.5).serve_options(3.0, PreferStale.ALONE)
    assert options == ServeOptions("7", 12.5, 3.0, PreferStale.ALONE)


@pytest.mark.parametrize("configured", [None, "7"])
@pytest.mark.parametrize("debug", [False, True])
def test_a_page_a_value_and_a_gateway_response_of_one_app_have_one_version(
    make_app: MakeApp, configured: str | None, debug: bool
) -> None:
    def routes(app: Flask, cache: StaleCache) -> None:
        @cache.memoize(60)
        def value() -> str:
            return "value"

        @app.get("/page")
        @cache.cached(60)
        def page() -> str:
            return value()

        @app.get("/coded")
        @cache.cached(60, gateway=True)
        def coded() -> str:
            return "coded"

    app, cache = make_app(VERSION=configured)
    app.debug = debug
    routes(app, cache)
    assert [visit(app, path).word for path in ("/page", "/coded")] == ["MISS", "MISS"]
    entries = [stored.entry for stored in state_of(app).engine.store.walk()]
    assert len(entries) == 3
    assert len({(entry.version, entry.deployed) for entry in entries}) == 1
    assert entries[0].deployed > 0
