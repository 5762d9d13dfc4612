"""Warns at the first request about what could not be known when the app was set up: its views, and its final configuration."""

from __future__ import annotations

from flask import Flask

from ..engine.engine import Engine
from ..stores.base import DirectoryStore
from .default_directory import in_instance_folder
from .pages.bound_view import decorated_above_routes


def check_at_first_request(app: Flask, engine: Engine) -> None:
    """Warn about views that are decorated in vain, and about tests that share the pages of the instance folder."""
    for name in decorated_above_routes(app):
        engine.complaints.warn_once(
            ("above its route", name),
            "%s is not cached, since @cache.cached() stands above its route: write it below, directly above the function",
            name,
        )
    store = engine.store
    if app.testing and isinstance(store, DirectoryStore) and store.directory == in_instance_folder(app):
        engine.complaints.warn_once(
            ("testing",),
            "tests share the pages in %s, since TESTING was set after init_app: set it before, or STALECACHE_STORE = 'memory'",
            store.directory,
        )
