"""The parent process of the worker: it takes refreshes from web processes and gives them to its children. It runs none itself.

It is one thread in one loop, so that it always answers at once, and a child that computes or hangs delays nobody.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from ..core.packets.packets import SIZE, Packet, Said, encode_reply
from ..filesystem.local_socket import receive
from ..filesystem.system import kill
from ..stats.schema import RunningRefresh, WorkerState
from .child import DONE_SIZE, Done, fork_child
from .jobs import Jobs
from .worker_socket import WorkerSocket

logger = logging.getLogger("flask_stalecache")

#: Seconds between two rounds of looking after the children and the socket.
INTERVAL = 1.0
#: Maximum number of connections of web processes; further ones are closed, and their processes run refreshes themselves.
CONNECTIONS = 1000
#: Packets that are read from one connection before it is the turn of the others.
AT_ONCE = 64
#: Seconds until a child that has died is replaced: the first pause, and the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a worker.

    :param processes: its child processes.
    :param threads: refreshes that each of them runs at a time.
    :param waiting: refreshes that may wait.
    :param deadline: seconds that a refresh may run; a child that exceeds them is replaced.
    :param max_requests: refreshes after which a child is replaced; 0: any number.
    :param memory: bytes of memory after which a child is replaced; 0: any number.
    """

    processes: int
    threads: int
    waiting: int
    deadline: float
    max_requests: int = 0
    memory: int = 0


@dataclass(eq=False, slots=True)
class _Visitor:
    """A web process that is connected."""

    socket: socket.socket
    read: bytes = b""


@dataclass(eq=False, slots=True)
class _Child:
    """A child process, as its parent knows it."""

    pid: int
    socket: socket.socket
    born: float
    runs: int = 0
    done: int = 0
    is_retired: bool = False
    read: bytes = field(default=b"")


