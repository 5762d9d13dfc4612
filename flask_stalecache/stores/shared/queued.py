"""Marks the refreshes that wait in a queue of another program, for all hosts: ``q:D`` is a string that expires, D a digest."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ...core.addressing.keys import digest
from ..base import Marking
from .errors_of import Refused, Unavailable
from .known import Known
from .logs import prefix_of


class SharedQueueMarks:
    """The marks of all hosts. If the server can't be used, each host marks for itself.

    :param here: the marks of this host. The server is asked only about refreshes that are not marked here.
    :param command: sends a command to the server.
    :param known: what this host knows of the server.
    :param name: the name of the cache.
    """

    def __init__(self, here: Marking, command: Callable[..., Any], known: Known, name: str) -> None:
        self._here = here
        self._command = command
        self._known = known
        self._prefix = f"{prefix_of(name)}q:"

    def mark(self, name: str, seconds: float) -> float:
        """Mark a refresh as queued, and return 0; if it is marked already, return for how many seconds it still is."""
        left = self._here.mark(name, seconds)
        if left > 0 or self._known.is_down:
            return left
        with suppress(Unavailable, Refused):
            key = self._prefix + digest(name)
            if not self._command("SET", key, self._known.host_id(), "NX", "PX", max(1, int(seconds * 1000))):
                # The mark may have expired meanwhile: then the refresh can be marked a moment later.
                return max(0.1, int(self._command("PTTL", key)) / 1000)
        return 0.0

    def unmark(self, name: str) -> None:
        """Remove a mark."""
        self._here.unmark(name)
        if not self._known.is_down:
            with suppress(Unavailable, Refused):
                self._command("DEL", self._prefix + digest(name))
