"""The command ``follow``: a process beside the web server that follows the changes of other hosts."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from flask.cli import with_appcontext

from ..errors import ConfigError
from ..stores.base import ManyHostsStore
from . import output
from .context import this_state

#: Seconds between two checks for a signal.
_PAUSE = 0.2


@click.command()
@with_appcontext
def follow() -> None:
    """Follow what other hosts do, in the place of the web server's threads, until SIGTERM or SIGINT.

    One process a host follows. If another one does already, this one waits until that ends.
    """
    runtime = this_state().engine.runtime
    store = runtime.store
    if not isinstance(store, ManyHostsStore):
        raise ConfigError(
            "flask stalecache follow is for a server that several hosts share, and this cache belongs to one host: "
            "set STALECACHE_STORE to the URL of a server, such as 'redis://127.0.0.1:6379/0'"
        )
    with _stoppable() as is_stopped:
        store.begin()
        runtime.tick()
        if not store.follower.follows:
            output.echo(f"another process of this host follows {store!r}: waiting until it ends")
        has_said = False
        while not is_stopped():
            if store.follower.follows and not has_said:
                has_said = True
                output.echo(f"following {store!r} for this host")
            time.sleep(_PAUSE)
            runtime.look_after_itself()
        store.follower.stop()
    output.echo("stopped")


@contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGTERM or SIGINT has arrived."""
    # A list, not an event: the signal may arrive while this thread holds the lock of the event, which the handler needs too.
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
