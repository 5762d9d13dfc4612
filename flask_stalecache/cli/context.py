"""The app and the store that a command works on."""

from __future__ import annotations

from flask import Flask

from ..app_state import AppState, state_of
from ..core.model.entry import Entry
from ..core.rules.serving import ServeOptions
from ..errors import ConfigError
from ..frontends.flask_internals.contexts import current_flask_app
from ..stores.base import DirectoryStore, ManyHostsStore, PrivateStore
from . import output


def this_app() -> Flask:
    """Return the current app."""
    return current_flask_app()


def this_state() -> AppState:
    """Return the state of the current app.

    :raises ConfigError: if it has no cache, or a later version of this package has used its directory.
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
    """Return the state of the current app, for commands that need stored entries."""
    return filled(this_state())


def filled(state: AppState) -> AppState:
    """Return the state if its store may have entries; end the command if there is no cache directory, and no other host."""
    store = shared(state).engine.store
    if isinstance(store, DirectoryStore) and not isinstance(store, ManyHostsStore) and not store.directory.is_dir():
        output.echo(f"nothing is stored: there is no directory {store.directory}", err=True)
        raise SystemExit(1)
    return state


def shared(state: AppState) -> AppState:
    """Return the state if its store has the entries of the server's processes.

    :raises ConfigError: if each process has entries of its own.
    """
    if isinstance(state.engine.store, PrivateStore):
        raise ConfigError(
            "STALECACHE_STORE='memory' keeps entries in the server's processes, and this command sees none of them: "
            "call the method of the cache in the app, or set STALECACHE_STORE='file'"
        )
    return state


def app_terms(state: AppState) -> ServeOptions:
    """Return the serving options of the app, for any request."""
    return _here(state, ServeOptions() if state.calls is None else state.calls.terms())


def terms_of(state: AppState, entry: Entry) -> ServeOptions:
    """Return the serving options of an entry, for any request: those of its view, function or rule, else those of the app."""
    terms = state.scheduler.serve_options_of(entry)
    return app_terms(state) if terms is None else _here(state, terms)


def _here(state: AppState, terms: ServeOptions) -> ServeOptions:
    if this_app().debug and state.settings.version is None:
        # In debug mode the version is the start time of the process, and the server is another process.
        return terms._replace(version="", deployed=0.0)
    return terms
