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
        self._shelf = _Shelf(limit)

    def get(self, key: str) -> Copy | None:
        """Return the key's copy, whether it still stands or not."""
        return self._shelf.copies.get(key)

    def put(self, copy: Copy) -> None:
        """Keep a copy; one that would take more than an eighth of the room is not kept."""
        self._shelf.put(copy)

    def discard(self, key: str) -> None:
        """Forget a key's copy."""
        self._shelf.discard(key)

    def clear(self) -> None:
        """Forget everything, the lock too: a fork may have left it taken."""
        self._shelf = _Shelf(self.limit)

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._shelf.size

    def __len__(self) -> int:
        return len(self._shelf.copies)


class _Shelf:
    """What :meth:`Copies.clear` replaces as a whole: who is in the middle of something goes on with the old one."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.copies: dict[str, Copy] = {}
        self.size = 0
        self._lock = threading.Lock()

    def put(self, copy: Copy) -> None:
        with self._lock:
            self._drop(copy.key)
            if copy.size * 8 > self.limit:
                return
            self.copies[copy.key] = copy
            self.size += copy.size
            self._evict()

    def discard(self, key: str) -> None:
        with self._lock:
            self._drop(key)

    def _drop(self, key: str) -> None:
        old = self.copies.pop(key, None)
        if old is not None:
            self.size -= old.size

    def _evict(self) -> None:
        # Each round either drops one or clears one's mark, so this ends.
        while self.size > self.limit:
            key, oldest = next(iter(self.copies.items()))
            del self.copies[key]
            if oldest.used:
                oldest.used = False
                self.copies[key] = oldest
            else:
                self.size -= oldest.size
