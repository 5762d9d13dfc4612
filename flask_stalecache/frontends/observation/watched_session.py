"""Watches which keys of a session are read.

A visitor without a user's id in the session gets the page that was made without one, whatever else is in it.

The session object itself gets another class when it is opened, since Flask hands it out to all code that uses it, and saves it
later. Only sessions of interfaces that do nothing but load the values are watched; for all others, the cookie counts.

C code reads a dict without calling its methods. It can read the session itself like that, but not Flask's proxy. So a session that
is handed out counts as read as a whole.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import lru_cache, partial
from types import FrameType
from typing import Any, NamedTuple

from ...core.kept_by_class import kept_by_class
from ...core.model.environ import GIVEN_SESSION
from ...core.model.inputs import RequestInputs
from ..flask_internals.contexts import RequestContext
from ..flask_internals.readers import outside_caller
from ..flask_internals.sessions import FLASKS_SESSIONS, SAVE_SESSION, has_flasks_sessions, loads_sessions_only, session_of
from .session_log import WHOLE, SessionLog, SessionReads, is_exempt

#: The attribute of a session with its log, once something has been read or changed. The context has it too, once it was requested.
_LOG = "_stalecache_log"
#: The attribute of a context with the session that is watched.
_WATCHED = "_stalecache_session"
#: The attributes of sessions of Flask's kind that reveal nothing about the visitor.
_FLAGS = frozenset({"accessed", "modified", "on_update"})
#: The session's key of messages that are shown once. A page from the store would not show them, so no cache key covers them.
FLASHES = frozenset({"_flashes"})
_NO_KEYS: frozenset[str] = frozenset()


class GivenSession(NamedTuple):
    """The session of a refresh.

    :ivar app: its app; the session of another app that is mounted in it is not changed.
    :ivar values: the values that are in the cache key.
    """

    app: object
    values: Mapping[str, Any]


#: Not empty once a refresh was given a session: until then, requests are spared a lookup.
_GIVING: set[bool] = set()


def give_session(environ: dict[str, Any], app: object, values: Mapping[str, Any]) -> None:
    """Give the request of a refresh a session with only some values in an app. The session is not saved."""
    _GIVING.add(True)
    environ[GIVEN_SESSION] = GivenSession(app, values)


def _receive(context: RequestContext, session: Any) -> None:
    given: GivenSession | None = context.request.environ.get(GIVEN_SESSION)
    if given is not None and given.app is context.app and isinstance(session, dict):
        # Not by the methods of its class, which would mark it as modified.
        dict.update(session, deepcopy(dict(given.values)))


def watch_opened(context: RequestContext, session: Any) -> None:
    """Begin to watch a session that a context has opened, if its class can be watched. Its log is created when it is first used."""
    if getattr(context, _WATCHED, None) is not None:
        # The context is pushed again. It may have another session by now.
        return
    watched = _OF_FLASK.get(type(session))
    # The sessions of nearly all requests first, since every hit gets here.
    if watched is not None and has_flasks_sessions(context.app):
        if _GIVING:
            _receive(context, session)
        session.__class__ = watched
        context._stalecache_session = session  # type: ignore[attr-defined]
    elif is_watched(session):
        # The context is a copy of another one.
        context._stalecache_session = session  # type: ignore[attr-defined]
    elif loads_sessions_only(context.app, session):
        if _GIVING:
            _receive(context, session)
        if _begin(session):
            context._stalecache_session = session  # type: ignore[attr-defined]


def is_watched(session: Any) -> bool:
    """Whether a session is of a class that records what is done to it."""
    return getattr(type(session), "stalecache_is_watched", False)


def _begin(session: Any) -> bool:
    """Watch a session from now on. Return whether its class allows it."""
    kind: Any = type(session)
    try:
        watched_class = kept_by_class(kind, "_stalecache_watched", _watched_classes)
        session.__class__ = watched_class(tuple(sorted(session.__dict__.keys() - _FLAGS)))
    except (AttributeError, TypeError):
        return False
    return True


def end_watch(context: RequestContext, session: Any) -> None:
    """Give a session its own class back. Later reads are not recorded."""
    log = vars(context)[_LOG] = _log(session)
    log.is_ended = True
    del session.__dict__[_LOG]
    session.__class__ = type(session).__mro__[1]


def watch_again(context: RequestContext, log: SessionLog) -> None:
    """Watch a session again that was handed out to code."""
    session = session_of(context)
    log.is_ended = not _begin(session)
    if not log.is_ended:
        session.__dict__[_LOG] = log


def go_on_watching(context: RequestContext, log: SessionLog, session: Any) -> None:
    """Watch a session that replaces the one with this log, and has the same values."""
    if not log.is_ended and _begin(session):
        session.__dict__[_LOG] = log
        context._stalecache_session = session  # type: ignore[attr-defined]


def hand_out_session(context: RequestContext, session: Any, frame: FrameType) -> Any:
    """Return the session to code that gets it from a context. Outside the framework, that counts as a read of the whole session.

    :param frame: the frame of the code.
    """
    if not is_watched(session):
        return session
    # Flask's proxy gets it for each operation, which calls a watched method. But code may also get the session from the proxy.
    if frame.f_code.co_name == "_get_current_object" and frame.f_back is not None:
        frame = frame.f_back
    receiver = outside_caller(frame)
    if receiver is not None and not is_exempt(receiver, WHOLE):
        log = _log(session)
        log.whole = log.whole or receiver or "a template"
        end_watch(context, session)
    return session


def log_of(context: RequestContext) -> SessionLog | None:
    """Return the log of a request's session; ``None`` if it was never watched, or if the request has another session by now."""
    state, session = vars(context), session_of(context)
    if session is not state.get(_WATCHED):
        return None
    log: SessionLog | None = state.get(_LOG)
    # If a copy of the context has handed it out, the log is there.
    if log is None and is_watched(session):
        log = state[_LOG] = _log(session)
    return log


