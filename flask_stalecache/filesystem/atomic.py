"""Safe files and directories: private to our user, replaced atomically, and never opened through a link."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import ConfigError, StoreError

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn errors of the operating system into :class:`StoreError`."""
    try:
        yield
    except (OSError, ConfigError) as error:
        raise StoreError(str(error)) from error


def open_file(path: str | Path) -> int | None:
    """Open a file for reading and return its descriptor; ``None`` if it does not exist."""
    try:
        return os.open(path, _READ)
    except FileNotFoundError:
        return None


def read_file(path: Path, limit: int | None = None) -> bytes | None:
    """Return the contents of a file; ``None`` if it does not exist, ``b""`` if it is a link.

    :param limit: bytes to read at most. Default: all.
    """
    try:
        descriptor = open_file(path)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return b""
        raise
    if descriptor is None:
        return None
    try:
        size = os.fstat(descriptor).st_size
        size = size if limit is None else min(size, limit)
        data = os.read(descriptor, size)
        while len(data) < size and (more := os.read(descriptor, size - len(data))):
            data += more
        return data
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes, time_ns: int, *, is_durable: bool = False) -> None:
    """Write a file under another name in the same folder, then rename it to its own.

    :param time_ns: modification time to set: by our clock, since in a test or a container the kernel may have another one.
    :param is_durable: wait until it is on the disk. Default: a crash of the machine may cut it.
    """
    beside = path.with_name(f"{path.name}.{os.urandom(8).hex()}.tmp")
    descriptor = os.open(beside, _CREATE, 0o600)
    try:
        try:
            os.fchmod(descriptor, 0o600)
            # Set at once, since by the kernel's time a sweep could take the file for left over.
            os.utime(descriptor, ns=(time_ns, time_ns))
            # At its full size from the beginning, so that a look at the folder meanwhile counts the right size.
            os.ftruncate(descriptor, len(data))
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.utime(descriptor, ns=(time_ns, time_ns))
            if is_durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(beside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise


def files_in(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield the regular files of a folder, without links; nothing if the folder does not exist."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if entry.is_file(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return


def make_directories(path: Path) -> None:
    """Make a directory and its missing parents, all of them private: who can write to a parent could replace the directory."""
    if path.is_dir():
        return
    # A link may exist before its target does.
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    if path.parent != path:
        make_directories(path.parent)
    make_directory(path)


def make_directory(path: Path) -> None:
    """Make a directory that only our user can use, unless it exists."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        # A dangling link, say: a directory made through it would be where the link's owner wants it.
        if not path.is_dir():
            raise
    else:
        # The umask may have removed bits that we need.
        path.chmod(0o700)


def check_directory(directory: Path) -> None:
    """Raise :class:`ConfigError` if a cache directory exists and is a file, not ours, writable by others, or not by us."""
    try:
        link, status = os.lstat(directory), os.stat(directory)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise ConfigError(f"the cache directory {directory} is inside a file: give another STALECACHE_DIR") from None
    except OSError as error:
        raise ConfigError(
            f"the cache directory {directory} can't be used ({error.strerror}): give another STALECACHE_DIR"
        ) from None
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"the cache directory {directory} is a file: give a directory as STALECACHE_DIR")
    others = {link.st_uid, status.st_uid} - {os.geteuid()}
    if others:
        raise ConfigError(
            f"the cache directory {directory} belongs to user {others.pop()}, and we are user {os.geteuid()}: "
            "give a directory of our own as STALECACHE_DIR"
        )
    if status.st_mode & 0o022:
        raise ConfigError(
            f"others can write to the cache directory {directory} (mode {stat.S_IMODE(status.st_mode):04o}): "
            "run chmod 700 on it, or give another STALECACHE_DIR"
        )
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigError(f"the cache directory {directory} is not writable: give another STALECACHE_DIR")
