"""The state of the shared server as one host knows it: how far its logs were read, whether it answers, and the last changes.

The state is a table like that of the stamps, in a separate file. A slot holds a number made of the serial of the last entry that
any host has stored for a key of that slot. 0 means unknown, so the server must be asked. Keys that share a slot cost a request to
the server.
"""

from __future__ import annotations

import os
import socket
from array import array
from functools import lru_cache
from pathlib import Path

from ...core.addressing.keys import digest
from ...filesystem.directory import Directory
from ...filesystem.uptime import boot_id, seconds_up
from ..file_numbers import MOST, Numbers, put_all
from ..table.stamps import SLOTS
from ..table.table_file import Layout, Table, open_table

FILE_NAME = "known-1"
#: Seconds for which a server that failed is not asked, unless it fails again; and the longest time that counts: see ``down_until``.
DOWN_FOR, LONGEST_DOWN = 5.0, 60.0
#: A server that does not answer counts as slow if the host has heard it within so many seconds, and otherwise as gone.
HEARD_WITHIN = 2.0
_DOWN_UNTIL, _HEARD_AT, _APPLIED, _CHANGE, _GENERATION, _HOST, _TOLD_AT, _APPLIED_BEFORE, _RENEWED_AT, _UNTOLD, _ENDED_AT = range(
    11
)
_HEADER = 16
_LAYOUT = Layout(counts=_HEADER, stamps=SLOTS, marks=0)
_MICRO = 1_000_000
#: Seconds after which all hosts have repeated the purges that the server had lost.
_SETTLED = 60.0


def local_number(shared: int) -> int:
    """Return the number of a purge in a cache directory.

    :param shared: its number on the server, in microseconds.
    """
    return shared * 1000


def shared_number(seq: int) -> int:
    """Return the number of the last purge on the server that is certainly older than an entry begun at a local number."""
    return max(0, seq - 1) // 1000


