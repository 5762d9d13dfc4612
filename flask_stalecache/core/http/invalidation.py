"""Lists the URLs that an unsafe request invalidates (RFC 9111 section 4.4)."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from .fields import Headers

#: The safe methods of HTTP. All other methods, even unknown ones, may change their target.
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY"})
_PORTS = {"http": 80, "https": 443}
_NAMING = ("location", "content-location")


def invalidated(method: str, status: int, target: str, headers: Headers, alias: str = "") -> tuple[str, ...]:
    """Return the full URLs that a response invalidates: the target, and those in Location and Content-Location.

    The latter two count only if they have the same origin as the target, so that no site can purge another's pages. An error
    response invalidates nothing. The URLs are returned with scheme and host in lower case, without user, default port and fragment.

    :param method: the request's method, in its own case.
    :param status: the response's status.
    :param target: the full URL of the request.
    :param headers: the response's fields.
    :param alias: another full URL of the request, whose origin counts too. Default: none.
    """
    if method in SAFE_METHODS or not 200 <= status <= 399:
        return ()
    origin = _split(target)
    if origin is None:
        return ()
    named = (_split(target, value.strip()) for name, value in headers if name.lower() in _NAMING)
    origins = [origin[:2], *(other[:2] for other in [_split(alias)] if other is not None)]
    urls = (origin, *(url for url in named if url is not None and url[:2] in origins))
    return tuple(dict.fromkeys(map(urlunsplit, urls)))


def normal_url(url: str) -> str | None:
    """Return a full URL with scheme and host in lower case, without user, default port and fragment; ``None`` for anything else."""
    parts = _split(url)
    return None if parts is None else urlunsplit(parts)


def _split(target: str, reference: str = "") -> SplitResult | None:
    """Return the normal form of a reference in a response; ``None`` if it is no HTTP URL."""
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
