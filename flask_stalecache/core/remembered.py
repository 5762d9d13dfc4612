"""A table of results computed for values that visitors choose, limited in bytes. Pure."""

from __future__ import annotations

from sys import getsizeof
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")

MIB = 1024 * 1024
#: Estimated bytes of one place in the table.
_PLACE = 120


class Remembered(dict[K, V]):
    """A dict that is emptied when it would take more than its limit. Reads cost what those of a dict cost.

    :param most: the greatest number of items, whatever their sizes. Threads that write at the same time may miscount the bytes of
        an item, but not the items.
    :param limit: bytes of all items together at most, as estimated.
    :param longest: bytes of one item at most. A longer one is not remembered, so that a flood of them does not empty the table.
    """

    __slots__ = ("limit", "longest", "most", "size")

    def __init__(self, most: int, limit: int, longest: int) -> None:
        super().__init__()
        self.most, self.limit, self.longest = most, limit, longest
        self.size = 0

    def note(self, key: K, value: V, more: int = 0) -> V:
        """Remember a value, if the item is not too long, and return it.

        :param more: bytes that key and value keep in memory, besides texts and tuples.
        """
        if key in self:
            return value
        size = _PLACE + size_of(key) + size_of(value) + more
        if size > self.longest:
            return value
        if len(self) >= self.most or self.size + size > self.limit:
            self.clear()
        self[key] = value
        self.size += size
        return value

    def clear(self) -> None:
        """Forget all items."""
        super().clear()
        self.size = 0


def size_of(value: Any) -> int:
    """Return the bytes of a text, a number, or a tuple of these; 0 for ``None`` and for other objects, which are shared."""
    if isinstance(value, tuple):
        return getsizeof(value) + sum(map(size_of, value))
    return getsizeof(value) if isinstance(value, (str, int)) else 0
