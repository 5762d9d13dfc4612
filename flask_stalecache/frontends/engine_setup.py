"""Sets up the engine of one app, with its store and its counters: for Flask apps and for ``GatewayCache``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import config
from ..config import Settings
from ..engine.engine import Engine
from ..errors import ConfigError
from ..stats.counters import Counters
from ..stats.registry import Registry
from ..stores.base import DirectoryStore, Store
from ..stores.file_store import file_store


def make_engine(sender: Any, settings: Settings, given: Mapping[str, Any], own: Store | None, default_dir: Path | None) -> Engine:
    """Return the engine of an app.

    :param sender: the app, which signals are sent from.
    :param settings: the checked configuration.
    :param given: what the developer configured, by the names of the keys.
    :param own: the developer's store; ``None``: as configured.
    :param default_dir: the cache directory if none is configured; ``None``: one must be.
    :raises ConfigError: for keys that do not go with the store, or a cache directory that can't be used.
    """
    counters = Counters()
    store = _make_store(settings, given, counters, own, default_dir)
    store.check()
    engine = Engine(store, settings, counters, make_registry(store, counters))
    engine.runtime.send_as(sender)
    return engine


def _make_store(
    settings: Settings, given: Mapping[str, Any], counters: Counters, own: Store | None, default_dir: Path | None
) -> Store:
    if own is None and settings.store != "file":
        own = settings.store
    if own is not None:
        config.check_own_store(given)
        return own
    directory = settings.dir if settings.dir is not None else default_dir
    if directory is None:
        raise ConfigError("GatewayCache() needs a place for what it stores: give dir='/var/cache/shop', or a store")
    return file_store(directory, settings, counters)


def make_registry(store: Store, counters: Counters) -> Registry:
    """Return the counters of an app: in its cache directory if it has one, else in memory."""
    if not isinstance(store, DirectoryStore):
        return Registry(counters)
    registry = Registry(counters, store.directory, store.check)
    if store.counters.sink is None:
        # A store that the developer made has counters of its own, for what it evicts.
        store.counters.sink = registry
    return registry
