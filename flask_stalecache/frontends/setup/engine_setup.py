"""Sets up the engine of one app, with its store and its counters: for Flask apps and for ``GatewayCache``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...config import settings as config
from ...config.settings import Settings
from ...core.addressing.server_url import ServerUrl
from ...engine.engine import Engine
from ...errors import ConfigError
from ...filesystem.system import lacks_for_files
from ...stats.counters import Counters
from ...stats.registry import Registry
from ...stores.base import DirectoryStore, PrivateStore, Store
from ...stores.file_store import file_store
from ...stores.in_memory.memory_store import memory_store
from ...stores.shared.store import shared_store

_logger = logging.getLogger("flask_stalecache")
_NO_FILES = (
    "this system lacks %s, so that processes can't share files: each process keeps entries in its own memory, as with %s='memory'"
)


def make_engine(
    sender: Any, settings: Settings, given: Mapping[str, Any], own: Any, default_dir: Path | None, default_name: str | None = None
) -> Engine:
    """Return the engine of an app.

    :param sender: the app, which signals are sent from.
    :param settings: the checked configuration.
    :param given: what the developer configured, by the names of the keys.
    :param own: the developer's store, or the name of a kind of store; ``None``: as configured.
    :param default_dir: the cache directory if none is configured; ``None``: one must be.
    :param default_name: the name of the app, and of the cache at a server if none is configured; ``None``: one must be.
    :raises ConfigError: for keys that do not go with the store, or a cache directory that can't be used.
    """
    counters = Counters()
    store = _make_store(settings, given, counters, own, default_dir, default_name)
    store.check()
    if settings.refresher is not None and isinstance(store, PrivateStore):
        raise ConfigError(
            f"{config.PREFIX}REFRESHER needs a store that other processes see, and each has entries of its own in {store!r}: leave "
            f"out {config.PREFIX}STORE, or the refresher"
        )
    engine = Engine(store, settings, counters, make_registry(store, counters))
    engine.runtime.send_as(sender)
    engine.runtime.delegation.app = default_name or settings.shared_name or ""
    return engine


def _make_store(
    settings: Settings, given: Mapping[str, Any], counters: Counters, own: Any, default_dir: Path | None, default_name: str | None
) -> Store:
    chosen = settings.store if own is None else own
    directory = settings.dir if settings.dir is not None else default_dir
    if isinstance(chosen, ServerUrl):
        return _shared_store(chosen, settings, counters, directory, settings.shared_name or default_name)
    config.check_not_shared(given)
    if chosen == "memory":
        config.check_memory(given)
        return memory_store(settings, counters)
    if chosen != "file":
        config.check_own_store(given)
        own_store: Store = chosen
        return own_store
    if lacking := lacks_for_files():
        key = f"{config.PREFIX}STORE"
        if own is not None or key in given:
            raise ConfigError(f"{key}='file' needs {lacking}, which this system lacks: set {key}='memory'")
        _logger.warning(_NO_FILES, lacking, key)
        return memory_store(settings, counters)
    return file_store(_needed(directory), settings, counters)


def _shared_store(url: ServerUrl, settings: Settings, counters: Counters, directory: Path | None, name: str | None) -> Store:
    """Return the store that several hosts share. It connects at its first use."""
    if lacking := lacks_for_files():
        raise ConfigError(f"{url} needs {lacking}, which this system lacks: set {config.PREFIX}STORE='memory'")
    if name is None:
        raise ConfigError("GatewayCache() needs a name for what its hosts share: give shared_name='shop'")
    return shared_store(url, _needed(directory), name, settings, counters)


def _needed(directory: Path | None) -> Path:
    if directory is None:
        raise ConfigError("GatewayCache() needs a place for what it stores: give dir='/var/cache/shop', or a store")
    return directory


def make_registry(store: Store, counters: Counters) -> Registry:
    """Return the counters of an app: in its cache directory if it has one, else in memory."""
    if not isinstance(store, DirectoryStore):
        return Registry(counters)
    registry = Registry(counters, store.directory, store.check)
    if store.counters.sink is None:
        # A store that the developer made has counters of its own, for what it evicts.
        store.counters.sink = registry
    return registry
