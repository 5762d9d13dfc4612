"""Every name of Flask-Caching's that is none here is answered with what to write instead."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from flask import Flask
from flask_caching import Cache

from flask_stalecache import ConfigError, StaleCache
from flask_stalecache.core.model.flask_caching import ATTRIBUTES, METHODS, PARAMETERS, SETUP


def names_of(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters) - {"self"}


@pytest.mark.parametrize("decorator", ["cached", "memoize"])
def test_each_parameter_exists_or_has_a_hint(decorator: str) -> None:
    theirs, ours = names_of(getattr(Cache, decorator)), names_of(getattr(StaleCache, decorator))
    for name in theirs - ours:
        with pytest.raises(ConfigError) as caught:
            getattr(StaleCache(), decorator)(**{name: None})
        assert PARAMETERS[name] in str(caught.value)


def test_each_method_exists_or_has_a_hint() -> None:
    public = {name for name in dir(Cache) if not name.startswith("_") and callable(getattr(Cache, name))}
    for name in sorted(public - set(dir(StaleCache))):
        with pytest.raises(AttributeError, match="has no attribute") as caught:
            getattr(StaleCache(), name)
        assert METHODS[name] in str(caught.value)


@pytest.mark.parametrize("setup", ["__init__", "init_app"])
def test_each_parameter_of_the_setup_exists_or_has_a_hint(setup: str) -> None:
    for name in names_of(getattr(Cache, setup)) - names_of(getattr(StaleCache, setup)):
        with pytest.raises(ConfigError) as caught:
            getattr(StaleCache(), setup)(**{"app": Flask("shop"), name: None})
        assert SETUP[name] in str(caught.value)
    with pytest.raises(ConfigError, match="no parameter 'sture': the nearest is"):
        getattr(StaleCache(), setup)(app=Flask("shop"), sture=None)


def test_each_attribute_of_a_memoized_function_exists_or_has_a_hint() -> None:
    ours = StaleCache().memoize()(len)
    their_app = Flask("theirs")
    theirs = Cache(their_app, config={"CACHE_TYPE": "SimpleCache"}).memoize()(lambda: None)
    missing = {name for name in dir(theirs) if not name.startswith("_")} - set(dir(ours))
    assert missing == set(ATTRIBUTES)
    for name in missing:
        with pytest.raises(AttributeError) as caught:
            getattr(ours, name)
        assert ATTRIBUTES[name] in str(caught.value)


def test_other_names_are_attribute_errors_as_ever() -> None:
    with pytest.raises(AttributeError, match=r"^StaleCache has no attribute 'nothing'$"):
        StaleCache().nothing  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(StaleCache(), "clear")
