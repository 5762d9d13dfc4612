"""Watches what a view does to request and session, so that no visitor is served another visitor's page.

A name that the view reads and the key lacks is stored with the entry, which is then served only to requests without it. Reads that
can't be recorded by name keep the page out of the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from flask.sessions import NullSession

from ....core.addressing.keys import FORWARDED_FIELDS
from ....core.kept_by_class import kept_by_class
from ....core.model.inputs import NO_NAMES, HoldsKeys, RequestInputs
from ....core.model.query import NamePatterns
from ....core.model.reasons import Refusal, StoreRefusal
from ....core.responses.validators import CONDITIONS
from ...flask_internals.contexts import RequestContext, outer_context
from ...flask_internals.sessions import replace_session, session_cookie, session_of
from ...flask_internals.steps import callbacks_of
from ...observation.read_log import ReadLog
from ...observation.session_log import HARMLESS, SessionLog, SessionReads
from ...observation.watched_session import FLASHES, go_on_watching, holds_key, log_of, names_read, plain_values, watch_again
from ...request.caller_context import is_connection
from .request_recorder import arrived_environ, plain_environ
from .session_recorder import watched_session

#: Fields that are always in the key.
KEY_FIELDS = frozenset({"host", *FORWARDED_FIELDS})
#: Attributes in which Werkzeug keeps the parsed conditions of a request.
_PARSED_CONDITIONALS = ("if_none_match", "if_modified_since", "if_match", "if_unmodified_since", "if_range", "range")
_ALL_COOKIES = RequestInputs(headers=("cookie",))
_READS_ALL = {
    "headers": StoreRefusal.READS_ALL_HEADERS,
    "environ": StoreRefusal.READS_ALL_VARIABLES,
    "cookies": StoreRefusal.READS_ALL_COOKIES,
}


@dataclass(frozen=True, slots=True)
class Covered:
    """The request fields, cookies and session values that the key covers: reading them does not count.

    :param headers: request fields, in lower case.
    :param cookies: cookie names.
    :param variables: other variables of the environ.
    :param session: the covered values of the session; ``None``: all of it (``ignore_session``).
    """

    headers: frozenset[str]
    cookies: frozenset[str]
    variables: frozenset[str]
    session: SessionReads | None


class OwnCallback:
    """A callback of ours among those that a view registers with ``after_this_request``."""


class Watch:
    """The effects of a view besides its response.

    :ivar refusal: why its response can't be stored; ``None`` if nothing forbids it.
    :ivar session: the values of the session that it read.
    """

    def __init__(self, session: SessionReads) -> None:
        self.refusal: Refusal | None = None
        self.session = session

    def add(self, more: Watch) -> None:
        """Add the effects of the error handlers that have answered in place of the view."""
        self.refusal = self.refusal or more.refusal
        self.session.names |= more.session.names
        self.session.whole = self.session.whole or more.session.whole


@contextmanager
def watched(context: RequestContext, covered: Covered) -> Iterator[Watch]:
    """Run a view under watch. Conditions and Range are hidden from it: they are answered from the final response."""
    callbacks, log = _count_callbacks(context), log_of(context)
    with _hidden_conditionals(context):
        if log is None:
            with _watched_as_a_whole(context, covered) as watch:
                yield watch
        else:
            with _watched_by_key(context, covered, log) as watch:
                yield watch
        if watch.refusal is None and _count_callbacks(context) > callbacks:
            watch.refusal = Refusal(StoreRefusal.AFTER_THIS_REQUEST)


@contextmanager
def _watched_by_key(context: RequestContext, covered: Covered, log: SessionLog) -> Iterator[Watch]:
    """Watch what a view does to a session that is watched by key: its reads are recorded in the log of the session."""
    session = session_of(context)
    modified_before, watch = _flag(session, "modified"), Watch(SessionReads())
    with _flags_set_aside(session):
        with log.changes_apart() as changes:
            yield watch
        if _flag(session, "modified") and not changes.are_within(HARMLESS):
            watch.refusal = Refusal(StoreRefusal.MODIFIED_SESSION)
        elif modified_before and changes.reads_whole and covered.session is not None:
            # The session may be new with this request: then no cookie tells whose it is.
            watch.refusal = Refusal(StoreRefusal.SESSION_FROM_HOOK)


@contextmanager
def _watched_as_a_whole(context: RequestContext, covered: Covered) -> Iterator[Watch]:
    """Watch what a view does to a session that is not watched by key: any read of it counts as a read of its cookie."""
    session = session_of(context)
    modified_before = _flag(session, "modified")
    # For classes that don't track changes, Flask's SessionMixin always says that they are modified: then any use may be a change.
    tells = "modified" in getattr(session, "__dict__", ()) or getattr(type(session), "modified", None) is not True
    with _flags_set_aside(session), watched_session(session) as reads:
        watch = Watch(reads)
        yield watch
        has_modified = _flag(session, "modified") or (_flag(session, "accessed") and not tells)
        # The session may be new with this request: then no cookie tells whose it is.
        uses_modified = modified_before and tells and bool(reads) and covered.session is not None
        if has_modified:
            watch.refusal = Refusal(StoreRefusal.MODIFIED_SESSION)
        elif uses_modified:
            watch.refusal = Refusal(StoreRefusal.SESSION_FROM_HOOK)


def _count_callbacks(context: RequestContext) -> int:
    return sum(not isinstance(callback, OwnCallback) for callback in callbacks_of(context))


@contextmanager
def _flags_set_aside(session: Any) -> Iterator[None]:
    """Reset the flags of a session, so that they tell what the view does; merge them with the old ones afterwards."""
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
    environ = plain_environ(context.request)
    hidden = _taken(environ, CONDITIONS)
    # Also the parsed ones, if a hook has read them.
    parsed = _taken(context.request.__dict__, _PARSED_CONDITIONALS)
    try:
        yield
    finally:
        _taken(context.request.__dict__, _PARSED_CONDITIONALS)
        environ.update(hidden)
        context.request.__dict__.update(parsed)


def _taken(state: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: state.pop(name) for name in names if name in state}


def _flag(session: Any, name: str) -> bool:
    # A session class without the flag doesn't track this: assume the worst.
    return bool(getattr(session, name, True))


def was_used(session: Any) -> bool:
    """Whether a session was used so far, or may have been."""
    return _flag(session, "accessed")


def is_changed(session: Any) -> bool:
    """Whether a session was changed, or may have been: many classes can't tell."""
    return _flag(session, "modified")


