"""The cookies and session values that a view has named: their values in a request, and what the key covers with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...core.model.policy import Policy
from ...core.rules.named import NamedValues, values_of
from ...errors import ConfigError
from ..flask_internals.contexts import RequestContext
from ..flask_internals.sessions import session_cookie, session_of
from ..observation.session_log import SessionReads
from ..observation.watched_session import log_of
from .watching.request_recorder import ObservedRequest, arrived_environ
from .watching.watch import Covered, reads_of, was_used


def look_up_named(context: RequestContext, policy: Policy) -> NamedValues:
    """Return the cookies and session values of a request that a view has named.

    :raises ConfigError: if a normaliser fails, or if they can't be looked up.
    """
    request = context.request
    if policy.cookies and (type(request).cookies is not ObservedRequest.cookies or "cookies" in request.__dict__):
        raise ConfigError("cookies= finds them in the Cookie field, and the request class of the app elsewhere: write key=")
    if (name := session_cookie(context.app)) in (policy.cookies or ()):
        raise ConfigError(f"cookies contains {name!r}, in which sessions are kept: name values of the session in session=")
    field = arrived_environ(request).get("HTTP_COOKIE")
    return values_of(policy, field, lambda keys: _in_session(context, keys))


def covered_by_names(context: RequestContext, policy: Policy, others: Covered) -> Covered:
    """Return what the key covers, with the cookies and session values that a view has named.

    :param others: what it covers without them.
    """
    reads_of(context).by_key.add("cookie")
    others = replace(others, cookies=others.cookies.union(policy.cookies or ()))
    if not policy.session or others.session is None:
        return others
    log, reads = log_of(context), SessionReads()
    if log is not None:
        # A hook may have read a value before it was changed, and the key has only the new one.
        reads.names = set() if log.is_rewritten else {*policy.session} - log.written
    elif not was_used(session_of(context)):
        reads.names = {*policy.session}
    reads.names |= others.session.names
    reads.whole = others.session.whole
    return replace(others, session=reads)


def _in_session(context: RequestContext, keys: tuple[str, ...]) -> dict[str, Any]:
    """Return the values that a session has under some keys. Reading them here does not count.

    :raises ConfigError: for a session that is no ``dict``, which can't be read without counting as used.
    """
    session = session_of(context)
    if not isinstance(session, dict):
        raise ConfigError(
            f"session={list(keys)}: sessions of the class {type(session).__name__} are no dicts; name cookies instead"
        )
    return {key: dict.__getitem__(session, key) for key in keys if dict.__contains__(session, key)}
