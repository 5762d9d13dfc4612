"""Records which values of a session are read, so that a key made from one value does not cover the others.

It is for sessions whose interfaces may do more than load the values. All others are watched from the moment when they are opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ....core.kept_by_class import kept_by_class
from ...flask_internals.sessions import SESSION_BOOKKEEPING
from ...observation.session_log import SessionReads

_FLAGS = frozenset({"accessed", "modified", "new", "permanent"})
_BY_NAME = ("__getitem__", "__contains__", "get", "pop", "setdefault")
_AS_A_WHOLE = (
    "__iter__",
    "__reversed__",
    "__ror__",
    "__len__",
    "__eq__",
    "__ne__",
    "__repr__",
    "__or__",
    "copy",
    "items",
    "keys",
    "popitem",
    "values",
)


@contextmanager
def watched_session(session: Any) -> Iterator[SessionReads]:
    """Record the reads of a session.

    The session object itself gets another class for this time, since Flask hands it out to all code that uses it, and saves it
    later.
    """
    reads, base = SessionReads(), type(session)
    outer = getattr(session, "_stalecache_reads", None)
    if outer is not None or not hasattr(session, "__dict__"):
        reads.whole = True
        if outer is not None:
            # A cached view within a cached view: for both, all of the session counts as read.
            outer.whole = True
        yield reads
        return
    session.__dict__["_stalecache_reads"] = reads
    try:
        session.__class__ = kept_by_class(base, "_stalecache_recorded", _recorded_class)
    except TypeError:
        reads.whole = True
    try:
        yield reads
    finally:
        session.__class__ = base
        del session.__dict__["_stalecache_reads"]


def _recorded_class(base: type) -> type:
    methods: dict[str, Any] = {name: _noting_name(base, name) for name in _BY_NAME if hasattr(base, name)}
    methods.update({name: _noting_all(base, name) for name in _AS_A_WHOLE if hasattr(base, name)})
    methods["__getattribute__"] = _noting_attribute(base)
    return type(base.__name__, (base,), {"__module__": base.__module__, **methods})


def _noting_name(base: type, method: str) -> Callable[..., Any]:
    original = getattr(base, method)

    def read(self: Any, name: Any, *args: Any, **kwargs: Any) -> Any:
        # Showing flashed messages also changes the session, which its flag shows.
        if name not in SESSION_BOOKKEEPING:
            self._stalecache_reads.names.add(name)
        return original(self, name, *args, **kwargs)

    return read


def _noting_attribute(base: type) -> Callable[..., Any]:
    """Record reads of attributes too, such as the id of a session that is kept on the server."""
    original: Any = base.__getattribute__

    def read(self: Any, name: str) -> Any:
        if not name.startswith("_") and name not in _FLAGS and not callable(getattr(base, name, None)):
            self._stalecache_reads.names.add(f".{name}")
        return original(self, name)

    return read


def _noting_all(base: type, method: str) -> Callable[..., Any]:
    original = getattr(base, method)

    def read(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._stalecache_reads.whole = True
        return original(self, *args, **kwargs)

    return read
