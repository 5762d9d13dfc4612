"""The cookies and values of the session that a rule or a view has named, and their part of the key. Pure.

===================== =============================================================================
in the request        the key has a digest of
===================== =============================================================================
no such cookie        nothing: an absent cookie is not the same as an empty one
one cookie            its value
several of one name   all of their values, in order: apps take the first one or the last
with a normaliser     its result for each of the values, or for ``None`` without the cookie
a value of a session  the value: text, a number, ``True``, ``False``, ``None``, or a tuple of those
===================== =============================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from ...errors import ConfigError
from ..addressing.recipe import PageRecipe
from ..http import cookies
from ..http.accept import COOKIE, NAMED_KINDS, Named, names_of
from ..model.environ import with_variables
from ..model.policy import Normaliser, Policy
from ..model.query import NamePatterns
from .variant_index import Fields
from .variants import NO_VALUES

_COOKIE, _SESSION = NAMED_KINDS


class NamedValues(NamedTuple):
    """The named cookies and values of one request.

    :ivar values: the texts whose digests are in the key, by the variables of their selectors; ``None`` for an absent one.
    :ivar cookie: the Cookie field reduced to the named cookies; ``None`` if the request has none of them.
    :ivar session: the named values of the session, by their keys, without absent ones.
    """

    values: Mapping[str, str | None] = NO_VALUES
    cookie: str | None = None
    session: Mapping[str, Any] = MappingProxyType({})


NOTHING_NAMED = NamedValues()


def selectors_of(policy: Policy) -> Fields:
    """Return the selectors of the cookies and values that a policy has named, in the order in which they are in keys."""
    return (*(Named(_COOKIE, name) for name in policy.cookies or ()), *(Named(_SESSION, key) for key in policy.session))


def values_of(
    policy: Policy, field: str | None, session: Callable[[tuple[str, ...]], Mapping[str, Any]], *, is_flasks: bool = True
) -> NamedValues:
    """Return the cookies and values of a request that a policy has named.

    :param field: its Cookie field; ``None`` without it.
    :param session: returns the values of the request's session for some keys, without absent ones.
    :param is_flasks: the app parses cookies as Flask does. For other apps, this is not known.
    :raises ConfigError: if a normaliser raises, or returns neither a string nor ``None``, or if a value can't be in a key.
    """
    named: Mapping[str, Normaliser | None] = policy.cookies or {}
    found: dict[str, str | None] = {}
    for name, normalise in named.items():
        found[Named(_COOKIE, name).variable] = _of_cookie(name, normalise, field, is_flasks)
    held = session(tuple(policy.session)) if policy.session else {}
    for key, normalise in policy.session.items():
        found[Named(_SESSION, key).variable] = _of_session(key, normalise, held)
    return NamedValues(found, cookies.only_named(field, named), held)


def session_values(policy: Policy, session: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the texts of the named values of a session for the key, by the variables of their selectors.

    :raises ConfigError: as :func:`values_of` does.
    """
    return {Named(_SESSION, key).variable: _of_session(key, normalise, session) for key, normalise in policy.session.items()}


def recipe_of(
    environ: Mapping[str, Any],
    vary: Iterable[str],
    fields: Fields,
    named: NamedValues,
    ignored: NamePatterns,
    seen: Mapping[str, Any] | None = None,
) -> PageRecipe:
    """Return the recipe of a request, with only the named cookies and values of the session.

    :param environ: the WSGI environ.
    :param vary: names of the request fields that are in the key of the URL beside host and X-Forwarded-*.
    :param fields: the selectors in the key of the variant.
    :param named: the named cookies and values.
    :param ignored: query parameters to leave out.
    :param seen: the environ as the app saw it. Default: the same.
    """
    if any(isinstance(each, Named) for each in fields) and COOKIE not in fields:
        environ = with_variables(environ, {"HTTP_COOKIE": named.cookie})
    return PageRecipe.from_environ(environ, (*vary, *names_of(fields)), ignored, seen, named.session)


def _of_cookie(name: str, normalise: Normaliser | None, field: str | None, is_flasks: bool) -> str | None:
    raw = cookies.raw_values(field, name)
    read: Sequence[str | None] = cookies.values(field, name) if is_flasks else raw
    if normalise is None:
        return ascii(tuple(read)) if read else None
    label = f"cookies[{name!r}]"
    if not is_flasks:
        # A value that parsers read in different ways is not normalised: a visitor could make the app read a different value.
        made = [_normalised(label, normalise, cookies.unquoted(each)) if cookies.is_plain(each) else (each,) for each in raw]
    else:
        made = [_normalised(label, normalise, each) for each in read]
    made = made or [_normalised(label, normalise, None)]
    made = made[:1] if len({*made}) == 1 else made
    return None if made == [None] else ascii(tuple(made))


def _of_session(key: str, normalise: Normaliser | None, session: Mapping[str, Any]) -> str | None:
    if normalise is not None:
        made = _normalised(f"session[{key!r}]", normalise, session.get(key))
        return None if made is None else ascii((made,))
    return ascii((_checked(key, session[key]),)) if key in session else None


def _normalised(label: str, normalise: Callable[[Any], object], value: Any) -> str | None:
    try:
        made = normalise(value)
    except Exception as error:
        raise ConfigError(f"the normaliser {label} raised {error!r}: return a string or None for any value") from error
    if made is not None and not isinstance(made, str):
        raise ConfigError(f"the normaliser {label} returned {type(made).__name__}: return a string or None")
    # A str enum becomes a plain string, whose form is the same in all versions of the code.
    return None if made is None else str.__str__(made)


def _checked(key: str, value: Any) -> object:
    if isinstance(value, tuple):
        return tuple([_checked(key, item) for item in value])
    if value is not None and type(value) not in (str, int, float, bool):
        raise ConfigError(
            f"session[{key!r}] is of type {type(value).__name__}, which can't be in a key: name a normaliser that makes a string "
            f"of it, such as session={{{key!r}: str}}"
        )
    return value
