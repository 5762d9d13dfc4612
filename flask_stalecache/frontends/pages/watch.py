"""What happened while a page was made: the reason why no visitor sees another's page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from flask.sessions import NullSession

from ...core.http.validators import CONDITIONS
from ...core.model.inputs import RequestInputs
from ...core.model.keys import FORWARDED_FIELDS
from ...core.model.query import NamePatterns
from ...core.model.reasons import Refusal, StoreRefusal
from ..flask_internals import RequestContext, callbacks_of, replace_session, session_of
from .request_recorder import ReadLog, session_cookie
from .session_recorder import SessionReads, watched_session

#: Fields that are always in the key.
KEY_FIELDS = frozenset({"host", *FORWARDED_FIELDS})
#: What Werkzeug keeps of the conditions of a request.
_PARSED_CONDITIONALS = ("if_none_match", "if_modified_since", "if_match", "if_unmodified_since", "if_range", "range")
_READS_ALL = {"headers": StoreRefusal.READS_ALL_HEADERS, "cookies": StoreRefusal.READS_ALL_COOKIES}


@dataclass(frozen=True, slots=True)
class Covered:
    """What the key covers, so that its reading does not count.

    :param headers: request fields, in lower case.
    :param cookies: cookie names.
    :param session: what of the session; ``None``: all of it, the developer says.
    """

    headers: frozenset[str]
    cookies: frozenset[str]
    session: SessionReads | None


class Watch:
    """What a view did beside its answer.

    :ivar refusal: why its answer can't be stored; ``None``: it may be.
    :ivar session: what it read of the session.
    """

    def __init__(self, session: SessionReads) -> None:
        self.refusal: Refusal | None = None
        self.session = session


@contextmanager
def watched(context: RequestContext, covered: Covered) -> Iterator[Watch]:
    """Run a view under watch: conditionals and Range are hidden from it, and what it does to session and request is seen."""
    callbacks = len(callbacks_of(context))
    session = session_of(context)
    modified_before = _flag(session, "modified")
    # Flask's SessionMixin says True for classes that can't tell: then any use may be a change.
    tells = "modified" in getattr(session, "__dict__", ()) or getattr(type(session), "modified", None) is not True
    with _hidden_conditionals(context), _flags_set_aside(session), watched_session(session) as reads:
        watch = Watch(reads)
        yield watch
        if _flag(session, "modified") or (_flag(session, "accessed") and not tells):
            watch.refusal = Refusal(StoreRefusal.MODIFIED_SESSION)
        elif modified_before and tells and reads and covered.session is not None:
            # It may be new with this request: then no cookie tells whose it is.
            watch.refusal = Refusal(StoreRefusal.SESSION_FROM_HOOK)
        elif len(callbacks_of(context)) > callbacks:
            watch.refusal = Refusal(StoreRefusal.AFTER_THIS_REQUEST)


@contextmanager
def _flags_set_aside(session: Any) -> Iterator[None]:
    """Let the flags of a session tell what happens meanwhile."""
    before = {name: _flag(session, name) for name in ("modified", "accessed")}
    for name in before:
        _set_flag(session, name, False)
    try:
        yield
    finally:
        for name, value in before.items():
            _set_flag(session, name, _flag(session, name) or value)


@contextmanager
def _hidden_conditionals(context: RequestContext) -> Iterator[None]:
    hidden = _taken(context.request.environ, CONDITIONS)
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


def _flag(session: Any, name: str) -> bool:
    # A session of a class that has no such flag can't tell: then it may be so.
    return bool(getattr(session, name, True))


def _set_flag(session: Any, name: str, value: bool) -> None:
    # A session class of the app's own may compute its flags; then they tell by themselves.
    with suppress(AttributeError):
        setattr(session, name, value)


@contextmanager
def covered_by_key(context: RequestContext) -> Iterator[tuple[ReadLog, SessionReads]]:
    """Run a ``key`` callable; yields what it reads of the request, and of the session if nobody has used that before."""
    session = session_of(context)
    used_before = _flag(session, "accessed")
    with reads_of(context).set_aside() as log, watched_session(session) as reads:
        yield log, reads
    if used_before:
        # A hook may have looked up who is logged in: the key says nothing of that.
        reads.names.clear()
        reads.whole = False


@contextmanager
def unnoticed(context: RequestContext) -> Iterator[None]:
    """Run what looks at the request and makes no difference to the page: what it reads does not count."""
    session = session_of(context)
    used_before = _flag(session, "accessed")
    try:
        with reads_of(context).set_aside():
            yield
    finally:
        _set_flag(session, "accessed", used_before)


def reads_of(context: RequestContext) -> ReadLog:
    """Return what was read of the request so far."""
    return context.request.stalecache_reads  # type: ignore[attr-defined,no-any-return]


def names_beyond_key(context: RequestContext, covered: Covered, watch: Watch) -> RequestInputs:
    """Return the names that were read of the request and that the key does not cover."""
    log, session = reads_of(context), session_of(context)
    cookies = set(log.cookies) - covered.cookies
    if _flag(session, "accessed") and not _covers_session(session, covered, watch):
        cookies.add(session_cookie(context.app))
    return RequestInputs(tuple(sorted(cookies)), tuple(sorted(set(log.headers) - covered.headers)))


def _covers_session(session: Any, covered: Covered, watch: Watch) -> bool:
    if covered.session is None:
        return True
    # C code calls no method of an empty dict (json.dumps); who has nothing in the session is told apart by carrying no cookie.
    return bool(session) and bool(covered.session) and covered.session.covers(watch.session)


def ignored_parameters_read(log: ReadLog, query: str, ignored: NamePatterns) -> frozenset[str]:
    """Return the query parameters that are not in the key, are there, and were read: by name, or with the query as a whole."""
    present = ignored.split(query)[1]
    return present if "query" in log.whole else present & log.parameters.keys()


def read_beyond_names(log: ReadLog, query: str, ignored: NamePatterns) -> Refusal | None:
    """Return why no name tells what the page depends on: all fields or cookies were read, or parameters outside the key."""
    for kind, reason in _READS_ALL.items():
        if kind in log.whole:
            return Refusal(reason, log.whole[kind], reason.advice)
    names = ignored_parameters_read(log, query, ignored)
    return Refusal(StoreRefusal.IGNORED_PARAMETERS, ", ".join(sorted(names))) if names else None


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
    used = session_of(context)
    discarded = _discarded_classes[null](used)
    replace_session(context, discarded)
    _set_flag(discarded, "accessed", _flag(used, "accessed"))
