"""The refreshes that the worker has taken: waiting ones, in a fair order, and running ones. Callers pass the time."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.packets.packets import Packet
from ..engine.scheduling.fair_queue import Demand, FairQueue, Waiting


@dataclass(slots=True)
class Running:
    """A refresh that a child process runs.

    :param packet: the refresh.
    :param since: when it was given to the child, on the monotonic clock.
    :param pid: the child.
    """

    packet: Packet
    since: float
    pid: int


def _nothing() -> None:
    """Do nothing: a child runs the refresh, from its packet."""


def _instead_of(before: Packet | None, packet: Packet) -> Packet:
    """Return the packet that replaces a waiting one of the same key. It is forced if either of them is."""
    return packet._replace(is_forced=packet.is_forced or (before is not None and before.is_forced))


class Jobs:
    """The refreshes of a worker. No key waits twice, or runs twice at a time.

    :param size: how many may wait. If one more comes, the largest group loses the refresh with the least demand.
    :ivar running: the running refreshes, by their addresses.
    :ivar dropped: how many were dropped.
    """

    def __init__(self, size: int) -> None:
        self._queue = FairQueue(size)
        #: The time since which each refresh waits, in the order in which they came.
        self._since: dict[str, float] = {}
        self._packets: dict[str, Packet] = {}
        self.running: dict[str, Running] = {}
        #: Refreshes that wait for the end of the running refresh of the same key.
        self._later: dict[str, Packet] = {}
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._since)

    def push(self, packet: Packet, now: float) -> str | None:
        """Let a refresh wait, unless it runs. If it waits already, the demands are added.

        Return the address of the refresh that is dropped for lack of room, this one or another; ``None`` if there is room.
        """
        running = self.running.get(packet.address)
        if running is not None and (packet.is_forced or running.packet.serial != packet.serial):
            # The running one may have begun before the purge that this one is for, or has just stored the entry that this one is
            # for.
            self._later[packet.address] = _instead_of(self._later.get(packet.address), packet)
            return None
        if running is not None:
            return None
        self._since.setdefault(packet.address, now)
        self._packets[packet.address] = _instead_of(self._packets.get(packet.address), packet)
        waiting = Waiting(_nothing, packet.group, packet.address, Demand(packet.rank))
        dropped = self._queue.push(waiting)
        # This one has replaced another one of the same key: none is dropped.
        if dropped is None or (dropped is not waiting and dropped.key == packet.address):
            return None
        self.dropped += 1
        return self._take(str(dropped.key)).address

    def _take(self, address: str) -> Packet:
        del self._since[address]
        return self._packets.pop(address)

    def pop(self, now: float, pid: int) -> Packet | None:
        """Take the refresh that is next, to be run by a child process; ``None`` if none waits."""
        waiting = self._queue.pop()
        if waiting is None:
            return None
        packet = self._take(str(waiting.key))
        self.running[packet.address] = Running(packet, now, pid)
        return packet

    def end(self, address: str, now: float) -> str | None:
        """Forget a running refresh that has ended or was lost, and push the one that has waited for its end.

        Return the address of the refresh that is dropped for that, as :meth:`push` does.
        """
        self.running.pop(address, None)
        later = self._later.pop(address, None)
        return None if later is None else self.push(later, now)

    def lost(self, pid: int) -> list[str]:
        """Return the addresses of the refreshes that a dead child was running: the next stale hit starts each of them again."""
        return [address for address, running in self.running.items() if running.pid == pid]

    def clear(self) -> None:
        """Drop all waiting refreshes."""
        self.dropped += len(self._since)
        self._queue.clear()
        self._since.clear()
        self._packets.clear()
        self._later.clear()

    def longest_wait(self, now: float) -> float:
        """Return for how many seconds the oldest one has waited."""
        return now - next(iter(self._since.values())) if self._since else 0.0