def holds_key(context: RequestContext, environ: dict[str, Any], keys: tuple[str, ...]) -> bool:
    """Whether the visitor's session has one of some keys, has had it, or may have it."""
    state: Any = context.__dict__
    session = session_of(context)
    if session is state.get(_WATCHED):
        log: SessionLog | None = state.get(_LOG) or session.__dict__.get(_LOG)
        # is_watched() written out, since every hit gets here.
        if log is None and getattr(type(session), "stalecache_is_watched", False):
            # Nothing was read or changed since it was opened.
            return not dict.keys(session).isdisjoint(keys)
        if log is not None:
            return not all(names.isdisjoint(keys) for names in (log.opened, log.found, dict.keys(session)))
    return "HTTP_COOKIE" in environ or bool(session)


def names_read(log: SessionLog, session: Any, cookie: str, covered: SessionReads, *, is_new: bool) -> RequestInputs:
    """Return the names that were read of a session: its keys, or its cookie for reads that keys can't describe.

    :param cookie: the name of its cookie.
    :param covered: the reads that the cache key covers.
    :param is_new: the request has no cookie of this name.
    """
    if log.whole and not covered.whole:
        return RequestInputs(cookies=(cookie,))
    read = [key for key in log.keys if key in FLASHES or not (covered.whole or key in covered.names)]
    # For these, the cookie counts: a hook has missed the key and then set it, as for every new visitor, or a new session had it.
    told = {
        key
        for key in read
        if (is_new and key in log.opened and key not in log.written)
        or (not log.is_of(key) and (key in log.written or dict.__contains__(session, key)))
    }
    return RequestInputs((cookie,) if told else (), session=tuple(sorted(key for key in read if key not in told)))


def plain_values(session: Any) -> Any:
    """Return a session's values for copying, without recording a read."""
    return _unwatched(session) if is_watched(session) else session


# -- the class of watched sessions -------------------------------------------------------------------------------------

_BY_KEY = ("__getitem__", "__contains__", "get", "pop", "setdefault", "__delitem__")
_CHANGES = frozenset({"pop", "setdefault", "__delitem__"})
_AS_A_WHOLE = (
    "__iter__", "__reversed__", "__or__", "__ror__", "__eq__", "__ne__", "__repr__", "__reduce_ex__", "__reduce__", "__copy__",
    "__deepcopy__", "__sizeof__", "__str__", "__format__", "__bool__", "copy", "items", "keys", "values",
)  # fmt: skip


def _watched_classes(base: type) -> Callable[[tuple[str, ...]], type]:
    """Return a function that returns the watched class for the attributes of an instance, and remembers the latest ones."""
    return lru_cache(maxsize=64)(partial(_watched_class, base))


