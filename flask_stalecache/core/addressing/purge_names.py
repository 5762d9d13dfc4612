"""The names that entries are purged by. Pure.

An entry has the names ``all``, its endpoint, its path with the query, its full URL, and its tags. A name consists of a kind and a
value, so that a tag can't be mistaken for a path.

Where middleware changes the URL on the way to the app, a page has two paths and two URLs: those that the app saw, and those that
arrived. Both come from the request that has filled the store.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from ...errors import ConfigError
from ..model.query import NamePatterns
from .keys import digest, host_of

EVERYTHING = "all"
DEFAULT_PORTS = {"http": ":80", "https": ":443"}
#: Names that code chooses. Requests of visitors may purge names of other kinds: URLs (RFC 9111 section 4.4), and calls.
_CODED = (EVERYTHING, "endpoint:", "tag:", "function:")
_SHORT = re.compile(r"[*=][0-9a-f]{40}")


def short_name(name: str) -> str:
    """Return a name of 41 characters that stands for another one in purges. URLs may be long, and visitors choose them."""
    return name if _SHORT.fullmatch(name) else f"{'*' if is_coded(name) else '='}{digest(name)}"


def address_of(name: str) -> str:
    """Return the digest of a name, or of the one that a short name stands for."""
    return name[1:] if _SHORT.fullmatch(name) else digest(name)


def is_coded(name: str) -> bool:
    """Whether a name, or the one that a short name stands for, is chosen by code, not by visitors."""
    return name.startswith((*_CODED, "*"))


def is_short(name: str) -> bool:
    """Whether a name stands for another one."""
    return _SHORT.fullmatch(name) is not None


def tag_name(tag: str) -> str:
    """Return the name for a tag."""
    return f"tag:{tag}"


def tags_in(names: Iterable[str]) -> tuple[str, ...]:
    """Return the tags among an entry's names."""
    return tuple(name.removeprefix("tag:") for name in names if name.startswith("tag:"))


def endpoint_name(endpoint: str) -> str:
    """Return the name for an endpoint."""
    return f"endpoint:{endpoint}"


def page_names(
    endpoint: str | None, environ: Mapping[str, Any], ignored: NamePatterns, arrived: Mapping[str, Any] | None = None
) -> tuple[str, ...]:
    """Return the names of a page, without its tags.

    :param endpoint: the endpoint of its view; ``None``: it has none.
    :param environ: the WSGI environ of the request that it answers, as the app saw it.
    :param ignored: query parameters that are not in the name.
    :param arrived: the environ as it arrived. Default: the same.
    """
    endpoints = [] if endpoint is None else [endpoint_name(endpoint)]
    environs = (environ,) if arrived is None else (environ, arrived)
    urls = [name for each in environs for name in (f"path:{_where_of(each, ignored)}", url_name_of(each, ignored))]
    return EVERYTHING, *endpoints, *dict.fromkeys(urls)


def url_name_of(environ: Mapping[str, Any], ignored: NamePatterns) -> str:
    """Return the name for the URL of a request.

    :param ignored: query parameters that are not in the name.
    """
    return f"url:{_origin(environ.get('wsgi.url_scheme', 'http'), host_of(environ))}{_where_of(environ, ignored)}"


def target_name(environ: Mapping[str, Any], ignored: NamePatterns) -> str:
    """Return the name by which an unsafe request purges its target (RFC 9111 section 4.4).

    The name separates the script root from the path. A client that can choose the root, with a field that no proxy sets, must not
    purge the pages of another root at the same URL.

    :param ignored: query parameters that are not in the name.
    """
    url, root = url_name_of(environ, ignored), environ.get("SCRIPT_NAME", "").rstrip("/")
    return f"below:{root} {url}" if root else url


def _where_of(environ: Mapping[str, Any], ignored: NamePatterns) -> str:
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return _where(path, ignored.split(environ.get("QUERY_STRING", ""))[0])


def url_below(names: Iterable[str], prefix: str) -> str | None:
    """Return the name for the URL of an entry if a prefix selects it, by the URL or by its path; ``None`` if it selects none.

    :param prefix: the prefix of a name.
    """
    urls = [name for name in names if name.startswith("url:")]
    return next((name for name in urls if name.startswith(prefix) or f"path:{_path_of(name)}".startswith(prefix)), None)


def _path_of(url: str) -> str:
    """Return path and query in the name for a URL."""
    _, slash, rest = url.partition("://")[2].partition("/")
    return f"{slash}{rest}"


def call_name(key: str) -> str:
    """Return the name for one call."""
    return f"call:{digest(key)}"


def call_names(function: str, key: str) -> tuple[str, ...]:
    """Return the names of a call's value, without its tags.

    :param function: the function's module and qualified name.
    """
    return EVERYTHING, function_name(function), call_name(key)


def function_name(function: str) -> str:
    """Return the name for all calls of a function.

    :param function: its module and qualified name.
    """
    return f"function:{function}"


def url_name(url: object, ignored: NamePatterns) -> str:
    """Return the name for a URL or path. A path selects all hosts, a full URL only its own.

    :param url: as users type it, with the query if there is one.
    :param ignored: query parameters that are not in the name.
    :raises ConfigError: if it is neither a path that begins with ``/`` nor a full ``http`` or ``https`` URL.
    """
    name, query = _name_and_query("url", url)
    return _where(name, ignored.split(query)[0])


def prefix_name(prefix: object) -> str:
    """Return the prefix of the names below a URL or path. A path selects all hosts, a full URL only its own.

    :param prefix: as users type it; a query in it selects all queries that begin with that. Ignored parameters stay in it.
    :raises ConfigError: if it is neither a path that begins with ``/`` nor a full ``http`` or ``https`` URL.
    """
    name, query = _name_and_query("prefix", prefix)
    # Without the question mark it would select other paths too.
    return f"{name}?{query}" if "?" in str(prefix).partition("#")[0] else name


def _name_and_query(what: str, url: object) -> tuple[str, str]:
    """Return the name for a URL or path, and its query, both as received by a server."""
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
    # RFC 9110 section 4.2.3: the case of the host and the default port make no difference.
    return f"{scheme}://{host.lower().removesuffix(DEFAULT_PORTS.get(scheme, '')).removesuffix(':')}"


def host_on_the_wire(parts: SplitResult) -> str:
    """Return host and port as a browser sends them; "" without a host."""
    host, port = parts.hostname or "", parts.port
    host = host if host.isascii() else host.encode("idna").decode("ascii")
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{port}" if host and port is not None else host


def _wire(query: str) -> str:
    """Return a query as in a WSGI environ: characters outside ASCII are percent-encoded, as browsers send them."""
    return "".join(
        char if char.isascii() else "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "replace")) for char in query
    )
