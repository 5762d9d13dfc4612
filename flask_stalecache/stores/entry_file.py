"""The file of an entry: its head, read alone by walks, and a body that is too large for memory and is read from the file."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from ..core.model import entry as entry_format
from ..core.model.entry import Entry
from ..errors import BrokenEntry, StoreError
from ..filesystem.atomic import open_file, read_file, store_errors

#: Bytes that are read at first: most heads are shorter.
_MOST = 4096
#: Bytes that are read at a time.
BLOCK = 256 * 1024
#: A file as it was when its body was checked: device, inode, size, time of its writing.
Identity = tuple[int, int, int, int]


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
        return _read_head(descriptor)
    finally:
        os.close(descriptor)


def _read_head(descriptor: int) -> Head:
    data = os.read(descriptor, _MOST)
    size = entry_format.head_size(data)
    while len(data) < size and (more := os.read(descriptor, size - len(data))):
        data += more
    whole = entry_format.file_size(data)
    if os.fstat(descriptor).st_size != whole:
        raise BrokenEntry("cut")
    return Head(data, whole - size)


@dataclass(frozen=True, slots=True)
class FileBody:
    """The body at the end of an entry's file.

    :param start: where in the file it begins.
    :param length: its bytes.
    :param identity: of the file whose body was checked.
    """

    path: Path
    start: int
    length: int
    identity: Identity

    def open(self) -> FileIO | None:
        """Return the file, at the beginning of the body; ``None`` if it is another one by now, or none.

        :raises StoreError: if it can't be read.
        """
        with store_errors():
            descriptor = open_file(self.path)
            if descriptor is None:
                return None
            # Unbuffered: a server may send it by its descriptor.
            file = FileIO(descriptor)
            if _identity(descriptor) != self.identity:
                file.close()
                return None
            file.seek(self.start)
            return file

    def read(self) -> bytes:
        """Return the body.

        :raises StoreError: if the file is another one by now, or can't be read.
        """
        file = self.open()
        if file is None:
            raise StoreError(f"{self.path} has gone")
        with file:
            return file.read(self.length)


def read_entry(path: Path, key: str, limit: int) -> Entry | None:
    """Return the entry in a file, checked; ``None`` if there is none.

    :param key: the full key that was asked for.
    :param limit: bytes of a body that is read into memory at most, if the entry's may stay where it is.
    :raises BrokenEntry: if the file holds no whole entry of that key.
    """
    descriptor = open_entry(path)
    if descriptor is None:
        return None
    with FileIO(descriptor) as file:
        identity = _identity(descriptor)
        if identity[2] > limit:
            head = _head(file)
            entry = entry_format.decode_head(head)
            if entry.by_file and identity[2] - len(head) > limit:
                return _checked(entry, key, head, file, FileBody(path, len(head), identity[2] - len(head), identity))
    data = read_file(path)
    return None if data is None else entry_format.decode(data, key)


def _head(file: FileIO) -> bytes:
    data = file.read(BLOCK)
    size = entry_format.head_size(data)
    while len(data) < size and (more := file.read(size - len(data))):
        data += more
    file.seek(size)
    return data[:size]


def _checked(entry: Entry, key: str, head: bytes, file: FileIO, body: FileBody) -> Entry:
    if entry.key != key:
        raise BrokenEntry("another key")
    if not entry_format.is_whole(head, body.length, _blocks(file)):
        raise BrokenEntry("checksum")
    return replace(entry, file=body)


def _blocks(file: FileIO) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block


def _identity(descriptor: int) -> Identity:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
