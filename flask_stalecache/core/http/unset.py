"""Removes the fields that ``unset=`` names from a response before it is stored. Pure.

A cookie may be removed if it makes no difference to the page, such as one for statistics, consent or a load balancer. These cookies
stay, and keep the response out of the store:

=========================================== ====================================================================================
cookie                                      why
=========================================== ====================================================================================
of the app's session                        the page may depend on the session, and its first visitor would lose a login
of any session or login, by its name        likewise, if the app can't be observed
any, beside ``Vary: Cookie``                the response says that it depends on cookies
=========================================== ====================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Collection

from ..model.reasons import Refusal, StoreRefusal
from .fields import Headers, lines_of, vary_names
from .tags import without_fields

SET_COOKIE = "set-cookie"
#: Parts of the names of cookies by which a server recognises a visitor: ``PHPSESSID``, ``csrftoken``, ``connect.sid``.
_OF_LOGIN = re.compile(
    r"sess|auth|jwt|token|csrf|xsrf|login|remember|(^|[-_.])(identity|oidc|saml|sid|sso)($|[-_.])", re.IGNORECASE
)


def cookies_set(headers: Headers) -> list[tuple[str, str]]:
    """Return the names and values of the cookies that a response sets."""
    pairs = (line.partition(";")[0].partition("=") for line in lines_of(headers, SET_COOKIE))
    return [(name.strip(), value.strip().strip('"')) for name, _, value in pairs]


def cookie_refusal(headers: Headers, sessions: Collection[str] = (), *, is_varied: bool = True) -> Refusal | None:
    """Return why the cookies of a response may not be removed; ``None`` if they may, or if it sets none.

    :param headers: its fields.
    :param sessions: the names of the cookies in which the app keeps its sessions.
    :param is_varied: ``Vary: Cookie`` counts; false if the cookies that the page depends on are known more precisely.
    """
    fields = tuple(headers)
    names = [name for name, _ in cookies_set(fields)]
    own = next((name for name in names if name in sessions or _OF_LOGIN.search(name)), None)
    if own is not None:
        return Refusal(StoreRefusal.SETS_SESSION, f"the cookie {own[:40]!a}")
    return Refusal(StoreRefusal.COOKIE_IN_VARY) if names and is_varied and "cookie" in vary_names(fields) else None


def sessions_set(headers: Headers, names: Collection[str]) -> list[tuple[str, str]]:
    """Return the Set-Cookie fields of a response for some cookies.

    :param names: the cookies of sessions that the app has left unchanged.
    """
    return [(name, value) for name, value in headers if name.lower() == SET_COOKIE and _cookie_of(value) in names]


def without_sessions(headers: Headers, names: Collection[str]) -> list[tuple[str, str]]:
    """Return the fields of a response without the Set-Cookie fields for some cookies."""
    return [(name, value) for name, value in headers if name.lower() != SET_COOKIE or _cookie_of(value) not in names]


def _cookie_of(value: str) -> str:
    return value.partition("=")[0].strip()


def without_unset(headers: Headers, unset: Collection[str], refusal: Refusal | None) -> list[tuple[str, str]]:
    """Return the fields of a response without those that are unset.

    :param unset: the names of the unset fields, in lower case.
    :param refusal: why the cookies may not be removed; ``None`` if they may.
    """
    return without_fields(headers, unset if refusal is None else [name for name in unset if name != SET_COOKIE])
