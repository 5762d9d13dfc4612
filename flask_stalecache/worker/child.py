"""A child process of the worker: it runs the refreshes, and sends the warming requests, that its parent gives to it.

It works in a few threads, and ends when its parent does.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from ..batches.handed_over import HandedOver, RefreshOutcome
from ..batches.warm_elsewhere import HandedWarmings
from ..core.packets.packets import SIZE, Packet
from ..core.packets.refresh_data import RefreshData
from ..engine.engine import Engine
from ..engine.scheduling.thread_pool import ThreadPool
from ..errors import RefreshRefused
from ..filesystem.system import fork, ignore_stop_signals, memory_used
from ..stats.worker_state import become_worker

logger = logging.getLogger("flask_stalecache")

_DONE = struct.Struct(">20sBI")
#: Bytes of the message that a child sends when a refresh has ended.
DONE_SIZE = _DONE.size
#: Outcomes by their numbers, and the number after them: the refresh can't be run here.
_OUTCOMES = tuple(RefreshOutcome)
_REFUSED = len(_OUTCOMES)
_KIB = 1024


class Done(NamedTuple):
    """The message of a child that a refresh has ended.

    :ivar address: the digest of its key.
    :ivar outcome: the outcome of the refresh; ``None``: it can't be run here.
    :ivar memory: bytes of memory that the child uses.
    """

    address: str
    outcome: RefreshOutcome | None
    memory: int

    def encode(self) -> bytes:
        """Return its bytes."""
        number = _REFUSED if self.outcome is None else _OUTCOMES.index(self.outcome)
        return _DONE.pack(bytes.fromhex(self.address), number, min(self.memory // _KIB, 2**32 - 1))

    @classmethod
    def decode(cls, data: bytes) -> Done:
        """Return the message from its bytes."""
        address, number, memory = _DONE.unpack(data)
        return cls(address.hex(), None if number >= _REFUSED else _OUTCOMES[number], memory * _KIB)


class Child:
    """Runs the refreshes that arrive at a socket.

    :param engine: the engine of the app.
    :param handed_over: runs refreshes from the stored entries.
    :param warmings: sends warming requests.
    :param threads: how many run at a time.
    :param parent: the socket to the parent.
    """

    def __init__(
        self, engine: Engine, handed_over: HandedOver, warmings: HandedWarmings, threads: int, parent: socket.socket
    ) -> None:
        self._engine = engine
        self._handed_over = handed_over
        self._warmings = warmings
        self._parent = parent
        self._sending = threading.Lock()
        self._pool = ThreadPool(threads, threads, engine.settings.shutdown_wait)
        # A thread that hangs is replaced like those of the engine's other pools.
        engine.runtime.pools.append(self._pool)

    def work(self) -> None:
        """Run what arrives until the parent closes the socket or is gone. Running refreshes are completed within their deadline."""
        become_worker()
        # No visitor waits in this process while a page is computed.
        self._engine.runtime.lane.has_visitors = False
        self._engine.runtime.prepare_process()
        while (data := _read(self._parent, SIZE)) is not None:
            packet = Packet.decode(data)
            if packet is not None and not self._pool.submit(partial(self._run, packet)):
                self._say(packet, RefreshOutcome.BUSY)
        self._engine.runtime.drain(self._engine.settings.refresh_deadline)

    def _run(self, packet: Packet) -> None:
        outcome: RefreshOutcome | None = RefreshOutcome.FAILED
        try:
            outcome = self._warmings.run(packet.address) if packet.is_warming else self._refresh(packet)
        except RefreshRefused as error:
            outcome = None
            self._engine.complaints.error_every_minute(("refused", packet.address), "%s", error)
        finally:
            self._say(packet, outcome)

    def _refresh(self, packet: Packet) -> RefreshOutcome:
        settings = self._engine.settings
        return self._handed_over.run_data(
            RefreshData(
                app=self._engine.name,
                version=settings.version or "",
                kind=packet.kind,
                address=packet.address,
                serial=packet.serial,
                is_forced=packet.is_forced,
                expires=time.time() + settings.refresh_deadline,
            )
        )

    def _say(self, packet: Packet, outcome: RefreshOutcome | None) -> None:
        try:
            with self._sending:
                self._parent.sendall(Done(packet.address, outcome, memory_used()).encode())
        except OSError:
            # The parent is gone, and the process that handed the refresh over finds that out.
            logger.debug("the parent of a worker's process is gone")


def fork_child(work: Callable[[socket.socket], object], closes: Callable[[], object]) -> tuple[int, socket.socket]:
    """Fork a child process. Return its process id, and the parent's end of a socket to it.

    :param work: the work of the child; called with its end of the socket.
    :param closes: closes the files of the parent that the child must not inherit.
    """
    mine, theirs = socket.socketpair()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = fork()
    if pid:
        theirs.close()
        return pid, mine
    code = 1
    try:
        # A signal that stops the worker may go to the whole group: the parent decides when a child ends.
        ignore_stop_signals()
        signal.set_wakeup_fd(-1)
        mine.close()
        closes()
        work(theirs)
        code = 0
    except BaseException:
        logger.exception("a process of the worker failed in a way that it should not")
    finally:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        # Not sys.exit(): the stack is the parent's.
        os._exit(code)


def _read(source: socket.socket, size: int) -> bytes | None:
    """Read and return a number of bytes; ``None`` if the other end is closed or lost."""
    data = b""
    while len(data) < size:
        try:
            part = source.recv(size - len(data))
        except OSError:
            return None
        if not part:
            return None
        data += part
    return data
