"""The locks of the memory store, between the threads of one process. No exception leaves one held."""

from __future__ import annotations

import threading
from weakref import WeakValueDictionary

from ...core.guarded import guarded


class MemoryKeyLock:
    """The lock of one key among the threads of this process. It is released when nothing refers to this object any more.

    :param holders: the locks that are held, by their keys.
    """

    def __init__(self, key: str, holders: WeakValueDictionary[str, MemoryKeyLock], mutex: threading.RLock) -> None:
        self._key = key
        self._holders = holders
        self._mutex = mutex

    @guarded
    def acquire(self) -> bool:
        """Try once, and return whether the lock is held now."""
        return self._holders.setdefault(self._key, self) is self

    @guarded
    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._holders.get(self._key) is self:
            self._holders.pop(self._key, None)


class Guard:
    """The locks of one process. A forked child has its own, since those of its parent may have been held at the fork."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        # Reentrant: a lock is also freed when it is garbage, which may be collected at any moment.
        self.key_lock = threading.RLock()
        self.holders: WeakValueDictionary[str, MemoryKeyLock] = WeakValueDictionary()
