"""The files by which processes find the worker in the cache directory: its socket, its lock, and the file with its state."""

from __future__ import annotations

import logging
import selectors
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..core.packets.packets import PREFIX
from ..errors import ConfigError, StoreError
from ..filesystem.atomic import remove_file
from ..filesystem.directory import Directory
from ..filesystem.local_socket import Listener
from ..filesystem.locks import FileKeyLock
from ..stats.schema import WorkerState
from ..stats.worker_state import write_state

logger = logging.getLogger("flask_stalecache")


class WorkerSocket:
    """The socket at which web processes find the worker.

    Of several workers of one app and version, one has the lock and listens. The others wait to take its place.

    :param directory: the cache directory.
    :param name: the name of the socket.
    :param make: makes the directory, and checks it.
    """

    def __init__(self, directory: Path, name: str, make: Callable[[], object]) -> None:
        self._directory = Directory(directory)
        self._name = name
        self._make = make
        self._lock: FileKeyLock | None = None
        self._listener: Listener | None = None
        self._is_said = False

    @property
    def is_stream(self) -> bool:
        """Whether connections are streams, without the boundaries of packets."""
        listener = self._listener
        return listener is not None and listener.socket.type == socket.SOCK_STREAM

    def look_after(self, selector: selectors.BaseSelector, accept: Callable[[], object]) -> None:
        """Listen, unless another worker does. A file that was removed or replaced is made again."""
        if self._listener is not None and self._listener.is_current() and self._directory.is_current():
            return
        self.close(selector)
        try:
            self._open(selector, accept)
        except (OSError, ConfigError, StoreError) as error:
            if not self._is_said:
                logger.error("the worker can't be reached: %s", error)
            self._is_said = True

    def _open(self, selector: selectors.BaseSelector, accept: Callable[[], object]) -> None:
        self._make()
        self._directory.hold()
        lock = FileKeyLock(self._directory.path / f"{self._name}.lock", lambda folder: None, directory=self._directory)
        if not lock.acquire():
            if not self._is_said:
                logger.warning("another worker of this app and version is running: this one waits to take its place")
            self._is_said = True
            return
        self._lock = lock
        self._remove_left_behind()
        self._listener = Listener(self._directory.at(self._name))
        selector.register(self._listener.socket, selectors.EVENT_READ, accept)
        if self._is_said:
            logger.warning("the worker can be reached now")
        self._is_said = False

    def _remove_left_behind(self) -> None:
        """Remove the files of workers of other versions that were killed: each version has files of its own."""
        for lock in self._directory.path.glob(f"{PREFIX}*.lock"):
            other = FileKeyLock(lock, lambda folder: None, directory=self._directory, is_passing=True)
            if lock.stem != self._name and other.acquire():
                for name in (lock.stem, f"{lock.stem}.state"):
                    with suppress(OSError):
                        remove_file(self._directory.at(name))
                other.release()

    def accept(self) -> socket.socket | None:
        """Return the next connection; ``None`` if no process has connected."""
        return None if self._listener is None else self._listener.accept()

    def tell(self, state: WorkerState) -> None:
        """Write the state of the worker, if it is the one that listens."""
        if self._listener is not None:
            with suppress(OSError):
                write_state(self._directory.at(f"{self._name}.state"), state)

    def close(self, selector: selectors.BaseSelector) -> None:
        """Stop listening, and let another worker take over."""
        if self._listener is not None:
            selector.unregister(self._listener.socket)
            self._listener.close(removes=True)
            with suppress(OSError):
                remove_file(self._directory.at(f"{self._name}.state"))
        if self._lock is not None:
            self._lock.release()
        self._listener = self._lock = None

    def leave_to_parent(self) -> None:
        """Close the socket in a forked child."""
        if self._listener is not None:
            self._listener.close(removes=False)
