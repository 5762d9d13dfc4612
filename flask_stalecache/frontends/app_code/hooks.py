"""Calls the callables that a developer gives us (``unless``, ``tags``, ``key``, ``failures`` …) and survives their errors."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

from ...engine.log import RateLimitedLog

T = TypeVar("T")
D = TypeVar("D")


def ask(hook: Callable[[], T], default: D, log: RateLimitedLog, about: Hashable, message: str, *args: object) -> T | D:
    """Call a hook and return its result. If it raises, log the error with its traceback and return the default.

    A broken hook must never turn a working page into an error, so each caller names a default that is safe to serve.

    :param hook: calls the developer's callable with its arguments, and checks or converts the result.
    :param about: the subject of the log line, which is written at most once a minute.
    :param message: a format string with a placeholder for each of ``args`` and a last one for the exception.
    """
    try:
        return hook()
    except Exception as error:
        log.error_every_minute(about, message, *args, error, exc_info=error)
        return default
