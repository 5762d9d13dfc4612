"""Invalidates stored responses after unsafe requests (RFC 9111 section 4.4), and rebuilds the pages that they redirect to.

A form redirects its visitor to a page, which is removed from the store, since the form may have changed it. Most forms, such as a
login or a message, change nothing on it. So that other visitors need not wait for the page each time, it is rebuilt when the
redirect has been sent.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from ...core.addressing.arrival import ArrivalPlace, name_of_root, place_of_path, unsent
from ...core.addressing.keys import RAW_PATHS, host_of, page_key
from ...core.addressing.purge_names import target_name
from ...core.http.invalidation import invalidated
from ...core.model.entry import Entry
from ...core.rules.variant_index import keys_in
from ...errors import StoreError
from ..wsgi import closing
from .backend import Backend, Observation
from .origin import refresh_of
from .rules import Rules

#: The greatest number of variants of a page that one redirect rebuilds.
MOST_RENEWED = 8

_REDIRECTS = (301, 302, 303, 307, 308)


class Invalidator:
    """Purges the URLs that unsafe requests may have changed.

    :param backend: the app. Its engine purges them.
    :param rules: decide what is part of a URL's key.
    """

    def __init__(self, backend: Backend, rules: Rules) -> None:
        self._backend = backend
        self._engine = backend.engine
        self._rules = rules

    def after(
        self,
        environ: Mapping[str, Any],
        observed: Observation,
        method: str,
        status: int,
        headers: Sequence[tuple[str, str]],
    ) -> list[Entry]:
        """Purge the URL of a request, and those in Location and Content-Location of its response if they have the same origin.

        Return the entries that were stored for the pages that a redirect of an observed app leads to.

        :param environ: the request as it arrived.
        :param observed: how the app came to its response. The URLs in the response are made from the request as the app saw it.
        """
        seen = observed.last_seen or environ
        urls = invalidated(method, status, _url(seen), headers, _url(environ))
        if urls:
            self._invalidate(environ, None)
        led_to: list[Entry] = []
        for url in urls[1:]:
            parts = urlsplit(url)
            place = place_of_path(parts.path, environ, seen)
            if place is not None:
                led_to += self._invalidate(_environ_of(place, parts.query, environ), place.root)
        return led_to if status in _REDIRECTS and not observed.is_blind else []

    def renewing(self, body: Iterable[bytes], entries: Sequence[Entry]) -> Iterable[bytes]:
        """Return a body at whose close the removed pages are rebuilt in the background, for all visitors alike.

        :param entries: the entries of the removed pages.
        """
        runtime = self._engine.runtime
        if not entries or runtime.in_line:
            return body
        return closing(body, [partial(self._renew, entries)], takes_long=runtime.refresher.workers == 0)

    def _renew(self, entries: Sequence[Entry]) -> None:
        runtime, now = self._engine.runtime, time.time()
        for entry in entries:
            job = refresh_of(self._backend, self._rules, entry)
            if isinstance(job, str):
                continue
            copy = self._engine.look_up(job.key)
            # Another request may have stored the page meanwhile.
            if copy.entry is None and not copy.note.backing_off(now) and runtime.claim(copy):
                runtime.submit(replace(job, fills_missing=True))

    def _invalidate(self, environ: Mapping[str, Any], root: str | None) -> list[Entry]:
        """Purge the URL of a request. Return the entries that were stored for it.

        :param root: the script root that the app must have seen when it made the stored page; ``None``: any. A visitor may have
            chosen the root, and must not purge a page that the app has below another one.
        """
        rule = self._rules.of(environ)
        key = page_key("gateway", environ, rule.policy.vary, rule.ignored, named=rule.policy.named)
        if (root is not None or not (rule.policy.vary or rule.named)) and not self._is_known(key, root):
            # Each purge writes a record, so requests for made-up URLs could fill the disk. Where a rule puts request fields into
            # the key, there may be entries for other values of them, which this look-up does not find.
            return []
        stored = self._stored(key)
        try:
            self._engine.counters.count("invalidations")
            self._engine.purge(target_name(environ, rule.ignored), soft=False)
        except StoreError as error:
            self._engine.answer_writer.store_failed(error)
        return stored

    def _stored(self, key: str) -> list[Entry]:
        """Return the stored responses of a URL: one, or its variants, the newest first."""
        entry = self._engine.look_up(key).entry
        keys = [] if entry is None else keys_in(entry)[: -MOST_RENEWED - 1 : -1]
        return [entry for key in keys if (entry := self._engine.look_up(key).entry) is not None]

    def _is_known(self, key: str, root: str | None) -> bool:
        """Whether a response is stored under a key and was made below a script root, or is being made."""
        entry = self._engine.look_up(key).entry
        if entry is not None:
            return root is None or name_of_root(root) in entry.names
        return self._engine.is_stored_or_coming(key)


def _url(environ: Mapping[str, Any]) -> str:
    """Return the full URL of a request. In its path, only characters that must be quoted are quoted."""
    path = (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1", "replace")
    query = environ.get("QUERY_STRING", "")
    quoted = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in path)
    return f"{environ.get('wsgi.url_scheme', 'http')}://{host_of(environ)}{quoted}{'?' if query else ''}{query}"


_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=:@/")


def _environ_of(place: ArrivalPlace, query: str, environ: Mapping[str, Any]) -> dict[str, Any]:
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
