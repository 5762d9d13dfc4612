"""What a purge, a refresh or a publish is of, and what entries are called in its report. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any
from urllib.parse import quote

from ..core.model.entry import Entry
from ..core.model.purge_names import EVERYTHING, endpoint_name, prefix_name, tag_name, url_name
from ..core.model.query import NamePatterns
from ..errors import ConfigError

_PATH = "/:@!$&'()*+,;=~"


@dataclass(frozen=True, slots=True)
class Selector:
    """What is selected.

    :param kind: ``url``, ``tag``, ``endpoint``, ``prefix`` or ``all``.
    :param name: the name that all of it has, by which it is purged at once; ``None``: only a walk finds it.
    :param prefix: how one of its names begins, where there is no ``name``; else "".
    """

    kind: str
    name: str | None
    prefix: str = ""

    @classmethod
    def of(
        cls,
        url: object,
        tag: object,
        endpoint: object,
        prefix: object,
        everything: object,
        ignored: NamePatterns,
        *,
        what: str = "a purge",
        endpoints: Collection[str] | None = None,
    ) -> Selector:
        """Return what is selected.

        :param ignored: query parameters that are in no page's name.
        :param what: selects it, for the error.
        :param endpoints: those that there are; ``None``: there are none to select by.
        :raises ConfigError: unless exactly one thing is selected, by a value of the right kind.
        """
        given = {"url": url, "tag": tag, "endpoint": endpoint, "prefix": prefix, "all": None if everything is False else everything}
        chosen = [name for name, value in given.items() if value is not None or (name == "all" and everything is None)]
        if len(chosen) != 1:
            said = " and ".join(chosen) or "nothing"
            ways = "url, tag=, prefix=" if endpoints is None else "url, tag=, endpoint=, prefix="
            raise ConfigError(f"{what} is by one of {ways} and all=True, and {said} was given")
        kind = chosen[0]
        if kind == "all":
            if everything is not True:
                raise ConfigError(f"all={everything!r}: give True to select everything")
            return cls(kind, EVERYTHING)
        if kind == "url":
            return cls(kind, url_name(url, ignored))
        if kind == "prefix":
            return cls(kind, None, prefix_name(prefix))
        value = given[kind]
        if not isinstance(value, str) or not value:
            raise ConfigError(f"{kind}={value!r}: give one non-empty string")
        if kind == "tag":
            return cls(kind, tag_name(value))
        _check_endpoint(value, endpoints or ())
        return cls(kind, endpoint_name(value))

    def matches(self, entry: Entry) -> bool:
        """Whether an entry is selected."""
        if self.name is not None:
            return self.name in entry.names
        return any(name.startswith(self.prefix) for name in entry.names)


def _check_endpoint(endpoint: str, known: Collection[str]) -> None:
    if endpoint not in known:
        nearest = get_close_matches(endpoint, list(known), n=1)
        hint = f"; the nearest is {nearest[0]!r}" if nearest else ""
        raise ConfigError(f"endpoint={endpoint!r} is none of the app's{hint}")


def url_names(entry: Entry) -> tuple[str, ...]:
    """Return the names of an entry that are its URL alone, and by which all of its variants go together."""
    return tuple(name for name in entry.names if name.startswith("url:"))


def title_of(entry: Entry) -> str:
    """Return what an entry is called in a report: its URL, or for the value of a fetch function the call."""
    recipe = entry.recipe
    if "function" in recipe:
        return f"{recipe['function']}({_arguments(recipe.get('arguments'))})"
    names = url_names(entry)
    return _readable(names[0].removeprefix("url:"), str(recipe.get("query", ""))) if names else entry.key


def _arguments(data: Any) -> str:
    if not isinstance(data, Mapping):
        # Only its caller has them.
        return "..."
    keywords = [f"{name}={value!r}" for name, value in dict(data.get("kwargs", {})).items()]
    return ", ".join([*map(repr, data.get("args", ())), *keywords])


def _readable(url: str, query: str) -> str:
    """Return a URL as it may be written again: in a name, its path is percent-decoded."""
    scheme, _, rest = url.partition("://")
    host, slash, where = rest.partition("/")
    if query and where.endswith(f"?{query}"):
        path = where.removesuffix(f"?{query}")
    else:
        path, _, query = where.partition("?")
    quoted = quote(path.encode("latin-1", "replace"), safe=_PATH)
    return f"{scheme}://{host}{slash}{quoted}{'?' if query else ''}{query}"


def endpoint_of(entry: Entry) -> str | None:
    """Return the endpoint of a page; ``None`` if it has none."""
    return _named(entry, "endpoint:")


def function_of(entry: Entry) -> str | None:
    """Return the name of the fetch function that a value came from; ``None`` if it is none."""
    return _named(entry, "function:")


def _named(entry: Entry, kind: str) -> str | None:
    return next((name.removeprefix(kind) for name in entry.names if name.startswith(kind)), None)
