"""The cache directory of an app that configures none: a temporary one of its own under ``TESTING``."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
from flask import Flask

from flask_stalecache import FileStore, StaleCache
from flask_stalecache.app_state import state_of
from support.client import visit


def shop(folder: Path, **config: object) -> Flask:
    app = Flask("shop", instance_path=str(folder / "instance"))
    app.config.update(config)
    cache = StaleCache(app)
    calls = iter(range(10))

    @app.get("/")
    @cache.cached(60)
    def page() -> str:
        return str(next(calls))

    return app


def directory_of(app: Flask) -> Path:
    store = state_of(app).engine.store
    assert isinstance(store, FileStore)
    return store.directory


def test_it_is_in_the_instance_folder(tmp_path: Path) -> None:
    assert directory_of(shop(tmp_path)) == tmp_path / "instance" / "stalecache"


def test_no_test_gets_the_pages_of_another(tmp_path: Path) -> None:
    for _ in range(2):
        app = shop(tmp_path, TESTING=True)
        assert [visit(app, "/").headers["X-Cache-Status"] for _ in range(2)] == ["MISS", "HIT"]
    assert not (tmp_path / "instance").exists()


def test_it_goes_with_its_app(tmp_path: Path) -> None:
    app = shop(tmp_path, TESTING=True)
    visit(app, "/")
    directory = directory_of(app)
    assert directory.is_dir()
    if (child := os.fork()) == 0:
        from weakref import finalize

        for each in [each for each in finalize._registry if each.peek()[0] is app]:  # type: ignore[attr-defined,index]
            each()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert directory.is_dir()
    del app
    gc.collect()
    if directory.parent.exists():
        pytest.fail(f"{directory.parent} is left")


def test_a_directory_that_is_configured_is_used(tmp_path: Path) -> None:
    assert directory_of(shop(tmp_path, TESTING=True, STALECACHE_DIR=tmp_path / "own")) == tmp_path / "own"
