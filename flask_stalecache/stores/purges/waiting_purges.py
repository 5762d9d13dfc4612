"""Purges that could not wait for ``purge.lock``: its holder may be a process that was stopped, which can't be detected.

They are lines of a file, appended without a lock. Every process reads them before it reads the records, and the next holder of the
lock turns them into records:

1. The file is renamed. A process that appends a line checks afterwards that the file still has its first name, and appends the line
   again if not. So a line that is not read in step 2 is in the next file.
2. The lines of the renamed file are read and become records.
3. The renamed file is removed.

A line that is damaged, or still lacks its end after some seconds, counts as a hard purge of everything, and so does a file that has
become too long: visitors may purge. Missing lines at the end of the file can't be detected.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any

from ...core.addressing.purge_names import EVERYTHING, address_of
from ...errors import StoreError
from ...filesystem.atomic import append_to_file, make_directory, read_file, remove_file, status_of, write_file
from ...filesystem.directory import Directory, Inside, where
from ...filesystem.sealed import decoded, seal_line, unseal_line
from ..formats.head_values import count, moment, text, tuple_of
from .purge_record import Purge, PurgeRecord

#: Lines are appended here.
FILE = "waiting"
#: The file whose lines become records.
ASIDE = "adopted"
#: Attempts to append a line while files are renamed.
_TRIES = 100
#: SEQ is raised by a random number of steps below this where others may raise it too: equal numbers would hide a purge.
SEQ_STEPS = 1_000_000
#: Maximum nanoseconds by which the time of a file may be off.
COARSEST_TIME = 2_000_000_000


class WaitingPurges:
    """The purges of one cache directory that have not become records yet.

    :param directory: the cache directory.
    :param longest: bytes of the file above which its purges are replaced by one of everything.
    """

    def __init__(self, directory: Directory, longest: int) -> None:
        self._directory = directory
        self._longest = longest

    def exist(self) -> bool:
        """Whether there may be waiting purges."""
        return any(status_of(file) is not None for file in self._files())

    def read(self) -> list[Purge]:
        """Return the waiting purges. Read the records afterwards: a purge becomes a record before it leaves here."""
        # In the order in which a file is renamed.
        return [purge for file in self._files() for purge in _purges_in(file, is_whole=False)]

    def last_number(self) -> int:
        """Return an upper bound of the numbers to which the waiting purges have raised SEQ; 0 if there are no such purges."""
        numbers = [purge.number for purge in self.read()]
        # Each purge has raised SEQ above its own number, and an entry that was begun since may have the raised number.
        return max(numbers) + len(numbers) * (SEQ_STEPS + 1) if numbers else 0

    def append(self, purge: Purge) -> None:
        """Add a purge, without a lock.

        :raises StoreError: if the file is replaced again and again.
        """
        make_directory(self._directory.at("names"))
        line = _encoded(purge)
        for _ in range(_TRIES):
            self._shorten(purge)
            if append_to_file(self._file(FILE), line):
                return
        raise StoreError(f"{self._file(FILE)} is replaced again and again")

    def _shorten(self, purge: Purge) -> None:
        status = status_of(self._file(FILE))
        if status is not None and status.st_size > self._longest:
            last = max(each.number for each in (purge, *self.read()))
            # A process that appends meanwhile finds its file replaced, and appends again.
            data = _encoded(Purge((EVERYTHING,), last, False, purge.at))
            write_file(self._file(FILE), data, int(purge.at * 1e9))

    def adopt(self) -> list[Purge]:
        """Set the file aside and return its purges, which become records now. ``purge.lock`` is held."""
        aside = self._file(ASIDE)
        if status_of(aside) is None:
            (here, at), (there, at_there) = where(self._file(FILE)), where(aside)
            with suppress(FileNotFoundError):
                os.rename(here, there, src_dir_fd=at, dst_dir_fd=at_there)
        # Else the process that set this file aside was killed.
        return list(_purges_in(aside, is_whole=True))

    def forget_adopted(self) -> None:
        """Remove the file that was set aside: its purges are records. ``purge.lock`` is held."""
        with suppress(FileNotFoundError):
            remove_file(self._file(ASIDE))

    def _files(self) -> Iterable[Inside]:
        return self._file(FILE), self._file(ASIDE)

    def _file(self, name: str) -> Inside:
        return self._directory.at(f"names/{name}")


def records_of(purges: Iterable[Purge], names: Collection[str]) -> list[PurgeRecord]:
    """Return a record for each purge that affects one of the names."""
    addresses = {address_of(name) for name in (*names, EVERYTHING)}
    return [purge.of(name) for purge in purges for name in purge.names if address_of(name) in addresses]


def _purges_in(file: Inside, *, is_whole: bool) -> Iterable[Purge]:
    """Yield the purges in a file.

    :param is_whole: no process appends to it any more. Otherwise the text after the last line end may still be being written.
    """
    data, status = read_file(file) or b"", status_of(file)
    # Each line begins and ends with a line end, so that a line that was cut by a full disk does not spoil the next one.
    *lines, rest = data.split(b"\n")
    if is_whole or (status is not None and abs(time.time_ns() - status.st_mtime_ns) > COARSEST_TIME):
        lines.append(rest)
    found = [None if (content := unseal_line(line)) is None else decoded(content, _purge) for line in lines if line]
    yield from (purge for purge in found if purge is not None)
    if None in found:
        numbers = (purge.number for purge in found if purge is not None)
        written = 0 if status is None else status.st_mtime_ns + COARSEST_TIME
        yield Purge((EVERYTHING,), max((written, *numbers)), False, 0.0)


def _encoded(purge: Purge) -> bytes:
    data = {"names": purge.names, "number": purge.number, "soft": purge.soft, "at": purge.at}
    return b"\n%b\n" % seal_line(json.dumps(data).encode("ascii"))


def _purge(data: Any) -> Purge:
    return Purge(tuple_of(text, data["names"]), count(data["number"]), data["soft"] is True, moment(data["at"]))
