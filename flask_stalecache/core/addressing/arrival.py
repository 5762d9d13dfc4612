"""Derives where requests for pages of an app arrive, from one request that middleware has changed on its way to the app. Pure.

A proxy or middleware may move the app: a visitor's ``/shop/page`` arrives as ``/page``, and the app sees the script root ``/shop``.
The app then writes the visitor's URL into Location, while entries are found by the URL that arrives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from .keys import raw_path

#: Characters that browsers send unquoted in a path.
_PATH = "/:@!$&'()*+,;=~"
#: Script roots from which an app can't make a URL that leads elsewhere: without query, fragment and dot segments.
_PLAIN_ROOT = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+/?")


class ArrivalPlace(NamedTuple):
    """The place where a request for a page arrives.

    :ivar path: script root and path, as in an environ.
    :ivar raw: the same, as a browser sends it.
    :ivar root: the script root that the app has seen, if it was needed to find the place; else ``None``.
    """

    path: str
    raw: str
    root: str | None


def place_of_path(raw: str, arrived: Mapping[str, Any], seen: Mapping[str, Any]) -> ArrivalPlace | None:
    """Return where a request for a path that an app has written would arrive; ``None`` if that is unknown.

    :param raw: the path, percent-encoded.
    :param arrived: the environ of another request, as it arrived.
    :param seen: the environ of that request, as the app saw it.
    """
    path, root = unquote_to_bytes(raw).decode("latin-1"), seen.get("SCRIPT_NAME", "").rstrip("/")
    if path != root and not path.startswith(f"{root}/"):
        # A visitor may have chosen the root: then it must be certain that the path was not made from it.
        return ArrivalPlace(path, raw, None) if _PLAIN_ROOT.fullmatch(root) else None
    if root == arrived.get("SCRIPT_NAME", "").rstrip("/"):
        return ArrivalPlace(path, raw, None)
    came, below = arrived.get("SCRIPT_NAME", "") + arrived.get("PATH_INFO", ""), seen.get("PATH_INFO", "")
    if not came.endswith(below):
        return None
    before = came[: len(came) - len(below)]
    start = _quoted(root)
    rest = raw.removeprefix(start) if raw.startswith(start) else _quoted(path.removeprefix(root))
    return ArrivalPlace(before + path.removeprefix(root), _quoted(before) + rest, root)


def unsent(environ: Mapping[str, Any]) -> str:
    """Return the beginning of the path that the client has not sent, percent-encoded: middleware has set it as the script root.

    The raw path that the server reports lacks this beginning, for all pages.
    """
    whole = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    sent = unquote_to_bytes(raw_path(environ) or "").decode("latin-1")
    return _quoted(whole.removesuffix(sent)) if sent and whole.endswith(sent) else ""


def root_name(arrived: Mapping[str, Any], seen: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the name for the script root that an app has seen, if another one arrived; else nothing."""
    root = seen.get("SCRIPT_NAME", "").rstrip("/")
    return () if root == arrived.get("SCRIPT_NAME", "").rstrip("/") else (name_of_root(root),)


def name_of_root(root: str) -> str:
    """Return the purge name of the entries that an app has made below a script root."""
    return f"root:{root}"


def _quoted(path: str) -> str:
    return quote(path.encode("latin-1", "replace"), safe=_PATH)
