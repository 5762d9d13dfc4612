"""A file that stays open, and is never mistaken for another one."""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from .descriptors import Descriptor
from .system import read_at, try_flock, write_at


class HeldFile:
    """An open file. A forked child inherits it, and its lock.

    A daemon may have closed all descriptors, so that the number may belong to another file now: that file is neither written nor
    closed.

    :param descriptor: its descriptor, which closes it when this object is garbage collected.
    """

    _identity: tuple[int, int] | None = None

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor = descriptor
        status = os.fstat(descriptor)
        self._number = status.st_ino
        self._identity = status.st_dev, status.st_ino

    def __del__(self) -> None:
        # Without an identity, ``__init__`` did not finish.
        if self._identity is not None:
            with suppress(OSError):
                self._descriptor.close() if self.is_open() else self._descriptor.forget()

    def is_open(self) -> bool:
        """Whether the descriptor still leads to this file."""
        try:
            return self.is_same(os.fstat(self._descriptor))
        except OSError:
            return False

    def is_same(self, status: os.stat_result | None) -> bool:
        """Whether a status is that of this file."""
        return status is not None and (status.st_dev, status.st_ino) == self._identity

    @property
    def inode(self) -> int:
        """Its inode number."""
        return self._number

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return os.fstat(self._descriptor).st_size

    def read(self, size: int, offset: int) -> bytes:
        """Return its bytes from an offset; fewer if it ends before."""
        return read_at(self._descriptor, size, offset)

    def write(self, data: bytes, offset: int) -> None:
        """Write bytes at an offset. If there is room for a part only, write that and raise :class:`OSError`."""
        self._check()
        if write_at(self._descriptor, data, offset) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def cut(self) -> None:
        """Truncate it to zero bytes, which needs no room on the disk."""
        self._check()
        os.ftruncate(self._descriptor, 0)

    def _check(self) -> None:
        if not self.is_open():
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def try_lock(self, *, exclusive: bool) -> bool:
        """Lock it, or change its lock, without waiting. Return false if others hold it: then the lock that it had is lost too."""
        return try_flock(self._descriptor, exclusive=exclusive)
