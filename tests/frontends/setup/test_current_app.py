"""The cache of an app and of the current app (frontends/current_app), and its parts (app_state)."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask

from flask_stalecache import ConfigError, StaleCache
from flask_stalecache.app_state import AppState, state_of
from flask_stalecache.frontends.response.holes import HoleFunctions
from flask_stalecache.frontends.setup.current_app import NAME, cache_of, cache_of_current_app, renew_calls


def make_app(directory: Path, **config: object) -> Flask:
    app = Flask("shop")
    app.config.update(STALECACHE_DIR=directory, **config)
    StaleCache(app)
    return app


def test_the_cache_of_the_current_app_is_that_of_its_extensions(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    with app.app_context():
        assert cache_of_current_app() is cache_of(app) is state_of(app) is app.extensions[NAME]


def test_outside_of_an_app_context_there_is_none() -> None:
    assert cache_of_current_app() is None


def test_an_app_without_a_cache_is_told_what_to_call() -> None:
    app = Flask("bare")
    told = r"^the app 'bare' has no StaleCache: call init_app\(app\) first$"
    with app.app_context(), pytest.raises(ConfigError, match=told):
        cache_of_current_app()
    with pytest.raises(ConfigError, match=told):
        cache_of(app)


def test_with_caching_off_the_app_is_left_as_it_was(tmp_path: Path) -> None:
    before = Flask("shop")
    app = make_app(tmp_path, STALECACHE_ENABLED=False)
    state = state_of(app)
    assert (state.calls, state.sessions, state.middleware) == (None, None, None)
    assert app.request_class is before.request_class
    assert not {"wsgi_app", "process_response"} & vars(app).keys()
    renew_calls(app, ("a key",))


def test_building_the_parts_changes_nothing_of_the_app(tmp_path: Path) -> None:
    app = Flask("shop")
    app.config["STALECACHE_DIR"] = tmp_path
    before = dict(vars(app))
    state = AppState.of(app, None, [], HoleFunctions())
    assert state.middleware is not None
    assert {name for name, value in vars(app).items() if before.get(name) is not value} == set()
    assert NAME not in app.extensions
