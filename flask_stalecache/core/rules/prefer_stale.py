"""Recognises requests that prefer a stale entry, and decides whether that entry is refreshed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from werkzeug.sansio.http import parse_cookie

from ..model.environ import environ_name


class RequestFlag:
    """A request field or cookie with which a client asks for something.

    :param kind: ``header`` or ``cookie``.
    :param name: its name.
    """

    __slots__ = ("_field", "kind", "name")

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name
        self._field = environ_name(name) if kind == "header" else "HTTP_COOKIE"

    def in_environ(self, environ: Mapping[str, Any]) -> str:
        """Return its value, or "" if the request does not have it. A Cookie field is parsed only if it contains the name."""
        value: str = environ.get(self._field, "")
        if self.kind == "header" or self.name not in value:
            return value if self.kind == "header" else ""
        return parse_cookie(value).get(self.name, "")


def carried_values(header: str | None, cookie: str | None) -> tuple[RequestFlag, ...]:
    """Return the flags for a field name and a cookie name. Either may be ``None``."""
    named = ("header", header), ("cookie", cookie)
    return tuple(RequestFlag(kind, name) for kind, name in named if name is not None)


def is_set(asked: tuple[RequestFlag, ...], environ: Mapping[str, Any]) -> bool:
    """Whether a request has one of the flags with a value other than ``0``."""
    return any(value.in_environ(environ) not in ("", "0") for value in asked)


class PreferStale(Enum):
    """Whether a stale entry is served whatever its age."""

    NO = "no"
    #: Yes, and it is refreshed in the background.
    AND_REFRESH = "and refresh"
    #: Yes, without a refresh. The next visitor without the preference refreshes it.
    ALONE = "alone"


def preference(prefers: bool, refreshes: bool) -> PreferStale:
    """Return whether a stale entry is served, and refreshed.

    :param prefers: the request prefers a stale entry.
    :param refreshes: such an entry is refreshed in the background.
    """
    if not prefers:
        return PreferStale.NO
    return PreferStale.AND_REFRESH if refreshes else PreferStale.ALONE
