"""The hosts of a cache, and their statistics: each host reports its own every 15 seconds, and any of them may read them.

======== ====== ====================================================================================================
key      type   content
======== ====== ====================================================================================================
``…S``   hash   of each cache directory, when and by whom its numbers were told (microseconds, host), then these as JSON,
                compressed; ``gone``: the sums of directories of which too many are known
======== ====== ====================================================================================================

Numbers belong to a directory and not to a host, since a host gets another name when its machine is restarted, and goes on
counting in the same files. They stay when their host is silent, so that sums do not go back.
"""

from __future__ import annotations

import json
import random
import socket
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ...core.addressing.keys import digest
from ...errors import StoreError
from ...filesystem.uptime import seconds_up
from ...stats.many_hosts import COUNTED, Host, Hosts, HostState, heard, sum_stats, told
from ...stats.schema import Stats
from .client import SharedClient
from .known import Known
from .logs import BEGIN, DAY, LIVE, prefix_of

#: Seconds between two times that a host tells its numbers.
INTERVAL = 15.0
#: Directories whose numbers are kept apart; of more, those of hosts that are gone are added up.
MOST = 200
#: How often a host looks whether there are more, of the times that it tells: once an hour.
FOLDED = INTERVAL / 3600
#: Bytes of the numbers of one host at most: compressed, and as JSON.
_LARGEST, _LARGEST_JSON = 256 * 1024, 4 * 1024 * 1024
#: Seconds after which a silent host is gone.
_DAY = DAY / 1e6
_GONE = "gone"

#: ARGV: directory, host, numbers.
_TELL = """
return redis.call('HSET', P .. 'S', ARGV[1], text(now) .. ' ' .. ARGV[2] .. ' ' .. ARGV[3])
"""

#: Returns the moment, the last purge, of each host when it was heard and what it lacks, and all numbers. Forgets hosts after a day.
_LOOK = """
local lines, all, last = {}, redis.call('HGETALL', P .. 'H'), number('p')
for i = 1, #all, 2 do
  local applied, heard = string.match(all[i + 1], '^(%d+) (%d+)')
  local is_gone = now - tonumber(heard) > @DAY
  if is_gone then redis.call('HDEL', P .. 'H', all[i]) end
  local lacks, first = 0, '0'
  if tonumber(applied) < last and not is_gone then
    local found = redis.call('XRANGE', P .. 'P', applied .. '-2', '+', 'COUNT', '@COUNTED')
    lacks = math.max(1, #found)
    first = found[1] and string.match(found[1][1], '^%d+') or text(last)
  end
  if not is_gone then lines[#lines + 1] = all[i] .. ' ' .. heard .. ' ' .. lacks .. ' ' .. first end
end
return {text(now), text(last), lines, redis.call('HGETALL', P .. 'S')}
""".replace("@COUNTED", str(COUNTED)).replace("@DAY", str(DAY))

#: Puts one sum in the place of the numbers of directories, unless one of them was told meanwhile.
#: ARGV: the sum that was known, the new one, then each directory and what it had told.
_FOLD = """
if (redis.call('HGET', P .. 'S', 'gone') or '') ~= ARGV[1] then return 0 end
for i = 3, #ARGV, 2 do
  if redis.call('HGET', P .. 'S', ARGV[i]) ~= ARGV[i + 1] then return 0 end
end
redis.call('HSET', P .. 'S', 'gone', ARGV[2])
for i = 3, #ARGV, 2 do redis.call('HDEL', P .. 'S', ARGV[i]) end
return 1
"""

TELL, LOOK, FOLD = (f"{BEGIN}{script}" for script in (_TELL, _LOOK, _FOLD))


class _Told(NamedTuple):
    """The numbers of one directory.

    :ivar directory: identifies it; ``gone`` for the sum of some.
    :ivar raw: what the server has.
    :ivar silence: seconds since they were told.
    """

    directory: str
    raw: bytes
    host: str
    silence: float
    stats: Stats


