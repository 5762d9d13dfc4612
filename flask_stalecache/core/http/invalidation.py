"""What an unsafe request makes invalid (RFC 9111 section 4.4)."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from .fields import Headers

#: Methods that HTTP registers as safe. Any other may change what it was sent to, also one that nobody knows.
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY"})
_PORTS = {"http": 80, "https": 443}
_NAMING = ("location", "content-location")


def invalidated(method: str, status: int, target: str, headers: Headers) -> tuple[str, ...]:
    """Return the full URLs that an answer makes invalid: the target's, and what Location and Content-Location name beside it.

    Those count only if they are of the target's origin, so that nobody can purge another's pages. An error makes nothing invalid.
    The URLs are given with scheme and host in lower case, without user, default port and fragment.

    :param method: the request's, in the case in which it was sent.
    :param status: the answer's.
    :param target: the full URL that was asked.
    :param headers: the answer's fields.
    """
    if method in SAFE_METHODS or not 200 <= status <= 399:
        return ()
    origin = _split(target)
    if origin is None:
        return ()
    named = (_split(target, value.strip()) for name, value in headers if name.lower() in _NAMING)
    urls = (origin, *(url for url in named if url is not None and url[:2] == origin[:2]))
    return tuple(dict.fromkeys(map(urlunsplit, urls)))


def normal_url(url: str) -> str | None:
    """Return a full URL with scheme and host in lower case, without user, default port and fragment; ``None`` if it is none."""
    parts = _split(url)
    return None if parts is None else urlunsplit(parts)


def _split(target: str, reference: str = "") -> SplitResult | None:
    """Return the normal form of a reference in an answer; ``None`` if it is no URL of a page."""
    try:
        parts = urlsplit(urljoin(target, reference))
        host = "".join(_authority(parts))
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not host:
        return None
    return SplitResult(parts.scheme, host, parts.path or "/", parts.query, "")


def _authority(parts: SplitResult) -> Iterator[str]:
    host, port = parts.hostname or "", parts.port
    yield f"[{host}]" if ":" in host else host
    if port is not None and port != _PORTS.get(parts.scheme):
        yield f":{port}"
