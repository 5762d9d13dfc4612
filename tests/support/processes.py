"""Processes of tests: fresh ones that run functions, and forks."""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, TypeVar

from support.prepared import ROOT, TEST_MODULES, TESTS, start
from support.threads import PATIENCE

T = TypeVar("T")
#: A user who owns nothing.
NOBODY = 65534
_PATH = f"{TESTS}{os.pathsep}{ROOT}"
_WORK = "import sys; from support.processes import work; work(int(sys.argv[1]))"


class Worker:
    """A process without threads that runs one function after the other."""

    def __init__(self) -> None:
        self._pipe, theirs = Pipe()
        with theirs:
            fd = theirs.fileno()
            self.process = start(
                ["-c", _WORK, str(fd)], TEST_MODULES, folder=Path.cwd(), env={**os.environ, "PYTHONPATH": _PATH}, pass_fds=(fd,)
            )

    def start(self, function: Callable[..., Any], *args: Any) -> None:
        """Let it run a function, which is pickled by its name."""
        self._pipe.send((function, args))

    def result(self, seconds: float = 3 * PATIENCE) -> Any:
        """Return what the function returned; fail if it raised, hangs, or if the process died.

        :param seconds: after how many it hangs.
        """
        assert self._pipe.poll(seconds), "a process hangs"
        try:
            good, value = self._pipe.recv()
        except EOFError:
            raise AssertionError(f"a process died: {self.process.wait(PATIENCE)}") from None
        assert good, value
        return value

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a function there, and return what it returned."""
        self.start(function, *args)
        return self.result()

    def kill(self) -> None:
        """End it with SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def close(self) -> None:
        """End it, and leave nothing."""
        self.kill()
        self._pipe.close()


def work(fd: int) -> None:
    """Run what a :class:`Worker` is given.

    :param fd: the pipe on which it comes.
    """
    pipe = Connection(fd)
    while True:
        try:
            function, args = pipe.recv()
        except EOFError:
            return
        try:
            outcome = True, function(*args)
        except BaseException:
            outcome = False, traceback.format_exc()
        pipe.send(outcome)


@contextmanager
def workers(count: int) -> Iterator[list[Worker]]:
    """Start fresh processes, and end them."""
    made: list[Worker] = []
    try:
        for _ in range(count):
            made.append(Worker())
        yield made
    finally:
        for worker in made:
            worker.close()


def forked(function: Callable[[], T]) -> T:
    """Run a function in a fork of this process, and return what it returned.

    Call it in a :class:`Worker`: the runner of the tests has threads, and newer Pythons warn of a fork then.
    """
    mine, theirs = Pipe(duplex=False)
    pid = os.fork()
    if pid == 0:
        _answer_and_exit(theirs, function)
    theirs.close()
    try:
        assert wait([mine], PATIENCE), "a forked process hangs"
        good, value = pickle.loads(mine.recv_bytes())
    except EOFError:
        raise AssertionError("a forked process died") from None
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        mine.close()
    assert good, value
    return value  # type: ignore[no-any-return]


def _answer_and_exit(pipe: Connection, function: Callable[[], object]) -> None:
    try:
        outcome = True, function()
    except BaseException:
        outcome = False, traceback.format_exc()
    try:
        pipe.send_bytes(pickle.dumps(outcome))
    finally:
        os._exit(0)


def become_nobody() -> None:
    """Give up root's rights for good."""
    # Python imports a codec when it is used first, and the user nobody may be unable to read root's Python.
    "localhost".encode("idna")
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
