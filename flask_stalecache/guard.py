"""What happened while a page was made: the reason why no visitor sees another's page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from flask.ctx import RequestContext
from flask.sessions import NullSession

from .keys import FORWARDED_FIELDS
from .observed import ReadLog
from .policy import NamePatterns
from .reads import ReadNames

#: Fields that are always in the key.
KEY_FIELDS = frozenset({"host", *FORWARDED_FIELDS})
#: Answered from the frozen copy, so the view must not answer them itself.
_CONDITIONALS = (
    "HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE", "HTTP_IF_RANGE", "HTTP_RANGE",
)  # fmt: skip
_PARSED_CONDITIONALS = ("if_none_match", "if_modified_since", "if_match", "if_unmodified_since", "if_range", "range")


@dataclass(frozen=True, slots=True)
class Covered:
    """What the key covers, so that its reading does not count.

    :param headers: request fields, in lower case.
    :param cookies: cookie names.
    :param session: the use of the session does not count.
    """

    headers: frozenset[str]
    cookies: frozenset[str]
    session: bool


class Watch:
    """What a view did beside its answer.

    :ivar refusal: why its answer can't be stored, or "".
    """

    refusal = ""


@contextmanager
def watched(context: RequestContext) -> Iterator[Watch]:
    """Run a view under watch: conditionals and Range are hidden from it, and what it does to session and request is seen."""
    watch, log, callbacks = Watch(), reads_of(context), len(context._after_request_functions)
    session: Any = context._session
    flags = session.modified, session.accessed
    # Flask's SessionMixin says True for classes that can't tell: then any use may be a change.
    tells = "modified" in getattr(session, "__dict__", ()) or getattr(type(session), "modified", None) is not True
    _set_flag(session, "modified", False)
    _set_flag(session, "accessed", False)
    log.watching += 1
    try:
        with _hidden_conditionals(context):
            yield watch
    finally:
        log.watching -= 1
        if session.modified or (session.accessed and not tells):
            watch.refusal = "the view modified the session"
        elif len(context._after_request_functions) > callbacks:
            watch.refusal = "the view registered a callback with after_this_request"
        _set_flag(session, "modified", session.modified or flags[0])
        _set_flag(session, "accessed", session.accessed or flags[1])


@contextmanager
def _hidden_conditionals(context: RequestContext) -> Iterator[None]:
    hidden = _taken(context.request.environ, _CONDITIONALS)
    # Also what Werkzeug keeps of them, if a hook asked.
    parsed = _taken(context.request.__dict__, _PARSED_CONDITIONALS)
    try:
        yield
    finally:
        _taken(context.request.__dict__, _PARSED_CONDITIONALS)
        context.request.environ.update(hidden)
        context.request.__dict__.update(parsed)


def _taken(state: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: state.pop(name) for name in names if name in state}


def _set_flag(session: Any, name: str, value: bool) -> None:
    # A session class of the app's own may compute its flags; then they tell by themselves.
    with suppress(AttributeError):
        setattr(session, name, value)


@contextmanager
def session_set_aside(context: RequestContext) -> Iterator[Callable[[], bool]]:
    """Tell the use of the session by a ``key`` callable apart; yields a callable that says whether it alone has used it so far."""
    session: Any = context._session
    before = session.accessed
    _set_flag(session, "accessed", False)
    try:
        yield lambda: bool(session.accessed) and not before
    finally:
        _set_flag(session, "accessed", session.accessed or before)


def is_watched(context: RequestContext) -> bool:
    """Whether a view is being watched: asked on every hit, so without making a log where nothing was read."""
    log: ReadLog | None = context.request.__dict__.get("_stalecache_reads")
    return log is not None and log.watching > 0


def reads_of(context: RequestContext) -> ReadLog:
    """Return what was read of the request so far."""
    return context.request.stalecache_reads  # type: ignore[attr-defined,no-any-return]


def names_beyond_key(context: RequestContext, covered: Covered) -> ReadNames:
    """Return the names that were read of the request and that the key does not cover."""
    log, app, session = reads_of(context), context.app, context._session
    cookies = set(log.cookies) - covered.cookies
    if session is not None and session.accessed and not covered.session:
        cookies.add(app.session_interface.get_cookie_name(app))
    return ReadNames(tuple(sorted(cookies)), tuple(sorted(set(log.headers) - covered.headers)))


def ignored_parameters_read(context: RequestContext, ignored: NamePatterns) -> frozenset[str]:
    """Return the query parameters that are not in the key, are there, and were read: by name, or with the query as a whole."""
    log, query = reads_of(context), context.request.environ.get("QUERY_STRING", "")
    present = ignored.split(query)[1]
    return present if "query" in log.whole else present & log.parameters.keys()


def read_as_a_whole(context: RequestContext) -> str:
    """Return why the page can't be anybody's, if fields or cookies were gone through, or ""."""
    log = reads_of(context)
    for kind in ("headers", "cookies"):
        if kind in log.whole:
            return f"{log.whole[kind]} goes through all {kind} of the request: read them by name"
    return ""


def reader_of(context: RequestContext, kind: str, name: str) -> str:
    """Return who read a cookie or field first, as far as known.

    :param kind: ``cookies`` or ``headers``.
    """
    log = reads_of(context)
    return getattr(log, kind).get(name) or "the session"


_discarded_classes: dict[type, Any] = {}


def discard_session(context: RequestContext) -> None:
    """Keep a request from saving its session, although hooks may go on changing it.

    Flask does not save what is of the interface's null class; but that one refuses changes.
    """
    null = getattr(context.app.session_interface, "null_session_class", NullSession)
    if null not in _discarded_classes:
        changes = ("__setitem__", "__delitem__", "clear", "pop", "popitem", "update", "setdefault")
        _discarded_classes[null] = type("DiscardedSession", (null,), {name: getattr(dict, name) for name in changes})
    context._session = _discarded_classes[null](context._session)


def hand_names_on(context: RequestContext, names: ReadNames) -> None:
    """Note names on behalf of a page that was served inside another view: that depends on them too, though nothing was read."""
    log = reads_of(context)
    for name in names.cookies:
        log.cookies.setdefault(name, __name__)
    for name in names.headers:
        log.headers.setdefault(name, __name__)
