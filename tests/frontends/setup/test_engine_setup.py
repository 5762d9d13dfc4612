"""The engine of an app: with which store, and where it counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from flask import Flask

from flask_stalecache import FileStore, GatewayCache, RedisStore, StaleCache, Store
from flask_stalecache.config import settings as config
from flask_stalecache.config import values as config_values
from flask_stalecache.errors import ConfigError
from flask_stalecache.frontends.setup.engine_setup import make_engine

OWN, CONFIGURED = MagicMock(spec=config_values.STORE_METHODS), MagicMock(spec=config_values.STORE_METHODS)


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


URL = "redis://:hidden@127.0.0.1:1/0"


def test_many_hosts_share_a_store_that_nothing_connects_yet(directory: Path) -> None:
    given = {"STALECACHE_STORE": URL, "STALECACHE_DIR": directory}
    store = make_engine("app", config.read(given), given, None, None, "shop").store
    assert isinstance(store, RedisStore)
    assert repr(store) == f"RedisStore('redis://127.0.0.1:1/0', {str(directory)!r})"
    assert "hidden" not in repr(config.read(given))


def test_the_url_of_a_server_can_be_the_store_of_an_app(directory: Path) -> None:
    app = Flask(__name__, instance_path=str(directory))
    cache = StaleCache(app, store=URL)
    assert cache is not None
    with app.test_client() as client:
        assert client.get("/").status_code == 404


def test_a_gateway_has_to_name_what_its_hosts_share(directory: Path) -> None:
    with pytest.raises(ConfigError, match="shared_name='shop'"):
        GatewayCache(MagicMock(), store=URL, dir=str(directory))
    GatewayCache(MagicMock(), store=URL, dir=str(directory), shared_name="shop")


@pytest.mark.parametrize("store", ["file", "memory"])
def test_what_hosts_share_has_no_effect_without_a_server(directory: Path, store: str) -> None:
    given = {"STALECACHE_STORE": store, "STALECACHE_SHARED_LEASE": 3}
    with pytest.raises(ConfigError, match="STALECACHE_SHARED_LEASE has no effect without a server"):
        make_engine("app", config.read(given), given, None, directory)


@pytest.mark.parametrize("name", ["", "a{b}", "a b", "a*", 3])
def test_a_name_that_the_keys_of_a_server_can_not_have_is_an_error(name: object) -> None:
    with pytest.raises(ConfigError, match="SHARED_NAME"):
        config.read({"STALECACHE_SHARED_NAME": name})


def test_a_url_needs_a_package(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_stalecache.stores.shared.client.find_spec", lambda name: None)
    given = {"STALECACHE_STORE": URL, "STALECACHE_DIR": directory}
    with pytest.raises(ConfigError, match=r"pip install flask-stalecache\[redis\]") as raised:
        make_engine("app", config.read(given), given, None, None, "shop")
    assert "hidden" not in str(raised.value)
