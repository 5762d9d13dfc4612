"""Readable names of entries for reports: URL, endpoint and fetch function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from .entry import Entry

_PATH = "/:@!$&'()*+,;=~"


def url_names(entry: Entry) -> tuple[str, ...]:
    """Return the purge names of an entry's URL. All variants of a page have the same."""
    return tuple(name for name in entry.names if name.startswith("url:"))


def title_of(entry: Entry) -> str:
    """Return the title of an entry: its URL, or for the value of a fetch function the call."""
    recipe = entry.recipe
    if "function" in recipe:
        return f"{recipe['function']}({_arguments(recipe.get('arguments'))})"
    names = url_names(entry)
    return _readable(names[0].removeprefix("url:"), str(recipe.get("query", ""))) if names else entry.key


def _arguments(data: Any) -> str:
    if not isinstance(data, Mapping):
        # Arguments that can't be stored are known to the caller only.
        return "..."
    keywords = [f"{name}={value!r}" for name, value in dict(data.get("kwargs", {})).items()]
    return ", ".join([*map(repr, data.get("args", ())), *keywords])


def _readable(url: str, query: str) -> str:
    """Return the URL of a purge name with its path percent-encoded; in the name it is decoded."""
    scheme, _, rest = url.partition("://")
    host, slash, where = rest.partition("/")
    if query and where.endswith(f"?{query}"):
        path = where.removesuffix(f"?{query}")
    else:
        path, _, query = where.partition("?")
    quoted = quote(path.encode("latin-1", "replace"), safe=_PATH)
    return f"{scheme}://{host}{slash}{quoted}{'?' if query else ''}{query}"


def endpoint_of(entry: Entry) -> str | None:
    """Return the endpoint of a page, if it has one."""
    return _named(entry, "endpoint:")


def function_of(entry: Entry) -> str | None:
    """Return the name of the fetch function of a value; ``None`` for a page."""
    return _named(entry, "function:")


def _named(entry: Entry, kind: str) -> str | None:
    return next((name.removeprefix(kind) for name in entry.names if name.startswith(kind)), None)
