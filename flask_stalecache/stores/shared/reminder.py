"""Repeats purges that the shared server may have lost, in a failover or with its memory.

Hard purges keep their numbers when they are said again, so that a host that has applied them has nothing to do, and keeps what it
has made since. Soft ones need not be said when the server has lost its memory: then all freshness ends anyway.
"""

from __future__ import annotations

import logging
import time

from ...core.addressing.purge_names import EVERYTHING
from ..file_store import FileStore
from ..purges.purge_record import Purge
from .known import Known, local_number, number_above, shared_number
from .logs import Logged, SharedLogs

logger = logging.getLogger("flask_stalecache")


class Reminder:
    """Reminds the server of the purges of one host.

    :param files: the cache directory.
    :param known: what its processes know of the server.
    :param logs: the logs.
    """

    def __init__(self, files: FileStore, known: Known, logs: SharedLogs) -> None:
        self._files = files
        self._known = known
        self._logs = logs

    def above(self) -> int:
        """Return a number that is above all purges here."""
        return number_above(self._files.seq()) + 1

    def say_all(self) -> int:
        """Say all hard purges that this host knows, and return how many of them the server did not know."""
        return self._say(0)

    def say_since(self, number: int) -> bool:
        """Say the purges of this host again that are above the highest number of the server; return whether there are any."""
        lost = [each for each in self._files.purges_since(local_number(number) + 999) if number_above(each.number) > number]
        if not lost:
            return False
        logger.warning("the shared server lacks purges that this host has made or applied: they are repeated for all hosts")
        self._say(number)
        names = dict.fromkeys(name for purge in lost if purge.soft for name in purge.names)
        if names:
            self.purge(tuple(names), True)
        return True

    def purge(self, names: tuple[str, ...], soft: bool) -> None:
        """Purge on all hosts, here too, once they read the log."""
        known = self._known
        self._logs.purge(known.host_id(), names, soft=soft, above=self.above(), applied=known.applied)

    def _say(self, number: int) -> int:
        """Say the hard purges above a number."""
        purges, merged = self._files.hard_purges()
        found = {name: shared_number(each) for name, each in purges.items() if number_above(each) > number}
        last = shared_number(merged) if number_above(merged) > number else 0
        return self._logs.say(self._known.host_id(), found, above=self.above(), merged=last) if found or last else 0

    def left_of(self, logged: Logged) -> Purge:
        """Return a purge of the log without the names that were purged here already when it was made for the first time."""
        purge = logged.purge
        if logged.merged > self._known.applied_before:
            # Nobody knows the names any more, and this host was away at that time.
            return purge._replace(names=(EVERYTHING,), at=time.time())
        if not logged.were:
            return purge
        pairs = zip(purge.names, logged.were, strict=True)
        return purge._replace(names=tuple(name for name, was in pairs if not self._files.has_purged(name, local_number(was))))
