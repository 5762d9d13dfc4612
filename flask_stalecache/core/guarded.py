"""Lets methods hold the mutex of their object, so that no exception leaves it held. Pure: it creates no lock and no thread.

A signal's handler may raise between any two steps. A ``with`` over a lock is safe from that: the interpreter runs no handler
between taking the lock and the block, nor between the block and the release. With the whole statement on one line, a debugger or
tool that raises at the start of a line can't raise between these steps either. ``threading.Condition`` and ``threading.Event`` are
not safe: they take their lock in Python code.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar


class HasMutex(Protocol):
    """An object with a mutex."""

    @property
    def _mutex(self) -> AbstractContextManager[Any]: ...


S = TypeVar("S", bound=HasMutex)
P = ParamSpec("P")
T = TypeVar("T")


def guarded(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Let a method hold the mutex of its object."""

    @wraps(method)
    def hold(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._mutex: return method(self, *args, **kwargs)  # noqa: E701  # fmt: skip

    return hold
