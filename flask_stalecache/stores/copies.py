"""The copies that this process keeps in memory, up to a size; the least used are evicted (CLOCK)."""

from __future__ import annotations

import threading

from ..core.guarded import guarded
from .base import Copy


class Copies:
    """Copies by key, up to ``limit`` bytes. A read is one dict lookup and takes no lock; writes hold the shelf's lock.

    :param limit: estimated bytes of all copies together.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._shelf = _Shelf(limit)

    def get(self, key: str) -> Copy | None:
        """Return the key's copy, which may be out of date."""
        return self._shelf.copies.get(key)

    def put(self, copy: Copy) -> None:
        """Keep a copy, unless it takes more than an eighth of the limit."""
        self._shelf.put(copy)

    def discard(self, key: str) -> None:
        """Drop a key's copy."""
        self._shelf.discard(key)

    def clear(self) -> None:
        """Drop everything, and the lock: a fork may have left it held."""
        self._shelf = _Shelf(self.limit)

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._shelf.size

    def __len__(self) -> int:
        return len(self._shelf.copies)


class _Shelf:
    """Copies and their lock. :meth:`Copies.clear` replaces the shelf; a thread that is writing then goes on in the old one."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.copies: dict[str, Copy] = {}
        self.size = 0
        self._mutex = threading.Lock()

    @guarded
    def put(self, copy: Copy) -> None:
        self._drop(copy.key)
        if copy.size * 8 > self.limit:
            return
        self.copies[copy.key] = copy
        self.size += copy.size
        self._evict()

    @guarded
    def discard(self, key: str) -> None:
        self._drop(key)

    def _drop(self, key: str) -> None:
        old = self.copies.pop(key, None)
        if old is not None:
            self.size -= old.size

    def _evict(self) -> None:
        # Each round drops a copy or clears its mark, so this ends.
        while self.size > self.limit:
            key, oldest = next(iter(self.copies.items()))
            del self.copies[key]
            if oldest.used:
                oldest.used = False
                self.copies[key] = oldest
            else:
                self.size -= oldest.size
