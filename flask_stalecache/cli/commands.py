"""The group of commands. An error ends a command with one line and an exit code.

========= ================================================
0         done, and something was found
1         nothing matched, or something failed
2         wrong use
3         nothing failed, but some answers were not stored
========= ================================================
"""

from __future__ import annotations

from functools import cache
from typing import Any

import click
from flask.cli import AppGroup

from ..core.formatting import printable
from ..errors import ConfigError, StaleCacheError
from .output import NOTHING, WRONG_USE


class Problem(click.ClickException):
    """An error that ends a command, with a message of one line.

    :param code: the exit code.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(printable(message))
        self.exit_code = code  # type: ignore[misc]


@cache
def _commands() -> dict[str, click.Command]:
    # Every process of a web server imports this module, and only `flask stalecache` needs the commands.
    from . import advise, bulk, follow, listing, maintenance, show, stats, why, worker

    found = (
        stats.stats, listing.list_entries, show.show, why.why,
        bulk.purge, bulk.refresh, bulk.publish, bulk.warm,
        advise.advise, follow.follow,
        maintenance.prune, maintenance.verify, maintenance.show_config,
        worker.worker,
    )  # fmt: skip
    return {str(command.name): command for command in found}


class Commands(AppGroup):
    """A group that imports its commands when they are needed, and prints their errors as one line."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command."""
        return super().get_command(ctx, cmd_name) or _commands().get(cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(ctx), *_commands()})

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except StaleCacheError as error:
            raise Problem(str(error), WRONG_USE if isinstance(error, ConfigError) else NOTHING) from error


commands = Commands("stalecache", help="Look into the cache, empty it, fill it and look after it.")
