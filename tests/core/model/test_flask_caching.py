"""Every name of Flask-Caching's that is none here is answered with what to write instead."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from flask_caching import Cache

from flask_stalecache import ConfigError, StaleCache
from flask_stalecache.core.model.flask_caching import METHODS, PARAMETERS


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


def test_other_names_are_attribute_errors_as_ever() -> None:
    with pytest.raises(AttributeError, match=r"^StaleCache has no attribute 'nothing'$"):
        StaleCache().nothing  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(StaleCache(), "clear")
