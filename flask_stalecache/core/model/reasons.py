"""Reasons not to store an answer, to bypass the cache, and not to answer with a hit: each answer that is no hit has one of them.

A new reason is a new member here. The front ends choose the reason; the log, ``Cache-Status``, the counters, the CLI and the
dashboard take their texts from here.

============================ ==========================================================================================
:class:`StoreRefusal`        why an answer was not stored; with its subject (a status, a field name) it is a :class:`Refusal`
:class:`BypassReason`        why a request was answered without looking into the store
:class:`MissReason`          why a request that may be answered from the store was no hit
============================ ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from .inputs import RequestInputs


class StoreRefusal(Enum):
    """Why an answer is not stored. ``{}`` stands for the subject.

    :ivar text: the reason, as ``Cache-Status`` and the CLI show it.
    :ivar advice: what the developer can do about it; "" if it is intended, or cannot be changed in code.
    :ivar has_fixed_subjects: the subject comes from code, not from visitors, so that each one may get a log line of its own.
    """

    def __init__(self, text: str, advice: str = "", has_fixed_subjects: bool = False) -> None:
        self.text = text
        self.advice = advice
        self.has_fixed_subjects = has_fixed_subjects

    # The origin failed: the stored entry is kept.
    FAILED_STATUS = ("status {}",)
    FAILED = ("its origin has failed",)
    RAISED = ("its origin raised {}",)
    NOT_CALLED = ("its origin was not called: {}",)
    NOT_BY_VIEW = ("a hook or middleware refused the refresh with status {}",)
    EMPTY_OVER_CONTENT = ("an empty answer over content",)
    FALLBACK_OVER_BETTER = ("made with a fallback, while there is a better copy",)
    START_RESPONSE_NOT_CALLED = ("the app has not called start_response",)

    # HTTP forbids it (RFC 9111 section 3).
    NOT_GET = ("only an answer to GET is stored, not to {}",)
    INTERIM_STATUS = ("status {} is not final",)
    PARTIAL_STATUS = ("status {} is a part of an answer",)
    PART_OF_STORABLE = ("status {} is a part of an answer that could be stored",)
    PART_OF_UNSIZED = ("status {} is a part of an answer that could be stored, unless it is too large",)
    PART_OF_UNSAID = ("status {} is a part of an answer that could be stored, if the whole says no more",)
    NOT_UNDERSTOOD = ("Cache-Control: must-understand, and status {} is not understood",)
    REQUEST_NO_STORE = ("the request says no-store",)
    CACHE_CONTROL = ("Cache-Control: {}",)
    AUTHORIZATION = ("the request has an Authorization field",)
    VARY_STAR = ("Vary: {}", "name the request fields that the response depends on")
    NO_LIFETIME = ("nothing says how long an answer with status {} is fresh",)
    NOTHING_SAID = ("nothing says how long {} is fresh",)
    NO_VALIDATOR = ("it is never fresh, and has no ETag or Last-Modified to confirm it by",)

    # The developer, or a rule, forbids it.
    NO_STORE = ("{} said no_store()",)
    RESPONSE_FILTER = ("response_filter said so",)
    STATUS_NOT_LISTED = ("status {} is not listed in statuses",)
    NOT_CODED = ("nothing says that the gateway stores it",)
    ANSWERED_BY_CACHED = ("it was answered by cached()",)
    TAGS_UNKNOWN = ("its tags can't be told",)
    TOO_FEW_USES = ("it was asked for {} times that min_uses wants",)
    TOO_MANY_VARIANTS = (
        "its URL has as many variants by {} as are stored",
        "reduce the values by a function in vary, such as vary={'Accept-Language': best}",
        True,
    )

    # It was made for one visitor.
    MADE_FOR_VISITOR = ("it was made for this visitor",)
    READ_BY = ("it was made for this visitor: {}",)
    DEPENDS_ON = ("it depends on {}, not in the key",)
    CARRIES_COOKIE = ("the page depends on a cookie that the request carries",)
    CARRIES_SESSION_KEY = ("the page depends on what the session of the request has",)
    CARRIES_FIELD = ("the page depends on a request field that the key lacks",)
    CARRIES_VARIABLE = ("the page depends on a variable of the environ that the request has",)
    FOR_THIS_REQUEST = ("its answer is for this request alone",)
    CREDENTIALS = (
        "its request carries {}, and it does not say that it is for everybody",
        "say public or s-maxage in it, write cookies=[…] in a rule, or cookies=(), or set STALECACHE_CREDENTIALS_NEED_PUBLIC "
        "to False",
        True,
    )
    SETS_COOKIE = ("{} sets a cookie", "set it in another view, or do not cache this one")
    SETS_SESSION = (
        "it sets {}, which belongs to a session or a login, so that unset does not take it away",
        "set it in another response, or do not cache this one",
        True,
    )
    COOKIE_IN_VARY = (
        "it sets a cookie and names Cookie in Vary, so that unset does not take the cookie away",
        "set it in a response that depends on no cookie",
    )
    VARY_NOT_IN_KEY = ("Vary names {}, which is not in the key", "take it out of Vary, or do not cache the view", True)
    MODIFIED_SESSION = ("the view modified the session", "change the session in another view, or do not cache this one")
    SESSION_FROM_HOOK = (
        "the view uses the session, which a hook has modified before",
        "change the session in the hook only if it has to, or do not cache the view",
    )
    OTHER_SESSION = (
        "a value of the session that is in the key was another one in the app",
        "change it in another view; or let STALECACHE_SESSION_OPENER open what the app opens",
    )
    AFTER_THIS_REQUEST = (
        "the view registered a callback with after_this_request",
        "register it in a hook, or do not cache the view",
    )
    CSP_NONCE = (
        "its Content-Security-Policy has a nonce that is in the body",
        "allow scripts by 'self' or by hash ('sha256-...') instead of a nonce, which is for one response, or do not cache the page",
    )
    SHOWS_RANDOM = (
        "the body shows {}, which is another one in each response",
        "leave it out of the page, or do not cache the page",
        True,
    )
    SHOWS_MAYBE_RANDOM = ("the body shows {}, which may be another one in each response",)
    REQUEST_BODY = ("the request has a body",)
    READS_ALL_HEADERS = ("{} goes through all headers of the request", "read them by name", True)
    READS_ALL_COOKIES = ("{} goes through all cookies of the request", "read them by name", True)
    READS_ALL_VARIABLES = (
        "{} goes through the whole environ of the request",
        "read what you need by name, such as request.headers.get()",
        True,
    )
    HOLE_ALTERED = ("{}: where its holes are can't be told", "do that in the hole, and show what that returns as it is", True)
    TRACED = (
        "it shows or uses {}, by which this request is traced",
        "read it in hooks and libraries alone, and send it in middleware around app.wsgi_app after init_app",
        True,
    )
    DEPENDS_ON_VARIABLE = (
        "it depends on {}, which other requests have too, each with a value of its own",
        "put what the page takes from it into key=, or do not cache it",
        True,
    )
    IGNORED_PARAMETERS = (
        "it reads what is in ignored_parameters: {}",
        "take the name out of ignored_parameters, or the reading out of the view",
    )
    READS_ORDER = (
        "{} reads the query as a whole, whose order sort_query leaves out of the key",
        "read parameters by name, or leave sort_query out",
        True,
    )
    ROUTED_WITH_IGNORED = ("the app's routing redirects, with what is in ignored_parameters: {}",)
    REPEATS_IGNORED = (
        "its Location repeats what is in ignored_parameters: {}",
        "take the name out of ignored_parameters, or the parameter out of the redirect",
    )
    CHANGED_REQUEST = (
        "middleware between the gateway and the app changed {} of the request",
        "put that middleware around app.wsgi_app after init_app, or name the request field that it reads in the vary of a rule",
        True,
    )
    ANSWERED_BY_MIDDLEWARE = (
        "middleware between the gateway and the app answered instead of the app, so that its reads can't be seen",
        "put that middleware around app.wsgi_app after init_app, or let its answers say Cache-Control: public, max-age=… if they "
        "are for everybody",
    )
    READS_ENVIRON = (
        "{} reads the environ as a whole",
        "read its variables by name; or put the middleware that does it around app.wsgi_app after init_app",
        True,
    )
    READS_VARIABLE = (
        "{}, which is not in the key",
        "do not read it there; or put the middleware that does it around app.wsgi_app after init_app",
        True,
    )
    READS_UNSEEN = (
        "what the app has read of the request can't be seen",
        "leave app.request_class as init_app has set it, or inherit from it",
    )

    # Its fields and its body.
    UNSENDABLE_FIELD = ("its field {} can't be sent", "leave line ends, other controls and what is not Latin-1 out of it")
    STREAM = ("the response is a stream", "return the whole body, or do not cache the view")
    EVENT_STREAM = ("a stream of events",)
    USED_WRITE = ("the app has used write()",)
    TOO_LARGE = ("the body is larger than STALECACHE_MAX_ENTRY_SIZE", "raise that limit, or do not cache it")
    INVALID_LENGTH = ("its Content-Length is not a number", "send a Content-Length of digits, or leave it out")
    WRONG_LENGTH = ("the body is not as long as its Content-Length says", "leave Content-Length out")
    NOT_BYTES = ("its body is not made of bytes", "return bytes")
    STILL_TO_COME = ("its body is still to come",)
    BROKEN_OFF = ("its client left before the whole body was sent",)
    SLOW_READER = ("its client reads too slowly, while many other bodies are being copied",)

    # Values of fetch functions: the subject is the whole text, with the advice in it.
    UNSTORABLE_VALUE = ("{}",)

    # The store.
    NOT_WRITTEN = ("it was purged meanwhile, or could not be written",)

    @property
    def is_fixable(self) -> bool:
        """Whether the developer can do something about it, so that it is worth a line in the log."""
        return bool(self.advice)

    @property
    def general(self) -> str:
        """The reason in words that hold for all subjects."""
        return "its value can't be stored" if self.text == "{}" else self.text.replace("{}", "…")


#: Reasons for which no policy could store the answers of the page, unless its code or its rules change.
NEVER_STORED = frozenset(
    {
        StoreRefusal.NO_LIFETIME,
        StoreRefusal.NOTHING_SAID,
        StoreRefusal.NO_VALIDATOR,
        StoreRefusal.NOT_CODED,
        StoreRefusal.ANSWERED_BY_CACHED,
    }
)
#: Reasons about the page, which remain until its code, its rules or its size change.
LASTING = NEVER_STORED - {StoreRefusal.NO_LIFETIME} | {
    StoreRefusal.CACHE_CONTROL,
    StoreRefusal.VARY_STAR,
    StoreRefusal.NO_STORE,
    StoreRefusal.RESPONSE_FILTER,
    StoreRefusal.CSP_NONCE,
    StoreRefusal.SHOWS_RANDOM,
    StoreRefusal.READS_ALL_HEADERS,
    StoreRefusal.READS_ALL_COOKIES,
    StoreRefusal.READS_ALL_VARIABLES,
    StoreRefusal.CHANGED_REQUEST,
    StoreRefusal.ANSWERED_BY_MIDDLEWARE,
    StoreRefusal.READS_ENVIRON,
    StoreRefusal.READS_VARIABLE,
    StoreRefusal.READS_UNSEEN,
    StoreRefusal.EVENT_STREAM,
    StoreRefusal.USED_WRITE,
    StoreRefusal.TOO_LARGE,
}
#: Reasons about one request, or about this moment: the next answer may be stored.
ABOUT_ONE_REQUEST = frozenset(
    {
        StoreRefusal.NOT_GET,
        StoreRefusal.PARTIAL_STATUS,
        StoreRefusal.PART_OF_STORABLE,
        StoreRefusal.PART_OF_UNSIZED,
        StoreRefusal.PART_OF_UNSAID,
        StoreRefusal.REQUEST_NO_STORE,
        StoreRefusal.AUTHORIZATION,
        StoreRefusal.IGNORED_PARAMETERS,
        StoreRefusal.READS_ORDER,
        StoreRefusal.FOR_THIS_REQUEST,
        StoreRefusal.SLOW_READER,
        StoreRefusal.STILL_TO_COME,
        StoreRefusal.TOO_FEW_USES,
        StoreRefusal.TOO_MANY_VARIANTS,
        StoreRefusal.NOT_WRITTEN,
    }
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one answer was not stored.

    :ivar subject: what the reason is about: a status, a field name; "" if there is nothing to add.
    :ivar fix: what to write in this very case, instead of the general advice.
    """

    reason: StoreRefusal
    subject: str = ""
    fix: str = ""

    @property
    def text(self) -> str:
        """The reason in words."""
        told = self.reason.text.replace("{}", self.subject)
        return f"{told}: {self.fix}" if self.fix else told

    @property
    def log_text(self) -> str:
        """The reason, and what the developer can do about it."""
        return self.text if self.fix or not self.reason.advice else f"{self.text}; {self.reason.advice}"

    @property
    def log_key(self) -> Hashable:
        """The key of a line that is logged once. It leaves out subjects that clients can choose: these would flood the log."""
        return (self.reason, self.subject) if self.reason.has_fixed_subjects else self.reason


