"""Builds the keys of entries: a WSGI environ and a policy in, a string out. Pure."""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any, TypeAlias

from ...errors import ConfigError
from ..model.environ import environ_name
from ..model.policy import Normaliser
from ..model.query import NamePatterns
from ..remembered import MIB, Remembered

#: Fields that may end up in links of the page. A client that sets them must not reach the entry of other clients.
FORWARDED_FIELDS = ("x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix")
_PROTO, _HOST, _PORT, _PREFIX = map(environ_name, FORWARDED_FIELDS)
#: Environ keys of the path as received: RAW_URI of gunicorn, REQUEST_URI of uWSGI and waitress.
RAW_PATHS = _RAW_URI, _REQUEST_URI = "RAW_URI", "REQUEST_URI"


def host_of(environ: Mapping[str, Any]) -> str:
    """Return the request's host as received, or the name of the server."""
    host = environ.get("HTTP_HOST")
    return host if host is not None else f"{environ.get('SERVER_NAME')}:{environ.get('SERVER_PORT')}"


def raw_path(environ: Mapping[str, Any]) -> str | None:
    """Return the path as received, without the query; ``None`` if the server does not provide it."""
    raw: str | None = environ.get(RAW_PATHS[0]) or environ.get(RAW_PATHS[1])
    return (raw.partition("?")[0] or None) if raw else None


def page_key(
    view: str,
    environ: Mapping[str, Any],
    vary: Mapping[str, Normaliser | None],
    ignored: NamePatterns,
    custom: object = None,
    named: tuple[tuple[str, ...], ...] = (),
) -> str:
    """Return the key of a page.

    Every part is quoted as a Python literal (:func:`ascii` of a tuple), so that no separator can be injected. Keys appear on disk,
    in the shell and on the dashboard, so values that may be secrets are digests in them.

    :param view: the name of the view, so that two views never share an entry.
    :param environ: the WSGI environ.
    :param vary: request fields in the key, with their normalisers.
    :param ignored: query parameters that are not in the key.
    :param custom: the result of the policy's ``key`` callable, which replaces path and query.
    :param named: the names of cookies and of values of the session that distinguish variants. The keys of variants contain the
        values.
    :raises ConfigError: if ``custom`` is not made of strings, numbers and tuples of those.
    """
    get = environ.get
    host = get("HTTP_HOST")
    if host is None:
        host = host_of(environ)
    # No loop over the fields, since every hit gets here.
    where = get("wsgi.url_scheme", "http"), host, get(_PROTO), get(_HOST), get(_PORT), get(_PREFIX)
    varied: tuple[object, ...] = tuple([_varied(name, normalise, environ) for name, normalise in vary.items()]) if vary else ()
    if named:
        varied = *varied, (NAMED, named)
    if custom is not None:
        # A digest, since it is often made from a cookie; of a literal, since 1 == True.
        return ascii(("page", view, where, (digest(ascii(_checked(custom))),), varied))
    query = get("QUERY_STRING", "")
    if query and ignored:
        query = ignored.split(query)[0]
    # raw_path() written out, since every hit gets here.
    script_root, path, raw = get("SCRIPT_NAME", ""), get("PATH_INFO", ""), get(_RAW_URI) or get(_REQUEST_URI) or None
    if raw is not None:
        raw = raw.partition("?")[0] or None
    if raw == script_root + path:
        # Nothing was encoded. Without the raw path, the key is the same under servers that provide none, and in warming requests.
        raw = None
    parts = ("page", view, where, (script_root, path, raw, query), varied)
    key = QUOTED.get(parts)
    return key if key is not None else QUOTED.note(parts, ascii(parts))


#: Marks the names of cookies and of values of the session in a key. A field has its own name in this place.
NAMED = "named"
#: Quoted keys by their parts. Quoting is half the cost of a key, and requests for the same pages repeat.
QUOTED: Remembered[tuple[object, ...], str] = Remembered(most=1024, limit=2 * MIB, longest=4096)


_PAGE = "('page', "
_VARIANT = "('variant', "
_GATEWAY = "('page', 'gateway', "


