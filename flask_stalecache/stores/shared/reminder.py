"""Repeats purges that the shared server may have lost: in a failover, or with all of its memory.

Hard purges keep their numbers when they are repeated, so that a host that has applied them has nothing to do, and keeps the entries
that it has made since. Soft purges need not be repeated when the server has lost its memory: all freshness ends then anyway.
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
    """Repeats the purges of one host at the server.

    :param files: the cache directory.
    :param known: what this host knows of the server.
    :param logs: the logs.
    """

    def __init__(self, files: FileStore, known: Known, logs: SharedLogs) -> None:
        self._files = files
        self._known = known
        self._logs = logs

    def above(self) -> int:
        """Return a number of the server that is above those of all purges on this host."""
        return number_above(self._files.seq()) + 1

    def say_all(self) -> int:
        """Repeat all hard purges that this host has recorded, and return how many of them the server lacked."""
        return self._say(0)

    def say_since(self, number: int) -> bool:
        """Repeat the purges of this host that are above the highest number of the server; return whether there are any."""
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
        """Repeat the hard purges above a number, and return how many of them the server lacked."""
        purges, merged = self._files.hard_purges()
        found = {name: shared_number(each) for name, each in purges.items() if number_above(each) > number}
        last = shared_number(merged) if number_above(merged) > number else 0
        return self._logs.say(self._known.host_id(), found, above=self.above(), merged=last) if found or last else 0

    def left_of(self, logged: Logged) -> Purge:
        """Return a purge of the log without the names for which this host has applied the original purge already."""
        purge = logged.purge
        if logged.merged > self._known.applied_before:
            # The names of these purges are not known any more, and this host may have missed some of them.
            return purge._replace(names=(EVERYTHING,), at=time.time())
        if not logged.were:
            return purge
        pairs = zip(purge.names, logged.were, strict=True)
        return purge._replace(names=tuple(name for name, was in pairs if not self._files.has_purged(name, local_number(was))))
