"""Ends a demo in order after a signal or the failure of a server, so that the demo stops the servers that it has started."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ServerFailed(Exception):
    """A server did not start, or ended unexpectedly."""


class Stopped(BaseException):
    """A signal asks the demo to stop. Like KeyboardInterrupt, it passes through handlers of Exception."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def until_stopped(run: Callable[[], int]) -> int:
    """Run a demo until it ends, a signal comes or a server fails, and return the exit status."""
    for number in SIGNALS:
        signal.signal(number, _stop_on)
    try:
        return run()
    except ServerFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    except Stopped as stopped:
        return 128 + stopped.number


@contextmanager
def held_back() -> Iterator[None]:
    """Hold signals back until the block ends."""
    _pending.clear()
    _held.append(True)
    try:
        yield
    finally:
        _held.pop()
        if _pending:
            _stop(_pending[0])


#: Not empty while signals are held back; and the numbers of these signals.
_held: list[bool] = []
_pending: list[int] = []


def _stop_on(number: int, frame: FrameType | None) -> None:
    if _held:
        _pending.append(number)
    else:
        _stop(number)


def _stop(number: int) -> NoReturn:
    # Further signals must not interrupt the stopping of the servers, which has its own time limit.
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)
