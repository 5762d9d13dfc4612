"""The request fields that an app's answer depends on. They belong in its ``Vary``, whether it is stored or not.

A cache further out knows only what ``Vary`` says. It must not send an answer that was made for a member to other visitors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....core.addressing.keys import FORWARDED_FIELDS
from ....core.http.accept import names_of
from ....core.http.cache_control import response_directives
from ....core.http.credentials import credentials_in
from ....core.http.fields import Headers, first_of
from ....core.http.freshness import is_explicit
from ....core.http.storing import is_for_everybody
from ....core.http.vary import STAR
from ....core.model.inputs import RequestInputs
from ....core.model.reasons import BypassReason, Refusal, StoreRefusal
from ..backend import Backend, Observation
from ..rules import Rule

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: Fields that determine the URL, which is part of the keys of other caches anyway.
_IN_URL = frozenset({"host", *FORWARDED_FIELDS})
#: Reasons for a bypass that make the answer depend on something that is in no field.
_UNNAMED = frozenset({BypassReason.REMOTE_USER, BypassReason.BODY})
#: If one of these keeps an answer out of the store, the URL or the names of fields express what it depends on. With any other
#: reason, they don't.
_TOLD = frozenset(
    {
        StoreRefusal.IGNORED_PARAMETERS,
        StoreRefusal.READS_ORDER,
        StoreRefusal.ROUTED_WITH_IGNORED,
        StoreRefusal.REPEATS_IGNORED,
        StoreRefusal.CHANGED_REQUEST,
        StoreRefusal.ANSWERED_BY_MIDDLEWARE,
        StoreRefusal.READS_ALL_COOKIES,
    }
)


def fields_of_answer(
    backend: Backend,
    rule: Rule,
    environ: WSGIEnvironment,
    seen: Observation,
    headers: Headers,
    own: Refusal | None = None,
    bypassed: BypassReason | None = None,
) -> set[str]:
    """Return the request fields that an answer depends on, in lower case; a star if fields can't express it.

    :param backend: the app behind the gateway.
    :param rule: the rule for the path.
    :param environ: the request.
    :param seen: how the app came to the answer.
    :param headers: the fields of the answer.
    :param own: why the answer is one visitor's own, for a reason that no name expresses; ``None`` if it is not.
    :param bypassed: why the request bypasses the cache.
    """
    # A view under cached() has set Vary itself, and views without gateway=True are not the gateway's.
    if seen.is_ours or (backend.only_coded and not seen.policy.gateway):
        return set()
    reason = None if own is None else own.reason
    is_unnamed = bypassed in _UNNAMED or (reason is not None and reason not in _TOLD)
    if is_unnamed or RequestInputs(variables=seen.names.variables).present_in(environ):
        return {STAR}
    fields = {*rule.policy.vary, *names_of(rule.named), *(seen.names.fields - _IN_URL)}
    if reason is StoreRefusal.READS_ALL_COOKIES:
        fields.add("cookie")
    return fields | _unobserved_fields(backend, rule, environ, headers) if seen.is_blind else fields


def _unobserved_fields(backend: Backend, rule: Rule, environ: WSGIEnvironment, headers: Headers) -> set[str]:
    """Return the credentials in a request to an app that can't be observed, if other caches might store its answer."""
    fields = tuple(headers)
    directives = response_directives(fields)
    is_kept = is_explicit(directives, fields) or first_of(fields, "last-modified") is not None
    if not backend.guards or is_for_everybody(directives) or not is_kept:
        return set()
    # Caches have a rule of their own for Authorization (RFC 9111 section 3.5).
    without = {"authorization", *(["cookie"] if rule.hides_cookies else [])}
    return {*credentials_in(environ).headers} - without
