"""A directory that is checked and held open, so that its files are reached through it and not by its path.

A user who may write to the parent of a directory can put another one in its place. Files that are opened relative to the descriptor
of the directory that was checked are never in that other one. Where the platform has no such calls, files are opened by their
paths, and only their owners are checked.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigError
from .descriptors import Descriptor, open_descriptor
from .system import O_CLOEXEC, O_DIRECTORY, own_user

_CALLS = {os.open, os.stat, os.unlink, os.rename, os.mkdir, os.chmod, os.link, os.utime}
_RELATIVE = os.supports_dir_fd >= _CALLS and os.scandir in os.supports_fd
#: Where Linux has each descriptor as a path.
LINKS = "/proc/self/fd"
_DIRECTORY = os.O_RDONLY | O_CLOEXEC | O_DIRECTORY


class HeldDirectory:
    """A directory whose owner and mode were checked, and its descriptor. A forked child inherits it.

    :param path: the directory. It may be a link of our own.
    :raises ConfigError: if it is a file, not ours, writable by others, or not by us.
    :raises OSError: if it does not exist.
    :ivar descriptor: the descriptor; ``None`` on a platform without calls relative to one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor: Descriptor | None = None
        self._by_path = path
        check_directory(path)
        descriptor = open_descriptor(path, _DIRECTORY)
        status = os.fstat(descriptor)
        # Once more: another directory may be at the path since it was checked.
        _check_status(path, status, {status.st_uid})
        self._identity = status.st_dev, status.st_ino
        if _RELATIVE:
            links = Path(f"{LINKS}/{descriptor}")
            self._by_path = links if links.is_dir() else path
            self.descriptor = descriptor

    def __del__(self) -> None:
        # A daemon may have closed all descriptors, so that the number may belong to another file now.
        if self.descriptor is not None:
            with suppress(OSError):
                self.descriptor.close() if self._is_open() else self.descriptor.forget()

    def _is_open(self) -> bool:
        try:
            status = os.fstat(self.descriptor or 0)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def is_current(self) -> bool:
        """Whether its path still leads here."""
        try:
            status = os.stat(self.path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity and (self.descriptor is None or self._is_open())

    def by_path(self, name: str) -> Path:
        """Return a path to one of its files, for calls that take only paths: through the descriptor, where the kernel allows."""
        return self._by_path / name


class Inside(NamedTuple):
    """A file in a held directory.

    :ivar name: its path relative to the directory.
    """

    held: HeldDirectory
    name: str

    def __str__(self) -> str:
        return str(self.held.path / self.name)


#: A file by its path or in a held directory.
Place = str | Path | Inside


class Directory:
    """The path of a directory, and the directory there as long as it is held.

    :param path: the path.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: HeldDirectory | None = None

    @property
    def is_held(self) -> bool:
        """Whether it is held."""
        return self._held is not None

    def hold(self) -> None:
        """Check the directory that is at the path now, and hold it. If it can't be used, none is held any more."""
        # The old one is replaced only now: until then, other threads go on with it.
        try:
            self._held = HeldDirectory(self.path)
        except Exception:
            self._held = None
            raise

    def is_current(self) -> bool:
        """Whether it is held, and still the one at the path."""
        held = self._held
        return held is not None and held.is_current()

    def at(self, name: str) -> Inside:
        """Return a file in it.

        :raises FileNotFoundError: if the directory is not held, as if it did not exist.
        """
        held = self._held
        if held is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))
        return Inside(held, name)


def where(place: Place) -> tuple[str, int | None]:
    """Return the path of a file, and the descriptor of the directory that it starts from, if it has one."""
    if not isinstance(place, Inside):
        return os.fspath(place), None
    descriptor = place.held.descriptor
    return (str(place), None) if descriptor is None else (place.name, descriptor)


def check_directory(directory: Path) -> None:
    """Raise :class:`ConfigError` if a cache directory exists and is a file, not ours, writable by others, or not by us."""
    try:
        link, status = os.lstat(directory), os.stat(directory)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise ConfigError(f"the cache directory {directory} is inside a file: give another STALECACHE_DIR") from None
    except OSError as error:
        if error.errno == errno.EIO:
            # A failing disk is not a mistake in the configuration: pages are served live until it works again.
            return
        raise ConfigError(
            f"the cache directory {directory} can't be used ({error.strerror}): give another STALECACHE_DIR"
        ) from None
    _check_status(directory, status, {link.st_uid, status.st_uid})
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigError(f"the cache directory {directory} is not writable: give another STALECACHE_DIR")


def _check_status(directory: Path, status: os.stat_result, owners: set[int]) -> None:
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"the cache directory {directory} is a file: give a directory as STALECACHE_DIR")
    others = owners - {own_user()}
    if others:
        raise ConfigError(
            f"the cache directory {directory} belongs to user {others.pop()}, and we are user {own_user()}: "
            + (_below(directory) or "give a directory of our own as STALECACHE_DIR")
        )
    if status.st_mode & 0o022:
        below = _below(directory)
        raise ConfigError(
            f"others can write to the cache directory {directory} (mode {stat.S_IMODE(status.st_mode):04o}): "
            + (f"run chmod 700 on it, or, if it is a mounted volume, {below}" if below else _CHMOD)
        )


_CHMOD = "run chmod 700 on it, or give another STALECACHE_DIR"


def _below(directory: Path) -> str | None:
    """Return the advice to use a directory below one that is not ours alone, such as a volume of a container."""
    if directory.is_symlink() or not os.access(directory, os.W_OK | os.X_OK):
        return None
    for name in ("cache", "stalecache", f"stalecache-{own_user()}"):
        try:
            status = os.lstat(directory / name)
            is_usable = stat.S_ISDIR(status.st_mode) and status.st_uid == own_user() and not status.st_mode & 0o022
        except FileNotFoundError:
            is_usable = True
        except OSError:
            is_usable = False
        if is_usable:
            return f"give a directory below it, which we make with mode 0700: STALECACHE_DIR={directory / name}"
    return None
