"""Python programs that begin as forks of a process which has imported Flask, gunicorn and the package already.

An import takes longer than most tests. Nothing that a program does before it imports its app is left out: it has its own
environment, folder, descriptors and process group, and it ends as an interpreter ends.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, NamedTuple, TextIO

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
#: What servers and their apps import.
SERVER_MODULES = (
    "flask.cli",
    "flask_stalecache",
    "gunicorn.app.wsgiapp",
    "gunicorn.workers.gthread",
    "gunicorn.workers.sync",
    "urllib.request",
)
#: What functions of tests need.
TEST_MODULES = ("hypothesis", "pytest", "time_machine", "flask_stalecache")
#: Numbers on sockets and pipes.
_NUMBER = struct.Struct("i")
#: The process that forks: in a fork, the first line returns, and the second runs the program.
_FORKING = """\
from support.prepared import arguments_of_fork
option, values = arguments_of_fork({fd}, {modules!r})
if option == "-m":
    import runpy
    runpy.run_module(values[0], run_name="__main__", alter_sys=True)
else:
    exec(values[0])
"""


class Program(NamedTuple):
    """What a fork runs.

    :ivar command: ``-m``, a module and its arguments, or ``-c``, code and its arguments.
    :ivar fds: the numbers that descriptors have in it, in the order in which they are sent.
    """

    command: Sequence[str]
    folder: Path
    env: Mapping[str, str]
    fds: Sequence[int]


class PreparedProcess:
    """A running program, with the methods of :class:`subprocess.Popen` that tests need.

    :ivar pid: its process ID, which is that of its process group.
    :ivar returncode: its exit status as :mod:`subprocess` gives it, once :meth:`poll` or :meth:`wait` has seen its end.
    """

    def __init__(self, status: int) -> None:
        self._status = status
        self._lock = threading.Lock()
        self.returncode: int | None = None
        self.pid = self._number()

    def _number(self) -> int:
        data = os.read(self._status, _NUMBER.size)
        assert data, "the process that forks is gone"
        (number,) = _NUMBER.unpack(data)
        return int(number)

    def poll(self) -> int | None:
        """Return its exit status, or ``None`` if it runs."""
        return self._ended_within(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit status.

        :raises subprocess.TimeoutExpired: after ``timeout`` seconds.
        """
        ended = self._ended_within(timeout)
        if ended is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return ended

    def _ended_within(self, seconds: float | None) -> int | None:
        with self._lock:
            if self.returncode is None and _is_readable(self._status, seconds):
                self.returncode = os.waitstatus_to_exitcode(self._number())
                os.close(self._status)
            return self.returncode

    def terminate(self) -> None:
        """Send SIGTERM, unless it has ended."""
        if self.poll() is None:
            # Its parent may have waited for it, and not said so yet.
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        if self.poll() is None:
            # Its parent may have waited for it, and not said so yet.
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def start(
    command: Sequence[str],
    modules: Sequence[str],
    *,
    folder: Path,
    env: Mapping[str, str],
    output: BinaryIO | None = None,
    errors: BinaryIO | None = None,
    pass_fds: Sequence[int] = (),
) -> PreparedProcess:
    """Run a Python program in a process group of its own, with nothing to read.

    :param command: what follows ``python``: ``-m`` and a module, or ``-c`` and code.
    :param modules: what is imported before: :data:`SERVER_MODULES` or :data:`TEST_MODULES`.
    :param output: where its output goes; ``None``: nowhere.
    :param errors: where its errors go; ``None``: where its output goes.
    :param pass_fds: descriptors that keep their numbers.
    """
    outputs = {} if output is None else {1: output.fileno(), 2: (errors or output).fileno()}
    fds = outputs | {fd: fd for fd in pass_fds}
    return _forking_process(tuple(modules)).start(Program(command, folder, dict(env), list(fds)), list(fds.values()))


@contextmanager
def printing(
    command: Sequence[str], modules: Sequence[str], *, folder: Path, env: Mapping[str, str]
) -> Iterator[tuple[PreparedProcess, TextIO]]:
    """Run a program as :func:`start` does, and kill it at the end. Yield it, and what it prints, errors too, as it comes."""
    reading, writing = os.pipe()
    with open(reading) as printed:
        with open(writing, "wb") as output:
            process = start(command, modules, folder=folder, env=env, output=output)
        try:
            yield process, printed
        finally:
            process.kill()
            process.wait()


