"""The names that entries are purged by, and what a purge asks for. Pure.

An entry has ``all``, its endpoint, its path with the query, its full URL, and its tags. A name is a kind and a value, so that no
tag is taken for a path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from .errors import ConfigError
from .keys import digest, host_of
from .policy import NamePatterns

EVERYTHING = "all"
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def tag_name(tag: str) -> str:
    """Return the name of what has a tag."""
    return f"tag:{tag}"


def tags_in(names: Iterable[str]) -> tuple[str, ...]:
    """Return the tags among an entry's names."""
    return tuple(name.removeprefix("tag:") for name in names if name.startswith("tag:"))


def endpoint_name(endpoint: str) -> str:
    """Return the name of all pages of an endpoint."""
    return f"endpoint:{endpoint}"


def endpoint_in(names: Iterable[str]) -> str | None:
    """Return the endpoint that names of an entry tell; ``None``: they tell none."""
    prefix = endpoint_name("")
    return next((name.removeprefix(prefix) for name in names if name.startswith(prefix)), None)


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
    if not isinstance(url, str):
        raise ConfigError(f"url={url!r} is not a string: give a path such as '/news?page=2', or a full URL")
    try:
        parts = urlsplit(url)
        path = unquote_to_bytes(parts.path or "/").decode("latin-1")
        host = _host_on_the_wire(parts)
    except ValueError as error:
        raise ConfigError(f"url={url!r}: {error}") from None
    full = parts.scheme in _DEFAULT_PORTS and bool(host)
    if not full and not (url.startswith("/") and not url.startswith("//")):
        raise ConfigError(f"url={url!r}: give a path that begins with '/', or a full URL such as 'https://shop.example/news'")
    where = _where(path, ignored.split(_wire(parts.query))[0])
    return f"url:{_origin(parts.scheme, host)}{where}" if full else f"path:{where}"


def selected(url: object, tag: object, endpoint: object, everything: object, ignored: NamePatterns) -> str:
    """Return the name that a purge is for.

    :raises ConfigError: unless exactly one thing is selected, by a value of the right kind.
    """
    given = {"url": url is not None, "tag": tag is not None, "endpoint": endpoint is not None, "all": everything is not False}
    chosen = [name for name, is_given in given.items() if is_given]
    if len(chosen) != 1:
        said = " and ".join(chosen) or "nothing"
        raise ConfigError(f"a purge is by one of url, tag=, endpoint= and all=True, and {said} was given")
    if chosen == ["all"]:
        if everything is not True:
            raise ConfigError(f"all={everything!r}: give True to purge everything")
        return EVERYTHING
    if url is not None:
        return url_name(url, ignored)
    value = tag if endpoint is None else endpoint
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{chosen[0]}={value!r}: give one non-empty string")
    return tag_name(value) if endpoint is None else endpoint_name(value)


def _where(path: str, query: str) -> str:
    return f"{path}?{query}" if query else path


def _origin(scheme: str, host: str) -> str:
    # RFC 9110 section 4.2.3: the host's case and the scheme's own port make no other URL.
    return f"{scheme}://{host.lower().removesuffix(_DEFAULT_PORTS.get(scheme, '')).removesuffix(':')}"


def _host_on_the_wire(parts: SplitResult) -> str:
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
