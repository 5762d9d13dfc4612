"""Arguments and options that select entries: the same selectors as in Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..app_state import AppState
from ..batches.selector import KINDS, Selection, Selector

C = TypeVar("C", bound=Callable[..., Any])


def filtering(command: C) -> C:
    """Add the options that narrow down a list."""
    # Decorators apply from the bottom up: the last option added is the first in the help.
    for kind in reversed([kind for kind in KINDS if kind != "url"]):
        command = click.option(f"--{kind}", help=KINDS[kind].help)(command)
    return command


def selecting(command: C) -> C:
    """Add the argument and the options that select entries, of which exactly one must be given: the fields of a selection."""
    command = click.option("--all", is_flag=True, help="Everything in the store.")(filtering(command))
    return click.argument("url", required=False)(command)


def filters_of(here: AppState, given: dict[str, str | None]) -> list[Selector]:
    """Return the selectors that all entries of a list have to match.

    :raises ConfigError: for an invalid value.
    """
    chosen = {kind: value for kind, value in given.items() if value is not None}
    return [here.bulk.selector(Selection(**{kind: value}), "a list") for kind, value in chosen.items()]


def of_url(here: AppState, url: str) -> Selector:
    """Return the selector of a URL or path."""
    return here.bulk.selector(Selection(url), "an entry")
