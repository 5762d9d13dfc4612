"""Log lines that tell a developer why a view's page is not stored, and what to write.

=====================================  ==========================================================
not stored, for all visitors           the reason and its advice, if there is something to do
a request field beyond the key         a warning: the field, who read it, and ``vary=``
a variable of the environ              a warning: the variable, who read it, and ``key=``
Cookie or Authorization as a field     info, since it is usual for members: who read it
a cookie or a key of the session       info, since it is usual for members: its name, who read it
=====================================  ==========================================================

The info lines become warnings once many requests for the view were answered, and none of them from the store.
"""

from __future__ import annotations

import logging

from ...core.http.tracing import TRACING
from ...core.model.inputs import RequestInputs
from ...core.model.policy import NEVER_VARIED
from ...core.model.reasons import Refusal, StoreRefusal, variable_read
from ...core.rules.advice import FrontEnd, InputKind, or_named
from ...core.rules.storability import Judgement, Verdict
from ...engine.log import RateLimitedLog
from ..flask_internals.contexts import RequestContext
from .watching.watch import reader_of


def log_advice(
    log: RateLimitedLog, view: str, context: RequestContext, judgement: Judgement, carried: RequestInputs, *, is_never_hit: bool
) -> None:
    """Log once why a page is not stored, if the developer can do something about it.

    :param view: the name of the view.
    :param carried: the names that the page depends on beyond its key, and that this request carries.
    :param is_never_hit: many requests for the view were answered, and none of them from the store.
    """
    refusal, usual = judgement.reason, logging.WARNING if is_never_hit else logging.INFO
    if judgement.verdict is Verdict.UNSTORABLE and refusal is not None and refusal.reason.is_fixable:
        log.warn_once((view, refusal.log_key), "%s is not stored: %s", view, refusal.log_text)
    if judgement.verdict is not Verdict.PERSONAL:
        return
    for name in carried.headers:
        if name in NEVER_VARIED:
            log.warn_once(
                (view, "header", name, usual),
                "%s bypasses the cache for requests with the field %s, which was read by %s: %s",
                view, name, reader_of(context, "headers", name), NEVER_VARIED[name], level=usual,
            )  # fmt: skip
            continue
        if name in TRACING:
            log.warn_once((view, "header", name), "%s is not stored: %s", view, Refusal(StoreRefusal.TRACED, name).log_text)
            continue
        log.warn_once(
            (view, "header", name),
            "%s is not stored: the request field %s was read by %s and is not in the key; write vary=[%r], "
            "or name it in STALECACHE_IGNORED_HEADERS if the page does not depend on it",
            view, name, reader_of(context, "headers", name), name,
        )  # fmt: skip
    for name in carried.variables:
        reader = reader_of(context, "variables", name)
        log.warn_once((view, "variable", name), "%s is not stored: %s", view, variable_read(name, reader).log_text)
    for key in carried.session:
        log.warn_once(
            (view, "session", key, usual),
            "%s bypasses the cache for sessions with the key %s, which was read by %s; if the page does not depend on it, write "
            "ignore_session=True, or do not read it in the view%s",
            view, key, reader_of(context, "session", key), or_named(InputKind.SESSION, key, FrontEnd.VIEW), level=usual,
        )  # fmt: skip
    for name in carried.cookies:
        log.warn_once(
            (view, "cookie", name, usual),
            "%s bypasses the cache for requests with the cookie %s, which was read by %s; if the page does not depend on it, write "
            "ignore_session=True (for the session), or do not read it in the view%s",
            view, name, reader_of(context, "cookies", name), or_named(InputKind.COOKIE, name, FrontEnd.VIEW), level=usual,
        )  # fmt: skip


def detailed_reason(context: RequestContext, judgement: Judgement, carried: RequestInputs) -> Refusal | None:
    """Return why a page is not stored; for a personal page, the names beyond its key and who read them."""
    if judgement.verdict is not Verdict.PERSONAL or is_for_authorization(judgement):
        return judgement.reason
    names = (
        ("cookie", "cookies", carried.cookies),
        ("session key", "session", carried.session),
        ("field", "headers", carried.headers),
        ("variable", "variables", carried.variables),
    )
    read = [f"the {word} {name} was read by {reader_of(context, kind, name)}" for word, kind, of in names for name in of]
    return Refusal(StoreRefusal.READ_BY, " and ".join(read))


def is_for_authorization(judgement: Judgement) -> bool:
    """Whether a page is kept out of the store by the Authorization field of its request."""
    return judgement.reason is not None and judgement.reason.reason is StoreRefusal.AUTHORIZATION
