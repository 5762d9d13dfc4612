"""The two logs on the server, of purges and of changes, and the record of how far each host has read them.

=========== ======== ==================================================================================================
key         type     content
=========== ======== ==================================================================================================
``…m``      hash     bookkeeping: ``v`` layout, ``g`` generation, ``q`` the highest number, ``p`` the last purge number, ``c`` the
                     last change number, ``x`` latest expiry of an entry, ``r`` the generation that began with a purge of
                     everything, ``n:DIGEST`` of a name: last hard purge, last soft purge, its time, until when the field is kept;
                     ``f`` the highest number of the purges that hosts had merged before they repeated theirs
``…P``      stream   purges; each has the number of the purge before it, so that a gap is noticed
``…C``      stream   changes of entries; their numbers are contiguous
``…H``      hash     for each host, the last purge that it has applied, and when it was heard
=========== ======== ==================================================================================================

All bookkeeping is in one key, so that it is either complete or lost. If there is no generation, a new one begins, and both logs are
removed: all numbers are then higher than the generation, and entries that were begun before it do not count, since their purges are
unknown.

Purge numbers are the server's time in microseconds. Lua's numbers hold them exactly, but its conversion to text rounds them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple, Protocol

from ...core.addressing.purge_names import short_name
from ...errors import StoreError
from ..purges.purge_record import Purge
from .known import local_number

#: Approximate number of purges, and of changes, that the logs keep.
PURGES, CHANGES = 200_000, 100_000
#: Maximum number of changes, and of purges, that are read at a time.
MOST = 2000
#: Microseconds after which a host that was not heard does not count.
LIVE = 3_000_000
#: Microseconds of a day: the purges of a name, and silent hosts, are kept for at least so long.
DAY = 86_400_000_000

#: The layout of the data. A version of this package with another one goes on alone: it neither reads nor changes anything.
LAYOUT = "1"

#: The beginning of each script. KEYS[1]: the bookkeeping.
BEGIN = """
local P, m, t = string.sub(KEYS[1], 1, -2), KEYS[1], redis.call('TIME')
local now = tonumber(t[1]) * 1000000 + tonumber(t[2])
local function text(number) return string.format('%.0f', number) end
local function number(field) return tonumber(redis.call('HGET', m, field) or '0') end
local b = redis.call('HMGET', m, 'g', 'v')
local g = b[1]
if not g then
  g = text(now)
  redis.call('DEL', P .. 'P', P .. 'C', P .. 'H')
  redis.call('HSET', m, 'g', g, 'q', g, 'v', '@LAYOUT')
elseif (b[2] or '1') ~= '@LAYOUT' then
  return redis.error_reply('LAYOUT ' .. b[2])
end
""".replace("@LAYOUT", LAYOUT)

#: Functions for purges by name, which precede each script.
_PURGE_FUNCTION = """
local keep = math.max(number('x'), now + {DAY})
local function of_name(name)
  local old = redis.call('HGET', m, 'n:' .. string.sub(name, 2))
  if old then return string.match(old, '^(%d+) (%d+) (%d+)') end
  return '0', '0', '0'
end
local function note(name, h, s, a)
  redis.call('HSET', m, 'n:' .. string.sub(name, 2), h .. ' ' .. s .. ' ' .. a .. ' ' .. text(keep))
end
local function log(names, soft, host, above, ...)
  local n, before = math.max(now, number('q') + 1, above), number('p')
  redis.call('HSET', m, 'q', text(n), 'p', text(n))
  redis.call('XADD', P .. 'P', 'MAXLEN', '~', '{PURGES}', text(n) .. '-1',
    'n', names, 'k', soft, 'a', text(now), 'b', text(before), 'o', host, ...)
  return n
end
local function purge(names, soft, host, above)
  -- A script that has written may go on to write in a full memory.
  redis.call('DEL', P .. 'z')
  local n = log(names, soft, host, above)
  for _, name in ipairs(cjson.decode(names)) do
    local h, s, a = of_name(name)
    if soft == '1' then note(name, h, text(n), text(now)) else note(name, text(n), s, a) end
  end
  return n
end
local function purges_after(number)
  return redis.call('XRANGE', P .. 'P', number .. '-2', '+', 'COUNT', '{MOST}')
