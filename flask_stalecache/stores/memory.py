"""The copies that a process holds, within a size; the least used go first (CLOCK)."""

from __future__ import annotations

import threading

from .base import Copy


class Copies:
    """Copies by key, up to ``limit`` bytes. Reading takes no lock: one look into a dict.

    :param limit: bytes of all copies together, by their own estimate.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.clear()

    def get(self, key: str) -> Copy | None:
        """Return the key's copy, whether it still stands or not."""
        return self._copies.get(key)

    def put(self, copy: Copy) -> None:
        """Keep a copy; one that would take more than an eighth of the room is not kept."""
        if copy.size * 8 > self.limit:
            self.discard(copy.key)
            return
        with self._lock:
            self._drop(copy.key)
            self._copies[copy.key] = copy
            self._size += copy.size
            self._evict()

    def discard(self, key: str) -> None:
        """Forget a key's copy."""
        with self._lock:
            self._drop(key)

    def clear(self) -> None:
        """Forget everything, locks too: a fork may have left them taken."""
        self._lock = threading.Lock()
        self._copies: dict[str, Copy] = {}
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._size

    def __len__(self) -> int:
        return len(self._copies)

    def _drop(self, key: str) -> None:
        old = self._copies.pop(key, None)
        if old is not None:
            self._size -= old.size

    def _evict(self) -> None:
        # Each round either drops one or clears one's mark, so this ends.
        while self._size > self.limit:
            key, oldest = next(iter(self._copies.items()))
            del self._copies[key]
            if oldest.used:
                oldest.used = False
                self._copies[key] = oldest
            else:
                self._size -= oldest.size
