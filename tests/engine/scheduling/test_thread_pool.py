"""The pool of threads that runs refreshes."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest

from flask_stalecache.engine.log import RateLimitedLog
from flask_stalecache.engine.scheduling import thread_pool as module
from flask_stalecache.engine.scheduling import threads
from flask_stalecache.engine.scheduling.thread_pool import ThreadPool
from support import prepared
from support.interrupting import Interrupter
from support.processes import forked, workers
from support.threads import PATIENCE, all_taken, crowd, go, locks_in, no_threads, results, wait_until

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def held() -> Iterator[threading.Event]:
    """An event on which jobs hang; set at the end."""
    event = threading.Event()
    yield event
    event.set()


def hanging(held: threading.Event, started: list[int]) -> Callable[[], None]:
    def job() -> None:
        started.append(threading.get_ident())
        held.wait()

    return job


def make(workers: int = 2, queue_size: int = 100, shutdown_wait: float = 0.0) -> ThreadPool:
    return ThreadPool(workers, queue_size, shutdown_wait)


# -- running ---------------------------------------------------------------------------------------------------------


def test_jobs_run_once_each_in_threads_of_the_pool() -> None:
    pool, ran = make(3), []
    for number in range(50):
        assert pool.submit(lambda number=number: ran.append((number, threading.current_thread())))
    assert pool.drain(PATIENCE)
    assert sorted(number for number, _ in ran) == list(range(50))
    threads = {thread for _, thread in ran}
    assert threading.current_thread() not in threads
    assert 1 <= len(threads) <= 3
    assert all(thread.daemon for thread in threads)


def test_a_job_does_not_wait_for_the_next_one_if_an_exception_came_as_it_was_queued() -> None:
    """As from a signal handler. Afterwards, either the job is not queued, or a thread has been woken for it."""
    pool, ran, seen = make(1), list[int](), set[tuple[str, int]]()
    assert pool.submit(lambda: ran.append(0))
    assert pool.drain(PATIENCE)
    while Interrupter(seen=seen).run(lambda: pool.submit(lambda: ran.append(1))):
        assert pool.drain(3)
    assert pool.drain(PATIENCE)
    assert ran.count(1) >= 1
    assert len(seen) > 20


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_jobs_run_at_once_than_there_are_workers(held: threading.Event, workers: int) -> None:
    pool, started = make(workers), []
    for _ in range(10):
        assert pool.submit(hanging(held, started))
    wait_until(lambda: len(started) == workers)
    assert pool.submit(hanging(held, started))
    held.set()
    assert pool.drain(PATIENCE)
    assert len(started) == 11
    assert len(set(started)) <= workers


def test_a_queue_that_is_full_refuses(held: threading.Event) -> None:
    pool, started, ran = make(1, queue_size=2), [], []
    assert pool.submit(hanging(held, started))
    wait_until(lambda: started)
    assert pool.submit(lambda: ran.append(1))
    assert pool.submit(lambda: ran.append(2))
    assert not pool.submit(lambda: ran.append(3))
    held.set()
    assert pool.drain(PATIENCE)
    assert ran == [1, 2]
    assert pool.submit(lambda: ran.append(4))
    assert pool.drain(PATIENCE)
    assert ran == [1, 2, 4]


@pytest.mark.soak
def test_many_submit_at_once(soak: Callable[[int, int], int]) -> None:
    pool, ran, count = make(4, queue_size=10**6), [], soak(5000, 300)

    def submit() -> int:
        return sum(pool.submit(lambda: ran.append(1)) for _ in range(count))

    assert results(crowd(8, submit)) == [count] * 8
    assert pool.drain(PATIENCE)
    assert len(ran) == 8 * count


@pytest.mark.parametrize("error", [ValueError("a bug"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_what_a_job_raises_is_logged_and_the_pool_goes_on(caplog: pytest.LogCaptureFixture, error: BaseException) -> None:
    pool, ran = make(1), []

    def fail() -> None:
        raise error

    with caplog.at_level(logging.WARNING, "flask_stalecache"):
        assert pool.submit(fail)
        assert pool.submit(lambda: ran.append(1))
        assert pool.drain(PATIENCE)
    assert ran == [1]
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[1] is error


def test_without_workers_a_job_runs_in_line(caplog: pytest.LogCaptureFixture) -> None:
    pool, ran = make(0, queue_size=0), []

    def fail() -> None:
        raise ValueError("a bug")

    assert pool.submit(lambda: ran.append(threading.current_thread()))
    assert ran == [threading.current_thread()]
    with caplog.at_level(logging.WARNING, "flask_stalecache"):
        assert pool.submit(fail)
    assert "a bug" in caplog.text
    assert pool.drain(0)


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()], ids=repr)
def test_a_job_in_line_lets_the_interpreter_be_stopped(error: BaseException) -> None:
    """Without threads of the pool, the job runs in the server's own thread."""

    def stop() -> None:
        raise error

    with pytest.raises(type(error)):
        make(0).submit(stop)


