"""Describes the hosts that share a server, in words, for the shell and for the dashboard. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..core.formatting import NONE, clock, number, percent, size, spell
from .many_hosts import COUNTED, HostState
from .schema import HostNumbers, SharedNumbers

#: The statuses of requests that did not wait for a call of the origin.
_FROM_STORE = ("HIT", "STALE", "UPDATING")
_DAY = 86400.0


class HostRow(NamedTuple):
    """One host, formatted.

    :ivar is_here: whether it is this host.
    :ivar heard: how long ago it was last heard.
    :ivar behind: the purges that it has not applied yet.
    :ivar is_well: whether it is connected, and has applied all purges.
    """

    name: str
    is_here: bool
    state: str
    heard: str
    behind: str
    entries: str
    size: str
    workers: str
    requests: str
    from_store: str
    origin_calls: str
    is_well: bool


def host_rows(shared: SharedNumbers, now: float) -> list[HostRow]:
    """Return the hosts as rows of a table.

    :param now: seconds since the epoch.
    """
    return [_row(host, now) for host in shared["hosts"]]


def host_sentences(shared: SharedNumbers) -> Iterator[str]:
    """Yield sentences that complete the table: which hosts are not listed, and which have not applied all purges."""
    if shared["problem"]:
        yield f"only this host is known: {shared['problem']}"
    elif shared["last_purge"] is not None:
        yield f"last purge {ago(shared['last_purge'])}: {_heard_by(shared)}"
    if shared["gone"]:
        yield f"{number(shared['gone'])} more not heard for a day: counted, but not listed"


def _heard_by(shared: SharedNumbers) -> str:
    late = [host["name"] for host in shared["hosts"] if host["behind"]]
    return f"not heard yet by {', '.join(late)}" if late else "heard by all"


def _row(host: HostNumbers, now: float) -> HostRow:
    requests, silence = host["requests"], host["silence"]
    visits = 0 if requests is None else sum(requests.values())
    from_store = 0 if requests is None else sum(requests[status] for status in _FROM_STORE)
    return HostRow(
        name=host["name"],
        is_here=host["here"],
        state=_state(host, now),
        heard=NONE if silence is None else ago(silence),
        behind=_behind(host),
        entries=_known(host["entries"]),
        size=NONE if host["bytes"] is None else size(host["bytes"]),
        workers=_known(host["workers"]),
        requests=NONE if requests is None else number(visits),
        from_store=percent(from_store, visits),
        origin_calls=_known(host["origin_calls"]),
        is_well=host["state"] == HostState.CONNECTED.value and not host["behind"],
    )


def _state(host: HostNumbers, now: float) -> str:
    silence = host["silence"]
    if host["state"] != HostState.DEAF.value or silence is None:
        return host["state"]
    return f"deaf since {clock(now - silence, '%H:%M:%S' if silence < _DAY else '%Y-%m-%d %H:%M')} UTC"


def _behind(host: HostNumbers) -> str:
    count = host["behind"]
    if not count:
        return NONE if host["silence"] is None else "no"
    more = " or more" if count >= COUNTED else ""
    return f"{number(count)}{more} {'purge' if count == 1 else 'purges'}, {spell(host['late'])}"


def _known(count: int | None) -> str:
    return NONE if count is None else number(count)


def ago(seconds: float) -> str:
    """Return a time in the past, in words."""
    return "now" if seconds < 1 else f"{spell(seconds)} ago"
