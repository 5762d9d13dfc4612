"""``warm`` in a Flask app: where it is, what its endpoints' URLs are, and what its server tells of a path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Flask, Request, has_request_context, request
from werkzeug.routing import BuildError

from ..app_state import State
from ..batches.batch import Batch
from ..batches.warmer import Warmer, checked_flag
from ..core.model.base_url import Base, request_fields
from ..core.model.keys import raw_path
from ..errors import ConfigError


def warm(state: State, urls: object, concurrency: int, force: object, headers: object) -> Batch:
    """Fill the store by asking an app for URLs, in the background.

    :raises ConfigError: if something makes no sense; then nothing has been asked for.
    """
    app, settings = state.pages.app, state.settings
    base = settings.base_url or _base_of(app)
    warmer = Warmer(
        app=app.wsgi_app,
        base=base,
        fields=request_fields(headers),
        # A worker knows its server; elsewhere nobody does, and most tell it.
        with_raw=not has_request_context() or raw_path(request.environ) is not None,
        force=checked_flag("force", force),
        max_size=settings.max_entry_size,
        path_of=lambda endpoint, values: _url_of(app, base, endpoint, values),
    )
    tasks = warmer.tasks(urls)
    # Without a cache nothing can be stored.
    return state.scans.run("warm", tasks if settings.enabled else [], concurrency)


def _base_of(app: Flask) -> Base:
    name = app.config["SERVER_NAME"]
    if not name:
        raise ConfigError("warm() needs to know where the app is: set STALECACHE_BASE_URL = 'https://shop.example', or SERVER_NAME")
    root = str(app.config["APPLICATION_ROOT"] or "/")
    return Base.of("SERVER_NAME", f"{app.config['PREFERRED_URL_SCHEME']}://{name}/{root.lstrip('/')}")


def _url_of(app: Flask, base: Base, endpoint: str, values: Mapping[str, Any]) -> str:
    """Return the URL of an endpoint, as ``url_for`` in a request to the base would; no hook is run for that."""
    environ = base.recipe(base.address(str(base))).to_environ()
    adapter = app.create_url_adapter(Request(environ))
    assert adapter is not None
    given = dict(values)
    app.inject_url_defaults(endpoint, given)
    try:
        return adapter.build(endpoint, given, method="GET")
    except BuildError as error:
        return _by_a_handler(app, endpoint, given, error)


def _by_a_handler(app: Flask, endpoint: str, values: dict[str, Any], error: BuildError) -> str:
    """Return what one of the app's handlers makes of an endpoint that has no URL."""
    try:
        return app.handle_url_build_error(error, endpoint, values)
    except BuildError:
        raise ConfigError(f"no URL can be made of ({endpoint!r}, {values!r}): {error}") from None
