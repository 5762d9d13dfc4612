"""The app context of a caller, in which calls for everybody run: with its database session, but without the visitor's data.

A call sees neither the request nor its session, nor the values that the caller has put into ``g``. Only objects with a ``close()``
method, such as a database connection, are shared, in both directions:

====================================== ============================== ====================================================
in ``g``                               during the call                afterwards, in the caller's ``g``
====================================== ============================== ====================================================
the caller's connection                there                          there, unless the call has removed it
other values of the caller             absent                         as they were
a connection that the call opens       there                          there, so that the caller's teardown closes it
other values of the call               there                          absent
====================================== ============================== ====================================================

A caller may have begun a transaction before a purge. So its calls count as begun when its context began.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import IOBase
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, NamedTuple, TypeVar

from flask import Flask
from werkzeug.datastructures import FileStorage
from werkzeug.sansio.request import Request
from werkzeug.sansio.response import Response

from ...engine.origin import Start
from ..flask_internals.contexts import can_hide_caller, hide_caller, outer_context, own_globals

T = TypeVar("T")

#: Classes of objects that have a ``close()`` but belong to the request.
_VISITORS = (Request, Response, FileStorage, IOBase, GeneratorType, CoroutineType, AsyncGeneratorType)
_BEGAN = "stalecache_began"


class Began(NamedTuple):
    """The beginning of an app context.

    :ivar thread: the thread that it belongs to.
    :ivar seq: the number of the last purge before it.
    :ivar at: seconds since the epoch.
    """

    thread: int
    seq: int
    at: float


def note_beginnings(app: Flask, seq: Callable[[], int]) -> None:
    """Have the contexts of an app record when they begin. A hook would cost more.

    :param seq: returns the number of the last purge.
    """
    kind: Any = app.app_ctx_globals_class
    if not isinstance(kind, type) or hasattr(kind, _BEGAN):
        return

    has_own = any("__init__" in vars(base) for base in kind.__mro__[:-1])

    def __init__(self: Any) -> None:
        if has_own:
            super(noting, self).__init__()
        # A bare tuple, since every request gets here.
        note(self, (threading.get_ident(), seq(), time.time()))

    members = {"__slots__": (_BEGAN,), "__init__": __init__, "__module__": kind.__module__, "__doc__": kind.__doc__}
    noting: Any = type(kind.__name__, (kind,), members)
    # The slot's own setter, since Flask's class puts attributes into a dictionary.
    note = getattr(noting, _BEGAN).__set__
    app.app_ctx_globals_class = noting


@contextmanager
def noting_beginnings(app: Flask, seq: Callable[[], int]) -> Iterator[None]:
    """Have the contexts of an app record when they begin, in this block with the purge numbers of another store."""
    kind: Any = app.app_ctx_globals_class
    if hasattr(kind, _BEGAN):
        app.app_ctx_globals_class = kind.__base__
    note_beginnings(app, seq)
    try:
        yield
    finally:
        app.app_ctx_globals_class = kind


def note_own_purge(before: int, after: int) -> None:
    """Record a purge in the context that made it: its calls count as begun after it, unless there was another purge meanwhile.

    :param before: the number of the last purge before it.
    :param after: the number of the last purge by now.
    """
    context = outer_context()
    own = None if context is None else own_globals(context)
    began = _beginning_of(own)
    if began is not None and began.seq >= before and began.thread == threading.get_ident():
        getattr(type(own), _BEGAN).__set__(own, began._replace(seq=after))


def _beginning_of(own_globals: object) -> Began | None:
    noted = getattr(own_globals, _BEGAN, None)
    return None if noted is None else Began(*noted)


class CallerContext:
    """The app context of a caller.

    :ivar began: its beginning.
    """

    def __init__(self, context: Any, began: Began) -> None:
        self.began = began
        self._context = context
        #: In a call that is made by another call, it is not the ``g`` that the context was made with.
        self._globals = context.g

    @classmethod
    def of(cls, app: Flask) -> CallerContext | None:
        """Return the context that a call of this app may share with its caller.

        ``None`` outside of a context, and in a thread that the context does not belong to: two threads must not use one database
        session. A thread with an event loop stands in for the thread that waits for it. ``None`` too if ``g`` can't be hidden.
        """
        context = outer_context()
        if context is None or context.app is not app:
            return None
        own = own_globals(context)
        began = _beginning_of(own)
        if began is None or not (began.thread == threading.get_ident() or _runs_event_loop()):
            return None
        if not hasattr(own, "__dict__") or not can_hide_caller(context):
            return None
        return cls(context, began)

    def begun_with(self, start: Start, longest: float) -> Start:
        """Return the facts of a call that counts as begun when the context began.

        :param longest: seconds after which a context is taken for that of a shell or a daemon, whose transactions come and go. Its
            calls count as begun when they began, but are still not stored if something was purged since the context began.
        """
        is_short = 0 <= start.started - self.began.at <= longest
        return start._replace(seq=min(start.seq, self.began.seq), started=self.began.at if is_short else start.started)

    def enter(self, function: Callable[[], T], url_adapter: object) -> T:
        """Call a function in the context. The current context variables must be the call's own: they are changed.

        :param url_adapter: builds its URLs.
        """
        theirs = vars(self._globals)
        shared = {name: value for name, value in theirs.copy().items() if is_connection(value)}
        ours = self._context.app.app_ctx_globals_class()
        vars(ours).update(shared)
        hide_caller(self._context, ours, url_adapter)
        try:
            return function()
        finally:
            _hand_over(vars(ours), shared, theirs)


def _hand_over(ours: dict[str, Any], shared: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Hand over to the caller the connections that a call has opened, and remove those that the call has removed."""
    for name, value in shared.items():
        if name not in ours and theirs.get(name) is value:
            del theirs[name]
    for name, value in ours.items():
        # A value that the caller has put there itself stays, unless it is a shared connection.
        is_free = theirs.get(name) is None or theirs[name] is shared.get(name)
        if is_free and value is not shared.get(name) and _has_close(value):
            theirs[name] = value


def is_connection(value: object) -> bool:
    """Whether a value of ``g`` is closed at teardown, such as the connection to a database."""
    # By isinstance(), which sees through proxies.
    return not isinstance(value, _VISITORS) and _has_close(value)


def _has_close(value: object) -> bool:
    try:
        return callable(getattr(value, "close", None))
    except Exception:
        # A proxy without an object, or code of the developer's.
        return False


def _runs_event_loop() -> bool:
    asyncio = sys.modules.get("asyncio")
    try:
        return asyncio is not None and asyncio.get_running_loop() is not None
    except RuntimeError:
        return False
