"""The hosts of a cache, and their statistics: each host reports its own every 15 seconds, and any host may read all of them.

======== ====== ====================================================================================================
key      type   content
======== ====== ====================================================================================================
``…S``   hash   for each cache directory, when (microseconds) and by which host its statistics were reported, then the
                statistics as compressed JSON; ``gone``: the sum over directories of hosts that are gone, if there are too many
======== ====== ====================================================================================================

Statistics belong to a directory and not to a host, since a host gets another name when its machine is restarted, and continues to
count in the same files. They are kept while their host is silent, so that sums never decrease.
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

#: Seconds between two reports of a host.
INTERVAL = 15.0
#: Directories whose statistics are kept separately. If there are more, the statistics of hosts that are gone are added up.
MOST = 200
#: The fraction of its reports after which a host checks whether there are more: once an hour on average.
FOLDED = INTERVAL / 3600
#: Maximum size of the statistics of one host in bytes: compressed, and as JSON.
_LARGEST, _LARGEST_JSON = 256 * 1024, 4 * 1024 * 1024
#: Seconds after which a silent host is gone.
_DAY = DAY / 1e6
_GONE = "gone"

#: ARGV: directory, host, statistics.
_TELL = """
return redis.call('HSET', P .. 'S', ARGV[1], text(now) .. ' ' .. ARGV[2] .. ' ' .. ARGV[3])
"""

#: Returns the time, the last purge, for each host when it was heard and which purges it lacks, and all statistics. Forgets hosts
#: that have been silent for a day.
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

#: Replaces the statistics of some directories by one sum, unless one of them was reported again meanwhile.
#: ARGV: the previous sum, the new one, then each directory and its statistics as they were read.
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
    """The statistics of one directory, as a host reported them.

    :ivar directory: the identifier of the directory; ``gone`` for the sum over several.
    :ivar raw: the report, as it is at the server.
    :ivar silence: seconds since the report.
    """

    directory: str
    raw: bytes
    host: str
    silence: float
    stats: Stats


class HostReports:
    """Reports the statistics of this host, and reads those of all hosts.

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
        """Report the statistics of this host, once every 15 seconds over all of its processes. Failures are ignored.

        :param stats: returns the present statistics.
        """
        now = seconds_up()
        if self._known.is_down or 0 <= now - self._known.told_at < INTERVAL:
            return
        self._known.told_at = now
        with suppress(StoreError):
            self.tell(stats())

    def tell(self, stats: Stats) -> None:
        """Report the statistics of this host, unless they are too large.

        :raises StoreError: if the server can't be used.
        """
        packed = _packed(stats)
        if len(packed) > _LARGEST:
            return
        self._run(TELL, self._place(stats), self._known.host_id(), packed)
        if random.random() < FOLDED:
            self.fold()

    def _place(self, stats: Stats) -> str:
        """Return the identifier of the directory in which this host counts. A copy of it on another host has another identifier."""
        return digest(f"{socket.gethostname()} {self._directory} {stats['since']!r}")

    def look(self, mine: Stats) -> Hosts:
        """Return all hosts of the last day with their statistics; if the server can't be used, only this host, and the reason.

        :param mine: the statistics of this host.
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
        # The server learns only a moment later that this host has applied a purge of its own.
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
        """Return the time in seconds since the epoch, the number of the last purge, the lines of the hosts, and all statistics."""
        now, last, lines, pairs = self._run(LOOK)
        moment = int(now) / 1e6
        found = [_told(name.decode("ascii", "replace"), raw, moment) for name, raw in zip(pairs[::2], pairs[1::2], strict=True)]
        return moment, int(last), [line.decode("utf-8", "replace") for line in lines], [each for each in found if each]

    def fold(self) -> None:
        """Add up the statistics of hosts that are gone, those silent for longest first, if too many are kept separately.

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
    """Return the statistics that were reported for a directory; ``None`` if they can't be read."""
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
