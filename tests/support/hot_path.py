"""Helpers of the tests of the hot path: no system call, and few calls of functions."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from flask_stalecache.engine.engine import Engine

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

HITS = 1000

#: By machine: the audit architecture, and the numbers of the system calls that are allowed: those for memory; those that end a
#: thread, a process and a signal handler; and write.
_NUMBERS = {
    "x86_64": (0xC000003E, {"brk": 12, "mmap": 9, "mprotect": 10, "munmap": 11, "mremap": 25, "madvise": 28}, (60, 231, 15), 1),
    "aarch64": (
        0xC00000B7,
        {"brk": 214, "mmap": 222, "mprotect": 226, "munmap": 215, "mremap": 216, "madvise": 233},
        (93, 94, 139),
        64,
    ),
}
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER_MODE = 38, 22, 2
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
#: Where the filter finds the number, the architecture and the low half of the first argument.
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16


class Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def forbid_system_calls(descriptor: int) -> None:
    """Let the kernel kill this process at any system call but memory, the end, and writes to one descriptor."""
    architecture, memory, others, write = _NUMBERS[platform.machine()]
    allowed = (*memory.values(), *others)
    steps = [(_LOAD, 0, 0, _ARCHITECTURE), (_JUMP_IF_EQUAL, 0, len(allowed) + 4, architecture), (_LOAD, 0, 0, _NUMBER)]
    steps += [(_JUMP_IF_EQUAL, len(allowed) + 3 - index, 0, number) for index, number in enumerate(allowed)]
    steps += [(_JUMP_IF_EQUAL, 0, 2, write), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_JUMP_IF_EQUAL, 1, 0, descriptor)]
    steps += [(_RETURN, 0, 0, _KILL), (_RETURN, 0, 0, _ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = Program(len(steps), ctypes.cast(code, ctypes.c_void_p))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    gc.collect()
    gc.freeze()
    if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or prctl(_PR_SET_SECCOMP, _FILTER_MODE, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "the filter was refused")


def without_system_calls(prepare: Callable[[], Callable[[], object]]) -> tuple[int, bytes]:
    """Run a function :data:`HITS` times in a fork where system calls are forbidden.

    :param prepare: returns the function; it may make system calls itself.
    :returns: the signal that killed the fork, or 0; and what it wrote: ``ok``, or the exception that the function raised.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            run = prepare()
            forbid_system_calls(writer)
            for _ in range(HITS):
                run()
            os.write(writer, b"ok")
        except BaseException as error:
            os.write(writer, repr(error).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, said


def counted_without_system_calls(
    engine: Engine, prepare: Callable[[], Callable[[], object]], word: str = "HIT"
) -> tuple[int, bytes]:
    """Run hits as :func:`without_system_calls` does, and check that each was counted in a file of the fork's own.

    :param prepare: returns the function, after it has called it once.
    :param word: how they are answered.
    """

    def prepare_counting() -> Callable[[], object]:
        run = prepare()
        engine.registry.open()
        assert engine.registry._file is not None
        return run

    before = hits_of(engine, word)
    outcome = without_system_calls(prepare_counting)
    if outcome == (0, b"ok"):
        assert hits_of(engine, word) - before == HITS + 1
    return outcome


def hits_of(engine: Engine, word: str = "HIT") -> int:
    """Return the hits of all processes."""
    stats = engine.runtime.stats()
    return stats["requests"][word] + stats["calls"][word]


def calls_of_a_hit(app: WSGIApplication, environ: dict[str, Any], word: str = "HIT") -> list[str]:
    """Return the functions of the package that one request calls, from the server's call of the app to the end of the body.

    :param word: how it is answered.
    """
    called: list[str] = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and "flask_stalecache" in code.co_filename:
            called.append(f"{Path(code.co_filename).name}:{code.co_name}")

    told: list[Any] = []
    sys.setprofile(note)
    try:
        body = app(environ, lambda *args: told.append(args))
        b"".join(body)
        # As a server does, before the next request.
        getattr(body, "close", lambda: None)()
        environ.clear()
    finally:
        sys.setprofile(None)
    assert dict(told[0][1])["X-Cache-Status"] == word
    return called