class Parent:
    """Takes refreshes and gives them to children, until a signal stops it.

    :param worker_socket: where web processes connect.
    :param limits: the limits.
    :param work: the work of a child; called with its end of a socket.
    """

    def __init__(self, worker_socket: WorkerSocket, limits: Limits, work: Callable[[socket.socket], object]) -> None:
        self._socket = worker_socket
        self._limits = limits
        self._work = work
        self._selector = selectors.DefaultSelector()
        self._jobs = Jobs(limits.waiting)
        self._children: dict[int, _Child] = {}
        self._visitors: dict[socket.socket, _Visitor] = {}
        #: The web process to notify if a refresh turns out not to be runnable here, by the address of the refresh.
        self._askers: dict[str, _Visitor] = {}
        #: The web processes whose batches wait for the end of a refresh, by its address: of waiting refreshes, and of running ones.
        self._batches: dict[str, set[_Visitor]] = {}
        self._awaiting: dict[str, set[_Visitor]] = {}
        self._began = time.time()
        self._taken = self._refused = self._bad = self._restarts = 0
        self._pause, self._not_before = FIRST_PAUSE, 0.0
        self._looked_at = -INTERVAL
        self._signals: list[int] = []
        self._is_stopping = False

    # -- the loop ------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Work until a signal stops the worker. Return the exit code: 0 if all running refreshes were completed."""
        waking, wakes = socket.socketpair()
        for each in (waking, wakes):
            each.setblocking(False)
        before = {number: signal.signal(number, self._note_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        former = signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        self._selector.register(waking, selectors.EVENT_READ, partial(self._drain_signals, waking))
        try:
            while not self._is_stopping:
                self._turn(INTERVAL)
            return self._end()
        finally:
            signal.set_wakeup_fd(former)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._close_all()
            waking.close()
            wakes.close()

    def _note_signal(self, number: int, frame: object) -> None:
        self._signals.append(number)
        self._is_stopping = True

    def _drain_signals(self, waking: socket.socket) -> None:
        with suppress(BlockingIOError):
            while waking.recv(256):
                pass

    def _turn(self, seconds: float) -> None:
        now = time.monotonic()
        if now - self._looked_at >= INTERVAL:
            self._looked_at = now
            self._look_after(now)
        for key, _ in self._selector.select(seconds):
            key.data()

    def _look_after(self, now: float) -> None:
        """Do the periodic work: start missing children, replace those that hang, look after the socket, write the state."""
        if not self._is_stopping:
            self._socket.look_after(self._selector, self._accept)
            self._start_children(now)
        self._end_overdue(now)
        if not self._children:
            # The next child may start only in half a minute, since others have died: batches run their refreshes themselves
            # instead.
            for address in list(self._batches):
                self._tell_of_drop(address)
        self._socket.tell(self.state())

    def _end(self) -> int:
        """Take no more refreshes, and let the children complete theirs within the deadline. A second signal ends the children."""
        # Counted before anything is closed: a supervisor that sees the end of the socket may send the second signal at once.
        signals = len(self._signals)
        logger.info("the worker stops, %d refreshes are completed", len(self._jobs.running))
        self._socket.close(self._selector)
        for visitor in list(self._visitors.values()):
            self._forget_visitor(visitor)
        self._jobs.clear()
        for child in list(self._children.values()):
            self._retire(child)
        until = time.monotonic() + self._limits.deadline
        while self._children and time.monotonic() < until and len(self._signals) == signals:
            self._turn(0.2)
        is_complete = not self._children
        for child in list(self._children.values()):
            self._kill(child)
        return 0 if is_complete else 1

    def _close_all(self) -> None:
        self._socket.close(self._selector)
        for visitor in list(self._visitors.values()):
            self._forget_visitor(visitor)
        for child in list(self._children.values()):
            self._kill(child)
        self._selector.close()

    # -- web processes -------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while (made := self._socket.accept()) is not None:
            if len(self._visitors) >= CONNECTIONS:
                made.close()
                continue
            visitor = self._visitors[made] = _Visitor(made)
            self._selector.register(made, selectors.EVENT_READ, partial(self._read, visitor))

    def _forget_visitor(self, visitor: _Visitor) -> None:
        if self._visitors.pop(visitor.socket, None) is not None:
            self._selector.unregister(visitor.socket)
            visitor.socket.close()

    def _read(self, visitor: _Visitor) -> None:
        for _ in range(AT_ONCE):
            # With packets, each call returns one; with a stream, what has arrived.
            data = receive(visitor.socket, SIZE + 1 if not visitor.read else SIZE)
            if data is None:
                return
            if not data:
                self._forget_visitor(visitor)
                return
            visitor.read += data
            if len(visitor.read) < SIZE and self._socket.is_stream:
                continue
            self._meet(visitor, visitor.read[:SIZE] if self._socket.is_stream else visitor.read)
            visitor.read = visitor.read[SIZE:] if self._socket.is_stream else b""

    def _meet(self, visitor: _Visitor, data: bytes) -> None:
        packet = Packet.decode(data)
        if packet is None:
            self._bad += 1
            if self._socket.is_stream:
                # Where the next packet begins is not known.
                self._forget_visitor(visitor)
            return
        dropped = self._jobs.push(packet, time.monotonic())
        self._say(visitor, Said.TAKEN, packet.address)
        self._askers[packet.address] = visitor
        if packet.is_forced:
            # No more addresses are kept than refreshes wait: when one is dropped, its web processes are notified and forgotten.
            self._batches.setdefault(packet.address, set()).add(visitor)
        if len(self._askers) > 2 * self._limits.waiting:
            self._askers.clear()
        self._tell_of_drop(dropped)
        self._distribute()

    def _say(self, visitor: _Visitor, said: Said, address: str) -> None:
        with suppress(OSError):
            visitor.socket.send(encode_reply(said, address))

    def _tell_batches(self, address: str, said: Said) -> None:
        """Notify the web processes whose batches wait for a refresh that has ended."""
        for each in self._awaiting.pop(address, set()):
            self._say(each, said, address)

    def _tell_of_drop(self, address: str | None) -> None:
        """Notify the web processes whose batches wait for a refresh that is not run here, so that they run it themselves."""
        if address is not None:
            for each in self._batches.pop(address, set()):
                self._say(each, Said.REFUSED, address)

    # -- children ------------------------------------------------------------------------------------------------

    def _start_children(self, now: float) -> None:
        while len(self._children) < self._limits.processes and now >= self._not_before:
            self._start_child()

    def _start_child(self) -> None:
        pid, mine = fork_child(self._work, self._close_inherited)
        mine.setblocking(False)
        child = self._children[pid] = _Child(pid, mine, time.monotonic())
        self._selector.register(mine, selectors.EVENT_READ, partial(self._hear, child))
        self._distribute()

    def _close_inherited(self) -> None:
        """Close the selector and the sockets of the parent, in a new child."""
        self._selector.close()
        self._socket.leave_to_parent()
        for each in (*self._visitors, *(child.socket for child in self._children.values())):
            each.close()

    def _distribute(self) -> None:
        """Give refreshes to the children that have a free thread, the least busy first."""
        now = time.monotonic()
        while len(self._jobs):
            free = [child for child in self._children.values() if not child.is_retired and child.runs < self._limits.threads]
            if not free:
                return
            child = min(free, key=lambda each: each.runs)
            packet = self._jobs.pop(now, child.pid)
            if packet is None:
                return
            child.runs += 1
            if packet.is_forced:
                self._awaiting[packet.address] = self._batches.pop(packet.address, set())
            data = packet.encode()
            assert data is not None
            try:
                child.socket.send(data)
            except OSError:
                # The child has died, or does not read. The parent notices that by its socket or by the deadline.
                self._retire(child)

    def _hear(self, child: _Child) -> None:
        data = receive(child.socket, 4096)
        if data is None:
            return
        if not data:
            self._has_died(child)
            return
        child.read += data
        while len(child.read) >= DONE_SIZE:
            done, child.read = Done.decode(child.read[:DONE_SIZE]), child.read[DONE_SIZE:]
            self._has_done(child, done)
        self._distribute()

    def _has_done(self, child: _Child, done: Done) -> None:
        child.runs -= 1
        child.done += 1
        self._tell_of_drop(self._jobs.end(done.address, time.monotonic()))
        self._tell_batches(done.address, Said.ENDED if done.outcome is not None else Said.REFUSED)
        asker = self._askers.pop(done.address, None)
        if done.outcome is None:
            self._refused += 1
            if asker is not None:
                self._say(asker, Said.REFUSED, done.address)
        else:
            self._taken += 1
        limits = self._limits
        if (limits.max_requests and child.done >= limits.max_requests) or (limits.memory and done.memory > limits.memory):
            self._retire(child)
        elif child.is_retired and child.runs == 0:
            self._close_line(child)

    def _retire(self, child: _Child) -> None:
        """Give a child no more refreshes. It ends when it has completed those that it runs, and another child takes its place."""
        child.is_retired = True
        if child.runs <= 0:
            self._close_line(child)

    def _close_line(self, child: _Child) -> None:
        with suppress(OSError):
            child.socket.shutdown(socket.SHUT_WR)

    def _end_overdue(self, now: float) -> None:
        for running in list(self._jobs.running.values()):
            child = self._children.get(running.pid)
            if child is not None and now - running.since > self._limits.deadline + 2 * INTERVAL:
                logger.error("a process of the worker is replaced, since a refresh has run for %.0f s", now - running.since)
                self._kill(child)

    def _kill(self, child: _Child) -> None:
        with suppress(ProcessLookupError):
            kill(child.pid)
        self._has_died(child)

    def _has_died(self, child: _Child) -> None:
        if self._children.pop(child.pid, None) is None:
            return
        self._selector.unregister(child.socket)
        child.socket.close()
        with suppress(ChildProcessError):
            os.waitpid(child.pid, 0)
        lost, now = self._jobs.lost(child.pid), time.monotonic()
        for address in lost:
            self._tell_of_drop(self._jobs.end(address, now))
            self._tell_batches(address, Said.ENDED)
        if self._is_stopping:
            return
        self._restarts += 1
        if child.is_retired and not lost:
            self._start_children(now)
            return
        # A child that dies as soon as it is born must not keep its parent busy.
        self._pause = FIRST_PAUSE if now - child.born > LONGEST_PAUSE else min(2 * self._pause, LONGEST_PAUSE)
        self._not_before = now + self._pause
        logger.error("a process of the worker has died, with %d refreshes; another one takes its place", len(lost))

    # -- what it is doing ----------------------------------------------------------------------------------------

    def state(self) -> WorkerState:
        """Return what the worker is doing."""
        now = time.monotonic()
        running = [
            RunningRefresh(key=address, title="", seconds=now - each.since, pid=each.pid)
            for address, each in self._jobs.running.items()
        ]
        return WorkerState(
            pid=os.getpid(),
            since=self._began,
            processes=len(self._children),
            running=running,
            waiting=len(self._jobs),
            longest_wait=self._jobs.longest_wait(now),
            taken=self._taken,
            refused=self._refused,
            dropped=self._jobs.dropped,
            bad=self._bad,
            restarts=self._restarts,
        )
