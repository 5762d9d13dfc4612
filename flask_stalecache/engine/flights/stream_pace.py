"""The speed at which a streamed answer is read. Other requests wait for its end only as long as its reader keeps up."""

from __future__ import annotations

import time

#: Seconds that the reader of a stream may take for all of it until the requests that wait for its end stop waiting.
READER_PATIENCE = 1.0


class StreamPace:
    """The time that the reader of a stream has taken so far. The thread of the stream writes it, and any thread may read it.

    A server asks for the next chunk once the client has taken the last one. So the time from a chunk to the next request for one
    is the client's, and all other time is the origin's, which may take as long as it needs.
    """

    __slots__ = ("_since", "_taken")

    def __init__(self) -> None:
        self._taken = 0.0
        self._since: float | None = time.monotonic()

    def asked(self) -> None:
        """Note that the reader asks for the next chunk."""
        if self._since is not None:
            self._taken += time.monotonic() - self._since
            self._since = None

    def given(self) -> None:
        """Note that the reader has got a chunk."""
        self._since = time.monotonic()

    @property
    def taken(self) -> float:
        """Seconds that the reader has taken so far."""
        since = self._since
        return self._taken if since is None else self._taken + time.monotonic() - since

    @property
    def left(self) -> float:
        """Seconds until the reader may count as slow; 0 if it does."""
        return max(0.0, READER_PATIENCE - self.taken)
