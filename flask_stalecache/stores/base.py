"""The seam between the engine and what keeps entries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ..core.model.entry import Entry
from ..core.model.note import Note

#: Bytes that a copy takes without an entry; an entry with what a front end prepares; a name, a field, a list, and what is in it.
_COPY, _ENTRY, _NAME, _FIELD, _CONTAINER, _ITEM = 700, 3500, 190, 320, 100, 60


class Copy:
    """What a process holds of one key: its entry, its note, and the stamp that says whether both still stand.

    :ivar entry: the entry, or ``None``.
    :ivar note: the note; an empty one if there is none.
    :ivar stamp: the key's stamp, read before the files.
    :ivar slot: where the key's stamp is in the table.
    :ivar mark: where it is marked as used.
    :ivar table: the table that the stamps are of; those of another say nothing.
    :ivar seq: the last purge number that the copy is known to have outlived.
    :ivar names: slot and stamp of each name that it can be purged by.
    :ivar used: set by each use; the eviction of copies looks at it (CLOCK).
    :ivar size: about how many bytes of memory it takes.
    :ivar prepared: what a front end made of the entry to serve it faster.
    """

    __slots__ = ("entry", "key", "mark", "names", "note", "prepared", "seq", "size", "slot", "stamp", "table", "used")

    def __init__(
        self,
        key: str,
        entry: Entry | None,
        note: Note,
        stamp: int,
        slot: int,
        seq: int = 0,
        table: memoryview | None = None,
        mark: int = 0,
    ) -> None:
        self.key = key
        self.entry = entry
        self.note = note
        self.stamp = stamp
        self.slot = slot
        self.mark = mark
        self.seq = seq
        self.table = table
        self.names: tuple[tuple[int, int], ...] = ()
        self.used = False
        self.prepared: Any = None
        self.size = _COPY + len(key) + (0 if entry is None else _weight_of_entry(entry))


def _weight_of_entry(entry: Entry) -> int:
    # The slot and the stamp of each name too.
    names = sum(_NAME + len(name) for name in entry.names)
    fields = sum(_FIELD + len(name) + len(value) for name, value in entry.headers)
    return _ENTRY + len(entry.body) + names + fields + _weight(entry.recipe) + _weight(entry.calls)


def _weight(value: object) -> int:
    """Return about how many bytes of memory some JSON takes."""
    if isinstance(value, dict):
        return _CONTAINER + sum(_weight(item) + _ITEM for item in value.values())
    if isinstance(value, (list, tuple)):
        return _CONTAINER + sum(map(_weight, value))
    return _ITEM + len(value) if isinstance(value, str) else _ITEM


@dataclass(frozen=True, slots=True)
class Stored:
    """What a walk through a store comes upon.

    :param entry: the entry as purges leave it; its body is left out.
    :param length: bytes of the body.
    :param size: bytes that entry and note take on the disk.
    :param used: when it was last used, in seconds since the epoch, as far as that is known.
    :param note: its note; an empty one if there is none.
    """

    entry: Entry
    length: int
    size: int
    used: float
    note: Note


class Usage(NamedTuple):
    """How much is stored.

    :param entries: the number of entries; the index of a URL's variants is one too, and so is what was purged and not yet removed.
    :param bytes: what entries and notes take on the disk.
    """

    entries: int
    bytes: int


class Checked(NamedTuple):
    """One entry, read whole.

    :param path: where it is.
    :param key: its key; ``None`` if that can't be read.
    :param problem: what is wrong with it; "" if nothing is.
    :param removed: whether it was removed for that.
    """

    path: str
    key: str | None
    problem: str
    removed: bool = False


class KeyLock(Protocol):
    """The lock of one key, over threads, processes and (where the store spans them) hosts. Made anew for each use."""

    def acquire(self) -> bool:
        """Try once, without waiting, and say whether it is held now. Raises :class:`StoreError` if that can't be told."""

    def release(self) -> None:
        """Let go; from any thread, and harmless if it is not held."""


class Store(Protocol):
    """What the engine asks of a store. All methods may be called from any thread; those that do I/O raise :class:`StoreError`."""

    def lookup(self, key: str) -> Copy | None:
        """Return this process's copy if it still stands, and mark it as used.

        Makes no system call and takes no lock: it is called on every hit.
        """

    def load(self, key: str) -> Copy:
        """Return what is stored now; broken data counts as none, and so does what was purged since it was begun."""

    def moved(self, copy: Copy) -> bool:
        """Whether something was written for the copy's key, or it was purged, since it was loaded. No I/O."""

    def touch(self, copy: Copy) -> None:
        """Mark a copy as used that was loaded and not looked up. No I/O."""

    def write(self, entry: Entry) -> bool:
        """Store an entry in place of the key's last one, unless it was purged since it was begun; return whether it was stored.

        The key's lock is held, or nobody could get it.
        """

    def remove(self, key: str) -> None:
        """Drop a key's entry. The key's lock is held."""

    def write_note(self, key: str, note: Note) -> None:
        """Store a key's note in place of its last one; an empty note removes it."""

    def lock(self, key: str) -> KeyLock:
        """Return a new lock object for a key."""

    def seq(self) -> int:
        """Return the last purge number: noted before an origin is called."""

    def purge(self, *names: str, soft: bool) -> None:
        """Purge what has one of some names and was begun before now: drop it, or (soft) end its freshness.

        Every process sees it at its next look, of all names at once. It takes the same time however much is stored. Raises
        :class:`StoreError` if it could not be done.
        """

    def walk(self) -> Iterator[Stored]:
        """Yield what is stored, in no order: neither what was purged, nor indexes of variants, nor what is broken.

        It reads as it goes and takes no lock, so others may change things meanwhile. Makes nothing where nothing is stored.
        """

    def usage(self) -> Usage:
        """Return how much is stored: at once, however much it is."""

    def verify(self, *, fix: bool) -> Iterator[Checked]:
        """Read every entry whole, and yield whether it is sound; with ``fix`` what is not is removed, if nobody works at it."""

    def sweep(self) -> Mapping[str, int]:
        """Remove now, in this thread, what is to go; return the number of removals by reason, and the ``bytes`` that they freed."""

    def check(self) -> None:
        """Raise :class:`ConfigError` if what the store is configured with can't be used. Creates nothing."""

    def tick(self) -> None:
        """Do what needs doing now and then; called about once a second from a thread of ours."""

    def forget(self) -> None:
        """Drop all copies of this process."""
