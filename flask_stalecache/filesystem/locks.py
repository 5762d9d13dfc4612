"""Lock files: one for each key, and a few for the whole directory. No call ever blocks in the operating system."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import StoreError
from .atomic import remove_file, status_of, store_errors
from .directory import Directory, Place, where
from .system import O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK, try_flock

#: Seconds between two attempts for a lock of the directory, and seconds after which it is an error: these are held briefly.
POLL = 0.005
PATIENCE = 10.0


class FileKeyLock:
    """A key's lock file. The thread that works takes it; another thread may release it when a deadline has passed.

    :param path: the lock file, by its path or by its name in a directory.
    :param make_folder: makes its folder.
    :param directory: the directory; its descriptor leads to the file. Default: the path does.
    :param is_passing: the release removes the file: visitors choose the keys. Default: it stays for the next holder.
    """

    def __init__(
        self,
        path: Path,
        make_folder: Callable[[Path], None],
        *,
        directory: Directory | None = None,
        is_passing: bool = False,
    ) -> None:
        self.path = path
        self._make_folder = make_folder
        self._directory = directory
        self._is_passing = is_passing
        self._releasing = threading.Lock()
        self._place: Place = path
        self._lock: FileLock | None = None

    def acquire(self) -> bool:
        """Try once. Return false if another holds it; raise :class:`StoreError` if the file can't be locked."""
        with store_errors():
            # filelock would make the folder readable by others.
            self._make_folder(self.path.parent)
            try:
                self._file_lock().acquire(blocking=False)
            except Timeout:
                return False
            return True

    def _file_lock(self) -> FileLock:
        if self._lock is not None and self._lock.is_locked:
            return self._lock
        path = self.path
        if self._directory is not None:
            self._place = inside = self._directory.at(str(self.path.relative_to(self._directory.path)))
            path = inside.held.by_path(inside.name)
        if self._lock is None or Path(self._lock.lock_file) != path:
            # thread_local=False: with the default, a release from another thread silently does nothing.
            self._lock = FileLock(path, thread_local=False, mode=0o600)
        return self._lock

    def release(self) -> None:
        """Release the lock. It is harmless if the lock is not held."""
        # Two threads may release it at once, and what the second one removed would be the file of the next holder.
        with self._releasing, suppress(OSError):
            if self._lock is None:
                return
            if self._is_passing and self._lock.is_locked:
                # Only the holder may remove it, and only before it releases.
                with suppress(OSError):
                    remove_file(self._place)
            self._lock.release(force=True)


def remove_if_idle(place: Place) -> None:
    """Remove a lock file, unless it is held. Called for many thousands of files, so it does without a lock object."""
    path, at = where(place)
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, dir_fd=at)
        try:
            # Only the holder may remove it, and by now the path may be another file.
            if try_flock(descriptor, exclusive=True) and _is_at(descriptor, place):
                os.unlink(path, dir_fd=at)
        finally:
            os.close(descriptor)


def _is_at(descriptor: int, place: Place) -> bool:
    status = status_of(place)
    return status is not None and os.path.samestat(os.fstat(descriptor), status)


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
