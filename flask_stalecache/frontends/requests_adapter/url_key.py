"""The URL of a request as part of its key, and its host as the label of the counters."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlsplit, urlunsplit

from ...core.http.invalidation import normal_url
from ...core.model.query import NamePatterns


# Parsing a URL is a large part of the cost of a hit, and the same URLs come again and again.
@lru_cache(maxsize=1024)
def key_url(url: str, ignored: NamePatterns) -> str | None:
    """Return the URL in the key, without ignored parameters; ``None`` if its scheme is not HTTP."""
    normal = normal_url(url)
    if normal is None or not ignored:
        return normal
    parts = urlsplit(normal)
    return urlunsplit(parts._replace(query=ignored.split(parts.query)[0]))


@lru_cache(maxsize=1024)
def host_of(url: str) -> str:
    """Return the host of a URL: with its port, if that is not the default one; never with a password."""
    return urlsplit(url).netloc.rpartition("@")[2]