def variable_read(name: str, reader: str) -> Refusal:
    """Return why a page that depends on a variable of the environ is not stored, and what to write.

    :param name: the variable.
    :param reader: the module that has read it.
    """
    fix = (
        f"{StoreRefusal.DEPENDS_ON_VARIABLE.advice}; if it makes no difference to the page, add {reader!r}: [{name!r}] to "
        "STALECACHE_IGNORED_READERS"
    )
    return Refusal(StoreRefusal.DEPENDS_ON_VARIABLE, f"{name}, read by {reader}", fix)


class BypassReason(Enum):
    """Why a request bypasses the cache.

    :ivar forwarded: the value of ``fwd`` in ``Cache-Status`` (RFC 9211 section 2.2).
    :ivar text: the reason, as the ``detail`` of ``Cache-Status`` and the CLI show it.
    :ivar advice: what the developer can do about it; "" if it is intended.
    """

    def __init__(self, forwarded: str, text: str, advice: str = "") -> None:
        self.forwarded = forwarded
        self.text = text
        self.advice = advice

    METHOD = ("method", "it is neither GET nor HEAD")
    BODY = ("bypass", "the request has a body")
    REMOTE_USER = ("bypass", "the server knows the user (REMOTE_USER)")
    UNLESS = ("bypass", "unless said so")
    KEY = ("bypass", "its key can't be made")
    REQUEST_CLASS = (
        "bypass",
        "app.request_class was replaced",
        "inherit from the class that init_app has set, or replace it before init_app",
    )
    ARGUMENTS = (
        "bypass",
        "it was called with other arguments than those of the URL",
        "write @cache.cached() directly above the function, or above the one that is routed; a function that is no view takes "
        "@cache.memoize()",
    )
    #: The connection becomes something else than HTTP (RFC 9110 section 7.8).
    UPGRADE = ("bypass", "the request asks for another protocol")
    #: A refresh of ours, on its way to the view whose page it renews.
    REPLAY = ("bypass", "the request is a refresh")
    #: The request is only forwarded: no stored response answers it.
    PART_OR_CONDITION = ("bypass", "the request asks for a part, or sets a condition that no copy answers")

    @property
    def is_fixable(self) -> bool:
        """Whether the developer can do something about it."""
        return bool(self.advice)

    @property
    def general(self) -> str:
        """The reason in words."""
        return self.text