def run(command: Sequence[str], *, folder: Path, env: Mapping[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a Python program to its end, and return its exit status and what it printed.

    :param command: what follows ``python``: ``-m`` and a module, or ``-c`` and code.
    :param timeout: seconds after which it is killed.
    :raises subprocess.TimeoutExpired: it was killed.
    """
    with TemporaryFile() as output, TemporaryFile() as errors:
        process = start(command, SERVER_MODULES, folder=folder, env=env, output=output, errors=errors)
        try:
            status = process.wait(timeout)
        finally:
            process.kill()
        texts = [os.pread(file.fileno(), 1 << 24, 0).decode() for file in (output, errors)]
        return subprocess.CompletedProcess(command, status, *texts)


@cache
def _forking_process(modules: tuple[str, ...]) -> _ForkingProcess:
    made = _ForkingProcess(modules)
    atexit.register(made.close)
    return made


class _ForkingProcess:
    """The process that has imported everything, seen from the tests."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _FORKING.format(fd=theirs.fileno(), modules=modules)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{ROOT}", "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )

    def start(self, program: Program, fds: Sequence[int]) -> PreparedProcess:
        ours, status = os.pipe()
        data = pickle.dumps(program)
        try:
            with self._lock:
                socket.send_fds(self._control, [_NUMBER.pack(len(data))], [status, *fds])
                self._control.sendall(data)
        finally:
            os.close(status)
        return PreparedProcess(ours)

    def close(self) -> None:
        """End it; its programs go on."""
        self._control.close()
        self._process.wait()


def _is_readable(descriptor: int, seconds: float | None) -> bool:
    """Wait for a descriptor. It may be higher than what select() takes, in a test with a thousand others."""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    return bool(waiting.poll(None if seconds is None else seconds * 1000))


# -- in the process that forks ---------------------------------------------------------------------------------------


def arguments_of_fork(fd: int, modules: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Fork whenever a program comes, until the socket is closed; return in each fork, with the program's option and its values.

    :param fd: the socket on which programs come.
    :param modules: what is imported before.
    """
    for name in modules:
        import_module(name)
    # So that forks neither look for garbage among all these modules nor take them to pieces at their end.
    gc.collect()
    gc.freeze()
    search_path = [entry for entry in sys.path if entry not in ("", str(TESTS), str(ROOT))]
    statuses: dict[int, int] = {}
    with socket.socket(fileno=fd) as control, _woken_by_ended_children() as woken:
        while True:
            readable, _, _ = select.select([control, woken], [], [])
            if woken in readable:
                woken.recv(4096)
                _report_ended(statuses)
            if control in readable and (mine := _fork(control, statuses)):
                break
    program, fds = mine
    _become(program, fds, search_path)
    option, *values = program.command
    return option, values


def _fork(control: socket.socket, statuses: dict[int, int]) -> tuple[Program, Sequence[int]] | None:
    """Fork for the program that comes; return it and its descriptors in the fork.

    :param statuses: where the ends of programs are reported, by process ID.
    """
    length, fds, _, _ = socket.recv_fds(control, _NUMBER.size, 16)
    if not length:
        sys.exit()
    with control.makefile("rb") as file:
        program = pickle.loads(file.read(*_NUMBER.unpack(length)))
    status, *others = fds
    pid = os.fork()
    if pid == 0:
        for number in (status, *statuses.values()):
            os.close(number)
        return program, others
    statuses[pid] = status
    os.write(status, _NUMBER.pack(pid))
    for number in others:
        os.close(number)
    return None


@contextmanager
def _woken_by_ended_children() -> Iterator[socket.socket]:
    """Yield a socket that becomes readable when a child ends."""
    woken, waker = socket.socketpair()
    waker.setblocking(False)
    with woken, waker:
        # Without a handler, no signal would be written there.
        before = signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(waker.fileno())
        try:
            yield woken
        finally:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, before)


def _report_ended(statuses: dict[int, int]) -> None:
    while statuses:
        pid, ended = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        # Nobody may be interested any more.
        with open(statuses.pop(pid), "wb", buffering=0) as status, suppress(BrokenPipeError):
            status.write(_NUMBER.pack(ended))


def _become(program: Program, fds: Sequence[int], search_path: Sequence[str]) -> None:
    """Give this process all that a new interpreter would have."""
    os.setsid()
    # By way of numbers above all of the program's, so that no descriptor is overwritten before it is moved.
    for number, fd in zip(program.fds, [_moved(fd, max(program.fds)) for fd in fds], strict=True):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(program.folder)
    os.environ.clear()
    os.environ.update(program.env)
    option, _, *arguments = program.command
    first = str(program.folder) if option == "-m" else ""
    sys.path[:] = [first, *program.env.get("PYTHONPATH", "").split(os.pathsep), *search_path]
    sys.argv[:] = [option, *arguments]


def _moved(fd: int, above: int) -> int:
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above + 1)
    os.close(fd)
    return moved
