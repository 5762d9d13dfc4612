"""The state of one request that has to call the origin or wait for a call, and the routes that it can take."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, TypeAlias

from ..core.model.entry import Entry
from ..core.rules.serving import Fetch, Serve
from ..stores.base import Copy
from .flights.singleflight import Lead
from .origin import Origin

#: Seconds between two attempts to take a lock that another process holds.
POLL = 0.025
#: Streams with a slow client that one request waits for, one after the other. Then it calls the origin itself.
MAX_SLOW_STREAMS = 2
#: Seconds that may pass until an origin's answer is stored.
WRITING = 5.0


#: The number of other requests' failures that a request meets before it calls the origin by itself.
MAX_FAILURES = 3


class LeaderAction(Enum):
    """The next step of a leader that has tried to take the lock."""

    #: Call the origin.
    CALL = "call"
    #: Look again: no call is needed any more, or a waiter has taken the flight over.
    AGAIN = "again"
    #: Serve the stale copy: the wait is over.
    STALE = "stale"


class ServeCopy(NamedTuple):
    """Serve the stored copy."""

    copy: Copy
    decision: Serve


class Collapsed(NamedTuple):
    """Serve the copy: it was stored while this request waited for another request's call."""

    copy: Copy


class Bypass(NamedTuple):
    """Call the origin for this request alone: it carries a name that was absent when the entry was made."""


class Seldom(NamedTuple):
    """Call the origin for this request alone, without the lock: there were too few requests for the key so far.

    :ivar uses: the number of requests.
    """

    uses: int


class CallUnlocked(NamedTuple):
    """Call the origin without the lock: the answer is unlikely to be stored, for anyone or for requests like this one."""

    fetch: Fetch


class Queue(NamedTuple):
    """Join or lead the flight of the key."""

    fetch: Fetch


#: The routes that a request can take after a lookup.
Route: TypeAlias = "ServeCopy | Bypass | CallUnlocked | Queue"


@dataclass(slots=True)
class FetchState:
    """A request that has to fetch: the copy that it found, and how long it waits."""

    origin: Origin
    copy: Copy
    fetch: Fetch
    until: float
    #: The number of the last purge when it came.
    seq: int
    #: It has waited for another request's call.
    waited: bool = False
    #: Streams that it has waited for, and whose clients were too slow.
    slow_streams: int = 0
    #: The failures of other requests that it has met.
    met_failures: int = 0
    #: The flights that it leads end with it.
    lead: Lead = field(default_factory=Lead)
    met: Entry | None = field(init=False)
    came: float = field(init=False)

    def __post_init__(self) -> None:
        self.met = self.copy.entry
        self.came = time.time()

    def is_new(self, entry: Entry) -> bool:
        """Whether the entry was stored since the request arrived: not the one it found first, not purged, not an old one."""
        is_another = self.met is None or entry.serial != self.met.serial
        # From the future: stored while the clock was ahead, however long ago.
        is_recent = max(entry.answered, entry.received) >= self.came - WRITING and not entry.is_from_future(time.time())
        return is_another and not entry.ended and is_recent and self.may_share(entry)

    def may_share(self, entry: Entry) -> bool:
        """Whether the entry of another call may be served to this request.

        If each use needs confirmation, the call must have begun after the request arrived (RFC 9111 sections 4, 5.2.2.4). The
        same holds for a request that renews: its client has just changed something.
        """
        return not (entry.needs_confirming or self.origin.terms.renews) or entry.started >= self.came
