"""Finds decorators that check who is logged in, among the functions that wrap a view."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

#: Packages whose decorators check who is logged in.
_PACKAGES = frozenset(
    {
        "authlib", "flask_allows", "flask_appbuilder", "flask_httpauth", "flask_jwt", "flask_jwt_extended", "flask_login",
        "flask_oidc", "flask_praetorian", "flask_principal", "flask_security", "flask_simplelogin", "flask_user",
    }
)  # fmt: skip
#: Matches the usual names of the app's own decorators that do so.
_NAMES = re.compile(r"log(ged)?_?in|auth|permission|requires?_|_required|role|member|admin|protect|private", re.IGNORECASE)


def login_decorator(view: Callable[..., Any] | None) -> str | None:
    """Return the name of the outermost decorator around a view that seems to check who is logged in; ``None`` if there is none."""
    for wrapper in _wrappers(view):
        namespace, code = getattr(wrapper, "__globals__", {}), getattr(wrapper, "__code__", None)
        module, name = str(namespace.get("__name__", "")), _maker_of(code, namespace)
        if module.partition(".")[0] in _PACKAGES or _NAMES.search(name):
            return f"{module}.{name}"
    return None


def _maker_of(code: Any, namespace: dict[str, Any]) -> str:
    """Return the name of the function that made a wrapper: ``functools.wraps`` gives the wrapper itself the names of the view."""
    for name, value in namespace.items():
        if isinstance(value, FunctionType) and code in value.__code__.co_consts:
            return name
    # In Python 3.10, code objects have no qualified names.
    return str(getattr(code, "co_qualname", "")).partition(".<locals>")[0]


def _wrappers(view: Callable[..., Any] | None) -> Iterator[Callable[..., Any]]:
    while (wrapped := getattr(view, "__wrapped__", None)) is not None:
        assert view is not None
        yield view
        view = wrapped
