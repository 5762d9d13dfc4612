"""A daemon thread that calls ``tick`` once a second, for work that no request should wait for."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from typing import Protocol

from ...filesystem.per_process import PerProcess
from .threads import start_thread

logger = logging.getLogger("flask_stalecache")

#: Seconds between two rounds.
INTERVAL = 1.0


class Tickable(Protocol):
    """An object that needs housekeeping."""

    def tick(self) -> None:
        """Do one round of work. Called about once a second."""


class Housekeeper:
    """Calls ``tick`` once a second from a daemon thread, which ends when its subject is gone.

    :param subject: the object to call ``tick`` on. The thread does not keep it alive.
    """

    def __init__(self, subject: Tickable) -> None:
        self._subject = weakref.ref(subject)
        self._starters: PerProcess[object] = PerProcess(object)
        self._last_tick = 0.0

    def ensure_running(self) -> None:
        """Start the thread if this process has none yet: at first use, and after a fork.

        If no thread can be started, do a round in the caller's thread instead, if one is due.
        """
        # One thread per process: the caller that sets the value first starts it.
        if not self._starters.set_first(object()):
            return
        if not start_thread("housekeeping", _look_after, self._subject):
            self._starters.clear()
            self.tick_if_due()

    def tick_if_due(self) -> None:
        """Call ``tick`` from the caller's thread, once a second at most: for a process that has no threads."""
        subject, now = self._subject(), time.monotonic()
        if subject is not None and now - self._last_tick >= INTERVAL:
            self._last_tick = now
            _tick(subject)


def _look_after(reference: weakref.ref[Tickable]) -> None:
    pause = threading.Event()
    while not pause.wait(INTERVAL):
        subject = reference()
        if subject is None:
            return
        _tick(subject)
        del subject


def _tick(subject: Tickable) -> None:
    try:
        subject.tick()
    except Exception:
        logger.exception("housekeeping failed")
