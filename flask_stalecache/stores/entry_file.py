"""The file of an entry: a head, then the body.

What each function reads:

============== =========================== ======================================================
function       used by                     reads
============== =========================== ======================================================
`read_head`    walks, purges and upkeep    the head only, checks that the file has its full length
`read_entry`   loads and ``verify``        everything, checks key and checksum
`FileBody`     answers with a large body   the body, from the file that was checked
============== =========================== ======================================================
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import FileIO
from typing import NamedTuple

from ..core.model.entry import Entry
from ..errors import BrokenEntry, StoreError
from ..filesystem.atomic import PLANTED, open_file, read_file, store_errors
from ..filesystem.descriptors import Descriptor
from ..filesystem.directory import Inside
from .formats import entry_format

#: Bytes of the first read for a head: most heads are shorter.
_HEAD_READ = 4096
#: Bytes of one read of a body.
BLOCK = 256 * 1024
#: Identifies the file whose body was checked: device, inode, size, modification time.
Identity = tuple[int, int, int, int]


class EntryHead(NamedTuple):
    """The head of an entry's file.

    :param data: the first bytes of the file; they contain the whole head.
    :param length: bytes of the body.
    """

    data: bytes
    length: int

    @property
    def entry(self) -> Entry:
        """The entry without its body; the checksum is not verified. Raises :class:`BrokenEntry` if it can't be decoded."""
        return entry_format.decode_head(self.data)


@dataclass(frozen=True, slots=True)
class FileBody:
    """A body that stays in the file of its entry because it is too large for memory.

    :param start: offset of the body in the file.
    :param length: bytes of the body.
    :param identity: identity of the file whose body was checked.
    """

    place: Inside
    start: int
    length: int
    identity: Identity

    def open(self) -> FileIO | None:
        """Return the file, positioned at the body; ``None`` if it was removed or replaced since it was checked.

        :raises StoreError: if it can't be read.
        """
        with store_errors():
            descriptor = open_file(self.place)
            if descriptor is None:
                return None
            with descriptor:
                if _identity(descriptor) != self.identity:
                    return None
                # Unbuffered: a server may send it by its descriptor.
                file = descriptor.into_file()
            file.seek(self.start)
            return file

    def read(self) -> bytes:
        """Return the body.

        :raises StoreError: if the file was removed or replaced, or can't be read.
        """
        file = self.open()
        if file is None:
            raise StoreError(f"{self.place} has gone")
        with file:
            return file.read(self.length)


def read_head(place: Inside) -> EntryHead | None:
    """Return the head of an entry's file; ``None`` if there is no file.

    :raises BrokenEntry: if the file does not hold a whole entry.
    """
    descriptor = _open_entry(place)
    if descriptor is None:
        return None
    with descriptor:
        data, size = _read_head(descriptor, _HEAD_READ)
        whole = entry_format.file_size(data)
        if os.fstat(descriptor).st_size != whole:
            raise BrokenEntry("cut")
        return EntryHead(data, whole - size)


def read_entry(place: Inside, key: str, limit: int) -> Entry | None:
    """Read an entry and verify its checksum; ``None`` if there is no file.

    :param key: the full key to look for.
    :param limit: a larger body stays in the file, if the entry allows that.
    :raises BrokenEntry: if the file does not hold a whole entry of that key.
    """
    descriptor = _open_entry(place)
    if descriptor is None:
        return None
    with descriptor:
        identity = _identity(descriptor)
        if identity[2] > limit:
            data, size = _read_head(descriptor, BLOCK)
            entry = entry_format.decode_head(data[:size])
            body = FileBody(place, size, identity[2] - size, identity)
            if entry.by_file and body.length > limit:
                os.lseek(descriptor, size, os.SEEK_SET)
                return _checked(entry, key, data[:size], descriptor, body)
    # Opened again: a writer may have replaced the file, and then the new one is read whole.
    content = read_file(place)
    return None if content is None else entry_format.decode(content, key)


def _open_entry(place: Inside) -> Descriptor | None:
    """Open an entry's file for reading; ``None`` if there is none.

    :raises BrokenEntry: if it is a link, or belongs to another user.
    """
    try:
        return open_file(place)
    except OSError as error:
        if error.errno in PLANTED:
            raise BrokenEntry("a link, or another user's") from error
        raise


def _read_head(descriptor: int, first_read: int) -> tuple[bytes, int]:
    """Return bytes that contain the whole head, and the size of the head."""
    data = os.read(descriptor, first_read)
    size = entry_format.head_size(data)
    while len(data) < size and (more := os.read(descriptor, size - len(data))):
        data += more
    return data, size


def _checked(entry: Entry, key: str, head: bytes, descriptor: int, body: FileBody) -> Entry:
    if entry.key != key:
        raise BrokenEntry("another key")
    if not entry_format.is_whole(head, body.length, _blocks(descriptor)):
        raise BrokenEntry("checksum")
    return replace(entry, file=body)


def _blocks(descriptor: int) -> Iterator[bytes]:
    while block := os.read(descriptor, BLOCK):
        yield block


def _identity(descriptor: int) -> Identity:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
