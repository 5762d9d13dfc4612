"""The protocol between the engine and a store, and the values that pass through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from ..core.addressing.keys import digest, is_digest
from ..core.model.entry import Entry
from ..core.model.note import Note
from ..stats.counters import Counters
from ..stats.many_hosts import Hosts
from ..stats.schema import Stats
from .file_numbers import Numbers

#: Notes without an entry take at most 1/n of ``max_size``, since visitors choose their keys.
NOTES_SHARE = 16
#: Estimated bytes of memory: a copy without an entry; an entry with its prepared response; a name; a field; a container; an item.
_COPY, _ENTRY, _NAME, _FIELD, _CONTAINER, _ITEM = 700, 3500, 190, 320, 100, 60


class Copy:
    """This process's copy of a key: its entry, its note, and the stamps that tell whether both are still valid.

    :ivar entry: the entry, or ``None``.
    :ivar note: the note; an empty one if the key has none.
    :ivar stamp: the key's stamp, read before the files.
    :ivar slot: index of the key's stamp in the table.
    :ivar mark: index of the key's mark of use.
    :ivar table: the table that the stamps were read from; stamps of different tables can't be compared.
    :ivar seq: the last purge number that the copy is known to have outlived.
    :ivar names: slot and stamp of each name that purges it.
    :ivar used: set by each use; the eviction of copies reads it (CLOCK).
    :ivar size: estimated bytes of memory.
    :ivar prepared: the data that a front end derived from the entry to serve it faster.
    :ivar standing: the engine's last decision to serve the entry, which hits may repeat for a while.
    """

    __slots__ = (
        "entry",
        "key",
        "mark",
        "names",
        "note",
        "prepared",
        "seq",
        "size",
        "slot",
        "stamp",
        "standing",
        "table",
        "used"
    )  # fmt: skip

    def __init__(
        self,
        key: str,
        entry: Entry | None,
        note: Note,
        stamp: int,
        slot: int,
        seq: int = 0,
        table: Numbers | None = None,
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
        self.standing: Any = None
        self.size = _COPY + len(key) + (0 if entry is None else _weight_of_entry(entry))


def _weight_of_entry(entry: Entry) -> int:
    # _NAME includes the slot and the stamp of a name.
    names = sum(_NAME + len(name) for name in entry.names)
    fields = sum(_FIELD + len(name) + len(value) for name, value in entry.headers)
    return _ENTRY + len(entry.body) + names + fields + _weight(entry.recipe) + _weight(entry.calls)


def _weight(value: object) -> int:
    """Estimate the bytes of memory of a JSON value."""
    if isinstance(value, dict):
        return _CONTAINER + sum(_weight(item) + _ITEM for item in value.values())
    if isinstance(value, (list, tuple)):
        return _CONTAINER + sum(map(_weight, value))
    return _ITEM + len(value) if isinstance(value, str) else _ITEM


@dataclass(frozen=True, slots=True)
class Stored:
    """One entry that a walk found.

    :param entry: the entry without its body. Purges since it was begun have been applied.
    :param length: bytes of the body.
    :param size: bytes of entry and note on the disk.
    :param used: time of the last known use, in seconds since the epoch.
    :param note: its note; an empty one if it has none.
    """

    entry: Entry
    length: int
    size: int
    used: float
    note: Note


class Usage(NamedTuple):
    """The number and size of the stored entries.

    :param entries: number of entries; includes indexes of variants, and purged entries that the sweep has not removed yet.
    :param bytes: bytes of entries and notes on the disk.
    """

    entries: int
    bytes: int


class Checked(NamedTuple):
    """Result of a check of one entry.

    :param path: its file.
    :param key: its key; ``None`` if it can't be read.
    :param problem: what is wrong with it; "" if it is sound.
    :param removed: whether it was removed because of the problem.
    """

    path: str
    key: str | None
    problem: str
    removed: bool = False


class Compared(NamedTuple):
    """The entries of a host, compared with those of the shared server.

    :param failure: why they could not be compared; "" if they were.
    :param same: entries that the server has too.
    :param replaced: entries that the server has replaced or removed. This host asks the server for them at their next use.
    :param alone: entries that the server does not have (any more): it may have evicted them.
    :param has_unread_purges: whether this host has not applied all purges yet.
    :param unread_changes: changes of other hosts that this host has not read yet.
    :param problems: titles of entries that this host would serve although it should not, and why.
    """

    failure: str
    same: int = 0
    replaced: int = 0
    alone: int = 0
    has_unread_purges: bool = False
    unread_changes: int = 0
    problems: tuple[tuple[str, str], ...] = ()


class Acknowledged(NamedTuple):
    """The hosts that a purge had reached when it returned.

    :param hosts: number of connected hosts, including this one; 0 if the purge did not wait for them.
    :param late: the names of the connected hosts that had not acknowledged the purge.
    :param seconds: the longest time that the purge waited for them.
    :param silent: number of further hosts that were heard within a day, but not lately. They have gone, or read the purge once they
        are connected again.
    """

    hosts: int
    late: tuple[str, ...]
    seconds: float
    silent: int = 0

    def and_then(self, later: Acknowledged | None) -> Acknowledged:
        """Return what this purge and a later one have reached together."""
        if later is None:
            return self
        late = tuple(sorted({*self.late, *later.late}))
        return Acknowledged(max(self.hosts, later.hosts), late, later.seconds, max(self.silent, later.silent))

    @property
    def where(self) -> str:
        """The number of hosts that the purge has reached, in words."""
        if not self.hosts:
            return "on this host; the others hear of it, and were not waited for"
        return f"on {self.hosts - len(self.late)} of {self.hosts} hosts"

    @property
    def missing(self) -> list[str]:
        """Sentences about the hosts that have not acknowledged the purge; none if all have."""
        said = []
        if self.late:
            names = f"host{'s' if len(self.late) > 1 else ''} {', '.join(self.late)}"
            said.append(f"{names} {'have' if len(self.late) > 1 else 'has'} not acknowledged within {self.seconds:g} s")
        if self.silent:
            who = "1 more host is" if self.silent == 1 else f"{self.silent} more hosts are"
            said.append(f"{who} silent: gone, or not connected")
        return said


class KeyLock(Protocol):
    """The lock of one key, across threads, processes and (if the store spans them) hosts. Each use takes a new object."""

    def acquire(self) -> bool:
        """Try once, without waiting, and return whether the lock is held now. Raises :class:`StoreError` if that is unknown."""

    def release(self) -> None:
        """Release the lock. Any thread may do so, and it is harmless if the lock is not held."""


class Store(Protocol):
    """The methods that a store has. All may be called from any thread; those that do I/O raise :class:`StoreError`.

    ============ ============================================================ ==============================================
    part         methods                                                      used by
    ============ ============================================================ ==============================================
    hits         ``lookup``, ``touch``                                        every request: no I/O, no lock
    entries      ``load``, ``moved``, ``write``, ``remove``, ``write_note``   the engine, to read an entry and to store one
    locks        ``lock``                                                     the engine, so that only one process calls an origin
    purges       ``seq``, ``purge``                                           the engine and the bulk operations
    contents     ``walk``, ``usage``, ``verify``                              bulk operations, shell and dashboard
    upkeep       ``check``, ``tick``, ``sweep``, ``forget``                   start, housekeeping, shell, after a fork
    ============ ============================================================ ==============================================

    A store without copies in memory returns ``None`` from ``lookup`` and ``True`` from ``moved``, and does nothing in ``touch``
    and ``forget``. A store that removes entries by itself does nothing in ``tick`` and returns ``{"bytes": 0}`` from ``sweep``.

    Optional: a ``max_size`` attribute (bytes, or ``None``) is shown in the statistics; see also :class:`AddressedStore` and
    :class:`DirectoryStore`.
    """

    # -- hits ----------------------------------------------------------------------------------------------------

    def lookup(self, key: str) -> Copy | None:
        """Return this process's copy of a key, unless the key was written or purged since, and mark the copy as used.

        Makes no system call and takes no lock: it is called on every hit.
        """

    def touch(self, copy: Copy) -> None:
        """Mark a copy that came from ``load`` as used. No I/O."""

    # -- entries -------------------------------------------------------------------------------------------------

    def load(self, key: str) -> Copy:
        """Read the entry and the note of a key. A broken entry, or one purged since it was begun, is returned as ``None``."""

    def moved(self, copy: Copy) -> bool:
        """Whether the copy's key was written or purged since the copy was loaded. No I/O."""

    def write(self, entry: Entry) -> bool:
        """Replace the key's entry, unless the new one was purged since it was begun; return whether it was stored.

        The caller holds the key's lock, unless the lock could not be taken because the store fails.
        """

    def remove(self, key: str) -> None:
        """Remove a key's entry. The caller holds the key's lock."""

    def write_note(self, key: str, note: Note) -> None:
        """Replace a key's note; an empty note removes it."""

    # -- locks ---------------------------------------------------------------------------------------------------

    def lock(self, key: str) -> KeyLock:
        """Return a new lock object for a key."""

    # -- purges --------------------------------------------------------------------------------------------------

    def seq(self) -> int:
        """Return the last purge number. It is noted before an origin is called."""

    def purge(self, *names: str, soft: bool) -> Acknowledged | None:
        """Purge all entries that have one of the names and were begun before now: drop them, or (soft) end their freshness.

        Every process sees the purge at its next lookup, for all names at once. The time that a purge takes does not depend on the
        number of entries. Raises :class:`StoreError` if it could not be done. A store of many hosts returns which hosts have
        acknowledged the purge.
        """

    # -- contents ------------------------------------------------------------------------------------------------

    def walk(self) -> Iterator[Stored]:
        """Yield all entries, in no order; without purged and broken ones, and without indexes of variants.

        It reads the entries one by one and takes no lock, so they may change meanwhile. Creates nothing if nothing is stored.
        """

    def usage(self) -> Usage:
        """Return the number and size of the stored entries. The time it takes does not depend on them."""

    def verify(self, *, fix: bool) -> Iterator[Checked]:
        """Read every entry whole, and yield whether it is sound. With ``fix``, remove broken ones whose lock is free."""

    # -- upkeep --------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise :class:`ConfigError` if the store's configuration can't be used. Creates nothing."""

    def tick(self) -> None:
        """Do a little housekeeping; called about once a second from a background thread."""

    def sweep(self) -> Mapping[str, int]:
        """Remove everything that is due, in this thread; return the number of removals by reason, and the ``bytes`` freed."""

    def forget(self) -> None:
        """Drop all copies of this process."""


