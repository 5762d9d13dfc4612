"""Hands refreshes over to the worker of this host, through a socket in the cache directory: in a microsecond, without waiting.

============================ ====================================================================================================
no worker, or it has died    refreshes run in this process; the next try is a second later
its buffer is full           likewise for this refresh
it was stopped               it has not answered a packet for :data:`SILENCE` seconds: likewise, until :data:`PAUSE` seconds later
it can't run a refresh       it replies so: that refresh runs in this process for :data:`REFUSED_FOR` seconds
it has no more room          likewise for a refresh or a request of a batch
it takes a refresh           the refresh counts as pending for :data:`PENDING` seconds; then the next stale hit asks again
============================ ====================================================================================================
"""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from weakref import finalize

from ...core.guarded import guarded
from ...core.packets.packets import REPLY_SIZE, Packet, Said, decode_reply, group_of, socket_name
from ...core.packets.refresh_data import OriginKind, RefreshData
from ...errors import ConfigError
from ...filesystem.directory import Directory
from ...filesystem.local_socket import connect, receive
from ...filesystem.per_process import PerProcess
from .delegation import Handed

#: Seconds for which a refresh counts as pending that the worker has taken.
PENDING = 3.0
#: Seconds without an answer after which the worker counts as stopped, and until it is tried again.
SILENCE, PAUSE = 2.0, 5.0
#: Seconds between two checks whether a refresh of a batch has ended: at first, and at most.
FIRST_POLL, POLL = 0.001, 0.02
#: Seconds between two attempts to connect.
ATTEMPTS = 1.0
#: Seconds for which a refresh that the worker has refused is not offered again, and how many of them are remembered.
REFUSED_FOR, REMEMBERED = 60.0, 1000


class WorkerLink:
    """Hands refreshes over to the worker of this host, if there is one.

    :param directory: the cache directory.
    :ivar lost_at: when the worker was last lost or too slow while a batch waited for it, on the monotonic clock.
    :param version: the version of the app, as configured.
    """

    def __init__(self, directory: Path, version: str) -> None:
        self._version = version
        self.lost_at = -math.inf
        self._lines = PerProcess(lambda: _Line(directory))

    def is_open(self) -> bool:
        """Whether there is a connection, or it is time to try again."""
        return self._lines.get().is_open()

    def take(self, handed: Handed) -> bool:
        """Send a refresh to the worker. Return false if there is no worker, or if it takes nothing now."""
        data = handed.data
        if data.version != self._version:
            # With app.debug, each start of the app has a version of its own, which the worker does not have.
            return False
        packet = Packet(data.kind, data.address, data.serial, group_of(handed.group), handed.demand.rank).encode()
        if packet is None or not self._lines.get().send(packet, data.address, socket_name(data.app, self._version)):
            return False
        handed.wait(PENDING)
        return True

    def run(self, data: RefreshData, group: object, patience: float) -> bool:
        """Let the worker run a refresh for a batch, and wait for its end. Return whether it has ended there.

        :param group: what it belongs to, such as an endpoint.
        :param patience: seconds to wait at most.
        """
        if data.version != self._version:
            return False
        packet = Packet(data.kind, data.address, data.serial, group_of(group), -math.inf, is_forced=True)
        return self._run(packet, socket_name(data.app, self._version), patience) is Said.ENDED

    def warm(self, app: str, version: str, ask: Callable[[], str | None], patience: float) -> Said | None:
        """Let the worker send a warming request, and wait for its end.

        Return :attr:`.Said.ENDED` when it has ended there, and :attr:`.Said.TAKEN` if it has not within ``patience``. Otherwise
        return ``None``: there is no worker, the worker was lost, or it can't run the request.

        :param ask: writes the request, and returns its address; ``None`` if it can't be written. Called if there is a worker.
        :param patience: seconds to wait at most.
        """
        name = socket_name(app, self._version)
        if version != self._version or not self._lines.get().is_reached(name) or (address := ask()) is None:
            return None
        packet = Packet(OriginKind.PAGE, address, address[:16], group_of("warm"), -math.inf, is_forced=True, is_warming=True)
        said = self._run(packet, name, patience)
        return None if said is Said.REFUSED else said

    def _run(self, packet: Packet, name: str, patience: float) -> Said | None:
        """Send a packet of a batch, and wait until its refresh or request has ended.

        Return how it has ended, :attr:`.Said.TAKEN` if it has not within ``patience``, and ``None`` if there is no worker, or the
        worker was lost.
        """
        line, address, data = self._lines.get(), packet.address, packet.encode()
        if data is None or not line.send(data, address, name, expects_end=True):
            return None
        until, pause = time.monotonic() + patience, FIRST_POLL
        while (said := line.end_of(address)) is None and line.expects_end_of(address):
            if time.monotonic() >= until:
                said = Said.TAKEN
                break
            time.sleep(pause)
            pause = min(2 * pause, POLL)
        line.expect_no_end(address)
        if said is None or said is Said.TAKEN:
            self.lost_at = time.monotonic()
        return said

    def close(self) -> None:
        """Close the connection of this process."""
        line = self._lines.peek()
        if line is not None:
            line.close()


