"""Determines which code reads a part of a request: the framework for itself, or the app."""

from __future__ import annotations

from inspect import unwrap
from types import FrameType
from typing import Any

from flask import Flask

#: Flask's own entry: all code that runs below it answers the request.
_APP_ENTRY = Flask.wsgi_app.__code__
#: Packages that read for their caller. In the standard library, wsgiref is the one that reads an environ.
_FRAMEWORK = frozenset({"werkzeug", "flask", "wsgiref"})
_VIEW_ENTRY = Flask.dispatch_request.__code__
_OURS = "flask_stalecache"


_PACKAGES = ("werkzeug.", "flask.", "flask_stalecache.")


def outside_caller(frame: FrameType) -> str | None:
    """Return the module of a caller if it is outside Werkzeug, Flask and this package.

    Unlike :func:`outside_reader`, it checks no other frame, which is cheap enough for every hit.
    """
    name: str = frame.f_globals.get("__name__", "")
    return None if name.startswith(_PACKAGES) else name


def is_of_framework(module: str) -> bool:
    """Whether a module belongs to Werkzeug, Flask or this package."""
    return module.startswith(_PACKAGES)


def outside_reader(frame: FrameType) -> str | None:
    """Return the module of the first caller outside Werkzeug, Flask and this package; ``None`` if one of those reads for itself.

    :param frame: the frame of the code that reads.
    """
    caller: FrameType | None = frame
    while caller is not None:
        name = str(caller.f_globals.get("__name__", ""))
        package = name.partition(".")[0]
        if package not in _FRAMEWORK and package != _OURS:
            return name
        # Werkzeug's middleware reads for itself, even if middleware of the app has called it.
        if package == _OURS or caller.f_code is _APP_ENTRY or name.startswith("werkzeug.middleware."):
            return None
        caller = caller.f_back
    return None


def is_in_view(frame: FrameType) -> bool:
    """Whether code runs in a view, rather than in a hook.

    :param frame: the frame of the code.
    """
    caller: FrameType | None = frame
    while caller is not None and caller.f_code is not _VIEW_ENTRY:
        caller = caller.f_back
    return caller is not None


def packages_of_view(app: Flask, endpoint: str | None) -> frozenset[str]:
    """Return the packages whose code counts as a view's: its own, the app's, and those of templates."""
    view: Any = unwrap(app.view_functions.get(endpoint or "", app))
    modules = (getattr(getattr(view, "view_class", view), "__module__", ""), app.import_name, "jinja2", "")
    return frozenset(str(module).partition(".")[0] for module in modules)


#: Packages that read for a template; "" stands for the code of the template.
_FOR_TEMPLATES = frozenset({"jinja2", "flask_login", "flask_principal", "flask_wtf", ""})


def in_template(reader: str, frame: FrameType) -> str:
    """Return the template, with the line, that a reader reads for; the reader itself if it reads for none.

    :param reader: the module that reads.
    :param frame: the frame of the code that reads, or of code that it has called.
    """
    if reader.partition(".")[0] not in _FOR_TEMPLATES and reader != "a template":
        return reader
    caller: FrameType | None = frame
    while caller is not None and caller.f_code is not _VIEW_ENTRY:
        template = caller.f_globals.get("__jinja_template__")
        if template is not None:
            return f"{template.name or 'a template'}, line {template.get_corresponding_lineno(caller.f_lineno)}"
        caller = caller.f_back
    return reader


def is_made_by_flask(frame: FrameType) -> bool:
    """Whether Flask makes a request object for the request that it answers, rather than other code for its own use.

    :param frame: the frame that calls the object's class.
    """
    caller: FrameType | None = frame
    # The app's request class may have a constructor of its own.
    while caller is not None and caller.f_code.co_name == "__init__" and _package_of(caller) not in _FRAMEWORK:
        caller = caller.f_back
    return caller is not None and _package_of(caller) == "flask"


def _package_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