def _set_flag(session: Any, name: str, value: bool) -> None:
    if name in getattr(session, "__dict__", ()):
        # Not with setattr(), which a watched session would record as a change.
        session.__dict__[name] = value
        return
    # A session class of the app may compute its flags: they need no reset.
    with suppress(AttributeError):
        setattr(session, name, value)


@contextmanager
def covered_by_key(context: RequestContext, ignored: frozenset[str]) -> Iterator[tuple[ReadLog, SessionReads]]:
    """Run a ``key`` callable. Yield its reads of the request, and its reads of the session as far as the key covers them.

    :param ignored: request fields whose reading does not count.
    """
    session, own = session_of(context), log_of(context)
    used_before = _flag(session, "accessed")
    watch = watched_session(session) if own is None else own.reads_aside()
    with reads_of(context).set_aside() as log:
        try:
            with watch as reads:
                yield log, reads
        finally:
            fields = log.fields(ignored)
            if reads or (_flag(session, "accessed") and not used_before):
                fields.add("cookie")
            reads_of(context).by_key |= fields
    if own is not None:
        _leave_uncovered(context, own, reads)
    elif used_before:
        # A hook may have looked up who is logged in, which is not in the key.
        reads.names.clear()
        reads.whole = False


def _leave_uncovered(context: RequestContext, log: SessionLog, reads: SessionReads) -> None:
    """Remove from the reads of a ``key`` callable those that the key does not cover."""
    # Messages are shown once, and a page from the store would not show them.
    reads.names -= log.written | FLASHES
    if log.is_rewritten or log.whole:
        # A hook may have read other values than the key has, or other names.
        reads.whole = False
        reads.names -= reads.names if log.is_rewritten else frozenset()
    if log.is_ended and not log.whole:
        watch_again(context, log)


@contextmanager
def unnoticed(context: RequestContext) -> Iterator[None]:
    """Run code whose reads of the request do not count, since it makes no difference to the page.

    Values that it keeps in ``g`` and on the request are dropped, such as the user that Flask-Login keeps: the view would find them
    there without a read that counts.
    """
    session, log = session_of(context), log_of(context)
    used_before = _flag(session, "accessed")
    aside: Any = nullcontext() if log is None else log.reads_aside()
    try:
        with reads_of(context).set_aside(), aside, _leaving_nothing(context):
            yield
    finally:
        if log is not None and log.is_ended and not log.whole:
            watch_again(context, log)
        _set_flag(session, "accessed", used_before)


@contextmanager
def _leaving_nothing(context: RequestContext) -> Iterator[None]:
    states = [context.request.__dict__]
    outer = outer_context()
    if outer is not None and hasattr(outer.g, "__dict__"):
        states.append(vars(outer.g))
    before = [state.copy() for state in states]
    try:
        yield
    finally:
        for state, kept in zip(states, before, strict=True):
            for name, value in state.copy().items():
                if name in kept:
                    state[name] = kept[name]
                elif not name.startswith("_stalecache") and not is_connection(value):
                    # A database connection stays: the app closes it at teardown.
                    del state[name]


def reads_of(context: RequestContext) -> ReadLog:
    """Return the log of what was read of the request so far."""
    return context.request.stalecache_reads  # type: ignore[attr-defined,no-any-return]


def names_beyond_key(context: RequestContext, covered: Covered, watch: Watch) -> RequestInputs:
    """Return the names that were read and that the key does not cover."""
    log = reads_of(context)
    cookies, headers = set(log.cookies) - covered.cookies, set(log.headers) - covered.headers
    names = RequestInputs(tuple(cookies), tuple(headers), tuple(set(log.variables) - covered.variables))
    return names | names_missed(log, arrived_environ(context.request)) | _names_of_session(context, covered, watch)