def is_key_of_page(key: str) -> bool:
    """Whether a key belongs to the page of a view or to a variant of it, not to a response of the gateway."""
    url_key = key if key.startswith(_PAGE) else url_key_of(key)
    return url_key.startswith(_PAGE) and not url_key.startswith(_GATEWAY)


def url_key_of(key: str) -> str:
    """Return the key of the URL that a key of a variant was made from; any other key unchanged."""
    if not key.startswith(_VARIANT):
        return key
    try:
        return str(literal_eval(key)[1])
    except (ValueError, SyntaxError, LookupError, TypeError, RecursionError, MemoryError):
        # It comes from a file.
        return key


def call_key(function: str, arguments: str) -> str:
    """Return the key of a call.

    :param function: the function's module and qualified name.
    :param arguments: the canonical form of the arguments.
    """
    return ascii(("call", function, arguments))


#: A value in a key: itself, a digest of it in a tuple, or ``None`` for a field that is absent.
Shown: TypeAlias = "str | tuple[str] | None"
#: Fields that describe the program of a client, not who uses it.
_DESCRIPTIVE = re.compile(
    r"accept(-(charset|datetime|encoding|language))?|dnt|host|origin|save-data|sec-(ch|fetch)-.*|sec-gpc|user-agent"
    r"|x-forwarded-(host|port|prefix|proto)|x-requested-with"
)
#: Parts of the names of fields whose values are secrets, or identify a person.
_TELLING = re.compile(
    r"account|address|assert|auth|bearer|cert|cookie|cred|csrf|email|forwarded|group|ident|jwt|key|login|mail|member|nonce|oidc|otp"
    r"|pass|person|phone|principal|private|refer|role|saml|secret|sess|sign|ssl|ticket|token|user|uuid|xsrf"
    r"|(^|[-_])(client|code|customer|id|ip|pin|pw|sid|sso|uid)($|[-_])"
)
#: The greatest length of a value that is shown: of a descriptive field, and of other fields whose names suggest no secret.
_DESCRIPTION, _WORD = 512, 20


def shown(name: str, value: str | None) -> Shown:
    """Return the value of a request field as keys have it: a digest, unless it is short and the field's name suggests no secret.

    No visitor can send a value that is mistaken for a digest, since digests are in a tuple.

    :param name: the name of the field.
    :param value: its value, or what a normaliser made of it; ``None`` without the field.
    """
    return value if value is None or len(value) <= _longest_shown(name) else (digest(value),)


def tells_who(name: str) -> bool:
    """Whether the name of a field, cookie or session value suggests that the value is a secret, or differs for each visitor."""
    return _TELLING.search(name.lower()) is not None


@lru_cache(maxsize=256)
def _longest_shown(name: str) -> int:
    name = name.lower()
    if _DESCRIPTIVE.fullmatch(name):
        return _DESCRIPTION
    return 0 if _TELLING.search(name) else _WORD


def _varied(name: str, normalise: Normaliser | None, environ: Mapping[str, Any]) -> tuple[str, Shown]:
    value = environ.get(environ_name(name))
    if normalise is None:
        return name, shown(name, value)
    variant = normalise(value)
    if variant is not None and not isinstance(variant, str):
        raise ConfigError(f"the normaliser of {name} returned {type(variant).__name__}: return a string or None")
    # A str enum becomes a plain string: they are equal, and would share a place in the cache of quoted keys.
    return name, None if variant is None else shown(name, str.__str__(variant))


def _checked(custom: object) -> object:
    if isinstance(custom, tuple):
        return tuple([_checked(item) for item in custom])
    if type(custom) not in (str, int, float, bool):
        raise ConfigError(
            f"a key callable returned {type(custom).__name__}: return a string, a number or a tuple of those; "
            "to keep a request from being cached, use unless="
        )
    return custom


def digest(key: str) -> str:
    """Return the name of the files of a key or of a purge name: 40 hexadecimal digits."""
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


def is_digest(text: str) -> bool:
    """Whether a text has the form of a digest."""
    return _DIGEST.fullmatch(text) is not None


_DIGEST = re.compile("[0-9a-f]{40}")
