"""The result of a purge by name, which takes constant time: the purged entries are searched for only on request."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..core.model.titles import title_of
from ..errors import StoreError
from ..stores.base import Acknowledged, RecallingStore, Store, Stored


class Purged:
    """The result of a purge. It is true if stored entries were purged, and false if none matched.

    A purge takes constant time, however much is stored. Its truth value and :attr:`urls` need a walk through the store, so read
    them at once, and only where it matters. The entries have been purged whether you read them or not. With a store of your own
    that has no ``recall()``, the result is always true.

    :ivar acknowledged: which hosts have acknowledged it, if they share a server: ``hosts``, the number of connected hosts;
        ``late``, the names of those that have not acknowledged it; ``seconds``, the longest time to wait for them; ``silent``, how
        many more hosts were heard within a day, but not lately. Otherwise ``None``.
    """

    __slots__ = ("_names", "_truth", "_walk", "acknowledged")

    def __init__(self, names: tuple[str, ...], walk: Callable[[], Iterator[Stored]] | None) -> None:
        self._names = names
        self._walk = walk
        self._truth: bool | None = True if walk is None else None
        self.acknowledged: Acknowledged | None = None

    @classmethod
    def about_to(cls, store: Store, names: tuple[str, ...]) -> Purged:
        """Return the result of a purge that is about to happen.

        :raises StoreError: if the store can't be read.
        """
        return cls(names, store.recall(*names) if isinstance(store, RecallingStore) else None)

    def __repr__(self) -> str:
        return f"<Purged {' '.join(self._names)}>"

    def __bool__(self) -> bool:
        if self._truth is None:
            self._truth = next(self._entries(), None) is not None
        return self._truth

    @property
    def urls(self) -> list[str]:
        """The URLs and calls of the entries that were purged. Variants of a page are entries of their own.

        :raises StoreError: if the store can't be read, or has no ``recall()``.
        """
        if self._walk is None:
            raise StoreError("the store can't tell what a purge has met: it has no recall()")
        return [title_of(stored.entry) for stored in self._entries()]

    def _entries(self) -> Iterator[Stored]:
        return iter(()) if self._walk is None else self._walk()
