"""Invalidates stored responses after unsafe requests (RFC 9111 section 4.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ...core.http.invalidation import invalidated
from ...core.model.arrival import Place, name_of_root, place_of_path, unsent
from ...core.model.keys import RAW_PATHS, host_of, page_key
from ...core.model.purge_names import target_name
from ...engine.engine import Engine
from ...errors import StoreError
from .rules import Rules


class Invalidator:
    """Purges the URLs that unsafe requests may have changed.

    :param engine: purges them.
    :param rules: decide what is part of a URL's key.
    """

    def __init__(self, engine: Engine, rules: Rules) -> None:
        self._engine = engine
        self._rules = rules

    def after(
        self,
        environ: Mapping[str, Any],
        seen: Mapping[str, Any] | None,
        method: str,
        status: int,
        headers: Sequence[tuple[str, str]],
    ) -> None:
        """Purge the URL of a request, and those in Location and Content-Location of its response if they have the same origin.

        :param environ: the request as it arrived.
        :param seen: the same as the app saw it: the URLs in its response are made from that. ``None``: the app did not see it.
        """
        seen = seen or environ
        urls = invalidated(method, status, _url(seen), headers, _url(environ))
        if urls:
            self._invalidate(environ, None)
        for url in urls[1:]:
            parts = urlsplit(url)
            place = place_of_path(parts.path, environ, seen)
            if place is not None:
                self._invalidate(_environ_of(place, parts.query, environ), place.root)

    def _invalidate(self, environ: Mapping[str, Any], root: str | None) -> None:
        """Purge the URL of a request.

        :param root: the script root that the app must have seen when it made what is stored. A visitor may have chosen it, and
            must not purge a page that the app has elsewhere.
        """
        rule = self._rules.of(environ)
        key = page_key("gateway", environ, rule.policy.vary, rule.ignored)
        if (root is not None or not rule.policy.vary) and not self._is_known(key, root):
            # Each purge writes a record, so requests for made-up URLs could fill the disk. Where a rule puts request fields into
            # the key, there may be entries for other values of them, which this look-up does not find.
            return
        try:
            self._engine.counters.count("invalidations")
            self._engine.purge(target_name(environ, rule.ignored), soft=False)
        except StoreError as error:
            self._engine.answer_writer.store_failed(error)

    def _is_known(self, key: str, root: str | None) -> bool:
        """Whether a response is stored under a key, made below a script root, or is being made."""
        entry = self._engine.look_up(key).entry
        if entry is not None:
            return root is None or name_of_root(root) in entry.names
        return self._engine.is_stored_or_coming(key)


def _url(environ: Mapping[str, Any]) -> str:
    """Return the full URL of a request. Only what must be quoted in its path is quoted."""
    path = (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1", "replace")
    query = environ.get("QUERY_STRING", "")
    quoted = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in path)
    return f"{environ.get('wsgi.url_scheme', 'http')}://{host_of(environ)}{quoted}{'?' if query else ''}{query}"


_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=:@/")


def _environ_of(place: Place, query: str, environ: Mapping[str, Any]) -> dict[str, Any]:
    """Return the environ of a request for another URL of the same origin, as the server would have made it."""
    path, root = place.path, environ.get("SCRIPT_NAME", "")
    is_below = path == root or path.startswith(f"{root}/")
    sent = place.raw.removeprefix(unsent(environ))
    raw = f"{sent}?{query}" if query else sent
    return {
        **environ,
        **{name: raw for name in RAW_PATHS if environ.get(name)},
        "SCRIPT_NAME": root if is_below else "",
        "PATH_INFO": path.removeprefix(root) if is_below else path,
        "QUERY_STRING": query,
    }
