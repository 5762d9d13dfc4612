"""The command that runs refreshes of the web processes of this host: ``worker``."""

from __future__ import annotations

import logging

import click
from flask.cli import with_appcontext

from ..worker.command import Wanted, run_worker
from . import output
from .context import shared, this_state

_MIB = 1024 * 1024


@click.command()
@click.option("--processes", default=1, show_default=True, type=click.IntRange(1, 1000), help="Processes that run refreshes.")
@click.option("--max-requests", default=0, type=click.IntRange(0), help="Refreshes after which a process is replaced. 0: never.")
@click.option("--memory-limit", default=0, type=click.IntRange(0), help="MiB of memory after which a process is replaced. 0: none.")
@with_appcontext
def worker(processes: int, max_requests: int, memory_limit: int) -> None:
    """Run the refreshes of all web processes of this host, until SIGTERM or Ctrl-C.

    What runs then is completed; a second signal ends it at once.
    """
    state = shared(this_state())
    logger = logging.getLogger("flask_stalecache")
    if logger.getEffectiveLevel() > logging.INFO:
        logger.setLevel(logging.INFO)
    output.echo(f"{processes} process{'es' * (processes > 1)} for the refreshes of {state.engine.name}")
    raise SystemExit(run_worker(state, Wanted(processes, max_requests, memory_limit * _MIB)))