class HostReports:
    """Tells the numbers of this host, and looks at those of all.

    :param client: the server.
    :param name: the name of the cache.
    :param known: what this host knows of the server.
    :param directory: the cache directory.
    """

    def __init__(self, client: SharedClient, name: str, known: Known, directory: Path) -> None:
        self._client = client
        self._prefix = prefix_of(name)
        self._known = known
        self._directory = directory

    def tell_if_due(self, stats: Callable[[], Stats]) -> None:
        """Tell the numbers of this host, once every 15 seconds over all of its processes. A failure is no error.

        :param stats: returns the numbers of this moment.
        """
        now = seconds_up()
        if self._known.is_down or 0 <= now - self._known.told_at < INTERVAL:
            return
        self._known.told_at = now
        with suppress(StoreError):
            self.tell(stats())

    def tell(self, stats: Stats) -> None:
        """Tell the numbers of this host.

        :raises StoreError: if the server can't be used.
        """
        packed = _packed(stats)
        if len(packed) > _LARGEST:
            return
        self._run(TELL, self._place(stats), self._known.host_id(), packed)
        if random.random() < FOLDED:
            self.fold()

    def _place(self, stats: Stats) -> str:
        """Return what identifies the directory in which this host counts: a copy of it on another host is another one."""
        return digest(f"{socket.gethostname()} {self._directory} {stats['since']!r}")

    def look(self, mine: Stats) -> Hosts:
        """Return all hosts of the last day with their numbers. Without the server, only this one, and why.

        :param mine: the numbers of this host.
        """
        self._known.open()
        here = self._known.host_id()
        if self._known.is_down:
            return self._alone(here, f"{self._client.where} can't be reached")
        try:
            now, last, lines, numbers = self._read()
        except StoreError as error:
            return self._alone(here, str(error))
        place = self._place(mine)
        numbers = [each for each in numbers if each.directory != place]
        by_host = {each.host: each for each in sorted(numbers, key=lambda each: -each.silence)}
        hosts = [_host(line, now, here, by_host) for line in lines]
        # The server hears of a purge that this host has made itself a moment later.
        is_up_to_date = self._known.applied >= last
        hosts = [replace(host, behind=0, late=0.0) if host.is_here and is_up_to_date else host for host in hosts]
        known = {host.name for host in hosts}
        if here not in known:
            hosts.append(Host(here, True, HostState.UNKNOWN))
            known.add(here)
        hosts += [
            Host(name, name == here, HostState.UNKNOWN, stats=each.stats, told=each.silence)
            for name, each in by_host.items()
            if name not in known and each.silence < _DAY
        ]
        listed = {id(host.stats) for host in hosts}
        gone = tuple(each.stats for each in numbers if id(each.stats) not in listed)
        return Hosts("", tuple(sorted(hosts, key=lambda host: host.name)), gone, max(0.0, now - last / 1e6) if last else None)

    def _alone(self, here: str, problem: str) -> Hosts:
        silence = self._known.silence
        has_heard = silence < _DAY
        state = HostState.DEAF if has_heard else HostState.UNKNOWN
        return Hosts(problem, (Host(here, True, state, silence if has_heard else None),))

    def _read(self) -> tuple[float, int, list[str], list[_Told]]:
        """Return the moment in seconds since the epoch, the number of the last purge, the lines of the hosts, and all numbers."""
        now, last, lines, pairs = self._run(LOOK)
        moment = int(now) / 1e6
        found = [_told(name.decode("ascii", "replace"), raw, moment) for name, raw in zip(pairs[::2], pairs[1::2], strict=True)]
        return moment, int(last), [line.decode("utf-8", "replace") for line in lines], [each for each in found if each]

    def fold(self) -> None:
        """Add up the numbers of hosts that have gone, the longest first, if too many are kept apart.

        :raises StoreError: if the server can't be used.
        """
        numbers = self._read()[3]
        old = next((each for each in numbers if each.directory == _GONE), None)
        apart = sorted((each for each in numbers if each.directory != _GONE), key=lambda each: -each.silence)
        folded = [each for each in apart[: max(0, len(apart) - MOST)] if each.silence > _DAY]
        if not folded:
            return
        first, *rest = [each.stats for each in (*folded, *([old] if old else []))]
        sums = b"0 - " + _packed(sum_stats(first, rest))
        if len(sums) <= _LARGEST:
            pairs = [part for each in folded for part in (each.directory, each.raw)]
            self._run(FOLD, b"" if old is None else old.raw, sums, *pairs)

    def _run(self, script: str, *args: str | bytes) -> Any:
        return self._client.run(script, (f"{self._prefix}m",), args, patience=0)


def _packed(stats: Stats) -> bytes:
    return zlib.compress(json.dumps(told(stats)).encode("ascii"), 6)


def _told(directory: str, raw: bytes, now: float) -> _Told | None:
    """Return what a directory has told; ``None`` for anything else."""
    try:
        at, host, packed = raw.split(b" ", 2)
        text = zlib.decompressobj().decompress(packed, _LARGEST_JSON)
        return _Told(directory, raw, host.decode("utf-8"), max(0.0, now - int(at) / 1e6), heard(json.loads(text)))
    except (ValueError, zlib.error, RecursionError):
        return None


def _host(line: str, now: float, here: str, numbers: dict[str, _Told]) -> Host:
    name, heard_at, behind, first = line.split(" ")
    silence = max(0.0, now - int(heard_at) / 1e6)
    state = HostState.CONNECTED if silence < LIVE / 1e6 else HostState.DEAF
    late = max(0.0, now - int(first) / 1e6) if int(behind) else 0.0
    told_last = numbers.get(name)
    stats, told_for = (None, float("inf")) if told_last is None else (told_last.stats, told_last.silence)
    return Host(name, name == here, state, silence, int(behind), late, stats, told_for)
