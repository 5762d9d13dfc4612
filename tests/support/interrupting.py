"""Exceptions that come from nowhere, as from a signal's handler: at each line, or wherever the interpreter looks for signals."""

from __future__ import annotations

import dis
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import flask_stalecache

PACKAGE = str(Path(flask_stalecache.__file__).parent)
#: Instructions after which the interpreter runs the handlers of signals.
_LOOKED_AFTER = ("CALL", "RESUME", "JUMP_BACKWARD")


class Interruption(BaseException):
    """The exception of a signal's handler."""


class Interrupter:
    """Raises once while a function runs: before the nth moment of those in the package that count.

    :param step: the number of the moment. Default: the first.
    :param at_signals: count the moments at which a signal's handler can run. Default: count lines.
    :param seen: the places that were met before; if given, only moments at other places count.
    :ivar place: where it raised; ``None``: there were fewer moments.
    :ivar context: the context variables of the function, a copy of the caller's. In the caller's own context, a variable that an
        interrupted line was about to reset would keep its value in all later tests.
    """

    def __init__(self, step: int = 1, *, at_signals: bool = False, seen: set[tuple[str, int]] | None = None) -> None:
        self._left = step
        self._at_signals = at_signals
        self._seen = seen
        self.place: str | None = None
        self.context = copy_context()

    def run(self, do: Callable[[], object]) -> bool:
        """Run a function, and return whether it was interrupted. Its other exceptions go through."""
        before, hook = sys.gettrace(), sys.unraisablehook
        # Python drops an exception in a finalizer and calls this hook; that of pytest would keep its frames.
        sys.unraisablehook = lambda *_: None
        sys.settrace(self._enter)
        threading.settrace(self._enter)
        try:
            self.context.run(next, _by_itself(do))
        except BaseException:
            # Where Flask is interrupted between two steps, what it does at the end may fail in turn.
            if self.place is None:
                raise
        finally:
            sys.settrace(before)
            sys.unraisablehook = hook
            threading.settrace(before)  # type: ignore[arg-type]
        return self.place is not None

    def _enter(self, frame: FrameType, event: str, _: Any) -> Any:
        if self.place is not None or not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = self._at_signals
        return self._trace

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if self.place is None and event == ("opcode" if self._at_signals else "line") and self._counts(frame):
            self._left -= 1
            if self._left == 0:
                name = os.path.relpath(frame.f_code.co_filename, PACKAGE)
                self.place = f"{name}:{frame.f_lineno} {frame.f_code.co_name}"
                raise Interruption(self.place)
        return self._trace

    def _counts(self, frame: FrameType) -> bool:
        if self._at_signals and frame.f_lasti not in _moments_of(frame.f_code):
            return False
        if self._seen is None:
            return True
        place = frame.f_code.co_filename, frame.f_lasti
        if place in self._seen:
            return False
        self._seen.add(place)
        return True


def _by_itself(do: Callable[[], object]) -> Iterator[object]:
    """Run a function in a generator, which has a handled exception of its own.

    If the line that leaves an ``except`` clause is interrupted, the interpreter does not reset the handled exception.
    """
    yield do()


@cache
def _moments_of(code: Any) -> frozenset[int]:
    return frozenset(_moments(code))


def _moments(code: Any) -> Iterator[int]:
    # Before Python 3.11 there is no such table, and none is needed.
    table = getattr(dis, "_parse_exception_table", lambda code: ())(code)
    before = None
    for instruction in dis.get_instructions(code):
        # A signal's handler raises its exception in the instruction before, so the same ``except`` must catch it there as here.
        if (
            before is not None
            and before.opname.startswith(_LOOKED_AFTER)
            and _catcher(table, before.offset) == _catcher(table, instruction.offset)
        ):
            yield instruction.offset
        before = instruction


def _catcher(table: Any, offset: int) -> list[int]:
    return [entry.target for entry in table if entry.start <= offset < entry.end]


def descriptors() -> dict[str, str]:
    """Return the open descriptors of this process, and where they lead, without those that come and go by themselves."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
    return found
