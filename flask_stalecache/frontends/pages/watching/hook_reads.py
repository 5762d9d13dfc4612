"""Reads of a request by hooks that run before a cached view and only set values in ``g``.

A hit runs these hooks too. So their reads make a page personal only if the view then reads a value of ``g`` that was there. Any
other hook may have set something else, such as a context variable, so its reads count.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from ....core.kept_by_class import kept_by_class
from ...flask_internals.contexts import RequestContext, outer_context, request_context
from ...observation.read_log import ReadLog
from ...observation.session_log import KeysApart
from ...observation.watched_session import log_of
from .watch import reads_of

#: On the request: the reads of such hooks that do not count yet.
_APART = "_stalecache_hook_reads"


class _Reads(NamedTuple):
    log: ReadLog
    session: KeysApart


def count_hook_reads(context: RequestContext) -> None:
    """Count the reads of such hooks that were kept apart so far."""
    read: list[_Reads] = context.request.__dict__.pop(_APART, [])
    for reads in read:
        reads_of(context).add(reads.log)
        if (session := log_of(context)) is not None:
            session.count(reads.session)


def has_hook_reads(context: RequestContext) -> bool:
    """Whether there are reads of such hooks that do not count yet."""
    return _APART in context.request.__dict__


def calling_apart(context: RequestContext, function: Callable[[], Any], is_for_page: Callable[[RequestContext], bool]) -> Any:
    """Call a function that only sets values in ``g``, and keep its reads apart. If it raises, they count.

    :param is_for_page: whether a request is for a page that is stored by the app itself. For other requests, all reads count.
    """
    session = log_of(context) if is_for_page(context) else None
    if session is None:
        return function()
    reads = None
    try:
        with reads_of(context).set_aside() as log, session.apart() as keys:
            reads = context.request.__dict__.setdefault(_APART, [])
            answer = function()
    except BaseException:
        if reads is not None:
            reads.append(_Reads(log, keys))
            count_hook_reads(context)
        raise
    reads.append(_Reads(log, keys))
    return answer


class SetsG:
    """A hook before requests that only sets values in ``g``.

    :param hook: the hook.
    :param is_for_page: as :func:`calling_apart` takes it.
    """

    def __init__(self, hook: Callable[..., Any], is_for_page: Callable[[RequestContext], bool]) -> None:
        self.hook = hook
        self._is_for_page = is_for_page
        self.__wrapped__ = hook
        self.__name__ = getattr(hook, "__name__", "hook")

    def __call__(self) -> Any:
        """Call the hook. If it answers the request itself, its reads count."""
        context = request_context()
        answer = calling_apart(context, self.hook, self._is_for_page)
        if answer is not None:
            count_hook_reads(context)
        return answer


# -- reads of g ----------------------------------------------------------------------------------------------------------


class GlobalsWatch:
    """The names in ``g`` that were there before a view, and whether it has read them.

    :param names: the names that the app has set.
    :param marks: the names of marks.
    :ivar is_read: one of the names was read.
    :ivar is_mark_read: one of the marks was read.
    """

    __slots__ = ("is_mark_read", "is_read", "marks", "names")

    def __init__(self, names: frozenset[str], marks: frozenset[str]) -> None:
        self.names = names
        self.marks = marks
        self.is_read = self.is_mark_read = False


_watches: ContextVar[tuple[GlobalsWatch, ...]] = ContextVar("stalecache_globals", default=())
#: Modules that read all values in ``g`` for their own use, which does not count.
_OWN = ("flask_stalecache.", "flask.ctx")


@contextmanager
def globals_watched(marks: frozenset[str]) -> Iterator[GlobalsWatch]:
    """Watch which of the values that are in ``g`` now are read.

    :param marks: the names of marks.
    """
    outer = outer_context()
    own: Any = None if outer is None else outer.g
    if not hasattr(own, "__dict__"):
        watch = GlobalsWatch(frozenset(), marks)
        watch.is_read = watch.is_mark_read = True
        yield watch
        return
    kind, watch = type(own), GlobalsWatch(frozenset(vars(own)) - marks, marks)
    token = _watches.set((*_watches.get(), watch))
    try:
        # The __setattr__ of ``g`` would put the class among its values.
        object.__setattr__(own, "__class__", kept_by_class(kind, "_stalecache_watched", _watched_kind))
    except TypeError:
        watch.is_read = watch.is_mark_read = True
    try:
        yield watch
    finally:
        object.__setattr__(own, "__class__", kind)
        _watches.reset(token)


def _note(name: str | None) -> None:
    for watch in _watches.get():
        if name is None or name in watch.names:
            watch.is_read = True
        if name is None or name in watch.marks:
            watch.is_mark_read = True


def _watched_kind(kind: Any) -> Any:
    if hasattr(kind, "stalecache_is_watched"):
        return kind

    def __getattribute__(self: Any, name: str) -> Any:
        if name != "__dict__":
            _note(name)
        elif not str(sys._getframe(1).f_globals.get("__name__", "")).startswith(_OWN):
            _note(None)
        return kind.__getattribute__(self, name)

    def by_name(method: str) -> Callable[..., Any]:
        original = getattr(kind, method)

        def read(self: Any, name: str, *args: Any) -> Any:
            _note(name)
            return original(self, name, *args)

        return read

    def all_names(method: str) -> Callable[..., Any]:
        original = getattr(kind, method)

        def read(self: Any) -> Any:
            _note(None)
            return original(self)

        return read

    members: dict[str, Any] = {name: by_name(name) for name in ("get", "pop", "setdefault", "__contains__")}
    members |= {name: all_names(name) for name in ("__iter__", "__repr__")}
    return type(
        kind.__name__,
        (kind,),
        {
            "__slots__": (),
            "__module__": kind.__module__,
            "stalecache_is_watched": True,
            "__getattribute__": __getattribute__,
            **members,
        },
    )
