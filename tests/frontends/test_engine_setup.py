"""The engine of an app: with which store, and where it counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from flask_stalecache import FileStore, Store, config
from flask_stalecache.errors import ConfigError
from flask_stalecache.frontends.engine_setup import make_engine

OWN, CONFIGURED = MagicMock(spec=config._STORE_METHODS), MagicMock(spec=config._STORE_METHODS)


@pytest.mark.parametrize(
    ("own", "given", "has_default", "expected"),
    [
        (OWN, {}, False, OWN),
        (OWN, {"STALECACHE_STORE": CONFIGURED}, False, OWN),
        (None, {"STALECACHE_STORE": CONFIGURED}, False, CONFIGURED),
        (None, {"STALECACHE_DIR": "given"}, True, "given"),
        (None, {"STALECACHE_DIR": "given"}, False, "given"),
        (None, {}, True, "default"),
    ],
)
def test_which_store_an_engine_has(
    directory: Path, own: Store | None, given: dict[str, Any], has_default: bool, expected: Store | str
) -> None:
    given = {name: directory / value if name == "STALECACHE_DIR" else value for name, value in given.items()}
    engine = make_engine("app", config.read(given), given, own, directory / "default" if has_default else None)
    store = engine.store
    if isinstance(expected, str):
        assert isinstance(store, FileStore)
        assert store.directory == directory / expected
    else:
        assert store is expected


def test_without_a_directory_and_a_store_there_is_no_engine() -> None:
    with pytest.raises(ConfigError, match="needs a place"):
        make_engine("app", config.read({}), {}, None, None)


def test_a_directory_has_no_effect_on_a_store_of_the_developers_own(directory: Path) -> None:
    given = {"STALECACHE_DIR": directory}
    with pytest.raises(ConfigError, match="has no effect with a store of your own"):
        make_engine("app", config.read(given), given, OWN, None)


def test_a_file_store_counts_where_its_engine_does(directory: Path) -> None:
    store = FileStore(directory)
    engine = make_engine("app", config.read({}), {}, store, None)
    assert store.counters.sink is engine.registry
