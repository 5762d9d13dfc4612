"""Lock files: one for each key, and a few for the whole directory. No call ever blocks in the operating system.

A lock is an open file: the holder of the descriptor holds the lock. A signal's handler may raise an exception anywhere, even
between the call that takes the lock and the ``try`` after it. The lock is then freed together with the object that holds it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from weakref import WeakSet

from ..errors import StoreError
from .atomic import ours, remove_file, status_of, store_errors
from .descriptors import Descriptor, open_descriptor
from .directory import Directory, Place, where
from .system import O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK, after_fork_in_child, set_mode, try_flock, unlock

#: Seconds between two attempts to take a lock of the directory, and seconds after which it is an error: these are held briefly.
POLL = 0.005
PATIENCE = 10.0
#: The number of attempts if holders remove the file each time.
_ATTEMPTS = 100
_OPEN = os.O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK


class FileKeyLock:
    """A key's lock file. The thread that works takes it; another thread may release it when a deadline has passed.

    :param path: the lock file, by its path or by its name in a directory.
    :param make_folder: makes its folder.
    :param directory: the directory; its descriptor leads to the file. Default: the path does.
    :param is_passing: the release removes the file, since visitors choose the keys. Default: the file stays for the next holder.
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
        self._place: Place = path
        #: The locked file, if this object holds the lock, and the process that has locked it. ``release`` takes them out.
        self._held: list[tuple[Descriptor, int]] = []

    def acquire(self) -> bool:
        """Try once. Return false if another holder has the lock; raise :class:`StoreError` if the file can't be locked."""
        if self._held:
            return True
        with store_errors():
            self._make_folder(self.path.parent)
            if self._directory is not None:
                self._place = self._directory.at(str(self.path.relative_to(self._directory.path)))
            for _ in range(_ATTEMPTS):
                is_held = self._try()
                if is_held is not None:
                    return is_held
            return False

    def _try(self) -> bool | None:
        """Open the file and lock it, and return whether that was possible; ``None`` if its holder has removed it meanwhile."""
        path, at = where(self._place)
        descriptor = ours(open_descriptor(path, _OPEN | os.O_CREAT, at=at), self._place)
        if os.fstat(descriptor).st_mode & 0o777 != 0o600:
            # The umask may have removed bits that we need.
            set_mode(descriptor, 0o600)
        if not try_flock(descriptor, exclusive=True):
            return False
        if not _is_at(descriptor, self._place):
            return None
        self._held.append((descriptor, os.getpid()))
        _taken.add(self)
        return True

    def release(self) -> None:
        """Release the lock. It is harmless if the lock is not held."""
        # Two threads may release it at once. The second one must do nothing, or it would remove the file of the next holder.
        with suppress(IndexError, OSError):
            self._let_go(*self._held.pop())

    def _let_go(self, descriptor: Descriptor, holder: int) -> None:
        with descriptor:
            if os.getpid() != holder:
                # Inherited in a fork: it is still the parent's.
                return
            if self._is_passing:
                # Only the holder may remove it, and only before it releases.
                with suppress(OSError):
                    remove_file(self._place)
            unlock(descriptor)

    def leave_to_parent(self) -> None:
        """Close the file in a forked child, so that the lock ends with its holder."""
        with suppress(IndexError, OSError):
            self._held.pop()[0].close()


#: The locks that were taken in this process, held or not.
_taken: WeakSet[FileKeyLock] = WeakSet()


@after_fork_in_child
def _leave_to_parent() -> None:
    for lock in list(_taken):
        lock.leave_to_parent()


def remove_if_idle(place: Place) -> None:
    """Remove a lock file, unless it is held. Called for many thousands of files, so it does without a lock object."""
    path, at = where(place)
    with suppress(OSError), open_descriptor(path, _OPEN, at=at) as descriptor:
        # Only the holder may remove it, and the path may lead to another file by now.
        if try_flock(descriptor, exclusive=True) and _is_at(descriptor, place):
            os.unlink(path, dir_fd=at)


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
