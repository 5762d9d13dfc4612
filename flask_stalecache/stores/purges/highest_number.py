"""The highest purge number of a cache directory that this machine has seen. The directory itself may have lost it.

If a backup is restored, or a directory is moved away and back, purges made meanwhile are lost, and its numbers are lower than
before. Each process remembers the highest number, and so does a small file in shared memory, which outlives the processes, but
not a restart of the machine or container. It is read when a directory is opened, and when the number in the directory has changed.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path

from ...core.addressing.keys import digest
from ...errors import StoreError
from ...filesystem import shared_memory
from ...filesystem.atomic import read_file, remove_file, write_file
from ...filesystem.sealed import seal, unseal
from ...filesystem.system import own_user

_KIND = b"HIGH"
_NUMBER = re.compile(rb"[0-9]{1,19}")
_NAME = re.compile(r"stalecache-last-[0-9a-f]{40}")
_UNFINISHED_NAME = re.compile(r"stalecache-last-[0-9a-f]{40}\.[0-9a-f]{16}\.tmp")
#: Maximum number of such files for all directories of our user; the oldest are removed.
MOST = 256


class HighestNumber:
    """The highest purge number of one directory that this process and this machine remember.

    :param directory: its path.
    :ivar seen: the highest number that this process has seen.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.seen = 0

    def see(self, number: int) -> None:
        """Remember a number in this process."""
        self.seen = max(self.seen, number)

    def note(self, number: int) -> None:
        """Remember a number for other processes too."""
        self.see(number)
        with suppress(OSError, StoreError):
            path = self._path()
            if path is not None:
                is_first = not path.exists()
                if is_first:
                    _remove_oldest()
                write_file(path, seal(_KIND, b"%d" % number), time.time_ns())
                if is_first:
                    shared_memory.remove_left_over(_UNFINISHED_NAME, os.stat(path).st_ctime_ns)

    def read(self) -> int:
        """Return the highest number that this process or another one of this machine has seen; 0 if there is none."""
        with suppress(OSError, StoreError):
            path = self._path()
            content = None if path is None else unseal(_KIND, read_file(path, 256))
            if content is not None and _NUMBER.fullmatch(content):
                self.see(int(content))
        return self.seen

    def _path(self) -> Path | None:
        """Return the path of the file; ``None`` where there is no shared memory."""
        if shared_memory.device() is None:
            return None
        # Containers may share the memory and have different directories at one path: then the parents of these differ.
        above = os.stat(self._directory.parent)
        about = f"{own_user()} {above.st_dev} {above.st_ino} {self._directory}"
        return Path(shared_memory.FOLDER) / f"stalecache-last-{digest(about)}"


def _remove_oldest() -> None:
    with os.scandir(shared_memory.FOLDER) as entries:
        files = [(entry.stat(follow_symlinks=False), entry.path) for entry in entries if _NAME.fullmatch(entry.name)]
    # By the clock of the kernel, which can't be set for a single process.
    ours = sorted((status.st_ctime_ns, path) for status, path in files if status.st_uid == own_user())
    for _, path in ours[: max(0, len(ours) + 1 - MOST)]:
        with suppress(OSError):
            remove_file(path)
