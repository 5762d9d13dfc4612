"""The group of commands, and how errors end one: a clear line and an exit code.

0: done, something was found. 1: nothing matched, or some of it failed. 2: wrong use.
"""

from __future__ import annotations

from typing import Any

import click
from flask.cli import AppGroup

from ..errors import ConfigError, StaleCacheError
from . import care, entries, numbers, showing, work

#: Nothing matched, or some of it failed.
NOTHING = 1
WRONG_USE = 2


class Problem(click.ClickException):
    """What ends a command with one line.

    :param code: the exit code.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]


class Commands(AppGroup):
    """Commands whose errors are told in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except StaleCacheError as error:
            raise Problem(str(error), WRONG_USE if isinstance(error, ConfigError) else NOTHING) from error


commands = Commands("stalecache", help="Look into the cache, empty it, fill it and look after it.")
for command in (
    numbers.stats, entries.list_entries, showing.show,
    work.purge, work.refresh, work.publish, work.warm,
    care.prune, care.verify, care.show_config,
):  # fmt: skip
    commands.add_command(command)
