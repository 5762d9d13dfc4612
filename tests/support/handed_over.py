"""Refreshes as data, for tests."""

from __future__ import annotations

import time
from typing import Any

from flask import Flask

from flask_stalecache import StaleCache
from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.core.model.titles import title_of
from flask_stalecache.core.packets.refresh_data import OriginKind, RefreshData


def job_for(
    app: Flask, title: str, kind: OriginKind = OriginKind.PAGE, *, version: str = "", expires: float = 3600
) -> dict[str, Any]:
    """Return the refresh of what is stored under a title: a URL or a call.

    :param expires: seconds until it is too late.
    """
    store = app.extensions["stalecache"].engine.store
    entry = next(stored.entry for stored in store.walk() if title_of(stored.entry).endswith(title))
    return RefreshData(
        app=app.name,
        version=version,
        kind=kind,
        address=digest(entry.key),
        serial=entry.serial,
        expires=time.time() + expires,
    ).to_json()


def run(app: Flask, cache: StaleCache, job: Any) -> str:
    """Run a refresh as a task of a queue does."""
    with app.app_context():
        return cache.run_refresh(job)
