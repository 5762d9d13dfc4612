"""One stored result. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from io import FileIO
from typing import Any, Protocol

from .holes import Hole
from .inputs import RequestInputs
from .moments import AHEAD
from .policy import Windows
from .work import NO_WORK, Work


class BodyFile(Protocol):
    """A body in a file instead of in memory."""

    @property
    def length(self) -> int:
        """The number of its bytes."""

    def open(self) -> FileIO | None:
        """Return the file, positioned at the body; ``None`` if it no longer exists."""

    def read(self) -> bytes:
        """Return the body; raise :class:`StoreError` if the file no longer exists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One stored result, with its windows.

    :param key: the full key, which is compared when the entry is read.
    :param serial: a random name for this fill. It distinguishes two fills of one key without a clock.
    :param names: the names by which it can be purged: ``all``, ``endpoint:…``, ``path:…``, ``url:…``, ``tag:…``.
    :param seq: the last purge number when the origin was called.
    :param version: the version of the app that stored it.
    :param deployed: when that app was set up, in seconds since the epoch.
    :param started: when the origin was called, in seconds since the epoch.
    :param answered: when the origin answered. Freshness starts here. Before ``received`` if another cache kept the answer.
    :param received: when the answer was received, in seconds since the epoch.
    :param windows: the three windows, in seconds. Jitter has already shortened the freshness.
    :param never_stale: the response forbids serving it stale (must-revalidate, proxy-revalidate, bare s-maxage).
    :param shared: the response may answer requests with Authorization (RFC 9111 section 3.5).
    :param absent: names that the origin read and that its request did not carry.
    :param varied: request fields to add to ``Vary``.
    :param status: the HTTP status.
    :param headers: the response's fields, without hop-by-hop ones and Content-Length.
    :param body: the bytes of the body.
    :param recipe: the data from which a refresh builds its request.
    :param calls: the keys of the fetch functions' values that it was made from.
    :param by_file: its front end can serve the body from its file, so that a large one need not be kept in memory.
    :param stood_in: it was made with the fallback of a failed call.
    :param holes: the places in the body that are filled for each visitor, in order.
    :param work: how much of its time the origin computed.
    :param file: the file of the body, if it is not in ``body``. Not stored.
    :param called: when the origin was called, in seconds since the start of the machine. Not stored; ``None`` if it was read from a
        store.
    :param ended: its freshness was ended early, such as by a soft purge. Stored with the entry, since a host may have no record of
        another host's purge.
    """

    key: str
    serial: str
    names: tuple[str, ...]
    seq: int
    version: str
    deployed: float = 0.0
    started: float
    answered: float
    received: float = 0.0
    windows: Windows
    never_stale: bool
    shared: bool
    absent: RequestInputs
    varied: tuple[str, ...]
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    recipe: Mapping[str, Any]
    calls: tuple[str, ...] = ()
    stood_in: bool = False
    by_file: bool = False
    ended: bool = False
    holes: tuple[Hole, ...] = ()
    work: Work = field(default=NO_WORK, compare=False)
    file: BodyFile | None = None
    called: float | None = field(default=None, compare=False)

    @property
    def fresh_until(self) -> float:
        """When freshness ends, in seconds since the epoch."""
        return self.answered + self.windows.max_age

    @property
    def length(self) -> int:
        """The size of the body in bytes, in memory or in a file."""
        return len(self.body) if self.file is None else self.file.length

    def in_memory(self) -> Entry:
        """Return the entry with its body in memory.

        :raises StoreError: if the file of the body no longer exists.
        """
        return self if self.file is None else replace(self, body=self.file.read(), file=None)

    def age(self, now: float) -> float:
        """Return the seconds since the origin answered; never negative, even if the clock stepped back.

        The age of an entry from the future is unknown. It counts as old enough to be stale.
        """
        return self.windows.max_age if self.is_from_future(now) else max(0.0, now - self.answered)

    def is_from_future(self, now: float) -> bool:
        """Whether the answer was received while the clock was ahead of the present time: see :mod:`.moments`."""
        # Both: an answer that was old when it arrived may have been given at a time that has passed.
        return max(self.answered, self.received) > now + AHEAD

    def is_fresh(self, now: float) -> bool:
        """Whether the entry is fresh (RFC 9111 section 4.2)."""
        # age() and is_from_future() written out, since every hit gets here.
        age = now - self.answered
        if age < 0.0:
            return not self.ended and self.windows.max_age > 0.0 and not self.is_from_future(now)
        return age < self.windows.max_age and not self.ended and self.received <= now + AHEAD

    def in_swr(self, now: float) -> bool:
        """Whether it may be served immediately and refreshed in the background (RFC 5861 section 3)."""
        return self.within(self.windows.stale_while_revalidate, now)

    def in_sie(self, now: float) -> bool:
        """Whether it may be served if the origin fails (RFC 5861 section 4)."""
        return self.within(self.windows.stale_if_error, now)

    def in_any_window(self, now: float) -> bool:
        """Whether it may be served at all: fresh, or in one of its stale windows."""
        return not self.is_from_future(now) and (self.is_fresh(now) or self.in_swr(now) or self.in_sie(now))

    def within(self, window: float, now: float) -> bool:
        """Whether it is in a stale window of so many seconds."""
        # A deploy or a purge may have ended freshness early, so that its age alone could be in a window of 0 seconds.
        return not self.never_stale and window > 0 and self.age(now) < self.windows.max_age + window

    @property
    def may_be_stale(self) -> bool:
        """Whether it may be served stale at all: the response does not forbid it, and there is a stale window."""
        return not self.never_stale and (self.windows.stale_while_revalidate > 0 or self.windows.stale_if_error > 0)

    @property
    def needs_confirming(self) -> bool:
        """Whether the origin must confirm each use: it is never fresh and must not be served stale (RFC 9111 section 5.2.2.4)."""
        return self.never_stale and self.windows.max_age <= 0

    def softly_purged(self, at: float) -> Entry:
        """Return the entry with its freshness ended at a moment, or earlier if it had already ended.

        It does not become fresh again if the clock steps back.
        """
        fresh_for = min(self.windows.max_age, max(0.0, at - self.answered))
        windows = Windows(fresh_for, self.windows.stale_while_revalidate, self.windows.stale_if_error)
        return replace(self, windows=windows, ended=True)

    def outdates(self, other: Entry | None, now: float) -> bool:
        """Whether this fill replaces another one: its origin was called later, or the other one started in the future.

        An entry from the future, stored before the clock stepped back, must not stay forever. A purge between the two fills shows
        their order without a clock.
        """
        if other is None or other.seq < self.seq or other.started <= self.started:
            return True
        return other.started > now or other.is_from_future(now)
