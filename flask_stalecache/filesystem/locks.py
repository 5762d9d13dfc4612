"""Lock files: a key's own, and the few of the whole directory. None is ever waited for inside the operating system."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import StoreError
from .atomic import store_errors

#: Seconds between two tries for a lock of the directory, and seconds after which it is an error: they are held for moments.
POLL = 0.005
PATIENCE = 10.0


class FileKeyLock:
    """A key's lock file. It is taken by the thread that works, and may be released by another when a deadline has passed.

    :param path: the lock file.
    :param make_folder: makes the folder that it is in.
    """

    def __init__(self, path: Path, make_folder: Callable[[Path], None]) -> None:
        self.path = path
        self._make_folder = make_folder
        # thread_local=False: with the default, a release from another thread silently does nothing.
        self._lock = FileLock(path, thread_local=False, mode=0o600)

    def acquire(self) -> bool:
        """Try once; contention is a value, failure an exception."""
        with store_errors():
            # filelock would make the folder itself, and readable by others.
            self._make_folder(self.path.parent)
            try:
                self._lock.acquire(blocking=False)
            except Timeout:
                return False
            return True

    def release(self) -> None:
        """Let go. The file stays, since the next holder is soon there."""
        with suppress(OSError):
            self._lock.release(force=True)

    def release_for_good(self) -> None:
        """Let go, and remove the file: only its holder may, and as the last thing it does."""
        with suppress(OSError):
            self.path.unlink()
        self.release()


def remove_if_idle(path: str) -> None:
    """Remove a lock file that nobody holds; of many thousands, so without what else a lock is good for."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Only its holder may, and it may be another file by now.
            if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                os.unlink(path)
        finally:
            os.close(descriptor)


@contextmanager
def held(lock: FileKeyLock) -> Iterator[None]:
    """Hold a lock that others hold for moments only.

    :raises StoreError: if somebody holds it longer than that: a stopped process, say.
    """
    # A blocking flock in one greenlet would stop all of a gevent worker.
    until = time.monotonic() + PATIENCE
    while not lock.acquire():
        if time.monotonic() >= until:
            raise StoreError(f"{lock.path} is held for more than {PATIENCE:g} s")
        time.sleep(POLL)
    try:
        yield
    finally:
        lock.release()
