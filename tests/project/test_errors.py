"""Errors are one family, and each can be caught by what its caller would expect."""

from __future__ import annotations

import pytest

import flask_stalecache
from flask_stalecache import ConfigError, StaleCacheError, StoreError
from flask_stalecache.errors import BrokenEntry


@pytest.mark.parametrize("leaf", [ConfigError, StoreError, BrokenEntry])
def test_every_error_is_a_stale_cache_error(leaf: type[Exception]) -> None:
    assert issubclass(leaf, StaleCacheError)


@pytest.mark.parametrize("expected", [ValueError, TypeError])
def test_a_config_error_is_what_a_caller_of_python_expects(expected: type[Exception]) -> None:
    assert issubclass(ConfigError, expected)


@pytest.mark.parametrize("leaf", [StoreError, BrokenEntry])
def test_trouble_of_the_store_is_not_taken_for_a_bad_value(leaf: type[Exception]) -> None:
    assert not issubclass(leaf, (ValueError, TypeError, OSError))


def test_broken_entries_are_the_stores_own_business() -> None:
    assert "BrokenEntry" not in flask_stalecache.__all__
