"""Invalidates stored responses after unsafe requests (RFC 9111 section 4.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from ...core.http.invalidation import invalidated
from ...core.model.keys import RAW_PATHS, host_of, page_key
from ...core.model.purge_names import page_names
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

    def after(self, environ: Mapping[str, Any], method: str, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """Purge the URL of a request, and those in Location and Content-Location of its response if they have the same origin."""
        urls = invalidated(method, status, _url(environ), headers)
        if urls:
            self._invalidate(environ)
        for url in urls[1:]:
            self._invalidate(_environ_of(url, environ))

    def _invalidate(self, environ: Mapping[str, Any]) -> None:
        rule = self._rules.of(environ)
        key = page_key("gateway", environ, rule.policy.vary, rule.ignored)
        if not rule.policy.vary and not self._engine.is_stored_or_coming(key):
            # Each purge writes a record, so requests for made-up URLs could fill the disk. Where a rule puts request fields into
            # the key, there may be entries for other values of them, which this look-up does not find.
            return
        *_, url = page_names(None, environ, rule.ignored)
        try:
            self._engine.counters.count("invalidations")
            self._engine.purge(url, soft=False)
        except StoreError as error:
            self._engine.answer_writer.store_failed(error)


def _url(environ: Mapping[str, Any]) -> str:
    """Return the full URL of a request. Only what must be quoted in its path is quoted."""
    path = (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1", "replace")
    query = environ.get("QUERY_STRING", "")
    quoted = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in path)
    return f"{environ.get('wsgi.url_scheme', 'http')}://{host_of(environ)}{quoted}{'?' if query else ''}{query}"


_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=:@/")


def _environ_of(url: str, environ: Mapping[str, Any]) -> dict[str, Any]:
    """Return the environ of a request for another URL of the same origin, as the server would have made it."""
    parts = urlsplit(url)
    path = unquote_to_bytes(parts.path).decode("latin-1")
    root = environ.get("SCRIPT_NAME", "")
    is_below = path == root or path.startswith(f"{root}/")
    raw = f"{parts.path}?{parts.query}" if parts.query else parts.path
    return {
        **environ,
        **{name: raw for name in RAW_PATHS if environ.get(name)},
        "SCRIPT_NAME": root if is_below else "",
        "PATH_INFO": path.removeprefix(root) if is_below else path,
        "QUERY_STRING": parts.query,
    }
