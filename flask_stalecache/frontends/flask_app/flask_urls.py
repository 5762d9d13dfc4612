"""Base URL and endpoint URLs of a Flask app, and the endpoints of its URLs."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import unquote_to_bytes

from flask import Flask, Request, has_request_context, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BuildError, RoutingException

from ...batches.operations import WarmTarget
from ...config.settings import Settings
from ...core.addressing.base_url import Base
from ...core.addressing.keys import digest, raw_path
from ...errors import ConfigError
from ...stores.shared.introduction import Identity
from ..flask_internals.contexts import url_adapter_of

_UNKNOWN_BASE = (
    "warm() needs to know where the app is: set STALECACHE_BASE_URL = 'https://shop.example', or SERVER_NAME, or give full URLs"
)


def warm_target(app: Flask, settings: Settings, version: str | None = None) -> WarmTarget:
    """Return the target of the requests that ``warm`` sends.

    :param version: the version of the pages; ``None``: no worker is asked.
    """
    base = settings.base_url or _base_of(app)
    # Only a request shows whether the server passes on the raw path. Most servers do.
    with_raw = not has_request_context() or raw_path(request.environ) is not None
    path_of = None if base is None else partial(_url_of, app, base)
    root = unquote_to_bytes(_root_of(app).rstrip("/")).decode("latin-1")
    return WarmTarget(app.wsgi_app, base, with_raw, path_of, _UNKNOWN_BASE, root, version)


def identity_of(app: Flask) -> Callable[[], Identity | None]:
    """Return a function that returns the identity of an app by its name and routes, to be called once all routes are there."""
    reference = weakref.ref(app)

    def identify() -> Identity | None:
        app = reference()
        if app is None:
            return None
        # Any app may have static files, and a page at the root: these identify none.
        rules = [rule for rule in app.url_map.iter_rules() if rule.endpoint.rpartition(".")[2] != "static" and rule.rule != "/"]
        return Identity(app.name, frozenset(digest(f"{rule.rule} {rule.endpoint}")[:12] for rule in rules))

    return identify


def match_endpoint(app: Flask, environ: Mapping[str, Any]) -> str | None:
    """Return the endpoint of a GET request; ``None`` if its URL matches nothing.

    :raises Exception: whatever a converter of the app raises.
    """
    try:
        adapter = app.create_url_adapter(Request(dict(environ)))
        return None if adapter is None else str(adapter.match(method="GET")[0])
    except (HTTPException, RoutingException):
        return None


def _base_of(app: Flask) -> Base | None:
    name = app.config["SERVER_NAME"]
    if not name:
        return None
    return Base.of("SERVER_NAME", f"{app.config['PREFERRED_URL_SCHEME']}://{name}{_root_of(app)}")


def _root_of(app: Flask) -> str:
    return "/" + str(app.config["APPLICATION_ROOT"] or "/").lstrip("/")


def _url_of(app: Flask, base: Base, endpoint: str, values: Mapping[str, Any]) -> str:
    """Return the URL of an endpoint, as ``url_for`` in a request to the base URL would, without running hooks."""
    adapter = url_adapter_of(app, base)
    assert adapter is not None
    given = dict(values)
    app.inject_url_defaults(endpoint, given)
    try:
        return adapter.build(endpoint, given, method="GET")
    except BuildError as error:
        return _by_a_handler(app, endpoint, given, error)


def _by_a_handler(app: Flask, endpoint: str, values: dict[str, Any], error: BuildError) -> str:
    """Return the URL that the app's handlers build for an endpoint without a rule."""
    try:
        return app.handle_url_build_error(error, endpoint, values)
    except BuildError:
        raise ConfigError(f"no URL can be made of ({endpoint!r}, {values!r}): {error}") from None
