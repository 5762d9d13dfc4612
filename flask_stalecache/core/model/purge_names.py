"""The names that entries are purged by. Pure.

An entry has ``all``, its endpoint, its path with the query, its full URL, and its tags. A name is a kind and a value, so that no
tag is taken for a path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from ...errors import ConfigError
from .keys import digest, host_of
from .query import NamePatterns

EVERYTHING = "all"
DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def tag_name(tag: str) -> str:
    """Return the name of what has a tag."""
    return f"tag:{tag}"


def tags_in(names: Iterable[str]) -> tuple[str, ...]:
    """Return the tags among an entry's names."""
    return tuple(name.removeprefix("tag:") for name in names if name.startswith("tag:"))


def endpoint_name(endpoint: str) -> str:
    """Return the name of all pages of an endpoint."""
    return f"endpoint:{endpoint}"


def page_names(endpoint: str | None, environ: Mapping[str, Any], ignored: NamePatterns) -> tuple[str, ...]:
    """Return the names of a page, without its tags.

    :param endpoint: the endpoint of its view; ``None``: it has none.
    :param environ: the WSGI environ of the request that it answers.
    :param ignored: query parameters that it does not depend on.
    """
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    where = _where(path, ignored.split(environ.get("QUERY_STRING", ""))[0])
    origin = _origin(environ.get("wsgi.url_scheme", "http"), host_of(environ))
    endpoints = [] if endpoint is None else [endpoint_name(endpoint)]
    return EVERYTHING, *endpoints, f"path:{where}", f"url:{origin}{where}"


def call_name(key: str) -> str:
    """Return the name of one call."""
    return f"call:{digest(key)}"


def call_names(function: str, key: str) -> tuple[str, ...]:
    """Return the names of a call's value, without its tags.

    :param function: the function's module and qualified name.
    """
    return EVERYTHING, f"function:{function}", call_name(key)


def url_name(url: object, ignored: NamePatterns) -> str:
    """Return the name that a URL or path stands for: a path stands for that of all hosts, a full URL for its own.

    :param url: as visitors write it, with the query if there is one.
    :param ignored: query parameters that are in no page's name.
    :raises ConfigError: if it is neither a path that begins with ``/`` nor a full ``http`` or ``https`` URL.
    """
    name, query = _name_and_query("url", url)
    return _where(name, ignored.split(query)[0])


def prefix_name(prefix: object) -> str:
    """Return how the names of all begin that is below a URL or path: a path is of all hosts, a full URL of its own.

    :param prefix: as visitors write it; with a query, what that begins with. No parameter of it is ignored, since a page that is
        asked for with one does not have it in its name.
    :raises ConfigError: if it is neither a path that begins with ``/`` nor a full ``http`` or ``https`` URL.
    """
    name, query = _name_and_query("prefix", prefix)
    # Without its mark it would be that of other paths too.
    return f"{name}?{query}" if "?" in str(prefix).partition("#")[0] else name


def _name_and_query(what: str, url: object) -> tuple[str, str]:
    """Return the name of a URL or path, and the query that belongs to it, as they come over the wire."""
    if not isinstance(url, str):
        raise ConfigError(f"{what}={url!r} is not a string: give a path such as '/news?page=2', or a full URL")
    try:
        parts = urlsplit(url)
        path = unquote_to_bytes(parts.path or "/").decode("latin-1")
        host = host_on_the_wire(parts)
    except ValueError as error:
        raise ConfigError(f"{what}={url!r}: {error}") from None
    full = parts.scheme in DEFAULT_PORTS and bool(host)
    if not full and not (url.startswith("/") and not url.startswith("//")):
        raise ConfigError(f"{what}={url!r}: give a path that begins with '/', or a full URL such as 'https://shop.example/news'")
    return f"url:{_origin(parts.scheme, host)}{path}" if full else f"path:{path}", _wire(parts.query)


def _where(path: str, query: str) -> str:
    return f"{path}?{query}" if query else path


def _origin(scheme: str, host: str) -> str:
    # RFC 9110 section 4.2.3: the host's case and the scheme's own port make no other URL.
    return f"{scheme}://{host.lower().removesuffix(DEFAULT_PORTS.get(scheme, '')).removesuffix(':')}"


def host_on_the_wire(parts: SplitResult) -> str:
    """Return host and port as a browser sends them; "" if there is none."""
    host, port = parts.hostname or "", parts.port
    host = host if host.isascii() else host.encode("idna").decode("ascii")
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{port}" if host and port is not None else host


def _wire(query: str) -> str:
    """Return a query as a WSGI server hands it over: what is not ASCII as the bytes that a browser sends, percent-encoded."""
    return "".join(
        char if char.isascii() else "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "replace")) for char in query
    )
