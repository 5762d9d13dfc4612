"""Records of purges: for each purged name, the number of its last hard purge, and the numbers and times of its soft ones.

A purge affects the entries that were begun before its end, which has the number ``n``: those whose ``seq`` is less than ``n``. Of
several soft purges, the first one ends an entry's freshness: otherwise each would restart the stale windows, and they would never
end. A record has about as many soft purges of the last minute as of the last hour or day; in place of one left out, the next one
counts.

Numbers give the order of all purges; clocks play no part. ``purge.lock`` guards the records and the last number.

The number of records is limited, since visitors may choose the names. The oldest are merged into *floors*: each name hashes to one
of them, and the purges of a floor affect all its names. So a page may be purged along with another, but no purged page becomes
servable again.
"""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any

from ...core.addressing.keys import digest
from ...core.addressing.purge_names import address_of, is_short
from ...core.model.entry import Entry
from ...core.model.moments import Uptime, is_future
from ...core.model.note import Note
from ...filesystem.atomic import files_in, has_no_room, make_directory, read_file, remove_file, status_of, write_file
from ...filesystem.directory import Directory, Inside
from ...filesystem.sealed import seal, seal_json, unseal, unseal_json
from ...filesystem.uptime import seconds_up, uptime
from ..formats.head_values import count, moment, text, tuple_of
from ..table.stamps import SEQ_SLOT, Stamps
from .highest_number import HighestNumber
from .purge_floors import Floors
from .purge_record import Purge, PurgeRecord, left_of
from .waiting_purges import COARSEST_TIME, WaitingPurges, records_of

#: Minimum seconds for which a record is kept.
KEPT_FOR = 86400.0
#: Answers that took longer, in seconds, are not stored: the record of a purge meanwhile could be gone. Half, as clocks step back.
LONGEST_RUN = KEPT_FOR / 2
#: Maximum number of records whose age is read at a time.
MOST = 2000
_FILE = re.compile(r"[0-9a-f]{40}")
_NUMBER = re.compile(rb"[0-9]{1,19}")
#: Maximum number of cached records.
_REMEMBERED = 10_000
#: Maximum characters of a name whose record is cached. Visitors choose URLs, and most of the long ones come once.
_LONGEST = 250
#: Maximum number of records that are kept.
MOST_KEPT = 1024
#: Maximum number of records that a process writes before it counts them again.
_UNCOUNTED = 32
#: Bytes that the file of a record takes on the disk.
_BLOCK = 4096
#: Maximum bytes of waiting purges, for each record that is kept.
_WAITING = 256
#: The file of the merged records.
FLOORS = "floors"
#: The file that is removed to make room on a full disk, and its number of blocks.
RESERVE, RESERVED = "reserve", 4
#: Kinds of files.
_RECORD, _MERGED, _LAST, _APPLIED = b"NAME", b"FLOR", b"LAST", b"APPL"


