"""Files in memory that the processes of a machine share: a failing disk can't lose a page of them, and no restore rewrites them.

They are in ``/dev/shm``, if that is a tmpfs. A mapping holds a lock on its file as long as it exists, so a file that no
process has mapped can be recognised, and is removed when others are made. Containers may each have a ``/dev/shm`` of their own.
"""

from __future__ import annotations

import errno
import mmap
import os
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path

from .atomic import ours, read_file
from .descriptors import open_descriptor
from .mounts import kind_at
from .system import O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK, allocate, allocated, set_mode, try_flock

FOLDER = "/dev/shm"
#: Bytes of the last used files of one size that stay even if no process has mapped them: a worker may succeed one that was killed.
IDLE = 16 * 1024 * 1024
#: The number of files of one size that a process makes from one search for unmapped ones to the next.
LOOK_EVERY = 16
#: Seconds after which a file that is not finished is left over: its process was killed while it made the file.
UNFINISHED = 3600
_KINDS = ("tmpfs", "ramfs")
_NAME = re.compile(r"stalecache-[0-9a-f]{32}")
_OPEN = os.O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK
#: How many files of each size this process has made.
_made: Counter[int] = Counter()


class SharedMemory:
    """A mapped file.

    :ivar name: its name in the folder.
    :ivar map: its bytes.
    """

    def __init__(self, name: str, descriptor: int, size: int) -> None:
        self.name = name
        status = os.fstat(descriptor)
        self._identity = status.st_dev, status.st_ino
        # The mapping keeps a duplicate of the descriptor, and with it the lock.
        self.map = mmap.mmap(descriptor, size)

    def is_current(self) -> bool:
        """Whether the file is still there, so that others can find it."""
        try:
            status = os.lstat(_path(self.name))
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity and status.st_size == len(self.map)

    def touch(self) -> None:
        """Set the modification time to now, which writes to the mapping don't do: the file that was used last is removed last."""
        with suppress(OSError):
            os.utime(_path(self.name))

    def remove(self) -> None:
        """Remove the file; processes that have mapped it keep the mapping."""
        with suppress(OSError):
            os.unlink(_path(self.name))


def is_expected() -> bool:
    """Whether this system has a folder for such memory."""
    return os.path.isdir(FOLDER)


def device() -> int | None:
    """Return the device number of the file system that this process has in the folder; ``None`` if it is not in memory."""
    try:
        folder = os.path.realpath(FOLDER)
        number = os.stat(folder).st_dev
        return number if kind_at(folder) in _KINDS else None
    except OSError:
        return None


def make(size: int) -> SharedMemory:
    """Make a file of zeros and map it.

    :raises OSError: if there is no such memory, no room in it, or it can't be mapped.
    """
    if device() is None:
        raise OSError(errno.ENODEV, f"{FOLDER} is no shared memory")
    is_looking = _made[size] % LOOK_EVERY == 0
    if is_looking:
        _remove_idle(size)
    _made[size] += 1
    name = f"stalecache-{os.urandom(16).hex()}"
    try:
        with open_descriptor(_path(name), _OPEN | os.O_CREAT | os.O_EXCL) as descriptor:
            try_flock(descriptor, exclusive=False)
            set_mode(descriptor, 0o600)
            if is_looking:
                remove_left_over(_NAME, os.fstat(descriptor).st_ctime_ns)
            allocate(descriptor, size)
            return SharedMemory(name, descriptor, size)
    except BaseException:
        with suppress(OSError):
            os.unlink(_path(name))
        raise


def find(name: str, size: int) -> SharedMemory | None:
    """Map a file by its name; ``None`` if it is not there, or not as it was made.

    :raises OSError: if it is there and can't be mapped.
    """
    if not _NAME.fullmatch(name):
        return None
    try:
        descriptor = ours(open_descriptor(_path(name), _OPEN), _path(name))
    except OSError:
        return None
    with descriptor:
        # A file that can't be locked is being removed.
        is_there = try_flock(descriptor, exclusive=False)
        status = os.fstat(descriptor)
        is_whole = status.st_size == size and allocated(status) >= size
        return SharedMemory(name, descriptor, size) if is_there and is_whole and status.st_nlink else None


def read(name: str, size: int) -> bytes | None:
    """Return the bytes of a file by its name; ``None`` if it is not there, or not as it was made."""
    if not _NAME.fullmatch(name):
        return None
    try:
        data = read_file(Path(_path(name)), size + 1)
    except OSError:
        return None
    return data if data is not None and len(data) == size else None


def _remove_idle(size: int) -> None:
    """Remove our files of a size that no process has mapped any more, but not the ones that were used last."""
    files: list[tuple[int, str]] = []
    for name in filter(_NAME.fullmatch, os.listdir(FOLDER)):
        with suppress(OSError):
            status = os.lstat(_path(name))
            files += [(status.st_mtime_ns, _path(name))] if status.st_size == size else []
    for _, path in sorted(files)[: max(0, len(files) - IDLE // size)]:
        with suppress(OSError):
            _remove_if_idle(path)


def remove_left_over(names: re.Pattern[str], now: int) -> None:
    """Remove our unfinished files, whose processes were killed while they wrote them.

    :param names: matches the files to check. One that is empty, or whose name ends in ``.tmp``, is unfinished.
    :param now: the time by the clock of the kernel, which can't be set for a single process, in nanoseconds.
    """
    with os.scandir(FOLDER) as entries:
        matching = [entry for entry in entries if names.fullmatch(entry.name)]
    for entry in matching:
        with suppress(OSError):
            if _is_left_over(entry, now):
                _remove_if_idle(entry.path)


def _is_left_over(entry: os.DirEntry[str], now: int) -> bool:
    status = entry.stat(follow_symlinks=False)
    is_unfinished = status.st_size == 0 or entry.name.endswith(".tmp")
    return is_unfinished and now - status.st_ctime_ns > UNFINISHED * 1_000_000_000


def _remove_if_idle(path: str) -> None:
    with ours(open_descriptor(path, _OPEN), path) as descriptor:
        if try_flock(descriptor, exclusive=True):
            os.unlink(path)


def _path(name: str) -> str:
    return f"{FOLDER}/{name}"
