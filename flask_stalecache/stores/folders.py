"""The 256 folders of a cache directory: listing files, their last use, and removal.

A key has up to three files, in the folder named by the first two digits of its digest: the entry (named by the digest), ``.note``
and ``.lock``. The name of a file that is being written ends in ``.tmp``. The modification time of entry and note is the time of
their last known use.
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import StoreError
from ..filesystem.atomic import files_in, has_no_room, remove_file, status_of
from ..filesystem.directory import Directory, Inside, Place, where
from ..filesystem.locks import FileKeyLock, remove_if_idle
from ..stats.counters import Counters
from .table.stamps import Stamps, digest_mark, slot_of

_UNFINISHED = re.compile(r"(\.note|\.lock|)\.[0-9a-f]{16}\.tmp")
_LENGTH, _HEXADECIMAL = 40, "0123456789abcdef"
_SUFFIXES = {"entry": "", "note": ".note", "lock": ".lock"}
_KINDS = {suffix: frozenset([kind]) for kind, suffix in _SUFFIXES.items()}
_LOCK = _KINDS[".lock"]
_BLOCK = 4096
BILLION = 1_000_000_000
#: Number of removals by reason, and the ``bytes`` freed.
Removed = Counter[str]


@dataclass(slots=True)
class KeyFiles:
    """The files of one key.

    :ivar name: the digest of the key, which names the files.
    :ivar entry: status of the entry's file; ``None`` if there is none.
    :ivar note: status of the note's file.
    :ivar lock: status of the lock file.
    """

    name: str
    entry: os.stat_result | None = None
    note: os.stat_result | None = None
    lock: os.stat_result | None = None

    @property
    def size(self) -> int:
        """Bytes of entry and note on the disk."""
        return sum(on_disk(status.st_size) for status in (self.entry, self.note) if status is not None)

    @property
    def lone_size(self) -> int:
        """Bytes of a note without an entry."""
        return self.size if self.entry is None else 0

    @property
    def used_ns(self) -> int:
        """The time of the last use or write, according to the files."""
        return max((status.st_mtime_ns for status in (self.entry, self.note) if status is not None), default=0)

    @property
    def is_orphan(self) -> bool:
        """Whether only the lock file is left."""
        return self.entry is None and self.note is None


@dataclass(slots=True)
class Folder:
    """The keys of one folder, with the status of their files.

    :ivar keys: the keys that were looked at.
    :ivar unfinished: bytes of files that are being written, or whose writer was killed.
    :ivar listed: number of entries in the folder.
    :ivar is_whole: whether all keys were looked at.
    """

    keys: list[KeyFiles]
    unfinished: int
    listed: int
    is_whole: bool

    @property
    def entries(self) -> int:
        """The number of entries that were looked at."""
        return sum(found.entry is not None for found in self.keys)

    @property
    def size(self) -> int:
        """Bytes of the entries and notes that were looked at, and of unfinished files."""
        return self.unfinished + sum(found.size for found in self.keys)

    @property
    def notes(self) -> int:
        """Bytes of the notes without an entry that were looked at."""
        return sum(found.lone_size for found in self.keys)


@dataclass(slots=True)
class Listed:
    """The names in one folder.

    :ivar keys: the kinds of files of each key: ``entry``, ``note``, ``lock``.
    :ivar leftovers: files that are being written, or whose writer was killed.
    :ivar unfinished: bytes of the leftovers.
    """

    keys: dict[str, frozenset[str]] = field(default_factory=dict)
    leftovers: list[Inside] = field(default_factory=list)
    unfinished: int = 0


def on_disk(size: int) -> int:
    """Return the bytes that a file of some size takes on the disk, in blocks of 4 KiB."""
    return -(-size // _BLOCK) * _BLOCK


class Folders:
    """The folders of a cache directory.

    :param directory: the cache directory.
    :param make_folder: makes one of the folders.
    :param counters: counts the removals.
    """

    def __init__(self, directory: Directory, make_folder: Callable[[Path], None], counters: Counters) -> None:
        self.directory = directory
        self._make_folder = make_folder
        self.counters = counters

    def file(self, name: str, suffix: str = "") -> Inside:
        """Return a key's file."""
        return self.directory.at(f"{name[:2]}/{name}{suffix}")

    def lock(self, name: str) -> FileKeyLock:
        """Return a new lock of a key."""
        return FileKeyLock(
            self.directory.path / name[:2] / f"{name}.lock", self._make_folder, directory=self.directory, is_passing=True
        )

    def listed(self, number: int) -> Listed:
        """Return the names in a folder, without files that are not ours."""
        listed, prefix = Listed(), f"{number:02x}"
        keys = listed.keys
        for entry in files_in(self.directory.at(prefix)):
            # Compared by hand, since a regular expression is slow for many thousands of names.
            name, suffix = entry.name[:_LENGTH], entry.name[_LENGTH:]
            kind = _KINDS.get(suffix)
            if len(name) != _LENGTH or not name.startswith(prefix) or name.strip(_HEXADECIMAL):
                continue
            if kind is not None:
                keys[name] = keys[name] | kind if name in keys else kind
            elif _UNFINISHED.fullmatch(suffix):
                listed.leftovers.append(self.directory.at(f"{prefix}/{entry.name}"))
                with suppress(FileNotFoundError):
                    listed.unfinished += on_disk(entry.stat(follow_symlinks=False).st_size)
        return listed

    def found(self, name: str, kinds: frozenset[str]) -> KeyFiles:
        """Return the given kinds of files of a key; each of them may have been removed since it was listed."""
        found = KeyFiles(name)
        for kind in kinds:
            setattr(found, kind, status_of(self.file(name, _SUFFIXES[kind])))
        return found

    def look(self, number: int, most: int | None = None, *, only_notes: bool = False) -> Folder:
        """Return the entries and notes in a folder.

        :param most: look at this many keys at most, chosen at random. Default: all.
        :param only_notes: look only at notes without an entry.
        """
        listed = self.listed(number)
        keys = [(name, kinds - _LOCK) for name, kinds in listed.keys.items() if kinds != _LOCK]
        if only_notes:
            keys = [(name, kinds) for name, kinds in keys if "entry" not in kinds]
        entries = sum("entry" in kinds for _, kinds in keys)
        is_whole = most is None or len(keys) <= most
        chosen = keys if most is None or is_whole else random.sample(keys, most)
        return Folder([self.found(name, kinds) for name, kinds in chosen], listed.unfinished, entries, is_whole)

    def remove(self, found: KeyFiles, stamps: Stamps | None, why: str, removed: Removed, *, spare_used: bool = False) -> bool:
        """Remove entry and note of a key. Return false if its lock is held, or its files have changed.

        Another process may have replaced the files since they were found, so they are looked at again under the lock.

        :param why: name of the counter.
        :param removed: counts the removal too.
        :param spare_used: also return false if the key's mark is set: the key was used since it was looked at.
        """
        if not self._remove(found, stamps, spare_used):
            return False
        self.counters.count(why)
        removed[why] += 1
        removed["bytes"] += found.size
        return True

    def _remove(self, found: KeyFiles, stamps: Stamps | None, spare_used: bool) -> bool:
        lock = self.lock(found.name)
        try:
            if not lock.acquire():
                return False
        except StoreError as error:
            # The disk has no room for the lock file: then no process holds the lock, and the removal makes room.
            return has_no_room(error) and self._unlink(found, stamps, spare_used)
        try:
            return self._unlink(found, stamps, spare_used)
        finally:
            lock.release()

    def drop(self, found: KeyFiles, stamps: Stamps | None) -> None:
        """Remove entry and note of a key that was purged, though its lock may be held."""
        if self._unlink(found, stamps, spare_used=False):
            self.counters.count("removed_purged")

    def _unlink(self, found: KeyFiles, stamps: Stamps | None, spare_used: bool) -> bool:
        if not self._is_unchanged(found):
            return False
        if spare_used and stamps is not None and stamps.marks[digest_mark(found.name)]:
            return False
        for suffix in ("", ".note"):
            with suppress(FileNotFoundError):
                remove_file(self.file(found.name, suffix))
        self.has_gone(found, stamps)
        return True

    def has_gone(self, found: KeyFiles, stamps: Stamps | None) -> None:
        """Move the stamp of a removed key and correct the counts, so that all processes see the removal."""
        if stamps is not None:
            stamps.move(slot_of(found.name))
            stamps.grow(folder_of(found.name), -found.size, -(found.entry is not None), -found.lone_size)

    def has_changed(self, name: str, stamps: Stamps | None, size: int, entries: int, *, is_lone: bool) -> None:
        """Move the stamp of a key after one of its files was written or removed, and correct the counts.

        :param size: bytes by which the files have grown.
        :param entries: number of entries that were added.
        :param is_lone: whether the file is a note without an entry.
        """
        if stamps is None:
            return
        notes = size if is_lone else 0
        if entries:
            # The note of a new entry is no longer alone; that of a removed entry is alone from now on.
            notes = -entries * (size_on_disk(self.file(name, ".note")) or 0)
        stamps.move(slot_of(name))
        stamps.grow(folder_of(name), size, entries, notes)

    def is_lone(self, name: str, suffix: str) -> bool:
        """Whether a file of a key is a note, and the key has no entry."""
        return suffix == ".note" and status_of(self.file(name)) is None

    def remove_lock(self, name: str) -> None:
        """Remove a key's lock file, unless it is held."""
        remove_if_idle(self.file(name, ".lock"))

    def _is_unchanged(self, found: KeyFiles) -> bool:
        return all(
            _identity(status_of(self.file(found.name, suffix))) == _identity(status)
            for suffix, status in (("", found.entry), (".note", found.note))
        )

    def note_use(self, name: str, time_ns: int) -> None:
        """Set the modification time of entry and note to the time of their last use."""
        for suffix in ("", ".note"):
            path, at = where(self.file(name, suffix))
            with suppress(FileNotFoundError):
                os.utime(path, ns=(time_ns, time_ns), dir_fd=at, follow_symlinks=False)


def size_on_disk(place: Place) -> int | None:
    """Return the bytes that a file takes on the disk; ``None`` if there is no file."""
    status = status_of(place)
    return None if status is None else on_disk(status.st_size)


def folder_of(name: str) -> int:
    """Return the number of a key's folder."""
    return int(name[:2], 16)


def _identity(status: os.stat_result | None) -> tuple[int, int, int] | None:
    return None if status is None else (status.st_ino, status.st_size, status.st_mtime_ns)
