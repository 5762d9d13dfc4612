"""The URL of a request as part of its key, and its host as the label of the counters."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from ...core.http.invalidation import normal_url
from ...core.model.query import NamePatterns
from ...core.remembered import MIB, Remembered

#: Parsing a URL is a large part of the cost of a hit, and the same URLs come again and again.
KEY_URLS: Remembered[tuple[str, NamePatterns], str] = Remembered(most=1024, limit=MIB, longest=4096)
HOSTS: Remembered[str, str] = Remembered(most=1024, limit=MIB, longest=4096)


def key_url(url: str, ignored: NamePatterns) -> str | None:
    """Return the URL in the key, without ignored parameters; ``None`` if its scheme is not HTTP."""
    known = KEY_URLS.get((url, ignored))
    if known is not None:
        return known
    normal = normal_url(url)
    if normal is not None and ignored:
        parts = urlsplit(normal)
        normal = urlunsplit(parts._replace(query=ignored.split(parts.query)[0]))
    return None if normal is None else KEY_URLS.note((url, ignored), normal)


def host_of_url(url: str) -> str:
    """Return the host of a URL: with its port, if that is not the default one; never with a password."""
    known = HOSTS.get(url)
    return known if known is not None else HOSTS.note(url, urlsplit(url).netloc.rpartition("@")[2])
