"""Threads of tests: start them, wait for them, and hold the locks of the package."""

from __future__ import annotations

import faulthandler
import gc
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import pytest

from flask_stalecache.batches.workers import Workers
from flask_stalecache.engine.scheduling import housekeeper, thread_pool

T = TypeVar("T")
#: Seconds after which something that should have happened never will.
PATIENCE = 30.0


def wait_until(condition: Callable[[], object], what: str = "it") -> None:
    """Wait for a condition, and fail if it does not come true."""
    began = time.perf_counter()
    pause = threading.Event()
    while not condition():
        waited = time.perf_counter() - began
        if waited >= PATIENCE:
            # Where they hang, for the report.
            faulthandler.dump_traceback(all_threads=True)
            raise AssertionError(f"{what} did not happen")
        # Those who wait long look less often: the processor is for what they wait for.
        pause.wait(min(0.002 + waited / 20, 0.03))


def go(function: Callable[..., T], *args: Any) -> Future[T]:
    """Run a function in a daemon thread of its own."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function(*args))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def crowd(count: int, function: Callable[[], T]) -> list[Future[T]]:
    """Run a function in many threads, all let go at once."""
    barrier = threading.Barrier(count)

    def run() -> T:
        barrier.wait(PATIENCE)
        return function()

    return [go(run) for _ in range(count)]


def results(futures: list[Future[T]]) -> list[T]:
    """Return what threads returned; fail if one hangs."""
    return [future.result(PATIENCE) for future in futures]


def _refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@contextmanager
def no_threads(instead: Callable[[threading.Thread], None] = _refuse) -> Iterator[None]:
    """Let the package start no threads. All others can: a worker of xdist, for instance, ends if it can't start one.

    :param instead: called where a thread is to be started. Default: as if the system had no more threads.
    """
    start = threading.Thread.start
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            threading.Thread,
            "start",
            lambda thread: instead(thread) if thread.name.startswith("stalecache") else start(thread),
        )
        yield


#: What the threads of the package do when they are not idle.
_WORK = {function.__code__ for function in (thread_pool._run, housekeeper._tick, Workers._work)}


def own_threads() -> list[threading.Thread]:
    """Return the threads of the package."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("stalecache")]


def let_work_end(seconds: float = 1.0) -> None:
    """Wait until the threads of the package are idle: none runs a refresh, a part of a batch, or housekeeping.

    :param seconds: how long to wait at most.
    """
    until, pause = time.perf_counter() + seconds, threading.Event()
    while any(map(_is_at_work, own_threads())) and time.perf_counter() < until:
        pause.wait(0.001)


def _is_at_work(thread: threading.Thread) -> bool:
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code in _WORK:
            return True
        frame = frame.f_back
    return False


_LOCKS = (type(threading.Lock()), type(threading.RLock()), threading.Condition)
_CONTAINERS = (dict, list, tuple, set, frozenset, deque)


def locks_in(root: object) -> list[Any]:
    """Return every lock that the package's objects below ``root`` hold; what belongs to others is not looked into."""
    found, seen, todo = [], {id(root)}, [root]
    while todo:
        thing = todo.pop()
        if isinstance(thing, _LOCKS):
            found.append(thing)
            continue
        if not isinstance(thing, (*_CONTAINERS, threading.Event)) and not _is_ours(thing):
            continue
        for referent in gc.get_referents(thing):
            if id(referent) not in seen:
                seen.add(id(referent))
                todo.append(referent)
    return found


def _is_ours(thing: object) -> bool:
    return not isinstance(thing, type) and type(thing).__module__.partition(".")[0] == "flask_stalecache"


@contextmanager
def all_taken(locks: list[Any]) -> Iterator[None]:
    """Hold locks in a thread of its own."""
    taken, release = threading.Event(), threading.Event()

    def take(lock: Any, stack: ExitStack) -> bool:
        is_taken: bool = lock.acquire(timeout=0.5)
        if is_taken:
            stack.callback(lock.release)
        return is_taken

    def hold() -> None:
        # The package's threads take some of these locks in another order. Against deadlocks, a wait that is too long gives up all.
        while not release.is_set():
            with ExitStack() as stack:
                if all(take(lock, stack) for lock in locks):
                    taken.set()
                    assert release.wait(PATIENCE)

    holding = go(hold)
    try:
        assert taken.wait(PATIENCE)
        yield
    finally:
        release.set()
        holding.result(PATIENCE)
