"""Whether a request prefers a stale copy, and what becomes of that copy. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from werkzeug.sansio.http import parse_cookie

from ..model.environ import environ_name


class RequestFlag:
    """One request field or cookie that is asked for its value.

    :param kind: ``header`` or ``cookie``.
    :param name: its name.
    """

    __slots__ = ("_field", "kind", "name")

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name
        self._field = environ_name(name) if kind == "header" else "HTTP_COOKIE"

    def in_environ(self, environ: Mapping[str, Any]) -> str:
        """Return its value, or "" if the request does not carry it. A Cookie field is only parsed if the name occurs in it."""
        value: str = environ.get(self._field, "")
        if self.kind == "header" or self.name not in value:
            return value if self.kind == "header" else ""
        return parse_cookie(value).get(self.name, "")


def carried_values(header: str | None, cookie: str | None) -> tuple[RequestFlag, ...]:
    """Return what to ask for where a request may say something in a field, or in a cookie; ``None``: it may not."""
    named = ("header", header), ("cookie", cookie)
    return tuple(RequestFlag(kind, name) for kind, name in named if name is not None)


def is_set(asked: tuple[RequestFlag, ...], environ: Mapping[str, Any]) -> bool:
    """Whether a request has one of these, and not ``0``."""
    return any(value.in_environ(environ) not in ("", "0") for value in asked)


class PreferStale(Enum):
    """Whether what is stored is served however old."""

    NO = "no"
    #: And renewed behind.
    AND_REFRESH = "and refresh"
    #: And left to the next visitor who does not prefer it.
    ALONE = "alone"


def preference(prefers: bool, refreshes: bool) -> PreferStale:
    """Return what becomes of a stale copy for who prefers it, or does not.

    :param refreshes: what is served because it is preferred stale is renewed behind.
    """
    if not prefers:
        return PreferStale.NO
    return PreferStale.AND_REFRESH if refreshes else PreferStale.ALONE
