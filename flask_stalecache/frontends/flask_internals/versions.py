"""The check at start-up that the installed Flask and Werkzeug have all names that this package uses."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from flask import Flask, current_app
from jinja2 import Environment
from werkzeug.datastructures import EnvironHeaders, Headers
from werkzeug.wrappers import Response

from ...errors import ConfigError
from .contexts import GLOBALS


def check_versions() -> None:
    """Raise :class:`ConfigError` if the installed Flask or Werkzeug lacks a name that this package uses."""
    if missing := _missing():
        raise ConfigError(
            f"Flask {version('flask')} with Werkzeug {version('werkzeug')} lacks {', '.join(missing)}, "
            "which flask_stalecache needs: install a flask_stalecache that supports it, or Flask 3.1"
        )


@lru_cache(maxsize=1)
def _missing() -> tuple[str, ...]:
    return tuple(_missing_names())


def _missing_names() -> Iterator[str]:
    if "_cv_app" not in GLOBALS:
        yield "flask.globals._cv_app"
    app_context: Any = _bare_app().app_context()
    context: Any = _bare_app().test_request_context()
    if "_cv_request" not in GLOBALS and not hasattr(context, "has_request"):
        yield "flask.globals._cv_request"
    response: Any = Response()
    macro = vars(Environment().from_string("{% macro it() %}{% endmacro %}").module)["it"]
    needed: tuple[tuple[Any, str, tuple[str, ...]], ...] = (
        (app_context, "the app context", ("g", "url_adapter")),
        (context, "the request context", ("_session", "_after_request_functions", "match_request")),
        (current_app, "flask.current_app", ("_get_current_object",)),
        (Flask, "flask.Flask", ("process_response", "handle_user_exception")),
        (macro, "a macro of Jinja", ("_func", "_environment")),
        (EnvironHeaders, "werkzeug.datastructures.EnvironHeaders", ("_get_key",)),
        (Headers(), "werkzeug.datastructures.Headers", ("_list",)),
        (response, "werkzeug.wrappers.Response", ("_on_close", "_status", "_status_code")),
    )
    for holder, name, attributes in needed:
        yield from (f"{name}: {attribute}" for attribute in attributes if not _has(holder, attribute))


@lru_cache(maxsize=1)
def _bare_app() -> Flask:
    """Return an app for the checks, since the developer's may not be able to make a request yet.

    It lives as long as the process. Flask keeps a weak proxy of each app, and gevent inspects every object of a forked worker: it
    fails at the proxy of an app that was being collected at the fork.
    """
    return Flask("flask_stalecache", static_folder=None)


def _has(holder: object, attribute: str) -> bool:
    # Without a context, only the attributes of a proxy's own class can be checked.
    return hasattr(type(holder) if holder is current_app else holder, attribute)
