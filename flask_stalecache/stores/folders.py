"""The 256 folders of a cache directory: what is in them, when it was last used, and how it is removed."""

from __future__ import annotations

import errno
import os
import random
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import StoreError
from ..filesystem.atomic import files_in
from ..filesystem.locks import FileKeyLock, remove_if_idle
from ..stats.counters import Counters
from .stamps import Stamps, slot_of

_UNFINISHED = re.compile(r"(\.note|\.lock|)\.[0-9a-f]{16}\.tmp")
_LENGTH, _HEXADECIMAL = 40, "0123456789abcdef"
_SUFFIXES = {"entry": "", "note": ".note", "lock": ".lock"}
_KINDS = {suffix: frozenset([kind]) for kind, suffix in _SUFFIXES.items()}
_LOCK = _KINDS[".lock"]
_BLOCK = 4096
BILLION = 1_000_000_000
#: How much was removed by reason, and how many ``bytes``.
Removed = Counter[str]


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
    :ivar unfinished: bytes of files that are being written, or whose writer was killed.
    :ivar listed: how many entries there are.
    :ivar is_whole: whether all keys were looked at.
    """

    keys: list[Found]
    unfinished: int
    listed: int
    is_whole: bool

    @property
    def entries(self) -> int:
        """The number of entries that were looked at."""
        return sum(found.entry is not None for found in self.keys)

    @property
    def size(self) -> int:
        """Bytes of the entries and notes that were looked at, and of unfinished ones."""
        return self.unfinished + sum(found.size for found in self.keys)


@dataclass(slots=True)
class Listed:
    """The names in one of the folders.

    :ivar keys: which files there are of each key: its ``entry``, its ``note``, its ``lock``.
    :ivar leftovers: files that were not finished when their writer was killed, or that are being written now.
    :ivar unfinished: the bytes of those.
    """

    keys: dict[str, frozenset[str]] = field(default_factory=dict)
    leftovers: list[Path] = field(default_factory=list)
    unfinished: int = 0


def on_disk(size: int) -> int:
    """Return the bytes that a file of a size takes in a file system with usual blocks."""
    return -(-size // _BLOCK) * _BLOCK


class Folders:
    """The folders of a cache directory.

    :param directory: the cache directory.
    :param make_folder: makes one of them.
    :param counters: where removals are counted.
    """

    def __init__(self, directory: Path, make_folder: Callable[[Path], None], counters: Counters) -> None:
        self.directory = directory
        self._root = str(directory)
        self._make_folder = make_folder
        self.counters = counters

    def file(self, name: str) -> str:
        """Return where an entry is: as no Path, where there are many thousands."""
        return f"{self._root}/{name[:2]}/{name}"

    def path(self, name: str, suffix: str = "") -> Path:
        """Return where a file of a key is."""
        return self.directory / name[:2] / (name + suffix)

    def lock(self, name: str) -> FileKeyLock:
        """Return a new lock of a key."""
        return FileKeyLock(self.path(name, ".lock"), self._make_folder)

    def listed(self, number: int) -> Listed:
        """Return the names in a folder. Files that are not ours are not even named."""
        listed, prefix = Listed(), f"{number:02x}"
        keys = listed.keys
        for entry in files_in(self.directory / prefix):
            # No expression where there are many thousands: a key's name, and nothing, .note or .lock.
            name, suffix = entry.name[:_LENGTH], entry.name[_LENGTH:]
            kind = _KINDS.get(suffix)
            if len(name) != _LENGTH or not name.startswith(prefix) or name.strip(_HEXADECIMAL):
                continue
            if kind is not None:
                keys[name] = keys[name] | kind if name in keys else kind
            elif _UNFINISHED.fullmatch(suffix):
                listed.leftovers.append(Path(entry.path))
                with suppress(FileNotFoundError):
                    listed.unfinished += on_disk(entry.stat(follow_symlinks=False).st_size)
        return listed

    def found(self, name: str, kinds: frozenset[str]) -> Found:
        """Return what there is of a key, of some kinds of files: each may be gone by now."""
        found, path = Found(name), self.file(name)
        for kind in kinds:
            setattr(found, kind, _status(path + _SUFFIXES[kind]))
        return found

    def look(self, number: int, most: int | None = None) -> Folder:
        """Return what is in a folder, without locks.

        :param most: how many keys are looked at, chosen at random. Default: all.
        """
        listed = self.listed(number)
        keys = [(name, kinds - _LOCK) for name, kinds in listed.keys.items() if kinds != _LOCK]
        entries = sum("entry" in kinds for _, kinds in keys)
        is_whole = most is None or len(keys) <= most
        chosen = keys if most is None or is_whole else random.sample(keys, most)
        return Folder([self.found(name, kinds) for name, kinds in chosen], listed.unfinished, entries, is_whole)

    def remove(self, found: Found, stamps: Stamps | None, why: str, removed: Removed) -> bool:
        """Remove what there is of a key, and return whether it was: not if somebody works at it, or it has changed.

        Another process may have replaced it since it was found, so it is looked at again under its lock.

        :param why: what it is counted as.
        :param removed: where it is counted too.
        """
        if not self._remove(found, stamps):
            return False
        self.counters.count(why)
        removed[why] += 1
        removed["bytes"] += found.size
        return True

    def _remove(self, found: Found, stamps: Stamps | None) -> bool:
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
        self.has_gone(found, stamps)
        return True

    def has_gone(self, found: Found, stamps: Stamps | None) -> None:
        """Tell all processes that something was removed."""
        if stamps is not None:
            stamps.move(slot_of(found.name))
            stamps.grow(folder_of(found.name), -found.size, -(found.entry is not None))

    def remove_lock(self, name: str) -> None:
        """Remove a lock file, unless it is held."""
        remove_if_idle(self.file(name) + ".lock")

    def _is_unchanged(self, found: Found) -> bool:
        return all(
            _identity(_status(self.file(found.name) + suffix)) == _identity(status)
            for suffix, status in (("", found.entry), (".note", found.note))
        )

    def note_use(self, name: str, time_ns: int) -> None:
        """Give an entry and its note the time of their last use."""
        for suffix in ("", ".note"):
            with suppress(FileNotFoundError):
                os.utime(self.file(name) + suffix, ns=(time_ns, time_ns), follow_symlinks=False)


def _has_no_room(error: StoreError) -> bool:
    """Whether a lock could not be taken since the disk is too full for its file: then nobody has it, and this makes room."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)


def size_on_disk(path: Path) -> int | None:
    """Return the bytes that a file takes; ``None`` if there is none."""
    status = _status(str(path))
    return None if status is None else on_disk(status.st_size)


def folder_of(name: str) -> int:
    """Return the number of the folder that a key's files are in."""
    return int(name[:2], 16)


def _status(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def _identity(status: os.stat_result | None) -> tuple[int, int, int] | None:
    return None if status is None else (status.st_ino, status.st_size, status.st_mtime_ns)
