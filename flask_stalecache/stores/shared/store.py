"""The store of many hosts: files on each host, and Redis or Valkey between them.

Each host serves hits from its own files; if the server can't be used, it serves everything from them. The server holds the shared
data: entries, notes, locks, the order of purges, and the logs of purges and changes. A host asks the server for an entry once after
each change.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ...config.settings import KEYS, Settings
from ...core.addressing.keys import digest
from ...core.addressing.server_url import ServerUrl
from ...core.exhaustive import assert_never
from ...core.model.checks import Duration, seconds
from ...core.model.entry import Entry
from ...core.model.note import NOTHING, Note
from ...errors import PurgedHereOnly, StoreError
from ...filesystem.process import ProcessId, this_process
from ...stats.counters import Counters
from ..base import Acknowledged, Checked, Copy, Stored
from ..file_store import MIB, FileStore
from ..formats import note_format
from ..table.stamps import slot_of
from .client import SharedClient, check_installed
from .comparison import Comparison
from .content import entry_in, pack, stored_in
from .deafness import Deafness
from .errors_of import Refused, Unavailable
from .follower import Follower
from .host_reports import HostReports
from .introduction import Introduction
from .known import Known, number_of, shared_number
from .lock import Leases, SharedLock
from .logs import SharedLogs
from .queued import SharedQueueMarks
from .scripts import Got, LookupKind, Scripts, ServerState, Written

logger = logging.getLogger("flask_stalecache")

#: Seconds for which the server is not asked after a purge that it refused, unless the follower hears it before.
_LOST_FOR = 1.0
#: Entries that a walk asks the server for at a time.
_BATCH = 200
#: A number that no purge exceeds.
_LAST = 9_000_000_000_000_000


class RedisStore:
    """Entries of many hosts: files on each host, and Redis or Valkey between them.

    :param client: the URL of the server (``redis://``, ``rediss://``, ``unix://``, ``valkey://``, ``valkeys://``), or a callable
        that returns a client of redis-py or valkey-py. It is called at first use, in each process.
    :param directory: the cache directory of this host, as for :class:`FileStore`.
    :param name: the name of the cache: the same on all of its hosts, and not used by any other cache at the server.
    :param timeout: seconds for one try at the server. Default 1; if nothing is stored here, a slow server gets five times as long.
    :param lease: seconds after which the locks of a host that has died expire. Default 15.
    :param longest_lease: the same for locks that no thread can renew: longer than any call of an origin. Default 120.
    :param entry_size: bytes of the largest body that hosts share. Default 1 MiB; each host makes larger ones for itself.
    :param purge_wait: seconds for which a purge waits for the other hosts. Default 0.25.
    :param max_deaf: seconds without hearing the server after which the freshness of all entries here ends. Default: never.
    :param memory_size: as for :class:`FileStore`; likewise all other parameters.
    """

    def __init__(
        self,
        client: str | Callable[[], Any],
        directory: str | os.PathLike[str],
        *,
        name: str,
        timeout: float = 1.0,
        lease: float = 15.0,
        longest_lease: float = 120.0,
        entry_size: int = MIB,
        purge_wait: float = 0.25,
        max_deaf: float | None = None,
        memory_size: int = 32 * MIB,
        max_size: int | None = 100 * MIB,
        min_free: int = 0,
        inactive: Duration = 86400,
        counters: Counters | None = None,
        allow_network_directory: bool = False,
    ) -> None:
        self._files = files = FileStore(
            directory, memory_size=memory_size, max_size=max_size, min_free=min_free, inactive=inactive, counters=counters,
            allow_network_directory=allow_network_directory,
        )  # fmt: skip
        self._known = known = Known(files.directory)
        self._client = SharedClient(client, known, timeout=timeout, patience=5 * timeout)
        self._scripts = Scripts(self._client, name, known.host_id)
        self.queue_marks = SharedQueueMarks(files.queue_marks, self._client.command, known, name)
        self._leases = Leases(self._scripts, known, lease, longest_lease)
        self._idle = idle = seconds("inactive", inactive)
        # The follower gets no method of this store: that would keep the store alive.
        scripts = self._scripts
        logs = SharedLogs(self._client, name)
        self.follower = Follower(files, known, logs, lambda address: scripts.remove(address, idle))
        #: Logs a warning if another app uses the name.
        self.introduction = Introduction(self._client, name, self._client.where)
        self.numbers = HostReports(self._client, name, known, files.directory)
        self.compare = Comparison(files, known, scripts, self._client.where).compare
        self._entry_size = entry_size
        self._purge_wait = purge_wait
        self._deafness = Deafness(files, known, KEYS["SHARED_MAX_DEAF"].check("max_deaf", max_deaf))
        self._begun: set[ProcessId] = set()
        # Hits call the methods of the file store directly: the hot path has not one more instruction.
        self.lookup, self.touch, self.moved = files.lookup, files.touch, files.moved
        self.seq, self.seq_without_io = files.seq, files.seq_without_io
        self.usage, self.sweep, self.forget = files.usage, files.sweep, files.forget
        self.newer_version = files.newer_version

    def __repr__(self) -> str:
        return f"RedisStore({self._client.where!r}, {str(self.directory)!r})"

    @property
    def directory(self) -> Path:
        """The cache directory of this host."""
        return self._files.directory

    @property
    def is_alone(self) -> bool:
        """Whether the server can't be used now."""
        self._known.open()
        return self._known.is_down

    @property
    def counters(self) -> Counters:
        """The counts of entries that this host removes."""
        return self._files.counters

    @property
    def max_size(self) -> int | None:
        """The limit of the bytes on the disk of this host."""
        return self._files.max_size

    # -- reading -------------------------------------------------------------------------------------------------

    def load(self, key: str) -> Copy:
        """Read the entry and the note of a key, and ask the server if it may have another one."""
        copy = self._files.load(key)
        if self.begin():
            copy = self._files.load(key)
        name = digest(key)
        if self._known.is_down or self._is_known(copy, name):
            return copy
        # One fetch at a time for each key and host, under the lock of a made-up key that nothing else uses.
        lock = self._files.lock(f"{key} is fetched")
        is_mine = lock.acquire()
        try:
            if not is_mine and copy.entry is not None and self._leases.find(name) is None:
                # A fetch is running. This entry will do, except for the holder of the key's lock, which would call the origin.
                return copy
            if is_mine:
                copy = self._files.load(key)
            return copy if self._is_known(copy, name) else self._fetch(copy, name)
        finally:
            lock.release()

    def _is_known(self, copy: Copy, name: str) -> bool:
        """Whether the server has no other entry, as far as this host knows."""
        noted = self._known.serial(slot_of(name))
        if copy.entry is not None:
            return noted == number_of(copy.entry.serial)
        held = self._leases.find(name)
        return held is not None and held.empty_since == noted

    def _fetch(self, copy: Copy, name: str) -> Copy:
        own, slot = "" if copy.entry is None else copy.entry.serial, slot_of(name)
        since = self._known.serial(slot)
        # With an entry, only the holder of the key's lock waits for a slow server: it would call the origin needlessly.
        patience = 0 if own and self._leases.find(name) is None else None
        try:
            got = self._scripts.get(name, own, self._idle, patience=patience)
        except (Unavailable, Refused):
            return copy
        if self._heeds(got.state):
            copy = self._files.load(copy.key)
        serial, loaded = self._adopt(got, copy, own)
        if serial:
            self._known.note(slot, number_of(serial), since=since)
        self._adopt_note(got, copy)
        return loaded or self._files.load(copy.key)

    def _adopt(self, got: Got, copy: Copy, own: str) -> tuple[str, Copy | None]:
        """Adopt the server's answer in the files. Return the serial that is here now, and the copy if it could not be stored."""
        entry = copy.entry
        match got.kind:
            case LookupKind.SAME | LookupKind.NONE:
                # If the server has lost the entry, the one of this host is still good.
                return own, None
            case LookupKind.GONE:
                if entry is not None and (entry.serial == got.serial or entry.started <= got.at / 1e6):
                    self._files.remove(copy.key)
                    return "", None
                return own, None
            case LookupKind.ENTRY:
                found = entry_in(got, copy.key)
                if found is None or not found.outdates(entry, time.time()):
                    return own, None
                try:
                    self._files.write(found)
                except StoreError:
                    # A full disk, for instance: the entry is served all the same.
                    return "", Copy(copy.key, found, copy.note, 0, 0)
                return found.serial, None
            case _:
                return assert_never(got.kind)

    def _adopt_note(self, got: Got, copy: Copy) -> None:
        if got.kind is LookupKind.NONE and not got.note:
            # The server may have lost it.
            return
        note = note_format.decode(got.note) if got.note else NOTHING
        if note != copy.note:
            with suppress(StoreError):
                self._files.write_note(copy.key, note)

    def begin(self) -> bool:
        """Catch up with the logs at the first use of a process, if no process of this host follows them.

        Return whether it was the first use.
        """
        process = this_process()
        if process in self._begun:
            return False
        self._begun.add(process)
        # The directory is opened first: the state of the server is kept there.
        self._files.load("")
        with suppress(StoreError):
            self.follower.catch_up()
            if not self._known.is_down:
                self.introduction.make()
        with suppress(StoreError):
            self._deafness.tick()
        return True

    def _heeds(self, state: ServerState) -> bool:
        """Read the logs if an answer shows a new generation, or purges that are missing here. Return whether they were read."""
        if number_of(str(state.generation)) == self._known.generation and state.purge <= self._known.applied:
            return False
        with suppress(StoreError):
            self.follower.read_once()
        return True

    # -- writing -------------------------------------------------------------------------------------------------

    def write(self, entry: Entry) -> bool:
        """Replace an entry on all hosts, unless the new one was purged, or another host has replaced it after a lost lock."""
        self.begin()
        if self._known.is_down:
            return self._files.write(entry)
        if not self._files.accepts(entry):
            # The server may not know the purge of this entry: this host was alone then, or the server has lost it.
            return False
        name = digest(entry.key)
        slot, held = slot_of(name), self._leases.find(name)
        since = self._known.serial(slot)
        windows = entry.windows
        keep = windows.max_age + max(windows.stale_while_revalidate, windows.stale_if_error) + self._idle
        token, seen = ("", "") if held is None else (held.token, held.serial)
        names = map(digest, entry.names)
        try:
            content = pack(entry, self._entry_size)
            said, state = self._scripts.write(name, token, seen, shared_number(entry.seq), entry.serial, names, keep, content)
        except (Unavailable, Refused):
            return self._files.write(entry)
        match said:
            case Written.STORED:
                self._leases.has_changed(name, entry.serial)
                self._known.note(slot, number_of(entry.serial), since=since)
                if self._files.write(entry):
                    return True
                # It was purged here meanwhile.
                self.remove(entry.key)
                return False
            case Written.PURGED | Written.SUPERSEDED:
                self._known.put(slot, 0)
                self._leases.has_changed(name, "")
                self._heeds(state)
                return False
            case _:
                return assert_never(said)

    def write_note(self, key: str, note: Note) -> None:
        """Replace a note. Other hosts read a note about failures, or that there is none, at once; other notes with the lock."""
        self._files.write_note(key, note)
        if self._known.is_down:
            return
        data, tells = b"" if note == NOTHING else note_format.encode(note), note == NOTHING or note.retry_at > 0
        with suppress(Unavailable, Refused):
            self._scripts.write_note(digest(key), data, self._idle, tells=tells)

    def remove(self, key: str) -> None:
        """Remove an entry on all hosts."""
        self._files.remove(key)
        name = digest(key)
        if not self._known.is_down:
            try:
                self._scripts.remove(name, self._idle)
                self._leases.has_changed(name, "")
                return
            except (Unavailable, Refused):
                pass
        self.follower.backlog.add_removal(name)

    def lock(self, key: str) -> SharedLock:
        """Return a new lock of a key."""
        name = digest(key)
        return SharedLock(name, self._files.lock(key), self._leases, lambda: self._known.is_down, partial(self._has_lease, key))

    def _has_lease(self, key: str, note: bytes, state: ServerState) -> None:
        """Read the purges that the server's answer about a lock shows to be missing here, and store the note in the answer."""
        self._heeds(state)
        found = note_format.decode(note) if note else NOTHING
        if note and found != (self._files.lookup(key) or self._files.load(key)).note:
            with suppress(StoreError):
                self._files.write_note(key, found)

    # -- purging -------------------------------------------------------------------------------------------------

    def purge(self, *names: str, soft: bool) -> Acknowledged | None:
        """Purge on all hosts: on this one before the method returns, on the others once they read the log. Wait a moment for them.

        :return: the hosts that have acknowledged the purge.
        :raises PurgedHereOnly: if the server can't be used. Then this host has purged, and the others will once the server is back.
        """
        if not names:
            return None
        self.begin()
        try:
            if self._known.is_down:
                raise Unavailable(f"{self._client.where} can't be used")
            number = self.follower.purge(names, soft=soft)
        except StoreError as error:
            # Recorded before anything else: if this process is killed now, the other hosts still get the purge.
            self.follower.backlog.add_purge(names, soft=soft)
            self._files.purge(*names, soft=soft)
            if not self._known.is_down:
                # The process that hears the server next sends the purge to the others.
                self._known.note_down(_LOST_FOR)
            raise PurgedHereOnly(f"purged on this host only: {error}; other hosts hear of it once the server is back") from error
        return self._wait_for_hosts(number)

    def _wait_for_hosts(self, number: int) -> Acknowledged:
        unknown = Acknowledged(0, (), 0.0)
        if not self._purge_wait:
            return unknown
        try:
            heard = self.follower.acknowledged(number, self._purge_wait)
        except StoreError:
            return unknown
        if heard.late:
            logger.warning("a purge was not heard within %g s by: %s", self._purge_wait, ", ".join(heard.late))
        return heard

    # -- contents ------------------------------------------------------------------------------------------------

    def walk(self) -> Iterator[Stored]:
        """Yield the entries of this host, then those that only others have."""
        met = set()
        for stored in self._files.walk():
            met.add(digest(stored.entry.key))
            yield stored
        yield from self._elsewhere(met, _LAST)

    def _elsewhere(self, met: set[str], bound: int) -> Iterator[Stored]:
        """Yield the entries at the server, except those with some digests; none if the server can't be used."""
        if self._known.is_down:
            return
        with suppress(Unavailable, Refused):
            names = self._scripts.digests()
            while batch := list(islice(names, _BATCH)):
                new = [name for name in dict.fromkeys(batch) if name not in met]
                met.update(new)
                for name, head, note, at in self._scripts.heads(new, bound) if new else ():
                    stored = stored_in(name, head, note, at)
                    if stored is not None:
                        yield stored

    def recall(self, *names: str) -> Callable[[], Iterator[Stored]]:
        """Return a walk through the entries that have one of the names now, even once these are purged."""
        here, bound, wanted = self._files.recall(*names), self._known.applied, set(names)

        def walk() -> Iterator[Stored]:
            met = set()
            for stored in here():
                met.add(digest(stored.entry.key))
                yield stored
            yield from (each for each in self._elsewhere(met, bound) if not wanted.isdisjoint(each.entry.names))

        return walk

    def key_of(self, address: str) -> str | None:
        """Return the key of an entry by its digest, on any host."""
        key = self._files.key_of(address)
        if key is not None or self._known.is_down:
            return key
        with suppress(Unavailable, Refused):
            for name, head, note, at in self._scripts.heads([address], _LAST):
                stored = stored_in(name, head, note, at)
                return None if stored is None else stored.entry.key
        return None

    def verify(self, *, fix: bool) -> Iterator[Checked]:
        """Read every entry of this host whole, and yield whether it is sound."""
        return self._files.verify(fix=fix)

    # -- upkeep --------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise :class:`ConfigError` if the directory or the URL can't be used. Creates nothing, and does not connect."""
        self._files.check()
        self._client.check()

    def tick(self) -> None:
        """Look after the files, renew the locks, and follow the logs if nobody on this host does."""
        self._files.tick()
        if this_process() not in self._begun:
            return
        self._deafness.tick()
        with suppress(Unavailable, Refused):
            if not self._known.is_down:
                self._leases.tick()
        self.follower.tick()


def shared_store(url: ServerUrl, directory: Path, name: str, settings: Settings, counters: Counters) -> RedisStore:
    """Return the store of an app on many hosts, with the configured limits.

    :raises ConfigError: if no installed library supports such a server.
    """
    check_installed(url)
    return RedisStore(
        url.url, directory, name=name, timeout=settings.shared_timeout, lease=settings.shared_lease,
        longest_lease=settings.refresh_deadline, entry_size=settings.shared_entry_size, purge_wait=settings.shared_purge_wait,
        max_deaf=settings.shared_max_deaf,
        memory_size=settings.memory_size, max_size=settings.max_size, min_free=settings.min_free, inactive=settings.inactive,
        counters=counters, allow_network_directory=settings.allow_network_dir,
    )  # fmt: skip
