"""Which cache a command is for: that of the current app, and whether there is one at all."""

from __future__ import annotations

import click
from flask import Flask

from ..app_state import AppState, state_of
from ..core.model.entry import Entry
from ..core.rules.serving import ServeOptions
from ..errors import ConfigError
from ..frontends.flask_internals import current_flask_app
from ..stores.base import DirectoryStore


def this_app() -> Flask:
    """Return the current app."""
    return current_flask_app()


def this_state() -> AppState:
    """Return what belongs to the current app.

    :raises ConfigError: if it has no cache, or what is in its directory is of a later version of this package.
    """
    state = state_of(this_app())
    store = state.engine.store
    if isinstance(store, DirectoryStore):
        # The directory may have been created, or its owner changed, since the app was set up.
        store.check()
        if table := store.newer_version():
            raise ConfigError(
                f"the cache directory {store.directory} is of a newer version of flask_stalecache (it has {table}): "
                "install that one, or give another STALECACHE_DIR"
            )
    return state


def filled_state() -> AppState:
    """Return what belongs to the current app, for commands that need something stored."""
    return filled(this_state())


def filled(state: AppState) -> AppState:
    """Return the state of an app in whose store something may be; end the command where nothing can be."""
    store = state.engine.store
    if isinstance(store, DirectoryStore) and not store.directory.is_dir():
        click.echo(f"nothing is stored: there is no directory {store.directory}", err=True)
        raise SystemExit(1)
    return state


def app_terms(state: AppState) -> ServeOptions:
    """Return what the app says of serving what is stored, whoever asks."""
    return _here(state, ServeOptions() if state.calls is None else state.calls.terms())


def terms_of(state: AppState, entry: Entry) -> ServeOptions:
    """Return what is said of serving an entry, whoever asks: by its view, function or rule, if that is known."""
    terms = state.scans.serve_options_of(entry)
    return app_terms(state) if terms is None else _here(state, terms)


def _here(state: AppState, terms: ServeOptions) -> ServeOptions:
    if this_app().debug and state.settings.version is None:
        # The version is the start of each process then, and this is another one than the server.
        return terms._replace(version="", deployed=0.0)
    return terms
