"""Compares the files of this host with the server, to find entries that the host would serve although the server has others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from ...core.addressing.keys import digest
from ...core.model.entry import Entry
from ...core.model.titles import title_of
from ...errors import StoreError
from ..base import Compared
from ..file_store import FileStore
from ..table.stamps import slot_of
from .known import Known, number_of, shared_number
from .scripts import Difference, Scripts, ServerState

#: Entries that are compared at a time.
_BATCH = 200
#: Maximum number of problems that are reported.
MOST = 1000
_SAID = {
    Difference.OTHER: "the server has another entry, and this host does not know",
    Difference.REMOVED: "it was removed on all hosts, and this host does not know",
    Difference.PURGED: "it was purged on all hosts, and this host does not know",
}


@dataclass(slots=True)
class _Found:
    """The findings of a comparison so far.

    :ivar counts: entries by what the server has.
    :ivar suspects: entries that this host would serve although they are not the server's.
    :ivar state: the bookkeeping of the server.
    """

    state: ServerState
    counts: Counter[Difference] = field(default_factory=Counter)
    suspects: list[tuple[Entry, Difference]] = field(default_factory=list)


class Comparison:
    """Compares the files of this host with the server.

    :param files: the files.
    :param known: what this host knows of the server.
    :param scripts: the operations at the server.
    :param where: the name of the server for messages.
    """

    def __init__(self, files: FileStore, known: Known, scripts: Scripts, where: str) -> None:
        self._files = files
        self._known = known
        self._scripts = scripts
        self._where = where

    def compare(self, *, fix: bool) -> Compared:
        """Compare every entry of this host with the server's.

        :param fix: let this host ask the server for entries that differ at their next use, and remove those that were removed or
            purged.
        """
        self._known.open()
        try:
            if self._known.is_down:
                raise StoreError(f"{self._where} can't be reached")
            found = self._compared()
            problems = list(self._again(found.suspects))
        except StoreError as error:
            return Compared(str(error))
        for entry, difference in problems if fix else ():
            self._mend(entry, difference)
        counts, state = found.counts, found.state
        # A host that has no entries and has not followed yet does not lack any purges.
        is_empty = not counts and not self._known.generation
        is_current = number_of(str(state.generation)) == self._known.generation
        return Compared(
            "",
            same=counts[Difference.SAME],
            replaced=sum(counts[each] for each in _SAID) - len(problems),
            alone=counts[Difference.NONE],
            has_unread_purges=not is_empty and (not is_current or state.purge > self._known.applied),
            unread_changes=max(0, state.change - self._known.change) if is_current else 0,
            problems=tuple((title_of(entry), _SAID[difference]) for entry, difference in problems),
        )

    def _compared(self) -> _Found:
        found = _Found(self._scripts.compare([])[1])
        walk = (stored.entry for stored in self._files.walk())
        while batch := list(islice(walk, _BATCH)):
            for entry, difference in zip(batch, self._differences(batch), strict=True):
                found.counts[difference] += 1
                if difference in _SAID and self._serves(entry, difference) and len(found.suspects) < MOST:
                    found.suspects.append((entry, difference))
        return found

    def _differences(self, entries: list[Entry]) -> list[Difference]:
        asked = [(digest(each.key), each.serial, shared_number(each.seq), " ".join(map(digest, each.names))) for each in entries]
        return self._scripts.compare(asked)[0]

    def _serves(self, entry: Entry, difference: Difference) -> bool:
        """Whether this host would serve an entry without asking the server, because it takes the entry for the server's."""
        return difference is Difference.PURGED or self._known.serial(slot_of(digest(entry.key))) == number_of(entry.serial)

    def _again(self, suspects: list[tuple[Entry, Difference]]) -> Iterator[tuple[Entry, Difference]]:
        """Compare the suspects again, and yield those that still differ: the others were replaced during the comparison."""
        for entry, _ in suspects:
            now = self._files.load(entry.key).entry
            if now is None:
                continue
            (difference,) = self._differences([now])
            if difference in _SAID and self._serves(now, difference):
                yield now, difference

    def _mend(self, entry: Entry, difference: Difference) -> None:
        if difference is Difference.OTHER:
            slot = slot_of(digest(entry.key))
            self._known.put(slot, 0)
            self._files.move([slot])
        else:
            self._files.remove(entry.key)
