"""What an unsafe request makes invalid at the gateway (RFC 9111 section 4.4)."""

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
    """Purges what unsafe requests have changed.

    :param engine: of the store.
    :param rules: tell what is in a URL's key.
    """

    def __init__(self, engine: Engine, rules: Rules) -> None:
        self._engine = engine
        self._rules = rules

    def after(self, environ: Mapping[str, Any], method: str, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """Purge what an answer makes invalid: the URL that was asked, and those of this origin that the answer names."""
        urls = invalidated(method, status, _url(environ), headers)
        if urls:
            self._invalidate(environ)
        for url in urls[1:]:
            self._invalidate(_environ_of(url, environ))

    def _invalidate(self, environ: Mapping[str, Any]) -> None:
        rule = self._rules.of(environ)
        key = page_key("gateway", environ, rule.policy.vary, rule.ignored)
        if not rule.policy.vary and not self._engine.is_stored_or_coming(key):
            # Each purge leaves a record: requests for made-up URLs are not to fill the disk with them. Where a rule has fields in
            # the key, what is stored for other values of theirs can't be asked for.
            return
        *_, url = page_names(None, environ, rule.ignored)
        try:
            self._engine.counters.count("invalidations")
            self._engine.store.purge(url, soft=False)
            self._engine.instrumentation.purged(url, soft=False)
        except StoreError as error:
            self._engine.answer_writer.store_failed(error)


def _url(environ: Mapping[str, Any]) -> str:
    """Return the full URL of a request, as far as it matters here: its path is quoted as little as it came."""
    path = (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1", "replace")
    query = environ.get("QUERY_STRING", "")
    quoted = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in path)
    return f"{environ.get('wsgi.url_scheme', 'http')}://{host_of(environ)}{quoted}{'?' if query else ''}{query}"


_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=:@/")


def _environ_of(url: str, environ: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request for another URL of the same origin, as the server would have made it."""
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
