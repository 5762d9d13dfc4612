"""Entries as files: one an entry, in 256 folders, written beside and renamed over, with a lock file a key."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from .. import entry as entry_format
from .. import note as note_format
from ..entry import Entry
from ..errors import BrokenEntry, ConfigError, StoreError
from ..keys import digest
from ..note import NOTHING, Note
from ..stats import Counters
from .base import Copy
from .memory import Copies
from .stamps import SEQ_SLOT, Stamps, slot_of

_TABLE = "stamps-1"
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class FileStore:
    """Entries in a directory that one user's processes share. Readers take no lock.

    :param directory: the cache directory; made with mode 0700 at first use. One that belongs to somebody else, or that others can
        write to, is refused.
    :param memory_size: bytes of copies that this process keeps in memory. Default 32 MiB; 0 for none.
    :param counters: where broken entries are counted. Default: its own.
    """

    def __init__(
        self, directory: str | os.PathLike[str], *, memory_size: int = 32 * 1024 * 1024, counters: Counters | None = None
    ) -> None:
        # Absolute, so that it stays the same if the process changes its folder.
        self.directory = Path(directory).absolute()
        self.counters = Counters() if counters is None else counters
        self._copies = Copies(memory_size)
        self._stamps: Stamps | None = None
        self._table: memoryview | None = None
        self._opened = False

    def __repr__(self) -> str:
        return f"FileStore({str(self.directory)!r})"

    # -- reading -------------------------------------------------------------------------------------------------

    def lookup(self, key: str) -> Copy | None:
        """Return this process's copy if its stamp is unchanged: no system call, no lock."""
        copy = self._copies.get(key)
        table = self._table
        if copy is None or table is None or table[copy.slot] != copy.stamp:
            return None
        copy.used = True
        return copy

    def load(self, key: str) -> Copy:
        """Read the entry and the note of a key. The stamp is noted first, so that a later write is never missed."""
        name = digest(key)
        slot = slot_of(name)
        with _store_errors():
            self._open()
            stamp = self._stamp(slot)
            copy = Copy(key, self._read_entry(name, key), self._read_note(name), stamp, slot)
        if self._table is not None and (copy.entry is not None or copy.note is not NOTHING):
            self._copies.put(copy)
        else:
            self._copies.discard(key)
        return copy

    def moved(self, copy: Copy) -> bool:
        """Whether the key's stamp changed since the copy was loaded; without a table nobody can tell, so: yes."""
        return self._table is None or self._table[copy.slot] != copy.stamp

    def seq(self) -> int:
        """Return the last purge number."""
        return self._stamp(SEQ_SLOT)

    def _stamp(self, slot: int) -> int:
        return 0 if self._table is None else int(self._table[slot])

    def _read_entry(self, name: str, key: str) -> Entry | None:
        data = _read(self._path(name))
        if data is None:
            return None
        try:
            return entry_format.decode(data, key)
        except BrokenEntry:
            self.counters.count("broken_entries")
            self._remove_broken(name, key)
            return None

    def _read_note(self, name: str) -> Note:
        data = _read(self._path(name, ".note"))
        return NOTHING if data is None else note_format.decode(data)

    # -- writing -------------------------------------------------------------------------------------------------

    def write(self, entry: Entry) -> None:
        """Write beside, rename over, then move the stamp.

        Killed before the last step: other copies live to the end of their freshness.
        """
        self._replace(entry.key, "", entry_format.encode(entry))

    def write_note(self, key: str, note: Note) -> None:
        """Write a note like an entry; an empty one is removed."""
        if note == NOTHING:
            self._unlink(key, ".note")
        else:
            self._replace(key, ".note", note_format.encode(note))

    def remove(self, key: str) -> None:
        """Remove a key's entry and move its stamp."""
        self._unlink(key, "")

    def lock(self, key: str) -> FileKeyLock:
        """Return a new lock of a key: one file a key, never striped, since a page holds its lock while it calls others."""
        return FileKeyLock(self, self._path(digest(key), ".lock"))

    def _replace(self, key: str, suffix: str, data: bytes) -> None:
        name = digest(key)
        with _store_errors():
            path = self._path(name, suffix)
            self.make_folder(path.parent)
            _write(path, data)
            self._move(name)

    def _unlink(self, key: str, suffix: str) -> None:
        name = digest(key)
        with _store_errors():
            self._open()
            with suppress(FileNotFoundError):
                self._path(name, suffix).unlink()
                self._move(name)

    def _remove_broken(self, name: str, key: str) -> None:
        """Remove a broken entry under its lock, unless it is being written, or is whole by now."""
        lock = self.lock(key)
        if not lock.acquire():
            return
        try:
            data = _read(self._path(name))
            if data is not None:
                entry_format.decode(data, key)
        except BrokenEntry:
            self._unlink(key, "")
        finally:
            lock.release()

    def _move(self, name: str) -> None:
        if self._stamps is not None:
            self._stamps.move(slot_of(name))

    def _path(self, name: str, suffix: str = "") -> Path:
        return self.directory / name[:2] / (name + suffix)

    # -- the directory -------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise :class:`ConfigError` if the directory is there and is a file, not ours, writable by others, or not by us."""
        try:
            link, status = os.lstat(self.directory), os.stat(self.directory)
        except FileNotFoundError:
            return
        except NotADirectoryError:
            raise ConfigError(f"the cache directory {self.directory} is inside a file: give another STALECACHE_DIR") from None
        except OSError as error:
            raise ConfigError(
                f"the cache directory {self.directory} can't be used ({error.strerror}): give another STALECACHE_DIR"
            ) from None
        if not stat.S_ISDIR(status.st_mode):
            raise ConfigError(f"the cache directory {self.directory} is a file: give a directory as STALECACHE_DIR")
        others = {link.st_uid, status.st_uid} - {os.geteuid()}
        if others:
            raise ConfigError(
                f"the cache directory {self.directory} belongs to user {others.pop()}, and we are user {os.geteuid()}: "
                "give a directory of our own as STALECACHE_DIR"
            )
        if status.st_mode & 0o022:
            raise ConfigError(
                f"others can write to the cache directory {self.directory} (mode {stat.S_IMODE(status.st_mode):04o}): "
                "run chmod 700 on it, or give another STALECACHE_DIR"
            )
        if not os.access(self.directory, os.R_OK | os.W_OK | os.X_OK):
            raise ConfigError(f"the cache directory {self.directory} is not writable: give another STALECACHE_DIR")

    def _open(self) -> None:
        if not self._opened:
            _make_directories(self.directory)
            self.check()
            self._map()
            self._opened = True

    def _map(self) -> None:
        try:
            stamps = Stamps(self.directory / _TABLE)
        except OSError:
            # A disk without room for the table: everything works, each hit reads its file.
            self.counters.count("no_stamps")
            self._stamps = self._table = None
        else:
            self._stamps, self._table = stamps, stamps.table
        self._copies.clear()

    def tick(self) -> None:
        """Map the table anew if its file was replaced or deleted, or could not be had before."""
        with _store_errors():
            if self._opened and (self._stamps is None or not self._stamps.is_current()):
                self._opened = False
                self._open()

    def forget(self) -> None:
        """Drop all copies; a fork may have left their lock taken."""
        self._copies.clear()

    def make_folder(self, folder: Path) -> None:
        """Make one of the 256 folders; the directory too, if it was deleted under us."""
        self._open()
        try:
            _make_directory(folder)
        except FileNotFoundError:
            self._opened = False
            self._open()
            _make_directory(folder)


