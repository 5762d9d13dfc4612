"""The advice on what to write so that an answer is stored. It differs between the front ends. Pure.

================ ===========================================================================
reason           :func:`fix_of`: this table, else the advice of the reason itself
name             :func:`fix_of_name`: a cookie, a key of the session, a field or a variable
================ ===========================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from ..addressing.keys import tells_who
from ..exhaustive import assert_never
from ..http.tracing import TRACING
from ..model.policy import NEVER_VARIED
from ..model.reasons import BypassReason, Reason, Refusal, StoreRefusal


class FrontEnd(Enum):
    """The front end that gave an answer.

    :ivar place: where a parameter such as ``vary`` is written.
    """

    def __init__(self, place: str) -> None:
        self.place = place

    VIEW = "@cache.cached()"
    #: A view of the gateway, without a rule.
    CODED = "@cache.cached(gateway=True)"
    #: The gateway of a Flask app.
    RULES = "its rule in STALECACHE_GATEWAY"
    #: In front of any WSGI app.
    WSGI = "its rule in GatewayCache(rules=…)"


_IS_EVERYBODYS = "leave it out of its Cache-Control if the page is the same for everybody"
_COOKIE = "set it in another view, or write unset=['Set-Cookie'] in {} if no visitor needs it"
_LIFETIME = "list the status in {}: statuses={STATUS: seconds}"
_OF_STATUS = frozenset({StoreRefusal.NO_LIFETIME, StoreRefusal.STATUS_NOT_LISTED})
#: The statuses of pages that are worth a lifetime. Other statuses send the client elsewhere, or report an error.
_OF_PAGES = frozenset({"200", "203", "204", "300", "301", "308", "404", "405", "410", "451"})
_EVERYWHERE: Mapping[Reason, str] = {
    StoreRefusal.SHOWS_MAYBE_RANDOM: StoreRefusal.SHOWS_RANDOM.advice,
    StoreRefusal.CACHE_CONTROL: _IS_EVERYBODYS,
    StoreRefusal.AUTHORIZATION: "say Cache-Control: public in it if it is the same for everybody",
    StoreRefusal.NO_LIFETIME: _LIFETIME,
    StoreRefusal.STATUS_NOT_LISTED: _LIFETIME,
    StoreRefusal.NO_VALIDATOR: "give it a lifetime, or an ETag to confirm it by",
    StoreRefusal.NO_STORE: "leave no_store() out",
    StoreRefusal.RESPONSE_FILTER: "let the response_filter return True",
    StoreRefusal.CARRIES_COOKIE: "that is right for members; otherwise the log names the code that reads it",
    StoreRefusal.CARRIES_SESSION_KEY: "that is right for members; otherwise the log names the code that reads it",
    StoreRefusal.CARRIES_FIELD: "the log names the field, the code that reads it, and the line to write",
    StoreRefusal.CARRIES_VARIABLE: "the log names the variable, and the code that reads it",
    BypassReason.BODY: "send no body with a GET",
    BypassReason.UNLESS: "let unless return False",
    BypassReason.KEY: "let key= return a string, a number or a tuple of those, and normalisers a string; the log has the error",
}
#: Advice for one front end where it differs from the advice for all.
_AT: Mapping[tuple[FrontEnd, Reason], str] = {
    (FrontEnd.RULES, StoreRefusal.NOTHING_SAID): "give it a rule in STALECACHE_GATEWAY, or @cache.cached(max_age=…)",
    (FrontEnd.WSGI, StoreRefusal.NOTHING_SAID): "give it a rule in GatewayCache(rules=…), or let it say Cache-Control: max-age=…",
    (FrontEnd.CODED, StoreRefusal.NOTHING_SAID): "write max_age=… in @cache.cached(gateway=True)",
    (FrontEnd.CODED, StoreRefusal.NOT_CODED): "write @cache.cached(max_age=…, gateway=True) at its view, or set STALECACHE_GATEWAY",
    (FrontEnd.RULES, StoreRefusal.SETS_COOKIE): _COOKIE,
    (FrontEnd.CODED, StoreRefusal.SETS_COOKIE): _COOKIE,
    (FrontEnd.WSGI, StoreRefusal.SETS_COOKIE): _COOKIE.replace("in another view", "in another response"),
    (FrontEnd.WSGI, StoreRefusal.CREDENTIALS): (
        "say public or s-maxage in it, write cookies=['lang'] in its rule in GatewayCache(rules=…) for the cookies that matter, "
        "cookies=() if none does, or set STALECACHE_CREDENTIALS_NEED_PUBLIC to False: GatewayCache(credentials_need_public=False)"
    ),
    (FrontEnd.WSGI, StoreRefusal.TOO_LARGE): "give GatewayCache a larger max_entry_size, or send a smaller body",
}


def fix_of(refusal: Refusal, front: FrontEnd) -> str:
    """Return what to write so that an answer is stored; "" if nothing in the code keeps it out of the store.

    :param front: the front end that gave the answer.
    """
    if refusal.reason in _OF_STATUS and refusal.subject:
        told = fix_of_reason(refusal.reason, front) if refusal.subject in _OF_PAGES else ""
        return told.replace("STATUS", refusal.subject)
    return refusal.fix or fix_of_reason(refusal.reason, front)


def fix_of_reason(reason: Reason, front: FrontEnd) -> str:
    """Return what to write because of a reason; "" if there is nothing to write."""
    told = _AT.get((front, reason)) or reason.advice or _EVERYWHERE.get(reason, "")
    return told.replace("{}", front.place)


def log_text_at(refusal: Refusal, front: FrontEnd) -> str:
    """Return a reason for the log, with what to write at a front end."""
    own = _AT.get((front, refusal.reason))
    return refusal.log_text if refusal.fix or own is None else f"{refusal.text}; {own.replace('{}', front.place)}"


class InputKind(str, Enum):
    """The kind of a name in a request; its value is the name of the kind in :class:`.RequestInputs`."""

    COOKIE = "cookies"
    SESSION = "session"
    FIELD = "headers"
    VARIABLE = "variables"

    @property
    def word(self) -> str:
        """The kind in words."""
        match self:
            case InputKind.COOKIE:
                return "cookie"
            case InputKind.SESSION:
                return "session key"
            case InputKind.FIELD:
                return "field"
            case InputKind.VARIABLE:
                return "variable"
            case _:
                return assert_never(self)


def fix_of_name(kind: InputKind, name: str, front: FrontEnd) -> str:
    """Return what to write so that a page is stored although it depends on a name of the request.

    :param front: the front end that gave the answer.
    """
    match kind:
        case InputKind.SESSION if name == "csrf_token":
            return "leave the form out of the page, or fetch its token by a request of its own: it is its visitor's"
        case InputKind.SESSION if front is FrontEnd.VIEW:
            told = "write ignore_session=True if the page does not depend on the session, or do not read it in the view"
            return told + or_named(kind, name, front)
        case InputKind.COOKIE | InputKind.SESSION:
            return "do not read it if the page does not depend on it" + or_named(kind, name, front)
        case InputKind.FIELD:
            return _fix_of_field(name, front)
        case InputKind.VARIABLE:
            return StoreRefusal.DEPENDS_ON_VARIABLE.advice
        case _:
            return assert_never(kind)


def or_named(kind: InputKind, name: str, front: FrontEnd) -> str:
    """Return what to write so that the value of a cookie or of the session is in the key; "" if it differs for each visitor.

    :param front: the front end that gave the answer.
    """
    if tells_who(name):
        return ""
    place = "a rule for its path in STALECACHE_GATEWAY" if front is FrontEnd.CODED else front.place
    return f", or write {kind.value}=[{name!r}] in {place} if it has few values"


def _fix_of_field(name: str, front: FrontEnd) -> str:
    if name in NEVER_VARIED:
        return NEVER_VARIED[name]
    if name in TRACING:
        return StoreRefusal.TRACED.advice
    if front is FrontEnd.WSGI:
        return f"write vary=[{name!r}] in {front.place}, or name it in Vary"
    named = "" if front is FrontEnd.VIEW else "name it in Vary, "
    return (
        f"{named}write vary=[{name!r}] in {front.place}, or name it in STALECACHE_IGNORED_HEADERS if the page does not depend on it"
    )