def test_a_job_may_submit_another() -> None:
    pool, ran = make(1), []
    assert pool.submit(lambda: ran.append(pool.submit(lambda: ran.append("second"))))
    assert pool.drain(PATIENCE)
    assert ran == [True, "second"]


def test_a_thread_that_cannot_be_started_leaves_the_job_for_the_next(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, ran = make(1), []
    monkeypatch.setattr(threads, "_complaints", RateLimitedLog())
    with no_threads(), caplog.at_level(logging.WARNING, "flask_stalecache"):
        pool.submit(lambda: ran.append(1))
    assert "thread" in caplog.text
    assert ran == []
    assert pool.submit(lambda: ran.append(2))
    assert pool.drain(PATIENCE)
    assert ran in ([1, 2], [2])


# -- draining --------------------------------------------------------------------------------------------------------


def test_drain_says_whether_all_is_done(held: threading.Event) -> None:
    pool, started = make(1), []
    assert pool.drain(0)
    pool.submit(hanging(held, started))
    wait_until(lambda: started)
    assert not pool.drain(0)
    draining = go(pool.drain)
    held.set()
    assert draining.result(PATIENCE)


# -- idle and stuck threads ------------------------------------------------------------------------------------------


def test_idle_threads_end_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not shorter: if the time passes within SimpleQueue.get before it begins to wait, CPython 3.11 waits without a limit.
    monkeypatch.setattr(module, "IDLE", 0.05)
    pool, threads = make(2), []
    for _ in range(3):
        for _ in range(4):
            assert pool.submit(lambda: threads.append(threading.current_thread()))
        assert pool.drain(PATIENCE)
        wait_until(lambda: not any(thread.is_alive() for thread in threads), "the end of idle threads")
    assert len(threads) == 12


@pytest.mark.soak
def test_no_job_is_lost_between_idle_threads(monkeypatch: pytest.MonkeyPatch, soak: Callable[[int, int], int]) -> None:
    """Jobs come just as the threads leave."""
    monkeypatch.setattr(module, "IDLE", 0.0005)
    pool, ran, count = make(2), [], soak(3000, 300)
    pause = threading.Event()
    for number in range(count):
        assert pool.submit(lambda: ran.append(1))
        pause.wait(0.0005 * (number % 4))
    assert pool.drain(PATIENCE)
    assert len(ran) == count


def test_a_job_that_comes_as_the_last_thread_leaves_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    class Queue(SimpleQueue[Callable[[], None]]):
        def get(self, block: bool = True, timeout: float | None = None) -> Callable[[], None]:
            try:
                return super().get(block, timeout)
            except Empty:
                if ran == ["first"]:
                    ran.append("handed over in between")
                    assert pool.submit(lambda: ran.append("second"))
                raise

    monkeypatch.setattr(module, "IDLE", 0.005)
    monkeypatch.setattr(queue, "SimpleQueue", Queue)
    pool = make(1)
    assert pool.submit(lambda: ran.append("first"))
    wait_until(lambda: len(ran) == 3, "the second job")
    assert pool.drain(PATIENCE)


def test_a_stuck_thread_is_replaced_and_ends_when_it_can(held: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    # The thread in its place does not end before the test does.
    monkeypatch.setattr(module, "IDLE", 2 * PATIENCE)
    pool, started = make(1), []
    stuck, ran = list[threading.Thread](), list[threading.Thread]()
    pool.submit(lambda: (stuck.append(threading.current_thread()), hanging(held, started)()))
    wait_until(lambda: started)
    pool.submit(lambda: ran.append(threading.current_thread()))
    assert ran == []
    pool.give_up(started[0])
    assert pool.drain(PATIENCE)
    assert len(ran) == 1
    assert ran[0] is not stuck[0]

    held.set()
    wait_until(lambda: not stuck[0].is_alive(), "the end of the stuck thread")
    for _ in range(10):
        pool.submit(lambda: ran.append(threading.current_thread()))
    assert pool.drain(PATIENCE)
    assert ran == ran[:1] * 11
    # From its next job on, it waits no longer than others.
    monkeypatch.undo()
    pool.submit(lambda: None)


def test_giving_up_what_is_not_running_changes_nothing(held: threading.Event) -> None:
    pool, started, ran = make(1), [], []
    pool.give_up(threading.get_ident())
    pool.submit(lambda: ran.append(threading.get_ident()))
    assert pool.drain(PATIENCE)
    pool.give_up(ran[0])
    pool.submit(hanging(held, started))
    wait_until(lambda: started)
    pool.give_up(threading.get_ident())
    pool.submit(lambda: ran.append(1))
    assert not pool.drain(0)
    held.set()
    assert pool.drain(PATIENCE)
    assert len(ran) == 2


def test_a_thread_is_given_up_once(held: threading.Event) -> None:
    pool, started = make(1), []
    pool.submit(hanging(held, started))
    wait_until(lambda: len(started) == 1)
    for _ in range(5):
        pool.give_up(started[0])
    for _ in range(4):
        pool.submit(hanging(held, started))
    wait_until(lambda: len(started) == 2)
    assert not pool.drain(0)
    held.set()
    assert pool.drain(PATIENCE)
    assert len(started) == 5


def test_stuck_threads_are_replaced_only_so_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the stuck threads have come back, as many may be replaced again."""
    monkeypatch.setattr(module, "MAX_LOST", 3)
    pool, ran = make(1), list[int]()
    for turn in range(1, 4):
        held, started = threading.Event(), list[int]()
        for number in range(4):
            pool.submit(hanging(held, started))
            wait_until(lambda started=started, number=number: len(started) == number + 1)
            pool.give_up(started[-1])
        pool.submit(lambda: ran.append(1))
        assert not pool.drain(0)
        assert len(ran) == turn - 1
        held.set()
        assert pool.drain(PATIENCE)
        assert len(ran) == turn
        assert len(set(started)) == 4
        wait_until(lambda started=started: sum(thread.ident in started for thread in threading.enumerate()) <= 1)


# -- closing ---------------------------------------------------------------------------------------------------------


def test_close_refuses_new_jobs_and_forgets_waiting_ones(held: threading.Event) -> None:
    pool, started, ran = make(1), [], []
    pool.submit(hanging(held, started))
    wait_until(lambda: started)
    pool.submit(lambda: ran.append(1))
    pool.close()
    assert not pool.submit(lambda: ran.append(2))
    held.set()
    assert pool.drain(PATIENCE)
    assert ran == []


EXITING = """
import sys, threading
from flask_stalecache.engine.scheduling.thread_pool import ThreadPool

pools = []
for _ in range({pools}):
    pool = ThreadPool(2, 10, {shutdown_wait})
    started = threading.Event()
    pool.submit(lambda: (started.set(), threading.Event().wait(60)))
    pool.submit(lambda: threading.Event().wait(60))
    pool.submit(lambda: print("a waiting job ran"))
    started.wait()
    pools.append(pool)
print("exits", flush=True)
"""


@pytest.mark.parametrize(
    ("pools", "shutdown_wait"),
    [pytest.param(1, 0, id="at once"), pytest.param(1, 0.5, id="after a wait"), pytest.param(40, 1, id="40 apps wait together")],
)
def test_jobs_of_a_minute_do_not_hold_up_the_exit(pools: int, shutdown_wait: float) -> None:
    command = ["-c", EXITING.format(pools=pools, shutdown_wait=shutdown_wait)]
    ended = prepared.run(command, folder=ROOT, env=os.environ, timeout=20)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "exits\n", "")


FINISHING = """
import threading
from flask_stalecache.engine.scheduling.thread_pool import ThreadPool

pool = ThreadPool(1, 10, 30)
go_on = threading.Event()
pool.submit(lambda: (go_on.wait(), print("finished")))
threading.Timer(0.2, go_on.set).start()
"""


def test_a_job_that_ends_within_the_wait_is_finished_at_exit() -> None:
    ended = prepared.run(["-c", FINISHING], folder=ROOT, env=os.environ, timeout=25)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "finished\n", "")


# -- forks -----------------------------------------------------------------------------------------------------------


def use_before_and_after_a_fork(state: str) -> tuple[list[int], bool]:
    """Return the ids of processes in which jobs of the child ran, and whether the parent's pool still works."""
    pool, held, started = ThreadPool(1, 100, 0.0), threading.Event(), []
    if state != "unused":
        pool.submit(lambda: None)
        assert pool.drain(PATIENCE)
    if state in ("busy", "full"):
        pool.submit(lambda: (started.append(1), held.wait()))
        wait_until(lambda: started)
    if state == "full":
        while pool.submit(lambda: None):
            pass
    if state == "closed":
        pool.close()

    def child() -> list[int]:
        assert pool.drain(0)
        ran: list[int] = []
        for _ in range(3):
            assert pool.submit(lambda: ran.append(os.getpid()))
        assert pool.drain(PATIENCE)
        return ran

    # With ``locks taken``, another thread holds the pool's locks at the moment of the fork.
    with all_taken(locks_in(pool) if state == "locks taken" else []):
        ran = forked(child)
    held.set()
    after: list[int] = []
    works = state == "closed" or (pool.drain(PATIENCE) and pool.submit(lambda: after.append(1)) and pool.drain(PATIENCE))
    return ran, works and (state == "closed" or after == [1])


@pytest.mark.parametrize("state", ["unused", "used", "busy", "full", "closed", "locks taken"])
def test_a_pool_works_in_a_forked_process(state: str) -> None:
    with workers(1) as made:
        ran, parent_works = made[0].run(use_before_and_after_a_fork, state)
        assert len(ran) == 3
        assert len(set(ran)) == 1
        assert made[0].process.pid not in ran
    assert parent_works


def submit_at_once_after_a_fork(forks: int) -> list[tuple[int, bool, int]]:
    """Let several threads of each child submit its first job at once. Return jobs taken, whether all got done, and jobs run."""
    pool = ThreadPool(2, 1000, 0.0)
    pool.submit(lambda: None)
    assert pool.drain(PATIENCE)

    def child() -> tuple[int, bool, int]:
        # Threads switch at each step, so that the first calls overlap.
        sys.setswitchinterval(1e-6)
        ran: list[int] = []
        taken = sum(results(crowd(8, lambda: pool.submit(lambda: ran.append(1)))))
        wait_until(lambda: len(ran) >= taken, "a job that was taken")
        done = pool.drain(PATIENCE / 6)
        for _ in range(10):
            taken += pool.submit(lambda: ran.append(1))
        return taken, done and pool.drain(PATIENCE / 6), len(ran)

    return [forked(child) for _ in range(forks)]


@pytest.mark.soak
def test_many_threads_may_be_the_first_in_a_forked_process(soak: Callable[[int, int], int]) -> None:
    with workers(1) as made:
        outcomes = made[0].run(submit_at_once_after_a_fork, soak(100, 15))
    assert set(outcomes) == {(18, True, 18)}


FORKING = """
import os, sys, threading, warnings
warnings.simplefilter("ignore")
from flask_stalecache.engine.scheduling.thread_pool import ThreadPool

pool = ThreadPool(1, 10, 30)
started = threading.Event()
pool.submit(lambda: (started.set(), threading.Event().wait(60)))
started.wait()
if os.fork() == 0:
    sys.exit()  # the parent's job is none of the child's business: it exits at once, by the usual way
os.wait()
os._exit(0)
"""


def test_a_forked_process_does_not_wait_for_its_parents_jobs() -> None:
    ended = prepared.run(["-c", FORKING], folder=ROOT, env=os.environ, timeout=25)
    assert (ended.returncode, ended.stderr) == (0, "")


# -- where no thread runs --------------------------------------------------------------------------------------------


def test_where_threads_do_not_run_jobs_run_in_line_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, monotonic: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("flask_stalecache.engine.scheduling.thread_pool._stuck_processes", set())
    refresher, done = ThreadPool(2, 10, 0), []
    with no_threads(lambda thread: None):
        assert refresher.submit(lambda: done.append("waits for ever"))
        monotonic(4)
        assert refresher.submit(lambda: done.append("waits too"))
        assert done == []
        monotonic(2)
        for number in range(3):
            assert refresher.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    assert done == [0, 1, 2]
    assert [record.getMessage() for record in caplog.records] == [
        "a refresh was not begun within 5 s: the server seems to run no threads; until one runs, refreshes run in line, "
        "when the response is closed"
    ]


def test_a_busy_pool_is_not_taken_for_one_without_threads(monotonic: Callable[[float], None]) -> None:
    refresher, busy, release, done = ThreadPool(1, 10, 0), threading.Event(), threading.Event(), []

    def job() -> None:
        busy.set()
        release.wait(30)

    refresher.submit(job)
    assert busy.wait(30)
    refresher.submit(lambda: done.append(1))
    monotonic(100)
    refresher.submit(lambda: done.append(2))
    assert done == []
    release.set()
    assert refresher.drain(30)
    assert done == [1, 2]
