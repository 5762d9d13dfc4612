"""The effective settings, and the source of each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from flask import Flask

from ..app_state import AppState
from ..config.settings import KEYS, PREFIX
from ..core.addressing.server_url import ServerUrl
from ..core.model.policy import Policy
from ..core.model.query import NamePatterns
from ..filesystem.system import lacks_for_files
from ..stores.base import DirectoryStore, PrivateStore

DEFAULT = "default"


def settings(app: Flask, state: AppState) -> Iterator[tuple[str, Any, str]]:
    """Yield name, JSON value and source of each setting."""
    for short in KEYS:
        name = PREFIX + short
        value, source = _effective(short, getattr(state.settings, short.lower()), _source(app, name), app, state)
        yield name, plain(value), source


def _effective(short: str, value: Any, source: str, app: Flask, state: AppState) -> tuple[Any, str]:
    """Return the value in force and the source of a setting. For some settings, it is not the configured value."""
    store = state.engine.store
    if short == "DIR" and isinstance(store, DirectoryStore):
        return store.directory, source if state.settings.dir is not None else _source_of_directory(app, state)
    if short == "STORE" and value == "file" and isinstance(store, PrivateStore):
        return "memory", "a system without file locks" if lacks_for_files() else "StaleCache(store=)"
    if short == "STORE" and value == "file" and _has_own_store(app, state):
        return store, "StaleCache(store=)"
    if short == "SHARED_NAME" and value is None and isinstance(state.settings.store, ServerUrl):
        return app.name, "app.name"
    if short == "MAX_ENTRY_SIZE" and source == DEFAULT and value == state.settings.max_size:
        return value, f"{PREFIX}MAX_SIZE"
    if short == "REFRESH_HEADERS":
        # They may be secrets.
        return dict.fromkeys(value, "***"), source
    if short == "VERSION" and value is None and app.debug:
        return "the time of the start", "app.debug"
    return value, source


def _source(app: Flask, name: str) -> str:
    if name not in app.config:
        return DEFAULT
    # The name that Flask's from_prefixed_env() reads.
    return f"FLASK_{name} in the environment, by app.config" if f"FLASK_{name}" in os.environ else "app.config"


def _has_own_store(app: Flask, state: AppState) -> bool:
    store = state.engine.store
    return not isinstance(store, DirectoryStore) or (state.settings.dir is None and not _is_in_instance(app, store))


def _is_in_instance(app: Flask, store: DirectoryStore) -> bool:
    return store.directory.is_relative_to(app.instance_path)


def _source_of_directory(app: Flask, state: AppState) -> str:
    return "StaleCache(store=)" if _has_own_store(app, state) else "the instance folder"


def plain(value: Any) -> Any:
    """Return a setting as JSON data."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, NamePatterns):
        return list(value.items)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return repr(value) if isinstance(value, (Policy, DirectoryStore)) else str(value)
