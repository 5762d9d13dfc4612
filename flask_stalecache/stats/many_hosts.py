"""The statistics of hosts that share a server: each host reports its own, which are added up here. Pure.

Sums include every host, even one that is silent now or has gone. Gauges, such as the number of workers, include only the hosts that
were heard lately.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, cast

from ..core.model.reasons import BY_CODE
from .counter_file import LABELS, OTHERS
from .counters import Counters
from .registry import Registry
from .schema import COUNTERS, HostNumbers, Kept, SharedNumbers, Stats
from .tally import ALL_CELLS, series_of

#: Seconds after which the gauges of a host do not count any more.
GAUGES_LAST = 60.0
#: The largest number of unapplied purges that is counted for a host.
COUNTED = 100
#: The parts of the statistics that have a series for each label.
_SERIES = ("endpoints", "functions", "hosts")
#: The keys of current values, which a host no longer has once its processes have ended.
_GAUGES = ("entries", "bytes", "workers", *(counter.key for counter in COUNTERS if counter.kept is Kept.GAUGE))


class HostState(str, Enum):
    """The state of one host, as the other hosts see it."""

    #: It was heard within three seconds.
    CONNECTED = "connected"
    #: It was last heard before that.
    DEAF = "deaf"
    #: It is not known when it was last heard.
    UNKNOWN = "unknown"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Host:
    """One host that shares the server.

    :ivar name: its name: that of the machine, and some digits.
    :ivar is_here: whether it is this host.
    :ivar silence: seconds since it was last heard; ``None`` if that is unknown.
    :ivar behind: the number of purges that it has not applied yet, at most :data:`COUNTED`.
    :ivar late: seconds since the first of these purges.
    :ivar stats: the statistics that it last reported; ``None`` if it has reported none.
    :ivar told: seconds since that report.
    """

    name: str
    is_here: bool
    state: HostState
    silence: float | None = None
    behind: int = 0
    late: float = 0.0
    stats: Stats | None = None
    told: float = math.inf


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts that share a server.

    :ivar problem: why only this host is known; "" if the server has answered.
    :ivar hosts: those of the last day.
    :ivar gone: the statistics of hosts that were not heard for a day.
    :ivar last_purge: seconds since the last purge; ``None`` if none is known.
    """

    problem: str
    hosts: tuple[Host, ...]
    gone: tuple[Stats, ...] = ()
    last_purge: float | None = None

    @property
    def behind(self) -> list[str]:
        """The names of the hosts that have not applied the last purge."""
        return [host.name for host in self.hosts if host.behind]


def over_hosts(mine: Stats, hosts: Hosts) -> Stats:
    """Return the statistics of all hosts.

    :param mine: the current statistics of this host.
    :param hosts: the hosts, with the statistics that they last reported.
    """
    others = [(host.stats, host.told <= GAUGES_LAST) for host in hosts.hosts if host.stats is not None and not host.is_here]
    total = sum_stats(mine, [stats for stats, _ in others], hosts.gone)
    for key in _GAUGES:
        _put(total, key, sum(_at(stats, key) for stats in (mine, *(stats for stats, counts in others if counts))))
    limits = [mine["max_size"], *(stats["max_size"] for stats, counts in others if counts)]
    total["max_size"] = None if None in limits else sum(limit for limit in limits if limit is not None)
    total["shared"] = shared_numbers(mine, hosts)
    return total


def sum_stats(mine: Stats, *others: Iterable[Stats]) -> Stats:
    """Return the sums of statistics."""
    total: Any = deepcopy(mine)
    for stats in (each for some in others for each in some):
        # ``since`` is 0 if it is unknown.
        known, limit = [since for since in (total["since"], stats["since"]) if since], total["max_size"]
        _add(total, stats)
        total["since"], total["max_size"] = min(known, default=0.0), limit
    return cast(Stats, total)


def _add(total: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, Mapping):
            _add(total.setdefault(name, {}), value)
        elif isinstance(value, (int, float)):
            total[name] = (total.get(name) or 0) + value


