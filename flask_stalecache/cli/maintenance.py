"""The commands that check and maintain the cache: ``prune``, ``verify`` and ``config``."""

from __future__ import annotations

import json

import click
from flask.cli import with_appcontext

from ..core.formatting import size
from ..stats.schema import eviction_reasons
from ..stores.base import ManyHostsStore
from . import output, settings
from .context import filled_state, this_app, this_state


@click.command()
@click.option("--fix", is_flag=True, help="Remove what is broken.")
@with_appcontext
def verify(fix: bool) -> None:
    """Read every entry whole, and report what is broken; and what differs from the server that several hosts share."""
    store = filled_state().engine.store
    sound = broken = 0
    for checked in store.verify(fix=fix):
        if checked.problem:
            broken += 1
            output.echo(f"{checked.path}: {checked.problem}{', removed' if fix else ''}")
        else:
            sound += 1
    output.echo(f"{sound} sound, {broken} broken{' and removed' if fix and broken else ''}")
    differs = isinstance(store, ManyHostsStore) and _compare(store, fix)
    if (broken and not fix) or differs:
        raise SystemExit(1)


def _compare(store: ManyHostsStore, fix: bool) -> bool:
    """Report what differs from the server, and return whether there is a problem left."""
    found = store.compare(fix=fix)
    if found.failure:
        output.echo(f"not compared with the server: {found.failure}", err=True)
        return True
    for title, problem in found.problems:
        output.echo(f"{title}: {problem}{', mended' if fix else ''}")
    output.echo(
        f"{found.same} as at the server, {found.replaced} to be asked for at their next use, {found.alone} on this host only, "
        f"{len(found.problems)} outdated{' and mended' if fix and found.problems else ''}"
    )
    purges = "purges that were not applied" if found.has_unread_purges else "no purges"
    output.echo(f"unread: {purges}, {found.unread_changes} changes")
    return found.has_unread_purges or (bool(found.problems) and not fix)


@click.command()
@with_appcontext
def prune() -> None:
    """Sweep now: remove what is unused, purged, over a limit, or left behind by killed workers."""
    removed = dict(filled_state().engine.store.sweep())
    freed = removed.pop("bytes", 0)
    reasons = eviction_reasons()
    told = [f"{count} {reasons.get(name, name)}" for name, count in sorted(removed.items()) if count]
    output.echo(f"freed {size(freed)}" + (f": {', '.join(told)}" if told else ", nothing was to be removed"))


@click.command("config")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_appcontext
def show_config(as_json: bool) -> None:
    """Show the settings that are in force, and where each comes from."""
    in_force = list(settings.settings(this_app(), this_state()))
    if as_json:
        output.echo_json({name: {"value": value, "from": source} for name, value, source in in_force})
        return
    rows = [(name, source, value if isinstance(value, str) else json.dumps(value)) for name, value, source in in_force]
    for line in output.columns([("KEY", "FROM", "VALUE"), *rows]):
        output.echo(line)