class _Line:
    """The connection of one process."""

    def __init__(self, directory: Path) -> None:
        self._directory = Directory(directory)
        self._mutex = threading.RLock()
        self._socket: socket.socket | None = None
        #: Closes the connection, also when this object is gone.
        self._finalizer: finalize[..., _Line] | None = None
        self._not_before = 0.0
        #: The times at which unanswered packets were sent, and at which refreshes were refused, by their addresses.
        self._awaited: dict[str, float] = {}
        self._refused: dict[str, float] = {}
        self._read = b""
        #: How the refreshes that batches wait for have ended, by their addresses: ``None`` until the worker has replied.
        self._ends: dict[str, Said | None] = {}

    @guarded
    def is_reached(self, name: str) -> bool:
        """Whether there is a connection to the worker, or one can be made.

        :param name: the socket of the worker.
        """
        now = time.monotonic()
        self._listen(now)
        return self._connected(name, now)

    @guarded
    def end_of(self, address: str) -> Said | None:
        """Return how the refresh of a batch has ended; ``None``: it has not."""
        self._listen(time.monotonic())
        return self._ends.get(address)

    @guarded
    def expects_end_of(self, address: str) -> bool:
        """Whether the reply about the end of a refresh can still arrive: not if the connection has been closed since."""
        return address in self._ends

    @guarded
    def expect_no_end(self, address: str) -> None:
        """Forget the refresh of a batch."""
        self._ends.pop(address, None)

    def is_open(self) -> bool:
        """Whether there is a connection, or it is time to try again."""
        return self._socket is not None or time.monotonic() >= self._not_before

    @guarded
    def send(self, packet: bytes, address: str, name: str, *, expects_end: bool = False) -> bool:
        """Send a packet. Return whether it was sent.

        :param address: the address in the packet.
        :param name: the socket of the worker.
        :param expects_end: the caller waits for the end of the refresh.
        """
        now = time.monotonic()
        self._listen(now)
        if now - self._refused.get(address, -REFUSED_FOR) < REFUSED_FOR:
            return False
        # A worker that was restarted is found at the second attempt.
        is_sent = any(self._connected(name, now) and self._try(packet, now) for _ in range(2))
        if is_sent:
            if len(self._awaited) >= REMEMBERED:
                self._awaited.clear()
            self._awaited.setdefault(address, now)
            if expects_end:
                self._ends[address] = None
        return is_sent

    def _connected(self, name: str, now: float) -> bool:
        if self._socket is not None:
            return True
        if now < self._not_before:
            return False
        self._not_before = now + ATTEMPTS
        try:
            if not os.path.lexists(self._directory.path / name):
                return False
            if not self._directory.is_current():
                self._directory.hold()
            self._socket = connect(self._directory.at(name))
        except (OSError, ConfigError):
            # The store reports what is wrong with the directory.
            return False
        if self._socket is None:
            return False
        # An app that is dropped, for example in a test, must not leave an open socket. If both are garbage collected together,
        # ``__del__`` may come too late.
        self._finalizer = finalize(self, self._socket.close)
        self._finalizer.atexit = False
        return True

    def _try(self, packet: bytes, now: float) -> bool:
        assert self._socket is not None
        try:
            sent = self._socket.send(packet)
        except BlockingIOError:
            return False
        except OSError:
            # It has died, or was restarted.
            self._drop(now)
            return False
        if sent < len(packet):
            # A part of a packet in a stream: the worker could not find the beginning of the next packet.
            self._drop(now + ATTEMPTS)
            return False
        return True

    def _listen(self, now: float) -> None:
        """Read the replies of the worker. Close the connection if it is lost, or if an answer is overdue."""
        while self._socket is not None and (data := receive(self._socket, 4096)) is not None:
            if not data:
                self._drop(now)
                return
            self._hear(data, now)
        if self._awaited and now - next(iter(self._awaited.values())) > SILENCE:
            self._drop(now + PAUSE)

    def _hear(self, data: bytes, now: float) -> None:
        self._read += data
        while len(self._read) >= REPLY_SIZE:
            reply, self._read = decode_reply(self._read[:REPLY_SIZE]), self._read[REPLY_SIZE:]
            if reply is None:
                continue
            said, address = reply
            self._awaited.pop(address, None)
            if said is not Said.TAKEN and address in self._ends:
                self._ends[address] = said
            if said is Said.REFUSED:
                if len(self._refused) >= REMEMBERED:
                    self._refused.clear()
                self._refused[address] = now

    def _drop(self, not_before: float) -> None:
        """Close the connection.

        :param not_before: when the next one is tried.
        """
        if self._finalizer is not None:
            self._finalizer()
        self._socket, self._not_before = None, not_before
        self._awaited.clear()
        self._ends.clear()
        self._read = b""

    @guarded
    def close(self) -> None:
        """Close the connection."""
        self._drop(0.0)