@runtime_checkable
class AddressedStore(Protocol):
    """An additional method of a store that finds an entry by the digest of its key, without a walk."""

    def key_of(self, address: str) -> str | None:
        """Return the key of the entry with an address; ``None`` if there is no such entry.

        :param address: 40 hexadecimal digits; anything else is no address.
        """


def find_key(store: Store, address: str) -> str | None:
    """Return the key of the entry with an address; ``None`` if there is no such entry.

    Pages, links and commands use addresses, since a key is long and may hold private values.

    :param address: the digest of the key.
    :raises StoreError: if the store can't be read.
    """
    if not is_digest(address):
        return None
    if isinstance(store, AddressedStore):
        return store.key_of(address)
    return next((stored.entry.key for stored in store.walk() if digest(stored.entry.key) == address), None)


@runtime_checkable
class RecallingStore(Protocol):
    """An additional method of a store that can list the entries of a purge afterwards, so that the purge itself need not search."""

    def recall(self, *names: str) -> Callable[[], Iterator[Stored]]:
        """Return a function that walks through the entries that are stored now and have one of the names, even after their purge.

        If an entry was replaced since, the walk yields the new one.
        """


class Marking(Protocol):
    """Marks refreshes that wait in a queue of another program, for all processes that share a store."""

    def mark(self, name: str, seconds: float) -> float:
        """Mark a refresh as queued.

        :param name: identifies the key and the entry that is stored now.
        :param seconds: how long the mark lasts.
        :return: 0 if this call has marked the refresh; else the seconds for which an earlier mark still lasts. Nothing is raised:
            where there can be no marks, a refresh is queued more than once, which is harmless.
        """

    def unmark(self, name: str) -> None:
        """Remove a mark."""


