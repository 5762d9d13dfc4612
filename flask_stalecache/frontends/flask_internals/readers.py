"""Which code reads a part of a request: the framework for itself, or the app."""

from __future__ import annotations

from inspect import unwrap
from types import FrameType
from typing import Any

from flask import Flask

#: Flask's own entry: all code that runs below it answers the request.
_APP_ENTRY = Flask.wsgi_app.__code__
#: The parts of the standard library that read an environ do so for their caller.
_FRAMEWORK = frozenset({"werkzeug", "flask", "wsgiref"})
_VIEW_ENTRY = Flask.dispatch_request.__code__
_OURS = "flask_stalecache"


_PACKAGES = ("werkzeug.", "flask.", "flask_stalecache.")


def outside_caller(frame: FrameType) -> str | None:
    """Return the module of a caller if it is outside Werkzeug, Flask and this package.

    Unlike :func:`outside_reader` it looks at no further frame, so that every hit can afford it.
    """
    name: str = frame.f_globals.get("__name__", "")
    return None if name.startswith(_PACKAGES) else name


def is_of_framework(module: str) -> bool:
    """Whether a module is one of Werkzeug's, Flask's or of this package."""
    return module.startswith(_PACKAGES)


def outside_reader(frame: FrameType) -> str | None:
    """Return the module of the first caller outside Werkzeug, Flask and this package; ``None`` if one of those reads for itself.

    :param frame: that of the code that reads.
    """
    caller: FrameType | None = frame
    while caller is not None:
        name = str(caller.f_globals.get("__name__", ""))
        package = name.partition(".")[0]
        if package not in _FRAMEWORK and package != _OURS:
            return name
        # Middleware of Werkzeug's may be called by middleware of the app's, which does not read by that.
        if package == _OURS or caller.f_code is _APP_ENTRY or name.startswith("werkzeug.middleware."):
            return None
        caller = caller.f_back
    return None


def is_in_view(frame: FrameType) -> bool:
    """Whether code runs in a view, rather than in a hook.

    :param frame: that of the code.
    """
    caller: FrameType | None = frame
    while caller is not None and caller.f_code is not _VIEW_ENTRY:
        caller = caller.f_back
    return caller is not None


def packages_of_view(app: Flask, endpoint: str | None) -> frozenset[str]:
    """Return the packages whose code is that of a view: its own, the app's, and that of templates."""
    view: Any = unwrap(app.view_functions.get(endpoint or "", app))
    modules = (getattr(getattr(view, "view_class", view), "__module__", ""), app.import_name, "jinja2", "")
    return frozenset(str(module).partition(".")[0] for module in modules)


#: Code that reads for a template.
_FOR_TEMPLATES = frozenset({"jinja2", "flask_login", "flask_principal", "flask_wtf", ""})


def in_template(reader: str, frame: FrameType) -> str:
    """Return a reader with the line of the template that it reads for, if it does.

    :param reader: its module.
    :param frame: that of the code that reads, or one within it.
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

    :param frame: that of the caller of the object's class.
    """
    caller: FrameType | None = frame
    # The app's request class may have a constructor of its own.
    while caller is not None and caller.f_code.co_name == "__init__" and _package_of(caller) not in _FRAMEWORK:
        caller = caller.f_back
    return caller is not None and _package_of(caller) == "flask"


def _package_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
