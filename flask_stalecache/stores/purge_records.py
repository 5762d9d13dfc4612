"""What was purged: a record for each name, and the purge numbers in them, by which everything is ordered.

A purge of a name that has the number ``n`` is of all that was begun before: its ``seq`` is less. Clocks play no part.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from ..core.model.entry import Entry
from ..core.model.keys import digest
from ..filesystem.atomic import files_in, make_directory, read_file, write_file
from .stamps import SEQ_SLOT, Stamps

#: Seconds for which a record is kept at least.
KEPT_FOR = 86400.0
#: What an origin took longer for, in seconds, is not stored: a record could be gone. It is less, since a clock may step back.
LONGEST_RUN = KEPT_FOR / 2
#: Records whose age is looked at together, at most.
MOST = 2000
_FILE = re.compile(r"[0-9a-f]{40}")
_NUMBER = re.compile(rb"[0-9]{1,19}\n")
_COARSEST_TIME = 2_000_000_000
#: Records that are remembered at most while all entries are looked at.
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class PurgeRecord:
    """The last purges of one name.

    :param name: the name.
    :param hard: the number of the last purge that dropped.
    :param soft: the number of the last purge that ended freshness.
    :param soft_at: when that was, in seconds since the epoch.
    """

    name: str
    hard: int = 0
    soft: int = 0
    soft_at: float = 0.0

    @property
    def last(self) -> int:
        """The number of the last purge."""
        return max(self.hard, self.soft)

    def purged(self, number: int, now: float, *, soft: bool) -> PurgeRecord:
        """Return the record after one more purge."""
        if soft:
            return replace(self, soft=number, soft_at=now)
        return replace(self, hard=number)


class PurgeRecords:
    """The records of one cache directory, a file each.

    :param folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last = folder / "last"

    def read(self, name: str) -> PurgeRecord:
        """Return the record of a name; an empty one if it was never purged."""
        record = self._read_file(self._path(name))
        return PurgeRecord(name) if record is None else replace(record, name=name)

    def write(self, record: PurgeRecord) -> None:
        """Replace the record of a name; ``purge.lock`` is held."""
        make_directory(self.folder)
        data = {"name": record.name, "hard": record.hard, "soft": record.soft, "soft_at": record.soft_at}
        write_file(self._path(record.name), json.dumps(data).encode("ascii"), record.last)

    def since(self, entry: Entry) -> list[PurgeRecord]:
        """Return the records of those of an entry's names that were purged since it was begun."""
        return [record for record in map(self.read, entry.names) if entry.seq < record.last]

    def outlive(self, entry: Entry) -> Entry | None:
        """Return what the purges since its beginning leave of an entry: all of it, it with its freshness ended, or nothing."""
        return left_of(entry, self.since(entry))

    def note_number(self, number: int) -> None:
        """Note a number that SEQ comes to, before it does; ``purge.lock`` is held.

        It outlives table and records: were a number given twice, an entry from before could be taken for one from after.
        """
        make_directory(self.folder)
        # The end of line shows that it was not cut by a crash of the machine.
        write_file(self._last, b"%d\n" % number, number)

    def last_number(self) -> int:
        """Return the last number that was noted, or 0; if it is lost, one past all records."""
        noted = _NUMBER.fullmatch(read_file(self._last) or b"")
        if noted is not None:
            return int(noted[0])
        records = [self._read_file(Path(entry.path)) for entry in files_in(self.folder) if _FILE.fullmatch(entry.name)]
        return max((record.last + 1 for record in records if record is not None), default=0)

    def older_than(self, time_ns: int) -> list[Path]:
        """Return the files of the records whose last purge was before a moment; of very many, those of a part."""
        names = [entry.name for entry in files_in(self.folder) if _FILE.fullmatch(entry.name)]
        chosen = random.sample(names, MOST) if len(names) > MOST else names
        return [path for path in map(self.folder.joinpath, chosen) if _written(path) < time_ns]

    def files(self, most: int) -> set[str] | None:
        """Return the names of the records' files; ``None`` if there are more than so many."""
        found = {entry.name for entry in islice(files_in(self.folder), most + 1)}
        return found if len(found) <= most else None

    def remove(self, path: Path, is_done: Callable[[PurgeRecord], bool]) -> None:
        """Remove the file of a record if nobody needs it any more; ``purge.lock`` is held."""
        record = self._read_file(path)
        if record is not None and is_done(record):
            path.unlink()

    def _read_file(self, path: Path) -> PurgeRecord | None:
        data = read_file(path)
        return None if data is None else _decoded(path, data)

    def _path(self, name: str) -> Path:
        return self.folder / digest(name)


class CachedPurgeRecords:
    """Records, remembered while no purge number is given: for who goes through all entries, most of which share most names.

    :param records: the records.
    :param stamps: the table that has the last purge number; without it nothing is remembered.
    """

    def __init__(self, records: PurgeRecords, stamps: Stamps | None) -> None:
        self._purge_records = records
        self._stamps = stamps
        self._seq = -1
        self._files: set[str] | None = None
        self._records: dict[str, PurgeRecord | None] = {}

    def is_of(self, stamps: Stamps | None) -> bool:
        """Whether it was made for a table."""
        return stamps is self._stamps

    def since(self, seq: int, names: Iterable[str]) -> list[PurgeRecord]:
        """Return the records of those of some names that were purged since a number."""
        # SEQ moves before a record is written and once more after.
        last = -1 if self._stamps is None else int(self._stamps.table[SEQ_SLOT])
        if last != self._seq or last < 0:
            self._seq, self._records = last, {}
            self._files = None if last < 0 else self._purge_records.files(_REMEMBERED)
        return [record for record in map(self._read, names) if record is not None and seq < record.last]

    def _read(self, name: str) -> PurgeRecord | None:
        if name in self._records:
            return self._records[name]
        is_there = self._files is None or digest(name) in self._files
        record = self._purge_records.read(name) if is_there else None
        if len(self._records) < _REMEMBERED:
            self._records[name] = record
        return record


def left_of(entry: Entry, records: Iterable[PurgeRecord]) -> Entry | None:
    """Return what is left of an entry after the purges since its beginning."""
    for record in records:
        if entry.seq < record.hard:
            return None
        entry = entry.softly_purged(record.soft_at)
    return entry


def _written(path: Path) -> float:
    """Return the time of a file; if it has gone, later than any."""
    try:
        return path.lstat().st_mtime_ns
    except FileNotFoundError:
        return math.inf


def _decoded(path: Path, data: bytes) -> PurgeRecord:
    try:
        head = json.loads(data)
        return PurgeRecord(str(head["name"]), int(head["hard"]), int(head["soft"]), float(head["soft_at"]))
    except (ValueError, LookupError, TypeError, OverflowError):
        # Cut by a crash of the machine. Its time is its number; and what was purged softly is better dropped than fresh.
        return PurgeRecord("", hard=path.stat().st_mtime_ns + _COARSEST_TIME)
