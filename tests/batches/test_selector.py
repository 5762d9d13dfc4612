"""batches/selector and batches/operations: every way to select entries is in all places that select.

The selectors themselves are tested in core/model/test_purge_names, the operations in the tests of their batches.
"""

from __future__ import annotations

import inspect
from dataclasses import fields

import click
import pytest

from flask_stalecache import ConfigError, GatewayCache, StaleCache
from flask_stalecache.batches.selector import KINDS, Scope, Selection
from flask_stalecache.cli.bulk import publish, purge, refresh
from flask_stalecache.core.model.query import NamePatterns
from flask_stalecache.dashboard.actions import SELECTORS

SELECTORS_OF_AN_APP = [*KINDS, "all"]


def test_a_selection_has_a_field_for_each_selector() -> None:
    assert [field.name for field in fields(Selection)] == SELECTORS_OF_AN_APP


@pytest.mark.parametrize("method", ["purge", "refresh", "publish"])
def test_the_public_methods_have_a_parameter_for_each_selector(method: str) -> None:
    parameters = list(inspect.signature(getattr(StaleCache, method)).parameters)[1:]
    assert parameters[: len(SELECTORS_OF_AN_APP)] == SELECTORS_OF_AN_APP
    of_gateway = list(inspect.signature(getattr(GatewayCache, method)).parameters)[1:]
    assert of_gateway == [name for name in parameters if name not in ("endpoint", "function")]


@pytest.mark.parametrize("command", [purge, refresh, publish])
def test_the_commands_have_a_parameter_for_each_selector(command: click.Command) -> None:
    assert set(SELECTORS_OF_AN_APP) <= {parameter.name for parameter in command.params}


def test_the_dashboard_offers_each_selector() -> None:
    assert list(SELECTORS) == list(KINDS)


def test_a_selection_names_the_operation_in_its_error() -> None:
    with pytest.raises(
        ConfigError, match=r"^a list is by one of url, tag=, endpoint=, function=, prefix= and all=True, and tag and all was given$"
    ):
        Selection(tag="news", all=True).resolve("a list", Scope(NamePatterns(()), ()))
