"""Warns at the first request about mistakes that can't be found when the app is set up: in its views and its configuration."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from weakref import WeakSet

from flask import Flask

from ...engine.engine import Engine
from ...stores.base import DirectoryStore
from ..pages.bound_view import decorated_above_routes
from ..setup.default_directory import in_instance_folder

#: The apps of this process. Two of them may have the same view, and only one of them under ``cached``.
_apps: WeakSet[Flask] = WeakSet()


def first_request_check(app: Flask, engine: Engine, prepare: Callable[[], None]) -> Callable[[], None]:
    """Return a function that prepares an app for its first request, and warns about mistakes.

    :param prepare: prepares the app, now that its extensions and hooks are there.
    """
    _apps.add(app)
    return partial(_check, app, engine, prepare)


def _check(app: Flask, engine: Engine, prepare: Callable[[], None]) -> None:
    """Warn about views that are decorated in vain, and about tests that share the pages of the instance folder."""
    prepare()
    for name in decorated_above_routes(app, list(_apps)):
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
