"""Sets up and runs the worker of one app."""

from __future__ import annotations

import os
import socket
from typing import NamedTuple

from ..app_state import AppState
from ..core.packets.packets import socket_name
from ..errors import ConfigError
from ..filesystem.atomic import make_directories
from ..filesystem.local_socket import new_socket
from ..stores.base import DirectoryStore
from .child import Child
from .parent import Limits, Parent
from .worker_socket import WorkerSocket

#: How many times as many refreshes may wait here as in a web process.
TIMES = 10
_THREADS = 4


class Wanted(NamedTuple):
    """The settings of a worker.

    :ivar processes: its child processes.
    :ivar max_requests: refreshes after which a child is replaced; 0: any number.
    :ivar memory: bytes of memory after which a child is replaced; 0: any number.
    """

    processes: int
    max_requests: int
    memory: int


def run_worker(state: AppState, wanted: Wanted) -> int:
    """Run the worker of an app until a signal stops it. Return the exit code.

    :raises ConfigError: if the store has no directory, or the system has no fork or no sockets in directories.
    """
    engine, settings = state.engine, state.settings
    store = engine.store
    if not isinstance(store, DirectoryStore):
        raise ConfigError("a worker takes refreshes by a socket in the cache directory, and this store has none: use a FileStore")
    if not hasattr(os, "fork") or (probe := new_socket()) is None:
        raise ConfigError("this system has no fork or no sockets in directories: run refreshes in a task queue")
    probe.close()
    # The worker must not hand its own refreshes over.
    engine.runtime.delegation.takers.clear()
    engine.runtime.delegation.runner = None

    def work(parent: socket.socket) -> None:
        bulk = state.bulk
        Child(engine, bulk.handed_over, bulk.handed_warmings, settings.refresh_workers or _THREADS, parent).work()

    def make() -> None:
        store.check()
        make_directories(store.directory)

    limits = Limits(
        processes=wanted.processes,
        threads=settings.refresh_workers or _THREADS,
        waiting=TIMES * max(settings.refresh_queue, 100),
        deadline=settings.refresh_deadline,
        max_requests=wanted.max_requests,
        memory=wanted.memory,
    )
    worker_socket = WorkerSocket(store.directory, socket_name(engine.name, settings.version or ""), make)
    return Parent(worker_socket, limits, work).run()