end
"""

#: ARGV: host, above, kind, names, the last purge that was applied.
_PURGE = """
local n = purge(ARGV[4], ARGV[3], ARGV[1], tonumber(ARGV[2]))
return {text(n), g, purges_after(ARGV[5])}
"""

#: Purges everything softly, once for each generation. ARGV: host, above, names, the generation.
_RENEW = """
if g ~= ARGV[4] or redis.call('HGET', m, 'r') == g then return 0 end
redis.call('HSET', m, 'r', g)
purge(ARGV[3], '1', ARGV[1], tonumber(ARGV[2]))
return 1
"""

#: Repeats hard purges that the server lacks. They keep their numbers, so that hosts that have applied them do nothing.
#: ARGV: host, above, names, their numbers, the highest number of those that were merged.
_SAY = """
redis.call('DEL', P .. 'z')
local names, numbers, new, their = cjson.decode(ARGV[3]), cjson.decode(ARGV[4]), {}, {}
for i, name in ipairs(names) do
  local h, s, a = of_name(name)
  if tonumber(h) < tonumber(numbers[i]) then
    new[#new + 1], their[#their + 1] = name, numbers[i]
    note(name, numbers[i], s, a)
  end
end
local has_merged = tonumber(ARGV[5]) > number('f')
if has_merged then redis.call('HSET', m, 'f', ARGV[5]) end
if #new == 0 and not has_merged then return 0 end
-- An empty table would be encoded as an object.
local function list(found) return #found > 0 and cjson.encode(found) or '[]' end
log(list(new), '0', ARGV[1], tonumber(ARGV[2]), 'w', list(their), 'f', ARGV[5])
return #new
"""

#: Reads both logs, and records how far the host has read. ARGV: host, applied, the change that was read last, 1 to record it.
_READ = """
if ARGV[4] == '1' then
  redis.call('DEL', P .. 'z')
  redis.call('HSET', P .. 'H', ARGV[1], ARGV[2] .. ' ' .. text(now))
end
local first, lines = '0', {}
local found = redis.call('XRANGE', P .. 'C', ARGV[3] .. '-1', '+', 'COUNT', '{MOST}')
for i, change in ipairs(found) do
  if i == 1 then first = change[1] end
  local f = change[2]
  lines[i] = f[2] .. ' ' .. f[4] .. ' ' .. (f[6] or '')
end
local lasts = {text(number('q')), text(number('p')), text(number('c'))}
return {g, lasts, text(now), purges_after(ARGV[2]), first, table.concat(lines, '\\n')}
"""

#: Returns how many other hosts are live, which of them have not applied a purge, and how many have been silent for less than a day.
#: ARGV: host, number, microseconds after which a host is silent.
_LAGGARDS = """
local late, live, silent, all = {}, 0, 0, redis.call('HGETALL', P .. 'H')
for i = 1, #all, 2 do
  local applied, heard = string.match(all[i + 1], '^(%d+) (%d+)')
  local silence = now - tonumber(heard)
  if all[i] ~= ARGV[1] and silence < tonumber(ARGV[3]) then
    live = live + 1
    if tonumber(applied) < tonumber(ARGV[2]) then late[#late + 1] = all[i] end
  elseif all[i] ~= ARGV[1] and silence < {DAY} then
    silent = silent + 1
  end
end
return {live, late, silent}
"""

#: Drops some of the purges of names that no entry needs any more. ARGV: cursor.
_DROP = """
local found = redis.call('HSCAN', m, ARGV[1], 'MATCH', 'n:*', 'COUNT', '1000')
for i = 1, #found[2], 2 do
  if tonumber(string.match(found[2][i + 1], '(%d+)$')) < now then redis.call('HDEL', m, found[2][i]) end
end
return found[1]
"""


def _with_limits(script: str) -> str:
    limits = {"{DAY}": str(DAY), "{PURGES}": str(PURGES), "{MOST}": str(MOST)}
    return reduce(lambda text, limit: text.replace(*limit), limits.items(), f"{BEGIN}{_PURGE_FUNCTION}{script}")


PURGE, RENEW, SAY = map(_with_limits, (_PURGE, _RENEW, _SAY))
READ, LAGGARDS, DROP = map(_with_limits, (_READ, _LAGGARDS, _DROP))


class LogClient(Protocol):
    """The part of a client that the logs need. Its methods raise :class:`StoreError`."""

    def run(self, script: str, keys: Sequence[str], args: Sequence[str | int | float]) -> Any:
        """Run a script, and return what it returns."""

    def command(self, *words: str | int) -> Any:
        """Send a command, and return its answer."""


class EntryChange(NamedTuple):
    """One change of an entry.

    :ivar address: the digest of its key.
    :ivar serial: the serial of the entry that is stored now; "": unknown, so the server must be asked; ``-`` and a time in
        microseconds: the entry was removed then.
    :ivar origin: the host that made it.
    """

    address: str
    serial: str
    origin: str


class Logged(NamedTuple):
    """A purge in the log.

    :ivar purge: the purge, with the number that it has in a cache directory.
    :ivar number: its number on the server.
    :ivar before: the number of the purge before it.
    :ivar were: the original numbers of the purges of its names, if a host has repeated them; otherwise empty.
    :ivar merged: the highest number of the purges whose names that host does not know any more; 0 if there are none.
    """

    purge: Purge
    number: int
    before: int
    were: tuple[int, ...] = ()
    merged: int = 0


@dataclass(frozen=True, slots=True)
class LogState:
    """The new purges and changes in the logs, and the ends of the logs, at one moment.

    :ivar generation: the generation of the bookkeeping.
    :ivar last_number: the highest number that a purge has got or a host has sent.
    :ivar last_purge: the number of the last purge.
    :ivar last_change: the number of the last change.
    :ivar now: the server's time, in microseconds.
    :ivar purges: the purges that were read, in their order.
    :ivar first: the number of the first change; 0: none was read. The change that the previous read ended with comes first again,
        if it is still there.
    :ivar changes: the changes, with contiguous numbers.
    """

    generation: str
    last_number: int
    last_purge: int
    last_change: int
    now: int
    purges: tuple[Logged, ...]
    first: int
    changes: tuple[EntryChange, ...]


class SharedLogs:
    """The logs of one cache.

    :param commands: the client.
    :param name: the name of the cache.
    """

    def __init__(self, commands: LogClient, name: str) -> None:
        self._commands = commands
        self._prefix = prefix_of(name)

    def _run(self, script: str, *args: str | int) -> Any:
        return self._commands.run(script, (f"{self._prefix}m",), args)

    def wait(self, applied: int, change: int, milliseconds: int) -> None:
        """Wait until one of the logs has a new purge or change, or until the time is over."""
        places = (f"{self._prefix}P", f"{self._prefix}C", f"{applied}-1", f"{change}-1")
        self._commands.command("XREAD", "COUNT", 1, "BLOCK", milliseconds, "STREAMS", *places)

    def read(self, host: str, applied: int, change: int, *, notes: bool) -> LogState:
        """Return the new purges and changes in the logs.

        :param host: the host that reads.
        :param applied: the last purge that it has applied.
        :param change: the last change that it has read.
        :param notes: whether the server records how far it has read.
        """
        generation, lasts, now, purges, first, lines = self._run(READ, host, applied, change, int(notes))
        changes = tuple(_change(line) for line in _text(lines).split("\n") if line)
        first_number = int(_text(first).partition("-")[0])
        number, purge, change_number = map(int, lasts)
        logged = tuple(map(_logged, purges))
        return LogState(_text(generation), number, purge, change_number, int(now), logged, first_number, changes)

    def purge(
        self, host: str, names: Iterable[str], *, soft: bool, above: int, applied: int
    ) -> tuple[int, str, tuple[Logged, ...]]:
        """Purge by name: return the number, the generation, and the purges since the last one that was applied, this one included.

        :param host: the host that purges.
        :param names: the names.
        :param above: the lowest number that the purge may get: one more than the last number that the host knows.
        :param applied: the last purge that the host has applied.
        """
        number, generation, purges = self._run(PURGE, host, above, int(soft), _names(names), applied)
        return int(number), _text(generation), tuple(map(_logged, purges))

    def renew(self, host: str, names: Iterable[str], *, above: int, generation: str) -> bool:
        """Purge softly, once for a generation; return whether that was done now."""
        return bool(self._run(RENEW, host, above, _names(names), generation))

    def say(self, host: str, purges: Mapping[str, int], *, above: int, merged: int) -> int:
        """Repeat hard purges that the server may have lost, and return how many it had lost.

        :param purges: names, and the numbers of their last hard purges.
        :param above: the lowest number that the new purge may get.
        :param merged: the highest number of the purges whose names are not known any more; 0 if there are none.
        """
        numbers = json.dumps([str(number) for number in purges.values()])
        return int(self._run(SAY, host, above, _names(purges), numbers, merged))

    def laggards(self, host: str, number: int) -> tuple[int, list[str], int]:
        """Return how many other hosts are live, which of them have not applied a purge, and how many are silent."""
        live, late, silent = self._run(LAGGARDS, host, number, LIVE)
        return int(live), sorted(map(_text, late)), int(silent)

    def drop_old_names(self) -> None:
        """Drop the purges of names that no entry needs any more."""
        cursor = "0"
        for _ in range(10_000):
            cursor = _text(self._run(DROP, cursor))
            if cursor == "0":
                return


def prefix_of(name: str) -> str:
    """Return the beginning of all keys of a cache. Its braces keep them together in a cluster."""
    return f"stalecache:{{{name}}}:"


def _names(names: Iterable[str]) -> str:
    return json.dumps([short_name(name) for name in names])


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _change(line: str) -> EntryChange:
    address, serial, origin = line.split(" ")
    return EntryChange(address, serial, origin)


def _logged(item: Any) -> Logged:
    number, fields = int(_text(item[0]).partition("-")[0]), [_text(field) for field in item[1]]
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    try:
        names = tuple(short_name(name) for name in json.loads(values["n"]))
        purge = Purge(names, local_number(number), values["k"] == "1", int(values["a"]) / 1e6)
        were = tuple(map(int, json.loads(values.get("w", "[]"))))
        if were and len(were) != len(names):
            raise ValueError("a name lacks its number")
        return Logged(purge, number, int(values["b"]), were, int(values.get("f", 0)))
    except (KeyError, ValueError, TypeError) as error:
        raise StoreError(f"the server's log of purges holds something else: {error}") from None
