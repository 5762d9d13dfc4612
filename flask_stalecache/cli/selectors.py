"""Which entries a command is for: the same selectors as in Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from flask import current_app

from ..app_state import State
from ..batches.selector import Selector

C = TypeVar("C", bound=Callable[..., Any])
_FILTERS = ("tag", "endpoint", "prefix")


def filtering(command: C) -> C:
    """Add the options that narrow down a list."""
    for option in (
        click.option("--prefix", help="What is at or below a path, or a full URL, that begins so."),
        click.option("--endpoint", help="The pages of an endpoint, such as news.article."),
        click.option("--tag", help="What has this tag."),
    ):
        command = option(command)
    return command


def selecting(command: C) -> C:
    """Add the argument and the options of which exactly one says what a command is for."""
    command = click.option("--all", "everything", is_flag=True, help="Everything in the store.")(command)
    return click.argument("url", required=False)(filtering(command))


def selector_of(here: State, what: str, url: str | None, everything: bool, **given: str | None) -> Selector:
    """Return what a command is for.

    :param what: the command, for the error.
    :raises ConfigError: unless exactly one thing is selected, by a value that makes sense.
    """
    return Selector.of(
        url,
        given["tag"],
        given["endpoint"],
        given["prefix"],
        everything,
        here.settings.ignored_parameters,
        what=what,
        endpoints=current_app.view_functions,
    )


def filters_of(here: State, given: dict[str, str | None]) -> list[Selector]:
    """Return what all entries of a list have to match.

    :raises ConfigError: for a value that makes no sense.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    none = dict.fromkeys(_FILTERS)
    return [selector_of(here, "a list", None, False, **{**none, name: value}) for name, value in chosen.items()]


def of_url(here: State, url: str) -> Selector:
    """Return what a URL or path stands for."""
    return selector_of(here, "an entry", url, False, **dict.fromkeys(_FILTERS))
