"""The group of commands. An error ends a command with one line and an exit code.

========= ================================================
0         done, and something was found
1         nothing matched, or something failed
2         wrong use
3         nothing failed, but some answers were not stored
========= ================================================
"""

from __future__ import annotations

from typing import Any

import click
from flask.cli import AppGroup

from ..core.formatting import printable
from ..errors import ConfigError, StaleCacheError
from . import advise, bulk, listing, maintenance, show, stats, why
from .output import NOTHING, WRONG_USE


class Problem(click.ClickException):
    """Ends a command with one line.

    :param code: the exit code.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(printable(message))
        self.exit_code = code  # type: ignore[misc]


class Commands(AppGroup):
    """Commands whose errors are printed as one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except StaleCacheError as error:
            raise Problem(str(error), WRONG_USE if isinstance(error, ConfigError) else NOTHING) from error


commands = Commands("stalecache", help="Look into the cache, empty it, fill it and look after it.")
for command in (
    stats.stats, listing.list_entries, show.show, why.why,
    bulk.purge, bulk.refresh, bulk.publish, bulk.warm,
    advise.advise,
    maintenance.prune, maintenance.verify, maintenance.show_config,
):  # fmt: skip
    commands.add_command(command)
