"""The oldest records of purges, merged: see :mod:`.purge_records`. Pure."""

from __future__ import annotations

from array import array

from ...core.addressing.purge_names import address_of, is_coded
from .purge_record import PurgeRecord

_NONE = PurgeRecord("")


class Floors:
    """The merged records: a fixed number of floors, each with the numbers of its last hard and its last soft purge.

    Half of the floors are for names that are in code, so that a flood of names that visitors choose does not affect these.

    :param data: the content of the file; ``None``: nothing was merged yet.
    """

    COUNT = 8192
    SIZE = COUNT * 16

    def __init__(self, data: bytes | None) -> None:
        # Empty without merged records, which is nearly always so: a sweep keeps an object of this class in memory.
        self._numbers = array("Q", data or b"")

    @classmethod
    def all_at(cls, number: int) -> Floors:
        """Return floors with one hard purge of everything."""
        return cls(array("Q", [number, 0] * cls.COUNT).tobytes())

    @property
    def data(self) -> bytes:
        """The content of the file."""
        return self._numbers.tobytes()

    @property
    def last(self) -> int:
        """The number of the last purge."""
        return max(self._numbers, default=0)

    def of(self, name: str) -> PurgeRecord:
        """Return the merged record that a name belongs to."""
        if not self._numbers:
            return _NONE
        place = _place(address_of(name), in_code=is_coded(name))
        hard, soft = self._numbers[place : place + 2]
        # Numbers are times. One that is ahead of the clock ends freshness all the same, and only the stale windows last longer.
        return PurgeRecord("", hard, ((soft, soft / 1e9),) if soft else ())

    def all_as_one(self) -> PurgeRecord:
        """Return one record without a name that stands for all merged purges, whose names are no longer known."""
        hard, soft = max(self._numbers[::2], default=0), max(self._numbers[1::2], default=0)
        return PurgeRecord("", hard, ((soft, soft / 1e9),) if soft else ())

    def raise_to(self, record: PurgeRecord, file: str) -> None:
        """Merge one more record.

        :param file: the name of its file. If a crash of the machine has cut the file, the record has no name.
        """
        if not self._numbers:
            self._numbers.frombytes(bytes(self.SIZE))
        halves = (is_coded(record.name),) if record.name else (True, False)
        for place in (_place(file, in_code=half) for half in halves):
            for at, number in ((place, record.hard), (place + 1, record.soft)):
                self._numbers[at] = max(self._numbers[at], number)


def _place(file: str, *, in_code: bool) -> int:
    half = Floors.COUNT // 2
    return 2 * (int(file[:15], 16) % half + (half if in_code else 0))