class FileKeyLock:
    """A key's lock file. It is taken by the thread that works, and may be released by another when a deadline has passed."""

    def __init__(self, store: FileStore, path: Path) -> None:
        self._store = store
        self._path = path
        # thread_local=False: with the default, a release from another thread silently does nothing.
        self._lock = FileLock(path, thread_local=False, mode=0o600)

    def acquire(self) -> bool:
        """Try once; contention is a value, failure an exception."""
        with _store_errors():
            # filelock would make the folder itself, and readable by others.
            self._store.make_folder(self._path.parent)
            try:
                self._lock.acquire(blocking=False)
            except Timeout:
                return False
            return True

    def release(self) -> None:
        """Let go. The file stays: only a holder may remove it, and the next holder is soon there."""
        with suppress(OSError):
            self._lock.release(force=True)


def _make_directories(path: Path) -> None:
    """Make a directory and the missing ones above it: none that others can write to, since they could replace what is in it."""
    if not path.is_dir():
        if path.parent != path:
            _make_directories(path.parent)
        _make_directory(path)


def _make_directory(path: Path) -> None:
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
        # mkdir leaves out what the umask says, even bits that we need.
        path.chmod(0o700)


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except (OSError, ConfigError) as error:
        raise StoreError(str(error)) from error


def _read(path: Path) -> bytes | None:
    """Return what a file holds; ``None`` if it is not there, nothing if something else than a file is."""
    try:
        descriptor = os.open(path, _READ)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return b""
        raise
    try:
        size = os.fstat(descriptor).st_size
        data = os.read(descriptor, size)
        while len(data) < size and (more := os.read(descriptor, size - len(data))):
            data += more
        return data
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes) -> None:
    beside = path.with_name(f"{path.name}.{os.urandom(8).hex()}.tmp")
    descriptor = os.open(beside, _CREATE, 0o600)
    try:
        try:
            os.fchmod(descriptor, 0o600)
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)
        os.rename(beside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise
