"""The threads that work off a batch."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import Context, ContextVar
from typing import Protocol

from ..core.wsgi import close_iterable
from ..errors import ConfigError, StoreError
from .batch import Batch, Outcome

logger = logging.getLogger("flask_stalecache")

#: Threads that hang and are replaced, before a batch makes do with what is left.
MAX_LOST = 32
#: Threads of a batch: the default, and the most that are accepted.
CONCURRENCY, MAX_CONCURRENCY = 4, 64


class Task(Protocol):
    """One thing to do."""

    @property
    def url(self) -> str:
        """What it is called in the report."""

    def run(self, given_up: Callable[[str], None]) -> Outcome:
        """Do it.

        :param given_up: takes the reason why nobody waits for it any longer, while it still runs.
        :raises StoreError: if the store fails, which ends the batch.
        """


def concurrency_of(value: object) -> int:
    """Return how many threads a batch has, or raise :class:`ConfigError`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_CONCURRENCY:
        raise ConfigError(f"concurrency={value!r}: give a whole number from 1 to {MAX_CONCURRENCY}")
    return value


#: Whether this is one of a batch's own threads.
_inside: ContextVar[bool] = ContextVar("stalecache_batch", default=False)


def is_inside() -> bool:
    """Whether what is running is part of a batch."""
    return _inside.get()


class Workers:
    """The threads of one batch: each takes what comes next, so that nothing is found long before it is done.

    :param batch: what they do.
    :param tasks: yields what is to be done; one thread at a time asks for more.
    :param count: counts by name what happens.
    :param over: called once, when the last thread has left.
    """

    def __init__(self, batch: Batch, tasks: Iterator[Task], count: Callable[[str], object], over: Callable[[], object]) -> None:
        self._batch = batch
        self._tasks = tasks
        self._count = count
        self._over = over
        self._asking = threading.Lock()
        self._state = threading.Lock()
        self._working = 0
        self._lost = 0
        self._runs: set[_Run] = set()

    def give_up(self, after: float, reason: str) -> None:
        """Count as failed what has taken so long, and let other threads take the place of those that hang.

        :param after: seconds.
        """
        for run in list(self._runs):
            if run.seconds > after:
                run.give_up(reason)

    def start(self, concurrency: int) -> None:
        """Begin with so many threads; where none can be had, in the caller's own."""
        with self._state:
            started = sum(self._start_thread() for _ in range(concurrency))
            self._working = started
        if not started:
            self.run_in_line()

    def run_in_line(self) -> None:
        """Do all of it in the caller's thread."""
        self._working = 1
        # As in a thread of its own: what the caller makes meanwhile is not made of it.
        Context().run(self._work)

    def _start_thread(self) -> bool:
        try:
            threading.Thread(target=self._work, name="stalecache-batch", daemon=True).start()
        except RuntimeError:
            # Out of threads: those that there are do it all.
            return False
        return True

    def _work(self) -> None:
        token = _inside.set(True)
        is_ours = True
        try:
            while is_ours and (task := self._next()) is not None:
                is_ours = self._do(task)
        finally:
            _inside.reset(token)
            if is_ours:
                self._leave()

    def _next(self) -> Task | None:
        """Return what is to be done next; ``None``: nothing more."""
        with self._asking:
            if self._batch.cancelled or self._batch.error:
                return None
            try:
                return next(self._tasks, None)
            except StoreError as error:
                self._break_off(error)
            except Exception as error:
                # A store of the app's own may raise anything; whoever waits for the end must not wait for ever.
                logger.exception("a batch ended before its end")
                self._break_off(error)
            return None

    def _break_off(self, error: BaseException, task: Task | None = None, seconds: float = 0.0) -> None:
        self._batch.error = str(error) or repr(error)
        self._tell(Outcome("" if task is None else task.url, None, seconds, reason=self._batch.error, failed=True))

    def _do(self, task: Task) -> bool:
        """Do one thing, and return whether this thread still belongs to the batch: not if another has taken its place."""
        run = _Run(self, task)
        self._runs.add(run)
        try:
            outcome = task.run(run.give_up)
        except StoreError as error:
            if run.end():
                self._break_off(error, task, run.seconds)
                return True
            return False
        except Exception as error:
            outcome = Outcome(task.url, None, run.seconds, reason=repr(error), failed=True)
        except BaseException as error:
            # Something that asks for the end of the process ends at the edge of a thread of ours, and nowhere else.
            if threading.current_thread().name != "stalecache-batch":
                raise
            outcome = Outcome(task.url, None, run.seconds, reason=repr(error), failed=True)
        finally:
            self._runs.discard(run)
        if not run.end():
            return False
        self._tell(outcome)
        return True

    def _tell(self, outcome: Outcome) -> None:
        self._count("scans_failed" if outcome.failed else "scans_skipped" if outcome.skipped else "scans_done")
        self._batch.tell(outcome)

    def replace(self, task: Task, reason: str, seconds: float) -> None:
        """Let another thread take the place of one that hangs."""
        self._tell(Outcome(task.url, None, seconds, reason=reason, failed=True))
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
            self._over()


class _Run:
    """One run of a task: it comes to its end, or is given up before, but never both."""

    def __init__(self, crew: Workers, task: Task) -> None:
        self._crew = crew
        self._task = task
        self._began = time.monotonic()
        self._once = threading.Lock()

    @property
    def seconds(self) -> float:
        """How long it has taken by now."""
        return time.monotonic() - self._began

    def end(self) -> bool:
        """Note that it has come to its end, and return whether it was still waited for."""
        return self._once.acquire(blocking=False)

    def give_up(self, reason: str) -> None:
        """Count it as failed, though it still runs."""
        if self._once.acquire(blocking=False):
            self._crew.replace(self._task, reason, self.seconds)
