"""Ends the freshness of a host's entries if the host has not heard the shared server for too long: others may have purged them.

The first process of the host that notices the silence purges everything softly, on this host only, and again each time that the
same period has passed. So no entry that was made longer ago than that is served as fresh. The stale windows follow as usual. Hits
need no additional check: the purge changes the stamps.
"""

from __future__ import annotations

import logging

from ...core.addressing.purge_names import EVERYTHING
from ...filesystem.uptime import seconds_up
from ..file_store import FileStore
from .known import Known

logger = logging.getLogger("flask_stalecache")


class Deafness:
    """Watches how long one host has not heard the server.

    :param files: the cache directory.
    :param known: what this host knows of the server.
    :param longest: seconds without hearing the server after which freshness ends; ``None``: it does not.
    """

    def __init__(self, files: FileStore, known: Known, longest: float | None) -> None:
        self._files = files
        self._known = known
        self._longest = longest

    def tick(self) -> None:
        """End freshness, if it is time. Called about once a second by each process.

        :raises StoreError: if that can't be done.
        """
        longest, known = self._longest, self._known
        if longest is None or known.silence <= longest:
            return
        # A time that was recorded before the machine was restarted may be ahead.
        passed = seconds_up() - known.ended_at
        if 0 <= passed < longest and known.ended_at:
            return
        is_first = not known.ended_at or passed < 0 or known.silence - longest < longest
        known.ended_at = seconds_up()
        self._files.purge(EVERYTHING, soft=True)
        if is_first:
            logger.warning(
                "this host has not heard the shared server for more than STALECACHE_SHARED_MAX_DEAF (%g s), and may have missed "
                "purges: the freshness of all its entries ends now, and every %g s until it hears the server again",
                longest,
                longest,
            )