def records_within(max_size: int | None) -> int:
    """Return how many records are kept under a limit of the bytes on disk: those that fit in a sixteenth of it, within bounds."""
    return MOST_KEPT if max_size is None else min(MOST_KEPT, max(16, max_size // 16 // _BLOCK))


class PurgeRecords:
    """The records of one cache directory, one file for each name.

    :param directory: the cache directory.
    :param most: the number of records above which the oldest are merged. Default: :data:`MOST_KEPT`.
    """

    def __init__(self, directory: Directory, most: int = MOST_KEPT) -> None:
        self._directory = directory
        self.most = most
        self.waiting = WaitingPurges(directory, most * _WAITING)
        self._highest = HighestNumber(directory.path)
        #: Whether the directory is known to be a copy, such as a restored backup.
        self.is_copy = False
        self._last_status: tuple[int, int, int] | None = None
        self._writes_left = 0
        self._has_reserve = False
        self._size = -1, 0

    def read(self, name: str) -> PurgeRecord:
        """Return the record of a name; an empty one if it has none."""
        record = self._read_file(self.file(address_of(name))) or PurgeRecord(name)
        return record if is_short(name) and record.name else replace(record, name=name)

    def write(self, record: PurgeRecord) -> None:
        """Replace the record of a name. ``purge.lock`` is held."""
        make_directory(self.folder)
        up = uptime()
        data = {"name": record.name, "hard": record.hard, "softs": record.softs, "up": [up.boot, up.seconds]}
        self._write(address_of(record.name), seal_json(_RECORD, data), record.last)
        self._writes_left -= 1
        self._keep_reserve()

    def _write(self, name: str, data: bytes, time_ns: int) -> None:
        try:
            write_file(self.file(name), data, time_ns)
        except OSError as error:
            if not has_no_room(error) or not self._give_up_reserve():
                raise
            write_file(self.file(name), data, time_ns)

    def _keep_reserve(self) -> None:
        """Reserve room for some records, so that purges still work on a full disk."""
        if not self._has_reserve:
            self._has_reserve = True
            with suppress(OSError):
                if status_of(self.file(RESERVE)) is None:
                    write_file(self.file(RESERVE), bytes(_BLOCK * RESERVED), time.time_ns())

    def _give_up_reserve(self) -> bool:
        self._has_reserve = False
        try:
            remove_file(self.file(RESERVE))
        except FileNotFoundError:
            return False
        return True

    def is_dropped(self, note: Note) -> bool:
        """Whether a note was ended by a hard purge of one of its names."""
        return any(note.seq < record.hard for record in self.since(note))

    def since(self, entry: Entry | Note) -> list[PurgeRecord]:
        """Return the records of an entry's names that were purged since it was begun; those of a floor have no name."""
        # Waiting purges before records, and records before floors: each purge is in the next place before it leaves the last one.
        found = records_of(self.waiting.read(), entry.names)
        found += [self.read(name) for name in entry.names]
        floors = self.floors()
        return [record for record in (*found, *map(floors.of, entry.names)) if entry.seq < record.last]

    def last_hard(self, name: str) -> int:
        """Return the number of the last hard purge that affects a name, which may be short; 0: there was none."""
        found = [*records_of(self.waiting.read(), (name,)), self.read(name), self.floors().of(name)]
        return max(record.hard for record in found)

    def outlive(self, entry: Entry) -> Entry | None:
        """Apply the purges since an entry was begun: return it, return it without freshness, or return ``None``."""
        return left_of(entry, self.since(entry))

    def reach_back_to(self, entry: Entry) -> bool:
        """Whether the records of all purges since the call of an entry's origin are still there.

        The time is measured by both clocks: if the wall clock was set meanwhile, the call may have taken any time.
        """
        ran = 0.0 if entry.called is None else seconds_up() - entry.called
        return max(ran, entry.answered - entry.started) <= LONGEST_RUN

    def floors(self) -> Floors:
        """Return the merged records."""
        file = self.file(FLOORS)
        data = read_file(file)
        content = unseal(_MERGED, data)
        if data is None or (content is not None and len(content) == Floors.SIZE):
            return Floors(content)
        # Damaged, by a crash of the machine, say: treated as if everything had been purged when it was written, which is safe.
        return Floors.all_at(_not_after(file))

    def merge_oldest(self) -> None:
        """Merge a quarter of the records if there are too many. ``purge.lock`` is held, and SEQ is raised before and after."""
        if self._writes_left > 0:
            return
        records = list(map(self.file, self._names()))
        if len(records) > self.most:
            self._merge(sorted(records, key=lambda file: _written_ns(file) or math.inf)[: len(records) - self.most * 3 // 4])
        # Counting costs time, so the records are counted again only after some more were written; by each process for itself.
        self._writes_left = max(1, min(_UNCOUNTED, (self.most - len(records)) // 2))

    def _merge(self, oldest: Iterable[Inside]) -> None:
        floors, merged = self.floors(), list(oldest)
        for file in merged:
            record = self._read_file(file)
            if record is not None:
                floors.raise_to(record, file.name.rpartition("/")[2])
        # On the disk before the files are removed: after a crash of the machine no purge may be missing.
        write_file(self.file(FLOORS), seal(_MERGED, floors.data), max(time.time_ns(), floors.last), is_durable=True)
        for file in merged:
            with suppress(FileNotFoundError):
                remove_file(file)

    def adopt_waiting(self) -> None:
        """Turn the waiting purges into records. ``purge.lock`` is held, and SEQ is raised before and after."""
        for purge in self.waiting.adopt():
            for name in purge.names:
                self.write(self.read(name).purged(purge.number, purge.at, soft=purge.soft))
        self.waiting.forget_adopted()
        with suppress(OSError):
            self.merge_oldest()

    def size(self, seq: int) -> int:
        """Return about how many bytes the records take on the disk, counted once for each purge number.

        :param seq: the last purge number.
        """
        if self._size[0] != seq:
            count = len(self._names())
            # Including the files of the last number, the reserve, and the merged records.
            self._size = seq, _BLOCK * (count + 1 + RESERVED) + Floors.SIZE if count or status_of(self.file(FLOORS)) else 0
        return self._size[1]

    def note_number(self, number: int) -> None:
        """Write down a number before SEQ is raised to it. ``purge.lock`` is held.

        The file outlives table and records: if a number were given twice, an entry from before a purge could pass for one from
        after it.
        """
        make_directory(self.folder)
        self._write("last", seal(_LAST, b"%d" % number), number)
        self._highest.note(number)

    def last_number(self) -> int:
        """Return the last number that was written down, or 0.

        If the file is lost or damaged, it is the highest number of all records. Within a process the number never goes back.
        """
        return max(self._noted_number(), self._highest.seen)

    @property
    def highest_seen(self) -> int:
        """The highest number that was written down, as far as this process knows without reading it."""
        return self._highest.seen

    def applied(self) -> int:
        """Return the number of the last purge of another host that was applied; 0 if there was none, or the number is lost."""
        number = _NUMBER.fullmatch(unseal(_APPLIED, read_file(self.file("applied"))) or b"")
        return 0 if number is None else int(number[0])

    def note_applied(self, number: int) -> None:
        """Write down that the purges of other hosts up to a number were applied. A lower one does no harm."""
        if number > self.applied():
            make_directory(self.folder)
            self._write("applied", seal(_APPLIED, b"%d" % number), number)

    def has_gone_back(self) -> bool:
        """Whether the last number is less than it was: purges were lost, since an older state of the directory was restored."""
        # Read in this order, since a purge that runs meanwhile writes the file in the directory first.
        seen, noted = self._highest.read(), self._noted()
        if self.is_copy:
            return True
        if noted is None:
            # Damaged: the number is unknown.
            return False
        if max(noted, self.waiting.last_number()) < seen:
            return True
        self._highest.see(noted)
        return False

    def number_has_changed(self) -> bool:
        """Whether the file of the last number was written since the last call."""
        before, status = self._last_status, status_of(self.file("last"))
        self._last_status = None if status is None else (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        return self._last_status != before

    def accept(self) -> None:
        """Go on from the highest number that is known. ``purge.lock`` is held."""
        self.is_copy = False
        self.note_number(max(self._noted_number(), self._highest.read()))

    def _noted_number(self) -> int:
        return max(self.waiting.last_number(), self._noted() or self._last_of_records())

    def _noted(self) -> int | None:
        """Return the number in the file of the last number: 0 without a file, ``None`` if it is damaged."""
        data = read_file(self.file("last"))
        number = _NUMBER.fullmatch(unseal(_LAST, data) or b"")
        return 0 if data is None else None if number is None else int(number[0])

    def _last_of_records(self) -> int:
        # Records before floors, as in :meth:`since`.
        return max((number | 1 for number in (*(each.last for each in self.all()), self.floors().last) if number), default=0)

    def all(self) -> list[PurgeRecord]:
        """Return all records that were not merged. Damaged ones have no name."""
        return [record for name in self._names() if (record := self._read_file(self.file(name))) is not None]

    def outdated(self, now: float, up: Uptime) -> list[Inside]:
        """Return the files of the records that need not be kept any more; if there are very many records, those in a random part.

        Their last purge was a day ago, by the wall clock and by the clock that counts from the start of the machine. If the wall
        clock was ahead at the purge, the other one alone decides: otherwise the record would stay until the wall clock gets there.

        :param now: the moment at which the records are judged, in seconds since the epoch.
        :param up: the same moment, since the start of the machine.
        """
        names = self._names()
        chosen = random.sample(names, MOST) if len(names) > MOST else names
        written = ((file, _written_ns(file)) for file in map(self.file, chosen))
        return [file for file, at in written if at is not None and self._is_outdated(file, at / 1e9, now, up)]

    def _is_outdated(self, file: Inside, written: float, now: float, up: Uptime) -> bool:
        is_ahead = is_future(written, now)
        if not is_ahead and written >= now - KEPT_FOR:
            return False
        # Read only now: nearly all records are younger.
        record = self._read_file(file)
        return record is not None and not (is_ahead and record.up is None) and record.is_past(KEPT_FOR, up)

    def files(self, most: int) -> set[str] | None:
        """Return the names of the records' files; ``None`` if there are more than ``most``."""
        found = {entry.name for entry in islice(files_in(self.folder), most + 1)}
        return found if len(found) <= most else None

    def _names(self) -> list[str]:
        return [entry.name for entry in files_in(self.folder) if _FILE.fullmatch(entry.name)]

    def remove(self, file: Inside, is_done: Callable[[PurgeRecord], bool]) -> None:
        """Remove the file of a record if ``is_done`` returns true for it. ``purge.lock`` is held."""
        record = self._read_file(file)
        if record is not None and is_done(record):
            remove_file(file)

    def _read_file(self, file: Inside) -> PurgeRecord | None:
        data = read_file(file)
        return None if data is None else _decoded(file, data)

    @property
    def folder(self) -> Inside:
        """The folder of the files."""
        return self._directory.at("names")

    def file(self, name: str) -> Inside:
        """Return a file in the folder."""
        return self._directory.at(f"names/{name}")


class CachedPurgeRecords:
    """A cache of records until the next purge, for walks through all entries: most of these share most of their names.

    :param records: the records.
    :param stamps: the table with the last purge number; without it nothing is cached.
    """

    def __init__(self, records: PurgeRecords, stamps: Stamps | None) -> None:
        self._purge_records = records
        self._stamps = stamps
        self._seq = -1
        self._files: set[str] | None = None
        self._floors = Floors(None)
        self._waiting: list[Purge] = []
        self._records: dict[str, PurgeRecord | None] = {}

    def is_of(self, stamps: Stamps | None) -> bool:
        """Whether the cache belongs to a table."""
        return stamps is self._stamps

    def since(self, seq: int, names: Sequence[str]) -> list[PurgeRecord]:
        """Return the records of the names that were purged after a number."""
        # A purge raises SEQ before it writes a record and once more after it, so an unchanged SEQ means unchanged records.
        last = -1 if self._stamps is None else int(self._stamps.table[SEQ_SLOT])
        if last != self._seq or last < 0:
            self._seq, self._records, self._waiting = last, {}, self._purge_records.waiting.read()
            self._files = None if last < 0 else self._purge_records.files(_REMEMBERED)
            self._floors = self._purge_records.floors()
        floors = map(self._floors.of, names)
        found = records_of(self._waiting, names)
        found += [record for record in map(self._read, names) if record is not None]
        return [record for record in (*found, *floors) if seq < record.last]

    def _read(self, name: str) -> PurgeRecord | None:
        if name in self._records:
            return self._records[name]
        is_there = self._files is None or digest(name) in self._files
        record = self._purge_records.read(name) if is_there else None
        if len(self._records) < _REMEMBERED and len(name) <= _LONGEST:
            self._records[name] = record
        return record


def _written_ns(file: Inside) -> int | None:
    """Return the modification time of a file; ``None`` if it was removed."""
    status = status_of(file)
    return None if status is None else status.st_mtime_ns


def _not_after(file: Inside) -> int:
    """Return a number that no purge in a damaged file exceeds: the file has the time of its last purge, or a later one."""
    # If the file was removed since, the present time is such a number too.
    return (_written_ns(file) or time.time_ns()) + COARSEST_TIME


def _decoded(file: Inside, data: bytes) -> PurgeRecord:
    record = unseal_json(_RECORD, data, _record)
    if record is not None and file.name.endswith(address_of(record.name)):
        return record
    # Damaged, by a crash of the machine, say, or the record of another name. The file's time gives its number; a soft purge becomes
    # a hard one, which is safe.
    return PurgeRecord("", hard=_not_after(file))


def _record(head: Any) -> PurgeRecord:
    return PurgeRecord(text(head["name"]), count(head["hard"]), tuple_of(_soft, head["softs"]), _up(head["up"]))


def _up(value: Any) -> Uptime:
    boot, seconds = value
    return Uptime(text(boot), moment(seconds))


def _soft(value: Any) -> tuple[int, float]:
    number, at = value
    return count(number), moment(at)
