"""Forked children with the process id of an ancestor, as the first process of a new PID namespace has.

Covers ``filesystem.process``.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_stalecache.batches.batch import Batch
from flask_stalecache.filesystem.per_process import PerProcess
from flask_stalecache.filesystem.process import this_process
from flask_stalecache.stats.counters import Counters
from flask_stalecache.stats.registry import Registry
from flask_stalecache.stores.in_memory.memory_store import MemoryStore
from support.engine import FakeRefresh, make_engine, make_entry, storable
from support.engine_processes import Board
from support.processes import forked, workers
from support.threads import PATIENCE

_CLONE_NEWPID = 0x20000000


def forked_alike(function: Callable[[], Any]) -> Any:
    """Run a function in a forked child that has the process id of its parent."""
    pid, real = os.getpid(), os.getpid
    os.getpid = lambda: pid
    try:
        return forked(function)
    finally:
        os.getpid = real


def forked_as_first(function: Callable[[], Any]) -> Any:
    """Run a function in a forked child that is the first process of a new PID namespace.

    Afterwards, the calling process can start no more threads.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWPID):
        raise OSError(ctypes.get_errno(), "unshare")
    return forked(function)


def refresh(engine: Any, body: bytes) -> object:
    """Let a process refresh the page in the background, and return what is stored then."""
    engine.runtime.submit(FakeRefresh(lambda start: storable(start, body, windows=(0, 10**6, 10**6))))
    assert engine.runtime.drain(PATIENCE), "the refresh has not ended"
    return engine.store.load("page").entry.body


def refresh_as_first(board: Board) -> list[object]:
    engine = make_engine(board.cache, REFRESH_WORKERS=1)
    engine.store.write(make_entry(windows=(0, 10**6, 10**6)))

    def grandchild() -> list[object]:
        return [os.getpid(), refresh(engine, b"by the grandchild")]

    def child() -> list[object]:
        seen = [os.getpid(), refresh(engine, b"by the child")]
        return seen + list(forked_as_first(grandchild))

    return list(forked_as_first(child))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a PID namespace")
def test_the_first_processes_of_nested_namespaces_each_refresh(board: Board) -> None:
    with workers(1) as made:
        assert made[0].run(refresh_as_first, board) == [1, b"by the child", 1, b"by the grandchild"]


def look_at_identity() -> tuple[bool, bool, bool]:
    mine, value = this_process(), PerProcess(object)
    made = value.get()
    return this_process() == mine, forked_alike(lambda: this_process() == mine), forked_alike(lambda: value.get() is made)


def refresh_in_both(place: Path) -> list[object]:
    engine = make_engine(place / "cache", REFRESH_WORKERS=1)
    engine.store.write(make_entry(windows=(0, 10**6, 10**6)))
    before = refresh(engine, b"by the parent")
    return [before, forked_alike(lambda: refresh(engine, b"by the child")), refresh(engine, b"by the parent again")]


def write_with_the_guard_held() -> str:
    store = MemoryStore()
    with store._guard().lock:
        # Another thread is in the middle of a write at the moment of the fork.
        return str(forked_alike(lambda: (store.write(make_entry("page", b"child")), store.load("page").entry.body)[1].decode()))


def wait_for_the_parents_batch() -> bool:
    batch = Batch("purge")
    with batch._changed:
        return bool(forked_alike(lambda: batch.wait() or list(batch)))


def count_in_both(place: Path) -> int:
    registry = Registry(Counters(), place)
    registry.count("purges", 5)

    def child() -> None:
        registry.count("purges", 1)
        registry.tick()

    forked_alike(child)
    registry.count("purges", 1)
    return registry.read(0, 0, None)["purges"]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (look_at_identity, (True, False, False)),
        (refresh_in_both, [b"by the parent", b"by the child", b"by the parent again"]),
        (write_with_the_guard_held, "child"),
        (wait_for_the_parents_batch, False),
        (count_in_both, 7),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_child_with_its_parents_id_has_its_own(function: Callable[..., Any], expected: object, tmp_path: Path) -> None:
    arguments = (tmp_path,) if function.__code__.co_argcount else ()
    with workers(1) as made:
        assert made[0].run(function, *arguments) == expected


def test_a_process_stays_the_same_in_its_threads() -> None:
    seen = []
    thread = threading.Thread(target=lambda: seen.append(this_process()))
    thread.start()
    thread.join()
    assert seen == [this_process()]
