"""Other operating systems, as far as this package sees them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from flask_stalecache.filesystem import directory, mounts, shared_memory

NOWHERE = "/there is no such folder"


def become_macos(put: Callable[[Any, str, object], object] = setattr, take: Callable[[Any, str], object] = delattr) -> None:
    """Take what macOS lacks from this process, and give it what only macOS has.

    :param put: sets an attribute. A test passes a function that undoes it at the end.
    :param take: takes one away.
    """
    if hasattr(os, "posix_fallocate"):
        take(os, "posix_fallocate")
    for flag in ("O_TMPFILE", "O_PATH"):
        if hasattr(os, flag):
            take(os, flag)
    put(directory, "LINKS", NOWHERE)
    put(shared_memory, "FOLDER", NOWHERE)
    put(mounts, "MOUNTS", NOWHERE)
