"""Compares the request that an app was given with the one that was looked up in the store. Pure.

Middleware between a gateway and the app may change the request that the app sees, while the key of its answer is made from the
visitor's request. These parts must agree:

============== ==================================== ===========================================
part           compared                             a difference may come from
============== ==================================== ===========================================
method         REQUEST_METHOD                       nothing: a hit would swallow the request
scheme         wsgi.url_scheme                      X-Forwarded-Proto, with this value
host           Host, and name and port of server    X-Forwarded-Host and -Port, with these
path           script root and path together        X-Forwarded-Prefix, as the script root
script root    it begins the path, as in a mount    X-Forwarded-Prefix
query          without the ignored parameters       nothing
REMOTE_USER    itself                               nothing
============== ==================================== ===========================================

A mount moves a part of the path to the script root, which does not change the two together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from ..addressing.keys import RAW_PATHS, host_of
from ..http.fields import Headers, lines_of
from ..model.environ import environ_name
from ..model.inputs import RequestInputs
from ..model.query import NamePatterns
from ..responses.validators import CONDITIONS

#: The parts of a request that are compared.
PARTS = frozenset({"method", "scheme", "host", "path", "query", "REMOTE_USER"})
#: The parts that no WSGI framework changes in the environ for its own use.
PARTS_IN_PLACE = frozenset({"method", "scheme", "host", "script root", "REMOTE_USER"})

_Environ: TypeAlias = "Mapping[str, Any]"
_SERVER = ("HTTP_HOST", "SERVER_NAME", "SERVER_PORT")


def changed_parts(given: _Environ, seen: _Environ, ignored: NamePatterns, *, is_explained: bool = False) -> tuple[str, ...]:
    """Return the parts of a request that differ between two environs, and that no field in every key explains.

    :param given: the environ that the key was made from.
    :param seen: the environ that the app saw.
    :param ignored: query parameters that are not in the key.
    :param is_explained: middleware has read a field that was added to the key. It explains all differences but that of the method.
    """
    same = {
        "method": seen.get("REQUEST_METHOD") in (given.get("REQUEST_METHOD"), "GET"),
        "scheme": is_explained or _same_scheme(given, seen),
        "host": is_explained or _same_host(given, seen),
        "path": is_explained or _same_path(given, seen),
        "script root": is_explained or _is_root(given, seen),
        "query": is_explained or _query(given, ignored) == _query(seen, ignored),
        "REMOTE_USER": is_explained or (given.get("REMOTE_USER") or "") == (seen.get("REMOTE_USER") or ""),
    }
    return tuple(part for part, is_same in same.items() if not is_same)


def may_explain(name: str) -> bool:
    """Whether a field may have made middleware change a request, if the reads of the app can't be observed.

    The fields of content negotiation, which nearly all responses name in ``Vary``, identify neither the client nor the page.

    :param name: in lower case.
    """
    return name not in _NEGOTIATION and not name.startswith("sec-")


_NEGOTIATION = frozenset(
    {"accept", "accept-charset", "accept-encoding", "accept-language", "dnt", "origin", "referer", "save-data", "user-agent"}
)


def changed_fields(given: _Environ, seen: _Environ, names: RequestInputs) -> tuple[str, ...]:
    """Return the request fields that the app has read and that differ between two environs.

    :param names: the cookies and fields that the app has read.
    """
    fields = [*names.headers, *(["cookie"] if names.cookies or names.session else [])]
    # A fill has the conditions of the gateway, not those of the client.
    keys = {name: key for name in fields if (key := environ_name(name)) not in CONDITIONS}
    return tuple(name for name, key in keys.items() if (given.get(key) or "") != (seen.get(key) or ""))


def repeated_parameters(given: _Environ, headers: Headers, ignored: NamePatterns) -> frozenset[str]:
    """Return the ignored parameters of a request that its response repeats in Location or Content-Location.

    :param headers: the fields of the response.
    """
    present = ignored.pairs(given.get("QUERY_STRING", ""))
    if not present:
        return frozenset()
    targets = [value for name in ("location", "content-location") for value in lines_of(headers, name)]
    # A parameter with another value is the app's own.
    return frozenset(name for target in targets for name, _ in present & ignored.pairs(_query_of(target)))


def _query_of(url: str) -> str:
    return url.partition("#")[0].partition("?")[2]


def _same_scheme(given: _Environ, seen: _Environ) -> bool:
    scheme = seen.get("wsgi.url_scheme", "http")
    return scheme == given.get("wsgi.url_scheme", "http") or scheme in _members(given, "HTTP_X_FORWARDED_PROTO")


def _same_host(given: _Environ, seen: _Environ) -> bool:
    if all(given.get(name) == seen.get(name) for name in _SERVER):
        return True
    hosts, ports = _members(given, "HTTP_X_FORWARDED_HOST"), _members(given, "HTTP_X_FORWARDED_PORT")
    if not hosts and not ports:
        return False
    known = [*map(_split, hosts), *(("", port) for port in ports), *map(_split, _hosts(given))]
    names, numbers = {name for name, _ in known}, {"", *(port for _, port in known)}
    return all(name in names and port in numbers for name, port in map(_split, _hosts(seen)))


def _same_path(given: _Environ, seen: _Environ) -> bool:
    if any(name in seen and seen[name] != given.get(name) for name in RAW_PATHS):
        return False
    root, path = seen.get("SCRIPT_NAME", ""), seen.get("PATH_INFO", "")
    came = given.get("PATH_INFO", "")
    if root + path == given.get("SCRIPT_NAME", "") + came:
        return True
    # A proxy takes the prefix off the path, and middleware makes it the script root: alone, or with a mount behind it.
    taken = came.removesuffix(path)
    prefixes = _members(given, "HTTP_X_FORWARDED_PREFIX", lower=False)
    return came.endswith(path) and any(root in (prefix, prefix + taken, prefix.rstrip("/") + taken) for prefix in prefixes)


def _is_root(given: _Environ, seen: _Environ) -> bool:
    root, whole = seen.get("SCRIPT_NAME", ""), given.get("SCRIPT_NAME", "") + given.get("PATH_INFO", "")
    prefixes = [prefix.rstrip("/") for prefix in _members(given, "HTTP_X_FORWARDED_PREFIX", lower=False)]
    return whole.startswith(root) or any(root.startswith(prefix) for prefix in prefixes if prefix)


def _query(environ: _Environ, ignored: NamePatterns) -> str:
    return ignored.split(environ.get("QUERY_STRING", ""))[0]


def _members(environ: _Environ, name: str, *, lower: bool = True) -> list[str]:
    members = [member.strip() for member in environ.get(name, "").split(",") if member.strip()]
    return [member.lower() for member in members] if lower else members


def _hosts(environ: _Environ) -> Iterable[str]:
    return host_of(environ).lower(), f"{environ.get('SERVER_NAME')}:{environ.get('SERVER_PORT')}".lower()


def _split(host: str) -> tuple[str, str]:
    """Return name and port of a host; the colons of an IPv6 address are in brackets."""
    name, colon, port = host.rpartition(":")
    return (name, port) if colon and not port.endswith("]") else (host, "")