def _at(stats: Mapping[str, Any], key: str) -> float:
    group, _, name = key.rpartition(".")
    value: float = (stats[group] if group else stats)[name]
    return value


def _put(stats: Any, key: str, value: float) -> None:
    group, _, name = key.rpartition(".")
    (stats[group] if group else stats)[name] = value


def shared_numbers(mine: Stats, hosts: Hosts) -> SharedNumbers:
    """Return the part of the statistics that is about the hosts.

    :param mine: the current statistics of this host.
    """
    return {
        "problem": hosts.problem,
        "last_purge": hosts.last_purge,
        "gone": len(hosts.gone),
        "hosts": [_numbers(host, mine if host.is_here else host.stats) for host in hosts.hosts],
    }


def _numbers(host: Host, stats: Stats | None) -> HostNumbers:
    return {
        "name": host.name,
        "here": host.is_here,
        "state": host.state.value,
        "silence": host.silence,
        "behind": host.behind,
        "late": host.late,
        "entries": None if stats is None else stats["entries"],
        "bytes": None if stats is None else stats["bytes"],
        "workers": None if stats is None else stats["workers"],
        "requests": None if stats is None else stats["requests"],
        "origin_calls": None if stats is None else stats["origin_calls"],
    }


# -- reports between hosts ------------------------------------------------------------------------------------------------


def told(stats: Stats) -> dict[str, Any]:
    """Return statistics as a host reports them: without zeros, and with the least used labels added up under one name.

    Many labels would take space on the server, and visitors' requests may create them.
    """
    short: dict[str, Any] = dict(stats)
    for kind in _SERIES:
        short[kind] = _bounded(short[kind])
    without: dict[str, Any] = _without_zeros(short)
    return without


def _bounded(series: Mapping[str, Any]) -> Mapping[str, Any]:
    if len(series) <= LABELS:
        return series
    names = sorted(series, key=lambda name: -sum(series[name]["requests"].values()))
    kept = {name: deepcopy(series[name]) for name in names[: LABELS - 1] if name != OTHERS}
    rest: dict[str, Any] = {}
    for name in series:
        if name not in kept:
            _add(rest, series[name])
    return {**kept, OTHERS: rest}


def _without_zeros(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {name: _without_zeros(each) for name, each in value.items() if each}


def heard(data: Any) -> Stats:
    """Return reported statistics in the shape of this version: missing numbers are 0, unknown ones are left out.

    :raises ValueError: if the data are no statistics.
    """
    if not isinstance(data, Mapping):
        raise ValueError("statistics are a mapping")
    shape, data = _shape(), dict(data)
    series = {kind: _labels(data.pop(kind, {})) for kind in _SERIES}
    limit = data.pop("max_size", None)
    found = _shaped(shape, data)
    return cast(Stats, {**found, **series, "max_size": None if limit is None else _number(limit), "reasons": _reasons(data)})


@cache
def _shape() -> dict[str, Any]:
    return dict(Registry(Counters()).read(0, 0, None))


@cache
def _shape_of_series() -> dict[str, Any]:
    return dict(series_of([0] * ALL_CELLS))


def _labels(data: Any) -> dict[str, Any]:
    if not isinstance(data, Mapping) or len(data) > LABELS:
        raise ValueError("labels are a mapping of limited size")
    return {str(name): {**_shaped(_shape_of_series(), each), "reasons": _reasons(each)} for name, each in data.items()}


def _reasons(data: Any) -> dict[str, int]:
    counts = data.get("reasons", {})
    if not isinstance(counts, Mapping):
        raise ValueError("reasons are a mapping")
    return {code: int(_number(counts[code])) for code in BY_CODE if code in counts}


def _shaped(shape: Mapping[str, Any], data: Any) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise ValueError("statistics are mappings of numbers")
    return {
        name: _shaped(of, data.get(name, {})) if isinstance(of, Mapping) else _number(data.get(name, 0))
        for name, of in shape.items()
    }


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 2**63:
        raise ValueError(f"{value!r} can't have been counted")
    return value