def _watched_class(base: type, attributes: tuple[str, ...]) -> type:
    """Return a class whose methods record reads and changes.

    :param attributes: the attributes of the instance that may identify the visitor, such as the id of a session on the server.
    """
    members: dict[str, Any] = {name: _by_key(base, name) for name in _BY_KEY}
    members.update({name: _as_a_whole(name) for name in _AS_A_WHOLE if hasattr(base, name)})
    members.update({name: _attribute(name) for name in attributes})
    members.update({name: change(base) for name, change in _OTHERS.items()})
    members |= {
        "stalecache_is_watched": True,
        "__len__": _length,
        "popitem": _popitem,
        "modified": property(_modified, _set_modified),
    }
    return type(base.__name__, (base,), {"__module__": base.__module__, **members})


def _log(session: Any) -> SessionLog:
    log: SessionLog | None = session.__dict__.get(_LOG)
    if log is None:
        log = session.__dict__[_LOG] = SessionLog(frozenset(dict.keys(session)) if dict.__len__(session) else _NO_KEYS)
    return log


def _unwatched(session: Any) -> Any:
    """Return a copy of a session that is not watched."""
    base: Any = type(session).__mro__[1]
    plain = base.__new__(base)
    plain.__dict__.update({name: value for name, value in session.__dict__.items() if name != _LOG})
    dict.update(plain, dict.items(session))
    return plain


def _by_key(base: type, method: str) -> Callable[..., Any]:
    original, changes = getattr(base, method), method in _CHANGES

    def read(self: Any, key: Any, *args: Any, **kwargs: Any) -> Any:
        log, is_there = _log(self), dict.__contains__(self, key)
        log.read(key, is_there=is_there)
        if changes and is_there is not (method == "setdefault"):
            log.written.add(key)
        return original(self, key, *args, **kwargs)

    return read


def _as_a_whole(method: str) -> Callable[..., Any]:
    def read(self: Any, *args: Any, **kwargs: Any) -> Any:
        _log(self).read_whole()
        plain = [plain_values(other) for other in args]
        return getattr(_unwatched(self), method)(*plain, **kwargs)

    return read


def _attribute(name: str) -> property:
    def read(self: Any) -> Any:
        _log(self).read_whole()
        return self.__dict__[name]

    def write(self: Any, value: Any) -> None:
        self.__dict__[name] = value

    return property(read, write)


def _modified(session: Any) -> Any:
    return session.__dict__.get("modified", False)


def _set_modified(session: Any, value: Any) -> None:
    # Flask's own classes set it after each change by key. Other code sets it after it has changed a value in place.
    if value and sys._getframe(1).f_code.co_name != "on_update":
        _log(session).is_rewritten = True
    session.__dict__["modified"] = value


def _length(session: Any) -> int:
    # Flask's own interface checks whether a session is empty before it saves it.
    if sys._getframe(1).f_code is not SAVE_SESSION:
        _log(session).read_whole()
    return dict.__len__(session)


def _popitem(session: Any) -> tuple[Any, Any]:
    keys = list(dict.keys(session))
    _log(session).read_whole()
    # An empty session raises the error of Flask's own class.
    return (keys[-1], session.pop(keys[-1])) if keys else _unwatched(session).popitem()


def _setting(base: Any) -> Callable[..., None]:
    def __setitem__(self: Any, key: Any, value: Any) -> None:
        _log(self).written.add(key)
        base.__setitem__(self, key, value)

    return __setitem__


def _clearing(base: Any) -> Callable[..., None]:
    def clear(self: Any) -> None:
        _log(self).is_rewritten = True
        base.clear(self)

    return clear


def _updating(base: Any) -> Callable[..., None]:
    def update(self: Any, *args: Any, **kwargs: Any) -> None:
        values = dict(*args, **kwargs)
        _log(self).written.update(values)
        base.update(self, values)

    return update


def _merging(base: Any) -> Callable[..., Any]:
    def __ior__(self: Any, other: Any) -> Any:
        self.update(other)
        return self

    return __ior__


_OTHERS: dict[str, Callable[[Any], Any]] = {
    "__setitem__": _setting,
    "clear": _clearing,
    "update": _updating,
    "__ior__": _merging,
}

#: The session classes of Flask's own interface, and their watched subclasses.
_OF_FLASK: dict[type, type] = {kind: _watched_class(kind, ()) for kind in FLASKS_SESSIONS}
