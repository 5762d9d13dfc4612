"""The heads of stored entries, read without the bodies: for who goes through all of them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NamedTuple

from ..core.model import entry as entry_format
from ..core.model.entry import Entry
from ..errors import BrokenEntry
from ..filesystem.atomic import open_file

#: Bytes that are read at first: most heads are shorter.
_MOST = 4096


class Head(NamedTuple):
    """What an entry's file says without its body.

    :param data: its first bytes, with all of the head.
    :param length: bytes of the body.
    """

    data: bytes
    length: int

    @property
    def entry(self) -> Entry:
        """The entry without its body, unchecked; raises :class:`BrokenEntry` if it is none."""
        return entry_format.decode_head(self.data)


def open_entry(path: str | Path) -> int | None:
    """Return the descriptor of an entry's file that is open for reading; ``None`` if there is none.

    :raises BrokenEntry: if it is a link.
    """
    try:
        return open_file(path)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BrokenEntry("a link") from error
        raise


def read_head(path: str) -> Head | None:
    """Return the head in an entry's file; ``None`` if there is no file.

    :raises BrokenEntry: if the file holds no entry, or not all of it.
    """
    descriptor = open_entry(path)
    if descriptor is None:
        return None
    try:
        return _head(descriptor)
    finally:
        os.close(descriptor)


def _head(descriptor: int) -> Head:
    data = os.read(descriptor, _MOST)
    size = entry_format.head_size(data)
    while len(data) < size and (more := os.read(descriptor, size - len(data))):
        data += more
    whole = entry_format.file_size(data)
    if os.fstat(descriptor).st_size != whole:
        raise BrokenEntry("cut")
    return Head(data, whole - size)
