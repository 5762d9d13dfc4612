"""Calls and flags that not every operating system has, under one name each. The rest of the package uses only these names.

=============== ==================================== ================================================================
system          it lacks                             so
=============== ==================================== ================================================================
Linux           nothing
macOS           ``posix_fallocate``                  zeros are written; ``fsync`` leaves data in the cache of the
                                                     disk, so ``F_FULLFSYNC`` is used
Windows, WASI   ``fcntl``, users, calls relative to  there is no file store, and entries are in memory
                a directory
=============== ==================================== ================================================================

Importing this package needs none of them.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

#: Flags for ``os.open``; 0 where the system has none.
O_CLOEXEC: int = getattr(os, "O_CLOEXEC", 0)
O_NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
O_NONBLOCK: int = getattr(os, "O_NONBLOCK", 0)
O_DIRECTORY: int = getattr(os, "O_DIRECTORY", 0)


def _module(name: str) -> ModuleType | None:
    try:
        return import_module(name)
    except ImportError:
        return None


#: ``None`` on Windows.
_fcntl: Any = _module("fcntl")
_os: Any = os
_signal: Any = signal
_resource: Any = _module("resource")
#: The names that a store of files needs, besides locks.
_NEEDED = ("geteuid", "O_NOFOLLOW", "fchmod", "pread", "pwrite", "statvfs")
_BLOCK = 64 * 1024
_MEMORY = Path("/proc/self/statm")
_KIB = 1024
#: The errors of a file system that has no locks, or whose server has none.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


def lacks_for_files() -> str | None:
    """Return the name of a call that a store of files needs and this system lacks; ``None`` if it has all of them."""
    if getattr(_fcntl, "flock", None) is None:
        return "flock"
    return next((name for name in _NEEDED if not hasattr(os, name)), None)


def device_number(major: int, minor: int) -> int:
    """Return the number of a device, as ``os.stat`` gives it. Windows has none."""
    number: int = _os.makedev(major, minor)
    return number


def try_flock(descriptor: int, *, exclusive: bool) -> bool:
    """Lock a file without waiting, and return whether that was possible. The kernel frees it however the process ends."""
    try:
        _fcntl.flock(descriptor, (_fcntl.LOCK_EX if exclusive else _fcntl.LOCK_SH) | _fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def why_no_flock(descriptor: int) -> str | None:
    """Return why files on the same file system as an open one can't be locked, in the words of the system; ``None`` if they can."""
    try:
        _fcntl.flock(descriptor, _fcntl.LOCK_SH | _fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError as error:
        return error.strerror if error.errno in _NO_LOCKS else None
    return None


def unlock(descriptor: int) -> None:
    """Unlock a file, also for the forks of this process that have inherited its descriptor."""
    _fcntl.flock(descriptor, _fcntl.LOCK_UN)


def allocate(descriptor: int, size: int) -> None:
    """Give a new, empty file its size and all its blocks.

    :raises OSError: if there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    left = size
    while left > 0:
        left -= os.write(descriptor, bytes(min(left, _BLOCK)))


def sync(descriptor: int) -> None:
    """Wait until a file is on the disk, not only in the disk's own cache."""
    full = getattr(_fcntl, "F_FULLFSYNC", None)
    if full is not None:
        # Some file systems, and disks that are not physical ones, don't have it.
        with suppress(OSError):
            _fcntl.fcntl(descriptor, full)
            return
    os.fsync(descriptor)


def own_user() -> int:
    """Return the number of our user."""
    return int(_os.geteuid())


def set_mode(descriptor: int, mode: int) -> None:
    """Set the mode of an open file."""
    _os.fchmod(descriptor, mode)


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Return bytes of an open file from an offset; fewer if it ends before."""
    data: bytes = _os.pread(descriptor, size, offset)
    return data


def write_at(descriptor: int, data: bytes, offset: int) -> int:
    """Write bytes to an open file at an offset, and return how many were written."""
    return int(_os.pwrite(descriptor, data, offset))


def allocated(status: os.stat_result) -> int:
    """Return the bytes that a file has on the disk: fewer than its size if it has holes."""
    return int(getattr(status, "st_blocks", 0)) * 512


def free_bytes(path: str | os.PathLike[str]) -> int:
    """Return the bytes that are free on the disk of a file or a directory."""
    disk = _os.statvfs(path)
    return int(disk.f_bavail * disk.f_frsize)


def after_fork_in_child(function: Callable[[], object]) -> None:
    """Register a function that is called in each child of a fork, where the system has forks."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


def fork() -> int:
    """Fork, and return the process id of the child; 0 in the child. Windows can't."""
    return int(_os.fork())


def kill(pid: int) -> None:
    """End a process at once.

    :raises ProcessLookupError: if there is no such process.
    """
    os.kill(pid, _signal.SIGKILL)


def ignore_stop_signals() -> None:
    """Ignore the signals that stop a process, such as those of a terminal for all processes in it."""
    for number in (signal.SIGTERM, signal.SIGINT, _signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def memory_used() -> int:
    """Return the bytes of memory that this process uses, or its peak where the system does not report the current use."""
    try:
        return int(_MEMORY.read_bytes().split()[1]) * int(_os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError, IndexError):
        most = int(_resource.getrusage(_resource.RUSAGE_SELF).ru_maxrss)
        return most if sys.platform == "darwin" else most * _KIB
