"""Records of purges: for each purged name, the numbers of its last hard and soft purge.

A purge with the number ``n`` affects the entries that were begun before it: those whose ``seq`` is less than ``n``. Numbers give
the order of all purges; clocks play no part. ``purge.lock`` guards the records and the last number.
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
from ..core.model.note import Note
from ..filesystem.atomic import files_in, make_directory, read_file, write_file
from .stamps import SEQ_SLOT, Stamps

#: Seconds that a record is kept at least.
KEPT_FOR = 86400.0
#: Answers that took longer, in seconds, are not stored: a record of a purge meanwhile could be gone. Half, as clocks step back.
LONGEST_RUN = KEPT_FOR / 2
#: Records whose age is read at a time at most.
MOST = 2000
_FILE = re.compile(r"[0-9a-f]{40}")
_NUMBER = re.compile(rb"[0-9]{1,19}\n")
_COARSEST_TIME = 2_000_000_000
#: Records that are cached at most.
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class PurgeRecord:
    """The last purges of one name.

    :param name: the name.
    :param hard: number of the last hard purge, which drops entries.
    :param soft: number of the last soft purge, which ends their freshness.
    :param soft_at: time of that soft purge, in seconds since the epoch.
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
    """The records of one cache directory, one file for each name.

    :param folder: the folder of the files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last = folder / "last"

    def read(self, name: str) -> PurgeRecord:
        """Return the record of a name; an empty one if it was never purged."""
        record = self._read_file(self._path(name))
        return PurgeRecord(name) if record is None else replace(record, name=name)

    def write(self, record: PurgeRecord) -> None:
        """Replace the record of a name. ``purge.lock`` is held."""
        make_directory(self.folder)
        data = {"name": record.name, "hard": record.hard, "soft": record.soft, "soft_at": record.soft_at}
        write_file(self._path(record.name), json.dumps(data).encode("ascii"), record.last)

    def is_dropped(self, note: Note) -> bool:
        """Whether a hard purge of one of its names ends a note."""
        return any(note.seq < record.hard for record in self.since(note))

    def since(self, entry: Entry | Note) -> list[PurgeRecord]:
        """Return the records of an entry's names that were purged since it was begun."""
        return [record for record in map(self.read, entry.names) if entry.seq < record.last]

    def outlive(self, entry: Entry) -> Entry | None:
        """Apply the purges since an entry was begun: return it, return it without freshness, or return ``None``."""
        return left_of(entry, self.since(entry))

    def note_number(self, number: int) -> None:
        """Write down a number before SEQ is raised to it. ``purge.lock`` is held.

        The file outlives table and records: if a number were given twice, an entry from before a purge could pass for one from
        after it.
        """
        make_directory(self.folder)
        # The line end shows that a crash of the machine has not cut the number.
        write_file(self._last, b"%d\n" % number, number)

    def last_number(self) -> int:
        """Return the last number that was written down, or 0; if the file is lost, the highest number of all records plus one."""
        noted = _NUMBER.fullmatch(read_file(self._last) or b"")
        if noted is not None:
            return int(noted[0])
        records = [self._read_file(Path(entry.path)) for entry in files_in(self.folder) if _FILE.fullmatch(entry.name)]
        return max((record.last + 1 for record in records if record is not None), default=0)

    def older_than(self, time_ns: int) -> list[Path]:
        """Return the files of the records whose last purge was before a time; if there are very many, of a random part."""
        names = [entry.name for entry in files_in(self.folder) if _FILE.fullmatch(entry.name)]
        chosen = random.sample(names, MOST) if len(names) > MOST else names
        return [path for path in map(self.folder.joinpath, chosen) if _written(path) < time_ns]

    def files(self, most: int) -> set[str] | None:
        """Return the names of the records' files; ``None`` if there are more than ``most``."""
        found = {entry.name for entry in islice(files_in(self.folder), most + 1)}
        return found if len(found) <= most else None

    def remove(self, path: Path, is_done: Callable[[PurgeRecord], bool]) -> None:
        """Remove the file of a record if ``is_done`` says so. ``purge.lock`` is held."""
        record = self._read_file(path)
        if record is not None and is_done(record):
            path.unlink()

    def _read_file(self, path: Path) -> PurgeRecord | None:
        data = read_file(path)
        return None if data is None else _decoded(path, data)

    def _path(self, name: str) -> Path:
        return self.folder / digest(name)


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
        self._records: dict[str, PurgeRecord | None] = {}

    def is_of(self, stamps: Stamps | None) -> bool:
        """Whether the cache belongs to a table."""
        return stamps is self._stamps

    def since(self, seq: int, names: Iterable[str]) -> list[PurgeRecord]:
        """Return the records of the names that were purged after a number."""
        # A purge raises SEQ before it writes a record and once more after it, so an unchanged SEQ means unchanged records.
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
    """Apply purges to an entry: return it, return it without freshness, or return ``None``."""
    for record in records:
        if entry.seq < record.hard:
            return None
        entry = entry.softly_purged(record.soft_at)
    return entry


def _written(path: Path) -> float:
    """Return the modification time of a file; infinity if it was removed."""
    try:
        return path.lstat().st_mtime_ns
    except FileNotFoundError:
        return math.inf


def _decoded(path: Path, data: bytes) -> PurgeRecord:
    try:
        head = json.loads(data)
        return PurgeRecord(str(head["name"]), int(head["hard"]), int(head["soft"]), float(head["soft_at"]))
    except (ValueError, LookupError, TypeError, OverflowError):
        # Cut by a crash of the machine. The file's time is its number; a soft purge becomes a hard one, the safe side.
        return PurgeRecord("", hard=path.stat().st_mtime_ns + _COARSEST_TIME)
