"""Lock files: one for each key, and a few for the whole directory. No call ever blocks in the operating system."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import StoreError
from .atomic import store_errors

#: Seconds between two attempts for a lock of the directory, and seconds after which it is an error: these are held briefly.
POLL = 0.005
PATIENCE = 10.0


class FileKeyLock:
    """A key's lock file. The thread that works takes it; another thread may release it when a deadline has passed.

    :param path: the lock file.
    :param make_folder: makes its folder.
    :param is_passing: the release removes the file: visitors choose the keys. Default: it stays for the next holder.
    """

    def __init__(self, path: Path, make_folder: Callable[[Path], None], *, is_passing: bool = False) -> None:
        self.path = path
        self._make_folder = make_folder
        self._is_passing = is_passing
        self._releasing = threading.Lock()
        # thread_local=False: with the default, a release from another thread silently does nothing.
        self._lock = FileLock(path, thread_local=False, mode=0o600)

    def acquire(self) -> bool:
        """Try once. Return false if another holds it; raise :class:`StoreError` if the file can't be locked."""
        with store_errors():
            # filelock would make the folder readable by others.
            self._make_folder(self.path.parent)
            try:
                self._lock.acquire(blocking=False)
            except Timeout:
                return False
            return True

    def release(self) -> None:
        """Release the lock. It is harmless if the lock is not held."""
        # Two threads may release it at once, and what the second one removed would be the file of the next holder.
        with self._releasing, suppress(OSError):
            if self._is_passing and self._lock.is_locked:
                # Only the holder may remove it, and only before it releases.
                with suppress(OSError):
                    self.path.unlink()
            self._lock.release(force=True)


def remove_if_idle(path: str) -> None:
    """Remove a lock file, unless it is held. Called for many thousands of files, so it does without a lock object."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Only the holder may remove it, and by now the path may be another file.
            if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                os.unlink(path)
        finally:
            os.close(descriptor)


@contextmanager
def held(lock: FileKeyLock) -> Iterator[None]:
    """Hold a lock that is only held briefly.

    :raises StoreError: if it is held longer: by a stopped process, say.
    """
    # Polled, since a blocking flock in one greenlet would stop all others of a gevent worker.
    until = time.monotonic() + PATIENCE
    while not lock.acquire():
        if time.monotonic() >= until:
            raise StoreError(f"{lock.path} is held for more than {PATIENCE:g} s")
        time.sleep(POLL)
    try:
        yield
    finally:
        lock.release()