class MissReason(Enum):
    """Why a request that may be answered from the store was no hit.

    :ivar text: the reason, as the CLI and the dashboard show it.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.advice = ""

    NOTHING_STORED = "nothing was stored yet"
    TOO_OLD = "what was stored was too old"
    CONFIRMED = "the origin has confirmed what was stored"
    RENEWED = "the request, or renew, asked for a new answer"
    WAITED = "it waited for the call of another request, and was served its result"
    ONLY_IF_CACHED = "the request wants only what is stored, and nothing is"
    BROKEN_VALUE = "what was stored can't be read"

    @property
    def general(self) -> str:
        """The reason in words."""
        return self.text


Reason: TypeAlias = "StoreRefusal | BypassReason | MissReason"
#: All reasons. Each answer that is no hit is counted by one of them.
REASONS: tuple[Reason, ...] = (*StoreRefusal, *BypassReason, *MissReason)


def code_of(reason: Reason) -> str:
    """Return the name of a reason in statistics, such as ``no_lifetime``."""
    return reason.name.lower()


#: All reasons by their names in statistics.
BY_CODE = {code_of(reason): reason for reason in REASONS}


def reason_of_names(names: RequestInputs) -> StoreRefusal:
    """Return the reason under which an answer is counted if it depends on names in its request."""
    if names.cookies:
        return StoreRefusal.CARRIES_COOKIE
    if names.session:
        return StoreRefusal.CARRIES_SESSION_KEY
    if "authorization" in names.headers:
        return StoreRefusal.AUTHORIZATION
    return StoreRefusal.CARRIES_FIELD if names.headers else StoreRefusal.CARRIES_VARIABLE
