"""Purges and removals that were not sent to other hosts because the shared server could not be used. They are sent once it is back.

They are lines of a file in the cache directory, appended without a lock, as in :mod:`..purges.waiting_purges`:

1. The file is renamed. A process that has appended a line checks that its file still has this name, and otherwise appends the line
   again.
2. Its lines are sent.
3. It is removed. If the process dies before that, or the server is lost again, all lines are sent again.

A file that has become too long is replaced by one hard purge of everything, and a line that can't be decoded counts as such a
purge: it is better to make pages again than to serve pages that were purged or have become private.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ...core.addressing.purge_names import EVERYTHING, short_name
from ...errors import StoreError
from ...filesystem.atomic import append_to_file, make_directories, read_file, remove_file, status_of, store_errors, write_file
from ...filesystem.directory import Directory, where
from ...filesystem.locks import FileKeyLock
from ...filesystem.sealed import decoded, seal_line, unseal_line
from ..formats.head_values import text, tuple_of
from .known import Known

logger = logging.getLogger("flask_stalecache")

FILE, ASIDE = "untold", "untold.aside"
#: Maximum size of the file in bytes: a few thousand changes.
LONGEST = 256 * 1024
#: Attempts to append a line while files are renamed.
_TRIES = 100


class UnsentChange(NamedTuple):
    """One purge or removal that was not sent to the other hosts.

    :ivar names: the purged names, which may be short names (:func:`.short_name`); empty for a removal.
    :ivar soft: whether the purge only ended freshness.
    :ivar address: the digest of the key whose entry was removed; "" for a purge.
    """

    names: tuple[str, ...]
    soft: bool
    address: str


_EVERYTHING = UnsentChange((EVERYTHING,), False, "")


class Backlog:
    """The backlog of one host.

    :param path: the cache directory.
    :param known: what this host knows of the server.
    :param purge: purges on all hosts; called with the names, and whether to purge softly.
    :param remove: removes the entry with an address on all hosts.
    """

    def __init__(
        self, path: Path, known: Known, purge: Callable[[tuple[str, ...], bool], object], remove: Callable[[str], object]
    ) -> None:
        self._directory = Directory(path)
        self._known = known
        self._purge = purge
        self._remove = remove

    def add_purge(self, names: Iterable[str], *, soft: bool) -> None:
        """Add a purge, to be sent to the other hosts."""
        self._append(UnsentChange(tuple(map(short_name, names)), soft, ""))

    def add_removal(self, address: str) -> None:
        """Add the removal of the entry with an address, to be sent to the other hosts."""
        self._append(UnsentChange((), False, address))

    def _append(self, change: UnsentChange) -> None:
        with store_errors():
            self._directory.hold()
            line = b"\n%b\n" % seal_line(json.dumps(change).encode("ascii"))
            for _ in range(_TRIES):
                self._shorten()
                if append_to_file(self._directory.at(FILE), line):
                    self._known.has_untold = True
                    return
        raise StoreError(f"{self._directory.path / FILE} is replaced again and again")

    def _shorten(self) -> None:
        status = status_of(self._directory.at(FILE))
        if status is not None and status.st_size > LONGEST:
            logger.warning("other hosts have to hear of very many purges and removals: everything will be purged there instead")
            line = b"\n%b\n" % seal_line(json.dumps(_EVERYTHING).encode("ascii"))
            write_file(self._directory.at(FILE), line, int(status.st_mtime_ns))

    def tell(self, *, looks: bool) -> bool:
        """Send all changes, unless another process is sending them; return whether there were any.

        :param looks: look for the file even if no process of this host has recorded a change since the machine was started.
        :raises StoreError: if the server can't be used. Then all changes are sent again later.
        """
        if not (looks or self._known.has_untold):
            return False
        # A new object each time: threads that share an object would share the lock.
        lock = FileKeyLock(self._directory.path / "untold.lock", make_directories)
        if not lock.acquire():
            return False
        try:
            with store_errors():
                self._directory.hold()
                return self._tell()
        finally:
            lock.release()

    def _tell(self) -> bool:
        # Cleared before the file is read: a process that appends from now on sets it again, so its change is sent next time.
        self._known.has_untold = False
        aside = self._directory.at(ASIDE)
        if status_of(aside) is None:
            (here, at), (there, at_there) = where(self._directory.at(FILE)), where(aside)
            with suppress(FileNotFoundError):
                os.rename(here, there, src_dir_fd=at, dst_dir_fd=at_there)
        data = read_file(aside)
        if data is None:
            return False
        try:
            self._tell_each(_changes_in(data))
        except BaseException:
            self._known.has_untold = True
            raise
        remove_file(aside)
        # If an earlier file was still set aside, the current file has not been sent yet.
        self._known.has_untold = status_of(self._directory.at(FILE)) is not None
        return True

    def _tell_each(self, changes: Iterable[UnsentChange]) -> None:
        kinds: dict[bool, dict[str, None]] = {True: {}, False: {}}
        for change in changes:
            kinds[change.soft].update(dict.fromkeys(change.names))
            if change.address:
                self._remove(change.address)
        for soft, names in kinds.items():
            if names:
                self._purge(tuple(names), soft)


def _changes_in(data: bytes) -> Iterable[UnsentChange]:
    for line in data.split(b"\n"):
        if line:
            content = unseal_line(line)
            change = None if content is None else decoded(content, _change)
            yield _EVERYTHING if change is None else change


def _change(data: Any) -> UnsentChange:
    names, soft, address = data
    return UnsentChange(tuple_of(text, names), soft is True, text(address))
