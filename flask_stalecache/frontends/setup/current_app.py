"""The cache of an app, and of the current app, for front ends that must not import the module that sets it up."""

from __future__ import annotations

from typing import Any, Protocol

from flask import Flask

from ...errors import ConfigError
from ..flask_internals.contexts import app_context_variable

#: The name of this extension: the key of ``app.extensions``, and of the default directory.
NAME = "stalecache"


class CacheOfApp(Protocol):
    """The parts that front ends look up. Each is ``None`` if caching is off."""

    @property
    def calls(self) -> Any:
        """The fetch functions of the app."""

    @property
    def sessions(self) -> Any:
        """The app in which the requests of ``requests`` sessions are cached."""


def cache_of(app: Flask) -> Any:
    """Return ``app.extensions["stalecache"]``.

    :raises ConfigError: if ``init_app`` was not called.
    """
    try:
        return app.extensions[NAME]
    except KeyError:
        raise ConfigError(f"the app {app.name!r} has no StaleCache: call init_app(app) first") from None


def cache_of_current_app() -> CacheOfApp | None:
    """Return the cache of the current app; ``None`` outside an app context. It runs at every call of a fetch function.

    :raises ConfigError: if ``init_app`` was not called.
    """
    context = app_context_variable.get(None)
    if context is None:
        return None
    try:
        return context.app.extensions[NAME]  # type: ignore[no-any-return]
    except KeyError:
        return cache_of(context.app)  # type: ignore[no-any-return]


def doorway_of(app: Flask) -> Any:
    """Return the entrance of an app: our middleware, or its ``wsgi_app`` if caching is off."""
    return cache_of(app).middleware or app.wsgi_app


def renew_calls(app: Flask, keys: tuple[str, ...]) -> None:
    """Refresh the stale values among those that a page was made from, and wait for them."""
    calls = cache_of(app).calls
    if calls is not None:
        calls.renew(keys)
