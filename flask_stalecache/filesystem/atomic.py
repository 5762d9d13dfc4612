"""Safe files and directories: private to our user, replaced atomically, and never opened through a link."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import ConfigError, StoreError
from .descriptors import Descriptor, open_descriptor
from .directory import Inside, Place, where
from .system import O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, own_user, set_mode, sync

_READ = os.O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | O_CLOEXEC | O_NOFOLLOW
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK
_LIST = os.O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_DIRECTORY
#: The errors of a link and of another user's file: neither was written for us.
PLANTED = (errno.ELOOP, errno.EPERM)
#: Errors that another directory would solve. A disk that is full or failing is no reason to ask for one.
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS)


def has_no_room(error: BaseException) -> bool:
    """Whether an error comes from a full disk."""
    cause = error.__cause__ if isinstance(error, StoreError) else error
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn errors of the operating system into :class:`StoreError`."""
    try:
        yield
    except (OSError, ConfigError) as error:
        raise StoreError(str(error)) from error


def open_file(place: Place) -> Descriptor | None:
    """Open a file for reading and return its descriptor; ``None`` if it does not exist.

    :raises OSError: with one of :data:`PLANTED`, if it is a link or belongs to another user.
    """
    path, at = where(place)
    try:
        descriptor = open_descriptor(path, _READ, at=at)
    except FileNotFoundError:
        return None
    return ours(descriptor, place)


def ours(descriptor: Descriptor, place: Place) -> Descriptor:
    """Return a descriptor, or close it and raise :class:`PermissionError` if the file belongs to another user."""
    # No other user can write to our folders, unless they were once open to others, or are not the ones that were checked.
    if os.fstat(descriptor).st_uid != own_user():
        descriptor.close()
        raise PermissionError(errno.EPERM, "belongs to another user", str(place))
    return descriptor


def read_file(place: Place, limit: int | None = None) -> bytes | None:
    """Return the contents of a file; ``None`` if it does not exist, ``b""`` if it is a link or belongs to another user.

    :param limit: bytes to read at most. Default: all.
    """
    try:
        descriptor = open_file(place)
    except OSError as error:
        if error.errno in PLANTED:
            return b""
        raise
    if descriptor is None:
        return None
    with descriptor:
        size = os.fstat(descriptor).st_size
        size = size if limit is None else min(size, limit)
        data = os.read(descriptor, size)
        while len(data) < size and (more := os.read(descriptor, size - len(data))):
            data += more
        return data


def write_file(place: Place, data: bytes, time_ns: int, *, is_durable: bool = False) -> None:
    """Write a file under another name in the same folder, then rename it to its own.

    :param time_ns: modification time to set: by our clock, since in a test or a container the kernel may have another one.
    :param is_durable: wait until it is on the disk. Default: a crash of the machine may cut it.
    """
    path, at = where(place)
    beside = f"{path}.{os.urandom(8).hex()}.tmp"
    # Before the file is made: an exception may come as soon as it exists.
    try:
        with open_descriptor(beside, _CREATE, 0o600, at) as descriptor:
            set_mode(descriptor, 0o600)
            # Set at once, since by the kernel's time a sweep could take the file for left over.
            os.utime(descriptor, ns=(time_ns, time_ns))
            # At its full size from the beginning, so that a scan of the folder meanwhile counts the right size.
            os.ftruncate(descriptor, len(data))
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.utime(descriptor, ns=(time_ns, time_ns))
            if is_durable:
                sync(descriptor)
        os.rename(beside, path, src_dir_fd=at, dst_dir_fd=at)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside, dir_fd=at)
        raise


def append_to_file(place: Place, data: bytes) -> bool:
    """Append to a file in one write, since others may append too. Return false if the file was renamed or removed meanwhile.

    :raises OSError: if only a part could be written.
    """
    path, at = where(place)
    with ours(open_descriptor(path, _APPEND, 0o600, at), place) as descriptor:
        if os.write(descriptor, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))
        status = status_of(place)
        return status is not None and os.path.samestat(status, os.fstat(descriptor))


def status_of(place: Place) -> os.stat_result | None:
    """Return the status of a file, without following a link; ``None`` if the file does not exist."""
    path, at = where(place)
    try:
        return os.stat(path, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return None


def remove_file(place: Place) -> None:
    """Remove a file; raise :class:`FileNotFoundError` if it does not exist."""
    path, at = where(place)
    os.unlink(path, dir_fd=at)


def files_in(folder: Path | Inside) -> Iterator[os.DirEntry[str]]:
    """Yield the regular files of a folder, without links; nothing if the folder does not exist."""
    path, at = where(folder)
    try:
        if at is None:
            with os.scandir(path) as entries:
                yield from (entry for entry in entries if entry.is_file(follow_symlinks=False))
            return
        with open_descriptor(path, _LIST, at=at) as descriptor, os.scandir(descriptor) as entries:
            yield from (entry for entry in entries if entry.is_file(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return


def make_directories(path: Path) -> None:
    """Make the cache directory and its missing parents, all private: a user with access to a parent could replace the directory.

    :raises ConfigError: if our user may not make one of them.
    """
    try:
        _make_with_parents(path)
    except OSError as error:
        if error.errno not in _NOT_OURS:
            raise
        raise ConfigError(
            f"the cache directory {path} can't be made ({error.strerror}: {error.filename}): "
            "give a directory that this user can write to as STALECACHE_DIR"
        ) from error


def _make_with_parents(path: Path) -> None:
    if path.is_dir():
        return
    # A link may exist before its target does.
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    if path.parent != path:
        _make_with_parents(path.parent)
    make_directory(path)


def make_directory(place: Path | Inside) -> None:
    """Make a directory that only our user can use, unless it exists."""
    path, at = where(place)
    try:
        os.mkdir(path, 0o700, dir_fd=at)
    except FileExistsError:
        # A dangling link, say: a directory made through it would be where the link's owner wants it.
        if not _is_directory(path, at):
            raise
    else:
        # The umask may have removed bits that we need.
        os.chmod(path, 0o700, dir_fd=at)


def _is_directory(path: str, at: int | None) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path, dir_fd=at).st_mode)
    except OSError:
        return False
