"""Helpers of the Flask sites that are walked through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flask import Flask

from flask_stalecache import Policy, StaleCache
from flask_stalecache.stats.schema import Stats
from support.real_apps.walks import Built

#: All that a site says of its pages.
WINDOWS = {"max_age": 600, "stale_while_revalidate": 3600, "stale_if_error": 86400, "jitter": 0}
#: The fronts: each view is decorated, or a gateway has a rule for all paths.
VIEW, GATEWAY = "cached", "STALECACHE_GATEWAY"


def cached_app(app: Flask, front: str | None, folder: Path | None) -> StaleCache | None:
    """Put a cache into an app.

    :param front: :data:`VIEW` or :data:`GATEWAY`; ``None``: no cache.
    :param folder: its directory.
    """
    if front is None:
        return None
    app.config.update(STALECACHE_DIR=folder, STALECACHE_REFRESH_WORKERS=0)
    app.config["STALECACHE_GATEWAY"] = {"/*": Policy(**WINDOWS)} if front == GATEWAY else False
    return StaleCache(app)


def signed_session(app: Flask, value: str) -> Mapping[str, Any]:
    """Return what is in a session cookie, without checking its signature."""
    signer = app.session_interface.get_signing_serializer(app)  # type: ignore[attr-defined]
    return signer.loads_unsafe(value)[1] or {}  # type: ignore[no-any-return]


def built(app: Flask, session_of: Callable[[str], Mapping[str, Any]], cache: StaleCache | None, *extensions: object) -> Built:
    """Return a site that is ready to be walked through.

    :param extensions: those that nothing else keeps alive, such as receivers of signals.
    """
    if cache is None:
        return Built(app, session_of, extensions)

    def stats() -> Stats:
        with app.app_context():
            return cache.stats()

    return Built(app, session_of, (cache, extensions), stats)
