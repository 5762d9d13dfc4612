"""The threads of a batch.

A task that exceeds the deadline is given up: it counts as failed, another thread replaces its worker, and its result is
ignored. At most :data:`MAX_LOST` threads are replaced.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import Context, ContextVar
from typing import Protocol

from ..core.wsgi import close_iterable
from ..engine.scheduling.threads import start_thread
from ..errors import ConfigError, StoreError
from .batch import Batch, Outcome

logger = logging.getLogger("flask_stalecache")

#: Hanging threads that are replaced. After that a batch goes on with the threads that are left.
MAX_LOST = 32
#: Threads of a batch: the default, and the largest accepted number.
CONCURRENCY, MAX_CONCURRENCY = 4, 64


class Task(Protocol):
    """One task of a batch."""

    @property
    def url(self) -> str:
        """The URL or title in its outcome."""

    def run(self, given_up: Callable[[str], None]) -> Outcome:
        """Run the task, and return its outcome.

        :param given_up: called with a reason, gives up on the task while it still runs.
        :raises StoreError: if the store fails, which ends the batch.
        """


def concurrency_of(value: object) -> int:
    """Check the number of threads of a batch, and return it.

    :raises ConfigError: for anything but a whole number from 1 to 64.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_CONCURRENCY:
        raise ConfigError(f"concurrency={value!r}: give a whole number from 1 to {MAX_CONCURRENCY}")
    return value


#: Whether the current code runs as part of a batch.
_in_batch: ContextVar[bool] = ContextVar("stalecache_batch", default=False)


def is_in_batch() -> bool:
    """Whether the current code runs as part of a batch."""
    return _in_batch.get()


class Workers:
    """The threads of one batch. A free thread takes the next task, so that entries are found only shortly before their task runs.

    :param batch: the batch.
    :param tasks: yields the tasks. Only one thread uses it at a time.
    :param count: counts outcomes under a name.
    :param on_end: called once, when the last thread has ended.
    """

    def __init__(self, batch: Batch, tasks: Iterator[Task], count: Callable[[str], object], on_end: Callable[[], object]) -> None:
        self._batch = batch
        self._tasks = tasks
        self._count = count
        self._on_end = on_end
        self._taking = threading.Lock()
        self._state = threading.Lock()
        self._working = 0
        self._lost = 0
        self._runs: set[_Run] = set()

    def give_up(self, after: float, reason: str) -> None:
        """Give up on the tasks that have run for too long.

        :param after: seconds that a task may run.
        """
        for run in list(self._runs):
            if run.seconds > after:
                run.give_up(reason)

    def start(self, concurrency: int) -> None:
        """Start the threads; if none can be started, run all tasks in the caller's thread."""
        with self._state:
            started = sum(self._start_thread() for _ in range(concurrency))
            self._working = started
        if not started:
            self.run_in_line()

    def run_in_line(self) -> None:
        """Run all tasks in the caller's thread."""
        self._working = 1
        # An empty context, like that of a new thread: the tasks must not add dependencies to an entry that the caller is making.
        Context().run(self._work)

    def _start_thread(self) -> bool:
        # If no thread can be started, those that were started before run all tasks.
        return start_thread("batch", self._work) is not None

    def _work(self) -> None:
        token = _in_batch.set(True)
        is_ours = True
        try:
            while is_ours and (task := self._next()) is not None:
                is_ours = self._do(task)
        finally:
            _in_batch.reset(token)
            if is_ours:
                self._leave()

    def _next(self) -> Task | None:
        """Return the next task; ``None`` if there are no more."""
        with self._taking:
            if self._batch.cancelled or self._batch.error:
                return None
            try:
                return next(self._tasks, None)
            except StoreError as error:
                self._abort(error)
            except Exception as error:
                # A custom store may raise anything. The batch must end, or its callers would wait forever.
                logger.exception("a batch ended early")
                self._abort(error)
            return None

    def _abort(self, error: BaseException, task: Task | None = None, seconds: float = 0.0) -> None:
        self._batch.error = str(error) or repr(error)
        self._report(Outcome("" if task is None else task.url, None, seconds, reason=self._batch.error, failed=True))

    def _do(self, task: Task) -> bool:
        """Run one task. Return false if this thread was replaced meanwhile, so that it must leave the batch."""
        run = _Run(self, task)
        self._runs.add(run)
        try:
            outcome = task.run(run.give_up)
        except StoreError as error:
            if run.end():
                self._abort(error, task, run.seconds)
                return True
            return False
        except Exception as error:
            outcome = Outcome(task.url, None, run.seconds, reason=repr(error), failed=True)
        except BaseException as error:
            # In our own threads, SystemExit and similar exceptions end only the task. In the caller's thread they are raised.
            if threading.current_thread().name != "stalecache-batch":
                raise
            outcome = Outcome(task.url, None, run.seconds, reason=repr(error), failed=True)
        finally:
            self._runs.discard(run)
        if not run.end():
            return False
        self._report(outcome)
        return True

    def _report(self, outcome: Outcome) -> None:
        self._count("scans_failed" if outcome.failed else "scans_skipped" if outcome.skipped else "scans_done")
        self._batch.add_outcome(outcome)

    def replace(self, task: Task, reason: str, seconds: float) -> None:
        """Start another thread in place of one that hangs."""
        self._report(Outcome(task.url, None, seconds, reason=reason, failed=True))
        with self._state:
            self._lost += 1
            is_replaced = self._lost <= MAX_LOST and self._start_thread()
        if not is_replaced:
            self._leave()

    def _leave(self) -> None:
        with self._state:
            self._working -= 1
            is_last = self._working == 0
        if is_last:
            close_iterable(self._tasks)
            self._batch.finish()
            self._on_end()


class _Run:
    """One run of a task. It either ends or is given up, never both."""

    def __init__(self, workers: Workers, task: Task) -> None:
        self._workers = workers
        self._task = task
        self._began = time.monotonic()
        # The first call of end() or give_up() takes this lock, and never releases it.
        self._once = threading.Lock()

    @property
    def seconds(self) -> float:
        """The seconds that it has run so far."""
        return time.monotonic() - self._began

    def end(self) -> bool:
        """End the run, and return whether it had not been given up."""
        return self._once.acquire(blocking=False)

    def give_up(self, reason: str) -> None:
        """Give up on the run unless it has ended."""
        if self._once.acquire(blocking=False):
            self._workers.replace(self._task, reason, self.seconds)