def _names_of_session(context: RequestContext, covered: Covered, watch: Watch) -> RequestInputs:
    """Return the keys of the session that were read, or the name of its cookie if the keys are not known or not enough."""
    if covered.session is None:
        return NO_NAMES
    log = log_of(context)
    if log is not None:
        cookie = session_cookie(context.app)
        is_new = not RequestInputs(cookies=(cookie,)).present_in(arrived_environ(context.request))
        return names_read(log, session_of(context), cookie, covered.session, is_new=is_new)
    session = session_of(context)
    is_used = _flag(session, "accessed") and not _covers_session(session, covered.session, watch)
    is_told_by_cookie = is_used or reads_of(context).has_opened
    return RequestInputs(cookies=(session_cookie(context.app),)) if is_told_by_cookie else NO_NAMES


def holds_of(context: RequestContext) -> HoldsKeys:
    """Return the function that looks up keys of the visitor's session."""
    return partial(holds_key, context, arrived_environ(context.request))


def _covers_session(session: Any, covered: SessionReads, watch: Watch) -> bool:
    # C code such as json.dumps calls no method of an empty dict, so that its reads are not seen. Then the cookie counts.
    return bool(session) and bool(covered) and covered.covers(watch.session)


def add_inherited(context: RequestContext, names: RequestInputs, reader: str) -> None:
    """Record the names that a page within this one depends on, as read by this one.

    :param reader: the view of the page within.
    """
    log, session = reads_of(context), log_of(context)
    log.cookies.update(dict.fromkeys(names.cookies, reader))
    log.headers.update(dict.fromkeys(names.headers, reader))
    log.variables.update(dict.fromkeys(names.variables, reader))
    if session is not None:
        session.keys.update(dict.fromkeys(names.session, reader))
    elif names.session:
        log.cookies[session_cookie(context.app)] = reader


def ignored_parameters_read(log: ReadLog, query: str, ignored: NamePatterns) -> frozenset[str]:
    """Return the ignored parameters of the query that were read, by name or with the query as a whole."""
    present = ignored.split(query)[1]
    return present if "query" in log.whole else present & log.parameters.keys()


def names_missed(log: ReadLog, environ: Mapping[str, Any]) -> RequestInputs:
    """Return the Cookie field as a name, if all cookies were read and there were none: the page is for visitors without cookies.

    :param environ: the request.
    """
    log.settle()
    has_none = "cookies" in log.whole and "HTTP_COOKIE" not in environ and "HTTP_COOKIE" not in log.changed
    return _ALL_COOKIES if has_none else NO_NAMES


def read_beyond_names(log: ReadLog, environ: Mapping[str, Any], ignored: NamePatterns) -> Refusal | None:
    """Return the refusal if the page depends on something that can't be recorded by name.

    That is: all fields, all variables of the environ, all cookies of a request that has some, ignored parameters, or the order of
    parameters where the key does not have it.

    :param environ: the request.
    """
    query, missed = environ.get("QUERY_STRING", ""), names_missed(log, environ)
    for kind, reason in _READS_ALL.items():
        if kind in log.whole and not (kind == "cookies" and missed):
            return Refusal(reason, log.whole[kind], reason.advice)
    names = ignored_parameters_read(log, query, ignored)
    if names:
        return Refusal(StoreRefusal.IGNORED_PARAMETERS, ", ".join(sorted(names)))
    reader = log.whole.get("query")
    return None if reader is None or ignored.is_in_order(query) else Refusal(StoreRefusal.READS_ORDER, reader)


def reader_of(context: RequestContext, kind: str, name: str) -> str:
    """Return the first reader of a cookie, field or variable, as far as known.

    :param kind: ``cookies``, ``headers``, ``variables`` or ``session``.
    """
    if kind == "session":
        session = log_of(context)
        return "" if session is None else session.keys.get(name, "")
    log = reads_of(context)
    return getattr(log, kind).get(name) or "the session"


def _discarded_class(null: Any) -> Any:
    changes = ("__setitem__", "__delitem__", "clear", "pop", "popitem", "update", "setdefault")
    return type("DiscardedSession", (null,), {name: getattr(dict, name) for name in changes})


def discard_session(context: RequestContext) -> None:
    """Keep a request from saving its session, even if hooks go on changing it.

    Flask does not save a session of the interface's null class. That class refuses changes, so a subclass is used that allows them.
    """
    null = getattr(context.app.session_interface, "null_session_class", NullSession)
    used = session_of(context)
    discarded, log = kept_by_class(null, "_stalecache_discarded", _discarded_class)(plain_values(used)), log_of(context)
    if log is not None:
        # Reads by hooks count as before.
        go_on_watching(context, log, discarded)
    replace_session(context, discarded)
    _set_flag(discarded, "accessed", _flag(used, "accessed"))
