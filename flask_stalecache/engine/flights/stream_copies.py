"""Copies of streamed bodies: each is stored once its reader has taken all of it. All copies of a process share one limit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from weakref import WeakSet

from ...core.guarded import guarded
from .stream_pace import StreamPace


class StreamCopy:
    """The copy of one body. The thread that reads the body adds to it; another copy may push it out.

    :param copies: all copies of the process.
    :param pace: how fast its reader is.
    """

    __slots__ = ("__weakref__", "_copies", "kept", "pace")

    def __init__(self, copies: StreamCopies, pace: StreamPace) -> None:
        self._copies = copies
        self.pace = pace
        #: ``None`` once it was given up. No list of chunks: small ones would take many times their size.
        self.kept: bytearray | None = bytearray()

    def add(self, chunk: bytes) -> bool:
        """Add a chunk. Return false if the copy was given up, since all copies together are too large."""
        return self._copies.add(self, chunk)

    def end(self) -> bytes | None:
        """Return what was copied, and forget it; ``None`` if the copy was given up."""
        kept = self._copies.remove(self)
        return None if kept is None else bytes(kept)


class StreamCopies:
    """The copies under way in one process.

    If they are larger together than the limit, the one with the slowest reader is given up: visitors choose how slowly they read,
    and must not fill the memory with copies that are stored hours later, or never.

    :param limit: the size of all copies together, in bytes.
    :param given_up: called for each copy that is given up.
    """

    def __init__(self, limit: int, given_up: Callable[[], object]) -> None:
        self._limit = limit
        self._given_up = given_up
        self._size = 0
        self._mutex = threading.Lock()
        # Weak: a server may drop a body without closing it.
        self._copies: WeakSet[StreamCopy] = WeakSet()

    def begin(self, pace: StreamPace) -> StreamCopy:
        """Return a new copy, which is empty.

        :param pace: how fast its reader is.
        """
        copy = StreamCopy(self, pace)
        self._note(copy)
        return copy

    @guarded
    def _note(self, copy: StreamCopy) -> None:
        self._copies.add(copy)

    @guarded
    def add(self, copy: StreamCopy, chunk: bytes) -> bool:
        """Add a chunk to a copy. Return false if the copy was given up."""
        if copy.kept is None:
            return False
        copy.kept += chunk
        self._size += len(chunk)
        if self._size > self._limit:
            self._shrink()
        return copy.kept is not None

    @guarded
    def remove(self, copy: StreamCopy) -> bytearray | None:
        """Remove a copy, and return what was kept; ``None`` if it was given up."""
        kept = copy.kept
        self._forget(copy)
        return kept

    def _shrink(self) -> None:
        # The sum still includes the copies of bodies that a server dropped without closing them.
        self._size = sum(len(copy.kept or b"") for copy in self._copies)
        while self._size > self._limit:
            self._given_up()
            self._forget(max(self._copies, key=lambda copy: copy.pace.taken))

    def _forget(self, copy: StreamCopy) -> None:
        if copy.kept is not None:
            self._copies.discard(copy)
            self._size -= len(copy.kept)
            copy.kept = None
