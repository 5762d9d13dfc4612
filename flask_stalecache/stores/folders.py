"""The 256 folders of a cache directory: what is in them, when it was last used, and how it is removed."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import StoreError
from .disk import files_in
from .locks import FileKeyLock
from .stamps import Stamps, slot_of

_FILE = re.compile(r"([0-9a-f]{40})(\.note|\.lock|)(\.[0-9a-f]{16}\.tmp)?")
_SUFFIXES = {"entry": "", "note": ".note", "lock": ".lock"}
_KINDS = {suffix: frozenset([kind]) for kind, suffix in _SUFFIXES.items()}
_BLOCK = 4096
BILLION = 1_000_000_000


@dataclass(slots=True)
class Found:
    """What there is of one key.

    :ivar name: the hash that its files are named by.
    :ivar entry: the status of its entry's file, if there is one.
    :ivar note: likewise of its note's.
    :ivar lock: likewise of its lock's.
    """

    name: str
    entry: os.stat_result | None = None
    note: os.stat_result | None = None
    lock: os.stat_result | None = None

    @property
    def size(self) -> int:
        """Bytes that it takes on the disk."""
        return sum(on_disk(status.st_size) for status in (self.entry, self.note) if status is not None)

    @property
    def used_ns(self) -> int:
        """When it was last used or written, as far as its files tell."""
        return max((status.st_mtime_ns for status in (self.entry, self.note) if status is not None), default=0)

    @property
    def is_orphan(self) -> bool:
        """Whether only a lock is left."""
        return self.entry is None and self.note is None


@dataclass(slots=True)
class Folder:
    """What was found in one of the folders.

    :ivar keys: what is there of each key.
    :ivar leftovers: files that were not finished when their writer was killed, or that are being written now.
    """

    keys: dict[str, Found] = field(default_factory=dict)
    leftovers: list[Path] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of all entries and notes."""
        return sum(found.size for found in self.keys.values())

    @property
    def entries(self) -> int:
        """The number of entries."""
        return sum(found.entry is not None for found in self.keys.values())


@dataclass(slots=True)
class Listed:
    """The names in one of the folders.

    :ivar keys: which files there are of each key: its ``entry``, its ``note``, its ``lock``.
    :ivar leftovers: files that were not finished when their writer was killed, or that are being written now.
    """

    keys: dict[str, frozenset[str]] = field(default_factory=dict)
    leftovers: list[Path] = field(default_factory=list)


def on_disk(size: int) -> int:
    """Return the bytes that a file of a size takes in a file system with usual blocks."""
    return -(-size // _BLOCK) * _BLOCK


class Folders:
    """The folders of a cache directory.

    :param directory: the cache directory.
    :param make_folder: makes one of them.
    """

    def __init__(self, directory: Path, make_folder: Callable[[Path], None]) -> None:
        self.directory = directory
        self._make_folder = make_folder

    def path(self, name: str, suffix: str = "") -> Path:
        """Return where a file of a key is."""
        return self.directory / name[:2] / (name + suffix)

    def lock(self, name: str) -> FileKeyLock:
        """Return a new lock of a key."""
        return FileKeyLock(self.path(name, ".lock"), self._make_folder)

    def listed(self, number: int) -> Listed:
        """Return the names in a folder. Files that are not ours are not even named."""
        listed, prefix = Listed(), f"{number:02x}"
        for entry in files_in(self.directory / prefix):
            match = _FILE.fullmatch(entry.name)
            if match is None or not entry.name.startswith(prefix):
                continue
            name, kind, unfinished = match.groups()
            if unfinished:
                listed.leftovers.append(Path(entry.path))
            else:
                kinds = listed.keys.get(name)
                listed.keys[name] = _KINDS[kind] if kinds is None else kinds | _KINDS[kind]
        return listed

    def found(self, name: str, kinds: frozenset[str]) -> Found:
        """Return what there is of a key, of some kinds of files: each may be gone by now."""
        found = Found(name)
        for kind in kinds:
            setattr(found, kind, _status(self.path(name, _SUFFIXES[kind])))
        return found

    def look(self, number: int) -> Folder:
        """Return what is in a folder."""
        listed = self.listed(number)
        return Folder({name: self.found(name, kinds) for name, kinds in listed.keys.items()}, listed.leftovers)

    def remove(self, found: Found, stamps: Stamps | None) -> bool:
        """Remove what there is of a key, and return whether it was: not if somebody works at it, or it has changed.

        Another process may have replaced it since it was found, so it is looked at again under its lock.
        """
        lock = self.lock(found.name)
        try:
            if not lock.acquire():
                return False
        except StoreError as error:
            return _has_no_room(error) and self._unlink(found, stamps)
        try:
            return self._unlink(found, stamps)
        finally:
            lock.release_for_good()

    def _unlink(self, found: Found, stamps: Stamps | None) -> bool:
        if not self._is_unchanged(found):
            return False
        for suffix in ("", ".note"):
            with suppress(FileNotFoundError):
                self.path(found.name, suffix).unlink()
        if stamps is not None:
            stamps.move(slot_of(found.name))
            stamps.grow(folder_of(found.name), -found.size, -(found.entry is not None))
        return True

    def remove_lock(self, name: str) -> None:
        """Remove an idle lock file."""
        lock = self.lock(name)
        with suppress(StoreError):
            if lock.acquire():
                lock.release_for_good()

    def _is_unchanged(self, found: Found) -> bool:
        return all(
            _identity(_status(self.path(found.name, suffix))) == _identity(status)
            for suffix, status in (("", found.entry), (".note", found.note))
        )

    def note_use(self, name: str, time_ns: int) -> None:
        """Give an entry and its note the time of their last use."""
        for suffix in ("", ".note"):
            with suppress(FileNotFoundError):
                os.utime(self.path(name, suffix), ns=(time_ns, time_ns), follow_symlinks=False)


def _has_no_room(error: StoreError) -> bool:
    """Whether a lock could not be taken since the disk is too full for its file: then nobody has it, and this makes room."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)


def folder_of(name: str) -> int:
    """Return the number of the folder that a key's files are in."""
    return int(name[:2], 16)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _identity(status: os.stat_result | None) -> tuple[int, int, int] | None:
    return None if status is None else (status.st_ino, status.st_size, status.st_mtime_ns)
