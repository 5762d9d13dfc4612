"""Starts threads. If the system allows no more, this is logged once a minute, and the caller goes on without one."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from ..log import RateLimitedLog

#: All pools of a process meet the same limit, so they share one line.
_complaints = RateLimitedLog()


def start_thread(purpose: str, target: Callable[..., object], *args: Any) -> threading.Thread | None:
    """Start a daemon thread, and return it; ``None`` if that was not possible.

    :param purpose: its purpose, for its name and the log.
    :param target: the function that it runs.
    :param args: the arguments of that function.
    """
    try:
        thread = threading.Thread(target=target, args=args, name=f"stalecache-{purpose}", daemon=True)
        thread.start()
    except RuntimeError as error:
        # At the end of the process no thread can be started, and nothing is lost.
        if not sys.is_finalizing():
            _complaints.error_every_minute(
                "threads",
                "a thread for %s could not be started (%s): raise the limit of the process, its user (ulimit -u) or its container "
                "(pids); until then pages are served, and refreshes run in line, when the response is closed",
                purpose,
                error,
            )
        return None
    return thread
