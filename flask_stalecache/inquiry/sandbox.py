"""A second set of an app's parts, with a store of its own: requests through it leave nothing in the live store.

While it is in place, the app's own middleware and gateway hand their requests on to the second set, so that middleware around
them and the hooks of the app run as for visitors. Entries, counts, marks and back-offs are in the memory of this process alone, no
signal is sent in the name of the app, and the log is silent. Side effects of the app itself, such as a write to its database,
happen all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from flask import Flask

from ..app_state import AppState, state_of
from ..engine.engine import Engine
from ..frontends.gateway.handler import Gateway
from ..frontends.request.caller_context import noting_beginnings
from ..frontends.setup.current_app import NAME
from ..stats.counters import Counters
from ..stores.base import seq_of_request
from ..stores.in_memory.memory_store import memory_store

_logger = logging.getLogger("flask_stalecache")


@contextmanager
def sandboxed(app: Flask) -> Iterator[AppState]:
    """Let requests go through a second set of an app's parts, and yield the set. Only for a process that serves no visitors."""
    live = state_of(app)
    counters = Counters()
    engine = Engine(memory_store(live.settings, counters), live.settings, counters)
    private = AppState.beside(app, live, engine)
    with ExitStack() as changes:
        changes.enter_context(_changed(app.extensions, {NAME: private}))
        changes.enter_context(_changed(vars(live.pages), {"engine": engine}))
        changes.enter_context(noting_beginnings(app, seq_of_request(engine.store)))
        changes.enter_context(_silent())
        if live.middleware is not None and private.middleware is not None:
            gateway = live.middleware.gateway
            if isinstance(gateway, Gateway):
                own = private.middleware.open_gateway()
                # The server, or middleware around the app, may refer to the live gateway.
                changes.enter_context(_changed(vars(gateway), vars(own)))
            changes.enter_context(_changed(vars(live.middleware), {"_gateway": private.middleware}))
        yield private


@contextmanager
def _changed(values: dict[str, Any], changes: dict[str, Any]) -> Iterator[None]:
    """Change values until the block ends."""
    before = values.copy()
    values.update(changes)
    try:
        yield
    finally:
        values.clear()
        values.update(before)


@contextmanager
def _silent() -> Iterator[None]:
    def is_said(record: logging.LogRecord) -> bool:
        return False

    _logger.addFilter(is_said)
    try:
        yield
    finally:
        _logger.removeFilter(is_said)