@runtime_checkable
class QueueingStore(Protocol):
    """An additional member of a store whose processes queue each refresh once.

    :ivar queue_marks: the marks.
    """

    queue_marks: Marking


@runtime_checkable
class QuickStore(Protocol):
    """A store that returns a lower bound of its later purge numbers without I/O, for the beginning of each request."""

    def seq_without_io(self) -> int:
        """Return a number that every later purge exceeds."""


def seq_of_request(store: Store) -> Callable[[], int]:
    """Return the function that each request calls at its beginning, for a number that every later purge exceeds."""
    return store.seq_without_io if isinstance(store, QuickStore) else store.seq


@runtime_checkable
class PrivateStore(Protocol):
    """A store whose entries no other process sees.

    :ivar is_private: true.
    """

    is_private: bool


@runtime_checkable
class DirectoryStore(Protocol):
    """Additional members of a store whose processes share a local directory: statistics are kept there too.

    :ivar directory: the directory.
    :ivar counters: named counts of what the store removes.
    """

    directory: Path
    counters: Counters

    def newer_version(self) -> str | None:
        """Return the name of a table in the directory that a later version of this package has made; ``None`` if there is none."""

    def check(self) -> None:
        """Raise :class:`ConfigError` if the directory can't be used."""


class ToldNumbers(Protocol):
    """The statistics of the hosts that share a store."""

    def tell_if_due(self, stats: Callable[[], Stats]) -> None:
        """Report the statistics of this host to the others, if that is due. A failure is no error.

        :param stats: returns the present statistics.
        """

    def look(self, mine: Stats) -> Hosts:
        """Return the hosts with their statistics. If those of the others can't be read, return only this host, and the reason.

        :param mine: the statistics of this host.
        """


class HostFollower(Protocol):
    """Reads the changes of other hosts, in one process of each host."""

    @property
    def follows(self) -> bool:
        """Whether this process reads the changes for its host."""

    def stop(self) -> None:
        """Stop reading the changes; another process takes over."""


@runtime_checkable
class ManyHostsStore(Protocol):
    """A store that many hosts share.

    :ivar numbers: the statistics of the hosts.
    :ivar follower: reads the changes of other hosts for this one.
    """

    numbers: ToldNumbers
    follower: HostFollower

    @property
    def is_alone(self) -> bool:
        """Whether the other hosts can't be reached now."""

    def compare(self, *, fix: bool) -> Compared:
        """Compare the entries of this host with those of the server.

        :param fix: correct the differences on this host.
        """

    def begin(self) -> bool:
        """Catch up with the other hosts at the first use in a process. Return whether this was the first use."""