def number_above(seq: int) -> int:
    """Return a number on the server that is not below a local one."""
    return -(-max(0, seq) // 1000)


def number_of(text: str) -> int:
    """Return the number that stands for a serial or a generation; 0 only for "", which means unknown."""
    if not text:
        return 0
    try:
        # Serials are hexadecimal and random, generations decimal. No digest is made: the follower calls this for each change.
        return 1 + abs(int(text[-12:], 16))
    except ValueError:
        return 1 + int(digest(text)[:12], 16)


class Known:
    """The table of one host, as this process has it open. Without a table, each process has a state of its own.

    :param path: the cache directory, which :meth:`open` opens.
    """

    def __init__(self, path: Path) -> None:
        self._directory = Directory(path)
        self._table: Table | None = None
        self._header: Numbers = [0] * _HEADER
        self._serials: Numbers = [0] * SLOTS

    def open(self) -> None:
        """Open the table, unless it is open. If it can't be opened, begin with an empty state for this process only."""
        table = self._table
        if table is not None and self._directory.is_current() and table.is_current():
            return
        try:
            self._directory.hold()
            table = open_table(self._directory.at(FILE_NAME), _LAYOUT)
        except OSError:
            self._table, self._header, self._serials = None, [0] * _HEADER, [0] * SLOTS
            return
        self._table = table
        self._header, self._serials = table.numbers(0, _HEADER), table.numbers(_HEADER, SLOTS)

    def tick(self) -> None:
        """Open the table again if it was replaced, and write deferred data."""
        self.open()
        # Read once: other threads open it too.
        table = self._table
        if table is not None:
            table.tick()

    # -- entries -------------------------------------------------------------------------------------------------

    def serial(self, slot: int) -> int:
        """Return the number of the serial that was stored last for a slot; 0: unknown."""
        # A lost number is less than 0. Not max(), since the follower calls this for each change.
        serial = self._serials[slot]
        return serial if serial > 0 else 0

    def note(self, slot: int, serial: int, *, since: int) -> None:
        """Record a serial, unless another one was recorded meanwhile.

        :param since: the number in the slot before the server was asked.
        """
        if self.serial(slot) == since:
            self._serials[slot] = serial

    def put(self, slot: int, serial: int) -> None:
        """Note a serial; 0: unknown."""
        self._serials[slot] = serial

    def forget_all(self) -> None:
        """Clear all slots, so that the server is asked once for each key."""
        put_all(self._serials, 0, array("Q", bytes(8 * SLOTS)))

    # -- the server ----------------------------------------------------------------------------------------------

    @property
    def down_until(self) -> float:
        """The time until which the server counts as down, in seconds since the start of the machine; 0: it does not."""
        until = max(0, self._header[_DOWN_UNTIL]) / _MICRO
        # A time that is far ahead was recorded before the machine was restarted.
        return until if until <= seconds_up() + LONGEST_DOWN else 0.0

    @down_until.setter
    def down_until(self, until: float) -> None:
        self._header[_DOWN_UNTIL] = int(until * _MICRO)

    @property
    def is_down(self) -> bool:
        """Whether the server counts as down."""
        return seconds_up() < self.down_until

    def note_down(self, seconds: float | None = None) -> bool:
        """Record that the server is not asked for a while, and return whether it counted as up until now.

        :param seconds: for how long at least. Default: :data:`DOWN_FOR`.
        """
        was_up = not self.is_down
        self.down_until = max(self.down_until, seconds_up() + (DOWN_FOR if seconds is None else seconds))
        return was_up

    @property
    def is_heard(self) -> bool:
        """Whether the follower has heard the server lately."""
        return self.silence < HEARD_WITHIN

    @property
    def silence(self) -> float:
        """Seconds since the follower has heard the server."""
        passed = seconds_up() - max(0, self._header[_HEARD_AT]) / _MICRO
        return passed if passed >= 0 and self._header[_HEARD_AT] > 0 else float("inf")

    def has_heard(self) -> None:
        """Note that the server has just answered the follower."""
        self._header[_HEARD_AT] = int(seconds_up() * _MICRO)

    # -- the logs ------------------------------------------------------------------------------------------------

    @property
    def applied(self) -> int:
        """The server's number of the last purge up to which all purges are applied here; 0: unknown."""
        return max(0, self._header[_APPLIED])

    @applied.setter
    def applied(self, number: int) -> None:
        self._header[_APPLIED] = number % MOST

    @property
    def change(self) -> int:
        """The number of the last change that was read; 0: unknown, so that any change may have been missed."""
        return max(0, self._header[_CHANGE])

    @change.setter
    def change(self, number: int) -> None:
        self._header[_CHANGE] = number % MOST

    @property
    def generation(self) -> int:
        """The number of the generation of the server's bookkeeping to which the positions in the logs belong; 0: unknown."""
        return max(0, self._header[_GENERATION])

    @generation.setter
    def generation(self, number: int) -> None:
        self._header[_GENERATION] = number

    @property
    def told_at(self) -> float:
        """The time at which a process of this host last reported its statistics, in seconds since the start of the machine."""
        return max(0, self._header[_TOLD_AT]) / _MICRO

    @told_at.setter
    def told_at(self, moment: float) -> None:
        self._header[_TOLD_AT] = int(moment * _MICRO)

    @property
    def applied_before(self) -> int:
        """The number up to which all purges of earlier generations are applied here; 0: unknown."""
        return max(0, self._header[_APPLIED_BEFORE])

    @applied_before.setter
    def applied_before(self, number: int) -> None:
        self._header[_APPLIED_BEFORE] = number % MOST

    def renew(self, applied: int) -> None:
        """Record that the server has lost its memory.

        :param applied: the last purge that was applied until then. It is ignored if the server also lost its memory within the last
            minute: other hosts may not have repeated the lost purges yet.
        """
        now, last = seconds_up(), self._header[_RENEWED_AT] / _MICRO
        if last <= 0 or not last <= now < last + _SETTLED:
            self.applied_before = applied
        self._header[_RENEWED_AT] = int(now * _MICRO)

    @property
    def has_untold(self) -> bool:
        """Whether changes of this host have not been sent to the others."""
        return self._header[_UNTOLD] > 0

    @has_untold.setter
    def has_untold(self, has: bool) -> None:
        self._header[_UNTOLD] = int(has)

    @property
    def ended_at(self) -> float:
        """The time at which all freshness was ended because the server was silent, in seconds since the start of the machine."""
        return max(0, self._header[_ENDED_AT]) / _MICRO

    @ended_at.setter
    def ended_at(self, moment: float) -> None:
        self._header[_ENDED_AT] = int(moment * _MICRO)

    # -- this host -----------------------------------------------------------------------------------------------

    def host_id(self) -> str:
        """Return the name of this host. A copy of its directory on another host has another name."""
        if self._header[_HOST] <= 0:
            self._header[_HOST] = 1 + int.from_bytes(os.urandom(6), "big")
        return _host_name(self._header[_HOST])


@lru_cache
def _host_name(number: int) -> str:
    name = socket.gethostname()
    return f"{name.replace(' ', '-')}-{digest(f'{number} {boot_id()} {name}')[:12]}"
